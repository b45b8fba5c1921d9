"""Which API servers a rotation of the client authority has to wait for."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from etcd_operator.cluster.api_servers import behind
from etcd_operator.kube import Forbidden, Kube, Manifest
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
