"""The status tells the truth within seconds, when members die and when they are back."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from devtools import environment, kube
from e2e.support import OPERATOR, OPERATOR_PODS, Cluster, Etcd, condition_of, fresh_namespace, unhealthy
from localcluster.cluster import Cluster as LocalCluster

#: Seconds within which the status follows what Kubernetes or etcd know, and an etcd that hangs without a sign.
PROMPT, HUNG = 5.0, 10.0


@pytest.fixture(scope="module")
def shared(installed: Cluster) -> Iterator[Etcd]:
    """One EtcdCluster for all tests here, as each leaves it healthy."""
    with fresh_namespace(installed) as namespace:
        etcd = Etcd(cluster=installed, namespace=namespace, name="a")
        etcd.create()
        yield etcd


@pytest.fixture
def watched(shared: Etcd, cluster: Cluster) -> Etcd:
    """The EtcdCluster, healthy."""
    shared.wait_available()
    return shared


def test_a_killed_pod_is_told_and_told_as_back(watched: Etcd) -> None:
    uid = watched.kill("a-1", grace=0)
    seen = watched.wait(lambda told: unhealthy(told, "a-1"), what="a-1 told as down", timeout=PROMPT)
    assert seen["status"]["quorum"] == "2/3"
    assert (seen["status"]["readyMembers"], seen["status"]["toleratedFailures"]) == (2, 0)
    assert kube.is_true(seen, "Available")
    assert condition_of(seen, "Degraded")["status"] == "True"
    assert seen["status"]["summary"] == "Available; a-1 down"
    watched.wait_replaced("a-1", uid)
    watched.wait(environment.is_available, what="told as healthy again", timeout=PROMPT)
    assert "MembersUnhealthy" in watched.event_reasons()


def test_the_killed_leader_is_told_and_who_leads_instead(watched: Etcd) -> None:
    leader = watched.status()["leader"]
    watched.kill(leader, grace=0)
    watched.wait_status(lambda told: told.get("leader") not in (None, leader), what="another leader", timeout=HUNG)
    watched.wait_available()


def test_all_pods_killed_is_quorum_lost_and_then_back(watched: Etcd) -> None:
    # In one stroke: killed one after the other, the first is back before the last is gone on a busy machine.
    with ThreadPoolExecutor() as hands:
        list(hands.map(lambda pod: watched.kill(pod, grace=0), watched.pods()))
    seen = watched.wait(
        lambda told: condition_of(told, "Available").get("status") != "True", what="not available", timeout=PROMPT
    )
    assert seen["status"]["toleratedFailures"] == 0
    watched.wait_available(timeout=60)


def signal(local: LocalCluster, etcd: Etcd, pods: list[str], name: str) -> None:
    """Send a signal to the etcd of each pod."""
    for pod in pods:
        node, container = etcd.container(pod)
        done = local.exec(node, ["ctr", "-n", "k8s.io", "tasks", "kill", "-s", name, container])
        # The kubelet's liveness probe may have replaced a stopped container by now; then there is nothing to wake.
        assert done.returncode == 0 or name == "SIGCONT", done


def test_a_hanging_etcd_is_told(watched: Etcd, local: LocalCluster) -> None:
    signal(local, watched, ["a-2"], "SIGSTOP")
    watched.wait(lambda told: unhealthy(told, "a-2"), what="a-2 told as silent", timeout=HUNG)
    signal(local, watched, ["a-2"], "SIGCONT")
    watched.wait_available()


def test_every_etcd_hanging_is_told_as_unknown_or_lost_not_as_available(watched: Etcd, local: LocalCluster) -> None:
    pods = sorted(watched.pods())
    signal(local, watched, pods, "SIGSTOP")
    seen = watched.wait(
        lambda told: condition_of(told, "Available").get("status") in ("Unknown", "False"),
        what="told as not answering",
        timeout=HUNG,
    )
    assert condition_of(seen, "Available")["reason"] in ("NoAnswer", "QuorumUnknown", "QuorumLost")
    watched.wait_status(lambda told: told["readyMembers"] == 0, what="no member told as ready", timeout=HUNG)
    signal(local, watched, pods, "SIGCONT")
    watched.wait_available()


@pytest.fixture
def victim(cluster: Cluster, local: LocalCluster) -> Iterator[str]:
    """A worker node without the leading operator; as it was afterwards."""
    leader = cluster.get("pods", OPERATOR, environment.leader_pod(cluster))
    assert leader is not None
    workers = (node.name for node in local.nodes[1:])
    chosen = next(node for node in workers if node != leader["spec"]["nodeName"])
    yield chosen
    local.heal(chosen)
    local.start_node(chosen)
    cluster.wait_for_one(lambda node: kube.is_true(node, "Ready"), "nodes", None, chosen, timeout=90)
    # The other replica may have been there.
    cluster.wait_for(lambda pods: all(map(kube.is_ready_pod, pods.values())), "pods", OPERATOR, labels=OPERATOR_PODS)


def member_on(etcd: Etcd, node: str) -> str:
    return next(name for name, pod in etcd.pods().items() if pod["spec"]["nodeName"] == node)


def test_a_stopped_node_is_told_and_its_return(watched: Etcd, local: LocalCluster, victim: str) -> None:
    name = member_on(watched, victim)
    local.stop_node(victim)
    seen = watched.wait(lambda told: unhealthy(told, name), what=f"{name} told as silent", timeout=HUNG)
    assert (seen["status"]["quorum"], seen["status"]["toleratedFailures"]) == ("2/3", 0)
    assert kube.is_true(seen, "Available")
    local.start_node(victim)
    watched.wait_available()


def test_a_node_that_is_cut_off_is_told_and_its_return(watched: Etcd, local: LocalCluster, victim: str) -> None:
    name = member_on(watched, victim)
    local.partition(victim)
    seen = watched.wait(lambda told: unhealthy(told, name), what=f"{name} told as silent", timeout=HUNG)
    assert seen["status"]["quorum"] == "2/3"
    assert kube.is_true(seen, "Available")
    member = next(member for member in seen["status"]["members"] if member["name"] == name)
    assert member["reason"], "why it is not healthy"
    local.heal(victim)
    watched.wait(environment.is_available, what="healthy again", timeout=30)
