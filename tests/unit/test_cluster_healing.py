"""How long members may stay away, who is replaced then and who never, and what becomes of pods and volumes."""

import json
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from etcd_operator.api import EtcdClusterStatus
from etcd_operator.cluster.conditions import Outcome, degraded
from etcd_operator.cluster.healing_rules import replace_unwell_member
from etcd_operator.cluster.membership_rules import add_missing_members
from etcd_operator.cluster.observation import Nodes, Observation, Place
from etcd_operator.cluster.status import status
from etcd_operator.cluster.steps import Annotate, Apply, Delete, Plan, RemoveMember, RetainVolume
from etcd_operator.cluster.unwell import BREAK, unwell
from etcd_operator.etcd.model import Member, MemberList, hex_id
from etcd_operator.resources import names as n
from support.builders import (
    NOW,
    annotated,
    answer,
    blueprint,
    down,
    edited,
    judged,
    leaderless,
    live,
    observation,
    silent,
    terminated,
    with_answer,
    with_object,
    with_pod,
    with_spec,
)
from support.plans import planned, the_step

PLAN = blueprint()
LONG_AGO = NOW - timedelta(hours=1)
MARK = "11/uid-Pod-a-1"
AWAY = Place(volume="pv-a-1", uid="uid-pv", home=Nodes.NOT_READY, homes="n2", node=Nodes.NOT_READY)
GONE = replace(AWAY, home=Nodes.GONE, node=Nodes.GONE)
HERE = replace(AWAY, home=Nodes.READY, node=Nodes.READY)


def ill(seen: Observation, member: str = "a-1", *, place: Place | None = HERE, **pod: Any) -> Observation:
    """A member that nobody hears and that Kubernetes finds not ready."""
    seen = with_pod(with_answer(seen, member, silent()), member, **{"ready": False, **pod})
    return seen if place is None else replace(seen, places={**seen.places, member: place})


def counted(
    seen: Observation, member: str = "a-1", *, since: datetime = LONG_AGO, until: datetime = NOW, of: str = ""
) -> Observation:
    """The status that stands has counted the member."""
    listed = next(each for answer in seen.answers.values() if answer.members for each in answer.members.members)
    assert listed
    own = next(hex_id(each.id) for each in PLAN_LIST if each.name == member)
    entry = {"name": member, "id": of or own, "unwellSince": since, "unwellUntil": until}
    kept = [each for each in seen.cluster.status.members if each.name != member]
    status = EtcdClusterStatus.model_validate(
        {**seen.cluster.status.model_dump(by_alias=True), "members": [*kept, entry]}
    )
    return replace(seen, cluster=seen.cluster.model_copy(update={"status": status}))


PLAN_LIST = next(each.members for each in observation(members=7).answers.values() if each.members).members


def count(seen: Observation, member: str = "a-1") -> tuple[datetime, datetime] | None:
    known = judged(seen)
    found = unwell(known, next(each for each in known.membership.members if each.name == member))
    return (found.since, found.until) if found else None


# --- the count --------------------------------------------------------------------------------------------------------


def test_the_count_begins_when_kubernetes_and_the_operator_both_find_a_member_unwell() -> None:
    assert count(ill(observation())) == (NOW, NOW)
    assert count(with_answer(observation(), "a-1", silent())) is None, "ready for Kubernetes: only the operator is deaf"
    assert count(with_pod(observation(), "a-1", ready=False)) is None, "it answers"
    assert count(observation()) is None


def test_a_container_beside_etcd_that_is_not_ready_is_no_proof_against_the_member() -> None:
    def only_the_exporter(pod: Any) -> None:
        pod["status"]["conditions"] += [{"type": "ContainersReady", "status": "False"}]
        pod["status"]["containerStatuses"][0]["ready"] = True
        pod["status"]["containerStatuses"].append({"name": "exporter", "ready": False, "state": {"running": {}}})

    assert count(edited(ill(observation()), "pods", "a-1", only_the_exporter)) is None
    assert count(edited(ill(observation(), place=AWAY), "pods", "a-1", only_the_exporter)), "its node is to blame"
    assert planned(counted(edited(ill(observation()), "pods", "a-1", only_the_exporter))).steps == ()


def test_never_means_that_nothing_is_counted() -> None:
    assert count(ill(with_spec(observation(), healing={"replaceAfter": "Never"}))) is None


def test_the_count_goes_on_and_is_written_down_in_steps() -> None:
    since = NOW - timedelta(minutes=2)
    assert count(counted(ill(observation()), since=since, until=NOW - timedelta(seconds=29))) == (
        since,
        NOW - timedelta(seconds=29),
    )
    assert count(counted(ill(observation()), since=since, until=NOW - timedelta(seconds=30))) == (since, NOW)


