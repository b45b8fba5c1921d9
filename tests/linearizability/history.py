"""A history: what concurrent clients asked of etcd, when, and how it ended; lines of JSON, as history.go reads them."""

import json
import threading
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal, Self, TextIO

from etcd_operator.etcd.errors import EtcdError

Kind = Literal["put", "get", "cas"]
#: done: it took effect, or was answered; differs: a compare-and-swap found another value; unknown: it may take effect
#: at any later time, or never; none: it certainly had no effect.
Outcome = Literal["done", "differs", "unknown", "none"]

#: Failures of a write that prove that it never reached etcd's log: no connection came about, or the member refused the
#: call before it looked at it. All others leave it open, those of etcd's own answers included.
NO_EFFECT = frozenset({"refused", "is_learner"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Operation:
    """One operation of one client; the fields are described in history.go."""

    client: int
    kind: Kind
    key: str
    outcome: Outcome
    call: int
    # `return` is a word of Python's.
    returned: int
    value: str = ""
    expected: str | None = None
    found: str | None = None
    revision: int = 0
    modified: int = 0
    member: str = ""
    #: Why it was not answered, for people; the checker does not read it.
    error: str = ""


def outcome_of(kind: Kind, ended: bool | EtcdError | None) -> Outcome:
    """How an operation ended: answered (for a compare-and-swap: whether it swapped), or with an error.

    When in doubt, unknown.
    """
    match ended:
        case True:
            return "done"
        case False:
            return "differs"
        case EtcdError(kind=why) if kind == "get" or why in NO_EFFECT:
            return "none"
        case _:
            return "unknown"


@dataclass(kw_only=True, slots=True)
class Recorder:
    """Writes operations to a file, from any thread, and counts them; between `with` and its end."""

    path: Path
    #: How many ended how.
    counts: Counter[tuple[Kind, Outcome]] = field(default_factory=Counter)
    _file: TextIO = field(init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __enter__(self) -> Self:
        self._file = self.path.open("w")
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def note(self, operation: Operation) -> None:
        """Add an operation that has ended."""
        line = asdict(operation)
        line["return"] = line.pop("returned")
        with self._lock:
            self._file.write(json.dumps(line) + "\n")
            self.counts[operation.kind, operation.outcome] += 1

    @property
    def acknowledged(self) -> int:
        """How many were answered by etcd as done, or as compared and different."""
        return sum(count for (_, outcome), count in self.counts.items() if outcome in ("done", "differs"))

    def __str__(self) -> str:
        return ", ".join(f"{kind} {outcome} {count}" for (kind, outcome), count in sorted(self.counts.items()))
