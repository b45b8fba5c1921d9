"""When an authority is rotated, what each phase waits for, and what is told meanwhile."""

from dataclasses import replace
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

import pytest

from etcd_operator.cluster.authority import HeldAuthority, Phase, held, is_successor, trust_digest
from etcd_operator.cluster.conditions import Outcome, degraded, progressing, summary
from etcd_operator.cluster.observation import Observation
from etcd_operator.cluster.rotation_rules import ORDER, due
from etcd_operator.cluster.steps import Annotate, Apply, Delete, IssueAuthority, IssueLeaf, Plan
from etcd_operator.etcd.model import Handshake
from etcd_operator.pki import Leaf, issue, new_authority, split_bundle
from etcd_operator.resources import names as n
from etcd_operator.resources.compare import sealed
from etcd_operator.resources.secrets import (
    LeafRequest,
    Side,
    authority_name,
    client_endpoints,
    client_leaf,
    content,
    named_client_leaf,
    peer_leaf,
    secret,
    server_leaf,
)
from etcd_operator.resources.stateful_set import stateful_set
from support.builders import (
    NOW,
    authority,
    blueprint,
    edited,
    judged,
    leaf_secret,
    live,
    observation,
    silent,
    with_answer,
    with_authorities,
    with_object,
    with_pod,
    with_spec,
)
from support.plans import planned, the_step

PLAN = blueprint()
NEW = new_authority("new", NOW)
LATER = NOW + timedelta(days=9 * 365)


def asked(side: Side, value: str = "now") -> Observation:
    seen = observation()
    metadata = seen.cluster.metadata.model_copy(update={"annotations": {f"externaletcd.io/rotate-{side}": value}})
    return replace(seen, cluster=seen.cluster.model_copy(update={"metadata": metadata}))


def with_authority(seen: Observation, of: HeldAuthority) -> Observation:
    """The authority's Secret in a phase; its rotation is the one that is asked for."""
    rotation = {f"externaletcd.io/rotate-{of.side}": "now"}
    return with_object(
        seen,
        "secrets",
        live(secret(PLAN, authority_name(PLAN, of.side), of.data, issued_at=NOW.isoformat(), rotation=rotation)),
    )


def in_phase(side: Side, phase: Phase) -> HeldAuthority:
    made = HeldAuthority(side=side, signer=authority(side)).beside(NEW)
    for _ in range([Phase.TRUST, Phase.REISSUE, Phase.DROP].index(phase)):
        made = made.advanced()
    return made


@lru_cache
def shown_by(of: str) -> bytes:
    signer = NEW if of == "new" else authority(of)
    lifetime = timedelta(days=1)
    return issue(signer, common_name="x", now=NOW, lifetime=lifetime, server=True, client=True).cert_pem


def shaking(seen: Observation, side: Side, of: str, *, accepted: bool = True, members: int = 3) -> Observation:
    shook = Handshake(certificate=shown_by(of), accepted=accepted)
    return replace(seen, handshakes={(side, f"a-{ordinal}"): shook for ordinal in range(members)})


def following(seen: Observation, of: HeldAuthority, *, restarted: bool = True) -> Observation:
    """The authority in its phase, with all that follows from it: certificates, template and, if so, restarts."""
    signer = "new" if of.signer == NEW else of.side
    mounted = with_authorities(PLAN)
    digest = trust_digest(of.trusted)
    plan = replace(mounted, peer_authority=digest) if of.side == "peer" else replace(mounted, client_authority=digest)
    for request in [peer_leaf(PLAN)] if of.side == "peer" else [server_leaf(PLAN), client_leaf(PLAN)]:
        data = content(leaf_secret(PLAN, request))
        if signer == "new":
            data |= {"tls.crt": _leaf(request).cert_pem, "tls.key": _leaf(request).key_pem}
        issued_at = NOW if request == client_leaf(PLAN) else NOW - timedelta(days=1)
        made = secret(PLAN, request.secret, {**data, "ca.crt": of.trusted}, issued_at=issued_at.isoformat())
        seen = with_object(seen, "secrets", live(made))
    seen = with_object(seen, "stateful_sets", live(sealed(stateful_set(plan))))
    for pod in seen.objects.pods if restarted else ():
        seen = edited(
            seen, "pods", pod, lambda made: made["metadata"]["annotations"].update(plan.authority_annotations)
        )
    return with_authority(seen, of)


@lru_cache
def _leaf(request: LeafRequest) -> Leaf:
    return issue(
        NEW,
        common_name=request.common_name,
        now=NOW,
        lifetime=timedelta(days=90),
        dns_names=request.dns_names,
        ip_addresses=request.ip_addresses,
        server=request.server,
        client=True,
    )


# --- the Secret -------------------------------------------------------------------------------------------------------


def test_each_phase_is_read_from_the_secret_that_it_wrote() -> None:
    for phase in (Phase.TRUST, Phase.REISSUE, Phase.DROP):
        made = in_phase("peer", phase)
        assert made.phase is phase
        assert held("peer", made.data) == made
    rest = in_phase("peer", Phase.DROP).advanced()
    assert (rest.phase, rest.signer) == (Phase.REST, NEW)
    assert set(rest.data) == {"tls.crt", "tls.key"}


