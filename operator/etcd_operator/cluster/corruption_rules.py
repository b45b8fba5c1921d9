"""What follows from etcd's corruption alarm: a member whose keys differ from the majority's is replaced.

Pure. While the alarm is raised, every member refuses writes (applierV3Corrupt, server/etcdserver/apply/corrupt.go), but
changes of members go through. So the member goes first and the alarm after it: the other way round its data would be
served again. An alarm names one member only where etcd found a majority that agrees, from 3.6 on; 3.5, and a check
that the user switched on, name nobody or whom the leader disagrees with, who may be the only one that is right. So the
keys of all members are compared first, and nothing is done that this does not confirm.
"""

from collections import Counter

from etcd_operator.cluster.judged import Judged
from etcd_operator.cluster.members import SeenMember
from etcd_operator.cluster.membership_rules import kept_data, missing_members, removal, told_through, wanted_members
from etcd_operator.cluster.steps import DisarmAlarm, Plan
from etcd_operator.etcd.model import AlarmKind, hex_id


def replace_corrupt_member(judged: Judged) -> Plan | None:
    """Remove the one member that the alarm names, if its keys differ from those of a majority."""
    member = _culprit(judged)
    if member is None or missing_members(judged) or member.name not in wanted_members(judged):
        return None
    reason = f"its data differs from that of the others, and etcd raised its alarm{kept_data(judged, member)}"
    return removal(judged, member, (), reason)


def disarm_alarms_of_removed_members(judged: Judged) -> Plan | None:
    """Take back alarms of members that are none any more: etcd keeps them, and what they forbid, for good."""
    through, members = told_through(judged), judged.membership
    if through is None or members.list is None:
        return None
    known = {member.id for member in members.list.members} | {0}
    steps = tuple(
        DisarmAlarm(member=hex_id(alarm.member_id), alarm=alarm, through=through.name, reason="that member was removed")
        for alarm in sorted(members.alarms, key=lambda alarm: (alarm.member_id, alarm.kind))
        if alarm.member_id not in known and alarm.kind is not AlarmKind.OTHER
    )
    return Plan(steps=steps) if steps else None


def corruption(judged: Judged) -> str:
    """What the alarm means for the user, in a sentence; empty while there is none."""
    if not judged.membership.alarmed:
        return ""
    refuses = "etcd refuses writes as its members' data differs (alarm CORRUPT)"
    if culprit := _culprit(judged):
        return f"{refuses}: {culprit.name} differs from the others, and is replaced"
    if judged.seen.hashes is None:
        return f"{refuses}: the keys of all members are being compared"
    named = [
        member.name for member in judged.membership.members if member.listed and member.listed.id in _named(judged)
    ]
    if not _named(judged):
        return f"{refuses}: the member that differed was removed, and the alarm is disarmed"
    whom = f"it names {' and '.join(named)}" if named else "it names no member"
    return (
        f"{refuses}; {whom}, and {_compared(judged)}. Nothing is done by itself: delete the PersistentVolumeClaim of a "
        "member that is wrong and it is replaced, or restore a backup; then disarm the alarm (etcdctl alarm disarm)"
    )


def _named(judged: Judged) -> set[int]:
    """Whom corruption alarms name, 0 for nobody; those that were removed do not count."""
    members = judged.membership
    known = {member.id for member in members.list.members} | {0} if members.list else {0}
    return {alarm.member_id for alarm in members.alarms if alarm.kind is AlarmKind.CORRUPT} & known


def _culprit(judged: Judged) -> SeenMember | None:
    """The one member that the alarm names, if a majority agrees with each other and not with it."""
    named = _named(judged)
    member = next((each for each in judged.membership.members if each.listed and {each.listed.id} == named), None)
    right = _agreed(judged)
    return member if member is not None and right and member.name not in right else None


def _agreed(judged: Judged) -> set[str]:
    """The voters that are a majority with the same keys; empty where there is none."""
    voters = {member.name for member in judged.membership.voters}
    keys = {
        name: (told.hash, told.compact_revision) for name, told in (judged.seen.hashes or {}).items() if name in voters
    }
    found = Counter(keys.values()).most_common(1)
    if not found or found[0][1] < judged.membership.needed:
        return set()
    return {name for name, key in keys.items() if key == found[0][0]}


def _compared(judged: Judged) -> str:
    right, hashes = _agreed(judged), judged.seen.hashes or {}
    if not right:
        return "no majority of the members was found to have the same keys"
    wrong = sorted(hashes.keys() - right)
    agree = f"the keys of {' and '.join(sorted(right))} are the same"
    return f"{agree}, those of {' and '.join(wrong)} are not" if wrong else agree
