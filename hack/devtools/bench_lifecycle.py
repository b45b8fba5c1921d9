"""How long changes of a running etcd take, and how long its clients wait meanwhile, beside floors of the same run.

The floors are the golden manifest's: the time until two of its pods are ready, provisioning included, and the time
in which one that was deleted is ready again. Writers write to all members throughout, and read all back at the end.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from devtools import environment, kube
from devtools.writers import Writers

NAMESPACE = "bench"
NAME = "lifecycle"
LABELS = f"externaletcd.io/cluster={NAME}"
#: Seconds for any single change.
PATIENCE = 180.0
#: Seconds after which etcd takes a change of its members: it wants its voters connected for 5 s (HealthInterval).
SETTLED = 6.0
#: Seconds between two writes to each member.
PACE = 0.01


@dataclass(frozen=True, kw_only=True, slots=True)
class Floors:
    """Seconds of the golden manifest: to two ready pods with new volumes, and for one deleted pod to be ready again."""

    two_pods_s: float
    pod_restart_s: float


@dataclass(kw_only=True, slots=True)
class Figures:
    """All in seconds but the ratios and the counts of writes."""

    pod_start_s: float = 0.0
    pod_restart_s: float = 0.0
    scale_up_s: float = 0.0
    scale_up_ratio: float = 0.0
    scale_down_s: float = 0.0
    lost_volume_s: float = 0.0
    lost_volume_ratio: float = 0.0
    restart_s: float = 0.0
    restart_ratio: float = 0.0
    longest_write_stall_s: dict[str, float] = field(default_factory=dict)
    acknowledged: int = 0
    lost: int = 0


def measure(cluster: kube.Cluster, floors: Floors, etcd_cluster: Callable[[str], kube.Manifest]) -> Figures:
    """Every change once, on an EtcdCluster of three. Raises Timeout when one does not end."""
    figures = Figures(pod_start_s=floors.two_pods_s, pod_restart_s=floors.pod_restart_s)
    cluster.apply(etcd_cluster(NAME), namespace=NAMESPACE)
    cluster.wait_for_one(environment.is_available, "etcdclusters", NAMESPACE, NAME, timeout=PATIENCE)
    with Writers(cluster=cluster, namespace=NAMESPACE, name=NAME, pace=PACE) as writers:
        with stall(figures, writers, "scale_up"):
            figures.scale_up_s = scale(cluster, 5)
        with stall(figures, writers, "scale_down"):
            figures.scale_down_s = scale(cluster, 3)
        with stall(figures, writers, "heal"):
            figures.lost_volume_s = lose_the_leaders_volume(cluster)
        with stall(figures, writers, "restart"):
            figures.restart_s = restart(cluster)
    figures.acknowledged, figures.lost = len(writers.acknowledged), len(writers.lost())
    figures.scale_up_ratio = figures.scale_up_s / floors.two_pods_s
    figures.lost_volume_ratio = figures.lost_volume_s / floors.two_pods_s
    figures.restart_ratio = figures.restart_s / floors.pod_restart_s
    cluster.delete("etcdclusters", NAMESPACE, NAME)
    return figures


@contextmanager
def stall(figures: Figures, writers: Writers, change: str) -> Iterator[None]:
    """Let etcd come to rest, and note the longest gap between acknowledged writes during the change."""
    time.sleep(SETTLED)  # the time itself is what etcd asks for
    writers.longest_gap = 0.0
    yield
    figures.longest_write_stall_s[change] = writers.longest_gap


def scale(cluster: kube.Cluster, members: int) -> float:
    """Seconds from `kubectl scale` until so many vote and are well, and no other pod is left."""
    started = time.monotonic()
    cluster.kubectl("-n", NAMESPACE, "scale", f"etcd/{NAME}", f"--replicas={members}")
    wait_until_well(cluster, members)
    cluster.wait_for(lambda pods: len(pods) == members, "pods", NAMESPACE, labels=LABELS, timeout=PATIENCE)
    return time.monotonic() - started


def lose_the_leaders_volume(cluster: kube.Cluster) -> float:
    """Seconds from the moment that the leader's pod is gone, with its volume, until a new member votes in its place."""
    status = cluster.get("etcdclusters", NAMESPACE, NAME) or {}
    leader = status["status"]["leader"]
    before = {member["id"] for member in status["status"]["members"]}
    pod = cluster.get("pods", NAMESPACE, leader) or {}
    cluster.delete("persistentvolumeclaims", NAMESPACE, f"data-{leader}")
    cluster.delete("pods", NAMESPACE, leader)

    def gone(pods: kube.Snapshot) -> bool:
        return bool(pods.get(leader, {}).get("metadata", {}).get("uid") != pod["metadata"]["uid"])

    cluster.wait_for(gone, "pods", NAMESPACE, labels=LABELS, timeout=PATIENCE, what="the old pod gone")
    started = time.monotonic()
    wait_until_well(cluster, 3, without=before)
    return time.monotonic() - started


def restart(cluster: kube.Cluster) -> float:
    """Seconds from the request for a restart in order until all members run anew and are ready."""
    before = {pod["metadata"]["uid"] for pod in cluster.list("pods", NAMESPACE, labels=LABELS)}
    started = time.monotonic()
    cluster.kubectl("-n", NAMESPACE, "annotate", f"etcd/{NAME}", "externaletcd.io/restart=bench", "--overwrite")

    def all_anew(pods: kube.Snapshot) -> bool:
        fresh = [pod for pod in pods.values() if pod["metadata"]["uid"] not in before]
        return len(fresh) == 3 and all(map(kube.is_ready_pod, fresh))

    cluster.wait_for(all_anew, "pods", NAMESPACE, labels=LABELS, timeout=PATIENCE, what="three new pods")
    return time.monotonic() - started


def wait_until_well(cluster: kube.Cluster, members: int, *, without: set[str] | None = None) -> None:
    """Wait until the status has that many healthy voters and no other member; not all of the IDs in `without`."""

    def well(etcd: kube.Manifest) -> bool:
        told = etcd.get("status", {})
        ids = {member.get("id") for member in told.get("members", [])}
        replaced = without is None or not without <= ids
        return told.get("quorum") == f"{members}/{members}" and len(ids) == members and replaced

    cluster.wait_for_one(well, "etcdclusters", NAMESPACE, NAME, timeout=PATIENCE, what=f"{members}/{members}")
