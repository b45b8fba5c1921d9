"""Rounds of the binding controller over a stand-in for the API server: what is written, how often, and by which end.

What etcd answers is given; the real ones are asked in the end-to-end tests.
"""

import asyncio
import base64
import copy
import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from etcd_operator.binding import wiring
from etcd_operator.binding.controller import ApiServerBindingController
from etcd_operator.binding.observe import Observer
from etcd_operator.kube import Conflict, EventRecorder, Kube, Manifest
from etcd_operator.kube.resources import Resource
from etcd_operator.runtime.controller import Key, Result
from etcd_operator.runtime.settings import Settings
from support.merge_patch import merged

KEY = Key("ApiServerBinding", "ns", "b")
OWN = "externaletcd.io/v1alpha1"
VERSIONS = {"ApiServerBinding": OWN, "EtcdCluster": OWN, "Deployment": "apps/v1", "Secret": "v1"}
URL = "https://a.ns.svc:2379"
ACCESS = {"ca.crt": b"ca", "tls.crt": b"cert", "tls.key": b"key"}


class World:
    """The objects by kind, namespace and name, and what was written to them."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str, str], Manifest] = {}
        self.writes: list[str] = []
        self.events: list[str] = []
        self._version = 0

    def put(self, kind: str, name: str, manifest: Manifest, namespace: str = "ns") -> None:
        self._version += 1
        metadata = {"name": name, "namespace": namespace, "uid": name, "generation": 1, **manifest.get("metadata", {})}
        metadata["resourceVersion"] = str(self._version)
        made = {**copy.deepcopy(manifest), "apiVersion": VERSIONS[kind], "kind": kind, "metadata": metadata}
        self.objects[kind, namespace, name] = made

    def named(self, kind: str, name: str, namespace: str = "ns") -> Manifest:
        return self.objects[kind, namespace, name]

    # --- as `Kube`

    async def get(self, resource: Resource, namespace: str, name: str) -> Manifest | None:
        return copy.deepcopy(self.objects.get((resource.kind, namespace, name)))

    async def list(self, resource: Resource, namespace: str | None, **_: object) -> list[Manifest]:
        found = [each for (kind, _, _), each in self.objects.items() if kind == resource.kind]
        return copy.deepcopy([each for each in found if namespace in (None, each["metadata"]["namespace"])])

    async def patch(self, resource: Resource, namespace: str, name: str, patch: Manifest, *, kind: str) -> None:
        standing = self.objects[resource.kind, namespace, name]
        if patch["metadata"]["resourceVersion"] != standing["metadata"]["resourceVersion"]:
            raise Conflict(status=409, reason="Conflict", message="edited", details={}, request="patch")
        self.writes.append(f"patch {resource.kind} {name}")
        self.put(resource.kind, name, merged(standing, patch), namespace)

    async def apply(self, manifest: Manifest) -> None:
        metadata = manifest["metadata"]
        self.writes.append(f"apply {manifest['kind']} {metadata['name']}")
        before = self.objects.get((manifest["kind"], metadata["namespace"], metadata["name"]), {})
        self.put(manifest["kind"], metadata["name"], merged(before, manifest), metadata["namespace"])

    async def apply_status(self, manifest: Manifest) -> None:
        metadata = manifest["metadata"]
        self.writes.append(f"status {metadata['name']}")
        standing = self.objects["ApiServerBinding", metadata["namespace"], metadata["name"]]
        self.put("ApiServerBinding", metadata["name"], {**standing, "status": manifest["status"]})

    def emit(self, _: Manifest, __: str, reason: str, message: str) -> None:
        self.events.append(f"{reason}: {message}")


def binding(name: str = "b", **spec: Any) -> Manifest:
    said = {"clusterRef": {"name": "a"}, "target": {"deployment": {"name": "api"}}, "prefix": "/registry", **spec}
    return {"spec": said}


def cluster(scheme: str = "https") -> Manifest:
    told = {"client": f"{scheme}://a.ns.svc:2379", "members": []}
    return {"spec": {}, "status": {"endpoints": told, "bootstrap": {"clusterID": "1", "incarnation": "i"}}}


def deployment(*arguments: str) -> Manifest:
    container = {"name": "kube-apiserver", "command": ["kube-apiserver"], "args": list(arguments)}
    template = {"spec": {"containers": [container]}}
    return {"spec": {"replicas": 0, "selector": {"matchLabels": {"app": "api"}}, "template": template}}


def secret(data: dict[str, bytes]) -> Manifest:
    return {"data": {key: base64.b64encode(value).decode() for key, value in data.items()}}


@pytest.fixture
def world() -> World:
    made = World()
    made.put("EtcdCluster", "a", cluster())
    made.put("Secret", "a-client", secret(ACCESS))
    made.put("Deployment", "api", deployment("--v=2"))
    made.put("ApiServerBinding", "b", binding())
    return made


Rounds = Callable[..., list[Result]]


@pytest.fixture
def rounds(world: World, monkeypatch: pytest.MonkeyPatch) -> Rounds:
    """Let the controller look at a binding so many times; `between` happens before each."""

    async def answers(self: Observer, seen: object, wanted: wiring.Wiring) -> dict[str, str]:
        return dict.fromkeys(wanted.servers, "")

    monkeypatch.setattr(Observer, "answers", answers)
    settings = cast(Settings, SimpleNamespace(watch_namespaces=(), agent_image="", pod_namespace="", pod_name=""))

    def run(times: int, key: Key = KEY, between: Callable[[], None] = lambda: None) -> list[Result]:
        async def all_of_them() -> list[Result]:
            controller = ApiServerBindingController(
                kube=cast(Kube, world),
                events=cast(EventRecorder, world),
                settings=settings,
                on_etcd_call=lambda method, outcome: None,
            )
            results = []
            for _ in range(times):
                between()
                results.append(await controller.reconcile(key, changed=True))
            return results

        return asyncio.run(all_of_them())

    return run


def arguments(world: World) -> list[str]:
    told: list[str] = world.named("Deployment", "api")["spec"]["template"]["spec"]["containers"][0]["args"]
    return told


def bound(world: World, name: str = "b") -> str:
    told = world.named("ApiServerBinding", name)["status"]["conditions"]
    return str(next(each["reason"] for each in told if each["type"] == "Bound"))


def test_the_status_tells_first_and_the_workload_is_written_once(world: World, rounds: Rounds) -> None:
    rounds(8)
    assert world.writes == ["status b", "patch Deployment api", "status b"]
    assert [event.split(":")[0] for event in world.events] == ["RollingOut", "Wired", "Bound"]
    assert arguments(world)[:2] == ["--v=2", f"--etcd-servers={URL}"]
    assert bound(world) == "Bound"


def test_whoever_replaces_the_whole_object_is_named_after_three_times(world: World, rounds: Rounds) -> None:
    rounds(3)
    world.writes.clear()
    rounds(12, between=lambda: world.put("Deployment", "api", deployment("--v=2")))
    # The first of them may be a new workload: after it each one is somebody's doing.
    assert world.writes.count("patch Deployment api") == 4
    assert bound(world) == "Contested"
    rounds(3)
    assert bound(world) == "Bound"


def test_of_two_bindings_of_one_workload_one_does_nothing(world: World, rounds: Rounds) -> None:
    rounds(3)
    world.put("ApiServerBinding", "a-second", binding(clusterRef={"name": "a"}, prefix="/other"))
    before = arguments(world)
    rounds(4, key=Key("ApiServerBinding", "ns", "a-second"))
    assert bound(world, "a-second") == "TargetTaken"
    assert "arguments" not in world.named("ApiServerBinding", "a-second")["status"]
    rounds(4)
    assert arguments(world) == before


def test_of_two_that_begin_together_one_gets_the_prefix(world: World, rounds: Rounds) -> None:
    world.put("Deployment", "second", deployment())
    world.put("ApiServerBinding", "c", binding(target={"deployment": {"name": "second"}}))
    keys = [KEY, Key("ApiServerBinding", "ns", "c")]
    for _ in range(6):
        for key in keys:
            rounds(1, key=key)
    assert [bound(world, "b"), bound(world, "c")] == ["Bound", "PrefixTaken"]
    assert world.named("Deployment", "second")["spec"] == deployment()["spec"]


def test_a_later_binding_of_the_same_name_does_not_inherit_the_prefix(world: World, rounds: Rounds) -> None:
    rounds(3)
    world.put("EtcdCluster", "e2", json.loads(json.dumps(cluster()).replace("a.ns.svc", "e2.ns.svc")))
    world.put("Secret", "e2-client", secret(ACCESS))
    world.put("Deployment", "second", deployment())
    taken = binding(clusterRef={"name": "e2"}, target={"deployment": {"name": "second"}})
    world.put("ApiServerBinding", "c", taken)
    rounds(3, key=Key("ApiServerBinding", "ns", "c"))
    world.put("ApiServerBinding", "b", binding(clusterRef={"name": "e2"}, acceptDifferentData=True))
    before = arguments(world)
    rounds(3)
    assert bound(world) == "PrefixTaken"
    assert arguments(world) == before


def test_a_copy_that_somebody_adds_to_is_not_written_again(world: World, rounds: Rounds) -> None:
    world.put("EtcdCluster", "a", {**cluster(), "spec": {"access": {"bindings": ["ns"]}}}, "home")
    world.put("Secret", "a-client", secret(ACCESS), "home")
    world.put("ApiServerBinding", "b", binding(clusterRef={"name": "a", "namespace": "home"}))
    rounds(4)
    held = world.named("Secret", "b-etcd-client")
    world.put("Secret", "b-etcd-client", {**held, "data": {**held["data"], "more": ""}})
    world.writes.clear()
    assert all(result.requeue_after for result in rounds(3))
    assert world.writes == []


def test_an_etcd_without_tls_needs_no_files(world: World, rounds: Rounds) -> None:
    world.put("EtcdCluster", "a", cluster("http"))
    world.put("Secret", "a-client", secret({"endpoints": b"http://a.ns.svc:2379"}))
    rounds(4)
    assert arguments(world) == ["--v=2", "--etcd-servers=http://a.ns.svc:2379", "--etcd-prefix=/registry"]
    assert bound(world) == "Bound"


@pytest.mark.parametrize("note", [None, "{"])
def test_a_deleted_binding_is_not_held_by_a_spoiled_note(world: World, rounds: Rounds, note: str | None) -> None:
    world.put("ApiServerBinding", "b", binding(onDelete="Restore"))
    rounds(5)
    assert world.named("ApiServerBinding", "b")["metadata"]["finalizers"]
    if note:
        world.named("Deployment", "api")["metadata"]["annotations"][wiring.ORIGINAL] = note
    world.named("ApiServerBinding", "b")["metadata"]["deletionTimestamp"] = "2026-11-30T00:00:00Z"
    rounds(1)
    assert not world.named("ApiServerBinding", "b")["metadata"]["finalizers"]
    assert (arguments(world) == ["--v=2"]) is (note is None)
    assert any(event.startswith("NotRestored" if note else "Restored") for event in world.events)
