"""Asking etcd and telling it, over gRPC: the only module that knows gRPC and its generated messages.

Every method takes the endpoint of one member and returns values of `model` or raises `EtcdError`; no gRPC exception
leaves. There is no retry and no choice of endpoint here: who calls knows which member it means. Connections serve the
calls of one round and close when idle, so that a resting cluster holds none.
"""

# ruff: noqa: ASYNC109 - a timeout here is a deadline that gRPC tells etcd, which then stops working on the call

import asyncio
import contextlib
import ipaddress
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

# gRPC's core writes its own lines about every failed handshake to stderr; each failure is told by an EtcdError instead.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import grpc
import grpc.aio
from aetcd import rpc
from google.protobuf.unknown_fields import UnknownFieldSet

from etcd_operator.etcd.errors import EtcdError, error_from
from etcd_operator.etcd.model import (
    Alarm,
    AlarmKind,
    Endpoint,
    KeyHash,
    KeyValue,
    Member,
    MemberList,
    MemberReport,
    Page,
)

#: Seconds that a connection is kept after its last call: long enough for the steps of one round.
IDLE = 3.0

#: The largest answer accepted, bytes; etcd's own limit for one request is 1.5 MiB unless configured otherwise.
MAX_ANSWER = 16 * 1024 * 1024

_OPTIONS: tuple[tuple[str, Any], ...] = (
    ("grpc.enable_http_proxy", 0),  # the environment's proxy is not for pod addresses
    ("grpc.use_local_subchannel_pool", 1),  # each channel dials for itself: no shared back-off
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.enable_retries", 0),
    ("grpc.service_config_disable_resolution", 1),
    ("grpc.max_receive_message_length", MAX_ANSWER),
)

#: Failures after which the next call dials anew instead of meeting the old connection's back-off.
_BROKEN = frozenset({"timeout", "refused", "unreachable", "tls", "unavailable"})

# Fields of StatusResponse and HashKVResponse that came with etcd 3.6, newer than the generated messages
# (api/etcdserverpb/rpc.proto). Protobuf keeps what it does not know, so they are read by number.
_STORAGE_VERSION, _DB_QUOTA, _DOWNGRADE_INFO, _DOWNGRADE_TARGET, _HASH_REVISION = 11, 12, 13, 2, 4


def _no_count(_method: str, _outcome: str) -> None:
    """Count nothing."""


@dataclass(slots=True)
class _Connection:
    channel: Any
    calls: int = 0
    broken: bool = False
    idle: asyncio.TimerHandle | None = field(default=None)


