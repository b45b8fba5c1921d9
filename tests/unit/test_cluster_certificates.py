"""Authorities are made once and never replaced unasked; certificates follow them. And the operator's own way in."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from etcd_operator.cluster.authority import authority_problem
from etcd_operator.cluster.certificates import access_due, due, lost_authorities
from etcd_operator.cluster.identity import LIFETIME, Identities
from etcd_operator.cluster.observation import MOST_NAMED, Node, Observation
from etcd_operator.cluster.steps import Apply, IssueAuthority, IssueLeaf, Step
from etcd_operator.pki import inspect, signed_by
from etcd_operator.resources.secrets import client_leaf, content, peer_leaf, server_leaf
from support.builders import (
    NAMES,
    NOW,
    TLS_OFF,
    authority,
    authority_secret,
    blueprint,
    edited,
    judged,
    leaf_secret,
    observation,
    unfounded,
    with_object,
    with_spec,
    without,
)

PLAN = blueprint()


def steps(seen: Observation) -> tuple[Step, ...]:
    return due(seen, judged(seen).blueprint)


def what(seen: Observation) -> list[str]:
    """The steps in short: `authority peer`, `leaf a-server`, `restore a-peer-ca`."""
    told = []
    for step in steps(seen):
        match step:
            case IssueAuthority():
                told.append(f"authority {step.side}")
            case IssueLeaf():
                told.append(f"leaf {step.request.secret}")
            case Apply():
                told.append(f"restore {step.manifest['metadata']['name']}")
    return told


def garbled(seen: Observation, name: str, key: str) -> Observation:
    def edit(manifest: dict[str, Any]) -> None:
        manifest["data"][key] = "AAAA"

    return edited(seen, "secrets", name, edit)


def remembering(seen: Observation) -> Observation:
    return replace(seen, remembered={name: seen.objects.secrets[name] for name in ("a-peer-ca", "a-client-ca")})


def test_at_rest_nothing_is_due() -> None:
    assert what(observation()) == []
    assert lost_authorities(observation(), PLAN) == ()


def test_a_new_cluster_needs_authorities_first_and_certificates_next() -> None:
    assert what(unfounded()) == ["authority peer", "authority client"]
    seen = unfounded()
    for side in ("peer", "client"):
        seen = with_object(seen, "secrets", authority_secret(PLAN, side))
    assert what(seen) == ["leaf a-peer", "leaf a-server"]


def test_without_tls_none_is_needed() -> None:
    assert what(unfounded(tls=TLS_OFF)) == []


@pytest.mark.parametrize(("name", "leaf"), [("a-peer", "leaf a-peer"), ("a-server", "leaf a-server")])
def test_a_lost_or_garbled_certificate_is_issued_anew(name: str, leaf: str) -> None:
    assert what(without(observation(), "secrets", name)) == [leaf]
    for key in ("tls.crt", "tls.key"):
        assert what(garbled(observation(), name, key)) == [leaf]


@pytest.mark.parametrize("name", ["a-peer", "a-server"])
def test_a_garbled_list_of_authorities_is_put_right_around_the_same_certificate(name: str) -> None:
    before = content(observation().objects.secrets[name])
    (step,) = steps(garbled(observation(), name, "ca.crt"))
    assert isinstance(step, Apply)
    assert content(step.manifest) == before


def test_a_certificate_near_its_end_is_renewed() -> None:
    seen = observation()
    assert what(with_object(seen, "secrets", leaf_secret(PLAN, peer_leaf(PLAN), days=59))) == []
    assert what(with_object(seen, "secrets", leaf_secret(PLAN, peer_leaf(PLAN), days=61))) == ["leaf a-peer"]


def test_a_new_name_needs_a_new_server_certificate_and_nothing_else() -> None:
    assert what(with_spec(observation(), tls={"client": {"extraSANs": ["x.example.com"]}})) == ["leaf a-server"]


NODES = tuple(Node(name=each, addresses=(each,), ready=True) for each in ("192.0.2.1", "192.0.2.2"))
INGRESS = {"loadBalancer": {"ingress": [{"ip": "203.0.113.7"}, {"hostname": "lb.example.com", "ip": ""}]}}


@pytest.mark.parametrize(
    ("kind", "named"),
    [
        ("ClusterIP", set()),
        ("NodePort", {"10.0.0.9", "192.0.2.1", "192.0.2.2"}),
        ("LoadBalancer", {"10.0.0.9", "203.0.113.7", "lb.example.com"}),
    ],
)
def test_the_server_certificate_names_what_clients_from_outside_come_by(kind: str, named: set[str]) -> None:
    seen = replace(observation(proxy={"enabled": True, "service": {"type": kind}}), nodes=NODES)
    service = seen.objects.services["a"]
    made = {
        **service,
        "spec": {**service["spec"], "clusterIPs": ["10.0.0.9"]},
        "status": INGRESS if kind == "LoadBalancer" else {"loadBalancer": {}},
    }
    seen = with_object(seen, "services", made)
    assert what(seen) == (["leaf a-server"] if named else [])
    plain, request = server_leaf(PLAN), server_leaf(judged(seen).blueprint)
    assert {*request.dns_names, *request.ip_addresses} == {*plain.dns_names, *plain.ip_addresses, *named}


def test_a_proxy_that_is_off_leaves_no_way_from_outside() -> None:
    seen = replace(observation(proxy={"enabled": False, "service": {"type": "NodePort"}}), nodes=NODES)
    assert what(seen) == []


def test_members_that_are_reached_from_outside_are_named_by_every_node_without_a_proxy_too() -> None:
    seen = replace(observation(proxy={"enabled": False}, access={"members": "NodePort"}), nodes=NODES)
    assert what(seen) == ["leaf a-server"]
    assert {"192.0.2.1", "192.0.2.2"} <= {*server_leaf(judged(seen).blueprint).ip_addresses}


@pytest.mark.parametrize("nodes", [None, tuple(replace(NODES[0], name=f"n{each}") for each in range(MOST_NAMED + 1))])
def test_no_address_is_taken_from_a_certificate_for_nodes_that_are_not_known(nodes: tuple[Node, ...] | None) -> None:
    known = replace(observation(proxy={"enabled": False}, access={"members": "NodePort"}), nodes=NODES)
    issued = leaf_secret(PLAN, server_leaf(judged(known).blueprint))
    known = with_object(known, "secrets", issued)
    assert what(known) == []
    assert what(replace(known, nodes=nodes)) == []
    assert what(replace(known, nodes=NODES[:1])) == ["leaf a-server"], "a node that is gone is named no more"


def test_a_certificate_that_is_lost_names_what_clients_were_told_where_nodes_are_not_known() -> None:
    told = {"members": [{"name": "a-0", "external": "https://192.0.2.9:30000"}]}
    seen = replace(observation(access={"members": "NodePort"}, status=told), nodes=None)
    assert "192.0.2.9" in server_leaf(judged(without(seen, "secrets", "a-server")).blueprint).ip_addresses


def test_a_certificate_of_another_authority_is_replaced() -> None:
    seen = with_object(observation(), "secrets", leaf_secret(PLAN, server_leaf(PLAN), of="stranger"))
    seen = with_object(seen, "secrets", authority_secret(PLAN, "client"))
    assert "leaf a-server" not in what(without(seen, "secrets", "a-client-ca"))


# --- authorities that vanish or change --------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "side"), [("a-peer-ca", "peer"), ("a-client-ca", "client")])
def test_a_deleted_authority_is_put_back_from_memory(name: str, side: str) -> None:
    before = observation()
    seen = without(remembering(before), "secrets", name)
    assert what(seen) == [f"restore {name}"]
    step = steps(seen)[0]
    assert isinstance(step, Apply)
    assert content(step.manifest) == content(before.objects.secrets[name])


@pytest.mark.parametrize("key", ["tls.crt", "tls.key"])
def test_a_garbled_authority_is_put_back_from_memory(key: str) -> None:
    assert what(garbled(remembering(observation()), "a-peer-ca", key)) == ["restore a-peer-ca"]


def test_an_authority_put_in_its_place_by_a_stray_hand_is_undone() -> None:
    seen = with_object(remembering(observation()), "secrets", authority_secret(PLAN, "peer", of="stranger"))
    assert what(seen) == ["restore a-peer-ca"]


@pytest.mark.parametrize("name", ["a-peer-ca", "a-client-ca"])
def test_an_authority_that_nobody_remembers_is_not_replaced(name: str) -> None:
    """Members that trust the old one would refuse the certificates of a new one."""
    seen = without(observation(), "secrets", name)
    assert what(seen) == []
    assert lost_authorities(seen, PLAN) == (name,)


def test_a_strange_authority_that_nobody_can_undo_signs_nothing() -> None:
    seen = with_object(observation(), "secrets", authority_secret(PLAN, "client", of="stranger"))
    assert what(seen) == []
    assert lost_authorities(seen, PLAN) == ("a-client-ca",)


def test_memory_of_another_authority_than_the_trusted_one_is_not_used() -> None:
    stranger = authority_secret(PLAN, "peer", of="stranger")
    seen = replace(without(observation(), "secrets", "a-peer-ca"), remembered={"a-peer-ca": stranger})
    assert what(seen) == []
    assert lost_authorities(seen, PLAN) == ("a-peer-ca",)


def test_with_its_certificates_gone_as_well_a_new_authority_is_made() -> None:
    assert what(without(observation(), "secrets", "a-peer-ca", "a-peer")) == ["authority peer"]


def test_before_the_record_a_lost_authority_is_simply_made_anew() -> None:
    assert what(without(observation(recorded=False), "secrets", "a-peer-ca")) == ["authority peer"]


def test_what_is_wrong_with_an_authority() -> None:
    peer, client = (content(authority_secret(PLAN, side)) for side in ("peer", "client"))
    assert authority_problem(peer) == ""
    assert "key" in authority_problem({**peer, "tls.key": client["tls.key"]})
    assert "no authority" in authority_problem(content(leaf_secret(PLAN, peer_leaf(PLAN))))
    assert authority_problem({})


def access(seen: Observation) -> tuple[Step, ...]:
    return access_due(seen, judged(seen).blueprint)


def test_applications_get_certificate_and_address_in_one_secret() -> None:
    assert access(observation()) == ()
    step = access(without(observation(), "secrets", "a-client"))[0]
    assert isinstance(step, IssueLeaf)
    assert step.beside == {"ca.crt": authority("client").cert_pem, "endpoints": b"https://a.ns.svc:2379"}
    assert step.request == client_leaf(PLAN)


def test_a_changed_address_is_put_right() -> None:
    assert len(access(garbled(observation(), "a-client", "endpoints"))) == 1


def test_without_tls_applications_get_the_address_alone() -> None:
    seen = without(observation(tls=TLS_OFF), "secrets", "a-client")
    step = access(seen)[0]
    assert isinstance(step, Apply)
    assert content(step.manifest) == {"endpoints": b"http://a.ns.svc:2379"}
    assert access(observation(tls=TLS_OFF)) == ()


# --- the operator's own identity --------------------------------------------------------------------------------------


def test_the_operator_makes_itself_a_client_certificate() -> None:
    made = Identities().identity(NAMES, observation().objects.secrets, NOW)
    assert made is not None
    assert made.ca == authority("client").cert_pem
    assert made.cert is not None
    assert signed_by(made.cert, authority("client").cert_pem)
    info = inspect(made.cert)
    assert (info.client, info.server) == (True, False)


def test_it_keeps_it_for_half_its_life() -> None:
    identities, secrets = Identities(), observation().objects.secrets
    first = identities.identity(NAMES, secrets, NOW)
    assert identities.identity(NAMES, secrets, NOW + LIFETIME / 2) is first
    assert identities.identity(NAMES, secrets, NOW + LIFETIME / 2 + timedelta(seconds=1)) is not first


def test_it_follows_a_new_authority_at_once() -> None:
    identities = Identities()
    identities.identity(NAMES, observation().objects.secrets, NOW)
    seen = with_object(observation(), "secrets", authority_secret(PLAN, "client", of="stranger"))
    made = identities.identity(NAMES, seen.objects.secrets, NOW)
    assert made is not None
    assert made.ca == authority("stranger").cert_pem


@pytest.mark.parametrize(("gone", "used"), [(["a-client-ca"], "a-client"), (["a-client-ca", "a-client"], "a-server")])
def test_without_the_authority_any_certificate_of_its_making_serves(gone: list[str], used: str) -> None:
    seen = without(observation(), "secrets", *gone)
    made = Identities().identity(NAMES, seen.objects.secrets, NOW)
    assert made is not None
    assert made.cert == content(seen.objects.secrets[used])["tls.crt"]


def test_with_nothing_there_is_no_way_in() -> None:
    assert Identities().identity(NAMES, {}, NOW) is None
