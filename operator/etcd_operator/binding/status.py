"""The status of an ApiServerBinding, from one observation and what came of it.

Pure. Times of conditions are carried over from the status that stands while the condition does.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from etcd_operator.api import ApiServerBindingStatus, Condition, InstanceStatus
from etcd_operator.binding import arguments
from etcd_operator.binding.arguments import UnreadableArgumentsError
from etcd_operator.binding.observation import Seen
from etcd_operator.binding.obstacle import Obstacle, cluster_name, target_name
from etcd_operator.binding.rules import COMPARED, holds_claim
from etcd_operator.binding.wiring import AUTHORITY, Wiring
from etcd_operator.resources.names import GROUP, Manifest


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What is told: a condition's state, one word, a few words, a sentence; needs_person: nothing here cures it."""

    bound: str
    reason: str
    summary: str
    message: str
    needs_person: bool = False


def verdict(
    seen: Seen,
    wanted: Wiring | None,
    stands: Obstacle | None,
    instances: tuple[InstanceStatus, ...],
    *,
    pending: bool,
    note: str = "",
) -> Verdict:
    """What has become of the binding.

    pending: something was written in this round, or is about to be; note: what is waited for, where that is known.
    """
    ready, total = _count(seen, instances)
    if stands is not None:
        uses = "Unknown" if seen.unreachable else "True" if wanted and total and ready == total else "False"
        return Verdict(
            bound=uses,
            reason=stands.reason,
            summary=stands.summary,
            message=stands.message,
            needs_person=not stands.waits,
        )
    if seen.binding.spec.target.manual is not None:
        return Verdict(
            bound="Unknown",
            reason="Manual",
            summary="Set status.arguments by hand",
            message="nobody here sees the API server: give it status.arguments, and the files of the Secret that"
            " status.secretName names",
        )
    if not pending and ready == total and all(each.bound for each in instances):
        running = f"all {total} instances use" if total else "it runs no instance; each will use"
        return Verdict(bound="True", reason="Bound", summary="Bound", message=f"{running} {cluster_name(seen)}")
    return Verdict(
        bound="False",
        reason="RollingOut",
        summary=f"Rolling out: {ready} of {total}",
        message=f"{ready} of {total} instances are ready and use {cluster_name(seen)}"
        f"{f'; {note}' if note else _why_not(seen, instances)}",
    )


def instances(seen: Seen, wanted: Wiring | None) -> tuple[InstanceStatus, ...]:
    """The API server's pods that are not ending, by name."""
    staying = [pod for pod in seen.pods if not pod["metadata"].get("deletionTimestamp")]
    return tuple(sorted((_instance(seen, pod, wanted) for pod in staying), key=lambda each: each.name))


def status(
    seen: Seen, wanted: Wiring | None, told: Verdict, pods: tuple[InstanceStatus, ...], *, allowed: bool
) -> ApiServerBindingStatus:
    """Everything that was observed."""
    ready, total = _count(seen, pods)
    degraded = Verdict(
        bound="True" if told.needs_person else "False",
        reason=told.reason if told.needs_person else "AsExpected",
        summary="",
        message=told.message if told.needs_person else "nothing needs a person",
    )
    return ApiServerBindingStatus(
        observed_generation=seen.binding.metadata.generation,
        target=target_name(seen.binding),
        summary=told.summary,
        ready=None if seen.workload is None and seen.control_plane is None else f"{ready}/{total}",
        secret_name=wanted.secret if wanted else None,
        authority=wanted.authority if wanted and told.bound == "True" else seen.binding.status.authority,
        cluster_uid=_cluster_uid(seen, allowed=allowed),
        arguments=_arguments(seen, wanted, allowed=allowed),
        instances=pods,
        conditions=(_condition(seen, "Bound", told), _condition(seen, "Degraded", degraded)),
    )


def has_changed(new: ApiServerBindingStatus, seen: Seen) -> bool:
    """Whether the status must be written. Revisions of an etcd that lives ride along, they do not cause a change."""
    return _without_revisions(as_json(new)) != _without_revisions(seen.raw.get("status") or {})


