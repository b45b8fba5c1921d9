"""When an object in the API server already says what is wanted, and when it does not."""

from typing import Any

import pytest

from etcd_operator.resources.compare import digest, is_satisfied, sealed


def config_map(**metadata: Any) -> dict[str, Any]:
    return {"kind": "ConfigMap", "metadata": {"name": "a", **metadata}, "data": {"k": "v"}}


@pytest.mark.parametrize(
    ("desired", "found"),
    [
        pytest.param({"a": 1}, {"a": 1, "default": True}, id="what the API server fills in does not count"),
        pytest.param({"a": {"b": 1}}, {"a": {"b": 1, "c": 2}}, id="at any depth"),
        pytest.param({"a": False}, {}, id="the API server leaves out false"),
        pytest.param({"a": ""}, {}, id="and empty texts"),
        pytest.param({"a": []}, {}, id="and empty lists"),
        pytest.param({"a": {}}, {}, id="and empty objects"),
        pytest.param({"a": {"b": ""}}, {}, id="and objects of nothing but those"),
        pytest.param({"stringData": {"k": "v"}}, {"data": {"k": "dg=="}}, id="stringData is write-only"),
        pytest.param(
            {"containers": [{"name": "etcd", "image": "i"}]},
            {"containers": [{"name": "injected"}, {"name": "etcd", "image": "i", "tty": False}]},
            id="containers are found by name, beside those of others",
        ),
        pytest.param(
            {"ports": [{"port": 2379}]}, {"ports": [{"port": 80}, {"port": 2379, "nodePort": 1}]}, id="ports by number"
        ),
        pytest.param(
            {"requests": {"memory": "1024Mi"}}, {"requests": {"memory": "1Gi"}}, id="quantities: 1024Mi is 1Gi"
        ),
        pytest.param({"requests": {"cpu": "0.5"}}, {"requests": {"cpu": "500m"}}, id="quantities: 0.5 is 500m"),
        pytest.param({"limits": {"cpu": 2}}, {"limits": {"cpu": "2"}}, id="quantities: numbers are texts"),
        pytest.param({"requests": {"storage": "8e3"}}, {"requests": {"storage": "8k"}}, id="quantities: exponents"),
        pytest.param({"command": ["a", "b"]}, {"command": ["a", "b"]}, id="other lists are compared as they are"),
    ],
)
def test_it_is_satisfied(desired: dict[str, Any], found: dict[str, Any]) -> None:
    assert is_satisfied(desired, found)


@pytest.mark.parametrize(
    ("desired", "found"),
    [
        pytest.param({"a": 1}, None, id="nothing is there"),
        pytest.param({"a": 1}, {"a": 2}, id="another value"),
        pytest.param({"a": 1}, {}, id="no value"),
        pytest.param({"a": {"b": 1}}, {"a": "text"}, id="another type"),
        pytest.param({"a": False}, {"a": True}, id="true where false is wanted"),
        pytest.param({"a": ""}, {"a": "x"}, id="a text where none is wanted"),
        pytest.param(
            {"containers": [{"name": "etcd", "image": "i"}]}, {"containers": [{"name": "x"}]}, id="no such name"
        ),
        pytest.param(
            {"containers": [{"name": "e", "image": "i"}]}, {"containers": [{"name": "e", "image": "j"}]}, id="in it"
        ),
        pytest.param({"requests": {"memory": "1Gi"}}, {"requests": {"memory": "1G"}}, id="1Gi is not 1G"),
        pytest.param({"data": {"memory": "1024Mi"}}, {"data": {"memory": "1Gi"}}, id="only where quantities stand"),
        pytest.param({"command": ["a", "b"]}, {"command": ["b", "a"]}, id="order of other lists"),
        pytest.param({"command": ["a"]}, {"command": ["a", "b"]}, id="length of other lists"),
        pytest.param({"command": ["a"]}, {"command": "a"}, id="no list"),
    ],
)
def test_it_is_not_satisfied(desired: dict[str, Any], found: dict[str, Any] | None) -> None:
    assert not is_satisfied(desired, found)


def test_a_sealed_object_is_satisfied_by_itself() -> None:
    assert is_satisfied(sealed(config_map()), sealed(config_map()))


def test_a_field_that_is_no_longer_wanted_shows_in_the_digest() -> None:
    before = sealed({**config_map(), "data": {"k": "v", "old": "x"}})
    after = sealed(config_map())
    assert not is_satisfied(after, before)


def test_the_digest_does_not_hang_on_the_order_of_keys() -> None:
    assert digest({"a": 1, "b": {"c": 1, "d": 2}}) == digest({"b": {"d": 2, "c": 1}, "a": 1})


def test_sealing_keeps_the_annotations_and_changes_no_input() -> None:
    manifest = config_map(annotations={"mine": "1"})
    assert sealed(manifest)["metadata"]["annotations"]["mine"] == "1"
    assert manifest == config_map(annotations={"mine": "1"})
