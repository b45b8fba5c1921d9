"""Larger volumes: `spec.storage.size` grew, and the claims, their template and their volumes follow.

Pure. Every claim is asked to grow; whether its StorageClass can, the API server says, so that no right to read classes
is needed. Where it can, the volume grows under its member. Where it cannot, members are replaced one by one, each on a
new volume: a member is removed from etcd first, while all others are well, and only then its old volume goes. Nothing
is written down on the way: what is to be done shows in the sizes of claims and template.
"""

from datetime import timedelta

from etcd_operator.cluster.judged import Judged
from etcd_operator.cluster.members import SeenMember
from etcd_operator.cluster.membership_rules import (
    change_of_membership,
    end_of_pod,
    is_caught_up,
    missing_members,
    removal,
    wanted_members,
)
from etcd_operator.cluster.observation import ResizeRefusal
from etcd_operator.cluster.old_data_rules import keeps_old_data
from etcd_operator.cluster.records import is_terminating, volume_records
from etcd_operator.cluster.restart_rules import blocked_by, restart_under_way
from etcd_operator.cluster.settled import granted, is_small, requested, size_of_new_volumes
from etcd_operator.cluster.steps import Delete, GrowVolume, Plan, Step
from etcd_operator.etcd.model import hex_id
from etcd_operator.resources.names import Manifest

#: What the API server says of a claim whose StorageClass does not allow it to grow, or that has none
#: (plugin/pkg/admission/storage/persistentvolume/resize). All its other refusals may pass, such as that of a quota.
CANNOT_EXPAND = "must support resize"
#: How long a refusal is believed: quotas and StorageClasses are changed now and then.
ASK_AGAIN = timedelta(minutes=5)
#: Conditions of a claim that tell why its volume does not grow.
RESIZE_ERRORS = {"ControllerResizeError", "NodeResizeError"}
#: What a claim's status says of storage that will never be had.
INFEASIBLE = {"ControllerResizeInfeasible", "NodeResizeInfeasible"}


def grow_volumes(judged: Judged) -> Plan | None:
    """Ask for the larger size on every claim that asks for less, unless the API server has just refused."""
    if _waits_for_spec(judged):
        return None
    steps = tuple(
        _growth(judged, claim)
        for member, claim in _small_claims(judged).items()
        if member not in missing_members(judged) and _is_bound(claim) and _refusal(judged, claim) is None
    )
    return Plan(steps=steps) if steps else None


def renew_stateful_set_for_larger_volumes(judged: Judged) -> Plan | None:
    """Take the StatefulSet away, but not its pods, when its claim template asks for too little: it is immutable.

    The next look makes it anew. All that it records stands on the ConfigMap and the volumes as well.
    """
    live = judged.seen.objects.stateful_sets.get(judged.blueprint.names.stateful_set)
    if live is None or not _is_template_small(judged) or _waits_for_spec(judged) or _waits_for_others(judged):
        return None
    if any(refusal and not _is_final(refusal) for refusal in _refusals(judged).values()):
        return None  # a quota, say: a template that asks for more than it allows would only make matters worse
    reason = f"new volumes are to have {_size(judged)}, and its template cannot be changed; its pods go on running"
    return Plan(steps=(Delete.of("StatefulSet", live, reason, propagation="Orphan"),))


def replace_member_on_small_volume(judged: Judged) -> Plan | None:
    """Remove the next member whose volume cannot grow; it comes back on a larger one."""
    if _waits_for_spec(judged) or _waits_for_others(judged) or _is_template_small(judged) or _is_only_member(judged):
        return None
    member = _next_to_replace(judged)
    if member is None or _why_waits(judged, member):
        return None
    reason = f"its volume is to have {_size(judged)}, and its StorageClass cannot expand it"
    return removal(judged, member, (), reason)


def renew_volumes_of_missing_members(judged: Judged) -> Plan | None:
    """Before a member is added anew: its volume grows, or goes where it cannot, once etcd has removed the member.

    It goes only while every voter is well and has all that the member had, and its pod with it: a container that is
    started once more would find the new member's file, and start it on the volume that goes (seen).
    """
    if not judged.membership.confirmed or _waits_for_spec(judged):
        return None
    small, steps = _small_claims(judged), list[Step]()
    for member in missing_members(judged):
        claim = small.get(member)
        if claim is None or not _is_bound(claim):
            continue
        refusal = _refusal(judged, claim)
        if refusal is None:
            steps.append(_growth(judged, claim))
        elif _is_final(refusal) and not _is_template_small(judged) and _is_dispensable(judged, member):
            steps += _deletion(judged, member, claim)
    return Plan(steps=tuple(steps)) if steps else None


def wait_for_growth(judged: Judged) -> Plan | None:
    told = growth_under_way(judged)
    return Plan(waiting=told) if told else None


