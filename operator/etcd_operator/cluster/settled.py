"""What the cluster is to run now, as against what the user wrote last.

Pure. A change that needs an ordered restart or a change of membership must not reach the objects by itself: a
pod that merely crashes would take it, half applied. So the spec that the members run, the settled one, is kept
on the objects, and what the user wrote beyond it is pending, by name.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from etcd_operator.api import EtcdClusterSpec, Quantity
from etcd_operator.cluster.authority import sides_to_restart_for, trust_digest
from etcd_operator.cluster.observation import Observation
from etcd_operator.cluster.outside import outside_names
from etcd_operator.cluster.records import (
    Proof,
    VolumeRecord,
    annotations,
    foundation,
    is_terminating,
    volume_records,
)
from etcd_operator.cluster.roster import recorded_recovery, seats
from etcd_operator.cluster.trouble import is_ready
from etcd_operator.cluster.upgrade import (
    as_before_snapshots,
    has_raised_versions,
    has_saved_snapshots,
    index_of_snapshots,
    log_version_after,
    log_version_of_adopted,
    must_restart_first,
    upgrade_problem,
    with_snapshots,
)
from etcd_operator.etcd.options import check_extra
from etcd_operator.resources.blueprint import Blueprint
from etcd_operator.resources.names import MOST_MEMBERS, RESTART, REVISION, Manifest
from etcd_operator.resources.overlay import overlay_problems
from etcd_operator.resources.secrets import content

#: The parts of the spec that a running member holds on to; all others apply at once.
SETTLED_FIELDS = ("members", "version", "image", "storage", "resources", "options", "tls", "podTemplate")
#: Within those, what applies at once all the same.
LIVE_PATHS = (
    ("storage", "deletionPolicy"),
    ("tls", "client", "extraSANs"),
    ("tls", "client", "rotationGrace"),
    ("tls", "client", "secretRef"),
    ("tls", "peer", "secretRef"),
    ("tls", "certificateDuration"),
    ("tls", "renewBefore"),
    ("tls", "authorityDuration"),
    ("tls", "authorityRenewBefore"),
)


def settled_json(spec: EtcdClusterSpec) -> str:
    """The settled part of a spec, in one canonical line."""
    return json.dumps(_settled(spec), sort_keys=True, separators=(",", ":"))


def revision_of(settled: str, restart: str) -> str:
    """A short name for what of a settled spec a running member holds on to, and for the restart that was asked for.

    Neither the number of members nor the size of the volumes is part of it: those change without a restart. The size
    of what is kept in memory is a part of the pods.
    """
    held = json.loads(settled)
    held.pop("members", None)
    storage = held.get("storage", {})
    if storage.get("medium") != "Memory":
        storage.pop("size", None)
    text = json.dumps([held, restart], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def problems(spec: EtcdClusterSpec) -> list[str]:
    """What is wrong with the spec beyond what the API server can see, one sentence each."""
    overlay = spec.pod_template.model_dump(by_alias=True, exclude_none=True, mode="json")
    return [*check_extra(spec.version, spec.options.extra), *overlay_problems(overlay)]


def pending(wanted: EtcdClusterSpec, running: EtcdClusterSpec) -> tuple[str, ...]:
    """The fields in which the user's spec differs from what runs: `spec.version`, `spec.options.extra`.

    Of a founded cluster never `spec.members`: who the members are is etcd's to say, and membership follows the spec.
    """
    return tuple(
        f"spec.{path}" for path in _differences(_settled(wanted), _settled(as_before_snapshots(running, wanted)))
    )


def blueprint(seen: Observation, proven: Proof) -> Blueprint:
    """The cluster as it is to stand now, from what was founded, or from the user's spec where nothing was."""
    found = foundation(seen)
    records = {name: record for name, record in volume_records(seen).items() if record.cluster_id == proven.cluster_id}
    if found is not None:
        spec, incarnation = found.spec, found.incarnation
    elif proven.cluster_id and records:
        spec = _adopted_spec(seen, records)
        incarnation = _founding_incarnation(seen, spec, records, proven.cluster_id)
    elif (told := seen.cluster.status.bootstrap) and told.cluster_id == proven.cluster_id:
        spec, incarnation = _last_seen_spec(seen), told.incarnation
    else:
        spec, incarnation = seen.cluster.spec, seen.fresh_incarnation
    restart = found.restart if found else _restart(seen)
    revision = (found.revision if found else "") or revision_of(settled_json(spec), restart)
    base = Blueprint(
        names=seen.names,
        uid=seen.cluster.metadata.uid,
        spec=_with_live_fields(seen, spec, founded=bool(proven.cluster_id)),
        applied_spec=settled_json(spec),
        revision=revision,
        template_revision=revision,
        target_revision=revision,
        revisions=found.revisions if found else {},
        restart=restart,
        log_version=found.log_version if found else log_version_of_adopted(proven, spec.version),
        log_index=found.log_index if found else 0,
        members=seen.names.members(spec.members),
        incarnation=incarnation,
        cluster_id=proven.cluster_id,
        recorded_at=proven.recorded_at,
        recovery=recorded_recovery(seen) if proven.cluster_id else None,
        outside=outside_names(seen),
        operator_namespace=seen.operator_namespace,
        peer_authority=_authority_digest(seen, seen.names.peer_certificate),
        client_authority=_authority_digest(seen, seen.names.server_certificate),
    )
    if not proven.cluster_id:
        return base
    taken = seats(seen, base, records)
    plan = _on_the_way(seen, replace(base, members=seen.names.sorted(taken), seats=taken))
    return replace(plan, template_revision=_template_revision(seen, plan))


