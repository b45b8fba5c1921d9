"""Carrying steps out: the only module of the kind that changes anything.

Every step is one request that names what was judged, so that it is safe to die before and after it, and to
repeat it. No judgement here: what to do and why was decided in `plan`.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import assert_never

import structlog

from etcd_operator.api import EtcdCluster
from etcd_operator.cluster.authority import HeldAuthority
from etcd_operator.cluster.observation import DeliveryRefusal, ResizeRefusal, Spot, state_of
from etcd_operator.cluster.records import annotations
from etcd_operator.cluster.steps import (
    AddMember,
    Annotate,
    Apply,
    ClientStep,
    Delete,
    Deliver,
    DisarmAlarm,
    EtcdStep,
    FillLog,
    GrowVolume,
    IssueAuthority,
    IssueLeaf,
    MoveLeader,
    PromoteMember,
    RecordBootstrap,
    RemoveMember,
    RetainVolume,
    SetFinalizers,
    SetOwner,
    Step,
    TakeBack,
)
from etcd_operator.etcd.client import EtcdClient
from etcd_operator.etcd.errors import EtcdError
from etcd_operator.etcd.model import Endpoint, hex_id
from etcd_operator.kube import Kube
from etcd_operator.kube.errors import Conflict, Fenced, Forbidden, Invalid, KubeError
from etcd_operator.kube.resources import (
    CONFIGMAPS,
    DEPLOYMENTS,
    ETCDCLUSTERS,
    NETWORKPOLICIES,
    PDBS,
    PODS,
    PVCS,
    PVS,
    SECRETS,
    SERVICES,
    STATEFULSETS,
    Resource,
    resource_of,
)
from etcd_operator.pki import issue, new_authority
from etcd_operator.resources.compare import is_satisfied
from etcd_operator.resources.names import CLUSTER_LABEL, DIGEST, GROUP, Manifest
from etcd_operator.resources.secrets import authority_name, rotate_annotation, secret

log = structlog.get_logger(__name__)

#: What steps delete and annotate, by kind.
RESOURCES: dict[str, Resource] = {
    resource.kind: resource
    for resource in (
        PODS,
        PVCS,
        STATEFULSETS,
        DEPLOYMENTS,
        PDBS,
        NETWORKPOLICIES,
        CONFIGMAPS,
        SECRETS,
        SERVICES,
    )
}

#: How long after a refusal in another namespace it is tried again there, where that may pass by itself, or may not.
AGAIN_SOON, AGAIN = timedelta(seconds=5), timedelta(minutes=1)


class NameTakenError(Exception):
    """An object of a name that the cluster needs exists and is somebody else's."""


class NotAskedError(EtcdError):
    """A change that etcd was not asked for: who was to be told of it did not prove to be of this cluster."""

    @property
    def uncertain(self) -> bool:
        return False


@dataclass(frozen=True, slots=True)
class Hands:
    """What steps are carried out with: both clients, and where the members of one cluster are reached."""

    kube: Kube
    etcd: EtcdClient
    endpoints: Mapping[str, Endpoint]
    cluster_id: str
    #: What the API server answered to claims that were to grow, by the claim's UID; see `Observation.resizes`.
    resizes: dict[str, ResizeRefusal] = field(default_factory=dict)
    #: What it answered when clients' Secrets were to be written, or removed, elsewhere; see `Elsewhere.refusals`.
    refusals: dict[Spot, DeliveryRefusal] = field(default_factory=dict)


#: By kind and name, what the API server keeps otherwise than it was applied; see `Observation.accepted`.
Accepted = dict[tuple[str, str], tuple[str, str]]


async def act(
    hands: Hands, cluster: EtcdCluster, raw: Manifest, steps: Sequence[Step], accepted: Accepted | None = None
) -> None:
    """Carry the steps out, side by side; raises the first error after all have ended.

    Into `accepted` goes what the API server's answer to an apply shows to be rewritten there, by a webhook perhaps.
    """
    memory: Accepted = {} if accepted is None else accepted
    outcomes = await asyncio.gather(
        *(_step(hands, cluster, raw, step, memory) for step in steps), return_exceptions=True
    )
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome


