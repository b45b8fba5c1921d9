"""One cgroup per node, in every hierarchy of cgroup v1 or in the one of v2.

Layout: `/external-etcd/NODE/system` holds the node's own programs; the kubelet puts pods beside it
(`/external-etcd/NODE/kubepods`), its cgroupRoot being `/external-etcd/NODE`. Nothing outside `/external-etcd` is
changed, but on v2 the root's `subtree_control`, without which no child has controllers.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from localcluster.errors import ClusterError

TOP = "external-etcd"
#: Controllers that a kubelet wants on v2.
V2_CONTROLLERS = ("cpu", "cpuset", "io", "memory", "pids", "hugetlb")
#: Seconds for the processes of a node that was ended to leave their cgroups.
EMPTY_TIMEOUT = 10.0


def hierarchies(mountinfo: str) -> list[tuple[Path, str]]:
    """Mount point and file system type ("cgroup" or "cgroup2") of each hierarchy, from /proc/self/mountinfo."""
    found = []
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        kind = after.split(" ", 1)[0]
        if kind in ("cgroup", "cgroup2"):
            found.append((Path(before.split(" ")[4]), kind))
    return found


def is_v2(found: list[tuple[Path, str]]) -> bool:
    """Whether cgroup v2 alone is in use; the hybrid of both counts as v1, as runc counts it."""
    return all(kind == "cgroup2" for _, kind in found)


def this_machine() -> list[tuple[Path, str]]:
    """The hierarchies of this machine."""
    found = hierarchies(Path("/proc/self/mountinfo").read_text())
    if not found:
        raise ClusterError("no cgroup file system is mounted on this machine; nodes cannot run without")
    return found


def create(node: str) -> list[Path]:
    """Make the node's cgroups; returns each `cgroup.procs` that its programs belong into."""
    found = this_machine()
    if is_v2(found):
        root = found[0][0]
        for folder in (root, root / TOP, root / TOP / node):
            folder.mkdir(exist_ok=True)
            _delegate(folder)
        found = [(root, "cgroup2")]
    members = []
    for root, kind in found:
        system = root / TOP / node / "system"
        for folder in (root / TOP, root / TOP / node, system):
            folder.mkdir(exist_ok=True)
            if kind == "cgroup":
                _inherit_cpuset(folder)
        members.append(system / "cgroup.procs")
    return members


def remove(node: str) -> None:
    """Remove the node's cgroups, and the top one when no other node is left.

    Raises ClusterError when processes are still in one of them after `EMPTY_TIMEOUT`.
    """
    deadline = time.monotonic() + EMPTY_TIMEOUT
    for root, _ in this_machine():
        for folder in _bottom_up(root / TOP / node):
            _remove_when_empty(folder, deadline)
        with suppress(OSError):
            (root / TOP).rmdir()


def exists(node: str) -> bool:
    """Whether any cgroup of the node is left."""
    return any((root / TOP / node).exists() for root, _ in this_machine())


def _bottom_up(folder: Path) -> Iterator[Path]:
    for path, _, _ in os.walk(folder, topdown=False):
        yield Path(path)


def _remove_when_empty(folder: Path, deadline: float) -> None:
    """Removal is refused until the last process has gone; v1 has no event for that, so ask again."""
    while True:
        try:
            folder.rmdir()
            return
        except FileNotFoundError:
            return
        except OSError as error:
            if time.monotonic() > deadline:
                left = (folder / "cgroup.procs").read_text().split()
                raise ClusterError(f"cgroup {folder} cannot be removed: {error.strerror}, processes {left}") from None
            time.sleep(0.02)


def _inherit_cpuset(folder: Path) -> None:
    """cpuset on v1 starts empty, and no process may enter until it names processors and memory nodes."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        file = folder / name
        if file.exists() and not file.read_text().strip():
            file.write_text((folder.parent / name).read_text())


def _delegate(folder: Path) -> None:
    """Give the children of a v2 cgroup all controllers that it has.

    A cgroup that is not the machine's root must not hold processes itself then (inside a container's cgroup
    namespace, for one): those are moved into a child.
    """
    wanted = set((folder / "cgroup.controllers").read_text().split()) & set(V2_CONTROLLERS)
    wanted -= set((folder / "cgroup.subtree_control").read_text().split())
    if not wanted:
        return
    order = " ".join(f"+{name}" for name in sorted(wanted))
    try:
        (folder / "cgroup.subtree_control").write_text(order)
    except OSError:
        _move_processes(folder, folder / "init")
        (folder / "cgroup.subtree_control").write_text(order)


def _move_processes(source: Path, target: Path) -> None:
    target.mkdir(exist_ok=True)
    for pid in (source / "cgroup.procs").read_text().split():
        with suppress(OSError):  # ended meanwhile, or a kernel thread, which stays
            (target / "cgroup.procs").write_text(pid)
