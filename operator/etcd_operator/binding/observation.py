"""What one round saw of a binding: everything that its rules may judge by, and nothing else.

Pure. What was not read is `None`, or absent from its mapping; what could not be read is told by its text.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from etcd_operator.api import ApiServerBinding, EtcdCluster, WorkloadTarget
from etcd_operator.resources.names import Manifest


@dataclass(frozen=True, kw_only=True, slots=True)
class Rival:
    """Another binding, of the same EtcdCluster or of the same workload, whatever release wrote it.

    prefix: where its API server keeps its objects; told: whether that API server was told so.
    """

    namespace: str
    name: str
    age: tuple[str, str]
    cluster: tuple[str, str]
    target: Manifest
    prefix: str
    told: bool

    @classmethod
    def of(cls, raw: Manifest) -> "Rival":
        """From the object as the API server has it."""
        metadata, spec = raw["metadata"], raw.get("spec") or {}
        reference = spec.get("clusterRef") or {}
        told = [str(each) for each in (raw.get("status") or {}).get("arguments") or ()]
        named = next((each.partition("=")[2] for each in told if each.startswith("--etcd-prefix=")), "")
        return cls(
            namespace=metadata["namespace"],
            name=metadata["name"],
            age=(str(metadata.get("creationTimestamp") or ""), str(metadata.get("uid") or "")),
            cluster=(reference.get("namespace") or metadata["namespace"], reference.get("name", "")),
            target=spec.get("target") or {},
            prefix=named or spec.get("prefix") or "/registry",
            told=bool(told),
        )

    @property
    def identity(self) -> str:
        """What tells it from all others, also from former ones of its name and those of other clusters."""
        return f"{self.namespace}/{self.name}/{self.age[1][:8]}"

    @property
    def workload(self) -> tuple[str, str, str] | None:
        """Namespace, kind and name of its Deployment or StatefulSet; of the Secret that opens another cluster."""
        for kind in ("deployment", "statefulSet"):
            if kind in self.target:
                return self.namespace, kind, str(self.target[kind].get("name", ""))
        if "kubeadm" in self.target:
            return self.namespace, "kubeadm", str((self.target["kubeadm"].get("kubeconfigRef") or {}).get("name", ""))
        return None


@dataclass(frozen=True, kw_only=True, slots=True)
class ControlPlaneNode:
    """A node of another cluster that runs an API server.

    ready: whether its kubelet works. api_server: its static pod, as that cluster tells it; agent: the pod that changes
    its manifest, or did so last.
    """

    name: str
    ready: bool
    api_server: Manifest | None
    agent: Manifest | None


@dataclass(frozen=True, kw_only=True, slots=True)
class ControlPlane:
    """What there is of a control plane that kubeadm made.

    uid: of its kube-system, which no other cluster has. access: which version of which kubeconfig led there. is_host:
    whether it is the cluster that the operator runs in, `None` where it may not know. secrets: names of those that
    agents were given. configuration: the ConfigMap by which kubeadm upgrades it.
    """

    uid: str
    access: tuple[str, str]
    is_host: bool | None
    nodes: tuple[ControlPlaneNode, ...]
    secrets: frozenset[str]
    configuration: Manifest | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Unreachable:
    """Why nothing is known of another cluster; waits: it may pass without a person."""

    reason: str
    message: str
    waits: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """One observation of a binding, by Kubernetes alone."""

    binding: ApiServerBinding
    raw: Manifest
    at: datetime
    #: The EtcdCluster, `None` where there is none of that name.
    cluster: EtcdCluster | None
    #: What its client Secret holds; empty while it is not there, or without TLS.
    access: Mapping[str, bytes]
    #: The copy of that in the binding's own namespace, where the EtcdCluster is in another one.
    copy: Manifest | None
    #: All other bindings that name the same EtcdCluster or the same workload.
    others: tuple[Rival, ...]
    #: The Deployment or StatefulSet, `None` where there is none, or where the target is none of them.
    workload: Manifest | None
    #: The API server's pods that run or are to run, also those that are ending: they write until they are gone.
    pods: tuple[Manifest, ...]
    #: Addresses at which the API server of this Kubernetes answers.
    host_addresses: frozenset[str]
    #: The control plane of the cluster that the target names by a kubeconfig; why it is not known.
    control_plane: ControlPlane | None = None
    unreachable: Unreachable | None = None
    #: What agents run from; empty where that is not known, or not needed.
    agent_image: str = ""

    @property
    def target(self) -> WorkloadTarget | None:
        """The workload that is named, if it is one."""
        return self.binding.spec.target.deployment or self.binding.spec.target.stateful_set

    @property
    def identity(self) -> str:
        """The binding, as other clusters are told of it; a later one of its name is another one."""
        return self.as_rival.identity

    @property
    def nodes(self) -> tuple[ControlPlaneNode, ...]:
        """The nodes of the other cluster's control plane; none where it is not known."""
        return self.control_plane.nodes if self.control_plane else ()

    @property
    def as_rival(self) -> Rival:
        """This one, as others see it."""
        return Rival.of(self.raw)

    @property
    def container(self) -> Manifest | None:
        """The API server's container in the workload's template."""
        if self.target is None or self.workload is None:
            return None
        return self.container_of(self.workload["spec"]["template"])

    def container_of(self, pod: Manifest) -> Manifest | None:
        """The API server's container in a pod, or in a template for pods."""
        name = self.target.container if self.target else "kube-apiserver"
        listed: list[Manifest] = pod["spec"]["containers"]
        return next((each for each in listed if each["name"] == name), None)
