"""The proof of bootstrap from wherever it survived, and records that contradict each other."""

import pytest

from etcd_operator.cluster.observation import Observation
from etcd_operator.cluster.records import foundation, proof, recorded_members, volume_records
from support.builders import NAMES, RECORDED, annotated, blueprint, observation, unfounded, without, without_status

ID = blueprint().cluster_id


def without_volume_records(seen: Observation) -> Observation:
    for claim in seen.objects.claims:
        seen = annotated(seen, "claims", claim, cluster_id=None)
    return seen


def with_only(source: str) -> Observation:
    """A recorded cluster of which nothing but one source tells it."""
    seen = observation()
    if source != "status":
        seen = without_status(seen)
    if source != "stateful_sets":
        seen = without(seen, "stateful_sets")
    if source != "config_maps":
        seen = without(seen, "config_maps")
    if source != "claims":
        seen = without_volume_records(seen)
    return seen


@pytest.mark.parametrize("source", ["status", "stateful_sets", "config_maps", "claims"])
def test_any_single_record_proves_the_bootstrap(source: str) -> None:
    proven = proof(with_only(source))
    assert proven.cluster_id == ID
    assert proven.disputes == ()
    assert proven.recorded_at == (RECORDED if source != "claims" else "")


def test_a_single_volume_is_enough() -> None:
    seen = with_only("claims")
    seen = annotated(seen, "claims", "data-a-0", cluster_id=None)
    seen = annotated(seen, "claims", "data-a-1", cluster_id=None)
    assert proof(seen).cluster_id == ID


def test_without_any_record_nothing_is_proved() -> None:
    assert proof(unfounded()).cluster_id == ""
    assert proof(observation(recorded=False)).cluster_id == ""


@pytest.mark.parametrize(("kind", "name"), [("stateful_sets", "a"), ("config_maps", "a-config")])
def test_own_objects_that_disagree_are_a_dispute(kind: str, name: str) -> None:
    proven = proof(annotated(observation(), kind, name, cluster_id="beef"))
    assert proven.cluster_id == ""
    assert len(proven.disputes) == 1
    assert "beef" in proven.disputes[0]
    assert ID in proven.disputes[0]


def test_volumes_that_disagree_are_a_dispute_where_nothing_else_tells() -> None:
    seen = annotated(with_only("claims"), "claims", "data-a-2", cluster_id="beef")
    assert "PersistentVolumeClaim data-a-2 says beef" in proof(seen).disputes[0]


def test_a_foreign_volume_does_not_shake_what_the_own_objects_prove() -> None:
    proven = proof(annotated(observation(), "claims", "data-a-2", cluster_id="beef"))
    assert proven.cluster_id == ID
    assert not proven.disputes


@pytest.mark.parametrize("missing", ["cluster_id", "member_state", "incarnation"])
def test_half_a_volume_record_is_none(missing: str) -> None:
    seen = annotated(observation(), "claims", "data-a-1", **{missing: None})
    assert sorted(volume_records(seen)) == ["a-0", "a-2"]


def test_a_removed_members_volume_is_no_record() -> None:
    assert "a-1" not in volume_records(annotated(observation(), "claims", "data-a-1", member_state="removed"))


def test_nothing_is_founded_beside_what_only_removed_members_left() -> None:
    seen = without(with_only("claims"), "claims", "data-a-0")
    for name in ("data-a-1", "data-a-2"):
        seen = annotated(seen, "claims", name, member_state="removed")
    (dispute,) = proof(seen).disputes
    assert f"PersistentVolumeClaims data-a-1, data-a-2 hold what removed members of etcd cluster {ID} had" in dispute
    assert not proof(annotated(seen, "claims", "data-a-2", member_state="member")).disputes


def test_a_volume_knows_the_members_that_lost_theirs() -> None:
    seen = without(observation(members=5), "claims", "data-a-1", "data-a-3", "data-a-4")
    records = volume_records(seen).values()
    assert recorded_members(NAMES, records, next(iter(records)).cluster_id) == {f"a-{i}" for i in range(5)}
    assert recorded_members(NAMES, records, "beef") == set()


def test_the_config_map_founds_and_the_recorded_object_wins() -> None:
    seen = annotated(observation(recorded=False), "config_maps", "a-config", incarnation="next")
    found = foundation(seen)
    assert found is not None
    assert found.incarnation == "next"
    found = foundation(annotated(observation(), "config_maps", "a-config", incarnation="next", cluster_id=None))
    assert found is not None
    assert found.incarnation == "first"


def test_a_foundation_that_cannot_be_read_is_none() -> None:
    seen = without(observation(recorded=False), "stateful_sets")
    assert foundation(annotated(seen, "config_maps", "a-config", applied_spec="{")) is None
    assert foundation(annotated(seen, "config_maps", "a-config", incarnation=None)) is None
