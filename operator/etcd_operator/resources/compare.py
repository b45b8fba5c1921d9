"""Whether an object in the API server already says all that the operator wants of it.

Pure. An unneeded apply would be a write at rest; a missed one would leave a stranger's edit standing. The
comparison asks whether the desired object is contained in the live one, as the live one also holds defaults,
status and what other managers own.
"""

import hashlib
import json
import re
from decimal import Decimal
from typing import Any

from etcd_operator.resources.names import DIGEST, Manifest

#: Lists that Kubernetes merges by a key; elements of other managers may stand between ours.
KEYED_LISTS = {
    "containers": ("name",),
    "initContainers": ("name",),
    "volumes": ("name",),
    "env": ("name",),
    "volumeMounts": ("mountPath",),
    "ports": ("containerPort", "port", "protocol"),
    "ownerReferences": ("uid",),
    "imagePullSecrets": ("name",),
    "topologySpreadConstraints": ("topologyKey", "whenUnsatisfiable"),
}
#: What the API server fills in for a field of a key that was left out.
KEY_DEFAULTS = {"protocol": "TCP"}
#: Under these keys the API server rewrites quantities to its canonical form ("1024Mi" becomes "1Gi").
QUANTITY_PARENTS = {"requests", "limits", "storage", "sizeLimit", "divisor"}
#: Write-only: the API server moves `stringData` into `data`.
UNREADABLE = {"stringData"}

_QUANTITY = re.compile(r"^([+-]?[0-9.]+)(e[+-]?\d+|E[+-]?\d+|[KMGTPE]i|[numkMGTPE]?)$")
_SCALE = {"n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3"), "": Decimal(1), "k": Decimal(10**3)}
_SCALE |= {unit: Decimal(10 ** (6 + 3 * i)) for i, unit in enumerate("MGTPE")}
_SCALE |= {f"{unit}i": Decimal(1024 ** (i + 1)) for i, unit in enumerate("KMGTPE")}


def digest(manifest: Manifest) -> str:
    """A short digest of a desired object, by which also the removal of a field is noticed."""
    text = json.dumps(manifest, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def sealed(manifest: Manifest) -> Manifest:
    """The same object with its own digest among the annotations."""
    metadata = manifest["metadata"]
    annotations = {**metadata.get("annotations", {}), DIGEST: digest(manifest)}
    return {**manifest, "metadata": {**metadata, "annotations": annotations}}


def is_satisfied(desired: Manifest, live: Manifest | None) -> bool:
    """True when applying `desired` would change nothing."""
    return live is not None and _contains(live, desired, key="")


def _contains(live: Any, desired: Any, *, key: str) -> bool:
    if isinstance(desired, dict):
        if not isinstance(live, dict):
            return live is None and not any(desired.values())
        below = key if key in QUANTITY_PARENTS else ""
        return all(
            _contains(live.get(name), value, key=below or name)
            for name, value in desired.items()
            if name not in UNREADABLE
        )
    if isinstance(desired, list):
        return _contains_list(live, desired, key=key)
    if live is None:  # the API server leaves zero values out
        return not desired
    if live == desired:
        return True
    return key in QUANTITY_PARENTS and _same_quantity(live, desired)


def _contains_list(live: Any, desired: list[Any], *, key: str) -> bool:
    if live is None:
        return not desired
    if not isinstance(live, list):
        return False
    if key in KEYED_LISTS and all(isinstance(item, dict) for item in [*live, *desired]):
        by_key = {_key_of(item, key): item for item in live}
        return all(_contains(by_key.get(_key_of(item, key)), item, key=key) for item in desired)
    return len(live) == len(desired) and all(_contains(a, b, key=key) for a, b in zip(live, desired, strict=True))


def _key_of(item: dict[str, Any], key: str) -> tuple[Any, ...]:
    return tuple(item.get(name, KEY_DEFAULTS.get(name)) for name in KEYED_LISTS[key])


def _same_quantity(one: Any, other: Any) -> bool:
    first, second = _QUANTITY.match(str(one)), _QUANTITY.match(str(other))
    return bool(first and second and _amount(first) == _amount(second))


def _amount(match: re.Match[str]) -> Decimal:
    number, unit = Decimal(match[1]), match[2]
    return number * (Decimal(f"1{unit}") if unit[:1] in "eE" and len(unit) > 1 and unit != "Ei" else _SCALE[unit])
