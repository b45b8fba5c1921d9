"""Members whose node dies, is cut off or is deleted, and members whose data differs, are replaced by new ones."""

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta

import pytest

from devtools import environment, kube
from e2e.support import OPERATOR, OPERATOR_PODS, Cluster, Etcd, Manifest, condition_of, kill_operator, unhealthy
from e2e.writers import writing
from etcd_operator.etcd.model import KeyHash
from localcluster.cluster import Cluster as LocalCluster

REPLACE_AFTER = timedelta(seconds=20)
#: Seconds: a node that died is told as not ready after 16 s, then replaceAfter, then a new member starts.
REPLACED = 150.0


@pytest.fixture
def victim(cluster: Cluster, local: LocalCluster) -> Iterator[str]:
    """A worker node without the leading operator; as it was afterwards."""
    leader = cluster.get("pods", OPERATOR, environment.leader_pod(cluster))
    assert leader is not None
    workers = (node.name for node in local.nodes[1:])
    chosen = next(node for node in workers if node != leader["spec"]["nodeName"])
    yield chosen
    local.start_node(chosen)  # first: one that is stopped has no cable to plug in
    local.heal(chosen)
    cluster.wait_for_one(lambda node: kube.is_true(node, "Ready"), "nodes", None, chosen, timeout=90)
    cluster.wait_for(lambda pods: all(map(kube.is_ready_pod, pods.values())), "pods", OPERATOR, labels=OPERATOR_PODS)


def create(etcd: Etcd, after: str = f"{REPLACE_AFTER.seconds}s") -> None:
    etcd.create(members=3, storage={"size": "1Gi"}, healing={"replaceAfter": after})
    etcd.put("kept", "yes")


def member_on(etcd: Etcd, node: str) -> str:
    return next(name for name, pod in etcd.pods().items() if pod["spec"]["nodeName"] == node)


def wait_replaced(etcd: Etcd, member: str, before: dict[str, str]) -> None:
    """Wait until another member stands in for this one, alone; the rest, and the data, are as they were."""

    def replaced(told: Manifest) -> bool:
        ids = {each["name"]: each.get("id") for each in told.get("members", [])}
        return ids.get(member) not in (None, before[member]) and told.get("quorum") == "3/3"

    etcd.wait_status(replaced, what=f"{member} replaced", timeout=REPLACED)
    etcd.wait_settled()
    now = etcd.member_ids()
    assert {name for name in now if now[name] != before[name]} == {member}
    assert etcd.voters() == set(before)
    assert etcd.read_from(member, "kept") == "yes"
    etcd.wait_event("RemovingMember", member, timeout=10)


def check_kept(etcd: Etcd, volume: str) -> None:
    """The old volume is there, belongs to nobody, and an event names it; then it is deleted."""
    cluster = etcd.cluster
    kept = cluster.wait_for_one(
        lambda seen: seen["status"]["phase"] == "Released", "persistentvolumes", None, volume, what="released"
    )
    assert kept["spec"]["persistentVolumeReclaimPolicy"] == "Retain"
    etcd.wait_event("KeepingVolume", volume, timeout=10)
    cluster.delete("persistentvolumes", None, volume)


Harm = Callable[[LocalCluster, str], None]


@pytest.mark.parametrize("harm", [LocalCluster.stop_node, LocalCluster.partition], ids=["stopped", "cut off"])
def test_a_member_whose_node_stays_away_is_replaced_on_another(
    etcd: Etcd, local: LocalCluster, victim: str, harm: Harm
) -> None:
    create(etcd)
    member, before, cluster_id = member_on(etcd, victim), etcd.member_ids(), etcd.status()["clusterID"]
    volume = etcd.claims()[f"data-{member}"]["spec"]["volumeName"]
    with writing(etcd) as writers:
        harm(local, victim)
        etcd.wait(lambda told: unhealthy(told, member), what=f"{member} told as unwell")
        seen = etcd.wait(lambda told: "unwellSince" in entry(told, member), what="counted")
        since = datetime.fromisoformat(entry(seen, member)["unwellSince"])
        wait_replaced(etcd, member, before)
    writers.check()
    removed = [each for each in etcd.cluster.list("events", etcd.namespace) if each["reason"] == "RemovingMember"]
    assert datetime.fromisoformat(removed[0]["firstTimestamp"]) - since >= REPLACE_AFTER
    assert etcd.pods()[member]["spec"]["nodeName"] != victim
    assert etcd.status()["clusterID"] == cluster_id
    check_kept(etcd, volume)
    # What still ran of the old member, and its pod, end when the node is back; nothing else changes.
    now = etcd.member_ids()
    local.start_node(victim)
    local.heal(victim)
    etcd.cluster.wait_for_one(lambda node: kube.is_true(node, "Ready"), "nodes", None, victim, timeout=90)
    etcd.wait_settled()
    assert etcd.member_ids() == now
    assert etcd.read("kept") == "yes"


