"""Restarting members in order, for every change that a running etcd does not take by itself.

Pure. One member at a time: its file is changed, the pod template follows, then its pod is deleted, and the next one
waits until it is back. Members that are down go first, as the change may be what cures them; then followers; the
leader last, after it has handed over the lead. A restart that does not come back stops all that follow.
"""

from dataclasses import replace
from datetime import datetime, timedelta

from etcd_operator.cluster.authority import Phase, sides_to_restart_for
from etcd_operator.cluster.judged import Judged
from etcd_operator.cluster.members import SeenMember
from etcd_operator.cluster.membership_rules import (
    change_of_membership,
    is_caught_up,
    move_leader,
    removal,
    restart_goes_first,
)
from etcd_operator.cluster.records import is_terminating
from etcd_operator.cluster.settled import is_outdated
from etcd_operator.cluster.steps import Apply, Delete, FillLog, Plan
from etcd_operator.cluster.trouble import is_ready
from etcd_operator.cluster.upgrade import SNAPSHOT_COUNT, must_restart_first
from etcd_operator.resources.blueprint import Blueprint
from etcd_operator.resources.compare import sealed
from etcd_operator.resources.config_map import config_map

#: The reason that is told while members restart in order.
RESTARTING = "RestartingMembers"
#: After which a pod has the newest files in any case: mounted Secrets lag by up to 90 s.
MOUNTED_WITHIN = timedelta(minutes=2)


def members_to_restart(judged: Judged) -> tuple[SeenMember, ...]:
    """Members whose file or pod is not of the revision that is wanted; where none is, what was begun is finished."""
    plan = judged.blueprint
    if not plan.bootstrapped:
        return ()
    return tuple(
        member
        for member in judged.membership.members
        if (plan.target_revision and plan.revision_of(member.name) != plan.target_revision)
        or (member.pod is not None and not is_terminating(member.pod) and is_outdated(plan, member.name, member.pod))
        or _missed_new_authority(judged, member)
    )


def _missed_new_authority(judged: Judged, member: SeenMember) -> bool:
    """Whether the member read older files than its pod tells when it started, as it refuses the new authority."""
    rotating, pod = judged.rotating, member.pod
    if rotating is None or pod is None or is_terminating(pod):
        return False
    shook = judged.seen.handshakes.get((rotating.side, member.name))
    age = judged.seen.at - datetime.fromisoformat(pod["metadata"]["creationTimestamp"])
    return shook is not None and not shook.accepted and age > MOUNTED_WITHIN


def restart_in_order(judged: Judged) -> Plan | None:
    """The next step of the restart of the next member."""
    member = next_to_restart(judged)
    if member is None or blocked_by(judged, member):
        return None
    plan, members = judged.blueprint, judged.membership
    if plan.in_memory and not plan.seat(member.name).joining:
        return removal(judged, member, (), f"it restarts: {why(judged)}")  # its data goes with its pod
    if member is members.leader and members.voter_count > 1 and member.healthy:
        return move_leader(judged, member, (member,), f"{member.name} is to be restarted: {why(judged)}")
    if plan.target_revision and plan.revision_of(member.name) != plan.target_revision:
        manifest = sealed(config_map(_moved(plan, member)))
        return Plan(steps=(Apply(manifest=manifest, absent=False, reason=f"{member.name} is next: {why(judged)}"),))
    if member.pod is None or is_terminating(member.pod):
        return None
    return Plan(steps=(Delete.of("Pod", member.pod, f"it restarts: {why(judged)}"),))


def next_to_restart(judged: Judged) -> SeenMember | None:
    """Who restarts next, or is restarting now.

    The first in the order who may; where nobody may, the first. While the members themselves change only who cannot run
    as it is: the restart may be what lets it join.
    """
    waiting = members_to_restart(judged)
    if _members_change(judged):
        waiting = tuple(member for member in waiting if member.cannot_run)
    if not waiting:
        return None
    plan, leader = judged.blueprint, judged.membership.leader
    order = sorted(
        waiting,
        key=lambda member: (
            plan.revision_of(member.name) != plan.target_revision,  # what was begun is finished
            not member.cannot_run,
            member is leader,
            plan.names.ordinal(member.name) or 0,
        ),
    )
    return next((member for member in order if not blocked_by(judged, member)), order[0])


def _members_change(judged: Judged) -> bool:
    if not judged.membership.confirmed or restart_goes_first(judged):
        return False
    return bool(change_of_membership(judged))


def blocked_by(judged: Judged, member: SeenMember) -> str:
    """Why the member must not be restarted now; empty when it may.

    One that cannot run as it is serves nobody, and the restart may be what cures it; but a new spec reaches no second
    member before the first that runs it answers.
    """
    if member.cannot_run:
        return _unproved(judged, member)
    for other in judged.membership.members:
        if other is not member and not other.healthy:
            return other.trouble.message if other.trouble else f"{other.name}: {other.why}"
        if other is not member and not is_caught_up(judged, other):
            return f"{other.name} is catching up"
        if other is not member and not (other.pod and is_ready(other.pod)):
            return f"{other.name} is not behind the Service yet"
    return "" if judged.membership.confirmed else "no quorum answers"


def _unproved(judged: Judged, member: SeenMember) -> str:
    plan = judged.blueprint
    if plan.target_revision == plan.revision:
        return ""
    for other in judged.membership.members:
        answers = other.answer is not None and other.answer.status is not None
        if other is not member and plan.revision_of(other.name) == plan.target_revision and not answers:
            return other.trouble.message if other.trouble else f"{other.name}: {other.why}"
    return ""


