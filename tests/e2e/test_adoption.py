"""Volumes outlive the EtcdCluster, are adopted again as they were, and are never mistaken for others."""

import json

from devtools import environment
from e2e.support import Etcd


def test_deleting_removes_everything_but_the_volumes_and_applying_again_adopts_them(etcd: Etcd) -> None:
    before = etcd.create()["status"]["clusterID"]
    etcd.put("kept", "yes")
    claims = {name: claim["metadata"]["uid"] for name, claim in etcd.claims().items()}
    delete_all(etcd)
    assert {name: claim["metadata"]["uid"] for name, claim in etcd.claims().items()} == claims
    after = etcd.create()["status"]["clusterID"]
    assert after == before
    assert etcd.read("kept") == "yes"


def delete_all(etcd: Etcd) -> None:
    """Delete the EtcdCluster and wait until all that it owned is gone; the tests' own etcdctl pod goes too."""
    etcd.cluster.delete("pods", etcd.namespace, f"{etcd.name}-etcdctl")
    etcd.delete()
    for plural in ("statefulsets", "configmaps", "services", "poddisruptionbudgets", "secrets", "pods"):
        etcd.cluster.wait_until_gone(plural, etcd.namespace, labels=etcd.labels)
    etcd.cluster.wait_until_gone("pods", etcd.namespace, name=f"{etcd.name}-etcdctl")


def test_kept_volumes_decide_how_many_members_start_whatever_the_new_spec_says(etcd: Etcd) -> None:
    before = etcd.create(members=1)["status"]["clusterID"]
    etcd.put("kept", "yes")
    delete_all(etcd)
    etcd.apply(members=3)
    status = etcd.wait_status(lambda told: told.get("quorum") == "1/1" and bool(told.get("pending")), timeout=60)
    assert status["clusterID"] == before
    assert etcd.read("kept") == "yes"


def test_with_the_deletion_policy_delete_the_volumes_go_too(etcd: Etcd) -> None:
    etcd.create(members=1, storage={"size": "1Gi", "deletionPolicy": "Delete"})
    delete_all(etcd)
    etcd.cluster.wait_until_gone("persistentvolumeclaims", etcd.namespace)


def test_the_deletion_policy_can_be_changed_while_the_cluster_lives(etcd: Etcd) -> None:
    etcd.create(members=1, storage={"size": "1Gi", "deletionPolicy": "Delete"})
    etcd.apply(members=1, storage={"size": "1Gi", "deletionPolicy": "Retain"})
    etcd.cluster.wait_for(
        lambda claims: all("ownerReferences" not in claim["metadata"] for claim in claims.values()),
        "persistentvolumeclaims",
        etcd.namespace,
        what="claims that nothing owns",
        timeout=15,
    )
    delete_all(etcd)
    assert set(etcd.claims()) == {"data-a-0"}


def test_volumes_that_nobody_vouches_for_are_not_served(etcd: Etcd) -> None:
    """The record of whose data a volume holds is gone: the name alone must not make it this cluster's."""
    before = etcd.create()["status"]["clusterID"]
    etcd.put("foreign", "yes")
    delete_all(etcd)
    for name, claim in etcd.claims().items():
        ours = [key for key in claim["metadata"].get("annotations", {}) if key.startswith("externaletcd.io/")]
        assert ours, "a volume whose data is known says so"
        patch = json.dumps({"metadata": {"annotations": dict.fromkeys(ours)}})
        etcd.cluster.kubectl("-n", etcd.namespace, "patch", "pvc", name, "--type=merge", "-p", patch)
    etcd.apply()
    etcd.wait_available()
    assert etcd.status()["clusterID"] != before
    assert etcd.read("foreign") == ""


def test_one_volume_of_another_cluster_among_the_kept_ones_is_not_served(etcd: Etcd) -> None:
    etcd.create()
    etcd.put("kept", "yes")
    delete_all(etcd)
    patch = json.dumps({"metadata": {"annotations": {"externaletcd.io/cluster-id": "badc0ffee0ddf00d"}}})
    etcd.cluster.kubectl("-n", etcd.namespace, "patch", "pvc", "data-a-1", "--type=merge", "-p", patch)
    etcd.apply()
    seen = etcd.wait(
        lambda told: bool(told.get("status", {}).get("conditions")) and not environment.is_available(told),
        what="told as not available",
    )
    told = json.dumps(seen["status"]["conditions"])
    assert "badc0ffee0ddf00d" in told
    assert etcd.cluster.get("secrets", etcd.namespace, "a-client") is None
