"""What the builders build from: one cluster's names, owner and settled facts, and nothing of the live objects.

Pure.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Literal, Self

from etcd_operator.api import EtcdClusterSpec, ProxySpec
from etcd_operator.etcd.options import version_number
from etcd_operator.resources.names import (
    APPLIED_SPEC,
    CLIENT_AUTHORITY,
    CLUSTER_ID,
    GROUP,
    INCARNATION,
    LOG_INDEX,
    LOG_VERSION,
    PEER_AUTHORITY,
    RECORDED_AT,
    RECOVERY,
    RESTART,
    REVISION,
    REVISIONS,
    ROSTER,
    Manifest,
    Names,
    object_labels,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Seat:
    """One member of the etcd as the objects record it.

    `incarnation` names its data directory: the founding's for a founder, its own member ID in hex for a member that
    was added later, so that no member ever finds another one's data. `member_id` is hex, empty while it is not known.
    `joining`: it was added and has not started yet, so that its file is the one that joins. `revision` names the spec
    that its file is written from, empty for the applied one; `outdated_pod` is the UID of the pod that ran when the
    file was last changed, and that another one is to replace.
    """

    incarnation: str
    member_id: str = ""
    joining: bool = False
    revision: str = ""
    outdated_pod: str = ""
    #: With data in memory: the UID of the pod that was seen to have this member's.
    pod: str = ""

    def replaces(self, pod: Manifest | None) -> bool:
        """Whether this pod ran when the member's file was last changed, so that another is to take its place."""
        return pod is not None and pod["metadata"]["uid"] == self.outdated_pod


