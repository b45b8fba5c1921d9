"""Observations of a cluster with a proxy: everything made, and proxies as a test wants them."""

from typing import Any

from etcd_operator.cluster.judged import Judged
from etcd_operator.cluster.observation import Observation
from etcd_operator.resources.compare import sealed
from etcd_operator.resources.names import Manifest, helper_labels
from etcd_operator.resources.network_policies import members_policy, proxy_policy
from etcd_operator.resources.proxy import (
    members_service,
    proxy_config_map,
    proxy_deployment,
    proxy_disruption_budget,
    proxy_secret,
)
from etcd_operator.resources.services import client_service
from support.builders import EARLIER, PASSWORD, live, observation, with_object

PLACES = {
    "Secret": "secrets",
    "ConfigMap": "config_maps",
    "Service": "services",
    "Deployment": "deployments",
    "PodDisruptionBudget": "disruption_budgets",
    "NetworkPolicy": "network_policies",
}


def proxied(*, ready: int = 2, through_proxy: bool = True, **proxy: Any) -> Observation:
    """A cluster at rest behind two proxies, of which so many are ready."""
    seen = observation(proxy={"enabled": True, **proxy})
    plan = Judged.of(seen).blueprint
    made = (
        proxy_secret(plan, PASSWORD),
        proxy_config_map(plan),
        members_service(plan),
        proxy_deployment(plan),
        proxy_disruption_budget(plan),
        proxy_policy(plan),
        members_policy(plan),
        client_service(plan, through_proxy=through_proxy),
    )
    for manifest in made:
        if manifest is not None:
            seen = with_object(seen, PLACES[manifest["kind"]], live(sealed(manifest)))
    for number in range(2):
        seen = with_object(seen, "other_pods", proxy_pod(number, ready=number < ready))
    return seen


def proxy_pod(number: int, *, ready: bool = True, waiting: str = "", created: str = EARLIER) -> Manifest:
    """One of the proxies; `waiting`: the reason for which its container does not start."""
    state = {"waiting": {"reason": waiting, "message": "told by the kubelet"}} if waiting else {"running": {}}
    return {
        "kind": "Pod",
        "metadata": {
            "name": f"a-proxy-{number}",
            "namespace": "ns",
            "uid": f"uid-proxy-{number}",
            "labels": helper_labels("a", "proxy"),
            "creationTimestamp": created,
        },
        "spec": {"containers": [{"name": "haproxy", "image": "docker.io/library/haproxy:2.6"}]},
        "status": {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
            "containerStatuses": [{"name": "haproxy", "state": state}],
        },
    }
