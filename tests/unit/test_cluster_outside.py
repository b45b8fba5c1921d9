"""Where clients from outside of a Kubernetes find an etcd and its members."""

from dataclasses import replace
from typing import Any

import pytest

from etcd_operator.cluster import proxy_rules
from etcd_operator.cluster.observation import MOST_NAMED, Node, Observation
from etcd_operator.cluster.outside import external_member_urls, external_urls, outside_names
from etcd_operator.cluster.steps import Apply, Delete
from etcd_operator.resources.names import POD_NAME, Manifest
from etcd_operator.resources.services import member_services
from support.builders import UID, blueprint, judged, live, observation, with_object

MEMBERS = ("a-0", "a-1", "a-2")


def nodes(*numbers: int, ready: bool = True) -> tuple[Node, ...]:
    """Nodes n1, n2, ... with an internal and an external address each."""
    return tuple(
        Node(name=f"n{each}", addresses=(f"192.0.2.{each}", f"198.51.100.{each}"), ready=ready) for each in numbers
    )


def exposed(*numbers: int, service: str = "NodePort", status: Any = None) -> Observation:
    wanted = {"enabled": True, "service": {"type": service}}
    return replace(observation(proxy=wanted, status=status), nodes=nodes(*numbers))


def with_port(seen: Observation, name: str, port: int, **more: Any) -> Observation:
    made: Manifest = live(
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "ownerReferences": [{"uid": UID}]}}
    )
    return with_object(
        seen, "services", {**made, "spec": {"ports": [{"name": "client", "port": 2379, "nodePort": port}]}, **more}
    )


def test_up_to_three_nodes_lead_to_the_proxy() -> None:
    seen = with_port(exposed(1, 2, 3, 4), "a", 32379)
    assert external_urls(seen, "https") == tuple(f"https://192.0.2.{each}:32379" for each in (1, 2, 3))


def test_nodes_that_were_told_stay_while_they_are_nodes() -> None:
    told = {"endpoints": {"external": ["https://192.0.2.9:32379", "https://192.0.2.4:32379"]}}
    seen = with_port(exposed(1, 2, 3, 4, status=told), "a", 32379)
    assert external_urls(seen, "https") == tuple(f"https://192.0.2.{each}:32379" for each in (1, 2, 4))


def test_no_client_is_newly_led_to_a_node_that_is_down() -> None:
    seen = replace(with_port(exposed(), "a", 32379), nodes=(*nodes(1, ready=False), *nodes(2)))
    assert external_urls(seen, "https") == ("https://192.0.2.2:32379",)


def test_a_load_balancer_has_etcds_own_port() -> None:
    ingress = {
        "loadBalancer": {"ingress": [{"ip": "203.0.113.7"}, {"hostname": "lb.example.com"}, {"ip": "2001:db8::7"}]}
    }
    seen = with_port(exposed(1, service="LoadBalancer"), "a", 30000, status=ingress)
    assert external_urls(seen, "https") == (
        "https://203.0.113.7:2379",
        "https://lb.example.com:2379",
        "https://[2001:db8::7]:2379",
    )


@pytest.mark.parametrize("seen", [exposed(1), exposed(1, service="ClusterIP"), observation()])
def test_without_a_port_there_is_no_way(seen: Observation) -> None:
    assert external_urls(seen, "https") == ()
    assert external_member_urls(seen, "https", MEMBERS) == {}


def opened(*numbers: int, **status: Any) -> Observation:
    seen = replace(observation(access={"members": "NodePort"}, status=status), nodes=nodes(*numbers))
    for index, member in enumerate(MEMBERS):
        seen = with_port(seen, f"{member}-node-port", 30000 + index)
    return seen


def test_members_are_spread_over_nodes() -> None:
    found = external_member_urls(opened(1, 2), "https", MEMBERS)
    assert found == {
        "a-0": "https://192.0.2.1:30000",
        "a-1": "https://192.0.2.2:30001",
        "a-2": "https://192.0.2.1:30002",
    }


def test_a_member_keeps_its_node_whatever_becomes_of_the_others() -> None:
    told = [
        {"name": "a-2", "external": "https://192.0.2.7:30002"},
        {"name": "a-0", "external": "https://192.0.2.9:30000"},
    ]
    found = external_member_urls(opened(1, 2, 7, members=told), "https", ("a-0", "a-2"))
    assert found == {"a-0": "https://192.0.2.1:30000", "a-2": "https://192.0.2.7:30002"}


def test_each_member_has_a_service_of_its_own_while_that_is_wanted() -> None:
    made = member_services(blueprint(access={"members": "NodePort"}))
    assert [each["metadata"]["name"] for each in made] == [f"{member}-node-port" for member in MEMBERS]
    assert [each["spec"]["selector"][POD_NAME] for each in made] == list(MEMBERS)
    assert member_services(blueprint()) == []
    assert member_services(blueprint(cluster_id=None, access={"members": "NodePort"})) == []


