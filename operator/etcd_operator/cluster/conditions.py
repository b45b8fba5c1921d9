"""The conditions of an EtcdCluster: from one observation to one sentence each, told as a person would tell it.

Pure. Messages say what happens now and what the user can do. No clock, size or revision stands in a message, so
that it changes only when something happened.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from etcd_operator.cluster.certificates import lost_authorities
from etcd_operator.cluster.clients import client_problems
from etcd_operator.cluster.corruption_rules import corruption
from etcd_operator.cluster.growth_rules import growth_problem, growth_under_way, in_lower
from etcd_operator.cluster.judged import Judged
from etcd_operator.cluster.members import Membership, Quorum, SeenMember
from etcd_operator.cluster.membership_rules import change_of_membership, wanted_members
from etcd_operator.cluster.memory import data_lost, members_without_data, memory_limit_problem
from etcd_operator.cluster.provided import provided_problems
from etcd_operator.cluster.proxies import proxy_problem
from etcd_operator.cluster.records import is_terminating
from etcd_operator.cluster.recovery import is_rebuilding, loses, way_out
from etcd_operator.cluster.recovery_rules import idle_wish, refusal
from etcd_operator.cluster.restart_rules import RESTARTING, is_restarting, restart_under_way, why
from etcd_operator.cluster.rotation_rules import expiry, rotation_under_way
from etcd_operator.cluster.steps import Plan
from etcd_operator.cluster.trouble import Trouble, refused_pods
from etcd_operator.cluster.unwell import replacement_due, whereabouts
from etcd_operator.cluster.upgrade import unraised

#: How long members may take to come up on kept volumes before a missing quorum is told as a lost one.
START = timedelta(seconds=60)

Status = Literal["True", "False", "Unknown"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Told:
    """A condition without its times."""

    type: str
    status: Status
    reason: str
    message: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What a round came to: the plan, and the error that kept it from being carried out or the rest from being seen."""

    plan: Plan
    error: Trouble | None = None


def available(judged: Judged) -> Told:
    """Whether clients can write now."""
    members = judged.membership
    if judged.problems and not judged.founded:
        return _told("Available", "False", "InvalidSpec", "nothing is made until the spec is corrected")
    if not judged.blueprint.bootstrapped:
        message = (
            f"{members.answering} of {len(members.members)} members answer; clients get access when all have joined"
        )
        return _told("Available", "False", "Bootstrapping", message)
    if missing := _missing_access(judged):
        reason = "AccessMissing" if judged.published else "Publishing"
        does = "is missing, and spec.paused is true" if judged.seen.cluster.spec.paused else "is being made"
        message = f"etcd has a quorum; what clients need {does}: {' and '.join(missing)}"
        return _told("Available", "False", reason, message)
    if _is_starting(judged):
        message = f"{members.answering} of {len(members.members)} members answer; they start on volumes that were kept"
        return _told("Available", "False", "Starting", message)
    if members.quorum is Quorum.HEALTHY and (differ := corruption(judged)):
        return _told("Available", "False", "CorruptionAlarm", differ)
    match members.quorum:
        case Quorum.HEALTHY:
            leader = f"leader {members.leader.name}" if members.leader else "electing a leader"
            message = f"{len(members.healthy)} of {members.voter_count} voters answer; {leader}"
            if _is_losing_quorum(judged):
                going = _going(members)
                few = f"only {members.voter_count - len(going)} of {members.voter_count} voters stay"
                message = f"a quorum answered a moment ago, but {few}: {', '.join(going)} go"
            return _told("Available", "True", "QuorumHealthy", message)
        case Quorum.UNKNOWN:
            silent = "; ".join(f"{member.name}: {member.why}" for member in members.ailing)
            reason = "NoAnswer" if members.answering == 0 else "QuorumUnknown"
            return _told("Available", "Unknown", reason, f"not known whether clients can write: {silent}")
        case Quorum.LOST:
            if lost := data_lost(judged):
                some_left = len(members_without_data(judged)) < len(members.voters)
                return _told("Available", "False", "QuorumLost" if some_left else "DataLost", lost)
            return _told("Available", "False", "QuorumLost", _lost(judged))


def _is_losing_quorum(judged: Judged) -> bool:
    """Whether a quorum has just answered, but of members of which too many are going or gone by now."""
    members = judged.membership
    return members.quorum is Quorum.HEALTHY and members.voter_count - len(_going(members)) < members.needed


