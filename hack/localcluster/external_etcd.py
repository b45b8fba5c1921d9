"""An etcd outside of the cluster that its API servers use: kubeadm's external topology.

Its addresses are recorded in `cluster.json`, its certificates in the cluster's folder, so that a later `up` can set the
same cluster up again. Nothing here, nor `down`, ever talks to that etcd: what API servers wrote stays in it, and is
there again when a cluster is set up on it anew.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from localcluster.errors import ClusterError
from localcluster.kubectl import Kubectl
from localcluster.node import Node
from localcluster.state import ClusterState

#: The keys of a Secret of type kubernetes.io/tls -> where kubeadm's guide puts the files, below /etc/kubernetes/pki.
FILES = {
    "ca.crt": "etcd/ca.crt",
    "tls.crt": "apiserver-etcd-client.crt",
    "tls.key": "apiserver-etcd-client.key",
}
PKI = "/etc/kubernetes/pki"


@dataclass(frozen=True, kw_only=True, slots=True)
class ExternalEtcd:
    """What API servers need to use it."""

    #: URLs of its members, or of a proxy before them.
    servers: tuple[str, ...]
    #: Contents of the files that `FILES` lists.
    certificates: dict[str, bytes]


def read(servers: str | None, certs: Path | None) -> ExternalEtcd | None:
    """What the command line says: URLs with commas between them, and a folder. None where it says neither.

    Raises ClusterError for one without the other, for what is no https URL, and for missing files.
    """
    if servers is None and certs is None:
        return None
    if servers is None or certs is None:
        raise ClusterError("an etcd outside of the cluster needs both --etcd-servers and --etcd-certs")
    urls = tuple(url.strip() for url in servers.split(","))
    for url in urls:
        _check_url(url)
    missing = [name for name in FILES if not (certs / name).is_file()]
    if missing:
        raise ClusterError(f"{certs} has no {', '.join(missing)}; it has to hold {', '.join(FILES)}")
    return ExternalEtcd(servers=urls, certificates={name: (certs / name).read_bytes() for name in FILES})


def keep(etcd: ExternalEtcd, cluster: ClusterState) -> None:
    """Keep the certificates with the cluster. Raises ClusterError where it has others already."""
    if _kept(cluster) not in (None, etcd.certificates):
        raise ClusterError(
            f"cluster {cluster.name} has other certificates for its etcd: take it down first "
            f"(hack/cluster down --name {cluster.name}), or replace the files below {PKI} on its control planes"
        )
    folder = _folder(cluster)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name, content in etcd.certificates.items():
        (folder / name).write_bytes(content)


def give(node: Node) -> None:
    """Put the certificates on a control plane, where kubeadm looks for them; nothing where the etcd is its own.

    Raises ClusterError when they were lost.
    """
    if not node.cluster.etcd_servers:
        return
    kept = _kept(node.cluster)
    if kept is None:
        raise ClusterError(
            f"the certificates for the etcd of cluster {node.cluster.name} are gone: "
            "say --etcd-servers and --etcd-certs once more"
        )
    for name, content in kept.items():
        target = node.kubernetes / "pki" / FILES[name]
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch(mode=0o600)
        target.write_bytes(content)


def end_former_life(kubectl: Kubectl, nodes: Iterable[Node], since: datetime.datetime) -> None:
    """Remove what cannot go on under new authorities, where the etcd held a cluster before `since`.

    Nodes of these names would be taken for ones that run, by kubeadm; their pods would start at once, and trust the
    former API server. Whoever made those pods makes others.
    """
    (system,) = (item for item in kubectl.get("namespaces") if item["metadata"]["name"] == "kube-system")
    if datetime.datetime.fromisoformat(system["metadata"]["creationTimestamp"]) >= since.replace(microsecond=0):
        return
    kubectl.delete("configmaps", "-A", "--field-selector=metadata.name=kube-root-ca.crt")
    for node in nodes:
        kubectl.delete("pods", "-A", f"--field-selector=spec.nodeName={node.name}", "--force", "--grace-period=0")
        if not node.is_member:
            kubectl.delete("nodes", node.name)


def kubeadm_section(servers: tuple[str, ...]) -> dict[str, object]:
    """`etcd.external` of kubeadm's ClusterConfiguration."""
    ca, certificate, key = (f"{PKI}/{path}" for path in FILES.values())
    return {"endpoints": list(servers), "caFile": ca, "certFile": certificate, "keyFile": key}


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        fine = parts.scheme == "https" and bool(parts.hostname) and parts.port is not None
    except ValueError:
        fine = False
    if not fine or parts.path or parts.query or parts.fragment or parts.username:
        raise ClusterError(f"{url!r} is no address of an etcd: https://HOST:PORT is, several with commas between them")


def _kept(cluster: ClusterState) -> dict[str, bytes] | None:
    """The certificates that the cluster has, None unless all are there."""
    try:
        return {name: (_folder(cluster) / name).read_bytes() for name in FILES}
    except FileNotFoundError:
        return None


def _folder(cluster: ClusterState) -> Path:
    return cluster.folder / "etcd-certs"
