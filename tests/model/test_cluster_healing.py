"""Members whose machines die: they are replaced elsewhere, whatever the operator dies of meanwhile."""

from collections.abc import Iterator
from unittest import mock

import pytest

from etcd_operator.api import EtcdClusterSpec
from etcd_operator.resources.names import Manifest
from model.operator import Fault
from model.world import CLAIM, World

SPEC = {
    "members": 3,
    "tls": {"peer": {"mode": "Off"}, "client": {"mode": "Off"}},
    "healing": {"replaceAfter": "10s"},
}


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    made.apply(EtcdClusterSpec.model_validate(SPEC))
    made.settle()
    yield made
    made.close()


def node_of(world: World, pod: str) -> str:
    claim = world.store.get(CLAIM, f"data-{pod}")
    assert claim is not None
    return world.kubernetes.node_of_volume(claim["spec"]["volumeName"])


def ids(world: World) -> dict[str, int]:
    return {member.name: member.id for member in world.roster.members.values()}


def live(world: World, seconds: int) -> None:
    for _ in range(seconds):
        world.round()
        world.tick()


def test_a_member_whose_machine_stays_away_is_replaced_on_another(world: World) -> None:
    before, node = ids(world), node_of(world, "a-1")
    world.kubernetes.fail_node(node)
    live(world, 8)
    assert ids(world) == before
    live(world, 20)
    assert world.problem_at_rest() is None
    now = ids(world)
    assert {name for name in now if now[name] != before[name]} == {"a-1"}
    assert node_of(world, "a-1") != node
    assert len(world.kubernetes.nodes.kept) == 1, "the old volume is kept"
    world.kubernetes.recover_node(node)
    world.settle()
    assert ids(world) == now


def test_a_machine_that_comes_back_in_time_keeps_its_member(world: World) -> None:
    before, node = ids(world), node_of(world, "a-1")
    world.kubernetes.fail_node(node)
    live(world, 8)
    world.kubernetes.recover_node(node)
    live(world, 20)
    assert ids(world) == before


def test_a_member_whose_node_object_is_deleted_is_replaced_at_once(world: World) -> None:
    before = ids(world)
    world.lose_node("a-1")
    live(world, 5)
    assert ids(world).get("a-1") != before["a-1"]
    world.settle()
    assert {name for name, each in ids(world).items() if each != before[name]} == {"a-1"}


def test_with_two_of_three_machines_away_nobody_is_replaced(world: World) -> None:
    before = ids(world)
    for pod in ("a-1", "a-2"):
        world.kubernetes.fail_node(node_of(world, pod))
    live(world, 60)
    assert ids(world) == before
    world.settle()
    assert ids(world) == before


def test_an_operator_that_was_away_does_not_count_the_time(world: World) -> None:
    before, node = ids(world), node_of(world, "a-1")
    world.kubernetes.fail_node(node)
    live(world, 4)
    for _ in range(60):
        world.tick()
    world.operator.restart()
    live(world, 4)
    assert ids(world) == before


def test_an_operator_that_is_restarted_again_and_again_gets_there(world: World) -> None:
    before, node = ids(world), node_of(world, "a-1")
    world.kubernetes.fail_node(node)
    for _ in range(30):
        world.operator.restart()
        live(world, 1)
    assert ids(world)["a-1"] != before["a-1"]


@pytest.mark.parametrize("fault", ["crash before", "crash after", "fail before", "fail after", "between"])
@pytest.mark.parametrize("story", ["away", "gone"])
def test_a_replacement_may_be_cut_short_at_any_write(fault: Fault, story: str) -> None:
    """One world for every write of the story, until there is no further write at which to die."""
    for nth in range(1, 60):
        world = World()
        world.apply(EtcdClusterSpec.model_validate(SPEC))
        world.settle()
        before, node = ids(world), node_of(world, "a-1")
        world.kubernetes.fail_node(node)
        if story == "gone":
            world.lose_node("a-1")
        reached = _die_at(world, nth, fault)
        live(world, 30)
        assert world.problem_at_rest() is None, (nth, world.problem_at_rest())
        assert {name for name, each in ids(world).items() if each != before[name]} == {"a-1"}
        world.settle()
        world.close()
        if not reached:
            assert nth > 10
            return
    raise AssertionError("never comes to rest")


def _die_at(world: World, nth: int, fault: Fault) -> bool:
    """Live on, with the fault at the write of that number; whether there was one."""
    written = 0
    for _ in range(30):
        writes = world.round({nth - written: fault} if nth > written else {})
        written += len(writes)
        if written >= nth:
            return True
        world.tick()
    return False


