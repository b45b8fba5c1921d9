"""Observations with good defaults: a cluster of three at rest, from which a test differs in one line.

`observation()` has every object that the operator makes, built by its own builders, and every member answering;
the functions below give the same picture with one thing changed.
"""

import copy
import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

from etcd_operator.api import EtcdCluster, EtcdClusterSpec
from etcd_operator.cluster.judged import Judged
from etcd_operator.cluster.observation import Complaint, Named, Objects, Observation
from etcd_operator.cluster.settled import revision_of, settled_json
from etcd_operator.etcd.errors import EtcdError, Kind
from etcd_operator.etcd.model import Answer, Member, MemberList, MemberReport
from etcd_operator.pki import Authority, Leaf, issue, new_authority
from etcd_operator.resources import names as n
from etcd_operator.resources.blueprint import Blueprint, Seat
from etcd_operator.resources.compare import sealed
from etcd_operator.resources.config_map import config_map
from etcd_operator.resources.names import Manifest, Names
from etcd_operator.resources.network_policies import members_policy
from etcd_operator.resources.pod_disruption_budget import pod_disruption_budget
from etcd_operator.resources.secrets import (
    LeafRequest,
    Side,
    authority_name,
    client_endpoints,
    client_leaf,
    content,
    peer_leaf,
    secret,
    server_leaf,
    wanted_authorities,
)
from etcd_operator.resources.services import client_service, peer_service
from etcd_operator.resources.stateful_set import stateful_set

NOW = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)
#: When everything was made, and when its bootstrap was recorded.
EARLIER, RECORDED = "2026-11-21T09:00:00Z", "2026-11-21T10:00:00Z"
UID, INCARNATION, FRESH = "uid-a", "first", "fresh"
PASSWORD = "nobody-knows"
NAMES = Names(name="a", namespace="ns", domain="cluster.local")
#: What has nothing to do with the proxy is tried without.
NO_PROXY = {"proxy": {"enabled": False}}
TLS_OFF = {"peer": {"mode": "Off"}, "client": {"mode": "Off"}}


def etcd_cluster(*, members: int = 3, status: Mapping[str, Any] | None = None, **spec: Any) -> EtcdCluster:
    """An EtcdCluster named `a`; `spec` and `status` as in YAML."""
    metadata = {"name": "a", "namespace": "ns", "uid": UID, "generation": 1}
    manifest = {"metadata": metadata, "spec": {"members": members, **NO_PROXY, **spec}, "status": dict(status or {})}
    return EtcdCluster.model_validate(manifest)


def blueprint(*, cluster_id: str | None = "", incarnation: str = INCARNATION, **spec: Any) -> Blueprint:
    """The blueprint of a founded cluster; `cluster_id=None` for one that was not recorded yet."""
    wanted = EtcdClusterSpec.model_validate({"members": 3, **NO_PROXY, **spec})
    revision = revision_of(settled_json(wanted), "")
    made = Blueprint(
        names=NAMES,
        uid=UID,
        spec=wanted,
        applied_spec=settled_json(wanted),
        members=NAMES.members(wanted.members),
        incarnation=incarnation,
        revision=revision,
        template_revision=revision,
        target_revision=revision,
    )
    if cluster_id is None:
        return made
    seats = {member: Seat(incarnation=incarnation, member_id=f"{member_id(made, member):x}") for member in made.members}
    return replace(made, cluster_id=cluster_id or made.founding_id, recorded_at=RECORDED, seats=seats)


def live(manifest: Manifest, **metadata: Any) -> Manifest:
    """A manifest as the API server has it."""
    kind, name = manifest["kind"], manifest["metadata"]["name"]
    added = {"uid": f"uid-{kind}-{name}", "resourceVersion": "7", "creationTimestamp": EARLIER}
    return {**copy.deepcopy(manifest), "metadata": {**copy.deepcopy(manifest["metadata"]), **added, **metadata}}


