"""Clients that read, write and compare-and-swap the same few keys through all members of an etcd, and record it all.

Each client goes on whatever the answers are, one operation at a time with a deadline, and moves between members. Every
write writes a value of its own. A key is retired for a fresh one after a while, above all when the outcome of several
writes to it is unknown, as the checker must try all places for each of those; retired keys are read at the end.
"""

import asyncio
import itertools
import random
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Self

from aetcd import rpc

from etcd_operator.etcd.client import EtcdClient
from etcd_operator.etcd.errors import EtcdError
from etcd_operator.etcd.model import Endpoint
from linearizability.history import Kind, Operation, Recorder, outcome_of

#: Seconds until an answer is given up.
DEADLINE = 1.0
#: How often of ten each kind is done.
MIX: tuple[Kind, ...] = ("get",) * 4 + ("put",) * 3 + ("cas",) * 3
#: After how many operations, and after how many unknown outcomes, a key is retired.
KEY_LIFE, KEY_DOUBTS = 1500, 5
#: How often a key is asked for at the end, until it is answered.
ATTEMPTS = 3
#: The most operations that a client does through one member before it moves on.
STAY = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What etcd answered. swapped: whether the comparison held; True for puts and gets."""

    revision: int
    swapped: bool = True
    found: str | None = None
    modified: int = 0


class KeyClient(EtcdClient):
    """The operator's client, and what it has no need for: revisions, and writes that depend on what is there."""

    async def write(self, endpoint: Endpoint, key: str, value: str) -> Answer:
        """Write a key. Raises EtcdError."""
        return Answer(revision=await self.put(endpoint, key.encode(), value.encode(), timeout=DEADLINE))

    async def read(self, endpoint: Endpoint, key: str) -> Answer:
        """Read a key, linearizably. Raises EtcdError."""
        request = rpc.RangeRequest(key=key.encode())
        said = await self._call(endpoint, "KV", "Range", request, rpc.RangeResponse, DEADLINE)
        return _found(said, said.header.revision, swapped=True)

    async def swap(self, endpoint: Endpoint, key: str, expected: str | None, value: str) -> Answer:
        """Write a key if it holds what is expected (None: if it does not exist), else read it. Raises EtcdError."""
        name = key.encode()
        if expected is None:
            compare = rpc.Compare(key=name, result=rpc.Compare.EQUAL, target=rpc.Compare.VERSION, version=0)
        else:
            compare = rpc.Compare(key=name, result=rpc.Compare.EQUAL, target=rpc.Compare.VALUE, value=expected.encode())
        request = rpc.TxnRequest(
            compare=[compare],
            success=[rpc.RequestOp(request_put=rpc.PutRequest(key=name, value=value.encode()))],
            failure=[rpc.RequestOp(request_range=rpc.RangeRequest(key=name))],
        )
        said = await self._call(endpoint, "KV", "Txn", request, rpc.TxnResponse, DEADLINE)
        if said.succeeded:
            return Answer(revision=said.header.revision)
        return _found(said.responses[0].response_range, said.header.revision, swapped=False)


def _found(said: Any, revision: int, *, swapped: bool) -> Answer:
    if not said.kvs:
        return Answer(revision=revision, swapped=swapped)
    held = said.kvs[0]
    return Answer(revision=revision, swapped=swapped, found=held.value.decode(), modified=held.mod_revision)


@dataclass(kw_only=True, slots=True)
class Key:
    """One key that clients meet at. last: a value that it was seen to hold."""

    name: str
    last: str | None = None
    operations: int = 0
    doubts: int = 0

    def note(self, done: Operation) -> None:
        """Learn from an operation on this key."""
        self.operations += 1
        self.doubts += done.outcome == "unknown"
        if done.outcome in ("done", "differs"):
            self.last = done.value if done.kind != "get" and done.outcome == "done" else done.found

    @property
    def spent(self) -> bool:
        """Whether it is to be retired."""
        return self.operations >= KEY_LIFE or self.doubts >= KEY_DOUBTS


