"""What comes between two upgrades: logs that the version after next cannot read."""

from dataclasses import replace

import pytest

from etcd_operator.cluster.conditions import pending_changes
from etcd_operator.cluster.observation import Observation
from etcd_operator.cluster.restart_rules import restart_under_way
from etcd_operator.cluster.steps import AddMember, Annotate, Apply, FillLog, MoveLeader
from etcd_operator.cluster.upgrade import SNAPSHOT_COUNT, with_snapshots
from etcd_operator.etcd.model import Member
from etcd_operator.resources import names as n
from support.builders import (
    blueprint,
    edited,
    judged,
    observation,
    silent,
    with_answer,
    with_object,
    with_pod,
    with_spec,
)
from support.plans import planned, the_step
from unit.test_cluster_restart import applied, restarted, settled

TLS = {"peer": {"mode": "Off"}, "client": {"mode": "Off"}}


def running(seen: Observation, version: str, storage: str, *, leader: str = "a-0") -> Observation:
    """All members run that version, and have taken their storage to that one."""
    leads = seen.answers[leader].status
    assert leads is not None
    for member, each in seen.answers.items():
        assert each.status is not None
        status = replace(each.status, version=version, storage_version=storage, leader_id=leads.member_id)
        seen = with_answer(seen, member, replace(each, status=status))
    return seen


def rolled(seen: Observation, version: str, storage: str) -> Observation:
    """All members restarted in order, a-0 last, and run that version now; what they save snapshots of is saved."""
    seen = running(seen, version, storage)
    for member in ("a-1", "a-2"):
        seen = settled(another(seen, member))
    step = the_step(seen)
    assert isinstance(step, MoveLeader)
    seen = settled(another(running(seen, version, storage, leader=step.member), "a-0"))
    if planned(seen).rule == "fill_log":
        seen = applied_up_to(seen, judged(seen).blueprint.log_index)
    return recorded(seen)


def applied_up_to(seen: Observation, index: int, *members: str) -> Observation:
    """These members, or all, have applied their logs up to that index."""
    for member in members or tuple(seen.answers):
        each = seen.answers[member]
        assert each.status is not None
        status = replace(each.status, raft_index=index, raft_applied_index=index)
        seen = with_answer(seen, member, replace(each, status=status))
    return seen


def another(seen: Observation, member: str) -> Observation:
    """The member restarted, and its pod is one that was never there before."""
    uid = f"{seen.objects.pods[member]['metadata']['uid']}-next"
    return edited(restarted(seen, member), "pods", member, lambda made: made["metadata"].update(uid=uid))


def recorded(seen: Observation) -> Observation:
    """What is to be written on volumes is, and then on the objects."""
    for step in planned(seen).steps:
        if isinstance(step, Annotate):
            marks = dict(step.annotations)
            seen = edited(seen, "claims", step.name, lambda made: made["metadata"]["annotations"].update(marks))  # noqa: B023
    return settled(seen)


def logged(seen: Observation) -> str | None:
    found: dict[str, str] = seen.objects.config_maps["a-config"]["metadata"]["annotations"]
    return found.get(n.LOG_VERSION)


def from_3_5() -> Observation:
    """Founded on 3.5, upgraded to 3.6 just now; the user wants 3.7."""
    seen = running(with_spec(observation(version="3.5.35", tls=TLS), version="3.6.16"), "3.5.35", "3.5.0")
    seen = rolled(seen, "3.6.16", "3.5.0")
    assert (planned(seen).rule, logged(seen)) == ("at_rest", "3.5.35")
    return with_spec(seen, version="3.7.3")


def test_members_that_ran_3_5_restart_on_3_6_once_more_before_3_7() -> None:
    seen = running(from_3_5(), "3.6.16", "3.6.0")
    told = restart_under_way(judged(seen))
    assert "0 of 3 done: on 3.6.16 once more, as 3.7.3 cannot read logs of 3.5.35" in told
    seen = rolled(seen, "3.6.16", "3.6.0")
    assert (judged(seen).blueprint.spec.version, logged(seen)) == ("3.6.16", None)
    assert "0 of 3 done: spec.version changed" in restart_under_way(judged(seen))
    seen = rolled(seen, "3.7.3", "3.6.0")
    assert (judged(seen).blueprint.spec.version, logged(seen)) == ("3.7.3", None)
    assert planned(seen).rule == "at_rest"


@pytest.mark.parametrize("storage", ["3.5.0", None])
def test_not_before_etcd_has_raised_its_versions(storage: str | None) -> None:
    seen = running(from_3_5(), "3.6.16", "3.6.0")
    status = seen.answers["a-2"].status
    assert status is not None
    late = replace(seen.answers["a-2"], status=replace(status, storage_version=storage))
    assert planned(seen).steps
    waiting = with_answer(seen, "a-2", late)
    assert not planned(waiting).steps
    told = "spec.version: the members restart for it once etcd has taken the storage of all of them to 3.6"
    assert pending_changes(judged(waiting)) == (told,)


def prepared() -> Observation:
    """All members run 3.6 once more, on the way from 3.5 to 3.7; their logs have 100 entries."""
    seen = up_to_the_leader(running(from_3_5(), "3.6.16", "3.6.0"), "3.6.16", "3.6.0")
    return settled(another(seen, "a-0"))


