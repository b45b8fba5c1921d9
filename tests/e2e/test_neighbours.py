"""Whatever befalls the operator or one cluster, the others come up and are watched as ever."""

import time

import pytest

from devtools import environment
from e2e.support import OPERATOR, Cluster, Etcd, sentence
from localcluster.cluster import Cluster as LocalCluster


def kill_leader(cluster: Cluster, local: LocalCluster) -> None:
    """SIGKILL the leading operator's process on its node, so that its Lease is not released."""
    found = cluster.get("pods", OPERATOR, environment.leader_pod(cluster))
    assert found is not None
    (container,) = found["status"]["containerStatuses"]
    identity = container["containerID"].removeprefix("containerd://")
    done = local.exec(
        found["spec"]["nodeName"], ["ctr", "-n", "k8s.io", "tasks", "kill", "--all", "-s", "SIGKILL", identity]
    )
    assert done.returncode == 0, done


@pytest.mark.parametrize(("killed", "limit"), [(True, 20.0), (False, 2.0)], ids=["kill", "orderly stop"])
def test_a_cluster_that_is_created_while_the_leader_goes_comes_up(
    etcd: Etcd, local: LocalCluster, killed: bool, limit: float
) -> None:
    """The standby takes over within `limit` seconds and does what the one before left undone."""
    cluster = etcd.cluster
    before = holder(cluster)
    if killed:
        kill_leader(cluster, local)
    else:
        cluster.delete("pods", OPERATOR, environment.leader_pod(cluster))
    gone = time.monotonic()
    etcd.apply(members=1)
    etcd.wait(lambda seen: bool(seen.get("status", {}).get("conditions")), timeout=limit + 10, what="taken care of")
    # Beyond the limit: `kubectl apply`, and in an orderly stop the time until the process hears of it.
    assert time.monotonic() - gone <= (limit + 2.0) * cluster.patience()
    # One that is asked to stop may have begun with it before it heard of that.
    cluster.wait_for_one(
        lambda lease: lease["spec"].get("holderIdentity") not in (None, "", before),
        "leases",
        OPERATOR,
        OPERATOR,
        timeout=limit + 10,
        what="led by the standby",
    )
    etcd.wait_available()


def holder(cluster: Cluster) -> str:
    """Who leads, as the Lease says; empty where nobody does."""
    lease = cluster.get("leases", OPERATOR, OPERATOR) or {"spec": {}}
    return str(lease["spec"].get("holderIdentity") or "")


def test_clusters_that_crash_do_not_keep_another_from_coming_up(cluster: Cluster, namespace: str) -> None:
    """How fast it comes up beside them: `hack/bench create --crashing`."""
    crashing = [Etcd(cluster=cluster, namespace=namespace, name=f"crashing-{number}") for number in range(4)]
    for etcd in crashing:
        etcd.apply(members=1, options={"extra": {"log-level": "loud"}})
    for etcd in crashing:
        etcd.wait_told("InvalidOption", timeout=30)
    Etcd(cluster=cluster, namespace=namespace, name="beside").create(members=1)
    assert [sentence(etcd.get(), "InvalidOption") != "" for etcd in crashing] == [True] * len(crashing)
