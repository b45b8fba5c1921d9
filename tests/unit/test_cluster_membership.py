"""Who is added, promoted and removed, in which order, and when nobody is."""

from dataclasses import replace
from typing import Any

import pytest

from etcd_operator.cluster.membership_rules import change_of_membership
from etcd_operator.cluster.observation import Observation
from etcd_operator.cluster.steps import (
    AddMember,
    Annotate,
    Apply,
    Delete,
    MoveLeader,
    PromoteMember,
    RemoveMember,
)
from etcd_operator.etcd.model import Answer, hex_id
from etcd_operator.resources import names as n
from etcd_operator.resources.names import Manifest
from support.builders import (
    EARLIER,
    NAMES,
    NOW,
    annotated,
    answer,
    blueprint,
    claim,
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
    with_object,
    with_pod,
    with_spec,
    without,
)
from support.lists import ADDED, added, removed, the_list
from support.plans import carried_out, planned, the_step

FUSE = '{"level":"fatal","msg":"discovery failed","error":"cannot fetch cluster info from peer urls: no answer"}'
LOST = '{"level":"panic","msg":"tocommit(9) is out of range [lastIndex(3)]. Was the raft log corrupted?"}'


def learner(name: str, *, applied: int = 100) -> Answer:
    made = answer(
        blueprint(),
        "a-0",
        member_id=ADDED + NAMES.members(7).index(name),
        is_learner=True,
        raft_applied_index=applied,
    )
    return replace(made, members=None, linearizable=False)


# --- growing ----------------------------------------------------------------------------------------------------------


def test_the_next_learner_is_added_when_the_one_before_has_started() -> None:
    seen = with_spec(observation(), members=5)
    first = the_step(seen)
    assert isinstance(first, AddMember)
    assert (first.member, first.through) == ("a-3", "a-0"), "through the leader"
    assert first.peer_url == blueprint().peer_url("a-3")
    made = planned(added(seen, "a-3"))
    assert [step.manifest["kind"] for step in made.steps if isinstance(step, Apply)] == ["ConfigMap"]
    second = the_step(with_answer(added(seen, "a-3", started=True), "a-3", learner("a-3")))
    assert isinstance(second, AddMember)
    assert second.member == "a-4"


def test_a_joiner_has_the_whole_list_and_a_directory_of_its_own() -> None:
    step = the_step(added(with_spec(observation(), members=5), "a-3", "a-4"))
    files = step.manifest["data"]
    for name in ("a-3", "a-4"):
        own = hex_id(ADDED + NAMES.members(7).index(name))
        assert '"existing"' in files[f"{name}.yaml"]
        assert f'"/var/lib/etcd/{own}"' in files[f"{name}.yaml"]
        for member in NAMES.members(5):
            assert f"{member}={blueprint().peer_url(member)}" in files[f"{name}.yaml"]
    assert f'initial-cluster: "a-0={blueprint().peer_url("a-0")}"' in files["a-0.yaml"], "the others keep their fuse"


def test_the_pods_come_after_their_files() -> None:
    seen = added(with_spec(observation(), members=5), "a-3", "a-4")
    seen = with_object(seen, "config_maps", live(the_step(seen).manifest))
    step = the_step(seen)
    assert step.manifest["kind"] == "StatefulSet"
    assert step.manifest["spec"]["replicas"] == 5


def test_nobody_is_added_while_a_joiner_starts_on_an_older_list() -> None:
    seen = carried_out(added(with_spec(observation(), members=5), "a-3", "a-4"))
    made = planned(with_spec(seen, members=7))
    assert made.rule == "wait_for_membership"
    assert "a-5 is to be added" in made.waiting


def test_etcd_3_5_takes_one_learner_at_a_time() -> None:
    seen = added(with_spec(observation(version="3.5.35"), members=5), "a-3")
    step = the_step(with_version(seen, "3.5.35"))
    assert isinstance(step, Apply | Annotate) or step.__class__.__name__ == "IssueLeaf"


def with_version(seen: Observation, version: str) -> Observation:
    return with_spec(seen, version=version)


def test_nobody_is_added_while_a_voter_is_ill() -> None:
    made = planned(down(with_spec(observation(), members=5), "a-1"))
    assert made.steps == ()
    assert "waiting until more voters are well" in made.waiting


def adds(seen: Observation) -> list[str]:
    return [step.member for step in planned(seen).steps if isinstance(step, AddMember)]


def test_nobody_is_added_while_a_member_may_tell_the_joiner_who_was_removed() -> None:
    whole = observation(members=5)
    seen = removed(whole, "a-2")
    assert adds(seen) == ["a-2"]
    assert adds(with_answer(seen, "a-4", replace(seen.answers["a-4"], linearizable=False))) == ["a-2"]
    for behind in (silent(), replace(seen.answers["a-4"], members=the_list(whole), linearizable=False)):
        waiting = with_answer(seen, "a-4", behind)
        assert not adds(waiting)
        told = change_of_membership(judged(waiting))
        assert told.endswith("a-2 is to be added; waiting for a-4, which may not know who is a member now")


