"""Keeping a cluster's objects as they should be, and its members behind the right doors.

Pure. What a person or another controller changed or deleted is put back; what belongs to somebody else, or to
an EtcdCluster of the same name that is being deleted, is not touched.
"""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from etcd_operator.cluster.authority import trusts_strangers
from etcd_operator.cluster.bootstrap_rules import wait_for_bootstrap
from etcd_operator.cluster.certificates import access_due, due, secret_steps
from etcd_operator.cluster.judged import Judged
from etcd_operator.cluster.members import Quorum, SeenMember
from etcd_operator.cluster.observation import Named
from etcd_operator.cluster.old_data_rules import put_aside
from etcd_operator.cluster.proxies import leads_to_proxy
from etcd_operator.cluster.records import MEMBER, annotations, is_leftover, is_terminating, timestamp, volume_records
from etcd_operator.cluster.settled import is_small
from etcd_operator.cluster.steps import Annotate, Apply, Delete, Plan, SetOwner, Step
from etcd_operator.cluster.trouble import is_ready
from etcd_operator.etcd.model import hex_id
from etcd_operator.resources import names as n
from etcd_operator.resources.blueprint import Blueprint, owner_reference
from etcd_operator.resources.compare import digest, is_satisfied, sealed
from etcd_operator.resources.config_map import config_map
from etcd_operator.resources.pod_disruption_budget import pod_disruption_budget
from etcd_operator.resources.services import client_service, peer_service
from etcd_operator.resources.stateful_set import stateful_set

#: How long pods may be missing before the StatefulSet's controller is nudged, and the longest pause between two nudges.
NUDGE_AT_LEAST, NUDGE_AT_MOST = timedelta(seconds=3), timedelta(minutes=1)


def wait_when_paused(judged: Judged) -> Plan | None:
    if judged.seen.cluster.spec.paused:
        return Plan(waiting="Paused: spec.paused is true, nothing is changed")
    return None


def wait_for_leftovers(judged: Judged) -> Plan | None:
    """Let an EtcdCluster of the same name that was deleted go first, with all its objects; also what terminates now."""
    leftovers = [
        f"{manifest['kind']} {manifest['metadata']['name']}"
        for manifest in judged.seen.objects.all()
        if is_leftover(judged.seen, manifest) and n.CLEANS not in annotations(manifest)
    ]
    if leftovers:
        return Plan(waiting=f"Waiting for {leftovers[0]} of a deleted EtcdCluster to be gone ({len(leftovers)} left)")
    live = judged.seen.objects.stateful_sets.get(judged.blueprint.names.stateful_set)
    if is_terminating(live):
        return Plan(waiting=f"Waiting for the old StatefulSet {judged.blueprint.names.stateful_set} to be gone")
    going = [name for name, claim in judged.seen.objects.claims.items() if is_terminating(claim)]
    if going and not judged.founded:
        return Plan(waiting=f"Waiting for PersistentVolumeClaim {going[0]}, which was deleted, to be gone")
    return None


def refuse_disputed_records(judged: Judged) -> Plan | None:
    if judged.proof.disputes:
        return Plan(waiting="; ".join(judged.proof.disputes))
    return None


def lay_foundation(judged: Judged) -> Plan | None:
    """Write down what is founded before anything else is made, so that every later round means the same incarnation."""
    if judged.founded:
        return None
    steps = applies(judged, judged.seen.objects.config_maps, [config_map(judged.blueprint)])
    return Plan(steps=tuple(steps)) if steps else None


def issue_certificates(judged: Judged) -> Plan | None:
    steps = due(judged.seen, judged.blueprint)
    return Plan(steps=steps) if steps else None


def keep_objects_right(judged: Judged) -> Plan | None:
    """Apply every object that is missing or differs; the StatefulSet after all that its pods mount.

    One that only shrinks makes no pod, and goes at once: what is left of removed members starts again until then.
    """
    seen, plan = judged.seen, judged.blueprint
    mounted: list[Step] = [
        *applies(judged, seen.objects.config_maps, [config_map(plan)]),
        *applies(judged, seen.objects.services, [peer_service(plan)]),
        *secret_steps(seen, plan),
    ]
    wanted = stateful_set(plan)
    if mounted and not _only_shrinks(seen.objects.stateful_sets.get(plan.names.stateful_set), wanted):
        return Plan(steps=tuple(mounted))
    steps = (
        *mounted,
        *applies(judged, seen.objects.stateful_sets, [wanted]),
        *applies(judged, seen.objects.disruption_budgets, [pod_disruption_budget(plan)]),
    )
    return Plan(steps=steps) if steps else None


