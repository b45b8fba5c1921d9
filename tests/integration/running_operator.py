"""The runtime around the toy controller, in the test's own process, and what its objects should look like."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from etcd_operator.kube import EventRecorder, Kube
from etcd_operator.kube.resources import CONFIGMAPS, ETCDCLUSTERS
from etcd_operator.runtime.controller import Controller, Key, Result
from etcd_operator.runtime.main import Operator
from etcd_operator.runtime.metrics import Metrics
from etcd_operator.runtime.settings import Settings
from integration.support import until
from integration.toy_operator import ToyController


class Watched(ToyController):
    """The toy, with every reconcile written down."""

    def __init__(self, kube: Kube, events: EventRecorder) -> None:
        super().__init__(kube, events)
        self.calls: list[tuple[str, bool]] = []

    async def reconcile(self, key: Key, *, changed: bool) -> Result:
        self.calls.append((str(key), changed))
        return await super().reconcile(key, changed=changed)

    def count(self, key: str) -> int:
        return sum(each == key for each, _ in self.calls)


class Running:
    """An operator in this process."""

    def __init__(self) -> None:
        self.toy: Watched
        self.operator: Operator

    def compose(self, kube: Kube, events: EventRecorder, settings: Settings, metrics: Metrics) -> Sequence[Controller]:
        self.toy = Watched(kube, events)
        return [self.toy]

    async def read(self, path: str) -> tuple[int, str]:
        url = f"http://127.0.0.1:{self.operator.health_port}{path}"
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            return answer.status, await answer.text()


Run = Callable[..., AbstractAsyncContextManager[Running]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, namespace: str) -> Run:
    """`async with run(kubeconfig, **settings) as running`: an operator that leads, with a Lease of its own."""

    @asynccontextmanager
    async def start(kubeconfig: Path, **settings: Any) -> AsyncIterator[Running]:
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
        running, stop = Running(), asyncio.Event()
        usual = Settings(
            lease_namespace=namespace, health_port=0, health_address="127.0.0.1", watch_namespaces=(namespace,)
        )
        made = dataclasses.replace(usual, **settings)
        running.operator = Operator(made, running.compose)
        task = asyncio.create_task(running.operator.run(stop))

        async def leads() -> bool:
            if task.done():
                task.result()
            return running.operator.health_port > 0 and "leader 1.0" in (await running.read("/metrics"))[1]

        try:
            await until(leads)
            yield running
        finally:
            stop.set()
            async with asyncio.timeout(10):
                await asyncio.gather(task, return_exceptions=True)

    return start


def etcd_cluster(namespace: str, name: str, members: int = 3) -> dict[str, Any]:
    return {
        "apiVersion": ETCDCLUSTERS.api_version,
        "kind": "EtcdCluster",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"members": members},
    }


async def has_members(kube: Kube, namespace: str, name: str, members: int) -> bool:
    found = await kube.get(CONFIGMAPS, namespace, f"{name}-toy")
    return found is not None and found["data"] == {"members": str(members)}
