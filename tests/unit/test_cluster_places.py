"""Which nodes and volumes are looked up, when, and what is made of the answers."""

from collections.abc import Mapping
from typing import Any, cast

import pytest

from etcd_operator.cluster.observation import MOST_NAMED, Nodes, Objects, Observation, Place
from etcd_operator.cluster.places import FORBIDDEN_FOR, Places
from etcd_operator.kube import Forbidden, Kube, Unavailable
from etcd_operator.kube.resources import Resource
from etcd_operator.resources.names import Manifest
from support.builders import annotated, observation, with_pod, without

HOSTNAME = "kubernetes.io/hostname"


class Stub:
    """An API server with these nodes (name: the Ready condition's status) and volumes."""

    def __init__(self, nodes: Mapping[str, str], *volumes: Manifest, error: Exception | None = None) -> None:
        self.nodes: dict[str, Manifest] = {
            name: {
                "metadata": {"name": name, "labels": {HOSTNAME: name, "zone": "z"}},
                "status": {
                    "conditions": [{"type": "Ready", "status": status}],
                    "addresses": [
                        {"type": "Hostname", "address": name},
                        {"type": "InternalIP", "address": f"192.0.2.{len(name)}"},
                        {"type": "ExternalIP", "address": f"198.51.100.{len(name)}"},
                    ],
                },
            }
            for name, status in nodes.items()
        }
        self.volumes = {volume["metadata"]["name"]: volume for volume in volumes}
        self.error = error
        self.asked: list[str] = []

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Manifest | None:
        self.asked.append(f"{resource.kind} {name}")
        if self.error:
            raise self.error
        found: Mapping[str, Manifest] = self.nodes if resource.kind == "Node" else self.volumes
        return found.get(name)

    async def list(
        self,
        resource: Resource,
        namespace: str | None,
        *,
        labels: Mapping[str, str] | None = None,
        fields: str = "",
        most: int = 0,
    ) -> list[Manifest]:
        self.asked.append(f"Nodes {dict(labels or {})}{fields}")
        if self.error:
            raise self.error
        wanted = (labels or {}).items()
        found = [node for node in self.nodes.values() if wanted <= node["metadata"]["labels"].items()]
        return [node for node in found if not fields or fields == f"metadata.name={node['metadata']['name']}"][:most]


def places(stub: Stub, *, allowed: bool = True) -> Places:
    return Places(cast(Kube, stub), allowed=allowed)


def volume(*terms: Manifest, policy: str = "Delete") -> Manifest:
    spec: Manifest = {"persistentVolumeReclaimPolicy": policy}
    if terms:
        spec["nodeAffinity"] = {"required": {"nodeSelectorTerms": list(terms)}}
    return {"metadata": {"name": "pv-a-1", "uid": "u"}, "spec": spec}


def tied(*values: str, key: str = HOSTNAME, operator: str = "In") -> Manifest:
    return {"matchExpressions": [{"key": key, "operator": operator, "values": list(values)}]}


ILL = with_pod(observation(), "a-1", ready=False, node="n1")


async def place(stub: Stub, seen: Observation = ILL) -> Place:
    found = await places(stub).of(seen.names, seen.objects, anew=True)
    assert set(found) == {"a-1"}
    return found["a-1"]


async def test_nothing_is_asked_about_members_that_are_well() -> None:
    stub = Stub({})
    assert await places(stub).of(observation().names, observation().objects, anew=True) == {}
    assert stub.asked == []


async def test_a_volume_that_is_kept_of_a_member_scaled_away_is_not_asked_about() -> None:
    seen, bigger = observation(), observation(members=5)
    objects = Objects(pods=seen.objects.pods, stateful_sets=seen.objects.stateful_sets, claims=bigger.objects.claims)
    assert await places(Stub({})).of(seen.names, objects, anew=True) == {}
    marked = annotated(bigger, "claims", "data-a-4", abandoned="ab/c").objects.claims
    objects = Objects(pods=seen.objects.pods, stateful_sets=seen.objects.stateful_sets, claims=marked)
    assert set(await places(Stub({})).of(seen.names, objects, anew=True)) == {"a-4"}


@pytest.mark.parametrize(
    ("ready", "home"), [("True", Nodes.READY), ("False", Nodes.NOT_READY), ("Unknown", Nodes.NOT_READY)]
)
async def test_a_local_volume_and_its_node(ready: str, home: Nodes) -> None:
    found = await place(Stub({"n1": ready, "n2": "True"}, volume(tied("n1"))))
    assert found == Place(volume="pv-a-1", uid="u", retained=False, home=home, homes="n1", node=home)


