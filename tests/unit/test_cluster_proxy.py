"""The proxy in front of the members: made, led to, told of, and taken away."""

from dataclasses import replace
from typing import Any

import pytest

from etcd_operator.cluster.conditions import Outcome, degraded
from etcd_operator.cluster.observation import Observation
from etcd_operator.cluster.steps import Apply, Delete, Plan
from etcd_operator.resources.names import Manifest, proxy_selector
from support.builders import down, edited, judged, live, observation, with_object, with_spec, without
from support.plans import planned
from support.proxies import PLACES, proxied, proxy_pod

PROXY = {"enabled": True}


def names(plan: Plan) -> list[str]:
    """What a plan applies or deletes, by kind and name."""
    told = []
    for step in plan.steps:
        match step:
            case Apply():
                told.append(f"{step.manifest['kind']} {step.manifest['metadata']['name']}")
            case Delete():
                told.append(f"{step.kind} {step.name}")
    return told


def selector(seen: Observation) -> Any:
    """Whom the Service of the cluster's name is to lead to, where that is to be changed."""
    (step,) = planned(seen).steps
    assert isinstance(step, Apply)
    assert (step.manifest["kind"], step.manifest["metadata"]["name"]) == ("Service", "a")
    return step.manifest["spec"]["selector"]


def test_a_proxy_at_rest_is_left_alone() -> None:
    assert planned(proxied()) == Plan(rule="at_rest")


def test_it_is_made_after_all_that_its_pods_use() -> None:
    seen = observation(proxy=PROXY)
    first = planned(seen)
    assert names(first) == ["Secret a-proxy", "ConfigMap a-proxy", "Service a-members"]
    for step in first.steps:
        assert isinstance(step, Apply)
        seen = with_object(seen, PLACES[step.manifest["kind"]], live(step.manifest))
    assert names(planned(seen)) == [
        "Deployment a-proxy",
        "PodDisruptionBudget a-proxy",
    ]


def test_nothing_is_made_unless_it_is_asked_for() -> None:
    assert planned(observation()) == Plan(rule="at_rest")


@pytest.mark.parametrize(
    ("kind", "name", "again"),
    [
        ("secrets", "a-proxy", "Secret a-proxy"),
        ("config_maps", "a-proxy", "ConfigMap a-proxy"),
        ("services", "a-members", "Service a-members"),
        ("deployments", "a-proxy", "Deployment a-proxy"),
        ("disruption_budgets", "a-proxy", "PodDisruptionBudget a-proxy"),
    ],
)
def test_what_is_deleted_is_made_again(kind: str, name: str, again: str) -> None:
    assert names(planned(without(proxied(), kind, name))) == [again]


def test_the_password_stays() -> None:
    seen = replace(proxied(), fresh_password="another")
    assert planned(seen) == Plan(rule="at_rest")


def test_another_setting_makes_other_proxies_but_restarts_no_member() -> None:
    seen = with_spec(proxied(), proxy={**PROXY, "balance": "LeastConnections"})
    assert names(planned(seen)) == ["ConfigMap a-proxy"]
    assert judged(seen).pending == ()


def test_clients_are_led_to_the_proxies_once_one_is_ready() -> None:
    assert selector(proxied(ready=1, through_proxy=False)) == proxy_selector("a")


def test_clients_are_led_to_the_members_until_a_proxy_is_ready() -> None:
    assert planned(proxied(ready=0, through_proxy=False)).rule == "at_rest"


def test_clients_are_led_past_proxies_none_of_which_is_ready_while_the_members_are() -> None:
    assert selector(proxied(ready=0))["app.kubernetes.io/name"] == "etcd"


def test_nothing_is_changed_where_proxies_are_not_ready_because_no_member_is() -> None:
    seen = down(proxied(ready=0), "a-0", "a-1", "a-2")
    assert "Service a" not in names(planned(seen))