def directories(world: World, member: str) -> int:
    volume = world.kubernetes.volume_of(member)
    assert volume is not None
    return len(volume.directories)


def replace_on_its_volume(world: World, member: str) -> None:
    """The member hangs for good: a new one takes its place, in a directory of its own on the same volume."""
    before = ids(world)[member]
    world.etcd.processes[member].frozen = True
    for _ in range(60):
        if process := world.etcd.processes.get(member):
            process.frozen = ids(world).get(member, before) == before
        live(world, 1)
        if ids(world).get(member, before) != before and world.problem_at_rest() is None:
            break
    assert directories(world, member) == 2


def test_old_data_is_kept_for_as_long_as_asked_and_then_deleted(world: World) -> None:
    replace_on_its_volume(world, "a-1")
    world.tick(6.9 * 86400)
    world.settle()
    assert directories(world, "a-1") == 2
    world.tick(86400)
    world.settle()
    assert [directories(world, f"a-{ordinal}") for ordinal in range(3)] == [1, 1, 1]
    assert world.store.get("Pod", "a-1-cleaning") is None


def test_old_data_is_kept_for_good_where_the_user_says_so(world: World) -> None:
    world.apply(EtcdClusterSpec.model_validate({**SPEC, "healing": {"replaceAfter": "10s", "keepOldData": "Never"}}))
    replace_on_its_volume(world, "a-1")
    world.tick(400 * 86400)
    world.settle()
    assert directories(world, "a-1") == 2


@pytest.mark.parametrize("fault", ["crash before", "crash after", "fail before", "fail after", "between"])
def test_the_deletion_of_old_data_may_be_cut_short_at_any_write(fault: Fault) -> None:
    for nth in range(1, 20):
        world = World()
        world.apply(EtcdClusterSpec.model_validate(SPEC))
        world.settle()
        replace_on_its_volume(world, "a-1")
        world.apply(EtcdClusterSpec.model_validate({**SPEC, "healing": {"keepOldData": "0s"}}))
        reached = _die_at(world, nth, fault)
        world.settle()
        assert directories(world, "a-1") == 1
        world.close()
        if not reached:
            assert nth > 3
            return
    raise AssertionError("never comes to rest")


def test_a_machine_that_dies_under_the_deletion_of_old_data_holds_up_nobody(world: World) -> None:
    replace_on_its_volume(world, "a-1")
    world.apply(EtcdClusterSpec.model_validate({**SPEC, "healing": {"replaceAfter": "10s", "keepOldData": "0s"}}))
    for _ in range(10):
        if world.store.get("Pod", "a-1-cleaning") is not None:
            break
        world.round()
    before, node = ids(world), node_of(world, "a-1")
    world.kubernetes.fail_node(node)
    live(world, 40)
    assert world.problem_at_rest() is None
    assert ids(world)["a-1"] != before["a-1"]
    assert node_of(world, "a-1") != node


def test_a_kubelet_that_refuses_the_deletion_of_old_data_is_not_asked_all_the_time(world: World) -> None:
    def reject(pod: Manifest, incarnations: list[str]) -> None:
        if pod["status"]["phase"] != "Failed":
            pod["status"] = {"phase": "Failed", "reason": "OutOfcpu"}
            world.store.touch(pod)

    replace_on_its_volume(world, "a-1")
    world.apply(EtcdClusterSpec.model_validate({**SPEC, "healing": {"keepOldData": "0s"}}))
    writes = list[str]()
    with mock.patch.object(world.kubernetes, "clean", reject):
        for _ in range(60):
            writes += world.round()
            world.tick()
    assert writes.count("apply Pod") == 1
    world.tick(660)
    world.settle()
    assert directories(world, "a-1") == 1


@pytest.mark.parametrize(("members", "away"), [(3, ("a-0", "a-1")), (5, ("a-1",))])
def test_a_change_of_size_and_members_that_stay_away(members: int, away: tuple[str, ...]) -> None:
    """Down from five with two away that are to stay, and up from three with one away: neither waits for the other."""
    world = World()
    world.apply(EtcdClusterSpec.model_validate({**SPEC, "members": 8 - members}))
    world.settle()
    for node in [node_of(world, pod) for pod in away]:
        world.kubernetes.fail_node(node)
    for pod in away:
        if (stuck := world.store.get("Pod", pod)) is not None and members > 3:
            world.store.remove(stuck)  # kubectl delete pod --force
    world.apply(EtcdClusterSpec.model_validate({**SPEC, "members": members}))
    live(world, 120)
    assert world.problem_at_rest() is None
    assert set(ids(world)) == {f"a-{ordinal}" for ordinal in range(members)}
    world.close()
