"""Larger volumes: grown where they are if their StorageClass can, and otherwise by members that move to new ones."""

import json
from collections.abc import Iterator

import pytest

from devtools import kube
from e2e.support import Cluster, Etcd, Manifest, identity, kill_operator
from e2e.writers import writing

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


@pytest.mark.parametrize("killed", ["", "RemovingMember", "AddingMember"])
def test_volumes_that_cannot_grow_are_replaced_with_their_members(etcd: Etcd, killed: str) -> None:
    create(etcd)
    status, before = etcd.status(), etcd.member_ids()
    old = {claim["spec"]["volumeName"] for claim in etcd.claims().values()}
    with writing(etcd) as writers:
        grow(etcd)
        if killed:
            etcd.wait_event(killed)
            kill_operator(etcd.cluster)
        etcd.wait_told("GrowingVolumes", "1 of 3 done", timeout=120)
        wait_grown(etcd)
    writers.check()
    assert etcd.status()["clusterID"] == status["clusterID"]
    assert not set(before.values()) & set(etcd.member_ids().values()), "every member is a new one"
    assert not old & {claim["spec"]["volumeName"] for claim in etcd.claims().values()}
    for member in MEMBERS:
        assert etcd.read_from(member, "kept") == "yes"
    etcd.wait_event("MovingLeader", status["leader"], timeout=10)


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
