"""Scaling and replacing members: etcd's own list ends up as the spec says, and no acknowledged write is ever lost."""

import pytest

from devtools import environment
from e2e.support import Cluster, Etcd, Manifest, identity, kill_operator, move_lead
from e2e.writers import writing

MEMBER_STATE = "externaletcd.io/member-state"


def names(count: int) -> set[str]:
    return {f"a-{number}" for number in range(count)}


def check(etcd: Etcd, size: int) -> None:
    """That exactly so many members stand, in etcd, in Kubernetes and in the status, and that the data is there."""
    seen = etcd.wait_settled()
    assert etcd.voters() == names(size)
    assert etcd.stateful_set()["spec"]["replicas"] == size
    etcd.cluster.wait_for(
        lambda pods: set(pods) == names(size), "pods", etcd.namespace, labels=etcd.labels, what="just the pods"
    )
    status = seen["status"]
    assert status["quorum"] == f"{size}/{size}"
    assert status["toleratedFailures"] == (size - 1) // 2
    assert {member["name"] for member in status["members"]} == names(size)
    assert {member["role"] for member in status["members"]} == {"Voter"}
    assert {member["id"] for member in status["members"]} == set(etcd.member_ids().values())
    assert not status.get("pending")
    assert etcd.read("kept") == "yes"


def create(etcd: Etcd, members: int = 3, *, policy: str = "Retain") -> None:
    etcd.create(members=members, storage={"size": "1Gi", "deletionPolicy": policy})
    etcd.put("kept", "yes")


def wait_for_removed_volumes(etcd: Etcd, policy: str, *ordinals: int) -> None:
    """Wait until the volumes of members that were scaled away are gone, or say that they are such."""
    removed = {f"data-a-{ordinal}" for ordinal in ordinals}

    def retired(claims: dict[str, Manifest]) -> bool:
        if policy == "Delete":
            return not removed & set(claims)
        states = {claims[name]["metadata"].get("annotations", {}).get(MEMBER_STATE) for name in removed}
        return states == {"removed"}

    etcd.cluster.wait_for(retired, "persistentvolumeclaims", etcd.namespace, timeout=60, what=f"{removed}: {policy}")


def test_three_to_five_and_back_under_load(etcd: Etcd) -> None:
    create(etcd)
    before = identity(etcd)
    with writing(etcd) as writers:
        etcd.scale(5)
        check(etcd, 5)
        etcd.scale(3)
        check(etcd, 3)
    writers.check()
    wait_for_removed_volumes(etcd, "Retain", 3, 4)
    assert identity(etcd) == before
    for reason in ("AddingMember", "PromotingMember", "RemovingMember"):
        for member in ("a-3", "a-4"):
            etcd.wait_event(reason, member, timeout=10)


@pytest.mark.parametrize("policy", ["Retain", "Delete"])
def test_up_down_and_up_at_once_and_down_at_last(etcd: Etcd, policy: str) -> None:
    create(etcd, policy=policy)
    before = identity(etcd)
    for size in (5, 3, 5):
        etcd.scale(size)
    check(etcd, 5)
    etcd.scale(3)
    check(etcd, 3)
    wait_for_removed_volumes(etcd, policy, 3, 4)
    assert identity(etcd) == before


def test_members_that_come_back_over_their_old_volumes_are_new_ones(etcd: Etcd) -> None:
    create(etcd)
    etcd.scale(5)
    check(etcd, 5)
    ids, claims = etcd.member_ids(), etcd.claims()
    etcd.scale(3)
    wait_for_removed_volumes(etcd, "Retain", 3, 4)
    etcd.put("kept", "not yet")
    etcd.put("kept", "yes")
    etcd.scale(5)
    check(etcd, 5)
    again = etcd.member_ids()
    assert {name for name in ids if again[name] == ids[name]} == names(3)
    for name, claim in etcd.claims().items():
        assert claim["metadata"]["uid"] == claims[name]["metadata"]["uid"]
        assert claim["metadata"]["annotations"]["externaletcd.io/member-id"] == again[name.removeprefix("data-")]


def test_one_to_three_to_seven_and_back(etcd: Etcd) -> None:
    create(etcd, 1)
    before = identity(etcd)
    with writing(etcd) as writers:
        for size in (3, 7, 1):
            etcd.scale(size)
            check(etcd, size)
    writers.check()
    assert identity(etcd) == before


def test_a_change_of_mind_while_learners_join(etcd: Etcd) -> None:
    create(etcd)
    before = identity(etcd)
    etcd.scale(5)
    etcd.wait_status(
        lambda told: any(member.get("role") == "Learner" for member in told.get("members", [])), what="a learner"
    )
    etcd.scale(3)
    check(etcd, 3)
    assert identity(etcd) == before