def _on_the_way(seen: Observation, plan: Blueprint) -> Blueprint:
    """The blueprint with the spec that the members are to be restarted for; with it as the applied one when all were.

    A spec that cannot work, or cannot follow the one that runs, is nobody's target, and neither is the one before: all
    stays as it is until the spec is corrected.
    """
    wanted, restart = target_spec(seen.cluster.spec, plan.spec), _restart(seen) or plan.restart
    index, plan = plan.log_index, replace(plan, log_index=0)
    if settled_json(wanted) == settled_json(plan.spec) and restart == plan.restart:
        return plan
    target = revision_of(settled_json(wanted), restart)
    accepted = any(plan.revision_of(member) == target for member in plan.members)
    if problems(wanted) or (not accepted and upgrade_problem(seen, plan.spec, wanted)):
        return replace(plan, target_revision="")
    log_version, prepares = log_version_after(plan, wanted.version), must_restart_first(plan, wanted)
    if prepares:
        target = revision_of(settled_json(with_snapshots(plan.spec)), f"{restart}, before {wanted.version}")
        begun = any(plan.revision_of(member) == target for member in plan.members)
        if not begun and not has_raised_versions(seen, plan):
            return plan
        wanted, restart, log_version = with_snapshots(plan.spec), plan.restart, ""
    current = all(plan.revision_of(member) == target and _is_current(seen, plan, member) for member in plan.members)
    if current and prepares and not has_saved_snapshots(seen, plan, index):
        plan = replace(plan, log_index=index or index_of_snapshots(seen, plan))
    elif current:
        done = replace(
            plan,
            spec=wanted,
            applied_spec=settled_json(wanted),
            revision=target,
            target_revision=target,
            restart=restart,
            log_version=log_version,
        )
        # Straight on to 3.7: nothing else, such as another member, comes between the two restarts.
        return _on_the_way(seen, done) if plan.log_version and not log_version else done
    plan = replace(plan, revisions={**plan.revisions, target: wanted}, target_revision=target)
    return _joining_as_wanted(seen, plan) if plan.in_memory else plan


def _joining_as_wanted(seen: Observation, plan: Blueprint) -> Blueprint:
    """The blueprint in which a member that joins anew runs what is wanted.

    In memory a restart is a replacement: the member that restarts is the one that joins. Not before the first that runs
    it answers; where all others run it, nothing else may join, as etcd may have raised its cluster version.
    """
    target = plan.target_revision
    new = {name: seat for name, seat in plan.seats.items() if seat.joining and not seat.revision}
    others = [member for member in plan.members if member not in new]
    running = [member for member in others if plan.revision_of(member) == target]
    proved = any((answer := seen.answers.get(member)) and answer.status for member in running)
    if running and running != others and not proved:
        return plan
    return replace(plan, seats={**plan.seats, **{name: replace(seat, revision=target) for name, seat in new.items()}})


