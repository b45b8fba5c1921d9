"""Which addresses clusters, nodes and pods have. Pure.

All of them lie in 198.18.0.0/15, set aside for laboratories by RFC 2544, so that nothing here can be mistaken
for an address of a real network. Cluster and node numbers say it all, so nothing needs to be remembered but the
cluster's number.

    198.18.240.0/20   nodes: one flat network, a /24 for each of 16 clusters; node 2 of cluster 0: 198.18.240.12,
                      and 198.18.240.10 is the balancer before its API servers, where it has several
    198.19.0.0/16     pods: a /20 for each cluster, a /24 for each node
    10.96.0.0/16      Services: the same in every cluster, never routed
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

NODES = ipaddress.IPv4Network("198.18.240.0/20")
PODS = ipaddress.IPv4Network("198.19.0.0/16")
SERVICES = "10.96.0.0/16"
DNS_SERVICE = "10.96.0.10"
#: The bridge in the switch namespace: every node's default gateway, where packets for elsewhere end.
SWITCH = NODES[1]
#: The machine itself, as nodes see it.
HOST = NODES[254]

MAX_CLUSTERS = 16
MAX_NODES = 15


def node_address(cluster: int, node: int) -> str:
    """The address of node `node` (from 1) of cluster number `cluster` (from 0)."""
    _check(cluster, node)
    return str(NODES[cluster * 256 + 10 + node])


def balancer_address(cluster: int) -> str:
    """The address of the balancer before several control planes: that of a node 0."""
    _check(cluster, 1)
    return str(NODES[cluster * 256 + 10])


def node_pods(cluster: int, node: int) -> str:
    """The range that pods on this node get their addresses from."""
    _check(cluster, node)
    return f"{PODS[(cluster * 16 + node) * 256]}/24"


def cluster_pods(cluster: int) -> str:
    """The range of all pods of a cluster."""
    return f"{PODS[cluster * 16 * 256]}/20"


def hardware_address(address: str) -> str:
    """The Ethernet address that goes with an IPv4 address.

    It stays the same when a node is started again, as a real machine's does: neighbours remember it for half a minute.
    """
    return "02:65:" + ":".join(f"{byte:02x}" for byte in ipaddress.IPv4Address(address).packed)


def clashing(networks: Iterable[str]) -> list[str]:
    """Those of the machine's own networks (destinations of its routes) that overlap with ours."""
    ours = (NODES, PODS)
    return [text for text in networks if any(ipaddress.ip_network(text, strict=False).overlaps(our) for our in ours)]


def _check(cluster: int, node: int) -> None:
    if not 0 <= cluster < MAX_CLUSTERS or not 1 <= node <= MAX_NODES:
        raise ValueError(f"no addresses for node {node} of cluster number {cluster}")
