"""The work queue's promises, on a clock that the test turns by hand."""

import asyncio
import heapq
import itertools
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from etcd_operator.runtime.controller import Key
from etcd_operator.runtime.queue import FIRST_BACKOFF, LONGEST_BACKOFF, SLOW, WorkQueue

A = Key("EtcdCluster", "ns", "a")
B = Key("EtcdCluster", "ns", "b")


class HandClock:
    """Time that passes only when the test says so."""

    def __init__(self) -> None:
        self._now = 100.0
        self._timers: list[tuple[float, int, _Timer]] = []
        self._order = itertools.count()

    def time(self) -> float:
        return self._now

    def call_later(self, delay: float, callback: Callable[..., None], *args: Any) -> asyncio.TimerHandle:
        timer = _Timer(callback, args)
        heapq.heappush(self._timers, (self._now + delay, next(self._order), timer))
        return timer  # type: ignore[return-value]

    def turn(self, seconds: float) -> None:
        end = self._now + seconds
        while self._timers and self._timers[0][0] <= end:
            self._now, _, timer = heapq.heappop(self._timers)
            if not timer.cancelled:
                timer.callback(*timer.args)
        self._now = end


class _Timer:
    def __init__(self, callback: Callable[..., None], args: tuple[Any, ...]) -> None:
        self.callback, self.args, self.cancelled = callback, args, False

    def cancel(self) -> None:
        self.cancelled = True


class Runs:
    """A queue together with what it started, in order, as (name, changed)."""

    def __init__(self, places: int = 4, jitter: float = 1.0) -> None:
        self.clock = HandClock()
        self.started: list[tuple[str, bool]] = []
        self.queue = WorkQueue(
            lambda key, changed: self.started.append((key.name, changed)),
            places=places,
            clock=self.clock,
            jitter=lambda: jitter,
        )

    def fail(self, key: Key) -> None:
        self.queue.finish(key, failed=True)

    def succeed(self, key: Key, requeue_after: float | None = None) -> None:
        self.queue.finish(key, failed=False, requeue_after=requeue_after)


def test_many_events_before_a_place_is_free_are_one_run() -> None:
    runs = Runs(places=1)
    runs.queue.add(A)
    for _ in range(5):
        runs.queue.add(B)
    assert runs.queue.depth() == {"EtcdCluster": 1}
    runs.succeed(A)
    runs.succeed(B)
    assert runs.started == [("a", True), ("b", True)]


def test_events_for_a_running_key_make_it_run_once_more() -> None:
    runs = Runs()
    runs.queue.add(A)
    runs.queue.add(A)
    runs.queue.add(A)
    assert runs.started == [("a", True)]
    runs.succeed(A)
    assert runs.started == [("a", True)] * 2
    runs.succeed(A)
    assert len(runs.started) == 2


def test_a_requeue_comes_after_its_time_and_is_no_change() -> None:
    runs = Runs()
    runs.queue.add(A)
    runs.succeed(A, requeue_after=0.05)
    runs.clock.turn(0.04)
    assert len(runs.started) == 1
    runs.clock.turn(0.02)
    assert runs.started == [("a", True), ("a", False)]


def test_an_event_replaces_the_requeue_that_was_asked_for() -> None:
    runs = Runs()
    runs.queue.add(A)
    runs.succeed(A, requeue_after=5)
    runs.queue.add(A)
    assert runs.started[1:] == [("a", True)]
    runs.succeed(A)
    runs.clock.turn(60)
    assert len(runs.started) == 2


def test_failures_back_off_exponentially_up_to_a_limit() -> None:
    runs = Runs()
    runs.queue.add(A)
    waits = []
    for _ in range(12):
        count, since = len(runs.started), runs.clock.time()
        runs.fail(A)
        while len(runs.started) == count:
            runs.clock.turn(0.01)
        waits.append(runs.clock.time() - since)
    assert waits[:4] == pytest.approx([0.2, 0.4, 0.8, 1.6], abs=0.02)
    assert waits[-2:] == pytest.approx([LONGEST_BACKOFF] * 2, abs=0.02)


def test_after_a_thousand_failures_the_wait_is_still_a_number() -> None:
    runs = Runs()
    runs.queue.add(A)
    for _ in range(1200):
        runs.fail(A)
        runs.clock.turn(LONGEST_BACKOFF + 1)
    assert len(runs.started) == 1201


def test_backoff_has_jitter_but_never_less_than_half() -> None:
    runs = Runs(jitter=0.0)
    runs.queue.add(A)
    runs.fail(A)
    runs.clock.turn(FIRST_BACKOFF / 2 - 0.01)
    assert len(runs.started) == 1
    runs.clock.turn(0.02)
    assert len(runs.started) == 2


