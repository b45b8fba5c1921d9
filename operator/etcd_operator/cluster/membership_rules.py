"""Who is to be a member: scaling, and replacing members whose data is gone.

Pure. etcd's own list, confirmed by a quorum in this very look, is where every change starts and what it is judged by;
the objects follow it (`roster`). One voter at a time: voters are removed and learners promoted one by one, only while
the voters that remain are a quorum of healthy ones. A member joins as a learner, under a member ID and in a directory
that no one had before.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from etcd_operator.cluster.judged import Judged
from etcd_operator.cluster.members import SeenMember
from etcd_operator.cluster.memory import fuse_tripped, gone_with_its_pod
from etcd_operator.cluster.records import (
    MEMBER_REMOVED,
    annotations,
    is_terminating,
    owner_uids,
    volume_records,
)
from etcd_operator.cluster.settled import is_small
from etcd_operator.cluster.steps import AddMember, Annotate, Delete, MoveLeader, Plan, PromoteMember, RemoveMember, Step
from etcd_operator.cluster.trouble import backs_off_without_file, is_running
from etcd_operator.etcd.model import hex_id
from etcd_operator.etcd.options import MANY_LEARNERS, minor_number
from etcd_operator.resources import names as n

#: How far a learner's applied index may be behind the leader's last entry: etcd's own measure, 90% of the index, is no
#: bound on a log that is long.
IN_SYNC = 1000
#: What etcd's last words can mean of a member that is to join: it read an older file, or none.
STALE_FILE = {"DataMissing", "DataCorrupt", "MemberListRefused", "MemberRemoved", "InvalidOption"}
#: How long its pod may go on failing so before another takes its place: a joiner without a name service says the same.
STALE_AFTER = timedelta(seconds=10)


def wanted_members(judged: Judged) -> tuple[str, ...]:
    return judged.blueprint.names.members(judged.seen.cluster.spec.members)


def missing_members(judged: Judged) -> tuple[str, ...]:
    """Members that are wanted and that etcd's list does not have."""
    listed = {member.name for member in judged.membership.members if member.listed}
    return tuple(name for name in wanted_members(judged) if name not in listed)


def surplus_members(judged: Judged) -> tuple[SeenMember, ...]:
    """Members in etcd's list that are not wanted any more."""
    wanted = wanted_members(judged)
    return tuple(member for member in judged.membership.members if member.listed and member.name not in wanted)


def told_through(judged: Judged) -> SeenMember | None:
    """The member to tell etcd a change through; `None` unless a quorum confirmed the list of this look.

    Also `None` for the moment after etcd refused a change, so that all else goes on meanwhile.
    """
    members = judged.membership
    if not judged.blueprint.bootstrapped or not members.confirmed or members.list is None or judged.seen.refusal:
        return None
    return members.connected


def replace_member_without_data(judged: Judged) -> Plan | None:
    """Remove a member whose data is proved gone; the next look adds it anew."""
    for member in judged.membership.members:
        reason = _data_gone(judged, member)
        if not reason or member.name not in wanted_members(judged) or (member.healthy and _is_incomplete(judged)):
            continue
        if plan := removal(judged, member, (), reason + kept_data(judged, member)):
            return plan
    return None


def kept_data(judged: Judged, member: SeenMember) -> str:
    """Where the old data of a member that is replaced stays, if it is anywhere, for the event about it."""
    claim = judged.seen.objects.claims.get(judged.blueprint.names.claim(member.name))
    gone = member.trouble is not None and member.trouble.reason == "DataMissing"
    if claim is None or gone or is_terminating(claim) or claim.get("status", {}).get("phase") != "Bound":
        return ""
    if is_small(claim, judged.seen.cluster.spec):
        return ""  # the volume may have to go for a larger one
    keep = judged.seen.cluster.spec.healing.keep_old_data
    directory, name = judged.blueprint.seat(member.name).incarnation, claim["metadata"]["name"]
    return f"; its old directory {directory} stays on {name} (spec.healing.keepOldData: {keep})"


def _is_incomplete(judged: Judged) -> bool:
    """Whether a member is being replaced already: then one that still serves is not given up as well."""
    return bool(missing_members(judged) or judged.membership.learners)


def _data_gone(judged: Judged, member: SeenMember) -> str:
    """Why the member can never serve its data again; empty where that is not proved.

    The fuse's words prove it only of a member that has started once: a joiner that finds no name service says the same.
    """
    if member.listed is None or not member.listed.started:
        return ""
    claim = judged.seen.objects.claims.get(judged.blueprint.names.claim(member.name))
    if is_terminating(claim):
        return "its volume was deleted"
    if claim is not None and claim.get("status", {}).get("phase") == "Lost":
        return "its volume is lost"
    return gone_with_its_pod(judged, member) or fuse_tripped(judged, member)