def _only_shrinks(live: n.Manifest | None, wanted: n.Manifest) -> bool:
    """Whether a StatefulSet is to have fewer pods, of the same making."""
    if live is None or wanted["spec"]["replicas"] >= live["spec"].get("replicas", 1):
        return False
    return is_satisfied(wanted["spec"]["template"], live["spec"]["template"])


def applies(judged: Judged, live: Named, wanted: Iterable[n.Manifest | None]) -> list[Step]:
    """The steps that make or correct those of the objects that are wanted and are not as they should be."""
    steps: list[Step] = []
    for manifest in wanted:
        if manifest is None:
            continue
        name, desired = manifest["metadata"]["name"], sealed(manifest)
        existing = live.get(name)
        if not is_satisfied(desired, existing) and not judged.seen.is_accepted(desired, existing):
            did = "is needed" if existing is None else "differs from what it should be"
            steps.append(Apply(manifest=desired, absent=existing is None, reason=f"{manifest['kind']} {name} {did}"))
    return steps


def record_volumes(judged: Judged) -> Plan | None:
    """Write on each volume whose data it holds, once the member on it has answered as one of this etcd cluster."""
    plan = judged.blueprint
    if not plan.bootstrapped or not judged.membership.confirmed:
        return None
    steps = [step for each in judged.membership.members if (step := _volume_record(judged, plan, each, {n.MEMBERS}))]
    return Plan(steps=tuple(steps)) if steps else None


def record_members_on_volumes(judged: Judged) -> Plan | None:
    """Write on each volume who the members are now, once a change of them is complete: adoption starts just those."""
    plan = judged.blueprint
    joining = any(plan.seat(member).joining for member in plan.members)
    if not plan.bootstrapped or not judged.membership.confirmed or joining:
        return None
    steps = [step for each in judged.membership.members if (step := _volume_record(judged, plan, each, set()))]
    return Plan(steps=tuple(steps)) if steps else None


def _volume_record(judged: Judged, plan: Blueprint, member: SeenMember, later: set[str]) -> Step | None:
    """The step that records the member on its volume; a difference in `later` alone is none."""
    claim = judged.seen.objects.claims.get(plan.names.claim(member.name))
    if claim is None or is_terminating(claim) or not member.healthy or not member.answer or not member.answer.status:
        return None
    wanted = {
        n.CLUSTER_ID: plan.cluster_id,
        n.MEMBER_ID: hex_id(member.answer.status.member_id),
        n.MEMBER_STATE: MEMBER,
        n.INCARNATION: plan.seat(member.name).incarnation,
        n.MEMBERS: ",".join(plan.members),
        n.ETCD_VERSION: plan.spec.version,
        # Whose the authorities are is no matter of the data: they are rotated.
        n.TLS_MODES: f"{'Managed' if plan.peer_tls else 'Off'}/{'Managed' if plan.client_tls else 'Off'}",
    }
    labels = n.object_labels(plan.names.name)
    found, metadata = annotations(claim), claim["metadata"]
    if found.get(n.CLUSTER_ID, plan.cluster_id) != plan.cluster_id:
        return None  # another etcd's data is on it as well, and its record is not ours to overwrite
    right = all(found.get(key) == value for key, value in wanted.items() if key not in later or key not in found)
    if right and is_satisfied(labels, metadata.get("labels")):
        return None
    reason = f"member {member.name} serves from this volume"
    if not is_small(claim, judged.seen.cluster.spec):  # one that is replaced by a larger one keeps nothing
        wanted |= put_aside(found, wanted[n.INCARNATION], judged.seen.at)
    return Annotate.of("PersistentVolumeClaim", claim, reason, annotations=wanted, labels=labels)


def refresh_mounted_files(judged: Judged) -> Plan | None:
    """Make the kubelet take the fuse files to pods that started before they were written.

    A pod that mounted its file during bootstrap still reads `new` there until the kubelet's next refresh, about
    a minute later; a changed annotation makes it sync the pod at once. Pods that start later get it as
    well: comparing times would trust that no clock is off.
    """
    plan = judged.blueprint
    if not plan.bootstrapped:
        return None
    steps = tuple(
        Annotate.of(
            "Pod",
            member.pod,
            "its configuration file is the fuse now",
            annotations={n.FILES_REFRESHED: plan.refreshed(member.name)},
        )
        for member in judged.membership.members
        if member.pod is not None
        and not is_terminating(member.pod)
        and plan.refreshed(member.name)
        and annotations(member.pod).get(n.FILES_REFRESHED) != plan.refreshed(member.name)
    )
    return Plan(steps=steps) if steps else None


