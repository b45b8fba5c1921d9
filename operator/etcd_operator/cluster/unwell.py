"""How long a member has been unwell, as far as the operator saw it; and whether another one in its place would help.

Pure. The count stands in the status, so that it outlives the operator. Unknown is not down: it runs only in looks in
which a quorum answered the operator while Kubernetes too finds the member not ready. A break in which nobody looked
does not count; and where Kubernetes does not attest that the member was not ready all through it, the count starts
over.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from etcd_operator.api import MemberStatus
from etcd_operator.cluster.judged import Judged
from etcd_operator.cluster.members import SeenMember
from etcd_operator.cluster.observation import AWAY
from etcd_operator.cluster.records import is_terminating
from etcd_operator.cluster.restart_rules import runs_what_is_new
from etcd_operator.cluster.trouble import etcd_container, is_ready, is_unready_for_others, ready_changed
from etcd_operator.etcd.model import hex_id

#: The count is written down each time that this part of replaceAfter has passed, but not more often than that.
STEP, SHORTEST_STEP = 10, timedelta(seconds=2)
#: Looks at an ill cluster are four seconds apart at the most, and take about as long when members hang: a longer break
#: between two of them was one in which nobody looked.
BREAK = timedelta(seconds=8)
#: What a person has to mend, or waits for with a reason: told by `Trouble`. Of all that keeps a process from running
#: only an end that nobody can explain may well be one of the member's own data.
CURABLE = {"EtcdExited"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Unwell:
    """`since` when the count runs, moved on by every break, and `until` when that is written down."""

    since: datetime
    until: datetime


def unwell(judged: Judged, member: SeenMember) -> Unwell | None:
    """The count of this member as of this look; `None` for one that is well or would not be helped."""
    patience, now = judged.seen.cluster.spec.healing.patience, judged.seen.at
    if patience is None or member.healthy or member.listed is None or not judged.blueprint.bootstrapped:
        return None
    if member is judged.membership.leader:
        return None  # the others follow it, whoever else does not hear it
    standing = _standing(judged, member)
    if not judged.membership.confirmed:
        return standing
    if not _is_not_ready(judged, member) or not is_curable(judged, member):
        return None
    if standing is None or standing.until > now:
        return Unwell(since=now, until=now)
    passed, step = now - standing.until, max(SHORTEST_STEP, patience / STEP)
    if passed < step:
        return standing
    if passed < step + BREAK:
        return Unwell(since=standing.since, until=now)
    attested = _was_not_ready_since(member, standing.until)
    return Unwell(since=standing.since + passed if attested else now, until=now)


def unwell_for(judged: Judged, member: SeenMember) -> timedelta:
    """How long a member has been seen unwell without a break."""
    found = unwell(judged, member)
    return judged.seen.at - found.since if found else timedelta(0)


def replacement_due(judged: Judged, member: SeenMember) -> datetime | None:
    """When the member is to be replaced unless it recovers; `None` where it is not."""
    found, patience = unwell(judged, member), judged.seen.cluster.spec.healing.patience
    return found.since + patience if found and patience and judged.membership.confirmed else None


def is_curable(judged: Judged, member: SeenMember) -> bool:
    """Whether a new member in its place may well run where this one does not.

    Where its node is away, a new one runs on another. Else it would run in the same place, from the same image and
    settings: only what is wrong with the old process and its directory is cured.
    """
    if judged.seen.cluster.spec.paused or member.foreign or judged.membership.alarmed:
        return False
    if is_cut_off(judged, member):
        return True
    if member.role == "Learner" or member.pod is None or runs_what_is_new(judged, member):
        return False
    if is_terminating(member.pod) and member.name in judged.seen.places:
        return False  # its node is there, and ends it some time
    return "nodeName" in member.pod["spec"] and (member.trouble is None or member.trouble.reason in CURABLE)


def is_cut_off(judged: Judged, member: SeenMember) -> bool:
    """Whether its volume can be mounted on no node just now, or the node of its pod is away."""
    place = judged.seen.places.get(member.name)
    return place is not None and not AWAY.isdisjoint({place.home, place.node})


def whereabouts(judged: Judged, member: SeenMember) -> str:
    """Which node keeps a member away, to be added to a sentence about it; empty where none does."""
    place = judged.seen.places.get(member.name)
    if place is not None and place.node in AWAY:
        return f"; its node {member.node} is {place.node.value}"
    return f"; its volume is on {place.homes}, which is {place.home.value}" if place and place.home in AWAY else ""


def has_just_started(member: SeenMember, now: datetime, within: timedelta) -> bool:
    """Whether its container runs only since a moment ago, and may be about to be well."""
    running = etcd_container(member.pod).get("state", {}).get("running") if member.pod else None
    return running is not None and now - datetime.fromisoformat(running["startedAt"]) < within


def _standing(judged: Judged, member: SeenMember) -> Unwell | None:
    """The count in the status that stands, if it is that of this very member."""
    told: MemberStatus | None = next(
        (each for each in judged.seen.cluster.status.members if each.name == member.name), None
    )
    if told is None or told.unwell_since is None or told.unwell_until is None or member.listed is None:
        return None
    return Unwell(since=told.unwell_since, until=told.unwell_until) if told.id == hex_id(member.listed.id) else None


def _is_not_ready(judged: Judged, member: SeenMember) -> bool:
    """Whether Kubernetes finds etcd itself not ready, or its node away."""
    if member.pod is None or is_terminating(member.pod) or is_cut_off(judged, member):
        return True
    return not is_ready(member.pod) and not is_unready_for_others(member.pod)


def _was_not_ready_since(member: SeenMember, moment: datetime) -> bool:
    """Whether Kubernetes has found this very pod not ready ever since."""
    pod = member.pod or {}
    made, changed = pod.get("metadata", {}).get("creationTimestamp"), ready_changed(pod)
    return made is not None and changed is not None and max(datetime.fromisoformat(made), changed) <= moment
