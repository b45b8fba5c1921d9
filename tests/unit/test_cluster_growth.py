"""When volumes are asked to grow, when their members are replaced instead, and what is told meanwhile."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from etcd_operator.cluster.conditions import Outcome, Told, pending_changes, progressing
from etcd_operator.cluster.growth_rules import growth_problem
from etcd_operator.cluster.observation import Observation, ResizeRefusal
from etcd_operator.cluster.plan import plan
from etcd_operator.cluster.steps import AddMember, Apply, Delete, GrowVolume, MoveLeader, RemoveMember
from etcd_operator.etcd.model import Member, MemberList
from etcd_operator.resources import names as n
from etcd_operator.resources.compare import sealed
from etcd_operator.resources.names import Manifest
from etcd_operator.resources.stateful_set import stateful_set
from support.builders import (
    EARLIER,
    NOW,
    blueprint,
    down,
    edited,
    judged,
    live,
    observation,
    pod,
    silent,
    terminated,
    with_answer,
    with_object,
    with_pod,
    with_spec,
    without,
)
from support.plans import carried_out, planned, the_step

LARGER = "9Gi"
CANNOT = (
    'persistentvolumeclaims "data-a-0" is forbidden: only dynamically provisioned pvc can be resized and the '
    "storageclass that provisions the pvc must support resize"
)
QUOTA = "exceeded quota: small, requested: requests.storage=1Gi, used: requests.storage=24Gi, limited: 24Gi"
FULL = '{"level":"fatal","msg":"failed to create WAL","error":"write /var/lib/etcd: no space left on device"}'


def told(seen: Observation) -> Told:
    found = judged(seen)
    return progressing(found, Outcome(plan=plan(found)))


def larger(members: int = 3, **spec: Any) -> Observation:
    """The user asks for larger volumes."""
    seen = observation(members=members, **spec)
    return with_spec(seen, storage={**spec.get("storage", {}), "size": LARGER})


def refused(seen: Observation, message: str = CANNOT, *members: str) -> Observation:
    """The API server refused to let these claims, or all, grow."""
    answers = {
        claim["metadata"]["uid"]: ResizeRefusal(size=LARGER, message=message, at=NOW)
        for name, claim in seen.objects.claims.items()
        if not members or name.removeprefix("data-") in members
    }
    return replace(seen, resizes={**seen.resizes, **answers})


def asking(seen: Observation, *members: str, given: bool = True) -> Observation:
    """The claims of these members ask for the larger size, and have it."""

    def grow(claim: Manifest) -> None:
        claim["spec"]["resources"]["requests"]["storage"] = LARGER
        if given:
            claim["status"]["capacity"]["storage"] = LARGER

    for member in members:
        seen = edited(seen, "claims", f"data-{member}", grow)
    return seen


def renewed(seen: Observation) -> Observation:
    """The StatefulSet was made anew, with the larger template."""
    made = sealed(stateful_set(judged(without(seen, "stateful_sets")).blueprint))
    return with_object(seen, "stateful_sets", live(made))


def unexpandable(members: int = 3) -> Observation:
    """No claim can grow, and the template asks for the larger size already."""
    return renewed(refused(larger(members)))


def removed(seen: Observation, name: str) -> Observation:
    """etcd's list without a member."""
    answers = {}
    for member, each in seen.answers.items():
        if each.members is not None:
            kept = tuple(listed for listed in each.members.members if listed.name != name)
            each = replace(each, members=MemberList(cluster_id=each.members.cluster_id, members=kept))
        answers[member] = each
    return with_answer(replace(seen, answers=answers), name, silent())


# --- in place ---------------------------------------------------------------------------------------------------------


def test_every_claim_is_asked_to_grow() -> None:
    steps = planned(larger()).steps
    assert {(step.claim, step.size) for step in steps if isinstance(step, GrowVolume)} == {
        (f"data-a-{ordinal}", LARGER) for ordinal in range(3)
    }
    assert len(steps) == 3


def test_a_volume_that_was_made_larger_by_hand_is_left_alone() -> None:
    seen = asking(larger(), "a-1", "a-2")
    assert the_step(seen).claim == "data-a-0"


def test_sizes_are_compared_as_amounts() -> None:
    assert planned(with_spec(observation(), storage={"size": "8192Mi"})).rule == "at_rest"


def test_a_claim_without_a_volume_is_waited_for() -> None:
    def unbind(claim: Manifest) -> None:
        claim["status"] = {"phase": "Pending"}

    seen = asking(larger(), "a-1", "a-2")
    assert not any(isinstance(step, GrowVolume) for step in planned(edited(seen, "claims", "data-a-0", unbind)).steps)