async def test_a_node_that_was_deleted() -> None:
    found = await place(Stub({"n2": "True"}, volume(tied("n1"), policy="Retain")))
    assert (found.home, found.node, found.retained) == (Nodes.GONE, Nodes.GONE, True)
    by_name = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}
    assert (await place(Stub({"n2": "True"}, volume(by_name)))).home is Nodes.GONE
    assert (await place(Stub({"n1": "True"}, volume(by_name)))).home is Nodes.READY


async def test_one_node_of_several_is_enough() -> None:
    stub = Stub({"n1": "False", "n2": "True"}, volume(tied("n1"), tied("n2")))
    assert (await place(stub)).home is Nodes.READY
    stub = Stub({"n1": "False"}, volume(tied("n1", "n2")))
    assert (await place(stub)).home is Nodes.NOT_READY


async def test_a_volume_that_is_tied_to_no_node_or_to_many_is_at_home_anywhere() -> None:
    assert (await place(Stub({}, volume()))).home is Nodes.READY
    stub = Stub({f"n{number}": "False" for number in range(9)}, volume(tied("z", key="zone")))
    assert (await place(stub)).home is Nodes.READY


@pytest.mark.parametrize("term", [tied("n1", operator="NotIn"), {}, tied("n1", operator="Exists")])
async def test_what_is_said_in_another_way_proves_nothing(term: Manifest) -> None:
    assert (await place(Stub({}, volume(term)))).home is None


async def test_no_volume_is_no_proof_either() -> None:
    assert (await place(Stub({"n1": "True"}))) == Place(node=Nodes.READY)
    seen = without(ILL, "pods", "a-1")
    assert (await place(Stub({}), seen)) == Place()


async def test_one_answer_serves_many_looks_but_not_one_that_changes_something() -> None:
    stub = Stub({"n1": "False"}, volume(tied("n1")))
    kept = places(stub)
    for _ in range(3):
        await kept.of(ILL.names, ILL.objects, anew=False)
    assert len(stub.asked) == 3
    await kept.of(ILL.names, ILL.objects, anew=True)
    assert len(stub.asked) == 6


def refused(kind: type[Any], status: int) -> Exception:
    return cast(Exception, kind(status=status, reason="x", message="x"))


async def test_without_the_right_nothing_is_known_and_nothing_asked_again() -> None:
    stub = Stub({}, error=refused(Forbidden, 403))
    kept = places(stub)
    assert [await kept.of(ILL.names, ILL.objects, anew=True) for _ in range(3)] == [{}, {}, {}]
    assert len(stub.asked) == 1
    stub = Stub({})
    assert await places(stub, allowed=False).of(ILL.names, ILL.objects, anew=True) == {}
    assert stub.asked == []


async def test_an_api_server_that_does_not_answer_is_asked_again() -> None:
    stub = Stub({"n1": "True"}, error=refused(Unavailable, 503))
    kept = places(stub)
    assert await kept.of(ILL.names, ILL.objects, anew=True) == {}
    stub.error = None
    assert set(await kept.of(ILL.names, ILL.objects, anew=True)) == {"a-1"}


async def test_the_addresses_of_all_nodes_internal_ones_first() -> None:
    found = await places(Stub({"n1": "True", "no2": "False"})).nodes()
    assert found is not None
    assert [(each.name, each.ready) for each in found] == [("n1", True), ("no2", False)]
    assert [each.addresses for each in found] == [("192.0.2.2", "198.51.100.2"), ("192.0.2.3", "198.51.100.3")]


async def test_of_more_nodes_than_a_certificate_can_name_one_more_is_read() -> None:
    most = {f"n{number}": "True" for number in range(MOST_NAMED + 20)}
    found = await places(Stub(most)).nodes()
    assert found is not None
    assert len(found) == MOST_NAMED + 1


async def test_an_operator_that_may_not_read_nodes_does_not_know_them() -> None:
    stub = Stub({"n1": "True"}, error=refused(Forbidden, 403))
    asking = places(stub)
    assert (await asking.nodes(), await asking.nodes()) == (None, None)
    assert len(stub.asked) == 1
    assert await places(Stub({"n1": "True"}), allowed=False).nodes() is None


async def test_what_was_forbidden_is_tried_again_later(monkeypatch: pytest.MonkeyPatch) -> None:
    stub, now = Stub({"n1": "True"}, error=refused(Forbidden, 403)), 1000.0
    asking = places(stub)
    monkeypatch.setattr("etcd_operator.cluster.places.monotonic", lambda: now)
    assert await asking.nodes() is None
    stub.error = None
    now += FORBIDDEN_FOR - 1
    assert await asking.nodes() is None
    now += 1
    assert await asking.nodes()


async def test_nodes_that_could_not_be_read_are_not_known_and_asked_for_again() -> None:
    stub = Stub({"n1": "True"}, error=refused(Unavailable, 503))
    asking = places(stub)
    assert await asking.nodes() is None
    stub.error = None
    assert await asking.nodes()
