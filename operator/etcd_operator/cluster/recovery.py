"""A quorum that is lost for good: which loss it is, from whom the etcd may be rebuilt, and what that would cost.

Pure; it decides nothing by itself. etcd's Status is answered without a quorum, and its raft index is what the member
knows to be committed: just what `force-new-cluster` keeps. So of two members, the one with the higher index has all
that the other has, and what was acknowledged beyond it is lost. What follows is done by `recovery_rules`.
"""

from datetime import datetime, timedelta

from etcd_operator.api import QuorumLost, RecoveryStatus
from etcd_operator.cluster.judged import Judged
from etcd_operator.cluster.members import Quorum, SeenMember
from etcd_operator.cluster.memory import fuse_tripped
from etcd_operator.cluster.records import is_terminating, timestamp
from etcd_operator.etcd.model import MemberReport
from etcd_operator.resources.blueprint import Recovery

FIELD = "spec.recovery.forceFrom"
#: How long the member that an etcd was rebuilt from may take to start before the quorum is told as lost once more.
COMES_UP = timedelta(seconds=60)


def standing_loss(judged: Judged) -> QuorumLost | None:
    """The loss that the status names already; `None` once a rebuild has answered it."""
    told = judged.seen.cluster.status.quorum_lost
    return None if told is None or _is_answered(judged, told) else told


def _is_answered(judged: Judged, loss: QuorumLost) -> bool:
    recovery = judged.blueprint.recovery
    return recovery is not None and not recovery.active and recovery.loss == timestamp(loss.since)


def is_rebuilding(judged: Judged) -> bool:
    """Whether a rebuild is under way, up to the moment when its member serves, or should have by now."""
    recovery, told = judged.blueprint.recovery, judged.seen.cluster.status.quorum_lost
    if recovery is None or recovery.active:
        return recovery is not None
    if told is None or not _is_answered(judged, told) or judged.membership.quorum is Quorum.HEALTHY:
        return False
    pod = judged.seen.objects.pods.get(recovery.member)
    if pod is None or is_terminating(pod):
        return True
    return judged.seen.at - datetime.fromisoformat(pod["metadata"]["creationTimestamp"]) < COMES_UP


def named_loss(judged: Judged, *, lost: bool) -> QuorumLost | None:
    """The loss that the status is to name; `lost`: the quorum is told as lost in this very look.

    It stands until a quorum answers. What is asked for when it is first named was not asked because of it.
    """
    told, recovery = judged.seen.cluster.status.quorum_lost, judged.blueprint.recovery
    asked = judged.seen.cluster.spec.recovery.force_from
    if not judged.blueprint.bootstrapped:
        return None
    if is_rebuilding(judged) and recovery is not None:
        return told or QuorumLost(since=datetime.fromisoformat(recovery.loss))
    if judged.membership.quorum is Quorum.HEALTHY:
        return None
    if told is not None and not _is_answered(judged, told):
        ignored = told.ignored_force_from if told.ignored_force_from == asked else None
        return told.model_copy(update={"ignored_force_from": ignored})
    if not lost:
        return None
    down = tuple(member.name for member in judged.membership.voters if member.down and _report(member) is None)
    return QuorumLost(since=judged.seen.at, members=down, ignored_force_from=asked)


def told_recovery(judged: Judged) -> RecoveryStatus | None:
    """The last rebuild, for the status."""
    recovery = judged.blueprint.recovery
    if recovery is None:
        return None
    return RecoveryStatus(
        force_from=recovery.member,
        loss=datetime.fromisoformat(recovery.loss),
        state=recovery.state,
        revision=recovery.revision or None,
    )


