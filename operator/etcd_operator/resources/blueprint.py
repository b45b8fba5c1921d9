"""What the builders build from: one cluster's names, owner and settled facts, and nothing of the live objects.

Pure.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from etcd_operator.api import EtcdClusterSpec
from etcd_operator.resources.names import (
    APPLIED_SPEC,
    CLIENT_AUTHORITY,
    CLUSTER_ID,
    GROUP,
    INCARNATION,
    PEER_AUTHORITY,
    RECORDED_AT,
    Manifest,
    Names,
    object_labels,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Blueprint:
    """One EtcdCluster as it is to stand.

    `spec` is the settled spec: what the members run, which is not what the user wrote last while a change
    waits for an ordered restart. `applied_spec` is its JSON, kept on the objects so that it outlives a lost
    status. `cluster_id` is empty until bootstrap was recorded; from then on every member's file is the fuse.
    """

    names: Names
    uid: str
    spec: EtcdClusterSpec
    applied_spec: str
    members: tuple[str, ...]
    incarnation: str
    member_incarnations: Mapping[str, str] = field(default_factory=dict)
    cluster_id: str = ""
    recorded_at: str = ""
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
        founders = sorted(_sha1((self.peer_url(member) + self.token).encode()) for member in self.members)
        return f"{int.from_bytes(_sha1(b''.join(founders)), 'big'):x}"

    def incarnation_of(self, member: str) -> str:
        return self.member_incarnations.get(member, self.incarnation)

    def peer_url(self, member: str) -> str:
        return f"{'https' if self.peer_tls else 'http'}://{self.names.host(member)}:2380"

    def client_url(self, member: str) -> str:
        return f"{self.client_scheme}://{self.names.host(member)}:2379"


def _sha1(text: bytes) -> bytes:
    return hashlib.sha1(text, usedforsecurity=False).digest()[:8]


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
    return {INCARNATION: blueprint.incarnation, APPLIED_SPEC: blueprint.applied_spec, **recorded}
