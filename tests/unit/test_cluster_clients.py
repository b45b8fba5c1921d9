"""Clients of the spec: who gets a Secret where, when it is taken back, and what is told of the rest."""

import asyncio
import base64
import copy
from dataclasses import replace
from datetime import timedelta
from typing import Any, cast

import pytest

from etcd_operator.cluster.act import Hands, act
from etcd_operator.cluster.conditions import Outcome, progressing
from etcd_operator.cluster.observation import DeliveryRefusal, Elsewhere, Observation, Spot
from etcd_operator.cluster.plan import RULES
from etcd_operator.cluster.steps import Apply, Delete, Deliver, IssueLeaf, SetFinalizers, Step, TakeBack
from etcd_operator.etcd.client import EtcdClient
from etcd_operator.kube import Conflict, Forbidden, Kube, KubeError, Unavailable
from etcd_operator.pki import inspect
from etcd_operator.resources import names as n
from etcd_operator.resources.names import Manifest
from etcd_operator.resources.secrets import client_copy, client_endpoints, content, named_client_leaf
from support.builders import (
    NAMES,
    NOW,
    UID,
    authority,
    blueprint,
    edited,
    judged,
    leaf_secret,
    live,
    observation,
    with_object,
    with_spec,
    without,
)
from support.plans import planned, the_step

PLAN = blueprint()
WEB: dict[str, Any] = {"name": "web"}
SHOP: dict[str, Any] = {"name": "web", "namespaces": ["shop"]}
SPOT: Spot = ("shop", "ns.a-client-web")


def namespace(accepts: str = "ns", **metadata: Any) -> Manifest:
    return {"kind": "Namespace", "metadata": {"name": "shop", "labels": {n.ACCEPTS_CLIENTS: accepts}, **metadata}}


def source(client: str = "web", *, days: int = 1) -> Manifest:
    """The Secret of a client in the cluster's own namespace."""
    made = leaf_secret(PLAN, named_client_leaf(PLAN, client), days=days)
    endpoints = base64.b64encode(client_endpoints(PLAN).encode()).decode()
    return {**made, "data": {**made["data"], "endpoints": endpoints}}


def served(*clients: dict[str, Any], held: bool = False, **elsewhere: Any) -> Observation:
    """A cluster with these clients, whose Secrets are in its own namespace; `elsewhere` is what else there is."""
    seen = with_spec(observation(), clients=list(clients))
    for each in clients:
        seen = with_object(seen, "secrets", source(each["name"]))
    finalizers = (n.CLIENTS_ELSEWHERE,) if held else ()
    metadata = seen.cluster.metadata.model_copy(update={"finalizers": finalizers, "resource_version": "7"})
    cluster = seen.cluster.model_copy(update={"metadata": metadata})
    return replace(seen, cluster=cluster, elsewhere=Elsewhere(**{"namespaces": {"shop": namespace()}, **elsewhere}))


def delivered(**metadata: Any) -> Manifest:
    """The copy of the client's Secret, as it should be."""
    return live(client_copy(PLAN, "web", "shop", content(source())), **metadata)


def of_another(annotations: dict[str, str] | None = None) -> Manifest:
    return delivered(annotations=annotations or {})


def told(seen: Observation) -> str:
    condition = progressing(judged(seen), Outcome(plan=planned(seen)))
    return f"{condition.reason}: {condition.message}"


# --- in the cluster's own namespace -----------------------------------------------------------------------------------


def test_a_client_gets_a_certificate_with_its_own_name_that_is_good_for_nothing_but_a_client() -> None:
    seen = without(served(WEB), "secrets", "a-client-web")
    step = the_step(seen)
    assert isinstance(step, IssueLeaf)
    kube = Recorder()
    carry_out(kube, step)
    (made,) = kube.applied
    assert (made["metadata"]["name"], made["metadata"]["namespace"]) == ("a-client-web", "ns")
    assert made["metadata"]["ownerReferences"][0]["uid"] == UID
    data = content(made)
    info = inspect(data["tls.crt"])
    assert (info.common_name, info.client, info.server) == ("web", True, False)
    assert data["ca.crt"] == authority("client").cert_pem
    assert data["endpoints"] == b"https://a.ns.svc:2379"


