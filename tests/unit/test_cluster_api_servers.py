"""Which API servers hold on to an authority that is rotated, or to the address of a member that is gone."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from etcd_operator.cluster.api_servers import behind, listed
from etcd_operator.kube import Forbidden, Kube, KubeError, Manifest, Unavailable
from etcd_operator.kube.resources import APISERVERBINDINGS, Resource
from etcd_operator.resources.secrets import authority_digest

CLUSTER = {"metadata": {"name": "a", "namespace": "ns"}}
NEW = authority_digest(b"new")


def binding(name: str = "b", namespace: str = "ns", *, reference: Manifest | None = None, **status: Any) -> Manifest:
    target = {"manual": {}} if name == "manual" else {"deployment": {"name": "api"}}
    return {
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"clusterRef": reference or {"name": "a"}, "target": target},
        "status": status,
    }


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        pytest.param(binding(arguments=["--x"], authority=NEW), (), id="trusts it"),
        pytest.param(binding(arguments=["--x"], authority="old"), ("ns/b",), id="trusts another"),
        pytest.param(binding(arguments=["--x"]), ("ns/b",), id="was never whole"),
        pytest.param(binding(), (), id="was never wired"),
        pytest.param(binding("manual", arguments=["--x"]), (), id="nobody sees it"),
        pytest.param(binding(reference={"name": "b"}, arguments=["--x"]), (), id="another etcd"),
        pytest.param(binding(namespace="other", arguments=["--x"]), (), id="another namespace's etcd"),
        pytest.param(
            binding(namespace="other", reference={"name": "a", "namespace": "ns"}, arguments=["--x"]),
            ("other/b",),
            id="from another namespace",
        ),
    ],
)
def test_those_that_were_wired_and_do_not_trust_it(found: Manifest, expected: tuple[str, ...]) -> None:
    async def listed(resource: Resource, namespace: str | None) -> list[Manifest]:
        assert (resource, namespace) == (APISERVERBINDINGS, None)
        return [found]

    kube = cast(Kube, SimpleNamespace(list=listed))
    assert asyncio.run(behind(kube, (), CLUSTER, b"new")) == expected


def test_a_namespace_that_may_not_be_read_holds_nothing_up() -> None:
    async def refused(resource: Resource, namespace: str | None) -> list[Manifest]:
        raise Forbidden(status=403, reason="Forbidden", message="no", details={}, request="list")

    kube = cast(Kube, SimpleNamespace(list=refused))
    assert asyncio.run(behind(kube, ("ns",), CLUSTER, b"new")) == ()


def test_what_bindings_tell_and_what_their_instances_run_with_is_listed() -> None:
    running = [{"name": "p", "etcdServers": "https://192.0.2.1:30001"}, {"name": "q"}]
    told = ["--etcd-cafile=/x", "--etcd-servers=https://192.0.2.1:30000,https://[2001:db8::1]:30002"]
    bindings = {"ns": [binding(arguments=told, instances=running), binding("new")], "other": []}

    async def found(resource: Resource, namespace: str | None) -> list[Manifest]:
        assert resource == APISERVERBINDINGS
        return bindings[str(namespace)]

    kube = cast(Kube, SimpleNamespace(list=found))
    assert asyncio.run(listed(kube, ("ns", "other"))) == frozenset(
        {
            "https://192.0.2.1:30000",
            "https://192.0.2.1:30001",
            "https://[2001:db8::1]:30002",
        }
    )


@pytest.mark.parametrize("kind", [Forbidden, Unavailable])
def test_a_namespace_that_cannot_be_read_may_list_anything(kind: type[KubeError]) -> None:
    async def refused(resource: Resource, namespace: str | None) -> list[Manifest]:
        if namespace == "ns":
            return [binding(arguments=["--etcd-servers=https://192.0.2.1:30000"])]
        raise kind(status=0, reason="x", message="no", details={}, request="list")

    assert asyncio.run(listed(cast(Kube, SimpleNamespace(list=refused)), ("ns", "other"))) is None