async def _step(hands: Hands, cluster: EtcdCluster, raw: Manifest, step: Step, accepted: Accepted) -> None:
    namespace, kube = cluster.metadata.namespace, hands.kube
    match step:
        case Apply():
            live = await _apply(kube, step.manifest, absent=step.absent)
            _remember_rewriting(step.manifest, live, accepted)
        case IssueAuthority():
            await _issue_authority(kube, step)
        case IssueLeaf():
            await _issue_leaf(kube, step)
        case RecordBootstrap():
            await _record(kube, raw, step)
        case Annotate():
            await _annotate(kube, namespace, step)
        case SetOwner():
            await _set_owner(kube, namespace, step)
        case Delete():
            await _delete(kube, namespace, step)
        case GrowVolume():
            await _grow(hands, namespace, step)
        case RetainVolume():
            spec = {"metadata": {"uid": step.uid}, "spec": {"persistentVolumeReclaimPolicy": "Retain"}}
            await kube.patch(PVS, None, step.volume, spec, kind="merge")
        case Deliver() | TakeBack() | SetFinalizers():
            await _serve_clients(hands, raw, step)
        case AddMember() | RemoveMember() | PromoteMember() | MoveLeader() | DisarmAlarm() | FillLog():
            await _tell_etcd(hands, step)
        case _:
            assert_never(step)


async def _tell_etcd(hands: Hands, step: EtcdStep) -> None:
    """One change of etcd's members, told to a member that proves first that it is of this cluster.

    Pod addresses are used again: without TLS another cluster's member may answer there.
    """
    endpoint = await _proven(hands, step.through)
    if not hands.kube.may_write():
        raise Fenced(f"{type(step).__name__} {step.member}")
    match step:
        case AddMember():
            await hands.etcd.member_add(endpoint, (step.peer_url,), learner=True)
        case RemoveMember():
            await hands.etcd.member_remove(endpoint, step.member_id)
        case PromoteMember():
            await hands.etcd.member_promote(endpoint, step.member_id)
        case MoveLeader():
            await hands.etcd.move_leader(endpoint, step.member_id)
        case DisarmAlarm():
            await hands.etcd.disarm(endpoint, step.alarm)
        case FillLog():
            for _ in range(step.entries):
                await hands.etcd.write_nothing(endpoint)
        case _:
            assert_never(step)


async def _proven(hands: Hands, member: str) -> Endpoint:
    """Where the member is reached, once it has answered as one of this cluster; raises NotAskedError."""
    endpoint = hands.endpoints.get(member)
    if endpoint is None:
        raise NotAskedError("unavailable", f"{member} does not run any more")
    try:
        report = await hands.etcd.status(endpoint)
    except EtcdError as error:
        raise NotAskedError(error.kind, error.message, detail=error.detail) from error
    if hex_id(report.cluster_id) != hands.cluster_id:
        raise NotAskedError("unavailable", f"{member} serves another etcd cluster")
    return endpoint


async def _apply(kube: Kube, manifest: Manifest, *, absent: bool) -> Manifest:
    """Apply; where none of our objects of that name was seen, make sure that none of a stranger's is overwritten."""
    if absent:
        await _refuse_strangers(kube, manifest)
    return await kube.apply(manifest)


def _remember_rewriting(desired: Manifest, live: Manifest, accepted: Accepted) -> None:
    key, digest = (desired["kind"], desired["metadata"]["name"]), annotations(desired).get(DIGEST)
    if digest is None or is_satisfied(desired, live):
        accepted.pop(key, None)
        return
    if accepted.get(key, ("", ""))[0] != digest:
        log.warning("object.rewritten", object=f"{key[0]} {key[1]}", hint="something in the API server changes it")
    accepted[key] = (digest, state_of(live))


async def _refuse_strangers(kube: Kube, manifest: Manifest) -> None:
    metadata = manifest["metadata"]
    existing = await kube.get(resource_of(manifest), metadata["namespace"], metadata["name"])
    if existing is None:
        return
    found = existing["metadata"]
    ours = {owner["uid"] for owner in metadata.get("ownerReferences") or []}
    owners = {owner["uid"] for owner in found.get("ownerReferences") or []}
    if (found.get("labels") or {}).get(CLUSTER_LABEL) == metadata["labels"][CLUSTER_LABEL] or owners & ours:
        return
    raise NameTakenError(
        f"{manifest['kind']} {metadata['name']} exists and does not belong to this EtcdCluster: "
        f"delete or rename it, or give the EtcdCluster another name"
    )


async def _issue_authority(kube: Kube, step: IssueAuthority) -> None:
    name, now = authority_name(step.blueprint, step.side), datetime.now(UTC)
    lifetime = timedelta(seconds=step.blueprint.spec.tls.authority_duration.total_seconds())
    made = new_authority(f"{step.blueprint.names.name} {step.side} authority", now, lifetime)
    held = step.beside.beside(made) if step.beside else HeldAuthority(side=step.side, signer=made)
    rotation = {rotate_annotation(step.side): step.rotation} if step.rotation else {}
    manifest = secret(step.blueprint, name, held.data, issued_at=now.isoformat(timespec="seconds"), rotation=rotation)
    await _apply(kube, manifest, absent=True)