def test_nobody_is_added_while_a_learner_may_tell_the_joiner_who_was_removed() -> None:
    seen = added(with_spec(observation(), members=5), "a-3", started=True)
    assert adds(with_answer(seen, "a-3", learner("a-3"))) == ["a-4"]
    assert not adds(with_answer(seen, "a-3", learner("a-3", applied=-2000)))
    assert not adds(with_answer(seen, "a-3", silent()))


def test_etcds_refusal_leaves_all_else_going() -> None:
    seen = replace(with_spec(observation(), members=5), refusal="etcd asks to wait")
    made = planned(without(seen, "disruption_budgets"))
    assert made.rule == "keep_objects_right"
    assert planned(seen).waiting.endswith("etcd asks to wait")


# --- promotion --------------------------------------------------------------------------------------------------------


def joined(*, applied: int = 100, refreshed: bool = True) -> Observation:
    """a-3 and a-4 run as learners, and their files are their fuses."""
    seen = added(with_spec(observation(), members=5), "a-3", "a-4", started=True)
    for name in ("a-3", "a-4"):
        seen = with_answer(seen, name, learner(name, applied=applied))
        made = {**seen.objects.pods["a-0"]["metadata"]["annotations"], n.FILES_REFRESHED: ""}
        seen = with_object(seen, "pods", pod(name, annotations=made))
        seen = with_object(seen, "claims", learner_claim(name))
    seen = carried_out(seen)
    if refreshed:
        for name in ("a-3", "a-4"):
            seen = annotated(seen, "pods", name, files_refreshed=judged(seen).blueprint.refreshed(name))
    for name in NAMES.members(5):
        seen = annotated(seen, "claims", f"data-{name}", members=",".join(NAMES.members(5)))
    return seen


def learner_claim(name: str) -> Manifest:
    own = hex_id(ADDED + NAMES.members(7).index(name))
    marks = {n.MEMBER_ID: own, n.INCARNATION: own}
    made = claim(replace(blueprint(), members=NAMES.members(5)), name)
    return {**made, "metadata": {**made["metadata"], "annotations": {**made["metadata"]["annotations"], **marks}}}


def test_a_learner_that_has_caught_up_becomes_a_voter() -> None:
    step = the_step(joined())
    assert isinstance(step, PromoteMember)
    assert step.member == "a-3"


def test_a_learner_waits_until_its_own_file_is_the_fuse() -> None:
    made = planned(joined(refreshed=False))
    assert made.rule == "refresh_mounted_files"


def test_a_learner_that_lags_is_not_promoted() -> None:
    seen = joined(applied=100)
    for name in NAMES.members(3):
        seen = with_answer(seen, name, replace(seen.answers[name], status=_at(seen.answers[name], 5000)))
    made = planned(seen)
    assert made.steps == ()
    assert "learner a-3 is 0% in sync" in made.waiting


def _at(answered: Answer, index: int) -> Any:
    assert answered.status is not None
    return replace(answered.status, raft_index=index, raft_applied_index=index)


def test_no_learner_is_promoted_where_the_voters_would_lack_a_quorum() -> None:
    """Three voters of which one is healthy cannot be: two make a quorum of four no more than of three plus one."""
    seen = joined()
    for name in ("a-1", "a-2"):
        seen = with_answer(seen, name, leaderless(seen.answers[name]))
    assert not any(isinstance(step, PromoteMember) for step in planned(seen).steps)


# --- shrinking --------------------------------------------------------------------------------------------------------


def test_the_highest_goes_first_and_the_lead_moves_off_it() -> None:
    step = the_step(with_spec(observation(members=5), members=3))
    assert isinstance(step, RemoveMember)
    assert (step.member, step.member_id) == ("a-4", 0x14)
    led_by_last = observation(members=3)
    for name in NAMES.members(3):
        led_by_last = with_answer(led_by_last, name, answer(blueprint(), name, leader_id=0x12))
    step = the_step(removed(with_spec(led_by_last, members=1), "a-1"))
    assert isinstance(step, MoveLeader)
    assert (step.member, step.through) == ("a-0", "a-2")


def test_a_voter_that_is_ill_goes_before_a_healthy_one() -> None:
    step = the_step(down(with_spec(observation(members=5), members=3), "a-3"))
    assert isinstance(step, RemoveMember)
    assert step.member == "a-3"


def test_no_voter_is_removed_where_the_rest_would_lack_a_quorum() -> None:
    seen = down(with_spec(observation(), members=1), "a-0")
    made = planned(seen)
    assert not any(isinstance(step, RemoveMember) for step in made.steps), "a-0 would be left alone, and it is down"


def test_unconfirmed_lists_change_nothing() -> None:
    seen = with_spec(observation(), members=5)
    for name in NAMES.members(3):
        seen = with_answer(seen, name, replace(seen.answers[name], linearizable=False))
    assert planned(seen).steps == ()


