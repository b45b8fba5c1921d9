"""The checker of histories accepts what one etcd can do, and rejects everything else that is planted in a history."""

import heapq
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from etcd_operator.etcd.errors import EtcdError, Kind
from linearizability import checker
from linearizability.checker import NoHistory, Verdict
from linearizability.history import Operation, Recorder, outcome_of
from localcluster.progress import Progress

History = list[Operation]
Judge = Callable[[History], Verdict]


@pytest.fixture(scope="module")
def program() -> Path:
    """The checker, built where it is not in the cache."""
    return checker.program(Progress())


@pytest.fixture
def judge(program: Path, tmp_path: Path) -> Judge:
    """Record a history as the clients do, and ask for the verdict."""

    def judged(history: History) -> Verdict:
        with Recorder(path=tmp_path / "history.jsonl") as recorder:
            for operation in history:
                recorder.note(operation)
        return checker.judge(program, tmp_path / "history.jsonl", pictures=tmp_path)

    return judged


def put(call: int, returned: int, value: str, **more: object) -> Operation:
    return operation("put", call, returned, value=value, **more)


def get(call: int, returned: int, found: str | None, **more: object) -> Operation:
    return operation("get", call, returned, found=found, **more)


def cas(call: int, returned: int, expected: str | None, value: str, **more: object) -> Operation:
    return operation("cas", call, returned, expected=expected, value=value, **more)


def operation(kind: str, call: int, returned: int, **more: object) -> Operation:
    told = {"client": 0, "key": "k", "outcome": "done", **more}
    return Operation(kind=kind, call=call, returned=returned, **told)  # type: ignore[arg-type]


def simulated(seed: int, *, count: int = 1500, clients: int = 6, keys: int = 4) -> History:
    """What clients may see of one etcd: each operation takes effect at some time between its call and its answer.

    Of some nobody knows the outcome; half of those take effect, some of them long after the client gave up.
    """
    dice = Random(seed)
    free = dict.fromkeys(range(clients), 0)
    planned: list[tuple[int, int, Operation, bool]] = []
    for number in range(count):
        client = min(free, key=lambda each: free[each])
        call = free[client] + dice.randint(1, 20)
        returned = call + dice.randint(2, 40)
        free[client] = returned
        kind = dice.choice(("get", "get", "put", "cas"))
        doubtful = kind != "get" and dice.random() < 0.02
        point = dice.randint(call, returned + (400 if doubtful else 0))
        outcome = "unknown" if doubtful else "done"
        value = f"v{number}" if kind != "get" else ""
        planned_one = operation(
            kind, call, returned, client=client, key=f"k{number % keys}", value=value, outcome=outcome
        )
        heapq.heappush(planned, (point, number, planned_one, not doubtful or dice.random() < 0.5))
    return _carried_out(planned, dice)


def _carried_out(planned: list[tuple[int, int, Operation, bool]], dice: Random) -> History:
    held: dict[str, tuple[str, int]] = {}
    seen: dict[str, list[str | None]] = {}
    history, revision = [], 1
    while planned:
        _, _, one, happens = heapq.heappop(planned)
        now, modified = held.get(one.key, (None, 0))
        if one.kind == "cas":
            one = replace(one, expected=dice.choice((now, dice.choice(seen.get(one.key, [None])))))
        writes = happens and (one.kind == "put" or (one.kind == "cas" and one.expected == now))
        if writes:
            revision += 1
            held[one.key] = (one.value, revision)
            seen.setdefault(one.key, []).append(one.value)
        elif one.kind == "get" or one.outcome == "done":
            one = replace(one, found=now, modified=modified, outcome="differs" if one.kind == "cas" else "done")
        if one.outcome != "unknown":
            one = replace(one, revision=revision)
        history.append(one)
    return sorted(history, key=lambda each: each.returned)


def blind(history: History) -> History:
    """The history without what etcd told of revisions, so that only what clients read and wrote can speak."""
    return [replace(each, revision=0, modified=0) for each in history]


