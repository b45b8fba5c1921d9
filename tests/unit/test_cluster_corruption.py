"""Who is replaced when etcd raises its corruption alarm, when nobody is, and when the alarm is taken back."""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from etcd_operator.cluster.conditions import Outcome, available, degraded, summary
from etcd_operator.cluster.observation import Observation
from etcd_operator.cluster.plan import plan
from etcd_operator.cluster.steps import AddMember, DisarmAlarm, MoveLeader, Plan, RemoveMember
from etcd_operator.etcd.model import Alarm, AlarmKind, KeyHash, MemberList
from support.builders import answer, blueprint, down, judged, member_list, observation
from support.plans import planned, the_step

RIGHT, WRONG = KeyHash(revision=9, hash=1, compact_revision=3), KeyHash(revision=9, hash=2, compact_revision=3)


def alarmed(
    hashes: Mapping[str, KeyHash], *errors: str, members: int = 3, listed: MemberList | None = None
) -> Observation:
    """A cluster in which every member tells of these alarms."""
    made = blueprint(members=members)
    answers = {name: answer(made, name, listed=listed, errors=errors) for name in made.members}
    return replace(observation(members=members), answers=answers, hashes=hashes)


def of(member: int, kind: str = "CORRUPT") -> str:
    return f"memberID:{0x10 + member} alarm:{kind} "


def told(seen: Observation) -> str:
    known = judged(seen)
    assert available(known).reason == degraded(known, Outcome(plan=Plan())).reason == "CorruptionAlarm"
    assert (available(known).status, degraded(known, Outcome(plan=Plan())).status) == ("False", "True")
    assert "differs" in summary(known, Outcome(plan=plan(known)))
    return available(known).message


ONE_DIFFERS = {"a-0": RIGHT, "a-1": WRONG, "a-2": RIGHT}


def test_the_member_that_the_alarm_names_and_the_keys_confirm_is_removed() -> None:
    seen = alarmed(ONE_DIFFERS, of(1))
    step = the_step(seen)
    assert isinstance(step, RemoveMember)
    assert (step.member, step.member_id, step.through) == ("a-1", 0x11, "a-0")
    assert told(seen).endswith("a-1 differs from the others, and is replaced")


def test_a_corrupt_leader_hands_over_first() -> None:
    step = the_step(alarmed({"a-0": WRONG, "a-1": RIGHT, "a-2": RIGHT}, of(0)))
    assert isinstance(step, MoveLeader)
    assert step.through == "a-0"


@pytest.mark.parametrize(
    ("hashes", "errors", "words"),
    [
        (ONE_DIFFERS, ["alarm:CORRUPT"], ["it names no member", "those of a-1 are not"]),
        (ONE_DIFFERS, [of(2)], ["it names a-2", "those of a-1 are not"]),
        (ONE_DIFFERS, [of(1), of(2)], ["it names a-1 and a-2"]),
        (dict.fromkeys(ONE_DIFFERS, RIGHT), [of(1)], ["it names a-1", "the keys of a-0 and a-1 and a-2 are the same"]),
        ({"a-0": RIGHT, "a-1": WRONG}, [of(1)], ["no majority of the members was found"]),
        ({}, [of(1)], ["no majority of the members was found"]),
        (
            {"a-0": RIGHT, "a-1": WRONG, "a-2": replace(RIGHT, compact_revision=4)},
            [of(1)],
            ["no majority of the members was found"],
        ),
    ],
)
def test_whoever_is_not_proved_to_be_wrong_is_left_alone(
    hashes: dict[str, KeyHash], errors: list[str], words: list[str]
) -> None:
    seen = alarmed(hashes, *errors)
    assert planned(seen).steps == ()
    for each in (*words, "Nothing is done by itself", "etcdctl alarm disarm"):
        assert each in told(seen)


def test_a_member_that_gives_no_hash_is_wrong_if_the_others_agree() -> None:
    assert isinstance(the_step(alarmed({"a-0": RIGHT, "a-2": RIGHT}, of(1))), RemoveMember)


def test_nobody_is_removed_where_the_others_are_no_quorum() -> None:
    seen = alarmed({"a-0": RIGHT, "a-2": RIGHT}, of(1))
    assert not any(isinstance(step, RemoveMember) for step in planned(down(seen, "a-2")).steps)


def test_the_alarm_is_taken_back_once_its_member_is_removed_before_a_new_one_joins() -> None:
    members = member_list(blueprint())
    left = replace(members, members=tuple(each for each in members.members if each.name != "a-1"))
    seen = alarmed(ONE_DIFFERS, of(1), listed=left)
    step = the_step(seen)
    assert isinstance(step, DisarmAlarm)
    assert (step.alarm, step.through) == (Alarm(member_id=0x11, kind=AlarmKind.CORRUPT), "a-0")
    assert isinstance(the_step(alarmed({}, listed=left)), AddMember)


def test_other_alarms_of_removed_members_go_as_well_and_those_of_members_stay() -> None:
    assert isinstance(the_step(alarmed({}, of(6, "NOSPACE"))), DisarmAlarm)
    assert planned(alarmed({}, of(1, "NOSPACE"))).steps == ()
    assert planned(alarmed({}, of(6, "SOMETHING"))).steps == ()


def test_while_the_keys_are_compared_nobody_is_blamed() -> None:
    seen = replace(alarmed({}, of(1)), hashes=None)
    assert planned(seen).steps == ()
    assert told(seen).endswith("the keys of all members are being compared")


def test_nobody_is_replaced_for_being_away_while_the_data_differs() -> None:
    known = judged(alarmed({}, "alarm:CORRUPT"))
    assert all(each.healthy for each in known.membership.members)
    assert known.membership.alarmed
