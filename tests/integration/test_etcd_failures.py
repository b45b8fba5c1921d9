"""Real members run into each failure, on every supported version; judged from what Kubernetes would keep of the log."""

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from etcd_operator.etcd.config import Options
from etcd_operator.etcd.failures import Kind, judge
from etcd_operator.etcd.options import minor
from integration.etcd_processes import FAST, VERSIONS, Lab, MemberProcess, lab


@pytest.fixture(params=VERSIONS)
async def one(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Lab]:
    """A cluster of one whose member has stopped, its file being the fuse."""
    async with lab(tmp_path, request.param) as opened:
        await opened.bootstrap(1)
        await opened.client.put(opened.endpoint("m0"), b"k", b"v")
        await opened.members["m0"].stop(signal.SIGTERM)
        fuse(opened, opened.members["m0"])
        yield opened


def fuse(opened: Lab, member: MemberProcess, options: Options = FAST) -> None:
    member.write(opened.tls, initial_cluster={member.name: member.peer_url}, state="existing", options=options)


async def last_words(member: MemberProcess) -> tuple[Kind, str]:
    member.log.write_bytes(b"")
    await member.start()
    code = await member.exit_code()
    failure = judge(member.last_log(), code)
    return failure.kind, failure.sentence


async def test_the_fuse_holds_and_data_goes_on(one: Lab) -> None:
    member = one.members["m0"]
    await member.start()
    await one.all_well()
    assert await one.client.get(one.endpoint("m0"), b"k") == b"v", "on its data a restart ignores the list"
    await member.stop()
    shutil.rmtree(member.folder / "i1")
    for _ in range(2):  # a directory that etcd has begun to fill must not pass for data the next time
        kind, sentence = await last_words(member)
        assert kind == "fuse", sentence


@pytest.mark.parametrize("version", VERSIONS)
async def test_the_fuse_holds_in_a_cluster_of_three(tmp_path: Path, version: str) -> None:
    async with lab(tmp_path, version) as opened:
        await opened.bootstrap(3)
        emptied = opened.members["m2"]
        await emptied.stop()
        shutil.rmtree(emptied.folder / "i1")
        fuse(opened, emptied)
        assert (await last_words(emptied))[0] == "fuse"
        emptied.write(opened.tls, initial_cluster=opened.urls(), state="new")
        assert (await last_words(emptied))[0] == "already_bootstrapped"
        some = {name: url for name, url in opened.urls().items() if name != "m1"}
        emptied.write(opened.tls, initial_cluster=some, state="existing")
        kind, sentence = await last_words(emptied)
        assert (kind, sentence.rpartition(": ")[2]) == ("member_list", "member count is unequal")


async def test_options_that_etcd_refuses(one: Lab) -> None:
    member = one.members["m0"]
    fuse(one, member, Options(heartbeat_ms=500, election_ms=600))
    kind, sentence = await last_words(member)
    assert kind == "bad_option"
    assert "--election-timeout[600ms] should be at least as 5 times as --heartbeat-interval[500ms]" in sentence
    fuse(one, member, Options(extra={"max-txn-ops": "many"}))
    assert (await last_words(member))[0] == "bad_option"
    fuse(one, member, Options(extra={"log-level": "loud"}))
    kind, sentence = await last_words(member)
    assert (kind, 'unrecognized level: "loud"' in sentence) == ("bad_option", True)


async def test_certificates_that_cannot_be_used(one: Lab) -> None:
    member, certificate = one.members["m0"], one.tls / "peer/tls.crt"
    certificate.write_bytes((one.tls / "server/tls.crt").read_bytes())
    assert await last_words(member) == ("tls", "its certificate and key do not belong together")
    certificate.write_bytes(b"garbage")
    assert (await last_words(member))[0] == "tls"


async def test_a_port_that_is_taken(one: Lab) -> None:
    member = one.members["m0"]
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", member.ports[0]))
        other.listen()
        kind, sentence = await last_words(member)
    assert kind == "address_in_use"
    assert str(member.ports[0]) in sentence


def garbage(database: Path) -> None:
    database.write_bytes(b"\xff" * database.stat().st_size)


def cut_short(database: Path) -> None:
    database.write_bytes(database.read_bytes()[:5000])


@pytest.mark.parametrize("damage", [garbage, cut_short])
async def test_a_database_that_cannot_be_read(one: Lab, damage: Callable[[Path], None]) -> None:
    member = one.members["m0"]
    damage(member.folder / "i1/member/snap/db")
    kind, sentence = await last_words(member)
    assert kind == "corrupt", sentence


async def test_a_log_that_lost_its_contents(one: Lab) -> None:
    member = one.members["m0"]
    (log,) = (member.folder / "i1/member/wal").glob("*.wal")
    log.write_bytes(b"")
    kind, _ = await last_words(member)
    assert kind in ("corrupt", "unknown"), "3.7.3 dies of a nil pointer there, which tells nothing"


@contextlib.contextmanager
def small_volume(folder: Path) -> Iterator[None]:
    """A file system of 1 MiB at that place; etcd's first log file alone takes 64."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=700", "tmpfs", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
async def test_a_volume_that_is_full(one: Lab) -> None:
    member = one.add("m1")
    with small_volume(member.folder / "i1"):
        member.write(one.tls, initial_cluster={"m1": member.peer_url}, state="new")
        kind, sentence = await last_words(member)
    assert kind in ("storage", "no_space")
    assert "full" in sentence


@pytest.mark.parametrize(("newer", "older"), [("3.7.3", "3.6.16"), ("3.6.16", "3.5.35")])
async def test_data_of_a_newer_version(tmp_path: Path, newer: str, older: str) -> None:
    async with lab(tmp_path, newer) as opened:
        await opened.bootstrap(1)
        member = opened.members["m0"]
        await storage_of(opened, f"{minor(newer)}.0")
        joiner = opened.add("m1", older)
        joiner.write(opened.tls, initial_cluster=opened.urls(), state="existing")
        await opened.client.member_add(opened.endpoint("m0"), (joiner.peer_url,))
        kind, sentence = await last_words(joiner)
        assert kind == "wrong_version", sentence
        await member.stop(signal.SIGTERM)
        member.version = older
        fuse(opened, member)
        kind, sentence = await last_words(member)
        assert kind == "wrong_version", (sentence, member.last_log())


async def storage_of(opened: Lab, version: str) -> None:
    """Wait for the storage to be of that version; a new cluster's is for up to 5 s."""
    async with asyncio.timeout(20):
        while (await opened.client.status(opened.endpoint("m0"))).storage_version != version:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
