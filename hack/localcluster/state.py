"""What is remembered about each local cluster, and who may work on it now.

A cluster is a folder below `clusters/` in the cache folder; `cluster.json` in it holds its number and size, all
else is derived. The folder itself is the lock: commands for one cluster take turns, and removing the folder ends
it. Starts nothing and looks at no process.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from localcluster import artifacts, records
from localcluster.addresses import MAX_CLUSTERS, MAX_NODES
from localcluster.errors import ClusterError

#: Node names are the cluster's name and a number, and have to be host names.
NAME = re.compile(r"[a-z]([a-z0-9-]{0,28}[a-z0-9])?")


@dataclass(frozen=True, kw_only=True, slots=True)
class ClusterState:
    """What `cluster.json` says."""

    name: str
    #: From 0; decides all addresses.
    number: int
    #: How many nodes the cluster has.
    nodes: int

    @property
    def folder(self) -> Path:
        return clusters_dir() / self.name


def clusters_dir() -> Path:
    """The folder that holds all clusters."""
    return artifacts.cache_dir() / "clusters"


def limits_record() -> Path:
    """The file that `limits` remembers the machine's own values in, while there are clusters."""
    return clusters_dir() / ".limits.json"


def find(name: str) -> ClusterState | None:
    """The cluster of that name, None where there is none."""
    content = records.read(clusters_dir() / name / "cluster.json")
    return None if content is None else ClusterState(**content)


def find_all() -> list[ClusterState]:
    """All clusters, by name."""
    found = (find(path.parent.name) for path in sorted(clusters_dir().glob("*/cluster.json")))
    return [state for state in found if state]


def check(name: str, nodes: int | None) -> None:
    """Raise ClusterError for a name that cannot be part of a host name, and for a size that is not possible."""
    if not NAME.fullmatch(name):
        raise ClusterError(f"{name!r} cannot name a cluster: use at most 30 of a-z, 0-9 and '-', a letter first")
    if nodes is not None and not 1 <= nodes <= MAX_NODES:
        raise ClusterError(f"a local cluster has 1 to {MAX_NODES} nodes, not {nodes}")


def allocate(name: str, nodes: int | None) -> ClusterState:
    """The cluster of that name with at least its nodes recorded; a new one gets the lowest free number.

    `nodes` None means: as many as it has, one for a new one. Raises ClusterError for a cluster that would have to
    shrink. The caller has asked `check`.
    """
    with machine_lock():
        before = find(name)
        if before and nodes is not None and nodes < before.nodes:
            raise ClusterError(
                f"cluster {name} has {before.nodes} nodes and cannot shrink to {nodes}: "
                f"take it down first (hack/cluster down --name {name})"
            )
        state = ClusterState(
            name=name,
            number=before.number if before else _free_number(),
            nodes=nodes or (before.nodes if before else 1),
        )
        if state != before:
            records.write(state.folder / "cluster.json", asdict(state))
    return state


def _free_number() -> int:
    taken = {state.number for state in find_all()}
    for number in range(MAX_CLUSTERS):
        if number not in taken:
            return number
    raise ClusterError(f"there are {MAX_CLUSTERS} clusters already: take one down first (hack/cluster list)")


@contextmanager
def cluster_lock(name: str) -> Iterator[None]:
    """Work on one cluster, alone; makes the folder. Waits for whoever works on it now."""
    with _lock(clusters_dir() / name):
        yield


@contextmanager
def machine_lock() -> Iterator[None]:
    """Change what all clusters share (numbers, the switch), alone."""
    with _lock(clusters_dir()):
        yield


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            if _is_still(folder, handle):
                yield
                return
        finally:
            os.close(handle)


def _is_still(folder: Path, handle: int) -> bool:
    """Whether the folder that was locked is the one that stands there: the one before us may have removed it."""
    try:
        return os.path.samestat(folder.stat(), os.fstat(handle))
    except FileNotFoundError:
        return False
