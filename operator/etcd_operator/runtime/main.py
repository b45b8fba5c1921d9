"""The operator's program: puts the parts together, and takes them apart in good order.

Exit codes: 0 after SIGTERM or SIGINT; 1 when something ended that must not (leadership was lost, the kinds are
not served); 2 for settings that cannot be used. Kubernetes starts the pod again, which is the way back from all.
"""

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from time import monotonic
from typing import Any

import structlog

from etcd_operator.kube.client import Kube
from etcd_operator.kube.connection import Connection, CredentialsError
from etcd_operator.kube.errors import KubeError
from etcd_operator.kube.events import EventRecorder
from etcd_operator.kube.resources import VERSION
from etcd_operator.resources.names import GROUP
from etcd_operator.runtime import logs
from etcd_operator.runtime.controller import Controller
from etcd_operator.runtime.edge import Edge
from etcd_operator.runtime.health import HealthServer
from etcd_operator.runtime.leader import REQUEST_TIMEOUT, Leader, LeadershipLostError
from etcd_operator.runtime.metrics import Metrics
from etcd_operator.runtime.reconciler import Reconciler
from etcd_operator.runtime.resync import Resync
from etcd_operator.runtime.settings import Settings, SettingsError

#: Seconds that the CRDs may come after the operator (one `kubectl apply` brings both) before it exits.
WAIT_FOR_KINDS = 30.0
#: Seconds that reconciles may go on after SIGTERM. Short: a standby shall act within two seconds, and every
#: step is safe to die after.
STOP_GRACE = 0.7
#: Seconds for the watches to end, when another replica may lead already.
WATCHES_GRACE = 2.0
#: Seconds until an edge that failed is started again: the first and the longest wait.
EDGE_RETRY = (0.5, 10.0)

log = structlog.get_logger(__name__)

#: Makes the controllers of this operator; a parameter, so that tests can run the runtime with others.
Compose = Callable[[Kube, EventRecorder, Settings, Metrics], Sequence[Controller]]


class StartError(Exception):
    """The operator cannot run here as things are; the message is for the user."""


def compose(kube: Kube, events: EventRecorder, settings: Settings, metrics: Metrics) -> Sequence[Controller]:
    """The controllers of this operator: the only place that knows them all."""
    from etcd_operator.binding.controller import ApiServerBindingController
    from etcd_operator.cluster.controller import EtcdClusterController

    return [
        ApiServerBindingController(kube=kube, events=events, settings=settings, on_etcd_call=metrics.etcd_call),
        EtcdClusterController(
            kube=kube,
            events=events,
            settings=settings,
            on_etcd_call=metrics.etcd_call,
            on_conditions=metrics.conditions,
        ),
    ]


def main() -> None:
    """The entry point of the container; does not return."""
    try:
        settings = Settings.from_environment()
    except SettingsError as error:
        print(f"external-etcd-operator: {error}", file=sys.stderr)
        sys.exit(2)
    logs.configure(format_=settings.log_format, level=settings.log_level)
    code = asyncio.run(serve(settings, compose))
    logging.shutdown()
    sys.stderr.flush()
    # The edge's thread may still be closing its watches; there is nothing in it worth waiting for.
    os._exit(code)


