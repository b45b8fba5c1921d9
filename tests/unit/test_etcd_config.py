"""The configuration file of one member: what every version must and must not find in it."""

from typing import Any

import pytest
import yaml

from etcd_operator.etcd import options
from etcd_operator.etcd.config import MAX_LEARNERS, Options, member_file, recovery_file
from etcd_operator.etcd.options import check_extra

VERSIONS = ("3.5.35", "3.6.16", "3.7.3")
URLS = {f"a-{index}": f"https://a-{index}.a-peers.ns.svc.cluster.local:2380" for index in range(3)}


def text(version: str = "3.7.3", **given: Any) -> str:
    arguments: dict[str, Any] = {
        "name": "a-0",
        "incarnation": "i1",
        "version": version,
        "peer_url": URLS["a-0"],
        "client_url": "https://a-0.a-peers.ns.svc.cluster.local:2379",
        "initial_cluster": URLS,
        "state": "new",
        "token": "a-i1",
        "tls_peer": True,
        "tls_client": True,
        "options": Options(),
    }
    return member_file(**(arguments | given))


def settings(version: str = "3.7.3", **given: Any) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(text(version, **given))
    return loaded


@pytest.mark.parametrize("version", VERSIONS)
def test_every_key_is_one_that_this_version_knows(version: str) -> None:
    """etcd ignores unknown keys silently, so one that is wrong here would only be missed when it is needed."""
    full = Options(
        quota_bytes=2**31,
        heartbeat_ms=100,
        election_ms=1000,
        snapshot_count=10000,
        auto_compaction_mode="periodic",
        auto_compaction_retention="1h",
        extra={"max-txn-ops": 256},
    )
    assert set(settings(version, options=full)) <= set(options._keys(options.minor(version)))


@pytest.mark.parametrize("version", VERSIONS)
def test_the_fuse_lists_only_the_member_itself(version: str) -> None:
    fuse = settings(version, initial_cluster={"a-0": URLS["a-0"]}, state="existing")
    assert fuse["initial-cluster"] == f"a-0={URLS['a-0']}"
    assert fuse["initial-cluster-state"] == "existing"
    assert text(version, initial_cluster={"a-0": URLS["a-0"]}, state="existing").startswith("# Only this member")
    assert not text(version).startswith("#")


@pytest.mark.parametrize("version", VERSIONS)
def test_bootstrap_lists_all_and_is_the_same_whatever_the_order(version: str) -> None:
    assert settings(version)["initial-cluster"] == ",".join(f"{name}={url}" for name, url in URLS.items())
    assert text(version, initial_cluster=dict(reversed(URLS.items()))) == text(version)


def test_the_data_directory_is_the_incarnations() -> None:
    assert settings(incarnation="i7")["data-dir"] == "/var/lib/etcd/i7"


@pytest.mark.parametrize("version", VERSIONS)
def test_ports_are_split(version: str) -> None:
    found = settings(version)
    assert found["listen-client-urls"] == "https://0.0.0.0:2379"
    assert found["listen-client-http-urls"] == "https://0.0.0.0:2382"
    assert found["listen-peer-urls"] == "https://0.0.0.0:2380"
    assert found["listen-metrics-urls"] == "http://0.0.0.0:2381"


def test_what_differs_by_version() -> None:
    old, middle, new = (settings(version) for version in VERSIONS)
    assert "max-learners" not in old
    assert middle["max-learners"] == new["max-learners"] == MAX_LEARNERS
    assert "skip-client-san-verification" not in old["peer-transport-security"]
    assert new["peer-transport-security"]["skip-client-san-verification"] is True
    assert old["experimental-compact-hash-check-enabled"] is True
    assert old["experimental-watch-progress-notify-interval"] == 5_000_000_000
    assert new["feature-gates"] == middle["feature-gates"] == "CompactHashCheck=true"
    assert not any(key.startswith("experimental") for found in (middle, new) for key in found)


@pytest.mark.parametrize("version", VERSIONS)
def test_tls_can_be_off_on_either_side(version: str) -> None:
    plain = settings(version, tls_peer=False, tls_client=False)
    assert not {"client-transport-security", "peer-transport-security"} & set(plain)
    assert plain["listen-client-urls"].startswith("http://")
    assert plain["listen-peer-urls"].startswith("http://")
    assert settings(version)["client-transport-security"]["client-cert-auth"] is True
    assert settings(version)["peer-transport-security"]["client-cert-auth"] is True


def test_the_users_options_are_in_etcds_units() -> None:
    wanted = Options(
        quota_bytes=8 * 2**30,
        heartbeat_ms=250,
        election_ms=2500,
        snapshot_count=5000,
        auto_compaction_mode="revision",
        auto_compaction_retention="1000",
    )
    found = settings(options=wanted)
    assert found["quota-backend-bytes"] == 8 * 2**30
    assert (found["heartbeat-interval"], found["election-timeout"]) == (250, 2500)
    assert found["snapshot-count"] == 5000
    assert (found["auto-compaction-mode"], found["auto-compaction-retention"]) == ("revision", "1000")
    assert "quota-backend-bytes" not in settings()


def test_extra_goes_before_our_defaults_and_gates_are_merged() -> None:
    extra = {
        "watch-progress-notify-interval": "1s",
        "feature-gates": "InitialCorruptCheck=true,CompactHashCheck=false",
        "log-level": "debug",
    }
    assert check_extra("3.7.3", extra) == []
    found = settings(options=Options(extra=extra))
    assert found["watch-progress-notify-interval"] == 1_000_000_000
    assert found["feature-gates"] == "CompactHashCheck=false,InitialCorruptCheck=true"
    assert found["log-level"] == "debug"


@pytest.mark.parametrize("name", ["1e3", "0x1f", "on", "null", "2026-11-21"])
def test_strings_stay_strings(name: str) -> None:
    found = settings(name=name, initial_cluster={name: URLS["a-0"]}, token=name)
    assert (found["name"], found["initial-cluster-token"]) == (name, name)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_file_that_makes_a_member_the_only_one_lets_nobody_in(version: str) -> None:
    made = recovery_file(
        name="a-0",
        incarnation="i1",
        version=version,
        peer_url=URLS["a-0"],
        client_url="https://a-0.a-peers.ns.svc.cluster.local:2379",
        token="a-i1",
        options=Options(quota_bytes=2**31),
    )
    loaded: dict[str, Any] = yaml.safe_load(made)
    assert set(loaded) <= set(options._keys(options.minor(version)))
    assert loaded["force-new-cluster"] is True
    assert loaded["initial-cluster-state"] == "existing"
    assert loaded["data-dir"] == "/var/lib/etcd/i1"
    listeners = {key: value for key, value in loaded.items() if key.startswith("listen-")}
    assert {key for key, url in listeners.items() if "127.0.0.1" not in url} == {"listen-metrics-urls"}
    assert loaded["quota-backend-bytes"] == 2**31
