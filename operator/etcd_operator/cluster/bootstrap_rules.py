"""From nothing to a recorded etcd cluster: the rules that found, record and, if need be, found anew.

Pure. An incarnation bootstraps once. Until it is recorded no client was given a way in, so a bootstrap that
cannot succeed may be given up for a new incarnation, in other directories and with another token; once recorded
none of these rules speaks again.
"""

from datetime import datetime, timedelta

from etcd_operator.cluster.judged import Judged
from etcd_operator.cluster.records import annotations, foundation_on, is_terminating, timestamp
from etcd_operator.cluster.settled import refounded, settled_json
from etcd_operator.cluster.steps import Apply, Delete, Plan, RecordBootstrap, Step
from etcd_operator.cluster.trouble import etcd_container
from etcd_operator.etcd.model import hex_id
from etcd_operator.resources.compare import sealed
from etcd_operator.resources.config_map import config_map
from etcd_operator.resources.names import INCARNATION

#: All members run and still have no leader after this long: etcd elects one within seconds of the last start.
STUCK_AFTER = timedelta(seconds=30)
#: What etcd says when a directory is from a bootstrap that can no longer succeed.
HOPELESS = {"DataMissing", "DataCorrupt", "ForeignData"}


def refuse_to_found_on_bad_input(judged: Judged) -> Plan | None:
    """Nothing is founded on a spec that cannot work; what was founded before goes on as it was."""
    if judged.problems and not judged.founded:
        return Plan(waiting="; ".join(judged.problems))
    return None


def record_bootstrap(judged: Judged) -> Plan | None:
    """Record the cluster ID once a quorum confirmed the member list and every member published its client URLs.

    Both are needed: until they are published, a member may not have started at all, which the fuse would then
    forbid for good, and one whose directory is emptied would bootstrap again under its old identity. Names prove
    nothing: founders bear theirs from the first entry on (seen on 3.7; etcd's isMemberBootstrapped asks for URLs).
    """
    plan, members = judged.blueprint, judged.membership
    if plan.bootstrapped or members.list is None or not members.confirmed:
        return None
    published = {member.name for member in members.list.members if member.client_urls}
    if published != set(plan.members) or len(members.list.members) != len(plan.members):
        return None
    cluster_id = hex_id(members.list.cluster_id)
    live = judged.seen.objects.stateful_sets.get(plan.names.stateful_set)
    if cluster_id != plan.founding_id or annotations(live).get(INCARNATION) != plan.incarnation:
        return None  # what answers, or what runs it, is of a bootstrap that was given up
    step = RecordBootstrap(
        cluster_id=cluster_id,
        incarnation=plan.incarnation,
        recorded_at=timestamp(judged.seen.at),
        reason=f"all {len(plan.members)} members have joined etcd cluster {cluster_id}",
    )
    return Plan(steps=(step,))


def refound_after_change(judged: Judged) -> Plan | None:
    """Start over with the spec as it is now, when it changed before bootstrap was recorded."""
    plan = judged.blueprint
    if plan.bootstrapped or judged.problems or not judged.founded:
        return None
    if plan.applied_spec == settled_json(judged.seen.cluster.spec):
        return None
    return _refound(judged, f"{', '.join(judged.pending)} changed before the bootstrap was complete")


def refound_when_stuck(judged: Judged) -> Plan | None:
    """Start over when etcd itself shows that this bootstrap cannot succeed.

    Seen when a member is killed within milliseconds of its first write: it comes back with an empty log, and
    the members wait for each other for good.
    """
    plan = judged.blueprint
    if plan.bootstrapped:
        return None
    for member in judged.membership.members:
        if member.cannot_start and member.trouble and member.trouble.reason in HOPELESS:
            return _refound(judged, f"the bootstrap cannot succeed: {member.trouble.message}")
    if _all_run_without_a_leader(judged):
        return _refound(judged, f"no leader after {STUCK_AFTER.seconds} s with all members running")
    return None


def remove_abandoned_members(judged: Judged) -> Plan | None:
    """Take away what still runs of an abandoned bootstrap, volumes that never existed included."""
    seen, plan = judged.seen, judged.blueprint
    live = seen.objects.stateful_sets.get(plan.names.stateful_set)
    if plan.bootstrapped:
        return None
    if live is None or annotations(live).get(INCARNATION) == plan.incarnation:
        return _remove_abandoned_pods(judged)
    if foundation_on(live) is None:  # stripped of its annotations by a stray hand: the next apply puts them back
        return None
    steps: list[Step] = [
        Delete.of("StatefulSet", live, "its bootstrap was given up for a new one", propagation="Foreground")
    ]
    steps += [
        Delete.of(
            "PersistentVolumeClaim",
            claim,
            "it was never bound to a volume, and the bootstrap that wanted it was given up",
        )
        for claim in seen.objects.claims.values()
        if claim.get("status", {}).get("phase") == "Pending"
        and not claim.get("spec", {}).get("volumeName")
        and not is_terminating(claim)
    ]
    return Plan(steps=tuple(steps))


def _remove_abandoned_pods(judged: Judged) -> Plan | None:
    """Pods that outlived their StatefulSet (`kubectl delete --cascade=orphan`), and that the new one adopted."""
    steps = tuple(
        Delete.of("Pod", member.pod, "it takes part in a bootstrap that was given up")
        for member in judged.membership.members
        if member.pod is not None
        and not is_terminating(member.pod)
        and member.answer is not None
        and member.answer.status is not None
        and hex_id(member.answer.status.cluster_id) != judged.blueprint.founding_id
    )
    return Plan(steps=steps) if steps else None


def wait_for_bootstrap(judged: Judged) -> Plan | None:
    """Say how far the members are."""
    if judged.blueprint.bootstrapped:
        return None
    return Plan(
        waiting=f"Bootstrapping: {judged.membership.answering} of {len(judged.blueprint.members)} members answer"
    )


def _refound(judged: Judged, reason: str) -> Plan:
    """The new incarnation is written down first: from there on every later round knows what to take away."""
    manifest = sealed(config_map(refounded(judged.seen)))
    return Plan(steps=(Apply(manifest=manifest, absent=False, reason=f"bootstrap starts over: {reason}"),))


def _all_run_without_a_leader(judged: Judged) -> bool:
    latest: datetime | None = None
    for member in judged.membership.members:
        running = etcd_container(member.pod).get("state", {}).get("running") if member.pod else None
        if not running or member.answer is None or member.answer.status is None or member.answer.status.leader_id:
            return False
        started = datetime.fromisoformat(running["startedAt"])
        latest = max(latest or started, started)
    return latest is not None and judged.seen.at - latest > STUCK_AFTER
