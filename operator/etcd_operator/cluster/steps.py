"""The steps that `plan` can ask for: what each one changes, and the reason that a user will read.

Pure data. Every step is safe to die before, after, and to repeat: it names the object and, where it deletes,
the UID of the very object that was judged.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Self

from etcd_operator.cluster.authority import HeldAuthority
from etcd_operator.cluster.observation import Spot
from etcd_operator.etcd.model import Alarm
from etcd_operator.pki import Authority
from etcd_operator.resources.blueprint import Blueprint
from etcd_operator.resources.names import Manifest
from etcd_operator.resources.secrets import LeafRequest, Side


@dataclass(frozen=True, kw_only=True, slots=True)
class Apply:
    """Server-side apply of a whole object; `absent` when none of that name was seen, so that a stranger's is spared."""

    manifest: Manifest
    absent: bool
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class IssueAuthority:
    """Make a certificate authority, in a Secret of its own or `beside` the one that signs until members trust it.

    `rotation` is the request that this fulfils, see `names.ROTATE_PEER`.
    """

    blueprint: Blueprint
    side: Side
    reason: str
    beside: HeldAuthority | None = None
    rotation: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class IssueLeaf:
    """Make a certificate and its Secret, which holds what is `beside` it as well: whom to trust, above all."""

    blueprint: Blueprint
    request: LeafRequest
    authority: Authority
    beside: dict[str, bytes]
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordBootstrap:
    """Write the proof of bootstrap into the status, before anything else learns of it."""

    cluster_id: str
    incarnation: str
    recorded_at: str
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Annotate:
    """Merge annotations and labels into an object that somebody else made, such as a volume claim or a pod."""

    kind: str
    name: str
    uid: str
    reason: str
    annotations: tuple[tuple[str, str], ...] = ()
    labels: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(
        cls,
        kind: str,
        live: Manifest,
        reason: str,
        *,
        annotations: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> Self:
        """Merge these into just this object, as it was seen."""
        name, uid = live["metadata"]["name"], live["metadata"]["uid"]
        pairs, tags = tuple((annotations or {}).items()), tuple((labels or {}).items())
        return cls(kind=kind, name=name, uid=uid, reason=reason, annotations=pairs, labels=tags)


@dataclass(frozen=True, kw_only=True, slots=True)
class SetOwner:
    """Make a volume claim go with the EtcdCluster, or stay when it goes."""

    claim: str
    uid: str
    owners: tuple[tuple[tuple[str, object], ...], ...]
    resource_version: str
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Delete:
    """Delete an object, if it still is the one that was seen."""

    kind: str
    name: str
    uid: str
    reason: str
    propagation: Literal["Background", "Foreground", "Orphan"] = "Background"
    #: The object alone, without asking the kubelet whether the pod's processes have ended.
    at_once: bool = False

    @classmethod
    def of(
        cls,
        kind: str,
        live: Manifest,
        reason: str,
        *,
        propagation: Literal["Background", "Foreground", "Orphan"] = "Background",
        at_once: bool = False,
    ) -> Self:
        """Delete just this object, as it was seen."""
        name, uid = live["metadata"]["name"], live["metadata"]["uid"]
        return cls(kind=kind, name=name, uid=uid, reason=reason, propagation=propagation, at_once=at_once)


@dataclass(frozen=True, kw_only=True, slots=True)
class GrowVolume:
    """Ask for more storage on a volume claim. That the API server refuses is an outcome to judge, not a failure."""

    claim: str
    uid: str
    size: str
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class RetainVolume:
    """Make a PersistentVolume outlive its claim."""

    volume: str
    uid: str
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class AddMember:
    """Add a learner to etcd's member list; `through` is the member that is asked, as in all that follow."""

    member: str
    peer_url: str
    through: str
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class RemoveMember:
    """Remove a member from etcd's list for good."""

    member: str
    member_id: int
    through: str
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class PromoteMember:
    """Make a voter of a learner."""

    member: str
    member_id: int
    through: str
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class MoveLeader:
    """Hand the lead to a voter; `through` is the leader."""

    member: str
    member_id: int
    through: str
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class DisarmAlarm:
    """Take back an alarm; `member` is whose it is, in hex."""

    member: str
    alarm: Alarm
    through: str
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class FillLog:
    """Put so many entries without any effect into the log; `member` is who leads."""

    member: str
    entries: int
    through: str
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Deliver:
    """Write a copy of a client's Secret into another namespace; `uid` of the one that was seen, empty for none.

    That the API server refuses is an outcome to judge, not a failure; as in the next.
    """

    manifest: Manifest
    uid: str
    reason: str

    @property
    def spot(self) -> Spot:
        return self.manifest["metadata"]["namespace"], self.manifest["metadata"]["name"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TakeBack:
    """Delete the copy of a client's Secret in another namespace, if it still is the one that was seen."""

    spot: Spot
    uid: str
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class SetFinalizers:
    """Let the EtcdCluster itself be kept, or not be kept, from going before what it has elsewhere."""

    uid: str
    finalizers: tuple[str, ...]
    resource_version: str
    reason: str


EtcdStep = AddMember | RemoveMember | PromoteMember | MoveLeader | DisarmAlarm | FillLog
VolumeStep = GrowVolume | RetainVolume | SetOwner
ClientStep = Deliver | TakeBack | SetFinalizers
Step = Apply | IssueAuthority | IssueLeaf | RecordBootstrap | Annotate | Delete | VolumeStep | ClientStep | EtcdStep


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What to do now, side by side; `waiting` says what is awaited when there is nothing to do until it comes."""

    steps: tuple[Step, ...] = ()
    rule: str = ""
    waiting: str = ""
