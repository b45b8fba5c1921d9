"""CustomResourceDefinitions from the models.

Pure: gives the manifest as plain data; `hack/generate` writes it. It knows pydantic's JSON schema on one
side and Kubernetes' structural schemas on the other, and nothing of any particular kind.
"""

import re
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

from etcd_operator.api.base import GROUP, VERSION, Column, KindInfo

Schema = dict[str, Any]

#: Of pydantic's JSON schema, what a structural schema takes over as it stands.
_KEPT = (
    "type", "format", "enum", "minimum", "maximum", "minLength", "maxLength", "pattern",
    "minItems", "maxItems", "minProperties", "maxProperties", "required",
)  # fmt: skip
_PRESERVE = "x-kubernetes-preserve-unknown-fields"
_VALIDATIONS = "x-kubernetes-validations"


class Kind(Protocol):
    """A model of a whole object."""

    info: ClassVar[KindInfo]

    @classmethod
    def model_json_schema(cls) -> Schema: ...


def crd(kind: type[Kind]) -> Schema:
    """The CustomResourceDefinition of the kind, of one served and stored version."""
    info = kind.info
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{info.plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": info.kind,
                "listKind": f"{info.kind}List",
                "plural": info.plural,
                "singular": info.kind.lower(),
                "shortNames": list(info.short_names),
                "categories": [GROUP.split(".")[0]],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "additionalPrinterColumns": [_column(column) for column in info.columns],
                    "subresources": _subresources(info),
                    "schema": {"openAPIV3Schema": object_schema(kind)},
                }
            ],
        },
    }


def _column(column: Column) -> Schema:
    return {
        "name": column.name,
        "type": column.type,
        "jsonPath": column.path,
        "description": column.description,
    }


def _subresources(info: KindInfo) -> Schema:
    if info.scale is None:
        return {"status": {}}
    wanted, present, selector = info.scale
    scale = {"specReplicasPath": wanted, "statusReplicasPath": present, "labelSelectorPath": selector}
    return {"status": {}, "scale": scale}


def object_schema(kind: type[Kind]) -> Schema:
    """The structural schema of the whole object: the API server itself describes apiVersion, kind and metadata."""
    raw = kind.model_json_schema()
    defs = raw.get("$defs", {})
    spec = _structural(raw["properties"]["spec"], defs, defaults=True)
    if "required" not in spec:
        spec["default"] = _defaults_below(spec)
    status = _structural(raw["properties"]["status"], defs, defaults=False)
    schema: Schema = {
        "description": _prose(raw.get("description", "")),
        "type": "object",
        "properties": {
            "apiVersion": {"type": "string", "description": f"{GROUP}/{VERSION}."},
            "kind": {"type": "string", "description": f"{kind.info.kind}."},
            "metadata": {"type": "object"},
            "spec": spec,
            "status": status,
        },
    }
    if "required" in spec:
        schema["required"] = ["spec"]
    if _VALIDATIONS in raw:
        schema[_VALIDATIONS] = raw[_VALIDATIONS]
    return schema


def _structural(node: Mapping[str, Any], defs: Mapping[str, Schema], *, defaults: bool) -> Schema:
    """One node of pydantic's schema as a structural one: references resolved, "or null" and titles gone."""
    node = _resolved(node, defs)
    schema: Schema = {}
    if description := node.get("description"):
        schema["description"] = _prose(description)
    schema |= {key: node[key] for key in _KEPT if key in node}
    schema |= {key: value for key, value in node.items() if key.startswith("x-kubernetes-")}
    if "const" in node:
        schema["enum"] = [node["const"]]
    if defaults and node.get("default") not in (None, []):
        schema["default"] = node["default"]
    if schema.get("x-kubernetes-int-or-string") or _is_int_or_string(node):
        schema |= {"anyOf": [{"type": "integer"}, {"type": "string"}], "x-kubernetes-int-or-string": True}
    elif "anyOf" in node:
        raise ValueError(f"a structural schema knows no alternatives but a number or text: {node}")
    if node.get("type") == "array":
        schema["items"] = _structural(node["items"], defs, defaults=defaults)
        schema.setdefault("x-kubernetes-list-type", "atomic")
    if node.get("type") == "object":
        schema |= _object(node, defs, defaults=defaults)
    return schema


def _object(node: Mapping[str, Any], defs: Mapping[str, Schema], *, defaults: bool) -> Schema:
    """What an object adds: its known properties, or that it is a map."""
    schema: Schema = {}
    if properties := node.get("properties"):
        required = node.get("required", ())
        schema["properties"] = {name: _structural(child, defs, defaults=defaults) for name, child in properties.items()}
        # Pydantic tells no default that a factory makes, while a part that may be absent has the default None.
        for name, child in schema["properties"].items():
            if name not in required and "default" not in properties[name] and (below := _defaults_below(child)):
                child["default"] = below
    values = node.get("additionalProperties")
    if isinstance(values, Mapping):
        schema["additionalProperties"] = _structural(values, defs, defaults=defaults)
    elif not properties:
        schema[_PRESERVE] = True
    return schema


def _defaults_below(schema: Schema) -> Schema:
    """The default of a part whose fields have defaults: without one they would take no effect where it is left out.

    It is written out, as the API server judges it by the part's rules before it fills in what lies below.
    """
    return {name: child["default"] for name, child in schema.get("properties", {}).items() if "default" in child}


def _resolved(node: Mapping[str, Any], defs: Mapping[str, Schema]) -> Mapping[str, Any]:
    """The node without "or null", and with what it refers to below what it says itself."""
    alternatives = [choice for choice in node.get("anyOf", ()) if choice.get("type") != "null"]
    own = {key: value for key, value in node.items() if key not in ("anyOf", "$ref")}
    if len(alternatives) == 1:
        return _resolved({**alternatives[0], **own}, defs)
    if "anyOf" in node:
        return {**own, "anyOf": alternatives}
    if "$ref" not in node:
        return node
    target = defs[node["$ref"].removeprefix("#/$defs/")]
    both = [*target.get(_VALIDATIONS, ()), *own.get(_VALIDATIONS, ())]
    return _resolved({**target, **own, **({_VALIDATIONS: both} if both else {})}, defs)


def _is_int_or_string(node: Mapping[str, Any]) -> bool:
    return {choice.get("type") for choice in node.get("anyOf", ())} == {"integer", "string"}


def _prose(docstring: str) -> str:
    """The docstring without its line breaks: what is indented and what is blank stays as it is."""
    return re.sub(r"(?<=\S)\n(?=\S)", " ", docstring.strip())
