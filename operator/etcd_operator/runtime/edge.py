"""The Kopf edge: watch events in, keys out; nothing else happens here.

Kopf watches our own kinds and what we own, keeps the watches alive, and calls a handler per event; the handler
names the key. No finalizers, no annotations, no progress, no posted events: Kopf sends no write at all.

Kopf runs on a thread with an event loop of its own, because it cancels every task of its loop that is younger
than itself when it ends: restarting it (after the API server sent something it cannot get over) must not take
the controllers along. Of the objects only the metadata is asked for: that is all a key needs, Secrets stay
where they are, and thousands of objects cost little.
"""

import asyncio
import contextlib
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from time import monotonic
from typing import Any

import aiohttp
import kopf
import structlog

from etcd_operator.kube.client import METADATA_LIST, RequestObserver
from etcd_operator.kube.connection import Connection, CredentialsError
from etcd_operator.kube.resources import (
    CONFIGMAPS,
    DEPLOYMENTS,
    NETWORKPOLICIES,
    OWN_KINDS,
    PDBS,
    PODS,
    PVCS,
    SECRETS,
    SERVICES,
    STATEFULSETS,
    Resource,
)
from etcd_operator.resources.names import CLIENT_CLUSTER, CLIENT_NAMESPACE, CLUSTER_LABEL, MANAGED_BY_LABEL, MANAGER
from etcd_operator.runtime.controller import Key

#: What we own. An event of such an object is one for the EtcdCluster that its labels name.
OWNED = (STATEFULSETS, DEPLOYMENTS, PODS, PVCS, SERVICES, CONFIGMAPS, SECRETS, PDBS, NETWORKPOLICIES)

METADATA_WATCH = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
#: Objects a page of the initial lists.
PAGE_SIZE = 500
#: Seconds between attempts to find credentials.
LOGIN_INTERVAL = 2.0
#: Seconds between beats of the edge's event loop, and without one until it counts as dead.
BEAT = 1.0
DEAD_AFTER = 60.0

#: Kopf's name for the task that holds all watches, and seconds without it until the edge counts as lost.
WATCHES_TASK = "multidimensional multitasker"
LOST_AFTER = 6.0


log = structlog.get_logger(__name__)


class EdgeError(Exception):
    """The watches ended in a way that only a new start cures."""


