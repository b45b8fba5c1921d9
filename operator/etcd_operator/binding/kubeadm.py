"""What to do next about the control plane of a cluster that kubeadm made: one node at a time, the sick one first.

Pure: no clock but `seen.at`. What was done shows in the other cluster: in the static pods, and in the agents, which
stay when they are done. So there is nothing to remember, and a crash costs at most an agent that changes nothing.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from etcd_operator.agent.plan import FILES, Plan, Result
from etcd_operator.binding import arguments
from etcd_operator.binding.agent_pod import BINDING, CONTAINER, PLAN_DIGEST, agent_name
from etcd_operator.binding.arguments import ETCD_FLAGS, split_servers
from etcd_operator.binding.kubeadm_config import original_flags
from etcd_operator.binding.observation import ControlPlaneNode, Seen
from etcd_operator.binding.obstacle import Obstacle
from etcd_operator.binding.status import is_ready
from etcd_operator.binding.wiring import (
    AUTHORITY,
    BOUND_BY,
    ORIGINAL,
    Wiring,
    annotations,
    external_servers,
    noted_flags,
    told_servers,
)
from etcd_operator.resources.names import Manifest

#: How long a node is left alone after its agent failed, by what it told; all others longer.
_AGAIN = {
    "EndpointUnreachable": timedelta(seconds=30),
    "DifferentData": timedelta(minutes=1),
    "WritesNotStopped": timedelta(minutes=1),
    "DataUnknown": timedelta(minutes=1),
    "AnotherEtcd": timedelta(minutes=1),
}
_MUCH_LATER = timedelta(minutes=10)
#: How long the kubelet may take to tell of a static pod that it has started already.
_LAG = timedelta(minutes=1)
#: Seconds until a node that is down is looked at again.
_LATER = 5.0


@dataclass(frozen=True, kw_only=True, slots=True)
class StartAgent:
    """Change a node's manifest."""

    node: str
    plan: Plan
    files: Mapping[str, bytes] = field(repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class DropAgent:
    """Take an agent away, so that another one can start; drifted: what it had done was undone by somebody."""

    node: str
    pod: Manifest
    drifted: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class DropSecret:
    """Take away what an agent that ended was told."""

    name: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Wait:
    """Something is under way; the message says what. seconds: until it is worth another look."""

    message: str
    seconds: float = 1.0


Move = StartAgent | DropAgent | DropSecret | Wait | Obstacle


def move(seen: Seen, wanted: Wiring) -> Move | None:
    """The next step that wires the nodes, `None` when all are. Raises `UnreadableArgumentsError`."""
    files = {name: seen.access[name] for name in FILES.values()} if wanted.authority else {}
    return _next(seen, {node.name: _plan(seen, node, wanted) for node in seen.nodes}, files)


def move_back(seen: Seen) -> Move | None:
    """The next step that gives the nodes their former arguments again, `None` when all have them and no agent is left.

    Raises `UnreadableArgumentsError`, and ValueError for a note that somebody spoiled.
    """
    former = _former_flags(seen)
    if len({flags.get("etcd-servers") for flags in former.values()}) > 1:
        raise ValueError("its nodes had different etcds before, which would make two clusters of one")
    plans = {
        node.name: Plan(
            flags=former[node.name],
            annotations=dict.fromkeys((ORIGINAL, BOUND_BY, AUTHORITY)),
            before=_flags(seen, node),
            check=False,
            patience=_patience(seen),
        )
        for node in seen.nodes
        if node.name in former and not _has_back(seen, node, former[node.name])
    }
    if step := _next(seen, plans, {}):
        return step
    agents = ((node, node.agent) for node in seen.nodes if node.agent is not None)
    mine = ((node, pod) for node, pod in agents if annotations(pod).get(BINDING) == seen.identity)
    return next((DropAgent(node=node.name, pod=pod) for node, pod in mine), None)


def _former_flags(seen: Seen) -> dict[str, dict[str, str | None]]:
    """What each node is to have again that uses this etcd because of the binding; none where it wired none."""
    names = sorted(ETCD_FLAGS & {each.partition("=")[0].removeprefix("--") for each in seen.binding.status.arguments})
    own = [node for node in seen.nodes if annotations(node.api_server or {}).get(BOUND_BY) == seen.identity]
    known = seen.control_plane.configuration if seen.control_plane else None
    if not own and original_flags(known or {}, seen.identity) is None:
        return {}
    mine = [node for node in seen.nodes if node in own or _uses_it(seen, node)]
    return {node.name: noted_flags(_original(seen, node, names)) for node in mine}


def _has_back(seen: Seen, node: ControlPlaneNode, former: Mapping[str, str | None]) -> bool:
    """Whether the node has its former flags, and no note of the binding."""
    told = _flags(seen, node)
    as_before = all(told.get(name) == value for name, value in former.items())
    return as_before and annotations(node.api_server or {}).get(BOUND_BY) != seen.identity


def is_wired(seen: Seen, node: ControlPlaneNode, flags: Mapping[str, str | None], authority: str) -> bool:
    """Whether the node's API server runs with these arguments, from this binding."""
    if node.api_server is None:
        return False
    told, noted = _flags(seen, node), annotations(node.api_server)
    as_told = all(told.get(flag) == value for flag, value in flags.items())
    return as_told and noted.get(BOUND_BY) == seen.identity and noted.get(AUTHORITY, "") == authority


def _flags(seen: Seen, node: ControlPlaneNode) -> dict[str, str]:
    container = seen.container_of(node.api_server) if node.api_server else None
    return arguments.flags(container) if container else {}


def _plan(seen: Seen, node: ControlPlaneNode, wanted: Wiring) -> Plan:
    before = _flags(seen, node)
    assert seen.cluster is not None
    return Plan(
        flags=dict(wanted.flags),
        annotations={
            ORIGINAL: _original(seen, node, list(wanted.flags)),
            BOUND_BY: seen.identity,
            AUTHORITY: wanted.authority or None,
        },
        before=before,
        ours=tuple(sorted(external_servers(seen.cluster))),
        cluster_id=seen.cluster.status.bootstrap.cluster_id if seen.cluster.status.bootstrap else "",
        accept_different_data=seen.binding.spec.accept_different_data,
        patience=_patience(seen),
    )


def _original(seen: Seen, node: ControlPlaneNode, names: Sequence[str]) -> str:
    """The flags that the node had before it was bound, as JSON.

    kubeadm writes manifests anew when it upgrades or joins a node, with the etcd that it was told of and without our
    note: such a node had what the other nodes had, or what kubeadm knew then.
    """
    own = annotations(node.api_server or {})
    if own.get(BOUND_BY) == seen.identity and ORIGINAL in own:
        return own[ORIGINAL]
    if _uses_it(seen, node):
        noted = (annotations(each.api_server or {}) for each in seen.nodes)
        others = [each[ORIGINAL] for each in noted if each.get(BOUND_BY) == seen.identity and ORIGINAL in each]
        if others:
            return others[0]
        known = seen.control_plane.configuration if seen.control_plane else None
        if (flags := original_flags(known or {}, seen.identity)) is not None:
            return json.dumps({name: flags.get(name) for name in names}, sort_keys=True)
    before = _flags(seen, node)
    return json.dumps({name: before.get(name) for name in names}, sort_keys=True)


def _uses_it(seen: Seen, node: ControlPlaneNode) -> bool:
    """Whether the node's API server sends its requests to this EtcdCluster and nowhere else."""
    servers = split_servers(_flags(seen, node).get("etcd-servers", ""))
    ours = {*told_servers(seen), *(external_servers(seen.cluster) if seen.cluster else ())}
    return bool(servers) and set(servers) <= ours


def _patience(seen: Seen) -> float:
    target = seen.binding.spec.target.kubeadm
    assert target is not None
    return target.ready_within.total_seconds()


def _next(seen: Seen, plans: Mapping[str, Plan], files: Mapping[str, bytes]) -> Move | None:
    """The step for whichever node is due, while all other API servers are well.

    A kubelet may reach its cluster by its own node's API server alone (kubeadm's ControlPlaneKubeletLocalMode). So a
    node that seems to be down may be one whose API server did not survive a change: it is waited for, as is an agent
    that does not answer, lest the same change takes down one node after the other.
    """
    digests = {name: plan.digest(files) for name, plan in plans.items()}
    for node in seen.nodes:
        if node.agent is not None and (busy := _agent(seen, node, node.agent, digests.get(node.name, ""))):
            return busy
    unsettled = [node for node in seen.nodes if node.name in plans and not _settled(seen, node, plans, digests)]
    sick = [node.name for node in seen.nodes if not (node.ready and is_ready(node.api_server))]
    for node in sorted(unsettled, key=lambda each: each.name not in sick):
        if others := [name for name in sick if name != node.name]:
            return Wait(message=f"the API server on {others[0]} is not ready: one at a time", seconds=_LATER)
        if not node.ready:
            return Wait(message=f"node {node.name} is not ready", seconds=_LATER)
        return _renew(seen, node, plans[node.name], files)
    return None


def _renew(seen: Seen, node: ControlPlaneNode, plan: Plan, files: Mapping[str, bytes]) -> Move:
    """Have an agent do what the node needs; one that did just that before is waited for, or was undone."""
    if node.agent is None:
        return StartAgent(node=node.name, plan=plan, files=files)
    did_it = annotations(node.agent).get(PLAN_DIGEST) == plan.digest(files)
    ended = _ended(node.agent)
    if did_it and ended and seen.at - ended[0] < _LAG:
        return Wait(message=f"node {node.name} has yet to tell of its new API server")
    changed = any(_flags(seen, node).get(name) != value for name, value in plan.flags.items())
    return DropAgent(node=node.name, pod=node.agent, drifted=did_it and changed)


def _agent(seen: Seen, node: ControlPlaneNode, pod: Manifest, digest: str) -> Move | None:
    """What an agent that is there has to say; `None` once it is done, and nothing of it is in the way."""
    name, ended = agent_name(node.name), _ended(pod)
    if ended is None:
        if pod["metadata"].get("deletionTimestamp") or pod.get("status", {}).get("phase") != "Pending":
            return Wait(message=f"pod {name} in kube-system works on node {node.name}{_why(pod)}")
        if _digest(pod) != digest:
            return DropAgent(node=node.name, pod=pod)  # it has not begun, and is to do something else now
        return Wait(message=f"pod {name} in kube-system is to start on node {node.name}{_why(pod)}")
    if name in (seen.control_plane.secrets if seen.control_plane else ()):
        return DropSecret(name=name)
    at, result = ended
    if result is not None and result.succeeded:
        return None
    reason = result.reason if result else "Failed"
    if _digest(pod) != digest or seen.at - at >= _AGAIN.get(reason, _MUCH_LATER):
        return DropAgent(node=node.name, pod=pod)
    told = result.message if result else f"pod {name} in kube-system failed: {_said(pod)}"
    return Obstacle(
        reason=reason,
        summary=f"Node {node.name}: {reason}",
        message=f"node {node.name}: {told}",
        waits=reason == "EndpointUnreachable",
    )


def _settled(seen: Seen, node: ControlPlaneNode, plans: Mapping[str, Plan], digests: Mapping[str, str]) -> bool:
    plan, pod = plans[node.name], node.agent
    if pod is None or _digest(pod) != digests[node.name]:
        return False
    return is_wired(seen, node, plan.flags, plan.annotations.get(AUTHORITY) or "")


def _ended(pod: Manifest) -> tuple[datetime, Result | None] | None:
    """When an agent ended and what it told; `None` while it has not. Also of one that was ended, or never began."""
    status = pod.get("status", {})
    if status.get("phase") not in ("Succeeded", "Failed"):
        return None
    for container in status.get("containerStatuses") or ():
        ended = container.get("state", {}).get("terminated")
        if container["name"] == CONTAINER and ended:
            at = ended.get("finishedAt") or pod["metadata"]["creationTimestamp"]
            return datetime.fromisoformat(at), _result(ended.get("message", ""))
    return datetime.fromisoformat(status.get("startTime") or pod["metadata"]["creationTimestamp"]), None


def _result(message: str) -> Result | None:
    try:
        return Result.parse(message)
    except ValueError:
        return None


def _said(pod: Manifest) -> str:
    """Whatever Kubernetes has of an agent that told nothing itself."""
    status = pod.get("status", {})
    for container in status.get("containerStatuses") or ():
        ended = container.get("state", {}).get("terminated") or {}
        if ended.get("message") or ended.get("reason"):
            return str(ended.get("message") or ended["reason"]).strip()[-500:]
    return str(status.get("message") or status.get("reason") or "it told nothing")


def _why(pod: Manifest) -> str:
    for container in pod.get("status", {}).get("containerStatuses") or ():
        waiting = container.get("state", {}).get("waiting") or {}
        if waiting.get("reason") not in (None, "ContainerCreating", "PodInitializing"):
            return f": {waiting['reason']} {waiting.get('message', '')}".rstrip()
    return ""


def _digest(pod: Manifest) -> str:
    return annotations(pod).get(PLAN_DIGEST, "")