def way_out(judged: Judged) -> str:
    """What a person can do about a lost quorum, and what it would cost; empty where nobody answers who could help."""
    voters = judged.membership.voters
    if not judged.blueprint.in_memory and voters and all(without_data(judged, member) for member in voters):
        return (
            "; no member has any data left: put a volume that has it back, or, to begin with an empty etcd, delete the "
            "EtcdCluster and its PersistentVolumeClaims and apply it again"
        )
    best = max(_answering(judged), key=_index, default=None)
    report = _report(best) if best else None
    if best is None or report is None or judged.blueprint.in_memory:
        return ""
    return (
        f"; only if they are lost for good: {FIELD}: {best.name} rebuilds the etcd from that member's data, and "
        f"{cost(report)}"
    )


def cost(report: MemberReport | None) -> str:
    """What a rebuild from a member that answers so would lose."""
    if report is None:
        return "how much of what was acknowledged is lost is not known"
    return f"what was acknowledged after revision {report.revision} is lost"


def loses(recovery: Recovery) -> str:
    """What a rebuild that is under way loses."""
    after = f"after revision {recovery.revision} " if recovery.revision else ""
    return f"writes acknowledged {after}that {recovery.member} has not got are lost"


def objection(judged: Judged, name: str) -> str:
    """Why the etcd must not be rebuilt from that member; empty when it may."""
    member = next((member for member in judged.membership.members if member.name == name), None)
    if member is None:
        return f"{name} is no member; the members are {', '.join(judged.blueprint.members)}"
    if judged.blueprint.in_memory:
        return f"{name} has its data in memory, where nothing can be rebuilt from: it would go with the pod"
    if gone := without_data(judged, member):
        return f"{name} has no data to rebuild from: {gone}"
    if member.role == "Learner":
        return f"{name} is a learner, which etcd cannot make the only voter"
    if member.foreign:
        return f"{name} serves another etcd cluster's data"
    if judged.seen.cluster.spec.recovery.accept_data_loss:
        return ""
    return _costs_too_much(judged, member)


def _costs_too_much(judged: Judged, member: SeenMember) -> str:
    """Why another member may be the better one, or is."""
    accept = "or set spec.recovery.acceptDataLoss to true"
    own = _report(member)
    if own is None:
        why = member.trouble.message if member.trouble else f"{member.name}: {member.why}"
        return f"how far the data of {member.name} goes is not known ({why}); wait until it answers, {accept}"
    best = max(_answering(judged), key=_index)
    report = _report(best)
    if report is not None and _index(best) > _index(member):
        lost = f"revisions {own.revision + 1} to {report.revision}" if report.revision > own.revision else "its changes"
        return f"{best.name} has newer data, {lost}; set {FIELD} to {best.name}, {accept} and lose them"
    for other in judged.membership.voters:
        if _report(other) is None and not without_data(judged, other):
            return (
                f"{other.name} may have newer data and cannot be asked ({other.why}); wait until it answers, delete "
                f"PersistentVolumeClaim {judged.blueprint.names.claim(other.name)} if its data is lost for good, "
                f"{accept}: then {cost(own)}"
            )
    return ""


def without_data(judged: Judged, member: SeenMember) -> str:
    """Why a member is proved to have no data that could be served; empty where it may have some."""
    claim = judged.seen.objects.claims.get(judged.blueprint.names.claim(member.name))
    if claim is None:
        return "its volume is gone"
    if is_terminating(claim):
        return "its volume was deleted"
    if claim.get("status", {}).get("phase") == "Lost":
        return "its volume is lost"
    return fuse_tripped(judged, member) if _report(member) is None else ""


def report_of(judged: Judged, name: str) -> MemberReport | None:
    """What a member said of itself in this look."""
    return next((_report(member) for member in judged.membership.members if member.name == name), None)


def _answering(judged: Judged) -> list[SeenMember]:
    return [member for member in judged.membership.voters if _report(member) is not None and not member.foreign]


def _report(member: SeenMember) -> MemberReport | None:
    return member.answer.status if member.answer else None


def _index(member: SeenMember) -> int:
    report = _report(member)
    return report.raft_index if report else 0
