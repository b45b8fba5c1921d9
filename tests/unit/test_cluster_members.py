"""Each member as it was seen, and the quorum: unknown is not down."""

from dataclasses import replace
from datetime import timedelta

import pytest

from etcd_operator.cluster.members import Membership, Quorum, SeenMember
from etcd_operator.cluster.observation import Nodes, Observation, Place
from etcd_operator.etcd.model import Answer
from etcd_operator.resources.names import Manifest
from support.builders import (
    NOW,
    answer,
    blueprint,
    down,
    edited,
    judged,
    leaderless,
    member_list,
    observation,
    pod,
    silent,
    terminated,
    with_answer,
    with_object,
    with_pod,
    without,
)

PLAN = blueprint()


def members(seen: Observation) -> Membership:
    return judged(seen).membership


def member(seen: Observation, name: str = "a-1") -> SeenMember:
    return next(each for each in members(seen).members if each.name == name)


def test_a_member_that_a_quorum_answers_through_is_healthy() -> None:
    assert all(each.healthy and not each.down and not each.why for each in members(observation()).members)


@pytest.mark.parametrize(
    ("seen", "is_down", "why"),
    [
        pytest.param(down(observation(), "a-1"), True, "its pod is missing", id="no pod"),
        pytest.param(
            with_answer(with_pod(observation(), "a-1", deletionTimestamp="2026-11-21T12:00:00Z"), "a-1", None),
            True,
            "its pod is terminating",
            id="terminating",
        ),
        pytest.param(
            with_answer(with_pod(observation(), "a-1", state={"waiting": {}}, ready=False), "a-1", None),
            True,
            "its pod is starting",
            id="not running",
        ),
        pytest.param(
            with_answer(observation(), "a-1", silent("refused", "connection refused")),
            True,
            "connection refused",
            id="nothing listens",
        ),
        pytest.param(with_answer(observation(), "a-1", silent()), False, "no answer in time", id="silence alone"),
        pytest.param(
            with_answer(with_pod(observation(), "a-1", ready=False), "a-1", silent()),
            True,
            "no answer in time",
            id="silence, and the kubelet finds it not ready",
        ),
        pytest.param(
            with_answer(observation(), "a-1", silent("tls", "the TLS handshake failed")),
            False,
            "the TLS handshake failed",
            id="it does not know us",
        ),
        pytest.param(with_answer(observation(), "a-1", None), False, "it could not be asked", id="it was not asked"),
        pytest.param(
            with_answer(observation(), "a-1", leaderless(answer(PLAN, "a-1"))),
            False,
            "it has no leader",
            id="an election",
        ),
        pytest.param(
            with_answer(with_pod(observation(), "a-1", ready=False), "a-1", leaderless(answer(PLAN, "a-1"))),
            True,
            "it has no leader",
            id="no leader, and the kubelet finds it not ready",
        ),
    ],
)
def test_down_takes_proof(seen: Observation, is_down: bool, why: str) -> None:
    found = member(seen)
    assert not found.healthy
    assert found.down is is_down
    assert found.why == why


