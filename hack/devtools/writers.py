"""Clients that write to every member at once, at a steady pace, whatever the answers are: open loop.

A member that hangs or is away slows down nobody, so the gap between acknowledged writes is what a client with all
endpoints would see. Addresses follow the pods, as members come and go. For tests and benches; bounded by their `with`.
"""

import asyncio
import threading
import time
from dataclasses import dataclass, field
from typing import Self

from devtools import kube
from devtools.endpoints import Endpoints
from etcd_operator.etcd.client import EtcdClient
from etcd_operator.etcd.errors import EtcdError
from etcd_operator.etcd.model import Endpoint

#: Seconds until an answer is given up.
DEADLINE = 1.0
#: Keys that are read back side by side.
AT_ONCE = 100


@dataclass(kw_only=True, slots=True)
class Writers:
    """One writer for each member of an EtcdCluster with TLS, or for each proxy, between `with` and its end.

    pace: seconds between two writes to one of them. application: which pods, as in `Endpoints`.
    """

    cluster: kube.Cluster
    namespace: str
    name: str
    pace: float = 0.02
    application: str = "etcd"
    #: The keys whose write was acknowledged.
    acknowledged: set[str] = field(default_factory=set)
    #: Why others were not, and how often.
    refused: dict[str, int] = field(default_factory=dict)
    #: Seconds; the longest time without any acknowledged write since it was last set to zero.
    longest_gap: float = 0.0
    #: Seconds; the longest that each of them left its writer without an answer that acknowledges.
    longest_gaps: dict[str, float] = field(default_factory=dict)
    _last: float = 0.0
    _lasts: dict[str, float] = field(default_factory=dict)
    _endpoints: Endpoints = field(init=False)
    _first: threading.Event = field(default_factory=threading.Event)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread = field(init=False)

    def __enter__(self) -> Self:
        self._endpoints = Endpoints(
            cluster=self.cluster, namespace=self.namespace, name=self.name, application=self.application
        )
        self._endpoints.follow()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._write()), daemon=True, name="writers")
        self._thread.start()
        assert self._first.wait(30), f"no write was acknowledged: {self.refused}"
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(30)
        self._endpoints.stop()

    def lost(self) -> set[str]:
        """Keys whose write was acknowledged and that are not there, read through one member."""
        endpoint = next(iter(self._endpoints.now.values()))

        async def missing() -> set[str]:
            async with EtcdClient(idle=60) as client:
                keys, found = sorted(self.acknowledged), set[str]()
                for start in range(0, len(keys), AT_ONCE):
                    some = keys[start : start + AT_ONCE]
                    values = await asyncio.gather(*(client.get(endpoint, key.encode()) for key in some))
                    found |= {key for key, value in zip(some, values, strict=True) if value is not None}
                return set(keys) - found

        return asyncio.run(missing())

    async def _write(self) -> None:
        due, number = time.monotonic(), 0
        async with EtcdClient(idle=60) as client, asyncio.TaskGroup() as puts:
            while not self._stop.is_set():
                number += 1
                for member, endpoint in self._endpoints.now.items():
                    puts.create_task(self._put(client, member, endpoint, number))
                due = max(due + self.pace, time.monotonic() - self.pace)
                await asyncio.sleep(max(0.0, due - time.monotonic()))
        self._note_gap(time.monotonic())

    async def _put(self, client: EtcdClient, member: str, endpoint: Endpoint, number: int) -> None:
        key = f"writers/{number:06}/{member}"
        try:
            await client.put(endpoint, key.encode(), b"x", timeout=DEADLINE)
        except EtcdError as error:
            self.refused[error.kind] = self.refused.get(error.kind, 0) + 1
            return
        self.acknowledged.add(key)
        now = time.monotonic()
        self._note_gap(now)
        self._note_gap_of(member, now)
        self._first.set()

    def _note_gap(self, now: float) -> None:
        if self._last:
            self.longest_gap = max(self.longest_gap, now - self._last)
        self._last = now

    def _note_gap_of(self, member: str, now: float) -> None:
        gap = now - self._lasts.get(member, now)
        self.longest_gaps[member] = max(self.longest_gaps.get(member, 0.0), gap)
        self._lasts[member] = now
