"""Rebuilding an etcd from one member: only when asked for, only for the loss that was named, only when it is safe."""

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import yaml

from etcd_operator.api import EtcdClusterStatus, RecoverySpec
from etcd_operator.cluster.conditions import Outcome
from etcd_operator.cluster.observation import Observation
from etcd_operator.cluster.plan import plan
from etcd_operator.cluster.recovery import objection
from etcd_operator.cluster.recovery_rules import refusal
from etcd_operator.cluster.status import status
from etcd_operator.cluster.steps import Annotate, Apply, Delete
from etcd_operator.resources import names as n
from etcd_operator.resources.blueprint import Recovery
from etcd_operator.resources.compare import sealed
from etcd_operator.resources.config_map import RECOVERY_FILE, config_map
from etcd_operator.resources.names import Manifest
from etcd_operator.resources.recovery_pod import recovery_pod
from etcd_operator.resources.stateful_set import stateful_set
from support.builders import (
    NAMES,
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
    pod,
    silent,
    terminated,
    with_answer,
    with_authorities,
    with_object,
    with_pod,
    with_spec,
    without,
)
from support.plans import planned

SINCE = "2026-11-21T11:00:00Z"
FUSE = '{"level":"fatal","msg":"discovery failed","error":"cannot fetch cluster info from peer urls: no answer"}'


def lost(*gone: str, named: bool = True, ignored: str | None = None, **recovery: Any) -> Observation:
    """Three members, of which these lost pod and volume; the status names the loss, and the spec asks for this."""
    seen = without(down(observation(), *gone), "claims", *(f"data-{name}" for name in gone))
    seen = with_status(seen, quorum_lost={"since": SINCE, "ignoredForceFrom": ignored} if named else None)
    return with_spec(seen, recovery=recovery)


def with_status(seen: Observation, **changes: Any) -> Observation:
    before = seen.cluster.status.model_dump(by_alias=True, exclude_none=True, mode="json")
    camel = {key.replace("quorum_lost", "quorumLost"): value for key, value in changes.items()}
    told = EtcdClusterStatus.model_validate({**before, **camel})
    return replace(seen, cluster=seen.cluster.model_copy(update={"status": told}))


def asking(seen: Observation, **recovery: Any) -> Observation:
    spec = seen.cluster.spec.model_copy(update={"recovery": RecoverySpec.model_validate(recovery)})
    return replace(seen, cluster=seen.cluster.model_copy(update={"spec": spec}))


def the_step(seen: Observation) -> Any:
    made = planned(seen)
    assert made.rule == "recover", made
    (step,) = made.steps
    return step


def record_of(manifest: Manifest) -> Mapping[str, Any]:
    found: Mapping[str, Any] = json.loads(manifest["metadata"]["annotations"][n.RECOVERY])
    return found


def told(seen: Observation) -> EtcdClusterStatus:
    looked = judged(seen)
    return status(looked, Outcome(plan=plan(looked)))


def condition(seen: Observation, type_: str) -> tuple[str, str]:
    found = next(each for each in told(seen).conditions if each.type == type_)
    return found.reason, found.message


# --- naming -----------------------------------------------------------------------------------------------------------


def test_a_lost_quorum_is_named_with_who_is_down_and_the_way_out() -> None:
    seen = lost("a-0", "a-1", named=False)
    reason, message = condition(seen, "Available")
    assert reason == "QuorumLost"
    assert "a-0: its pod is missing" in message
    assert "only if they are lost for good: spec.recovery.forceFrom: a-2" in message
    assert "acknowledged after revision 50 is lost" in message
    found = told(seen).quorum_lost
    assert found is not None
    assert (found.since, found.members, found.ignored_force_from) == (NOW, ("a-0", "a-1"), None)


def test_where_nobody_has_data_no_rebuild_is_offered_but_a_new_beginning() -> None:
    seen = without(lost("a-0", "a-1", "a-2"), "claims")
    assert "no member has any data left: put a volume that has it back" in condition(seen, "Available")[1]