def test_nobody_gets_one_before_clients_are_let_in() -> None:
    seen = with_spec(observation(recorded=False), clients=[WEB])
    assert not any("client-web" in str(step) for step in planned(seen).steps)


def test_at_rest_nothing_is_done() -> None:
    assert planned(served(WEB)).rule == "at_rest"
    assert planned(served(SHOP, held=True, copies={SPOT: delivered()})).rule == "at_rest"


def test_it_is_renewed_as_the_others_are() -> None:
    seen = with_object(served(WEB), "secrets", source(days=61))
    step = the_step(seen)
    assert isinstance(step, IssueLeaf)
    assert "a-client-web expires at" in step.reason


def test_labels_that_a_stray_hand_took_come_back() -> None:
    seen = edited(served(WEB), "secrets", "a-client-web", lambda each: each["metadata"].pop("ownerReferences"))
    step = the_step(seen)
    assert isinstance(step, Apply)
    assert content(step.manifest) == content(source())


def test_it_goes_with_its_entry_and_no_other_secret_does() -> None:
    seen = with_object(served(WEB), "secrets", source("worker"))
    step = the_step(seen)
    assert isinstance(step, Delete)
    assert (step.kind, step.name) == ("Secret", "a-client-worker")
    stranger = edited(seen, "secrets", "a-client-worker", lambda each: each["metadata"].pop("ownerReferences"))
    assert planned(stranger).rule == "at_rest"


def test_a_strangers_secret_is_left_alone_and_told_while_others_are_served() -> None:
    seen = without(served(WEB, {"name": "worker"}), "secrets", "a-client-web", "a-client-worker")
    seen = replace(seen, elsewhere=Elsewhere(taken=frozenset({"a-client-web"})))
    step = the_step(seen)
    assert isinstance(step, IssueLeaf)
    assert step.request.secret == "a-client-worker"
    seen = with_object(seen, "secrets", source("worker"))
    assert planned(seen).rule == "at_rest"
    assert told(seen).startswith("ClientsNotServed: Secret a-client-web exists and does not belong to this EtcdCluster")


def test_nothing_of_the_etcd_waits_for_a_client() -> None:
    names = [rule.__name__ for rule in RULES]
    acting = [name for name in names if not name.startswith("wait_for")]
    assert acting[-4:] == ["keep_client_secrets", "hold_for_copies", "deliver_copies", "let_go_without_copies"]


# --- in other namespaces ----------------------------------------------------------------------------------------------


def test_the_cluster_is_held_before_the_first_copy_is_made() -> None:
    step = the_step(served(SHOP))
    assert isinstance(step, SetFinalizers)
    assert (step.finalizers, step.resource_version) == ((n.CLIENTS_ELSEWHERE,), "7")


def test_a_namespace_that_agrees_gets_a_copy_that_is_no_other_clusters() -> None:
    step = the_step(served(SHOP, held=True))
    assert isinstance(step, Deliver)
    assert (step.spot, step.uid) == (SPOT, "")
    assert content(step.manifest) == content(source())
    metadata = step.manifest["metadata"]
    assert n.CLUSTER_LABEL not in metadata["labels"]
    assert "ownerReferences" not in metadata


def test_a_copy_follows_the_secret_that_it_is_a_copy_of() -> None:
    old = delivered()
    old["data"] = {**old["data"], "ca.crt": ""}
    step = the_step(served(SHOP, held=True, copies={SPOT: old}))
    assert isinstance(step, Deliver)
    assert step.uid == old["metadata"]["uid"]


@pytest.mark.parametrize(
    ("label", "agrees"), [("ns", True), ("other_ns", True), ("ns_other", True), ("", False), ("nsx", False)]
)
def test_a_namespace_agrees_by_the_name_of_the_clusters_namespace_in_its_label(label: str, agrees: bool) -> None:
    assert bool(planned(served(SHOP, namespaces={"shop": namespace(label)})).steps) is agrees


