"""What was seen of one EtcdCluster in one round: the only thing that `plan` and `status` judge from.

Pure data. Nothing here remembers earlier rounds but `remembered`, the Secrets that were seen before and
have vanished since: an authority's key exists nowhere else.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum

from etcd_operator.api import EtcdCluster
from etcd_operator.etcd.model import Answer, Handshake, KeyHash
from etcd_operator.resources.names import DIGEST, Manifest, Names
from etcd_operator.resources.secrets import Side

Named = Mapping[str, Manifest]


@dataclass(frozen=True, kw_only=True, slots=True)
class Objects:
    """The live Kubernetes objects of one cluster, by name; read at one moment, past the watch."""

    stateful_sets: Named = field(default_factory=dict)
    config_maps: Named = field(default_factory=dict)
    services: Named = field(default_factory=dict)
    secrets: Named = field(default_factory=dict)
    disruption_budgets: Named = field(default_factory=dict)
    deployments: Named = field(default_factory=dict)
    network_policies: Named = field(default_factory=dict)
    pods: Named = field(default_factory=dict)
    #: Pods with the cluster's label that are no members': that of a recovery, and what an older StatefulSet left.
    other_pods: Named = field(default_factory=dict)
    claims: Named = field(default_factory=dict)

    def all(self) -> list[Manifest]:
        kinds = (
            self.stateful_sets,
            self.config_maps,
            self.services,
            self.secrets,
            self.disruption_budgets,
            self.deployments,
            self.network_policies,
            self.pods,
            self.other_pods,
            self.claims,
        )
        return [manifest for kind in kinds for manifest in kind.values()]


@dataclass(frozen=True, kw_only=True, slots=True)
class Complaint:
    """A Warning event that Kubernetes wrote about an object of the cluster, such as a volume that cannot be made."""

    kind: str
    name: str
    reason: str
    message: str


class Nodes(Enum):
    """What there is of the nodes that something is tied to."""

    READY = "ready"  # at least one; also where it is tied to none
    NOT_READY = "not ready"
    GONE = "gone"  # no Node object is left of any


#: Nobody runs there just now.
AWAY = frozenset({Nodes.GONE, Nodes.NOT_READY})


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where a member's volume can be mounted (`home`), and where its pod is (`node`); `None`: not known.

    `volume` and `uid` are those of the PersistentVolume, `homes` names the nodes that it is tied to, `retained` tells
    whether it outlives its claim.
    """

    volume: str = ""
    uid: str = ""
    retained: bool = False
    home: Nodes | None = None
    homes: str = ""
    node: Nodes | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ResizeRefusal:
    """What the API server said when a claim was to ask for `size`, and when it said it."""

    size: str
    message: str
    at: datetime


#: Nodes whose addresses a certificate may name: more would not fit into handshakes that anybody wants.
MOST_NAMED = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class Node:
    """A node of this Kubernetes and its addresses, the one that serves others best first."""

    name: str
    addresses: tuple[str, ...]
    ready: bool


#: A Secret outside the cluster's namespace: namespace and name.
Spot = tuple[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class DeliveryRefusal:
    """What the API server said when a client's Secret was to be written or removed elsewhere; when to try again."""

    message: str
    again_at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class Elsewhere:
    """What there is of, or for, `spec.clients` beside the cluster's own objects; read only where it matters."""

    #: Secrets with the labels of this EtcdCluster's copies, and whatever stands where a copy is to be.
    copies: Mapping[Spot, Manifest] = field(default_factory=dict)
    #: Namespaces that the spec names, `None` for one that does not exist.
    namespaces: Mapping[str, Manifest | None] = field(default_factory=dict)
    #: Namespaces that could not be read, or in which Secrets could not, and why.
    unreadable: Mapping[str, str] = field(default_factory=dict)
    #: Why it is not known where copies are; empty where it is.
    unlisted: str = ""
    #: Secrets of others in the cluster's own namespace that have the names of clients'.
    taken: frozenset[str] = frozenset()
    refusals: Mapping[Spot, DeliveryRefusal] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Observation:
    """One picture of one cluster. `answers` has an entry for every member whose pod could be asked."""

    at: datetime
    cluster: EtcdCluster
    names: Names
    objects: Objects
    answers: Mapping[str, Answer] = field(default_factory=dict)
    complaints: tuple[Complaint, ...] = ()
    #: By member, of those whose pods are not well; empty where the operator may not read nodes and volumes.
    places: Mapping[str, Place] = field(default_factory=dict)
    operator_namespace: str = ""
    #: All of them, where a Service is of type NodePort: more than `MOST_NAMED`, and there are others beside; `None`
    #: where they are not known.
    nodes: tuple[Node, ...] | None = ()
    #: What API servers are told, or run with, to reach their etcd, by ApiServerBindings; `None` where that is not
    #: known. Read only while there is a Service of a member that may be gone.
    listed_servers: frozenset[str] | None = None
    #: By member, at one revision: asked only while etcd's corruption alarm is raised; `None` while they are computed.
    hashes: Mapping[str, KeyHash] | None = field(default_factory=dict)
    remembered: Named = field(default_factory=dict)
    #: Objects that the API server keeps otherwise than they were applied, by kind and name: the digest of what was
    #: wanted, and the state that came of it. Applying them again would change nothing.
    accepted: Mapping[tuple[str, str], tuple[str, str]] = field(default_factory=dict)
    #: What etcd answered to a change of its members a moment ago, in words; empty when it may be asked again.
    refusal: str = ""
    #: What the API server answered to volume claims that were to grow and did not, by the claim's UID.
    resizes: Mapping[str, ResizeRefusal] = field(default_factory=dict)
    #: While an authority is rotated, what members did in a handshake with one for whom the newest authority vouches.
    handshakes: Mapping[tuple[Side, str], Handshake] = field(default_factory=dict)
    #: Bindings whose API servers do not all trust the client authorities of now; read while those are rotated.
    api_servers_behind: tuple[str, ...] = ()
    #: The Secrets with authorities that the user provides, by side, where they exist.
    provided: Mapping[Side, Manifest] = field(default_factory=dict)
    #: For `spec.clients`.
    elsewhere: Elsewhere = field(default_factory=Elsewhere)
    #: The image of `etcd_operator.agent`; empty where it is not known, or not needed.
    agent_image: str = ""
    #: A new incarnation's name, should one be needed; drawn outside so that `plan` stays pure.
    fresh_incarnation: str
    #: A password that nobody knows yet, should one be needed; drawn outside as well.
    fresh_password: str = field(repr=False)

    def is_accepted(self, desired: Manifest, live: Manifest | None) -> bool:
        """Whether `live` is still just what came of applying `desired`, which somebody in the API server rewrites."""
        if live is None:
            return False
        key = (desired["kind"], desired["metadata"]["name"])
        return self.accepted.get(key) == (desired["metadata"]["annotations"][DIGEST], state_of(live))


def state_of(manifest: Manifest) -> str:
    """What changes whenever somebody writes an object, but not when a controller reports on it."""
    metadata = manifest["metadata"]
    return f"{metadata['uid']}/{metadata.get('generation') or metadata['resourceVersion']}"
