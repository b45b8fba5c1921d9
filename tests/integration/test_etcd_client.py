"""The client and the probe against three real members with TLS both ways."""

import asyncio
import dataclasses
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

import pytest

from etcd_operator.etcd.client import EtcdClient
from etcd_operator.etcd.errors import EtcdError, Kind
from etcd_operator.etcd.model import AlarmKind, Answer, Endpoint
from etcd_operator.etcd.options import minor
from etcd_operator.etcd.probe import ask
from etcd_operator.pki import issue, new_authority
from integration.etcd_processes import FAST, NEWEST, VERSIONS, Lab, lab, until

T = TypeVar("T")


@pytest.fixture
async def three(tmp_path: Path) -> AsyncIterator[Lab]:
    async with lab(tmp_path) as opened:
        await opened.bootstrap(3)
        yield opened


async def refused_with(kind: Kind, endpoint: Endpoint, client: EtcdClient) -> str:
    with pytest.raises(EtcdError) as raised:
        await client.status(endpoint)
    assert raised.value.kind == kind, raised.value.detail
    return raised.value.message


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_healthy_cluster_is_told_in_full(tmp_path: Path, version: str) -> None:
    async with lab(tmp_path, version) as opened:
        await opened.bootstrap(3)
        answers = await ask(opened.client, opened.endpoints())
        reports = [answer.status for answer in answers.values() if answer.status]
        lists = [answer.members for answer in answers.values() if answer.members]
        assert len(reports) == len(lists) == 3
        assert all(answer.linearizable and answer.error is None for answer in answers.values())
        assert len({report.cluster_id for report in reports} | {found.cluster_id for found in lists}) == 1
        assert {report.version for report in reports} == {version}
        assert [report.is_leader for report in reports].count(True) == 1
        assert lists[0] == lists[1] == lists[2]
        assert {member.name: member.peer_urls[0] for member in lists[0].members} == opened.urls()
        assert {member.id for member in lists[0].voters} == {report.member_id for report in reports}
        for report in reports:
            assert report.db_size >= report.db_size_in_use > 0
            assert report.raft_index >= report.raft_applied_index > 0
            if minor(version) == "3.5":
                assert (report.db_quota, report.storage_version) == (None, None)
            else:  # a new cluster's storage is 3.5's for up to 5 s
                assert report.db_quota == 2**31
                assert report.storage_version in ("3.5.0", f"{minor(version)}.0")
        assert await opened.client.alarms(opened.endpoint("m0")) == ()
        hashes = {await hash_of(opened, name) for name in opened.members}
        assert len(hashes) == 1


async def hash_of(opened: Lab, name: str) -> int:
    return (await opened.client.hash_kv(opened.endpoint(name))).hash


def why_silent(answer: Answer) -> Kind:
    """The error of a member that gave no report."""
    assert answer.status is None
    assert answer.error is not None
    return answer.error.kind


async def test_a_member_that_hangs_is_unknown_and_a_member_that_is_gone_is_refused(three: Lab) -> None:
    leader = await three.leader()
    hung, gone = (name for name in three.members if name != leader)
    three.members[hung].freeze()
    began = time.monotonic()
    answers = await ask(three.client, three.endpoints())
    assert time.monotonic() - began < 5.5
    assert why_silent(answers[hung]) == "timeout"
    assert answers[leader].linearizable, "two of three are a quorum"

    three.members[hung].thaw()
    await three.all_well()
    await three.members[gone].stop()
    began = time.monotonic()
    answers = await ask(three.client, three.endpoints())
    assert time.monotonic() - began < 1.5, "a refused connection needs no waiting"
    assert why_silent(answers[gone]) == "refused"
    assert answers[leader].linearizable
    assert answers[hung].linearizable


async def test_without_a_quorum_the_survivor_says_so_and_tells_its_own_list(three: Lab) -> None:
    leader = await three.leader()
    others = [name for name in three.members if name != leader]
    await asyncio.gather(*(three.members[name].stop() for name in others))
    answers = await ask(three.client, three.endpoints())
    survivor = answers[leader]
    assert survivor.status is not None
    assert not survivor.linearizable
    assert survivor.error is not None
    assert survivor.error.kind == "no_leader"
    assert survivor.members is not None
    assert {member.name for member in survivor.members.members} == set(three.members)
    with pytest.raises(EtcdError) as raised:
        await three.client.put(three.endpoint(leader), b"k", b"v", timeout=1)
    assert raised.value.uncertain, "the write may yet be committed when the others come back"

    await asyncio.gather(*(three.members[name].start() for name in others))
    await three.all_well()