class Edge:
    """Watches in a thread, tells in the event loop that `run` was called in."""

    def __init__(
        self,
        kinds: Sequence[str],
        namespaces: Sequence[str],
        *,
        on_change: Callable[[Key], None],
        on_list: Callable[[], None],
        observer: RequestObserver = lambda verb, code: None,
    ) -> None:
        """`on_change` is told each key, `on_list` that a watch listed (anew): deletions may have been missed.

        `namespaces` empty: all. `observer` is called in the edge's own thread.
        """
        self._kinds = tuple(kinds)
        self._namespaces = tuple(namespaces)
        self._on_change = on_change
        self._on_list = on_list
        self._observer = observer
        self._loop = asyncio.get_running_loop()
        self._stopped = False
        #: Makes the edge's event loop look at `_stopped`.
        self._wake: Callable[[], object] = lambda: None
        self._beat = monotonic()

    async def run(self) -> None:
        """Watch until `stop`; raises what Kopf ended with when it gave up, or `EdgeError`."""
        ended: asyncio.Future[None] = self._loop.create_future()
        self._beat = monotonic()

        def finish(error: BaseException | None) -> None:
            if not ended.done():
                ended.set_exception(error) if error else ended.set_result(None)

        def work() -> None:
            failure: BaseException | None = None
            try:
                asyncio.run(self._operate(lambda error: self._tell(finish, error)))
            except Exception as error:  # noqa: BLE001 - carried over to the other thread
                failure = error
            self._tell(finish, failure)

        # A daemon: a watch that does not want to end must not keep the process from ending.
        threading.Thread(target=work, name="edge", daemon=True).start()
        await ended

    def stop(self) -> None:
        """End the watches soon; from any thread."""
        self._stopped = True
        with contextlib.suppress(RuntimeError):  # that loop is closed: it has ended already
            self._wake()

    @property
    def alive(self) -> bool:
        """Whether the edge's event loop turned lately."""
        return monotonic() - self._beat < DEAD_AFTER

    async def _operate(self, give_up: Callable[[EdgeError], None]) -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        # What Kopf leaves lying about when it fails (failures of single watches) is told by the failure itself.
        loop.set_exception_handler(lambda _, context: log.debug("edge.remains", what=str(context.get("message"))))
        self._wake = lambda: loop.call_soon_threadsafe(stop.set)
        if self._stopped:
            stop.set()
        # Made before Kopf runs, so Kopf leaves it alone.
        overseer = asyncio.create_task(self._oversee())
        watching = asyncio.create_task(
            kopf.operator(
                registry=self._registry(),
                settings=self._settings(),
                standalone=True,
                stop_flag=stop,
                **({"namespaces": self._namespaces} if self._namespaces else {"clusterwide": True}),
            )
        )
        await asyncio.wait((overseer, watching), return_when=asyncio.FIRST_COMPLETED)
        if not watching.done():
            # Told now: the end of this thread may never come. It holds nothing but its connections.
            give_up(EdgeError("Kopf lost its watches and does not end"))
            watching.cancel()
        overseer.cancel()
        await watching

    async def _oversee(self) -> None:
        """Show that the event loop turns; end when Kopf's watches ended but Kopf did not.

        Seen when it was stopped while it waited for credentials. The task's name is Kopf's own; were it called
        otherwise one day, the watches would be started again every few seconds, which tests would show.
        """
        last_seen = monotonic()  # it may come and go between two beats
        while self._stopped or monotonic() - last_seen < LOST_AFTER:
            self._beat = monotonic()
            if any(task.get_name() == WATCHES_TASK for task in asyncio.all_tasks()):
                last_seen = self._beat
            await asyncio.sleep(BEAT)

    def _registry(self) -> kopf.OperatorRegistry:
        registry = kopf.OperatorRegistry()
        kopf.on.login(registry=registry, id="login")(self._login)
        for kind in self._kinds:
            resource = OWN_KINDS[kind]
            _on_event(registry, resource)(self._handler(own=kind))
        for resource in OWNED:
            _on_event(registry, resource)(self._handler(own=None))
        return registry

    def _settings(self) -> kopf.OperatorSettings:
        settings = kopf.OperatorSettings()
        settings.posting.enabled = False
        settings.scanning.disabled = True
        settings.process.ultimate_exiting_timeout = None  # it kills the whole process
        settings.watching.chunk_size = PAGE_SIZE
        settings.watching.connect_timeout = 5
        settings.networking.connect_timeout = 5
        settings.networking.request_timeout = 60
        settings.networking.error_backoffs = _Backoffs()
        settings.queueing.exit_timeout = 0.5
        for owned in OWNED:
            settings.watching.label_selectors[owned.group, owned.version, owned.plural] = (
                f"{MANAGED_BY_LABEL}={MANAGER}"
            )
        return settings

    def _handler(self, *, own: str | None) -> Callable[..., Any]:
        async def tell(event: Any, **_: Any) -> None:
            if event["type"] is None:
                # Part of a list: left to the resync that follows it, which adds every cluster once instead of
                # once for each thing that it owns.
                return
            metadata = event["object"].get("metadata") or {}
            if own is not None:
                self._tell(self._on_change, Key(own, metadata["namespace"], metadata["name"]))
                return
            labels = metadata.get("labels") or {}
            if cluster := labels.get(CLUSTER_LABEL):
                self._tell(self._on_change, Key("EtcdCluster", metadata["namespace"], cluster))
            elif (cluster := labels.get(CLIENT_CLUSTER)) and self._serves(home := labels.get(CLIENT_NAMESPACE, "")):
                self._tell(self._on_change, Key("EtcdCluster", home, cluster))

        return tell

    def _serves(self, namespace: str) -> bool:
        """Whether EtcdClusters there are the operator's to serve: anybody can write any label."""
        return bool(namespace) and (not self._namespaces or namespace in self._namespaces)

    def _tell(self, callback: Callable[..., object], *args: object) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, *args)
        except RuntimeError:
            self.stop()  # the other loop is closed: nobody listens any more

    async def _login(self, **_: Any) -> kopf.AiohttpSession:
        """Credentials for Kopf, once; from then on the middleware keeps them fresh."""
        try:
            connection = await Connection.open()
        except CredentialsError as error:
            raise kopf.TemporaryError(str(error), delay=LOGIN_INTERVAL) from error
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=connection.rest.ssl_context),
            headers={"User-Agent": f"{MANAGER}/watch"},
            middlewares=[self._middleware(connection)],
            response_class=_Response,
            trust_env=True,
        )
        return kopf.AiohttpSession(server=connection.server, aiohttp_session=session)

    def _middleware(self, connection: Connection) -> aiohttp.ClientMiddlewareType:
        async def send(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
            watching, listing = "watch" in request.url.query, "limit" in request.url.query
            # Per request, as the token of a pod changes every hour.
            request.headers.update(await connection.headers())
            if watching or listing:
                request.headers["Accept"] = METADATA_WATCH if watching else METADATA_LIST
            verb = "watch" if watching else "list" if listing else "discover" if request.method == "GET" else "other"
            code = "none"
            try:
                response = await handler(request)
                code = str(response.status)
            finally:
                self._observer(verb, code)
            if response.status == 401:
                # Kopf would drop its session under the other watches, and can be left hanging by that. So the
                # credentials are read anew here, and Kopf just sees a connection that failed, and tries again.
                response.release()
                await connection.reload()
                raise aiohttp.ClientConnectionError("the API server refused the credentials (401)")
            if listing and response.ok:
                self._tell(self._on_list)
            return response

        return send


class _Response(aiohttp.ClientResponse):
    """An answer to Kopf. The API server says `items: null` in an empty list of metadata, which Kopf falls over."""

    async def json(self, **options: Any) -> Any:
        told = await super().json(**options)
        if isinstance(told, dict) and told.get("items", ()) is None:
            told["items"] = []
        return told


class _Backoffs:
    """Seconds between attempts of Kopf's requests: without end, as an API server that is away must not end the edge."""

    def __iter__(self) -> Iterator[float]:
        wait = 0.2
        while True:
            yield wait * random.uniform(0.5, 1.0)
            wait = min(2 * wait, 10.0)


def _on_event(registry: kopf.OperatorRegistry, resource: Resource) -> Callable[[Callable[..., Any]], Any]:
    return kopf.on.event(resource.group, resource.version, resource.plural, registry=registry, id=resource.plural)