def test_a_break_in_which_nobody_looked_does_not_count() -> None:
    since, until = NOW - timedelta(minutes=20), NOW - timedelta(minutes=15)
    seen = counted(ill(observation()), since=since, until=until)
    assert count(seen) == (NOW, NOW), "nobody attests that it was not well meanwhile: the count starts over"

    def not_ready_since(moment: datetime) -> Observation:
        def edit(pod: Any) -> None:
            pod["status"]["conditions"][0]["lastTransitionTime"] = moment.isoformat()

        return edited(seen, "pods", "a-1", edit)

    assert count(not_ready_since(until)) == (since + timedelta(minutes=15), NOW), "moved on by the break"
    assert count(not_ready_since(until + timedelta(seconds=1))) == (NOW, NOW)


def test_the_longest_pause_between_two_looks_is_no_break() -> None:
    step = timedelta(seconds=30)
    since = NOW - timedelta(minutes=2)
    assert count(counted(ill(observation()), since=since, until=NOW - step - BREAK)) == (NOW, NOW)
    almost = NOW - step - BREAK + timedelta(seconds=1)
    assert count(counted(ill(observation()), since=since, until=almost)) == (since, NOW)


def test_without_a_quorum_the_count_stands_still() -> None:
    since, until = NOW - timedelta(minutes=2), NOW - timedelta(minutes=1)
    alone = with_answer(observation(), "a-0", leaderless(answer(PLAN, "a-0")))
    seen = counted(ill(down(alone, "a-2")), since=since, until=until)
    assert count(seen) == (since, until)
    assert not any(isinstance(step, RemoveMember) for step in planned(counted(ill(down(alone, "a-2")))).steps)


def test_a_count_of_the_member_before_or_from_a_clock_ahead_is_none() -> None:
    assert count(counted(ill(observation()), of="abc")) == (NOW, NOW)
    assert count(counted(ill(observation()), until=NOW + timedelta(minutes=1))) == (NOW, NOW)


@pytest.mark.parametrize(
    ("state", "curable"),
    [
        ({"running": {"startedAt": "2026-11-21T09:00:00Z"}}, True),
        (terminated("", code=2), True),
        (terminated("", reason="OOMKilled"), False),
        (terminated('{"level":"fatal","msg":"write: no space left on device"}'), False),
        (terminated('{"level":"fatal","msg":"failed to verify flags","error":"expected bool"}'), False),
        (terminated('{"level":"fatal","msg":"open db: input/output error"}'), False),
        ({"waiting": {"reason": "ImagePullBackOff", "message": "not found"}}, False),
        ({"waiting": {"reason": "CreateContainerConfigError", "message": "no secret"}}, False),
    ],
)
def test_only_what_a_new_member_would_cure_is_counted(state: dict[str, Any], curable: bool) -> None:
    seen = counted(ill(observation(), state=state))
    assert (count(seen) is not None) == curable
    assert (planned(seen).rule == "replace_unwell_member") == curable


def test_a_pod_that_finds_no_node_is_counted_only_where_its_volume_is_what_keeps_it() -> None:
    unplaced = [{"type": "PodScheduled", "status": "False", "message": "0/4 nodes are available"}]
    assert count(counted(ill(observation(), conditions=unplaced))) is None
    assert count(counted(ill(observation(), conditions=unplaced, place=AWAY))) is not None


def test_a_pod_that_is_being_ended_by_its_kubelet_is_not_counted() -> None:
    going: dict[str, Any] = {"deletionTimestamp": "2026-11-21T11:00:00Z"}
    assert count(counted(ill(observation(), **going))) is None
    assert count(counted(ill(observation(), place=AWAY, **going))) is not None
    assert count(counted(ill(observation(), place=None, **going))) is not None, "nothing is known of nodes"


# --- replacing after a while ------------------------------------------------------------------------------------------


def test_a_member_that_stays_unwell_on_a_node_that_is_well_is_replaced_on_its_volume() -> None:
    step = the_step(counted(ill(observation())))
    assert isinstance(step, RemoveMember)
    assert (step.member, step.member_id, step.through) == ("a-1", 0x11, "a-0")
    assert "spec.healing.replaceAfter (5m)" in step.reason
    assert step.reason.endswith("; its old directory first stays on data-a-1 (spec.healing.keepOldData: 168h)")


