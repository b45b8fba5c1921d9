"""A bootstrap that is disturbed at any moment ends in a healthy cluster; once recorded, in the very same one.

One cluster for each moment, side by side in one namespace: what kills the operator for one disturbs the others
at moments of chance.
"""

from collections.abc import Callable

import pytest

from devtools import environment, feed
from e2e.support import OPERATOR, OPERATOR_PODS, SMALL, Cluster, Etcd, Manifest, kill_operator
from localcluster.cluster import Cluster as LocalCluster


def is_running(pod: Manifest) -> bool:
    return any("running" in status["state"] for status in pod["status"].get("containerStatuses", []))


def recorded(seen: feed.Picture) -> str:
    """The cluster ID on the StatefulSet; empty before bootstrap was recorded there."""
    for item in seen.get("statefulsets", {}).values():
        if cluster_id := item["metadata"].get("annotations", {}).get("externaletcd.io/cluster-id"):
            return str(cluster_id)
    return ""


#: The moments of a bootstrap, each by what a watch shows when it has come; names are those of the clusters.
MOMENTS: dict[str, Callable[[feed.Picture], bool]] = {
    "files-made": lambda seen: bool(seen.get("configmaps")),
    "pods-wanted": lambda seen: bool(seen.get("statefulsets")),
    "first-pod-runs": lambda seen: any(is_running(pod) for pod in seen.get("pods", {}).values()),
    "all-pods-run": lambda seen: sum(is_running(pod) for pod in seen.get("pods", {}).values()) == 3,
    "recorded": lambda seen: bool(recorded(seen)),
    "published": lambda seen: any(name.endswith("-client") for name in seen.get("secrets", {})),
}


def kill_pods(etcd: Etcd, _: LocalCluster) -> None:
    for pod in etcd.pods():
        etcd.cluster.delete("pods", etcd.namespace, pod, gracePeriodSeconds=0)


def kill_processes(etcd: Etcd, local: LocalCluster) -> None:
    """SIGKILL every etcd where it stands: the containers restart in their pods, on whatever they had written."""
    for pod, found in etcd.pods().items():
        if is_running(found):
            node, container = etcd.container(pod)
            local.exec(node, ["ctr", "-n", "k8s.io", "tasks", "kill", "-s", "SIGKILL", container])


def delete_objects(etcd: Etcd, _: LocalCluster) -> None:
    etcd.cluster.delete("statefulsets", etcd.namespace, etcd.name)
    etcd.cluster.delete("configmaps", etcd.namespace, f"{etcd.name}-config")
    delete_status(etcd)


def delete_status(etcd: Etcd) -> None:
    patch = '[{"op": "remove", "path": "/status"}]'
    subject = f"etcd/{etcd.name}"
    # It may have none yet, which is as good.
    etcd.cluster.try_kubectl("-n", etcd.namespace, "patch", subject, "--subresource=status", "--type=json", "-p", patch)


def everything(etcd: Etcd, local: LocalCluster) -> None:
    kill_operator(etcd.cluster)
    delete_objects(etcd, local)
    kill_pods(etcd, local)


FAULTS: dict[str, Callable[[Etcd, LocalCluster], None]] = {
    "operator killed": lambda etcd, _: kill_operator(etcd.cluster),
    "pods killed": kill_pods,
    "processes killed": kill_processes,
    "objects and status deleted": delete_objects,
    "everything at once": everything,
}
#: Where not every moment is worth its time: without pods there is nothing to kill, and a cluster that clients use
#: is struck in test_objects.
STRUCK_AT = {
    "pods killed": ("first-pod-runs", "all-pods-run", "recorded"),
    "processes killed": ("first-pod-runs", "all-pods-run", "recorded"),
    "objects and status deleted": ("pods-wanted", "all-pods-run", "recorded"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bootstrap_that_is_disturbed_ends_in_a_healthy_cluster(
    cluster: Cluster, namespace: str, local: LocalCluster, fault: str
) -> None:
    moments = STRUCK_AT.get(fault, tuple(MOMENTS))
    etcds = [Etcd(cluster=cluster, namespace=namespace, name=moment) for moment in moments]
    proven = {etcd.name: disturb(etcd, FAULTS[fault], local) for etcd in etcds}
    environment.wait_for_operator(cluster)
    for etcd in etcds:
        status = etcd.wait_whole()["status"]
        assert proven[etcd.name] in ("", status["clusterID"]), f"{etcd.name}: another etcd than was recorded"
        assert {member["name"] for member in status["members"]} == {f"{etcd.name}-{number}" for number in range(3)}
    written = etcds[0]
    written.put("greeting", "hello")
    assert written.read("greeting") == "hello"


def disturb(etcd: Etcd, fault: Callable[[Etcd, LocalCluster], None], local: LocalCluster) -> str:
    """Apply the cluster and strike at the moment of its name; returns the cluster ID that was recorded by then."""
    etcd.apply(resources=SMALL)
    kinds = ["configmaps", "statefulsets", "pods", "secrets"]
    labels = f"{etcd.labels},app.kubernetes.io/name=etcd"
    for picture in feed.follow(etcd.cluster.kubeconfig, kinds, etcd.namespace, labels=labels, timeout=240):
        if MOMENTS[etcd.name](picture):
            fault(etcd, local)
            return recorded(picture)
    raise AssertionError(f"never seen: {etcd.name}")


def test_an_operator_that_comes_only_later_finds_the_cluster_and_makes_it(cluster: Cluster, etcd: Etcd) -> None:
    def scale(replicas: int) -> None:
        cluster.kubectl("scale", "-n", OPERATOR, f"deployment/{OPERATOR}", f"--replicas={replicas}")

    scale(0)
    try:
        cluster.wait_until_gone("pods", OPERATOR, labels=OPERATOR_PODS)
        etcd.apply(members=1)
        assert etcd.status() == {}
    finally:
        scale(2)
        environment.wait_for_operator(cluster)
    etcd.wait_available()