@pytest.mark.parametrize(
    ("elsewhere", "says"),
    [
        ({"namespaces": {"shop": None}}, "namespace shop does not exist: create it"),
        (
            {"namespaces": {"shop": namespace("")}},
            f"to agree: kubectl label namespace shop {n.ACCEPTS_CLIENTS}=ns",
        ),
        (
            {"namespaces": {"shop": namespace("other")}},
            f"to agree: kubectl label --overwrite namespace shop {n.ACCEPTS_CLIENTS}=other_ns",
        ),
        ({"namespaces": {"shop": namespace(deletionTimestamp="now")}}, "namespace shop is being deleted"),
        ({"unreadable": {"shop": "no right to"}}, "namespace shop is not the operator's to serve (no right to)"),
    ],
)
def test_what_keeps_a_namespace_from_its_copy_is_told_with_what_to_do(elsewhere: dict[str, Any], says: str) -> None:
    seen = served(SHOP, **elsewhere)
    assert planned(seen).rule == "at_rest"
    assert told(seen).startswith("ClientsNotServed: ")
    assert says in told(seen)


def test_the_clusters_own_namespace_needs_neither_label_nor_copy() -> None:
    seen = served({"name": "web", "namespaces": ["ns"]}, namespaces={})
    assert planned(seen).rule == "at_rest"
    assert told(seen).startswith("AsSpecified")


@pytest.mark.parametrize("client", [WEB, {"name": "worker", "namespaces": ["shop"]}])
def test_a_copy_goes_when_nobody_asks_for_it_any_more(client: dict[str, Any]) -> None:
    seen = served(client, held=True, copies={SPOT: delivered()})
    (step,) = (each for each in planned(seen).steps if isinstance(each, TakeBack))
    assert (step.spot, step.uid) == (SPOT, delivered()["metadata"]["uid"])


def test_a_copy_goes_when_the_namespace_does_not_agree_any_more() -> None:
    seen = served(SHOP, held=True, copies={SPOT: delivered()}, namespaces={"shop": namespace("")})
    step = the_step(seen)
    assert isinstance(step, TakeBack)
    assert "does not agree any more" in step.reason


@pytest.mark.parametrize(
    "elsewhere", [{"unreadable": {"shop": "no right to"}}, {"namespaces": {"shop": namespace(deletionTimestamp="now")}}]
)
def test_unknown_is_no_withdrawal(elsewhere: dict[str, Any]) -> None:
    assert planned(served(SHOP, held=True, copies={SPOT: delivered()}, **elsewhere)).rule == "at_rest"


@pytest.mark.parametrize("annotations", [None, {n.CLIENT_UID: "uid-of-another"}])
def test_what_is_not_ours_is_neither_overwritten_nor_deleted(annotations: dict[str, str] | None) -> None:
    stranger = of_another(annotations)
    seen = served(SHOP, held=True, copies={SPOT: stranger})
    assert planned(seen).rule == "at_rest"
    assert "Secret ns.a-client-web in namespace shop exists and does not belong to this EtcdCluster" in told(seen)
    step = the_step(served(WEB, held=True, copies={SPOT: stranger}))
    assert isinstance(step, SetFinalizers)  # that one holds nobody


def test_the_cluster_is_held_no_longer_once_no_copy_is_left() -> None:
    step = the_step(served(WEB, held=True))
    assert isinstance(step, SetFinalizers)
    assert step.finalizers == ()
    going = delivered(deletionTimestamp="now", annotations={n.CLIENT_UID: UID})
    assert planned(served(WEB, held=True, copies={SPOT: going})).rule == "at_rest"


def test_it_stays_held_while_nobody_knows_where_copies_are() -> None:
    seen = served(WEB, held=True, unlisted="no right to list")
    assert planned(seen).rule == "at_rest"
    assert "Secrets in other namespaces cannot be listed" in told(seen)


def test_what_was_refused_is_told_and_tried_again_after_a_while() -> None:
    refusal = DeliveryRefusal(message="exceeded quota", again_at=NOW + timedelta(seconds=1))
    seen = served(SHOP, held=True, refusals={SPOT: refusal})
    assert planned(seen).rule == "at_rest"
    assert "Secret ns.a-client-web cannot be written to namespace shop: exceeded quota" in told(seen)
    assert isinstance(the_step(replace(seen, at=NOW + timedelta(seconds=1))), Deliver)


