"""A quorum that is lost for good: nothing happens by itself, and a rebuild ends well whatever dies on the way."""

from collections.abc import Callable

import pytest

from etcd_operator.api import EtcdClusterSpec
from model.operator import Fault
from model.world import World

TLS_OFF = {"peer": {"mode": "Off"}, "client": {"mode": "Off"}}
FAULTS: tuple[Fault, ...] = ("crash before", "crash after", "fail before", "fail after", "between")


def spec(**recovery: object) -> EtcdClusterSpec:
    return EtcdClusterSpec.model_validate({"members": 3, "tls": TLS_OFF, "recovery": recovery})


def lose_volumes(world: World) -> None:
    """Two of three volumes are deleted at once."""
    world.lose_claim("a-0")
    world.lose_claim("a-1")


def lose_nodes(world: World) -> None:
    """Two of three members find no place; their volumes, and what they have voted for, are still there."""
    world.kubernetes.nodes.unplaced |= {"a-0", "a-1"}
    world.delete("Pod", "a-0")
    world.delete("Pod", "a-1")


def lost(lose: Callable[[World], None]) -> World:
    """A cluster whose quorum is lost, and told as lost."""
    world = World()
    world.apply(spec())
    world.settle()
    assert world.acknowledged
    lose(world)
    go_on_until(world, lambda: "quorumLost" in (world.cluster or {})["status"])
    return world


def go_on_until(world: World, arrived: Callable[[], bool]) -> None:
    for _ in range(60):
        if arrived():
            return
        world.round()
        if not arrived():
            world.tick()
    raise AssertionError("never got there")


def committed(world: World) -> set[str]:
    """What the member that is left knows to be committed."""
    data = world.etcd.processes["a-2"].data
    return {entry for _, entry in data.log[: data.commit]}


def check_kept(world: World, kept: set[str]) -> None:
    """Every member has it."""
    assert any(entry.startswith("put ") for entry in kept)
    assert len(world.etcd.processes) == 3
    for process in world.etcd.processes.values():
        assert process.data.entries >= kept


def ask(world: World) -> None:
    world.apply(spec(forceFrom="a-2", acceptDataLoss=True))


@pytest.mark.parametrize("lose", [lose_volumes, lose_nodes])
def test_nothing_is_rebuilt_by_itself(lose: Callable[[World], None]) -> None:
    world = lost(lose)
    world.operator.restart()
    for _ in range(30):
        world.tick(10)
        world.round()
    assert world.told("QuorumLost")
    assert not world.forced
    world.close()


@pytest.mark.parametrize("lose", [lose_volumes, lose_nodes])
def test_a_rebuild_keeps_what_the_member_has_and_happens_once(lose: Callable[[World], None]) -> None:
    world = lost(lose)
    before, kept = world.recorded, committed(world)
    ask(world)
    go_on_until(world, lambda: bool(world.forced))
    world.settle()
    assert world.recorded == before
    check_kept(world, kept)
    assert len(set(world.forced)) == 1
    times = len(world.forced)
    lose(world)
    for _ in range(40):
        world.tick(10)
        world.round()
    assert world.told("QuorumLost")
    assert world.told("RecoveryRefused")
    assert len(world.forced) == times
    world.close()


@pytest.mark.parametrize("nth", [1, 2])
@pytest.mark.parametrize("fault", FAULTS)
def test_the_operator_may_die_at_any_write_of_a_rebuild(fault: Fault, nth: int) -> None:
    """Every other round dies at its first write, or at its second."""
    world = lost(lose_volumes)
    before, kept = world.recorded, committed(world)
    ask(world)
    stumble(world, fault, nth, rounds=60)
    world.settle()
    assert (world.recorded, len(set(world.forced))) == (before, 1)
    check_kept(world, kept)
    world.close()


@pytest.mark.parametrize("fault", ["crash before", "crash after"])
@pytest.mark.parametrize("back", range(1, 12))
def test_old_members_that_come_back_in_the_middle_never_form_the_old_quorum(fault: Fault, back: int) -> None:
    """They still have their data; whatever they find, they are members of what is there, or new ones."""
    world = lost(lose_nodes)
    before, kept = world.recorded, committed(world)
    ask(world)
    stumble(world, fault, 1, rounds=back)
    world.kubernetes.nodes.unplaced.clear()
    stumble(world, fault, 1, rounds=10)
    world.settle()
    assert world.recorded == before
    check_kept(world, kept)
    world.close()


def stumble(world: World, fault: Fault, nth: int, *, rounds: int) -> None:
    """Let every other round of the operator meet a fault at its nth write."""
    for _ in range(rounds):
        world.round({nth: fault})
        world.tick()
        world.round()
        world.tick()


def turned_to_another() -> World:
    """A rebuild whose pod finds no place, so that another member is named."""
    world = lost(lose_nodes)
    world.kubernetes.nodes.unplaced.add("a-2-recovery")
    ask(world)
    go_on_until(world, lambda: world.store.get("Pod", "a-2-recovery") is not None)
    world.apply(spec(forceFrom="a-1", acceptDataLoss=True))
    go_on_until(world, lambda: "Stopping" in world.recovery())
    return world


def test_another_member_may_be_named_when_the_first_one_cannot_be_made_the_only_one() -> None:
    world = turned_to_another()
    world.kubernetes.nodes.unplaced.clear()
    world.settle()
    assert len(world.forced) == 1
    assert len(world.etcd.processes) == 3
    world.close()


def test_what_was_taken_apart_cannot_be_taken_back() -> None:
    """The roster and the volumes' marks know of one member alone: the others would never start again."""
    world = turned_to_another()
    world.apply(spec())
    world.kubernetes.nodes.unplaced.clear()
    world.settle()
    assert len(world.forced) == 1
    assert len(world.etcd.processes) == 3
    world.close()


def test_what_a_rebuild_keeps_aside_outlives_larger_volumes_for_as_long_as_asked() -> None:
    def asked(**more: object) -> EtcdClusterSpec:
        never = {"healing": {"keepOldData": "Never"}, "storage": {"size": "20Gi"}}
        return EtcdClusterSpec.model_validate({"members": 3, "tls": TLS_OFF, **never, **more})

    def kept(world: World) -> list[int]:
        return sorted(len(volume.directories) for volume in world.kubernetes.nodes.volumes.values())

    world = lost(lose_nodes)
    ask(world)
    go_on_until(world, lambda: bool(world.forced))
    world.kubernetes.nodes.unplaced.clear()
    world.settle()
    assert kept(world) == [1, 2, 2]
    world.store.expandable = False
    world.apply(asked())
    for _ in range(60):
        world.round()
        world.tick(2)
    assert kept(world) == [1, 2, 2]
    assert world.told("VolumesNotGrown")
    world.apply(asked(healing={"keepOldData": "0s"}))
    world.settle()
    assert kept(world) == [1, 1, 1]
    world.close()
