"""What kubeadm knows of etcd: the ConfigMap by which it upgrades and joins control-plane nodes.

Pure. Left as it was, the next `kubeadm upgrade` would put an API server back on the etcd that it had before.
Source: kubeadm's ClusterConfiguration, v1beta3 and v1beta4 (k8s.io/kubernetes, cmd/kubeadm/app/apis/kubeadm).
"""

import json
from typing import Any

from etcd_operator.agent import manifest
from etcd_operator.agent.manifest import ManifestError
from etcd_operator.binding.arguments import DEFAULT_PREFIX
from etcd_operator.binding.wiring import BOUND_BY, ORIGINAL, Wiring, annotations
from etcd_operator.resources.names import Manifest

_KEY = "ClusterConfiguration"
_PREFIX = "etcd-prefix"
#: The certificate by which kubeadm's API servers know its own etcd.
_CLIENT = "/etc/kubernetes/pki/apiserver-etcd-client"


def configured(config_map: Manifest, wanted: Wiring, identity: str) -> Manifest | None:
    """The merge patch that tells kubeadm of the etcd, `None` where it knows, or where it is no kubeadm's.

    Notes what it knew before, and which binding changed that.
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
    noted = annotations(config_map)
    former = noted.get(ORIGINAL, original) if noted.get(BOUND_BY) == identity else original
    return _patch(config_map, after, former, identity)


def original_flags(config_map: Manifest, identity: str) -> dict[str, str] | None:
    """The etcd flags that kubeadm gave API servers before that binding changed what it knows; `None` where it did not.

    As kubeadm writes them into manifests (cmd/kubeadm/app/phases/controlplane/manifests.go). Raises ValueError for a
    note that somebody spoiled.
    """
    former = _former(config_map, identity)
    if former is None:
        return None
    external = (former.get("etcd") or {}).get("external")
    found = {
        "etcd-servers": ",".join(external["endpoints"]) if external else "https://127.0.0.1:2379",
        "etcd-cafile": (external or {}).get("caFile", "" if external else "/etc/kubernetes/pki/etcd/ca.crt"),
        "etcd-certfile": (external or {}).get("certFile", "" if external else f"{_CLIENT}.crt"),
        "etcd-keyfile": (external or {}).get("keyFile", "" if external else f"{_CLIENT}.key"),
        _PREFIX: former.get("prefix") or "",
    }
    return {name: str(value) for name, value in found.items() if value}


def _former(config_map: Manifest, identity: str) -> dict[str, Any] | None:
    noted = annotations(config_map)
    if noted.get(BOUND_BY) != identity or ORIGINAL not in noted:
        return None
    former = json.loads(noted[ORIGINAL])
    if not isinstance(former, dict):
        raise ValueError(f"annotation {ORIGINAL} of ConfigMap {config_map['metadata']['name']} holds no object")
    return former


def restored(config_map: Manifest, identity: str) -> Manifest | None:
    """The merge patch that lets kubeadm know what it did before, `None` where that binding noted nothing.

    Raises ValueError for a note that somebody spoiled.
    """
    now, former = _read(config_map), _former(config_map, identity)
    if now is None or former is None:
        return None
    after = {key: value for key, value in now.items() if key != "etcd"}
    if former.get("etcd") is not None:
        after["etcd"] = former["etcd"]
    return _patch(config_map, _with_prefix(after, former.get("prefix")), None, None)


def _read(config_map: Manifest) -> dict[str, Any] | None:
    try:
        return manifest.read(((config_map.get("data") or {}).get(_KEY) or "").encode())
    except ManifestError:
        return None


def _patch(config_map: Manifest, after: dict[str, Any], noted: str | None, identity: str | None) -> Manifest:
    """With the version that was read: it is one text, in which an edit in between would be lost."""
    version = config_map["metadata"]["resourceVersion"]
    return {
        "metadata": {"resourceVersion": version, "annotations": {ORIGINAL: noted, BOUND_BY: identity}},
        "data": {_KEY: manifest.write(after).decode()},
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
    arguments = server.get("extraArgs") or ({} if str(config.get("apiVersion", "")).endswith("v1beta3") else [])
    if isinstance(arguments, dict):
        kept: Any = {name: value for name, value in arguments.items() if name != _PREFIX}
        kept |= {} if prefix is None else {_PREFIX: prefix}
    else:
        kept = [each for each in arguments if each.get("name") != _PREFIX]
        kept += [] if prefix is None else [{"name": _PREFIX, "value": prefix}]
    server["extraArgs"] = kept
    return {**config, "apiServer": server}