async def _issue_leaf(kube: Kube, step: IssueLeaf) -> None:
    request, now = step.request, datetime.now(UTC)
    leaf = issue(
        step.authority,
        common_name=request.common_name,
        now=now,
        lifetime=timedelta(seconds=step.blueprint.spec.tls.certificate_duration.total_seconds()),
        dns_names=request.dns_names,
        ip_addresses=request.ip_addresses,
        server=request.server,
        client=True,
    )
    data = {"tls.crt": leaf.cert_pem, "tls.key": leaf.key_pem, **step.beside}
    manifest = secret(step.blueprint, request.secret, data, issued_at=now.isoformat(timespec="seconds"))
    await _apply(kube, manifest, absent=True)


async def _record(kube: Kube, raw: Manifest, step: RecordBootstrap) -> None:
    """Add the proof to the status that stands; the rest of it is rewritten from the next observation."""
    proof = {"clusterID": step.cluster_id, "incarnation": step.incarnation, "recordedAt": step.recorded_at}
    await kube.apply_status(status_manifest(raw, {**(raw.get("status") or {}), "bootstrap": proof}))


def status_manifest(raw: Manifest, status: Manifest) -> Manifest:
    """The manifest that makes `status` the status of this very object, and of no later one of its name."""
    metadata = raw["metadata"]
    return {
        "apiVersion": f"{GROUP}/v1alpha1",
        "kind": "EtcdCluster",
        "metadata": {"name": metadata["name"], "namespace": metadata["namespace"], "uid": metadata["uid"]},
        "status": status,
    }


async def _delete(kube: Kube, namespace: str, step: Delete) -> None:
    grace = 0 if step.at_once else None
    await kube.delete(
        RESOURCES[step.kind], namespace, step.name, uid=step.uid, propagation=step.propagation, grace=grace
    )


async def _annotate(kube: Kube, namespace: str, step: Annotate) -> None:
    metadata = {"uid": step.uid, "annotations": dict(step.annotations), "labels": dict(step.labels)}
    await kube.patch(RESOURCES[step.kind], namespace, step.name, {"metadata": metadata}, kind="merge")


async def _set_owner(kube: Kube, namespace: str, step: SetOwner) -> None:
    owners = [dict(owner) for owner in step.owners]
    metadata = {"uid": step.uid, "resourceVersion": step.resource_version, "ownerReferences": owners}
    await kube.patch(PVCS, namespace, step.claim, {"metadata": metadata}, kind="merge")


async def _grow(hands: Hands, namespace: str, step: GrowVolume) -> None:
    """Raise what a claim asks for; only the API server knows whether its StorageClass can, so its answer is kept."""
    grown = {"metadata": {"uid": step.uid}, "spec": {"resources": {"requests": {"storage": step.size}}}}
    try:
        await hands.kube.patch(PVCS, namespace, step.claim, grown, kind="merge")
    except (Forbidden, Invalid) as error:
        if isinstance(error, Forbidden) and error.namespace_terminating:
            raise
        log.info("claim.not_grown", claim=step.claim, size=step.size, error=error.message)
        hands.resizes[step.uid] = ResizeRefusal(size=step.size, message=error.message, at=datetime.now(UTC))
    else:
        hands.resizes.pop(step.uid, None)


async def _serve_clients(hands: Hands, raw: Manifest, step: ClientStep) -> None:
    """What is refused in another namespace is kept and told, as nothing else is to wait for it."""
    kube = hands.kube
    if isinstance(step, SetFinalizers):
        metadata = {"uid": step.uid, "resourceVersion": step.resource_version, "finalizers": list(step.finalizers)}
        of = raw["metadata"]
        await kube.patch(ETCDCLUSTERS, of["namespace"], of["name"], {"metadata": metadata}, kind="merge")
        return
    try:
        match step:
            case Deliver() if step.uid:
                manifest = step.manifest
                await kube.apply({**manifest, "metadata": {**manifest["metadata"], "uid": step.uid}})
            case Deliver():
                await kube.create(step.manifest)  # never over what somebody else has put there meanwhile
            case TakeBack():
                await kube.delete(SECRETS, *step.spot, uid=step.uid)
    except (Fenced, Conflict):
        raise
    except KubeError as error:
        log.info("clients.refused", namespace=step.spot[0], secret=step.spot[1], error=str(error))
        pause = AGAIN_SOON if error.retryable else AGAIN
        message = "the API server did not answer" if error.retryable else error.message
        hands.refusals[step.spot] = DeliveryRefusal(message=message, again_at=datetime.now(UTC) + pause)
    else:
        hands.refusals.pop(step.spot, None)