def test_nobody_is_replaced_before_the_time_has_come() -> None:
    seen = ill(observation())
    assert planned(counted(seen, since=NOW - timedelta(seconds=299))).rule == "wait_for_members"
    assert planned(counted(seen, since=NOW - timedelta(seconds=300))).rule == "replace_unwell_member"
    patient = with_spec(seen, healing={"replaceAfter": "2h"})
    assert planned(counted(patient)).rule == "wait_for_members"


def test_a_process_that_has_just_begun_may_be_about_to_be_well() -> None:
    began = (NOW - timedelta(seconds=59)).isoformat()
    assert planned(counted(ill(observation(), state={"running": {"startedAt": began}}))).steps == ()
    began = (NOW - timedelta(seconds=61)).isoformat()
    assert planned(counted(ill(observation(), state={"running": {"startedAt": began}}))).steps


def test_a_member_whose_node_is_away_is_marked_then_removed() -> None:
    seen = counted(ill(observation(), place=AWAY))
    mark = the_step(seen)
    assert isinstance(mark, Annotate)
    assert (mark.kind, mark.name, dict(mark.annotations)) == ("PersistentVolumeClaim", "data-a-1", {n.ABANDONED: MARK})
    step = the_step(annotated(seen, "claims", "data-a-1", abandoned=MARK))
    assert isinstance(step, RemoveMember)
    assert "not ready" in step.reason


def test_a_paused_cluster_counts_and_replaces_nobody() -> None:
    seen = counted(ill(with_spec(observation(), paused=True)))
    assert count(seen) is None
    assert planned(seen).steps == ()


def test_only_one_at_a_time_the_longest_unwell_first_then_the_one_that_a_joiner_would_wait_for() -> None:
    seen = ill(ill(observation(members=5), "a-1"), "a-2")
    seen = counted(counted(seen, "a-1"), "a-2", since=LONG_AGO - timedelta(minutes=1))
    step = the_step(seen)
    assert step.member == "a-2"
    left = MemberList(
        cluster_id=int(blueprint(members=5).cluster_id, 16),
        members=tuple(each for each in PLAN_LIST[:5] if each.name != "a-2"),
    )
    answers = {name: replace(each, members=left) if each.members else each for name, each in seen.answers.items()}
    left_without = judged(replace(seen, answers=answers))
    assert add_missing_members(left_without) is None
    then = replace_unwell_member(left_without)
    assert then is not None
    assert [step.member for step in then.steps if isinstance(step, RemoveMember)] == ["a-1"]


def test_a_member_that_a_restart_waits_for_is_replaced_although_others_wait_for_that_restart() -> None:
    seen = with_spec(observation(members=5), members=7, options={"snapshotCount": 5000})
    seen = counted(ill(seen, "a-3", place=AWAY), "a-3")
    marked = the_step(seen)
    assert isinstance(marked, Annotate)
    step = the_step(
        edited(seen, "claims", "data-a-3", lambda made: made["metadata"]["annotations"].update(marked.annotations))
    )
    assert isinstance(step, RemoveMember)
    assert step.member == "a-3"


def test_a_leader_that_the_others_follow_is_not_counted() -> None:
    assert count(counted(ill(observation(), "a-0"), "a-0"), "a-0") is None


def test_a_member_that_was_restarted_into_a_change_waits_for_the_user() -> None:
    seen = with_spec(observation(), options={"snapshotCount": 5000})
    roster = {
        name: {"incarnation": "first", "id": f"{0x10 + index:x}", "revision": judged(seen).blueprint.target_revision}
        for index, name in enumerate(("a-0", "a-1", "a-2"))
    }
    seen = annotated(seen, "config_maps", "a-config", roster=json.dumps(roster))
    known = judged(ill(seen))
    assert known.blueprint.revision_of("a-1") == known.blueprint.target_revision != known.blueprint.revision
    assert count(counted(ill(seen))) is None
    assert count(counted(ill(seen, place=AWAY))) is not None, "the node is to blame"


# --- nodes that are gone ----------------------------------------------------------------------------------------------


def test_a_member_whose_node_was_deleted_is_replaced_at_once() -> None:
    seen = ill(observation(), place=GONE)
    assert isinstance(the_step(seen), Annotate)
    step = the_step(annotated(seen, "claims", "data-a-1", abandoned=MARK))
    assert isinstance(step, RemoveMember)
    assert step.reason == "its volume is on n2, which is no node of this Kubernetes any more"


def test_a_member_that_serves_is_left_where_it_is_whatever_became_of_its_node() -> None:
    assert planned(replace(observation(), places={"a-1": GONE})).steps == ()


def test_a_lost_node_is_no_reason_to_lose_the_quorum() -> None:
    seen = ill(down(observation(), "a-2"), place=GONE)
    assert not any(isinstance(step, RemoveMember) for step in planned(seen).steps)


