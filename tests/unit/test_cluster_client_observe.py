"""What is read for the clients of the spec, when, and how an EtcdCluster that is deleted takes copies along."""

import asyncio
from collections.abc import Mapping
from typing import Any, cast

import pytest

from etcd_operator.api import EtcdCluster
from etcd_operator.cluster import client_farewell, client_observe
from etcd_operator.cluster.client_farewell import PATIENCE, Farewell
from etcd_operator.cluster.client_observe import FRESH, ClientObserver
from etcd_operator.cluster.observation import DeliveryRefusal, Elsewhere, Spot
from etcd_operator.kube import EventRecorder, Forbidden, Kube, KubeError, Unavailable
from etcd_operator.kube.resources import Resource
from etcd_operator.resources import names as n
from etcd_operator.resources.names import Manifest
from support.builders import NOW, UID, etcd_cluster

SPOT: Spot = ("shop", "ns.a-client-web")
FORBIDDEN = Forbidden(status=403, reason="Forbidden", message="no right to")
AWAY = Unavailable(status=0, reason="Timeout", message="no answer")
LABELS = {n.CLIENT_CLUSTER: "a", n.CLIENT_NAMESPACE: "ns"}
ACCESS: dict[str, Manifest] = {"a-client": {}}


class Stub:
    """An API server with these objects, by kind, namespace and name; one that is an error is what it answers."""

    def __init__(self, **namespaces: str) -> None:
        self.objects: dict[tuple[str, str | None, str], Manifest | KubeError] = {}
        self.errors: dict[str | None, KubeError] = {}
        self.asked: list[str] = []
        for name, accepts in namespaces.items():
            self.put("Namespace", None, name, labels={n.ACCEPTS_CLIENTS: accepts})

    def put(self, kind: str, namespace: str | None, name: str, **metadata: Any) -> None:
        made = {"name": name, "namespace": namespace, "uid": f"uid-{name}", "resourceVersion": "7", **metadata}
        self.objects[kind, namespace, name] = {"kind": kind, "apiVersion": "v1", "metadata": made}

    def put_copy(self, uid: str = UID) -> None:
        self.put("Secret", *SPOT, labels=LABELS, annotations={n.CLIENT_UID: uid})

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Manifest | None:
        self.asked.append(f"{resource.kind} {name}")
        found = self.objects.get((resource.kind, namespace, name))
        if isinstance(found, KubeError):
            raise found
        return found

    async def list(self, resource: Resource, namespace: str | None, *, labels: Mapping[str, str]) -> list[Manifest]:
        self.asked.append(f"Secrets in {namespace or 'all'}")
        if namespace in self.errors:
            raise self.errors[namespace]
        return [
            each
            for (kind, of, _), each in self.objects.items()
            if kind == resource.kind and namespace in (None, of) and isinstance(each, dict)
            if labels.items() <= (each["metadata"].get("labels") or {}).items()
        ]

    async def delete(self, resource: Resource, namespace: str, name: str, *, uid: str) -> bool:
        if namespace in self.errors:
            raise self.errors[namespace]
        return self.objects.pop((resource.kind, namespace, name), None) is not None

    async def patch(self, resource: Resource, namespace: str, name: str, patch: Manifest, *, kind: str) -> Manifest:
        found = self.objects[resource.kind, namespace, name]
        assert isinstance(found, dict)
        assert patch["metadata"].pop("resourceVersion") == found["metadata"]["resourceVersion"]
        found["metadata"] |= patch["metadata"]
        return found


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        for module in (client_observe, client_farewell):
            monkeypatch.setattr(module, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def cluster(*namespaces: str, held: bool = False, clients: bool = True) -> EtcdCluster:
    wanted = [{"name": "web", "namespaces": list(namespaces)}] if clients else []
    made = etcd_cluster(clients=wanted)
    finalizers = (n.CLIENTS_ELSEWHERE,) if held else ()
    return made.model_copy(update={"metadata": made.metadata.model_copy(update={"finalizers": finalizers})})


def observer(stub: Stub, *watched: str) -> ClientObserver:
    return ClientObserver(cast(Kube, stub), namespaces=watched)


def look(
    stub: Stub, of: EtcdCluster, seen_by: ClientObserver | None = None, *, anew: bool = True, own: Any = ACCESS
) -> Elsewhere:
    stub.asked.clear()
    return asyncio.run((seen_by or observer(stub)).elsewhere(of, own, anew=anew))


def test_where_no_client_is_asked_for_nothing_is_read() -> None:
    assert look(stub := Stub(), cluster(clients=False)) == Elsewhere()
    assert stub.asked == []


def test_a_client_in_the_own_namespace_costs_no_read_once_it_has_its_secret() -> None:
    look(stub := Stub(), cluster(), own={"a-client": {}, "a-client-web": {}})
    assert stub.asked == []


def test_what_stands_in_the_way_of_a_secret_is_found_but_for_what_is_ours() -> None:
    (stub := Stub()).put("Secret", "ns", "a-client-web")
    assert look(stub, cluster()).taken == {"a-client-web"}
    stub.put("Secret", "ns", "a-client-web", ownerReferences=[{"uid": UID}])
    assert look(stub, cluster()).taken == frozenset()
    assert look(stub, cluster(), own={}).taken == frozenset()
    assert stub.asked == []  # nobody gets a Secret yet


def test_namespaces_and_copies_are_seen_and_what_stands_in_the_way_of_a_copy() -> None:
    (stub := Stub(shop="ns", other="")).put_copy()
    seen = look(stub, cluster("shop", "other", "none", "ns"))
    assert (set(seen.namespaces), seen.namespaces["none"]) == ({"shop", "other", "none"}, None)
    assert set(seen.copies) == {SPOT}
    assert "Secret ns.a-client-web" not in stub.asked
    stub.put("Secret", *SPOT)
    assert set(look(stub, cluster("shop")).copies) == {SPOT}
    assert "Secret ns.a-client-web" in stub.asked


def test_secrets_of_a_namespace_that_does_not_agree_are_none_of_our_business() -> None:
    (stub := Stub(shop="")).put("Secret", *SPOT)
    assert look(stub, cluster("shop")).copies == {}


def test_copies_are_looked_for_while_the_cluster_is_held_whatever_the_spec_says() -> None:
    (stub := Stub()).put_copy()
    assert set(look(stub, cluster(clients=False, held=True)).copies) == {SPOT}


def test_at_rest_namespaces_alone_are_read_and_only_from_time_to_time(clock: Clock) -> None:
    (stub := Stub(shop="ns")).put_copy()
    seen_by = observer(stub)
    own: dict[str, Manifest] = {"a-client": {}, "a-client-web": {}}
    look(stub, cluster("shop"), seen_by, own=own)
    look(stub, cluster("shop"), seen_by, anew=False, own=own)
    assert stub.asked == []
    stub.put("Namespace", None, "shop", labels={})
    clock.now += FRESH
    seen = look(stub, cluster("shop"), seen_by, anew=False, own=own)
    assert stub.asked == ["Namespace shop"]
    assert seen.namespaces["shop"] == stub.objects["Namespace", None, "shop"]
    assert set(seen.copies) == {SPOT}


def test_a_strangers_secret_that_went_is_noticed_at_rest(clock: Clock) -> None:
    (stub := Stub(shop="ns")).put("Secret", *SPOT, labels={**LABELS, n.CLIENT_NAMESPACE: "other"})
    seen_by = observer(stub)
    assert look(stub, cluster("shop"), seen_by).copies
    del stub.objects["Secret", *SPOT]
    clock.now += FRESH
    assert look(stub, cluster("shop"), seen_by, anew=False).copies == {}


def test_a_namespace_that_may_not_be_read_is_told_and_others_are_served() -> None:
    (stub := Stub(shop="ns")).objects["Namespace", None, "far"] = FORBIDDEN
    seen = look(stub, cluster("shop", "far"))
    assert seen.unreadable == {"far": "no right to"}
    assert set(seen.namespaces) == {"shop"}


def test_an_api_server_that_is_away_changes_nothing_that_was_known(clock: Clock) -> None:
    seen_by = observer(stub := Stub(shop="ns"))
    before = look(stub, cluster("shop"), seen_by)
    stub.objects["Namespace", None, "shop"] = AWAY
    clock.now += FRESH
    assert look(stub, cluster("shop"), seen_by, anew=False) == before
    assert look(stub, cluster("shop")).unreadable == {"shop": "the API server does not answer"}


def test_an_operator_of_some_namespaces_looks_for_copies_in_those_alone() -> None:
    stub = Stub(shop="ns")
    stub.errors["shop"] = FORBIDDEN
    assert look(stub, cluster("shop"), observer(stub, "ns", "shop", "more")).unlisted == "no right to"
    assert [each for each in stub.asked if each.startswith("Secrets")] == ["Secrets in shop", "Secrets in more"]


def test_refusals_are_forgotten_where_nothing_is_to_be_done_any_more() -> None:
    seen_by = observer(stub := Stub(shop="ns"))
    refusal = DeliveryRefusal(message="no", again_at=NOW)
    seen_by.refusals("ns", "a")[SPOT] = refusal
    assert look(stub, cluster("shop"), seen_by).refusals == {SPOT: refusal}
    assert look(stub, cluster(), seen_by).refusals == {}


# --- the end of an EtcdCluster ----------------------------------------------------------------------------------------


class Events:
    def __init__(self) -> None:
        self.told: list[str] = []

    def emit(self, involved: Manifest, type_: str, reason: str, message: str) -> None:
        self.told.append(f"{type_} {reason}: {message}")


def deleted(stub: Stub, *, going: bool = True, finalizers: tuple[str, ...] = ("mine", n.CLIENTS_ELSEWHERE)) -> None:
    at = {"deletionTimestamp": "2026-11-21T12:00:00Z"} if going else {}
    stub.put("EtcdCluster", "ns", "a", uid=UID, finalizers=list(finalizers), **at)


def finalizers(stub: Stub) -> list[str]:
    raw = stub.objects["EtcdCluster", "ns", "a"]
    assert isinstance(raw, dict)
    found: list[str] = raw["metadata"]["finalizers"]
    return found


def farewell(stub: Stub, events: Events) -> Farewell:
    return Farewell(cast(Kube, stub), cast(EventRecorder, events), observer(stub))


def said(parting: Farewell) -> bool:
    return asyncio.run(parting.said("ns", "a"))


def test_copies_go_first_and_then_nothing_of_ours_holds_it() -> None:
    deleted(stub := Stub())
    stub.put_copy()
    assert said(farewell(stub, events := Events()))
    assert ("Secret", *SPOT) not in stub.objects
    assert finalizers(stub) == ["mine"]
    assert events.told == []


def test_what_is_another_ones_stays() -> None:
    deleted(stub := Stub())
    stub.put_copy(uid="uid-of-another")
    assert said(farewell(stub, Events()))
    assert ("Secret", *SPOT) in stub.objects
    assert finalizers(stub) == ["mine"]


@pytest.mark.parametrize("state", [{"going": False}, {"finalizers": ("mine",)}])
def test_one_that_does_not_go_or_has_nothing_elsewhere_is_not_touched(state: dict[str, Any]) -> None:
    deleted(stub := Stub(), **state)
    stub.put_copy()
    assert said(farewell(stub, Events()))
    assert ("Secret", *SPOT) in stub.objects
    assert said(farewell(Stub(), Events()))


@pytest.mark.parametrize(("place", "error"), [("shop", FORBIDDEN), ("shop", AWAY), (None, FORBIDDEN)])
def test_what_cannot_be_taken_back_holds_it_for_a_minute_and_is_told(
    clock: Clock, place: str | None, error: KubeError
) -> None:
    deleted(stub := Stub())
    stub.put_copy()
    stub.errors[place] = error
    parting = farewell(stub, events := Events())
    assert not said(parting)
    clock.now += PATIENCE - 1
    assert not said(parting)
    assert n.CLIENTS_ELSEWHERE in finalizers(stub)
    assert events.told == []
    clock.now += 1
    assert said(parting)
    assert finalizers(stub) == ["mine"]
    (told,) = events.told
    assert told.startswith("Warning ClientSecretsLeft: ")
    assert error.message in told
