"""Volumes outlive the EtcdCluster, are adopted again as they were, and are never mistaken for others."""

import json

from devtools import environment
from e2e.support import Etcd, condition_of
from localcluster.cluster import Cluster as LocalCluster

OWNED = ("statefulsets", "configmaps", "services", "poddisruptionbudgets", "networkpolicies", "secrets", "pods")


def delete_all(etcd: Etcd) -> None:
    """Delete the EtcdCluster and wait until all that it owned is gone; the tests' own etcdctl pod goes too."""
    etcd.forget_client()
    etcd.delete()
    for plural in OWNED:
        etcd.cluster.wait_until_gone(plural, etcd.namespace, labels=etcd.labels)


def test_deleting_removes_everything_but_the_volumes_and_applying_again_adopts_them(etcd: Etcd) -> None:
    before = etcd.create()["status"]["clusterID"]
    etcd.put("kept", "yes")
    ids = etcd.member_ids()
    claims = {name: claim["metadata"]["uid"] for name, claim in etcd.claims().items()}
    delete_all(etcd)
    assert {name: claim["metadata"]["uid"] for name, claim in etcd.claims().items()} == claims
    etcd.apply(members=5)
    etcd.wait_status(
        lambda told: [member.get("healthy") for member in told.get("members", [])] == [True] * 3,
        what="the recorded three before there are five",
        timeout=90,
    )
    assert etcd.wait_settled()["status"]["clusterID"] == before
    assert etcd.voters() == {f"a-{number}" for number in range(5)}
    assert etcd.read("kept") == "yes"
    now = etcd.member_ids()
    assert {name: now[name] for name in ids} == ids
    kept = etcd.claims()
    assert {name: kept[name]["metadata"]["uid"] for name in claims} == claims


def test_more_members_than_the_new_spec_wants_are_adopted_before_some_of_them_go(etcd: Etcd) -> None:
    before = etcd.create()["status"]["clusterID"]
    etcd.put("kept", "yes")
    first = etcd.member_ids()["a-0"]
    delete_all(etcd)
    etcd.apply(members=1)
    assert etcd.wait_settled()["status"]["clusterID"] == before
    assert etcd.member_ids() == {"a-0": first}
    assert etcd.read("kept") == "yes"
    assert set(etcd.claims()) == {"data-a-0", "data-a-1", "data-a-2"}


def test_it_may_be_applied_again_before_the_old_one_is_gone(etcd: Etcd) -> None:
    before = etcd.create(members=1)["status"]["clusterID"]
    etcd.put("kept", "yes")
    old = etcd.get()["metadata"]["uid"]
    etcd.delete(wait=False)
    etcd.apply(members=1)
    etcd.wait(lambda seen: seen["metadata"]["uid"] != old and environment.is_available(seen), timeout=90)
    assert etcd.status()["clusterID"] == before
    # The pod that asked before trusts the authority of the EtcdCluster that is gone.
    etcd.forget_client()
    assert etcd.read("kept") == "yes"


def test_kept_volumes_decide_how_many_members_start_whatever_the_new_spec_says(etcd: Etcd) -> None:
    before = etcd.create(members=1)["status"]["clusterID"]
    etcd.put("kept", "yes")
    first = etcd.member_ids()["a-0"]
    delete_all(etcd)
    etcd.apply(members=3)
    etcd.wait_status(
        lambda told: told.get("quorum") == "1/1" and told.get("clusterID") == before, what="1/1 as it was", timeout=90
    )
    assert etcd.wait_settled()["status"]["clusterID"] == before
    assert etcd.voters() == {"a-0", "a-1", "a-2"}
    assert etcd.member_ids()["a-0"] == first
    assert etcd.read("kept") == "yes"


def test_the_deletion_policy_decides_at_last_whether_the_volumes_go(etcd: Etcd) -> None:
    etcd.create(members=1, storage={"size": "1Gi", "deletionPolicy": "Delete"})
    etcd.apply(members=1)
    etcd.cluster.wait_for(
        lambda claims: all("ownerReferences" not in claim["metadata"] for claim in claims.values()),
        "persistentvolumeclaims",
        etcd.namespace,
        what="claims that nothing owns",
        timeout=15,
    )
    delete_all(etcd)
    assert set(etcd.claims()) == {"data-a-0"}
    etcd.create(members=1, storage={"size": "1Gi", "deletionPolicy": "Delete"})
    etcd.cluster.wait_for(
        lambda claims: all("ownerReferences" in claim["metadata"] for claim in claims.values()),
        "persistentvolumeclaims",
        etcd.namespace,
        what="claims that the EtcdCluster owns",
        timeout=15,
    )
    delete_all(etcd)
    etcd.cluster.wait_until_gone("persistentvolumeclaims", etcd.namespace)


