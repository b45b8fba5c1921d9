"""A member whose directory was emptied is never served as an empty keyspace, and the status tells what happened."""

import pytest

from devtools import environment
from e2e.support import OPERATOR, OPERATOR_PODS, Etcd, KubectlError, unhealthy
from localcluster.cluster import Cluster as LocalCluster


def empty(etcd: Etcd, local: LocalCluster, member: str) -> None:
    """Empty a member's volume under it, and kill its etcd before it can notice."""
    node, container = etcd.container(member)
    folder = etcd.volume_folder(member)
    script = f"rm -rf {folder}/*; ctr -n k8s.io tasks kill -s SIGKILL {container}"
    done = local.exec(node, ["sh", "-ec", script])
    assert done.returncode == 0, done


def test_one_emptied_member_of_three(etcd: Etcd, local: LocalCluster) -> None:
    etcd.create()
    etcd.put("kept", "yes")
    before = etcd.status()["clusterID"]
    empty(etcd, local, "a-1")
    etcd.wait_told("a-1", "the data directory is empty", timeout=30)
    seen = etcd.wait(lambda told: unhealthy(told, "a-1"), what="a-1 told as down")
    assert (seen["status"]["quorum"], seen["status"]["toleratedFailures"]) == ("2/3", 0)
    assert etcd.condition("Available")["status"] == "True"
    uid = etcd.kill("a-1", grace=0)
    etcd.cluster.wait_for_one(
        lambda pod: (
            pod["metadata"]["uid"] != uid
            and any(status["restartCount"] > 0 for status in pod["status"].get("containerStatuses", []))
        ),
        "pods",
        etcd.namespace,
        "a-1",
        what="another pod that refuses as well",
    )
    assert etcd.read("kept") == "yes"
    assert etcd.status()["clusterID"] == before
    assert etcd.pods()["a-1"]["status"]["podIP"] not in etcd.ready_addresses()


def test_all_members_emptied_while_the_operator_is_away(etcd: Etcd, local: LocalCluster) -> None:
    """The fuse is in the members' own files and needs nobody to watch."""
    etcd.create(members=1)
    etcd.put("kept", "yes")
    before = etcd.status()["clusterID"]
    deployment = f"deployment/{OPERATOR}"
    etcd.cluster.kubectl("scale", "-n", OPERATOR, deployment, "--replicas=0")
    try:
        etcd.cluster.wait_until_gone("pods", OPERATOR, labels=OPERATOR_PODS)
        empty(etcd, local, "a-0")
        etcd.cluster.wait_for_one(
            lambda pod: any(status["restartCount"] > 1 for status in pod["status"]["containerStatuses"]),
            "pods",
            etcd.namespace,
            "a-0",
            what="refused again and again",
        )
    finally:
        etcd.cluster.kubectl("scale", "-n", OPERATOR, deployment, "--replicas=2")
        environment.wait_for_operator(etcd.cluster)
    etcd.wait_told("a-0", "the data directory is empty", timeout=30)
    assert etcd.condition("Available")["status"] == "False"
    assert etcd.status()["clusterID"] == before
    assert etcd.status()["summary"] == "Quorum lost: a-0 down"
    assert not etcd.ready_addresses()
    with pytest.raises(KubectlError):
        etcd.etcdctl("get", "kept", "--command-timeout=3s")
