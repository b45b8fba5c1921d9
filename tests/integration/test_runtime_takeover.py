"""Two replicas as processes: who acts, and how long nobody does."""

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from etcd_operator.kube import Kube
from etcd_operator.kube.resources import LEASES
from integration.faulty_proxy import FaultyProxy
from integration.running_operator import etcd_cluster, has_members
from integration.support import until

TESTS = Path(__file__).parents[1]


class Replica:
    """One operator process, with the lines it wrote."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.reconciles: list[dict[str, Any]] = []
        self.log: list[dict[str, Any]] = []
        self._readers = [asyncio.create_task(self._read_out()), asyncio.create_task(self._read_log())]

    def logged(self, event: str) -> bool:
        return any(line["event"] == event for line in self.log)

    async def waits(self, event: str, *, seconds: float = 30.0) -> None:
        async def so() -> bool:
            return self.logged(event)

        await until(so, seconds=seconds)

    async def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        async with asyncio.timeout(20):
            await asyncio.gather(*self._readers)
            return await self.process.wait()

    async def _read_out(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            self.reconciles.append(json.loads(line))

    async def _read_log(self) -> None:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            self.log.append(json.loads(line))


Start = Callable[..., Any]


@pytest.fixture
async def start(namespace: str) -> AsyncIterator[Start]:
    """`await start(kubeconfig)`: another replica."""
    replicas: list[Replica] = []

    async def make(kubeconfig: Path, **environment: str) -> Replica:
        settings = {
            "KUBECONFIG": str(kubeconfig),
            "WATCH_NAMESPACES": namespace,
            "LEASE_NAMESPACE": namespace,
            "LOG_FORMAT": "json",
            "HEALTH_ADDRESS": "127.0.0.1",
            "HEALTH_PORT": "0",
            "POD_NAME": f"operator-{len(replicas)}",
            "PYTHONPATH": os.pathsep.join([str(TESTS), os.environ["PYTHONPATH"]]),
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "integration.toy_operator",
            env={**os.environ, **settings, **environment},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        replicas.append(Replica(process))
        return replicas[-1]

    yield make
    for replica in replicas:
        if replica.process.returncode is None:
            await replica.end(signal.SIGKILL)


async def two_replicas(start: Start, kubeconfig: Path, kube: Kube, namespace: str) -> tuple[Replica, Replica]:
    """The one that leads and has acted, and the one that stands by."""
    leader = await start(kubeconfig)
    await leader.waits("election.leading")
    await kube.apply(etcd_cluster(namespace, "a"))
    await until(lambda: has_members(kube, namespace, "a", 3))
    standby = await start(kubeconfig)
    await standby.waits("election.standby")
    assert not standby.reconciles
    return leader, standby


async def first_reconcile(replica: Replica, *, seconds: float) -> float:
    """When a replica first acted, on the wall clock."""

    async def acts() -> bool:
        return bool(replica.reconciles)

    await until(acts, seconds=seconds, every=0.01)
    return float(replica.reconciles[0]["at"])


async def test_an_orderly_stop_hands_over_within_two_seconds(
    start: Start, admin_kubeconfig: Path, kube: Kube, namespace: str
) -> None:
    leader, standby = await two_replicas(start, admin_kubeconfig, kube, namespace)
    await kube.apply(etcd_cluster(namespace, "slow-a"))  # a reconcile in flight must not hold it up

    async def in_flight() -> bool:
        return bool(leader.reconciles[-1]["key"].endswith("slow-a"))

    await until(in_flight)
    asked = time.time()
    ending = asyncio.create_task(leader.end(signal.SIGTERM))
    took = await first_reconcile(standby, seconds=10) - asked
    assert await ending == 0
    assert took < 2.0
    assert leader.logged("election.released")
    assert max(each["at"] for each in leader.reconciles) < standby.reconciles[0]["at"]


async def test_a_killed_leader_is_replaced_within_twenty_seconds(
    start: Start, admin_kubeconfig: Path, kube: Kube, namespace: str
) -> None:
    leader, standby = await two_replicas(start, admin_kubeconfig, kube, namespace)
    asked = time.time()
    await leader.end(signal.SIGKILL)
    took = await first_reconcile(standby, seconds=30) - asked
    assert took < 20.0
    await kube.apply(etcd_cluster(namespace, "a", 5))
    await until(lambda: has_members(kube, namespace, "a", 5), seconds=3)


async def test_a_leader_that_stood_still_ends_without_another_write(
    start: Start, admin_kubeconfig: Path, kube: Kube, namespace: str
) -> None:
    short = {"LEASE_DURATION_SECONDS": "4"}
    leader = await start(admin_kubeconfig, **short)
    await leader.waits("election.leading")
    await kube.apply(etcd_cluster(namespace, "busy-a"))
    await first_reconcile(leader, seconds=10)
    standby = await start(admin_kubeconfig, **short)
    await standby.waits("election.standby")
    leader.process.send_signal(signal.SIGSTOP)
    await first_reconcile(standby, seconds=20)
    # While it stood still the cluster changed; the old leader must not answer to that.
    await kube.apply(etcd_cluster(namespace, "busy-a", 5))
    await until(lambda: has_members(kube, namespace, "busy-a", 5), seconds=5)
    leader.process.send_signal(signal.SIGCONT)
    async with asyncio.timeout(10):
        assert await leader.process.wait() == 1
    lease = await kube.get(LEASES, namespace, "external-etcd-operator")
    assert lease is not None
    assert lease["spec"]["holderIdentity"].startswith("operator-1")


async def test_a_leader_without_an_api_server_ends_before_its_lease_does(
    start: Start, api_server: Any, tmp_path: Path, namespace: str
) -> None:
    async with FaultyProxy(api_server.url, api_server.tls()) as proxy:
        leader = await start(proxy.kubeconfig(tmp_path), LEASE_DURATION_SECONDS="4")
        await leader.waits("election.leading")
        proxy.fault = lambda request: 503
        began = time.monotonic()
        async with asyncio.timeout(10):
            assert await leader.process.wait() == 1
        assert time.monotonic() - began < 4
        await asyncio.gather(*leader._readers)
        assert leader.logged("operator.leadership_lost")


async def test_an_orderly_stop_of_a_standby_is_orderly_too(
    start: Start, admin_kubeconfig: Path, kube: Kube, namespace: str
) -> None:
    leader, standby = await two_replicas(start, admin_kubeconfig, kube, namespace)
    assert await standby.end(signal.SIGTERM) == 0
    assert await leader.end(signal.SIGINT) == 0
