"""Who may reach members and proxies."""

from dataclasses import replace
from typing import Any

from etcd_operator.resources.blueprint import Blueprint
from etcd_operator.resources.names import Manifest
from etcd_operator.resources.network_policies import members_policy, proxy_policy
from support.builders import blueprint

PROMETHEUS = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
NETWORK = {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}
EVERYBODY = "everybody"


def allowed(policy: Manifest | None) -> dict[str, list[Any]]:
    """Who may reach each port."""
    assert policy is not None
    assert policy["spec"]["policyTypes"] == ["Ingress"]
    found: dict[str, list[Any]] = {}
    for rule in policy["spec"]["ingress"]:
        for port in rule["ports"]:
            found.setdefault(port["port"], []).extend(map(_name, rule["from"]) if "from" in rule else [EVERYBODY])
    return found


def _name(peer: Manifest) -> Any:
    match peer:
        case {"podSelector": {"matchLabels": {"app.kubernetes.io/name": name}}}:
            return name
        case {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "operators"}}}:
            return "operator"
    return peer


def plan(**spec: Any) -> Blueprint:
    return replace(blueprint(**spec), operator_namespace="operators")


def test_clients_may_come_to_members_too_as_they_are_led_there_while_no_proxy_is_ready() -> None:
    made = plan(proxy={"enabled": True})
    assert allowed(members_policy(made)) == {
        "peer": ["etcd", "operator"],
        "client": ["etcd-proxy", "operator", EVERYBODY],
        "http": ["etcd-proxy", "operator", EVERYBODY],
        "metrics": ["etcd-proxy", "operator"],
    }
    assert allowed(proxy_policy(made)) == {"client": [EVERYBODY], "http": [EVERYBODY]}


def test_whom_the_user_names() -> None:
    made = plan(proxy={"enabled": True}, access={"from": [NETWORK], "metricsFrom": [PROMETHEUS]})
    members, proxies = allowed(members_policy(made)), allowed(proxy_policy(made))
    assert members["client"] == members["http"] == ["etcd-proxy", "operator", NETWORK]
    assert members["metrics"] == ["etcd-proxy", "operator", PROMETHEUS]
    assert members["peer"] == ["etcd", "operator"]
    assert proxies == {"client": [NETWORK], "http": [NETWORK], "stats": [PROMETHEUS]}


def test_none_where_none_are_wanted() -> None:
    made = plan(proxy={"enabled": True}, access={"networkPolicy": "Off"})
    assert members_policy(made) is proxy_policy(made) is None
    assert proxy_policy(plan()) is None


def test_namespaces_whose_api_servers_are_bound_need_not_be_named_twice() -> None:
    bound = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "tenant"}}}
    named = plan(proxy={"enabled": True}, access={"from": [NETWORK], "bindings": ["tenant"]})
    assert allowed(members_policy(named))["client"] == ["etcd-proxy", "operator", NETWORK, bound]
    assert allowed(proxy_policy(named))["client"] == [NETWORK, bound]
    everybody = plan(proxy={"enabled": True}, access={"bindings": ["tenant"]})
    assert allowed(proxy_policy(everybody))["client"] == [EVERYBODY]