def test_a_proxy_that_is_switched_off_goes_once_clients_are_led_past_it() -> None:
    seen = with_spec(proxied(), proxy={"enabled": False})
    assert selector(seen)["app.kubernetes.io/name"] == "etcd"
    (step,) = planned(seen).steps
    assert isinstance(step, Apply)
    led_past = with_object(seen, "services", live(step.manifest))
    assert names(planned(led_past)) == [
        "Deployment a-proxy",
        "PodDisruptionBudget a-proxy",
        "NetworkPolicy a-proxy",
        "ConfigMap a-proxy",
        "Secret a-proxy",
        "Service a-members",
    ]


def test_network_policies_that_are_not_wanted_any_more_go() -> None:
    assert names(planned(with_spec(proxied(), access={"networkPolicy": "Off"}))) == [
        "NetworkPolicy a-proxy",
        "NetworkPolicy a-members",
    ]


def test_network_policies_come_last_so_that_nothing_waits_for_one_that_is_refused() -> None:
    seen = without(proxied(), "network_policies", "a-members", "a-proxy")
    assert names(planned(seen)) == ["NetworkPolicy a-members", "NetworkPolicy a-proxy"]
    assert planned(seen).rule == "keep_network_policies"
    assert planned(with_spec(seen, members=5)).rule == "add_missing_members"
    assert planned(with_spec(seen, options={"snapshotCount": 5000})).rule == "restart_in_order"


def test_what_has_the_proxys_name_but_is_somebody_elses_is_left_alone() -> None:
    strange: Manifest = {"kind": "Secret", "metadata": {"name": "a-proxy", "uid": "x", "ownerReferences": []}}
    assert planned(with_object(observation(), "secrets", strange)).rule == "at_rest"


def test_a_single_proxy_has_no_budget_that_would_keep_its_node_from_being_drained() -> None:
    seen = with_spec(proxied(), proxy={**PROXY, "replicas": 1})
    assert names(planned(seen)) == ["Deployment a-proxy"]
    seen = proxied(replicas=1)
    assert "a-proxy" not in seen.objects.disruption_budgets


@pytest.mark.parametrize(
    ("seen", "told"),
    [
        (proxied(), ""),
        (with_object(proxied(), "other_pods", proxy_pod(1, ready=False, created="2026-11-21T11:59:55Z")), ""),
        (
            with_object(proxied(), "other_pods", proxy_pod(1, ready=False, waiting="ImagePullBackOff")),
            "1 of 2 proxies are ready: a-proxy-1: image docker.io/library/haproxy:2.6 cannot be used:"
            " told by the kubelet",
        ),
        (
            with_object(proxied(), "other_pods", proxy_pod(2, ready=False, waiting="ErrImagePull")),
            "2 of 2 proxies are ready: a-proxy-2: image docker.io/library/haproxy:2.6 cannot be used:"
            " told by the kubelet",
        ),
        (
            proxied(ready=0),
            "0 of 2 proxies are ready: a-proxy-0 is not ready; a-proxy-1 is not ready; clients are led to the members"
            " themselves meanwhile",
        ),
    ],
)
def test_proxies_that_are_not_ready_are_told(seen: Observation, told: str) -> None:
    condition = degraded(judged(seen), Outcome(plan=Plan()))
    assert (condition.status, condition.message if told else "") == ("True" if told else "False", told)
    assert (condition.reason == "ProxiesUnhealthy") is bool(told)


def test_pods_that_kubernetes_does_not_make_are_told() -> None:
    failure = {"type": "ReplicaFailure", "status": "True", "message": "exceeded quota: small"}
    seen = without(proxied(), "other_pods", "a-proxy-0", "a-proxy-1")
    seen = edited(seen, "deployments", "a-proxy", lambda made: made.update(status={"conditions": [failure]}))
    found = judged(seen)
    told = degraded(found, Outcome(plan=planned(seen)))
    assert told.reason == "ProxiesUnhealthy"
    assert "0 of 2 proxies are ready: pods cannot be made: exceeded quota: small; clients are led" in told.message
