"""What is wrong with `spec.options.extra`, version by version."""

from typing import Any

import pytest

from etcd_operator.api.owned_options import OWNED_OPTIONS
from etcd_operator.etcd import options
from etcd_operator.etcd.options import check_extra, file_value, nanoseconds

VERSIONS = ("3.5.35", "3.6.16", "3.7.3")


def problem(version: str, key: str, value: Any) -> str:
    (found,) = check_extra(version, {key: value})
    return found


@pytest.mark.parametrize("version", VERSIONS)
def test_good_settings_pass(version: str) -> None:
    good = {
        "max-txn-ops": 256,
        "pre-vote": True,
        "grpc-keepalive-min-time": "5s",
        "cors": "*",
        "cipher-suites": ["TLS_AES_128_GCM_SHA256"],
        "socket-options": {"reuse-port": True},
        "log-level": "warn",
    }
    assert check_extra(version, good) == []
    assert check_extra(version, {}) == []


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("key", OWNED_OPTIONS)
def test_the_operators_business_is_refused(version: str, key: str) -> None:
    assert problem(version, key, "x") == f"spec.options.extra.{key} is the operator's business: {OWNED_OPTIONS[key]}"


def test_unknown_keys_get_a_suggestion() -> None:
    path = "spec.options.extra"
    assert (
        problem("3.7.3", "max-txn-op", 1)
        == f"{path}.max-txn-op: etcd 3.7 has no such setting; did you mean max-txn-ops?"
    )
    assert problem("3.7.3", "Max-Txn-Ops", 1).endswith("did you mean max-txn-ops?"), "Go takes keys in any case"
    assert problem("3.7.3", "zzz", 1) == f"{path}.zzz: etcd 3.7 has no such setting"
    assert "did you mean" not in problem("3.7.3", "data-dirs", "x"), "an owned key is no suggestion"


@pytest.mark.parametrize(
    ("version", "key", "value", "hint"),
    [
        ("3.7.3", "experimental-corrupt-check-time", "1h", "etcd 3.7 calls this corrupt-check-time"),
        ("3.6.16", "experimental-corrupt-check-time", "1h", "etcd 3.6 calls this corrupt-check-time"),
        ("3.5.35", "corrupt-check-time", "1h", "etcd 3.5 calls this experimental-corrupt-check-time"),
        ("3.7.3", "experimental-snapshot-catch-up-entries", 1, "etcd 3.7 calls this snapshot-catchup-entries"),
        ("3.5.35", "snapshot-catchup-entries", 1, "etcd 3.5 calls this experimental-snapshot-catch-up-entries"),
        (
            "3.6.16",
            "experimental-enable-lease-checkpoint",
            True,
            'etcd 3.6 calls this feature-gates: "LeaseCheckpoint=true"',
        ),
        (
            "3.5.35",
            "feature-gates",
            "LeaseCheckpoint=true",
            "3.5 has no feature gates; its settings begin with experimental-",
        ),
        ("3.7.3", "enable-v2", True, "etcd 3.7 has no such setting; etcd 3.5 had it"),
    ],
)
def test_renamed_keys_are_told_by_their_name_in_that_version(version: str, key: str, value: Any, hint: str) -> None:
    assert hint in problem(version, key, value)


def test_every_experimental_key_of_35_has_a_name_in_37_or_is_gone_for_good() -> None:
    old = [key for key in options._keys("3.5") if key.startswith("experimental-")]
    gone = [key for key in old if not options._successor("3.7", key) and key not in OWNED_OPTIONS]
    assert gone == ["experimental-enable-v2v3"]


@pytest.mark.parametrize(
    ("key", "value", "wanted"),
    [
        ("max-txn-ops", "256", "a whole number, 0 or more"),
        ("max-txn-ops", True, "a whole number, 0 or more"),
        ("max-txn-ops", -1, "a whole number, 0 or more"),
        ("pre-vote", "yes", "true or false"),
        ("cors", 1, "a string"),
        ("cipher-suites", "TLS", "a list of strings"),
        ("grpc-keepalive-min-time", "soon", 'a duration such as "30s" or "5m"'),
        ("grpc-keepalive-min-time", 5, 'a duration such as "30s" or "5m"'),
        ("socket-options", [], "an object"),
    ],
)
def test_wrong_types_are_told(key: str, value: Any, wanted: str) -> None:
    assert problem("3.7.3", key, value) == f"spec.options.extra.{key} must be {wanted}"


def test_feature_gates_are_checked_by_name_and_value() -> None:
    assert check_extra("3.7.3", {"feature-gates": "LeaseCheckpoint=true, PriorityRequest=false"}) == []
    assert "no feature gate LeaseCheckpoints; did you mean LeaseCheckpoint?" in problem(
        "3.7.3", "feature-gates", "LeaseCheckpoints=true"
    )
    assert "no feature gate PriorityRequest" in problem("3.6.16", "feature-gates", "PriorityRequest=true")
    assert "LeaseCheckpoint must be true or false" in problem("3.7.3", "feature-gates", "LeaseCheckpoint")


def test_nested_keys_are_checked() -> None:
    assert problem("3.7.3", "socket-options", {"reuse": True}) == (
        "spec.options.extra.socket-options has no reuse; there are reuse-address, reuse-port"
    )


def test_an_unsupported_version_is_told() -> None:
    assert check_extra("3.4.1", {"max-txn-ops": 1}) == ["etcd 3.4.1 is not supported; supported are 3.5, 3.6, 3.7"]


def test_durations_become_nanoseconds_in_the_file() -> None:
    assert nanoseconds("1h30m") == 5400 * 10**9
    assert nanoseconds("1.5s") == 1_500_000_000
    assert nanoseconds("0") == 0
    assert file_value("3.7.3", "grpc-keepalive-min-time", "250ms") == 250_000_000
    assert file_value("3.7.3", "log-level", "5s") == "5s"
    for bad in ("", "5", "5 s", "s", "-1s", "1h 30m"):
        with pytest.raises(ValueError, match="not a duration"):
            nanoseconds(bad)
