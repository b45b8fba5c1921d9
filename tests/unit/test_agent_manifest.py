"""The manifest of a static kube-apiserver pod: changed where the plan says so, and nowhere else."""

import copy
import re
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from etcd_operator.agent import manifest
from etcd_operator.agent.manifest import ManifestError, Probe
from support.node import NEW_FLAGS, OLD_FLAGS, plan, pod

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.text(max_size=8), JSON, max_size=4))
def test_what_is_written_is_read_again(content: dict[str, Any]) -> None:
    written = {**content, "spec": {}}
    try:
        assert manifest.read(manifest.write(written)) == written
    except ManifestError as error:  # YAML has no way to write some characters
        assert "cannot be written" in str(error) or "special characters" in str(error)  # noqa: PT017


@pytest.mark.parametrize(
    "text", ["1e3", "0o7", "0x1F", "y", "No", "on", "null", "~", "1_000", "2020-01-01", ".inf", "12:30", "", "=", "<<"]
)
def test_strings_that_go_would_take_for_something_else_are_quoted(text: str) -> None:
    assert f'a: "{text}"' in manifest.write({"a": text, "spec": {}}).decode()


def test_arguments_stay_readable() -> None:
    assert "\n    - --etcd-servers=https://127.0.0.1:2379\n" in manifest.write(pod(OLD_FLAGS)).decode()


def test_a_date_is_the_string_that_kubernetes_takes_it_for() -> None:
    assert manifest.read(b"metadata: {annotations: {a: 2020-01-01}}")["metadata"]["annotations"]["a"] == "2020-01-01"


def test_json_is_read_as_well() -> None:
    assert manifest.read(b'{"spec": {"containers": []}}') == {"spec": {"containers": []}}


def test_a_change_leaves_what_it_was_made_from() -> None:
    before = pod(OLD_FLAGS)
    kept = copy.deepcopy(before)
    after = manifest.changed(before, plan())
    assert before == kept
    assert after == pod(NEW_FLAGS, {"externaletcd.io/bound-by": "ns/name"}) | {"spec": after["spec"]}
    assert manifest.changed(after, plan()) is after


def test_annotations_are_set_and_removed() -> None:
    before = pod(NEW_FLAGS, {"a": "1", "b": "2"})
    before["metadata"]["annotations"] = {"a": "1", "b": "2"}
    after = manifest.changed(before, plan(annotations={"a": None, "b": "3", "c": None}))
    assert after["metadata"]["annotations"] == {"b": "3"}
    assert "annotations" not in manifest.changed(before, plan(annotations={"a": None, "b": None}))["metadata"]


def test_other_containers_stay() -> None:
    before = pod(OLD_FLAGS)
    before["spec"]["containers"].append({"name": "other", "command": ["kube-apiserver", "--etcd-servers=x"]})
    assert manifest.changed(before, plan())["spec"]["containers"][1] == before["spec"]["containers"][1]


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/etc/kubernetes/pki/etcd/ca.crt", "/etc/kubernetes/pki/etcd/ca.crt"),
        ("/certs/a/../b.crt", "/srv/b.crt"),
        ("/certs/.hidden", "/srv/.hidden"),
        ("/certs/deep/x", "/deep/sub/x"),
        ("/secret/x", None),
        ("/etc/kubernetes/pkix", None),
    ],
)
def test_where_the_node_has_a_file_of_the_container(path: str, found: str | None) -> None:
    made = pod(OLD_FLAGS)
    made["spec"]["containers"][0]["volumeMounts"] += [
        {"mountPath": "/certs/", "name": "certs"},
        {"mountPath": "/certs/deep", "name": "deep", "subPath": "sub"},
        {"mountPath": "/secret", "name": "secret"},
    ]
    made["spec"]["volumes"] += [
        {"name": "certs", "hostPath": {"path": "/srv"}},
        {"name": "deep", "hostPath": {"path": "/deep"}},
        {"name": "secret", "secret": {"secretName": "s"}},
    ]
    assert manifest.host_path(made, "kube-apiserver", path) == found


@pytest.mark.parametrize(
    ("container", "probe"),
    [
        ({}, Probe(host="127.0.0.1", port=6443, scheme="HTTPS", path="/readyz")),
        ({"command": ["kube-apiserver", "--secure-port=7443"]}, Probe(port=7443)),
        ({"command": ["kube-apiserver"], "args": ["--secure_port", "7443"]}, Probe(port=7443)),
        ({"readinessProbe": {"exec": {}}}, Probe()),
        ({"readinessProbe": {"httpGet": {"port": 8080, "path": "/r"}}}, Probe(port=8080, scheme="HTTP", path="/r")),
        (
            {
                "ports": [{"name": "probe-port", "containerPort": 7443}],
                "readinessProbe": {"httpGet": {"port": "probe-port", "host": "fd00::1", "scheme": "HTTPS"}},
            },
            Probe(host="fd00::1", port=7443),
        ),
    ],
)
def test_where_readiness_is_asked(container: dict[str, Any], probe: Probe) -> None:
    made = {"spec": {"containers": [{"name": "kube-apiserver", **container}]}}
    assert manifest.probe(made, "kube-apiserver") == probe


def test_the_containers_that_are_there_are_told() -> None:
    with pytest.raises(ManifestError, match=re.escape("no container other, but kube-apiserver")):
        manifest.container(pod(OLD_FLAGS), "other")


def test_yaml_of_other_writers_is_read() -> None:
    assert manifest.read(yaml.safe_dump(pod(OLD_FLAGS)).encode()) == pod(OLD_FLAGS)