@pytest.mark.parametrize("policy", ["Retain", "Delete"])
def test_the_volume_of_a_removed_member_follows_the_policy(policy: str) -> None:
    seen = removed(with_spec(observation(storage={"deletionPolicy": policy}), members=1), "a-2")
    seen = removed(seen, "a-1")
    seen = replace(seen, answers={"a-0": seen.answers["a-0"]})
    if policy == "Delete":
        for name in NAMES.members(3):
            seen = edited(seen, "claims", f"data-{name}", _owned)
    seen = without(carried_out(seen), "pods", "a-1", "a-2")
    seen = annotated(seen, "claims", "data-a-0", members="a-0")
    made = planned(seen)
    assert made.rule == "retire_volumes_of_removed_members"
    assert {step.name for step in made.steps if isinstance(step, Annotate | Delete)} == {"data-a-1", "data-a-2"}
    assert all(isinstance(step, Delete if policy == "Delete" else Annotate) for step in made.steps)


def _owned(manifest: Manifest) -> None:
    manifest["metadata"]["ownerReferences"] = [
        {"kind": "EtcdCluster", "uid": "uid-a", "name": "a", "controller": False}
    ]


# --- replacing --------------------------------------------------------------------------------------------------------


def without_data(said: str = FUSE) -> Observation:
    """The fuse of a-1 has tripped, or its data is of no use."""
    seen = with_pod(observation(), "a-1", state=terminated(said), ready=False)
    return with_answer(seen, "a-1", None)


@pytest.mark.parametrize("said", [FUSE, LOST])
def test_a_member_without_data_is_removed_and_added_anew(said: str) -> None:
    seen = without_data(said)
    step = the_step(seen)
    assert isinstance(step, RemoveMember)
    assert (step.member, step.member_id) == ("a-1", 0x11)
    step = the_step(removed(seen, "a-1"))
    assert isinstance(step, AddMember)
    assert step.peer_url == blueprint().peer_url("a-1")
    seen = carried_out(added(removed(seen, "a-1"), "a-1"))
    files = seen.objects.config_maps["a-config"]["data"]
    assert f'"/var/lib/etcd/{hex_id(ADDED + 1)}"' in files["a-1.yaml"]
    step = the_step(seen)
    assert isinstance(step, Delete)
    assert (step.kind, step.name) == ("Pod", "a-1"), "its pod belongs to the member that was removed"


def test_the_words_of_the_fuse_prove_nothing_before_the_file_was_one() -> None:
    seen = annotated(without_data(), "pods", "a-1", files_refreshed=None)
    assert not any(isinstance(step, RemoveMember) for step in planned(seen).steps)


def trying_once_more(seen: Observation, member: str) -> Observation:
    """Its process has ended, as the pod tells, and runs again; it has not come up yet."""

    def again(manifest: Manifest) -> None:
        (container,) = manifest["status"]["containerStatuses"]
        container |= {"lastState": container["state"], "state": {"running": {"startedAt": EARLIER}}, "started": False}

    return edited(seen, "pods", member, again)


def test_the_words_of_the_fuse_prove_nothing_while_etcd_tries_once_more() -> None:
    seen = trying_once_more(without_data(), "a-1")
    assert judged(seen).membership.members[1].trouble, "it is told all the same"
    assert not any(isinstance(step, RemoveMember) for step in planned(seen).steps)


def test_a_joiner_that_tries_once_more_is_waited_for() -> None:
    joiner = pod("a-3", state=terminated(FUSE), ready=False)
    seen = with_object(added(with_spec(observation(), members=5), "a-3"), "pods", joiner)
    assert adds(seen) == ["a-4"], "one that cannot start holds nobody up"
    trying = trying_once_more(seen, "a-3")
    assert not adds(trying)
    assert not any(isinstance(step, Delete) for step in planned(trying).steps)


def test_a_member_without_data_stays_where_the_rest_is_no_quorum() -> None:
    seen = down(without_data(), "a-2")
    assert not any(isinstance(step, RemoveMember) for step in planned(seen).steps)


def test_a_member_that_is_merely_gone_or_silent_stays() -> None:
    for seen in (down(observation(), "a-1"), with_answer(observation(), "a-1", None)):
        assert not any(isinstance(step, RemoveMember) for step in planned(seen).steps)


def test_a_volume_that_is_being_deleted_has_its_member_replaced_before_it_goes() -> None:
    seen = edited(observation(), "claims", "data-a-0", _going)
    step = the_step(seen)
    assert isinstance(step, MoveLeader), "it leads"
    assert step.member in ("a-1", "a-2")
    seen = edited(observation(), "claims", "data-a-2", _going)
    assert isinstance(the_step(seen), RemoveMember)


def _going(manifest: Manifest) -> None:
    manifest["metadata"]["deletionTimestamp"] = EARLIER


def test_a_joiner_that_keeps_failing_gets_another_pod_after_a_while() -> None:
    seen = carried_out(added(with_spec(observation(), members=5), "a-3", "a-4"))
    young = NOW.strftime("%Y-%m-%dT%H:%M:%SZ")
    for created, gone in ((young, False), (EARLIER, True)):
        made = {n.REVISION: blueprint().revision}
        failing = pod("a-3", state=terminated(FUSE), ready=False, created=created, annotations=made)
        step = next(iter(planned(with_object(seen, "pods", failing)).steps), None)
        assert isinstance(step, Delete) == gone
