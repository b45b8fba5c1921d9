"""Data of former members that is kept beside that of the present one, and when it goes.

Pure. Which directories there are, and since when, stands on the volume's claim. They go when they are older than
`spec.healing.keepOldData`, and only while all members are well: whoever needs old data needs it when something is not.
The pod that deletes them never holds up anything else: it is taken away when anything else is to be done.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta

from etcd_operator.cluster.judged import Judged
from etcd_operator.cluster.members import Quorum, SeenMember
from etcd_operator.cluster.membership_rules import missing_members, surplus_members
from etcd_operator.cluster.records import annotations, is_terminating, timestamp
from etcd_operator.cluster.steps import Annotate, Apply, Delete, Plan, Step
from etcd_operator.cluster.trouble import is_ready
from etcd_operator.resources import names as n
from etcd_operator.resources.cleaning_pod import CONTAINER, cleaning_pod
from etcd_operator.resources.compare import sealed

#: How long one pod may try to delete old data before it makes room for another.
TRIED_FOR = timedelta(minutes=10)


def old_data(found: Mapping[str, str]) -> dict[str, datetime]:
    """The directories that a claim's annotations record as kept, and since when; what cannot be read is kept."""
    kept = {}
    for entry in filter(None, found.get(n.OLD_DATA, "").split(",")):
        incarnation, _, since = entry.partition("=")
        try:
            kept[incarnation] = datetime.fromisoformat(since)
        except ValueError:
            continue
    return kept


def put_aside(found: Mapping[str, str], incarnation: str, at: datetime) -> dict[str, str]:
    """What to record on a claim beside the incarnation that serves from it now: the one that did before is old data."""
    kept, before = old_data(found), found.get(n.INCARNATION)
    if before and before != incarnation:
        kept.setdefault(before, at)
    kept.pop(incarnation, None)
    recorded = _recorded(kept)
    return {n.OLD_DATA: recorded} if recorded != found.get(n.OLD_DATA, "") else {}


def _recorded(kept: Mapping[str, datetime]) -> str:
    return ",".join(f"{incarnation}={timestamp(since)}" for incarnation, since in sorted(kept.items()))


def keeps_old_data(judged: Judged, member: str) -> tuple[str, ...]:
    """The directories on a member's volume that may not be deleted yet, as long as there are any."""
    kept = old_data(annotations(judged.seen.objects.claims.get(judged.blueprint.names.claim(member))))
    return tuple(sorted(name for name, since in kept.items() if not _may_go(judged, since)))


def _may_go(judged: Judged, since: datetime) -> bool:
    keep = judged.seen.cluster.spec.healing.kept_for
    return keep is not None and judged.seen.at - since >= keep


def take_away_cleaners(judged: Judged) -> Plan | None:
    """Let pods go that deleted old data, or that are to do so no more; what they deleted is struck off the record.

    At once: what still runs of such a pod on a node that does not answer harms nothing, and a pod that is only going
    would keep the claim of its volume from going.
    """
    steps: list[Step] = []
    for pod in judged.seen.objects.other_pods.values():
        told = annotations(pod).get(n.CLEANS)
        if not told:
            continue
        if _is_done(pod) and (step := _strike_off(judged, pod, told.split(","))):
            steps.append(step)
        elif reason := _why_it_goes(judged, pod, told):
            steps.append(Delete.of("Pod", pod, reason, at_once=True))
    return Plan(steps=tuple(steps)) if steps else None


def _why_it_goes(judged: Judged, pod: n.Manifest, told: str) -> str:
    """Why a pod that deletes old data is taken away; empty where it goes on."""
    if _is_done(pod):
        return "the old data is deleted"
    member = _member_of(judged, pod)
    if member is None or is_terminating(pod) or told != ",".join(_due(judged, member)):
        return "old data is not to be deleted now"
    if judged.seen.at - datetime.fromisoformat(pod["metadata"]["creationTimestamp"]) > TRIED_FOR:
        return f"it could not delete old data, and is tried again: {_last_words(pod) or 'it never ran'}"
    return ""


def _member_of(judged: Judged, pod: n.Manifest) -> SeenMember | None:
    name, names = pod["metadata"]["name"], judged.blueprint.names
    return next((member for member in judged.membership.members if names.cleaning_pod(member.name) == name), None)


