"""Kubernetes Events: the story of each change, told once.

Telling must never hurt what is told of: an event is queued and posted in the background, in order, again for half a
minute where the API server does not answer, and dropped with a line in the log after that. The same sentence about
the same object is told again after a pause that doubles with every time, from seconds to ten minutes: a change that
is made twice is told twice, and what comes and goes without end does not flood anybody.
"""

import asyncio
import contextlib
import contextvars
import datetime
import secrets
from collections import OrderedDict
from time import monotonic
from typing import Literal

import structlog

from etcd_operator.kube.client import Kube
from etcd_operator.kube.errors import Conflict, Forbidden, KubeError
from etcd_operator.resources.names import MANAGER, Manifest

#: Seconds in which the same (object, reason, message) is not told again: at first, and at the most.
SHORTEST_PAUSE, LONGEST_PAUSE = 10.0, 600.0
#: Sentences remembered against repetition, and events waiting to be posted; the oldest go first.
MOST_REMEMBERED = 4096
MOST_WAITING = 1000
#: Waits before an event is posted once more, in seconds: an API server under load is back by then, and what a person
#: looks for after trouble is just what was told while it lasted.
RETRY_DELAYS = (0.2, 1.0, 3.0, 10.0, 15.0)
#: The API server refuses longer messages and reasons.
LONGEST_MESSAGE = 1024
LONGEST_REASON = 128

log = structlog.get_logger(__name__)


class EventRecorder:
    """Posts events about objects; `emit` neither waits nor raises. Belongs to one event loop."""

    def __init__(self, kube: Kube, *, instance: str, retry_delays: tuple[float, ...] = RETRY_DELAYS) -> None:
        self._kube = kube
        self._retry_delays = retry_delays
        #: Which operator pod tells.
        self._instance = instance[:128]
        #: When a sentence was told last, and the pause that follows.
        self._told: OrderedDict[tuple[str, str, str], tuple[float, float]] = OrderedDict()
        self._waiting: asyncio.Queue[Manifest] = asyncio.Queue(MOST_WAITING)
        self._poster: asyncio.Task[None] | None = None

    def emit(self, involved: Manifest, type_: Literal["Normal", "Warning"], reason: str, message: str) -> None:
        """Tell something about an object (its manifest, or at least apiVersion, kind and metadata)."""
        message = message if len(message) <= LONGEST_MESSAGE else message[: LONGEST_MESSAGE - 1] + "…"
        if self._told_lately((_identity(involved), reason, message)):
            return
        if self._poster is None or self._poster.done():
            # An empty context: the log lines of one cluster's run must not bear the name of another's.
            self._poster = asyncio.get_running_loop().create_task(
                self._post_all(), name="event poster", context=contextvars.Context()
            )
        if self._waiting.full():
            self._waiting.get_nowait()
            self._waiting.task_done()
        self._waiting.put_nowait(self._manifest(involved, type_, reason[:LONGEST_REASON], message))

    async def close(self, *, grace: float = 1.0) -> None:
        """Post what still waits, for at most `grace` seconds, then stop."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace):
                await self._waiting.join()
        if self._poster is not None:
            self._poster.cancel()
            await asyncio.gather(self._poster, return_exceptions=True)

    def _told_lately(self, key: tuple[str, str, str]) -> bool:
        now = monotonic()
        last, pause = self._told.get(key, (now, 0.0))
        if now - last < pause:
            return True
        again = key in self._told and now - last < LONGEST_PAUSE
        self._told[key] = (now, min(2 * pause, LONGEST_PAUSE) if again else SHORTEST_PAUSE)
        self._told.move_to_end(key)
        if len(self._told) > MOST_REMEMBERED:
            self._told.popitem(last=False)
        return False

    async def _post_all(self) -> None:
        while True:
            event = await self._waiting.get()
            try:
                await self._post(event)
            except Conflict:
                pass  # its name is its own: an attempt that was not answered had posted it
            except KubeError as error:
                if isinstance(error, Forbidden) and error.namespace_terminating:
                    continue  # nobody will read it, and hundreds may follow
                subject = f"{event['metadata']['namespace']}/{event['involvedObject']['name']}"
                log.warning(
                    "event.dropped", about=subject, reason=event["reason"], message=event["message"], error=str(error)
                )
            finally:
                self._waiting.task_done()

    async def _post(self, event: Manifest) -> None:
        """Post one event, again where that may help. Raises KubeError."""
        for delay in self._retry_delays:
            try:
                await self._kube.create(event)
            except KubeError as error:
                if not error.retryable:
                    raise
                await asyncio.sleep(delay)
            else:
                return
        await self._kube.create(event)

    def _manifest(self, involved: Manifest, type_: str, reason: str, message: str) -> Manifest:
        metadata = involved["metadata"]
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        reference = {
            "apiVersion": involved["apiVersion"],
            "kind": involved["kind"],
            "name": metadata["name"],
            "namespace": metadata.get("namespace"),
            "uid": metadata.get("uid"),
            "resourceVersion": metadata.get("resourceVersion"),
        }
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {
                "name": f"{metadata['name'][:200]}.{secrets.token_hex(8)}",
                # Events about objects without a namespace belong in `default`, as the API server demands.
                "namespace": metadata.get("namespace") or "default",
            },
            "involvedObject": {key: value for key, value in reference.items() if value},
            "type": type_,
            "reason": reason,
            "message": message,
            "count": 1,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "source": {"component": MANAGER},
            "reportingComponent": MANAGER,
            "reportingInstance": self._instance,
        }


def _identity(involved: Manifest) -> str:
    metadata = involved["metadata"]
    return metadata.get("uid") or f"{involved['kind']}/{metadata.get('namespace')}/{metadata['name']}"