def remove_members_scaled_away(judged: Judged) -> Plan | None:
    """Remove who is not wanted any more: learners first, then voters that are ill, then the others, the leader last.

    Voters stay until members that are being replaced have joined, unless those cannot start.
    """
    surplus, leader = surplus_members(judged), judged.membership.leader
    wanted = wanted_members(judged)
    joining = [each for each in judged.membership.learners if each.name in wanted and not each.cannot_start]
    if joining or missing_members(judged):
        surplus = tuple(member for member in surplus if member.role == "Learner" or not member.healthy)
    order = sorted(
        surplus,
        key=lambda member: (
            member.role == "Voter",
            member.healthy,
            member is leader,
            -(judged.blueprint.names.ordinal(member.name) or 0),
        ),
    )
    size = judged.seen.cluster.spec.members
    for member in order:
        if plan := removal(judged, member, surplus, f"spec.members is {size}"):
            return plan
    return None


def removal(judged: Judged, member: SeenMember, surplus: Sequence[SeenMember], reason: str) -> Plan | None:
    """Remove a member, the lead first moved off it; `None` where the voters that remain would be no healthy quorum."""
    members, through = judged.membership, told_through(judged)
    if through is None or member.listed is None:
        return None
    if member.role == "Voter" and not members.survives_without(member):
        return None
    if member is members.leader and member.role == "Voter":
        return move_leader(judged, member, (*surplus, member), f"{member.name} is to be removed: {reason}")
    if member is through:
        return None  # who leads is not known just now
    step = RemoveMember(member=member.name, member_id=member.listed.id, through=through.name, reason=reason)
    return Plan(steps=(step,))


def move_leader(judged: Judged, leader: SeenMember, without: Iterable[SeenMember], reason: str) -> Plan | None:
    """Move the lead to the most advanced healthy voter that is none of `without`."""
    if judged.seen.refusal:
        return None
    staying = [member for member in judged.membership.healthy if member not in tuple(without)]
    best = max(staying, key=_progress, default=None)
    if best is None or best.listed is None:
        return None
    step = MoveLeader(member=best.name, member_id=best.listed.id, through=leader.name, reason=reason)
    return Plan(steps=(step,))


def _progress(member: SeenMember) -> tuple[int, int]:
    report = member.answer.status if member.answer else None
    return (report.raft_applied_index, report.raft_index) if report else (0, 0)


def add_missing_members(judged: Judged) -> Plan | None:
    """Add the next member that is wanted, as a learner, once the one before has started; see also `ahead`.

    Before it starts, a joiner looks up the names of all members in etcd's list, and waits for each that is not known
    yet, as that of one without a pod. Then it asks each for its version, and one that listens but waits for others
    itself lets it wait for 7 s, in 3.7 twice (ReqTimeout; getMembersVersions, getDowngradeEnabledFromRemotePeers in
    server/etcdserver/cluster_util.go): two that were added together took 14 to 23 s to join, one after the other 6 s
    each (seen). Not while too many voters are ill for etcd, which then refuses, nor while somebody could tell the
    joiner who was a member before.
    """
    missing, through = missing_members(judged), told_through(judged)
    if through is None or not missing or too_few_to_add(judged):
        return None
    if any(_is_joining(judged, member) and not member.cannot_start for member in judged.membership.members):
        return None
    if minor_number(judged.blueprint.oldest_version) < MANY_LEARNERS and judged.membership.learners:
        return None
    if _waits_for_restart(judged) or _strangers(judged) or behind(judged):
        return None
    name = missing[0]
    reason = f"{name} is to be one of {judged.seen.cluster.spec.members} members"
    added = AddMember(member=name, peer_url=judged.blueprint.peer_url(name), through=through.name, reason=reason)
    return Plan(steps=(added, *_pod_on_a_volume_that_goes(judged, name)))


def _pod_on_a_volume_that_goes(judged: Judged, name: str) -> tuple[Step, ...]:
    """The end of the pod that keeps a deleted volume alive, before the new member's file is written."""
    claim = judged.seen.objects.claims.get(judged.blueprint.names.claim(name))
    return end_of_pod(judged, name) if is_terminating(claim) else ()


def end_of_pod(judged: Judged, name: str) -> tuple[Step, ...]:
    """The end of the pod of a member that etcd removed, where its volume goes.

    Its container is started again and again, with the newest file: the new member would begin on that volume and go
    with it (seen).
    """
    pod = judged.seen.objects.pods.get(name)
    if pod is None or is_terminating(pod):
        return ()
    return (Delete.of("Pod", pod, "its member was removed from etcd, and its volume goes"),)


