"""The user's own authorities: checked, copied, taken over by a rotation, and never in the way of a running cluster."""

import base64
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from etcd_operator.cluster.authority import HeldAuthority
from etcd_operator.cluster.conditions import Outcome, degraded, progressing
from etcd_operator.cluster.observation import Observation
from etcd_operator.cluster.steps import Apply, IssueAuthority, Plan
from etcd_operator.pki import Authority, new_authority
from etcd_operator.resources import names as n
from etcd_operator.resources.secrets import content, peer_leaf
from support.builders import (
    NOW,
    annotated,
    authority,
    blueprint,
    judged,
    leaf,
    live,
    observation,
    unfounded,
    with_object,
    with_spec,
    without,
)
from support.plans import planned

OWN = new_authority("ours", NOW)
PROVIDED = {"client": {"mode": "Provided", "secretRef": {"name": "our-ca"}}}


def providing(seen: Observation, of: Authority | None = OWN, **data: bytes | None) -> Observation:
    """The user's Secret; `tls_key=None` takes a field away."""
    if of is None:
        return replace(seen, provided={})
    found: dict[str, bytes | None] = {"tls.crt": of.cert_pem, "tls.key": of.key_pem}
    found |= {key.replace("_", "."): value for key, value in data.items()}
    encoded = {key: base64.b64encode(value).decode() for key, value in found.items() if value is not None}
    return replace(seen, provided={"client": {"metadata": {"name": "our-ca"}, "data": encoded}})


def running(**provided: Any) -> Observation:
    return providing(with_spec(observation(), tls=PROVIDED), **provided)


def test_a_new_cluster_is_founded_with_it() -> None:
    seen = providing(unfounded(tls=PROVIDED))
    (foundation,) = planned(seen).steps
    assert isinstance(foundation, Apply)
    steps = planned(with_object(seen, "config_maps", live(foundation.manifest))).steps
    assert [step.side for step in steps if isinstance(step, IssueAuthority)] == ["peer"]
    (copied,) = (step for step in steps if isinstance(step, Apply))
    assert copied.manifest["metadata"]["name"] == "a-client-ca"
    assert content(copied.manifest) == {"tls.crt": OWN.cert_pem, "tls.key": OWN.key_pem}


def test_nothing_is_founded_on_one_that_cannot_be_used() -> None:
    seen = providing(unfounded(tls=PROVIDED), None)
    assert planned(seen).rule == "refuse_to_found_on_bad_input"
    told = progressing(judged(seen), Outcome(plan=planned(seen))).message
    assert "Secret our-ca (spec.tls.client.secretRef): it does not exist" in told


def test_another_one_is_taken_over_by_a_rotation() -> None:
    (step,) = planned(running()).steps
    assert isinstance(step, Apply)
    expected = HeldAuthority(side="client", signer=authority("client")).beside(OWN)
    assert content(step.manifest) == expected.data
    assert step.manifest["metadata"]["annotations"][n.PROVIDED_BY] == "our-ca"


def test_the_same_one_changes_nothing_and_restarts_nobody() -> None:
    seen = running(of=authority("client"))
    assert planned(seen).rule == "at_rest"
    assert judged(seen).pending == ()


def test_without_it_again_the_operator_makes_its_own() -> None:
    seen = annotated(observation(), "secrets", "a-client-ca", provided_by="our-ca")
    (step,) = planned(seen).steps
    assert isinstance(step, IssueAuthority)
    assert step.beside == HeldAuthority(side="client", signer=authority("client"))


def test_a_copy_that_was_deleted_comes_back_from_it() -> None:
    seen = without(running(of=authority("client")), "secrets", "a-client-ca")
    (step,) = planned(seen).steps
    assert isinstance(step, Apply)
    assert content(step.manifest)["tls.crt"] == authority("client").cert_pem
    others = planned(without(running(), "secrets", "a-client-ca")).steps
    assert not any(isinstance(step, Apply) for step in others)


LEAF = leaf("peer", peer_leaf(blueprint()))
CHAINED = Authority(cert_pem=LEAF.cert_pem, key_pem=LEAF.key_pem)
EXPIRED = new_authority("old", NOW - timedelta(days=9), timedelta(days=1))
EARLY = new_authority("early", NOW + timedelta(days=9))


@pytest.mark.parametrize(
    ("provided", "told"),
    [
        ({"of": None}, "it does not exist; create it in namespace ns"),
        ({"tls_crt": None}, "tls.crt is missing"),
        ({"tls_key": None}, "tls.key is missing"),
        ({"tls_crt": b"x"}, "tls.crt: not a certificate in PEM form"),
        ({"tls_key": b"x"}, "tls.key: the key does not belong to the certificate"),
        ({"tls_key": authority("peer").key_pem}, "tls.key: the key does not belong to the certificate"),
        ({"of": CHAINED}, "tls.crt: the certificate is no authority's"),
        ({"of": EXPIRED}, "tls.crt: it is valid until 2026-11-13"),
        ({"of": EARLY}, "tls.crt: it is not valid before 2026-11-30"),
    ],
)
def test_a_bad_one_is_told_and_the_cluster_goes_on_with_the_one_it_has(provided: Any, told: str) -> None:
    seen = running(**provided)
    assert planned(seen).rule == "at_rest"
    condition = degraded(judged(seen), Outcome(plan=Plan()))
    assert condition.reason == "AuthorityRefused"
    assert f"Secret our-ca (spec.tls.client.secretRef): {told}" in condition.message
    assert "the members keep the authority that they have" in condition.message
