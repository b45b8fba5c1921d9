"""The election's rules, on a Lease in memory and a clock that the test turns."""

import asyncio
import copy
from typing import Any

import pytest

from etcd_operator.kube.errors import Conflict, Unavailable
from etcd_operator.runtime.leader import FENCED_AFTER, GIVE_UP_AFTER, Leader, LeadershipLostError

DURATION = 15.0


class LeaseServer:
    """One Lease, with the API server's optimistic locking; `down` makes every request fail."""

    def __init__(self) -> None:
        self.lease: dict[str, Any] | None = None
        self.version = 0
        self.down = False

    async def get(self, *_: Any) -> dict[str, Any] | None:
        self._check()
        return copy.deepcopy(self.lease)

    async def create(self, lease: dict[str, Any]) -> dict[str, Any]:
        self._check()
        if self.lease is not None:
            raise Conflict(status=409, reason="AlreadyExists", message="exists")
        return self._store(lease)

    async def replace(self, lease: dict[str, Any]) -> dict[str, Any]:
        self._check()
        if self.lease is None or lease["metadata"]["resourceVersion"] != self.lease["metadata"]["resourceVersion"]:
            raise Conflict(status=409, reason="Conflict", message="changed")
        return self._store(lease)

    def _store(self, lease: dict[str, Any]) -> dict[str, Any]:
        self.version += 1
        self.lease = copy.deepcopy(lease)
        self.lease["metadata"]["resourceVersion"] = str(self.version)
        return self.lease

    def _check(self) -> None:
        if self.down:
            raise Unavailable(status=503, reason="Down", message="down")


class World:
    """A Lease, candidates, and one time for all of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        self.server = LeaseServer()
        self.slept: list[float] = []
        monkeypatch.setattr(asyncio, "sleep", self.sleep)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        if len(self.slept) > 200:
            raise asyncio.CancelledError

    def candidate(self, name: str) -> Leader:
        return Leader(
            self.server,  # type: ignore[arg-type]
            namespace="ns",
            name="lease",
            identity=name,
            duration=DURATION,
            clock=lambda: self.now,
        )


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


async def test_the_first_candidate_leads_at_once(world: World) -> None:
    first = world.candidate("first")
    await first.acquire()
    assert first.leads
    assert first.may_write()
    assert world.slept == []


async def test_a_candidate_that_cannot_reach_the_lease_says_so_until_it_can(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = world.candidate("first")
    world.server.down = True
    problems: list[str | None] = []

    async def mend(_: float) -> None:
        problems.append(first.problem)
        world.server.down = False

    monkeypatch.setattr(asyncio, "sleep", mend)
    await first.acquire()
    assert problems == ["the Lease ns/lease cannot be read or written: 503 Down: down"]
    assert first.problem is None


async def test_nobody_may_write_before_it_leads(world: World) -> None:
    assert not world.candidate("first").may_write()


async def test_a_killed_leader_is_replaced_after_the_lease_ran_out_and_not_before(world: World) -> None:
    await world.candidate("first").acquire()
    begun = world.now
    second = world.candidate("second")
    await second.acquire()
    assert DURATION <= world.now - begun < DURATION + 1.5
    assert second.leads


async def test_a_takeover_counts_as_a_transition(world: World) -> None:
    await world.candidate("first").acquire()
    await world.candidate("second").acquire()
    assert world.server.lease is not None
    assert world.server.lease["spec"]["leaseTransitions"] == 1


async def test_the_clock_of_the_other_machine_does_not_matter(world: World) -> None:
    await world.candidate("first").acquire()
    assert world.server.lease is not None
    world.server.lease["spec"]["renewTime"] = "1999-01-01T00:00:00.000000Z"  # its clock is decades behind
    begun = world.now
    await world.candidate("second").acquire()
    assert world.now - begun >= DURATION


async def test_a_released_lease_is_taken_at_the_next_look(world: World) -> None:
    first, second = world.candidate("first"), world.candidate("second")
    await first.acquire()
    assert await second._try_to_take() != second.identity
    await first.release()
    assert not first.may_write()
    begun = world.now
    await second.acquire()
    assert world.now - begun < 1.0


async def test_releasing_leaves_a_lease_alone_that_somebody_else_holds(world: World) -> None:
    first = world.candidate("first")
    await first.acquire()
    assert world.server.lease is not None
    world.server.lease["spec"]["holderIdentity"] = "other"
    await first.release()
    assert world.server.lease["spec"]["holderIdentity"] == "other"


async def test_a_leader_that_renews_goes_on_for_ever(world: World) -> None:
    first = world.candidate("first")
    await first.acquire()
    with pytest.raises(asyncio.CancelledError):
        await first.keep()
    assert world.now > 1000 + 10 * DURATION
    assert first.may_write()


async def test_a_leader_gives_up_before_its_lease_runs_out(world: World) -> None:
    first = world.candidate("first")
    await first.acquire()
    world.server.down = True
    with pytest.raises(LeadershipLostError, match="could not be renewed"):
        await first.keep()
    assert world.now - 1000 == pytest.approx(GIVE_UP_AFTER * DURATION, abs=0.1)
    assert not first.may_write()


async def test_an_outage_shorter_than_that_is_survived(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    first = world.candidate("first")
    await first.acquire()
    world.server.down = True
    sleep = world.sleep

    async def sleep_and_mend(seconds: float) -> None:
        await sleep(seconds)
        world.server.down = world.now < 1009

    monkeypatch.setattr(asyncio, "sleep", sleep_and_mend)
    with pytest.raises(asyncio.CancelledError):
        await first.keep()
    assert first.may_write()


async def test_a_leader_that_sees_another_holder_stops_at_once(world: World) -> None:
    first = world.candidate("first")
    await first.acquire()
    assert world.server.lease is not None
    world.server.lease["spec"]["holderIdentity"] = "other"
    world.server._store(world.server.lease)
    with pytest.raises(LeadershipLostError, match="other holds"):
        await first.keep()
    assert not first.may_write()


async def test_a_leader_whose_process_stood_still_may_not_write(world: World) -> None:
    first = world.candidate("first")
    await first.acquire()
    world.now += FENCED_AFTER * DURATION - 0.1
    assert first.may_write()
    world.now += 0.2
    assert not first.may_write()


async def test_a_deleted_lease_is_made_again_by_its_holder(world: World) -> None:
    first = world.candidate("first")
    await first.acquire()
    world.server.lease = None
    assert await first._try_to_take() == first.identity
    assert world.server.lease is not None


async def test_two_candidates_at_once_have_one_winner(world: World) -> None:
    candidates = [world.candidate(name) for name in "abc"]
    await asyncio.gather(*(each._try_to_take() for each in candidates))
    assert sum(each.leads for each in candidates) == 1
