"""Data of former members that is kept beside that of the present one, and when it goes.

Pure. Which directories there are, and since when, stands on the volume's claim. They go when they are older than
`spec.healing.keepOldData`, and only while all members are well: whoever needs old data needs it when something is not.
The pod that deletes them never holds up anything else: it is taken away when anything else is to be done.
"""

from collections.abc import Mapping
from datetime import datetime

from etcd_operator.cluster.judged import Judged
from etcd_operator.cluster.members import Quorum, SeenMember
from etcd_operator.cluster.membership_rules import missing_members, surplus_members
from etcd_operator.cluster.records import annotations, is_terminating, timestamp
from etcd_operator.cluster.steps import Annotate, Apply, Delete, Plan, Step
from etcd_operator.cluster.trouble import is_ready
from etcd_operator.resources import names as n
from etcd_operator.resources.cleaning_pod import cleaning_pod
from etcd_operator.resources.compare import sealed


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


def take_away_cleaners(judged: Judged) -> Plan | None:
    """Let pods go that deleted old data, or that are to do so no more; what they deleted is struck off the record."""
    steps: list[Step] = []
    for pod in judged.seen.objects.other_pods.values():
        told = annotations(pod).get(n.CLEANS)
        if not told or is_terminating(pod):
            continue
        member = _member_of(judged, pod)
        done = _phase(pod) == "Succeeded"
        if done and (step := _strike_off(judged, pod, told.split(","))):
            steps.append(step)
        elif done:
            steps.append(Delete.of("Pod", pod, "the old data is deleted"))
        elif member is None or told != ",".join(_due(judged, member)) or _has_failed(pod):
            steps.append(Delete.of("Pod", pod, "old data is not to be deleted now"))
    return Plan(steps=tuple(steps)) if steps else None


def _member_of(judged: Judged, pod: n.Manifest) -> SeenMember | None:
    name, names = pod["metadata"]["name"], judged.blueprint.names
    return next((member for member in judged.membership.members if names.cleaning_pod(member.name) == name), None)


def _has_failed(pod: n.Manifest) -> bool:
    """Whether the pod as a whole has ended in vain: it was evicted, perhaps."""
    return _phase(pod) == "Failed"


def _phase(pod: n.Manifest) -> str:
    return str(pod.get("status", {}).get("phase", ""))


def _strike_off(judged: Judged, pod: n.Manifest, deleted: list[str]) -> Step | None:
    """Record on the claim that these directories are no more; nothing where it says so already, or is another one."""
    (name,) = (volume["persistentVolumeClaim"]["claimName"] for volume in pod["spec"]["volumes"] if _is_claim(volume))
    claim = judged.seen.objects.claims.get(name)
    if claim is None or claim["metadata"]["creationTimestamp"] > pod["metadata"]["creationTimestamp"]:
        return None
    kept = old_data(annotations(claim))
    left = {incarnation: since for incarnation, since in kept.items() if incarnation not in deleted}
    if left == kept:
        return None
    reason = f"deleted {', '.join(deleted)}: kept aside for longer than spec.healing.keepOldData"
    return Annotate.of("PersistentVolumeClaim", claim, reason, annotations={n.OLD_DATA: _recorded(left)})


def _is_claim(volume: n.Manifest) -> bool:
    return "persistentVolumeClaim" in volume


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
    plan, keep = judged.blueprint, judged.seen.cluster.spec.healing.kept_for
    claim = judged.seen.objects.claims.get(plan.names.claim(member.name))
    if keep is None or claim is None or member.pod is None or not _all_well(judged):
        return ()
    found, serves = annotations(claim), plan.seat(member.name).incarnation
    if is_terminating(claim) or found.get(n.CLUSTER_ID) != plan.cluster_id or found.get(n.INCARNATION) != serves:
        return ()
    kept = old_data(found)
    return tuple(sorted(name for name, since in kept.items() if judged.seen.at - since >= keep and name != serves))


def _all_well(judged: Judged) -> bool:
    """Whether the members are those that are wanted, all of them well: nobody needs old data, and nothing moves."""
    plan, members = judged.blueprint, judged.membership
    if judged.seen.cluster.spec.paused or not plan.bootstrapped or members.quorum is not Quorum.HEALTHY:
        return False
    if missing_members(judged) or surplus_members(judged) or members.learners or not members.confirmed:
        return False
    if plan.recovery is not None and plan.recovery.active:
        return False
    pods = [member.pod for member in members.members]
    ready = all(pod is not None and not is_terminating(pod) and is_ready(pod) for pod in pods)
    return ready and all(member.healthy and not plan.seat(member.name).joining for member in members.members)