def _going(members: Membership) -> list[str]:
    """Voters that are proved not to serve any more."""
    return [member.name for member in members.voters if member.down]


def _is_starting(judged: Judged) -> bool:
    """Whether members that clients have not been let in to yet come up for the first time, on kept volumes."""
    made = judged.seen.objects.stateful_sets.get(judged.blueprint.names.stateful_set)
    if judged.published or judged.membership.quorum is Quorum.HEALTHY:
        return False
    return made is None or judged.seen.at - datetime.fromisoformat(made["metadata"]["creationTimestamp"]) < START


def _missing_access(judged: Judged) -> list[str]:
    """What clients need and do not find, while etcd itself would serve them."""
    objects, names = judged.seen.objects, judged.blueprint.names
    if judged.membership.quorum is not Quorum.HEALTHY:
        return []
    service = [] if names.client_service in objects.services else [f"Service {names.client_service}"]
    secret = [] if names.client_access in objects.secrets else [f"Secret {names.client_access}"]
    return service + secret


def _lost(judged: Judged) -> str:
    members, recovery = judged.membership, judged.blueprint.recovery
    if recovery is not None and is_rebuilding(judged):
        return f"the etcd is being rebuilt from {recovery.member}: {loses(recovery)}"
    told = "; ".join(f"{member.name}: {member.why}" for member in members.ailing)
    return (
        f"{members.needed} of {members.voter_count} voters are needed, so writes wait until enough of these are back: "
        f"{told}{way_out(judged)}"
    )


def progressing(judged: Judged, outcome: Outcome) -> Told:
    """What is under way, or what keeps the cluster from what the user asked for."""
    known = (_paused, _disputed, _invalid, _refused, _failed, _recovering, _blocked, _ungrown, _working, _pending)
    for judge in (*known, _unserved):
        if told := judge(judged, outcome):
            return told
    return _told("Progressing", "False", "AsSpecified", f"the cluster is as its spec asks{idle_wish(judged)}")


def _paused(judged: Judged, outcome: Outcome) -> Told | None:
    if not judged.seen.cluster.spec.paused:
        return None
    return _told("Progressing", "False", "Paused", "spec.paused is true: the operator reports and changes nothing")


def _disputed(judged: Judged, outcome: Outcome) -> Told | None:
    if not judged.proof.disputes:
        return None
    return _told("Progressing", "False", "RecordsDisagree", "; ".join(judged.proof.disputes))


def _invalid(judged: Judged, outcome: Outcome) -> Told | None:
    if not judged.problems:
        return None
    goes_on = (
        ""
        if outcome.plan.rule == "refuse_to_found_on_bad_input"
        else "; the members keep their settings until that is corrected"
    )
    change = change_of_membership(judged) if judged.blueprint.bootstrapped else ""
    meanwhile = f"; meanwhile: {in_lower(change)}" if change else ""
    return _told("Progressing", "False", "InvalidSpec", "; ".join(judged.problems) + goes_on + meanwhile)


def _refused(judged: Judged, outcome: Outcome) -> Told | None:
    if not judged.refused:
        return None
    return _told("Progressing", "False", "UpgradeRefused", f"{judged.refused}; the members keep running as before")


def _failed(judged: Judged, outcome: Outcome) -> Told | None:
    if outcome.error is None:
        return None
    return _told("Progressing", "False", outcome.error.reason, outcome.error.message)


def _recovering(judged: Judged, outcome: Outcome) -> Told | None:
    """A rebuild from one member's data, or why it is not done."""
    plan = outcome.plan
    if refused := refusal(judged):
        return _told("Progressing", "False", "RecoveryRefused", refused)
    if plan.rule != "recover" and not is_rebuilding(judged):
        return None
    message = plan.waiting or "; ".join(dict.fromkeys(step.reason for step in plan.steps)) or "its member starts"
    return _told("Progressing", "True", "Recovering", message)


def _blocked(judged: Judged, outcome: Outcome) -> Told | None:
    """Kubernetes or etcd refuses something, and waiting alone will not help."""
    trouble = first_trouble(judged)
    if trouble is None or change_of_membership(judged):
        return None
    stopped = "; no other member is restarted until it is back" if restart_under_way(judged) else ""
    return _told("Progressing", "False", trouble.reason, trouble.message + stopped)


