"""Nodes that are cut off or drained: nobody is removed, no acknowledged write is lost, the status is true.

The first node has the API server, so it is the one that stays: what is cut off from it cannot be told by Kubernetes.
"""

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from devtools import environment, kube
from e2e.support import (
    OPERATOR,
    OPERATOR_PODS,
    Cluster,
    Etcd,
    condition_of,
    identity,
    kill_operator,
    move_lead,
    unhealthy,
)
from e2e.writers import writing
from localcluster.cluster import Cluster as LocalCluster

#: Seconds until the status tells what can be known.
TOLD = 15.0
#: Seconds after which the standby acts for a leader of the operator that is cut off (`LEASE_DURATION_SECONDS`).
LEASE = 10.0
#: Seconds for Kubernetes to notice that a node is cut off, or back, on a busy machine.
NOTICE = 60.0
#: Seconds for the drain of one node, with what it waits for.
DRAIN = 180.0


@pytest.fixture
def reachable(cluster: Cluster, local: LocalCluster) -> Iterator[LocalCluster]:
    """The local cluster, whose nodes are all reachable and in use again afterwards."""
    yield local
    for node in local.nodes:
        local.heal(node.name)
    for node in local.nodes:
        cluster.kubectl("uncordon", node.name)
        cluster.wait_for_one(lambda seen: kube.is_true(seen, "Ready"), "nodes", None, node.name, timeout=90)
    cluster.wait_for(lambda pods: all(map(kube.is_ready_pod, pods.values())), "pods", OPERATOR, labels=OPERATOR_PODS)


def operator_nodes(cluster: Cluster) -> dict[str, str]:
    """The node of each of the operator's pods that is not on its way out."""
    pods = cluster.list("pods", OPERATOR, labels=OPERATOR_PODS)
    return {pod["metadata"]["name"]: pod["spec"]["nodeName"] for pod in pods if kube.is_ready_pod(pod)}


def standby(cluster: Cluster) -> str:
    """The operator's pod that does not lead."""
    leader = environment.leader_pod(cluster)
    return next(pod for pod in operator_nodes(cluster) if pod != leader)


@contextmanager
def cordoned(cluster: Cluster, nodes: Sequence[str]) -> Iterator[None]:
    """New pods go to none of these nodes."""
    if nodes:
        cluster.kubectl("cordon", *nodes)
    try:
        yield
    finally:
        if nodes:
            cluster.kubectl("uncordon", *nodes)


def lead_operator_from(cluster: Cluster, local: LocalCluster, node: str, *, standby_on: str = "") -> None:
    """Have the operator lead from this node, and stand by on another one, or on just that one."""
    others = [each.name for each in local.nodes if each.name != node]
    leader = environment.leader_pod(cluster)
    if node not in operator_nodes(cluster).values():
        replace_operator(cluster, standby(cluster), without=others)
    if operator_nodes(cluster)[leader] != node:
        replace_operator(cluster, leader)
    if set(operator_nodes(cluster).values()) == {node}:  # as after a test in which no other node was to be had
        replace_operator(cluster, standby(cluster), without=[node])
    if standby_on and standby_on not in operator_nodes(cluster).values():
        replace_operator(cluster, standby(cluster), without=[each for each in others if each != standby_on] + [node])
    places = operator_nodes(cluster)
    assert set(places.values()) > {node}, f"nobody stands by elsewhere: {places}"
    here = tuple(pod for pod, on in places.items() if on == node)
    cluster.wait_for_one(
        lambda lease: str(lease["spec"].get("holderIdentity")).startswith(here), "leases", OPERATOR, OPERATOR
    )


def replace_operator(cluster: Cluster, pod: str, *, without: Sequence[str] = ()) -> None:
    """Have another pod of the operator in the place of this one, on none of these nodes."""
    with cordoned(cluster, without):
        cluster.delete("pods", OPERATOR, pod)
        cluster.wait_for(
            lambda pods: pod not in pods and sum(map(kube.is_ready_pod, pods.values())) == len(pods) == 2,
            "pods",
            OPERATOR,
            labels=OPERATOR_PODS,
            what="two replicas of the operator",
        )


def member_on(etcd: Etcd, node: str) -> str:
    return next(name for name, pod in etcd.pods().items() if pod["spec"].get("nodeName") == node)


def wait_not_ready(cluster: Cluster, node: str) -> None:
    """Wait until Kubernetes itself has given the node up for now."""
    cluster.wait_for_one(lambda seen: not kube.is_true(seen, "Ready"), "nodes", None, node, timeout=NOTICE)


def check_same(etcd: Etcd, before: object) -> None:
    """That everybody is back, and is who they were."""
    etcd.wait(environment.is_available, what="all healthy again", timeout=NOTICE)
    assert identity(etcd) == before
    assert not {"AddingMember", "RemovingMember"} & etcd.event_reasons()
    assert etcd.read("kept") == "yes"


def create(etcd: Etcd) -> tuple[str, dict[str, str], dict[str, str]]:
    etcd.create()
    etcd.put("kept", "yes")
    return identity(etcd)


