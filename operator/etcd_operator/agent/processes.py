"""The kube-apiservers that run on this machine, by what /proc tells.

I/O, no judgement.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from etcd_operator.binding import arguments
from etcd_operator.binding.arguments import PROGRAM, UnreadableArgumentsError

#: The field behind the program's name in /proc/PID/stat that tells when the process started (proc(5): the 22nd).
_START = 19


@dataclass(frozen=True, order=True, slots=True)
class ProcessID:
    """One process and no later one of the same number: boot ID, PID, start in clock ticks since the boot."""

    boot: str
    pid: int
    start: int


def running(proc: Path) -> dict[ProcessID, Mapping[str, str]]:
    """Each kube-apiserver's etcd flags as `arguments.flags` has them; proc: the machine's /proc, of all its PIDs."""
    boot = (proc / "sys/kernel/random/boot_id").read_text().strip()
    found: dict[ProcessID, Mapping[str, str]] = {}
    for folder in proc.iterdir():
        if not folder.name.isdecimal():
            continue
        try:
            words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
            if not any(word.rpartition("/")[2] == PROGRAM for word in words):
                continue
            told = arguments.flags({"name": PROGRAM, "command": words})
            start = (folder / "stat").read_text().rpartition(")")[2].split()[_START]
        except (OSError, UnreadableArgumentsError):  # it ended meanwhile, or is a shell, a `grep kube-apiserver`, ...
            continue
        found[ProcessID(boot, int(folder.name), int(start))] = told
    return found


def has_flags(told: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    """Whether a process runs with just these etcd flags; values that Kubernetes fills in, `$(NAME)`, may differ."""
    return told.keys() == wanted.keys() and all("$(" in value or told[name] == value for name, value in wanted.items())