class EtcdClient:
    """A client of any number of clusters; use it within one event loop and `aclose` it.

    count: called with the method ("Status") and "ok" or the error's kind after each call, for metrics.
    idle: seconds after which an unused connection is closed.
    """

    def __init__(self, *, count: Callable[[str, str], None] = _no_count, idle: float = IDLE) -> None:
        self._count = count
        self._idle = idle
        self._connections: dict[Endpoint, _Connection] = {}
        self._closing: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> "EtcdClient":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close every connection; calls under way end with an error."""
        for endpoint in list(self._connections):
            self._drop(endpoint)
        while self._closing:
            await asyncio.gather(*self._closing, return_exceptions=True)

    @property
    def open_connections(self) -> int:
        """How many connections are held now."""
        return len(self._connections)

    # What a member says

    async def status(self, endpoint: Endpoint, *, timeout: float = 2.0) -> MemberReport:
        """What this member says of itself; it needs no quorum and no leader."""
        said = await self._call(endpoint, "Maintenance", "Status", rpc.StatusRequest(), rpc.StatusResponse, timeout)
        newer = _unknown_fields(said)
        downgrade = newer.get(_DOWNGRADE_INFO)
        return MemberReport(
            cluster_id=said.header.cluster_id,
            member_id=said.header.member_id,
            version=said.version,
            leader_id=said.leader,
            is_learner=said.isLearner,
            raft_index=said.raftIndex,
            raft_applied_index=said.raftAppliedIndex,
            raft_term=said.raftTerm,
            revision=said.header.revision,
            db_size=said.dbSize,
            db_size_in_use=said.dbSizeInUse,
            db_quota=newer.get(_DB_QUOTA),
            storage_version=_text(newer.get(_STORAGE_VERSION)),
            downgrade_target=_downgrade_target(downgrade) if downgrade else None,
            errors=tuple(said.errors),
        )

    async def members(self, endpoint: Endpoint, *, linearizable: bool, timeout: float = 2.0) -> MemberList:
        """The member list; linearizable: confirmed by a quorum, else as this member has it. Learners refuse."""
        request = rpc.MemberListRequest(linearizable=linearizable)
        said = await self._call(endpoint, "Cluster", "MemberList", request, rpc.MemberListResponse, timeout)
        return _member_list(said)

    async def alarms(self, endpoint: Endpoint, *, timeout: float = 2.0) -> tuple[Alarm, ...]:
        """The alarms raised in the cluster, as a quorum has them."""
        request = rpc.AlarmRequest(action=rpc.AlarmRequest.GET)
        said = await self._call(endpoint, "Maintenance", "Alarm", request, rpc.AlarmResponse, timeout)
        return tuple(Alarm(member_id=alarm.memberID, kind=_alarm_kind(alarm.alarm)) for alarm in said.alarms)

    async def hash_kv(self, endpoint: Endpoint, revision: int = 0, *, timeout: float = 30.0) -> KeyHash:
        """The hash of this member's keys up to a revision (0: its newest); members compare equal or are corrupt."""
        request = rpc.HashKVRequest(revision=revision)
        said = await self._call(endpoint, "Maintenance", "HashKV", request, rpc.HashKVResponse, timeout)
        return KeyHash(
            revision=said.header.revision,
            hash=said.hash,
            compact_revision=said.compact_revision,
            hash_revision=_unknown_fields(said).get(_HASH_REVISION),
        )

    # What a member is told

    async def member_add(
        self, endpoint: Endpoint, peer_urls: tuple[str, ...], *, learner: bool = True, timeout: float = 5.0
    ) -> tuple[Member, MemberList]:
        """Add a member; the new entry and the list with it."""
        request = rpc.MemberAddRequest(peerURLs=peer_urls, isLearner=learner)
        said = await self._call(endpoint, "Cluster", "MemberAdd", request, rpc.MemberAddResponse, timeout)
        return _member(said.member), _member_list(said)

    async def member_remove(self, endpoint: Endpoint, member_id: int, *, timeout: float = 5.0) -> MemberList:
        """Remove a member for good: its ID never comes back. The list without it."""
        request = rpc.MemberRemoveRequest(ID=member_id)
        return _member_list(
            await self._call(endpoint, "Cluster", "MemberRemove", request, rpc.MemberRemoveResponse, timeout)
        )

    async def member_promote(self, endpoint: Endpoint, member_id: int, *, timeout: float = 5.0) -> MemberList:
        """Make a voter of a learner. The list with it."""
        request = rpc.MemberPromoteRequest(ID=member_id)
        return _member_list(
            await self._call(endpoint, "Cluster", "MemberPromote", request, rpc.MemberPromoteResponse, timeout)
        )

    async def move_leader(self, endpoint: Endpoint, target_id: int, *, timeout: float = 5.0) -> None:
        """Move the lead to a voter; only the leader's own endpoint does this (`not_leader` from the others)."""
        request = rpc.MoveLeaderRequest(targetID=target_id)
        await self._call(endpoint, "Maintenance", "MoveLeader", request, rpc.MoveLeaderResponse, timeout)

    async def disarm(self, endpoint: Endpoint, alarm: Alarm, *, timeout: float = 5.0) -> None:
        """Take back an alarm; etcd raises it again where its cause remains. Of an OTHER kind: ValueError."""
        if alarm.kind is AlarmKind.OTHER:
            raise ValueError("only alarms of a known kind can be disarmed")
        kind = rpc.NOSPACE if alarm.kind is AlarmKind.NOSPACE else rpc.CORRUPT
        request = rpc.AlarmRequest(action=rpc.AlarmRequest.DEACTIVATE, memberID=alarm.member_id, alarm=kind)
        await self._call(endpoint, "Maintenance", "Alarm", request, rpc.AlarmResponse, timeout)

    async def write_nothing(self, endpoint: Endpoint, *, timeout: float = 5.0) -> None:
        """Put an entry into the log that changes nothing: no key, no revision, no alarm, as no member has the ID 0.

        AlarmStore.Deactivate, server/etcdserver/api/v3alarm in 3.6.
        """
        request = rpc.AlarmRequest(action=rpc.AlarmRequest.DEACTIVATE, memberID=0, alarm=rpc.NOSPACE)
        await self._call(endpoint, "Maintenance", "Alarm", request, rpc.AlarmResponse, timeout)

    # Keys: for tests and tools, and to compare what two etcds hold; the operator never writes any

    async def put(self, endpoint: Endpoint, key: bytes, value: bytes, *, timeout: float = 5.0) -> int:
        """Write a key; the revision that it got."""
        request = rpc.PutRequest(key=key, value=value)
        said = await self._call(endpoint, "KV", "Put", request, rpc.PutResponse, timeout)
        return int(said.header.revision)

    async def get(
        self, endpoint: Endpoint, key: bytes, *, serializable: bool = False, timeout: float = 5.0
    ) -> bytes | None:
        """Read a key, None where there is none; serializable: as this member has it, without a quorum."""
        request = rpc.RangeRequest(key=key, serializable=serializable)
        said = await self._call(endpoint, "KV", "Range", request, rpc.RangeResponse, timeout)
        return bytes(said.kvs[0].value) if said.kvs else None

    async def range(
        self, endpoint: Endpoint, start: bytes, end: bytes, *, limit: int, revision: int = 0, timeout: float = 10.0
    ) -> Page:
        """The first keys from `start` up to, without, `end`, linearizable; revision 0: the newest."""
        request = rpc.RangeRequest(key=start, range_end=end, limit=limit, revision=revision)
        said = await self._call(endpoint, "KV", "Range", request, rpc.RangeResponse, timeout)
        pairs = tuple(KeyValue(key=each.key, value=each.value, lease=each.lease) for each in said.kvs)
        return Page(pairs=pairs, more=bool(said.more), revision=int(said.header.revision))

    # Connections

    async def _call(
        self, endpoint: Endpoint, service: str, method: str, request: Any, response: Any, timeout: float
    ) -> Any:
        connection = self._connect(endpoint)
        connection.calls += 1
        answer, error, outcome = None, None, "cancelled"
        try:
            answer, error = await _ask(
                connection.channel, f"/etcdserverpb.{service}/{method}", request, response, timeout
            )
            outcome = error.kind if error else "ok"
        finally:
            connection.calls -= 1
            connection.broken |= outcome in _BROKEN
            self._rest(endpoint, connection)
            self._count(method, outcome)
        if error:
            raise error
        return answer

    def _connect(self, endpoint: Endpoint) -> _Connection:
        connection = self._connections.get(endpoint)
        if connection is None:
            connection = self._connections[endpoint] = _Connection(_channel(endpoint))
        elif connection.idle is not None:
            connection.idle.cancel()
            connection.idle = None
        return connection

    def _rest(self, endpoint: Endpoint, connection: _Connection) -> None:
        """Close a connection that broke, at its last call's end, and any other after a while without calls."""
        if self._connections.get(endpoint) is not connection:
            if not connection.calls:
                self._close(connection)
        elif connection.broken:
            del self._connections[endpoint]
            if not connection.calls:
                self._close(connection)
        elif not connection.calls:
            connection.idle = asyncio.get_running_loop().call_later(self._idle, self._drop, endpoint)

    def _drop(self, endpoint: Endpoint) -> None:
        self._close(self._connections.pop(endpoint))

    def _close(self, connection: _Connection) -> None:
        if connection.idle is not None:
            connection.idle.cancel()
            connection.idle = None
        task = asyncio.ensure_future(_close_channel(connection.channel))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