def _ungrown(judged: Judged, outcome: Outcome) -> Told | None:
    problem = growth_problem(judged)
    return _told("Progressing", "False", "VolumesNotGrown", problem) if problem else None


def _working(judged: Judged, outcome: Outcome) -> Told | None:
    plan = outcome.plan
    if not plan.steps and not plan.waiting:
        return None
    if told := growth_under_way(judged):
        return _told("Progressing", "True", "GrowingVolumes", told)
    if told := change_of_membership(judged):
        if judged.blueprint.in_memory and restart_under_way(judged):
            told = f"{told}; members are replaced one by one: {why(judged)}"
        return _told("Progressing", "True", "ChangingMembers", told)
    if told := restart_under_way(judged):
        return _told("Progressing", "True", RESTARTING, told)
    if told := rotation_under_way(judged):
        return _told("Progressing", "True", "RotatingAuthority", told)
    reason = "Reconciling" if judged.blueprint.bootstrapped else "Bootstrapping"
    message = plan.waiting or "; ".join(dict.fromkeys(step.reason for step in plan.steps))
    return _told("Progressing", "True", reason, message)


def _pending(judged: Judged, outcome: Outcome) -> Told | None:
    if not judged.pending:
        return None
    message = (
        f"{'; '.join(pending_changes(judged))}; the members keep running as before, and setting the fields back "
        "withdraws the change"
    )
    return _told("Progressing", "False", "ChangePending", message)


def _unserved(judged: Judged, outcome: Outcome) -> Told | None:
    problem = client_problems(judged)
    return _told("Progressing", "False", "ClientsNotServed", problem) if problem else None


def pending_changes(judged: Judged) -> tuple[str, ...]:
    """Each edit that waits, with what it waits for."""
    restart = [path for path in judged.pending if path != "spec.members"]
    told = []
    if growth := growth_problem(judged) or growth_under_way(judged):
        told.append(f"spec.storage.size: {growth}")
    if restart:
        late = "" if restart_under_way(judged) else unraised(judged.seen, judged.blueprint, judged.seen.cluster.spec)
        soon = "the members are restarted for it, one by one"
        reason = judged.refused or "; ".join(judged.problems) or late or soon
        told.append(f"{', '.join(restart)}: {reason}")
    return tuple(told)


def degraded(judged: Judged, outcome: Outcome) -> Told:
    """Whether something needs attention although, or because, clients may be served."""
    if not judged.blueprint.bootstrapped:
        trouble = outcome.error or first_trouble(judged)
        if trouble:
            return _told("Degraded", "True", trouble.reason, trouble.message)
        if judged.problems and not judged.founded:
            return _told("Degraded", "True", "InvalidSpec", "; ".join(judged.problems))
        return _told("Degraded", "False", "Bootstrapping", "the cluster is being made")
    if _is_starting(judged) and not first_trouble(judged):
        return _told("Degraded", "False", "Starting", "the members are starting")
    if lost := lost_authorities(judged.seen, judged.blueprint):
        message = (
            f"Secret {', '.join(lost)} was deleted or replaced: certificates are valid but cannot be renewed; "
            "put the Secret back from a backup"
        )
        return _told("Degraded", "True", "AuthorityLost", message)
    if refused := provided_problems(judged.seen):
        message = f"{'; '.join(refused)}; the members keep the authority that they have"
        return _told("Degraded", "True", "AuthorityRefused", message)
    if late := expiry(judged):
        return _told("Degraded", "True", "CertificateExpires", late)
    if differ := corruption(judged):
        return _told("Degraded", "True", "CorruptionAlarm", differ)
    if ailing := tuple(member for member in judged.membership.ailing if not _restarts_as_planned(judged, member)):
        return _told("Degraded", "True", "MembersUnhealthy", "; ".join(_ailment(judged, each) for each in ailing))
    if outcome.error is not None:
        return _told("Degraded", "True", outcome.error.reason, outcome.error.message)
    voters, size = judged.membership.voter_count, judged.seen.cluster.spec.members
    if voters % 2 == 0 and voters < size and judged.membership.list is not None:
        message = f"{voters} of {size} members vote until the next one has joined or left"
        return _told("Degraded", "True", "MembersIncomplete", message)
    if restarting := [member.name for member in judged.membership.ailing]:
        return _told("Degraded", "False", "Restarting", f"{', '.join(restarting)} restarts as planned")
    if problem := proxy_problem(judged):
        return _told("Degraded", "True", "ProxiesUnhealthy", problem)
    if memory := memory_limit_problem(judged):
        return _told("Degraded", "False", "MemoryLimit", memory)
    if shared := _shared_nodes(judged):
        return _told("Degraded", "False", "NodeShared", shared)
    return _told("Degraded", "False", "AllHealthy", _all_healthy(judged.membership.members))


