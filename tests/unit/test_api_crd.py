"""The generated CRD: in step with the models, structural, documented, with the models' defaults."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import generate
from etcd_operator.api import OWNED_OPTIONS, ApiServerBinding, EtcdCluster, EtcdClusterSpec
from etcd_operator.api.crd import crd

Schema = dict[str, Any]
SAMPLES = generate.ROOT / "deploy" / "samples"
MANIFEST = crd(EtcdCluster)
VERSION = MANIFEST["spec"]["versions"][0]
SCHEMA: Schema = VERSION["schema"]["openAPIV3Schema"]


def nodes(schema: Schema, path: str = "") -> Iterator[tuple[str, Schema]]:
    """Every node of the schema below its root with its path."""
    children = {f"{path}.{name}": child for name, child in schema.get("properties", {}).items()}
    if "items" in schema:
        children[f"{path}[]"] = schema["items"]
    if "additionalProperties" in schema:
        children[f"{path}.*"] = schema["additionalProperties"]
    for where, child in children.items():
        yield where, child
        yield from nodes(child, where)


def defaulted(value: Any, schema: Schema) -> Any:
    """What the API server makes of a value: the schema's defaults filled in, top down."""
    if isinstance(value, dict):
        for name, child in schema.get("properties", {}).items():
            if name not in value and "default" in child:
                value[name] = yaml.safe_load(yaml.safe_dump(child["default"]))
            if name in value:
                value[name] = defaulted(value[name], child)
    return value


def unknown_fields(value: Any, schema: Schema, path: str = "") -> list[str]:
    """The fields that the API server would prune."""
    if isinstance(value, list):
        return [found for item in value for found in unknown_fields(item, schema["items"], f"{path}[]")]
    if not isinstance(value, dict) or schema.get("x-kubernetes-preserve-unknown-fields"):
        return []
    found = []
    for name, child in value.items():
        known = schema.get("properties", {}).get(name, schema.get("additionalProperties"))
        found += [f"{path}.{name}"] if known is None else unknown_fields(child, known, f"{path}.{name}")
    return found


def test_the_files_under_crds_are_what_the_models_say() -> None:
    assert not generate.differing(generate.ROOT), "run hack/generate"


def test_a_changed_a_missing_and_a_stray_file_are_noticed(tmp_path: Path) -> None:
    (tmp_path / "crds").mkdir()
    name = Path("crds/etcdclusters.yaml")
    others = [other for other in generate.outputs() if other != name]
    assert sorted(generate.differing(tmp_path)) == sorted([name, *others])
    for each, text in generate.outputs().items():
        (tmp_path / each).write_text(text)
    assert generate.differing(tmp_path) == []
    (tmp_path / name).write_text("kind: Other\n")
    (tmp_path / "crds/stray.yaml").write_text("")
    assert generate.differing(tmp_path) == [name, Path("crds/stray.yaml")]


def test_the_written_text_says_the_same_as_the_models() -> None:
    assert yaml.safe_load(generate.manifest_text(MANIFEST)) == MANIFEST


def test_defaults_of_the_schema_are_those_of_the_models() -> None:
    spec = defaulted({}, SCHEMA)["spec"]
    assert EtcdClusterSpec.model_validate(spec) == EtcdClusterSpec()
    explicit = EtcdClusterSpec().model_dump(by_alias=True, exclude_none=True, mode="json")
    assert {key: spec[key] for key in ("members", "version", "storage", "resources", "paused")} == {
        key: explicit[key] for key in ("members", "version", "storage", "resources", "paused")
    }


def test_the_status_has_no_defaults_as_nothing_was_observed_yet() -> None:
    assert [path for path, node in nodes(SCHEMA["properties"]["status"]) if "default" in node] == []


BINDING: Schema = crd(ApiServerBinding)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
both_kinds = pytest.mark.parametrize("schema", [SCHEMA, BINDING], ids=["EtcdCluster", "ApiServerBinding"])


@both_kinds
def test_the_schema_is_structural(schema: Schema) -> None:
    for path, node in nodes(schema):
        assert not {"$ref", "$defs", "title", "oneOf", "allOf", "const", "nullable"} & node.keys(), path
        if node.get("x-kubernetes-int-or-string"):
            assert node["anyOf"] == [{"type": "integer"}, {"type": "string"}], path
        else:
            assert "anyOf" not in node, path
            assert node["type"] in {"string", "integer", "boolean", "object", "array"}, path
        assert not ("properties" in node and "additionalProperties" in node), path
        if node.get("type") == "array":
            assert node["x-kubernetes-list-type"] in {"atomic", "set", "map"}, path
        for key in node.get("x-kubernetes-list-map-keys", ()):
            assert key in node["items"]["required"], path


@both_kinds
def test_every_field_is_documented_in_a_sentence(schema: Schema) -> None:
    for path, node in nodes(schema):
        if path != ".metadata" and not path.endswith((".*", "[]")):
            assert node.get("description", "").endswith((".", "1.4")), path


def test_free_form_is_only_what_belongs_to_others() -> None:
    free = {path for path, node in nodes(SCHEMA) if node.get("x-kubernetes-preserve-unknown-fields")}
    assert {path for path in free if ".extra." not in path} == {".spec.options.extra", ".spec.podTemplate.spec"}


@both_kinds
def test_texts_and_lists_that_a_rule_reads_are_bounded(schema: Schema) -> None:
    for path, node in nodes(schema["properties"]["spec"], ".spec"):
        if "x-kubernetes-validations" in node and node.get("type") == "string" and "enum" not in node:
            assert "maxLength" in node, path


def test_each_owned_option_is_refused_with_what_to_use_instead() -> None:
    properties = SCHEMA["properties"]["spec"]["properties"]["options"]["properties"]["extra"]["properties"]
    assert properties.keys() == OWNED_OPTIONS.keys()
    for key, clause in OWNED_OPTIONS.items():
        assert properties[key]["x-kubernetes-validations"] == [
            {"rule": "false", "message": f"is the operator's business: {clause}"}
        ]


def test_the_columns_are_those_that_users_know() -> None:
    columns = [column["name"].upper() for column in VERSION["additionalPrinterColumns"]]
    assert columns == ["MEMBERS", "READY", "TOLERATES", "LEADER", "VERSION", "STATUS", "AGE"]


@pytest.mark.parametrize("part", ["additionalPrinterColumns", "scale"])
def test_columns_and_scale_point_at_fields_that_exist(part: str) -> None:
    known = {path for path, _ in nodes(SCHEMA)} | {".metadata.creationTimestamp"}
    columns = {column["jsonPath"] for column in VERSION["additionalPrinterColumns"]}
    scale = set(VERSION["subresources"]["scale"].values())
    assert (columns if part == "additionalPrinterColumns" else scale) <= known


def test_the_columns_of_a_binding_point_at_fields_that_exist() -> None:
    known = {path for path, _ in nodes(BINDING)} | {".metadata.creationTimestamp"}
    columns = crd(ApiServerBinding)["spec"]["versions"][0]["additionalPrinterColumns"]
    assert {column["jsonPath"] for column in columns} <= known


def test_a_kind_whose_spec_must_say_something_must_have_one() -> None:
    assert BINDING["required"] == ["spec"]
    assert "default" not in BINDING["properties"]["spec"]


@pytest.mark.parametrize("sample", sorted(SAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_samples_use_only_known_fields(sample: Path) -> None:
    manifest = yaml.safe_load(sample.read_text())
    schema = {"EtcdCluster": SCHEMA, "ApiServerBinding": BINDING}[manifest["kind"]]
    assert unknown_fields(manifest["spec"], schema["properties"]["spec"]) == []