# --- moving on --------------------------------------------------------------------------------------------------------


def given_up(place: Place = AWAY, *, mark: str = MARK, **pod: Any) -> Observation:
    """a-1 was removed and added anew, its file is written; the old pod and claim are still there."""
    seen = ill(observation(), place=place, **pod)
    joiner = Member(id=0xABC1, name="", peer_urls=(PLAN.peer_url("a-1"),), is_learner=True)
    kept = tuple(each for each in PLAN_LIST[:3] if each.name != "a-1")
    listed = MemberList(cluster_id=int(PLAN.cluster_id, 16), members=(*kept, joiner))
    answers = {name: replace(each, members=listed) if each.members else each for name, each in seen.answers.items()}
    seen = replace(seen, answers=answers)
    seen = annotated(seen, "claims", "data-a-1", abandoned=mark)
    for _ in range(3):
        steps = planned(seen).steps
        kinds = {
            "ConfigMap": "config_maps",
            "StatefulSet": "stateful_sets",
            "PodDisruptionBudget": "disruption_budgets",
        }
        for step in steps:
            if isinstance(step, Apply):
                seen = with_object(seen, kinds[step.manifest["kind"]], live(step.manifest))
    return seen


@pytest.mark.parametrize("place", [AWAY, GONE])
def test_the_old_volume_is_kept_before_its_claim_goes(place: Place) -> None:
    step = the_step(given_up(place))
    assert isinstance(step, RetainVolume)
    assert (step.volume, step.uid) == ("pv-a-1", "uid-pv")
    step = the_step(given_up(replace(place, retained=True)))
    assert isinstance(step, Delete)
    assert (step.kind, step.name, step.at_once) == ("PersistentVolumeClaim", "data-a-1", False)


def test_then_the_pod_goes_that_no_kubelet_ends() -> None:
    seen = given_up(replace(AWAY, retained=True))
    seen = edited(
        seen, "claims", "data-a-1", lambda claim: claim["metadata"].update(deletionTimestamp="2026-11-21T11:00:00Z")
    )
    step = the_step(seen)
    assert isinstance(step, Delete)
    assert (step.kind, step.name, step.uid, step.at_once) == ("Pod", "a-1", "uid-Pod-a-1", True)


def test_where_the_node_came_back_the_new_member_starts_there() -> None:
    step = the_step(given_up(HERE))
    assert isinstance(step, Delete)
    assert (step.kind, step.at_once) == ("Pod", False)


def test_a_mark_of_another_pod_or_of_a_member_that_is_still_listed_takes_nothing() -> None:
    made = planned(given_up(AWAY, mark="10/uid-Pod-a-0", annotations={}))
    assert not any(isinstance(step, Delete | RetainVolume) for step in made.steps), made
    made = planned(given_up(replace(AWAY, home=Nodes.READY), mark="11/other", annotations={}))
    assert not any(isinstance(step, Delete) for step in made.steps), made


def test_where_nothing_is_known_of_nodes_only_a_pod_that_outlasts_its_deletion_is_taken_away() -> None:
    seen = replace(given_up(AWAY, deletionTimestamp=(NOW - timedelta(seconds=31)).isoformat()), places={})
    step = the_step(seen)
    assert isinstance(step, Delete)
    assert (step.kind, step.at_once) == ("Pod", True)
    seen = replace(given_up(AWAY, deletionTimestamp=(NOW - timedelta(seconds=29)).isoformat()), places={})
    assert not planned(seen).steps


def test_the_mark_goes_when_the_new_member_serves() -> None:
    seen = annotated(observation(), "claims", "data-a-1", abandoned="abc/uid")
    step = the_step(seen)
    assert isinstance(step, Annotate)
    assert dict(step.annotations) == {n.ABANDONED: ""}
    assert planned(annotated(observation(), "claims", "data-a-1", abandoned="")).steps == ()


# --- what is told -----------------------------------------------------------------------------------------------------


def test_the_status_tells_the_count_and_when_the_member_is_replaced() -> None:
    seen = counted(ill(observation()), since=NOW - timedelta(minutes=1), until=NOW - timedelta(seconds=1))
    told = next(each for each in status(judged(seen), Outcome(plan=planned(seen))).members if each.name == "a-1")
    assert (told.unwell_since, told.unwell_until) == (NOW - timedelta(minutes=1), NOW - timedelta(seconds=1))
    assert degraded(judged(seen), Outcome(plan=Plan())).message.endswith(
        "; a new member takes its place unless it is back by 2026-11-21T12:04:00Z"
    )
    assert answer(PLAN, "a-1").status
