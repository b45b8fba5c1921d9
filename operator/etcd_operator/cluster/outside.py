"""The names and addresses by which clients come from outside, which the server certificates carry as well.

Pure. None for a Service of type ClusterIP: its clients use its name. Nodes that are not known are not gone: what
clients were told once stays told, and named, until somebody knows better.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from urllib.parse import urlsplit

from etcd_operator.api import EtcdClusterSpec
from etcd_operator.cluster.observation import MOST_NAMED, Node, Observation
from etcd_operator.pki import PKIError, inspect
from etcd_operator.resources.names import CLIENT_PORT, Manifest, Names
from etcd_operator.resources.secrets import content, is_address

#: Nodes by which clients are told to come: one may be lost, and another one drained meanwhile.
FRONT_NODES = 3


def needs_nodes(spec: EtcdClusterSpec, names: Names, services: Iterable[str]) -> bool:
    """Whether clients come by a port of every node, or may still come by one of a member."""
    wanted = (spec.proxy.enabled and spec.proxy.service.type == "NodePort") or spec.access.members == "NodePort"
    return wanted or any(map(names.member_of_service, services))


def outside_names(seen: Observation) -> tuple[str, ...]:
    """What the cluster and its members are reached by, sorted; of a node port, the addresses of nodes.

    While not all nodes are known, also what clients were told and what the certificate names already: a handshake that
    works is not to fail for what nobody could read.
    """
    spec, found = seen.cluster.spec, set[str]()
    if needs_nodes(spec, seen.names, seen.objects.services):
        found |= {address for node in _nodes(seen) for address in node.addresses}
        if not _all_known(seen):
            hosts = (urlsplit(url).hostname or "" for url in _told(seen))
            found |= {*_named_now(seen), *(host for host in hosts if is_address(host))}
    service = seen.objects.services.get(seen.names.client_service)
    if service is not None and spec.proxy.enabled and spec.proxy.service.type != "ClusterIP":
        found |= {*_cluster_addresses(service), *_balancer(service)}
    return tuple(sorted(found))


def external_urls(seen: Observation, scheme: str) -> tuple[str, ...]:
    """Where clients from outside find the one address: a load balancer, or a port of up to `FRONT_NODES` nodes.

    Nodes that were told once stay as long as they are nodes: clients have them in their files. Beside those of which
    nobody knows whether they still are, there are `FRONT_NODES` that are.
    """
    spec, service = seen.cluster.spec.proxy, seen.objects.services.get(seen.names.client_service)
    if service is None or not spec.enabled:
        return ()
    if spec.service.type == "LoadBalancer":
        return tuple(_url(scheme, name, CLIENT_PORT) for name in _balancer(service))
    port = _node_port(service)
    if spec.service.type == "ClusterIP" or not port:
        return ()
    endpoints = seen.cluster.status.endpoints
    told = (endpoints and endpoints.external) or ()
    front = _front(_nodes(seen), told)
    unsure = [] if _all_known(seen) else [host for url in told if (host := _host(url, scheme, port))]
    unsure = [host for host in unsure if host not in front][: 2 * FRONT_NODES - len(front)]
    return tuple(_url(scheme, each, port) for each in sorted([*front, *unsure]))


def external_member_urls(seen: Observation, scheme: str, members: Sequence[str]) -> dict[str, str]:
    """The same of each member that has a Service of its own, spread over nodes; each keeps the node it was told by."""
    if seen.cluster.spec.access.members != "NodePort":
        return {}
    ports = {member: _node_port(seen.objects.services.get(seen.names.member_service(member))) for member in members}
    nodes = _nodes(seen)
    known = sorted(node.addresses[0] for node in nodes)
    ready = sorted(node.addresses[0] for node in nodes if node.ready) or known
    told = {member.name: member.external or "" for member in seen.cluster.status.members}
    found, used = dict[str, str](), Counter[str]()
    for member, port in ports.items():
        former = _host(told.get(member, ""), scheme, port)
        if former and _all_known(seen) and former not in known:
            former = ""
        if port and (former or ready):
            address = former or min(ready, key=lambda each: (used[each], each))
            used[address] += 1
            found[member] = _url(scheme, address, port)
    return found


def is_listed(seen: Observation, service: Manifest) -> bool:
    """Whether an API server may still have a member's port in its list; it may where nobody knows."""
    port = _node_port(service)
    if not port:
        return False
    return seen.listed_servers is None or any(_port(url) == port for url in seen.listed_servers)


def _all_known(seen: Observation) -> bool:
    return seen.nodes is not None and len(seen.nodes) <= MOST_NAMED


def _nodes(seen: Observation) -> list[Node]:
    """Nodes by which clients can come: all, or of too many those that were told and enough that are ready."""
    nodes = [node for node in seen.nodes or () if node.addresses]
    if _all_known(seen):
        return nodes
    hosts = {urlsplit(url).hostname for url in _told(seen)}
    kept = [node for node in nodes if node.addresses[0].lower() in hosts]
    fresh = [node for node in nodes if node.ready and node not in kept]
    return [*kept, *fresh[: max(0, FRONT_NODES - sum(node.ready for node in kept))]]


def _told(seen: Observation) -> list[str]:
    """All URLs that clients from outside were told."""
    status = seen.cluster.status
    members = [member.external for member in status.members if member.external]
    return [*((status.endpoints and status.endpoints.external) or ()), *members]


def _named_now(seen: Observation) -> tuple[str, ...]:
    """The addresses that the server certificate names."""
    certificate = content(seen.objects.secrets.get(seen.names.server_certificate)).get("tls.crt", b"")
    return _addresses_in(certificate) if certificate else ()


@lru_cache(maxsize=1024)
def _addresses_in(certificate: bytes) -> tuple[str, ...]:
    try:
        return inspect(certificate).ip_addresses
    except PKIError:
        return ()


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


def _host(url: str, scheme: str, port: int) -> str:
    """The host of a URL with that scheme and port; empty for any other."""
    host = url.removeprefix(f"{scheme}://").removesuffix(f":{port}").strip("[]")
    return host if host and _url(scheme, host, port) == url else ""


def _port(url: str) -> int | None:
    try:
        return urlsplit(url).port
    except ValueError:
        return None


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