def _ailment(judged: Judged, member: SeenMember) -> str:
    told, due = member.trouble.message if member.trouble else f"{member.name}: {member.why}", None
    told += whereabouts(judged, member)
    if member.name in wanted_members(judged):
        due = replacement_due(judged, member)
    if due is None:
        return told
    if due <= judged.seen.at:
        return f"{told}; a new member takes its place as soon as the others can do without it"
    return f"{told}; a new member takes its place unless it is back by {due:%Y-%m-%dT%H:%M:%SZ}"


def _restarts_as_planned(judged: Judged, member: SeenMember) -> bool:
    """Whether a member is away for a restart in order, and not for longer than one takes."""
    if not is_restarting(judged, member) or member.trouble:
        return False
    created = (member.pod or {}).get("metadata", {}).get("creationTimestamp")
    if is_terminating(member.pod):
        created = (member.pod or {})["metadata"]["deletionTimestamp"]
    return member.pod is None or (created is not None and judged.seen.at - datetime.fromisoformat(created) < START)


def _all_healthy(members: Sequence[SeenMember]) -> str:
    if joining := [member.name for member in members if not member.healthy]:
        return f"all voters are healthy; joining: {', '.join(joining)}"
    return "the one member is healthy" if len(members) == 1 else f"all {len(members)} members are healthy"


def first_trouble(judged: Judged) -> Trouble | None:
    """The first thing that Kubernetes or etcd refuses, of all members."""
    troubles = [member.trouble for member in judged.membership.members if member.trouble and not member.healthy]
    return refused_pods(judged.seen.complaints) or (troubles[0] if troubles else None)


def _shared_nodes(judged: Judged) -> str:
    on: dict[str, list[str]] = {}
    for member in judged.membership.members:
        if member.node:
            on.setdefault(member.node, []).append(member.name)
    return "; ".join(
        f"{' and '.join(names)} share node {node}: its loss would take {len(names)} members at once"
        for node, names in sorted(on.items())
        if len(names) > 1
    )


def summary(judged: Judged, outcome: Outcome) -> str:
    """The STATUS column: the most pressing thing, in a few words."""
    seen, members = judged.seen, judged.membership
    told = progressing(judged, outcome)
    if not judged.blueprint.bootstrapped:
        return _shortened(told.message if told.status == "False" else outcome.plan.waiting or "Creating")
    if judged.blueprint.recovery is not None and is_rebuilding(judged):
        return _shortened(f"Rebuilding from {judged.blueprint.recovery.member}")
    down = ", ".join(member.name for member in members.ailing)
    if _is_starting(judged):
        return f"Starting on kept volumes: {members.answering} of {len(members.members)} members answer"
    match members.quorum:
        case Quorum.LOST:
            if data_lost(judged):
                return f"Data lost with the pods of {', '.join(m.name for m in members_without_data(judged))}"
            silent = ", ".join(m.name for m in members.ailing if m.answer is None or m.answer.status is None)
            return f"Quorum lost: {silent} down" if silent else f"No leader among {down}"
        case Quorum.UNKNOWN:
            return f"Unknown: {down} silent"
    if members.alarmed:
        return "No writes: the members' data differs"
    if _is_losing_quorum(judged):
        return f"Losing its quorum: {', '.join(_going(members))} going"
    if missing := _missing_access(judged):
        return f"{' and '.join(missing)} missing" if judged.published else "Giving clients access"
    if seen.cluster.spec.paused:
        return "Available; paused"
    if told.reason in ("ChangingMembers", RESTARTING, "GrowingVolumes", "RotatingAuthority"):
        return _shortened(f"Available; {in_lower(told.message)}")
    if down:
        return f"Available; {down} down"
    if told.status == "False" and told.reason == "ChangePending":
        return "Available; change pending"
    return "Available" if told.status == "True" or told.reason == "AsSpecified" else f"Available; {told.reason}"


def _shortened(text: str, most: int = 80) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _told(type_: str, status: Status, reason: str, message: str) -> Told:
    return Told(type=type_, status=status, reason=reason, message=message)
