"""Quantities and durations as Kubernetes users write them: `8Gi`, `100ms`.

Pure values: they keep the text that the user wrote and compare by what it means. They must not know
which field they stand in; limits belong to the fields.
"""

import math
import re
from decimal import Decimal
from functools import total_ordering
from typing import Any, Final, Self

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

_BINARY: Final = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50, "Ei": 2**60}
_DECIMAL: Final = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_QUANTITY: Final = re.compile(r"([+-]?(?:\d+(?:\.\d*)?|\.\d+))([KMGTPE]i|[eE][+-]?\d+|[numkMGTPE]?)")

#: Larger amounts count as this one, as in Kubernetes; the exponent is bounded only to keep the arithmetic small.
_LARGEST: Final = 2**63 - 1
_LARGEST_EXPONENT: Final = 60

#: The JSON schema of a quantity. The length bounds what the API server reckons that a rule may cost.
QUANTITY_SCHEMA: Final[dict[str, Any]] = {
    "anyOf": [{"type": "integer"}, {"type": "string"}],
    "x-kubernetes-int-or-string": True,
    "maxLength": 32,
}

#: Whole numbers with units, as Gateway API has it, for Python and for RE2 in CEL. So many digits cannot overflow there.
DURATION_PATTERN: Final = "^([0-9]{1,5}(h|m|s|ms)){1,4}$"
_DURATION_PART: Final = re.compile(r"(\d+)(h|ms|m|s)")
_MILLISECONDS: Final = {"h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}


@total_ordering
class _Measure:
    """A text with a number for a meaning; equal when the meaning is."""

    __slots__ = ("text", "value")
    text: str
    value: int

    def __init__(self, text: str | int) -> None:
        object.__setattr__(self, "text", str(text))
        object.__setattr__(self, "value", self._parse(str(text)))

    @staticmethod
    def _parse(text: str) -> int:
        raise NotImplementedError

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{type(self).__name__} cannot be changed")

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.text!r})"

    def __eq__(self, other: object) -> bool:
        return self.value == other.value if isinstance(other, type(self)) else NotImplemented

    def __lt__(self, other: Any) -> bool:
        return self.value < other.value if isinstance(other, type(self)) else NotImplemented

    def __hash__(self) -> int:
        return hash((type(self), self.value))

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            cls._validated, serialization=core_schema.to_string_ser_schema(when_used="json")
        )

    @classmethod
    def _validated(cls, value: Any) -> Self:
        if isinstance(value, cls):
            return value
        if isinstance(value, str | int) and not isinstance(value, bool):
            return cls(value)
        raise ValueError(f"a {cls.__name__.lower()} is text or a whole number, not {value!r}")


class Quantity(_Measure):
    """An amount of bytes: `8Gi`, `500M`, `1073741824`.

    Raises ValueError for text that is no Kubernetes quantity.
    """

    __slots__ = ()

    @property
    def bytes(self) -> int:
        """Whole bytes, rounded up as Kubernetes rounds."""
        return self.value

    @classmethod
    def from_bytes(cls, count: int) -> Self:
        """The amount for a person's eyes: rounded to three digits at least, so `24Mi` and not `25165312`."""
        unit, scale = "", 1
        for suffix, size in _BINARY.items():
            if count >= 10 * size:
                unit, scale = suffix, size
        return cls(f"{round(count / scale)}{unit}")

    @staticmethod
    def _parse(text: str) -> int:
        match = _QUANTITY.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r} is no quantity; write it as 8Gi, 500M or 1073741824")
        number, unit = Decimal(match[1]), match[2]
        if unit in _BINARY:
            return min(math.ceil(number * _BINARY[unit]), _LARGEST)
        exponent = _DECIMAL[unit] if unit in _DECIMAL else int(unit[1:])
        return min(math.ceil(number.scaleb(max(-_LARGEST_EXPONENT, min(exponent, _LARGEST_EXPONENT)))), _LARGEST)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return dict(QUANTITY_SCHEMA)


class Duration(_Measure):
    """A span of time: `100ms`, `30s`, `1h30m`.

    Raises ValueError for text that is no such duration.
    """

    __slots__ = ()

    def milliseconds(self) -> int:
        """The whole span in milliseconds."""
        return self.value

    def total_seconds(self) -> float:
        """The whole span in seconds, named as `datetime.timedelta` names it."""
        return self.value / 1000

    @staticmethod
    def _parse(text: str) -> int:
        if not re.fullmatch(DURATION_PATTERN[1:-1], text):
            raise ValueError(f"{text!r} is no duration; write it as 100ms, 30s or 1h30m")
        return sum(int(number) * _MILLISECONDS[unit] for number, unit in _DURATION_PART.findall(text))

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"type": "string", "maxLength": 32}