def test_whom_to_trust_changes_twice_and_is_the_same_text_while_certificates_change() -> None:
    old, new = authority("peer").cert_pem, NEW.cert_pem
    trusted = [in_phase("peer", phase).trusted for phase in (Phase.TRUST, Phase.REISSUE, Phase.DROP)]
    assert trusted == [old + new, old + new, new]
    assert trust_digest(trusted[0]) == f"{trust_digest(old)}.{trust_digest(new)}"
    assert trust_digest(b"") == ""


def test_a_garbled_next_one_counts_as_none() -> None:
    data = in_phase("peer", Phase.TRUST).data | {"next.key": b"x"}
    found = held("peer", data)
    assert found is not None
    assert found.phase is Phase.REST


def test_what_can_follow_by_a_step_of_a_rotation() -> None:
    rest = {"tls.crt": authority("peer").cert_pem, "tls.key": authority("peer").key_pem}
    trust, reissue = in_phase("peer", Phase.TRUST).data, in_phase("peer", Phase.REISSUE).data
    assert is_successor(rest, trust)
    assert is_successor(trust, reissue)
    assert not is_successor(rest, reissue)
    assert not is_successor(rest, {})


# --- beginning --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", ORDER)
def test_a_request_begins_a_rotation_once(side: Side) -> None:
    (step,) = planned(asked(side)).steps
    assert isinstance(step, IssueAuthority)
    assert (step.side, step.rotation) == (side, "now")
    assert step.beside == HeldAuthority(side=side, signer=authority(side))
    done = with_authority(asked(side), HeldAuthority(side=side, signer=authority(side)))
    assert planned(done).rule == "at_rest"


@pytest.mark.parametrize("side", ORDER)
def test_an_authority_is_due_a_year_before_its_end(side: Side) -> None:
    assert due(judged(observation()), side) == ""
    assert due(judged(replace(observation(), at=LATER - timedelta(days=10))), side) == ""
    assert "expires at" in due(judged(replace(observation(), at=LATER)), side)
    sooner = with_spec(observation(), tls={"authorityRenewBefore": "1h"})
    assert due(judged(replace(sooner, at=LATER)), side) == ""


@pytest.mark.parametrize(
    ("disturbed", "told"),
    [
        (lambda seen: with_answer(seen, "a-1", silent()), "a-1"),
        (lambda seen: with_spec(seen, members=5), "a-3 is to be added"),
        (lambda seen: with_spec(seen, options={"snapshotCount": 5}), "restart"),
        (lambda seen: with_spec(seen, paused=True), ""),
    ],
)
def test_it_begins_only_when_nothing_else_is_under_way(disturbed: Any, told: str) -> None:
    seen = disturbed(asked("client"))
    assert not any(isinstance(step, IssueAuthority) for step in planned(seen).steps)
    assert told in progressing(judged(seen), Outcome(plan=planned(seen))).message


# --- phase by phase ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", ORDER)
def test_first_the_secrets_tell_of_both_around_the_same_certificate(side: Side) -> None:
    (step,) = planned(with_authority(observation(), in_phase(side, Phase.TRUST))).steps
    assert isinstance(step, Apply)
    name = "a-peer" if side == "peer" else "a-server"
    data, before = content(step.manifest), content(observation().objects.secrets[name])
    assert step.manifest["metadata"]["name"] == name
    assert split_bundle(data["ca.crt"]) == (authority(side).cert_pem, NEW.cert_pem)
    assert data["tls.crt"] == before["tls.crt"]


@pytest.mark.parametrize("side", ORDER)
def test_then_members_restart_in_order(side: Side) -> None:
    seen = following(observation(), in_phase(side, Phase.TRUST), restarted=False)
    (step,) = planned(seen).steps
    assert isinstance(step, Delete)
    assert step.name == "a-1"
    message = progressing(judged(seen), Outcome(plan=planned(seen))).message
    assert f"Rotating the {side} authority: 0 of 3 restarted to trust the new one" in message
    told = summary(judged(seen), Outcome(plan=planned(seen)))
    assert told.startswith(f"Available; rotating the {side} authority: 0 of 3 restarted to trust the new")


@lru_cache
def all_trust(side: Side) -> Observation:
    """The first restart is over, and clients had their time."""
    return replace(following(observation(), in_phase(side, Phase.TRUST)), at=NOW + timedelta(minutes=6))


@pytest.mark.parametrize("side", ORDER)
def test_the_new_one_signs_when_every_member_has_shown_that_it_trusts_it(side: Side) -> None:
    seen = all_trust(side)
    for unproved in (seen, shaking(seen, side, side, members=2)):
        assert not planned(unproved).steps
    (step,) = planned(shaking(seen, side, side)).steps
    assert isinstance(step, Apply)
    assert content(step.manifest) == in_phase(side, Phase.REISSUE).data
    assert step.manifest["metadata"]["annotations"][f"externaletcd.io/rotate-{side}"] == "now"


