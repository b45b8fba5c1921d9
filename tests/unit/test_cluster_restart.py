"""Who restarts, in which order, and what stops a restart; and which versions may follow which."""

import json
from dataclasses import replace
from typing import Any

import pytest

from etcd_operator.cluster.conditions import Outcome, Told, degraded, progressing
from etcd_operator.cluster.observation import Observation
from etcd_operator.cluster.restart_rules import RESTARTING, is_restarting, members_to_restart, restart_under_way
from etcd_operator.cluster.steps import Apply, Delete, MoveLeader
from etcd_operator.cluster.unwell import is_curable
from etcd_operator.resources import names as n
from support.builders import (
    NAMES,
    NOW,
    answer,
    blueprint,
    edited,
    etcd_cluster,
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
from support.plans import planned, the_step

OPTIONS = {"snapshotCount": 5000}
BAD_FILE = '{"level":"fatal","msg":"failed to verify flags","error":"unknown"}'


def changed() -> Observation:
    """The user changed an option; a-0 leads."""
    return with_spec(observation(), options=OPTIONS)


def applied(seen: Observation) -> Observation:
    """What is applied next stands."""
    kinds = {"ConfigMap": "config_maps", "StatefulSet": "stateful_sets"}
    for step in planned(seen).steps:
        assert isinstance(step, Apply), step
        seen = with_object(seen, kinds[step.manifest["kind"]], live(step.manifest))
    return seen


def template(seen: Observation) -> dict[str, str]:
    found: dict[str, str] = seen.objects.stateful_sets["a"]["spec"]["template"]["metadata"]["annotations"]
    return found


def recreated(seen: Observation, member: str) -> Observation:
    """The member's pod was deleted, and a new one was made from the template of now."""
    before = seen.objects.pods[member]["metadata"]["annotations"]
    made = pod(member, uid=f"new-{member}", annotations={**before, **template(seen)})
    return with_object(seen, "pods", made)


def restarted(seen: Observation, member: str) -> Observation:
    """The whole restart of one member, which is next."""
    for _ in range(4):
        if isinstance(planned(seen).steps[0], Apply):
            seen = applied(seen)
    step = the_step(seen)
    assert isinstance(step, Delete)
    assert (step.kind, step.name) == ("Pod", member)
    return recreated(seen, member)


def settled(seen: Observation) -> Observation:
    for _ in range(4):
        if planned(seen).rule != "keep_objects_right":
            return seen
        seen = applied(seen)
    return seen


def led_by(seen: Observation, leader: str) -> Observation:
    number = 0x10 + NAMES.members(7).index(leader)
    for member in list(seen.answers):
        seen = with_answer(seen, member, answer(blueprint(), member, leader_id=number))
    return seen


def test_a_followers_file_changes_first_then_the_template_then_its_pod_goes() -> None:
    seen = changed()
    first = the_step(seen)
    assert isinstance(first, Apply)
    files = first.manifest["data"]
    assert "snapshot-count: 5000" in files["a-1.yaml"]
    assert "snapshot-count: 5000" not in files["a-0.yaml"] + files["a-2.yaml"], "one member at a time"
    seen = applied(seen)
    step = the_step(seen)
    assert step.manifest["kind"] == "StatefulSet"
    seen = applied(seen)
    step = the_step(seen)
    assert isinstance(step, Delete)
    assert (step.kind, step.name) == ("Pod", "a-1")


def test_the_leader_comes_last_and_hands_over_first() -> None:
    seen = settled(restarted(changed(), "a-1"))
    seen = settled(restarted(seen, "a-2"))
    step = the_step(seen)
    assert isinstance(step, MoveLeader)
    assert step.through == "a-0"
    seen = settled(restarted(led_by(seen, step.member), "a-0"))
    assert planned(seen).rule == "at_rest"
    assert n.REVISIONS not in seen.objects.config_maps["a-config"]["metadata"]["annotations"], "nothing is left over"
    assert judged(seen).pending == ()


def test_between_two_restarts_new_pods_are_made_as_those_that_work() -> None:
    seen = restarted(changed(), "a-1")
    old = blueprint().revision
    assert template(seen)[n.REVISION] != old
    step = the_step(seen)
    assert step.manifest["spec"]["template"]["metadata"]["annotations"][n.REVISION] == old


@pytest.mark.parametrize("why", ["ill", "behind"])
def test_the_next_waits_until_the_one_before_is_back(why: str) -> None:
    seen = settled(restarted(changed(), "a-1"))
    found = seen.answers["a-1"].status
    assert found is not None
    late = replace(seen.answers["a-1"], status=replace(found, raft_applied_index=1))
    ahead = {
        member: replace(each, status=replace(each.status, raft_index=5000, raft_applied_index=5000))
        for member, each in seen.answers.items()
        if each.status
    }
    seen = replace(seen, answers={**ahead, "a-1": late if why == "behind" else silent()})
    made = planned(seen)
    assert made.steps == ()
    assert made.rule == "wait_for_restart"
    assert ("a-2 waits: a-1 is catching up" if why == "behind" else "a-1 comes back: no answer in time") in made.waiting


def test_a_restart_that_fails_stops_and_says_why_and_goes_on_when_corrected() -> None:
    seen = settled(restarted(changed(), "a-1"))
    broken = seen.objects.pods["a-1"]["metadata"]
    failing = pod("a-1", state=terminated(BAD_FILE), ready=False, uid=broken["uid"], annotations=broken["annotations"])
    seen = with_answer(with_object(seen, "pods", failing), "a-1", None)
    assert planned(seen).steps == ()
    told = progressing(judged(seen), Outcome(plan=planned(seen)))
    assert (told.status, told.reason) == ("False", "InvalidOption")
    assert "no other member is restarted until it is back" in told.message
    edits: tuple[dict[str, Any], ...] = ({"options": {"snapshotCount": 7000}}, {"options": {}})
    for spec in edits:
        step = the_step(with_spec(seen, **spec))
        assert isinstance(step, Apply), "the member that is down goes first"
        value = spec["options"].get("snapshotCount")
        assert ("snapshot-count: 5000" in step.manifest["data"]["a-1.yaml"]) is False
        assert value is None or f"snapshot-count: {value}" in step.manifest["data"]["a-1.yaml"]


def test_the_restarts_for_a_change_that_is_taken_back_are_planned_as_any() -> None:
    seen = with_spec(settled(restarted(changed(), "a-1")), options={})
    assert the_step(seen).reason == "a-1 is next: a change was taken back"
    told = progressing(judged(seen), Outcome(plan=planned(seen)))
    assert told.reason == RESTARTING
    standing = {"type": "Progressing", "status": "True", "reason": RESTARTING, "message": told.message}
    moment = "2026-11-21T11:59:59Z"
    conditions = etcd_cluster(status={"conditions": [{**standing, "lastTransitionTime": moment}]}).status.conditions
    status = seen.cluster.status.model_copy(update={"conditions": conditions})
    back = restarted(seen, "a-1")
    annotations = back.objects.pods["a-1"]["metadata"]["annotations"]
    starting = pod("a-1", ready=False, uid="new", created=moment, annotations=annotations)
    back = with_answer(with_object(back, "pods", starting), "a-1", silent("refused"))
    assert condition_of(back).reason == "MembersUnhealthy", "nothing says that it was restarted for this"
    back = replace(back, cluster=back.cluster.model_copy(update={"status": status}))
    assert condition_of(back).reason == "Restarting"


def test_what_is_told_of_restarts_does_not_keep_others_from_being_replaced() -> None:
    """Every seat names the pod of its last restart for good; what hangs now was not restarted for this."""
    seen = settled(restarted(settled(restarted(changed(), "a-1")), "a-2"))
    seen = with_spec(seen, options={})
    for name in ("a-1", "a-2"):
        again = edited(restarted(seen, name), "pods", name, lambda made: made["metadata"].update(uid="a third"))
        seen = settled(again)
    assert planned(seen).rule == "at_rest"
    standing = {"type": "Progressing", "status": "True", "reason": RESTARTING, "message": "", "lastTransitionTime": NOW}
    conditions = etcd_cluster(status={"conditions": [standing]}).status.conditions
    status = seen.cluster.status.model_copy(update={"conditions": conditions})
    seen = replace(seen, cluster=seen.cluster.model_copy(update={"status": status}))
    assert judged(seen).blueprint.seat("a-1").outdated_pod
    hung = with_pod(with_answer(seen, "a-1", silent()), "a-1", ready=False)
    known = judged(hung)
    member = next(each for each in known.membership.members if each.name == "a-1")
    assert not is_restarting(known, member)
    assert is_curable(known, member)
    assert restart_under_way(known) == ""


def condition_of(seen: Observation) -> Told:
    return degraded(judged(seen), Outcome(plan=planned(seen)))


def test_what_needs_no_restart_causes_none() -> None:
    for spec in ({"storage": {"size": "9Gi"}}, {"storage": {"size": "8Gi", "deletionPolicy": "Retain"}}):
        assert not members_to_restart(judged(with_spec(observation(), **spec)))


def test_a_restart_can_be_asked_for() -> None:
    seen = observation()
    metadata = seen.cluster.metadata.model_copy(update={"annotations": {n.RESTART: "now"}})
    seen = replace(seen, cluster=seen.cluster.model_copy(update={"metadata": metadata}))
    step = the_step(seen)
    assert step.reason == "a-1 is next: a restart was asked for"


def test_a_pod_made_from_another_spec_than_its_file_is_made_anew() -> None:
    seen = observation()
    before = seen.objects.pods["a-2"]["metadata"]["annotations"]
    seen = with_object(seen, "pods", pod("a-2", annotations={**before, n.REVISION: "other"}))
    step = the_step(seen)
    assert isinstance(step, Delete)
    assert step.name == "a-2"


def test_a_bad_spec_restarts_nobody() -> None:
    seen = with_spec(observation(), options={"extra": {"no-such-thing": 1}})
    assert planned(seen).steps == ()


def test_seats_that_cannot_be_read_are_none() -> None:
    seen = changed()
    roster = json.loads(seen.objects.config_maps["a-config"]["metadata"]["annotations"][n.ROSTER])
    assert set(roster) == set(NAMES.members(3))
    assert judged(without(seen, "config_maps")).blueprint.members == NAMES.members(3)


# --- versions ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("running", "wanted", "words"),
    [
        ("3.6.16", "3.6.15", ""),
        ("3.6.16", "3.7.3", ""),
        ("3.5.35", "3.6.16", ""),
        ("3.5.35", "3.7.3", "set spec.version to 3.6.16 first"),
        ("3.5.20", "3.6.16", "set spec.version to 3.5.35 first"),
        ("3.6.9", "3.7.3", "at least 3.6.11"),
        ("3.7.3", "3.6.16", "etcdctl downgrade enable 3.6"),
        ("3.7.3", "3.5.35", "one minor version at a time; set spec.version back to 3.7.3"),
    ],
)
def test_which_version_may_follow(running: str, wanted: str, words: str) -> None:
    seen = with_spec(observation(version=running), version=wanted)
    for member in NAMES.members(3):
        seen = with_answer(seen, member, answer(blueprint(version=running), member))
    refused = judged(seen).refused
    assert words in refused
    assert bool(refused) == bool(words)
    assert bool(planned(seen).steps) == (not words)
    if words:
        told = progressing(judged(seen), Outcome(plan=planned(seen)))
        assert (told.status, told.reason) == ("False", "UpgradeRefused")


def test_going_back_is_possible_while_one_member_runs_the_older_version() -> None:
    seen = with_spec(observation(version="3.7.3"), version="3.6.16")
    seen = with_answer(seen, "a-2", answer(blueprint(), "a-2", version="3.6.16"))
    assert judged(seen).refused == ""