def refresh_certificates(judged: Judged) -> Plan | None:
    """Make the kubelet take what changed of the certificates to pods at once: by itself it takes up to 90 s.

    Judged by the times at which Secret and pod were made: a clock that is off costs that delay, or a write.
    """
    plan, secrets = judged.blueprint, judged.seen.objects.secrets
    mounted = [secrets.get(name) for name in (plan.names.peer_certificate, plan.names.server_certificate)]
    issued = max((annotations(each).get(n.ISSUED_AT, "") for each in mounted), key=_moment)
    wanted = ".".join(digest(each["data"])[:8] for each in mounted if each is not None)
    steps = tuple(
        Annotate.of(
            "Pod",
            member.pod,
            "its certificates, or the authorities that it is to trust, are other ones now",
            annotations={n.CERTIFICATES_REFRESHED: wanted},
        )
        for member in judged.membership.members
        if plan.bootstrapped
        and member.pod is not None
        and not is_terminating(member.pod)
        and _moment(member.pod["metadata"]["creationTimestamp"]) < _moment(issued)
        and annotations(member.pod).get(n.CERTIFICATES_REFRESHED) != wanted
    )
    return Plan(steps=steps) if steps else None


def _moment(written: str) -> datetime:
    """A time that an object tells; long ago where it tells none."""
    try:
        return datetime.fromisoformat(written)
    except ValueError:
        return datetime.min.replace(tzinfo=UTC)


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
    if not plan.bootstrapped or not (recorded or plan.in_memory):
        return None
    service = client_service(plan, through_proxy=leads_to_proxy(judged))
    steps = (*applies(judged, seen.objects.services, [service]), *access_due(seen, plan))
    return Plan(steps=steps) if steps else None


def release_volumes(judged: Judged) -> Plan | None:
    """With `deletionPolicy: Retain` volumes stay. Before all else, also while paused: a delete may come at any time."""
    if judged.blueprint.spec.storage.deletion_policy == "Delete":
        return None
    uid = judged.blueprint.uid
    steps = tuple(
        _owners(judged, claim, [owner for owner in _owners_of(claim) if owner["uid"] != uid])
        for claim in judged.seen.objects.claims.values()
        if not is_terminating(claim) and any(owner["uid"] == uid for owner in _owners_of(claim))
    )
    return Plan(steps=steps) if steps else None


def own_volumes(judged: Judged) -> Plan | None:
    """With `deletionPolicy: Delete` the members' volumes go with the EtcdCluster; never one with another's data."""
    plan = judged.blueprint
    if plan.spec.storage.deletion_policy != "Delete":
        return None
    ours = owner_reference(plan.names, plan.uid) | {"controller": False}
    records = volume_records(judged.seen)
    steps = []
    for member in dict.fromkeys((*plan.with_upcoming, *_with_new_claims(judged))):
        claim, record = judged.seen.objects.claims.get(plan.names.claim(member)), records.get(member)
        if claim is None or is_terminating(claim) or any(owner["uid"] == plan.uid for owner in _owners_of(claim)):
            continue
        if record is None or record.cluster_id == plan.cluster_id:
            steps.append(_owners(judged, claim, [*_owners_of(claim), ours]))
    return Plan(steps=tuple(steps)) if steps else None


def _with_new_claims(judged: Judged) -> list[str]:
    """Those for whom the StatefulSet that stands has made a claim, also where they are not to be there any more."""
    live = judged.seen.objects.stateful_sets.get(judged.blueprint.names.stateful_set)
    if live is None or not judged.blueprint.bootstrapped:
        return []
    claims, names = judged.seen.objects.claims, judged.blueprint.names
    since = datetime.fromisoformat(live["metadata"]["creationTimestamp"])
    return [
        member
        for member in names.members(live["spec"].get("replicas") or 0)
        if (claim := claims.get(names.claim(member)))
        and datetime.fromisoformat(claim["metadata"]["creationTimestamp"]) >= since
    ]


def _owners_of(claim: n.Manifest) -> list[n.Manifest]:
    return claim["metadata"].get("ownerReferences") or []