def test_the_template_follows_with_the_pods_left_alone() -> None:
    seen = asking(larger(), "a-0", "a-1", "a-2", given=False)
    step = the_step(seen)
    assert isinstance(step, Delete)
    assert (step.kind, step.name, step.propagation) == ("StatefulSet", "a", "Orphan")
    assert step.uid == seen.objects.stateful_sets["a"]["metadata"]["uid"]
    made = the_step(without(seen, "stateful_sets"))
    assert isinstance(made, Apply)
    template = made.manifest["spec"]["volumeClaimTemplates"][0]
    assert template["spec"]["resources"]["requests"]["storage"] == LARGER
    assert made.manifest["spec"]["replicas"] == 3
    recorded = made.manifest["metadata"]["annotations"]
    for key in (n.CLUSTER_ID, n.INCARNATION, n.ROSTER, n.APPLIED_SPEC, n.REVISION):
        assert recorded[key] == seen.objects.stateful_sets["a"]["metadata"]["annotations"][key]


def test_nothing_else_changes_for_it() -> None:
    seen = renewed(asking(larger(), "a-0", "a-1", "a-2"))
    assert planned(seen).rule == "at_rest"
    assert told(seen).reason == "AsSpecified"
    assert not pending_changes(judged(seen))


def test_the_old_stateful_set_is_waited_for() -> None:
    def going(manifest: Manifest) -> None:
        manifest["metadata"]["deletionTimestamp"] = EARLIER

    seen = edited(asking(larger(), "a-0", "a-1", "a-2"), "stateful_sets", "a", going)
    assert planned(seen).rule == "wait_for_leftovers"


def test_what_kubernetes_says_of_a_resize_is_told() -> None:
    def resizing(claim: Manifest) -> None:
        message = "Waiting for the node to finish"
        claim["status"]["conditions"] = [{"type": "FileSystemResizePending", "status": "True", "message": message}]

    seen = asking(asking(larger(), "a-0"), "a-1", "a-2", given=False)
    seen = renewed(edited(seen, "claims", "data-a-1", resizing))
    assert told(seen).message == (
        "Growing volumes to 9Gi: 1 of 3 done; data-a-1: Waiting for the node to finish; "
        "data-a-2: waiting for its StorageClass's driver"
    )
    assert (told(seen).status, told(seen).reason) == ("True", "GrowingVolumes")
    assert pending_changes(judged(seen)) == (f"spec.storage.size: {told(seen).message}",)


@pytest.mark.parametrize(
    "status",
    [
        {"conditions": [{"type": "ControllerResizeError", "status": "True", "message": "the driver said no"}]},
        {"allocatedResourceStatuses": {"storage": "NodeResizeInfeasible"}},
    ],
)
def test_a_resize_that_failed_is_told_as_such(status: Manifest) -> None:
    seen = renewed(asking(larger(), "a-0", "a-1", "a-2", given=False))
    seen = edited(seen, "claims", "data-a-1", lambda claim: claim["status"].update(status))
    assert (told(seen).status, told(seen).reason) == ("False", "VolumesNotGrown")
    assert "PersistentVolumeClaim data-a-1: its volume" in told(seen).message


def test_a_quota_is_told_and_nothing_is_replaced_for_it() -> None:
    seen = refused(larger(), QUOTA)
    assert planned(seen).steps == ()
    assert (told(seen).reason, QUOTA in told(seen).message) == ("VolumesNotGrown", True)


def test_a_refusal_is_believed_for_a_while_and_of_that_size_only() -> None:
    seen = refused(larger(), QUOTA)
    later = replace(seen, at=NOW + timedelta(minutes=6))
    assert len([step for step in planned(later).steps if isinstance(step, GrowVolume)]) == 3
    other = with_spec(seen, storage={"size": "10Gi"})
    assert len([step for step in planned(other).steps if isinstance(step, GrowVolume)]) == 3


# --- by replacement ---------------------------------------------------------------------------------------------------


def test_where_volumes_cannot_grow_the_template_comes_first_and_then_a_follower() -> None:
    seen = refused(larger())
    assert the_step(seen).kind == "StatefulSet"
    step = the_step(renewed(seen))
    assert isinstance(step, RemoveMember)
    assert (step.member, step.through) == ("a-1", "a-0"), "a-0 leads"
    assert told(renewed(seen)).message == "Growing volumes to 9Gi: 0 of 3 done; a-1 is to be replaced"


