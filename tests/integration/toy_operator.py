"""The operator's runtime around a controller that is easy to watch: `python -m integration.toy_operator`.

For each EtcdCluster it keeps one ConfigMap, `<name>-toy`, and prints a line of JSON per reconcile. The name of a
cluster chooses its behaviour: `slow-*` never ends, `broken-*` raises, `busy-*` asks to be called again at once.
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import Iterable, Sequence

from etcd_operator.kube import EventRecorder, Kube
from etcd_operator.kube.resources import CONFIGMAPS, ETCDCLUSTERS
from etcd_operator.resources.names import CLUSTER_LABEL, MANAGED_BY_LABEL, MANAGER
from etcd_operator.runtime import logs
from etcd_operator.runtime.controller import Controller, Key, Result
from etcd_operator.runtime.main import serve
from etcd_operator.runtime.metrics import Metrics
from etcd_operator.runtime.settings import Settings


class ToyController:
    """Observe, compare, write only what differs: the shape of a real controller, in twenty lines."""

    kind = "EtcdCluster"

    def __init__(self, kube: Kube, events: EventRecorder) -> None:
        self._kube = kube
        self._events = events

    def followers(self, key: Key) -> Iterable[Key]:
        return ()

    async def reconcile(self, key: Key, *, changed: bool) -> Result:
        tell(key, changed)
        if key.name.startswith("slow-"):
            await asyncio.Event().wait()
        if key.name.startswith("broken-"):
            raise RuntimeError("this cluster is broken")
        cluster = await self._kube.get(ETCDCLUSTERS, key.namespace, key.name)
        existing = await self._kube.get(CONFIGMAPS, key.namespace, f"{key.name}-toy")
        if cluster is None:
            return Result()
        members = str(cluster["spec"]["members"])
        if existing is None or existing["data"]["members"] != members:
            await self._kube.apply(config_map(key, members))
            self._events.emit(cluster, "Normal", "Written", f"wrote {members} members")
        return Result(requeue_after=0.05 if key.name.startswith("busy-") else None)


def config_map(key: Key, members: str) -> dict[str, object]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": f"{key.name}-toy",
            "namespace": key.namespace,
            "labels": {MANAGED_BY_LABEL: MANAGER, CLUSTER_LABEL: key.name},
        },
        "data": {"members": members},
    }


def tell(key: Key, changed: bool) -> None:
    print(json.dumps({"at": time.time(), "key": str(key), "changed": changed}), flush=True)


def compose(kube: Kube, events: EventRecorder, settings: Settings, metrics: Metrics) -> Sequence[Controller]:
    return [ToyController(kube, events)]


def main() -> None:
    settings = Settings.from_environment()
    logs.configure(format_=settings.log_format, level=settings.log_level)
    code = asyncio.run(serve(settings, compose))
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
