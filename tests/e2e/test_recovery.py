"""A quorum that is lost for good: named, left alone, and rebuilt from the member that a person names, once."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest

from devtools import environment
from e2e.support import OPERATOR, OPERATOR_PODS, Cluster, Etcd, KubectlError, Manifest, kill_operator
from etcd_operator.api import DEFAULT_VERSION
from etcd_operator.etcd.client import EtcdClient
from etcd_operator.etcd.model import Endpoint
from localcluster.cluster import Cluster as LocalCluster

#: Seconds for a rebuild with everything that follows it, the operator killed on the way included.
REBUILT = 240.0


@contextmanager
def operator_away(cluster: Cluster) -> Iterator[None]:
    """Nobody heals what happens meanwhile."""
    cluster.kubectl("scale", "-n", OPERATOR, f"deployment/{OPERATOR}", "--replicas=0")
    try:
        cluster.wait_until_gone("pods", OPERATOR, labels=OPERATOR_PODS)
        yield
    finally:
        cluster.kubectl("scale", "-n", OPERATOR, f"deployment/{OPERATOR}", "--replicas=2")
        environment.wait_for_operator(cluster)


def lose(etcd: Etcd, *members: str) -> None:
    """Delete volumes and pods at one stroke."""
    with operator_away(etcd.cluster):
        old = {name: claim["metadata"]["uid"] for name, claim in etcd.claims().items()}
        for member in members:
            etcd.cluster.delete("persistentvolumeclaims", etcd.namespace, f"data-{member}")
        for member in members:
            etcd.kill(member, grace=0)

        def replaced(claims: dict[str, Manifest]) -> bool:
            found = {name: claim["metadata"]["uid"] for name, claim in claims.items()}
            return all(found.get(f"data-{member}") not in (None, old[f"data-{member}"]) for member in members)

        etcd.cluster.wait_for(
            replaced, "persistentvolumeclaims", etcd.namespace, labels=etcd.labels, what="new volumes"
        )


def ask(etcd: Etcd, **recovery: Any) -> None:
    """`kubectl patch` of spec.recovery."""
    etcd.patch({"spec": {"recovery": recovery}})


async def put(key: str, client: EtcdClient, endpoint: Endpoint) -> None:
    """Write one key through one member."""
    await client.put(endpoint, key.encode(), b"yes", timeout=20)


def create(etcd: Etcd, **spec: Any) -> dict[str, str]:
    etcd.create(**spec)
    for number in range(20):
        etcd.ask("a-2", partial(put, f"key-{number}"))
    etcd.put("kept", "yes")
    return etcd.member_ids()


def check_rebuilt(etcd: Etcd, survivor: str, before: dict[str, str], cluster_id: str) -> None:
    """That all is as it was, with the data of the survivor, who alone is who it was."""
    seen = etcd.wait_settled(timeout=REBUILT)
    status = seen["status"]
    assert (status["recovery"]["forceFrom"], status["recovery"]["state"]) == (survivor, "Rebuilt")
    assert (status["clusterID"], status["quorum"]) == (cluster_id, "3/3")
    assert "quorumLost" not in status
    assert etcd.voters() == set(before)
    now = etcd.member_ids()
    assert {name for name in before if now[name] == before[name]} == {survivor}
    for member in before:
        assert etcd.read_from(member, "kept") == "yes"
        assert etcd.read_from(member, "key-19") == "yes"
    etcd.put("kept", "yes")
    assert etcd.cluster.get("pods", etcd.namespace, f"{survivor}-recovery") is None
    files = etcd.cluster.get("configmaps", etcd.namespace, f"{etcd.name}-config")
    assert files is not None
    assert not any("force-new-cluster" in text for text in files["data"].values())


def wait_refused_again(etcd: Etcd, member: str) -> None:
    """Wait until a member without data has been refused more than once: nobody has helped it meanwhile."""
    etcd.cluster.wait_for_one(
        lambda pod: any(status["restartCount"] > 1 for status in pod["status"].get("containerStatuses", [])),
        "pods",
        etcd.namespace,
        member,
        what="refused again and again",
    )


def test_two_of_three_volumes_lost_twice_and_rebuilt_only_when_asked(etcd: Etcd) -> None:
    before = create(etcd)
    cluster_id = etcd.status()["clusterID"]
    lose(etcd, "a-0", "a-1")
    etcd.wait_told("QuorumLost", "a-0", "a-1", "only if they are lost for good: spec.recovery.forceFrom: a-2")
    first = etcd.wait_status(lambda told: "quorumLost" in told, what="the loss named")["quorumLost"]
    wait_refused_again(etcd, "a-0")
    assert not {"Rebuilding", "AddingMember", "RemovingMember"} & etcd.event_reasons()

    ask(etcd, forceFrom="a-0")
    etcd.wait_told("RecoveryRefused", "a-0 has no data to rebuild from")
    ask(etcd, forceFrom="a-2")
    check_rebuilt(etcd, "a-2", before, cluster_id)
    etcd.wait_event("Rebuilding", "as spec.recovery.forceFrom asks: what was acknowledged after revision", timeout=20)
    assert etcd.status()["recovery"]["loss"] == first["since"]

    again = etcd.member_ids()
    lose(etcd, "a-0", "a-1")
    etcd.wait_told("RecoveryRefused", "was a-2 before this loss was named", "take it out and set it again", timeout=30)
    wait_refused_again(etcd, "a-0")
    assert etcd.status()["recovery"]["loss"] == first["since"]
    assert etcd.stateful_set()["spec"]["replicas"] == 3
    ask(etcd, forceFrom=None)
    etcd.wait_status(lambda told: "ignoredForceFrom" not in told["quorumLost"], what="the old request forgotten")
    ask(etcd, forceFrom="a-2")
    etcd.wait_status(lambda told: told["recovery"]["loss"] != first["since"], what="rebuilding once more")
    check_rebuilt(etcd, "a-2", again, cluster_id)


def test_the_operator_is_killed_at_every_stage_of_a_rebuild(etcd: Etcd) -> None:
    before = create(etcd)
    cluster_id = etcd.status()["clusterID"]
    lose(etcd, "a-1", "a-2")
    etcd.wait_told("QuorumLost", "spec.recovery.forceFrom: a-0", timeout=30)
    ask(etcd, forceFrom="a-0")
    for stage in ("all members are stopped first", "becomes the only one", "makes a-0 the only", "join anew"):
        etcd.wait_event("Rebuilding", stage, timeout=REBUILT)
        kill_operator(etcd.cluster)
    check_rebuilt(etcd, "a-0", before, cluster_id)
    environment.wait_for_operator(etcd.cluster)


@pytest.fixture
def uncordoned(cluster: Cluster, local: LocalCluster) -> Iterator[list[str]]:
    """The nodes, all in use again afterwards."""
    names = [node.name for node in local.nodes]
    yield names
    cluster.kubectl("uncordon", *names)


@pytest.mark.usefixtures("old_etcd_images")
@pytest.mark.parametrize("version", ["3.5.35", "3.6.16", DEFAULT_VERSION])
def test_members_that_cannot_be_asked_are_left_aside_only_when_that_is_accepted(
    etcd: Etcd, local: LocalCluster, uncordoned: list[str], version: str
) -> None:
    """Their old data could still form the old quorum; it stays on their volumes, and nobody ever starts on it again."""
    before = create(etcd, version=version)
    cluster_id, pods = etcd.status()["clusterID"], etcd.pods()
    away = ["a-0", "a-2"]
    folders = {member: etcd.volume_folder(member) for member in away}
    nodes = {member: pods[member]["spec"]["nodeName"] for member in away}
    directories = {member: listed(local, nodes[member], folders[member]) for member in away}
    with operator_away(etcd.cluster):
        etcd.cluster.kubectl("cordon", *set(nodes.values()))
        for member in away:
            etcd.kill(member, grace=0)
        etcd.cluster.kubectl("uncordon", next(node for node in uncordoned if node not in nodes.values()))
    etcd.wait_told("QuorumLost", "a-0", "a-2", timeout=30)
    ask(etcd, forceFrom="a-1")
    etcd.wait_told("RecoveryRefused", "a-0 may have newer data and cannot be asked", "acceptDataLoss")
    with pytest.raises(KubectlError):
        etcd.etcdctl("get", "kept", "--command-timeout=2s")
    ask(etcd, forceFrom="a-1", acceptDataLoss=True)
    etcd.wait_event("Rebuilding", "a-1 is the only member now", timeout=REBUILT)
    etcd.cluster.kubectl("uncordon", *set(nodes.values()))
    check_rebuilt(etcd, "a-1", before, cluster_id)
    for member in away:
        kept, now = directories[member], listed(local, nodes[member], folders[member])
        assert kept < now, "the old directory is beside the new one"
        assert etcd.member_ids()[member] in now - kept


def listed(local: LocalCluster, node: str, folder: str) -> set[str]:
    """The data directories on a volume."""
    done = local.exec(node, ["ls", folder])
    assert done.returncode == 0, done
    return set(done.stdout.split())