async def _ask(channel: Any, path: str, request: Any, response: Any, timeout: float) -> tuple[Any, EtcdError | None]:
    """Make one call; the error is returned, as one raised here would keep the call, and with it the channel, alive.

    A channel that is kept alive dials on, closed or not (seen with grpcio 1.85).
    """
    try:
        call = channel.unary_unary(
            path, request_serializer=type(request).SerializeToString, response_deserializer=response.FromString
        )
        return await call(request, timeout=timeout), None
    except grpc.aio.AioRpcError as failed:
        return None, error_from(failed.code().name, failed.details() or "")
    except grpc.aio.UsageError as failed:  # the channel was closed by `aclose` before the call
        return None, EtcdError("unavailable", "the client is closing", detail=str(failed))
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        # `aclose` during the call: gRPC raises this although nobody cancelled the caller.
        return None, EtcdError("unavailable", "the client is closing")


async def _close_channel(channel: Any) -> None:
    with contextlib.suppress(grpc.aio.UsageError):  # closed twice: by `aclose` and by its last call
        await channel.close()


def _channel(endpoint: Endpoint) -> Any:
    options = list(_OPTIONS)
    target = _target(endpoint.address)
    if endpoint.tls is None:
        return grpc.aio.insecure_channel(target, options=options)
    if endpoint.server_name is not None:
        options.append(("grpc.ssl_target_name_override", endpoint.server_name))
    identity = endpoint.tls
    credentials = grpc.ssl_channel_credentials(identity.ca, identity.key, identity.cert)
    return grpc.aio.secure_channel(target, credentials, options=options)


def _target(address: str) -> str:
    """The gRPC target of host:port, so written that an IP address is never taken for a name."""
    host, _, _port = address.rpartition(":")
    try:
        version = ipaddress.ip_address(host.strip("[]")).version
    except ValueError:
        return f"dns:///{address}"
    return f"ipv{version}:{address}"


def _member(said: Any) -> Member:
    return Member(
        id=said.ID,
        name=said.name,
        peer_urls=tuple(said.peerURLs),
        client_urls=tuple(said.clientURLs),
        is_learner=said.isLearner,
    )


def _member_list(said: Any) -> MemberList:
    members = sorted((_member(member) for member in said.members), key=lambda member: member.id)
    return MemberList(cluster_id=said.header.cluster_id, members=tuple(members))


def _alarm_kind(number: int) -> AlarmKind:
    known = {rpc.NOSPACE: AlarmKind.NOSPACE, rpc.CORRUPT: AlarmKind.CORRUPT}
    return known.get(number, AlarmKind.OTHER)


def _unknown_fields(message: Any) -> dict[int, Any]:
    """The fields that the generated message has no name for, by number."""
    return {unknown.field_number: unknown.data for unknown in UnknownFieldSet(message)}


def _text(data: Any) -> str | None:
    return data.decode() if isinstance(data, bytes) else None


def _downgrade_target(downgrade_info: bytes) -> str | None:
    # Any message without fields does for reading a nested one by number.
    return _text(_unknown_fields(rpc.StatusRequest.FromString(downgrade_info)).get(_DOWNGRADE_TARGET))