def _without_revisions(told: dict[str, Any]) -> dict[str, Any]:
    conditions = [
        {key: value for key, value in each.items() if key != "message" or each["reason"] not in COMPARED}
        for each in told.get("conditions") or ()
    ]
    return {**told, "conditions": conditions}


def _arguments(seen: Seen, wanted: Wiring | None, *, allowed: bool) -> tuple[str, ...]:
    """They are told once nothing forbids them, and stay told to an API server that runs with them."""
    if wanted and allowed:
        return wanted.arguments
    return seen.binding.status.arguments if holds_claim(seen) else ()


def _cluster_uid(seen: Seen, *, allowed: bool) -> str | None:
    """It is told together with the first arguments, and never changes."""
    found = seen.control_plane.uid if seen.control_plane and allowed else None
    return seen.binding.status.cluster_uid or found


def status_manifest(seen: Seen, told: ApiServerBindingStatus) -> Manifest:
    """The manifest that makes it the status of this very object, and of no later one of its name."""
    metadata = seen.raw["metadata"]
    return {
        "apiVersion": f"{GROUP}/v1alpha1",
        "kind": "ApiServerBinding",
        "metadata": {"name": metadata["name"], "namespace": metadata["namespace"], "uid": metadata["uid"]},
        "status": as_json(told),
    }


def as_json(told: ApiServerBindingStatus) -> dict[str, Any]:
    """As the API server keeps it."""
    full: dict[str, Any] = told.model_dump(by_alias=True, exclude_none=True, mode="json")
    return {key: value for key, value in full.items() if value not in ([], {})}


def _instance(seen: Seen, pod: Manifest, wanted: Wiring | None) -> InstanceStatus:
    container = seen.container_of(pod)
    try:
        flags = arguments.flags(container) if container else {}
    except UnreadableArgumentsError:
        flags = {}
    authority = (pod["metadata"].get("annotations") or {}).get(AUTHORITY, "")
    as_wanted = wanted is not None and authority == wanted.authority
    as_wanted = as_wanted and all(flags.get(flag) == value for flag, value in (wanted.flags if wanted else {}).items())
    started = pod.get("status", {}).get("startTime")
    return InstanceStatus(
        name=pod["metadata"]["name"],
        node=pod["spec"].get("nodeName"),
        ready=is_ready(pod),
        bound=as_wanted,
        etcd_servers=flags.get("etcd-servers"),
        since=datetime.fromisoformat(started) if started else None,
    )


def is_ready(pod: Manifest | None) -> bool:
    """What a pod, or a node, says of itself."""
    conditions = (pod or {}).get("status", {}).get("conditions") or ()
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def _count(seen: Seen, pods: tuple[InstanceStatus, ...]) -> tuple[int, int]:
    """Instances that are ready and as wanted, and how many there are to be."""
    wanted = seen.workload["spec"].get("replicas", 1) if seen.workload else len(seen.nodes)
    return sum(each.ready and each.bound for each in pods), int(wanted)


def _why_not(seen: Seen, pods: tuple[InstanceStatus, ...]) -> str:
    """What the first pod that is not ready says of itself."""
    for each in pods:
        if each.bound and not each.ready:
            pod = next(pod for pod in seen.pods if pod["metadata"]["name"] == each.name)
            for container in pod.get("status", {}).get("containerStatuses") or ():
                waiting = container.get("state", {}).get("waiting")
                if waiting:
                    return f"; {each.name}: {waiting.get('reason', 'waiting')} {waiting.get('message', '')}".rstrip()
            return f"; {each.name} is not ready yet"
    old = [each.name for each in pods if not each.bound]
    return f"; with other arguments run {', '.join(old)}" if old else ""


def _condition(seen: Seen, kind: str, told: Verdict) -> Condition:
    before = next((each for each in seen.binding.status.conditions if each.type == kind), None)
    same = before is not None and before.status == told.bound
    return Condition(
        type=kind,
        status=told.bound,
        reason=told.reason,
        message=told.message,
        last_transition_time=before.last_transition_time if before and same else seen.at,
        observed_generation=seen.binding.metadata.generation,
    )