def growth_under_way(judged: Judged) -> str:
    """How far the growth of the volumes is, in a sentence; empty when none is asked for."""
    if not judged.blueprint.bootstrapped:
        return ""
    claims, small, growing = _claims(judged), _small_claims(judged), _growing_claims(judged)
    if not small and not growing and not _is_template_small(judged):
        return ""
    members = wanted_members(judged)
    done = sum(member in claims and member not in small and member not in growing for member in members)
    told = f"Growing volumes to {_size(judged)}: {done} of {len(members)} done"
    if change := change_of_membership(judged):
        return f"{told}; {in_lower(change)}"
    if growing:
        return f"{told}; {'; '.join(map(_resize_progress, growing.values()))}"
    if restart := restart_under_way(judged):
        return f"{told}; {in_lower(restart)}"
    member = _next_to_replace(judged)
    if member is None:
        return told
    reason = _why_waits(judged, member)
    return f"{told}; {member.name} waits: {reason}" if reason else f"{told}; {member.name} is to be replaced"


def growth_problem(judged: Judged) -> str:
    """Why the volumes do not grow before somebody does something about it; empty while they do."""
    if not judged.blueprint.bootstrapped:
        return ""
    if stuck := _stuck_on_full_volume(judged):
        return stuck
    if change_of_membership(judged):
        return ""
    for claim in _growing_claims(judged).values():
        if failure := _resize_failure(claim):
            return failure
    for member, claim in _small_claims(judged).items():
        refusal = _refusal(judged, claim)
        if refusal and not _is_final(refusal):
            return f"PersistentVolumeClaim {claim['metadata']['name']} cannot grow: {refusal.message}"
        if refusal and _is_only_member(judged):
            return (
                f"PersistentVolumeClaim {claim['metadata']['name']} cannot grow to {_size(judged)}: its StorageClass "
                "cannot expand volumes, and the only member cannot be replaced; set spec.members to 3, and back to 1 "
                "when all volumes have grown, or allow volume expansion in the StorageClass where its driver can"
            )
        if refusal and (kept := keeps_old_data(judged, member)):
            keep = judged.seen.cluster.spec.healing.keep_old_data
            return (
                f"PersistentVolumeClaim {claim['metadata']['name']} cannot grow to {_size(judged)}, and is not "
                "replaced while data of a former member is kept on it "
                f"({', '.join(kept)}): spec.healing.keepOldData is {keep}"
            )
    return ""


def _stuck_on_full_volume(judged: Judged) -> str:
    """What to do about a full volume that cannot grow and may hold what nobody has seen; empty where there is none."""
    for member, refusal in _refusals(judged).items():
        full = next((each for each in judged.membership.members if each.name == member and each.is_full), None)
        if full is None or full.listed is None or refusal is None or not _is_final(refusal):
            continue
        if not _is_known(judged, member, hex_id(full.listed.id)) and not keeps_old_data(judged, member):
            claim = judged.blueprint.names.claim(member)
            return (
                f"PersistentVolumeClaim {claim} is full and cannot grow to {_size(judged)}, and is not replaced as it "
                f"may hold more than the data of {member}: if nobody needs it, delete it and then Pod {member}"
            )
    return ""


def _size(judged: Judged) -> str:
    return str(judged.seen.cluster.spec.storage.size)


def _claims(judged: Judged) -> dict[str, Manifest]:
    """The claims of all members that are wanted, but those that are going, by member."""
    found = {
        member: judged.seen.objects.claims.get(judged.blueprint.names.claim(member))
        for member in wanted_members(judged)
    }
    return {member: claim for member, claim in found.items() if claim is not None and not is_terminating(claim)}


def _small_claims(judged: Judged) -> dict[str, Manifest]:
    """The claims that ask for less than the user does."""
    wanted = judged.seen.cluster.spec
    if not judged.blueprint.bootstrapped:
        return {}
    return {member: claim for member, claim in _claims(judged).items() if is_small(claim, wanted)}


def _growing_claims(judged: Judged) -> dict[str, Manifest]:
    """The claims that ask for enough and do not have it yet."""
    wanted = judged.seen.cluster.spec.storage.size
    return {
        member: claim
        for member, claim in _claims(judged).items()
        if _is_bound(claim) and (asked := requested(claim)) is not None and asked >= wanted
        if (given := granted(claim)) is not None and given < wanted
    }


def _is_bound(claim: Manifest) -> bool:
    return (claim.get("status") or {}).get("phase") == "Bound"


def _is_template_small(judged: Judged) -> bool:
    live = judged.seen.objects.stateful_sets.get(judged.blueprint.names.stateful_set)
    made = size_of_new_volumes(live)
    return judged.blueprint.bootstrapped and made is not None and made < judged.seen.cluster.spec.storage.size


def _growth(judged: Judged, claim: Manifest) -> GrowVolume:
    metadata, size = claim["metadata"], _size(judged)
    return GrowVolume(claim=metadata["name"], uid=metadata["uid"], size=size, reason=f"spec.storage.size is {size} now")


def _deletion(judged: Judged, member: str, claim: Manifest) -> list[Step]:
    reason = f"its member was removed from etcd, and comes back on a volume of {_size(judged)}: this one cannot grow"
    return [Delete.of("PersistentVolumeClaim", claim, reason), *end_of_pod(judged, member)]


