"""The status of an EtcdCluster, from one observation; and whether it differs from the one that stands.

Pure. The status changes only when something changed: sizes ride along with a change, they do not cause one.
"""

from datetime import datetime
from typing import Any

from etcd_operator.api import Bootstrap, Condition, Endpoints, EtcdClusterStatus, MemberStatus, Quantity
from etcd_operator.cluster.conditions import Outcome, Told, available, degraded, pending_changes, progressing, summary
from etcd_operator.cluster.judged import Judged
from etcd_operator.cluster.members import SeenMember
from etcd_operator.cluster.outside import external_member_urls, external_urls
from etcd_operator.cluster.recovery import named_loss, told_recovery
from etcd_operator.cluster.unwell import unwell
from etcd_operator.etcd.model import hex_id
from etcd_operator.etcd.options import version_number
from etcd_operator.resources.names import CLUSTER_LABEL
from etcd_operator.resources.secrets import client_endpoints

#: Fields that change without anything having happened.
DRIFTING = ("dbSize", "dbInUse")


def status(judged: Judged, outcome: Outcome) -> EtcdClusterStatus:
    """Everything that was observed; times of conditions are carried over from the status that stands."""
    seen, plan, members = judged.seen, judged.blueprint, judged.membership
    told = (available(judged), progressing(judged, outcome), degraded(judged, outcome))
    leader = members.leader
    voters = members.voter_count
    external = external_member_urls(seen, plan.client_scheme, [member.name for member in members.members])
    return EtcdClusterStatus(
        observed_generation=seen.cluster.metadata.generation,
        ready_members=len(members.healthy),
        selector=f"{CLUSTER_LABEL}={plan.names.name}",
        summary=summary(judged, outcome),
        cluster_id=plan.cluster_id or None,
        version=_version(judged),
        leader=leader.name if leader else None,
        quorum=f"{len(members.healthy)}/{voters}",
        tolerated_failures=members.tolerated,
        endpoints=_endpoints(judged),
        members=tuple(_member(judged, member, external.get(member.name)) for member in members.members),
        pending=pending_changes(judged),
        bootstrap=_bootstrap(judged),
        quorum_lost=named_loss(judged, lost=told[0].reason == "QuorumLost"),
        recovery=told_recovery(judged),
        conditions=tuple(_condition(judged, each) for each in told),
    )


def has_changed(new: dict[str, Any], standing: dict[str, Any] | None) -> bool:
    """Whether the status must be written: two of them as JSON, compared without what merely drifts."""
    return _without_drift(new) != _without_drift(standing or {})


def _without_drift(told: dict[str, Any]) -> dict[str, Any]:
    members = [
        {key: value for key, value in member.items() if key not in DRIFTING} for member in told.get("members") or []
    ]
    return {**told, "members": members}


def _member(judged: Judged, member: SeenMember, external: str | None) -> MemberStatus:
    report = member.answer.status if member.answer else None
    leader, count = judged.membership.leader, unwell(judged, member)
    return MemberStatus(
        name=member.name,
        id=hex_id(member.listed.id) if member.listed else None,
        role=member.role if member.listed else None,
        healthy=True if member.healthy else (False if member.down else None),
        leader=True if leader and leader.name == member.name else None,
        external=external,
        version=report.version if report else None,
        db_size=Quantity.from_bytes(report.db_size) if report else None,
        db_in_use=Quantity.from_bytes(report.db_size_in_use) if report else None,
        node=member.node,
        reason=member.why or None,
        unwell_since=count.since if count else None,
        unwell_until=count.until if count else None,
    )


def _version(judged: Judged) -> str | None:
    """The lowest version that runs; what the members were last seen to run where none answers now."""
    running = [m.answer.status.version for m in judged.membership.members if m.answer and m.answer.status]
    if running:
        return min(running, key=version_number)
    standing = judged.seen.cluster.status
    return standing.version if standing else None


def _endpoints(judged: Judged) -> Endpoints | None:
    plan = judged.blueprint
    if not plan.bootstrapped:
        return None
    return Endpoints(
        client=client_endpoints(plan),
        members=tuple(plan.client_url(member) for member in plan.members),
        external=external_urls(judged.seen, plan.client_scheme) or None,
    )


def _bootstrap(judged: Judged) -> Bootstrap | None:
    plan = judged.blueprint
    if not plan.bootstrapped:
        return None
    at = datetime.fromisoformat(plan.recorded_at) if plan.recorded_at else None
    return Bootstrap(cluster_id=plan.cluster_id, incarnation=plan.incarnation, recorded_at=at)


def _condition(judged: Judged, told: Told) -> Condition:
    standing = judged.seen.cluster.status
    before = next((each for each in (standing.conditions if standing else ()) if each.type == told.type), None)
    same = before is not None and before.status == told.status
    return Condition(
        type=told.type,
        status=told.status,
        reason=told.reason,
        message=told.message[:32768],
        last_transition_time=before.last_transition_time if before and same else judged.seen.at,
        observed_generation=judged.seen.cluster.metadata.generation,
    )
