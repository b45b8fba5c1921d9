"""Old data: what is recorded of it, when it goes, and what is never deleted."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from etcd_operator.cluster.observation import Observation
from etcd_operator.cluster.old_data_rules import old_data, put_aside
from etcd_operator.cluster.records import timestamp
from etcd_operator.cluster.steps import Annotate, Apply, Delete
from etcd_operator.resources import names as n
from etcd_operator.resources.cleaning_pod import cleaning_pod
from support.builders import (
    INCARNATION,
    NAMES,
    NOW,
    annotated,
    blueprint,
    down,
    edited,
    judged,
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

WEEK = timedelta(hours=168)
OLD = f"before={timestamp(NOW - WEEK)}"
YOUNG = f"young={timestamp(NOW - WEEK + timedelta(seconds=1))}"


def kept(seen: Observation, *entries: str, member: str = "a-1") -> Observation:
    """Old data on a member's volume, and an image to delete it with."""
    seen = annotated(seen, "claims", f"data-{member}", old_data=",".join(entries))
    return replace(seen, agent_image="operator:1")


def cleaning(seen: Observation, phase: str = "Running", told: str = "before", **metadata: Any) -> Observation:
    """The pod that deletes it, on its way."""
    made = cleaning_pod(blueprint(), "a-1", told.split(","), node="node-a-1", image="operator:1")
    state = {"terminated": {"exitCode": 0}} if phase == "Succeeded" else {"waiting": {"message": "no such image"}}
    status = {"phase": phase, "containerStatuses": [{"name": "clean", "state": state}]}
    pod = live(made, **{"creationTimestamp": timestamp(NOW - timedelta(minutes=1)), **metadata})
    return with_object(seen, "other_pods", {**pod, "status": status})


# --- the record -------------------------------------------------------------------------------------------------------


def test_the_directory_that_served_before_is_recorded_with_the_moment() -> None:
    since = timestamp(NOW)
    assert put_aside({n.INCARNATION: "first"}, "second", NOW) == {n.OLD_DATA: f"first={since}"}
    found = {n.INCARNATION: "second", n.OLD_DATA: OLD}
    assert put_aside(found, "third", NOW) == {n.OLD_DATA: f"{OLD},second={since}"}


def test_nothing_is_recorded_where_nothing_was_put_aside() -> None:
    assert put_aside({}, "first", NOW) == {}
    assert put_aside({n.INCARNATION: "first"}, "first", NOW) == {}
    assert put_aside({n.INCARNATION: "first", n.OLD_DATA: OLD}, "first", NOW) == {}


def test_a_directory_that_serves_again_is_no_old_data() -> None:
    found = {n.INCARNATION: "second", n.OLD_DATA: f"first={timestamp(NOW - WEEK)}"}
    assert put_aside(found, "first", NOW) == {n.OLD_DATA: f"second={timestamp(NOW)}"}


def test_what_cannot_be_read_is_never_deleted() -> None:
    assert old_data({n.OLD_DATA: "a,b=soon,=,c=2026-11-21T12:00:00Z"}) == {"c": NOW}


def test_the_new_member_is_recorded_with_what_is_kept_beside_it() -> None:
    step = the_step(annotated(observation(), "claims", "data-a-1", incarnation="before", member_id="99"))
    assert isinstance(step, Annotate)
    recorded = dict(step.annotations)
    assert (recorded[n.INCARNATION], recorded[n.OLD_DATA]) == (INCARNATION, f"before={timestamp(NOW)}")


# --- when it goes -----------------------------------------------------------------------------------------------------


def test_what_was_kept_for_long_enough_is_deleted_on_the_members_node() -> None:
    step = the_step(kept(observation(), OLD, YOUNG))
    assert isinstance(step, Apply)
    assert step.absent
    spec, metadata = step.manifest["spec"], step.manifest["metadata"]
    (container,) = spec["containers"]
    assert metadata["name"] == "a-1-cleaning"
    assert NAMES.ordinal(metadata["name"]) is None
    assert container["command"][-2:] == ["/var/lib/etcd", "before"]
    assert (container["image"], spec["nodeName"]) == ("operator:1", "node-a-1")
    assert spec["volumes"] == [{"name": "data", "persistentVolumeClaim": {"claimName": "data-a-1"}}]
    assert step.reason.endswith("before on data-a-1, kept for longer than spec.healing.keepOldData (168h)")


@pytest.mark.parametrize(
    ("keep", "gone"), [("168h", True), ("169h", False), ("0s", True), ("1m", True), ("Never", False)]
)
def test_how_long_is_the_users_choice(keep: str, gone: bool) -> None:
    assert bool(planned(with_spec(kept(observation(), OLD), healing={"keepOldData": keep})).steps) is gone


def test_one_volume_after_the_other() -> None:
    seen = kept(kept(observation(), OLD), OLD, member="a-2")
    assert [step.manifest["metadata"]["name"] for step in planned(seen).steps if isinstance(step, Apply)] == [
        "a-1-cleaning"
    ]
    assert planned(cleaning(seen)).rule == "at_rest"


