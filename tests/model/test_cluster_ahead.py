"""The pod that is made ahead of etcd's list: it costs nobody anything, whatever becomes of it."""

from collections.abc import Iterator

import pytest

from etcd_operator.resources.names import Manifest
from model.test_cluster_scenarios import go_on_until, spec
from model.world import CLAIM, World

DELETE = {"deletionPolicy": "Delete"}


@pytest.fixture
def world() -> Iterator[World]:
    """An etcd of three members; there is no room for the pod of a fourth one."""
    made = World()
    made.apply(spec(3, storage=DELETE))
    made.settle()
    made.kubernetes.nodes.unplaced.add("a-3")
    yield made
    made.close()


def replicas(world: World) -> int:
    count: int = (world.store.get("StatefulSet", "a") or {})["spec"]["replicas"]
    return count


def with_pod_ahead(world: World) -> None:
    """a-3 joins and has its volume; a-4, whose pod is asked for, is no member yet."""
    world.apply(spec(5, storage=DELETE))
    go_on_until(world, lambda: replicas(world) == 5)
    assert len(world.roster.members) == 4


def rounds(world: World, count: int) -> list[int]:
    """The replicas that are asked for after each of so many rounds."""
    seen = []
    for _ in range(count):
        world.round()
        world.tick()
        seen.append(replicas(world))
    return seen


@pytest.mark.parametrize("wanted", [3, 7])
def test_one_that_starts_too_early_goes_and_leaves_its_volume(world: World, wanted: int) -> None:
    with_pod_ahead(world)
    world.apply(spec(7, storage=DELETE))
    assert rounds(world, 10)[-5:] == [4] * 5
    assert world.store.get("Pod", "a-4") is None
    made = world.store.get(CLAIM, "data-a-4")
    assert made is not None
    world.kubernetes.nodes.unplaced.clear()
    world.apply(spec(wanted, storage=DELETE))
    world.settle()
    assert len(world.roster.voters) == len(world.store.all("Pod")) == len(world.store.all(CLAIM)) == wanted
    if wanted == 7:
        assert world.store.get(CLAIM, "data-a-4") == made | {
            "metadata": (world.store.get(CLAIM, "data-a-4") or {})["metadata"]
        }


def test_one_that_starts_just_before_its_member_is_added_is_no_trouble(world: World) -> None:
    with_pod_ahead(world)
    world.tick()
    assert "terminated" in state_of(world.store.get("Pod", "a-4"))
    world.kubernetes.nodes.unplaced.clear()
    world.tick()
    world.apply(spec(7, storage=DELETE))
    while len(world.roster.voters) < 7:
        world.round()
        world.tick()
        waiting = [member for member in world.roster.members.values() if not member.started]
        assert len(waiting) <= 1, "one after the other"
    world.settle()
    assert not [told for told in world.operator.story if "configuration" in told]


def state_of(pod: Manifest | None) -> Manifest:
    state: Manifest = (pod or {})["status"]["containerStatuses"][0]["state"]
    return state


@pytest.mark.parametrize("size", ["8Gi", "1Gi"])
def test_none_is_made_for_a_volume_that_may_hold_data_or_is_small_without_our_label(world: World, size: str) -> None:
    recorded = {"externaletcd.io/cluster-id": world.recorded} if size == "8Gi" else {}
    metadata = {"name": "data-a-4", "namespace": "ns", "annotations": recorded}
    resources = {"requests": {"storage": size}}
    held = {"accessModes": ["ReadWriteOnce"], "resources": resources}
    world.store.create({"kind": CLAIM, "metadata": metadata, "spec": held, "status": {"phase": "Pending"}})
    world.apply(spec(5, storage=DELETE))
    assert max(rounds(world, 20)) == 4
    assert len(world.roster.members) == 4


@pytest.mark.parametrize("meanwhile", ["nothing", "paused", "restart"])
def test_its_volume_goes_when_nobody_wants_it_any_more(world: World, meanwhile: str) -> None:
    with_pod_ahead(world)
    world.tick()
    assert world.store.get(CLAIM, "data-a-4") is not None
    options = {"snapshotCount": 5} if meanwhile == "restart" else {}
    if meanwhile != "nothing":
        world.apply(spec(5, storage=DELETE, paused=meanwhile == "paused", options=options))
        rounds(world, 5)
    world.apply(spec(3, storage=DELETE, options=options))
    world.kubernetes.nodes.unplaced.clear()
    world.settle()
    assert [claim["metadata"]["name"] for claim in world.store.all(CLAIM)] == ["data-a-0", "data-a-1", "data-a-2"]
