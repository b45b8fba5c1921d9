"""The slow round over all objects of our kinds: what makes a missed event a delay instead of a loss.

It runs at start, every ten minutes, and half a second after the watches listed (anew): what came up in the list
is left to it, and what was deleted before a list no watch reports. Reads nothing but names.
"""

import asyncio
import contextlib
import random
from collections.abc import Sequence
from time import monotonic

import structlog

from etcd_operator.kube.client import Kube
from etcd_operator.kube.errors import KubeError
from etcd_operator.kube.resources import OWN_KINDS
from etcd_operator.runtime.controller import Key
from etcd_operator.runtime.reconciler import Reconciler

#: Seconds without another request until the round begins, as one list comes seldom alone; and the longest wait.
SETTLE = 0.5
LONGEST_SETTLE = 5.0
#: Seconds until a round that failed is tried again: the first and the longest wait.
RETRY = (0.5, 30.0)

log = structlog.get_logger(__name__)


class Resync:
    """Adds every object of our kinds to the queue from time to time; belongs to one event loop."""

    def __init__(self, kube: Kube, reconciler: Reconciler, *, namespaces: Sequence[str], interval: float) -> None:
        """`interval` in seconds; `namespaces` empty: all."""
        self._kube = kube
        self._reconciler = reconciler
        self._namespaces: tuple[str | None, ...] = tuple(namespaces) or (None,)
        self._interval = interval
        self._wanted = asyncio.Event()

    def request(self) -> None:
        """Ask for a round soon."""
        self._wanted.set()

    async def run(self) -> None:
        """Go on for ever; an API server that is away only delays the round."""
        retry = RETRY[0]
        while True:
            try:
                await self._round()
            except KubeError as error:
                log.warning("resync.failed", error=str(error), again_in_seconds=round(retry, 1))
                await asyncio.sleep(retry * random.uniform(0.5, 1.0))
                retry = min(2 * retry, RETRY[1])
                continue
            retry = RETRY[0]
            # Spread, so that operators of many clusters on one API server do not keep step.
            await self._wanted_within(self._interval * random.uniform(0.9, 1.1))
            deadline = monotonic() + LONGEST_SETTLE
            while self._wanted.is_set() and monotonic() < deadline:
                self._wanted.clear()
                await self._wanted_within(SETTLE)
            self._wanted.clear()

    async def _wanted_within(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wanted.wait()

    async def _round(self) -> None:
        for kind in self._reconciler.kinds:
            lists = await asyncio.gather(
                *(self._kube.list(OWN_KINDS[kind], namespace, metadata_only=True) for namespace in self._namespaces)
            )
            keys = [
                Key(kind, item["metadata"]["namespace"], item["metadata"]["name"]) for items in lists for item in items
            ]
            self._reconciler.add_all(kind, keys)
            log.debug("resync.done", kind=kind, objects=len(keys))