def test_an_etcd_without_tls_has_no_certificates_and_says_so() -> None:
    seen = with_spec(observation(tls={"client": {"mode": "Off"}}), clients=[WEB])
    assert planned(seen).rule == "at_rest"
    assert "runs without TLS for clients" in told(seen)


def test_names_that_clients_cannot_have_are_those_of_the_operator_itself() -> None:
    assert NAMES.client_secret("ca") == NAMES.client_authority
    assert NAMES.client_of_secret(NAMES.client_authority) is None
    assert NAMES.client_of_secret(NAMES.client_access) is None
    assert NAMES.client_of_secret("a-client-web") == "web"


# --- carried out ------------------------------------------------------------------------------------------------------


class Recorder:
    """An API server that takes everything, or answers with an error."""

    def __init__(self, error: KubeError | None = None) -> None:
        self.error = error
        self.applied: list[Manifest] = []
        self.created: list[Manifest] = []
        self.deleted: list[tuple[str, str | None, str, str | None]] = []
        self.patched: list[Manifest] = []

    async def get(self, *_: object) -> None:
        return None

    async def apply(self, manifest: Manifest) -> Manifest:
        return self._take(self.applied, manifest)

    async def create(self, manifest: Manifest) -> Manifest:
        return self._take(self.created, manifest)

    async def patch(self, resource: object, namespace: str, name: str, patch: Manifest, *, kind: str) -> Manifest:
        return self._take(self.patched, patch)

    async def delete(self, resource: Any, namespace: str, name: str, *, uid: str | None = None) -> bool:
        if self.error:
            raise self.error
        self.deleted.append((resource.kind, namespace, name, uid))
        return True

    def _take(self, into: list[Manifest], manifest: Manifest) -> Manifest:
        if self.error:
            raise self.error
        into.append(copy.deepcopy(manifest))
        return manifest


def carry_out(kube: Recorder, *steps: Step, refusals: dict[Spot, DeliveryRefusal] | None = None) -> None:
    seen = observation()
    raw = {"metadata": {"name": "a", "namespace": "ns"}}
    hands = Hands(cast(Kube, kube), cast(EtcdClient, None), {}, "", refusals={} if refusals is None else refusals)
    asyncio.run(act(hands, seen.cluster, raw, steps))


def test_a_copy_is_created_where_none_was_seen_and_never_written_over_another_one() -> None:
    kube = Recorder()
    carry_out(kube, the_step(served(SHOP, held=True)))
    assert (len(kube.created), len(kube.applied)) == (1, 0)
    old = delivered()
    old["data"] = {}
    carry_out(kube, the_step(served(SHOP, held=True, copies={SPOT: old})))
    assert [each["metadata"]["uid"] for each in kube.applied] == [old["metadata"]["uid"]]


def test_it_is_taken_back_only_if_it_is_the_one_that_was_seen() -> None:
    kube = Recorder()
    carry_out(kube, the_step(served(SHOP, held=True, copies={SPOT: delivered()}, namespaces={"shop": namespace("")})))
    assert kube.deleted == [("Secret", *SPOT, delivered()["metadata"]["uid"])]


def test_the_finalizer_is_set_on_just_the_object_that_was_seen() -> None:
    kube = Recorder()
    carry_out(kube, the_step(served(SHOP)))
    (patch,) = kube.patched
    assert patch["metadata"] == {"uid": UID, "resourceVersion": "7", "finalizers": [n.CLIENTS_ELSEWHERE]}


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (Forbidden(status=403, reason="Forbidden", message="exceeded quota"), "exceeded quota"),
        (Unavailable(status=500, reason="InternalError", message="after 3.1 s"), "the API server did not answer"),
    ],
)
def test_a_refusal_elsewhere_is_no_failure_of_the_round(error: KubeError, message: str) -> None:
    refusals: dict[Spot, DeliveryRefusal] = {}
    step = the_step(served(SHOP, held=True))
    carry_out(Recorder(error), step, refusals=refusals)
    assert refusals[SPOT].message == message
    carry_out(Recorder(), step, refusals=refusals)
    assert refusals == {}


def test_a_secret_that_appeared_meanwhile_means_another_look() -> None:
    with pytest.raises(Conflict):
        carry_out(
            Recorder(Conflict(status=409, reason="AlreadyExists", message="x")), the_step(served(SHOP, held=True))
        )
