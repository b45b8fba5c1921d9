"""Whether a cluster is healthy, judged from what its API server says. Pure."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from typing import Any

from localcluster.kubectl import condition_is_true

#: Deployments without which a cluster is not usable.
ADDONS = ("coredns", "local-path-provisioner")
STORAGE_CLASS = "local-path"
_DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"


def ailments(items: Iterable[Mapping[str, Any]], nodes: set[str]) -> list[str]:
    """What is wrong, in words, given all Nodes, Deployments and StorageClasses."""
    found = {(item["kind"], item["metadata"]["name"]): dict(item) for item in items}
    wrong = []
    for node in sorted(nodes):
        item = found.get(("Node", node))
        if item is None or not condition_is_true(item, "Ready"):
            wrong.append(f"node {node} is not Ready")
    for name in ADDONS:
        item = found.get(("Deployment", name))
        if item is None or not condition_is_true(item, "Available"):
            wrong.append(f"{name} is not available")
    storage = found.get(("StorageClass", STORAGE_CLASS))
    if storage is None or storage["metadata"].get("annotations", {}).get(_DEFAULT_CLASS) != "true":
        wrong.append(f"StorageClass {STORAGE_CLASS} is not the default")
    return wrong


def all_ready(seen: Mapping[str, Mapping[str, Any]], nodes: set[str], since: datetime.datetime) -> bool:
    """Whether each node's kubelet reported Ready at or after `since`.

    What a node said before it was stopped stands in its status until it speaks again. Kubernetes keeps whole seconds.
    """
    return nodes <= seen.keys() and all(_reported_ready(seen[node], since.replace(microsecond=0)) for node in nodes)


def addons_run(seen: Mapping[str, Mapping[str, Any]], started: set[str], since: datetime.datetime) -> bool:
    """Whether each addon has a pod that is ready, and not only said to be since before its node was started.

    `started`: names of the nodes that were started at `since`; a pod there counts once its containers started later.
    """
    return all(
        any(name.startswith(f"{addon}-") and _runs(pod, started, since) for name, pod in seen.items())
        for addon in ADDONS
    )


def _runs(pod: Mapping[str, Any], started: set[str], since: datetime.datetime) -> bool:
    if not condition_is_true(dict(pod), "Ready"):
        return False
    states = [status["state"].get("running", {}) for status in pod["status"].get("containerStatuses", [])]
    begun = [datetime.datetime.fromisoformat(state["startedAt"]) for state in states if "startedAt" in state]
    return pod["spec"].get("nodeName") not in started or all(time >= since.replace(microsecond=0) for time in begun)


def available(seen: Mapping[str, Mapping[str, Any]], deployments: Iterable[str]) -> bool:
    """Whether all these Deployments are there and available."""
    return all(name in seen and condition_is_true(dict(seen[name]), "Available") for name in deployments)


def _reported_ready(node: Mapping[str, Any], since: datetime.datetime) -> bool:
    for condition in node.get("status", {}).get("conditions", []):
        if condition["type"] == "Ready" and condition["status"] == "True":
            return datetime.datetime.fromisoformat(condition["lastHeartbeatTime"]) >= since
    return False