def test_services_follow_the_members() -> None:
    wanted = proxy_rules.keep_member_services(judged(observation(access={"members": "NodePort"})))
    assert wanted
    assert {step.manifest["metadata"]["name"] for step in wanted.steps if isinstance(step, Apply)} == {
        f"{member}-node-port" for member in MEMBERS
    }


def test_a_removed_members_service_goes_and_somebody_elses_stays() -> None:
    seen = replace(with_port(observation(), "a-7-node-port", 30007), listed_servers=frozenset())
    gone = proxy_rules.keep_member_services(judged(seen))
    assert gone
    assert [(step.kind, step.name) for step in gone.steps if isinstance(step, Delete)] == [("Service", "a-7-node-port")]
    foreign = with_object(seen, "services", live({"kind": "Service", "metadata": {"name": "a-7-node-port"}}))
    assert proxy_rules.keep_member_services(judged(foreign)) is None


@pytest.mark.parametrize(
    ("listed", "stays"),
    [
        (None, True),
        (frozenset({"https://192.0.2.9:30007", "https://192.0.2.9:30001"}), True),
        (frozenset({"https://[2001:db8::1]:30007"}), True),
        (frozenset({"https://192.0.2.9:30008", "https://nonsense:port"}), False),
    ],
)
def test_a_port_that_an_api_server_may_still_list_is_nobody_elses(listed: frozenset[str] | None, stays: bool) -> None:
    seen = replace(with_port(observation(), "a-7-node-port", 30007), listed_servers=listed)
    assert (proxy_rules.keep_member_services(judged(seen)) is None) == stays


def test_a_service_without_a_port_is_in_nobodys_list() -> None:
    assert proxy_rules.keep_member_services(judged(with_port(observation(), "a-7-node-port", 0)))


def test_nodes_are_named_while_a_member_may_still_be_reached_by_them() -> None:
    seen = replace(with_port(observation(), "a-0-node-port", 30000), nodes=nodes(1))
    assert outside_names(seen) == ("192.0.2.1", "198.51.100.1")
    assert outside_names(replace(observation(), nodes=nodes(1))) == ()


# --- nodes that are not known -----------------------------------------------------------------------------------------

TOLD = {"endpoints": {"external": [f"https://192.0.2.{each}:32379" for each in (7, 8, 9)]}}
MANY = nodes(*range(1, MOST_NAMED + 2))


def test_nodes_that_are_not_known_stay_told() -> None:
    seen = replace(with_port(exposed(status=TOLD), "a", 32379), nodes=None)
    assert external_urls(seen, "https") == tuple(TOLD["endpoints"]["external"])
    assert external_urls(with_port(seen, "a", 32380), "https") == ()
    assert external_urls(replace(seen, nodes=()), "https") == ()


def test_members_stay_told_by_nodes_that_are_not_known() -> None:
    told = [
        {"name": "a-0", "external": "https://192.0.2.9:30000"},
        {"name": "a-1", "external": "https://192.0.2.9:31111"},
        {"name": "a-2", "external": "https://[2001:db8::1]:30002"},
    ]
    seen = replace(opened(members=told), nodes=None)
    assert external_member_urls(seen, "https", MEMBERS) == {
        "a-0": "https://192.0.2.9:30000",
        "a-2": "https://[2001:db8::1]:30002",
    }
    assert external_member_urls(replace(seen, nodes=()), "https", MEMBERS) == {}


def test_of_very_many_nodes_three_are_told_and_named() -> None:
    seen = replace(with_port(exposed(), "a", 32379), nodes=MANY)
    urls = tuple(f"https://192.0.2.{each}:32379" for each in (1, 2, 3))
    assert external_urls(seen, "https") == urls
    named = {address for node in nodes(1, 2, 3) for address in node.addresses}
    assert named <= {*outside_names(seen)}
    assert "192.0.2.4" not in outside_names(seen)


def test_of_very_many_nodes_those_that_were_told_stay() -> None:
    told = {"endpoints": {"external": ["https://192.0.2.50:32379", "https://203.0.113.1:32379"]}}
    seen = replace(with_port(exposed(status=told), "a", 32379), nodes=MANY)
    hosts = ("192.0.2.1", "192.0.2.2", "192.0.2.50", "203.0.113.1")
    assert external_urls(seen, "https") == tuple(f"https://{host}:32379" for host in hosts)
    assert {*hosts} <= {*outside_names(seen)}


def test_members_of_very_many_nodes_are_told_by_nodes_that_are_named() -> None:
    told = [{"name": "a-1", "external": "https://203.0.113.1:30001"}]
    seen = replace(opened(members=told), nodes=MANY)
    found = external_member_urls(seen, "https", MEMBERS)
    assert found == {
        "a-0": "https://192.0.2.1:30000",
        "a-1": "https://203.0.113.1:30001",
        "a-2": "https://192.0.2.2:30002",
    }
    assert {"192.0.2.1", "203.0.113.1", "192.0.2.2"} <= {*outside_names(seen)}