def test_the_old_volume_goes_once_etcd_has_removed_its_member() -> None:
    steps = planned(removed(unexpandable(), "a-1")).steps
    assert [(step.kind, step.name, step.uid) for step in steps if isinstance(step, Delete)] == [
        ("PersistentVolumeClaim", "data-a-1", "uid-PersistentVolumeClaim-data-a-1"),
        ("Pod", "a-1", "uid-Pod-a-1"),
    ]
    assert len(steps) == 2


def test_the_member_is_added_while_its_old_volume_goes() -> None:
    def going(claim: Manifest) -> None:
        claim["metadata"]["deletionTimestamp"] = EARLIER

    seen = edited(removed(unexpandable(), "a-1"), "claims", "data-a-1", going)
    added, pod = planned(seen).steps
    assert isinstance(added, AddMember)
    assert added.member == "a-1"
    assert isinstance(pod, Delete), "a pod that lives on starts the new member on the volume that goes"
    assert (pod.kind, pod.name) == ("Pod", "a-1")
    assert the_step(edited(seen, "pods", "a-1", going)) == added
    assert the_step(without(seen, "pods", "a-1")) == added
    step = the_step(without(removed(unexpandable(), "a-1"), "claims", "data-a-1"))
    assert isinstance(step, AddMember)


def test_an_operator_that_was_killed_asks_again_whether_the_volume_can_grow() -> None:
    seen = replace(removed(unexpandable(), "a-1"), resizes={})
    step = the_step(seen)
    assert isinstance(step, GrowVolume)
    assert step.claim == "data-a-1"


def test_the_leader_goes_last_and_hands_over_first() -> None:
    seen = asking(unexpandable(), "a-1", "a-2")
    step = the_step(seen)
    assert isinstance(step, MoveLeader)
    assert told(seen).message == "Growing volumes to 9Gi: 2 of 3 done; a-0 is to be replaced"


def test_a_member_whose_volume_is_full_goes_first() -> None:
    step = the_step(full(unexpandable(), "a-2"))
    assert isinstance(step, RemoveMember)
    assert step.member == "a-2"


def full(seen: Observation, *members: str) -> Observation:
    """These members cannot run, as their volumes have no room."""
    for member in members:
        seen = with_answer(with_pod(seen, member, state=terminated(FULL), ready=False), member, silent("refused"))
    return seen


def lagging(seen: Observation, member: str) -> Observation:
    """Another member is thousands of entries behind the leader."""
    for name, each in seen.answers.items():
        if each.status is not None:
            applied = 1000 if name == member else 9000
            status = replace(each.status, raft_index=9000, raft_applied_index=applied)
            seen = with_answer(seen, name, replace(each, status=status))
    return seen


def test_a_member_whose_volume_is_full_stays_until_the_others_have_all_that_it_may_have() -> None:
    seen = lagging(full(unexpandable(), "a-2"), "a-1")
    assert not planned(seen).steps
    assert "a-2 waits: a-1 is catching up" in planned(seen).waiting


def full_learner(seen: Observation, name: str) -> Observation:
    """etcd removed the member and has a learner in its place, which could not start on the same full volume."""
    seen = removed(full(seen, name), name)
    learner = Member(id=0x99, name="", peer_urls=(blueprint().peer_url(name),), client_urls=(), is_learner=True)
    for member, each in seen.answers.items():
        if each.members is not None:
            listed = replace(each.members, members=(*each.members.members, learner))
            seen = with_answer(seen, member, replace(each, members=listed))

    def made_anew(manifest: Manifest) -> None:
        manifest["metadata"]["annotations"].pop(n.FILES_REFRESHED, None)
        manifest["metadata"]["uid"] = "of the learner"

    return carried_out(edited(seen, "pods", name, made_anew))


def test_a_learner_on_a_full_volume_is_replaced_as_well() -> None:
    step = the_step(full_learner(unexpandable(), "a-2"))
    assert isinstance(step, RemoveMember)
    assert step.member_id == 0x99


def test_the_template_grows_also_while_a_learner_cannot_start_on_its_full_volume() -> None:
    small = refused(larger())
    step = the_step(full_learner(small, "a-1"))
    assert isinstance(step, Delete)
    assert (step.kind, step.propagation) == ("StatefulSet", "Orphan")


@pytest.mark.parametrize("record", [{}, {n.MEMBER_STATE: "removed"}], ids=["none", "of a member scaled away"])
def test_a_full_volume_that_may_hold_what_is_needed_stays_and_is_told(
    record: dict[str, str],
) -> None:
    """Removing its member would not free the name: it would come back on the same volume, again and again."""

    def recorded(claim: Manifest) -> None:
        kept = claim["metadata"]["annotations"] if record else {}
        claim["metadata"]["annotations"] = {**kept, **record}

    seen = edited(full_learner(unexpandable(), "a-2"), "claims", "data-a-2", recorded)
    assert not [step for step in planned(seen).steps if isinstance(step, RemoveMember | AddMember | Delete)]
    known = judged(seen)
    assert "if nobody needs it, delete it and then Pod a-2" in growth_problem(known)


