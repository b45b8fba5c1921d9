"""What the objects themselves record: a cluster's foundation, the proof of its bootstrap, whose data a volume holds.

Pure. The proof that bootstrap succeeded stands in the status, on the StatefulSet, on the ConfigMap and on every
volume, so that losing any of them cannot cause a second bootstrap.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from pydantic import TypeAdapter, ValidationError

from etcd_operator.api import EtcdClusterSpec
from etcd_operator.cluster.observation import Named, Observation
from etcd_operator.resources.names import (
    APPLIED_SPEC,
    CLUSTER_ID,
    ETCD_VERSION,
    INCARNATION,
    LOG_INDEX,
    LOG_VERSION,
    MEMBER_ID,
    MEMBER_STATE,
    MEMBERS,
    MOST_MEMBERS,
    RECORDED_AT,
    RESTART,
    REVISION,
    REVISIONS,
    TLS_MODES,
    Manifest,
    Names,
)

#: The state of a volume whose member is in the member list, as far as the operator knows.
MEMBER = "member"
#: The state of a volume whose member was removed from etcd's list: its data is kept and is nobody's any more.
MEMBER_REMOVED = "removed"


@dataclass(frozen=True, kw_only=True, slots=True)
class Foundation:
    """What was founded: the incarnation that bootstraps, and the spec that it runs."""

    incarnation: str
    spec: EtcdClusterSpec
    cluster_id: str
    recorded_at: str
    revision: str
    restart: str
    log_version: str
    log_index: int
    revisions: dict[str, EtcdClusterSpec]


@dataclass(frozen=True, kw_only=True, slots=True)
class VolumeRecord:
    """Whose data a volume holds; `members` are all members of that cluster when it was written."""

    member: str
    cluster_id: str
    member_id: str
    incarnation: str
    members: tuple[str, ...]
    version: str
    tls_modes: tuple[str, str] | None


def annotations(manifest: Manifest | None) -> dict[str, str]:
    return ((manifest or {}).get("metadata") or {}).get("annotations") or {}


def owner_uids(manifest: Manifest) -> list[str]:
    """The EtcdClusters that own an object."""
    owners = manifest["metadata"].get("ownerReferences") or []
    return [owner["uid"] for owner in owners if owner.get("kind") == "EtcdCluster"]


def is_leftover(seen: Observation, manifest: Manifest | None) -> bool:
    """Whether an object belongs to an EtcdCluster of this name that was deleted: it goes, and proves nothing here."""
    owners = owner_uids(manifest) if manifest else []
    return bool(owners) and seen.cluster.metadata.uid not in owners


def timestamp(moment: datetime | None) -> str:
    """Whole seconds in UTC, as Kubernetes writes them; empty for none."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ") if moment else ""


def is_terminating(manifest: Manifest | None) -> bool:
    return manifest is not None and bool(manifest["metadata"].get("deletionTimestamp"))


def foundation_on(manifest: Manifest | None) -> Foundation | None:
    """The foundation that a StatefulSet or ConfigMap records; `None` where it records none that can be read."""
    found = annotations(manifest)
    if INCARNATION not in found or APPLIED_SPEC not in found:
        return None
    try:
        spec = EtcdClusterSpec.model_validate_json(found[APPLIED_SPEC])
        others = TypeAdapter(dict[str, EtcdClusterSpec]).validate_json(found.get(REVISIONS, "{}"))
    except ValidationError:
        return None
    return Foundation(
        incarnation=found[INCARNATION],
        spec=spec,
        cluster_id=found.get(CLUSTER_ID, ""),
        recorded_at=found.get(RECORDED_AT, ""),
        revision=found.get(REVISION, ""),
        restart=found.get(RESTART, ""),
        log_version=found.get(LOG_VERSION, ""),
        log_index=int(index) if (index := found.get(LOG_INDEX, "")).isdecimal() else 0,
        revisions=others,
    )


def foundation_objects(seen: Observation) -> list[Manifest | None]:
    """The objects of this EtcdCluster that record what was founded, the one that pods start from first."""
    return [
        _own(seen, seen.objects.config_maps, seen.names.config_map),
        _own(seen, seen.objects.stateful_sets, seen.names.stateful_set),
    ]


def foundation(seen: Observation) -> Foundation | None:
    """The foundation of this cluster: a recorded one first, then the ConfigMap's, which is written before the rest.

    Once the status has the proof, only the incarnation that it names counts: a ConfigMap that was sent before may
    arrive after it.
    """
    config_map, stateful_set = map(foundation_on, foundation_objects(seen))
    for candidate in (config_map, stateful_set):
        if candidate and candidate.cluster_id:
            return candidate
    proven = seen.cluster.status.bootstrap
    for candidate in (config_map, stateful_set):
        if candidate and (proven is None or candidate.incarnation == proven.incarnation):
            return candidate
    return None


def _own(seen: Observation, named: Named, name: str) -> Manifest | None:
    manifest = named.get(name)
    return None if is_leftover(seen, manifest) else manifest