def _is_dispensable(judged: Judged, member: str) -> bool:
    """Whether a volume holds nothing but what all voters have: a member's that etcd removed, by its own confirmed list.

    What another etcd cluster is recorded on, or nothing, or a member that was scaled away, is not known to be that.
    """
    members = judged.membership
    if members.list is None or members.alarmed or not _is_known(judged, member):
        return False
    everyone = len(members.list.members) == len(members.members) and not members.learners
    return everyone and not _why_others_lack_data(judged, members.members)


def _is_known(judged: Judged, member: str, own: str = "") -> bool:
    """Whether a volume is known to hold the data of one member alone, which etcd has removed or whose ID is `own`."""
    record, list_ = volume_records(judged.seen).get(member), judged.membership.list
    if record is None or record.cluster_id != judged.blueprint.cluster_id or keeps_old_data(judged, member):
        return False
    listed = {hex_id(each.id) for each in list_.members} if list_ else {record.member_id}
    return record.member_id not in listed - {own}


def _refusal(judged: Judged, claim: Manifest) -> ResizeRefusal | None:
    """What the API server answered to just this wish, not long ago."""
    refusal = judged.seen.resizes.get(claim["metadata"]["uid"])
    if refusal is None or refusal.size != _size(judged) or judged.seen.at - refusal.at > ASK_AGAIN:
        return None
    return refusal


def _refusals(judged: Judged) -> dict[str, ResizeRefusal | None]:
    return {member: _refusal(judged, claim) for member, claim in _small_claims(judged).items()}


def _is_final(refusal: ResizeRefusal) -> bool:
    """Whether this volume cannot grow at all, however long one waits."""
    return CANNOT_EXPAND in refusal.message


def _is_only_member(judged: Judged) -> bool:
    return judged.membership.voter_count < 2


def _waits_for_spec(judged: Judged) -> bool:
    return bool(judged.problems) or not judged.blueprint.bootstrapped


def _waits_for_others(judged: Judged) -> bool:
    """Whether members change or restart already; one that cannot run on its small volume may be what that waits for."""
    small = _small_claims(judged)
    if any(member.is_full and member.name in small for member in judged.membership.members):
        joining = [learner for learner in judged.membership.learners if not learner.is_full]
        return bool(missing_members(judged) or joining)
    return bool(change_of_membership(judged) or restart_under_way(judged))


def _why_waits(judged: Judged, member: SeenMember) -> str:
    """Why the member is not replaced yet; empty when it may be.

    One whose volume is full serves nobody; but what it had goes with the volume, which would be in the way for good
    once etcd has removed the member.
    """
    if not member.is_full:
        return blocked_by(judged, member)
    others = tuple(each for each in judged.membership.members if each is not member)
    return blocked_by(judged, member) or _why_others_lack_data(judged, others)


def _why_others_lack_data(judged: Judged, members: tuple[SeenMember, ...]) -> str:
    """Who of those that can run at all may not have all data; empty where all have, which takes a quorum of them."""
    for member in members:
        if member.is_full:
            continue
        if not member.healthy:
            return member.trouble.message if member.trouble else f"{member.name}: {member.why}"
        if not is_caught_up(judged, member):
            return f"{member.name} is catching up"
    return "" if judged.membership.confirmed else "no quorum answers"


def _next_to_replace(judged: Judged) -> SeenMember | None:
    """Who goes next: a member that cannot run as its volume is full, then followers, the leader last.

    One that cannot run for another reason keeps its volume, as that would cost its data and cure nothing.
    """
    refused = {member for member, refusal in _refusals(judged).items() if refusal and _is_final(refusal)}
    waiting = [
        member
        for member in judged.membership.members
        if member.name in refused and member.listed and (member.healthy or member.is_full)
        if _is_known(judged, member.name, hex_id(member.listed.id))
    ]
    leader = judged.membership.leader
    return min(
        waiting,
        key=lambda each: (each.healthy, each is leader, judged.blueprint.names.ordinal(each.name) or 0),
        default=None,
    )


def _resize_failure(claim: Manifest) -> str:
    """Why Kubernetes cannot give what the claim asks for, in its own words; empty while it may well."""
    status, name = claim.get("status") or {}, claim["metadata"]["name"]
    for condition in status.get("conditions") or []:
        if condition["type"] in RESIZE_ERRORS and condition["status"] == "True":
            return f"PersistentVolumeClaim {name}: its volume does not grow: {condition.get('message', '')}"
    if (status.get("allocatedResourceStatuses") or {}).get("storage") in INFEASIBLE:
        return f"PersistentVolumeClaim {name}: its volume cannot grow: see its events"
    return ""


def _resize_progress(claim: Manifest) -> str:
    told = [c for c in (claim.get("status") or {}).get("conditions") or [] if c["status"] == "True"]
    message = next((c.get("message") or c["type"] for c in reversed(told)), "waiting for its StorageClass's driver")
    return f"{claim['metadata']['name']}: {message}"


def in_lower(sentence: str) -> str:
    """A sentence as it stands behind another one."""
    return sentence[:1].lower() + sentence[1:]
