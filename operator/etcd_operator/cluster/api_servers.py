"""What of an EtcdCluster API servers still hold on to: an authority that is rotated, a member that is gone.

I/O, no judgement. Of ApiServerBindings it knows no more than what their status tells everybody.
"""

import re
from collections.abc import Sequence
from typing import Any

import structlog

from etcd_operator.kube import Forbidden, Kube, KubeError
from etcd_operator.kube.resources import APISERVERBINDINGS
from etcd_operator.resources.names import Manifest
from etcd_operator.resources.secrets import authority_digest

log = structlog.get_logger(__name__)


async def behind(kube: Kube, served: Sequence[str], cluster: Manifest, trusted: bytes) -> tuple[str, ...]:
    """The bindings of this EtcdCluster whose workloads were wired, but do not all trust these authorities yet.

    served: the namespaces that the operator serves; empty: all. An API server that a person wires is not among them:
    nobody sees what it trusts.
    """
    metadata, digest = cluster["metadata"], authority_digest(trusted)
    found: list[str] = []
    for namespace in tuple(served) or (None,):
        try:
            listed = await kube.list(APISERVERBINDINGS, namespace)
        except Forbidden:
            continue
        found += [
            f"{each['metadata']['namespace']}/{each['metadata']['name']}"
            for each in listed
            if _names(each, metadata["namespace"], metadata["name"]) and _is_behind(each, digest)
        ]
    return tuple(sorted(found))


async def listed(kube: Kube, served: Sequence[str]) -> frozenset[str] | None:
    """The URLs by which API servers are told to reach their etcd, or still run with; `None` where that is not known."""
    found: set[str] = set()
    try:
        for namespace in tuple(served) or (None,):
            for binding in await kube.list(APISERVERBINDINGS, namespace):
                found |= _servers(binding.get("status") or {})
    except KubeError as error:
        log.info("api_servers.unknown", error=str(error))
        return None
    return frozenset(found)


def _servers(status: Manifest) -> set[str]:
    told = [each for each in status.get("arguments") or () if each.startswith("--etcd-servers=")]
    running = [each.get("etcdServers") or "" for each in status.get("instances") or ()]
    return {url for text in (*told, *running) for url in re.findall(r"https?://[^,\s]+", text)}


def _names(binding: Manifest, namespace: str, name: str) -> bool:
    reference: dict[str, Any] = (binding.get("spec") or {}).get("clusterRef") or {}
    home = reference.get("namespace") or binding["metadata"]["namespace"]
    return (home, reference.get("name")) == (namespace, name)


def _is_behind(binding: Manifest, digest: str) -> bool:
    status, target = binding.get("status") or {}, (binding.get("spec") or {}).get("target") or {}
    return bool(status.get("arguments")) and "manual" not in target and status.get("authority") != digest
