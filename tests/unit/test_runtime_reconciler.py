"""One key's trouble stays its own."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable

import structlog

from etcd_operator.kube.errors import Conflict
from etcd_operator.runtime.controller import Key, Result
from etcd_operator.runtime.reconciler import Reconciler

A = Key("EtcdCluster", "ns", "a")
B = Key("EtcdCluster", "ns", "b")


class Toy:
    """A controller whose every reconcile is a function of the test."""

    kind = "EtcdCluster"

    def __init__(self, do: Callable[[Key, bool], Awaitable[Result]]) -> None:
        self._do = do

    def followers(self, key: Key) -> Iterable[Key]:
        return ()

    async def reconcile(self, key: Key, *, changed: bool) -> Result:
        return await self._do(key, changed)


def reconciler(do: Callable[[Key, bool], Awaitable[Result]], *, timeout: float = 5.0) -> tuple[Reconciler, list[str]]:
    outcomes: list[str] = []
    made = Reconciler(
        [Toy(do)], places=4, timeout=timeout, observer=lambda kind, outcome, seconds: outcomes.append(outcome)
    )
    return made, outcomes


async def test_a_key_that_hangs_times_out_and_others_go_on_meanwhile() -> None:
    done = asyncio.Event()

    async def do(key: Key, changed: bool) -> Result:
        if key == A:
            await asyncio.Event().wait()
        done.set()
        return Result()

    made, outcomes = reconciler(do, timeout=0.3)
    made.add(A)
    made.add(B)
    await asyncio.wait_for(done.wait(), 0.2)
    await until(lambda: outcomes == ["ok", "timeout"])
    await made.stop(grace=0.1)


async def test_an_exception_is_retried_with_the_same_change() -> None:
    calls: list[bool] = []
    done = asyncio.Event()

    async def do(key: Key, changed: bool) -> Result:
        calls.append(changed)
        if len(calls) == 1:
            raise ZeroDivisionError
        if len(calls) == 2:
            raise Conflict(status=409, reason="Conflict", message="somebody was faster")
        done.set()
        return Result()

    made, outcomes = reconciler(do)
    made.add(A)
    await asyncio.wait_for(done.wait(), 5)
    await asyncio.sleep(0)
    assert calls == [True, True, True]
    assert outcomes == ["error", "error", "ok"]


async def test_a_timeout_error_of_the_controller_itself_is_an_error_like_any_other() -> None:
    async def do(key: Key, changed: bool) -> Result:
        raise TimeoutError("etcd did not answer")

    made, outcomes = reconciler(do)
    made.add(A)
    await until(lambda: bool(outcomes))
    assert outcomes == ["error"]
    await made.stop(grace=0)


async def test_stopping_lets_quick_runs_end_and_cancels_slow_ones() -> None:
    ended: list[str] = []

    async def do(key: Key, changed: bool) -> Result:
        try:
            await asyncio.sleep(0.05 if key == A else 60)
            ended.append(key.name)
        except asyncio.CancelledError:
            ended.append(f"{key.name} cancelled")
            raise
        return Result()

    made, _ = reconciler(do)
    made.add(A)
    made.add(B)
    await asyncio.sleep(0)
    await made.stop(grace=0.3)
    assert ended == ["a", "b cancelled"]


async def test_objects_that_vanished_unseen_are_looked_at_once_more() -> None:
    seen: list[str] = []

    async def do(key: Key, changed: bool) -> Result:
        seen.append(key.name)
        return Result()

    made, _ = reconciler(do)
    made.add_all("EtcdCluster", [A, B])
    await until(lambda: len(seen) == 2)
    made.add_all("EtcdCluster", [B])
    await until(lambda: len(seen) == 4)
    assert sorted(seen[2:]) == ["a", "b"]


async def test_keys_of_kinds_without_a_controller_are_ignored() -> None:
    async def do(key: Key, changed: bool) -> Result:
        raise AssertionError("not ours")

    made, outcomes = reconciler(do)
    made.add(Key("EtcdBackup", "ns", "a"))
    await asyncio.sleep(0.01)
    assert outcomes == []


async def test_what_one_run_binds_for_the_log_is_not_seen_by_the_next() -> None:
    contexts: list[dict[str, object]] = []

    async def do(key: Key, changed: bool) -> Result:
        contexts.append(dict(structlog.contextvars.get_contextvars()))
        structlog.contextvars.bind_contextvars(step="remove")
        return Result(requeue_after=0.01 if len(contexts) == 1 else None)

    made, _ = reconciler(do)
    made.add(A)
    await until(lambda: len(contexts) == 2)
    assert contexts == [{"kind": "EtcdCluster", "cluster": "ns/a"}] * 2


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - what is awaited are plain lists
            await asyncio.sleep(0.005)
