"""What a user's podTemplate does to the operator's, and what it may not."""

import copy
from typing import Any

import pytest

from etcd_operator.resources.overlay import merge, overlay_problems
from etcd_operator.resources.stateful_set import stateful_set
from support.builders import blueprint

BASE: dict[str, Any] = {
    "metadata": {"labels": {"app": "etcd"}},
    "spec": {
        "containers": [{"name": "etcd", "env": [{"name": "POD_NAME", "value": "x"}], "command": ["etcd"]}],
        "volumes": [{"name": "data"}],
        "securityContext": {"runAsUser": 1, "fsGroup": 1},
    },
}


def merged(overlay: dict[str, Any]) -> dict[str, Any]:
    result: dict[str, Any] = merge(BASE, overlay)
    return result


def test_an_empty_overlay_changes_nothing() -> None:
    assert merged({}) == BASE


def test_maps_are_merged() -> None:
    assert merged({"metadata": {"labels": {"team": "a"}}})["metadata"] == {"labels": {"app": "etcd", "team": "a"}}


def test_null_takes_a_field_out() -> None:
    assert merged({"spec": {"securityContext": {"fsGroup": None}}})["spec"]["securityContext"] == {"runAsUser": 1}


def test_null_for_what_is_not_there_adds_nothing() -> None:
    assert merged({"spec": {"affinity": None}}) == BASE


def test_containers_are_merged_by_name_and_new_ones_are_added_behind() -> None:
    overlay = {"spec": {"containers": [{"name": "sidecar"}, {"name": "etcd", "tty": True}]}}
    containers = merged(overlay)["spec"]["containers"]
    assert [each["name"] for each in containers] == ["etcd", "sidecar"]
    assert containers[0]["command"] == ["etcd"]
    assert containers[0]["tty"] is True


def test_environment_is_merged_by_name() -> None:
    overlay = {"spec": {"containers": [{"name": "etcd", "env": [{"name": "GOGC", "value": "50"}]}]}}
    assert [each["name"] for each in merged(overlay)["spec"]["containers"][0]["env"]] == ["POD_NAME", "GOGC"]


def test_lists_without_a_key_are_replaced() -> None:
    base = {"tolerations": [{"key": "a"}]}
    assert merge(base, {"tolerations": [{"key": "b"}]}) == {"tolerations": [{"key": "b"}]}


def test_neither_side_is_changed() -> None:
    before, overlay = copy.deepcopy(BASE), {"spec": {"containers": [{"name": "etcd", "env": [{"name": "X"}]}]}}
    kept = copy.deepcopy(overlay)
    merge(BASE, overlay)
    assert before == BASE
    assert overlay == kept


def test_the_overlay_reaches_the_pods() -> None:
    overlay = {"spec": {"priorityClassName": "high", "nodeSelector": {"disk": "nvme"}}}
    pod = stateful_set(blueprint(podTemplate=overlay))["spec"]["template"]["spec"]
    assert pod["priorityClassName"] == "high"
    assert pod["nodeSelector"] == {"disk": "nvme"}


@pytest.mark.parametrize(
    ("overlay", "problem"),
    [
        ({"metadata": {"labels": {"app.kubernetes.io/name": "x"}}}, "labels: app.kubernetes.io/name belongs"),
        ({"metadata": {"labels": {"externaletcd.io/serving": "true"}}}, "labels: externaletcd.io/serving belongs"),
        ({"metadata": {"annotations": {"externaletcd.io/x": "1"}}}, "annotations: externaletcd.io/x belongs"),
        ({"spec": {"hostNetwork": True}}, "spec.podTemplate.spec.hostNetwork belongs"),
        ({"spec": {"restartPolicy": "Never"}}, "restartPolicy belongs"),
        ({"spec": {"volumes": [{"name": "data", "emptyDir": {}}]}}, "the name data is taken"),
        ({"spec": {"containers": [{"name": "etcd", "command": ["sh"]}]}}, "containers[etcd].command belongs"),
        ({"spec": {"containers": [{"name": "etcd", "args": []}]}}, "containers[etcd].args belongs"),
        ({"spec": {"containers": [{"name": "etcd", "image": "x"}]}}, "use spec.image and spec.version"),
        ({"spec": {"containers": [{"name": "etcd", "livenessProbe": {}}]}}, "livenessProbe belongs"),
        ({"spec": {"containers": [{"name": "etcd", "env": [{"name": "POD_NAME"}]}]}}, "env: POD_NAME belongs"),
    ],
)
def test_what_would_break_the_members_is_refused_by_name(overlay: dict[str, Any], problem: str) -> None:
    problems = overlay_problems(overlay)
    assert len(problems) == 1
    assert problem in problems[0]


@pytest.mark.parametrize(
    "overlay",
    [
        {},
        {"metadata": {"labels": {"team": "a"}, "annotations": {"prometheus.io/scrape": "true"}}},
        {"spec": {"containers": [{"name": "shipper", "image": "x", "command": ["sh"]}]}},
        {"spec": {"containers": [{"name": "etcd", "env": [{"name": "GOMEMLIMIT", "value": "1GiB"}]}]}},
        {"spec": {"volumes": [{"name": "logs", "emptyDir": {}}], "serviceAccountName": "etcd"}},
    ],
)
def test_anything_else_is_the_users_choice(overlay: dict[str, Any]) -> None:
    assert overlay_problems(overlay) == []