def _strangers(judged: Judged) -> list[str]:
    """Members in etcd's list that are no pods of this cluster; who joins would have to name them."""
    known = {member.listed.id for member in judged.membership.members if member.listed}
    listed = judged.membership.list.members if judged.membership.list else ()
    return [member.name or hex_id(member.id) for member in listed if member.id not in known]


def behind(judged: Judged) -> list[str]:
    """Members that may not know yet that others were removed.

    A joiner takes its member ID from the first member that answers it, by its peer URL (GetClusterFromRemotePeers and
    ValidateClusterAndAssignIDs, server/etcdserver): from one that missed a removal, the ID of the member that had the
    same name before (seen). It would come back as that member without its data, and hang, as nobody else speaks to it.
    """
    now = {member.id for member in judged.membership.list.members} if judged.membership.list else set()
    return [
        member.name
        for member in judged.membership.members
        if member.listed and member.listed.started and not _knows(judged, member, now)
    ]


def _knows(judged: Judged, member: SeenMember, now: set[int]) -> bool:
    """Whether a member's own list is the newest, or it runs nowhere; a learner, which tells none, has it in sync."""
    if member.role == "Learner":
        return is_caught_up(judged, member)
    if member.pod is None or not is_running(member.pod):
        return True
    answer = member.answer
    return answer is not None and answer.members is not None and {each.id for each in answer.members.members} == now


def restart_goes_first(judged: Judged) -> bool:
    """Whether growing waits for a restart in order that is under way, an upgrade above all.

    Replacing a member does not: it leaves an even number of voters, or has added its learner already.
    """
    members = judged.membership
    return _is_restart_under_way(judged) and members.voter_count % 2 == 1 and not members.learners


def _waits_for_restart(judged: Judged) -> bool:
    """Whether nobody is added before a restart is over but in the place of one that was removed meanwhile.

    That leaves an even number in etcd's list, which no spec asks for.
    """
    listed = judged.membership.list.members if judged.membership.list else ()
    return _is_restart_under_way(judged) and len(listed) % 2 == 1


def _is_restart_under_way(judged: Judged) -> bool:
    """Until all are back: who joins before that runs what was before."""
    plan, pods = judged.blueprint, judged.seen.objects.pods
    return plan.target_revision not in ("", plan.revision) or any(
        plan.revision_of(member) != plan.revision or plan.seat(member).replaces(pods.get(member))
        for member in plan.members
    )


def _is_joining(judged: Judged, member: SeenMember) -> bool:
    return judged.blueprint.seat(member.name).joining


def restart_pods_of_older_members(judged: Judged) -> Plan | None:
    """Take away pods that run, or failed, as the member that had this name before; the next ones read the new file."""
    steps = tuple(
        Delete.of("Pod", member.pod, reason)
        for member in judged.membership.members
        if member.pod is not None
        and not is_terminating(member.pod)
        and _is_joining(judged, member)
        and (reason := _why_older(judged, member, member.pod))
    )
    return Plan(steps=steps) if steps else None


def _why_older(judged: Judged, member: SeenMember, pod: n.Manifest) -> str:
    if annotations(pod).get(n.FILES_REFRESHED):  # it had a fuse: a member that joins has none yet
        return "it belongs to the member that was removed"
    if backs_off_without_file(pod):
        return "it started before its member was added"
    age = judged.seen.at - datetime.fromisoformat(pod["metadata"]["creationTimestamp"])
    stale = member.cannot_start and member.trouble is not None and member.trouble.reason in STALE_FILE
    return "it belongs to the member that was removed" if stale and age > STALE_AFTER else ""


def promote_learners(judged: Judged) -> Plan | None:
    """Make a voter of a learner that has caught up, once its own file is the fuse: then its votes cannot be lost."""
    through = told_through(judged)
    for member in judged.membership.learners:
        pod, fuse = member.pod, judged.blueprint.refreshed(member.name)
        if through is None or member.listed is None or member.name not in wanted_members(judged):
            continue
        if pod is None or not fuse or annotations(pod).get(n.FILES_REFRESHED) != fuse or is_terminating(pod):
            continue
        if is_caught_up(judged, member) and judged.membership.survives_with(member):
            step = PromoteMember(
                member=member.name, member_id=member.listed.id, through=through.name, reason="it has caught up"
            )
            return Plan(steps=(step,))
    return None