def test_two_of_five_members_on_full_volumes_are_replaced_one_after_the_other() -> None:
    seen = full(unexpandable(5), "a-3", "a-4")
    step = the_step(seen)
    assert isinstance(step, RemoveMember)
    assert step.member == "a-3"
    then = planned(carried_out(removed(seen, "a-3")))
    assert [(step.kind, step.name) for step in then.steps if isinstance(step, Delete)] == [
        ("PersistentVolumeClaim", "data-a-3"),
        ("Pod", "a-3"),
    ]


def test_a_member_that_cannot_run_for_another_reason_keeps_its_volume() -> None:
    """A new volume would cure nothing, and cost the data that it has."""
    refused = terminated('{"level":"fatal","msg":"failed to verify flags","error":"unknown"}')
    seen = with_answer(with_pod(unexpandable(), "a-2", state=refused, ready=False), "a-2", silent("refused"))
    made = planned(seen)
    assert not made.steps
    assert "a-1 waits: a-2: etcd refuses its configuration" in made.waiting


@pytest.mark.parametrize(
    "ill",
    [
        lambda seen: down(seen, "a-2"),
        lambda seen: with_answer(seen, "a-2", silent()),
        lambda seen: with_answer(seen, "a-1", silent()),
        lambda seen: with_object(seen, "pods", pod("a-2", ready=False)),
        lambda seen: replace(seen, refusal="unhealthy cluster"),
        lambda seen: with_spec(seen, options={"extra": {"no-such-thing": 1}}),
        lambda seen: with_spec(seen, options={"snapshotCount": 5000}),
        lambda seen: with_spec(seen, members=5),
    ],
)
def test_nobody_is_replaced_while_anything_else_is_amiss_or_under_way(ill: Any) -> None:
    assert not [step for step in planned(ill(unexpandable())).steps if isinstance(step, RemoveMember)]


@pytest.mark.parametrize("ill", ["a voter is ill", "another etcd's data", "a member that was scaled away", "unknown"])
def test_a_volume_stays_unless_all_others_have_what_its_member_had(ill: str) -> None:
    seen = removed(unexpandable(5), "a-1")

    def of(key: str, value: str) -> Any:
        return lambda claim: claim["metadata"]["annotations"].update({key: value})

    match ill:
        case "a voter is ill":
            seen = with_answer(seen, "a-2", silent())
        case "another etcd's data":
            seen = edited(seen, "claims", "data-a-1", of(n.CLUSTER_ID, "abc"))
        case "a member that was scaled away":
            seen = edited(seen, "claims", "data-a-1", of(n.MEMBER_STATE, "removed"))
        case "unknown":
            seen = edited(seen, "claims", "data-a-1", lambda claim: claim["metadata"].update(annotations={}))
    steps = planned(seen).steps
    assert not [step for step in steps if isinstance(step, Delete)]
    if ill != "a voter is ill":  # who might not know yet that a-1 was removed
        assert isinstance(steps[0], AddMember), "it comes back on the volume that it had"


def test_a_volume_of_a_member_in_the_list_stays() -> None:
    for step in planned(unexpandable()).steps:
        assert not isinstance(step, Delete)


def test_the_only_member_stays_and_the_user_is_told_what_to_do() -> None:
    seen = unexpandable(1)
    assert planned(seen).steps == ()
    assert (told(seen).status, told(seen).reason) == ("False", "VolumesNotGrown")
    assert "set spec.members to 3, and back to 1 when all volumes have grown" in told(seen).message


def test_the_replacement_under_way_is_told_with_the_growth() -> None:
    seen = asking(removed(unexpandable(), "a-1"), "a-2")
    assert told(seen).message.startswith("Growing volumes to 9Gi: 1 of 3 done; adding members, 2 of 3 vote: a-1")


def test_a_revision_that_members_still_run_has_no_say_in_the_size_of_new_volumes() -> None:
    plan_ = blueprint()
    older = plan_.spec.model_copy(update={"storage": plan_.spec.storage.model_copy(update={"size": "7Gi"})})
    made = stateful_set(replace(plan_, revisions={"older": older}, template_revision="older"))
    (claim,) = made["spec"]["volumeClaimTemplates"]
    assert claim["spec"]["resources"]["requests"]["storage"] == "8Gi"