NOT_NOW: dict[str, Any] = {
    "nothing is old enough": lambda: kept(observation(), YOUNG),
    "no image is known": lambda: replace(kept(observation(), OLD), agent_image=""),
    "another member is silent": lambda: with_answer(kept(observation(), OLD), "a-2", silent()),
    "another member is down": lambda: down(kept(observation(), OLD), "a-2"),
    "a pod is not ready": lambda: with_pod(kept(observation(), OLD), "a-0", ready=False),
    "it is paused": lambda: with_spec(kept(observation(), OLD), paused=True),
    "members are to be added": lambda: with_spec(kept(observation(), OLD), members=5),
    "members are to go": lambda: with_spec(kept(observation(), OLD), members=1),
    "the volume goes": lambda: edited(
        kept(observation(), OLD), "claims", "data-a-1", lambda claim: claim["metadata"].update(deletionTimestamp="now")
    ),
    "it is what the member serves from": lambda: kept(observation(), f"{INCARNATION}={timestamp(NOW - WEEK)}"),
    "another etcd's data is there": lambda: kept(
        annotated(observation(), "claims", "data-a-1", cluster_id="beef"), OLD
    ),
}


@pytest.mark.parametrize("why", NOT_NOW)
def test_nothing_is_deleted_while(why: str) -> None:
    seen = NOT_NOW[why]()
    steps = [step for step in planned(seen).steps if isinstance(step, Apply) and step.manifest["kind"] == "Pod"]
    assert steps == []
    if why != "no image is known":
        assert isinstance(planned(cleaning(seen)).steps[0], Delete), "and what is on its way is stopped"


# --- the pod ----------------------------------------------------------------------------------------------------------


def test_what_is_deleted_is_struck_off_the_record_before_the_pod_goes() -> None:
    seen = cleaning(kept(observation(), OLD, YOUNG), "Succeeded")
    step = the_step(seen)
    assert isinstance(step, Annotate)
    assert (step.name, dict(step.annotations)) == ("data-a-1", {n.OLD_DATA: YOUNG})
    after = the_step(cleaning(kept(observation(), YOUNG), "Succeeded"))
    assert isinstance(after, Delete)
    assert (after.kind, after.name, after.reason) == ("Pod", "a-1-cleaning", "the old data is deleted")


def test_the_record_of_a_volume_that_was_made_since_is_left_alone() -> None:
    seen = cleaning(kept(observation(), OLD), "Succeeded", creationTimestamp="2026-11-21T08:59:59Z")
    assert isinstance(the_step(seen), Delete)


@pytest.mark.parametrize("phase", ["Pending", "Running", "Failed"])
def test_a_pod_that_gets_nowhere_is_told_and_makes_room_for_another_after_a_while(phase: str) -> None:
    assert planned(cleaning(kept(observation(), OLD), phase)).rule == "at_rest"
    ago = timestamp(NOW - timedelta(minutes=10, seconds=1))
    step = the_step(cleaning(kept(observation(), OLD), phase, creationTimestamp=ago))
    assert isinstance(step, Delete)
    assert step.at_once
    assert step.reason == "it could not delete old data, and is tried again: no such image"


def test_a_pod_of_a_cluster_that_was_deleted_holds_up_nobody() -> None:
    older = [{"kind": "EtcdCluster", "uid": "uid-older", "name": "a"}]
    step = the_step(cleaning(kept(observation(), OLD), told="other", ownerReferences=older))
    assert isinstance(step, Delete)


def test_a_container_that_somebody_put_beside_it_does_not_matter() -> None:
    seen = edited(
        cleaning(kept(observation(), OLD), "Succeeded"),
        "other_pods",
        "a-1-cleaning",
        lambda pod: pod["status"].update(phase="Running"),
    )
    assert isinstance(the_step(seen), Annotate)


def test_old_data_that_fills_the_disk_can_be_deleted() -> None:
    full = terminated('{"level":"fatal","msg":"failed to save","error":"write: no space left on device"}')
    seen = with_answer(with_pod(kept(observation(), OLD), "a-1", state=full, ready=False), "a-1", silent("refused"))
    assert judged(seen).membership.members[1].trouble.reason == "DiskFull"  # type: ignore[union-attr]
    assert isinstance(the_step(seen), Apply)
    assert not [step for step in planned(down(seen, "a-2")).steps if isinstance(step, Apply)]


def test_a_pod_that_is_to_delete_something_else_goes() -> None:
    assert isinstance(the_step(cleaning(kept(observation(), OLD), told="before,more")), Delete)


def test_a_pod_that_is_on_its_way_keeps_nothing_waiting() -> None:
    assert planned(cleaning(kept(observation(), OLD))).rule == "at_rest"


def test_a_pod_that_is_going_is_not_waited_for_on_a_node_that_may_be_away() -> None:
    step = the_step(cleaning(kept(observation(), OLD), deletionTimestamp="2026-11-21T12:00:00Z"))
    assert isinstance(step, Delete)
    assert step.at_once
