"""Clients of a hosted API server while its etcd, or its wiring, changes: one that writes, one that watches, and the
leader elections of its controllers.

They go on to another of its pods when one refuses them, as clients behind a Service do.
"""

import json
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime

import requests

from e2e.hosted import CONTROLLERS, Hosted

CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases"


@dataclass(kw_only=True, slots=True)
class Use:
    """What the clients saw."""

    hosted: Hosted
    created: set[str] = field(default_factory=set)
    #: How often a watch told of each ConfigMap's creation.
    told: Counter[str] = field(default_factory=Counter)
    refused: int = 0
    #: Seconds between two writes that were acknowledged, the longest.
    longest_gap: float = 0.0
    #: Seconds between two renewals of a controller's Lease, the longest, and who held it.
    lease_gaps: dict[str, float] = field(default_factory=dict)
    holders: dict[str, set[str]] = field(default_factory=dict)
    _stop: threading.Event = field(default_factory=threading.Event)

    def check(self) -> None:
        """Nothing that was acknowledged is lost, and the watch told of no object twice."""
        assert len(self.created) > 20
        assert self.created <= self.hosted.names()
        assert {name for name, times in self.told.items() if times != 1} == set()

    def check_leases(self) -> None:
        """Nobody lost an election: every holder kept its Lease, which lasts 15 s, all the while."""
        assert set(self.holders) == set(CONTROLLERS)
        assert {name: len(held) for name, held in self.holders.items()} == dict.fromkeys(CONTROLLERS, 1)
        assert max(self.lease_gaps.values()) < 15, self.lease_gaps

    def write(self) -> None:
        """Create ConfigMaps, one after the other."""
        number, last = 0, time.monotonic()
        while not self._stop.is_set():
            number += 1
            name = f"use-{secrets.token_hex(4)}-{number:05}"
            try:
                self.hosted.put(name)
            except (requests.RequestException, IndexError):
                self.refused += 1
                continue
            self.created.add(name)
            now = time.monotonic()
            self.longest_gap, last = max(self.longest_gap, now - last), now

    def watch(self, version: str) -> None:
        """Follow all ConfigMaps from that version on, and go on where it ended."""
        while not (self._stop.is_set() and self.created <= set(self.told)):
            try:
                version = self._follow(version)
            except (requests.RequestException, IndexError):
                continue

    def _follow(self, version: str) -> str:
        query = {"watch": "1", "resourceVersion": version, "allowWatchBookmarks": "true", "timeoutSeconds": "20"}
        address = secrets.choice(sorted(self.hosted.pods().values()))
        with self.hosted.stream(address, CONFIG_MAPS, query) as lines:
            try:
                for line in lines:
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        return version
                    version = event["object"]["metadata"]["resourceVersion"]
                    if event["type"] == "ADDED":
                        self.told[event["object"]["metadata"]["name"]] += 1
                    if self._stop.is_set() and self.created <= set(self.told):
                        break
            except requests.RequestException:
                pass
        return version

    def watch_leases(self) -> None:
        """Look at the Leases again and again; what counts is when their holders say that they renewed them."""
        renewed: dict[str, datetime] = {}
        while not self._stop.wait(0.5):
            try:
                address = secrets.choice(sorted(self.hosted.pods().values()))
                items = self.hosted.request(address, "GET", LEASES).json()["items"]
            except (requests.RequestException, IndexError, KeyError):
                continue
            for item in items:
                name, spec = item["metadata"]["name"], item["spec"]
                if name not in CONTROLLERS or not spec.get("renewTime"):
                    continue
                at = datetime.fromisoformat(spec["renewTime"])
                gap = (at - renewed.get(name, at)).total_seconds()
                renewed[name] = at
                self.lease_gaps[name] = max(self.lease_gaps.get(name, 0.0), gap)
                self.holders.setdefault(name, set()).add(spec["holderIdentity"])

    def stop(self) -> None:
        """Let all of them end."""
        self._stop.set()


@contextmanager
def using(hosted: Hosted) -> Iterator[Use]:
    """Use it until the end of the `with`."""
    own = Hosted(cluster=hosted.cluster.apart(), namespace=hosted.namespace, token=hosted.token)
    use = Use(hosted=own)
    first = own.request(next(iter(own.pods().values())), "GET", CONFIG_MAPS).json()
    version = first["metadata"]["resourceVersion"]
    work: tuple[Callable[[], None], ...] = (use.write, lambda: use.watch(version), use.watch_leases)
    threads = [threading.Thread(target=each, daemon=True, name="hosted API server's client") for each in work]
    for thread in threads:
        thread.start()
    try:
        yield use
    finally:
        use.stop()
        for thread in threads:
            thread.join(60)
        print(
            f"{len(use.created)} objects, {len(use.created - set(use.told))} not told by the watch before it ended, "
            f"{use.refused} requests refused, longest gap {use.longest_gap:.2f} s; "
            f"Leases renewed at least every {use.lease_gaps} s"
        )
