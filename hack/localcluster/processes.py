"""Processes that outlive the command that started them: found again by a record, ended by a handle.

Process IDs are reused, so a record holds the boot and the process's start time too. Knows nothing of what they run.
"""

from __future__ import annotations

import json
import os
import select
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from localcluster.errors import ClusterError

#: Seconds for a process, and all that must end with it, to be gone after it was killed.
STOP_TIMEOUT = 30.0
#: A flag of a process that exits (include/linux/sched.h).
PF_EXITING = 0x4


def write_record(path: Path, pid: int) -> None:
    """Remember a process that runs now."""
    path.write_text(json.dumps(identify(pid)))


def running(path: Path, what: str) -> int | None:
    """Process ID of the process that the record at `path` is about; None when it does not run.

    One that was killed takes a moment to die, with all that runs in it: that is waited for. `what` names it in errors.
    """
    try:
        record = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    if record is None or record != identify(record["pid"]):
        return None
    if _is_dying(record["pid"]):
        kill(record["pid"], what)
        return None
    return int(record["pid"])


def kill(pid: int, what: str) -> None:
    """Kill a process and wait until it is gone; the kernel ends all others of its PID namespace first.

    Raises ClusterError when it does not end within `STOP_TIMEOUT`.
    """
    with suppress(ProcessLookupError):
        handle = os.pidfd_open(pid)
        try:
            _end(handle, what)
        finally:
            os.close(handle)


def kill_rooted_in(folder: Path, what: str) -> None:
    """Kill every process whose root folder is `folder`: also one that nobody wrote a record of."""
    for pid in rooted_in(folder):
        with suppress(ProcessLookupError):
            handle = os.pidfd_open(pid)
            try:
                if _root(pid) == str(folder):  # still the one that was found
                    _end(handle, what)
            finally:
                os.close(handle)


def rooted_in(folder: Path) -> list[int]:
    """Process IDs of all whose root folder is `folder` or lies below it, also when that was removed meanwhile."""
    return [pid for pid in _all() if (root := _root(pid)) == str(folder) or root.startswith(f"{folder}/")]


def identify(pid: int) -> dict[str, int | str] | None:
    """What identifies a process: its ID, its start time (clock ticks since boot) and the boot; None when gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    if fields[0] in "ZX":
        return None
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return {"pid": pid, "started": int(fields[19]), "boot": boot}


def _end(handle: int, what: str) -> None:
    signal.pidfd_send_signal(handle, signal.SIGKILL)
    if not select.select([handle], [], [], STOP_TIMEOUT)[0]:
        raise ClusterError(f"processes of {what} do not end within {STOP_TIMEOUT:.0f} s")


def _is_dying(pid: int) -> bool:
    """Whether a process exits, or was sent SIGKILL and has not noticed yet."""
    try:
        flags = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[6])
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True
    pending = [int(line.split()[1], 16) for line in status.splitlines() if line.startswith(("SigPnd:", "ShdPnd:"))]
    killed = 1 << (signal.SIGKILL - 1)
    return bool(flags & PF_EXITING) or any(signals & killed for signals in pending)


def _all() -> Iterator[int]:
    return (int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit())


def _root(pid: int) -> str:
    """The root folder of a process as this machine names it; empty when the process is gone."""
    try:
        return str(Path(f"/proc/{pid}/root").readlink()).removesuffix(" (deleted)")
    except OSError:
        return ""
