"""The objects of the proxy, and HAProxy's configuration."""

from typing import Any

import pytest

from etcd_operator.resources.haproxy import haproxy_config
from etcd_operator.resources.proxy import proxy_config_map, proxy_deployment, proxy_disruption_budget
from etcd_operator.resources.services import client_service
from support.builders import NAMES, blueprint


def config(**proxy: Any) -> list[str]:
    plan = blueprint(proxy={"enabled": True, **proxy})
    return [line.strip() for line in haproxy_config(NAMES, plan.proxy).splitlines()]


def pod(**proxy: Any) -> Any:
    made = proxy_deployment(blueprint(proxy={"enabled": True, **proxy}))
    assert made is not None
    return made["spec"]["template"]


@pytest.mark.parametrize(
    ("balance", "line"),
    [("RoundRobin", "roundrobin"), ("LeastConnections", "leastconn"), ("First", "first")],
)
def test_balance(balance: str, line: str) -> None:
    assert config(balance=balance).count(f"balance {line}") == 2


def test_timeouts_are_the_users() -> None:
    assert {"timeout connect 4000ms", "timeout client 1800000ms", "timeout server 1800000ms"} <= set(config())
    assert "timeout client 3600000ms" in config(timeouts={"client": "1h"})


def test_there_is_a_place_for_every_member_that_there_can_be_and_only_ready_ones_get_connections() -> None:
    lines = config()
    assert "server-template member 7 _client._tcp.a-members.ns.svc.cluster.local" in lines
    assert "server-template member 7 _http._tcp.a-members.ns.svc.cluster.local" in lines
    assert lines.count("http-check send meth GET uri /readyz") == 2
    assert sum("check port 2381" in line for line in lines) == 2


def test_the_statistics_are_behind_a_password_that_stands_in_no_config_map() -> None:
    assert 'stats auth "${STATS_USER}:${STATS_PASSWORD}"' in config()
    environment = pod()["spec"]["containers"][0]["env"]
    assert [variable["valueFrom"]["secretKeyRef"]["name"] for variable in environment] == ["a-proxy"] * 2


def test_another_configuration_is_another_pod() -> None:
    digests = {str(pod(**proxy)["metadata"]["annotations"]) for proxy in ({}, {"balance": "First"}, {"replicas": 3})}
    assert len(digests) == 2


def test_the_service_is_as_the_user_wants_it() -> None:
    wanted = {"type": "NodePort", "nodePort": 32379, "annotations": {"x": "y"}}
    made = client_service(blueprint(proxy={"enabled": True, "service": wanted}), through_proxy=True)
    assert made is not None
    assert made["spec"]["type"] == "NodePort"
    assert made["spec"]["ports"][0]["nodePort"] == 32379
    assert made["metadata"]["annotations"] == {"x": "y"}
    assert made["spec"]["selector"]["app.kubernetes.io/name"] == "etcd-proxy"


def test_there_is_nothing_while_it_is_switched_off() -> None:
    plan = blueprint()
    assert [build(plan) for build in (proxy_config_map, proxy_deployment, proxy_disruption_budget)] == [None] * 3
