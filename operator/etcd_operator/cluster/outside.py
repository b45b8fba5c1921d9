"""The names and addresses by which clients come from outside, which the server certificates carry as well.

Pure. None for a Service of type ClusterIP: its clients use its name.
"""

from collections.abc import Iterator

from etcd_operator.cluster.observation import Observation
from etcd_operator.resources.names import Manifest


def outside_names(seen: Observation) -> tuple[str, ...]:
    """What the Service of the cluster's name is reached by, sorted; of a node port, every node's addresses."""
    service = seen.objects.services.get(seen.names.client_service)
    wanted = seen.cluster.spec.proxy
    if service is None or not wanted.enabled or wanted.service.type == "ClusterIP":
        return ()
    nodes = seen.node_addresses if wanted.service.type == "NodePort" else ()
    return tuple(sorted({*_of_service(service), *nodes}))


def _of_service(service: Manifest) -> Iterator[str]:
    spec = service["spec"]
    yield from (
        address for address in spec.get("clusterIPs") or [spec.get("clusterIP")] if address not in (None, "None")
    )
    for ingress in (service.get("status", {}).get("loadBalancer") or {}).get("ingress") or []:
        yield from (ingress[key] for key in ("ip", "hostname") if ingress.get(key))