def test_the_leaders_node_is_cut_off(etcd: Etcd, cluster: Cluster, reachable: LocalCluster) -> None:
    before = create(etcd)
    control_plane, node, _ = (each.name for each in reachable.nodes)
    lead_operator_from(cluster, reachable, control_plane)
    victim = member_on(etcd, node)
    move_lead(etcd, victim)
    with writing(etcd) as writers:
        reachable.partition(node)
        seen = etcd.wait(
            lambda told: unhealthy(told, victim) and told["status"].get("leader") not in (None, victim),
            what=f"{victim} silent, and who leads instead",
            timeout=TOLD,
        )
        assert (seen["status"]["quorum"], seen["status"]["toleratedFailures"]) == ("2/3", 0)
        assert kube.is_true(seen, "Available")
        wait_not_ready(cluster, node)
        reachable.heal(node)
        check_same(etcd, before)
    writers.check()


def test_the_operators_node_is_cut_off(etcd: Etcd, cluster: Cluster, reachable: LocalCluster) -> None:
    """The standby takes over when the Lease runs out; the one that is cut off does nothing when it is back."""
    before = create(etcd)
    _, node, _ = (each.name for each in reachable.nodes)
    lead_operator_from(cluster, reachable, node)
    victim, away = member_on(etcd, node), environment.leader_pod(cluster)
    with writing(etcd) as writers:
        reachable.partition(node)
        seen = etcd.wait(lambda told: unhealthy(told, victim), what=f"{victim} told as silent", timeout=LEASE + TOLD)
        assert seen["status"]["quorum"] == "2/3"
        assert kube.is_true(seen, "Available")
        assert environment.leader_pod(cluster) != away
        wait_not_ready(cluster, node)
        reachable.heal(node)
        check_same(etcd, before)
    writers.check()


def test_two_of_three_nodes_are_cut_off(etcd: Etcd, cluster: Cluster, reachable: LocalCluster) -> None:
    """With the replica of the operator that acts: the standby is on the node that stays."""
    before = create(etcd)
    control_plane, *others = (each.name for each in reachable.nodes)
    lead_operator_from(cluster, reachable, others[0], standby_on=control_plane)
    victims = [member_on(etcd, node) for node in others]
    with writing(etcd) as writers:
        for node in others:
            reachable.partition(node)
        etcd.wait(
            lambda told: condition_of(told, "Available").get("status") in ("Unknown", "False"),
            what="told as not available",
            timeout=LEASE + TOLD,
        )
        for node in others:
            wait_not_ready(cluster, node)
        told = etcd.wait_told("QuorumLost", *victims, timeout=TOLD)
        assert "2 of 3 voters are needed" in told
        assert etcd.status()["quorum"] == "0/3"
        for node in others:
            reachable.heal(node)
        check_same(etcd, before)
    assert len(writers.acknowledged) > 100
    assert not writers.lost()


def wait_away(etcd: Etcd, member: str) -> None:
    """Wait until just this member is told as not healthy."""
    etcd.wait(lambda told: unhealthy(told, member), what=f"only {member} is away", timeout=NOTICE)


class Drain:
    """`kubectl drain` of one node, as a person starts it; it ends by itself."""

    def __init__(self, cluster: Cluster, node: str) -> None:
        command = ["kubectl", "--kubeconfig", str(cluster.kubeconfig), "drain", node, f"--timeout={DRAIN:g}s"]
        command += ["--ignore-daemonsets", "--delete-emptydir-data", "--force"]
        self._said: list[str] = []
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def wait_for(self, words: str) -> None:
        """Read what it says until it says that. Raises AssertionError when it ends without."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._said.append(line)
            if words in line:
                return
        raise AssertionError(f"drain did not say {words!r}: {''.join(self._said)}")

    def finish(self) -> None:
        """Wait until it ends, and see that it drained its node."""
        said, _ = self._process.communicate(timeout=DRAIN + 10)
        assert self._process.returncode == 0, "".join([*self._said, said])


def test_every_node_is_drained_in_turn_under_load(etcd: Etcd, cluster: Cluster, reachable: LocalCluster) -> None:
    """The volumes stay on their nodes, so a drained member waits for its node; the next drain waits for the member."""
    before = create(etcd)
    with writing(etcd) as writers:
        drained = ""
        for node in (each.name for each in reachable.nodes):
            member = member_on(etcd, node)
            uid = etcd.pods()[member]["metadata"]["uid"]
            drain = Drain(cluster, node)
            if drained:
                drain.wait_for("violate the pod's disruption budget")
                assert etcd.pods()[member]["metadata"]["uid"] == uid, "a second member is down"
                cluster.kubectl("uncordon", drained)
            drain.finish()
            if not drained:
                kill_operator(cluster)
            wait_away(etcd, member)
            drained = node
        cluster.kubectl("uncordon", drained)
        check_same(etcd, before)
    writers.check()
    assert "QuorumLost" not in etcd.event_reasons()
