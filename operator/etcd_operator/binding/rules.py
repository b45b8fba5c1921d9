"""Why a binding is not carried out, if it is not: one small function for each reason, in their order.

Pure. A reason says what a person is to change; where none applies, the wiring may be brought about.
"""

from collections.abc import Callable, Mapping

from etcd_operator.binding import arguments, control_plane_rules, wiring
from etcd_operator.binding.agent_pod import BINDING
from etcd_operator.binding.arguments import UnreadableArgumentsError
from etcd_operator.binding.comparison import Comparison
from etcd_operator.binding.observation import Seen
from etcd_operator.binding.obstacle import Obstacle, cluster_name, containers, target_name
from etcd_operator.binding.wiring import Wiring

#: Reasons whose messages tell how much two etcds hold.
COMPARED = frozenset({"DifferentData", "WritesNotStopped"})


def obstacle(seen: Seen, wanted: Wiring | None) -> Obstacle | None:
    """What Kubernetes alone tells against the binding."""
    return next((found for rule in _RULES if (found := rule(seen, wanted))), None)


def obstacle_by_etcd(
    seen: Seen, wanted: Wiring, answers: Mapping[str, str], comparison: Comparison | None
) -> Obstacle | None:
    """What the etcds themselves tell against a change."""
    return _unreachable(seen, wanted, answers) or _different_data(seen, comparison)


def is_stopped(seen: Seen) -> bool:
    """Whether the API server writes nothing more."""
    return not seen.pods and seen.workload is not None and seen.workload["spec"].get("replicas", 1) == 0


def needs_comparison(seen: Seen) -> bool:
    """Whether the API server uses something else now than this EtcdCluster below that prefix. Raises as `current`."""
    if seen.container is None or seen.cluster is None:
        return False
    return wiring.uses_another(seen.container, seen.cluster, seen.binding.spec.prefix)


def _no_cluster(seen: Seen, wanted: Wiring | None) -> Obstacle | None:
    if seen.cluster is not None and not seen.cluster.metadata.deletion_timestamp:
        return None
    gone = "there is no" if seen.cluster is None else "being deleted:"
    return Obstacle(
        reason="ClusterNotFound",
        summary="EtcdCluster not found" if seen.cluster is None else "EtcdCluster is being deleted",
        message=f"{gone} {cluster_name(seen)}; the API server is left as it is",
        waits=True,
    )


def _not_allowed(seen: Seen, wanted: Wiring | None) -> Obstacle | None:
    namespace = seen.binding.metadata.namespace
    if not wiring.is_elsewhere(seen) or (seen.cluster and namespace in seen.cluster.spec.access.bindings):
        return None
    return Obstacle(
        reason="NotAllowed",
        summary="Not allowed by the EtcdCluster",
        message=f"{cluster_name(seen)} does not allow bindings of this namespace: add {namespace} to its"
        " spec.access.bindings",
    )


def _target_taken(seen: Seen, wanted: Wiring | None) -> Obstacle | None:
    """Two bindings of one workload would undo each other's work: who wired it keeps it, else the older one has it."""
    mine = seen.as_rival
    if mine.workload is None:
        return None
    wired_by = wiring.wired_by(seen)
    for other in seen.others:
        if other.workload == mine.workload and (other.name != wired_by, other.age) < (mine.name != wired_by, mine.age):
            return Obstacle(
                reason="TargetTaken",
                summary=f"{target_name(seen.binding)} is bound already",
                message=f"ApiServerBinding {other.name} wires {target_name(seen.binding)}: delete one of the two",
            )
    return None


def _prefix_taken(seen: Seen, wanted: Wiring | None) -> Obstacle | None:
    """Two API servers that write the same keys would destroy each other's objects.

    Who runs with the prefix has it. Before that, whoever finds another that was told to use it steps back, and of those
    that were told nothing yet the younger ones do. What was told is in the status before anything is changed.
    """
    mine = seen.as_rival
    if _runs_with_it(seen):
        return None
    for other in seen.others:
        rival = other.cluster == mine.cluster and (mine.workload is None or other.workload != mine.workload)
        if rival and _overlap(other.prefix, mine.prefix) and (other.told or other.age < mine.age):
            return Obstacle(
                reason="PrefixTaken",
                summary=f"Prefix {mine.prefix} is taken",
                message=f"ApiServerBinding {other.name} in namespace {other.namespace} keeps another API server's"
                f" objects at {other.prefix} of {cluster_name(seen)}: create one with a spec.prefix of its own, neither"
                " above nor below that",
            )
    return None


