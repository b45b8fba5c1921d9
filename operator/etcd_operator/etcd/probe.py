"""Asking all members of a cluster at once, within a bound, and telling what each one answered.

It observes only: it changes nothing and concludes nothing. A timeout is retried once before it is told, as one lost
packet must not make a member look dead. The whole round ends within `BUDGET`.
"""

# ruff: noqa: ASYNC109 - a timeout here is a deadline that gRPC tells etcd, which then stops working on the call

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from datetime import UTC, datetime
from typing import TypeVar

from etcd_operator.etcd.client import EtcdClient
from etcd_operator.etcd.errors import EtcdError
from etcd_operator.etcd.model import Answer, Endpoint, KeyHash, MemberList, MemberReport

T = TypeVar("T")

#: Seconds that a whole round may take, whatever the members do.
BUDGET = 4.5

#: A report older than this is asked for anew before it is believed about the leader: an election is that fast.
_FRESH = 0.5

#: Seconds for one try to ask a member whose process has only just begun.
_STARTING = 0.3

#: Seconds between two looks at whether an election is over; etcd tells nobody by itself.
_ELECTION_PACE = 0.1

#: Seconds of the budget kept for the member's own list, when no quorum confirmed it.
_LAST_WORD = 0.4


async def ask(
    client: EtcdClient,
    endpoints: Mapping[str, Endpoint],
    *,
    starting: Collection[str] = (),
    timeout: float = 2.0,
    election: float = 2.0,
    budget: float = BUDGET,
) -> dict[str, Answer]:
    """Ask every member at once, by name.

    starting: names of members whose process has only just begun: it accepts connections long before it answers, so that
    its silence means nothing yet and is not waited for.

    In seconds: `timeout` for one try, `election` for how long a member without a leader may look for one before that
    is told, `budget` for the round.
    """
    answers = await asyncio.gather(
        *(
            _ask_one(client, endpoint, _STARTING if name in starting else timeout, election, budget)
            for name, endpoint in endpoints.items()
        )
    )
    return dict(zip(endpoints, answers, strict=True))


async def compare(
    client: EtcdClient, endpoints: Mapping[str, Endpoint], revision: int, *, timeout: float
) -> dict[str, KeyHash]:
    """The hash of every member's keys at one revision, by name; without those that gave none in `timeout` seconds."""
    told = await asyncio.gather(
        *(client.hash_kv(endpoint, revision, timeout=timeout) for endpoint in endpoints.values()),
        return_exceptions=True,
    )
    for each in told:
        if isinstance(each, BaseException) and not isinstance(each, EtcdError):
            raise each
    return {name: each for name, each in zip(endpoints, told, strict=True) if isinstance(each, KeyHash)}


async def _ask_one(client: EtcdClient, endpoint: Endpoint, timeout: float, election: float, budget: float) -> Answer:
    asked_at = datetime.now(UTC)
    started = asyncio.get_running_loop().time()
    ends = started + budget

    def left(keep: float = 0.0) -> float:
        """Seconds for the next try, with `keep` seconds left for those after it."""
        return min(timeout, max(ends - keep - asyncio.get_running_loop().time(), 0.05))

    def answer(status: MemberReport | None, members: MemberList | None, error: EtcdError | None) -> Answer:
        confirmed = members is not None and error is None
        return Answer(status=status, members=members, linearizable=confirmed, error=error, asked_at=asked_at)

    try:
        status = await _twice(lambda: client.status(endpoint, timeout=left()))
    except EtcdError as error:
        return answer(None, None, error)
    if status.is_learner:
        return answer(status, None, None)

    async def confirmed() -> MemberList:
        nonlocal status
        if ends - asyncio.get_running_loop().time() < budget - _FRESH:
            status = await client.status(endpoint, timeout=left(keep=_LAST_WORD))
        while not status.leader_id:
            if asyncio.get_running_loop().time() > started + election:
                raise EtcdError("no_leader", "no leader")
            await asyncio.sleep(_ELECTION_PACE)
            status = await client.status(endpoint, timeout=left(keep=_LAST_WORD))
        return await client.members(endpoint, linearizable=True, timeout=left(keep=_LAST_WORD))

    try:
        return answer(status, await _twice(confirmed), None)
    except EtcdError as error:
        unconfirmed = error
    try:
        own = await client.members(endpoint, linearizable=False, timeout=left())
    except EtcdError:
        own = None
    return answer(status, own, unconfirmed)


async def _twice(attempt: Callable[[], Awaitable[T]]) -> T:
    """Try again once after a timeout."""
    try:
        return await attempt()
    except EtcdError as error:
        if error.kind != "timeout":
            raise
    return await attempt()
