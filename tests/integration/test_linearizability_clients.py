"""The recording clients against three real members: what they see is linearizable, and a lost write is caught."""

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path

import pytest

from integration.etcd_processes import Lab, lab
from linearizability import checker
from linearizability.checker import Verdict
from linearizability.clients import Answer, Clients, KeyClient
from linearizability.history import Kind, Operation, Recorder
from localcluster.progress import Progress


@pytest.fixture
async def three(tmp_path: Path) -> AsyncIterator[Lab]:
    async with lab(tmp_path) as opened:
        await opened.bootstrap(3)
        yield opened


def judge(folder: Path) -> Verdict:
    return checker.judge(checker.program(Progress()), folder / "history.jsonl", pictures=folder)


async def test_clients_through_deaths_and_stops_of_members(three: Lab, tmp_path: Path) -> None:
    endpoints = three.endpoints()
    with Recorder(path=tmp_path / "history.jsonl") as recorder:
        clients = Clients(endpoints=lambda: endpoints, recorder=recorder, seed="1", pace=0.01)
        with clients:
            for _ in range(2):
                await asyncio.sleep(1)  # the clients at work: there is nothing to wait for but time
                leader = three.members[await three.leader()]
                leader.freeze()
                await asyncio.sleep(1.5)
                leader.thaw()
                await three.all_well()
                follower = min(set(three.members) - {await three.leader()})
                await three.members[follower].stop()
                await three.members[follower].start()
                await three.all_well()
        silent = await asyncio.to_thread(clients.read_all)
    verdict = judge(tmp_path)
    assert verdict.linearizable, verdict
    assert not silent
    counts = recorder.counts
    assert all(counts[kind, "done"] > 100 for kind in ("put", "get", "cas")), str(recorder)
    assert counts["cas", "differs"] > 5, str(recorder)
    assert counts["put", "unknown"] + counts["cas", "unknown"] > 5, str(recorder)
    assert verdict.operations >= recorder.acknowledged > 500
    assert verdict.unknown == counts["put", "unknown"] + counts["cas", "unknown"]


async def test_what_a_client_records_is_what_etcd_holds(three: Lab) -> None:
    endpoint = three.endpoint("m0")
    async with aclosing(KeyClient()) as client:
        assert (await client.read(endpoint, "k")).found is None
        made = await client.swap(endpoint, "k", None, "a")
        assert made == Answer(revision=made.revision)
        assert await client.read(endpoint, "k") == Answer(revision=made.revision, found="a", modified=made.revision)
        kept = await client.swap(endpoint, "k", "x", "b")
        assert kept == Answer(revision=made.revision, swapped=False, found="a", modified=made.revision)
        assert (await client.swap(endpoint, "k", None, "b")).swapped is False
        assert (await client.swap(endpoint, "k", "a", "b")).revision == made.revision + 1
        assert (await client.write(endpoint, "k", "c")).revision == made.revision + 2
        assert (await client.read(endpoint, "k")).found == "c"


async def test_a_write_that_real_members_lost_is_caught(three: Lab, tmp_path: Path) -> None:
    """All disks go back to an earlier state, as of a virtual machine's snapshot; etcd itself finds nothing wrong."""
    endpoint = three.endpoint("m0")

    async def stop_all(then: Callable[[Path, Path], object]) -> None:
        await asyncio.gather(*(member.stop() for member in three.members.values()))
        for member in three.members.values():
            then(member.folder / "i1", tmp_path / f"{member.name}-kept")
        await asyncio.gather(*(member.start() for member in three.members.values()))
        await three.all_well()

    def put_back(folder: Path, kept: Path) -> None:
        shutil.rmtree(folder)
        shutil.copytree(kept, folder)

    with Recorder(path=tmp_path / "history.jsonl") as recorder:
        async with aclosing(KeyClient()) as client:
            for value, then in (("old", shutil.copytree), ("new", put_back)):
                call = time.monotonic_ns()
                told = await client.write(endpoint, "k", value)
                recorder.note(answered("put", call, told, value=value))
                await stop_all(then)
            call = time.monotonic_ns()
            found = await client.read(endpoint, "k")
            recorder.note(answered("get", call, found))
    assert found.found == "old"
    verdict = judge(tmp_path)
    assert verdict.verdict == "NotLinearizable"
    assert len(verdict.reasons) == 2  # the key, and the revision that went back


def answered(kind: Kind, call: int, told: Answer, value: str = "") -> Operation:
    """An operation that has just been answered."""
    return Operation(
        client=0,
        kind=kind,
        key="k",
        outcome="done",
        call=call,
        returned=time.monotonic_ns(),
        value=value,
        found=told.found,
        revision=told.revision,
        modified=told.modified,
    )
