"""What must not be done although each rule alone would: two losses at once, and ways that lead nowhere."""

from dataclasses import replace
from typing import Any

import pytest

from etcd_operator.cluster.observation import Observation
from etcd_operator.cluster.plan import plan
from etcd_operator.cluster.steps import AddMember, Apply, Delete, MoveLeader, RemoveMember
from etcd_operator.etcd.model import Member
from etcd_operator.resources import names as n
from etcd_operator.resources.names import Manifest
from support.builders import (
    EARLIER,
    NAMES,
    annotated,
    blueprint,
    complaining,
    edited,
    judged,
    leaderless,
    observation,
    pod,
    silent,
    terminated,
    with_answer,
    with_object,
    with_spec,
    without,
    without_status,
)
from support.lists import added, listed, removed, the_list
from support.plans import carried_out, planned, the_step
from unit.test_cluster_restart import BAD_FILE, OPTIONS, applied, changed, restarted, settled

OUT_OF_MEMORY = {"terminated": {"exitCode": 137, "reason": "OOMKilled", "message": ""}}


def terminating(seen: Observation, member: str) -> Observation:
    return edited(seen, "pods", member, lambda pod_: pod_["metadata"].update(deletionTimestamp=EARLIER))


def failing(seen: Observation, member: str, state: dict[str, Any] | None = None) -> Observation:
    """The member's own pod crashes."""
    before = seen.objects.pods[member]["metadata"]
    marks = {"uid": before["uid"], "annotations": before["annotations"]}
    made = pod(member, state=state or terminated(BAD_FILE), ready=False, **marks)
    return with_answer(with_object(seen, "pods", made), member, None)


def halted() -> Observation:
    """a-1 was restarted for a change, and does not come back."""
    return failing(settled(restarted(changed(), "a-1")), "a-1")


def test_a_pod_that_terminates_serves_nobody_although_it_still_answers() -> None:
    seen = settled(applied(applied(changed())))
    seen = terminating(seen, "a-1")
    made = planned(seen)
    assert made.steps == ()
    assert made.waiting.endswith(
        "0 of 3 done: spec.options.snapshotCount changed; a-1 comes back: its pod is terminating"
    )


def test_a_restart_that_failed_does_not_go_on_with_a_member_whose_pod_was_merely_lost() -> None:
    starting = pod("a-2", state={"waiting": {"reason": "ContainerCreating"}}, ready=False, uid="new")
    for seen in (without(halted(), "pods", "a-2"), with_object(halted(), "pods", starting)):
        assert not any(isinstance(step, Apply) and step.manifest["kind"] == "ConfigMap" for step in planned(seen).steps)


@pytest.mark.parametrize("how", ["leaderless", "silent"])
def test_members_that_only_lack_a_leader_or_an_answer_are_not_restarted(how: str) -> None:
    seen = changed()
    for member in list(seen.answers):
        seen = with_answer(seen, member, silent() if how == "silent" else leaderless(seen.answers[member]))
    assert planned(seen).steps == ()


def test_members_that_die_of_too_little_memory_are_cured_one_by_one() -> None:
    seen = with_spec(observation(), resources={"requests": {"memory": "1Gi"}})
    for member in list(seen.answers):
        seen = failing(seen, member, OUT_OF_MEMORY)
    (step,) = planned(seen).steps
    assert isinstance(step, Apply)
    assert step.reason.startswith("a-0 is next")
    seen = settled(restarted(seen, "a-0"))
    assert planned(seen).steps == (), "the first must answer before the second gets what is not proved"
    seen = with_answer(seen, "a-0", leaderless(observation().answers["a-0"]))
    (step,) = planned(seen).steps
    assert step.reason.startswith("a-1 is next")


def test_a_restart_that_was_begun_does_not_wait_for_the_member_that_only_it_can_cure() -> None:
    seen = applied(with_spec(observation(), resources={"requests": {"memory": "1Gi"}}))
    seen = settled(failing(seen, "a-2", OUT_OF_MEMORY))
    (step,) = planned(seen).steps
    assert isinstance(step, Apply)
    assert step.reason.startswith("a-2 is next")


