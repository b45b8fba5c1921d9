"""What an etcd holds below a prefix, read page by page at one revision, to tell whether two hold the same.

I/O with etcd, no judgement.
"""

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from etcd_operator.binding.arguments import normal_prefix
from etcd_operator.binding.comparison import Comparison, Content
from etcd_operator.etcd.client import EtcdClient
from etcd_operator.etcd.errors import EtcdError
from etcd_operator.etcd.model import Endpoint, TLSIdentity, hex_id

#: Keys a page: an object is some kilobytes, and an answer may have 16 MiB.
PAGE = 200
_NO_ANSWER = frozenset({"timeout", "refused", "unreachable", "tls", "unavailable"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Side:
    """One of two etcds as an API server is told of it: addresses in --etcd-servers, its certificate, its prefix.

    tls: `None` where no address is encrypted.
    """

    servers: tuple[str, ...]
    tls: TLSIdentity | None
    prefix: str

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """Its members; raises `EtcdError` for what is no address."""
        return tuple(endpoint_of(server, self.tls) for server in self.servers)


def endpoint_of(server: str, identity: TLSIdentity | None) -> Endpoint:
    """An address in --etcd-servers, such as https://a.b.svc:2379, as a client dials it; raises `EtcdError`."""
    try:
        parts = urlsplit(server if "://" in server else f"http://{server}")
        host, port = parts.hostname, parts.port or 2379
    except ValueError:
        host = None
    if not host:
        raise EtcdError("unreachable", f"{server} is no address")
    host = f"[{host}]" if ":" in host else host
    return Endpoint(address=f"{host}:{port}", tls=identity if parts.scheme == "https" else None)


async def answers(etcd: EtcdClient, side: Side) -> dict[str, str]:
    """Of each address, why its certificate does not read there below its prefix; empty where it does."""

    async def ask(server: str) -> str:
        try:
            await etcd.get(endpoint_of(server, side.tls), f"{side.prefix}/".encode())
        except EtcdError as error:
            return error.message
        return ""

    told = await asyncio.gather(*(ask(server) for server in side.servers))
    return dict(zip(side.servers, told, strict=True))


async def cluster_ids(etcd: EtcdClient, side: Side) -> tuple[dict[str, str], dict[str, str]]:
    """Of each address that answers, the ID of the etcd cluster there, in hex; of each other one, why it does not."""
    ids: dict[str, str] = {}
    silent: dict[str, str] = {}

    async def ask(server: str) -> None:
        try:
            ids[server] = hex_id((await etcd.status(endpoint_of(server, side.tls))).cluster_id)
        except EtcdError as error:
            silent[server] = error.message

    await asyncio.gather(*(ask(server) for server in side.servers))
    return ids, silent


async def compare(etcd: EtcdClient, *, present: Side, wanted: Side, longest: float) -> Comparison:
    """What the etcd of now holds beside what the wanted one does; longest: seconds that reading both may take."""
    servers = ",".join(present.servers)
    try:
        old, new = present.endpoints, wanted.endpoints
        same = await is_one_etcd(etcd, present, wanted)
        if same and normal_prefix(present.prefix) == normal_prefix(wanted.prefix):
            return Comparison(servers=servers, same_etcd=True)
        async with asyncio.timeout(longest):
            _, held = await first_content(etcd, new, wanted.prefix)
            endpoint, before = await first_content(etcd, old, present.prefix)
            moving = await revision(etcd, endpoint) != before.revision
        return Comparison(servers=servers, before=before, wanted=held, moving=moving)
    except TimeoutError:
        return Comparison(servers=servers, problem=f"reading it takes longer than {longest:.0f} s")
    except EtcdError as error:
        return Comparison(servers=servers, problem=error.message)


async def is_one_etcd(etcd: EtcdClient, *sides: Side) -> bool:
    """Whether all addresses that answer are members of one cluster, by etcd's cluster ID; raises `EtcdError`.

    All of them: an address may be another cluster's by now.
    """
    found: set[str] = set()
    for ids, silent in await asyncio.gather(*(cluster_ids(etcd, side) for side in sides)):
        if not ids:
            raise EtcdError("unreachable", next(iter(silent.values()), "no address is given"))
        found |= set(ids.values())
    return len(found) == 1


async def content(etcd: EtcdClient, endpoint: Endpoint, prefix: str) -> Content:
    """Everything below the prefix; raises `EtcdError`.

    Keys with a lease are left out: they go by themselves, on one side sooner than on the other (events, and the
    addresses of API servers below `masterleases`).
    """
    start = f"{prefix.rstrip('/')}/".encode()
    end = start[:-1] + bytes([start[-1] + 1])
    digest, keys, revision, at, limit = hashlib.sha256(), 0, 0, start, PAGE
    while True:
        try:
            page = await etcd.range(endpoint, at, end, limit=limit, revision=revision)
        except EtcdError as error:
            if limit == 1 or error.kind in _NO_ANSWER:
                raise
            limit = max(1, limit // 8)  # the answer was too large, perhaps
            continue
        revision = revision or page.revision
        for each in page.pairs:
            if each.lease:
                continue
            keys += 1
            for part in (each.key.removeprefix(start), each.value):
                digest.update(len(part).to_bytes(8) + part)
        if not page.more:
            return Content(keys=keys, revision=revision, digest=digest.hexdigest())
        at = page.pairs[-1].key + b"\0"


async def first_content(etcd: EtcdClient, endpoints: Sequence[Endpoint], prefix: str) -> tuple[Endpoint, Content]:
    """What the first of an etcd's members that answers holds, and which it is; raises the last one's `EtcdError`."""
    failure = EtcdError("unreachable", "no address is given")
    for endpoint in endpoints:
        try:
            return endpoint, await content(etcd, endpoint, prefix)
        except EtcdError as error:
            failure = error
    raise failure


async def revision(etcd: EtcdClient, endpoint: Endpoint) -> int:
    """The store's revision now, whatever was written; raises `EtcdError`."""
    return (await etcd.range(endpoint, b"/", b"0", limit=1)).revision
