"""The reconcile as a whole: what it reads, what it spares, and what it tells when Kubernetes says no."""

from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import pytest

from etcd_operator.api import EtcdClusterSpec
from etcd_operator.cluster.act import act
from etcd_operator.etcd.errors import EtcdError
from etcd_operator.etcd.model import Endpoint, MemberReport
from etcd_operator.kube import Forbidden, Invalid
from etcd_operator.resources.names import Manifest
from model.calls import ModelClient
from model.world import World


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    made.apply(EtcdClusterSpec(members=3))
    yield made
    made.close()


def condition(world: World, type_: str) -> dict[str, Any]:
    assert world.cluster is not None
    found: dict[str, Any] = next(each for each in world.cluster["status"]["conditions"] if each["type"] == type_)
    return found


def test_a_resting_cluster_costs_kubernetes_nothing(world: World) -> None:
    world.settle()
    assert world.round() == []
    assert world.operator.kube.reads == 0


def test_a_member_that_hangs_is_noticed_without_any_event(world: World) -> None:
    world.settle()
    world.etcd.processes["a-1"].frozen = True
    world.etcd.step()
    assert world.round() == ["apply status"]
    assert condition(world, "Degraded")["reason"] == "MembersUnhealthy"
    assert condition(world, "Available")["status"] == "True"


def test_a_dead_quorum_is_noticed_without_any_event(world: World) -> None:
    world.settle()
    for process in world.etcd.processes.values():
        process.frozen = True
    world.round()
    assert (condition(world, "Available")["status"], condition(world, "Available")["reason"]) == ("Unknown", "NoAnswer")


def test_steps_are_never_taken_on_an_old_picture(world: World) -> None:
    """The picture is kept while a cluster rests; what it seems to ask for is looked up again before it is done."""
    world.settle()
    for pod in ("a-0", "a-1", "a-2"):
        world.delete("Pod", pod)
    world.kubernetes.run()
    world.round(watch_lags=True)
    assert world.operator.kube.reads > 0


def stranger(kind: str, name: str, **fields: Any) -> Manifest:
    api = "apps/v1" if kind == "StatefulSet" else "v1"
    return {"apiVersion": api, "kind": kind, "metadata": {"name": name, "namespace": "ns"}, **fields}


@pytest.mark.parametrize(("kind", "name"), [("ConfigMap", "a-config"), ("Service", "a-peers"), ("Secret", "a-peer-ca")])
def test_somebody_elses_object_of_the_same_name_is_spared_and_named(world: World, kind: str, name: str) -> None:
    before = world.store.create(stranger(kind, name, data={"theirs": "eA=="}))
    for _ in range(6):
        world.round()
        world.tick()
    assert world.store.get(kind, name) == before
    assert condition(world, "Progressing")["reason"] == "NameTaken"
    assert f"{kind} {name}" in condition(world, "Progressing")["message"]
    world.delete(kind, name)
    world.settle()


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (Invalid(status=422, reason="Invalid", message="spec: no such class"), "Refused"),
        (Forbidden(status=403, reason="Forbidden", message="exceeded quota"), "Forbidden"),
    ],
)
def test_what_the_api_server_refuses_stands_in_the_status_until_it_does_not(
    world: World, monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str
) -> None:
    apply = world.store.apply

    def refuse(manifest: Manifest, *, status: bool = False) -> Manifest:
        if manifest["kind"] == "StatefulSet":
            raise error
        return apply(manifest, status=status)

    monkeypatch.setattr(world.store, "apply", refuse)
    for _ in range(6):
        world.round()
        world.tick()
    assert condition(world, "Progressing")["reason"] == reason
    monkeypatch.undo()
    world.settle()


def test_the_story_of_a_cluster_is_told_once(world: World) -> None:
    world.settle()
    story = [told.split(":")[0] for told in world.operator.story]
    assert story.count("Normal Bootstrapped") == 1
    assert story.count("Normal Available") == 1
    assert not [told for told in world.operator.story if told.startswith("Warning")]
    told = len(world.operator.story)
    world.operator.restart()
    world.settle()
    assert len(world.operator.story) == told


def test_what_etcd_did_without_answering_in_time_is_told_as_well(world: World) -> None:
    world.settle()
    world.wipe("a-1")
    for _ in range(20):
        world.round({1: "fail after"})
        world.tick()
    world.settle()
    story = [told.split(":")[0] for told in world.operator.story]
    for reason in ("RemovingMember", "AddingMember", "PromotingMember"):
        assert f"Normal {reason}" in story, story


@pytest.fixture
def silent_when_told(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """No member answers when it is to prove whose it is, before it is told of a change."""
    acting = ContextVar("acting", default=False)
    ask = ModelClient.status

    async def carry_out(*arguments: Any) -> None:
        acting.set(True)
        try:
            await act(*arguments)
        finally:
            acting.set(False)

    async def status(self: ModelClient, endpoint: Endpoint, **limits: float) -> MemberReport:
        if acting.get():
            raise EtcdError("timeout", "no answer in time")
        return await ask(self, endpoint, **limits)

    monkeypatch.setattr("etcd_operator.cluster.controller.act", carry_out)
    monkeypatch.setattr(ModelClient, "status", status)
    return monkeypatch


def told(world: World, word: str) -> int:
    return sum(word in each for each in world.operator.story)


def test_what_etcd_was_never_asked_for_is_not_told(world: World, silent_when_told: pytest.MonkeyPatch) -> None:
    world.settle()
    world.wipe("a-1")
    for _ in range(20):
        world.round()
        world.tick()
    assert told(world, "RemovingMember") == 0
    silent_when_told.undo()
    world.settle()
    assert told(world, "RemovingMember") == 1


def test_an_object_that_the_api_server_rewrites_is_not_fought_over(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mutating webhook has the last word; a person's edit has not."""
    apply = world.store.apply

    def rewrite(manifest: Manifest, *, status: bool = False) -> Manifest:
        if manifest["kind"] == "PodDisruptionBudget":
            manifest = {**manifest, "spec": {**manifest["spec"], "maxUnavailable": 2}}
        return apply(manifest, status=status)

    monkeypatch.setattr(world.store, "apply", rewrite)
    world.settle()
    assert [world.round() for _ in range(3)] == [[], [], []]
    world.operator.restart()
    assert "apply PodDisruptionBudget" in world.round()
    world.settle()
    world.edit("PodDisruptionBudget", "a", {"spec": {"maxUnavailable": 3}})
    assert "apply PodDisruptionBudget" in world.round()
    world.settle()
