"""Who may reach an EtcdCluster over the network.

Pure. See `etcdcluster` for the kind that this is a part of.
"""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, WithJsonSchema

from etcd_operator.api.base import ATOMIC, CIDR, SET, ApiModel, Rule

#: As Kubernetes has it of a label and of its value.
_KEY = "^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$"
_VALUE = "^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$"
_LABELS = {
    "type": "object",
    "maxProperties": 16,
    "additionalProperties": {"type": "string", "maxLength": 63, "pattern": _VALUE},
}
_LABEL = Annotated[str, Field(max_length=63, pattern=_VALUE)]


class LabelRequirement(ApiModel):
    """What one label must be, or must not."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "(self.operator in ['In', 'NotIn']) == (has(self.values) && size(self.values) > 0)",
            "is needed for In and NotIn, and for them alone",
            field_path=".values",
        ),
    )

    key: Annotated[str, Field(min_length=1, max_length=316, pattern=_KEY)]
    """The label."""
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    """How it is judged."""
    values: Annotated[tuple[_LABEL, ...], Field(max_length=32, json_schema_extra=ATOMIC)] | None = None
    """What it is to be, or not to be."""


class LabelSelector(ApiModel):
    """Whom labels select, as everywhere in Kubernetes; empty: all."""

    match_labels: Annotated[dict[str, str], WithJsonSchema(_LABELS)] | None = None
    """Labels, each with its value."""
    match_expressions: (
        Annotated[tuple[LabelRequirement, ...], Field(max_length=16, json_schema_extra=ATOMIC)] | None
    ) = None
    """What else labels must be."""


class IPBlock(ApiModel):
    """A range of addresses, and what of it is not meant."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.except) || !isCIDR(self.cidr)"
            " || self.except.all(each, !isCIDR(each) || cidr(self.cidr).containsCIDR(each))",
            "must lie within cidr",
            field_path=".except",
        ),
    )

    cidr: CIDR
    """The range, such as 192.0.2.0/24."""
    except_: Annotated[tuple[CIDR, ...], Field(max_length=32, json_schema_extra=ATOMIC)] | None = Field(
        default=None, alias="except"
    )
    """Ranges within it that are not meant."""


class NetworkPolicyPeer(ApiModel):
    """Pods, or addresses, as in a NetworkPolicy."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.ipBlock) != (has(self.podSelector) || has(self.namespaceSelector))",
            "must name either pods (podSelector, namespaceSelector, or both) or addresses (ipBlock)",
        ),
    )

    pod_selector: LabelSelector | None = None
    """Pods with these labels: of the EtcdCluster's namespace, or of those that namespaceSelector selects."""
    namespace_selector: LabelSelector | None = None
    """Pods of namespaces with these labels; {} for all namespaces."""
    ip_block: IPBlock | None = None
    """Whoever has such an address, where it is not a pod's."""


_NAMESPACE = Annotated[str, Field(max_length=63, pattern="^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
_PEERS = Annotated[tuple[NetworkPolicyPeer, ...], Field(max_length=32, json_schema_extra=ATOMIC)]


class AccessSpec(ApiModel):
    """Who may reach the etcd over the network, beside members, proxies and the operator, and kubelets.

    NetworkPolicies say it, so that it counts where the cluster's network enforces those. Whoever reaches it still needs
    a client certificate.
    """

    network_policy: Literal["Managed", "Off"] = "Managed"
    """"Off", in quotes as YAML takes a bare Off for false: the operator keeps no NetworkPolicies."""
    from_: Annotated[_PEERS, Field(alias="from")] = ()
    """Who may come as a client, to proxies and members, beside the namespaces of bindings; everybody, where nobody is
    named. Clients from outside, by a node port or a load balancer, may come with the addresses of nodes.
    """
    bindings: Annotated[tuple[_NAMESPACE, ...], Field(max_length=256, json_schema_extra=SET)] = ()
    """Other namespaces whose ApiServerBindings may use this etcd, and get a copy of its client Secret for that."""
    members: Literal["Internal", "NodePort"] = "Internal"
    """How far each member's own address reaches: this Kubernetes, or a port of every node, which status tells.

    API servers of other clusters need the latter where their ApiServerBinding says endpoints: Members. The server
    certificates then name the nodes' addresses, see spec.proxy.service.type. With spec.tls.client.mode Off nothing
    proves whose etcd answers at a node's port, this one or the proxy's: use that in networks alone that you trust.
    """
    metrics_from: _PEERS = ()
    """Who may read the metrics of members and proxies, and the proxies' statistics page: Prometheus, for one."""
