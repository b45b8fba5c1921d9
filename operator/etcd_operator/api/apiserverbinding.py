"""The ApiServerBinding: this kube-apiserver uses that EtcdCluster.

Pure. The source of `crds/apiserverbindings.yaml`; what is written here is what `kubectl explain` prints.
"""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, WithJsonSchema

from etcd_operator.api.apiserverbinding_status import ApiServerBindingStatus
from etcd_operator.api.base import API_VERSION, ApiModel, Column, KindInfo, ObjectMeta, Rule
from etcd_operator.api.rules import is_duration
from etcd_operator.api.units import Duration

_NAME = Field(min_length=1, max_length=253)


#: Whatever an API server was told to use, and that it uses it, belongs to one binding from its first to its last day.
_IMMUTABLE = Rule(
    "self == oldSelf", "is immutable: the API server would find other data there; delete the binding and create another"
)


class ClusterReference(ApiModel):
    """An EtcdCluster, maybe of another namespace."""

    rules: ClassVar[tuple[Rule, ...]] = (_IMMUTABLE,)

    name: Annotated[str, _NAME]
    """Name of the EtcdCluster."""
    namespace: Annotated[str, Field(min_length=1, max_length=63)] | None = None
    """Its namespace, the binding's own where it is left out; another one must allow it in spec.access.bindings."""


class WorkloadTarget(ApiModel):
    """A workload that runs the kube-apiserver, in the binding's own namespace."""

    name: Annotated[str, _NAME]
    """Name of the Deployment or StatefulSet."""
    container: Annotated[str, Field(min_length=1, max_length=63)] = "kube-apiserver"
    """The container whose arguments are set."""


class KubeconfigReference(ApiModel):
    """A Secret in the binding's own namespace that holds a kubeconfig."""

    name: Annotated[str, _NAME]
    """Name of the Secret."""
    key: Annotated[str, Field(min_length=1, max_length=253, pattern="^[-._a-zA-Z0-9]+$")] = "kubeconfig"
    """Which of its entries."""


_NODE_LABELS = {
    "type": "object",
    "maxProperties": 8,
    "additionalProperties": {"type": "string", "maxLength": 63},
}


_LONG_ENOUGH = Rule(
    f"{is_duration('self')} && duration(self) >= duration('30s') && duration(self) <= duration('1h')",
    "must be a duration between 30s and 1h, such as 3m",
)


class KubeadmTarget(ApiModel):
    """The static pods of a cluster that kubeadm made: a short-lived pod on each node changes the node's manifest."""

    kubeconfig_ref: KubeconfigReference
    """An administrator's access to that cluster; credentials in the kubeconfig itself, no programs and no files."""
    node_selector: Annotated[dict[str, str], WithJsonSchema(_NODE_LABELS)] = Field(
        default_factory=lambda: {"node-role.kubernetes.io/control-plane": ""}
    )
    """Labels of the nodes that run the API servers."""
    ready_within: Annotated[Duration, _LONG_ENOUGH] = Duration("3m")
    """How long an API server may take to start; after that the node gets its former manifest back."""


class ManualTarget(ApiModel):
    """A kube-apiserver that nothing here reaches."""


class BindingTarget(ApiModel):
    """Which kube-apiserver it is about: exactly one of these."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "[has(self.deployment), has(self.statefulSet), has(self.kubeadm), has(self.manual)]"
            ".filter(each, each).size() == 1",
            "must name exactly one of deployment, statefulSet, kubeadm and manual",
        ),
        _IMMUTABLE,
    )

    deployment: WorkloadTarget | None = None
    """A hosted control plane's Deployment."""
    stateful_set: WorkloadTarget | None = None
    """A hosted control plane's StatefulSet."""
    kubeadm: KubeadmTarget | None = None
    """Another cluster, whose control plane kubeadm made."""
    manual: ManualTarget | None = None
    """An API server that a person configures, such as a systemd unit: status.arguments tells what to set."""


class ApiServerBindingSpec(ApiModel):
    """Which kube-apiserver uses which etcd, and how."""

    cluster_ref: ClusterReference
    """The etcd."""
    endpoints: Literal["Proxy", "Members"] = "Proxy"
    """Proxy: the one address that never changes. Members: every member's address, followed as members come and go."""
    prefix: Annotated[
        str,
        Field(min_length=2, max_length=256, pattern="^(/[A-Za-z0-9_-][A-Za-z0-9._-]*)+$"),
        _IMMUTABLE,
    ] = "/registry"
    """Where in the etcd this API server keeps its objects (--etcd-prefix): several can share one etcd."""
    accept_different_data: bool = False
    """Go on even though the etcd that the API server uses now holds other objects, which it will not see any more."""
    allow_host_cluster: bool = False
    """Go on even though it is the API server that the operator itself depends on."""
    on_delete: Literal["Keep", "Restore"] = "Keep"
    """What becomes of the API server when the binding is deleted: Keep leaves it as it is, Restore puts the arguments
    back that it had before.
    """
    target: BindingTarget
    """The kube-apiserver."""


class ApiServerBinding(ApiModel):
    """A kube-apiserver whose --etcd-servers follow an EtcdCluster."""

    info: ClassVar[KindInfo] = KindInfo(
        kind="ApiServerBinding",
        plural="apiserverbindings",
        short_names=("apibind",),
        columns=(
            Column(name="Cluster", type="string", path=".spec.clusterRef.name", description="The EtcdCluster"),
            Column(name="Target", type="string", path=".status.target", description="The kube-apiserver"),
            Column(name="Endpoints", type="string", path=".spec.endpoints", description="Through the proxy, or not"),
            Column(
                name="Instances",
                type="string",
                path=".status.ready",
                description="Instances of the API server that are ready and use this etcd, of all",
            ),
            Column(name="Status", type="string", path=".status.summary", description="The state in a few words"),
            Column(name="Age", type="date", path=".metadata.creationTimestamp", description="Time since creation"),
        ),
    )

    api_version: Literal["externaletcd.io/v1alpha1"] = API_VERSION
    kind: Literal["ApiServerBinding"] = "ApiServerBinding"
    metadata: ObjectMeta = Field(default_factory=ObjectMeta)
    spec: ApiServerBindingSpec
    """The wiring that is wanted."""
    status: ApiServerBindingStatus = Field(default_factory=ApiServerBindingStatus)
    """The wiring that was last observed."""
