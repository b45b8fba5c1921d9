"""How long changes of a running etcd take, beside floors of the same run, and how long its clients wait meanwhile.

The floors are the golden manifest's: the time until two of its pods are ready, provisioning included, and the time
in which one that was deleted is ready again. Floors and changes alternate, round by round, on a machine that does
nothing else. Then every change once more while writers write to all members; they read all back at the end.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from devtools import environment, kube
from devtools.bench_sides import NAMESPACE, VERSION, etcd_cluster, golden, remove_golden, wait_until_clean
from devtools.writers import Writers

NAME = "lifecycle"
LABELS = f"app.kubernetes.io/name=etcd,externaletcd.io/cluster={NAME}"
#: The version that is upgraded from, under load.
OLDER = "3.6.16"
#: Seconds for any single change.
PATIENCE = 180.0
#: Seconds after which etcd takes a change of its members: it wants its voters connected for 5 s (HealthInterval).
SETTLED = 6.0
#: Seconds between two writes to each member.
PACE = 0.01


@dataclass(kw_only=True, slots=True)
class Figures:
    """Medians, all in seconds but the ratios and the counts of writes."""

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


def measure(cluster: kube.Cluster, rounds: int) -> Figures:
    """Every change. Raises Timeout when one does not end."""
    wait_until_clean(cluster)
    times: dict[str, list[float]] = {}
    for number in range(1, rounds + 1):
        # Who starts alternates too, so that neither side always finds the caches warmed by the other.
        for side in (time_floors, time_changes) if number % 2 else (time_changes, time_floors):
            for what, seconds in side(cluster).items():
                times.setdefault(what, []).append(seconds)
                print(f"round {number}  {what:13} {seconds:6.2f} s", flush=True)
            wait_until_clean(cluster)
    median = {what: statistics.median(seconds) for what, seconds in times.items()}
    figures = Figures(
        pod_start_s=median["pod_start_s"],
        pod_restart_s=median["pod_restart_s"],
        scale_up_s=median["scale_up_s"],
        scale_down_s=median["scale_down_s"],
        lost_volume_s=median["lost_volume_s"],
        restart_s=median["restart_s"],
        scale_up_ratio=median["scale_up_s"] / median["pod_start_s"],
        lost_volume_ratio=median["lost_volume_s"] / median["pod_start_s"],
        restart_ratio=median["restart_s"] / median["pod_restart_s"],
    )
    load(cluster, figures)
    wait_until_clean(cluster)
    return figures


def time_floors(cluster: kube.Cluster) -> dict[str, float]:
    """Golden pods that start with new volumes, and one that is deleted and comes back."""
    name = "floor"
    manifest, labels = golden(name), f"app={name}"
    started = time.monotonic()
    cluster.apply(manifest, namespace=NAMESPACE)

    def ready(count: int) -> Callable[[kube.Snapshot], bool]:
        return lambda pods: sum(map(kube.is_ready_pod, pods.values())) >= count

    cluster.wait_for(ready(2), "pods", NAMESPACE, labels=labels, timeout=PATIENCE, what="two ready pods")
    two = time.monotonic() - started
    cluster.wait_for(ready(3), "pods", NAMESPACE, labels=labels, timeout=PATIENCE, what="three ready pods")
    started = time.monotonic()
    cluster.delete("pods", NAMESPACE, f"{name}-1")
    cluster.wait_for(lambda pods: not ready(3)(pods), "pods", NAMESPACE, labels=labels, timeout=PATIENCE)
    cluster.wait_for(ready(3), "pods", NAMESPACE, labels=labels, timeout=PATIENCE, what="the third pod again")
    again = time.monotonic() - started
    remove_golden(cluster, name, manifest)
    return {"pod_start_s": two, "pod_restart_s": again}


def time_changes(cluster: kube.Cluster) -> dict[str, float]:
    """Every change of an EtcdCluster of three that nobody uses."""
    create(cluster, VERSION)
    changes: dict[str, Callable[[], float]] = {
        "scale_up_s": lambda: scale(cluster, 5),
        "scale_down_s": lambda: scale(cluster, 3),
        "lost_volume_s": lambda: lose_the_leaders_volume(cluster),
        "restart_s": lambda: restart(cluster),
    }
    times = {}
    for what, change in changes.items():
        time.sleep(SETTLED)  # the time itself is what etcd asks for
        times[what] = change()
    cluster.delete("etcdclusters", NAMESPACE, NAME)
    return times


def load(cluster: kube.Cluster, figures: Figures) -> None:
    """Every change once, and an upgrade, while writers write to all members."""
    create(cluster, OLDER)
    with Writers(cluster=cluster, namespace=NAMESPACE, name=NAME, pace=PACE) as writers:
        with stall(figures, writers, "scale_up"):
            scale(cluster, 5)
        with stall(figures, writers, "scale_down"):
            scale(cluster, 3)
        with stall(figures, writers, "restart"):
            restart(cluster)
        with stall(figures, writers, "heal"):
            lose_the_leaders_volume(cluster)
        with stall(figures, writers, "upgrade"):
            upgrade(cluster)
    figures.acknowledged, figures.lost = len(writers.acknowledged), len(writers.lost())
    cluster.delete("etcdclusters", NAMESPACE, NAME)


def create(cluster: kube.Cluster, version: str) -> None:
    """An EtcdCluster of three that stands."""
    cluster.apply(etcd_cluster(NAME, version=version), namespace=NAMESPACE)
    cluster.wait_for_one(environment.is_available, "etcdclusters", NAMESPACE, NAME, timeout=PATIENCE)


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
    return replace_pods(
        cluster, "-n", NAMESPACE, "annotate", f"etcd/{NAME}", "externaletcd.io/restart=bench", "--overwrite"
    )


def upgrade(cluster: kube.Cluster) -> float:
    """Seconds from the wish for the newest version until all members run it."""
    wish = f'{{"spec": {{"version": "{VERSION}"}}}}'
    return replace_pods(cluster, "-n", NAMESPACE, "patch", f"etcd/{NAME}", "--type=merge", f"--patch={wish}")


def replace_pods(cluster: kube.Cluster, *words: str) -> float:
    """Seconds from a kubectl command until all members run in new pods and are ready."""
    before = {pod["metadata"]["uid"] for pod in cluster.list("pods", NAMESPACE, labels=LABELS)}
    started = time.monotonic()
    cluster.kubectl(*words)

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
