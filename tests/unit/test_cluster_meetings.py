"""Where families of rules meet: what one may do is not always right beside what another has done or promised."""

import json
from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta

import pytest

from etcd_operator.cluster.conditions import Outcome, degraded
from etcd_operator.cluster.growth_rules import growth_problem
from etcd_operator.cluster.observation import Observation
from etcd_operator.cluster.plan import plan
from etcd_operator.cluster.records import timestamp
from etcd_operator.cluster.steps import Apply, Delete, Plan, RemoveMember, Step
from etcd_operator.resources import names as n
from etcd_operator.resources.names import Manifest
from support.builders import (
    NAMES,
    NOW,
    annotated,
    blueprint,
    claim,
    edited,
    judged,
    observation,
    silent,
    with_answer,
    with_object,
    with_pod,
    with_spec,
    without,
)
from support.lists import removed
from support.plans import carried_out
from unit import test_cluster_growth as growth
from unit import test_cluster_healing as healing
from unit import test_cluster_membership as membership
from unit import test_cluster_recovery as recovery
from unit import test_cluster_restart as restart

LATELY, LONG_AGO = timestamp(NOW - timedelta(seconds=20)), timestamp(NOW - timedelta(hours=3))


def steps(seen: Observation) -> tuple[Step, ...]:
    return plan(judged(seen)).steps


def deleted(made: Iterable[Step]) -> set[str]:
    return {step.name for step in made if isinstance(step, Delete) and step.kind == "PersistentVolumeClaim"}


def corrupt(seen: Observation) -> Observation:
    """etcd's alarm names nobody."""
    for name, answer in seen.answers.items():
        if answer.status is not None:
            seen = with_answer(seen, name, replace(answer, status=replace(answer.status, errors=("alarm:CORRUPT",))))
    return seen


# --- volumes ----------------------------------------------------------------------------------------------------------


def test_a_small_volume_goes_only_when_nobodys_data_is_in_doubt() -> None:
    seen = growth.removed(growth.unexpandable(), "a-1")
    assert deleted(steps(seen)) == {"data-a-1"}
    assert not deleted(steps(corrupt(seen))), "it may be the one that is right"


@pytest.mark.parametrize(("keep", "goes"), [("168h", False), ("Never", False), ("1h", True)])
def test_a_small_volume_with_old_data_goes_when_that_may(keep: str, goes: bool) -> None:
    kept = f"before={timestamp(NOW - timedelta(hours=1))}"
    seen = with_spec(growth.unexpandable(), healing={"keepOldData": keep})
    seen = annotated(seen, "claims", "data-a-1", old_data=kept)
    seen = replace(seen, agent_image="operator:1")
    assert bool(deleted(steps(growth.removed(seen, "a-1")))) is goes
    assert ("data of a former member is kept on it (before)" in growth_problem(judged(seen))) is not goes
    chosen = [step.member for step in steps(seen) if isinstance(step, RemoveMember)]
    assert (chosen == ["a-1"]) is goes, "a follower without old data goes first"


def test_volumes_of_members_scaled_away_wait_until_the_data_agrees() -> None:
    seen = observation(storage={"deletionPolicy": "Delete"})
    for name in ("a-1", "a-2"):
        seen = removed(seen, name)
    seen = with_spec(replace(seen, answers={"a-0": seen.answers["a-0"]}), members=1)
    for name in NAMES.members(3):
        seen = edited(seen, "claims", f"data-{name}", membership._owned)
    seen = annotated(without(carried_out(seen), "pods", "a-1", "a-2"), "claims", "data-a-0", members="a-0")
    assert deleted(steps(seen)) == {"data-a-1", "data-a-2"}
    assert not deleted(steps(corrupt(seen)))


def test_what_a_rebuild_kept_aside_is_not_taken_for_a_volume_that_never_served() -> None:
    seen = observation(members=1, storage={"deletionPolicy": "Delete"})
    seen = edited(seen, "claims", "data-a-0", membership._owned)
    of_three = replace(blueprint(), cluster_id=judged(seen).blueprint.cluster_id)
    kept = claim(of_three, "a-1", **{n.MEMBER_STATE: "removed"})
    membership._owned(kept)
    assert not deleted(steps(with_object(seen, "claims", kept)))


# --- members that stay away -------------------------------------------------------------------------------------------


def away(seen: Observation, *members: str) -> Observation:
    for name in members:
        seen = healing.counted(healing.ill(seen, name, place=healing.AWAY), name)
    return seen


def test_a_member_that_stays_away_is_given_up_also_while_others_cannot_be_scaled_away() -> None:
    seen = with_spec(away(observation(members=5), "a-0", "a-1"), members=3)
    made = plan(judged(seen))
    assert made.rule == "replace_unwell_member"


def test_a_member_that_stays_away_is_given_up_also_while_nobody_can_be_added() -> None:
    seen = with_spec(away(observation(), "a-1"), members=5)
    assert plan(judged(seen)).rule == "replace_unwell_member"


def test_a_date_that_has_passed_is_not_told() -> None:
    seen = away(observation(), "a-1", "a-2")
    told = degraded(judged(with_spec(seen, healing={"replaceAfter": "2h"})), Outcome(plan=Plan())).message
    assert "unless it is back by" in told
    told = degraded(judged(with_spec(away(observation(members=5), "a-1"), members=5)), Outcome(plan=Plan())).message
    assert "a new member takes its place as soon as the others can do without it" in told


@pytest.mark.parametrize(("since", "planned"), [(LATELY, True), (LONG_AGO, False)])
def test_a_pod_that_does_not_go_is_no_planned_restart_for_ever(since: str, planned: bool) -> None:
    seen = restart.applied(restart.applied(restart.changed()))
    seen = with_pod(with_answer(seen, "a-1", silent()), "a-1", deletionTimestamp=since)
    condition = degraded(judged(seen), Outcome(plan=Plan()))
    assert (condition.reason == "Restarting") is planned, condition


# --- rebuilds ---------------------------------------------------------------------------------------------------------


def test_nobody_becomes_the_only_one_before_the_controller_knows_that_nobody_is_to_run() -> None:
    def generations(manifest: Manifest) -> None:
        manifest["metadata"]["generation"] = 2
        manifest["status"] = {"observedGeneration": 1}

    late = edited(recovery.under_way("Stopping"), "stateful_sets", "a", generations)
    assert not steps(late)
    assert "Kubernetes has not taken note yet" in plan(judged(late)).waiting
    known = edited(late, "stateful_sets", "a", lambda manifest: manifest["status"].update(observedGeneration=2))
    assert steps(known)


def test_a_rebuild_that_took_the_roster_apart_goes_on_although_it_is_taken_back() -> None:
    def apart(manifest: Manifest) -> None:
        told = manifest["metadata"]["annotations"]
        told[n.RECOVERY] = json.dumps({**json.loads(told[n.RECOVERY]), "alone": True})

    seen = edited(recovery.asking(recovery.under_way("Stopping")), "config_maps", "a-config", apart)
    (step,) = steps(seen)
    assert isinstance(step, Apply)
    assert recovery.record_of(step.manifest)["member"] == "a-2", "the StatefulSet follows the record, which stands"


def test_the_pod_of_the_member_that_was_to_be_the_only_one_before_is_taken_away() -> None:
    seen = with_object(recovery.under_way("Stopping"), "other_pods", recovery.one_off())
    (step,) = steps(seen)
    assert isinstance(step, Delete)
    assert (step.kind, step.name) == ("Pod", "a-2-recovery")