def test_a_named_loss_keeps_its_name_until_a_quorum_answers() -> None:
    seen = lost("a-0", "a-1")
    assert (found := told(seen).quorum_lost) is not None
    assert f"{found.since:%H:%M}" == "11:00"
    assert told(with_status(observation(), quorum_lost={"since": SINCE})).quorum_lost is None


def test_a_wish_that_does_nothing_is_told_while_there_is_a_quorum() -> None:
    reason, message = condition(observation(recovery={"forceFrom": "a-2"}), "Progressing")
    assert reason == "AsSpecified"
    assert "spec.recovery.forceFrom: a-2 does nothing while there is a quorum" in message
    lost_again = with_status(
        observation(recovery={"forceFrom": "a-2"}), quorum_lost={"since": SINCE, "ignoredForceFrom": "a-2"}
    )
    assert condition(lost_again, "Progressing")[0] == "AsSpecified"


def test_nothing_is_done_about_a_lost_quorum_that_nobody_asks_for() -> None:
    made = planned(lost("a-0", "a-1"))
    assert made.rule != "recover"
    assert not [step for step in made.steps if isinstance(step, Delete)]


def test_without_any_answer_no_way_out_is_told() -> None:
    assert "forceFrom" not in condition(lost("a-0", "a-1", "a-2"), "Available")[1]


# --- asking -----------------------------------------------------------------------------------------------------------


def test_the_request_is_written_down_before_anything_is_stopped() -> None:
    step = the_step(lost("a-0", "a-1", forceFrom="a-2"))
    assert isinstance(step, Apply)
    assert step.manifest["kind"] == "ConfigMap"
    told = {"loss": SINCE, "member": "a-2", "state": "Stopping", "revision": 50, "alone": False}
    assert record_of(step.manifest) == told
    assert set(step.manifest["data"]) == {"a-0.yaml", "a-1.yaml", "a-2.yaml"}
    assert "what was acknowledged after revision 50 is lost" in step.reason


def test_what_stands_in_the_spec_when_the_loss_is_named_does_not_count() -> None:
    seen = lost("a-0", "a-1", named=False, forceFrom="a-2")
    assert planned(seen).rule != "recover"
    assert (found := told(seen).quorum_lost) is not None
    assert found.ignored_force_from == "a-2"
    seen = lost("a-0", "a-1", ignored="a-2", forceFrom="a-2")
    assert planned(seen).rule != "recover"
    assert condition(seen, "Progressing")[0] == "RecoveryRefused"
    assert "take it out and set it again" in condition(seen, "Progressing")[1]


def test_taking_it_out_and_setting_it_again_counts() -> None:
    taken_out = lost("a-0", "a-1", ignored="a-2")
    assert (found := told(taken_out).quorum_lost) is not None
    assert found.ignored_force_from is None
    assert planned(lost("a-0", "a-1", forceFrom="a-2")).rule == "recover"


def test_a_quorum_that_answers_or_may_answer_is_never_rebuilt() -> None:
    named = {"quorum_lost": {"since": SINCE}}
    healthy = asking(with_status(observation(), **named), forceFrom="a-2")
    assert planned(healthy).rule != "recover"
    assert not refusal(judged(healthy))
    unknown = asking(with_status(observation(), **named), forceFrom="a-2", acceptDataLoss=True)
    for member in ("a-0", "a-1"):
        unknown = with_answer(unknown, member, silent())
    unknown = with_answer(unknown, "a-2", leaderless(answer(blueprint(), "a-2")))
    assert planned(unknown).rule != "recover"
    assert "not known whether the quorum is lost" in refusal(judged(unknown))


@pytest.mark.parametrize(
    ("asked", "why"),
    [("a-5", "is no member; the members are a-0, a-1, a-2"), ("a-1", "a-1 has no data to rebuild from: its volume is")],
)
def test_a_member_that_cannot_serve_is_refused_whatever_is_accepted(asked: str, why: str) -> None:
    seen = lost("a-0", "a-1", forceFrom=asked, acceptDataLoss=True)
    assert planned(seen).rule != "recover"
    assert why in condition(seen, "Progressing")[1]


