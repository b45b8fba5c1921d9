"""What every kind is made of: the model base, metadata, conditions, and rules that the API server checks.

Pure. Nothing here may name a particular kind.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler, PlainSerializer
from pydantic.alias_generators import to_camel
from pydantic_core import CoreSchema

API_VERSION: Literal["externaletcd.io/v1alpha1"] = "externaletcd.io/v1alpha1"
GROUP, VERSION = API_VERSION.split("/")


#: The JSON schema of a value that users write as a number or as text.
INT_OR_STRING: dict[str, Any] = {"anyOf": [{"type": "integer"}, {"type": "string"}], "x-kubernetes-int-or-string": True}
#: How Kubernetes merges a list: as a whole, as a set of texts, or element by element by a key.
ATOMIC: dict[str, Any] = {"x-kubernetes-list-type": "atomic"}
SET: dict[str, Any] = {"x-kubernetes-list-type": "set"}
BY_NAME: dict[str, Any] = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}
BY_TYPE: dict[str, Any] = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """A column of `kubectl get`."""

    name: str
    type: Literal["string", "integer", "date"]
    path: str
    description: str


@dataclass(frozen=True, kw_only=True, slots=True)
class KindInfo:
    """What the API server must know of a kind beside its schema."""

    kind: str
    plural: str
    short_names: tuple[str, ...]
    columns: tuple[Column, ...]
    #: Paths for the scale subresource: wanted replicas, present replicas, label selector. None: no such subresource.
    scale: tuple[str, str, str] | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """A CEL rule, for `Annotated` fields or a model's `rules`; the API server answers with `message` when it is false.

    A message completes "spec.members: Invalid value: 4: ...": what must hold, then why or what to do instead.
    """

    cel: str
    message: str
    #: For a rule of a whole object: the field that the API server is to name, such as `.spec.members`.
    field_path: str = ""

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return with_rules(handler(schema), (self,))


#: A range of addresses, as text.
CIDR = Annotated[
    str,
    Field(min_length=1, max_length=64),
    Rule("isCIDR(self)", "must be a range of addresses such as 192.0.2.0/24"),
]


def with_rules(schema: dict[str, Any], rules: tuple[Rule, ...]) -> dict[str, Any]:
    """The JSON schema with the rules appended to those that it already has."""
    if not rules:
        return schema
    found = schema.get("x-kubernetes-validations", [])
    added = [
        {"rule": rule.cel, "message": rule.message, **({"fieldPath": rule.field_path} if rule.field_path else {})}
        for rule in rules
    ]
    return {**schema, "x-kubernetes-validations": [*found, *added]}


class ApiModel(BaseModel):
    """A part of a kind: camelCase outside, snake_case inside, never changed once read.

    Unknown fields are ignored: the API server has pruned or refused what it does not know, and an object
    may have been written by a newer release.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        use_attribute_docstrings=True,
    )

    #: CEL rules that span more than one field of this model.
    rules: ClassVar[tuple[Rule, ...]] = ()

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        json_schema = handler.resolve_ref_schema(handler(schema))
        json_schema.update(with_rules({}, cls.rules))
        return json_schema


def _rfc3339(moment: datetime) -> str:
    """Whole seconds in UTC, as every Kubernetes timestamp."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


#: A moment in UTC; Kubernetes keeps whole seconds.
Time = Annotated[datetime, PlainSerializer(_rfc3339, return_type=str, when_used="json")]


class ObjectMeta(ApiModel):
    """The metadata that the operator reads; the API server keeps the rest."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    finalizers: tuple[str, ...] = ()
    creation_timestamp: Time | None = None
    deletion_timestamp: Time | None = None


class LocalObjectReference(ApiModel):
    """A reference to an object in the same namespace."""

    name: str = Field(min_length=1, max_length=253)
    """Name of the object."""


class Condition(ApiModel):
    """One aspect of the object's state, as the Kubernetes API conventions have it."""

    type: str = Field(max_length=316)
    """What the condition is about, such as Available."""
    status: Literal["True", "False", "Unknown"]
    """Whether it holds; Unknown when it could not be observed."""
    reason: str = Field(max_length=1024)
    """One CamelCase word for programs."""
    message: str = Field(max_length=32768)
    """A sentence for people: what happens now, and what can be done."""
    last_transition_time: Time
    """When `status` last changed."""
    observed_generation: int | None = None
    """The generation of the spec that the condition was judged by."""
