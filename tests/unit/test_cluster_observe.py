"""What is read of a cluster, where the order of reading matters."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from etcd_operator.cluster.observation import Objects, Observation
from etcd_operator.cluster.observe import Observer
from etcd_operator.etcd.client import EtcdClient
from etcd_operator.kube import Kube, Resource, Unavailable
from etcd_operator.kube.agent_image import AgentImage
from etcd_operator.resources.names import Manifest
from support.builders import EARLIER, UID, edited, observation, pod, without


def observer_with(kube: Any) -> Observer:
    images = AgentImage(cast(Kube, kube), given="operator:1", namespace="", pod="")
    etcd = cast(EtcdClient, SimpleNamespace())
    return Observer(kube=cast(Kube, kube), etcd=etcd, domain="cluster.local", served=(), images=images, namespace="o")


class ReadsSideBySide:
    """An API server in which pods were listed before their StatefulSet was gone, and the StatefulSet after."""

    def __init__(self, medium: str = "Disk") -> None:
        self.lists_of_pods = 0
        self.medium = medium
        self.unlabelled: set[str] = set()

    async def get(self, resource: Resource, namespace: str, name: str) -> Manifest | None:
        if resource.kind == "Pod" and name in self.unlabelled:
            return pod(name, labels={}, ownerReferences=[])
        if resource.kind != "EtcdCluster":
            return None
        return {
            "metadata": {"name": name, "namespace": namespace, "uid": UID},
            "spec": {"storage": {"medium": self.medium}},
        }

    async def list(self, resource: Resource, namespace: str, **_: Any) -> list[Manifest]:
        if resource.kind != "Pod":
            return [each for each in observation().objects.all() if each["kind"] == resource.kind != "StatefulSet"]
        self.lists_of_pods += 1
        owned: dict[str, Any] = {} if self.lists_of_pods == 1 else {"ownerReferences": []}
        return [pod(f"a-{ordinal}", **owned) for ordinal in range(3)]


def test_pods_that_were_orphaned_while_they_were_read_are_still_the_clusters() -> None:
    kube = ReadsSideBySide()
    observer = observer_with(kube)
    picture = asyncio.run(observer.picture("ns", "a", None))
    assert picture is not None
    assert sorted(picture.objects.pods) == ["a-0", "a-1", "a-2"]
    assert kube.lists_of_pods == 2


def test_what_was_said_of_a_pod_before_it_last_became_ready_is_overcome() -> None:
    ready = {"type": "Ready", "status": "False", "lastTransitionTime": "2026-11-21T10:00:00Z"}
    before = {"reason": "NodeNotReady", "message": "Node is not ready", "lastTimestamp": "2026-11-21T09:59:59Z"}
    after = {"reason": "FailedMount", "message": "no such secret", "lastTimestamp": "2026-11-21T10:00:00Z"}
    going = pod("a-1", state={"waiting": {}})
    going["status"]["conditions"] = [ready]

    class Events:
        async def list(self, *_: Any, **__: Any) -> list[Manifest]:
            return [{"metadata": {}, **event} for event in (before, after)]

    observer = observer_with(Events())
    told = asyncio.run(observer._complaints("ns", "a", Objects(pods={"a-1": going})))
    assert [complaint.reason for complaint in told] == ["FailedMount"]


class Unlabelled(ReadsSideBySide):
    """An API server in which somebody took the label off one pod."""

    async def list(self, resource: Resource, namespace: str, **_: Any) -> list[Manifest]:
        found = [each for each in observation().objects.all() if each["kind"] == resource.kind]
        return [each for each in found if each["metadata"]["name"] not in self.unlabelled]


@pytest.mark.parametrize(("medium", "seen"), [("Memory", ["a-0", "a-1", "a-2"]), ("Disk", ["a-0", "a-2"])])
def test_a_pod_without_its_label_is_not_gone_where_that_would_prove_its_data_lost(medium: str, seen: list[str]) -> None:
    kube = Unlabelled(medium)
    kube.unlabelled = {"a-1"}
    observer = observer_with(kube)
    picture = asyncio.run(observer.picture("ns", "a", None))
    assert picture is not None
    assert sorted(picture.objects.pods) == seen


@pytest.mark.parametrize("going", [False, True])
def test_a_claim_that_is_not_being_deleted_any_more_keeps_no_pod_away(going: bool) -> None:
    said = "create Pod a-0 in StatefulSet a failed error: pvc data-a-0 is being deleted"

    class Events:
        async def list(self, *_: Any, **__: Any) -> list[Manifest]:
            event = {"reason": "FailedCreate", "message": said, "lastTimestamp": "2999-01-01T00:00:00Z"}
            return [{"metadata": {}, **event}]

    seen = without(observation(), "pods", "a-0")
    if going:
        seen = edited(seen, "claims", "data-a-0", lambda claim: claim["metadata"].update(deletionTimestamp=EARLIER))
    told = asyncio.run(observer_with(Events())._complaints("ns", "a", seen.objects))
    assert [complaint.message for complaint in told] == ([said] if going else [])


class Outside(ReadsSideBySide):
    """An API server with these Services of single members, one binding, and nodes that cannot be read at first."""

    def __init__(self, *members: str, access: str) -> None:
        super().__init__()
        self.members, self.access = members, access
        self.asked: list[str] = []
        self.unreadable = True

    async def get(self, resource: Resource, namespace: str, name: str) -> Manifest | None:
        found = await super().get(resource, namespace, name)
        return found and {**found, "spec": {"access": {"members": self.access}}}

    async def list(self, resource: Resource, namespace: str | None, **selected: Any) -> list[Manifest]:
        self.asked.append(resource.kind)
        if resource.kind == "Node":
            if self.unreadable:
                raise Unavailable(status=503, reason="x", message="x")
            return [{"metadata": {"name": "n1"}, "status": {"addresses": []}}]
        if resource.kind == "ApiServerBinding":
            return [{"status": {"arguments": ["--etcd-servers=https://192.0.2.1:30000"]}}]
        if resource.kind == "Service":
            return [{"kind": "Service", "metadata": {"name": f"{member}-node-port"}} for member in self.members]
        return await super().list(resource, namespace or "", **selected)


async def looks(kube: Outside, *anew: bool) -> list[Observation]:
    observer = observer_with(kube)
    picture = await observer.picture("ns", "a", None)
    assert picture is not None
    kube.unreadable = False
    return [await observer.observation(picture, {}, {}, anew=each) for each in anew]


@pytest.mark.parametrize(
    ("members", "access", "reads"),
    [
        (("a-0", "a-2"), "NodePort", False),
        (("a-0", "a-7"), "NodePort", True),
        (("a-0",), "Internal", True),
        ((), "Internal", False),
    ],
)
def test_bindings_are_asked_for_only_where_a_member_may_be_gone(
    members: tuple[str, ...], access: str, reads: bool
) -> None:
    kube = Outside(*members, access=access)
    listed = frozenset({"https://192.0.2.1:30000"}) if reads else None
    assert [each.listed_servers for each in asyncio.run(looks(kube, False, False, True))] == [listed] * 3
    assert kube.asked.count("ApiServerBinding") == (2 if reads else 0), (
        "not at every look, but before something is done"
    )


def test_nodes_that_could_not_be_read_are_looked_up_while_nothing_happens() -> None:
    kube = Outside(access="NodePort")
    assert [each.nodes and each.nodes[0].name for each in asyncio.run(looks(kube, False))] == ["n1"]
