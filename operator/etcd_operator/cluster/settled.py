"""What the cluster is to run now, as against what the user wrote last.

Pure. A change that needs an ordered restart or a change of membership must not reach the objects by itself: a
pod that merely crashes would take it, half applied. So the spec that the members run, the settled one, is kept
on the objects, and what the user wrote beyond it is pending, by name.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from etcd_operator.api import EtcdClusterSpec
from etcd_operator.cluster.observation import Observation
from etcd_operator.cluster.records import Proof, VolumeRecord, foundation, recorded_members, volume_records
from etcd_operator.etcd.model import hex_id
from etcd_operator.etcd.options import check_extra
from etcd_operator.resources.blueprint import Blueprint
from etcd_operator.resources.names import MOST_MEMBERS
from etcd_operator.resources.overlay import overlay_problems
from etcd_operator.resources.secrets import content

#: The parts of the spec that a running member holds on to; all others apply at once.
SETTLED_FIELDS = ("members", "version", "image", "storage", "resources", "options", "tls", "podTemplate")
#: Within those, what applies at once all the same.
LIVE_PATHS = (
    ("storage", "deletionPolicy"),
    ("tls", "client", "extraSANs"),
    ("tls", "certificateDuration"),
    ("tls", "renewBefore"),
)


def settled_json(spec: EtcdClusterSpec) -> str:
    """The settled part of a spec, in one canonical line."""
    return json.dumps(_settled(spec), sort_keys=True, separators=(",", ":"))


def problems(spec: EtcdClusterSpec) -> list[str]:
    """What is wrong with the spec beyond what the API server can see, one sentence each."""
    overlay = spec.pod_template.model_dump(by_alias=True, exclude_none=True, mode="json")
    return [*check_extra(spec.version, spec.options.extra), *overlay_problems(overlay)]


def pending(wanted: EtcdClusterSpec, running: EtcdClusterSpec) -> tuple[str, ...]:
    """The fields in which the user's spec differs from what runs: `spec.version`, `spec.options.extra`."""
    return tuple(f"spec.{path}" for path in _differences(_settled(wanted), _settled(running)))


def blueprint(seen: Observation, proven: Proof) -> Blueprint:
    """The cluster as it is to stand now, from what was founded, or from the user's spec where nothing was."""
    found = foundation(seen)
    records = {name: record for name, record in volume_records(seen).items() if record.cluster_id == proven.cluster_id}
    if found is not None:
        spec, incarnation = found.spec, found.incarnation
    elif proven.cluster_id and records:
        spec, incarnation = _adopted_spec(seen, records), records[seen.names.sorted(records)[0]].incarnation
    elif (told := seen.cluster.status.bootstrap) and told.cluster_id == proven.cluster_id:
        spec, incarnation = _last_seen_spec(seen), told.incarnation
    else:
        spec, incarnation = seen.cluster.spec, seen.fresh_incarnation
    members = set(seen.names.members(spec.members))
    if proven.cluster_id:
        members |= recorded_members(seen.names, records.values(), proven.cluster_id) | _listed_members(
            seen, proven.cluster_id
        )
    highest = max(seen.names.ordinal(member) or 0 for member in members)
    return Blueprint(
        names=seen.names,
        uid=seen.cluster.metadata.uid,
        spec=_with_live_fields(spec, seen.cluster.spec),
        applied_spec=settled_json(spec),
        members=seen.names.members(highest + 1),
        incarnation=incarnation,
        member_incarnations={name: record.incarnation for name, record in records.items()},
        cluster_id=proven.cluster_id,
        recorded_at=proven.recorded_at,
        peer_authority=_authority_digest(seen, seen.names.peer_certificate),
        client_authority=_authority_digest(seen, seen.names.server_certificate),
    )


def _authority_digest(seen: Observation, name: str) -> str:
    """A digest of the authority that pods mount beside their certificate."""
    certificate = content(seen.objects.secrets.get(name)).get("ca.crt", b"")
    return hashlib.sha256(certificate).hexdigest()[:16] if certificate else ""


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
    size = len(status.members) or _founders(seen) or wanted.members
    return wanted.model_copy(update={"members": size, "version": status.version or wanted.version})


def _founders(seen: Observation) -> int:
    """How many members founded the etcd that the status has the proof of, by its cluster ID; 0 where none fits."""
    told = seen.cluster.status.bootstrap
    if told is None:
        return 0
    for size in range(1, MOST_MEMBERS + 1):
        founded = Blueprint(
            names=seen.names,
            uid=seen.cluster.metadata.uid,
            spec=seen.cluster.spec,
            applied_spec="",
            members=seen.names.members(size),
            incarnation=told.incarnation,
        )
        if founded.founding_id == told.cluster_id:
            return size
    return 0


def _listed_members(seen: Observation, cluster_id: str) -> set[str]:
    """Names in etcd's own member list that are pods of this StatefulSet."""
    listed = set()
    for answer in seen.answers.values():
        if answer.members and hex_id(answer.members.cluster_id) == cluster_id:
            listed |= {member.name for member in answer.members.members if seen.names.ordinal(member.name) is not None}
    return listed


def _with_live_fields(running: EtcdClusterSpec, wanted: EtcdClusterSpec) -> EtcdClusterSpec:
    client = running.tls.client.model_copy(update={"extra_sans": wanted.tls.client.extra_sans})
    tls = running.tls.model_copy(
        update={
            "client": client,
            "certificate_duration": wanted.tls.certificate_duration,
            "renew_before": wanted.tls.renew_before,
        }
    )
    storage = running.storage.model_copy(update={"deletion_policy": wanted.storage.deletion_policy})
    return running.model_copy(update={"tls": tls, "storage": storage})


def _settled(spec: EtcdClusterSpec) -> dict[str, Any]:
    full = spec.model_dump(by_alias=True, exclude_none=True, mode="json")
    kept = {name: full[name] for name in SETTLED_FIELDS if name in full}
    for *parents, last in LIVE_PATHS:
        place: Any = kept
        for parent in parents:
            place = place.get(parent, {})
        place.pop(last, None)
    return kept


def _differences(one: Any, other: Any, path: str = "") -> list[str]:
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return [
            difference
            for name in sorted({*one, *other})
            for difference in _differences(one.get(name), other.get(name), f"{path}.{name}" if path else name)
        ]
    return [] if one == other else [path]