def _runs_with_it(seen: Seen) -> bool:
    """Whether the API server uses this EtcdCluster below this prefix, from this binding.

    That a workload was wired by one of this name is not enough: it may have been a former one, of another EtcdCluster.
    """
    if not holds_claim(seen):
        return False
    try:
        return not needs_comparison(seen)
    except UnreadableArgumentsError:
        return True


def holds_claim(seen: Seen) -> bool:
    """Whether what was told stays told, as API servers run with it, or may; others keep off the prefix by that."""
    told = bool(seen.binding.status.arguments)
    if seen.binding.spec.target.manual is not None:
        return told
    if seen.binding.spec.target.kubeadm is None:
        return wiring.is_wired_by_it(seen)
    unknown = not seen.nodes or any(node.api_server is None for node in seen.nodes)
    noted = (wiring.annotations(each or {}) for node in seen.nodes for each in (node.api_server, node.agent))
    return told and (unknown or any(seen.identity in (each.get(wiring.BOUND_BY), each.get(BINDING)) for each in noted))


def _overlap(one: str, other: str) -> bool:
    first, second = (f"{arguments.normal_prefix(each).rstrip('/')}/" for each in (one, other))
    return first.startswith(second) or second.startswith(first)


def _not_founded(seen: Seen, wanted: Wiring | None) -> Obstacle | None:
    if wanted is not None:
        return None
    return Obstacle(
        reason="ClusterNotReady",
        summary="Waiting for the EtcdCluster",
        message=f"{cluster_name(seen)} does not serve clients yet",
        waits=True,
    )


def _no_target(seen: Seen, wanted: Wiring | None) -> Obstacle | None:
    if seen.target is None or seen.container is not None:
        return None
    named = target_name(seen.binding)
    if seen.workload is None:
        message = f"there is no {named} in namespace {seen.binding.metadata.namespace}"
        return Obstacle(reason="TargetNotFound", summary=f"{named} not found", message=message, waits=True)
    there = ", ".join(each["name"] for each in seen.workload["spec"]["template"]["spec"]["containers"])
    return Obstacle(
        reason="ContainerNotFound",
        summary=f"No container {seen.target.container}",
        message=f"{named} has no container {seen.target.container}, but {there}: name the API server's in spec.target",
    )


def _host_cluster(seen: Seen, wanted: Wiring | None) -> Obstacle | None:
    if seen.binding.spec.allow_host_cluster:
        return None
    named = [pod["metadata"]["name"] for pod in seen.pods if pod.get("status", {}).get("podIP") in seen.host_addresses]
    if seen.control_plane is not None and seen.control_plane.is_host is None:
        return Obstacle(
            reason="HostCluster",
            summary="It may be the operator's own API server",
            message="whether it is the API server of the operator's own cluster is not known, as the operator may not"
            " read namespace kube-system there: set spec.allowHostCluster: true if it is not, or if you mean it",
        )
    if seen.control_plane is not None:  # two clusters may have the same addresses, but no two the same UIDs
        named = [pod["metadata"]["name"] for pod in seen.pods] if seen.control_plane.is_host else []
    if not named:
        return None
    return Obstacle(
        reason="HostCluster",
        summary="It is the operator's own API server",
        message=f"pod {named[0]} is the API server of the cluster that this operator, and the etcd, run in: neither"
        " would come back without the other. Set spec.allowHostCluster: true to do it all the same",
    )


def _unreadable(seen: Seen, wanted: Wiring | None) -> Obstacle | None:
    for named, container in containers(seen):
        try:
            arguments.flags(container)
        except UnreadableArgumentsError as error:
            return Obstacle(
                reason="ArgumentsUnreadable", summary="Arguments cannot be set", message=f"{named}: {error}"
            )
    return None