def test_volumes_that_nobody_vouches_for_are_not_served(etcd: Etcd) -> None:
    """The record of whose data a volume holds is gone: the name alone must not make it this cluster's."""
    before = etcd.create(members=1)["status"]["clusterID"]
    etcd.put("foreign", "yes")
    delete_all(etcd)
    for name, claim in etcd.claims().items():
        ours = [key for key in claim["metadata"].get("annotations", {}) if key.startswith("externaletcd.io/")]
        assert ours, "a volume whose data is known says so"
        patch = json.dumps({"metadata": {"annotations": dict.fromkeys(ours)}})
        etcd.cluster.kubectl("-n", etcd.namespace, "patch", "pvc", name, "--type=merge", "-p", patch)
    etcd.apply(members=1)
    etcd.wait_available()
    assert etcd.status()["clusterID"] != before
    assert etcd.read("foreign") == ""


def test_one_volume_of_another_cluster_among_the_kept_ones_is_not_served(etcd: Etcd) -> None:
    before = etcd.create()["status"]["clusterID"]
    delete_all(etcd)
    tell(etcd, "data-a-1", "badc0ffee0ddf00d")
    etcd.apply()
    etcd.wait_told("RecordsDisagree", "data-a-1 says badc0ffee0ddf00d", before)
    assert condition_of(etcd.get(), "Available")["status"] != "True"
    assert etcd.cluster.get("secrets", etcd.namespace, "a-client") is None
    assert etcd.pods() == {}
    tell(etcd, "data-a-1", before)
    assert etcd.wait_available()["status"]["clusterID"] == before


def tell(etcd: Etcd, claim: str, cluster_id: str) -> None:
    """Write on a volume whose data it holds."""
    patch = json.dumps({"metadata": {"annotations": {"externaletcd.io/cluster-id": cluster_id}}})
    etcd.cluster.kubectl("-n", etcd.namespace, "patch", "pvc", claim, "--type=merge", "-p", patch)


def pinned(local: LocalCluster) -> dict[str, object]:
    """A pod overlay for the last node, so that volumes of two clusters lie on the same disk."""
    return {"spec": {"nodeSelector": {"kubernetes.io/hostname": local.nodes[-1].name}}}


def run(local: LocalCluster, script: str) -> None:
    """Run a shell script on the last node."""
    done = local.exec(local.nodes[-1].name, ["sh", "-ec", script])
    assert done.returncode == 0, done


def test_the_data_of_another_cluster_put_into_place_is_not_served(etcd: Etcd, local: LocalCluster) -> None:
    """First the other's volume as it is, then its data under the very name of this cluster's directory."""
    other = Etcd(cluster=etcd.cluster, namespace=etcd.namespace, name="other")
    for each in (etcd, other):
        each.apply(members=1, podTemplate=pinned(local))
    for each in (etcd, other):
        each.wait_available()
        each.put("whose", each.name)
    own, foreign = etcd.volume_folder("a-0"), other.volume_folder("other-0")
    incarnation = etcd.status()["bootstrap"]["incarnation"]
    delete_all(other)
    run(local, f"mkdir {own}/aside; mv {own}/{incarnation} {own}/aside; cp -a {foreign}/* {own}/")
    etcd.kill("a-0", grace=0)
    etcd.wait_told("a-0", "the data directory is empty", timeout=30)
    assert etcd.condition("Available")["status"] == "False"

    # etcd left an empty directory behind when it exited.
    run(local, f"rm -r {own}/{incarnation}; mv {own}/{other_incarnation(local, foreign)} {own}/{incarnation}")
    etcd.kill("a-0", grace=0)
    etcd.wait_told("a-0", "data of another etcd cluster", timeout=60)
    assert etcd.condition("Available")["status"] != "True"
    etcd.cluster.wait_for(
        lambda _: not etcd.ready_addresses(), "endpointslices", etcd.namespace, timeout=15, what="nothing behind a"
    )

    run(local, f"rm -r {own}/{incarnation}; mv {own}/aside/{incarnation} {own}/")
    etcd.kill("a-0", grace=0)
    etcd.wait_available()
    assert etcd.read("whose") == "a"


def other_incarnation(local: LocalCluster, folder: str) -> str:
    """The name of the one data directory on a volume."""
    listed = local.exec(local.nodes[-1].name, ["ls", folder]).stdout.split()
    (name,) = listed
    return str(name)
