"""What every cluster has beside kubeadm's own: DNS and storage. Pure, but for the manifests that it reads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from localcluster import versions
from localcluster.addresses import DNS_SERVICE
from localcluster.balancer import api_address
from localcluster.state import ClusterState

MANIFESTS = Path(__file__).parent / "manifests"

#: Seconds after which pods leave a node that is known to be gone, where there is another control plane to go to.
GONE_FOR = 5


def addons(cluster: ClusterState) -> str:
    """Their manifests, as a YAML text."""
    values = {
        "@API_ADDRESS@": api_address(cluster),
        "@DNS_SERVICE@": DNS_SERVICE,
        "@COREDNS@": versions.COREDNS_IMAGE,
        "@PROVISIONER@": versions.LOCAL_PATH_IMAGE,
        "@HELPER@": versions.BUSYBOX_IMAGE,
    }
    text = "\n---\n".join((MANIFESTS / name).read_text() for name in ("coredns.yaml", "local-path.yaml"))
    for mark, value in values.items():
        text = text.replace(mark, value)
    return text if cluster.control_planes == 1 else yaml.safe_dump_all(_for_several_control_planes(text))


def _for_several_control_planes(text: str) -> Iterator[dict[str, Any]]:
    """The manifests, so that DNS and storage outlive any one control plane, which a test may stop."""
    for document in yaml.safe_load_all(text):
        if document["kind"] == "Deployment":
            pod = document["spec"]["template"]["spec"]
            away = {"operator": "Exists", "effect": "NoExecute", "tolerationSeconds": GONE_FOR}
            pod["tolerations"] = [
                {"operator": "Exists", "effect": "NoSchedule"},
                *({"key": f"node.kubernetes.io/{state}", **away} for state in ("not-ready", "unreachable")),
            ]
            if document["metadata"]["name"] == "coredns":
                document["spec"] |= {"replicas": 2, "strategy": {"rollingUpdate": {"maxUnavailable": 1}}}
                pod["affinity"] = _never_together(document["spec"]["selector"])
        yield document


def _never_together(selector: dict[str, Any]) -> dict[str, Any]:
    term = {"labelSelector": selector, "topologyKey": "kubernetes.io/hostname"}
    return {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
