"""What an EtcdCluster says, and tells, about a quorum that is lost for good.

Pure. See `etcdcluster` for the kind that this is a part of.
"""

from typing import Annotated, Literal

from pydantic import Field

from etcd_operator.api.base import ATOMIC, ApiModel, Rule, Time


class RecoverySpec(ApiModel):
    """How to go on after the quorum was lost for good. It is never needed where enough members can come back."""

    force_from: (
        Annotated[
            str,
            Field(max_length=63),
            Rule(
                "self.matches('^[a-z]([-a-z0-9]*[a-z0-9])?-[0-6]$')",
                "must be the name of a member, such as tenant-a-2",
            ),
        ]
        | None
    ) = None
    """The member from whose data the etcd is rebuilt, once, for the loss that status.quorumLost names.

    Writes that were acknowledged and that this member has not got are lost for good; the condition Available tells
    its revision beforehand. All members are stopped, this one becomes the only one, and the others join anew with
    empty directories; what was in their old ones stays beside. It counts when it is set after the loss was named: to
    use it again for another loss, take it out and set it again.
    """
    accept_data_loss: bool = False
    """Rebuild also where a member that cannot be asked may have newer writes, or where one that answers has them."""


class QuorumLost(ApiModel):
    """A loss of the quorum that has not ended yet."""

    since: Time
    """When it was seen first; this names the loss."""
    members: Annotated[tuple[str, ...], Field(json_schema_extra=ATOMIC)] = ()
    """The members that were down then."""
    ignored_force_from: str | None = None
    """spec.recovery.forceFrom as it stood already when the loss was named; it does not count for this loss."""


class RecoveryStatus(ApiModel):
    """The last rebuild of this etcd from one member's data."""

    force_from: str
    """The member that it is rebuilt from."""
    loss: Time
    """The loss that it is for, by its status.quorumLost.since; spec.recovery.forceFrom is used up for it."""
    state: Literal["Stopping", "Forcing", "Rebuilt"]
    """Stopping the old members, making this one the only member, or done: then the others join anew."""
    revision: int | None = None
    """The revision that the member had; writes that were acknowledged after it are lost. Absent: it was not known."""
