"""Members whose data is in memory: it goes with their pods, so that another pod is another member."""

from dataclasses import replace
from typing import Any

import pytest

from etcd_operator.cluster.conditions import Outcome, Told, available, degraded, progressing, summary
from etcd_operator.cluster.observation import Observation
from etcd_operator.cluster.plan import plan
from etcd_operator.cluster.roster import seats_on
from etcd_operator.cluster.steps import AddMember, Annotate, Apply, Delete, MoveLeader, Plan, RemoveMember
from etcd_operator.etcd.model import Member, MemberList
from etcd_operator.resources import names as n
from etcd_operator.resources.compare import sealed
from etcd_operator.resources.config_map import config_map
from etcd_operator.resources.names import Manifest
from etcd_operator.resources.stateful_set import stateful_set
from support.builders import (
    EARLIER,
    NAMES,
    blueprint,
    claim,
    down,
    edited,
    judged,
    live,
    observation,
    silent,
    terminated,
    unfounded,
    with_answer,
    with_object,
    with_pod,
    with_spec,
    without,
)
from support.plans import planned, the_step

MEMORY = {"medium": "Memory", "size": "512Mi"}
EMPTY = '{"level":"fatal","msg":"discovery failed","error":"cannot fetch cluster info from peer urls: no answer"}'
NEW_ID = 0xABC


def in_memory(**spec: Any) -> Observation:
    """A cluster at rest whose pods are on record as those that have the data."""
    seen = without(observation(storage=MEMORY, **spec), "claims")
    for step in planned(seen).steps:
        assert isinstance(step, Apply)
        seen = with_object(seen, "config_maps", live(step.manifest))
    for step in planned(seen).steps:
        assert isinstance(step, Apply)
        seen = with_object(seen, "stateful_sets", live(step.manifest))
    assert planned(seen).rule == "at_rest"
    return seen


def killed(seen: Observation, *members: str) -> Observation:
    """Other pods stand in for those of these members, and have just begun."""
    for member in members:
        seen = with_pod(seen, member, uid=f"uid-new-{member}", ready=False, state={"waiting": {}}, annotations={})
        seen = with_answer(seen, member, None)
    return seen


def listed(seen: Observation, members: tuple[Member, ...]) -> Observation:
    answers = {
        name: replace(each, members=MemberList(cluster_id=each.members.cluster_id, members=members))
        if each.members
        else each
        for name, each in seen.answers.items()
    }
    return replace(seen, answers=answers)


def removed(seen: Observation, name: str) -> Observation:
    return listed(seen, tuple(member for member in the_list(seen) if member.name != name))


def the_list(seen: Observation) -> tuple[Member, ...]:
    return next(each.members.members for each in seen.answers.values() if each.members)


def added(seen: Observation, name: str) -> Observation:
    """etcd's list with a learner in place of that member."""
    new = Member(id=NEW_ID, name="", peer_urls=(blueprint().peer_url(name),), client_urls=(), is_learner=True)
    return listed(removed(seen, name), (*the_list(removed(seen, name)), new))


def told(seen: Observation) -> Told:
    found = judged(seen)
    return progressing(found, Outcome(plan=plan(found)))


def test_the_data_is_in_a_tmpfs_of_that_size_and_there_are_no_volumes() -> None:
    made = stateful_set(blueprint(storage=MEMORY))
    assert "volumeClaimTemplates" not in made["spec"]
    volumes = {volume["name"]: volume for volume in made["spec"]["template"]["spec"]["volumes"]}
    assert volumes["data"]["emptyDir"] == {"medium": "Memory", "sizeLimit": "512Mi"}


def test_clients_get_in_without_a_volume_that_tells_of_the_bootstrap() -> None:
    seen = without(in_memory(), "services", "a")
    assert the_step(seen).manifest["kind"] == "Service"


