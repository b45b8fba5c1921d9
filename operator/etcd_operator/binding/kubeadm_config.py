"""What kubeadm knows of etcd: the ConfigMap by which it upgrades and joins control-plane nodes.

Pure. Left as it was, the next `kubeadm upgrade` would put an API server back on the etcd that it had before.
Source: kubeadm's ClusterConfiguration, v1beta3 and v1beta4 (k8s.io/kubernetes, cmd/kubeadm/app/apis/kubeadm).
"""

import json
from typing import Any

import yaml

from etcd_operator.binding.arguments import DEFAULT_PREFIX
from etcd_operator.binding.wiring import ORIGINAL, Wiring, annotations
from etcd_operator.resources.names import Manifest

_KEY = "ClusterConfiguration"
_PREFIX = "etcd-prefix"


def configured(config_map: Manifest, wanted: Wiring) -> Manifest | None:
    """The merge patch that tells kubeadm of the etcd, `None` where it knows, or where it is no kubeadm's.

    Notes what it knew before.
    """
    before = _read(config_map)
    if before is None:
        return None
    etcd: dict[str, Any] = {"endpoints": list(wanted.servers)}
    for field, flag in (("caFile", "etcd-cafile"), ("certFile", "etcd-certfile"), ("keyFile", "etcd-keyfile")):
        if path := wanted.flags[flag]:
            etcd[field] = path
    prefix = wanted.flags[_PREFIX]
    after = _with_prefix({**before, "etcd": {"external": etcd}}, None if prefix == DEFAULT_PREFIX else prefix)
    if after == before:
        return None
    original = json.dumps({"etcd": before.get("etcd"), "prefix": _prefix(before)}, sort_keys=True)
    return _patch(config_map, after, annotations(config_map).get(ORIGINAL, original))


def restored(config_map: Manifest) -> Manifest | None:
    """The merge patch that lets kubeadm know what it did before, `None` where nothing is noted.

    Raises ValueError for a note that somebody spoiled.
    """
    now, noted = _read(config_map), annotations(config_map).get(ORIGINAL)
    if now is None or noted is None:
        return None
    former = json.loads(noted)
    if not isinstance(former, dict):
        raise ValueError(f"annotation {ORIGINAL} of ConfigMap {config_map['metadata']['name']} holds no object")
    after = {key: value for key, value in now.items() if key != "etcd"}
    if former.get("etcd") is not None:
        after["etcd"] = former["etcd"]
    return _patch(config_map, _with_prefix(after, former.get("prefix")), None)


def _read(config_map: Manifest) -> dict[str, Any] | None:
    try:
        found = yaml.safe_load((config_map.get("data") or {}).get(_KEY) or "")
    except yaml.YAMLError:
        return None
    return found if isinstance(found, dict) else None


def _patch(config_map: Manifest, after: dict[str, Any], noted: str | None) -> Manifest:
    """With the version that was read: it is one text, in which an edit in between would be lost."""
    version = config_map["metadata"]["resourceVersion"]
    return {
        "metadata": {"resourceVersion": version, "annotations": {ORIGINAL: noted}},
        "data": {_KEY: yaml.safe_dump(after, sort_keys=False)},
    }


def _prefix(config: dict[str, Any]) -> str | None:
    arguments = (config.get("apiServer") or {}).get("extraArgs") or {}
    if isinstance(arguments, dict):  # v1beta3
        found = arguments.get(_PREFIX)
    else:
        found = next((each.get("value") for each in arguments if each.get("name") == _PREFIX), None)
    return None if found is None else str(found)


def _with_prefix(config: dict[str, Any], prefix: str | None) -> dict[str, Any]:
    if _prefix(config) == prefix:
        return config
    server = dict(config.get("apiServer") or {})
    arguments = server.get("extraArgs") or ([] if str(config.get("apiVersion", "")).endswith("v1beta4") else {})
    if isinstance(arguments, dict):
        kept: Any = {name: value for name, value in arguments.items() if name != _PREFIX}
        kept |= {} if prefix is None else {_PREFIX: prefix}
    else:
        kept = [each for each in arguments if each.get("name") != _PREFIX]
        kept += [] if prefix is None else [{"name": _PREFIX, "value": prefix}]
    server["extraArgs"] = kept
    return {**config, "apiServer": server}
