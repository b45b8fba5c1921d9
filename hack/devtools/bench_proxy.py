"""What the proxy costs: puts and ranges of the same clients, to the members themselves and through the proxies.

Closed loop: each client asks again when it has its answer, so that what is slower is asked less. Both sides have as
many connections, spread over all members or over all proxies, and take turns in short rounds.
"""

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from devtools import environment, kube
from devtools.bench_sides import NAMESPACE, PATIENCE
from devtools.endpoints import Endpoints
from etcd_operator.etcd.client import EtcdClient
from etcd_operator.etcd.model import Endpoint

NAME = "proxied"
#: Clients side by side, each with a connection of its own.
CLIENTS = 12
#: Seconds of one round of one kind of request on one side, and how many each has.
ROUND, ROUNDS = 4.0, 5
VALUE = b"x" * 256

Request = Callable[[EtcdClient, Endpoint, int], Awaitable[object]]


async def _put(client: EtcdClient, endpoint: Endpoint, number: int) -> None:
    await client.put(endpoint, f"bench/{number % 1000:04}".encode(), VALUE)


async def _range(client: EtcdClient, endpoint: Endpoint, number: int) -> None:
    await client.get(endpoint, f"bench/{number % 1000:04}".encode())


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """Throughput through the proxies as a part of that without, and what they add to the median, in milliseconds."""

    put_ratio: float
    range_ratio: float
    put_added_ms_p50: float
    range_added_ms_p50: float
    direct_puts_s: float
    direct_ranges_s: float


@dataclass(kw_only=True, slots=True)
class Side:
    """All answers of one kind of request on one side: how long each took, in seconds."""

    took: list[float] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def throughput(self) -> float:
        return len(self.took) / self.seconds

    @property
    def median_ms(self) -> float:
        return 1000 * statistics.median(self.took)


def measure(cluster: kube.Cluster) -> Report:
    """Let an EtcdCluster stand, and ask it both ways in turn."""
    cluster.apply(_etcd_cluster(), namespace=NAMESPACE)
    cluster.wait_for_one(environment.is_available, "etcdclusters", NAMESPACE, NAME, timeout=PATIENCE)
    ways = {way: _endpoints(cluster, way) for way in ("etcd", "etcd-proxy")}
    requests: dict[str, Request] = {"put": _put, "range": _range}
    sides = {(way, kind): Side() for way in ways for kind in requests}
    for number in range(ROUNDS):
        for kind, request in requests.items():
            # Who starts alternates, so that neither side always finds the other's compactions and caches.
            for way in sorted(ways, reverse=number % 2 == 0):
                asyncio.run(_round(ways[way], request, sides[way, kind]))
    return compare(sides)


def compare(sides: dict[tuple[str, str], Side]) -> Report:
    """The proxies' figures beside those of the members themselves."""

    def ratio(kind: str) -> float:
        return round(sides["etcd-proxy", kind].throughput / sides["etcd", kind].throughput, 3)

    def added(kind: str) -> float:
        return round(sides["etcd-proxy", kind].median_ms - sides["etcd", kind].median_ms, 2)

    return Report(
        put_ratio=ratio("put"),
        range_ratio=ratio("range"),
        put_added_ms_p50=added("put"),
        range_added_ms_p50=added("range"),
        direct_puts_s=round(sides["etcd", "put"].throughput),
        direct_ranges_s=round(sides["etcd", "range"].throughput),
    )


async def _round(endpoints: list[Endpoint], request: Request, side: Side) -> None:
    """One round: all clients connect first, then ask for `ROUND` seconds."""
    connected = asyncio.Barrier(CLIENTS)

    async def ask(number: int) -> None:
        endpoint = endpoints[number % len(endpoints)]
        async with EtcdClient(idle=60) as client:
            await request(client, endpoint, number)
            await connected.wait()
            end = time.monotonic() + ROUND
            while (begun := time.monotonic()) < end:
                number += CLIENTS
                await request(client, endpoint, number)
                side.took.append(time.monotonic() - begun)

    await asyncio.gather(*(ask(number) for number in range(CLIENTS)))
    side.seconds += ROUND


def _endpoints(cluster: kube.Cluster, application: str) -> list[Endpoint]:
    """Where to ask: every member, or every proxy, once all of them are ready."""
    labels = f"app.kubernetes.io/name={application},externaletcd.io/cluster={NAME}"
    wanted = {"etcd": 3, "etcd-proxy": 2}[application]

    def all_ready(pods: kube.Snapshot) -> bool:
        return sum(map(kube.is_ready_pod, pods.values())) == len(pods) == wanted

    cluster.wait_for(all_ready, "pods", NAMESPACE, labels=labels, timeout=PATIENCE, what=f"all of {application} ready")
    found = Endpoints(cluster=cluster, namespace=NAMESPACE, name=NAME, application=application)
    return list(found.read().values())


def _etcd_cluster() -> kube.Manifest:
    return {
        "apiVersion": "externaletcd.io/v1alpha1",
        "kind": "EtcdCluster",
        "metadata": {"name": NAME},
        "spec": {"members": 3, "storage": {"size": "1Gi", "deletionPolicy": "Delete"}},
    }
