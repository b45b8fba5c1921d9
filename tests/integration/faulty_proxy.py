"""A reverse proxy in front of the API server that makes trouble on demand.

It speaks plain HTTP to the operator and is the administrator towards the API server. A test sets `fault`: a function
from the request to what shall go wrong with it. Watches stream through; `cut_watches` and `expire_watches`
end the open ones the hard way, or with the 410 that the API server sends when it forgot the resource version.
"""

import asyncio
import contextlib
import json
import random
import ssl
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import aiohttp
from aiohttp import web

#: A status to answer with, "drop" for a connection that breaks, "lose" for an answer that gets lost after the
#: request took effect, `None` for no trouble.
Fault = int | str | None

_HOP_BY_HOP = {"host", "connection", "content-length", "transfer-encoding", "content-encoding"}


class FaultyProxy:
    """`async with FaultyProxy(url, tls) as proxy`, then `proxy.kubeconfig(folder)`."""

    def __init__(self, upstream: str, tls: ssl.SSLContext) -> None:
        self._upstream = upstream
        self._tls = tls
        self._streams: set[web.StreamResponse] = set()
        self._transports: set[asyncio.Transport] = set()
        self.fault: Callable[[web.Request], Fault] = lambda request: None
        #: How often each fault was done.
        self.done: Counter[str] = Counter()
        #: (method, is a watch or not, user agent) of every request that came in.
        self.seen: Counter[tuple[str, bool, str]] = Counter()
        self.port = 0

    async def __aenter__(self) -> "FaultyProxy":
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=self._tls),
            timeout=aiohttp.ClientTimeout(sock_connect=2),
            read_bufsize=2**22,
        )
        app = web.Application(client_max_size=2**24)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()
        await self._session.close()

    def kubeconfig(self, folder: Path) -> Path:
        path = folder / "proxy.kubeconfig"
        cluster = {"name": "p", "cluster": {"server": f"http://127.0.0.1:{self.port}"}}
        context = {"name": "p", "context": {"cluster": "p", "user": "p"}}
        path.write_text(
            json.dumps(
                {
                    "current-context": "p",
                    "contexts": [context],
                    "clusters": [cluster],
                    "users": [{"name": "p", "user": {}}],
                }
            )
        )
        return path

    @property
    def open_watches(self) -> int:
        return len(self._streams)

    def cut_watches(self) -> int:
        """Break the connections of all open watches; how many."""
        transports = list(self._transports)
        for transport in transports:
            transport.abort()
        return len(transports)

    async def expire_watches(self) -> int:
        """Send 410 Gone into all open watches; how many."""
        gone = {"kind": "Status", "apiVersion": "v1", "code": 410, "reason": "Expired", "message": "too old"}
        return await self._send_to_watches(gone)

    async def fail_watches(self) -> int:
        """Send an error into all open watches that Kopf does not get over; how many."""
        failed = {"kind": "Status", "apiVersion": "v1", "code": 500, "reason": "InternalError", "message": "broken"}
        return await self._send_to_watches(failed)

    async def _send_to_watches(self, status: dict[str, object]) -> int:
        line = json.dumps({"type": "ERROR", "object": status}).encode() + b"\n"
        streams = list(self._streams)
        for stream in streams:
            with contextlib.suppress(ConnectionError):  # the first of them may have made the client close all
                await stream.write(line)
        return len(streams)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        watching = "watch" in request.query
        self.seen[(request.method, watching, request.headers.get("User-Agent", ""))] += 1
        fault = self.fault(request)
        if fault is not None:
            self.done[str(fault)] += 1
        if isinstance(fault, int):
            told = {"kind": "Status", "apiVersion": "v1", "code": fault, "reason": "Injected", "message": "injected"}
            return web.json_response(told, status=fault)
        if fault == "drop":
            return _abort(request)
        body = await request.read()
        headers = {key: value for key, value in request.headers.items() if key.lower() not in _HOP_BY_HOP}
        try:
            async with self._session.request(
                request.method, f"{self._upstream}{request.raw_path}", headers=headers, data=body or None
            ) as answer:
                if fault == "lose":
                    return _abort(request)
                return await self._pass_on(request, answer, watching=watching)
        except aiohttp.ClientError:
            return _abort(request)

    async def _pass_on(
        self, request: web.Request, answer: aiohttp.ClientResponse, *, watching: bool
    ) -> web.StreamResponse:
        headers = {key: value for key, value in answer.headers.items() if key.lower() not in _HOP_BY_HOP}
        if not watching or answer.status != 200:
            return web.Response(status=answer.status, headers=headers, body=await answer.read())
        stream = web.StreamResponse(status=200, headers=headers)
        await stream.prepare(request)
        assert isinstance(request.transport, asyncio.Transport)
        transport = request.transport
        self._streams.add(stream)
        self._transports.add(transport)
        try:
            async for line in answer.content:
                await stream.write(line)
        except (ConnectionError, aiohttp.ClientError):
            transport.abort()
        finally:
            self._streams.discard(stream)
            self._transports.discard(transport)
        return stream


def sometimes(share: float, *faults: Fault, seed: int = 1) -> Callable[[web.Request], Fault]:
    """A fault for that share of the requests, drawn evenly; conflicts (409) only for writes, as in real life."""
    draw = random.Random(seed)

    def fault(request: web.Request) -> Fault:
        drawn = draw.choice(faults) if draw.random() < share else None
        return None if drawn == 409 and request.method == "GET" else drawn

    return fault


def _abort(request: web.Request) -> web.Response:
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=502)
