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


def test_clients_come_through_the_proxy() -> None:
    made = plan(proxy={"enabled": True})
    assert allowed(members_policy(made, directly=False)) == {
        "peer": ["etcd", "operator"],
        "client": ["etcd-proxy", "operator"],
        "http": ["etcd-proxy", "operator"],
        "metrics": ["etcd-proxy", "operator"],
    }
    assert allowed(proxy_policy(made)) == {"client": [EVERYBODY], "http": [EVERYBODY]}


def test_clients_that_are_led_to_members_may_come_there() -> None:
    reached = allowed(members_policy(plan(access={"from": [NETWORK]}), directly=True))
    assert EVERYBODY in reached["client"]
    assert EVERYBODY in reached["http"]
    assert EVERYBODY not in reached["peer"] + reached["metrics"]


def test_whom_the_user_names() -> None:
    made = plan(proxy={"enabled": True}, access={"from": [NETWORK], "metricsFrom": [PROMETHEUS]})
    members = allowed(members_policy(made, directly=False))
    assert NETWORK in members["client"]
    assert NETWORK in members["http"]
    assert PROMETHEUS in members["metrics"]
    assert NETWORK not in members["peer"] + members["metrics"]
    assert allowed(proxy_policy(made))["stats"] == [PROMETHEUS]


def test_none_where_none_are_wanted() -> None:
    made = plan(proxy={"enabled": True}, access={"networkPolicy": "Off"})
    assert members_policy(made, directly=True) is proxy_policy(made) is None
    assert proxy_policy(plan()) is None
