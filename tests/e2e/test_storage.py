"""Larger volumes: grown where they are if their StorageClass can, and otherwise by members that move to new ones.

And data in memory, which goes with its pod: a member whose pod goes is another member afterwards.
"""

import json
from collections.abc import Iterator

import pytest

from devtools import kube
from e2e.support import Cluster, Etcd, Manifest, identity, is_ready_pod, kill_operator
from e2e.writers import writing
from localcluster.cluster import Cluster as LocalCluster

#: A class like the local one, which says of itself that it can expand; a test stands in for the driver that would.
EXPANDABLE = {
    "apiVersion": "storage.k8s.io/v1",
    "kind": "StorageClass",
    "metadata": {"name": "e2e-expandable"},
    "provisioner": "rancher.io/local-path",
    "allowVolumeExpansion": True,
    "volumeBindingMode": "WaitForFirstConsumer",
}
MEMBERS = ("a-0", "a-1", "a-2")


@pytest.fixture
def expandable(cluster: Cluster) -> Iterator[str]:
    cluster.apply(EXPANDABLE)
    yield "e2e-expandable"
    cluster.delete("storageclasses", None, "e2e-expandable")


def create(etcd: Etcd, members: int = 3, **storage: str) -> None:
    etcd.create(members=members, storage={"size": "1Gi", **storage})
    etcd.put("kept", "yes")


def grow(etcd: Etcd) -> None:
    etcd.patch({"spec": {"storage": {"size": "2Gi"}}})


def asked(etcd: Etcd) -> dict[str, str]:
    """What each claim asks for."""
    return {
        name.removeprefix("data-"): claim["spec"]["resources"]["requests"]["storage"]
        for name, claim in etcd.claims().items()
    }


def template(etcd: Etcd) -> str:
    """What new claims will ask for."""
    (claim,) = etcd.stateful_set()["spec"]["volumeClaimTemplates"]
    return str(claim["spec"]["resources"]["requests"]["storage"])


def pods(etcd: Etcd) -> dict[str, tuple[str, int]]:
    """Each pod's UID and how often its etcd was started again."""
    return {
        name: (pod["metadata"]["uid"], pod["status"]["containerStatuses"][0]["restartCount"])
        for name, pod in etcd.pods().items()
    }


def set_status(etcd: Etcd, member: str, status: Manifest) -> None:
    """Tell of a claim what a storage driver and the kubelet would."""
    path = f"{kube.path_of('persistentvolumeclaims', etcd.namespace, f'data-{member}')}/status"
    headers = {"Content-Type": "application/merge-patch+json"}
    etcd.cluster.request("PATCH", path, data=json.dumps({"status": status}), headers=headers).raise_for_status()


def wait_grown(etcd: Etcd) -> None:
    """Wait until every volume has 2Gi and the cluster is as its spec asks."""
    done = {f"data-{member}": "2Gi" for member in MEMBERS}
    etcd.cluster.wait_for(
        lambda claims: (
            {name: each.get("status", {}).get("capacity", {}).get("storage") for name, each in claims.items()} == done
        ),
        "persistentvolumeclaims",
        etcd.namespace,
        timeout=300,
        what="volumes of 2Gi",
    )
    seen = etcd.wait_settled()
    assert not seen["status"].get("pending")
    assert seen["status"]["quorum"] == "3/3"
    assert etcd.voters() == set(MEMBERS)
    assert template(etcd) == "2Gi"
    assert etcd.read("kept") == "yes"


def test_volumes_grow_under_their_members(etcd: Etcd, expandable: str) -> None:
    create(etcd, storageClassName=expandable)
    before, ran, made = identity(etcd), pods(etcd), etcd.stateful_set()["metadata"]["uid"]
    with writing(etcd) as writers:
        grow(etcd)
        etcd.wait_told("GrowingVolumes", "0 of 3 done", "data-a-0: waiting for its StorageClass's driver")
        assert set(asked(etcd).values()) == {"2Gi"}
        etcd.cluster.wait_for_one(
            lambda found: found["metadata"]["uid"] != made, "statefulsets", etcd.namespace, "a", what="another one"
        )
        set_status(etcd, "a-0", {"capacity": {"storage": "2Gi"}})
        etcd.wait_told("GrowingVolumes", "1 of 3 done")
        failed = {"type": "ControllerResizeError", "status": "True", "message": "the array is full"}
        set_status(etcd, "a-1", {"conditions": [failed]})
        etcd.wait_told("VolumesNotGrown", "data-a-1", "the array is full")
        assert any("spec.storage.size" in line for line in etcd.status()["pending"])
        for member in ("a-1", "a-2"):
            set_status(etcd, member, {"capacity": {"storage": "2Gi"}, "conditions": []})
        wait_grown(etcd)
    writers.check()
    assert (identity(etcd), pods(etcd)) == (before, ran)
    controllers = {pod["metadata"]["ownerReferences"][0]["uid"] for pod in etcd.pods().values()}
    assert controllers == {etcd.stateful_set()["metadata"]["uid"]}


def test_an_operator_killed_when_the_stateful_set_is_away(etcd: Etcd, expandable: str) -> None:
    create(etcd, storageClassName=expandable)
    before, ran = identity(etcd), pods(etcd)
    grow(etcd)
    etcd.wait_event("Deleting", "StatefulSet a")
    kill_operator(etcd.cluster)
    etcd.kill("a-1", grace=0)
    for member in MEMBERS:
        set_status(etcd, member, {"capacity": {"storage": "2Gi"}})
    wait_grown(etcd)
    assert identity(etcd) == before
    assert {name: told for name, told in pods(etcd).items() if name != "a-1"} == {
        name: told for name, told in ran.items() if name != "a-1"
    }