def volume_record(claim: Manifest, member: str) -> VolumeRecord | None:
    found = annotations(claim)
    if not found.get(CLUSTER_ID) or found.get(MEMBER_STATE) != MEMBER or not found.get(INCARNATION):
        return None
    return VolumeRecord(
        member=member,
        cluster_id=found[CLUSTER_ID],
        member_id=found.get(MEMBER_ID, ""),
        incarnation=found[INCARNATION],
        members=tuple(filter(None, found.get(MEMBERS, "").split(","))) or (member,),
        version=found.get(ETCD_VERSION, ""),
        tls_modes=_tls_modes(found.get(TLS_MODES, "")),
    )


def _tls_modes(recorded: str) -> tuple[str, str] | None:
    peer, _, client = recorded.partition("/")
    return (peer, client) if peer and client else None


def volume_records(seen: Observation) -> dict[str, VolumeRecord]:
    """What the volumes record, by member."""
    records = {}
    for name, claim in seen.objects.claims.items():
        member = seen.names.member_of_claim(name)
        if member is None or is_leftover(seen, claim) or is_terminating(claim):
            continue
        record = volume_record(claim, member)
        if record:
            records[record.member] = record
    return records


@dataclass(frozen=True, kw_only=True, slots=True)
class Proof:
    """That this cluster was bootstrapped, and as which; empty while it was not.

    `disputes` are sentences that name records which contradict each other: then nothing is served until a
    person has decided.
    """

    cluster_id: str = ""
    recorded_at: str = ""
    disputes: tuple[str, ...] = ()


def proof(seen: Observation) -> Proof:
    """The proof of bootstrap from wherever it survived: the cluster's own objects first, then the volumes."""
    status = seen.cluster.status.bootstrap if seen.cluster.status else None
    found = foundation(seen)
    own = {
        "status.bootstrap": status.cluster_id if status else "",
        **{
            f"{kind} {name}": annotations(manifest).get(CLUSTER_ID, "")
            for kind, named, name in (
                ("StatefulSet", seen.objects.stateful_sets, seen.names.stateful_set),
                ("ConfigMap", seen.objects.config_maps, seen.names.config_map),
            )
            for manifest in [_own(seen, named, name)]
        },
    }
    volumes = {f"PersistentVolumeClaim {seen.names.claim(m)}": r.cluster_id for m, r in volume_records(seen).items()}
    for records in (own, volumes):
        told = {source: cluster_id for source, cluster_id in records.items() if cluster_id}
        if told and records is volumes and seen.cluster.spec.storage.medium == "Memory":
            return Proof(disputes=(_kept(told),))
        if len(set(told.values())) > 1:
            return Proof(disputes=(_dispute(told),))
        if told:
            at = (found.recorded_at if found else "") or (timestamp(status.recorded_at) if status else "")
            return Proof(cluster_id=next(iter(told.values())), recorded_at=at)
    if found is None and (left := _left_behind(seen)):
        return Proof(disputes=(left,))
    return Proof()


def _left_behind(seen: Observation) -> str:
    """What removed members of an etcd left on volumes, where no volume of its members is there; empty for nothing."""
    left = {
        name: annotations(claim)[CLUSTER_ID]
        for name, claim in seen.objects.claims.items()
        if seen.names.member_of_claim(name)
        and annotations(claim).get(MEMBER_STATE) == MEMBER_REMOVED
        and annotations(claim).get(CLUSTER_ID)
        and not (is_terminating(claim) or is_leftover(seen, claim))
    }
    if not left:
        return ""
    return (
        f"PersistentVolumeClaims {', '.join(sorted(left))} hold what removed members of etcd cluster "
        f"{', '.join(sorted(set(left.values())))} had, and no volume of its members is there; put the lost volumes "
        "back, or, to start with an empty etcd, delete these claims or give this EtcdCluster another name"
    )


def _kept(told: dict[str, str]) -> str:
    claims = ", ".join(f"{source} holds etcd cluster {cluster_id}" for source, cluster_id in told.items())
    return (
        f"volumes of an EtcdCluster of this name were kept, and spec.storage.medium is Memory ({claims}); "
        "delete them, or give this EtcdCluster another name"
    )


def _dispute(told: dict[str, str]) -> str:
    claims = ", ".join(f"{source} says {cluster_id}" for source, cluster_id in told.items())
    return f"records name different etcd clusters ({claims}); remove or rename what does not belong here"


def recorded_members(names: Names, records: Iterable[VolumeRecord], cluster_id: str) -> set[str]:
    """Every member that the volumes of this etcd cluster know of; a name that cannot be a member's does not count."""
    recorded = {
        member for record in records if record.cluster_id == cluster_id for member in (record.member, *record.members)
    }
    ordinals = {member: names.ordinal(member) for member in recorded}
    return {member for member, ordinal in ordinals.items() if ordinal is not None and ordinal < MOST_MEMBERS}
