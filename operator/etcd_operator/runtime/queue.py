"""Which key is reconciled when: deduplication, backoff, and fairness between keys.

Pure scheduling on an event loop's clock: it starts nothing itself but calls back, and hears when a run ended.
The promises:

- a key never runs twice at once; an event for a running key makes it run once more afterwards;
- a key that fails waits 0.2 s, then twice as long each time, up to 60 s, with jitter; an event shortens that
  wait to a second, not to nothing, or a reconcile that fails and causes events would spin;
- one key never waits for another: keys whose last run was slow or timed out may together take only half of
  the places, so that a hundred clusters that hang leave room for the ones that do not.
"""

import asyncio
import random
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from etcd_operator.runtime.controller import Key

#: Seconds: the first wait after a failure, the longest, and the longest once an event came for the key.
FIRST_BACKOFF = 0.2
LONGEST_BACKOFF = 60.0
LONGEST_BACKOFF_WITH_EVENT = 1.0
#: A run that took longer than this, in seconds, makes its key a slow one until a run is quick again.
SLOW = 5.0


class Clock(Protocol):
    """The two things that the queue needs of an event loop."""

    def time(self) -> float: ...

    def call_later(self, delay: float, callback: Callable[..., None], *args: Any) -> asyncio.TimerHandle: ...


@dataclass(slots=True)
class _Entry:
    """What is known of one key that is queued, waiting, running or failing; all other keys cost nothing."""

    #: An event came that no finished run has seen.
    changed: bool = False
    queued: bool = False
    running: bool = False
    #: What the current run was told, to tell it again if it fails.
    told_changed: bool = False
    started: float = 0.0
    timer: asyncio.TimerHandle | None = None
    failures: int = 0
    #: Not before this time, on the clock, even if an event comes.
    not_before: float = 0.0
    slow: bool = False


class WorkQueue:
    """A deduplicating queue of keys in front of a limited number of places; belongs to one event loop."""

    def __init__(
        self,
        start: Callable[[Key, bool], None],
        *,
        places: int,
        clock: Clock,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """`start(key, changed)` begins a run; its end must be told by `finish`."""
        self._start = start
        self._places = places
        self._slow_places = max(1, places // 2)
        self._clock = clock
        self._jitter = jitter
        self._entries: dict[Key, _Entry] = {}
        self._quick: deque[Key] = deque()
        self._slow: deque[Key] = deque()
        self._running = 0
        self._running_slow = 0
        self._closed = False

    def add(self, key: Key) -> None:
        """Something happened: run the key as soon as there is a place (after a failure: within a second)."""
        if self._closed:
            return
        entry = self._entries.setdefault(key, _Entry())
        entry.changed = True
        if not entry.running and not entry.queued:
            self._wait(key, entry, entry.not_before - self._clock.time())
            self._dispatch()

    def finish(self, key: Key, *, failed: bool, requeue_after: float | None = None) -> None:
        """A run ended; `requeue_after` (seconds) is not looked at when it failed."""
        entry = self._entries[key]
        entry.running = False
        self._running -= 1
        self._running_slow -= entry.slow
        took = self._clock.time() - entry.started
        entry.slow = took > SLOW
        if failed:
            self._back_off(key, entry)
        else:
            entry.failures, entry.not_before = 0, 0.0
            if entry.changed:
                self._wait(key, entry, 0.0)
            elif requeue_after is not None:
                self._wait(key, entry, requeue_after)
            elif not entry.slow:
                del self._entries[key]
        self._dispatch()

    def close(self) -> None:
        """Start nothing any more, and forget what waits."""
        self._closed = True
        for entry in self._entries.values():
            if entry.timer is not None:
                entry.timer.cancel()
                entry.timer = None
        self._quick.clear()
        self._slow.clear()

    def depth(self) -> Counter[str]:
        """How many keys of each kind wait for a place right now."""
        return Counter(key.kind for key, entry in self._entries.items() if entry.queued)

    def running_longer_than(self, seconds: float) -> list[Key]:
        """Keys whose run began longer ago than that."""
        since = self._clock.time() - seconds
        return [key for key, entry in self._entries.items() if entry.running and entry.started < since]

    def _back_off(self, key: Key, entry: _Entry) -> None:
        entry.failures += 1
        # The exponent is bounded, as 2.0 ** 1100 raises OverflowError.
        longest = min(LONGEST_BACKOFF, FIRST_BACKOFF * 2.0 ** min(entry.failures - 1, 20))
        backoff = longest * (0.5 + 0.5 * self._jitter())
        with_event = min(backoff, LONGEST_BACKOFF_WITH_EVENT)
        entry.not_before = self._clock.time() + with_event
        wait = with_event if entry.changed else backoff
        entry.changed = entry.changed or entry.told_changed
        self._wait(key, entry, wait)

    def _wait(self, key: Key, entry: _Entry, seconds: float) -> None:
        """Queue the key after some seconds; whatever it waited for before is forgotten."""
        if entry.timer is not None:
            entry.timer.cancel()
            entry.timer = None
        if self._closed:
            return
        if seconds > 0:
            entry.timer = self._clock.call_later(seconds, self._due, key)
            return
        entry.queued = True
        (self._slow if entry.slow else self._quick).append(key)

    def _due(self, key: Key) -> None:
        entry = self._entries[key]
        entry.timer = None
        self._wait(key, entry, 0.0)
        self._dispatch()

    def _dispatch(self) -> None:
        while self._running < self._places:
            # Slow keys first while they have places left: the quick ones get theirs at the latest when these are full.
            if self._slow and self._running_slow < self._slow_places:
                key = self._slow.popleft()
            elif self._quick:
                key = self._quick.popleft()
            else:
                return
            entry = self._entries[key]
            entry.told_changed, entry.changed = entry.changed, False
            entry.queued, entry.running, entry.started = False, True, self._clock.time()
            self._running += 1
            self._running_slow += entry.slow
            self._start(key, entry.told_changed)
