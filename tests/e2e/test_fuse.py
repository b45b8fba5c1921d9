"""A member whose data is gone or corrupt is never served as it is; where the others have it all, it is replaced."""

from collections.abc import Callable

import pytest

from devtools import environment
from e2e.faults import empty
from e2e.support import OPERATOR, OPERATOR_PODS, Etcd, KubectlError
from e2e.test_recovery import listed
from e2e.test_restart import uids
from localcluster.cluster import Cluster as LocalCluster


def corrupt(etcd: Etcd, local: LocalCluster, member: str) -> None:
    """Spoil a member's database under it, and kill its etcd before it can notice."""
    node, container = etcd.container(member)
    database = f"{etcd.volume_folder(member)}/*/member/snap/db"
    spoil = f"for db in {database}; do dd if=/dev/urandom of=$db bs=16384 count=1 conv=notrunc; done"
    done = local.exec(node, ["sh", "-ec", f"ctr -n k8s.io tasks kill -s SIGKILL {container}; {spoil}"])
    assert done.returncode == 0, done


@pytest.mark.parametrize(
    ("damage", "why"), [(empty, "the data directory is empty"), (corrupt, "its database")], ids=["emptied", "corrupt"]
)
def test_one_damaged_member_of_three_is_replaced(
    etcd: Etcd, local: LocalCluster, damage: Callable[[Etcd, LocalCluster, str], None], why: str
) -> None:
    etcd.create()
    etcd.put("kept", "yes")
    before, ids = etcd.status(), etcd.member_ids()
    damage(etcd, local, "a-1")
    etcd.wait_event("RemovingMember", "a-1", why)
    seen = etcd.wait_settled()
    assert seen["status"]["quorum"] == "3/3"
    assert etcd.voters() == set(ids)
    now = etcd.member_ids()
    assert {name for name in ids if now[name] != ids[name]} == {"a-1"}
    assert etcd.read_from("a-1", "kept") == "yes"
    assert (seen["status"]["clusterID"], seen["status"]["bootstrap"]) == (before["clusterID"], before["bootstrap"])


def directories(etcd: Etcd, local: LocalCluster, member: str) -> set[str]:
    """What is on a member's volume now."""
    node, _ = etcd.container(member)
    return listed(local, node, etcd.volume_folder(member))


def test_old_data_stays_until_the_user_wants_it_deleted(etcd: Etcd, local: LocalCluster) -> None:
    etcd.create()
    etcd.put("kept", "yes")
    (founded,) = directories(etcd, local, "a-1")
    corrupt(etcd, local, "a-1")
    etcd.wait_event("RemovingMember", "a-1", f"its old directory {founded} stays on data-a-1")
    etcd.wait_settled()
    kept, pods = directories(etcd, local, "a-1"), uids(etcd)
    assert len(kept) == 2
    etcd.patch({"spec": {"healing": {"keepOldData": "0s"}}})
    etcd.wait_event("DeletingOldData", "a-1", founded)
    etcd.cluster.wait_for_one(
        lambda claim: not claim["metadata"]["annotations"]["externaletcd.io/old-data"],
        "persistentvolumeclaims",
        etcd.namespace,
        "data-a-1",
        what="the old data is told as deleted",
        timeout=60,
    )
    assert directories(etcd, local, "a-1") == kept - {founded}
    etcd.cluster.wait_until_gone("pods", etcd.namespace, name="a-1-cleaning")
    assert uids(etcd) == pods
    assert etcd.status()["quorum"] == "3/3"
    assert etcd.read_from("a-1", "kept") == "yes"


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