def target_spec(wanted: EtcdClusterSpec, running: EtcdClusterSpec) -> EtcdClusterSpec:
    """The user's spec, but for what a restart does not bring about: the size of new volumes."""
    if wanted.storage.medium == "Memory":
        return wanted
    storage = wanted.storage.model_copy(update={"size": running.storage.size})
    return wanted.model_copy(update={"storage": storage})


def _template_revision(seen: Observation, plan: Blueprint) -> str:
    """What the next pod is made from: the revision of the member that lacks one, or the applied one.

    So a pod that is made for any other reason while members restart is one that is known to work. Never that of a
    change that was withdrawn: what the API server refused in it would be refused for ever.
    """
    pods = {member: seen.objects.pods.get(member) for member in plan.members}
    usable = {plan.revision, plan.target_revision or plan.revision}
    for member, pod in pods.items():
        if pod is None or is_terminating(pod):
            return plan.revision_of(member) if plan.revision_of(member) in usable else plan.revision
    for member, pod in pods.items():
        if pod is not None and is_outdated(plan, member, pod) and plan.revision_of(member) in usable:
            return plan.revision_of(member)
    return plan.revision


def is_outdated(plan: Blueprint, member: str, pod: Manifest) -> bool:
    """Whether a pod was made from another spec than its member's file, or read that file before it was changed.

    Or trusts other authorities than it should, while one is rotated.
    """
    made_from = annotations(pod).get(REVISION, plan.revision_of(member))  # something may strip it from every pod
    return (
        plan.seat(member).replaces(pod)
        or made_from != plan.revision_of(member)
        or bool(sides_to_restart_for(plan, pod))
    )


def _is_current(seen: Observation, plan: Blueprint, member: str) -> bool:
    pod = seen.objects.pods.get(member)
    return pod is not None and is_ready(pod) and not is_terminating(pod) and not is_outdated(plan, member, pod)


def _restart(seen: Observation) -> str:
    return seen.cluster.metadata.annotations.get(RESTART, "")


def _authority_digest(seen: Observation, name: str) -> str:
    """A digest of the authorities that pods mount beside their certificate."""
    return trust_digest(content(seen.objects.secrets.get(name)).get("ca.crt", b""))


def refounded(seen: Observation) -> Blueprint:
    """A new incarnation from the user's spec: the next try of a bootstrap that was given up."""
    spec = seen.cluster.spec
    return Blueprint(
        names=seen.names,
        uid=seen.cluster.metadata.uid,
        spec=spec,
        applied_spec=settled_json(spec),
        members=seen.names.members(spec.members),
        incarnation=seen.fresh_incarnation,
        revision=(revision := revision_of(settled_json(spec), _restart(seen))),
        template_revision=revision,
        target_revision=revision,
        restart=_restart(seen),
        operator_namespace=seen.operator_namespace,
    )


def _adopted_spec(seen: Observation, records: Mapping[str, VolumeRecord]) -> EtcdClusterSpec:
    """The user's spec, but the size, version and TLS modes that the kept volumes were last run with.

    Starting other data with another version, or other members, would be an upgrade or a scale without order; the TLS
    modes are part of the members' addresses.
    """
    wanted, first = seen.cluster.spec, records[seen.names.sorted(records)[0]]
    size = max(len(record.members) for record in records.values())
    tls = wanted.tls
    if first.tls_modes:
        peer, client = first.tls_modes
        modes = {
            "peer": tls.peer.model_copy(update={"mode": peer}),
            "client": tls.client.model_copy(update={"mode": client}),
        }
        tls = tls.model_copy(update=modes)
    return wanted.model_copy(update={"members": size, "version": first.version or wanted.version, "tls": tls})


def _last_seen_spec(seen: Observation) -> EtcdClusterSpec:
    """The user's spec, but the size and version that the status tells: nothing else survived the first minute."""
    status, wanted = seen.cluster.status, seen.cluster.spec
    told = status.bootstrap
    size = len(status.members) or (_founders(seen, told.incarnation, told.cluster_id) if told else 0) or wanted.members
    return wanted.model_copy(update={"members": size, "version": status.version or wanted.version})


def _founding_incarnation(
    seen: Observation, spec: EtcdClusterSpec, records: Mapping[str, VolumeRecord], cluster_id: str
) -> str:
    """The incarnation that founded this etcd, which members that were never replaced still have for their directory."""
    counted = Counter(records[member].incarnation for member in seen.names.sorted(records))
    for incarnation, _ in counted.most_common():
        if _founders(seen, incarnation, cluster_id, tls_as_in=spec):
            return incarnation
    return counted.most_common(1)[0][0]


