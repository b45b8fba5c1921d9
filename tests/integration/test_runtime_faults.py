"""Hundreds of API errors, watches that break or forget, and an API server that goes away: it all goes on working."""

import asyncio
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path

import pytest
from aiohttp import web

from etcd_operator.kube import Kube
from etcd_operator.kube.resources import CONFIGMAPS, ETCDCLUSTERS
from integration.api_server import ApiServer
from integration.faulty_proxy import Fault, FaultyProxy, sometimes
from integration.running_operator import Run, Running, etcd_cluster, has_members, run
from integration.support import until

__all__ = ["run"]  # a fixture

WATCHES = 8


@pytest.fixture
async def proxy(api_server: ApiServer) -> AsyncIterator[FaultyProxy]:
    async with FaultyProxy(api_server.url, api_server.tls()) as made:
        yield made


def spare_the_lease(fault: Callable[[web.Request], Fault]) -> Callable[[web.Request], Fault]:
    """Faults for everything but the election, which rightly ends the process when it is disturbed for long."""
    return lambda request: None if "/leases/" in request.path else fault(request)


async def test_a_storm_of_errors_is_weathered(
    run: Run, proxy: FaultyProxy, kube: Kube, namespace: str, tmp_path: Path
) -> None:
    async with run(proxy.kubeconfig(tmp_path)) as running:
        proxy.fault = spare_the_lease(sometimes(0.4, 409, 429, 500, 503, "drop", "lose"))
        kinds, rounds = {"409", "429", "500", "503", "drop", "lose"}, 0
        # Faults come at random: five rounds, and more until each kind and hundreds in all have come.
        while rounds < 5 or set(proxy.done) != kinds or sum(proxy.done.values()) <= 300:
            rounds += 1
            assert rounds <= 20, proxy.done
            members = (1, 3, 5, 7)[rounds % 4]
            for number in range(20):
                await kube.apply(etcd_cluster(namespace, f"c{number}", members))
            proxy.cut_watches()
            for number in range(20):
                await until(partial(has_members, kube, namespace, f"c{number}", members), seconds=30)
        proxy.fault = lambda request: None
        await works(running, kube, namespace)


async def test_what_was_deleted_while_a_watch_forgot_is_made_again_soon(
    run: Run, proxy: FaultyProxy, kube: Kube, namespace: str, tmp_path: Path
) -> None:
    async with run(proxy.kubeconfig(tmp_path)) as running:
        await works(running, kube, namespace)
        await open_watches(proxy)
        # While nothing gets through, an owned object and a whole cluster vanish, and a cluster comes.
        proxy.fault = spare_the_lease(lambda request: "drop")
        await proxy.expire_watches()
        await kube.apply(etcd_cluster(namespace, "vanishing"))
        await kube.delete(ETCDCLUSTERS, namespace, "vanishing")
        await kube.delete(CONFIGMAPS, namespace, "works-toy")
        await kube.apply(etcd_cluster(namespace, "newcomer"))
        before = running.toy.count(f"{namespace}/works")
        proxy.fault = lambda request: None
        await until(partial(has_members, kube, namespace, "newcomer", 3), seconds=15)
        await until(partial(has_members, kube, namespace, "works", 3), seconds=15)
        assert running.toy.count(f"{namespace}/works") > before


async def test_a_controller_hears_of_an_object_that_vanished_unseen(
    run: Run, proxy: FaultyProxy, kube: Kube, namespace: str, tmp_path: Path
) -> None:
    async with run(proxy.kubeconfig(tmp_path)) as running:
        await works(running, kube, namespace)
        await open_watches(proxy)
        proxy.fault = spare_the_lease(lambda request: "drop")
        await proxy.expire_watches()
        await kube.delete(ETCDCLUSTERS, namespace, "works")
        before = running.toy.count(f"{namespace}/works")
        proxy.fault = lambda request: None

        async def told() -> bool:
            return running.toy.count(f"{namespace}/works") > before

        await until(told, seconds=15)


async def test_an_edge_that_kopf_cannot_keep_up_is_started_again(
    run: Run, proxy: FaultyProxy, kube: Kube, namespace: str, tmp_path: Path
) -> None:
    async with run(proxy.kubeconfig(tmp_path)) as running:
        await works(running, kube, namespace)
        for _ in range(2):
            await open_watches(proxy)
            assert await proxy.fail_watches() >= WATCHES
            await works(running, kube, namespace)


async def test_refused_credentials_are_tried_again(
    run: Run, proxy: FaultyProxy, kube: Kube, namespace: str, tmp_path: Path
) -> None:
    async with run(proxy.kubeconfig(tmp_path)) as running:
        await works(running, kube, namespace)
        proxy.fault = spare_the_lease(lambda request: 401)
        proxy.cut_watches()
        await asyncio.sleep(3)
        assert proxy.done["401"] < 200, "not in a tight loop"
        proxy.fault = lambda request: None
        await works(running, kube, namespace)


async def test_the_api_server_may_restart(
    run: Run, kube: Kube, namespace: str, api_server: ApiServer, admin_kubeconfig: Path
) -> None:
    # A lease that outlives the restart, however slow the machine: losing it would rightly end the operator.
    async with run(admin_kubeconfig, lease_duration_seconds=300) as running:
        await works(running, kube, namespace)
        for kill in (False, True):
            await asyncio.to_thread(api_server.stop, kill=kill)
            await asyncio.to_thread(api_server.start)
            await works(running, kube, namespace)


async def works(running: Running, kube: Kube, namespace: str) -> None:
    """A change of a cluster, and one of what it owns, are both answered. Leaves a cluster of three behind."""
    for members in (5, 3):
        await kube.apply(etcd_cluster(namespace, "works", members))
        await until(partial(has_members, kube, namespace, "works", members), seconds=30)
    await watches_report(kube, namespace)
    assert (await running.read("/healthz"))[0] == 200
    assert (await running.read("/readyz"))[0] == 200


async def watches_report(kube: Kube, namespace: str) -> None:
    """A deletion is undone within seconds, that is by an event, not by the slow resync."""
    await kube.delete(CONFIGMAPS, namespace, "works-toy")
    await until(partial(has_members, kube, namespace, "works", 3), seconds=20)


async def open_watches(proxy: FaultyProxy) -> None:
    """Wait until all of the operator's watches are open."""

    async def all_open() -> bool:
        return proxy.open_watches >= WATCHES

    await until(all_open)
