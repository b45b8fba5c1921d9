"""Shaking hands with members over TLS, to see which certificate they show and which authority they trust.

It observes only. etcd reads its authorities when it starts and tells nobody which; a handshake is the proof. Nothing is
sent but a request for the version, and who answers is not verified here: what it showed is handed back to be judged.
"""

# ruff: noqa: ASYNC109 - the whole of one handshake is bounded

import asyncio
import contextlib
import ssl
from collections.abc import Mapping
from typing import TypeVar

from etcd_operator.etcd.model import Handshake, TLSIdentity
from etcd_operator.memory_file import memory_file

K = TypeVar("K")

#: A request that every one of etcd's HTTP listeners answers. In TLS 1.3 a server tells only with its first answer
#: whether it took the client's certificate.
_REQUEST = b"GET /version HTTP/1.0\r\n\r\n"

#: A member that refuses resets the connection, at times before its alert was read. One that ends does so too, but only
#: once: then nobody answers. So many resets, each after a whole handshake, are a refusal.
_TRIES = 3


async def shake_hands(targets: Mapping[K, tuple[str, TLSIdentity]], *, timeout: float) -> dict[K, Handshake]:
    """Shake hands with each `host:port` as who the identity says; those that gave no clear answer are left out."""
    done = await asyncio.gather(*(_with_one(address, who, timeout) for address, who in targets.values()))
    return {key: seen for key, seen in zip(targets, done, strict=True) if seen is not None}


async def _with_one(address: str, who: TLSIdentity, timeout: float) -> Handshake | None:
    context = _context(who)
    with contextlib.suppress(OSError, EOFError, TimeoutError):  # ssl.SSLError is an OSError
        async with asyncio.timeout(timeout):
            for attempt in range(_TRIES):
                seen, certain = await _once(address, context)
                if certain or attempt == _TRIES - 1:
                    return seen
    return None


async def _once(address: str, context: ssl.SSLContext) -> tuple[Handshake | None, bool]:
    """What was seen, and whether it cannot mean anything else."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    try:
        # Not in one step with the connection: given up there, asyncio says goodbye over TLS, and when the member
        # refuses us meanwhile, SSL_shutdown() leaves its alert to the thread's next connection (seen).
        await writer.start_tls(context)
        return await _seen(reader, writer)
    finally:
        writer.transport.abort()


async def _seen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> tuple[Handshake | None, bool]:
    shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    if not shown:
        return None, True
    certificate = ssl.DER_cert_to_PEM_cert(shown).encode()
    try:
        writer.write(_REQUEST)
        await writer.drain()
        answered = bool(await reader.read(1))
    except ssl.SSLError:
        return Handshake(certificate=certificate, accepted=False), True
    except ConnectionError:
        return Handshake(certificate=certificate, accepted=False), False
    return Handshake(certificate=certificate, accepted=True) if answered else None, True


def _context(who: TLSIdentity) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with memory_file((who.cert or b"") + b"\n" + (who.key or b"")) as path:
        context.load_cert_chain(path)
    return context
