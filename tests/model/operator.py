"""The real operator in the model: its own controller, observer, plan and act, on a store instead of an API server.

Only its edges are replaced: the API client, what etcd is asked and told, the clocks and the random names. It can be
made to die before or after any write, be it to Kubernetes or to etcd; what it had in memory is lost with it.
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from datetime import datetime, tzinfo
from types import SimpleNamespace
from typing import Any, Literal, TypeVar, cast
from unittest import mock

from etcd_operator.cluster import act, controller, observe
from etcd_operator.cluster.act import NameTakenError
from etcd_operator.cluster.controller import EtcdClusterController
from etcd_operator.etcd.errors import EtcdError
from etcd_operator.etcd.model import Answer, Endpoint, Handshake, TLSIdentity
from etcd_operator.kube import EventRecorder, Kube, KubeError, Resource
from etcd_operator.kube.errors import Unavailable
from etcd_operator.resources.names import Manifest
from etcd_operator.runtime.controller import Key
from etcd_operator.runtime.settings import Settings
from model.calls import ModelClient
from model.etcd import Etcd
from model.store import Propagation, Store
from model.tls import shake_hands

T = TypeVar("T")

KEY = Key("EtcdCluster", "ns", "a")

#: What goes wrong with one write of a round. `between`: nothing, but the world goes on before the next one.
Fault = Literal["crash before", "crash after", "fail before", "fail after", "between"]


class Crashed(BaseException):
    """The operator's process was killed; no error of the operator's, which is no more."""


def _unavailable() -> Unavailable:
    return Unavailable(status=500, reason="InternalError", message="injected")


class StoreKube:
    """What the operator uses of `Kube`, on the store; and the gate through which it goes to etcd as well."""

    def __init__(self, store: Store, meanwhile: Callable[[], None]) -> None:
        self._store = store
        self._meanwhile = meanwhile
        self.faults: dict[int, Fault] = {}
        self.writes: list[str] = []
        self.reads = 0
        self._dead = False

    def may_write(self) -> bool:
        return not self._dead

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Manifest | None:
        self.check()
        self.reads += 1
        return _copy(self._store.get(resource.kind, name))

    async def list(
        self,
        resource: Resource,
        namespace: str | None,
        *,
        labels: Mapping[str, str] | None = None,
        fields: str = "",
        most: int | None = None,
    ) -> list[Manifest]:
        self.check()
        self.reads += 1
        return [cast(Manifest, _copy(manifest)) for manifest in self._store.all(resource.kind, labels)]

    async def create(self, manifest: Manifest) -> Manifest:
        return self.write(f"create {manifest['kind']}", lambda: self._store.create_new(manifest))

    async def apply(self, manifest: Manifest) -> Manifest:
        return self.write(f"apply {manifest['kind']}", lambda: self._store.apply(manifest))

    async def apply_status(self, manifest: Manifest) -> Manifest:
        return self.write("apply status", lambda: self._store.apply(manifest, status=True))

    async def patch(
        self, resource: Resource, namespace: str | None, name: str, patch: Manifest, *, kind: str
    ) -> Manifest:
        assert kind == "merge"
        return self.write(f"patch {resource.kind}", lambda: self._store.patch(resource.kind, name, patch))

    async def delete(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        *,
        uid: str,
        propagation: Propagation = "Background",
        grace: int | None = None,
    ) -> bool:
        return self.write(
            f"delete {resource.kind}",
            lambda: self._store.delete(resource.kind, name, uid, propagation, at_once=grace == 0),
        )

    def write(self, what: str, write: Callable[[], T], failure: Callable[[], Exception] = _unavailable) -> T:
        """Let a write through, or meet its fault; `failure` makes the error that a failed one ends with."""
        self.check()
        self.writes.append(what)
        fault = self.faults.pop(len(self.writes), None)
        if fault == "crash before":
            self._dead = True
            raise Crashed
        if fault == "fail before":
            raise failure()
        result = write()
        if fault == "crash after":
            self._dead = True
            raise Crashed
        if fault == "fail after":
            raise failure()
        if fault == "between":
            self._meanwhile()
        return result

    def check(self) -> None:
        if self._dead:
            raise Crashed


def _copy(manifest: Manifest | None) -> Manifest | None:
    """Deep where it may matter: the operator must not change what the API server holds."""
    if isinstance(manifest, dict):
        return {key: _copy(value) for key, value in manifest.items()}
    if isinstance(manifest, list):
        return [_copy(value) for value in manifest]
    return manifest


class Operator:
    """The operator as one process after another; `run` is one reconcile."""

    def __init__(self, store: Store, etcd: Etcd, clock: Callable[[], datetime], meanwhile: Callable[[], None]) -> None:
        self._store = store
        self._etcd = etcd
        self._clock = clock
        self._meanwhile = meanwhile
        self._drawn = 0
        self._seen = -1
        self._patches = contextlib.ExitStack()
        self._loop = asyncio.new_event_loop()
        self.story: list[str] = []
        self._replace_edges()
        self.restart()

    def close(self) -> None:
        self._patches.close()
        self._loop.close()

    def restart(self) -> None:
        """A new process: nothing is remembered."""
        self.kube = StoreKube(self._store, self._meanwhile)
        self._controller = EtcdClusterController(
            kube=cast(Kube, self.kube),
            events=cast(EventRecorder, SimpleNamespace(emit=self._emit)),
            settings=Settings(cluster_domain="cluster.local", agent_image="operator:1"),
            on_etcd_call=lambda method, outcome: None,
            on_conditions=lambda key, conditions: None,
        )
        self._seen = -1

    def run(self, faults: Mapping[int, Fault] | None = None, *, watch_lags: bool = False) -> list[str]:
        """One reconcile; returns its writes. `faults` by the number of the write, counted from 1."""
        changed = self._seen != self._store.version and not watch_lags
        if changed:
            self._seen = self._store.version
        kube = self.kube
        kube.faults, kube.writes, kube.reads = dict(faults or {}), [], 0
        try:
            self._loop.run_until_complete(self._controller.reconcile(KEY, changed=changed))
        except Crashed:
            self.restart()
        except (KubeError, EtcdError, NameTakenError):
            self._seen = -1
        return kube.writes

    def _emit(self, involved: Manifest, type_: str, reason: str, message: str) -> None:
        self.story.append(f"{type_} {reason}: {message}")

    def _replace_edges(self) -> None:
        clock = self._clock

        class Clock(datetime):
            @classmethod
            def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
                return clock()

        def replace(module: Any, name: str, by: Any) -> None:
            self._patches.enter_context(mock.patch.object(module, name, by))

        replace(observe, "ask", self._ask)
        replace(observe, "shake_hands", self._shake_hands)
        replace(observe, "datetime", Clock)
        replace(act, "datetime", Clock)
        replace(observe, "uuid", SimpleNamespace(uuid4=self._draw))
        # Made by the controller when it is made itself, so the gate is that of the process that it belongs to.
        replace(controller, "EtcdClient", lambda **_: ModelClient(self._etcd, self.kube))
        replace(controller, "monotonic", lambda: clock().timestamp())

    def _draw(self) -> Any:
        self._drawn += 1
        return SimpleNamespace(hex=f"{self._drawn:010d}")

    async def _shake_hands(self, targets: Mapping[Any, tuple[str, TLSIdentity]], **_: float) -> dict[Any, Handshake]:
        processes = self._etcd.processes.values()
        seen = {key: shake_hands(processes, address, who) for key, (address, who) in targets.items()}
        return {key: handshake for key, handshake in seen.items() if handshake is not None}

    async def _ask(self, client: object, endpoints: Mapping[str, Endpoint], **_: float) -> dict[str, Answer]:
        return {name: self._etcd.answer(endpoint, self._clock()) for name, endpoint in endpoints.items()}
