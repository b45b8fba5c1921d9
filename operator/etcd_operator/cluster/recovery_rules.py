"""Rebuilding the etcd from one member's data, after the quorum was lost for good and a person asked for it.

Pure. Three states, each written on ConfigMap and StatefulSet before anything is done that belongs to it:

Stopping: the StatefulSet runs nobody any more. Until every pod that could be an old member is gone from the API server,
nothing is changed: old voters could still form the old quorum, under the same cluster ID. All this can be taken back.
Forcing: the roster has the one member, the other volumes are marked as removed members', and a pod beside the
StatefulSet makes the member the only one. That pod is ready when it answers a linearizable read all alone.
Rebuilt: that pod is taken away, then the StatefulSet runs again: the one member with its fuse, and the others as new
members in new directories, as in any growth.

Nothing here is done unless the status named the loss first and the request came after that.
"""

from dataclasses import replace

from etcd_operator.cluster.judged import Judged
from etcd_operator.cluster.members import Quorum
from etcd_operator.cluster.observation import Named
from etcd_operator.cluster.old_data_rules import put_aside
from etcd_operator.cluster.records import MEMBER, MEMBER_REMOVED, annotations, is_terminating, timestamp, volume_record
from etcd_operator.cluster.recovery import FIELD, cost, loses, objection, report_of, standing_loss
from etcd_operator.cluster.steps import Annotate, Apply, Delete, Plan, Step
from etcd_operator.cluster.trouble import is_ready, pod_trouble
from etcd_operator.resources import names as n
from etcd_operator.resources.blueprint import Blueprint, Recovery, Seat
from etcd_operator.resources.compare import is_satisfied, sealed
from etcd_operator.resources.config_map import config_map
from etcd_operator.resources.recovery_pod import recovery_pod
from etcd_operator.resources.stateful_set import stateful_set


def recover(judged: Judged) -> Plan | None:
    """The next step of a rebuild that was asked for or is under way; no other rule speaks meanwhile."""
    recovery = judged.blueprint.recovery
    if recovery is None or not recovery.active:
        return _take_away_pods(judged) or _begin(judged)
    if (again := _begin_from_another(judged, recovery)) is not None:
        return again
    if recovery.state == "Stopping":
        return _stop(judged, recovery)
    return _force(judged, recovery)


def refusal(judged: Judged) -> str:
    """Why what spec.recovery asks for is not done; empty when it is done, or nothing is asked for."""
    asked, loss, recovery = (
        judged.seen.cluster.spec.recovery.force_from,
        standing_loss(judged),
        judged.blueprint.recovery,
    )
    if not asked or loss is None or not judged.blueprint.bootstrapped:
        return ""
    if recovery is not None and recovery.active:
        return "" if asked == recovery.member else _no_other(judged, recovery, asked)
    if judged.membership.quorum is Quorum.HEALTHY:
        return ""
    if asked == loss.ignored_force_from:
        return (
            f"{FIELD} was {asked} before this loss was named, and does not count for it: take it out and set it again "
            "if this loss is for good as well"
        )
    if judged.membership.quorum is Quorum.UNKNOWN:
        return "it is not known whether the quorum is lost: some members are silent and may serve clients"
    return objection(judged, asked)


def idle_wish(judged: Judged) -> str:
    """That a wish for a rebuild stands in the spec and does nothing, to end a sentence; empty where none does."""
    asked, recovery = judged.seen.cluster.spec.recovery.force_from, judged.blueprint.recovery
    if not asked or judged.membership.quorum is not Quorum.HEALTHY or (recovery is not None and recovery.active):
        return ""
    return f"; {FIELD}: {asked} does nothing while there is a quorum, and will not count for a later loss: take it out"


def _begin(judged: Judged) -> Plan | None:
    """Write down that the etcd is to be rebuilt, for which loss and from whom; from here on the request is used up."""
    asked, loss = judged.seen.cluster.spec.recovery.force_from, standing_loss(judged)
    if not asked or loss is None or judged.membership.quorum is not Quorum.LOST or refusal(judged):
        return None
    report = report_of(judged, asked)
    recovery = Recovery(
        loss=timestamp(loss.since), member=asked, state="Stopping", revision=report.revision if report else 0
    )
    reason = f"rebuilding the etcd from {asked} alone, as {FIELD} asks: {cost(report)}; all members are stopped first"
    return _record(judged, replace(judged.blueprint, recovery=recovery), reason)


def _begin_from_another(judged: Judged, recovery: Recovery) -> Plan | None:
    """Start over from another member, when the user names one and accepts what is lost: nobody can be asked now."""
    asked = judged.seen.cluster.spec.recovery.force_from
    if not asked or asked == recovery.member or _no_other(judged, recovery, asked):
        return None
    alone = recovery.alone or recovery.state == "Forcing"
    other = replace(recovery, member=asked, state="Stopping", revision=0, alone=alone)
    reason = f"rebuilding the etcd from {asked} instead of {recovery.member}, as {FIELD} asks now: {cost(None)}"
    return _record(judged, replace(judged.blueprint, recovery=other), reason)