def observation(
    *, members: int = 3, recorded: bool = True, status: Mapping[str, Any] | None = None, **spec: Any
) -> Observation:
    """A cluster that is as its spec asks, and well; `recorded=False`: all have joined, and it is to be recorded."""
    plan = blueprint(members=members, cluster_id="" if recorded else None, **spec)
    proof = {"bootstrap": {"clusterID": plan.cluster_id, "incarnation": INCARNATION, "recordedAt": RECORDED}}
    return Observation(
        at=NOW,
        cluster=etcd_cluster(members=members, status={**(proof if recorded else {}), **(status or {})}, **spec),
        names=NAMES,
        objects=_objects(plan),
        answers={member: answer(plan, member) for member in plan.members},
        fresh_incarnation=FRESH,
        fresh_password=PASSWORD,
    )


def unfounded(*, members: int = 3, **spec: Any) -> Observation:
    """An EtcdCluster right after it was applied."""
    cluster = etcd_cluster(members=members, **spec)
    return Observation(
        at=NOW, cluster=cluster, names=NAMES, objects=Objects(), fresh_incarnation=FRESH, fresh_password=PASSWORD
    )


def judged(seen: Observation) -> Judged:
    return Judged.of(seen)


# --- one thing changed ------------------------------------------------------------------------------------------------


def with_spec(seen: Observation, **spec: Any) -> Observation:
    """The user edited the spec since."""
    before = seen.cluster.spec.model_dump(by_alias=True, exclude_none=True, mode="json")
    cluster = seen.cluster.model_copy(update={"spec": EtcdClusterSpec.model_validate({**before, **spec})})
    return replace(seen, cluster=cluster)


def without_status(seen: Observation) -> Observation:
    return replace(seen, cluster=seen.cluster.model_copy(update={"status": etcd_cluster().status}))


def with_object(seen: Observation, kind: str, manifest: Manifest) -> Observation:
    """`kind` is a field of `Objects`, such as `stateful_sets`."""
    named = {**getattr(seen.objects, kind), manifest["metadata"]["name"]: manifest}
    return replace(seen, objects=replace(seen.objects, **{kind: named}))


def without(seen: Observation, kind: str, *names: str) -> Observation:
    """Objects that are not there; all of the kind when none is named."""
    kept = {name: each for name, each in getattr(seen.objects, kind).items() if names and name not in names}
    return replace(seen, objects=replace(seen.objects, **{kind: kept}))


def edited(seen: Observation, kind: str, name: str, edit: Callable[[Manifest], object]) -> Observation:
    """The object after `edit` changed it in place."""
    manifest = copy.deepcopy(getattr(seen.objects, kind)[name])
    edit(manifest)
    return with_object(seen, kind, manifest)


def annotated(seen: Observation, kind: str, name: str, **changes: str | None) -> Observation:
    """Annotations of the project's own, by what follows the slash (`_` for `-`); `None` takes one away."""

    def edit(manifest: Manifest) -> None:
        found = manifest["metadata"].setdefault("annotations", {})
        for key, value in changes.items():
            full = f"{n.GROUP}/{key.replace('_', '-')}"
            found.pop(full, None) if value is None else found.__setitem__(full, value)

    return edited(seen, kind, name, edit)


def with_answer(seen: Observation, member: str, answered: Answer | None) -> Observation:
    """What the member answered; `None`: it was not asked."""
    answers = {name: each for name, each in seen.answers.items() if name != member}
    return replace(seen, answers=answers if answered is None else {**answers, member: answered})


def with_pod(seen: Observation, member: str, **changes: Any) -> Observation:
    """The member's pod, changed as `pod` tells; its annotations stay unless they are given."""
    annotations = seen.objects.pods[member]["metadata"]["annotations"]
    return with_object(seen, "pods", pod(member, **{"annotations": annotations, **changes}))


def down(seen: Observation, *members: str) -> Observation:
    """Members whose pods are gone; those that are left have a leader while they are a majority."""
    left = set(seen.answers) - set(members)
    seen = without(seen, "pods", *members)
    answers = {name: each for name, each in seen.answers.items() if name in left}
    if len(left) <= len(seen.answers) // 2:
        answers = {name: leaderless(each) for name, each in answers.items()}
    return replace(seen, answers=answers)


def complaining(seen: Observation, kind: str, name: str, reason: str, message: str) -> Observation:
    complaint = Complaint(kind=kind, name=name, reason=reason, message=message)
    return replace(seen, complaints=(*seen.complaints, complaint))


# --- what members answer ----------------------------------------------------------------------------------------------


def member_id(plan: Blueprint, member: str) -> int:
    return 0x10 + plan.members.index(member)


