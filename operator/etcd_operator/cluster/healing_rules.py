"""Replacing members that stay away or whose node is gone: who is given up when, and what becomes of the volume.

Pure. etcd's list changes first: once the removal of a member is acknowledged, it can never take part again, whatever
still runs of it on a node that nobody reaches. Only then its pod and its claim are taken away, so that Kubernetes can
make new ones elsewhere; the old volume is kept. A claim carries the mark of the member that was given up on it, so that
each step follows from what is seen.
"""

from datetime import datetime, timedelta

from etcd_operator.cluster.judged import Judged
from etcd_operator.cluster.members import SeenMember
from etcd_operator.cluster.membership_rules import (
    behind,
    kept_data,
    missing_members,
    removal,
    restart_goes_first,
    too_few_to_add,
    wanted_members,
)
from etcd_operator.cluster.observation import AWAY, Nodes, Place
from etcd_operator.cluster.records import annotations, is_terminating
from etcd_operator.cluster.steps import Annotate, Delete, Plan, RetainVolume, Step
from etcd_operator.cluster.trouble import is_ready
from etcd_operator.cluster.unwell import has_just_started, is_cut_off, unwell_for, whereabouts
from etcd_operator.etcd.model import hex_id
from etcd_operator.resources import names as n

#: A process that began so lately may be about to be well.
STARTING = timedelta(seconds=60)
#: How long a pod may outlast its deletion where nothing is known of its node.
OVERDUE = timedelta(seconds=30)


def replace_member_of_a_lost_node(judged: Judged) -> Plan | None:
    """Replace a member at once whose volume is tied to nodes of which none exists any more."""
    for member in judged.membership.members:
        place = judged.seen.places.get(member.name)
        if place is None or place.home is not Nodes.GONE or member.healthy or _is_given_up(judged, member):
            continue
        reason = f"its volume is on {place.homes}, which is no node of this Kubernetes any more"
        if member.name in wanted_members(judged) and (plan := _replacement(judged, member, reason)):
            return plan
    return None


def replace_unwell_member(judged: Judged) -> Plan | None:
    """Replace the member that has been unwell for spec.healing.replaceAfter; the one that has been for longest."""
    healing = judged.seen.cluster.spec.healing
    if healing.patience is None:
        return None
    for member in sorted(judged.membership.members, key=lambda each: unwell_for(judged, each), reverse=True):
        if unwell_for(judged, member) < healing.patience or _another_joins(judged, member):
            continue
        if member.name not in wanted_members(judged):
            continue
        if missing_members(judged) and not _is_waited_for(judged, member):
            continue  # one at a time
        if has_just_started(member, judged.seen.at, STARTING) and not is_cut_off(judged, member):
            continue
        where = whereabouts(judged, member)
        reason = f"unwell for longer than spec.healing.replaceAfter ({healing.replace_after}): {member.why}{where}"
        if plan := _replacement(judged, member, reason):
            return plan
    return None


def _is_waited_for(judged: Judged, member: SeenMember) -> bool:
    """Whether those that are to be added wait for this member to be well, or for another in its place."""
    return member.name in behind(judged) or too_few_to_add(judged) or restart_goes_first(judged)


def _another_joins(judged: Judged, member: SeenMember) -> bool:
    return any(learner is not member for learner in judged.membership.learners)


def _replacement(judged: Judged, member: SeenMember, reason: str) -> Plan | None:
    """Mark the claim of a member whose node is away, then remove the member; the next looks do the rest."""
    kept = "" if is_cut_off(judged, member) else kept_data(judged, member)
    plan = removal(judged, member, (), reason + kept)
    claim = judged.seen.objects.claims.get(judged.blueprint.names.claim(member.name))
    if plan is None or claim is None or is_terminating(claim) or not is_cut_off(judged, member):
        return plan
    mark = _mark(member)
    if annotations(claim).get(n.ABANDONED) == mark:
        return plan
    told = f"member {member.name} is given up: {reason}"
    return Plan(steps=(Annotate.of("PersistentVolumeClaim", claim, told, annotations={n.ABANDONED: mark}),))


def _mark(member: SeenMember) -> str:
    """Which member is given up, and the pod that ran it; of a later pod of the name the mark says nothing."""
    pod = member.pod["metadata"]["uid"] if member.pod else ""
    return f"{hex_id(member.listed.id) if member.listed else ''}/{pod}"