def _no_other(judged: Judged, recovery: Recovery, asked: str) -> str:
    """Why a rebuild that has begun does not go on from another member."""
    claim = judged.seen.objects.claims.get(judged.blueprint.names.claim(asked))
    if claim is None or is_terminating(claim) or annotations(claim).get(n.CLUSTER_ID) != judged.blueprint.cluster_id:
        return f"the rebuild from {recovery.member} goes on: {asked} has no volume with this etcd's data"
    if not judged.seen.cluster.spec.recovery.accept_data_loss:
        return (
            f"the rebuild from {recovery.member} goes on: how far the data of {asked} goes cannot be asked any more; "
            "set spec.recovery.acceptDataLoss to true to rebuild from it all the same"
        )
    return ""


def _stop(judged: Judged, recovery: Recovery) -> Plan:
    """Stop all members, unless a quorum is back or the request was taken back; go on when every old pod is gone."""
    plan = judged.blueprint
    withdrawn = "" if judged.seen.cluster.spec.recovery.force_from else f"{FIELD} was taken out"
    back = "a quorum answers again" if judged.membership.confirmed else withdrawn
    if back and not recovery.alone:
        return _record(judged, replace(plan, recovery=None), f"the etcd is not rebuilt: {back}")
    if steps := _apply_stateful_set(
        judged, plan, f"the members are stopped, to rebuild the etcd from {recovery.member}"
    ):
        return Plan(steps=steps)
    if standing := _old_pods(judged):
        waiting = f"{_stage(recovery)}: {'; '.join(_going(pod) for pod in standing)}"
        return Plan(steps=_deletions(judged, standing), waiting=waiting)
    if not _is_seen_by_its_controller(judged):
        return Plan(waiting=f"{_stage(recovery)}: Kubernetes has not taken note yet that no member is to run")
    seat = plan.seats.get(recovery.member) or _seat_on_volume(judged, recovery.member)
    alone = replace(
        plan,
        members=(recovery.member,),
        seats={recovery.member: replace(seat, joining=False)},
        recovery=replace(recovery, state="Forcing"),
    )
    return _record(judged, alone, f"no old member runs any more: {recovery.member} becomes the only one")


def _is_seen_by_its_controller(judged: Judged) -> bool:
    """Whether the StatefulSet controller knows that it is to run nobody: one that does not may still make pods."""
    live = judged.seen.objects.stateful_sets.get(judged.blueprint.names.stateful_set) or {"metadata": {}}
    wanted, seen = live["metadata"].get("generation", 0), live.get("status", {}).get("observedGeneration", 0)
    return bool(seen >= wanted)


def _force(judged: Judged, recovery: Recovery) -> Plan:
    """Mark the other volumes, then make the member the only one; when it is, write that down."""
    plan, names = judged.blueprint, judged.blueprint.names
    if steps := (*_apply_config_map(judged, plan), *_apply_stateful_set(judged, plan, "the members stay stopped")):
        return Plan(steps=steps)
    mine = names.recovery_pod(recovery.member)
    if standing := [pod for pod in _old_pods(judged) if not _is_of(pod, mine, recovery)]:
        return Plan(steps=_deletions(judged, standing), waiting=f"{_stage(recovery)}: {_going(standing[0])}")
    if steps := _marks(judged, recovery):
        return Plan(steps=steps)
    pod = judged.seen.objects.other_pods.get(mine)
    if pod is None:
        manifest = sealed(recovery_pod(plan, recovery))
        reason = f"pod {mine} makes {recovery.member} the only member: {loses(recovery)}"
        return Plan(steps=(Apply(manifest=manifest, absent=True, reason=reason),))
    if is_terminating(pod) or pod.get("status", {}).get("phase") in ("Failed", "Succeeded"):
        return Plan(steps=_deletions(judged, [pod]), waiting=f"{_stage(recovery)}: {_going(pod)}")
    if not is_ready(pod):
        return Plan(waiting=f"{_stage(recovery)}: {_trouble(judged, pod) or f'{mine} starts'}")
    rebuilt = replace(plan, recovery=replace(recovery, state="Rebuilt"))
    return _record(judged, rebuilt, f"{recovery.member} is the only member now; the others join anew")


def _take_away_pods(judged: Judged) -> Plan | None:
    """Let the pods of a rebuild that is over go, before any member runs from the same volume."""
    over = [pod for pod in judged.seen.objects.other_pods.values() if n.RECOVERY in annotations(pod)]
    if not over:
        return None
    return Plan(steps=_deletions(judged, over), waiting=f"Starting the members after the rebuild: {_going(over[0])}")


