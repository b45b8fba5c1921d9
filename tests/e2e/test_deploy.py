"""deploy/: what it grants is enough, no more, and works under restricted Pod Security; failover between replicas."""

import re
from collections.abc import Iterator

import pytest

from devtools import environment, kube
from devtools.project import OPERATOR
from e2e.support import Etcd

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
        ("create", "daemonsets"),
        ("create", "persistentvolumeclaims"),
        ("delete", "persistentvolumes"),
        ("delete", "etcdclusters"),
        ("update", "etcdclusters"),  # patch it may, for a finalizer alone: RBAC knows no right for that
        ("list", "namespaces"),
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