def test_the_pods_that_have_the_data_are_on_record() -> None:
    for kind, name in (("config_maps", "a-config"), ("stateful_sets", "a")):
        seats = seats_on(getattr(in_memory().objects, kind)[name])
        assert {member: seat.pod for member, seat in seats.items()} == {m: f"uid-Pod-{m}" for m in NAMES.members(3)}
    assert not any(seat.pod for seat in judged(observation()).blueprint.seats.values()), "volumes outlive their pods"


# --- a pod goes -------------------------------------------------------------------------------------------------------


def going(pod: Manifest) -> None:
    pod["metadata"]["deletionTimestamp"] = EARLIER


def ended(pod: Manifest) -> None:
    pod["status"]["phase"] = "Failed"


@pytest.mark.parametrize(
    "gone",
    [
        lambda seen: killed(seen, "a-1"),
        lambda seen: down(seen, "a-1"),
        lambda seen: edited(seen, "pods", "a-1", going),
        lambda seen: edited(with_answer(seen, "a-1", silent("refused")), "pods", "a-1", ended),
    ],
)
def test_a_member_goes_with_its_pod(gone: Any) -> None:
    step = the_step(gone(in_memory()))
    assert isinstance(step, RemoveMember)
    assert step.member == "a-1"
    assert "its data" in step.reason
    assert "memory" in step.reason


def test_and_joins_anew() -> None:
    seen = killed(in_memory(), "a-1")
    step = the_step(removed(seen, "a-1"))
    assert isinstance(step, AddMember)
    assert step.member == "a-1"


def test_a_container_that_is_started_again_finds_its_data() -> None:
    seen = with_answer(with_pod(in_memory(), "a-1", state=terminated(), ready=False), "a-1", silent("refused"))
    assert not [step for step in planned(seen).steps if isinstance(step, RemoveMember)]


def test_after_a_node_was_started_again_the_fuse_tells() -> None:
    seen = with_pod(in_memory(), "a-1", state=terminated(EMPTY), ready=False)
    step = the_step(with_answer(seen, "a-1", silent("refused")))
    assert isinstance(step, RemoveMember)


def test_a_member_with_a_volume_comes_back_with_another_pod() -> None:
    for seen in (killed(observation(), "a-1"), down(observation(), "a-1")):
        assert not [step for step in planned(seen).steps if isinstance(step, RemoveMember)]


def test_nobody_is_removed_without_a_quorum_of_the_others() -> None:
    assert not [step for step in planned(down(in_memory(), "a-1", "a-2")).steps if isinstance(step, RemoveMember)]


# --- restarts ---------------------------------------------------------------------------------------------------------


def changed() -> Observation:
    return with_spec(in_memory(), options={"snapshotCount": 5000})


def test_a_restart_is_a_replacement() -> None:
    step = the_step(changed())
    assert isinstance(step, RemoveMember)
    assert (step.member, step.reason) == ("a-1", "it restarts: spec.options.snapshotCount changed")


def test_the_member_that_joins_runs_what_is_wanted() -> None:
    seen = added(with_answer(changed(), "a-1", silent()), "a-1")
    step = the_step(seen)
    assert isinstance(step, Apply)
    assert "snapshot-count: 5000" in step.manifest["data"]["a-1.yaml"]
    assert "snapshot-count: 10000" in step.manifest["data"]["a-0.yaml"]
    seen = with_object(seen, "config_maps", live(step.manifest))
    template = the_step(seen).manifest
    assert template["kind"] == "StatefulSet"
    assert template["spec"]["template"]["metadata"]["annotations"][n.REVISION] == judged(seen).blueprint.target_revision
    seen = with_object(seen, "stateful_sets", live(template))
    step = the_step(seen)
    assert isinstance(step, Delete)
    assert (step.kind, step.name) == ("Pod", "a-1")


