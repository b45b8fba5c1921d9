"""Whatever is deleted, changed or killed: the same etcd again, with its cluster ID, its data and its volumes."""

from collections.abc import Callable

import pytest

from devtools import environment, feed
from devtools.project import OPERATOR
from e2e.support import Etcd, Manifest

OPERATOR_PODS = f"app.kubernetes.io/name={OPERATOR}"


def identity(etcd: Etcd) -> tuple[str, dict[str, str]]:
    """What must never change once bootstrap was recorded: the cluster ID, and which volumes hold the data."""
    volumes = {name: claim["spec"]["volumeName"] for name, claim in etcd.claims().items()}
    return etcd.status()["clusterID"], volumes


def kill_operator(etcd: Etcd) -> None:
    """Kill both replicas at once, without warning."""
    for pod in etcd.cluster.list("pods", OPERATOR, labels=OPERATOR_PODS):
        etcd.cluster.delete("pods", OPERATOR, pod["metadata"]["name"], gracePeriodSeconds=0)


def kill_one_pod(etcd: Etcd) -> None:
    etcd.kill(f"{etcd.name}-1", grace=0)


def kill_all_pods(etcd: Etcd) -> None:
    for pod in etcd.pods():
        etcd.kill(pod, grace=0)


def delete_status(etcd: Etcd) -> None:
    path = f"/apis/externaletcd.io/v1alpha1/namespaces/{etcd.namespace}/etcdclusters/{etcd.name}/status"
    response = etcd.cluster.request(
        "PATCH",
        path,
        json=[{"op": "remove", "path": "/status"}],
        headers={"Content-Type": "application/json-patch+json"},
    )
    response.raise_for_status()


def deletion(plural: str, suffix: str, **options: str) -> Callable[[Etcd], None]:
    def delete(etcd: Etcd) -> None:
        etcd.cluster.delete(plural, etcd.namespace, f"{etcd.name}{suffix}", **options)

    return delete


def scale_stateful_set(etcd: Etcd) -> None:
    etcd.cluster.kubectl("-n", etcd.namespace, "scale", f"sts/{etcd.name}", "--replicas=1")


def everything_at_once(etcd: Etcd) -> None:
    kill_operator(etcd)
    delete_status(etcd)
    deletion("configmaps", "-config")(etcd)
    deletion("statefulsets", "")(etcd)
    kill_all_pods(etcd)


FAULTS: dict[str, Callable[[Etcd], None]] = {
    "one pod": kill_one_pod,
    "all pods": kill_all_pods,
    "status": delete_status,
    "ConfigMap": deletion("configmaps", "-config"),
    "StatefulSet": deletion("statefulsets", ""),
    "StatefulSet, pods kept": deletion("statefulsets", "", propagationPolicy="Orphan"),
    "StatefulSet, foreground": deletion("statefulsets", "", propagationPolicy="Foreground"),
    "StatefulSet scaled to 1": scale_stateful_set,
    "operator": kill_operator,
    "everything at once": everything_at_once,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_running_cluster_comes_back_as_the_same(etcd: Etcd, fault: str) -> None:
    etcd.create()
    etcd.put("kept", fault)
    before = identity(etcd)
    FAULTS[fault](etcd)
    environment.wait_for_operator(etcd.cluster)
    etcd.wait(lambda seen: environment.is_available(seen) and whole(etcd), timeout=150, what="healthy again")
    assert identity(etcd) == before
    assert etcd.read("kept") == fault


def whole(etcd: Etcd) -> bool:
    """Whether everything that a fault may have taken is there again."""
    namespace, name = etcd.namespace, etcd.name
    stateful_set = etcd.cluster.get("statefulsets", namespace, name)
    return (
        stateful_set is not None
        and "deletionTimestamp" not in stateful_set["metadata"]
        and stateful_set["spec"]["replicas"] == 3
        and stateful_set.get("status", {}).get("readyReplicas") == 3
        and etcd.cluster.get("configmaps", namespace, f"{name}-config") is not None
    )


#: The moments of a bootstrap, each by what a watch shows when it has come.
MOMENTS: dict[str, Callable[[feed.Picture], bool]] = {
    "ConfigMap made": lambda seen: bool(seen.get("configmaps")),
    "StatefulSet made": lambda seen: bool(seen.get("statefulsets")),
    "first pod runs": lambda seen: any(is_running(pod) for pod in seen.get("pods", {}).values()),
    "all pods run": lambda seen: sum(is_running(pod) for pod in seen.get("pods", {}).values()) == 3,
    "recorded on the StatefulSet": lambda seen: any(
        "externaletcd.io/cluster-id" in item["metadata"].get("annotations", {})
        for item in seen.get("statefulsets", {}).values()
    ),
    "client Secret published": lambda seen: any(name.endswith("-client") for name in seen.get("secrets", {})),
}


def is_running(pod: Manifest) -> bool:
    return any("running" in status["state"] for status in pod["status"].get("containerStatuses", []))


@pytest.mark.parametrize("fault", ["all pods", "StatefulSet", "ConfigMap", "operator", "everything at once"])
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_fault_at_any_moment_of_the_bootstrap_ends_in_a_healthy_cluster(etcd: Etcd, fault: str, moment: str) -> None:
    etcd.apply()
    kinds = ["configmaps", "statefulsets", "pods", "secrets"]
    for picture in feed.follow(
        etcd.cluster.kubeconfig, kinds, etcd.namespace, labels=f"{etcd.labels},app.kubernetes.io/name=etcd", timeout=60
    ):
        if MOMENTS[moment](picture):
            break
    else:
        pytest.fail(f"never seen: {moment}")
    FAULTS[fault](etcd)
    etcd.wait(lambda seen: environment.is_available(seen) and whole(etcd), timeout=150, what="healthy in the end")
    etcd.put("greeting", "hello")
    assert etcd.read("greeting") == "hello"
    told = {line.split(", ")[2] for line in etcd.etcdctl("member", "list").splitlines()}
    assert told == {"a-0", "a-1", "a-2"}
