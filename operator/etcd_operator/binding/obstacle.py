"""Why a binding is not carried out, as a value, and how messages name what it is about.

Pure.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from etcd_operator.api import ApiServerBinding
from etcd_operator.binding import wiring
from etcd_operator.binding.observation import Seen
from etcd_operator.resources.names import Manifest


@dataclass(frozen=True, kw_only=True, slots=True)
class Obstacle:
    """Why nothing is changed now; `waits`: it passes without a person."""

    reason: str
    summary: str
    message: str
    waits: bool = False


def target_name(binding: ApiServerBinding) -> str:
    """The API server in a word."""
    target = binding.spec.target
    if target.deployment:
        return f"deployment/{target.deployment.name}"
    if target.kubeadm:
        return f"kubeadm/{target.kubeadm.kubeconfig_ref.name}"
    return f"statefulset/{target.stateful_set.name}" if target.stateful_set else "manual"


def cluster_name(seen: Seen) -> str:
    """The EtcdCluster as a message names it."""
    reference = seen.binding.spec.cluster_ref
    home = f" in namespace {reference.namespace}" if wiring.is_elsewhere(seen) else ""
    return f"EtcdCluster {reference.name}{home}"


def containers(seen: Seen) -> Iterator[tuple[str, Manifest]]:
    """The containers whose arguments are to be set, and where they are."""
    if seen.container is not None:
        yield target_name(seen.binding), seen.container
    for node in seen.nodes:
        if node.api_server is not None and (container := seen.container_of(node.api_server)):
            yield f"node {node.name}", container