def test_a_member_whose_directory_is_empty_is_refused() -> None:
    seen = down(observation(), "a-0")
    seen = with_pod(seen, "a-1", state=terminated(FUSE), ready=False)
    seen = with_answer(with_answer(seen, "a-1", None), "a-2", leaderless(answer(blueprint(), "a-2")))
    assert "a-1 has no data to rebuild from: the data directory is empty" in objection(judged(seen), "a-1")


def test_members_that_cannot_be_asked_may_have_more() -> None:
    seen = with_object(lost("a-0", "a-1", forceFrom="a-2"), "claims", observation().objects.claims["data-a-1"])
    assert planned(seen).rule != "recover"
    why = refusal(judged(seen))
    assert "a-1 may have newer data and cannot be asked (its pod is missing)" in why
    assert "PersistentVolumeClaim data-a-1" in why
    assert "then what was acknowledged after revision 50 is lost" in why
    assert planned(asking(seen, forceFrom="a-2", acceptDataLoss=True)).rule == "recover"


def test_the_most_advanced_member_is_the_one_to_take() -> None:
    behind = leaderless(answer(blueprint(members=5), "a-2", raft_index=90, revision=40))
    ahead = leaderless(answer(blueprint(members=5), "a-1", raft_index=95, revision=45))
    seen = replace(without(observation(members=5), "claims", *(f"data-a-{i}" for i in (0, 3, 4))), answers={})
    seen = with_answer(with_answer(down(seen, "a-0", "a-3", "a-4"), "a-2", behind), "a-1", ahead)
    seen = with_status(seen, quorum_lost={"since": SINCE})
    assert "a-1 has newer data, revisions 41 to 45; set spec.recovery.forceFrom to a-1" in objection(
        judged(seen), "a-2"
    )
    assert not objection(judged(seen), "a-1")
    accepted = asking(seen, forceFrom="a-2", acceptDataLoss=True)
    assert "what was acknowledged after revision 40 is lost" in the_step(accepted).reason


# --- a rebuild that is under way --------------------------------------------------------------------------------------


def recovery(state: Any, member: str = "a-2") -> Recovery:
    return Recovery(loss=SINCE, member=member, state=state, revision=50)


def under_way(state: Any, *, pods: tuple[str, ...] = (), claims: tuple[str, ...] = ("a-2",)) -> Observation:
    """A rebuild from a-2 whose record, and whose objects, are in this state."""
    made = replace(with_authorities(blueprint()), recovery=recovery(state))
    if state != "Stopping":
        made = replace(made, members=("a-2",), seats={"a-2": made.seats["a-2"]})
    seen = lost("a-0", "a-1", forceFrom="a-2")
    kept = [name for name in ("a-0", "a-1", "a-2") if name not in pods]
    seen = without(replace(seen, answers={}), "pods", *kept)
    for claim in claims:
        seen = with_object(seen, "claims", observation().objects.claims[f"data-{claim}"])
    seen = with_object(seen, "config_maps", live(sealed(config_map(made))))
    return with_object(seen, "stateful_sets", live(sealed(stateful_set(made))))


def one_off(*, ready: bool = False, **metadata: Any) -> Manifest:
    made = replace(blueprint(), recovery=recovery("Forcing"))
    manifest = recovery_pod(made, recovery("Forcing"))
    found = live(manifest, **metadata)
    running = pod("a-2", ready=ready)
    return {**found, "status": running["status"]}


def marked(seen: Observation) -> Observation:
    return annotated(seen, "claims", "data-a-2", members="a-2")


def test_first_all_members_are_stopped() -> None:
    seen = under_way("Stopping", pods=("a-1", "a-2"), claims=("a-1", "a-2"))
    seen = with_object(seen, "stateful_sets", observation().objects.stateful_sets["a"])
    step = the_step(seen)
    assert (step.manifest["kind"], step.manifest["spec"]["replicas"]) == ("StatefulSet", 0)