def _is_done(pod: n.Manifest) -> bool:
    """Whether the program has ended well, whatever else somebody put into the pod."""
    return (_state(pod).get("terminated") or {}).get("exitCode") == 0


def _last_words(pod: n.Manifest) -> str:
    """What the kubelet or the program says of why it gets nowhere."""
    last, status = _state(pod), pod.get("status", {})
    told = last.get("waiting") or last.get("terminated") or {}
    return str(told.get("message") or told.get("reason") or status.get("message") or status.get("reason") or "")


def _state(pod: n.Manifest) -> n.Manifest:
    containers = pod.get("status", {}).get("containerStatuses") or []
    return next((dict(each["state"]) for each in containers if each["name"] == CONTAINER), {})


def _strike_off(judged: Judged, pod: n.Manifest, deleted: list[str]) -> Step | None:
    """Record on the claim that these directories are no more; nothing where it says so already, or is another one."""
    volume = next(volume for volume in pod["spec"]["volumes"] if volume["name"] == "data")
    claim = judged.seen.objects.claims.get(volume["persistentVolumeClaim"]["claimName"])
    if claim is None or claim["metadata"]["creationTimestamp"] > pod["metadata"]["creationTimestamp"]:
        return None
    kept = old_data(annotations(claim))
    left = {incarnation: since for incarnation, since in kept.items() if incarnation not in deleted}
    if left == kept:
        return None
    reason = f"deleted {', '.join(deleted)}: kept aside for longer than spec.healing.keepOldData"
    return Annotate.of("PersistentVolumeClaim", claim, reason, annotations={n.OLD_DATA: _recorded(left)})


def delete_old_data(judged: Judged) -> Plan | None:
    """Start the pod that deletes what has been kept for long enough from one volume."""
    pods = judged.seen.objects.other_pods
    if not judged.seen.agent_image or any(n.CLEANS in annotations(pod) for pod in pods.values()):
        return None
    for member in judged.membership.members:
        due = _due(judged, member)
        if not due or member.pod is None:
            continue
        node, keep = member.pod["spec"]["nodeName"], judged.seen.cluster.spec.healing.keep_old_data
        manifest = cleaning_pod(judged.blueprint, member.name, due, node=node, image=judged.seen.agent_image)
        where = f"{', '.join(due)} on {judged.blueprint.names.claim(member.name)}"
        reason = f"deleting old data of {member.name}: {where}, kept for longer than spec.healing.keepOldData ({keep})"
        return Plan(steps=(Apply(manifest=sealed(manifest), absent=True, reason=reason),))
    return None


def _due(judged: Judged, member: SeenMember) -> tuple[str, ...]:
    """The directories to be deleted now from a member's volume, the one that it serves from never among them."""
    plan = judged.blueprint
    claim = judged.seen.objects.claims.get(plan.names.claim(member.name))
    if claim is None or member.pod is None or not _all_well(judged, member):
        return ()
    found, serves = annotations(claim), plan.seat(member.name).incarnation
    if is_terminating(claim) or found.get(n.CLUSTER_ID) != plan.cluster_id or found.get(n.INCARNATION) != serves:
        return ()
    kept = old_data(found)
    return tuple(sorted(name for name, since in kept.items() if _may_go(judged, since) and name != serves))


def _all_well(judged: Judged, cleaned: SeenMember) -> bool:
    """Whether the members are those that are wanted, all of them well: nobody needs old data, and nothing moves.

    But for the one whose volume is to be cleaned, where that is full: it may be the old data that fills it.
    """
    plan, members = judged.blueprint, judged.membership
    if judged.seen.cluster.spec.paused or not plan.bootstrapped or members.quorum is not Quorum.HEALTHY:
        return False
    if missing_members(judged) or surplus_members(judged) or members.learners or not members.confirmed:
        return False
    if members.alarmed or (plan.recovery is not None and plan.recovery.active):
        return False
    return all(_is_well(judged, member) or (member is cleaned and _is_full(member)) for member in members.members)


def _is_well(judged: Judged, member: SeenMember) -> bool:
    ready = member.pod is not None and not is_terminating(member.pod) and is_ready(member.pod)
    return ready and member.healthy and not judged.blueprint.seat(member.name).joining


def _is_full(member: SeenMember) -> bool:
    return member.trouble is not None and member.trouble.reason == "DiskFull"
