"""What is remembered about each local cluster, and who may work on it now.

A cluster is a folder below `clusters/` in the cache folder; `cluster.json` in it holds its number and shape, all
else is derived. The folder itself is the lock: commands for one cluster take turns, and removing the folder ends
it. Starts nothing and looks at no process.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import MISSING, asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from localcluster import artifacts, records
from localcluster.addresses import MAX_CLUSTERS, MAX_NODES
from localcluster.errors import ClusterError

#: Node names are the cluster's name and a number, and have to be host names.
NAME = re.compile(r"[a-z]([a-z0-9-]{0,28}[a-z0-9])?")
#: What etcd recommends at most; kubeadm gives each control plane a member.
MAX_CONTROL_PLANES = 7


@dataclass(frozen=True, kw_only=True, slots=True)
class ClusterState:
    """What `cluster.json` says."""

    name: str
    #: From 0; decides all addresses.
    number: int
    #: How many nodes the cluster has.
    nodes: int
    #: How many of them, the first ones, are control planes.
    control_planes: int = 1
    #: URLs of the etcd outside of the cluster that its API servers use; none: each control plane has a member.
    etcd_servers: tuple[str, ...] = ()

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
    if content is None:
        return None
    known = {field.name: content[field.name] for field in fields(ClusterState) if field.name in content}
    return ClusterState(**{**known, "etcd_servers": tuple(known.get("etcd_servers", ()))})


def find_all() -> list[ClusterState]:
    """All clusters, by name."""
    found = (find(path.parent.name) for path in sorted(clusters_dir().glob("*/cluster.json")))
    return [state for state in found if state]


def check(name: str, nodes: int | None, control_planes: int | None = None) -> None:
    """Raise ClusterError for a name that cannot be part of a host name, and for sizes that are not possible."""
    if not NAME.fullmatch(name):
        raise ClusterError(f"{name!r} cannot name a cluster: use at most 30 of a-z, 0-9 and '-', a letter first")
    if nodes is not None and not 1 <= nodes <= MAX_NODES:
        raise ClusterError(f"a local cluster has 1 to {MAX_NODES} nodes, not {nodes}")
    if control_planes is not None and not 1 <= control_planes <= MAX_CONTROL_PLANES:
        raise ClusterError(f"a local cluster has 1 to {MAX_CONTROL_PLANES} control planes, not {control_planes}")
    if nodes is not None and control_planes is not None and control_planes > nodes:
        raise ClusterError(f"{control_planes} control planes need as many nodes, not {nodes}")


def allocate(
    name: str,
    nodes: int | None,
    *,
    control_planes: int | None = None,
    etcd_servers: tuple[str, ...] | None = None,
) -> ClusterState:
    """The cluster of that name with at least its nodes recorded; a new one gets the lowest free number.

    None means: as it is; for a new one, one control plane, no other nodes, an etcd of its own. Raises ClusterError for
    a cluster that would have to shrink, or to get other control planes or another etcd. The caller has asked `check`.
    """
    with machine_lock():
        before = find(name)
        if before:
            _refuse_changes(before, nodes, control_planes, etcd_servers)
            state = replace(before, nodes=nodes or before.nodes)
        else:
            state = ClusterState(
                name=name,
                number=_free_number(),
                nodes=nodes or control_planes or 1,
                control_planes=control_planes or 1,
                etcd_servers=etcd_servers or (),
            )
        if state != before:
            records.write(state.folder / "cluster.json", _recorded(state))
    return state


def _refuse_changes(
    before: ClusterState, nodes: int | None, control_planes: int | None, etcd_servers: tuple[str, ...] | None
) -> None:
    """Raise ClusterError for what cannot become of a cluster that is there."""
    wrong = ""
    if nodes is not None and nodes < before.nodes:
        wrong = f"has {before.nodes} nodes and cannot shrink to {nodes}"
    elif control_planes not in (None, before.control_planes):
        wrong = f"has control planes: {before.control_planes}, which cannot become {control_planes}"
    elif etcd_servers not in (None, before.etcd_servers):
        has = f"the etcd at {', '.join(before.etcd_servers)}" if before.etcd_servers else "an etcd of its own"
        wrong = f"has {has} and cannot move to another one"
    if wrong:
        raise ClusterError(
            f"cluster {before.name} {wrong}: take it down first (hack/cluster down --name {before.name})"
        )


def _recorded(state: ClusterState) -> dict[str, Any]:
    """What is written: a checkout from before a field was invented can read the clusters that do without it."""
    defaults = {field.name: field.default for field in fields(ClusterState) if field.default is not MISSING}
    return {name: value for name, value in asdict(state).items() if name not in defaults or value != defaults[name]}


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
