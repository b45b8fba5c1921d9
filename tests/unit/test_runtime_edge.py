"""Which keys the events of owned objects name: labels can be written by anybody."""

import asyncio
from typing import Any

import pytest

from etcd_operator.resources.names import CLIENT_CLUSTER, CLIENT_NAMESPACE, CLUSTER_LABEL
from etcd_operator.runtime.controller import Key
from etcd_operator.runtime.edge import Edge

A = Key("EtcdCluster", "ns", "a")


async def keys_of(labels: dict[str, str], namespaces: tuple[str, ...]) -> list[Key]:
    found: list[Key] = []
    edge = Edge(("EtcdCluster",), namespaces, on_change=found.append, on_list=lambda: None)
    tell: Any = edge._handler(own=None)
    await tell(event={"type": "ADDED", "object": {"metadata": {"name": "s", "namespace": "ns", "labels": labels}}})
    await asyncio.sleep(0)
    return found


@pytest.mark.parametrize(
    ("labels", "namespaces", "expected"),
    [
        pytest.param({CLUSTER_LABEL: "a"}, (), [A], id="in its own namespace"),
        pytest.param({CLIENT_CLUSTER: "a", CLIENT_NAMESPACE: "ns"}, (), [A], id="a client's copy"),
        pytest.param({CLIENT_CLUSTER: "a", CLIENT_NAMESPACE: "ns"}, ("ns", "x"), [A], id="of a served namespace"),
        pytest.param({CLIENT_CLUSTER: "a", CLIENT_NAMESPACE: "ns"}, ("x",), [], id="of one that is not served"),
        pytest.param({CLIENT_CLUSTER: "a"}, (), [], id="a copy of nobody's"),
        pytest.param({CLIENT_CLUSTER: "a", CLIENT_NAMESPACE: ""}, (), [], id="a copy of no namespace's"),
        pytest.param({}, (), [], id="no labels"),
    ],
)
def test_labels_name_the_cluster(labels: dict[str, str], namespaces: tuple[str, ...], expected: list[Key]) -> None:
    assert asyncio.run(keys_of(labels, namespaces)) == expected
