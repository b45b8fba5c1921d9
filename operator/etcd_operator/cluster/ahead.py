"""The pod that is made ahead of etcd's list: that of the next member, while the one before it joins.

Pure. Members join one after the other, but a new volume takes half of the time that a member needs, and can be made
meanwhile. Such a pod has no file, as no member of etcd has its name yet, so its etcd exits at once should it start too
early: then the pod goes, and leaves the volume for which it was made. It is never made for a volume that anybody's data
may be on.
"""

from dataclasses import replace

from etcd_operator.cluster.observation import Observation
from etcd_operator.cluster.records import annotations, is_terminating
from etcd_operator.cluster.settled import is_small
from etcd_operator.cluster.trouble import etcd_container
from etcd_operator.etcd.options import MANY_LEARNERS, minor_number
from etcd_operator.resources.blueprint import Blueprint
from etcd_operator.resources.names import CLUSTER_ID, Manifest


def with_upcoming(seen: Observation, plan: Blueprint) -> Blueprint:
    """The blueprint with the member whose pod is to be there before etcd knows of it, if there is one."""
    wanted = seen.names.members(seen.cluster.spec.members)
    if not plan.bootstrapped or plan.in_memory or plan.replicas >= len(wanted) or not _is_steady(seen, plan):
        return plan
    name = wanted[plan.replicas]
    claim, pod = seen.objects.claims.get(seen.names.claim(name)), seen.objects.pods.get(name)
    if claim is not None and not _is_new(seen, claim):
        return plan
    if pod is not None:
        return plan if _has_exited(pod) else replace(plan, upcoming=name)
    joins = any(plan.seat(member).joining and _is_bound(seen, member) for member in plan.members)
    return replace(plan, upcoming=name) if joins and not _is_bound(seen, name) else plan


def _is_steady(seen: Observation, plan: Blueprint) -> bool:
    """Whether nothing else changes, and the next member need not wait for a vote of the one before."""
    wanted = seen.cluster.spec
    restarting = any(plan.revision_of(member) != plan.target_revision for member in plan.members)
    growing = plan.spec.storage.size < wanted.storage.size
    recovering = plan.recovery is not None and plan.recovery.active
    return not (restarting or growing or recovering) and minor_number(plan.oldest_version) >= MANY_LEARNERS


def _is_new(seen: Observation, claim: Manifest) -> bool:
    """Whether nothing is known to be on a volume, and it may stay."""
    return not (is_terminating(claim) or CLUSTER_ID in annotations(claim) or is_small(claim, seen.cluster.spec))


def _is_bound(seen: Observation, member: str) -> bool:
    """Whether its volume is there. That of a member that joins: it starts before the next one's can be there."""
    claim = seen.objects.claims.get(seen.names.claim(member))
    return claim is not None and claim.get("status", {}).get("phase") == "Bound"


def _has_exited(pod: Manifest) -> bool:
    """Whether its etcd has ended once already."""
    container = etcd_container(pod)
    return "terminated" in container.get("state", {}) or "terminated" in container.get("lastState", {})