def with_client(seen: Observation, of: HeldAuthority, *, issued_at: datetime, trusted: bytes = b"") -> Observation:
    """One of `spec.clients`, with a Secret in the same phase but for what it is to trust, if that is given."""
    request = named_client_leaf(PLAN, "web")
    endpoints = {"endpoints": client_endpoints(PLAN).encode(), "ca.crt": trusted or of.trusted}
    made = secret(
        PLAN, request.secret, {**content(leaf_secret(PLAN, request)), **endpoints}, issued_at=issued_at.isoformat()
    )
    return with_object(with_spec(seen, clients=[{"name": "web"}]), "secrets", live(made))


def test_clients_of_the_spec_are_told_and_given_time_as_well() -> None:
    of, seen = in_phase("client", Phase.TRUST), shaking(all_trust("client"), "client", "client")
    untold = with_client(seen, of, issued_at=NOW, trusted=authority("client").cert_pem)
    assert (planned(untold).rule, the_step(untold).manifest["metadata"]["name"]) == (
        "keep_client_secrets",
        "a-client-web",
    )
    assert content(the_step(untold).manifest)["ca.crt"] == of.trusted
    late = with_client(seen, of, issued_at=seen.at - timedelta(minutes=1))
    assert not planned(late).steps
    assert "clients have until" in planned(late).waiting
    assert planned(with_client(seen, of, issued_at=NOW)).rule == "rotate_authorities"


def test_clients_are_given_time_and_members_are_not() -> None:
    early = shaking(replace(all_trust("client"), at=NOW + timedelta(minutes=4)), "client", "client")
    assert not planned(early).steps
    assert "clients have until 12:05:00 UTC" in planned(early).waiting
    assert planned(shaking(replace(all_trust("peer"), at=NOW), "peer", "peer")).steps


def test_api_servers_that_do_not_trust_the_new_one_yet_are_waited_for() -> None:
    seen = shaking(replace(all_trust("client"), at=NOW + timedelta(minutes=6)), "client", "client")
    assert planned(seen).steps
    held_up = planned(replace(seen, api_servers_behind=("tenant/hosted",)))
    assert not held_up.steps
    assert "ApiServerBinding tenant/hosted" in held_up.waiting
    peers = shaking(replace(all_trust("peer"), at=NOW), "peer", "peer")
    assert planned(replace(peers, api_servers_behind=("tenant/hosted",))).steps


def test_a_member_that_read_older_files_restarts_once_more() -> None:
    seen = shaking(all_trust("peer"), "peer", "peer")
    seen = replace(seen, handshakes={**seen.handshakes, ("peer", "a-2"): Handshake(certificate=b"", accepted=False)})
    (step,) = planned(seen).steps
    assert isinstance(step, Delete)
    assert step.name == "a-2"


@pytest.mark.parametrize("side", ORDER)
def test_the_old_one_is_dropped_when_no_member_shows_a_certificate_of_it(side: Side) -> None:
    seen = following(all_trust(side), in_phase(side, Phase.REISSUE))
    assert not planned(shaking(seen, side, side)).steps
    stale = Handshake(certificate=shown_by(side), accepted=True)
    mixed = {**shaking(seen, side, "new").handshakes, (side, "a-1"): stale}
    assert "2 of 3 members show a certificate of it, not yet a-1" in planned(replace(seen, handshakes=mixed)).waiting
    (step,) = planned(shaking(seen, side, "new")).steps
    assert isinstance(step, Apply)
    assert content(step.manifest) == in_phase(side, Phase.DROP).data


def test_certificates_of_the_new_one_are_issued_at_once() -> None:
    (step,) = planned(with_authority(all_trust("peer"), in_phase("peer", Phase.REISSUE))).steps
    assert isinstance(step, IssueLeaf)
    assert step.authority == NEW
    assert "new peer authority" in step.reason


def test_pods_that_are_older_than_a_certificate_are_made_to_take_it() -> None:
    seen = edited(
        observation(),
        "secrets",
        "a-server",
        lambda made: made["metadata"]["annotations"].update({n.ISSUED_AT: NOW.isoformat()}),
    )
    seen = with_pod(seen, "a-2", created=(NOW + timedelta(seconds=1)).isoformat())
    touched = planned(seen)
    assert touched.rule == "refresh_certificates"
    assert [each.name for each in touched.steps if isinstance(each, Annotate)] == ["a-0", "a-1"]


# --- what is told -----------------------------------------------------------------------------------------------------


def test_an_end_that_comes_near_is_told_loudly_with_what_stops_the_rotation() -> None:
    soon = replace(observation(), at=LATER + timedelta(days=200))
    assert degraded(judged(with_answer(soon, "a-1", silent())), Outcome(plan=Plan())).reason == "CertificateExpires"
    told = degraded(judged(with_answer(soon, "a-1", silent())), Outcome(plan=Plan())).message
    assert "the peer authority expires at" in told
    assert "a-1" in told