def is_caught_up(judged: Judged, member: SeenMember) -> bool:
    """Whether a member has applied nearly all that the leader has; unknown counts as not."""
    leader = judged.membership.leader
    ahead = leader.answer.status if leader and leader.answer else None
    own = member.answer.status if member.answer else None
    return ahead is not None and own is not None and ahead.raft_index - own.raft_applied_index <= IN_SYNC


def retire_volumes_of_removed_members(judged: Judged) -> Plan | None:
    """The volumes of members that were scaled away go, or stay and say so, as spec.storage.deletionPolicy asks.

    Only once etcd's own list has no such member; what holds the data of another etcd cluster is never touched.
    """
    if told_through(judged) is None or missing_members(judged):
        return None
    listed = {member.name for member in judged.membership.members if member.listed}
    steps = [
        step
        for name, claim in judged.seen.objects.claims.items()
        if (member := judged.blueprint.names.member_of_claim(name))
        and member not in {*listed, *wanted_members(judged)}
        and not is_terminating(claim)
        and (step := _retirement(judged, member, claim))
    ]
    return Plan(steps=tuple(steps)) if steps else None


def _retirement(judged: Judged, member: str, claim: n.Manifest) -> Step | None:
    record = volume_records(judged.seen).get(member)
    ours = record is not None and record.cluster_id == judged.blueprint.cluster_id
    if judged.blueprint.spec.storage.deletion_policy == "Delete":
        # One that names an etcd has served, also where a rebuild has marked it as a removed member's.
        never_served = not annotations(claim).get(n.CLUSTER_ID) and judged.blueprint.uid in owner_uids(claim)
        if (not ours and not never_served) or judged.membership.alarmed:
            return None
        reason = f"member {member} was removed, and spec.storage.deletionPolicy is Delete"
        return Delete.of("PersistentVolumeClaim", claim, reason)
    if not ours:
        return None
    reason = f"member {member} was removed; its volume is kept"
    return Annotate.of("PersistentVolumeClaim", claim, reason, annotations={n.MEMBER_STATE: MEMBER_REMOVED})


def wait_for_membership(judged: Judged) -> Plan | None:
    told = change_of_membership(judged)
    return Plan(waiting=told) if told else None


def change_of_membership(judged: Judged) -> str:
    """What changes about the members just now, in a sentence; empty when nothing does."""
    if not judged.blueprint.bootstrapped or judged.membership.list is None:
        return ""
    size = judged.seen.cluster.spec.members
    surplus, wanted, voters = surplus_members(judged), wanted_members(judged), judged.membership.voter_count
    told = [_told(judged, learner) for learner in judged.membership.learners if learner.name in wanted]
    told += [f"{name} is to be added" for name in missing_members(judged)]
    parts = [f"Adding members, {voters} of {size} vote: {'; '.join(told)}"] if told else []
    if surplus:
        parts.append(f"Scaling down to {size}: removing {', '.join(member.name for member in surplus)}")
    if missing_members(judged) and too_few_to_add(judged):
        parts.append("waiting until more voters are well")
    elif missing_members(judged) and _waits_for_restart(judged):
        goes_on = "" if judged.blueprint.target_revision else ", which goes on when the spec is corrected"
        parts.append(f"waiting until the members have restarted{goes_on}")
    elif missing_members(judged) and (strangers := _strangers(judged)):
        parts.append(f"waiting until {', '.join(strangers)}, which somebody else added to etcd, is removed from it")
    elif missing_members(judged) and (late := behind(judged)):
        parts.append(f"waiting for {', '.join(late)}, which may not know who is a member now")
    if parts and judged.seen.refusal:
        parts.append(judged.seen.refusal)
    return "; ".join(parts)


def too_few_to_add(judged: Judged) -> bool:
    """Whether so few voters are well that etcd adds nobody, not even a learner.

    isConnectedToQuorumAfterAddingNewMemberSince, server/etcdserver/util.go: three may not lack one, five may.
    """
    voters = judged.membership.voter_count
    return voters > 1 and len(judged.membership.healthy) < (voters + 1) // 2 + 1


def _told(judged: Judged, learner: SeenMember) -> str:
    if not learner.healthy:
        told = learner.trouble.message if learner.trouble else learner.why
        return told if told.startswith(learner.name) else f"{learner.name}: {told}"
    leader = judged.membership.leader
    ahead = leader.answer.status if leader and leader.answer else None
    own = learner.answer.status if learner.answer else None
    if ahead is None or own is None:
        return f"learner {learner.name} joins"
    if is_caught_up(judged, learner):
        return f"learner {learner.name} is in sync"
    # In tens, so that the status is not written for every entry.
    return f"learner {learner.name} is {own.raft_applied_index * 10 // max(ahead.raft_index, 1) * 10}% in sync"
