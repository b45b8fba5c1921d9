"""deploy/: what it grants is enough, no more, and works under restricted Pod Security; failover between replicas."""

import re
import time
from collections.abc import Iterator

import pytest

from devtools import environment, kube
from devtools.project import OPERATOR
from e2e.support import Etcd
from localcluster.cluster import Cluster as LocalCluster

OPERATOR_PODS = f"app.kubernetes.io/name={OPERATOR}"
ACCOUNT = f"system:serviceaccount:{OPERATOR}:{OPERATOR}"


def refusals(cluster: kube.Cluster, namespace: str = OPERATOR) -> list[str]:
    """The lines of the operator's logs that tell of a missing right.

    In RBAC's own words: a write into a namespace that is going is forbidden too, and nobody's fault.
    """
    logs = cluster.kubectl("logs", "-n", namespace, "-l", OPERATOR_PODS, "--tail=-1", "--prefix")
    return [line for line in logs.splitlines() if re.search(r"cannot [a-z]+ resource", line)]


def test_an_etcd_is_created_and_deleted_without_one_refusal(etcd: Etcd) -> None:
    etcd.create()
    etcd.put("greeting", "hello")
    assert etcd.read("greeting") == "hello"
    etcd.delete()
    assert not refusals(etcd.cluster)


@pytest.mark.parametrize(
    "right",
    [
        ("create", "pods", "--subresource=exec"),
        ("create", "deployments"),
        ("create", "persistentvolumeclaims"),
        ("delete", "persistentvolumes"),
        ("delete", "etcdclusters"),
        ("patch", "etcdclusters"),
        ("patch", "nodes"),
        ("create", "clusterroles"),
        ("create", "serviceaccounts", "--subresource=token"),
        ("get", "leases"),
        ("delete", "namespaces"),
    ],
    ids=" ".join,
)
def test_what_it_does_not_need_it_may_not(cluster: kube.Cluster, right: tuple[str, ...]) -> None:
    done = cluster.try_kubectl("auth", "can-i", *right, "--as", ACCOUNT, "-n", "default")
    assert done.stdout.strip() == "no"


def test_the_two_replicas_stand_on_different_nodes(cluster: kube.Cluster) -> None:
    pods = cluster.list("pods", OPERATOR, labels=OPERATOR_PODS)
    assert len({pod["spec"]["nodeName"] for pod in pods if kube.is_ready_pod(pod)}) == 2


@pytest.mark.parametrize(("grace", "limit"), [(30, 2.0), (0, 20.0)], ids=["orderly stop", "kill"])
def test_the_standby_takes_over(cluster: kube.Cluster, local: LocalCluster, grace: int, limit: float) -> None:
    leader = environment.leader_pod(cluster)
    assert leader
    if grace:
        cluster.delete("pods", OPERATOR, leader, gracePeriodSeconds=grace)
    else:
        kill_processes(cluster, local, leader)
    died = time.monotonic()
    cluster.wait_for_one(
        lambda lease: bool(holder := lease["spec"].get("holderIdentity")) and not str(holder).startswith(leader),
        "leases",
        OPERATOR,
        OPERATOR,
        timeout=limit + 10,
        what="another leader",
    )
    # The orderly stop's clock starts at the request; the process itself needs a moment to hear of it.
    assert time.monotonic() - died <= limit + (1.0 if grace else 0.0)


def kill_processes(cluster: kube.Cluster, local: LocalCluster, pod: str) -> None:
    """SIGKILL every process of a pod's container, on its node, so that no Lease is released."""
    found = cluster.get("pods", OPERATOR, pod)
    assert found is not None
    (container,) = found["status"]["containerStatuses"]
    identity = container["containerID"].removeprefix("containerd://")
    node = found["spec"]["nodeName"]
    done = local.exec(node, ["ctr", "-n", "k8s.io", "tasks", "kill", "--all", "-s", "SIGKILL", identity])
    assert done.returncode == 0, done


@pytest.fixture
def operator_in_namespace(installed: kube.Cluster, operator_image: str, namespace: str) -> Iterator[str]:
    """A namespaced install in the test's namespace, the cluster-wide operator asleep meanwhile."""

    def scale(replicas: int) -> None:
        installed.kubectl("scale", "-n", OPERATOR, f"deployment/{OPERATOR}", f"--replicas={replicas}")

    scale(0)
    installed.wait_until_gone("pods", OPERATOR, labels=OPERATOR_PODS)
    try:
        environment.install(installed, operator_image, flavour="install-namespaced.yaml", namespace=namespace)
        yield namespace
    finally:
        installed.kubectl("delete", "deployment", "-n", namespace, OPERATOR, "--wait=false")
        installed.wait_until_gone("pods", namespace, labels=OPERATOR_PODS)
        scale(2)
        environment.wait_for_operator(installed)


def test_a_namespaced_install_serves_its_namespace_with_rights_in_it_alone(
    installed: kube.Cluster, operator_in_namespace: str
) -> None:
    etcd = Etcd(cluster=installed, namespace=operator_in_namespace, name="own")
    etcd.create(members=1)
    etcd.put("greeting", "hello")
    assert etcd.read("greeting") == "hello"
    assert not refusals(installed, operator_in_namespace)
    account = f"system:serviceaccount:{operator_in_namespace}:{OPERATOR}"
    done = installed.try_kubectl("auth", "can-i", "list", "secrets", "--as", account, "-n", "default")
    assert done.stdout.strip() == "no"
