"""When an EtcdCluster replaces a member by itself.

Pure. See `etcdcluster` for the kind that this is a part of.
"""

from datetime import timedelta
from typing import Annotated

from pydantic import AfterValidator, Field

from etcd_operator.api.base import ApiModel, Rule
from etcd_operator.api.rules import is_duration
from etcd_operator.api.units import Duration

NEVER = "Never"


def _duration_or_never(text: str) -> str:
    if text != NEVER:
        Duration(text)
    return text


def _unless_never(text: str) -> timedelta | None:
    return None if text == NEVER else timedelta(seconds=Duration(text).total_seconds())


class HealingSpec(ApiModel):
    """When a member is replaced by a new one.

    A member whose data is proved lost (its volume or the node that holds it is gone, its directory is empty, etcd finds
    its data corrupt) is replaced at once. In every case one at a time, and only while the other voters are a healthy
    quorum without it.
    """

    replace_after: Annotated[
        str,
        Field(max_length=32),
        AfterValidator(_duration_or_never),
        Rule(
            f"self == '{NEVER}' || ({is_duration('self')} && duration(self) >= duration('10s'))",
            "must be a duration of at least 10s, such as 5m, or Never: less is no sign that a member stays away",
        ),
    ] = "5m"
    """How long a member may be unreachable or unwell, without a break, before it is replaced; or Never.

    Only time counts in which a quorum of the others answered and Kubernetes found the member not ready. Members that a
    new one in their place would not cure wait for a person: an image that cannot be pulled, no node with room, a
    volume that is full, settings that etcd refuses. Choose more than a node takes to restart.
    """

    keep_old_data: Annotated[
        str,
        Field(max_length=32),
        AfterValidator(_duration_or_never),
        Rule(
            f"self == '{NEVER}' || ({is_duration('self')} && duration(self) >= duration('0s'))",
            "must be a duration such as 168h, 0s to delete it at once, or Never to keep it for good",
        ),
    ] = "168h"
    """How long the data of a member that was replaced is kept on the volume of the one in its place; or Never.

    Counted from when the new member serves, and only while all members are well is anything deleted. `0s` deletes what
    is kept now. Volumes that a member left behind (deletionPolicy Retain, a node that went away) are not meant.
    """

    @property
    def kept_for(self) -> timedelta | None:
        """`keepOldData`; `None` for Never."""
        return _unless_never(self.keep_old_data)

    @property
    def patience(self) -> timedelta | None:
        """`replaceAfter`; `None` for Never."""
        return _unless_never(self.replace_after)