@pytest.mark.parametrize("kind", ["pods", "other_pods"])
def test_nothing_is_changed_while_a_pod_may_still_run_an_old_member(kind: str) -> None:
    old = pod("a-1", deletionTimestamp="2026-11-21T11:59:00Z", node="n7")
    seen = with_object(under_way("Stopping"), kind, old)
    made = planned(seen)
    assert (made.rule, made.steps) == ("recover", ())
    assert "a-1 is not proved gone yet on node n7; if that is off for good, delete the Node" in made.waiting
    assert condition(seen, "Progressing") == ("Recovering", made.waiting)
    assert told(seen).summary == "Rebuilding from a-2"


def test_a_stranger_that_mounts_a_members_volume_counts_as_an_old_member() -> None:
    stranger = pod("debug")
    stranger["spec"]["volumes"] = [{"name": "x", "persistentVolumeClaim": {"claimName": "data-a-1"}}]
    assert planned(with_object(under_way("Stopping"), "other_pods", stranger)).waiting


def test_it_can_be_taken_back_while_the_members_stop() -> None:
    step = the_step(asking(under_way("Stopping")))
    assert n.RECOVERY not in step.manifest["metadata"]["annotations"]
    assert "was taken out" in step.reason


def test_it_is_called_off_when_a_quorum_answers_again() -> None:
    seen = replace(under_way("Stopping", pods=("a-0", "a-1", "a-2")), answers=observation().answers)
    assert "a quorum answers again" in the_step(seen).reason


def test_when_every_old_pod_is_gone_the_member_becomes_the_only_one_in_the_roster() -> None:
    step = the_step(under_way("Stopping", claims=("a-1", "a-2")))
    manifest = step.manifest
    assert record_of(manifest)["state"] == "Forcing"
    assert set(json.loads(manifest["metadata"]["annotations"][n.ROSTER])) == {"a-2"}
    assert set(manifest["data"]) == {"a-2.yaml", RECOVERY_FILE}
    file = yaml.safe_load(manifest["data"][RECOVERY_FILE])
    assert file["force-new-cluster"] is True
    assert all("127.0.0.1" in file[key] for key in ("listen-peer-urls", "listen-client-urls"))
    assert "force-new-cluster" not in manifest["data"]["a-2.yaml"]


def test_the_other_volumes_are_marked_before_the_member_is_alone() -> None:
    made = planned(under_way("Forcing", claims=("a-1", "a-2")))
    found = {step.name: dict(step.annotations) for step in made.steps if isinstance(step, Annotate)}
    assert found == {
        "data-a-1": {n.MEMBER_STATE: "removed", n.OLD_DATA: "first=2026-11-21T12:00:00Z"},
        "data-a-2": {n.MEMBER_STATE: "member", n.MEMBERS: "a-2"},
    }
    assert len(made.steps) == 2


def test_then_a_pod_of_its_own_makes_it_the_only_member() -> None:
    step = the_step(marked(under_way("Forcing")))
    manifest = step.manifest
    assert (manifest["kind"], manifest["metadata"]["name"], step.absent) == ("Pod", "a-2-recovery", True)
    (etcd,) = manifest["spec"]["containers"]
    assert etcd["command"][-1] == f"--config-file=/etc/etcd/{RECOVERY_FILE}"
    assert {"name": "data", "persistentVolumeClaim": {"claimName": "data-a-2"}} in manifest["spec"]["volumes"]
    assert not n.selector_labels("a").items() <= manifest["metadata"]["labels"].items()


def test_it_waits_until_that_pod_answers_alone() -> None:
    made = planned(with_object(marked(under_way("Forcing")), "other_pods", one_off()))
    assert not made.steps
    assert made.waiting == "Rebuilding from a-2: making it the only member: a-2-recovery starts"


def test_what_keeps_that_pod_from_starting_is_told() -> None:
    failing = one_off()
    failing["status"] = pod("a-2", state=terminated('{"level":"fatal","msg":"crc mismatch","error":"x"}'))["status"]
    failing["status"]["conditions"] = []
    waiting = planned(with_object(marked(under_way("Forcing")), "other_pods", failing)).waiting
    assert "a-2-recovery: its log is corrupt" in waiting
    assert "another member can be named" in waiting