RecoveryState = Literal["Stopping", "Forcing", "Rebuilt"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Recovery:
    """A rebuild of this etcd from one member's data, as the objects record it.

    `loss` is when the loss of the quorum was first seen that it is for, and `revision` the member's, 0 where that was
    not known. While it is Stopping, nothing has happened that cannot be taken back, unless `alone`: then another member
    was the only one in the roster before, and the volumes of the others are marked as removed members'. While it is
    Forcing, `member` is the only one in the roster, and made so in etcd. Until it is Rebuilt, the StatefulSet runs
    nobody.
    """

    loss: str
    member: str
    state: RecoveryState
    revision: int = 0
    alone: bool = False

    @property
    def active(self) -> bool:
        return self.state != "Rebuilt"


@dataclass(frozen=True, kw_only=True, slots=True)
class Blueprint:
    """One EtcdCluster as it is to stand.

    `spec` is the settled spec: what the members run, which is not what the user wrote last while a change
    waits for an ordered restart. `applied_spec` is its JSON, kept on the objects so that it outlives a lost
    status, and `revision` its short name. While members restart, `revisions` has the other specs that some run
    already, or are to run, by revision; the pod template is written from that of `template_revision`.

    `members` are those that are to run: once founded, what etcd's own member list says, and `seats` tells where each
    has its data. `cluster_id` is empty until bootstrap was recorded; from then on every member's file is the fuse, but
    those of members that are joining.
    """

    names: Names
    uid: str
    spec: EtcdClusterSpec
    applied_spec: str
    members: tuple[str, ...]
    incarnation: str
    #: The member that is to be added next, where its pod and volume are made already; no member of etcd has its name.
    upcoming: str = ""
    revision: str = ""
    revisions: Mapping[str, EtcdClusterSpec] = field(default_factory=dict)
    template_revision: str = ""
    #: The revision that all members are to run: another one than the applied one while they restart in order, none
    #: while the user's spec cannot be run.
    target_revision: str = ""
    #: The restart that was asked for last and is done, see `names.RESTART`.
    restart: str = ""
    #: The older version that ran before, until the members have restarted on this one; see `upgrade.LOG_UNREADABLE`.
    log_version: str = ""
    #: The index up to which all members have to apply their logs before they have saved snapshots of all that it wrote;
    #: 0 while that is not known.
    log_index: int = 0
    seats: Mapping[str, Seat] = field(default_factory=dict)
    cluster_id: str = ""
    recorded_at: str = ""
    recovery: Recovery | None = None
    #: Names and addresses by which clients come from outside, beside those that the user gave.
    outside: tuple[str, ...] = ()
    #: Where the operator runs; for NetworkPolicies.
    operator_namespace: str = ""
    #: Digests of the authorities that a member trusts when it starts now; empty while there is none.
    peer_authority: str = ""
    client_authority: str = ""

    @property
    def authority_annotations(self) -> dict[str, str]:
        """What a pod that starts now carries, to tell which authorities it trusts."""
        digests = {PEER_AUTHORITY: self.peer_authority, CLIENT_AUTHORITY: self.client_authority}
        return {key: digest for key, digest in digests.items() if digest}

    @property
    def bootstrapped(self) -> bool:
        return bool(self.cluster_id)

    @property
    def in_memory(self) -> bool:
        """Whether the members' data goes with their pods."""
        return self.spec.storage.medium == "Memory"

    @property
    def proxy(self) -> ProxySpec:
        return self.spec.proxy

    @property
    def peer_tls(self) -> bool:
        return self.spec.tls.peer.mode != "Off"

    @property
    def client_tls(self) -> bool:
        return self.spec.tls.client.mode != "Off"

    @property
    def client_scheme(self) -> str:
        return "https" if self.client_tls else "http"

    @property
    def token(self) -> str:
        """`initial-cluster-token`: no two bootstraps share one, so their members can never mix."""
        return f"{self.names.name}-{self.incarnation}"

    @property
    def founding_id(self) -> str:
        """The cluster ID, in hex, of the etcd that these members found with this token, and of no other.

        etcd makes it from nothing else: membership.computeMemberID and RaftCluster.genID, the same in 3.5 to 3.7.
        """
        founders = sorted(self._founder(member) for member in self.members)
        return _hex(_sha1(b"".join(founders)))

    def founding_member_id(self, member: str) -> str:
        """The member ID, in hex, that a founder with this name and token has."""
        return _hex(self._founder(member))

    def _founder(self, member: str) -> bytes:
        return _sha1((self.peer_url(member) + self.token).encode())

    @property
    def with_upcoming(self) -> tuple[str, ...]:
        """All whose pods and volumes are to be there."""
        return (*self.members, self.upcoming) if self.upcoming else self.members

    @property
    def replicas(self) -> int:
        """Pods of the StatefulSet: its ordinals have no gaps, also where a member in the middle is being replaced."""
        if self.recovery is not None and self.recovery.active:
            return 0
        return max((self.names.ordinal(member) or 0 for member in self.with_upcoming), default=-1) + 1

    def seat(self, member: str) -> Seat:
        return self.seats.get(member, Seat(incarnation=self.incarnation))

    def as_of(self, revision: str) -> Self:
        """The same cluster as the spec of that revision has it; the applied one where it is not known."""
        return replace(self, spec=self.revisions.get(revision, self.spec))

    @property
    def oldest_version(self) -> str:
        """The oldest version that any member runs or is to run."""
        specs = [self.spec, *(spec for revision, spec in self.revisions.items() if revision in self._revisions_in_use)]
        return min((spec.version for spec in specs), key=version_number)

    @property
    def _revisions_in_use(self) -> set[str]:
        return {self.target_revision, *(self.revision_of(member) for member in self.members)}

    def revision_of(self, member: str) -> str:
        return self.seat(member).revision or self.revision

    def refreshed(self, member: str) -> str:
        """What a pod carries once its file is this member's fuse; empty while there is none."""
        seat = self.seat(member)
        return "" if seat.joining or not self.bootstrapped else f"{self.cluster_id}.{seat.incarnation}"

    def peer_url(self, member: str) -> str:
        return f"{'https' if self.peer_tls else 'http'}://{self.names.host(member)}:2380"

    def client_url(self, member: str) -> str:
        return f"{self.client_scheme}://{self.names.host(member)}:2379"


def _sha1(text: bytes) -> bytes:
    return hashlib.sha1(text, usedforsecurity=False).digest()[:8]


def _hex(number: bytes) -> str:
    return f"{int.from_bytes(number, 'big'):x}"


def owner_reference(names: Names, uid: str) -> Manifest:
    return {
        "apiVersion": f"{GROUP}/v1alpha1",
        "kind": "EtcdCluster",
        "name": names.name,
        "uid": uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }


def owned_metadata(blueprint: Blueprint, name: str, annotations: Mapping[str, str] | None = None) -> Manifest:
    """Metadata of an object that goes with the EtcdCluster."""
    metadata: Manifest = {
        "name": name,
        "namespace": blueprint.names.namespace,
        "labels": object_labels(blueprint.names.name),
        "ownerReferences": [owner_reference(blueprint.names, blueprint.uid)],
    }
    if annotations:
        metadata["annotations"] = dict(annotations)
    return metadata


def foundation_annotations(blueprint: Blueprint) -> dict[str, str]:
    """What StatefulSet and ConfigMap both record, so that either can be rebuilt from the other."""
    recorded = {CLUSTER_ID: blueprint.cluster_id, RECORDED_AT: blueprint.recorded_at} if blueprint.bootstrapped else {}
    return {
        INCARNATION: blueprint.incarnation,
        APPLIED_SPEC: blueprint.applied_spec,
        REVISION: blueprint.revision,
        **({RESTART: blueprint.restart} if blueprint.restart else {}),
        **({LOG_VERSION: blueprint.log_version} if blueprint.log_version else {}),
        **({LOG_INDEX: str(blueprint.log_index)} if blueprint.log_index else {}),
        ROSTER: _roster(blueprint),
        **_revisions(blueprint),
        **({RECOVERY: _recovery(blueprint.recovery)} if blueprint.recovery else {}),
        **recorded,
    }


def _recovery(recovery: Recovery) -> str:
    return json.dumps(asdict(recovery), separators=(",", ":"), sort_keys=True)


def _revisions(blueprint: Blueprint) -> dict[str, str]:
    """The specs that members run beside the applied one; none at rest."""
    used = {blueprint.revision_of(member) for member in blueprint.members} - {blueprint.revision}
    specs = {
        revision: spec.model_dump(by_alias=True, exclude_none=True, mode="json")
        for revision, spec in blueprint.revisions.items()
        if revision in used
    }
    return {REVISIONS: json.dumps(specs, separators=(",", ":"), sort_keys=True)} if specs else {}


def _roster(blueprint: Blueprint) -> str:
    seats = {}
    for member in blueprint.members:
        seat = blueprint.seat(member)
        seats[member] = {"incarnation": seat.incarnation}
        seats[member] |= {"id": seat.member_id} if seat.member_id else {}
        seats[member] |= {"state": "joining"} if seat.joining else {}
        seats[member] |= {"revision": blueprint.revision_of(member)}
        seats[member] |= {"outdatedPod": seat.outdated_pod} if seat.outdated_pod else {}
        seats[member] |= {"pod": seat.pod} if seat.pod else {}
    return json.dumps(seats, separators=(",", ":"), sort_keys=True)