def entry(told: Manifest, member: str) -> Manifest:
    """What the status tells of a member."""
    found: Manifest = next((each for each in told["status"]["members"] if each["name"] == member), {})
    return found


def test_a_node_that_comes_back_in_time_keeps_its_member(etcd: Etcd, local: LocalCluster, victim: str) -> None:
    create(etcd, "3m")
    member, before = member_on(etcd, victim), etcd.member_ids()
    local.stop_node(victim)
    seen = etcd.wait(lambda told: "unwellSince" in entry(told, member), what="counted")
    assert "a new member takes its place unless it is back by" in condition_of(seen, "Degraded")["message"]
    local.start_node(victim)
    seen = etcd.wait_settled()
    assert "unwellSince" not in entry(seen, member)
    assert etcd.member_ids() == before


@pytest.mark.parametrize("operator", ["lives", "is killed"])
def test_a_member_whose_node_object_is_deleted_is_replaced_at_once(
    etcd: Etcd, local: LocalCluster, victim: str, operator: str
) -> None:
    create(etcd, "Never")
    member, before = member_on(etcd, victim), etcd.member_ids()
    volume = etcd.claims()[f"data-{member}"]["spec"]["volumeName"]
    local.stop_node(victim)
    etcd.wait(lambda told: unhealthy(told, member), what=f"{member} told as unwell")
    etcd.cluster.wait_for_one(lambda node: not kube.is_true(node, "Ready"), "nodes", None, victim, timeout=60)
    etcd.cluster.delete("nodes", None, victim)
    etcd.wait_event("RemovingMember", member, "no node of this Kubernetes any more", timeout=10)
    if operator == "is killed":
        kill_operator(etcd.cluster)
    wait_replaced(etcd, member, before)
    check_kept(etcd, volume)


def test_an_operator_killed_while_it_moves_a_member(etcd: Etcd, local: LocalCluster, victim: str) -> None:
    create(etcd)
    member, before = member_on(etcd, victim), etcd.member_ids()
    volume = etcd.claims()[f"data-{member}"]["spec"]["volumeName"]
    local.stop_node(victim)
    etcd.wait(lambda told: "unwellSince" in entry(told, member), what="counted")
    kill_operator(etcd.cluster)
    etcd.wait_event("KeepingVolume", volume, timeout=REPLACED)
    kill_operator(etcd.cluster)
    wait_replaced(etcd, member, before)
    check_kept(etcd, volume)


# --- data that differs ------------------------------------------------------------------------------------------------

RIGHT, WRONG = "differs-RIGHT-RIGHT", "differs-WRONG-WRONG"


def falsify(etcd: Etcd, local: LocalCluster, member: str) -> None:
    """Change a value in a member's database behind its back: its pages bear no checksums."""
    node, _ = etcd.container(member)
    script = f"sed -i 's/{RIGHT}/{WRONG}/g' $db.new && cat $db.new 1<>$db >$db && rm $db.new"
    program = f"for db in {etcd.volume_folder(member)}/*/member/snap/db; do cp $db $db.new && {script}; done"
    done = local.exec(node, ["sh", "-ec", program])
    assert done.returncode == 0, done


def test_a_member_whose_data_differs_is_replaced_and_the_alarm_taken_back(etcd: Etcd, local: LocalCluster) -> None:
    etcd.create(members=3, storage={"size": "1Gi"}, options={"extra": {"compact-hash-check-time": "2s"}})
    etcd.put("kept", "yes")
    etcd.put("differs", RIGHT)
    before = etcd.member_ids()
    victim = next(name for name in sorted(before) if name != etcd.status()["leader"])

    def hash_of(member: str) -> KeyHash:
        return etcd.ask(member, lambda client, endpoint: client.hash_kv(endpoint))

    falsify(etcd, local, victim)
    assert len({hash_of(member).hash for member in before}) == 2, "its keys differ"
    etcd.put("more", "1")
    etcd.etcdctl("compaction", "3")
    etcd.wait_event("RemovingMember", victim, "its data differs", timeout=60)
    kill_operator(etcd.cluster)
    etcd.wait_event("DisarmingAlarm", before[victim])
    wait_replaced(etcd, victim, before)
    assert len({hash_of(member).hash for member in before}) == 1
    etcd.put("after", "yes")
    assert etcd.etcdctl("alarm", "list") == ""
