"""Tell a person what is being done, how far it is, and how long it will take.

On a terminal: a line that lives (rich). In a log, a pipe or CI: plain records, one line each, no carriage
returns, and no more often than every `PLAIN_INTERVAL` seconds while a step runs. Does no work itself.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, TextIO

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, SpinnerColumn, TaskID, TextColumn
from rich.progress import Progress as Bars

#: Seconds between two lines about one running step in a plain log.
PLAIN_INTERVAL = 15.0
#: Steps shorter than this many seconds are told once, not twice.
SHORT = 2.0
#: The width of the text that tells what a step does right now; the rest is cut.
DETAIL_WIDTH = 48


class Step:
    """The handle of a running step; what it is told is shown with the next line or frame."""

    def __init__(self, title: str, *, estimate: float | None = None, started: float | None = None) -> None:
        """`estimate`: seconds; `started`: time.monotonic()."""
        self.title = title
        self.estimate = estimate
        self.started = time.monotonic() if started is None else started
        self.done = 0
        self.total: int | None = None
        self.text = ""

    def at(self, done: int, total: int) -> None:
        """`done` of `total` units are finished."""
        self.done, self.total = done, total

    def detail(self, text: str) -> None:
        """What the step does right now."""
        self.text = text

    def fraction(self, now: float) -> float | None:
        """How much is done, 0 to 1: by units where they are told, else by time; None where nothing says."""
        if self.total:
            return min(self.done / self.total, 1.0)
        if self.estimate:
            return min((now - self.started) / self.estimate, 0.99)
        return None

    def left(self, now: float) -> float | None:
        """Seconds that it will still take, or None: the estimate at first, what was seen later."""
        elapsed = now - self.started
        planned = None if self.estimate is None else max(self.estimate - elapsed, 1.0)
        if not self.total or not self.done:
            return planned
        seen = self.done / self.total
        by_pace = elapsed * (1 - seen) / seen
        return by_pace if planned is None else seen * by_pace + (1 - seen) * planned

    def told(self, now: float) -> str:
        """One line: units, what it does now, the time left."""
        parts = [f"{self.done} of {self.total}"] if self.total else []
        if self.text:
            parts.append(self.text[:DETAIL_WIDTH])
        left = self.left(now)
        if left is not None:
            parts.append(f"about {duration(left)} left")
        return ", ".join(parts)


class _Display(Protocol):
    def begin(self, step: Step) -> None: ...
    def end(self, step: Step, *, failed: bool) -> None: ...
    def note(self, text: str) -> None: ...


class Progress:
    """Steps of a longer piece of work, told as they happen; steps may run side by side in threads."""

    def __init__(self, *, total: int | None = None, stream: TextIO | None = None) -> None:
        """`total`: how many steps there will be, where known; `stream`: where to write, stderr unless told."""
        out = stream or sys.stderr
        self._total = total
        self._count = 0
        self._lock = threading.Lock()
        terminal = out.isatty() and os.environ.get("TERM") != "dumb"
        self._display: _Display = _Terminal(out) if terminal else _Plain(out)

    @contextmanager
    def step(self, title: str, *, estimate: float | None = None) -> Iterator[Step]:
        """One step named `title` that takes about `estimate` seconds; it ends when the block does."""
        with self._lock:
            self._count += 1
            number = f"{self._count}/{self._total} " if self._total and self._count <= self._total else ""
        step = Step(number + title, estimate=estimate)
        self._display.begin(step)
        failed = True
        try:
            yield step
            failed = False
        finally:
            self._display.end(step, failed=failed)

    def note(self, text: str) -> None:
        """A line that stays."""
        self._display.note(text)


class _Plain:
    """One line when a step begins, one every `PLAIN_INTERVAL` while it runs, one when it ends."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._lock = threading.Lock()
        self._tickers: dict[int, threading.Event] = {}

    def begin(self, step: Step) -> None:
        estimate = f" (about {duration(step.estimate)})" if step.estimate and step.estimate >= SHORT else ""
        self.note(step.title + estimate)
        stop = self._tickers[id(step)] = threading.Event()
        threading.Thread(target=self._tick, args=(step, stop), daemon=True).start()

    def end(self, step: Step, *, failed: bool) -> None:
        self._tickers.pop(id(step)).set()
        took = time.monotonic() - step.started
        if failed:
            self.note(f"{step.title}: failed after {duration(took)}")
        elif took >= SHORT:
            self.note(f"{step.title}: done in {duration(took)}")

    def note(self, text: str) -> None:
        with self._lock:
            print(f"{time.strftime('%H:%M:%S')} {text}", file=self._out, flush=True)

    def _tick(self, step: Step, stop: threading.Event) -> None:
        while not stop.wait(PLAIN_INTERVAL):
            self.note(f"{step.title}: {step.told(time.monotonic()) or 'still running'}")


class _Terminal:
    """A bar for each running step; a line with a check mark stays when it is done."""

    def __init__(self, out: TextIO) -> None:
        self._console = Console(file=out, highlight=False)
        self._lock = threading.Lock()
        self._running: dict[int, tuple[Step, TaskID]] = {}
        self._bars: Bars | None = None
        self._stop = threading.Event()

    def begin(self, step: Step) -> None:
        with self._lock:
            if self._bars is None:
                self._bars = Bars(
                    SpinnerColumn(),
                    TextColumn("{task.description}"),
                    BarColumn(bar_width=24),
                    TextColumn("{task.fields[elapsed]}", style="cyan"),
                    TextColumn("{task.fields[told]}", style="dim"),
                    console=self._console,
                    transient=True,
                )
                self._bars.start()
                self._stop = threading.Event()
                threading.Thread(target=self._tick, args=(self._stop,), daemon=True).start()
            task = self._bars.add_task(escape(step.title), total=None, elapsed="", told="")
            self._running[id(step)] = (step, task)

    def end(self, step: Step, *, failed: bool) -> None:
        with self._lock:
            _, task = self._running.pop(id(step))
            assert self._bars is not None
            self._bars.remove_task(task)
            mark = "[red]✗[/red]" if failed else "[green]✓[/green]"
            took = duration(time.monotonic() - step.started)
            self._console.print(f"{mark} {escape(step.title)} [dim]{took}[/dim]")
            if not self._running:
                self._stop.set()
                self._bars.stop()
                self._bars = None

    def note(self, text: str) -> None:
        self._console.print(escape(text))

    def _tick(self, stop: threading.Event) -> None:
        while not stop.wait(0.2):
            with self._lock:
                now = time.monotonic()
                for step, task in self._running.values():
                    if self._bars is None:
                        return
                    fraction = step.fraction(now)
                    self._bars.update(
                        task,
                        total=None if fraction is None else 1.0,
                        completed=fraction or 0.0,
                        elapsed=duration(now - step.started),
                        told=escape(step.told(now)),
                    )


def duration(seconds: float) -> str:
    """ "0.4 s", "12 s" or "5 min 20 s": as exact as is of use."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    return f"{whole} s" if whole < 60 else f"{whole // 60} min {whole % 60} s"