@pytest.mark.parametrize("seed", range(8))
def test_what_one_etcd_does_is_accepted(judge: Judge, seed: int) -> None:
    history = simulated(seed)
    verdict = judge(history)
    assert verdict.linearizable, verdict
    assert (verdict.operations, verdict.keys) == (1500, 4)
    assert verdict.unknown == sum(each.outcome == "unknown" for each in history) > 5
    assert judge(blind(history)).linearizable


@pytest.mark.parametrize("seed", range(8))
def test_one_stale_read_among_thousands_is_rejected(judge: Judge, tmp_path: Path, seed: int) -> None:
    history = blind(simulated(seed))
    place, stale = stale_read(history, Random(seed))
    verdict = judge([*history[:place], stale, *history[place + 1 :]])
    assert verdict.verdict == "NotLinearizable"
    assert stale.key in verdict.reasons[0]
    assert verdict.pictures == (str(tmp_path / f"key-{stale.key}.html"),)
    assert (tmp_path / f"key-{stale.key}.html").stat().st_size > 1000


def stale_read(history: History, dice: Random) -> tuple[int, Operation]:
    """A read of the history as it would be if it told a value that had been overwritten before it was asked."""
    reads = [place for place, each in enumerate(history) if each.kind == "get" and each.found]
    dice.shuffle(reads)
    for place in reads:
        read = history[place]
        written = [
            each
            for each in history
            if each.key == read.key and each.value and each.outcome == "done" and each.returned < read.call
        ]
        newest = max((each.call for each in written), default=0)
        old = [each for each in written if each.returned < newest]
        if old:
            return place, replace(read, found=dice.choice(old[-5:]).value)
    raise AssertionError("no read comes after two writes")


UNKNOWN = {"outcome": "unknown"}
ACCEPTED = {
    "a read before any write": [get(1, 2, None), put(3, 4, "a")],
    "overlapping writes in either order": [put(1, 9, "a"), put(2, 8, "b"), get(10, 11, "a"), get(12, 13, "a")],
    "an unknown write that never happens": [
        put(1, 2, "a"),
        put(3, 4, "b", **UNKNOWN),
        get(5, 6, "a"),
        get(90, 91, "a"),
    ],
    "an unknown write that happens late": [put(1, 2, "a"), put(3, 4, "b", **UNKNOWN), get(5, 6, "a"), get(90, 91, "b")],
    "an unknown write between two answers": [
        put(1, 2, "a"),
        put(3, 4, "b", **UNKNOWN),
        put(5, 6, "c"),
        get(7, 8, "b"),
        cas(9, 10, "b", "d"),
        get(11, 12, "d"),
    ],
    "an unknown swap that happens": [put(1, 2, "a"), cas(3, 4, "a", "b", **UNKNOWN), get(5, 6, "a"), get(7, 8, "b")],
    "an unknown swap that never happens": [put(1, 2, "a"), cas(3, 4, "a", "b", **UNKNOWN), get(90, 91, "a")],
    "a swap that finds another value": [
        put(1, 2, "a"),
        cas(3, 4, "x", "b", outcome="differs", found="a"),
        get(5, 6, "a"),
    ],
    "a key made by a swap": [cas(1, 2, None, "a"), cas(3, 4, None, "b", outcome="differs", found="a")],
    "a write that was refused": [put(1, 2, "a"), put(3, 4, "b", outcome="none"), get(5, 6, "a")],
}
REJECTED = {
    "a stale read": [put(1, 2, "a"), put(3, 4, "b"), get(5, 6, "a")],
    "an acknowledged write that is lost": [put(1, 2, "a"), put(3, 4, "b"), get(5, 6, "b"), get(90, 91, "a")],
    "an acknowledged write that is lost, nothing left": [put(1, 2, "a"), get(90, 91, None)],
    "an acknowledged write that nobody reads, swapped past": [put(1, 2, "a"), put(3, 4, "b"), cas(5, 6, "a", "c")],
    "two swaps from one value": [put(1, 2, "a"), cas(3, 9, "a", "b"), cas(4, 8, "a", "c")],
    "two swaps that both make the key": [cas(1, 9, None, "a"), cas(2, 8, None, "b")],
    "a read that turns back between overlapping writes": [
        put(1, 20, "a"),
        put(1, 20, "b"),
        get(2, 3, "a"),
        get(4, 5, "b"),
        get(6, 7, "a"),
    ],
    "an unknown write that happens and is undone": [
        put(1, 2, "a"),
        put(3, 4, "b", **UNKNOWN),
        get(5, 6, "b"),
        get(7, 8, "a"),
    ],
    "an unknown write seen before it was asked for": [put(1, 2, "a"), get(3, 4, "b"), put(5, 6, "b", **UNKNOWN)],
    "an unknown swap that could not happen": [put(1, 2, "a"), cas(3, 4, "x", "b", **UNKNOWN), get(5, 6, "b")],
    "a refused write that is seen": [put(1, 2, "a"), put(3, 4, "b", outcome="none"), get(5, 6, "b")],
    "a value that nobody wrote": [put(1, 2, "a"), get(3, 4, "z")],
    "a swap that finds what it expected and refuses": [
        put(1, 2, "a"),
        cas(3, 4, "a", "b", outcome="differs", found="a"),
    ],
}


