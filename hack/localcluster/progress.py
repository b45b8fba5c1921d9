"""Tell a person what is being done, how far it is, and how long it will take.

On a terminal: a line that lives (rich); in a log, a pipe or CI: plain records, one line each, no carriage
returns, never more often than `PLAIN_INTERVAL`. Says nothing about what is done: callers do the work.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

#: Seconds between two lines about one running step in a plain log.
PLAIN_INTERVAL = 15.0


class Progress:
    """Steps of a longer piece of work, told as they happen."""

    def __init__(self, *, total: int | None = None, stream: TextIO | None = None) -> None:
        """`total`: how many steps there will be, where known; `stream`: where to write (stderr)."""
        self._total = total
        self._stream = stream or sys.stderr

    @contextmanager
    def step(self, title: str, *, estimate: float | None = None) -> Iterator[Step]:
        """One step named `title` that takes about `estimate` seconds; ends when the block does."""
        step = Step(title)
        print(title, file=self._stream, flush=True)
        yield step

    def note(self, text: str) -> None:
        """A line that stays."""
        print(text, file=self._stream, flush=True)


class Step:
    """The handle of a running step: `step.at(done, total)` moves the bar, `step.detail("...")` says what it does."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.done = 0
        self.total: int | None = None
        self.text = ""

    def at(self, done: int, total: int) -> None:
        """`done` of `total` units are finished."""
        self.done, self.total = done, total

    def detail(self, text: str) -> None:
        """What the step does right now."""
        self.text = text
