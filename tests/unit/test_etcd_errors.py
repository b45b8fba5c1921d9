"""What the outcomes of calls to etcd mean; the texts are those that grpcio 1.85 and etcd 3.7 were seen to give."""

import pytest

from etcd_operator.etcd.errors import EtcdError, Kind, error_from

CONNECTING = "failed to connect to all addresses; last error: "


@pytest.mark.parametrize(
    ("code", "detail", "kind", "words"),
    [
        ("DEADLINE_EXCEEDED", "Deadline Exceeded", "timeout", "no answer in time"),
        ("DEADLINE_EXCEEDED", "Stream removed (Deadline Exceeded)", "timeout", "no answer in time"),
        (
            "UNAVAILABLE",
            f"{CONNECTING}UNKNOWN: ipv4:127.0.0.1:1: Failed to connect to remote host: Connection refused",
            "refused",
            "connection refused: nothing listens there",
        ),
        (
            "UNAVAILABLE",
            f"{CONNECTING}UNKNOWN: ipv4:10.0.0.1:1: Failed to connect to remote host: No route to host",
            "unreachable",
            "no route to that address",
        ),
        (
            "UNAVAILABLE",
            "errors resolving no.such.test:2379: [field:hostname lookup error:address lookup failed for "
            "no.such.test:2379: Domain name not found]",
            "unreachable",
            "no route to that address",
        ),
        (
            "UNAVAILABLE",
            f"{CONNECTING}UNKNOWN: ipv4:127.0.0.1:2: Tls handshake failed (TSI_PROTOCOL_FAILURE): SSL_ERROR_SSL: "
            "error:1000007d:SSL routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED: unable to get local issuer",
            "tls",
            "the member's certificate has expired or is not signed by the expected authority",
        ),
        (
            "UNAVAILABLE",
            f"{CONNECTING}UNAVAILABLE: ipv4:127.0.0.1:2: Unwrap failed (TSI_DATA_CORRUPTED)",
            "tls",
            "the member refused the certificate that it was shown",
        ),
        (
            "UNAVAILABLE",
            f"{CONNECTING}UNKNOWN: ipv4:127.0.0.1:2: Custom verification check failed with error: UNAUTHENTICATED: "
            "Hostname Verification Check failed.",
            "tls",
            "the member's certificate does not carry its name",
        ),
        (
            "UNAVAILABLE",
            f"{CONNECTING}UNAVAILABLE: ipv4:127.0.0.1:2: Socket closed",
            "unavailable",
            "the connection broke",
        ),
        ("UNAVAILABLE", "etcdserver: no leader", "no_leader", "no leader"),
        ("UNAVAILABLE", "etcdserver: request timed out", "no_leader", "no leader"),
        ("UNAVAILABLE", "etcdserver: server stopped", "unavailable", "the connection broke"),
        (
            "UNAVAILABLE",
            "etcdserver: unhealthy cluster",
            "unhealthy_cluster",
            "etcd asks to wait until all voters have been connected for 5 s",
        ),
        ("NOT_FOUND", "etcdserver: member not found", "not_found", "no such member"),
        (
            "FAILED_PRECONDITION",
            "etcdserver: can only promote a learner member which is in sync with leader",
            "learner_not_ready",
            "the learner is not in sync with the leader yet",
        ),
        (
            "FAILED_PRECONDITION",
            "etcdserver: can only promote a learner member",
            "not_a_learner",
            "the member is a voter already",
        ),
        ("RESOURCE_EXHAUSTED", "etcdserver: mvcc: database space exceeded", "no_space", "the space quota is used up"),
        ("UNAUTHENTICATED", "etcdserver: invalid auth token", "auth", "etcd refused this user"),
        (
            "INVALID_ARGUMENT",
            "etcdserver: too many operations in txn request",
            "other",
            "etcd answered: too many operations",
        ),
        ("INTERNAL", "", "other", "the call failed (INTERNAL)"),
    ],
)
def test_outcomes(code: str, detail: str, kind: Kind, words: str) -> None:
    error = error_from(code, detail)
    assert error.kind == kind
    assert error.message.startswith(words)
    assert error.detail == detail
    assert str(error) == error.message


@pytest.mark.parametrize(
    ("kind", "detail", "answered", "uncertain"),
    [
        ("timeout", "", False, True),
        ("unavailable", "", False, True),
        ("other", "", False, True),
        ("refused", "", False, False),
        ("no_leader", "etcdserver: no leader", True, False),
        ("no_leader", "etcdserver: request timed out", True, True),
        ("not_found", "", True, False),
    ],
)
def test_what_may_have_happened_all_the_same(kind: Kind, detail: str, answered: bool, uncertain: bool) -> None:
    """A command whose outcome is unknown must be looked up before it is repeated or counted as failed."""
    error = EtcdError(kind, "words", detail=detail)
    assert (error.answered, error.uncertain) == (answered, uncertain)