def _founders(seen: Observation, incarnation: str, cluster_id: str, *, tls_as_in: EtcdClusterSpec | None = None) -> int:
    """How many members founded the etcd of that cluster ID with that incarnation; 0 where none fits."""
    for size in range(1, MOST_MEMBERS + 1):
        founded = Blueprint(
            names=seen.names,
            uid=seen.cluster.metadata.uid,
            spec=tls_as_in or seen.cluster.spec,
            applied_spec="",
            members=seen.names.members(size),
            incarnation=incarnation,
        )
        if founded.founding_id == cluster_id:
            return size
    return 0


def _with_live_fields(seen: Observation, running: EtcdClusterSpec, *, founded: bool) -> EtcdClusterSpec:
    """The running spec with what applies at once; of a founded cluster that is the number of members as well.

    New volumes have the size that the StatefulSet stands for, which nobody can change: the user's when it is made anew.
    """
    wanted, now = seen.cluster.spec, seen.cluster.spec.tls
    at_once: dict[str, Any] = {"extra_sans": now.client.extra_sans, "rotation_grace": now.client.rotation_grace}
    client, peer = running.tls.client, running.tls.peer
    if "Off" not in (client.mode, now.client.mode):
        at_once |= {"mode": now.client.mode, "secret_ref": now.client.secret_ref}
    if "Off" not in (peer.mode, now.peer.mode):
        peer = peer.model_copy(update={"mode": now.peer.mode, "secret_ref": now.peer.secret_ref})
    tls = running.tls.model_copy(
        update={
            "client": client.model_copy(update=at_once),
            "peer": peer,
            "certificate_duration": now.certificate_duration,
            "renew_before": now.renew_before,
            "authority_duration": now.authority_duration,
            "authority_renew_before": now.authority_renew_before,
        }
    )
    storage = running.storage.model_copy(update={"deletion_policy": wanted.storage.deletion_policy})
    if founded and running.storage.medium == "Disk":
        made = size_of_new_volumes(seen.objects.stateful_sets.get(seen.names.stateful_set))
        storage = storage.model_copy(update={"size": made or wanted.storage.size})
    members = wanted.members if founded else running.members
    beside = {"proxy": wanted.proxy, "access": wanted.access}
    return running.model_copy(update={"tls": tls, "storage": storage, "members": members, **beside})


def size_of_new_volumes(stateful_set: Manifest | None) -> Quantity | None:
    """What a StatefulSet's claim template asks for; `None` where there is none."""
    templates = ((stateful_set or {}).get("spec") or {}).get("volumeClaimTemplates") or []
    return requested(templates[0]) if templates else None


def is_small(claim: Manifest, wanted: EtcdClusterSpec) -> bool:
    """Whether a claim asks for less than the user does."""
    asked = requested(claim)
    return asked is not None and asked < wanted.storage.size


def requested(claim: Manifest) -> Quantity | None:
    """How much a volume claim asks for."""
    return _quantity((((claim.get("spec") or {}).get("resources") or {}).get("requests") or {}).get("storage"))


def granted(claim: Manifest) -> Quantity | None:
    """How much a volume claim was given so far."""
    return _quantity(((claim.get("status") or {}).get("capacity") or {}).get("storage"))


def _quantity(text: object) -> Quantity | None:
    return Quantity(str(text)) if text is not None else None


def _settled(spec: EtcdClusterSpec) -> dict[str, Any]:
    full = spec.model_dump(by_alias=True, exclude_none=True, mode="json")
    kept = {name: full[name] for name in SETTLED_FIELDS if name in full}
    for *parents, last in LIVE_PATHS:
        place: Any = kept
        for parent in parents:
            place = place.get(parent, {})
        place.pop(last, None)
    for side in ("peer", "client"):  # whose authority it is changes by a rotation
        if kept.get("tls", {}).get(side, {}).get("mode") == "Provided":
            kept["tls"][side]["mode"] = "Managed"
    return kept


def _differences(one: Any, other: Any, path: str = "") -> list[str]:
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return [
            difference
            for name in sorted({*one, *other})
            for difference in _differences(one.get(name), other.get(name), f"{path}.{name}" if path else name)
        ]
    return [] if one == other else [path]
