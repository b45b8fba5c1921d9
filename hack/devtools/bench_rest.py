"""What the operator does and costs with EtcdClusters at rest, read from its own /metrics before and after.

Counting is the operator's; that nothing was written is checked against the objects themselves as well.
"""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

from devtools import environment, kube

NAMESPACE = "bench-rest"
#: Seconds for the clusters to stand.
PATIENCE = 300.0
#: Seconds without any event on the clusters' objects after which they count as at rest.
QUIET = 15.0

#: Verbs that change nothing, as the operator counts them; all others write.
READS = frozenset({"get", "list", "watch"})
#: The Lease is the one object that the operator replaces; others it applies, patches, creates or deletes.
LEASE_WRITE = "replace"
REQUESTS = "external_etcd_operator_api_requests_total"


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """The figures; writes leave the leader's Lease out."""

    clusters: int
    seconds: float
    writes: int
    reads: int
    cpu_percent: float
    rss_mib: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """The operator's counters at one moment."""

    at: float
    writes: float
    reads: float
    cpu_seconds: float
    rss_bytes: float


def read_sample(text: str, *, at: float) -> Sample:
    """The counters in the text of /metrics. Raises KeyError when the process's own are missing."""
    writes = reads = 0.0
    process: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == REQUESTS:
                if sample.labels["verb"] in READS:
                    reads += sample.value
                elif sample.labels["verb"] != LEASE_WRITE:
                    writes += sample.value
            elif sample.name.startswith("process_"):
                process[sample.name] = sample.value
    return Sample(
        at=at,
        writes=writes,
        reads=reads,
        cpu_seconds=process["process_cpu_seconds_total"],
        rss_bytes=process["process_resident_memory_bytes"],
    )


def compare(before: Sample, after: Sample, *, clusters: int) -> Report:
    """What happened between two samples of one process; the memory is the larger of the two."""
    seconds = after.at - before.at
    return Report(
        clusters=clusters,
        seconds=round(seconds, 1),
        writes=round(after.writes - before.writes),
        reads=round(after.reads - before.reads),
        cpu_percent=round(100 * (after.cpu_seconds - before.cpu_seconds) / seconds, 2),
        rss_mib=round(max(before.rss_bytes, after.rss_bytes) / 2**20, 1),
    )


def measure(cluster: kube.Cluster, *, clusters: int, seconds: float) -> Report:
    """Let that many EtcdClusters stand, wait for rest, and look for that many seconds.

    Raises AssertionError when the operator restarted or lost its lead meanwhile, or when an object was
    changed that the counters do not tell of.
    """
    names = [f"rest-{number}" for number in range(1, clusters + 1)]
    environment.make_namespace(cluster, NAMESPACE)
    try:
        cluster.apply(*map(etcd_cluster, names), namespace=NAMESPACE)
        for name in names:
            cluster.wait_for_one(environment.is_available, "etcdclusters", NAMESPACE, name, timeout=PATIENCE)
        wait_for_rest(cluster)
        pod = environment.leader_pod(cluster)
        versions = resource_versions(cluster)
        before = sample(cluster, pod)
        # The one wait for time itself: how long to look is the very thing that was asked for.
        time.sleep(seconds)
        after = sample(cluster, pod)
        if after.cpu_seconds < before.cpu_seconds or environment.leader_pod(cluster) != pod:
            raise AssertionError("the operator restarted or lost its lead while it was measured")
        # Whatever else the operator looks after here costs as well: it is counted in.
        report = compare(before, after, clusters=len(cluster.list("etcdclusters")))
        touched = differing(versions, resource_versions(cluster))
        if touched and not report.writes:
            raise AssertionError(f"changed without the operator counting a write: {', '.join(touched)}")
        return report
    finally:
        cluster.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


def etcd_cluster(name: str) -> kube.Manifest:
    """Three small members whose volumes go with them."""
    return {
        "apiVersion": "externaletcd.io/v1alpha1",
        "kind": "EtcdCluster",
        "metadata": {"name": name},
        "spec": {
            "storage": {"size": "1Gi", "deletionPolicy": "Delete"},
            "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}},
        },
    }


def sample(cluster: kube.Cluster, pod: str) -> Sample:
    """The counters of one operator pod now."""
    return read_sample(environment.operator_metrics(cluster, pod), at=time.monotonic())


def wait_for_rest(cluster: kube.Cluster) -> None:
    """Wait until none of the EtcdClusters has changed for a while: their last events have been worked off."""
    for _ in range(int(PATIENCE / QUIET)):
        changes = sum(1 for _ in cluster.snapshots("etcdclusters", NAMESPACE, timeout=QUIET))
        if changes <= 1:
            return
    raise kube.Timeout(f"the EtcdClusters still change after {PATIENCE:g} s")


def resource_versions(cluster: kube.Cluster) -> dict[str, str]:
    """The version of everything that the operator alone writes to while nothing happens."""
    workloads = ("etcdclusters", "statefulsets", "deployments")
    plurals = (*workloads, "configmaps", "secrets", "services", "poddisruptionbudgets", "networkpolicies")
    return {
        f"{plural}/{item['metadata']['name']}": item["metadata"]["resourceVersion"]
        for plural in plurals
        for item in cluster.list(plural, NAMESPACE)
    }


def differing(before: Mapping[str, str], after: Mapping[str, str]) -> Iterable[str]:
    """The names that came, went or changed."""
    return sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