def test_the_leader_is_among_the_members_to_go(etcd: Etcd) -> None:
    create(etcd)
    etcd.scale(5)
    check(etcd, 5)
    move_lead(etcd, "a-4")
    with writing(etcd) as writers:
        etcd.scale(3)
        check(etcd, 3)
    writers.check()
    etcd.wait_event("MovingLeader", "a-4 is to be removed", timeout=10)


def lose(etcd: Etcd, member: str) -> None:
    """Delete a member's volume and its pod."""
    etcd.cluster.delete("persistentvolumeclaims", etcd.namespace, f"data-{member}")
    etcd.kill(member, grace=0)


def check_replaced(etcd: Etcd, member: str, before: dict[str, str], cluster_id: str) -> None:
    """That another member stands in for one that lost its data, and that the others are who they were."""

    def replaced(told: Manifest) -> bool:
        ids = {each["name"]: each.get("id") for each in told.get("members", [])}
        return ids.get(member) not in (None, before[member]) and told.get("quorum") == f"{len(before)}/{len(before)}"

    etcd.wait_status(replaced, what=f"{member} replaced", timeout=90)
    check(etcd, len(before))
    now = etcd.member_ids()
    assert {name for name in now if now[name] != before[name]} == {member}
    assert etcd.status()["clusterID"] == cluster_id
    etcd.wait_event("RemovingMember", member, timeout=10)
    assert etcd.read_from(member, "kept") == "yes"


@pytest.mark.parametrize("who", ["follower", "leader"])
def test_a_lost_volume(etcd: Etcd, who: str) -> None:
    create(etcd)
    status, before = etcd.status(), etcd.member_ids()
    leader = status["leader"]
    victim = leader if who == "leader" else min(name for name in before if name != leader)
    with writing(etcd) as writers:
        lose(etcd, victim)
        check_replaced(etcd, victim, before, status["clusterID"])
    writers.check()


def test_a_volume_that_is_to_go_under_a_member_that_runs(etcd: Etcd) -> None:
    """Kubernetes keeps such a volume until its pod is gone, so nothing is lost yet and nobody has to hurry."""
    create(etcd)
    status, before = etcd.status(), etcd.member_ids()
    with writing(etcd) as writers:
        etcd.cluster.delete("persistentvolumeclaims", etcd.namespace, "data-a-1")
        check_replaced(etcd, "a-1", before, status["clusterID"])
    writers.check()


def test_the_only_volume_lost_is_told_and_nothing_is_founded_anew(etcd: Etcd) -> None:
    create(etcd, 1)
    before = etcd.status()
    lose(etcd, "a-0")
    etcd.wait_told("QuorumLost", "a-0", timeout=60)
    etcd.wait_told("the data directory is empty", timeout=60)
    etcd.cluster.wait_for_one(
        lambda pod: any(status["restartCount"] > 1 for status in pod["status"].get("containerStatuses", [])),
        "pods",
        etcd.namespace,
        "a-0",
        what="refused again and again",
    )
    status = etcd.status()
    assert (status["clusterID"], status["bootstrap"]) == (before["clusterID"], before["bootstrap"])
    assert [member.get("healthy") for member in status["members"]] == [False]
    assert not etcd.ready_addresses()
    assert not {"AddingMember", "RemovingMember"} & etcd.event_reasons()


def kill_at(reason: str, etcd: Etcd) -> None:
    etcd.wait_event(reason)
    kill_operator(etcd.cluster)


def test_an_operator_killed_again_and_again_while_members_join(etcd: Etcd) -> None:
    create(etcd)
    before = identity(etcd)
    etcd.scale(5)
    kill_at("AddingMember", etcd)
    kill_at("PromotingMember", etcd)
    check(etcd, 5)
    etcd.scale(3)
    check(etcd, 3)
    assert identity(etcd) == before


@pytest.mark.parametrize("policy", ["Retain", "Delete"])
def test_an_operator_killed_while_members_leave(cluster: Cluster, etcd: Etcd, policy: str) -> None:
    create(etcd, 5, policy=policy)
    etcd.scale(3)
    kill_at("RemovingMember", etcd)
    check(etcd, 3)
    wait_for_removed_volumes(etcd, policy, 3, 4)
    environment.wait_for_operator(cluster)


def test_an_operator_killed_while_a_member_is_replaced(etcd: Etcd) -> None:
    create(etcd)
    status, before = etcd.status(), etcd.member_ids()
    lose(etcd, "a-1")
    kill_at("RemovingMember", etcd)
    check_replaced(etcd, "a-1", before, status["clusterID"])