def _overrides(seen: Seen, wanted: Wiring | None) -> Obstacle | None:
    found = next((told for _, container in containers(seen) if (told := arguments.overrides(container))), None)
    if not found:
        return None
    return Obstacle(
        reason="OverridesSet",
        summary="--etcd-servers-overrides is set",
        message=f"--etcd-servers-overrides={found} sends some resources to other servers with the same certificates;"
        " take it away and let all resources live in one EtcdCluster",
    )


def _volume_taken(seen: Seen, wanted: Wiring | None) -> Obstacle | None:
    if seen.container is None or not wiring.holds_foreign_volume(seen):
        return None
    return Obstacle(
        reason="NameTaken",
        summary=f"Volume {wiring.VOLUME} is in the way",
        message=f"{target_name(seen.binding)} has a volume {wiring.VOLUME} of its own, as the client Secret's is to be"
        " called: give it another name",
    )


def contested(seen: Seen, contender: str) -> Obstacle:
    """What is told once somebody has undone several corrections, instead of another one."""
    return Obstacle(
        reason="Contested",
        summary=f"{contender} undoes it",
        message=f"{contender} keeps putting other arguments into {target_name(seen.binding)}: let it leave"
        " command and args of the API server's container alone, or say the same; status.arguments tells them",
    )


_RULES: tuple[Callable[[Seen, Wiring | None], Obstacle | None], ...] = (
    _no_cluster,
    _not_allowed,
    control_plane_rules.target_unreachable,
    _prefix_taken,
    control_plane_rules.not_exposed,
    _not_founded,
    _no_target,
    control_plane_rules.no_nodes,
    control_plane_rules.no_image,
    _target_taken,
    control_plane_rules.control_plane_taken,
    control_plane_rules.another_cluster,
    _host_cluster,
    _unreadable,
    _overrides,
    control_plane_rules.would_split,
    _volume_taken,
)


def _unreachable(seen: Seen, wanted: Wiring, answers: Mapping[str, str]) -> Obstacle | None:
    """All must answer before the API server is sent there; one is enough to follow an etcd that it uses already."""
    silent = {server: problem for server, problem in answers.items() if problem}
    follows = not needs_comparison(seen) and seen.container is not None and bool(arguments.current(seen.container)[0])
    if not silent or (follows and len(silent) < len(answers)):
        return None
    told = "; ".join(f"{server}: {problem}" for server, problem in sorted(silent.items()))
    return Obstacle(
        reason="EndpointUnreachable",
        summary="The etcd does not answer",
        message=f"with the client certificate, {told}; the API server is left as it is",
        waits=True,
    )


def _different_data(seen: Seen, comparison: Comparison | None) -> Obstacle | None:
    if comparison is None or comparison.same_etcd or seen.binding.spec.accept_different_data:
        return None
    there = f"{target_name(seen.binding)} uses another etcd now ({comparison.servers})"
    accept = "set spec.acceptDifferentData: true to go on with what the EtcdCluster holds"
    if comparison.before is None or comparison.wanted is None:
        return Obstacle(
            reason="DataUnknown",
            summary="Its present data cannot be compared",
            message=f"{there}, whose content cannot be read: {comparison.problem}; {accept}",
        )
    before, wanted = comparison.before, comparison.wanted
    numbers = (
        f"{before.keys} keys there at revision {before.revision}, {wanted.keys} below {seen.binding.spec.prefix} of"
        f" {cluster_name(seen)} at revision {wanted.revision}"
    )
    if before.digest != wanted.digest:
        return Obstacle(
            reason="DifferentData",
            summary="The EtcdCluster holds other data",
            message=f"{there}, and the two hold different objects: {numbers}. Stop the API server and copy its data, or"
            f" {accept}",
        )
    if comparison.moving or not is_stopped(seen):
        return Obstacle(
            reason="WritesNotStopped",
            summary="Stop the API server before it moves",
            message=f"{there} with the same objects ({numbers}), but it goes on writing: scale"
            f" {target_name(seen.binding)} to 0, then back when status says Bound; or {accept}",
        )
    return None
