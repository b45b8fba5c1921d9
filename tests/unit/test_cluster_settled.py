"""What the members run, as against what the user wrote last."""

from typing import Any

import pytest

from etcd_operator.api import EtcdClusterSpec
from etcd_operator.cluster.observation import Observation
from etcd_operator.cluster.settled import pending, problems, refounded, settled_json
from support.builders import (
    annotated,
    blueprint,
    judged,
    observation,
    unfounded,
    with_answer,
    with_spec,
    without,
    without_status,
)


def spec(**fields: Any) -> EtcdClusterSpec:
    return EtcdClusterSpec.model_validate(fields)


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"members": 5}, "spec.members"),
        ({"version": "3.6.16"}, "spec.version"),
        ({"image": {"repository": "mirror/etcd"}}, "spec.image.repository"),
        ({"storage": {"size": "9Gi"}}, "spec.storage.size"),
        ({"resources": {"requests": {"cpu": "1", "memory": "256Mi"}}}, "spec.resources.requests.cpu"),
        ({"options": {"snapshotCount": 5}}, "spec.options.snapshotCount"),
        ({"options": {"extra": {"log-level": "debug"}}}, "spec.options.extra.log-level"),
        ({"podTemplate": {"spec": {"priorityClassName": "x"}}}, "spec.podTemplate.spec.priorityClassName"),
    ],
)
def test_a_change_that_members_would_only_take_with_a_restart_is_pending_by_name(
    change: dict[str, Any], path: str
) -> None:
    assert pending(spec(**change), spec()) == (path,)


@pytest.mark.parametrize(
    "change",
    [
        {"storage": {"deletionPolicy": "Delete"}},
        {"tls": {"client": {"extraSANs": ["x.example.com"]}}},
        {"tls": {"certificateDuration": "240h", "renewBefore": "24h"}},
        {"paused": True},
    ],
)
def test_a_change_that_applies_at_once_is_not_pending(change: dict[str, Any]) -> None:
    assert pending(spec(**change), spec()) == ()
    assert settled_json(spec(**change)) == settled_json(spec())


def test_changes_that_apply_at_once_reach_the_blueprint_and_others_do_not() -> None:
    seen = with_spec(
        observation(), storage={"deletionPolicy": "Delete", "size": "20Gi"}, tls={"client": {"extraSANs": ["x.y"]}}
    )
    plan = judged(seen).blueprint
    assert plan.spec.storage.deletion_policy == "Delete"
    assert plan.spec.tls.client.extra_sans == ("x.y",)
    assert str(plan.spec.storage.size) == "8Gi"
    assert plan.applied_spec == blueprint().applied_spec


def test_the_settled_spec_survives_its_own_json() -> None:
    wanted = spec(options={"extra": {"log-level": "debug"}, "autoCompaction": {"retention": "1h"}}, members=5)
    assert settled_json(EtcdClusterSpec.model_validate_json(settled_json(wanted))) == settled_json(wanted)


def test_a_new_cluster_is_founded_from_the_users_spec_in_a_fresh_incarnation() -> None:
    found = judged(unfounded(members=5))
    assert found.blueprint.members == tuple(f"a-{i}" for i in range(5))
    assert found.blueprint.incarnation == "fresh"
    assert not found.blueprint.bootstrapped
    assert not found.founded


def test_a_founded_cluster_keeps_its_incarnation() -> None:
    found = judged(observation(recorded=False))
    assert found.blueprint.incarnation == "first"
    assert found.founded


def adopted(seen: Observation) -> Observation:
    """Nothing is left but the volumes, and the EtcdCluster was applied anew."""
    for kind in ("stateful_sets", "config_maps", "pods", "services", "secrets", "disruption_budgets"):
        seen = without(seen, kind)
    for member in list(seen.answers):
        seen = with_answer(seen, member, None)
    return without_status(seen)


@pytest.mark.parametrize("members", [1, 3, 5])
def test_adoption_starts_the_recorded_members_whatever_the_spec_says(members: int) -> None:
    plan = judged(with_spec(adopted(observation()), members=members)).blueprint
    assert plan.members == ("a-0", "a-1", "a-2")
    assert plan.incarnation == "first"
    assert plan.cluster_id == blueprint().cluster_id
    assert plan.replicas == 3


def test_adoption_starts_the_recorded_version() -> None:
    plan = judged(with_spec(adopted(observation()), version="3.6.16")).blueprint
    assert plan.spec.version == "3.7.3"


@pytest.mark.parametrize(("version", "older"), [("3.7.3", ""), ("3.6.16", "3.5"), ("3.5.35", "")])
def test_what_was_logged_before_an_adoption_is_not_known(version: str, older: str) -> None:
    assert judged(adopted(observation(version=version))).blueprint.log_version == older
    assert judged(observation(version=version)).blueprint.log_version == ""


def test_adoption_takes_each_members_own_incarnation() -> None:
    plan = judged(adopted(annotated(observation(), "claims", "data-a-1", incarnation="later"))).blueprint
    assert plan.seat("a-1").incarnation == "later"
    assert plan.seat("a-0").incarnation == "first"


def test_a_member_whose_volume_is_gone_is_still_one() -> None:
    plan = judged(adopted(without(observation(), "claims", "data-a-2"))).blueprint
    assert plan.members == ("a-0", "a-1", "a-2")


def test_a_foreign_volume_lends_no_incarnation() -> None:
    seen = annotated(observation(), "claims", "data-a-1", cluster_id="beef", incarnation="theirs")
    assert judged(seen).blueprint.seat("a-1").incarnation == "first"


def test_starting_over_takes_the_spec_of_now_and_a_fresh_incarnation() -> None:
    plan = refounded(with_spec(observation(recorded=False), members=5))
    assert (len(plan.members), plan.incarnation, plan.bootstrapped) == (5, "fresh", False)


def test_a_spec_that_cannot_work_is_told_in_sentences() -> None:
    bad = spec(options={"extra": {"no-such-thing": 1}}, podTemplate={"spec": {"hostNetwork": True}})
    assert len(problems(bad)) == 2
    assert problems(spec()) == []


def test_a_status_alone_tells_incarnation_size_and_version() -> None:
    """Right after the record no other object has it, and StatefulSet and ConfigMap may be deleted then."""
    members = [{"name": f"a-{i}"} for i in range(3)]
    seen = observation(status={"members": members, "version": "3.7.2"})
    for kind in ("stateful_sets", "config_maps", "claims"):
        seen = without(seen, kind)
    for member in list(seen.answers):
        seen = with_answer(seen, member, None)
    plan = judged(with_spec(seen, members=5)).blueprint
    assert plan.incarnation == "first"
    assert plan.members == ("a-0", "a-1", "a-2")
    assert plan.spec.version == "3.7.2"
    assert plan.bootstrapped


def test_a_status_with_the_proof_alone_tells_how_many_founded() -> None:
    seen = observation()
    for kind in ("stateful_sets", "config_maps", "claims", "pods"):
        seen = without(seen, kind)
    for member in list(seen.answers):
        seen = with_answer(seen, member, None)
    for members in (1, 5):
        assert judged(with_spec(seen, members=members)).blueprint.members == ("a-0", "a-1", "a-2")
