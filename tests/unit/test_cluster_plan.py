"""Each rule of the plan: when it speaks, what it asks for, and which one comes first."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from etcd_operator.cluster.observation import Observation
from etcd_operator.cluster.plan import RULES
from etcd_operator.cluster.steps import Annotate, Apply, Delete, IssueLeaf, Plan, RecordBootstrap, SetOwner
from etcd_operator.resources.names import Manifest
from etcd_operator.resources.secrets import client_leaf, server_leaf
from support.builders import (
    NOW,
    RECORDED,
    TLS_OFF,
    UID,
    annotated,
    answer,
    authority_secret,
    blueprint,
    claim,
    down,
    edited,
    etcd_cluster,
    leaderless,
    leaf_secret,
    member_list,
    observation,
    silent,
    terminated,
    unfounded,
    with_answer,
    with_object,
    with_pod,
    with_spec,
    without,
    without_status,
)
from support.plans import planned

NEW = blueprint(cluster_id=None)


def applied(made: Plan) -> list[str]:
    return [
        f"{each.manifest['kind']} {each.manifest['metadata']['name']}" for each in made.steps if isinstance(each, Apply)
    ]


def deleted(made: Plan) -> list[str]:
    return [f"{each.kind} {each.name}" for each in made.steps if isinstance(each, Delete)]


def annotated_by(made: Plan) -> list[str]:
    return [each.name for each in made.steps if isinstance(each, Annotate)]


def owned_by(uid: str) -> Any:
    def edit(manifest: Manifest) -> None:
        manifest["metadata"]["ownerReferences"] = [{"kind": "EtcdCluster", "name": "a", "uid": uid}]

    return edit


@pytest.mark.parametrize("members", [1, 3, 5, 7])
@pytest.mark.parametrize("tls", [{}, TLS_OFF])
def test_a_cluster_that_is_right_is_left_alone(members: int, tls: dict[str, Any]) -> None:
    assert planned(observation(members=members, tls=tls)) == Plan(rule="at_rest")


def test_every_rule_is_asked_once() -> None:
    assert len(set(RULES)) == len(RULES)


# --- what keeps hands off ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seen", [unfounded(paused=True), with_spec(without(observation(), "services"), paused=True)])
def test_paused_means_nothing_is_changed(seen: Observation) -> None:
    made = planned(seen)
    assert (made.rule, made.steps) == ("wait_when_paused", ())


@pytest.mark.parametrize(
    ("kind", "name"),
    [("stateful_sets", "a"), ("config_maps", "a-config"), ("secrets", "a-client"), ("claims", "data-a-1")],
)
def test_what_a_deleted_namesake_left_behind_goes_first(kind: str, name: str) -> None:
    made = planned(edited(observation(), kind, name, owned_by("uid-of-the-dead")))
    assert (made.rule, made.steps) == ("wait_for_leftovers", ())
    assert name in made.waiting


def test_a_stateful_set_on_its_way_out_is_waited_for() -> None:
    def edit(manifest: Manifest) -> None:
        manifest["metadata"]["deletionTimestamp"] = RECORDED

    assert planned(edited(observation(), "stateful_sets", "a", edit)).rule == "wait_for_leftovers"


def test_records_that_disagree_stop_everything() -> None:
    made = planned(without(annotated(observation(), "stateful_sets", "a", cluster_id="beef"), "services"))
    assert (made.rule, made.steps) == ("refuse_disputed_records", ())


def test_nothing_is_founded_on_a_bad_spec_and_what_runs_is_still_kept_right() -> None:
    bad = {"extra": {"no-such-option": 1}}
    assert planned(unfounded(options=bad)).rule == "refuse_to_found_on_bad_input"
    assert planned(with_spec(observation(), options=bad)).rule == "at_rest"
    assert planned(without(with_spec(observation(), options=bad), "services", "a")).rule == "publish_access"


# --- bootstrap --------------------------------------------------------------------------------------------------------


def test_a_new_cluster_gets_what_pods_mount_before_it_gets_pods() -> None:
    seen = replace(
        unfounded(), objects=replace(unfounded().objects, secrets=observation(recorded=False).objects.secrets)
    )
    made = planned(seen)
    assert (made.rule, applied(made)) == ("lay_foundation", ["ConfigMap a-config"])
    assert all(step.absent for step in made.steps if isinstance(step, Apply))
    made = planned(replace(without(observation(recorded=False), "services", "a-peers"), answers={}))
    assert (made.rule, applied(made)) == ("keep_objects_right", ["Service a-peers"])
    assert all(step.absent for step in made.steps if isinstance(step, Apply))
    seen = replace(without(observation(recorded=False), "stateful_sets", "a"), answers={})
    assert applied(planned(without(seen, "disruption_budgets"))) == ["StatefulSet a", "PodDisruptionBudget a"]


def test_bootstrap_is_recorded_when_all_have_joined() -> None:
    made = planned(observation(recorded=False))
    assert made.rule == "record_bootstrap"
    (step,) = made.steps
    assert isinstance(step, RecordBootstrap)
    assert (step.cluster_id, step.incarnation) == (NEW.founding_id, "first")
    assert step.recorded_at == "2026-11-21T12:00:00Z"


def answering(seen: Observation, **changes: Any) -> Observation:
    """All members answer; with a list or report that differs."""
    for member in list(seen.answers):
        seen = with_answer(seen, member, answer(NEW, member, **changes))
    return seen


def test_a_member_that_was_named_but_never_started_has_not_joined() -> None:
    """Founders bear their names from the first entry on; the fuse would keep out one that never ran."""
    seen = answering(observation(recorded=False), listed=member_list(NEW, unpublished=["a-2"]))
    assert planned(seen).rule == "wait_for_bootstrap"


def test_a_list_that_no_quorum_confirmed_proves_nothing() -> None:
    seen = observation(recorded=False)
    for member, answered in seen.answers.items():
        seen = with_answer(seen, member, replace(answered, linearizable=False))
    assert planned(seen).rule == "wait_for_bootstrap"


def test_a_quorum_of_too_many_members_is_not_ours() -> None:
    seen = answering(observation(recorded=False), listed=member_list(blueprint(members=5, cluster_id=None)))
    assert planned(seen).rule != "record_bootstrap"


def test_what_answers_from_a_bootstrap_that_was_given_up_is_never_recorded() -> None:
    """Orphaned pods that the new StatefulSet adopted still run the etcd of the old one."""
    seen = annotated(observation(recorded=False), "config_maps", "a-config", incarnation="second")
    seen = annotated(seen, "stateful_sets", "a", incarnation="second")
    made = planned(seen)
    assert made.rule == "remove_abandoned_members"
    assert deleted(made) == ["Pod a-0", "Pod a-1", "Pod a-2"]


def test_nothing_is_recorded_while_the_stateful_set_is_of_a_bootstrap_that_was_given_up() -> None:
    """Its pods may have taken the new files, yet it was made from another spec and cannot become what is wanted."""
    seen = annotated(observation(recorded=False), "stateful_sets", "a", incarnation="zeroth")
    assert deleted(planned(seen)) == ["StatefulSet a"]


def test_a_change_before_the_record_starts_over() -> None:
    seen = with_spec(answering(observation(recorded=False), listed=member_list(NEW, unpublished=["a-2"])), members=5)
    made = planned(seen)
    assert made.rule == "refound_after_change"
    (step,) = made.steps
    assert isinstance(step, Apply)
    assert step.manifest["metadata"]["annotations"]["externaletcd.io/incarnation"] == "fresh"
    assert len(step.manifest["data"]) == 5
    assert "spec.members changed" in step.reason


def test_a_bootstrap_that_is_complete_is_recorded_even_if_the_spec_changed() -> None:
    assert planned(with_spec(observation(recorded=False), members=5)).rule == "record_bootstrap"


def stuck(seconds: float) -> Observation:
    seen = observation(recorded=False)
    started = (NOW - timedelta(seconds=seconds)).isoformat()
    for member, answered in seen.answers.items():
        seen = with_answer(seen, member, replace(leaderless(answered), members=None))
        seen = with_pod(seen, member, state={"running": {"startedAt": started}})
    return seen


def test_members_that_all_run_without_a_leader_start_over_after_a_while() -> None:
    assert planned(stuck(29)).rule == "wait_for_bootstrap"
    assert planned(stuck(31)).rule == "refound_when_stuck"


def test_the_wait_counts_from_the_last_start() -> None:
    started = (NOW - timedelta(seconds=5)).isoformat()
    seen = with_pod(stuck(300), "a-1", state={"running": {"startedAt": started}})
    assert planned(seen).rule == "wait_for_bootstrap"


def test_members_that_do_not_all_run_are_waited_for() -> None:
    assert planned(with_answer(stuck(300), "a-1", silent())).rule == "wait_for_bootstrap"
    made = planned(with_answer(without(stuck(300), "pods", "a-1"), "a-1", None))
    assert made.waiting == "Bootstrapping: 2 of 3 members answer"


def crashed(seen: Observation, member: str, error: str) -> Observation:
    state = terminated(f'{{"level":"fatal","msg":"m","error":"{error}"}}')
    return with_answer(with_pod(seen, member, state=state, ready=False), member, None)


def test_a_directory_that_can_never_join_starts_over_before_the_record_only() -> None:
    words = "member 1 has already been bootstrapped"
    unpublished = answering(observation(recorded=False), listed=member_list(NEW, unpublished=["a-1"]))
    assert planned(crashed(unpublished, "a-1", words)).rule == "refound_when_stuck"
    assert planned(crashed(observation(), "a-1", words)).rule != "refound_when_stuck"


def test_an_abandoned_bootstrap_is_taken_away_and_not_given_up_again() -> None:
    seen = annotated(stuck(300), "config_maps", "a-config", incarnation="second")
    seen = with_object(seen, "claims", claim(NEW, "a-1", phase="Pending"))
    made = planned(seen)
    assert made.rule == "remove_abandoned_members"
    assert deleted(made) == ["StatefulSet a", "PersistentVolumeClaim data-a-1"]
    first = made.steps[0]
    assert isinstance(first, Delete)
    assert first.propagation == "Foreground"
    assert first.uid == "uid-StatefulSet-a"


def test_after_the_record_nothing_is_ever_founded_again() -> None:
    for seen in (
        with_spec(observation(), members=5),
        annotated(observation(), "config_maps", "a-config", incarnation="second", cluster_id=None),
        down(observation(), "a-0", "a-1", "a-2"),
        crashed(crashed(observation(), "a-0", "cannot fetch cluster info from peer urls"), "a-1", "x"),
    ):
        made = planned(seen)
        files = [step.manifest["data"] for step in made.steps if isinstance(step, Apply) and "data" in step.manifest]
        assert not any('"new"' in text for data in files for text in data.values())
        assert not any(isinstance(step, RecordBootstrap) for step in made.steps)
        assert deleted(made) == []


# --- the record spreads, then clients get in --------------------------------------------------------------------------


def test_the_record_is_told_to_the_volumes_first_and_then_turns_files_into_fuses() -> None:
    """Right after the record: the status knows, nothing else does. The volumes outlive all else that can be deleted."""
    seen = observation(recorded=False)
    seen = replace(seen, cluster=observation().cluster)
    made = planned(seen)
    assert (made.rule, annotated_by(made)) == ("record_volumes", ["data-a-0", "data-a-1", "data-a-2"])
    made = planned(replace(seen, objects=replace(seen.objects, claims=observation().objects.claims)))
    assert applied(made) == ["ConfigMap a-config"]
    step = made.steps[0]
    assert isinstance(step, Apply)
    assert all("existing" in text for text in step.manifest["data"].values())


def test_volumes_are_told_whose_data_they_hold() -> None:
    seen = annotated(observation(), "claims", "data-a-1", cluster_id=None)
    made = planned(seen)
    assert (made.rule, annotated_by(made)) == ("record_volumes", ["data-a-1"])
    (step,) = made.steps
    assert isinstance(step, Annotate)
    assert dict(step.annotations)["externaletcd.io/members"] == "a-0,a-1,a-2"
    assert dict(step.annotations)["externaletcd.io/member-id"] == "11"
    assert step.uid == "uid-PersistentVolumeClaim-data-a-1"


def test_only_a_member_that_answers_as_one_of_ours_is_recorded_on_its_volume() -> None:
    for unsure in (None, silent(), answer(blueprint(incarnation="other"), "a-1")):
        seen = annotated(observation(), "claims", "data-a-1", cluster_id=None)
        assert planned(with_answer(seen, "a-1", unsure)).rule != "record_volumes"


def test_clients_get_in_after_a_volume_knows() -> None:
    seen = without(observation(), "services", "a")
    made = planned(seen)
    assert (made.rule, applied(made)) == ("publish_access", ["Service a"])
    for name in list(seen.objects.claims):
        seen = annotated(seen, "claims", name, cluster_id=None)
    for member in list(seen.answers):
        seen = with_answer(seen, member, silent())
    assert planned(seen).rule == "wait_for_members"


def test_before_the_record_nobody_gets_in() -> None:
    seen = without(observation(recorded=False), "pods")
    for member in list(seen.answers):
        seen = with_answer(seen, member, None)
    assert planned(seen).waiting == "Bootstrapping: 0 of 3 members answer"


def test_pods_from_before_the_record_get_their_fuse_at_once() -> None:
    seen = with_pod(observation(), "a-1", annotations={})
    made = planned(seen)
    assert (made.rule, annotated_by(made)) == ("refresh_mounted_files", ["a-1"])
    assert planned(with_pod(observation(recorded=False), "a-1", annotations={})).rule != "refresh_mounted_files"


# --- keeping things right ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "name", "object_"),
    [
        ("config_maps", "a-config", "ConfigMap a-config"),
        ("services", "a-peers", "Service a-peers"),
        ("services", "a", "Service a"),
        ("stateful_sets", "a", "StatefulSet a"),
        ("disruption_budgets", "a", "PodDisruptionBudget a"),
    ],
)
def test_what_is_deleted_or_changed_is_put_back(kind: str, name: str, object_: str) -> None:
    assert applied(planned(without(observation(), kind, name))) == [object_]

    def edit(manifest: Manifest) -> None:
        manifest["metadata"]["annotations"]["externaletcd.io/digest"] = "of another wish"

    assert applied(planned(edited(observation(), kind, name, edit))) == [object_]


def test_a_stray_scale_is_undone() -> None:
    def edit(manifest: Manifest) -> None:
        manifest["spec"]["replicas"] = 1

    assert applied(planned(edited(observation(), "stateful_sets", "a", edit))) == ["StatefulSet a"]


def test_what_others_add_is_left_alone() -> None:
    def edit(manifest: Manifest) -> None:
        manifest["metadata"]["labels"]["backup"] = "yes"
        manifest["metadata"]["annotations"]["theirs"] = "1"
        manifest["spec"]["clusterIP"] = "10.96.0.7"

    assert planned(edited(observation(), "services", "a", edit)).rule == "at_rest"


def test_a_secret_without_its_label_gets_it_back_with_its_content() -> None:
    def edit(manifest: Manifest) -> None:
        del manifest["metadata"]["labels"]

    seen = edited(observation(), "secrets", "a-server", edit)
    made = planned(seen)
    assert applied(made) == ["Secret a-server"]
    assert isinstance(made.steps[0], Apply)
    assert made.steps[0].manifest["data"] == seen.objects.secrets["a-server"]["data"]


def test_a_foreign_member_is_taken_out_of_the_clients_service_and_put_back() -> None:
    seen = with_answer(observation(), "a-1", answer(blueprint(incarnation="other"), "a-1"))
    made = planned(seen)
    assert made.rule == "shield_from_foreign_members"
    assert [dict(step.labels) for step in made.steps if isinstance(step, Annotate)] == [
        {"externaletcd.io/serving": "false"}
    ]

    def edit(manifest: Manifest) -> None:
        manifest["metadata"]["labels"]["externaletcd.io/serving"] = "false"

    made = planned(edited(observation(), "pods", "a-1", edit))
    assert [dict(step.labels) for step in made.steps if isinstance(step, Annotate)] == [
        {"externaletcd.io/serving": "true"}
    ]


def test_deletion_policy_delete_gives_volumes_an_owner_and_retain_takes_it_away() -> None:
    made = planned(with_spec(observation(), storage={"deletionPolicy": "Delete"}))
    assert made.rule == "own_volumes"
    assert [step.claim for step in made.steps if isinstance(step, SetOwner)] == ["data-a-0", "data-a-1", "data-a-2"]
    (owner,) = made.steps[0].owners  # type: ignore[union-attr]
    assert dict(owner)["uid"] == UID
    made = planned(with_spec(edited(observation(), "claims", "data-a-1", owned_by(UID)), paused=True))
    assert made.rule == "release_volumes"
    assert [(step.claim, step.owners) for step in made.steps if isinstance(step, SetOwner)] == [("data-a-1", ())]


def test_volumes_are_released_even_while_paused() -> None:
    made = planned(edited(with_spec(observation(), paused=True), "claims", "data-a-1", owned_by(UID)))
    assert made.rule == "release_volumes"


def test_a_volume_with_another_clusters_data_is_never_owned() -> None:
    seen = with_spec(down(observation(), "a-1"), storage={"deletionPolicy": "Delete"})
    seen = annotated(seen, "claims", "data-a-1", cluster_id="beef")
    assert [step.claim for step in planned(seen).steps if isinstance(step, SetOwner)] == ["data-a-0", "data-a-2"]


def test_members_are_restarted_for_a_new_authority_only_when_they_cannot_hear_each_other() -> None:
    old = {
        "externaletcd.io/revision": blueprint().revision,
        "externaletcd.io/peer-authority": "old",
        "externaletcd.io/files-refreshed": blueprint().refreshed("a-0"),
    }
    seen = observation()
    for member in ("a-0", "a-1", "a-2"):
        seen = with_pod(seen, member, annotations=old)
    assert planned(seen).rule == "at_rest"
    silent_ = seen
    for member in seen.answers:
        silent_ = with_answer(silent_, member, silent())
    assert planned(silent_).steps == (), "silence proves nothing"
    for member, answered in seen.answers.items():
        seen = with_answer(seen, member, leaderless(answered))
    assert planned(seen).steps == (), "an election proves nothing"
    for member in seen.answers:
        seen = with_pod(seen, member, annotations=old, ready=False)
    made = planned(seen)
    assert made.rule == "restart_members_of_a_lost_authority"
    assert deleted(made) == ["Pod a-0", "Pod a-1", "Pod a-2"]


def test_ailing_members_are_waited_for_by_name() -> None:
    made = planned(down(observation(), "a-1"))
    assert (made.rule, made.steps) == ("wait_for_members", ())
    assert made.waiting == "Waiting for a-1: its pod is missing"


def test_losing_the_whole_status_changes_nothing_else() -> None:
    assert planned(without_status(observation())).rule == "at_rest"


def test_a_new_client_certificate_waits_for_its_authority() -> None:
    plan_ = blueprint()
    seen = without(observation(), "secrets", "a-client-ca", "a-client")
    assert not any(isinstance(step, IssueLeaf) for step in planned(seen).steps)
    seen = with_object(with_object(seen, "secrets", authority_secret(plan_, "client")), "secrets", _server(plan_))
    assert [type(step).__name__ for step in planned(seen).steps] == ["IssueLeaf"]
    assert planned(with_object(seen, "secrets", leaf_secret(plan_, client_leaf(plan_)))).rule == "at_rest"


def _server(plan_: Any) -> Manifest:
    return leaf_secret(plan_, server_leaf(plan_))


# --- a StatefulSet whose controller waits -----------------------------------------------------------------------------


def degraded_for(seconds: int, *, nudged: int | None = None) -> Observation:
    """a-1 has no pod since `seconds`, and the controller was last nudged `nudged` seconds ago."""
    since = (NOW - timedelta(seconds=seconds)).isoformat()
    condition = {"type": "Degraded", "status": "True", "reason": "MembersUnhealthy", "message": "a-1"}
    seen = observation(status={"conditions": [{**condition, "lastTransitionTime": since}]})
    if nudged is not None:
        seen = annotated(seen, "stateful_sets", "a", nudged_at=(NOW - timedelta(seconds=nudged)).isoformat())
    return with_answer(without(seen, "pods", "a-1"), "a-1", None)


@pytest.mark.parametrize(
    ("seen", "nudged"),
    [
        pytest.param(degraded_for(2), False, id="its controller has just begun"),
        pytest.param(degraded_for(3), True, id="it should have made the pod by now"),
        pytest.param(degraded_for(600, nudged=700), True, id="an older nudge counts for nothing"),
        pytest.param(degraded_for(6, nudged=2), False, id="it was nudged lately"),
        pytest.param(degraded_for(50, nudged=15), False, id="later ones wait longer"),
        pytest.param(degraded_for(50, nudged=17), True, id="half of what went before is long enough"),
        pytest.param(degraded_for(3600, nudged=60), True, id="a minute is always enough"),
    ],
)
def test_a_controller_that_does_not_make_a_pod_is_nudged_at_growing_intervals(seen: Observation, nudged: bool) -> None:
    made = planned(seen)
    assert annotated_by(made) == (["a"] if nudged else [])
    assert made.waiting.startswith("Waiting for a-1: its pod is missing")


def test_a_controller_is_not_nudged_before_the_status_tells_that_a_pod_is_missing() -> None:
    assert planned(with_answer(without(observation(), "pods", "a-1"), "a-1", None)).rule == "wait_for_members"


# --- pods that nobody makes -------------------------------------------------------------------------------------------


def missing_for(seconds: float, *, nudged: float | None = None) -> Observation:
    """A cluster that was told as degraded so many seconds ago, as the pod of a-1 is missing."""
    since = (NOW - timedelta(seconds=seconds)).isoformat()
    told = {"type": "Degraded", "status": "True", "reason": "x", "message": "x", "lastTransitionTime": since}
    seen = observation()
    status = {"bootstrap": seen.cluster.status.bootstrap, "conditions": [told]}
    seen = replace(down(seen, "a-1"), cluster=etcd_cluster(status=status))
    if nudged is None:
        return seen
    return annotated(seen, "stateful_sets", "a", nudged_at=(NOW - timedelta(seconds=nudged)).isoformat())


@pytest.mark.parametrize(
    ("seconds", "nudged", "nudges"),
    [
        (2, None, False),
        (4, None, True),
        (10, 2, False),
        (10, 4, True),
        (100, 20, False),
        (100, 41, True),
        (9000, 61, True),
    ],
)
def test_the_controller_of_missing_pods_is_nudged_less_and_less_often(
    seconds: float, nudged: float | None, nudges: bool
) -> None:
    made = planned(missing_for(seconds, nudged=nudged))
    assert (made.rule == "nudge_the_controller_of_missing_pods") is nudges
    assert annotated_by(made) == (["a"] if nudges else [])
    assert made.waiting == "Waiting for a-1: its pod is missing"


def test_nobody_is_nudged_about_pods_that_are_there() -> None:
    seen = with_answer(missing_for(100), "a-1", silent())
    seen = with_object(seen, "pods", observation().objects.pods["a-1"])
    assert planned(seen).steps == ()


# --- authorities that were made anew ----------------------------------------------------------------------------------


def refusing(*members: str) -> Observation:
    """These trust a client authority that is gone, and refuse whoever has a certificate of the new one."""
    seen = observation()
    for member in members:
        seen = with_answer(annotated(seen, "pods", member, client_authority="another"), member, silent("tls"))
    return seen


def test_members_that_all_refuse_the_operator_are_restarted_at_once() -> None:
    assert deleted(planned(refusing("a-0", "a-1", "a-2"))) == ["Pod a-0", "Pod a-1", "Pod a-2"]


def test_where_only_some_refuse_the_operator_they_are_restarted_one_by_one() -> None:
    assert deleted(planned(refusing("a-1", "a-2"))) == ["Pod a-1"]


@pytest.mark.parametrize("other", ["a-0", "a-2"])
def test_none_of_them_is_restarted_while_another_member_is_not_ready(other: str) -> None:
    assert deleted(planned(with_pod(refusing("a-1", "a-2"), other, ready=False))) == []
    assert deleted(planned(with_pod(refusing("a-1", "a-2"), other, deletionTimestamp=RECORDED))) == []


def test_a_member_that_trusts_the_authority_of_now_is_not_restarted_for_refusing() -> None:
    """The certificate that it shows may lag behind; a restart would not make it come sooner."""
    assert deleted(planned(with_answer(observation(), "a-1", silent("tls")))) == []
