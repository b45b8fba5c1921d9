"""Clients in other namespaces, whatever the operator dies of: who agreed gets a Secret, and nobody keeps it."""

from collections.abc import Iterator
from typing import cast

import pytest

from etcd_operator.api import EtcdClusterSpec
from etcd_operator.resources.names import ACCEPTS_CLIENTS, CLIENTS_ELSEWHERE
from etcd_operator.resources.secrets import content
from model.operator import Fault
from model.world import World

COPY = "ns.a-client-web"
CLIENTS = [{"name": "web", "namespaces": ["shop"]}]
FAULTS = cast(list[Fault], ["crash before", "crash after", "fail before", "fail after"])


def spec(clients: object = CLIENTS) -> EtcdClusterSpec:
    return EtcdClusterSpec.model_validate({"members": 1, "clients": clients})


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    made.store.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})
    agree(made)
    made.apply(spec())
    yield made
    made.close()


def agree(world: World, *, agrees: bool = True) -> None:
    value = "ns" if agrees else None
    world.store.patch("Namespace", "shop", {"metadata": {"labels": {ACCEPTS_CLIENTS: value}}})


def is_held(world: World) -> bool:
    assert world.cluster is not None
    return CLIENTS_ELSEWHERE in (world.cluster["metadata"].get("finalizers") or [])


def has_copy(world: World) -> bool:
    return world.store.get("Secret", COPY) is not None


def run(world: World, fault: Fault, at: int) -> None:
    """Rounds until all is at rest, and in one of their first writes, counted from now, that fault."""
    for _ in range(6):
        writes = world.round({at: fault} if at > 0 else {})
        at -= len(writes)
        world.tick()
        assert is_held(world) or not has_copy(world) if world.cluster else not has_copy(world)
    if world.cluster:
        world.settle()


def test_a_client_elsewhere_has_the_secret_of_the_cluster_and_nothing_is_written_any_more(world: World) -> None:
    world.settle()
    assert content(world.store.get("Secret", COPY)) == content(world.store.get("Secret", "a-client-web"))
    assert is_held(world)
    world.operator.restart()
    assert [world.round() for _ in range(3)] == [[], [], []]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("at", [1, 2, 3])
def test_withdrawing_and_agreeing_again_survive_any_fault(world: World, fault: Fault, at: int) -> None:
    world.settle()
    agree(world, agrees=False)
    run(world, fault, at)
    assert (has_copy(world), is_held(world)) == (False, False)
    assert world.told("ClientsNotServed")
    agree(world)
    run(world, fault, at)
    assert (has_copy(world), is_held(world)) == (True, True)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("at", [1, 2, 3])
def test_an_entry_that_goes_takes_both_secrets_along(world: World, fault: Fault, at: int) -> None:
    world.settle()
    world.apply(spec([]))
    run(world, fault, at)
    assert (has_copy(world), is_held(world)) == (False, False)
    assert world.store.get("Secret", "a-client-web") is None


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("at", [1, 2])
def test_an_etcd_cluster_that_is_deleted_takes_copies_along(world: World, fault: Fault, at: int) -> None:
    world.settle()
    world.delete("EtcdCluster", "a")
    assert world.cluster is not None
    run(world, fault, at)
    assert world.cluster is None
    assert not has_copy(world)


def test_one_that_was_deleted_before_the_first_copy_leaves_none(world: World) -> None:
    for _ in range(60):
        if is_held(world):
            break
        world.round()
        world.tick()
    assert is_held(world)
    world.delete("EtcdCluster", "a")
    run(world, "crash after", 0)
    assert world.cluster is None
    assert not has_copy(world)