def member_list(plan: Blueprint, *, unpublished: Iterable[str] = (), learners: Iterable[str] = ()) -> MemberList:
    """etcd's member list: founders have a name from the start, client URLs once they have published themselves."""
    return MemberList(
        cluster_id=int(plan.cluster_id or plan.founding_id, 16),
        members=tuple(
            Member(
                id=member_id(plan, member),
                name=member,
                peer_urls=(plan.peer_url(member),),
                client_urls=() if member in unpublished else (plan.client_url(member),),
                is_learner=member in learners,
            )
            for member in plan.members
        ),
    )


def answer(plan: Blueprint, member: str, *, listed: MemberList | None = None, **report: Any) -> Answer:
    """A healthy answer; `report` changes fields of the MemberReport. The first member leads."""
    told = {
        "cluster_id": int(plan.cluster_id or plan.founding_id, 16),
        "member_id": member_id(plan, member),
        "version": plan.spec.version,
        "leader_id": member_id(plan, plan.members[0]),
        "is_learner": False,
        "raft_index": 100,
        "raft_applied_index": 100,
        "raft_term": 2,
        "revision": 50,
        "db_size": 25 * 2**20,
        "db_size_in_use": 11 * 2**20,
    }
    return Answer(
        status=MemberReport(**{**told, **report}),
        members=listed or member_list(plan),
        linearizable=True,
        error=None,
        asked_at=NOW,
    )


def leaderless(answered: Answer) -> Answer:
    """The same member without a quorum."""
    assert answered.status is not None
    return replace(
        answered,
        status=replace(answered.status, leader_id=0),
        linearizable=False,
        error=EtcdError("no_leader", "no leader"),
    )


def silent(kind: Kind = "timeout", message: str = "no answer in time") -> Answer:
    return Answer(status=None, members=None, linearizable=False, error=EtcdError(kind, message), asked_at=NOW)


# --- objects ----------------------------------------------------------------------------------------------------------


def pod(
    member: str,
    *,
    state: Mapping[str, Any] | None = None,
    ready: bool = True,
    created: str = EARLIER,
    conditions: Iterable[Mapping[str, str]] = (),
    node: str | None = None,
    **metadata: Any,
) -> Manifest:
    """A member's pod, running and ready; `state` is the container's, `metadata` replaces fields of that name."""
    controller = {"kind": "StatefulSet", "name": "a", "uid": "uid-StatefulSet-a", "controller": True}
    made = {
        "name": member,
        "namespace": "ns",
        "uid": f"uid-Pod-{member}",
        "creationTimestamp": created,
        "labels": {**n.object_labels("a"), n.SERVING_LABEL: "true"},
        "annotations": {},
        "ownerReferences": [controller],
    }
    container = {"name": "etcd", "state": state or {"running": {"startedAt": created}}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {**made, **metadata},
        "spec": {"nodeName": node or f"node-{member}", "containers": [{"name": "etcd", "image": "etcd:v3"}]},
        "status": {
            "podIP": "10.0.0.1",
            "conditions": [{"type": "Ready", "status": str(ready)}, *conditions],
            "containerStatuses": [container],
        },
    }


def terminated(message: str = "", code: int = 1, reason: str = "Error") -> dict[str, Any]:
    """The state of a container that ended."""
    return {"terminated": {"exitCode": code, "reason": reason, "message": message}}


def claim(plan: Blueprint, member: str, *, phase: str = "Bound", **annotations: str) -> Manifest:
    """A member's volume claim, recorded where the blueprint is."""
    recorded = {
        n.CLUSTER_ID: plan.cluster_id,
        n.MEMBER_ID: f"{member_id(plan, member):x}",
        n.MEMBER_STATE: "member",
        n.INCARNATION: plan.incarnation,
        n.MEMBERS: ",".join(plan.members),
        n.ETCD_VERSION: plan.spec.version,
        n.TLS_MODES: f"{plan.spec.tls.peer.mode}/{plan.spec.tls.client.mode}",
    }
    metadata = {"name": f"data-{member}", "namespace": "ns", "labels": n.object_labels("a")}
    found = {**(recorded if plan.bootstrapped else {}), **annotations}
    storage = {"storage": str(plan.spec.storage.size)}
    bound = {"volumeName": f"pv-{member}"} if phase == "Bound" else {}
    spec, capacity = {"resources": {"requests": storage}, **bound}, {"capacity": dict(storage)} if bound else {}
    manifest = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec}
    return live({**manifest, "status": {"phase": phase, **capacity}}, annotations=found)


