"""What is in the way of binding the API servers of another cluster, which kubeadm made.

Pure. One small function for each reason; `rules` has their order.
"""

from etcd_operator.binding import arguments, wiring
from etcd_operator.binding.agent_pod import BINDING
from etcd_operator.binding.observation import Seen
from etcd_operator.binding.obstacle import Obstacle, cluster_name, containers
from etcd_operator.binding.wiring import Wiring


def not_exposed(seen: Seen, wanted: Wiring | None) -> Obstacle | None:
    """Names and addresses of Services are worth nothing on nodes of other clusters, and names not even on our own."""
    cluster = seen.cluster
    if wanted is not None or seen.binding.spec.target.kubeadm is None or cluster is None:
        return None
    members = seen.binding.spec.endpoints == "Members"
    if members and cluster.spec.access.members == "Internal":
        remedy = "set spec.access.members of the EtcdCluster to NodePort"
    elif not members and (not cluster.spec.proxy.enabled or cluster.spec.proxy.service.type == "ClusterIP"):
        remedy = "set spec.proxy.service.type of the EtcdCluster to NodePort or LoadBalancer"
    elif cluster.status.bootstrap is not None:
        remedy = "its Services have no port or address yet, or the operator may not read nodes"
    else:
        return None
    return Obstacle(
        reason="NotExposed",
        summary="The etcd is not reached from outside",
        message=f"{cluster_name(seen)} is reached within its own Kubernetes only, not from a node: {remedy}",
    )


def target_unreachable(seen: Seen, wanted: Wiring | None) -> Obstacle | None:
    if seen.unreachable is None:
        return None
    told = seen.unreachable
    summaries = {"ApiServerUnreachable": "The API server does not answer", "KubeconfigNotFound": "Kubeconfig not found"}
    return Obstacle(
        reason=told.reason,
        summary=summaries.get(told.reason, "The kubeconfig cannot be used"),
        message=told.message,
        waits=told.waits,
    )


def another_cluster(seen: Seen, wanted: Wiring | None) -> Obstacle | None:
    """The target is immutable, the Secret that leads there is not."""
    bound = seen.binding.status.cluster_uid
    if seen.control_plane is None or bound in (None, seen.control_plane.uid):
        return None
    return Obstacle(
        reason="AnotherCluster",
        summary="The kubeconfig names another cluster",
        message=f"the kubeconfig leads to another cluster than the one that was bound (kube-system has the UID"
        f" {seen.control_plane.uid}, not {bound}): put the right one back, or create another binding",
    )


def would_split(seen: Seen, wanted: Wiring | None) -> Obstacle | None:
    """Nodes change one after the other: until the last has, two etcds with different data would be written to."""
    if not seen.binding.spec.accept_different_data or len(seen.nodes) < 2 or seen.cluster is None:
        return None
    for named, container in containers(seen):
        if wiring.uses_another(container, seen.cluster, seen.binding.spec.prefix):
            servers, _ = arguments.current(container)
            return Obstacle(
                reason="WouldSplit",
                summary="API servers would use two etcds at once",
                message=f"{named} uses another etcd ({servers}), and of several nodes one is changed after the other:"
                " stop all API servers, bring their data into the EtcdCluster, start them with"
                " status.endpoints.external of it, and take spec.acceptDifferentData away",
            )
    return None


def no_nodes(seen: Seen, wanted: Wiring | None) -> Obstacle | None:
    target = seen.binding.spec.target.kubeadm
    if target is None:
        return None
    labels = ",".join(f"{key}={value}" if value else key for key, value in sorted(target.node_selector.items()))
    if not seen.nodes:
        return Obstacle(
            reason="NoControlPlane",
            summary="No control-plane nodes",
            message=f"no node of that cluster has the labels {labels}: name others in a new binding",
        )
    if not any(node.api_server for node in seen.nodes):
        return Obstacle(
            reason="NoControlPlane",
            summary="No static API servers",
            message=f"none of the nodes {', '.join(node.name for node in seen.nodes)} runs a kube-apiserver as a static"
            " pod, as kubeadm makes them (labels component=kube-apiserver, tier=control-plane in kube-system)",
        )
    return None


def no_image(seen: Seen, wanted: Wiring | None) -> Obstacle | None:
    if seen.binding.spec.target.kubeadm is None or seen.agent_image:
        return None
    return Obstacle(
        reason="AgentImageUnknown",
        summary="The operator's image is not known",
        message="what changes manifests on nodes runs from the operator's image, which cannot be read from its own pod:"
        " set AGENT_IMAGE on the operator",
    )


def control_plane_taken(seen: Seen, wanted: Wiring | None) -> Obstacle | None:
    """The same of another cluster's nodes, however two bindings may call that cluster; whoever is gone has nothing."""
    others = {other.identity for other in seen.others}
    for node in seen.nodes:
        for holder, key in ((node.api_server, wiring.BOUND_BY), (node.agent, BINDING)):
            named = wiring.annotations(holder or {}).get(key, "")
            if named in others:
                return Obstacle(
                    reason="TargetTaken",
                    summary=f"Node {node.name} is bound already",
                    message=f"ApiServerBinding {named} wires the API server on node {node.name}: delete one of the two",
                )
    return None