async def serve(settings: Settings, compose: Compose) -> int:
    """Run the operator until SIGTERM or SIGINT; the exit code. Ends the process itself when leadership is lost."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        await Operator(settings, compose).run(stop)
    except LeadershipLostError as error:
        # At once and without any clean-up: another replica may be acting already.
        log.error("operator.leadership_lost", error=str(error))
        os._exit(1)
    except (StartError, CredentialsError, OSError) as error:
        log.error("operator.failed", error=str(error))
        return 1
    except Exception:
        log.exception("operator.failed")
        return 1
    log.info("operator.stopped")
    return 0


class Operator:
    """One run of the operator, from the first look at the API server to the last."""

    def __init__(self, settings: Settings, compose: Compose) -> None:
        self._settings = settings
        self._compose = compose
        self._metrics = Metrics()
        self._leader: Leader | None = None
        self._reconciler: Reconciler | None = None
        self._edge: Edge | None = None
        self._kinds_served = False
        #: Where the health server listens, once it does.
        self.health_port = 0

    async def run(self, stop: asyncio.Event) -> None:
        """Run until `stop` is set.

        Raises `LeadershipLostError` (end the process at once), `StartError`, `CredentialsError`, and whatever a
        part that must not end ended with.
        """
        settings = self._settings
        async with contextlib.AsyncExitStack() as stack:
            health = HealthServer(healthy=self._problems, ready=self._obstacles, metrics=self._metrics.text)
            self.health_port = await health.open(settings.health_address, settings.health_port)
            stack.push_async_callback(health.close)
            connection = await Connection.open()
            log.info(
                "operator.starting",
                api_server=connection.server,
                credentials=connection.origin,
                namespaces=settings.watch_namespaces or "all",
                health_port=self.health_port,
            )

            # The election has a client of its own: its renewals queue behind nothing, and no guard holds them back.
            renewals = Kube(
                await Connection.open(),
                timeout=REQUEST_TIMEOUT * settings.lease_duration_seconds,
                retry_delays=(),
                observer=self._metrics.api_request,
            )
            stack.push_async_callback(renewals.close)
            leader = Leader(
                renewals,
                namespace=settings.lease_namespace,
                name=settings.lease_name,
                identity=settings.pod_name,
                duration=settings.lease_duration_seconds,
            )
            kube = Kube(connection, observer=self._metrics.api_request, may_write=leader.may_write)
            stack.push_async_callback(kube.close)
            events = EventRecorder(kube, instance=settings.pod_name)
            controllers = self._compose(kube, events, settings, self._metrics)

            if await _unless(stop, self._wait_for_kinds(kube, controllers)):
                return
            self._leader = leader
            if await _unless(stop, leader.acquire()):
                return
            await self._lead(stop, kube, events, controllers, leader)

    async def _lead(
        self,
        stop: asyncio.Event,
        kube: Kube,
        events: EventRecorder,
        controllers: Sequence[Controller],
        leader: Leader,
    ) -> None:
        settings = self._settings
        self._metrics.leads(True)
        reconciler = Reconciler(
            controllers,
            places=settings.workers,
            timeout=settings.reconcile_timeout_seconds,
            observer=self._metrics.reconciled,
        )
        self._metrics.watch_queue(reconciler.kinds, reconciler.queue.depth)
        self._reconciler = reconciler
        resync = Resync(kube, reconciler, namespaces=settings.watch_namespaces, interval=settings.resync_seconds)
        edge = Edge(
            reconciler.kinds,
            settings.watch_namespaces,
            on_change=reconciler.add,
            on_list=resync.request,
            observer=self._metrics.api_request,
        )
        self._edge = edge
        watching = asyncio.create_task(self._keep_watching(edge, kube, controllers), name="edge")
        parts = {
            asyncio.create_task(leader.keep(), name="election"),
            asyncio.create_task(resync.run(), name="resync"),
            watching,
        }
        try:
            await _until_any_ends(parts, stop)
        finally:
            edge.stop()
            for part in parts - {watching}:
                part.cancel()
            in_order = leader.may_write()
            await reconciler.stop(grace=STOP_GRACE if in_order else 0.0)
            await events.close(grace=0.3 if in_order else 0.0)
            self._metrics.leads(False)
            await leader.release()
            if in_order:
                await asyncio.wait((watching,), timeout=WATCHES_GRACE)
            watching.cancel()

    async def _keep_watching(self, edge: Edge, kube: Kube, controllers: Sequence[Controller]) -> None:
        """Start the edge again whenever it fails, as long as our kinds are there to be watched."""
        wait = EDGE_RETRY[0]
        while True:
            began = monotonic()
            try:
                await edge.run()
                return
            except Exception as error:  # noqa: BLE001 - whatever Kopf could not get over, a new start may
                log.warning("edge.failed", error=f"{type(error).__name__}: {error}", again_in_seconds=wait)
            await asyncio.sleep(wait)
            wait = EDGE_RETRY[0] if monotonic() - began > 2 * EDGE_RETRY[1] else min(2 * wait, EDGE_RETRY[1])
            with contextlib.suppress(KubeError):
                if missing := await _missing_kinds(kube, controllers):
                    raise StartError(_not_served(missing))

    async def _wait_for_kinds(self, kube: Kube, controllers: Sequence[Controller]) -> None:
        """Wait until the API server serves our kinds; raises `StartError` after half a minute."""
        deadline = monotonic() + WAIT_FOR_KINDS
        told = ""
        while True:
            try:
                missing = await _missing_kinds(kube, controllers)
                problem = _not_served(missing) if missing else ""
            except KubeError as error:
                problem = f"the API server cannot be asked: {error}"
            if not problem:
                self._kinds_served = True
                return
            if monotonic() > deadline:
                raise StartError(problem)
            if problem != told:
                log.warning("operator.waiting", problem=problem, at_most_seconds=WAIT_FOR_KINDS)
                told = problem
            await asyncio.sleep(1.0)

    def _problems(self) -> list[str]:
        """What only a restart can cure."""
        problems = []
        if self._reconciler is not None and (stuck := self._reconciler.stuck()):
            problems.append(f"reconciles do not end: {', '.join(map(str, stuck[:5]))}")
        if self._edge is not None and not self._edge.alive:
            problems.append("the watches' event loop stands still")
        return problems

    def _obstacles(self) -> list[str]:
        """Why this replica could not act, or take over, right now."""
        if not self._kinds_served:
            return [f"the kinds of {GROUP}/{VERSION} are not (yet) served"]
        if self._leader is None:
            return ["not yet a candidate"]
        if self._leader.problem:
            return [self._leader.problem]
        if self._leader.leads and not self._leader.may_write():
            return ["leadership is uncertain: the Lease could not be renewed"]
        return []


async def _missing_kinds(kube: Kube, controllers: Sequence[Controller]) -> set[str]:
    return {controller.kind for controller in controllers} - await kube.served_kinds(GROUP, VERSION)


def _not_served(missing: set[str]) -> str:
    return (
        f"the API server does not serve {', '.join(sorted(missing))} in {GROUP}/{VERSION}: "
        "apply the CustomResourceDefinitions (crds/), then the operator comes up by itself"
    )


async def _unless(stop: asyncio.Event, work: Coroutine[Any, Any, None]) -> bool:
    """Do the work unless `stop` is set first; whether it was."""
    task, stopping = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait((task, stopping), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
        return stop.is_set()
    finally:
        task.cancel()
        stopping.cancel()


async def _until_any_ends(parts: set[asyncio.Task[None]], stop: asyncio.Event) -> None:
    """Wait for `stop`; raises what a part ended with, as none of them may end before."""
    stopping = asyncio.create_task(stop.wait(), name="stop")
    done, _ = await asyncio.wait((*parts, stopping), return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    for part in done & parts:
        part.result()
        if not stop.is_set():
            raise RuntimeError(f"{part.get_name()} ended by itself")