async def test_a_member_that_restarts_without_a_quorum_is_unknown(three: Lab) -> None:
    """etcd accepts no client before it has found a leader, so such a member hangs instead of answering."""
    for member in three.members.values():
        await member.stop()
    await three.members["m0"].start()
    await until(lambda: listens(three.members["m0"].ports[0]), within=10)
    answers = await ask(three.client, {"m0": three.endpoint("m0")})
    assert why_silent(answers["m0"]) == "timeout"


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


async def test_a_learner_is_added_caught_up_and_promoted(three: Lab) -> None:
    joiner = three.add("m3")
    urls = three.urls()
    peer_urls = (joiner.peer_url,)
    member, members = await past("unhealthy_cluster", lambda: three.client.member_add(three.endpoint("m0"), peer_urls))
    assert member.is_learner
    assert not member.started
    assert members.by_peer_url(joiner.peer_url) == member
    with pytest.raises(EtcdError) as raised:
        await three.client.member_add(three.endpoint("m0"), peer_urls)
    assert raised.value.kind == "already_exists"
    with pytest.raises(EtcdError) as raised:
        await three.client.member_promote(three.endpoint("m0"), member.id)
    assert raised.value.kind == "learner_not_ready"

    joiner.write(three.tls, initial_cluster=urls, state="existing")
    await joiner.start()
    assert (await past("refused", lambda: three.client.status(three.endpoint("m3"), timeout=10))).is_learner
    answer = (await ask(three.client, {"m3": three.endpoint("m3")}))["m3"]
    assert answer.members is None, "learners do not tell the list"
    assert answer.error is None
    with pytest.raises(EtcdError) as raised:
        await three.client.members(three.endpoint("m3"), linearizable=False)
    assert raised.value.kind == "is_learner"

    promoted = await past("learner_not_ready", lambda: three.client.member_promote(three.endpoint("m0"), member.id))
    assert len(promoted.voters) == 4
    with pytest.raises(EtcdError) as raised:
        await three.client.member_promote(three.endpoint("m0"), member.id)
    assert raised.value.kind == "not_a_learner"
    await three.all_well()

    left = await past("unhealthy_cluster", lambda: three.client.member_remove(three.endpoint("m0"), member.id))
    assert left.by_id(member.id) is None
    with pytest.raises(EtcdError) as raised:
        await three.client.member_remove(three.endpoint("m0"), member.id)
    assert raised.value.kind == "not_found"
    await joiner.exit_code()


async def past(kind: Kind, change: Callable[[], Awaitable[T]]) -> T:
    """Repeat while etcd answers with that error; `unhealthy_cluster` it says for 5 s after voters connected."""
    async with asyncio.timeout(20):
        while True:
            try:
                return await change()
            except EtcdError as error:
                if error.kind != kind:
                    raise
            await asyncio.sleep(0.05)


async def test_the_lead_moves_to_whom_it_is_told(three: Lab) -> None:
    leader = await three.leader()
    follower = next(name for name in three.members if name != leader)
    target = await three.client.status(three.endpoint(follower))
    with pytest.raises(EtcdError) as raised:
        await three.client.move_leader(three.endpoint(follower), target.member_id)
    assert raised.value.kind == "not_leader"
    await three.client.move_leader(three.endpoint(leader), target.member_id)
    assert await three.leader() == follower
    with pytest.raises(EtcdError) as raised:
        await three.client.move_leader(three.endpoint(follower), 12345)
    assert raised.value.kind == "bad_transferee"


async def test_a_full_quota_is_an_alarm_that_can_be_disarmed(tmp_path: Path) -> None:
    async with lab(tmp_path) as opened:
        await opened.bootstrap(1, options=dataclasses.replace(FAST, quota_bytes=2 * 1024 * 1024))
        endpoint = opened.endpoint("m0")
        with pytest.raises(EtcdError) as raised:
            await fill(opened, endpoint)
        assert raised.value.kind == "no_space"
        report = await opened.client.status(endpoint)
        assert report.db_quota == 2 * 1024 * 1024
        assert any("NOSPACE" in error for error in report.errors)
        (alarm,) = await opened.client.alarms(endpoint)
        assert (alarm.kind, alarm.member_id) == (AlarmKind.NOSPACE, report.member_id)
        assert await opened.client.get(endpoint, b"k0") == b"v" * 1024 * 1024, "reads go on"
        await opened.client.disarm(endpoint, alarm)
        assert await opened.client.alarms(endpoint) == ()