@dataclass(kw_only=True, slots=True)
class Clients:
    """Concurrent clients between `with` and its end; then `read_all` reads every key that there ever was.

    endpoints: the members by name as they are now. seed: of what the clients do. pace: seconds between the operations
    of one client, on average; half of them follow at once.
    """

    endpoints: Callable[[], Mapping[str, Endpoint]]
    recorder: Recorder
    seed: str
    count: int = 8
    meeting_points: int = 5
    pace: float = 0.08
    _keys: list[Key] = field(default_factory=list)
    _retired: list[Key] = field(default_factory=list)
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread = field(init=False)
    _failure: BaseException | None = None

    def __enter__(self) -> Self:
        self._keys = [self._fresh() for _ in range(self.meeting_points)]
        self._thread = threading.Thread(target=self._work, daemon=True, name="clients")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(30)
        assert not self._thread.is_alive(), "the clients do not end"
        self.check()

    def check(self) -> None:
        """Raise what ended the clients before their time, if anything did."""
        if self._failure:
            raise self._failure

    def read_all(self) -> list[str]:
        """Read every key through every member; the keys that some member did not tell."""
        return asyncio.run(self._read_all())

    async def _read_all(self) -> list[str]:
        silent = []
        async with aclosing(KeyClient(idle=60)) as client:
            for key in self._retired + self._keys:
                for member, endpoint in sorted(self.endpoints().items()):
                    for _ in range(ATTEMPTS):
                        if await self._do(client, self.count, member, endpoint, "get", key):
                            break
                    else:
                        silent.append(f"{key.name} through {member}")
        return silent

    def _fresh(self) -> Key:
        return Key(name=f"k{next(self._numbers):05}")

    def _work(self) -> None:
        try:
            asyncio.run(self._all())
        except BaseException as error:  # noqa: BLE001 - raised by `check`, in the thread of who uses the clients
            self._failure = error

    async def _all(self) -> None:
        async with asyncio.TaskGroup() as clients:
            for number in range(self.count):
                clients.create_task(self._one(number))

    async def _one(self, number: int) -> None:
        """One client, until it is told to stop."""
        dice = random.Random(f"{self.seed} client {number}")
        async with aclosing(KeyClient(idle=60)) as client:
            while not self._stop.is_set():
                member = dice.choice(sorted(self.endpoints()) or [""])
                for _ in range(dice.randint(1, STAY)):
                    endpoint = self.endpoints().get(member)
                    if endpoint is not None and not self._stop.is_set():
                        await self._do(client, number, member, endpoint, dice.choice(MIX), self._key(dice))
                    await asyncio.sleep(dice.choice((0, dice.uniform(0, 4 * self.pace))))

    def _key(self, dice: random.Random) -> Key:
        place = dice.randrange(len(self._keys))
        if self._keys[place].spent:
            self._retired.append(self._keys[place])
            self._keys[place] = self._fresh()
        return self._keys[place]

    async def _do(self, client: KeyClient, number: int, member: str, endpoint: Endpoint, kind: Kind, key: Key) -> bool:
        """Do one operation and record it; whether it was answered."""
        value = f"v{next(self._numbers)}" if kind != "get" else ""
        expected = key.last if kind == "cas" else None
        answer, error = None, None
        call = time.monotonic_ns()
        try:
            match kind:
                case "get":
                    answer = await client.read(endpoint, key.name)
                case "put":
                    answer = await client.write(endpoint, key.name, value)
                case "cas":
                    answer = await client.swap(endpoint, key.name, expected, value)
        except EtcdError as failed:
            error = failed
        done = Operation(
            client=number,
            kind=kind,
            key=key.name,
            outcome=outcome_of(kind, answer.swapped if answer else error),
            call=call,
            returned=time.monotonic_ns(),
            value=value,
            expected=expected,
            found=answer.found if answer else None,
            revision=answer.revision if answer else 0,
            modified=answer.modified if answer else 0,
            member=member,
            error=f"{error.kind}: {error.detail}" if error else "",
        )
        self.recorder.note(done)
        key.note(done)
        return answer is not None