def test_a_withdrawn_change_is_not_applied_to_the_template_any_more() -> None:
    """The API server may have refused it, and would refuse it for ever."""
    seen = applied(changed())
    assert the_step(seen).manifest["kind"] == "StatefulSet"
    seen = with_spec(seen, options={})
    template = the_step(seen).manifest["spec"]["template"]
    assert template["metadata"]["annotations"][n.REVISION] == blueprint().revision
    step = the_step(settled(seen))
    assert step.manifest["kind"] == "ConfigMap", "the member's file goes back, and nothing else is needed"
    assert "snapshot-count: 5000" not in step.manifest["data"]["a-1.yaml"]


def test_a_bad_spec_in_the_middle_of_a_restart_restarts_nobody_back() -> None:
    seen = settled(restarted(changed(), "a-1"))
    seen = with_spec(seen, options={**OPTIONS, "extra": {"no-such-thing": 1}})
    assert planned(seen).steps == ()


def test_volumes_that_are_all_being_deleted_cost_one_member_at_a_time() -> None:
    seen = observation()
    for member in NAMES.members(3):
        seen = edited(seen, "claims", f"data-{member}", _going)
    (step,) = planned(seen).steps
    assert isinstance(step, MoveLeader | RemoveMember)
    made = planned(removed(seen, "a-1"))
    assert [(type(step), getattr(step, "name", "")) for step in made.steps] == [(AddMember, ""), (Delete, "a-1")]
    made = planned(added(removed(seen, "a-1"), "a-1"))
    assert not any(isinstance(step, RemoveMember | MoveLeader) for step in made.steps)


def _going(manifest: Manifest) -> None:
    manifest["metadata"]["deletionTimestamp"] = EARLIER


def test_a_replaced_member_is_not_replaced_again_for_the_failure_of_the_pod_before() -> None:
    lost = '{"level":"panic","msg":"tocommit(9) is out of range [lastIndex(3)]. Was the raft log corrupted?"}'
    seen = failing(observation(), "a-1", terminated(lost))
    seen = carried_out(added(removed(seen, "a-1"), "a-1"))
    (step,) = planned(seen).steps
    assert isinstance(step, Delete)
    assert step.kind == "Pod"


def test_scaling_back_is_possible_when_pods_of_joiners_are_refused() -> None:
    seen = carried_out(added(with_spec(observation(members=5), members=7), "a-5", "a-6"))
    seen = complaining(seen, "StatefulSet", "a", "FailedCreate", "exceeded quota")
    assert "a-5" in [member.name for member in judged(seen).membership.ailing]
    (step,) = planned(with_spec(seen, members=3)).steps
    assert isinstance(step, RemoveMember)


def test_a_member_that_somebody_else_added_is_told_before_anybody_joins() -> None:
    seen = with_spec(observation(), members=5)
    stranger = Member(id=0x99, name="b-9", peer_urls=("https://b-9:2380",), client_urls=("https://b-9:2379",))
    before = the_list(seen)
    seen = listed(seen, replace(before, members=(*before.members, stranger)))
    made = planned(seen)
    assert made.steps == ()
    assert "which somebody else added to etcd" in made.waiting


def test_adoption_finds_the_founding_directory_although_a_member_was_replaced() -> None:
    seen = without_status(observation())
    for kind in ("stateful_sets", "config_maps", "pods"):
        seen = without(seen, kind)
    seen = replace(seen, answers={})
    seen = annotated(seen, "claims", "data-a-0", incarnation="abc0", member_id="abc0")
    seen = edited(seen, "claims", "data-a-1", lambda claim: claim["metadata"].update(annotations={}))
    found = judged(seen).blueprint
    assert {name: found.seat(name).incarnation for name in found.members} == {
        "a-0": "abc0",
        "a-1": "first",
        "a-2": "first",
    }


def test_pods_that_bear_no_revision_are_left_alone() -> None:
    seen = observation()
    for member in NAMES.members(3):
        seen = annotated(seen, "pods", member, revision=None)
    assert planned(seen).rule == "at_rest"


def test_taking_the_request_for_a_restart_away_restarts_nobody() -> None:
    seen = observation()
    for kind, name in (("config_maps", "a-config"), ("stateful_sets", "a")):
        seen = annotated(seen, kind, name, restart="yesterday")
    assert judged(seen).blueprint.target_revision == blueprint().revision
    assert not any(isinstance(step, Delete) for step in plan(judged(seen)).steps)
    assert n.RESTART in seen.objects.config_maps["a-config"]["metadata"]["annotations"]