async def fill(opened: Lab, endpoint: Endpoint) -> None:
    """Write until etcd refuses. It learns of its size only when it commits, each 100 ms: a dozen writes may slip by."""
    for number in range(200):
        await opened.client.put(endpoint, b"k%d" % number, b"v" * 1024 * 1024)


async def test_certificates_are_checked_on_both_sides(three: Lab) -> None:
    good = three.endpoint("m0")
    assert good.tls is not None
    stranger = new_authority("stranger", datetime.now(UTC))
    other = issue(
        stranger,
        common_name="root",
        now=datetime.now(UTC),
        lifetime=timedelta(days=1),
        server=False,
        client=True,
    )
    untrusted = dataclasses.replace(good, tls=dataclasses.replace(good.tls, ca=stranger.cert_pem))
    foreign = dataclasses.replace(good, tls=dataclasses.replace(good.tls, cert=other.cert_pem, key=other.key_pem))
    nameless = dataclasses.replace(good, server_name="m0.elsewhere.test")
    plain_port = dataclasses.replace(good, address=f"127.0.0.1:{three.members['m0'].ports[2]}")
    assert "expected authority" in await refused_with("tls", untrusted, three.client)
    assert "refused the certificate" in await refused_with("tls", foreign, three.client)
    assert "does not carry its name" in await refused_with("tls", nameless, three.client)
    assert "does not speak TLS" in await refused_with("tls", plain_port, three.client)
    await refused_with("unavailable", dataclasses.replace(good, tls=None), three.client)
    by_name = dataclasses.replace(good, address=good.address.replace("127.0.0.1", "localhost"), server_name=None)
    assert (await three.client.status(by_name)).version == NEWEST


async def test_no_connection_is_kept_to_a_resting_cluster(tmp_path: Path) -> None:
    counted: Counter[tuple[str, str]] = Counter()

    def count(method: str, outcome: str) -> None:
        counted[method, outcome] += 1

    async with lab(tmp_path, count=count, idle=0.3) as opened:
        await opened.bootstrap(1)
        port = opened.members["m0"].ports[0]
        await opened.client.status(opened.endpoint("m0"))
        assert opened.client.open_connections == 1
        assert established(port) > 0
        await until(lambda: not opened.client.open_connections and not established(port), within=5)
        await opened.client.status(opened.endpoint("m0"))
        assert counted["Status", "ok"] >= 3
        assert counted["MemberList", "ok"] >= 1


async def test_a_failed_connection_is_not_dialled_again_behind_our_back(tmp_path: Path) -> None:
    """Nothing but the caller decides when a member is asked; a listener counts who comes."""
    dialled = 0

    async def slam(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal dialled
        dialled += 1
        writer.close()

    server = await asyncio.start_server(slam, "127.0.0.1", 0)
    endpoint = Endpoint(address=f"127.0.0.1:{server.sockets[0].getsockname()[1]}")
    async with server, EtcdClient() as client:
        await refused_with("unavailable", endpoint, client)
        assert client.open_connections == 0
        once = dialled
        await asyncio.sleep(1)  # three back-offs of gRPC's
        assert dialled == once


def established(port: int) -> int:
    """How many connections the kernel holds to that local port (state 01 of /proc/net/tcp and tcp6)."""
    lines = [line for name in ("tcp", "tcp6") for line in Path("/proc/net", name).read_text().splitlines()[1:]]
    fields = [line.split() for line in lines]
    return sum(1 for field in fields if field[2].endswith(f":{port:04X}") and field[3] == "01")


async def test_the_budget_holds_whatever_the_members_do(three: Lab) -> None:
    for member in three.members.values():
        member.freeze()
    began = time.monotonic()
    answers = await ask(three.client, three.endpoints(), timeout=2, budget=1)
    assert time.monotonic() - began < 2.5, "two tries of 2 s would take 4"
    assert {answer.error.kind for answer in answers.values() if answer.error} == {"timeout"}
    for member in three.members.values():
        member.thaw()