def test_when_it_answers_that_is_written_down_and_the_file_goes() -> None:
    step = the_step(with_object(marked(under_way("Forcing")), "other_pods", one_off(ready=True)))
    assert record_of(step.manifest)["state"] == "Rebuilt"
    assert set(step.manifest["data"]) == {"a-2.yaml"}


def test_the_statefulset_runs_nobody_until_that_pod_is_gone() -> None:
    seen = with_object(under_way("Rebuilt"), "other_pods", one_off(ready=True))
    step = the_step(seen)
    assert (step.kind, step.name, step.uid) == ("Pod", "a-2-recovery", "uid-Pod-a-2-recovery")
    going = one_off(ready=True, deletionTimestamp="2026-11-21T11:59:00Z")
    made = planned(with_object(seen, "other_pods", going))
    assert (made.rule, made.steps) == ("recover", ())
    assert told(seen).summary == "Rebuilding from a-2"


def test_then_the_statefulset_runs_again() -> None:
    stopped = under_way("Forcing").objects.stateful_sets["a"]
    made = planned(with_object(under_way("Rebuilt"), "stateful_sets", stopped))
    (step,) = made.steps
    assert isinstance(step, Apply)
    assert (step.manifest["kind"], step.manifest["spec"]["replicas"]) == ("StatefulSet", 3)


def test_it_is_used_up_for_that_loss() -> None:
    seen = under_way("Rebuilt", pods=("a-2",))
    assert planned(seen).rule != "recover"
    assert not refusal(judged(seen))
    found = told(seen).recovery
    assert found is not None
    assert (found.force_from, found.state, found.revision) == ("a-2", "Rebuilt", 50)


def test_a_member_that_does_not_come_up_after_a_rebuild_is_another_loss() -> None:
    seen = under_way("Rebuilt")
    late = with_object(
        seen, "pods", pod("a-2", created=f"{NOW - timedelta(minutes=2):%Y-%m-%dT%H:%M:%SZ}", ready=False)
    )
    assert (found := told(late).quorum_lost) is not None
    assert (found.since, found.ignored_force_from) == (NOW, "a-2")
    assert planned(late).rule != "recover"


def test_another_member_can_be_named_when_its_loss_is_accepted() -> None:
    seen = asking(marked(under_way("Forcing", claims=("a-1", "a-2"))), forceFrom="a-1")
    assert "cannot be asked any more" in refusal(judged(seen))
    accepted = asking(seen, forceFrom="a-1", acceptDataLoss=True)
    step = the_step(accepted)
    told = {"loss": SINCE, "member": "a-1", "state": "Stopping", "revision": 0, "alone": True}
    assert record_of(step.manifest) == told


def test_the_pod_of_another_members_rebuild_is_taken_away_first() -> None:
    foreign = one_off(name="a-1-recovery")
    seen = with_object(marked(under_way("Forcing")), "other_pods", foreign)
    step = the_step(seen)
    assert (step.kind, step.name) == ("Pod", "a-1-recovery")


def test_the_statefulsets_record_counts_when_the_config_map_is_gone() -> None:
    seen = without(marked(under_way("Forcing")), "config_maps")
    made = planned(seen)
    assert made.rule == "recover"
    assert all(isinstance(step, Apply) and step.manifest["kind"] == "ConfigMap" for step in made.steps)


def test_nothing_is_done_while_paused() -> None:
    seen = with_spec(lost("a-0", "a-1"), paused=True, recovery={"forceFrom": "a-2"})
    assert planned(seen).rule == "wait_when_paused"


def test_a_members_name_is_told_from_the_rebuilds_pod() -> None:
    assert NAMES.ordinal(NAMES.recovery_pod("a-2")) is None


def test_a_stray_edit_of_the_stopped_statefulset_is_put_back() -> None:
    def scale(manifest: Manifest) -> None:
        manifest["spec"]["replicas"] = 3

    step = the_step(edited(marked(under_way("Forcing")), "stateful_sets", "a", scale))
    assert (step.manifest["kind"], step.manifest["spec"]["replicas"]) == ("StatefulSet", 0)
