"""Certificates: what is issued can be read back, verified and judged for renewal."""

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from etcd_operator.pki import (
    Authority,
    CertInfo,
    Leaf,
    PKIError,
    bundle,
    inspect,
    issue,
    key_matches,
    needs_renewal,
    new_authority,
    signed_by,
    split_bundle,
)

NOW = datetime(2026, 11, 21, 9, 0, tzinfo=UTC)
QUARTER = timedelta(days=90)
MONTH = timedelta(days=30)
AUTHORITY = new_authority("lab", NOW)
NAMES = ("*.a-peers.ns.svc.cluster.local", "localhost", "127.0.0.1", "::1")


def leaf(authority: Authority = AUTHORITY, *, now: datetime = NOW, lifetime: timedelta = QUARTER) -> Leaf:
    return issue(
        authority,
        common_name="a server",
        dns_names=NAMES[:2],
        ip_addresses=NAMES[2:],
        now=now,
        lifetime=lifetime,
        server=True,
        client=True,
    )


def reason(
    info: CertInfo,
    *,
    names: tuple[str, ...] = NAMES,
    now: datetime = NOW,
    renew_before: timedelta = MONTH,
    authority: Authority = AUTHORITY,
) -> str | None:
    return needs_renewal(info, names_wanted=names, now=now, renew_before=renew_before, authority=authority.cert_pem)


def test_what_is_issued_says_what_was_asked() -> None:
    info = inspect(leaf().cert_pem)
    assert info.common_name == "a server"
    assert info.dns_names + info.ip_addresses == NAMES
    assert info.not_after == NOW + QUARTER
    assert info.not_before == NOW - timedelta(minutes=5)
    assert (info.server, info.client, info.is_authority) == (True, True, False)
    assert info.authority_key_id == inspect(AUTHORITY.cert_pem).key_id != ""


def test_an_authority_is_one() -> None:
    info = inspect(AUTHORITY.cert_pem)
    assert info.is_authority
    assert (info.server, info.client) == (False, False)
    assert info.not_after == NOW + timedelta(days=3650)
    assert signed_by(AUTHORITY.cert_pem, AUTHORITY.cert_pem)


def test_usages_are_as_asked() -> None:
    access = issue(AUTHORITY, common_name="root", now=NOW, lifetime=QUARTER, server=False, client=True)
    info = inspect(access.cert_pem)
    assert (info.server, info.client, info.names) == (False, True, frozenset())
    with pytest.raises(ValueError, match="servers, clients or both"):
        issue(AUTHORITY, common_name="none", now=NOW, lifetime=QUARTER, server=False, client=False)


def test_openssl_accepts_certificate_and_key(tmp_path: Path) -> None:
    """Another TLS stack than the one that wrote them."""
    made = leaf()
    chain, key = tmp_path / "tls.crt", tmp_path / "tls.key"
    chain.write_bytes(made.cert_pem)
    key.write_bytes(made.key_pem)
    context = ssl.create_default_context(cadata=AUTHORITY.cert_pem.decode())
    context.load_cert_chain(chain, key)
    assert [found["subject"] for found in context.get_ca_certs()] == [((("commonName", "lab"),),)]


def test_a_signature_is_verified_not_just_read() -> None:
    impostor = new_authority("lab", NOW)  # the same name, another key
    assert signed_by(leaf().cert_pem, AUTHORITY.cert_pem)
    assert not signed_by(leaf().cert_pem, impostor.cert_pem)
    assert signed_by(leaf().cert_pem, bundle(impostor.cert_pem, AUTHORITY.cert_pem))


def test_no_certificate_outlives_its_authority() -> None:
    short = new_authority("short", NOW, lifetime=timedelta(days=10))
    info = inspect(leaf(short).cert_pem)
    assert info.not_after == NOW + timedelta(days=10)
    assert reason(info, authority=short) is None, "a new certificate must not be due at once"
    with pytest.raises(PKIError, match="expired at 2026-12-01"):
        leaf(short, now=NOW + timedelta(days=11))


def test_a_long_name_is_cut_and_a_bad_one_refused() -> None:
    long = issue(AUTHORITY, common_name="x" * 80, now=NOW, lifetime=QUARTER, server=False, client=True)
    assert inspect(long.cert_pem).common_name == "x" * 64
    with pytest.raises(PKIError, match="no certificate can carry that name"):
        issue(AUTHORITY, common_name="x", dns_names=["bücher"], now=NOW, lifetime=QUARTER, server=True, client=False)


def test_keys_and_certificates_are_matched() -> None:
    made = leaf()
    assert key_matches(made.cert_pem, made.key_pem)
    assert not key_matches(made.cert_pem, leaf().key_pem)
    assert not key_matches(made.cert_pem, b"garbage")
    assert not key_matches(b"", made.key_pem)


@pytest.mark.parametrize("pem", [b"", b"garbage", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_what_is_no_certificate_is_told(pem: bytes) -> None:
    with pytest.raises(PKIError, match="not a certificate"):
        inspect(pem)


def test_bundles_hold_each_certificate_once_in_order() -> None:
    other = new_authority("other", NOW)
    both = bundle(other.cert_pem, AUTHORITY.cert_pem, other.cert_pem)
    assert split_bundle(both) == (other.cert_pem, AUTHORITY.cert_pem)
    assert split_bundle(b"no certificates here") == ()
    assert bundle(both, both) == both


def test_a_good_certificate_is_left_alone() -> None:
    info = inspect(leaf().cert_pem)
    assert reason(info) is None
    assert reason(info, names=("LOCALHOST", NAMES[0], "127.0.0.1", "0:0:0:0:0:0:0:1")) is None


def test_reasons_for_renewal() -> None:
    info = inspect(leaf().cert_pem)
    assert reason(info, now=NOW + QUARTER - MONTH) == "expires at 2027-02-19 09:00 UTC"
    assert reason(info, now=NOW + QUARTER - MONTH - timedelta(seconds=1)) is None
    assert reason(info, now=NOW + QUARTER) == "expired at 2027-02-19 09:00 UTC"
    assert reason(info, now=NOW - timedelta(hours=1)) == "not valid before 2026-11-21 08:55 UTC"
    assert reason(info, names=(*NAMES, "etcd.example")) == "does not name etcd.example"
    assert reason(info, names=NAMES[1:]) == f"still names {NAMES[0]}"
    assert reason(info, authority=new_authority("lab", NOW)) == "signed by another authority"


def test_a_certificate_is_never_due_in_the_first_half_of_its_life() -> None:
    info = inspect(leaf(lifetime=timedelta(hours=1)).cert_pem)
    assert reason(info, renew_before=QUARTER) is None
    assert reason(info, renew_before=QUARTER, now=NOW + timedelta(minutes=31)) is not None


def test_secrets_stay_out_of_logs() -> None:
    assert "KEY" not in f"{AUTHORITY!r} {leaf()!r}"
