"""Keys of etcd's configuration file that `spec.options.extra` does not take, with what to use instead.

Pure data; the keys of etcd 3.5 to 3.7 together. Only the operator's own business stands here: whether a
version of etcd knows a key at all is judged where the configuration file is written.
"""

from typing import Any

from etcd_operator.api.base import INT_OR_STRING

_STORAGE = "the operator places the data on the volumes of spec.storage"
_ADDRESS = "addresses and ports belong to the operator; status.endpoints tells them"
_MEMBERSHIP = "members are set by spec.members, and the operator alone founds and joins them"
_DISCOVERY = "members find each other through their Service"
_TLS = "TLS is set under spec.tls"
_LOG = "the operator reads etcd's log to tell why a member fails; log-level may be set"

#: Key of the configuration file -> the clause after "is the operator's business: ".
OWNED_OPTIONS: dict[str, str] = {
    "name": "members are named after the EtcdCluster",
    "data-dir": _STORAGE,
    "wal-dir": _STORAGE,
    "listen-peer-urls": _ADDRESS,
    "listen-client-urls": _ADDRESS,
    "listen-client-http-urls": _ADDRESS,
    "listen-metrics-urls": _ADDRESS,
    "initial-advertise-peer-urls": _ADDRESS,
    "advertise-client-urls": _ADDRESS,
    "initial-cluster": _MEMBERSHIP,
    "initial-cluster-state": _MEMBERSHIP,
    "initial-cluster-token": _MEMBERSHIP,
    "max-learners": "every member must hold the same number, or members disagree for good",
    "strict-reconfig-check": "without it a membership change could cost the quorum",
    "force-new-cluster": "it throws the other members away, at every restart again",
    "unsafe-no-fsync": "acknowledged writes would be lost with the power",
    "discovery": _DISCOVERY,
    "discovery-config": _DISCOVERY,
    "discovery-proxy": _DISCOVERY,
    "discovery-srv": _DISCOVERY,
    "discovery-srv-name": _DISCOVERY,
    "client-transport-security": _TLS,
    "peer-transport-security": _TLS,
    "self-signed-cert-validity": _TLS,
    "experimental-peer-skip-client-san-verification": _TLS,
    "logger": _LOG,
    "log-format": _LOG,
    "log-outputs": _LOG,
    "enable-log-rotation": _LOG,
    "log-rotation-config-json": _LOG,
    "quota-backend-bytes": "use spec.options.quotaBackendBytes",
    "heartbeat-interval": "use spec.options.heartbeatInterval",
    "election-timeout": "use spec.options.electionTimeout",
    "snapshot-count": "use spec.options.snapshotCount",
    "auto-compaction-mode": "use spec.options.autoCompaction",
    "auto-compaction-retention": "use spec.options.autoCompaction",
}

_BOOLEAN = {"type": "boolean"}
_OBJECT = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
#: What a user may have written there; a value of another type is refused by its type.
_SHAPES: dict[str, dict[str, Any]] = {
    "client-transport-security": _OBJECT,
    "peer-transport-security": _OBJECT,
    "discovery-config": _OBJECT,
    "log-outputs": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "atomic"},
    "enable-log-rotation": _BOOLEAN,
    "experimental-peer-skip-client-san-verification": _BOOLEAN,
    "force-new-cluster": _BOOLEAN,
    "strict-reconfig-check": _BOOLEAN,
    "unsafe-no-fsync": _BOOLEAN,
}


def extra_schema() -> dict[str, Any]:
    """The JSON schema of `spec.options.extra`: anything goes but the operator's keys.

    CEL sees only declared properties of an object with unknown fields, so each refused key is declared,
    with a rule that is never true.
    """
    return {
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": True,
        "properties": {key: _refused(key) for key in sorted(OWNED_OPTIONS)},
    }


def _refused(key: str) -> dict[str, Any]:
    clause = OWNED_OPTIONS[key]
    rule = {"rule": "false", "message": f"is the operator's business: {clause}"}
    shape = _SHAPES.get(key, INT_OR_STRING)
    return {"description": f"Not accepted: {clause}.", **shape, "x-kubernetes-validations": [rule]}