def test_members_go_to_3_7_only_when_all_have_saved_a_snapshot_of_what_3_5_logged() -> None:
    seen = prepared()
    plan = judged(seen).blueprint
    assert plan.revisions[plan.target_revision].options.snapshot_count == SNAPSHOT_COUNT
    assert plan.log_index == 100 + SNAPSHOT_COUNT + 1
    step = the_step(seen)
    assert isinstance(step, FillLog)
    assert (step.through, step.entries) == ("a-1", SNAPSHOT_COUNT + 1)
    assert "3 of 3 done: on 3.6.16 once more" in restart_under_way(judged(seen))
    late = applied_up_to(seen, plan.log_index, "a-0", "a-1")
    assert (planned(late).rule, logged(late)) == ("wait_for_restart", "3.5.35")
    assert planned(late).waiting.endswith("waiting until etcd has saved snapshots")
    seen = recorded(applied_up_to(late, plan.log_index, "a-2"))
    assert (judged(seen).blueprint.spec.version, logged(seen)) == ("3.6.16", None)
    assert judged(seen).blueprint.spec.options.snapshot_count == SNAPSHOT_COUNT
    seen = rolled(seen, "3.7.3", "3.6.0")
    assert judged(seen).blueprint.spec.options.snapshot_count == 10000
    assert judged(seen).blueprint.log_index == 0


def test_a_member_that_comes_and_goes_meanwhile_has_the_snapshots_counted_from_then() -> None:
    seen = applied_up_to(prepared(), 150)
    away = settled(with_answer(with_pod(seen, "a-2", ready=False), "a-2", silent("refused")))
    assert judged(away).blueprint.log_index == 0
    assert not [step for step in planned(away).steps if isinstance(step, FillLog)]
    assert judged(settled(applied_up_to(seen, 170))).blueprint.log_index == 100 + SNAPSHOT_COUNT + 1
    again = settled(applied_up_to(with_object(away, "pods", seen.objects.pods["a-2"]), 170, "a-0", "a-1"))
    again = settled(applied_up_to(with_answer(again, "a-2", seen.answers["a-2"]), 170))
    assert judged(again).blueprint.log_index == 170 + SNAPSHOT_COUNT + 1


def test_a_user_who_wants_more_snapshots_has_them() -> None:
    assert with_snapshots(blueprint(options={"snapshotCount": 50}).spec).options.snapshot_count == 50


def test_the_upgrade_that_is_withdrawn_after_the_restart_on_3_6_takes_the_snapshots_back() -> None:
    seen = with_spec(rolled(running(from_3_5(), "3.6.16", "3.6.0"), "3.6.16", "3.6.0"), version="3.6.16")
    plan = judged(seen).blueprint
    assert plan.revisions[plan.target_revision].options.snapshot_count == 10000
    assert planned(seen).steps


def up_to_the_leader(seen: Observation, version: str, storage: str) -> Observation:
    """The followers were restarted, and the lead was moved off a-0, which is next."""
    for member in ("a-1", "a-2"):
        seen = settled(another(seen, member))
    step = the_step(seen)
    assert isinstance(step, MoveLeader)
    return running(seen, version, storage, leader=step.member)


def adds(seen: Observation) -> bool:
    return any(isinstance(step, AddMember) for step in planned(seen).steps)


def test_nobody_joins_before_the_last_member_has_restarted() -> None:
    seen = running(with_spec(observation(version="3.5.35", tls=TLS), version="3.6.16", members=5), "3.5.35", "3.5.0")
    seen = up_to_the_leader(seen, "3.5.35", "3.5.0")
    while isinstance(planned(seen).steps[0], Apply):  # a-0's file is moved; its pod still runs on the one before
        seen = applied(seen)
        assert not adds(seen)
    back = settled(another(seen, "a-0"))
    for starting in (with_answer(back, "a-0", silent("refused")), back):
        starting = settled(with_pod(starting, "a-0", ready=False, uid="new"))
        assert judged(starting).blueprint.spec.version == "3.5.35"
        assert not adds(starting), "it would join on 3.5, where etcd may have raised its version"
    assert adds(recorded(running(back, "3.6.16", "3.5.0", leader="a-1")))


def test_nobody_joins_between_the_restart_on_3_6_and_that_for_3_7() -> None:
    seen = up_to_the_leader(running(with_spec(from_3_5(), members=5), "3.6.16", "3.6.0"), "3.6.16", "3.6.0")
    assert not adds(another(seen, "a-0"))


def test_what_was_begun_goes_on_while_a_member_is_away() -> None:
    seen = running(from_3_5(), "3.6.16", "3.6.0")
    seen = settled(another(seen, "a-1"))
    target = judged(seen).blueprint.target_revision
    away = with_answer(seen, "a-1", silent())
    assert judged(away).blueprint.target_revision == target != judged(away).blueprint.revision
    assert "a-1 comes back" in restart_under_way(judged(away))


def test_an_etcd_founded_on_3_6_is_upgraded_at_once() -> None:
    seen = running(with_spec(observation(version="3.6.16", tls=TLS), version="3.7.3"), "3.6.16", "3.6.0")
    seen = rolled(seen, "3.7.3", "3.6.0")
    assert (judged(seen).blueprint.spec.version, logged(seen)) == ("3.7.3", None)


def test_beside_an_upgrade_only_members_that_were_removed_meanwhile_are_added() -> None:
    wanted = with_spec(observation(version="3.6.16", tls=TLS), version="3.7.3", members=5)
    seen = settled(another(running(wanted, "3.6.16", "3.6.0"), "a-1"))
    listed = seen.answers["a-0"].members
    assert listed is not None

    def as_listed(members: tuple[Member, ...]) -> Observation:
        answers = {
            name: replace(each, members=replace(listed, members=members))
            for name, each in seen.answers.items()
            if name != "a-2"
        }
        return settled(replace(seen, answers={**answers, "a-2": silent()}))

    left = tuple(each for each in listed.members if each.name != "a-2")
    assert [step.member for step in planned(as_listed(left)).steps if isinstance(step, AddMember)] == ["a-2"]
    learner = replace(next(each for each in listed.members if each.name == "a-2"), id=0x99, is_learner=True)
    assert not adds(as_listed((*left, learner)))
