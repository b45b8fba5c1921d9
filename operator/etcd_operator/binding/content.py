"""What an etcd holds below a prefix, read page by page at one revision, to tell whether two hold the same.

I/O with etcd, no judgement.
"""

import hashlib
from collections.abc import Sequence

from etcd_operator.binding.observation import Content
from etcd_operator.etcd.client import EtcdClient
from etcd_operator.etcd.errors import EtcdError
from etcd_operator.etcd.model import Endpoint

#: Keys a page: an object is some kilobytes, and an answer may have 16 MiB.
PAGE = 200
_NO_ANSWER = frozenset({"timeout", "refused", "unreachable", "tls", "unavailable"})


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
