"""Keeping a cluster's objects as they should be, and its members behind the right doors.

Pure. What a person or another controller changed or deleted is put back; what belongs to somebody else, or to
an EtcdCluster of the same name that is being deleted, is not touched.
"""

from collections.abc import Iterable
from datetime import datetime

from etcd_operator.cluster.certificates import access_due, due, newest_authority, secret_steps
from etcd_operator.cluster.judged import Judged
from etcd_operator.cluster.members import Quorum, SeenMember
from etcd_operator.cluster.observation import Named
from etcd_operator.cluster.records import MEMBER, annotations, is_terminating, owner_uids, volume_records
from etcd_operator.cluster.steps import Annotate, Apply, Delete, Plan, SetOwner, Step
from etcd_operator.etcd.model import hex_id
from etcd_operator.resources import names as n
from etcd_operator.resources.blueprint import Blueprint, owner_reference
from etcd_operator.resources.compare import is_satisfied, sealed
from etcd_operator.resources.config_map import config_map
from etcd_operator.resources.pod_disruption_budget import pod_disruption_budget
from etcd_operator.resources.services import client_service, peer_service
from etcd_operator.resources.stateful_set import stateful_set


def wait_when_paused(judged: Judged) -> Plan | None:
    if judged.seen.cluster.spec.paused:
        return Plan(waiting="Paused: spec.paused is true, nothing is changed")
    return None


def wait_for_leftovers(judged: Judged) -> Plan | None:
    """Let an EtcdCluster of the same name that was deleted go first, with all its objects; also what terminates now."""
    uid = judged.seen.cluster.metadata.uid
    leftovers = [
        f"{manifest['kind']} {manifest['metadata']['name']}"
        for manifest in judged.seen.objects.all()
        if _is_leftover(manifest, uid)
    ]
    if leftovers:
        return Plan(waiting=f"Waiting for {leftovers[0]} of a deleted EtcdCluster to be gone ({len(leftovers)} left)")
    live = judged.seen.objects.stateful_sets.get(judged.blueprint.names.stateful_set)
    if is_terminating(live):
        return Plan(waiting=f"Waiting for the old StatefulSet {judged.blueprint.names.stateful_set} to be gone")
    return None


def _is_leftover(manifest: n.Manifest, uid: str) -> bool:
    owners = owner_uids(manifest)
    return bool(owners) and uid not in owners


def refuse_disputed_records(judged: Judged) -> Plan | None:
    if judged.proof.disputes:
        return Plan(waiting="; ".join(judged.proof.disputes))
    return None


def issue_certificates(judged: Judged) -> Plan | None:
    steps = due(judged.seen, judged.blueprint)
    return Plan(steps=steps) if steps else None


def keep_objects_right(judged: Judged) -> Plan | None:
    """Apply every object that is missing or differs; the StatefulSet after all that its pods mount."""
    seen, plan = judged.seen, judged.blueprint
    mounted: list[Step] = [
        *_applies(seen.objects.config_maps, [config_map(plan)]),
        *_applies(seen.objects.services, [peer_service(plan)]),
        *secret_steps(seen, plan),
    ]
    if mounted:
        return Plan(steps=tuple(mounted))
    steps = (
        *_applies(seen.objects.stateful_sets, [stateful_set(plan)]),
        *_applies(seen.objects.disruption_budgets, [pod_disruption_budget(plan)]),
    )
    return Plan(steps=steps) if steps else None


def _applies(live: Named, wanted: Iterable[n.Manifest | None]) -> list[Step]:
    steps: list[Step] = []
    for manifest in wanted:
        if manifest is None:
            continue
        name, desired = manifest["metadata"]["name"], sealed(manifest)
        existing = live.get(name)
        if not is_satisfied(desired, existing):
            did = "is needed" if existing is None else "differs from what it should be"
            steps.append(Apply(manifest=desired, absent=existing is None, reason=f"{manifest['kind']} {name} {did}"))
    return steps


def record_volumes(judged: Judged) -> Plan | None:
    """Write on each volume whose data it holds, once the member on it has answered as one of this etcd cluster."""
    plan = judged.blueprint
    if not plan.bootstrapped:
        return None
    steps = [step for member in judged.membership.members if (step := _volume_record(judged, plan, member))]
    return Plan(steps=tuple(steps)) if steps else None


def _volume_record(judged: Judged, plan: Blueprint, member: SeenMember) -> Step | None:
    claim = judged.seen.objects.claims.get(plan.names.claim(member.name))
    if claim is None or is_terminating(claim) or not member.healthy or not member.answer or not member.answer.status:
        return None
    wanted = {
        n.CLUSTER_ID: plan.cluster_id,
        n.MEMBER_ID: hex_id(member.answer.status.member_id),
        n.MEMBER_STATE: MEMBER,
        n.INCARNATION: plan.incarnation_of(member.name),
        n.MEMBERS: ",".join(plan.members),
        n.ETCD_VERSION: plan.spec.version,
    }
    labels = n.object_labels(plan.names.name)
    found, metadata = annotations(claim), claim["metadata"]
    if all(found.get(key) == value for key, value in wanted.items()) and is_satisfied(labels, metadata.get("labels")):
        return None
    return Annotate(
        kind="PersistentVolumeClaim",
        name=metadata["name"],
        uid=metadata["uid"],
        annotations=tuple(wanted.items()),
        labels=tuple(labels.items()),
        reason=f"member {member.name} serves from this volume",
    )


