"""Settings: what is read, and how a bad value is told."""

import pytest

from etcd_operator.runtime.settings import Settings, SettingsError


def test_an_empty_environment_gives_the_documented_defaults() -> None:
    settings = Settings.from_environment({})
    assert settings.watch_namespaces == ()
    assert (settings.workers, settings.resync_seconds, settings.lease_duration_seconds) == (32, 600.0, 10.0)
    assert settings.health_port == 8080
    assert settings.log_level == "info"


def test_defaults_of_the_class_and_of_the_environment_agree() -> None:
    read, plain = Settings.from_environment({"LOG_FORMAT": "json", "POD_NAME": "external-etcd-operator"}), Settings()
    assert read == plain


def test_all_variables_are_read() -> None:
    settings = Settings.from_environment(
        {
            "WATCH_NAMESPACES": " one, two ,one,",
            "WORKERS": "8",
            "RESYNC_SECONDS": "30.5",
            "RECONCILE_TIMEOUT_SECONDS": "20",
            "LEASE_NAME": "lease",
            "LEASE_NAMESPACE": "system",
            "LEASE_DURATION_SECONDS": "20",
            "POD_NAME": "operator-0",
            "POD_NAMESPACE": "operators",
            "LOG_FORMAT": "Console",
            "LOG_LEVEL": "DEBUG",
            "HEALTH_PORT": "0",
            "HEALTH_ADDRESS": "127.0.0.1",
            "CLUSTER_DOMAIN": "cluster.example",
        }
    )
    assert settings == Settings(
        watch_namespaces=("one", "two"),
        workers=8,
        resync_seconds=30.5,
        reconcile_timeout_seconds=20.0,
        lease_name="lease",
        lease_namespace="system",
        lease_duration_seconds=20.0,
        pod_name="operator-0",
        pod_namespace="operators",
        log_format="console",
        log_level="debug",
        health_port=0,
        health_address="127.0.0.1",
        cluster_domain="cluster.example",
    )


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("WORKERS", "many", "whole number from 1 to 1000"),
        ("WORKERS", "0", "whole number from 1 to 1000"),
        ("WORKERS", "-3", "whole number from 1 to 1000"),
        ("RESYNC_SECONDS", "10m", "number of seconds from 10 to 86400, without a unit"),
        ("RESYNC_SECONDS", "nan", "number of seconds"),
        ("LEASE_DURATION_SECONDS", "1", "from 2 to 300"),
        ("LOG_LEVEL", "loud", "one of debug, info, warning, error"),
        ("LOG_FORMAT", "xml", "one of json, console"),
        ("HEALTH_PORT", "99999", "from 0 to 65535"),
        ("WATCH_NAMESPACES", "good,Bad_Name", "lower-case letters"),
        ("CLUSTER_DOMAIN", "-x", "DNS name"),
    ],
)
def test_a_bad_value_is_told_in_one_sentence_with_its_variable(name: str, value: str, why: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_environment({name: value})
    sentence = str(caught.value)
    assert sentence.startswith(f"{name}={value!r}")
    assert why in sentence
    assert "\n" not in sentence