def test_a_retry_is_told_of_the_change_that_the_failed_run_was_told_of() -> None:
    runs = Runs()
    runs.queue.add(A)
    runs.fail(A)
    runs.clock.turn(1)
    runs.succeed(A, requeue_after=1)
    runs.clock.turn(2)
    runs.fail(A)
    runs.clock.turn(2)
    assert [changed for _, changed in runs.started] == [True, True, False, False]


def test_an_event_shortens_a_long_backoff_to_a_second_but_not_to_nothing() -> None:
    runs = Runs()
    runs.queue.add(A)
    for _ in range(9):
        runs.fail(A)
        runs.clock.turn(LONGEST_BACKOFF + 1)
    runs.fail(A)
    count = len(runs.started)
    for _ in range(100):
        runs.queue.add(A)
    runs.clock.turn(0.9)
    assert len(runs.started) == count
    runs.clock.turn(0.2)
    assert len(runs.started) == count + 1


def test_success_forgets_the_failures() -> None:
    runs = Runs()
    runs.queue.add(A)
    for _ in range(8):
        runs.fail(A)
        runs.clock.turn(LONGEST_BACKOFF + 1)
    runs.succeed(A)
    runs.queue.add(A)
    count = len(runs.started)
    runs.fail(A)
    runs.clock.turn(FIRST_BACKOFF + 0.01)
    assert len(runs.started) == count + 1


def test_a_hundred_keys_that_hang_leave_half_of_the_places_to_the_others() -> None:
    runs = Runs(places=4)
    hanging = [Key("EtcdCluster", "ns", f"hang-{number}") for number in range(100)]
    for key in hanging:
        runs.queue.add(key)
    hung: set[Key] = set()
    while len(hung) < 100:  # the first time, nobody knows them yet
        running = runs.queue.running_longer_than(-1)
        runs.clock.turn(SLOW + 1)
        for key in running:
            runs.fail(key)
        hung.update(running)
    for key in hanging:
        runs.queue.add(key)
    runs.clock.turn(2)
    assert len(runs.queue.running_longer_than(-1)) == 2
    assert runs.queue.depth()["EtcdCluster"] > 90
    runs.queue.add(A)
    runs.queue.add(B)
    assert [name for name, _ in runs.started[-2:]] == ["a", "b"]


def test_after_closing_nothing_starts() -> None:
    runs = Runs(places=1)
    runs.queue.add(A)
    runs.queue.add(B)
    runs.queue.close()
    runs.fail(A)
    runs.queue.add(A)
    runs.clock.turn(100)
    assert runs.started == [("a", True)]


def test_a_quiet_key_costs_nothing() -> None:
    runs = Runs()
    runs.queue.add(A)
    runs.succeed(A)
    assert not runs.queue._entries


class QueueMachine(RuleBasedStateMachine):
    """Any order of events, ends and passing time."""

    KEYS = tuple(Key("EtcdCluster", "ns", name) for name in "abcdef")
    PLACES = 3

    def __init__(self) -> None:
        super().__init__()
        self.clock = HandClock()
        self.running: dict[Key, bool] = {}
        self.unseen: set[Key] = set()
        self.queue = WorkQueue(self.start, places=self.PLACES, clock=self.clock)

    def start(self, key: Key, changed: bool) -> None:
        assert key not in self.running, "never twice at once"
        assert changed or key not in self.unseen, "a change must be told"
        self.running[key] = changed
        self.unseen.discard(key)

    @rule(key=st.sampled_from(KEYS))
    def event(self, key: Key) -> None:
        if key not in self.running:
            self.unseen.add(key)
            self.queue.add(key)
        else:
            self.queue.add(key)
            self.unseen.add(key)

    @rule(seconds=st.floats(0, 100))
    def wait(self, seconds: float) -> None:
        self.clock.turn(seconds)

    @precondition(lambda self: self.running)
    @rule(pick=st.integers(0, 100), failed=st.booleans(), requeue=st.none() | st.floats(0, 10))
    def finish(self, pick: int, failed: bool, requeue: float | None) -> None:
        key = sorted(self.running, key=str)[pick % len(self.running)]
        changed = self.running.pop(key)
        if failed and changed:
            self.unseen.add(key)
        self.queue.finish(key, failed=failed, requeue_after=requeue)

    @invariant()
    def places_are_kept(self) -> None:
        assert len(self.running) <= self.PLACES

    def teardown(self) -> None:
        """However it went: when every run ends well, each change is seen in the end and nothing is left over."""
        for _ in range(100):
            for key in list(self.running):
                self.running.pop(key)
                self.queue.finish(key, failed=False)
            self.clock.turn(LONGEST_BACKOFF + 1)
            if not self.running:
                break
        assert not self.unseen
        assert not self.running
        assert not self.queue.depth()


TestQueueMachine = QueueMachine.TestCase
TestQueueMachine.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
