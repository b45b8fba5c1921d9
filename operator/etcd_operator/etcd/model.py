"""What etcd reports, as plain values that the rest of the project can hold and compare.

Pure data: no gRPC or protobuf type may appear here, so that nothing outside `client` depends on them.
Identities are integers, as etcd keeps them; people see them in hex, see `hex_id`.
"""

import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from etcd_operator.etcd.errors import EtcdError


def hex_id(number: int) -> str:
    """A cluster or member ID as etcdctl prints it: lower-case hex without leading zeros."""
    return f"{number:x}"


@dataclass(frozen=True, kw_only=True, slots=True)
class TLSIdentity:
    """Whom to trust and who to be: PEM bytes; `cert` and `key` are None where etcd asks no client for one."""

    ca: bytes
    cert: bytes | None = None
    key: bytes | None = None

    def __repr__(self) -> str:
        """Without the key, which must not reach a log."""
        return f"TLSIdentity(ca={len(self.ca)} bytes, cert={'yes' if self.cert else 'no'})"


@dataclass(frozen=True, kw_only=True, slots=True)
class Endpoint:
    """Where one member answers clients.

    address: `host:port`; an IP address (IPv6 in brackets) is dialled without any name service.
    server_name: the name that the member's certificate must carry, where that is not the dialled host.
    tls: None for plain text.
    """

    address: str
    server_name: str | None = None
    tls: TLSIdentity | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class KeyValue:
    """A key as it is stored; lease 0: none, so that it stays until somebody deletes it."""

    key: bytes
    value: bytes
    lease: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """A part of a range of keys; revision is the store's when it was read."""

    pairs: tuple[KeyValue, ...]
    more: bool
    revision: int


class AlarmKind(StrEnum):
    """What an alarm is about; OTHER is one that a newer etcd may invent."""

    NOSPACE = "NOSPACE"
    CORRUPT = "CORRUPT"
    OTHER = "OTHER"


@dataclass(frozen=True, kw_only=True, slots=True)
class Alarm:
    """An alarm that a member raised; it stays, for the whole cluster, until it is disarmed."""

    member_id: int
    kind: AlarmKind


@dataclass(frozen=True, kw_only=True, slots=True)
class MemberReport:
    """One member's answer to Status. It answers alone, also without a leader, so it proves no quorum.

    leader_id is 0 while the member knows no leader. Sizes are bytes. What only etcd 3.6 and newer tell is
    None from an older member: db_quota (bytes), storage_version and downgrade_target; the last is also None
    while no downgrade is enabled.
    """

    cluster_id: int
    member_id: int
    version: str
    leader_id: int
    is_learner: bool
    raft_index: int
    raft_applied_index: int
    raft_term: int
    revision: int
    db_size: int
    db_size_in_use: int
    db_quota: int | None = None
    storage_version: str | None = None
    downgrade_target: str | None = None
    errors: tuple[str, ...] = ()

    @property
    def is_leader(self) -> bool:
        """Whether the member believes that it leads."""
        return self.leader_id == self.member_id

    @property
    def alarms(self) -> tuple[Alarm, ...]:
        """The alarms among `errors`, as this member knows them: etcd writes each as the text of its message there.

        That text has no fixed white space, and leaves out a member ID of 0: an alarm that names nobody.
        """
        found = []
        for error in self.errors:
            if kind := _ALARM.search(error):
                who = _ALARM_OF.search(error)
                known = kind[1] if kind[1] in AlarmKind.__members__ else "OTHER"
                found.append(Alarm(member_id=int(who[1]) if who else 0, kind=AlarmKind(known)))
        return tuple(found)


_ALARM, _ALARM_OF = re.compile(r"\balarm:\s*(\w+)"), re.compile(r"\bmemberID:\s*(\d+)")


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """An entry of etcd's member list.

    A member that was added has no name before its first start; those that the cluster was bootstrapped with have
    theirs from the initial cluster on. What tells either that it has been there is its client URLs (etcd's own test,
    `isMemberBootstrapped` in server/etcdserver/cluster_util.go).
    """

    id: int
    name: str
    peer_urls: tuple[str, ...]
    client_urls: tuple[str, ...] = ()
    is_learner: bool = False

    @property
    def started(self) -> bool:
        """Whether the member has published itself once; it tells nothing about now."""
        return bool(self.client_urls)


@dataclass(frozen=True, kw_only=True, slots=True)
class MemberList:
    """A cluster's member list, and the cluster that it belongs to."""

    cluster_id: int
    members: tuple[Member, ...]

    @property
    def voters(self) -> tuple[Member, ...]:
        """The members that count for a quorum."""
        return tuple(member for member in self.members if not member.is_learner)

    @property
    def learners(self) -> tuple[Member, ...]:
        """The members that follow without a vote."""
        return tuple(member for member in self.members if member.is_learner)

    def by_id(self, member_id: int) -> Member | None:
        """The member of that ID."""
        return next((member for member in self.members if member.id == member_id), None)

    def by_peer_url(self, url: str) -> Member | None:
        """The member that peers reach at that URL; the way to find one that has no name yet."""
        return next((member for member in self.members if url in member.peer_urls), None)


@dataclass(frozen=True, kw_only=True, slots=True)
class KeyHash:
    """The hash of a member's keys up to `hash_revision` (None from 3.5), from `compact_revision` on."""

    revision: int
    hash: int
    compact_revision: int
    hash_revision: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What one member answered.

    status: its own report; None when it gave none, then `error` tells why.
    members: the member list through this member; from a learner None, as learners refuse that question.
    linearizable: a quorum confirmed that list through this member, that is: it can commit now.
    error: why there is no status, or why no quorum confirmed the list; None when all went well.
    asked_at: when the round began (UTC).
    """

    status: MemberReport | None
    members: MemberList | None
    linearizable: bool
    error: EtcdError | None
    asked_at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class Handshake:
    """What a member did in a TLS handshake.

    certificate: the one that it showed, PEM.
    accepted: whether it took the certificate that it was shown, which is to say that it trusts who signed that.
    """

    certificate: bytes
    accepted: bool
