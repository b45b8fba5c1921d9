"""What the status tells: conditions, columns, events, and when it is written at all."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from etcd_operator.api import EtcdClusterStatus
from etcd_operator.cluster.conditions import Outcome, Told, available, degraded, progressing, summary
from etcd_operator.cluster.observation import Observation
from etcd_operator.cluster.plan import plan
from etcd_operator.cluster.status import has_changed, status
from etcd_operator.cluster.steps import Apply, Delete, Plan, RecordBootstrap
from etcd_operator.cluster.story import tales_of_status, tales_of_steps
from etcd_operator.cluster.trouble import Trouble
from support.builders import (
    NOW,
    annotated,
    answer,
    blueprint,
    complaining,
    down,
    etcd_cluster,
    judged,
    observation,
    pod,
    silent,
    terminated,
    unfounded,
    with_answer,
    with_object,
    with_pod,
    with_spec,
    without,
)

PUBLISHED = {
    "conditions": [
        {
            "type": "Available",
            "status": "True",
            "reason": "QuorumHealthy",
            "message": "3 of 3 voters answer; leader a-0",
            "lastTransitionTime": "2026-11-21T11:00:00Z",
        }
    ]
}


def outcome(seen: Observation, error: Trouble | None = None) -> Outcome:
    return Outcome(plan=plan(judged(seen)), error=error)


def shown(seen: Observation) -> dict[str, Any]:
    """The status as it is written."""
    told: dict[str, Any] = status(judged(seen), outcome(seen)).model_dump(by_alias=True, exclude_none=True, mode="json")
    return told


def standing(seen: Observation) -> Observation:
    """The same cluster a minute later, with its status written."""
    told = EtcdClusterStatus.model_validate(shown(seen))
    later = seen.at + timedelta(minutes=1)
    return replace(seen, at=later, cluster=seen.cluster.model_copy(update={"status": told}))


def all_silent() -> Observation:
    seen = observation()
    for member in list(seen.answers):
        seen = with_answer(seen, member, silent())
    return seen


# --- Available --------------------------------------------------------------------------------------------------------


def test_available_names_the_voters_and_the_leader() -> None:
    told = available(judged(observation()))
    assert (told.status, told.reason) == ("True", "QuorumHealthy")
    assert told.message == "3 of 3 voters answer; leader a-0"


def test_not_available_before_the_record() -> None:
    told = available(judged(observation(recorded=False)))
    assert (told.status, told.reason) == ("False", "Bootstrapping")


def test_not_available_while_clients_have_no_way_in() -> None:
    seen = without(observation(), "services", "a")
    assert (available(judged(seen)).status, available(judged(seen)).reason) == ("False", "Publishing")
    missing = available(judged(replace(seen, cluster=etcd_cluster(status=_with_proof(PUBLISHED)))))
    assert missing.reason == "AccessMissing"
    assert "Service a" in missing.message


def _with_proof(more: dict[str, Any]) -> dict[str, Any]:
    return {"bootstrap": {"clusterID": blueprint().cluster_id, "incarnation": "first"}, **more}


def test_a_lost_quorum_names_who_is_down_and_why() -> None:
    told = available(judged(down(observation(), "a-1", "a-2")))
    assert (told.status, told.reason) == ("False", "QuorumLost")
    assert "2 of 3 voters are needed" in told.message
    assert "a-1: its pod is missing" in told.message


def test_silence_is_unknown_and_said_so() -> None:
    told = available(judged(all_silent()))
    assert (told.status, told.reason) == ("Unknown", "NoAnswer")
    assert "a-2: no answer in time" in told.message


def test_half_a_silence_is_unknown_too() -> None:
    seen = with_answer(with_answer(observation(), "a-1", silent()), "a-0", silent())
    leaderless = replace(answer(blueprint(), "a-2"), linearizable=False)
    told = available(judged(with_answer(seen, "a-2", leaderless)))
    assert (told.status, told.reason) == ("Unknown", "QuorumUnknown")


# --- Progressing and Degraded -----------------------------------------------------------------------------------------


def progress(seen: Observation, error: Trouble | None = None) -> Told:
    return progressing(judged(seen), outcome(seen, error))


@pytest.mark.parametrize(
    ("seen", "state", "reason", "message"),
    [
        pytest.param(observation(), "False", "AsSpecified", "as its spec asks", id="at rest"),
        pytest.param(with_spec(observation(), paused=True), "False", "Paused", "changes nothing", id="paused"),
        pytest.param(
            annotated(observation(), "config_maps", "a-config", cluster_id="beef"),
            "False",
            "RecordsDisagree",
            "beef",
            id="disputed",
        ),
        pytest.param(
            with_spec(observation(), options={"extra": {"no-such": 1}}),
            "False",
            "InvalidSpec",
            "keep their settings",
            id="a bad option in a running cluster",
        ),
        pytest.param(
            unfounded(options={"extra": {"no-such": 1}}), "False", "InvalidSpec", "no-such", id="in a new one"
        ),
        pytest.param(
            with_pod(observation(), "a-1", state={"waiting": {"reason": "ErrImagePull"}}, ready=False),
            "True",
            "Reconciling",
            "",
            id="an image that cannot be pulled while the member still answers",
        ),
        pytest.param(
            without(observation(), "services", "a-peers"), "True", "Reconciling", "a-peers is needed", id="work"
        ),
        pytest.param(unfounded(), "True", "Bootstrapping", "ConfigMap a-config is needed", id="a new cluster"),
        pytest.param(down(observation(), "a-1"), "True", "Reconciling", "Waiting for a-1", id="waiting"),
        pytest.param(with_spec(observation(), members=5), "True", "ChangingMembers", "3 of 5 vote", id="a scale"),
        pytest.param(
            with_spec(observation(), version="3.7.2"), "True", "RestartingMembers", "spec.version", id="another version"
        ),
    ],
)
def test_progressing(seen: Observation, state: str, reason: str, message: str) -> None:
    told = progress(seen)
    if reason == "Reconciling" and not message:
        assert told.reason in {"AsSpecified", "Reconciling"}
        return
    assert (told.status, told.reason) == (state, reason)
    assert message in told.message


def test_what_kubernetes_refuses_is_told_in_its_words() -> None:
    told = progress(observation(), Trouble(reason="Forbidden", message="the operator may not do this: x"))
    assert (told.status, told.reason, told.message) == ("False", "Forbidden", "the operator may not do this: x")


def test_a_quota_that_refuses_pods_is_named() -> None:
    seen = complaining(down(observation(), "a-1"), "StatefulSet", "a", "FailedCreate", "exceeded quota: small")
    told = progress(seen)
    assert (told.status, told.reason) == ("False", "PodsRefused")
    assert "exceeded quota: small" in told.message


def test_degraded_tells_the_cause_and_not_the_symptom() -> None:
    fuse = '{"level":"fatal","msg":"m","error":"cannot fetch cluster info from peer urls"}'
    crashed = pod("a-1", state=terminated(fuse), ready=False)
    told = degraded(judged(with_answer(with_object(observation(), "pods", crashed), "a-1", None)), Outcome(plan=Plan()))
    assert (told.status, told.reason) == ("True", "MembersUnhealthy")
    assert "directory is empty" in told.message


def test_a_lost_authority_degrades_although_all_are_healthy() -> None:
    told = degraded(judged(without(observation(), "secrets", "a-peer-ca")), Outcome(plan=Plan()))
    assert (told.status, told.reason) == ("True", "AuthorityLost")
    assert "a-peer-ca" in told.message


def test_members_that_share_a_node_are_told_without_alarm() -> None:
    seen = with_pod(observation(), "a-1", node="node-a-0")
    told = degraded(judged(seen), Outcome(plan=Plan()))
    assert (told.status, told.reason) == ("False", "NodeShared")
    assert "a-0 and a-1 share node node-a-0" in told.message


# --- the STATUS column ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seen", "text"),
    [
        (observation(), "Available"),
        (down(observation(), "a-1"), "Available; a-1 down"),
        (down(observation(), "a-0", "a-2"), "Quorum lost: a-0, a-2 down"),
        (all_silent(), "Unknown: a-0, a-1, a-2 silent"),
        (with_spec(observation(), paused=True), "Available; paused"),
        (with_spec(observation(), members=1), "Available; scaling down to 1: removing a-1, a-2"),
        (without(observation(), "services", "a"), "Giving clients access"),
    ],
)
def test_summary(seen: Observation, text: str) -> None:
    assert summary(judged(seen), outcome(seen)) == text


def test_a_long_story_is_cut_for_the_column() -> None:
    seen = unfounded(options={"extra": {f"no-such-key-{i}": 1 for i in range(9)}})
    assert len(summary(judged(seen), outcome(seen))) <= 80


# --- the whole status -------------------------------------------------------------------------------------------------


def test_the_status_of_a_cluster_at_rest() -> None:
    told = shown(observation())
    assert told["readyMembers"] == 3
    assert told["quorum"] == "3/3"
    assert told["toleratedFailures"] == 1
    assert told["leader"] == "a-0"
    assert told["clusterID"] == blueprint().cluster_id
    assert told["bootstrap"]["incarnation"] == "first"
    assert told["version"] == "3.7.3"
    assert told["selector"] == "externaletcd.io/cluster=a"
    assert told["endpoints"]["client"] == "https://a.ns.svc:2379"
    assert told["members"][1] == {
        "name": "a-1",
        "id": "11",
        "role": "Voter",
        "healthy": True,
        "version": "3.7.3",
        "dbSize": "25Mi",
        "dbInUse": "11Mi",
        "node": "node-a-1",
    }


def test_the_lowest_version_counts_as_number() -> None:
    seen = with_answer(observation(), "a-1", answer(blueprint(), "a-1", version="3.7.10"))
    assert shown(seen)["version"] == "3.7.3"


def test_health_is_left_out_while_it_is_unknown() -> None:
    found = {member["name"]: member.get("healthy") for member in shown(all_silent())["members"]}
    assert found == {"a-0": None, "a-1": None, "a-2": None}
    assert shown(down(observation(), "a-1"))["members"][1]["healthy"] is False


def test_a_written_status_is_not_written_again() -> None:
    seen = standing(observation())
    assert not has_changed(shown(seen), shown(observation()))


@pytest.mark.parametrize("seen", [down(observation(), "a-1"), down(observation(), "a-1", "a-2"), all_silent()])
def test_trouble_that_stays_the_same_is_written_once(seen: Observation) -> None:
    assert not has_changed(shown(standing(seen)), shown(seen))


def test_sizes_and_progress_of_the_log_are_no_reason_to_write() -> None:
    grown = observation()
    for member in list(grown.answers):
        changed = answer(blueprint(), member, db_size=99 * 2**20, db_size_in_use=50 * 2**20, raft_index=9, revision=9)
        grown = with_answer(grown, member, changed)
    assert not has_changed(shown(standing(grown)), shown(observation()))
    assert has_changed(shown(standing(down(grown, "a-1"))), shown(observation()))


def test_a_new_leader_is_a_reason_to_write() -> None:
    moved = observation()
    for member in list(moved.answers):
        moved = with_answer(moved, member, answer(blueprint(), member, leader_id=0x11, raft_term=3))
    assert has_changed(shown(moved), shown(observation()))


def test_a_missing_status_is_a_reason_to_write() -> None:
    assert has_changed(shown(observation()), None)


def test_a_transition_time_changes_with_the_state_alone() -> None:
    def times(seen: Observation) -> dict[str, str]:
        return {each["type"]: each["lastTransitionTime"] for each in shown(seen)["conditions"]}

    before = standing(observation())
    assert times(before) == times(observation())
    after = times(down(before, "a-1", "a-2"))
    assert after["Available"] == "2026-11-21T12:01:00Z"


def test_the_status_keeps_the_proof_when_nobody_answers() -> None:
    told = shown(all_silent())
    assert told["clusterID"] == blueprint().cluster_id
    assert told["bootstrap"]["clusterID"] == blueprint().cluster_id


# --- events -----------------------------------------------------------------------------------------------------------


def test_a_lost_quorum_is_told_once_and_as_a_warning() -> None:
    before = standing(observation()).cluster.status
    lost = down(standing(observation()), "a-1", "a-2")
    after = status(judged(lost), outcome(lost))
    tales = {(tale.type, tale.reason) for tale in tales_of_status(before, after)}
    assert ("Warning", "QuorumLost") in tales
    assert tales_of_status(after, after) == []


def test_recovery_is_told() -> None:
    lost = standing(down(observation(), "a-1", "a-2")).cluster.status
    tales = tales_of_status(lost, status(judged(observation()), outcome(observation())))
    assert {("Normal", "Available"), ("Normal", "AllHealthy")} <= {(tale.type, tale.reason) for tale in tales}


def test_founding_is_told_by_conditions_and_repairs_by_events() -> None:
    step = Apply(manifest={}, absent=True, reason="ConfigMap a-config is needed")
    assert tales_of_steps(Plan(steps=(step,), rule="keep_objects_right"), published=False) == []
    assert len(tales_of_steps(Plan(steps=(step,), rule="keep_objects_right"), published=True)) == 1
    assert len(tales_of_steps(Plan(steps=(step,), rule="refound_when_stuck"), published=False)) == 1


def test_record_and_deletions_are_always_told() -> None:
    steps = (
        RecordBootstrap(cluster_id="1", incarnation="i", recorded_at=f"{NOW}", reason="all have joined"),
        Delete(kind="Pod", name="a-0", uid="u", reason="it must"),
    )
    tales = tales_of_steps(Plan(steps=steps), published=False)
    assert [(tale.reason, tale.message) for tale in tales] == [
        ("Bootstrapped", "all have joined"),
        ("Deleting", "deleting Pod a-0: it must"),
    ]


def test_what_the_api_server_refuses_is_no_less_than_degraded() -> None:
    refused = Outcome(plan=Plan(), error=Trouble(reason="Refused", message="the API server refused an object: field x"))
    told = degraded(judged(observation()), refused)
    assert (told.status, told.reason, told.message) == ("True", "Refused", "the API server refused an object: field x")


def test_an_answer_of_members_that_go_is_told_as_the_last_one() -> None:
    seen = observation()
    for member in ("a-1", "a-2"):
        seen = without(seen, "pods", member)
    known = judged(seen)
    assert summary(known, Outcome(plan=Plan())) == "Losing its quorum: a-1, a-2 going"
    assert "only 1 of 3 voters stay: a-1, a-2 go" in available(known).message
