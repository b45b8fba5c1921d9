"""Who may reach members and proxies over the network; `None` where the operator is to keep no NetworkPolicies.

Pure. Kubelets need not be named: a node always reaches its own pods.
"""

from collections.abc import Sequence

from etcd_operator.api import NetworkPolicyPeer
from etcd_operator.resources.blueprint import Blueprint, owned_metadata
from etcd_operator.resources.names import Manifest, proxy_selector, selector_labels

#: Set by Kubernetes on every namespace.
NAMESPACE_NAME = "kubernetes.io/metadata.name"


def members_policy(blueprint: Blueprint) -> Manifest | None:
    """Members reach each other, proxies all that clients use and their health, the operator everything.

    Clients may come to them in any case: they are led there while no proxy is ready, and what is closed behind them
    when one is may cut connections that stand (on some networks).
    """
    own, proxies = selector_labels(blueprint.names.name), proxy_selector(blueprint.names.name)
    rules = [
        _rule([_pods(own)], "peer"),
        _rule([_pods(proxies)], "client", "http", "metrics"),
        _rule([_operator(blueprint)], "client", "http", "metrics", "peer"),
        _clients(blueprint),
        *_metrics(blueprint, "metrics"),
    ]
    return _policy(blueprint, blueprint.names.members_policy, own, rules)


def proxy_policy(blueprint: Blueprint) -> Manifest | None:
    """Clients may come to the proxies."""
    if not blueprint.proxy.enabled:
        return None
    selector = proxy_selector(blueprint.names.name)
    rules = [_clients(blueprint), *_metrics(blueprint, "stats")]
    return _policy(blueprint, blueprint.names.proxy, selector, rules)


def _policy(blueprint: Blueprint, name: str, selector: dict[str, str], rules: list[Manifest]) -> Manifest | None:
    if blueprint.spec.access.network_policy == "Off":
        return None
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": owned_metadata(blueprint, name),
        "spec": {"podSelector": {"matchLabels": selector}, "policyTypes": ["Ingress"], "ingress": rules},
    }


def _rule(peers: Sequence[Manifest], *ports: str) -> Manifest:
    """Those who may reach these ports, by their names on the pods; everybody, where nobody is named."""
    reached = [{"protocol": "TCP", "port": port} for port in ports]
    return {"from": list(peers), "ports": reached} if peers else {"ports": reached}


def _metrics(blueprint: Blueprint, port: str) -> list[Manifest]:
    peers = _peers(blueprint.spec.access.metrics_from)
    return [_rule(peers, port)] if peers else []


def _clients(blueprint: Blueprint) -> Manifest:
    """Whom the user names, and the namespaces whose API servers may be bound to this etcd."""
    access = blueprint.spec.access
    bound = [{"namespaceSelector": {"matchLabels": {NAMESPACE_NAME: each}}} for each in sorted(access.bindings)]
    return _rule([*_peers(access.from_), *bound] if access.from_ else [], "client", "http")


def _pods(labels: dict[str, str]) -> Manifest:
    return {"podSelector": {"matchLabels": labels}}


def _operator(blueprint: Blueprint) -> Manifest:
    """The operator's namespace: how its pods are labelled is for whoever installs it to say."""
    return {"namespaceSelector": {"matchLabels": {NAMESPACE_NAME: blueprint.operator_namespace}}}


def _peers(peers: Sequence[NetworkPolicyPeer]) -> list[Manifest]:
    return [peer.model_dump(by_alias=True, exclude_none=True, mode="json") for peer in peers]
