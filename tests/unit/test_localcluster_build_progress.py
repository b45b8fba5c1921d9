"""What a person reads while something is built."""

from __future__ import annotations

import io
import re
import threading

import pytest

from localcluster import progress
from localcluster.progress import Progress, Step, duration


class Lines(io.StringIO):
    """A log that tells when it has got `wanted` lines."""

    def __init__(self, wanted: int) -> None:
        super().__init__()
        self._wanted = wanted
        self.enough = threading.Event()

    def write(self, text: str) -> int:
        written = super().write(text)
        if self.getvalue().count("\n") >= self._wanted:
            self.enough.set()
        return written


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def without_times(text: str) -> list[str]:
    assert all(re.match(r"\d\d:\d\d:\d\d ", line) for line in text.splitlines())
    return [line[9:] for line in text.splitlines()]


def test_a_short_step_in_a_log_is_one_line() -> None:
    log = io.StringIO()
    out = Progress(stream=log)
    with out.step("Packing"):
        pass
    out.note("Ready")
    assert without_times(log.getvalue()) == ["Packing", "Ready"]


def test_a_long_step_says_where_it_is_and_how_long_it_took(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PLAIN_INTERVAL", 0.01)
    monkeypatch.setattr(progress, "SHORT", 0.0)
    log = Lines(wanted=3)
    with Progress(total=2, stream=log).step("Building", estimate=300) as step:
        step.at(30, 100)
        step.detail("k8s.io/api")
        assert log.enough.wait(10)
    lines = without_times(log.getvalue())
    assert lines[0] == "1/2 Building (about 5 min 0 s)"
    assert re.fullmatch(r"1/2 Building: 30 of 100, k8s.io/api, about .* left", lines[2])
    assert re.fullmatch(r"1/2 Building: done in \d\.\d s", lines[-1])
    assert "\r" not in log.getvalue()
    assert "\x1b" not in log.getvalue()


def test_a_step_that_fails_says_so() -> None:
    log = io.StringIO()
    with pytest.raises(RuntimeError), Progress(stream=log).step("Building"):
        raise RuntimeError
    assert without_times(log.getvalue())[-1].startswith("Building: failed after 0.")


def test_a_terminal_keeps_a_line_for_each_step_that_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    screen = Terminal()
    out = Progress(total=2, stream=screen)
    with out.step("Build [all]", estimate=5) as step:
        step.at(1, 2)
    with pytest.raises(RuntimeError), out.step("Load"):
        raise RuntimeError
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", screen.getvalue())
    assert "✓ 1/2 Build [all] 0." in shown
    assert "✗ 2/2 Load 0." in shown


@pytest.mark.parametrize(
    ("estimate", "done", "total", "elapsed", "left"),
    [
        (300, 0, None, 100, 200),  # nothing but the estimate to go by
        (300, 0, None, 400, 1),  # late: any moment now
        (None, 0, None, 10, None),
        (None, 25, 100, 10, 30),  # a quarter took 10 s
        (100, 50, 100, 100, 50.5),  # half way: as much by the pace seen (100 s) as by the estimate (1 s)
    ],
)
def test_time_left(estimate: float | None, done: int, total: int | None, elapsed: float, left: float | None) -> None:
    step = Step("x", estimate=estimate, started=0.0)
    if total:
        step.at(done, total)
    assert step.left(elapsed) == left


def test_fraction_never_passes_one() -> None:
    step = Step("x", estimate=10, started=0.0)
    assert step.fraction(5) == 0.5
    assert step.fraction(500) == 0.99
    step.at(7, 5)
    assert step.fraction(1) == 1.0
    assert Step("x", started=0.0).fraction(1) is None


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.42, "0.4 s"), (9.96, "10 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (320, "5 min 20 s")]
)
def test_durations_read_naturally(seconds: float, text: str) -> None:
    assert duration(seconds) == text