def test_volumes_that_cannot_grow_are_replaced_with_their_members(etcd: Etcd) -> None:
    create(etcd)
    status, before = etcd.status(), etcd.member_ids()
    old = {claim["spec"]["volumeName"] for claim in etcd.claims().values()}
    with writing(etcd) as writers:
        grow(etcd)
        for reason in ("RemovingMember", "AddingMember"):
            etcd.wait_event(reason)
            kill_operator(etcd.cluster)
        etcd.wait_told("GrowingVolumes", "1 of 3 done", timeout=120)
        wait_grown(etcd)
    writers.check()
    assert etcd.status()["clusterID"] == status["clusterID"]
    assert not set(before.values()) & set(etcd.member_ids().values()), "every member is a new one"
    assert not old & {claim["spec"]["volumeName"] for claim in etcd.claims().values()}
    for member in MEMBERS:
        assert etcd.read_from(member, "kept") == "yes"
    etcd.wait_event("MovingLeader", "its volume is to have 2Gi", timeout=10)


def test_the_only_member_waits_for_others_and_then_moves(etcd: Etcd) -> None:
    create(etcd, 1)
    ran = pods(etcd)
    grow(etcd)
    etcd.wait_told("VolumesNotGrown", "set spec.members to 3")
    assert any("spec.storage.size" in line for line in etcd.status()["pending"])
    assert asked(etcd) == {"a-0": "1Gi"}
    assert pods(etcd) == ran
    etcd.scale(3)
    wait_grown(etcd)


# --- in memory --------------------------------------------------------------------------------------------------------


def create_in_memory(etcd: Etcd, **spec: object) -> dict[str, str]:
    """Three members without volumes; returns their IDs."""
    etcd.create(storage={"medium": "Memory", "size": "256Mi"}, **spec)
    assert not etcd.claims()
    etcd.put("kept", "yes")
    return etcd.member_ids()


def wait_replaced(etcd: Etcd, before: dict[str, str], *members: str) -> None:
    """Wait until just these members are new ones, and all have the data."""

    def replaced(told: Manifest) -> bool:
        now = {each["name"]: each.get("id") for each in told.get("members", []) if each.get("role") == "Voter"}
        return now.keys() == before.keys() and {name for name in now if now[name] != before[name]} == set(members)

    etcd.wait_status(replaced, what=f"{members} replaced", timeout=120)
    etcd.wait_settled()
    assert etcd.voters() == set(MEMBERS)
    for member in MEMBERS:
        assert etcd.read_from(member, "kept") == "yes"


@pytest.mark.parametrize("killed", [False, True])
def test_a_member_in_memory_is_replaced_when_its_pod_goes(etcd: Etcd, killed: bool) -> None:
    before = create_in_memory(etcd)
    leader = str(etcd.status()["leader"])
    with writing(etcd) as writers:
        etcd.kill(leader, grace=0)
        if killed:
            etcd.wait_event("RemovingMember", leader)
            kill_operator(etcd.cluster)
        wait_replaced(etcd, before, leader)
    writers.check()


def test_members_in_memory_restart_in_order_by_being_replaced(etcd: Etcd) -> None:
    before = create_in_memory(etcd)
    with writing(etcd) as writers:
        etcd.patch({"spec": {"options": {"snapshotCount": 5000}}})
        etcd.wait_event("RemovingMember", "it restarts: spec.options.snapshotCount changed")
        kill_operator(etcd.cluster)
        wait_replaced(etcd, before, *MEMBERS)
    writers.check()
    etcd.wait_event("MovingLeader", "it restarts", timeout=10)


def test_a_container_in_memory_that_is_started_again_has_its_data(etcd: Etcd, local: LocalCluster) -> None:
    before = create_in_memory(etcd)
    node, container = etcd.container("a-1")
    local.exec(node, ["ctr", "-n", "k8s.io", "tasks", "kill", "-s", "SIGKILL", container])
    etcd.cluster.wait_for_one(
        lambda pod: pod["status"]["containerStatuses"][0]["restartCount"] == 1 and is_ready_pod(pod),
        "pods",
        etcd.namespace,
        "a-1",
        what="a-1 started again",
    )
    etcd.wait_settled()
    assert etcd.member_ids() == before
    assert etcd.read_from("a-1", "kept") == "yes"


def test_all_data_in_memory_lost_at_once_is_told_and_nothing_is_founded_anew(etcd: Etcd) -> None:
    create_in_memory(etcd)
    before = etcd.status()
    for member in MEMBERS:
        etcd.kill(member, grace=0)
    etcd.wait_told("DataLost", "all of it is lost", timeout=60)
    kill_operator(etcd.cluster)
    etcd.cluster.wait_for(
        lambda found: {pod["status"]["containerStatuses"][0]["restartCount"] > 1 for pod in found.values()} == {True},
        "pods",
        etcd.namespace,
        labels=etcd.labels,
        what="every etcd refused more than once",
        timeout=120,
    )
    status = etcd.status()
    assert (status["clusterID"], status["bootstrap"]) == (before["clusterID"], before["bootstrap"])
    assert not etcd.ready_addresses()
    etcd.delete()
    etcd.forget_client()
    etcd.create(storage={"medium": "Memory", "size": "256Mi"})
    assert etcd.status()["clusterID"] != before["clusterID"]
    assert etcd.read("kept") == ""
