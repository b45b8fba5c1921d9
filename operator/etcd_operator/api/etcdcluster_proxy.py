"""The proxy in front of an EtcdCluster.

Pure. See `etcdcluster` for the kind that this is a part of.
"""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, WithJsonSchema

from etcd_operator.api.base import CIDR, SET, ApiModel, Rule
from etcd_operator.api.etcdcluster_resources import ResourceRequirements
from etcd_operator.api.rules import is_duration
from etcd_operator.api.units import Duration

_TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}
_LONG_ENOUGH = Rule(
    f"{is_duration('self')} && duration(self) >= duration('100ms')",
    "must be a duration of at least 100ms, such as 4s or 30m",
)


class ProxyTimeouts(ApiModel):
    """How long the proxy waits before it gives a connection up."""

    connect: Annotated[Duration, _LONG_ENOUGH] = Duration("4s")
    """For a member to take a connection."""
    client: Annotated[Duration, _LONG_ENOUGH] = Duration("30m")
    """For a client that says nothing. A watch without events says nothing for long: etcd's clients take up another."""
    server: Annotated[Duration, _LONG_ENOUGH] = Duration("30m")
    """For a member that says nothing, on a connection that stands."""


class ProxyService(ApiModel):
    """The Service that clients reach the proxy at."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.nodePort) || self.type != 'ClusterIP'",
            "is only for the types NodePort and LoadBalancer: set type, or leave it out",
            field_path=".nodePort",
        ),
        Rule(
            "!has(self.loadBalancerSourceRanges) || size(self.loadBalancerSourceRanges) == 0"
            " || self.type == 'LoadBalancer'",
            "is only for the type LoadBalancer: set type, or leave it out",
            field_path=".loadBalancerSourceRanges",
        ),
    )

    type: Literal["ClusterIP", "NodePort", "LoadBalancer"] = "ClusterIP"
    """How far the Service reaches: this Kubernetes, a port of every node, or an address from outside.

    The server certificates name the load balancer's address, and for NodePort those of all nodes. In a Kubernetes of
    more than 100 nodes they name those nodes that status tells, at least three where so many are ready, and what they
    named before: name others that your clients use in spec.tls.client.extraSANs. Where the operator may not read nodes,
    status tells none, and all of them are yours to name.
    """
    annotations: Annotated[dict[str, str], WithJsonSchema(_TEXTS)] = Field(default_factory=dict)
    """Annotations of the Service, as load balancers want them."""
    node_port: Annotated[int, Field(ge=1, le=65535)] | None = None
    """The nodes' port for gRPC, where it is to be a certain one; Kubernetes chooses one of its range otherwise."""
    load_balancer_source_ranges: Annotated[
        tuple[
            CIDR,
            ...,
        ],
        Field(max_length=32, json_schema_extra=SET),
    ] = ()
    """From where a load balancer lets clients in; everywhere, where there is none."""


class ProxySpec(ApiModel):
    """HAProxy in front of the members: one address for the life of the cluster.

    TLS passes through it; each new connection goes to a member that answers linearizable reads. Members are found by
    DNS, so that a change of them reloads nothing and cuts no connection to one that stays.
    """

    enabled: bool = True
    """Whether the Service of the EtcdCluster's name leads to the proxy; otherwise to the members that are ready."""
    replicas: Annotated[int, Field(ge=1, le=9)] = 2
    """How many proxies."""
    image: Annotated[str, Field(min_length=1, max_length=512)] = "docker.io/library/haproxy:2.6"
    """An image of HAProxy 2.6 or newer, laid out as the official one."""
    pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    """When the kubelet pulls the image. Pull secrets are those of spec.image."""
    balance: Literal["RoundRobin", "LeastConnections", "First"] = "RoundRobin"
    """Which member a new connection goes to: each in turn, the one with the fewest, or the first that is well."""
    timeouts: ProxyTimeouts = Field(default_factory=ProxyTimeouts)
    """How long the proxy waits before it gives a connection up."""
    resources: ResourceRequirements = ResourceRequirements(requests={"cpu": "50m", "memory": "64Mi"})
    """CPU and memory of each proxy: a thousand connections take some 40 MiB."""
    service: ProxyService = Field(default_factory=ProxyService)
    """The Service that clients reach the proxy at."""