def test_a_change_that_did_not_prove_to_work_reaches_nobody_else() -> None:
    seen = added(with_answer(changed(), "a-1", silent()), "a-1")
    seen = with_object(seen, "config_maps", live(the_step(seen).manifest))
    plan_ = judged(seen).blueprint
    assert plan_.revision_of("a-1") == plan_.target_revision
    broken = with_answer(with_answer(seen, "a-1", silent("refused")), "a-2", silent())
    again = listed(broken, (*(m for m in the_list(broken) if m.name != "a-2"), replace(the_list(seen)[-1], id=0xDEF)))
    assert judged(again).blueprint.revision_of("a-2") == plan_.revision


def test_the_leader_hands_over_before_it_goes() -> None:
    step = the_step(with_followers_restarted(changed()))
    assert isinstance(step, MoveLeader)
    assert "a-0 is to be removed: it restarts" in step.reason


def with_followers_restarted(seen: Observation) -> Observation:
    """The followers run what is wanted."""
    plan_ = judged(seen).blueprint
    target = plan_.target_revision
    moved = {name: replace(plan_.seat(name), revision=target) for name in ("a-1", "a-2")}
    plan_ = replace(plan_, seats={**plan_.seats, **moved})
    seen = with_object(seen, "config_maps", live(sealed(config_map(plan_))))
    seen = with_object(seen, "stateful_sets", live(sealed(stateful_set(plan_))))
    for name in ("a-1", "a-2"):
        carried = {**seen.objects.pods[name]["metadata"]["annotations"], n.REVISION: target}
        seen = with_pod(seen, name, annotations=carried)
    return seen


def test_a_larger_memory_is_a_restart() -> None:
    assert isinstance(the_step(with_spec(in_memory(), storage={**MEMORY, "size": "1Gi"})), RemoveMember)


def test_a_lost_authority_does_not_cost_the_data() -> None:
    seen = in_memory()
    for member in NAMES.members(3):
        seen = with_answer(with_pod(seen, member, annotations={n.PEER_AUTHORITY: "old"}), member, silent("tls"))
    assert not [step for step in planned(seen).steps if isinstance(step, Delete)]


# --- all of it is lost ------------------------------------------------------------------------------------------------


def test_all_pods_at_once_are_all_data_and_nothing_is_founded_anew() -> None:
    found = judged(killed(in_memory(), "a-0", "a-1", "a-2"))
    files = config_map(found.blueprint)["data"].values()
    assert not any('"new"' in file for file in files)
    assert {step.kind for step in plan(found).steps if isinstance(step, Annotate)} == {"Pod"}
    condition = available(replace(found, published=True))
    assert (condition.status, condition.reason) == ("False", "DataLost")
    assert "delete the EtcdCluster and apply it again" in condition.message
    short = summary(replace(found, published=True), Outcome(plan=plan(found)))
    assert short == "Data lost with the pods of a-0, a-1, a-2"


def test_one_that_still_has_the_data_is_named() -> None:
    found = judged(down(in_memory(), "a-1", "a-2"))
    condition = available(replace(found, published=True))
    assert (condition.status, condition.reason) == ("False", "QuorumLost")
    assert "what is left is in a-0 alone" in condition.message


def test_nothing_is_founded_beside_volumes_that_were_kept() -> None:
    seen = with_object(unfounded(storage=MEMORY), "claims", claim(blueprint(), "a-0"))
    assert planned(seen).rule == "refuse_disputed_records"
    assert "data-a-0 holds etcd cluster" in told(seen).message
    assert told(seen).reason == "RecordsDisagree"


def test_a_limit_that_the_data_alone_can_reach_is_told() -> None:
    seen = in_memory(resources={"limits": {"memory": "256Mi"}})
    condition = degraded(judged(seen), Outcome(plan=Plan()))
    assert (condition.status, condition.reason) == ("False", "MemoryLimit")
    assert (
        degraded(judged(in_memory(resources={"limits": {"memory": "2Gi"}})), Outcome(plan=Plan())).reason
        == "AllHealthy"
    )