def _moved(plan: Blueprint, member: SeenMember) -> Blueprint:
    """The blueprint with the member's file at the revision that is wanted, and its pod to be replaced."""
    pod = member.pod["metadata"]["uid"] if member.pod else ""
    seat = replace(plan.seat(member.name), revision=plan.target_revision, outdated_pod=pod)
    return replace(plan, seats={**plan.seats, member.name: seat})


def why(judged: Judged) -> str:
    """What the restart is for, in the user's words."""
    if judged.pending and must_restart_first(judged.blueprint, judged.seen.cluster.spec):
        running, older = judged.blueprint.spec.version, judged.blueprint.log_version
        return f"on {running} once more, as {judged.seen.cluster.spec.version} cannot read logs of {older}"
    if judged.pending:
        return f"{', '.join(judged.pending)} changed"
    if judged.blueprint.target_revision not in ("", judged.blueprint.revision):
        return "a restart was asked for"
    if any(_is_taken_back(judged, member) for member in judged.membership.members):
        return "a change was taken back"
    if judged.rotating is not None:
        return f"the {judged.rotating.side} authority is rotated"
    return "a pod was made from another spec than its member's file"


def _is_taken_back(judged: Judged, member: SeenMember) -> bool:
    """Whether the member ran, or was to run, what the user wanted for a while, and restarts for what was there before.

    That it has been restarted already shows in the status that stands alone: then its file is the right one again, and
    its pod was made since.
    """
    plan, seat = judged.blueprint, judged.blueprint.seat(member.name)
    if plan.target_revision != plan.revision:
        return False
    if plan.revision_of(member.name) != plan.revision:
        return True
    if seat.replaces(member.pod):
        return True
    since = _told_since(judged)
    if since is None or not seat.outdated_pod or _is_back(member):
        return False
    return member.pod is None or datetime.fromisoformat(member.pod["metadata"]["creationTimestamp"]) >= since


def _is_back(member: SeenMember) -> bool:
    return member.healthy and member.pod is not None and is_ready(member.pod)


def _told_since(judged: Judged) -> datetime | None:
    """Since when something is under way, where the status that stands says that it is a restart in order."""
    standing = judged.seen.cluster.status.conditions if judged.seen.cluster.status else ()
    told = (each for each in standing if each.type == "Progressing" and each.reason == RESTARTING)
    return next((each.last_transition_time for each in told), None)


def restart_under_way(judged: Judged) -> str:
    """How far a restart is, in a sentence; empty when none is."""
    plan, all_ = judged.blueprint, judged.membership.members
    waiting = members_to_restart(judged)
    away = [member for member in all_ if member not in waiting and is_restarting(judged, member)]
    if not plan.bootstrapped or not (waiting or away or plan.log_index):
        return ""
    told = _what_restarts(judged, f"{len(all_) - len(waiting) - len(away)} of {len(all_)}")
    if not waiting and not away:
        return f"{told}; waiting until etcd has saved snapshots"
    if away:
        return f"{told}; {away[0].name} comes back: {away[0].why or 'it is not ready yet'}"
    member = next_to_restart(judged)
    if member is None:
        return told
    reason = blocked_by(judged, member)
    return f"{told}; {member.name} waits: {reason}" if reason else f"{told}; {member.name} restarts"


def _what_restarts(judged: Judged, done: str) -> str:
    plan, rotating = judged.blueprint, judged.rotating
    if rotating is None or plan.target_revision not in ("", plan.revision):
        return f"Restarting members, {done} done: {why(judged)}"
    purpose = "trust the new one" if rotating.phase is Phase.TRUST else "forget the old one"
    return f"Rotating the {rotating.side} authority: {done} restarted to {purpose}"


def is_restarting(judged: Judged, member: SeenMember) -> bool:
    """Whether the member was restarted for a change that is under way, and is not back yet."""
    return not _is_back(member) and (_is_taken_back(judged, member) or runs_what_is_new(judged, member))


def runs_what_is_new(judged: Judged, member: SeenMember) -> bool:
    """Whether the member was restarted for a change that is under way, which may be what ails it."""
    plan = judged.blueprint
    under_way = plan.target_revision not in ("", plan.revision)
    moved = under_way and plan.revision_of(member.name) == plan.target_revision
    return not _is_back(member) and (moved or _restarts_for_trust(judged, member))


def _restarts_for_trust(judged: Judged, member: SeenMember) -> bool:
    """Whether a rotation restarts members just now, by the status that stands, and this one has been."""
    if judged.rotating is None or judged.rotating.phase is Phase.REISSUE:
        return False
    if _told_since(judged) is None:
        return False
    going = member.pod is None or is_terminating(member.pod)
    return going or not sides_to_restart_for(judged.blueprint, member.pod or {})


def fill_log(judged: Judged) -> Plan | None:
    """Bring on the snapshots that a restart is for, where clients do not write enough; see `upgrade.LOG_UNREADABLE`."""
    leader, index = judged.membership.leader, judged.blueprint.log_index
    report = leader.answer.status if leader and leader.answer else None
    if leader is None or report is None or not judged.membership.confirmed or report.raft_applied_index >= index:
        return None
    entries = index - report.raft_applied_index
    reason = f"etcd saves a snapshot after every {SNAPSHOT_COUNT} entries"
    return Plan(steps=(FillLog(member=leader.name, entries=entries, through=leader.name, reason=reason),))


def wait_for_restart(judged: Judged) -> Plan | None:
    told = restart_under_way(judged)
    return Plan(waiting=told) if told else None