def _objects(plan: Blueprint) -> Objects:
    budget, service = pod_disruption_budget(plan), client_service(plan)
    policy = members_policy(plan)
    plan = with_authorities(plan)
    refreshed = {n.FILES_REFRESHED: plan.refreshed(plan.members[0])} if plan.bootstrapped else {}
    annotations = {n.REVISION: plan.revision, **plan.authority_annotations, **refreshed}
    return Objects(
        stateful_sets=_named([live(sealed(stateful_set(plan)))]),
        config_maps=_named([live(sealed(config_map(plan)))]),
        services=_named(live(sealed(each)) for each in (peer_service(plan), service) if each),
        secrets=secrets(plan),
        disruption_budgets=_named([live(sealed(budget))] if budget else []),
        network_policies=_named([live(sealed(policy))] if policy else []),
        pods=_named(pod(member, annotations=dict(annotations)) for member in plan.members),
        claims=_named(claim(plan, member) for member in plan.members),
    )


def with_authorities(plan: Blueprint) -> Blueprint:
    """The blueprint as it is judged when the authorities' Secrets are there."""
    mounted = {plan.names.peer_certificate, plan.names.server_certificate}
    found = {name: content(secret)["ca.crt"] for name, secret in secrets(plan).items() if name in mounted}
    digests = {name: hashlib.sha256(certificate).hexdigest()[:16] for name, certificate in found.items()}
    return replace(
        plan,
        peer_authority=digests.get(plan.names.peer_certificate, ""),
        client_authority=digests.get(plan.names.server_certificate, ""),
    )


def _named(manifests: Iterable[Manifest]) -> Named:
    return {manifest["metadata"]["name"]: manifest for manifest in manifests}


# --- certificates -----------------------------------------------------------------------------------------------------


@lru_cache
def authority(common_name: str) -> Authority:
    return new_authority(common_name, NOW - timedelta(days=1))


@lru_cache
def leaf(signer: str, request: LeafRequest, *, age: timedelta = timedelta(days=1)) -> Leaf:
    """A certificate that lasts 90 days from `age` before now."""
    return issue(
        authority(signer),
        common_name=request.common_name,
        now=NOW - age,
        lifetime=timedelta(days=90),
        dns_names=request.dns_names,
        ip_addresses=request.ip_addresses,
        server=request.server,
        client=True,
    )


def authority_secret(plan: Blueprint, side: Side, *, of: str | None = None) -> Manifest:
    """The Secret of an authority; `of` names another one than the side's own."""
    made = authority(of or side)
    data = {"tls.crt": made.cert_pem, "tls.key": made.key_pem}
    return live(secret(plan, authority_name(plan, side), data, issued_at=EARLIER))


def leaf_secret(plan: Blueprint, request: LeafRequest, *, of: str | None = None, days: int = 1) -> Manifest:
    """The Secret of a certificate that was issued `days` ago."""
    made = leaf(of or request.side, request, age=timedelta(days=days))
    data = {"ca.crt": authority(of or request.side).cert_pem, "tls.crt": made.cert_pem, "tls.key": made.key_pem}
    if request.secret == plan.names.client_access:
        data["endpoints"] = client_endpoints(plan).encode()
    return live(secret(plan, request.secret, data, issued_at=EARLIER))


def secrets(plan: Blueprint) -> Named:
    """Every Secret of the cluster."""
    made = [authority_secret(plan, side) for side in wanted_authorities(plan)]
    if plan.peer_tls:
        made.append(leaf_secret(plan, peer_leaf(plan)))
    if plan.client_tls:
        made.append(leaf_secret(plan, server_leaf(plan)))
    if plan.bootstrapped and plan.client_tls:
        made.append(leaf_secret(plan, client_leaf(plan)))
    elif plan.bootstrapped:
        endpoints = {"endpoints": client_endpoints(plan).encode()}
        made.append(live(secret(plan, plan.names.client_access, endpoints, issued_at="")))
    return _named(made)