def refresh_mounted_files(judged: Judged) -> Plan | None:
    """Make the kubelet take the fuse files to pods that started before they were written.

    A pod that mounted its file during bootstrap still reads `new` there until the kubelet's next refresh, about
    a minute later; a changed annotation makes it sync the pod at once.
    """
    plan = judged.blueprint
    if not plan.bootstrapped or not plan.recorded_at:
        return None
    recorded_at = datetime.fromisoformat(plan.recorded_at)
    steps = tuple(
        Annotate(
            kind="Pod",
            name=member.name,
            uid=member.pod["metadata"]["uid"],
            annotations=((n.FILES_REFRESHED, plan.recorded_at),),
            reason="its configuration file is the fuse now",
        )
        for member in judged.membership.members
        if member.pod is not None
        and not is_terminating(member.pod)
        and n.FILES_REFRESHED not in annotations(member.pod)
        and datetime.fromisoformat(member.pod["metadata"]["creationTimestamp"]) <= recorded_at
    )
    return Plan(steps=steps) if steps else None


def shield_from_foreign_members(judged: Judged) -> Plan | None:
    """Take a member that serves another cluster's data out of the client Service, and put it back when it does not."""
    steps: list[Step] = []
    for member in judged.membership.members:
        if member.pod is None or member.answer is None or member.answer.status is None:
            continue
        serving = "false" if member.foreign else "true"
        metadata = member.pod["metadata"]
        if (metadata.get("labels") or {}).get(n.SERVING_LABEL) != serving:
            reason = member.why if member.foreign else "it serves this cluster's data"
            label = ((n.SERVING_LABEL, serving),)
            steps.append(Annotate(kind="Pod", name=member.name, uid=metadata["uid"], labels=label, reason=reason))
    return Plan(steps=tuple(steps)) if steps else None


def publish_access(judged: Judged) -> Plan | None:
    """Let clients in: last, so that no write can be acknowledged before the bootstrap is proved and fused.

    A volume must tell it too: only volumes outlive the EtcdCluster, and their data would not be found again.
    """
    seen, plan = judged.seen, judged.blueprint
    recorded = any(record.cluster_id == plan.cluster_id for record in volume_records(seen).values())
    if not plan.bootstrapped or not recorded:
        return None
    steps = (*_applies(seen.objects.services, [client_service(plan)]), *access_due(seen, plan))
    return Plan(steps=steps) if steps else None


def own_volumes_by_policy(judged: Judged) -> Plan | None:
    """With `deletionPolicy: Delete` the volumes go with the EtcdCluster; with `Retain` they stay."""
    plan = judged.blueprint
    wanted = plan.spec.storage.deletion_policy == "Delete"
    ours = owner_reference(plan.names, plan.uid) | {"controller": False}
    steps: list[Step] = []
    for name, claim in judged.seen.objects.claims.items():
        owners = claim["metadata"].get("ownerReferences") or []
        owned = any(owner["uid"] == plan.uid for owner in owners)
        if owned == wanted or is_terminating(claim) or plan.names.member_of_claim(name) is None:
            continue
        kept = [owner for owner in owners if owner["uid"] != plan.uid]
        steps.append(
            SetOwner(
                claim=name,
                uid=claim["metadata"]["uid"],
                owners=tuple(tuple(owner.items()) for owner in [*kept, *([ours] if wanted else [])]),
                resource_version=claim["metadata"]["resourceVersion"],
                reason=f"spec.storage.deletionPolicy is {plan.spec.storage.deletion_policy}",
            )
        )
    return Plan(steps=tuple(steps)) if steps else None


def restart_members_of_a_lost_authority(judged: Judged) -> Plan | None:
    """Restart all members at once when the authority was lost and made anew: they trust only the old one.

    etcd reads its authorities only when it starts. Members that trust different ones do not hear each other, so
    there is no quorum to protect, and one by one would only be slower.
    """
    plan, members = judged.blueprint, judged.membership
    made = newest_authority(judged.seen, plan)
    if made is None or members.quorum is Quorum.HEALTHY:
        return None
    steps = tuple(
        Delete(
            kind="Pod",
            name=member.name,
            uid=member.pod["metadata"]["uid"],
            reason="it trusts a certificate authority that no longer exists",
        )
        for member in members.members
        if member.pod is not None
        and not is_terminating(member.pod)
        and datetime.fromisoformat(member.pod["metadata"]["creationTimestamp"]) < made
    )
    return Plan(steps=steps) if steps else None


def wait_for_members(judged: Judged) -> Plan | None:
    ailing = judged.membership.ailing
    if not ailing:
        return None
    return Plan(waiting="Waiting for " + "; ".join(f"{member.name}: {member.why}" for member in ailing))