@pytest.mark.parametrize(("seconds", "is_down"), [(-300, True), (0, False), (4, False), (5, True), (60, True)])
def test_silence_of_a_process_that_runs_takes_a_while_to_be_believed(seconds: int, is_down: bool) -> None:
    """All members of a machine that is short of CPU may miss one probe together: that is no lost quorum.

    A node whose clock is ahead tells of a time to come, which says nothing about how long.
    """

    def unready(manifest: Manifest) -> None:
        changed = (NOW - timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")
        manifest["status"]["conditions"] = [{"type": "Ready", "status": "False", "lastTransitionTime": changed}]

    seen = edited(with_answer(observation(), "a-1", silent()), "pods", "a-1", unready)
    assert member(seen).down is is_down


@pytest.mark.parametrize(
    ("containers", "etcd", "is_down"), [(False, True, False), (False, False, True), (True, True, True)]
)
def test_what_else_runs_in_the_pod_proves_nothing(containers: bool, etcd: bool, is_down: bool) -> None:
    """A container of the user's that is not ready; etcd's own; and a node that went away, where only Ready changes."""

    def unready(manifest: Manifest) -> None:
        long_ago = "2026-11-21T10:00:00Z"
        manifest["status"]["conditions"] = [
            {"type": "Ready", "status": "False", "lastTransitionTime": long_ago},
            {"type": "ContainersReady", "status": str(containers), "lastTransitionTime": long_ago},
        ]
        manifest["status"]["containerStatuses"][0]["ready"] = etcd

    seen = edited(with_answer(observation(), "a-1", silent()), "pods", "a-1", unready)
    assert member(seen).down is is_down
    away = Place(home=Nodes.NOT_READY, node=Nodes.NOT_READY)
    assert member(replace(seen, places={"a-1": away})).down, "what the kubelet of a dead node said last is stale"


def of(healthy: int, gone: int, unknown: int) -> Observation:
    """A cluster of so many members, in so many states."""
    seen = observation(members=healthy + gone + unknown)
    names = list(seen.answers)
    quorum = healthy > len(names) // 2
    for name in names[:healthy]:
        answered: Answer = seen.answers[name]
        seen = with_answer(seen, name, answered if quorum else leaderless(answered))
    for name in names[healthy : healthy + gone]:
        seen = with_answer(without(seen, "pods", name), name, None)
    for name in names[healthy + gone :]:
        seen = with_answer(seen, name, silent())
    return seen


@pytest.mark.parametrize(
    ("healthy", "gone", "unknown", "quorum", "tolerated"),
    [
        (1, 0, 0, Quorum.HEALTHY, 0),
        (0, 1, 0, Quorum.LOST, 0),
        (0, 0, 1, Quorum.UNKNOWN, 0),
        (3, 0, 0, Quorum.HEALTHY, 1),
        (2, 1, 0, Quorum.HEALTHY, 0),
        (2, 0, 1, Quorum.HEALTHY, 0),
        (0, 3, 0, Quorum.LOST, 0),
        (0, 2, 1, Quorum.LOST, 0),
        (0, 1, 2, Quorum.UNKNOWN, 0),
        (0, 0, 3, Quorum.UNKNOWN, 0),
        (5, 0, 0, Quorum.HEALTHY, 2),
        (4, 1, 0, Quorum.HEALTHY, 1),
        (3, 1, 1, Quorum.HEALTHY, 0),
        (3, 2, 0, Quorum.HEALTHY, 0),
        (0, 3, 2, Quorum.LOST, 0),
        (0, 2, 3, Quorum.UNKNOWN, 0),
        (1, 4, 0, Quorum.LOST, 0),
    ],
)
def test_quorum(healthy: int, gone: int, unknown: int, quorum: Quorum, tolerated: int) -> None:
    found = members(of(healthy, gone, unknown))
    assert found.quorum is quorum
    assert found.tolerated == tolerated


@pytest.mark.parametrize(("ready", "quorum"), [(True, Quorum.UNKNOWN), (False, Quorum.LOST)])
def test_members_without_a_leader_are_no_quorum_however_many_answer(ready: bool, quorum: Quorum) -> None:
    """An election that takes long, on a busy machine, is no lost quorum until the kubelet sees no end of it either."""
    seen = observation()
    for name, answered in seen.answers.items():
        seen = with_pod(with_answer(seen, name, leaderless(answered)), name, ready=ready)
    found = members(seen)
    assert found.quorum is quorum
    assert found.answering == 3
    assert found.leader is None


def test_voters_count_by_etcds_own_list() -> None:
    """A voter without a pod of ours still votes, so two of five are no quorum although two of three answer."""
    five = blueprint(members=5, cluster_id=PLAN.cluster_id)
    seen = observation()
    for name in list(seen.answers):
        seen = with_answer(seen, name, answer(PLAN, name, listed=member_list(five)))
    found = members(seen)
    assert (found.voter_count, found.needed) == (5, 3)
    assert len(found.members) == 5


def test_a_confirmed_member_list_is_preferred() -> None:
    old = replace(answer(PLAN, "a-0", listed=member_list(PLAN, unpublished=["a-2"])), linearizable=False)
    found = members(with_answer(observation(), "a-0", old))
    assert found.confirmed
    assert found.list == member_list(PLAN)


def test_without_a_quorum_a_members_own_list_still_tells_who_belongs() -> None:
    seen = down(observation(), "a-1", "a-2")
    found = members(seen)
    assert not found.confirmed
    assert found.list == member_list(PLAN)


def test_the_leader_is_the_one_of_the_newest_term() -> None:
    seen = with_answer(observation(), "a-2", answer(PLAN, "a-2", leader_id=0x12, raft_term=9))
    leader = members(seen).leader
    assert leader is not None
    assert leader.name == "a-2"


def test_a_member_of_another_etcd_is_foreign_and_its_list_counts_for_nothing() -> None:
    other = blueprint(incarnation="other")
    theirs = answer(other, "a-1")
    found = members(with_answer(observation(), "a-1", theirs))
    assert [each.foreign for each in found.members] == [False, True, False]
    assert "another etcd cluster" in found.members[1].why
    assert found.list == member_list(PLAN)
    only_theirs = without(with_answer(down(observation(), "a-0", "a-2"), "a-1", theirs), "services")
    assert members(only_theirs).list is None


def test_before_the_record_nobody_is_foreign() -> None:
    seen = with_answer(observation(recorded=False), "a-1", answer(blueprint(incarnation="other"), "a-1"))
    assert not member(seen).foreign


def test_a_learner_is_no_voter() -> None:
    listed = member_list(PLAN, learners=["a-2"])
    seen = observation()
    for name in list(seen.answers):
        seen = with_answer(seen, name, answer(PLAN, name, listed=listed))
    learner = replace(answer(PLAN, "a-2", is_learner=True), members=None, linearizable=False)
    seen = with_answer(seen, "a-2", learner)
    found = members(seen)
    assert (found.voter_count, len(found.healthy), found.tolerated) == (2, 2, 0)
    assert [each.role for each in found.members] == ["Voter", "Voter", "Learner"]
    assert found.ailing == ()


def test_a_corruption_alarm_is_an_ailment_of_the_member_that_it_names() -> None:
    own, nobody = f"memberID:{0x11}  alarm:CORRUPT", "alarm:CORRUPT "
    assert member(with_answer(observation(), "a-1", answer(PLAN, "a-1", errors=(own,)))).why
    for name, error in (("a-1", nobody), ("a-0", own)):
        seen = with_answer(observation(), name, answer(PLAN, name, errors=(error,)))
        assert all(each.healthy for each in judged(seen).membership.members)
        assert judged(seen).membership.alarmed


def test_a_crash_is_told_by_its_cause() -> None:
    fuse = '{"level":"fatal","msg":"discovery failed","error":"cannot fetch cluster info from peer urls: x"}'
    crashed = pod("a-1", state=terminated(fuse), ready=False)
    found = member(with_answer(with_object(observation(), "pods", crashed), "a-1", None))
    assert found.why == "DataMissing"
    assert found.down
