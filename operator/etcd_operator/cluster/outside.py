"""The names and addresses by which clients come from outside, which the server certificates carry as well.

Pure. None for a Service of type ClusterIP: its clients use its name.
"""

from collections import Counter
from collections.abc import Iterator, Sequence

from etcd_operator.api import EtcdClusterSpec
from etcd_operator.cluster.observation import Node, Observation
from etcd_operator.resources.names import CLIENT_PORT, Manifest

#: Nodes by which clients are told to come: one may be lost, and another one drained meanwhile.
FRONT_NODES = 3


def needs_nodes(spec: EtcdClusterSpec) -> bool:
    """Whether clients come by a port of every node."""
    return (spec.proxy.enabled and spec.proxy.service.type == "NodePort") or spec.access.members == "NodePort"


def outside_names(seen: Observation) -> tuple[str, ...]:
    """What the cluster and its members are reached by, sorted; of a node port, every node's addresses."""
    spec = seen.cluster.spec
    nodes = [address for node in seen.nodes for address in node.addresses] if needs_nodes(spec) else []
    service = seen.objects.services.get(seen.names.client_service)
    if service is None or not spec.proxy.enabled or spec.proxy.service.type == "ClusterIP":
        return tuple(sorted(nodes))
    return tuple(sorted({*_cluster_addresses(service), *_balancer(service), *nodes}))


def external_urls(seen: Observation, scheme: str) -> tuple[str, ...]:
    """Where clients from outside find the one address: a load balancer, or a port of up to `FRONT_NODES` nodes.

    Nodes that were told once stay as long as they are nodes: clients have them in their files.
    """
    spec, service = seen.cluster.spec.proxy, seen.objects.services.get(seen.names.client_service)
    if service is None or not spec.enabled:
        return ()
    if spec.service.type == "LoadBalancer":
        return tuple(_url(scheme, name, CLIENT_PORT) for name in _balancer(service))
    port = _node_port(service)
    if spec.service.type == "ClusterIP" or not port:
        return ()
    told = seen.cluster.status.endpoints
    return tuple(_url(scheme, each, port) for each in _front(seen.nodes, (told and told.external) or ()))


def external_member_urls(seen: Observation, scheme: str, members: Sequence[str]) -> dict[str, str]:
    """The same of each member that has a Service of its own, spread over nodes; each keeps the node it was told by."""
    if seen.cluster.spec.access.members != "NodePort" or not seen.nodes:
        return {}
    ports = {member: _node_port(seen.objects.services.get(seen.names.member_service(member))) for member in members}
    known = sorted(node.addresses[0] for node in seen.nodes)
    ready = sorted(node.addresses[0] for node in seen.nodes if node.ready) or known
    told = {member.name: member.external for member in seen.cluster.status.members}
    found, used = dict[str, str](), Counter[str]()
    for member, port in ports.items():
        if port:
            former = next((each for each in known if _url(scheme, each, port) == told.get(member)), None)
            address = former or min(ready, key=lambda each: (used[each], each))
            used[address] += 1
            found[member] = _url(scheme, address, port)
    return found


def _front(nodes: Sequence[Node], told: Sequence[str]) -> list[str]:
    """Addresses of nodes, those that were told first, then those that are ready."""
    addresses = {node.addresses[0]: node for node in nodes}
    kept = [each for each in addresses if any(f"//{_bracketed(each)}:" in url for url in told)]
    fresh = [each for each, node in addresses.items() if each not in kept and node.ready]
    return sorted([*kept, *fresh][:FRONT_NODES])


def _url(scheme: str, host: str, port: int) -> str:
    return f"{scheme}://{_bracketed(host)}:{port}"


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _node_port(service: Manifest | None) -> int:
    """The nodes' port for gRPC; 0 while there is none."""
    ports = (service or {}).get("spec", {}).get("ports") or []
    return next((int(each.get("nodePort") or 0) for each in ports if each.get("name") == "client"), 0)


def _cluster_addresses(service: Manifest) -> Iterator[str]:
    spec = service["spec"]
    yield from (
        address for address in spec.get("clusterIPs") or [spec.get("clusterIP")] if address not in (None, "None")
    )


def _balancer(service: Manifest) -> Iterator[str]:
    for ingress in (service.get("status", {}).get("loadBalancer") or {}).get("ingress") or []:
        yield from (ingress[key] for key in ("ip", "hostname") if ingress.get(key))
