"""A kubeconfig that somebody else wrote: what is taken from it, and all that it must not bring about."""

import base64
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import yaml

from etcd_operator.kube import Connection
from etcd_operator.kube.kubeconfig import KubeconfigError
from etcd_operator.pki import issue, new_authority

NOW = datetime.now(UTC)
AUTHORITY = new_authority("test", NOW)
LEAF = issue(AUTHORITY, common_name="admin", now=NOW, lifetime=timedelta(days=1), server=False, client=True)
OTHER = issue(AUTHORITY, common_name="other", now=NOW, lifetime=timedelta(days=1), server=False, client=True)


def encoded(text: bytes) -> str:
    return base64.b64encode(text).decode()


CLUSTER = {"server": "https://192.0.2.1:6443", "certificate-authority-data": encoded(AUTHORITY.cert_pem)}
CERTIFICATE = {"client-certificate-data": encoded(LEAF.cert_pem), "client-key-data": encoded(LEAF.key_pem)}


def kubeconfig(cluster: dict[str, Any] = CLUSTER, user: dict[str, Any] = CERTIFICATE, **more: Any) -> bytes:
    config = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
        "clusters": [{"name": "k", "cluster": cluster}],
        "users": [{"name": "u", "user": user}],
        **more,
    }
    return yaml.safe_dump(config).encode()


@pytest.mark.parametrize(("user", "headers"), [(CERTIFICATE, {}), ({"token": "t"}, {"Authorization": "Bearer t"})])
async def test_what_it_says_is_who_one_is(user: dict[str, Any], headers: dict[str, str]) -> None:
    connection = Connection.of_kubeconfig(kubeconfig(user=user), origin="a test")
    try:
        assert connection.server == "https://192.0.2.1:6443"
        assert await connection.headers() == headers
        assert not await connection.reload()
    finally:
        await connection.close()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"{", "no kubeconfig"),
        (b"[]", "no kubeconfig"),
        (kubeconfig().replace(b"current-context: c", b"current-context: x"), "contexts have no x"),
        (kubeconfig(users="u"), "users have no u"),
        (kubeconfig(user={"exec": {"command": "sh"}}), "user says exec"),
        (kubeconfig(user={"tokenFile": "/var/run/secrets/token"}), "user says tokenFile"),
        (kubeconfig(user={"client-certificate": "/etc/shadow"}), "user says client-certificate"),
        (kubeconfig(user={**CERTIFICATE, "auth-provider": {"name": "gcp"}}), "user says auth-provider"),
        (kubeconfig(user={"token": 12}), "token is no text"),
        (kubeconfig(user={"token": ["t"]}), "token is no text"),
        (kubeconfig(user={"token": True}), "token is no text"),
        (kubeconfig(cluster={**CLUSTER, "server": 1}), "server is no text"),
        (kubeconfig(cluster={**CLUSTER, "tls-server-name": {"a": "b"}}), "tls-server-name is no text"),
        (kubeconfig(user={**CERTIFICATE, "client-key-data": 1}), "client-key-data is no text"),
        (kubeconfig(user={**CERTIFICATE, "client-key-data": "\u00e4"}), "client-key-data is no base64"),
        (kubeconfig(user={**CERTIFICATE, "client-key-data": encoded(b"BEGIN ENCRYPTED PRIVATE")}), "is encrypted"),
        (kubeconfig(more="x" * 65536), "larger than 64 KiB"),
        (kubeconfig() + b"a: &a b\n", "anchors or aliases"),
        (kubeconfig() + b"a: *a\n", "anchors or aliases"),
        (kubeconfig() + b"a: !!binary aGk=\n", "no kubeconfig"),
        (kubeconfig() + b"a: !!python/name:os.system\n", "no kubeconfig"),
        (kubeconfig(user={}), "neither client-certificate-data"),
        (kubeconfig(cluster={**CLUSTER, "insecure-skip-tls-verify": True}), "cluster says insecure-skip-tls-verify"),
        (kubeconfig(cluster={**CLUSTER, "certificate-authority": "/ca"}), "cluster says certificate-authority"),
        (kubeconfig(cluster={**CLUSTER, "server": "http://192.0.2.1"}), "no https:// address"),
        (kubeconfig(cluster={"server": "https://192.0.2.1"}), "no certificate-authority-data"),
        (kubeconfig(user={**CERTIFICATE, "client-key-data": "?"}), "client-key-data is no base64"),
        (kubeconfig(user={**CERTIFICATE, "client-key-data": encoded(OTHER.key_pem)}), "cannot be read"),
        (kubeconfig(cluster={**CLUSTER, "certificate-authority-data": encoded(b"x")}), "cannot be read"),
    ],
)
async def test_what_cannot_be_used_is_told_and_no_secret_with_it(text: bytes, told: str) -> None:
    with pytest.raises(KubeconfigError, match=told) as raised:
        Connection.of_kubeconfig(text, origin="a test")
    assert encoded(LEAF.key_pem) not in str(raised.value)


def filled(piece: bytes, before: bytes = b"", after: bytes = b"") -> bytes:
    return before + piece * ((60 * 1024 - len(before) - len(after)) // len(piece)) + after


HOSTILE = {
    "aliases": b"a0: &a0 [x]\n" + b"".join(b"a%d: &a%d [%s]\n" % (i, i, b"*a%d," % (i - 1) * 9) for i in range(1, 900)),
    "deep lists": filled(b"["),
    "deep maps": filled(b"{a: "),
    "deep blocks": filled(b"- "),
    "deep keys": filled(b"? "),
    "many lists": filled(b"[],", b"[", b"]"),
    "many maps": filled(b"- {}\n"),
    "many keys": b"".join(b"%x:\n" % i for i in range(9000)),
    "many documents": filled(b"--- a\n"),
    "a long number": filled(b"9"),
    "a long hexadecimal number": filled(b"f", b"0x"),
    "a long sexagesimal number": filled(b":1", b"1"),
    "many numbers": filled(b"1.5e3,", b"[", b"]"),
    "many dates": filled(b"2020-99-99,", b"[", b"]"),
    "many merges": filled(b"<<: {a: b},", b"{", b"}"),
    "tags": filled(b"!!set {},", b"[", b"]"),
    "long keys": filled(b"a", b'{"', b'": b}'),
    "escapes": filled(b"\\x41", b'"', b'"'),
    "spaces": filled(b" "),
    "lines": filled(b"\n", b"a: |", b"b"),
    "no UTF-8": filled(b"\xff"),
    "commas": filled(b"a,", b"{", b"}"),
    "quotes": filled(b"'"),
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_text_is_refused_before_it_is_expanded(text: bytes) -> None:
    with pytest.raises(KubeconfigError):
        Connection.of_kubeconfig(text, origin="a test")


async def test_what_it_says_beside_is_of_no_account() -> None:
    told: dict[str, Any] = {
        "preferences": {"colors": True},
        "extensions": [{"name": "e", "extension": {"size": 1, "at": 2.5}}],
    }
    text = kubeconfig(cluster={**CLUSTER, "insecure-skip-tls-verify": False}, **told)
    await Connection.of_kubeconfig(text, origin="a test").close()
