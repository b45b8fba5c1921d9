"""Which pod is made before etcd knows of its member, and when none is."""

from dataclasses import replace
from typing import Any

import pytest

from etcd_operator.cluster.observation import Observation
from etcd_operator.cluster.steps import Delete
from etcd_operator.resources import names as n
from etcd_operator.resources.config_map import config_map
from etcd_operator.resources.names import Manifest
from etcd_operator.resources.stateful_set import stateful_set
from support.builders import (
    EARLIER,
    NAMES,
    blueprint,
    claim,
    edited,
    judged,
    observation,
    pod,
    terminated,
    with_object,
    with_spec,
)
from support.lists import added
from support.plans import carried_out, planned

NO_FILE = '{"level":"warn","msg":"failed to verify flags","error":"open /etc/etcd/a-3.yaml: no such file or directory"}'
MEMORY = {"limits": {"memory": "4Gi"}}


def joining(*, phase: str = "Bound", members: int = 5, **spec: Any) -> Observation:
    """a-3 is in etcd's list and has not started; its new volume is in this phase."""
    seen = added(with_spec(observation(**spec), members=members), "a-3")
    return with_object(seen, "claims", new_claim("a-3", phase=phase))


def new_claim(name: str, *, phase: str = "Bound", **metadata: Any) -> Manifest:
    """A claim that holds nothing yet, as the StatefulSet makes it."""
    made = claim(replace(blueprint(), members=NAMES.members(7)), name, phase=phase)
    return {**made, "metadata": {**made["metadata"], "annotations": {}, **metadata}}


def pods_asked_for(seen: Observation) -> int:
    replicas: int = stateful_set(judged(seen).blueprint)["spec"]["replicas"]
    return replicas


def test_the_next_pod_is_made_once_the_volume_of_the_member_that_joins_is_there() -> None:
    assert pods_asked_for(added(with_spec(observation(), members=5), "a-3")) == 4
    assert pods_asked_for(joining(phase="Pending")) == 4
    assert pods_asked_for(joining()) == 5
    assert pods_asked_for(joining(members=7)) == 5, "one at a time"
    assert pods_asked_for(with_spec(joining(), members=3)) == 4, "nobody is to be added any more"


def test_the_next_pod_has_no_file_before_etcd_lists_its_member() -> None:
    assert "a-4.yaml" not in config_map(judged(joining()).blueprint)["data"]


def test_the_next_pod_stays_while_the_member_before_it_becomes_a_voter() -> None:
    started = added(with_spec(observation(), members=5), "a-3", started=True)
    assert pods_asked_for(started) == 4
    assert pods_asked_for(with_object(started, "pods", pod("a-4"))) == 5


@pytest.mark.parametrize(
    "held",
    [
        {"annotations": {n.CLUSTER_ID: "abc"}},
        {"deletionTimestamp": EARLIER},
    ],
)
def test_no_pod_is_made_ahead_for_a_volume_that_may_hold_data_or_goes(held: dict[str, Any]) -> None:
    made = with_object(with_object(joining(), "pods", pod("a-4")), "claims", new_claim("a-4"))
    assert pods_asked_for(made) == 5
    assert pods_asked_for(with_object(made, "claims", new_claim("a-4", **held))) == 4


def test_no_pod_is_made_ahead_where_its_member_would_have_to_wait() -> None:
    assert pods_asked_for(with_spec(joining(), storage={"size": "64Gi"})) == 4, "its volume would be too small"
    assert pods_asked_for(with_spec(joining(), options={"heartbeatInterval": "200ms"})) == 4, "members restart first"
    assert pods_asked_for(joining(version="3.5.35")) == 4, "one learner at a time"
    assert pods_asked_for(joining(storage={"medium": "Memory"}, resources=MEMORY)) == 4, "it has no volume to make"


def started_too_early(*, waits: bool) -> Observation:
    """The kubelet starts a-3's etcd again, which was added meanwhile: at once, or after its back-off."""
    ended = terminated(NO_FILE)
    seen = with_object(joining(), "pods", pod("a-3", ready=False, state=ended))
    if waits:
        status = {"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": ended}
        seen = edited(seen, "pods", "a-3", lambda made: made["status"]["containerStatuses"][0].update(status))
    return seen


def test_a_pod_that_was_made_ahead_is_no_trouble_and_goes_only_where_it_would_wait_long() -> None:
    for waits in (False, True):
        seen = started_too_early(waits=waits)
        member = next(each for each in judged(seen).membership.members if each.name == "a-3")
        assert member.trouble is None
        ends = [step.reason for step in planned(carried_out(seen)).steps if isinstance(step, Delete)]
        assert ends == (["it started before its member was added"] if waits else [])


def test_a_pod_made_ahead_that_has_ended_goes_and_is_not_made_again_for_its_volume() -> None:
    seen = with_object(joining(), "claims", new_claim("a-4"))
    assert pods_asked_for(seen) == 4
    assert pods_asked_for(with_object(seen, "pods", pod("a-4"))) == 5
    assert pods_asked_for(with_object(seen, "pods", pod("a-4", state=terminated(NO_FILE)))) == 4
