"""The status of an EtcdCluster: what the operator observed.

Pure. Every field may be absent: what was not observed is left out instead of guessed.
"""

from typing import Annotated, Literal

from pydantic import Field

from etcd_operator.api.base import ATOMIC, BY_NAME, BY_TYPE, ApiModel, Condition, Time
from etcd_operator.api.etcdcluster_recovery import QuorumLost, RecoveryStatus
from etcd_operator.api.units import Quantity

Role = Literal["Voter", "Learner"]


class MemberStatus(ApiModel):
    """One member, as etcd and Kubernetes last showed it."""

    name: str
    """Name of the member and of its pod."""
    id: str | None = None
    """etcd's member ID in hexadecimal, as etcdctl prints it."""
    role: Role | None = None
    """Voter, or Learner for a member that still catches up and does not vote."""
    healthy: bool | None = None
    """Whether the member answers and takes part; absent while that is unknown."""
    leader: bool | None = None
    """True for the leader."""
    version: str | None = None
    """The etcd version that the member runs."""
    db_size: Quantity | None = None
    """Size of the database file; it counts towards options.quotaBackendBytes."""
    db_in_use: Quantity | None = None
    """The part of the database file that holds data; defragmentation would free the difference."""
    node: str | None = None
    """The node that the member runs on."""
    reason: str | None = None
    """Why the member is not healthy."""
    external: str | None = None
    """Its client address from outside of this Kubernetes, by spec.access.members."""
    unwell_since: Time | None = None
    """Since when the member has been unwell without a break: what spec.healing.replaceAfter counts from.

    Absent for members that a replacement would not cure. Times in which the operator saw no quorum do not count.
    """
    unwell_until: Time | None = None
    """Up to when that is written down; it moves in steps of a tenth of replaceAfter."""


class Endpoints(ApiModel):
    """Where this etcd is reached."""

    client: str | None = None
    """The one address for clients; members that are not ready are not behind it."""
    members: Annotated[tuple[str, ...], Field(json_schema_extra=ATOMIC)] = ()
    """The client address of each member."""
    external: Annotated[tuple[str, ...], Field(json_schema_extra=ATOMIC)] | None = None
    """What `client` is outside of this Kubernetes, by spec.proxy.service: up to three nodes, or a load balancer."""


class Bootstrap(ApiModel):
    """Proof that this etcd was founded; it is never founded a second time."""

    cluster_id: Annotated[str, Field(alias="clusterID")]
    """etcd's cluster ID in hexadecimal."""
    incarnation: str
    """Name of the data directory on the volumes that the founding wrote."""
    recorded_at: Time | None = None
    """When a quorum had answered and the founding was recorded."""


class EtcdClusterStatus(ApiModel):
    """What was last observed of this etcd. It changes only when something changed."""

    observed_generation: int | None = None
    """The generation of the spec that this status speaks of."""
    ready_members: int | None = None
    """Members that answer and take part."""
    selector: str | None = None
    """Label selector of the members' pods, for the scale subresource."""
    summary: str | None = None
    """The state in a few words; the STATUS column of kubectl get."""
    cluster_id: Annotated[str | None, Field(alias="clusterID")] = None
    """etcd's cluster ID in hexadecimal, as etcdctl prints it."""
    version: str | None = None
    """The etcd version that the members run; the lowest while they differ."""
    leader: str | None = None
    """Name of the leader."""
    quorum: str | None = None
    """Healthy voters of all voters, such as 3/3."""
    tolerated_failures: int | None = None
    """How many members may fail now without loss of service."""
    endpoints: Endpoints | None = None
    members: Annotated[tuple[MemberStatus, ...], Field(json_schema_extra=BY_NAME)] = ()
    """The members, those of etcd's own list and those of which only the pod is there."""
    pending: Annotated[tuple[str, ...], Field(json_schema_extra=ATOMIC)] = ()
    """Edits of the spec that are not applied yet, each with the reason."""
    bootstrap: Bootstrap | None = None
    quorum_lost: QuorumLost | None = None
    """The loss of the quorum that stands now; absent while there is a quorum."""
    recovery: RecoveryStatus | None = None
    """The last rebuild from one member's data; absent where there never was one."""
    conditions: Annotated[tuple[Condition, ...], Field(json_schema_extra=BY_TYPE)] = ()
    """Available: clients can read and write. Progressing: a change is under way. Degraded: something needs a person."""
