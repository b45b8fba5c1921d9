"""Names by which one part of the operator finds what another made."""

import pytest

from etcd_operator.resources.names import Names, object_labels, selector_labels

NAMES = Names(name="a-1", namespace="ns", domain="corp.example")


def test_hosts_use_the_discovered_domain() -> None:
    assert NAMES.host("a-1-0") == "a-1-0.a-1-peers.ns.svc.corp.example"


def test_the_clients_host_leaves_the_domain_to_the_search_list() -> None:
    assert NAMES.client_host() == "a-1.ns.svc"


@pytest.mark.parametrize(
    ("member", "ordinal"),
    [("a-1-0", 0), ("a-1-10", 10), ("a-1", None), ("a-1-x", None), ("b-0", None), ("a-1-", None), ("a-1-0-0", None)],
)
def test_ordinals(member: str, ordinal: int | None) -> None:
    assert NAMES.ordinal(member) == ordinal


@pytest.mark.parametrize(
    ("claim", "member"),
    [("data-a-1-0", "a-1-0"), ("a-1-0", None), ("data-a-2-0", None), ("logs-a-1-0", None), ("data-a-1", None)],
)
def test_claims_belong_to_members(claim: str, member: str | None) -> None:
    assert NAMES.member_of_claim(claim) == member


def test_a_member_has_the_claim_that_leads_back_to_it() -> None:
    assert NAMES.member_of_claim(NAMES.claim("a-1-3")) == "a-1-3"


def test_members_sort_by_number() -> None:
    assert NAMES.sorted(["a-1-10", "a-1-2", "stranger"]) == ("a-1-2", "a-1-10", "stranger")


def test_all_objects_of_a_cluster_have_names_of_their_own() -> None:
    secrets = [NAMES.peer_authority, NAMES.client_authority, NAMES.peer_certificate, NAMES.server_certificate]
    assert len({*secrets, NAMES.client_access}) == 5
    assert NAMES.peer_service != NAMES.client_service


def test_the_selector_stays_as_it_is_forever() -> None:
    """It is immutable in every StatefulSet that is out there."""
    assert selector_labels("a") == {
        "app.kubernetes.io/name": "etcd",
        "app.kubernetes.io/instance": "a",
        "externaletcd.io/cluster": "a",
    }
    assert selector_labels("a").items() < object_labels("a").items()
