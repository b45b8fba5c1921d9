"""Clients that write to every member at once, at a steady pace, whatever the answers are: open loop.

A member that hangs or is away slows down nobody, so the gap between acknowledged writes is what a client with all
endpoints would see. Addresses follow the pods, as members come and go.
"""

import asyncio
import threading
import time
from dataclasses import dataclass, field, replace

from devtools import kube
from e2e.support import Etcd
from etcd_operator.etcd.client import EtcdClient
from etcd_operator.etcd.errors import EtcdError
from etcd_operator.etcd.model import Endpoint

#: Seconds between two writes to one member, and until an answer is given up.
PACE, DEADLINE = 0.02, 1.0
#: Seconds without an acknowledged write that no planned procedure may come to, on however slow a machine.
WORST_GAP = 10.0


@dataclass(kw_only=True, slots=True)
class Writers:
    """One writer for each member, between `with` and its end."""

    etcd: Etcd
    #: The keys whose write was acknowledged.
    acknowledged: set[str] = field(default_factory=set)
    #: Why others were not, and how often.
    refused: dict[str, int] = field(default_factory=dict)
    #: Seconds; the longest time without any acknowledged write.
    longest_gap: float = 0.0
    _last: float = 0.0
    _endpoints: dict[str, Endpoint] = field(default_factory=dict)
    _first: threading.Event = field(default_factory=threading.Event)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread = field(init=False)

    def __enter__(self) -> "Writers":
        threading.Thread(target=self._follow, daemon=True, name="writers' endpoints").start()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._write()), daemon=True, name="writers")
        self._thread.start()
        assert self._first.wait(30), f"no write was acknowledged: {self.refused}"
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(30)
        print(f"{len(self.acknowledged)} writes, longest gap {self.longest_gap:.2f} s, refused: {self.refused}")

    def _follow(self) -> None:
        """Where the members are, until the writers stop."""
        like = self.etcd.endpoint("")
        cluster = kube.Cluster(self.etcd.cluster.kubeconfig)
        for pods in cluster.snapshots("pods", self.etcd.namespace, labels=self.etcd.labels, timeout=3600):
            addresses = {name: pod["status"].get("podIP") for name, pod in pods.items()}
            self._endpoints = {
                name: replace(like, address=f"{address}:2379") for name, address in addresses.items() if address
            }
            if self._stop.is_set():
                return

    async def _write(self) -> None:
        due, number = time.monotonic(), 0
        async with EtcdClient(idle=60) as client, asyncio.TaskGroup() as puts:
            while not self._stop.is_set():
                number += 1
                for member, endpoint in self._endpoints.items():
                    puts.create_task(self._put(client, endpoint, f"writers/{number:06}/{member}"))
                due = max(due + PACE, time.monotonic() - PACE)
                await asyncio.sleep(max(0.0, due - time.monotonic()))
        self._note_gap(time.monotonic())

    async def _put(self, client: EtcdClient, endpoint: Endpoint, key: str) -> None:
        try:
            await client.put(endpoint, key.encode(), b"x", timeout=DEADLINE)
        except EtcdError as error:
            self.refused[error.kind] = self.refused.get(error.kind, 0) + 1
            return
        self.acknowledged.add(key)
        self._note_gap(time.monotonic())
        self._first.set()

    def _note_gap(self, now: float) -> None:
        if self._last:
            self.longest_gap = max(self.longest_gap, now - self._last)
        self._last = now

    def lost(self) -> set[str]:
        """Keys whose write was acknowledged and that are not there."""
        found = self.etcd.etcdctl("get", "writers/", "--prefix", "--keys-only", "--command-timeout=30s", timeout=60)
        return self.acknowledged - set(found.split())

    def check(self) -> None:
        """Nothing was lost, and there was always somebody who served."""
        assert len(self.acknowledged) > 100
        assert not self.lost()
        assert self.longest_gap < WORST_GAP
