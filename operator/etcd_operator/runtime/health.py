"""/healthz, /readyz and /metrics on one small HTTP server.

It lives on the controllers' event loop on purpose: when that stands still, the probe gets no answer, and the
kubelet restarts the operator. Says nothing that must be kept secret.
"""

from collections.abc import Awaitable, Callable

from aiohttp import web

#: What is wrong right now, one sentence each; empty when all is well.
Check = Callable[[], list[str]]


class HealthServer:
    """Answers the kubelet and Prometheus until closed."""

    def __init__(self, *, healthy: Check, ready: Check, metrics: Callable[[], bytes]) -> None:
        self._metrics = metrics
        app = web.Application()
        app.router.add_get("/healthz", _probe(healthy))
        app.router.add_get("/readyz", _probe(ready))
        app.router.add_get("/metrics", self._tell_metrics)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)

    async def open(self, address: str, port: int) -> int:
        """Listen on an address (empty: all) and port (0: a free one); the port. Raises `OSError`."""
        await self._runner.setup()
        await web.TCPSite(self._runner, address or None, port).start()
        listening: int = self._runner.addresses[0][1]
        return listening

    async def close(self) -> None:
        await self._runner.cleanup()

    async def _tell_metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=self._metrics(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})


def _probe(check: Check) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(_: web.Request) -> web.Response:
        problems = check()
        return web.Response(status=503 if problems else 200, text="\n".join(problems or ["ok"]) + "\n")

    return answer