def _owners(judged: Judged, claim: n.Manifest, owners: list[n.Manifest]) -> SetOwner:
    metadata = claim["metadata"]
    return SetOwner(
        claim=metadata["name"],
        uid=metadata["uid"],
        owners=tuple(tuple(owner.items()) for owner in owners),
        resource_version=metadata["resourceVersion"],
        reason=f"its fate follows spec.storage.deletionPolicy: {judged.blueprint.spec.storage.deletion_policy}",
    )


def restart_members_of_a_lost_authority(judged: Judged) -> Plan | None:
    """Restart all members at once when an authority was lost and made anew: they trust only the old one.

    etcd reads its authorities only when it starts. Members that trust different peer authorities do not hear each
    other, and members that trust another client authority let nobody in: there is no service to protect, and one by
    one would only be slower. Only on etcd's own word: a quorum that is lost, or members that all refuse the
    operator's certificate; silence proves nothing. Before the record there is nothing to protect at all.
    """
    plan, members = judged.blueprint, judged.membership
    if plan.bootstrapped and plan.in_memory:
        return None  # all data would go with the pods
    refused = [m for m in members.members if m.answer and m.answer.error and m.answer.error.kind == "tls"]
    if plan.bootstrapped and members.quorum is not Quorum.LOST and len(refused) < len(members.members):
        return None
    steps = _restarts_for_trust(judged, members.members)
    return Plan(steps=steps) if steps else None


def restart_next_member_that_refuses_the_operator(judged: Judged) -> Plan | None:
    """Restart one member that still trusts a client authority that is gone, where others trust the new one already.

    Only while the kubelet finds every other member ready, which is a linearizable read: its quorum does without one.
    """
    members = judged.membership.members
    refused = [m for m in members if m.answer and m.answer.error and m.answer.error.kind == "tls"]
    steps = _restarts_for_trust(judged, refused)[:1]
    others = [member.pod for member in members if [member.name] != [step.name for step in steps]]
    ready = all(pod and is_ready(pod) and not is_terminating(pod) for pod in others)
    return Plan(steps=steps) if steps and ready else None


def _restarts_for_trust(judged: Judged, members: Iterable[SeenMember]) -> tuple[Delete, ...]:
    return tuple(
        Delete.of("Pod", member.pod, "it trusts a certificate authority that no longer exists")
        for member in members
        if member.pod is not None and not is_terminating(member.pod) and trusts_strangers(judged.blueprint, member.pod)
    )


def nudge_the_controller_of_missing_pods(judged: Judged) -> Plan | None:
    """Make Kubernetes look at the StatefulSet again when pods stay missing, at growing intervals.

    Its controller backs off for up to 16 minutes while it cannot make a pod, and hears nothing when the cause goes
    away: a quota that was raised, or a pod of the same name that a deleted StatefulSet left terminating (seen: five
    minutes without a member). Any write to the StatefulSet ends the back-off.
    """
    live = judged.seen.objects.stateful_sets.get(judged.blueprint.names.stateful_set)
    missing = [member.name for member in judged.membership.members if member.pod is None]
    since = _missing_since(judged, live) if live is not None and missing else None
    if live is None or since is None:
        return None
    nudged_at = annotations(live).get(n.NUDGED_AT)
    last = max(since, datetime.fromisoformat(nudged_at)) if nudged_at else since
    if judged.seen.at - last < min(max((last - since) / 2, NUDGE_AT_LEAST), NUDGE_AT_MOST):
        return None
    reason = f"{', '.join(missing)}: no pod was made"
    step = Annotate.of("StatefulSet", live, reason, annotations={n.NUDGED_AT: timestamp(judged.seen.at)})
    told = wait_for_members(judged) if judged.blueprint.bootstrapped else wait_for_bootstrap(judged)
    return Plan(steps=(step,), waiting=told.waiting if told else "")


def _missing_since(judged: Judged, live: n.Manifest) -> datetime | None:
    """Since when the StatefulSet could have made its pods, or the cluster is told as degraded; `None`: just now."""
    created = datetime.fromisoformat(live["metadata"]["creationTimestamp"])
    if not judged.blueprint.bootstrapped:
        return created
    status = judged.seen.cluster.status
    for condition in status.conditions if status else ():
        if condition.type == "Degraded" and condition.status == "True":
            return max(created, condition.last_transition_time)
    return None


def wait_for_members(judged: Judged) -> Plan | None:
    ailing = judged.membership.ailing
    if not ailing:
        return None
    return Plan(waiting="Waiting for " + "; ".join(f"{member.name}: {member.why}" for member in ailing))