def _abandoned(judged: Judged, member: str) -> tuple[str, str]:
    """The member ID and the pod that a member's claim was given up with, once etcd has removed it; else nothing."""
    claim = judged.seen.objects.claims.get(judged.blueprint.names.claim(member))
    given_up, _, pod = annotations(claim).get(n.ABANDONED, "").partition("/")
    members = judged.membership
    if not given_up or not members.confirmed or members.list is None:
        return "", ""
    return ("", "") if any(hex_id(each.id) == given_up for each in members.list.members) else (given_up, pod)


def _is_given_up(judged: Judged, member: SeenMember) -> bool:
    """Whether the claim is that of a member that was removed already: it goes, and tells nothing of the new one."""
    claim = judged.seen.objects.claims.get(judged.blueprint.names.claim(member.name))
    return is_terminating(claim) or bool(_abandoned(judged, member.name)[0])


def move_volumes_of_removed_members(judged: Judged) -> Plan | None:
    """Take the claim away that holds a new member on a node that is gone or away; its PersistentVolume is kept.

    Where the node came back meanwhile, the new member starts there, in a directory of its own.
    """
    steps: list[Step] = []
    for name in wanted_members(judged):
        claim, place = judged.seen.objects.claims.get(judged.blueprint.names.claim(name)), judged.seen.places.get(name)
        if not judged.blueprint.seat(name).joining:
            continue  # its file is not written yet: a pod that was made now would read the one before
        if claim is None or place is None or is_terminating(claim) or not _abandoned(judged, name)[0]:
            continue
        if place.home in AWAY and place.volume == claim["spec"].get("volumeName"):
            steps.append(_departure(claim, place, name))
    return Plan(steps=tuple(steps)) if steps else None


def _departure(claim: n.Manifest, place: Place, member: str) -> Step:
    where = f"on {place.homes}, which is {'no node any more' if place.home is Nodes.GONE else 'not ready'}"
    if not place.retained:
        reason = f"it holds the old data of {member}, {where}"
        return RetainVolume(volume=place.volume, uid=place.uid, reason=f"{reason}; delete it when nobody needs that")
    reason = f"{member} is replaced on another node; the old volume {place.volume} is kept {where}"
    return Delete.of("PersistentVolumeClaim", claim, reason)


def free_names_of_stranded_pods(judged: Judged) -> Plan | None:
    """Take away pods of removed members that no kubelet will: a StatefulSet makes no second pod of the name.

    What may still run there is no member of the etcd any more, so it does no harm.
    """
    steps = tuple(
        Delete.of("Pod", member.pod, "the member that it ran was removed, and its node does not answer", at_once=True)
        for member in judged.membership.members
        if member.pod is not None and _was_removed(judged, member) and _is_stranded(judged, member)
    )
    return Plan(steps=steps) if steps else None


def _was_removed(judged: Judged, member: SeenMember) -> bool:
    """Whether the pod ran a member that etcd's list does not have any more: it had a fuse, or bears the mark."""
    if not judged.membership.confirmed or member.pod is None:
        return False
    if _abandoned(judged, member.name)[1] == member.pod["metadata"]["uid"]:
        return True
    had_fuse = bool(annotations(member.pod).get(n.FILES_REFRESHED))
    return had_fuse and judged.blueprint.seat(member.name).joining


def _is_stranded(judged: Judged, member: SeenMember) -> bool:
    place = judged.seen.places.get(member.name)
    if place is not None and place.node is not None:
        return place.node in AWAY
    deleted = (member.pod or {})["metadata"].get("deletionTimestamp")
    return bool(deleted) and judged.seen.at - datetime.fromisoformat(deleted) > OVERDUE


def forget_what_was_given_up(judged: Judged) -> Plan | None:
    """Take the mark off a claim on which the new member serves."""
    steps = []
    for member in judged.membership.members:
        claim = judged.seen.objects.claims.get(judged.blueprint.names.claim(member.name))
        if claim is None or not annotations(claim).get(n.ABANDONED) or is_terminating(claim):
            continue
        if member.healthy and member.pod is not None and is_ready(member.pod):
            reason = f"member {member.name} serves from this volume"
            steps.append(Annotate.of("PersistentVolumeClaim", claim, reason, annotations={n.ABANDONED: ""}))
    return Plan(steps=tuple(steps)) if steps else None