def _record(judged: Judged, plan: Blueprint, reason: str) -> Plan:
    """The ConfigMap is the record, as it is what pods start from; the StatefulSet follows in the next look."""
    return Plan(steps=(Apply(manifest=sealed(config_map(plan)), absent=False, reason=reason),))


def _apply_config_map(judged: Judged, plan: Blueprint) -> tuple[Step, ...]:
    return _apply(
        judged, config_map(plan), judged.seen.objects.config_maps, "the file that makes a member the only one"
    )


def _apply_stateful_set(judged: Judged, plan: Blueprint, reason: str) -> tuple[Step, ...]:
    return _apply(judged, stateful_set(plan), judged.seen.objects.stateful_sets, reason)


def _apply(judged: Judged, manifest: n.Manifest, named: Named, reason: str) -> tuple[Step, ...]:
    desired, live = sealed(manifest), named.get(manifest["metadata"]["name"])
    if is_satisfied(desired, live) or judged.seen.is_accepted(desired, live):
        return ()
    return (Apply(manifest=desired, absent=live is None, reason=reason),)


def _old_pods(judged: Judged) -> list[n.Manifest]:
    """Every pod that could run a member from one of its volumes, whoever made it."""
    objects, names = judged.seen.objects, judged.blueprint.names
    return [
        pod
        for pod in (*objects.pods.values(), *objects.other_pods.values())
        if any(names.member_of_claim(claim) is not None for claim in _claims_of(pod))
        or names.ordinal(_name(pod)) is not None
    ]


def _claims_of(pod: n.Manifest) -> list[str]:
    volumes = pod.get("spec", {}).get("volumes") or []
    return [volume["persistentVolumeClaim"]["claimName"] for volume in volumes if "persistentVolumeClaim" in volume]


def _is_of(pod: n.Manifest, name: str, recovery: Recovery) -> bool:
    return _name(pod) == name and annotations(pod).get(n.RECOVERY) == recovery.loss


def _deletions(judged: Judged, pods: list[n.Manifest]) -> tuple[Step, ...]:
    """Take away pods of a rebuild; members' own are left to their StatefulSet."""
    return tuple(
        Delete.of("Pod", pod, "the rebuild does not need it any more")
        for pod in pods
        if n.RECOVERY in annotations(pod) and not is_terminating(pod)
    )


def _marks(judged: Judged, recovery: Recovery) -> tuple[Step, ...]:
    """Record on the volumes who is a member now, so that no adoption ever starts the old ones again."""
    steps = []
    for name, claim in judged.seen.objects.claims.items():
        member = judged.blueprint.names.member_of_claim(name)
        if member is None or is_terminating(claim):
            continue
        found = annotations(claim)
        wanted = {n.MEMBER_STATE: MEMBER, n.MEMBERS: recovery.member}
        wanted |= put_aside(found, found.get(n.INCARNATION, ""), judged.seen.at)
        if member != recovery.member:
            record = volume_record(claim, member)
            if record is None or record.cluster_id != judged.blueprint.cluster_id:
                continue
            wanted = {n.MEMBER_STATE: MEMBER_REMOVED, **put_aside(found, "", judged.seen.at)}
        if any(found.get(key) != value for key, value in wanted.items()):
            reason = f"{recovery.member} is to be the only member; what is on this volume is kept aside"
            steps.append(Annotate.of("PersistentVolumeClaim", claim, reason, annotations=wanted))
    return tuple(steps)


def _seat_on_volume(judged: Judged, member: str) -> Seat:
    """Where a member's data is that the roster has no more, because another one was to be the only one before."""
    found = annotations(judged.seen.objects.claims.get(judged.blueprint.names.claim(member)))
    incarnation = found.get(n.INCARNATION) or judged.blueprint.incarnation
    return Seat(incarnation=incarnation, member_id=found.get(n.MEMBER_ID, ""))


def _trouble(judged: Judged, pod: n.Manifest) -> str:
    trouble = pod_trouble(pod, judged.seen.complaints, judged.seen.at)
    return f"{trouble.message}; another member can be named in {FIELD}" if trouble else ""


def _stage(recovery: Recovery) -> str:
    if recovery.state == "Stopping":
        return f"Rebuilding from {recovery.member}: stopping all members"
    return f"Rebuilding from {recovery.member}: making it the only member"


def _going(pod: n.Manifest) -> str:
    name, node = _name(pod), pod.get("spec", {}).get("nodeName")
    if not is_terminating(pod):
        return f"{name} stops"
    where = f" on node {node}; if that is off for good, delete the Node" if node else ""
    return f"{name} is not proved gone yet{where}"


def _name(pod: n.Manifest) -> str:
    return str(pod["metadata"]["name"])
