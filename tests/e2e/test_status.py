"""The status tells the truth within seconds, when members die and when they are back."""

import time
from collections.abc import Iterator

import pytest

from devtools import environment, kube
from devtools.project import OPERATOR
from e2e.support import Etcd, Manifest, condition_of
from localcluster.cluster import Cluster as LocalCluster

#: Seconds within which the status follows what Kubernetes or etcd know, and an etcd that hangs without a sign.
PROMPT, HUNG = 5.0, 10.0


def unhealthy(seen: Manifest, *names: str) -> bool:
    """Whether just these members are told as not healthy."""
    members = seen.get("status", {}).get("members", [])
    return {member["name"] for member in members if not member.get("healthy")} == set(names)


def test_a_killed_pod_is_told_and_told_as_back(etcd: Etcd) -> None:
    etcd.create()
    uid = etcd.kill("a-1", grace=0)
    seen = etcd.wait(lambda told: unhealthy(told, "a-1"), what="a-1 told as down", timeout=PROMPT)
    assert seen["status"]["quorum"] == "2/3"
    assert seen["status"]["toleratedFailures"] == 0
    assert kube.is_true(seen, "Available")
    assert condition_of(seen, "Degraded")["status"] == "True"
    etcd.wait_replaced("a-1", uid)
    etcd.wait(environment.is_available, what="told as healthy again", timeout=PROMPT)
    assert "MembersUnhealthy" in etcd.event_reasons()


def test_all_pods_killed_is_quorum_lost_and_then_back(etcd: Etcd) -> None:
    etcd.create()
    for pod in etcd.pods():
        etcd.kill(pod, grace=0)
    seen = etcd.wait(
        lambda told: condition_of(told, "Available").get("status") != "True", what="not available", timeout=PROMPT
    )
    assert seen["status"]["toleratedFailures"] == 0
    etcd.wait_available(timeout=60)


def container_of(etcd: Etcd, pod: str) -> tuple[str, str]:
    """The node and the container ID of a member."""
    found = etcd.pods()[pod]
    status = next(status for status in found["status"]["containerStatuses"] if status["name"] == "etcd")
    return found["spec"]["nodeName"], status["containerID"].removeprefix("containerd://")


def signal(local: LocalCluster, node: str, container: str, name: str) -> None:
    """Send a signal to a container's first process."""
    done = local.exec(node, ["ctr", "-n", "k8s.io", "tasks", "kill", "-s", name, container])
    assert done.returncode == 0, done


def test_a_hanging_etcd_is_told(etcd: Etcd, local: LocalCluster) -> None:
    etcd.create()
    node, container = container_of(etcd, "a-2")
    signal(local, node, container, "SIGSTOP")
    etcd.wait(lambda told: unhealthy(told, "a-2"), what="a-2 told as silent", timeout=HUNG)
    # The kubelet's liveness probe may have replaced the container by now; then there is nothing to wake.
    local.exec(node, ["ctr", "-n", "k8s.io", "tasks", "kill", "-s", "SIGCONT", container])
    etcd.wait(environment.is_available, what="healthy again", timeout=90)


def test_every_etcd_hanging_is_told_as_unknown_or_lost_not_as_available(etcd: Etcd, local: LocalCluster) -> None:
    etcd.create()
    containers = [container_of(etcd, pod) for pod in etcd.pods()]
    for node, container in containers:
        signal(local, node, container, "SIGSTOP")
    etcd.wait(
        lambda told: condition_of(told, "Available").get("status") in ("Unknown", "False"),
        what="told as not answering",
        timeout=HUNG,
    )
    for node, container in containers:
        local.exec(node, ["ctr", "-n", "k8s.io", "tasks", "kill", "-s", "SIGCONT", container])
    etcd.wait(environment.is_available, what="healthy again", timeout=120)


@pytest.fixture
def victim(cluster: kube.Cluster, local: LocalCluster) -> Iterator[str]:
    """A worker node without the leading operator; started again afterwards."""
    leader = cluster.get("pods", OPERATOR, environment.leader_pod(cluster))
    assert leader is not None
    nodes = cluster.list("nodes")
    workers = [
        node["metadata"]["name"]
        for node in nodes
        if "node-role.kubernetes.io/control-plane" not in node["metadata"]["labels"]
    ]
    chosen = next(node for node in workers if node != leader["spec"]["nodeName"])
    yield chosen
    local.start_node(chosen)
    cluster.wait_for_one(lambda node: kube.is_true(node, "Ready"), "nodes", None, chosen, timeout=90)


def test_a_stopped_node_is_told_and_its_return(etcd: Etcd, local: LocalCluster, victim: str) -> None:
    etcd.create()
    name = next(pod for pod, found in etcd.pods().items() if found["spec"]["nodeName"] == victim)
    local.stop_node(victim)
    etcd.cluster.wait_for_one(
        lambda node: not kube.is_true(node, "Ready"), "nodes", None, victim, timeout=90, what="the node known as gone"
    )
    known = time.monotonic()
    etcd.wait(lambda told: unhealthy(told, name), what=f"{name} told as down", timeout=PROMPT)
    assert time.monotonic() - known < PROMPT
    assert kube.is_true(etcd.get(), "Available")
    local.start_node(victim)
    etcd.wait(environment.is_available, what="healthy again", timeout=120)


def test_at_rest_nothing_is_written(etcd: Etcd) -> None:
    etcd.create()
    # The last events of the bootstrap first: the rest begins when nothing has changed for five seconds.
    for _ in range(12):
        if sum(1 for _ in etcd.cluster.snapshots("etcdclusters", etcd.namespace, timeout=5)) == 1:
            break
    else:
        pytest.fail("the status never comes to rest")
    before = versions(etcd)
    # Longer than the minute in which etcd is asked without an event.
    for _ in etcd.cluster.snapshots("etcdclusters", etcd.namespace, timeout=75):
        pass
    assert versions(etcd) == before


def versions(etcd: Etcd) -> dict[str, str]:
    """The version of each object of the cluster."""
    plurals = (
        "etcdclusters",
        "statefulsets",
        "configmaps",
        "secrets",
        "services",
        "poddisruptionbudgets",
        "persistentvolumeclaims",
    )
    return {
        f"{plural}/{item['metadata']['name']}": item["metadata"]["resourceVersion"]
        for plural in plurals
        for item in etcd.cluster.list(plural, etcd.namespace)
    }
