"""By how much a promise in seconds is stretched on a machine that has far more to do than to keep it.

Two signs: processes that want to run and cannot, and, in a virtual machine, time that its host gave to others.
Only for tests, which judge what happens and not how fast; speeds are measured by hack/bench.
"""

import os
import threading
import time
from collections import deque
from pathlib import Path
from typing import NamedTuple, Self

#: Processes for each core that want to run while a few etcd clusters start together: no reason for patience yet.
USUAL_LOAD = 4.0
#: Seconds that are looked back at most for the time that the host took.
WINDOW = 60.0
#: No promise is stretched further.
MOST = 5.0


class Ticks(NamedTuple):
    """Clock ticks since boot, all cores together (proc(5), /proc/stat)."""

    busy: int
    stolen: int

    @classmethod
    def parse(cls, line: str) -> Self:
        """From the line `cpu  user nice system idle iowait irq softirq steal guest guest_nice`."""
        user, nice, system, _idle, _iowait, irq, softirq, steal, *_ = map(int, line.split()[1:])
        return cls(busy=user + nice + system + irq + softirq, stolen=steal)

    @classmethod
    def now(cls) -> Self:
        """Those of this machine."""
        with Path("/proc/stat").open() as file:
            return cls.parse(file.readline())


def stretch(load: float, cores: int, before: Ticks, after: Ticks) -> float:
    """At least 1, at most `MOST`. `load`: the load average of a minute."""
    busy, stolen = after.busy - before.busy, after.stolen - before.stolen
    slowed = (busy + stolen) / busy if busy > 0 else 1.0
    return min(MOST, max(1.0, load / (USUAL_LOAD * cores)) * max(1.0, slowed))


class Patience:
    """`stretch` of this machine, looked at whenever it is called, by any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen = deque([(time.monotonic(), Ticks.now())])

    def __call__(self) -> float:
        now, ticks = time.monotonic(), Ticks.now()
        with self._lock:
            self._seen.append((now, ticks))
            while len(self._seen) > 2 and self._seen[1][0] < now - WINDOW:
                self._seen.popleft()
            before = self._seen[0][1]
        return stretch(os.getloadavg()[0], os.cpu_count() or 1, before, ticks)
