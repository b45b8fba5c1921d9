"""The events of an EtcdCluster: the story of each change, told once.

Pure. Judged from the status that stood and the one that follows, so that a restart of the operator tells nothing
twice.
"""

from dataclasses import dataclass
from typing import Literal

from etcd_operator.api import Condition, EtcdClusterStatus
from etcd_operator.cluster.steps import (
    AddMember,
    Annotate,
    Apply,
    Delete,
    Deliver,
    DisarmAlarm,
    FillLog,
    IssueAuthority,
    IssueLeaf,
    MoveLeader,
    Plan,
    PromoteMember,
    RecordBootstrap,
    RemoveMember,
    RetainVolume,
    SetOwner,
    TakeBack,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Tale:
    """One event about the EtcdCluster."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


def tales_of_steps(plan: Plan, *, published: bool) -> list[Tale]:
    """What is done about a cluster that clients use, one event a step; making one is told by its conditions."""
    tales = []
    for step in plan.steps:
        match step:
            case RecordBootstrap():
                tales.append(Tale(type="Normal", reason="Bootstrapped", message=step.reason))
            case Delete():
                tales.append(
                    Tale(type="Normal", reason="Deleting", message=f"deleting {step.kind} {step.name}: {step.reason}")
                )
            case Apply() if plan.rule == "recover":
                tales.append(Tale(type="Warning", reason="Rebuilding", message=step.reason))
            case Apply() if plan.rule == "delete_old_data":
                tales.append(_tale("DeletingOldData", step.reason))
            case Apply() if published or plan.rule.startswith("refound"):
                tales.append(Tale(type="Normal", reason="Applying", message=step.reason))
            case IssueAuthority() | IssueLeaf() if published:
                tales.append(Tale(type="Normal", reason="IssuingCertificate", message=step.reason))
            case Deliver():
                tales.append(_tale("DeliveringSecret", step.reason))
            case TakeBack():
                namespace, name = step.spot
                tales.append(
                    _tale("TakingSecretBack", f"deleting Secret {name} in namespace {namespace}: {step.reason}")
                )
            case AddMember():
                tales.append(_tale("AddingMember", f"adding {step.member} as a learner: {step.reason}"))
            case RemoveMember():
                tales.append(_tale("RemovingMember", f"removing member {step.member} from etcd: {step.reason}"))
            case PromoteMember():
                tales.append(_tale("PromotingMember", f"learner {step.member} becomes a voter: {step.reason}"))
            case MoveLeader():
                tales.append(_tale("MovingLeader", f"{step.member} is to lead: {step.reason}"))
            case DisarmAlarm():
                told = f"disarming the alarm {step.alarm.kind} of member {step.member}: {step.reason}"
                tales.append(_tale("DisarmingAlarm", told))
            case FillLog():
                told = f"putting {step.entries} entries without effect into the log: {step.reason}"
                tales.append(_tale("SavingSnapshots", told))
            case RetainVolume():
                tales.append(
                    _tale("KeepingVolume", f"PersistentVolume {step.volume} outlives its claim: {step.reason}")
                )
            case SetOwner():
                tales.append(
                    Tale(type="Normal", reason="Applying", message=f"PersistentVolumeClaim {step.claim}: {step.reason}")
                )
            case Annotate() if step.kind == "Pod" and step.labels:
                tales.append(Tale(type="Normal", reason="Applying", message=f"Pod {step.name}: {step.reason}"))
    return tales


def _tale(reason: str, message: str) -> Tale:
    return Tale(type="Normal", reason=reason, message=message)


def tales_of_status(before: EtcdClusterStatus | None, after: EtcdClusterStatus) -> list[Tale]:
    """What changed between two statuses, as far as a person would want to be told."""
    old = {condition.type: condition for condition in (before.conditions if before else ())}
    tales = [_told(old.get(new.type), new) for new in after.conditions]
    return [tale for tale in tales if tale is not None]


def _told(old: Condition | None, new: Condition) -> Tale | None:
    if old is not None and (old.status, old.reason) == (new.status, new.reason):
        return None
    match new.type, new.status:
        case "Available", "True":
            return Tale(type="Normal", reason="Available", message=new.message)
        case "Available", _:
            begins = old is None or new.reason in {"Bootstrapping", "Publishing", "Starting"}
            return Tale(type="Normal" if begins else "Warning", reason=new.reason, message=new.message)
        case "Degraded", "True":
            return Tale(type="Warning", reason=new.reason, message=new.message)
        case "Degraded", "False" if new.reason == "NodeShared" or (old is not None and old.status == "True"):
            return Tale(type="Normal", reason=new.reason, message=new.message)
        case "Progressing", "True" if new.reason == "GrowingVolumes":
            return Tale(type="Normal", reason=new.reason, message=new.message)
        case "Progressing", "False" if new.reason not in {"AsSpecified", "Paused"}:
            return Tale(type="Warning", reason=new.reason, message=new.message)
    return None
