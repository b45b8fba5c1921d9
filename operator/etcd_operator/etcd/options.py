"""Which settings of etcd a user may write, version by version, and what is wrong with those that were written.

Pure. etcd ignores keys of its configuration file that it does not know, and refuses to start over a value of the wrong
type, so both are told before anything is written. The keys come from etcd's sources (`hack/generate-etcd-options`).
"""

import difflib
import json
import re
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

from etcd_operator.api.owned_options import OWNED_OPTIONS

#: The first minor version of etcd that takes more than one learner at a time (max-learners).
MANY_LEARNERS = (3, 6)
FEATURE_GATES = "feature-gates"
SOCKET_OPTIONS = frozenset({"reuse-port", "reuse-address"})  # client/pkg/transport/sockopt.go

#: Keys that were renamed by more than losing `experimental-`.
_RENAMED = {"experimental-snapshot-catch-up-entries": "snapshot-catchup-entries"}

_NANOSECONDS = {"ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)")

_WANTED = {
    "string": "a string",
    "boolean": "true or false",
    "integer": "a whole number, 0 or more",
    "duration": 'a duration such as "30s" or "5m"',
    "strings": "a list of strings",
    "object": "an object",
}


def minor(version: str) -> str:
    """The minor version, `3.6` of `3.6.16`."""
    return ".".join(version.split(".")[:2])


def minor_number(version: str) -> tuple[int, int]:
    """The minor version as numbers, for comparing."""
    first, second = minor(version).split(".")
    return int(first), int(second)


def version_number(version: str) -> tuple[int, ...]:
    """The whole version as numbers, for comparing; what follows a hyphen (`-alpha.0`) does not count."""
    return tuple(int(part) for part in version.split("-")[0].split("."))


def check_extra(version: str, extra: Mapping[str, Any]) -> list[str]:
    """What is wrong with `spec.options.extra` for that version of etcd, a sentence each; empty when all is well."""
    versions = _data()["versions"]
    if minor(version) not in versions:
        return [f"etcd {version} is not supported; supported are {', '.join(sorted(versions))}"]
    return [problem for key, value in sorted(extra.items()) if (problem := _problem(minor(version), key, value))]


def file_value(version: str, key: str, value: Any) -> Any:
    """A checked value as the configuration file wants it: durations are nanoseconds there (Go's time.Duration)."""
    kind = _keys(minor(version)).get(key)
    return nanoseconds(value) if kind == "duration" and isinstance(value, str) else value


def nanoseconds(duration: str) -> int:
    """A duration in Go's notation (`1m30s`) in nanoseconds; ValueError when it is none."""
    parts = _DURATION_PART.findall(duration)
    if "".join(number + unit for number, unit in parts) != duration or not parts:
        if duration == "0":
            return 0
        raise ValueError(f"not a duration: {duration}")
    return sum(round(float(number) * _NANOSECONDS[unit]) for number, unit in parts)


def _problem(release: str, key: str, value: Any) -> str | None:
    path = f"spec.options.extra.{key}"
    if key in OWNED_OPTIONS:
        return f"{path} is the operator's business: {OWNED_OPTIONS[key]}"
    successor = _successor(release, key)
    if successor:
        return f"{path}: etcd {release} calls this {successor}"
    kind = _keys(release).get(key)
    if kind is None:
        return _unknown(release, key)
    if not _fits(kind, value):
        return f"{path} must be {_WANTED[kind]}"
    if key == FEATURE_GATES:
        return _gates_problem(release, value)
    if key == "socket-options" and (unknown := sorted(set(value) - SOCKET_OPTIONS)):
        return f"{path} has no {unknown[0]}; there are {', '.join(sorted(SOCKET_OPTIONS))}"
    return None


def _successor(release: str, key: str) -> str | None:
    """What an `experimental-` key is called in a version that has given it its own name or a feature gate.

    etcd 3.6 still takes some old names, but refuses to start where both are set, so one name only is used.
    """
    gate = _data()["gate_of_key"].get(key)
    if gate and gate in _gates(release):
        return f'{FEATURE_GATES}: "{gate}=true"'
    renamed = _RENAMED.get(key, key.removeprefix("experimental-"))
    return renamed if renamed != key and renamed in _keys(release) else None


def _unknown(release: str, key: str) -> str:
    path = f"spec.options.extra.{key}"
    older = [old for old, new in _RENAMED.items() if new == key] + [f"experimental-{key}"]
    for name in older:
        if name in _keys(release):
            return f"{path}: etcd {release} calls this {name}"
    if key == FEATURE_GATES:
        return f"{path}: etcd {release} has no feature gates; its settings begin with experimental-"
    elsewhere = [other for other in sorted(_data()["versions"]) if key in _keys(other)]
    if elsewhere:
        return f"{path}: etcd {release} has no such setting; etcd {' and '.join(elsewhere)} had it"
    known = [name for name in _keys(release) if name not in OWNED_OPTIONS and not _successor(release, name)]
    close = difflib.get_close_matches(key.lower(), known, n=1, cutoff=0.7)
    return f"{path}: etcd {release} has no such setting" + (f"; did you mean {close[0]}?" if close else "")


def _fits(kind: str, value: Any) -> bool:
    match kind:
        case "string":
            return isinstance(value, str)
        case "boolean":
            return isinstance(value, bool)
        case "integer":
            return isinstance(value, int) and not isinstance(value, bool) and value >= 0
        case "strings":
            return isinstance(value, list) and all(isinstance(item, str) for item in value)
        case "object":
            return isinstance(value, Mapping)
    try:
        return isinstance(value, str) and nanoseconds(value) >= 0
    except ValueError:
        return False


def gates(text: str) -> dict[str, str]:
    """The feature gates of `A=true,B=false`, in that order."""
    pairs = (part.strip().partition("=") for part in text.split(",") if part.strip())
    return {name.strip(): value.strip() for name, _, value in pairs}


def _gates_problem(release: str, text: str) -> str | None:
    for name, value in gates(text).items():
        if name not in (*_gates(release), "AllAlpha", "AllBeta"):
            close = difflib.get_close_matches(name, _gates(release), n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            return f"spec.options.extra.{FEATURE_GATES}: etcd {release} has no feature gate {name}{hint}"
        if value.lower() not in ("true", "false"):
            return f"spec.options.extra.{FEATURE_GATES}: {name} must be true or false"
    return None


@cache
def _data() -> dict[str, Any]:
    text = resources.files(__package__).joinpath("options.json").read_text()
    data: dict[str, Any] = json.loads(text)
    return data


def _keys(release: str) -> dict[str, str]:
    keys: dict[str, str] = _data()["versions"][release]["keys"]
    return keys


def _gates(release: str) -> list[str]:
    found: list[str] = _data()["versions"][release]["gates"]
    return found