@pytest.mark.parametrize("history", ACCEPTED.values(), ids=ACCEPTED)
def test_accepted(judge: Judge, history: History) -> None:
    verdict = judge(history)
    assert verdict.linearizable, verdict


@pytest.mark.parametrize("history", REJECTED.values(), ids=REJECTED)
def test_rejected(judge: Judge, history: History) -> None:
    assert judge(history).verdict == "NotLinearizable"


#: Key by key nothing is wrong with these.
REVISIONS = {
    "an answer from the past of another key": (
        [put(1, 2, "a", key="x", revision=7), get(3, 4, None, key="y", revision=6)],
        "got revision 6",
    ),
    "two writes at one revision": (
        [put(1, 9, "a", key="x", revision=7), put(2, 8, "b", key="y", revision=7)],
        "two writes got revision 7",
    ),
    "a later write at the revision of an answer": (
        [get(1, 2, None, key="x", revision=7), put(3, 4, "a", key="y", revision=7)],
        "got revision 7",
    ),
    "a value that changes its revision": (
        [put(1, 2, "a", revision=7), get(3, 4, "a", revision=9, modified=8)],
        "a was written at revision 7, and at 8",
    ),
}


@pytest.mark.parametrize(("history", "reason"), REVISIONS.values(), ids=REVISIONS)
def test_rejected_for_its_revisions(judge: Judge, history: History, reason: str) -> None:
    verdict = judge(history)
    assert verdict.verdict == "NotLinearizable"
    assert reason in verdict.reasons[0]
    assert judge(blind(history)).linearizable


def test_running_out_of_time_is_no_pass(program: Path, tmp_path: Path) -> None:
    with Recorder(path=tmp_path / "history.jsonl") as recorder:
        for each in simulated(1):
            recorder.note(each)
    verdict = checker.judge(program, tmp_path / "history.jsonl", pictures=tmp_path, timeout=0.000001)
    assert verdict.verdict == "Undecided"
    assert not verdict.linearizable


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "not one operation"),
        ("{", "line 1"),
        ('{"kind": "get", "key": "k", "outcome": "fine"}', "no such operation"),
        ('{"kind": "put", "key": "k", "outcome": "none", "value": "a"}', "not one operation"),
        ('{"kind": "put", "key": "k", "outcome": "done", "value": "a", "call": 3, "return": 2}', "returned before"),
        ('{"kind": "put", "key": "k", "outcome": "done", "value": "a"}\n' * 2, "was written before"),
    ],
)
def test_what_is_no_history_is_no_pass(program: Path, tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "history.jsonl").write_text(text)
    with pytest.raises(NoHistory, match=why):
        checker.judge(program, tmp_path / "history.jsonl", pictures=tmp_path)


@pytest.mark.parametrize("kind", ["refused", "is_learner"])
def test_only_what_never_reached_the_log_had_no_effect(kind: Kind) -> None:
    assert outcome_of("put", EtcdError(kind, "")) == "none"


@pytest.mark.parametrize("kind", ["timeout", "unreachable", "unavailable", "tls", "no_leader", "no_space", "other"])
def test_all_other_failures_leave_a_write_open(kind: Kind) -> None:
    assert outcome_of("cas", EtcdError(kind, "")) == "unknown"
    assert outcome_of("get", EtcdError(kind, "")) == "none"
