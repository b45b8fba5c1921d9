"""Runs the controllers: one task a key, a hard timeout, an outcome for the log and the metrics.

An exception, a timeout or a slow run of one key is that key's own affair; nothing a controller raises gets
further than here, but the loss of leadership, which ends the process elsewhere.
"""

import asyncio
import contextvars
from collections.abc import Callable, Sequence
from time import monotonic

import structlog

from etcd_operator.kube.errors import KubeError
from etcd_operator.runtime.controller import Controller, Key, Result
from etcd_operator.runtime.queue import WorkQueue

#: Called at the end of every run with the kind, the outcome (ok, requeued, error, timeout) and the seconds taken.
RunObserver = Callable[[str, str, float], None]

log = structlog.get_logger(__name__)


class Reconciler:
    """The work queue together with the controllers that work it off; belongs to one event loop."""

    def __init__(
        self,
        controllers: Sequence[Controller],
        *,
        places: int,
        timeout: float,
        observer: RunObserver = lambda kind, outcome, seconds: None,
    ) -> None:
        self._controllers = {controller.kind: controller for controller in controllers}
        self._timeout = timeout
        self._observer = observer
        self._tasks: dict[Key, asyncio.Task[None]] = {}
        self._known: set[Key] = set()
        self.queue = WorkQueue(self._start, places=places, clock=asyncio.get_running_loop())

    @property
    def kinds(self) -> tuple[str, ...]:
        return tuple(self._controllers)

    def add(self, key: Key) -> None:
        """Have a key looked at, as something may have changed, and whoever follows it."""
        if key.kind in self._controllers:
            self.queue.add(key)
        for controller in self._controllers.values():
            for follower in controller.followers(key):
                self.queue.add(follower)

    def add_all(self, kind: str, listed: Sequence[Key]) -> None:
        """Have all objects of a kind looked at, and those as well that were there before and are not listed now.

        The latter is how a controller hears of a deletion that no watch reported.
        """
        vanished = {key for key in self._known if key.kind == kind}.difference(listed)
        self._known -= vanished
        for key in (*listed, *vanished):
            self.add(key)

    def stuck(self) -> list[Key]:
        """Keys whose run did not even end a while after it was cancelled: a bug; only a restart helps."""
        return self.queue.running_longer_than(2 * self._timeout + 10)

    async def stop(self, *, grace: float) -> None:
        """Start nothing more; give what runs `grace` seconds, then cancel it (every step is safe to die after)."""
        self.queue.close()
        if self._tasks:
            _, late = await asyncio.wait(self._tasks.values(), timeout=grace)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late, timeout=grace)

    def _start(self, key: Key, changed: bool) -> None:
        # An empty context: what another key's run has bound for its log lines must not show up in this one's.
        self._tasks[key] = asyncio.get_running_loop().create_task(
            self._run(key, changed), name=f"{key.kind} {key}", context=contextvars.Context()
        )

    async def _run(self, key: Key, changed: bool) -> None:
        structlog.contextvars.bind_contextvars(kind=key.kind, cluster=str(key))
        self._known.add(key)
        started = monotonic()
        result: Result | None = None
        outcome = "cancelled"
        try:
            async with asyncio.timeout(self._timeout) as limit:
                result = await self._controllers[key.kind].reconcile(key, changed=changed)
            outcome = "ok" if result.requeue_after is None else "requeued"
        except TimeoutError as error:
            outcome = "timeout" if limit.expired() else "error"
            log.warning(
                "reconcile.failed", outcome=outcome, after_seconds=round(monotonic() - started, 1), error=str(error)
            )
        except KubeError as error:
            outcome = "error"
            # Conflicts and outages are daily bread: the sentence tells all, a traceback would only bury it.
            log.warning("reconcile.failed", outcome=outcome, error=str(error))
        except Exception:
            outcome = "error"
            log.exception("reconcile.failed", outcome=outcome)
        finally:
            del self._tasks[key]
            self._observer(key.kind, outcome, monotonic() - started)
            self.queue.finish(key, failed=result is None, requeue_after=result.requeue_after if result else None)
