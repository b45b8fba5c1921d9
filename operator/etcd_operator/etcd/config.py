"""The configuration file of one member.

Pure text. etcd reads the file alone and ignores flags and environment beside it. Which members a file lists is decided
by the caller; the fuse is a file that lists only its own member with `existing`: on its data a restart ignores the
list, on an emptied directory etcd exits.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from etcd_operator.etcd.options import FEATURE_GATES, MANY_LEARNERS, file_value, gates, minor_number

CLIENT_PORT, PEER_PORT, METRICS_PORT, HTTP_PORT = 2379, 2380, 2381, 2382

DATA_ROOT = "/var/lib/etcd"
TLS_ROOT = "/tls"

#: The same in every member's file from bootstrap on, for good: each member judges it when it applies a change, and
#: unequal values leave members disagreeing. Enough for growing from one member to seven at once.
MAX_LEARNERS = 7

#: How often an idle watch hears of progress: kube-apiserver's consistent reads from cache need it (kubeadm sets it).
WATCH_PROGRESS = "5s"

#: All addresses: Go takes the unspecified IPv4 address for those of both families, and works where IPv6 is off.
_EVERYWHERE = "0.0.0.0"
#: Only processes in the same pod.
_LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """etcd's own settings, in its units: bytes and milliseconds. None leaves a setting to etcd.

    auto_compaction_mode: `periodic` or `revision`; retention: a duration (`1h`) or a number of revisions.
    extra: checked by `options.check_extra`.
    """

    quota_bytes: int | None = None
    heartbeat_ms: int | None = None
    election_ms: int | None = None
    snapshot_count: int | None = None
    auto_compaction_mode: str | None = None
    auto_compaction_retention: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


def member_file(
    *,
    name: str,
    incarnation: str,
    version: str,
    peer_url: str,
    client_url: str,
    initial_cluster: Mapping[str, str],
    state: Literal["new", "existing"],
    token: str,
    tls_peer: bool,
    tls_client: bool,
    options: Options,
) -> str:
    """The text of the file. `initial_cluster` maps names to peer URLs; the same input gives the same text."""
    fuse = state == "existing" and set(initial_cluster) == {name}
    settings: dict[str, Any] = {
        "name": name,
        "data-dir": f"{DATA_ROOT}/{incarnation}",
        **_urls(peer_url, client_url, tls_peer=tls_peer, tls_client=tls_client),
        "initial-cluster": ",".join(f"{member}={url}" for member, url in sorted(initial_cluster.items())),
        "initial-cluster-state": state,
        "initial-cluster-token": token,
        "strict-reconfig-check": True,
        **_security(version, tls_peer=tls_peer, tls_client=tls_client),
        **_user_settings(options),
        **_defaults_and_extra(version, options.extra),
    }
    if minor_number(version) >= MANY_LEARNERS:
        settings["max-learners"] = MAX_LEARNERS
    return _text(settings, comment=_FUSE_COMMENT if fuse else ())


def recovery_file(
    *, name: str, incarnation: str, version: str, peer_url: str, client_url: str, token: str, options: Options
) -> str:
    """The text of the file with which etcd makes a member the only one of its cluster, which keeps its cluster ID.

    etcd then drops what it does not know to be committed and removes all other members, learners too
    (bootstrapWALFromSnapshot in server/etcdserver/bootstrap.go, the same in 3.5 to 3.7). Nobody is to reach it
    meanwhile, so it listens on the loopback; the metrics port alone is open, whose /readyz is a linearizable read. On
    an empty directory this file is the fuse like any other.
    """
    settings: dict[str, Any] = {
        "name": name,
        "data-dir": f"{DATA_ROOT}/{incarnation}",
        "listen-peer-urls": f"http://{_LOOPBACK}:{PEER_PORT}",
        "listen-client-urls": f"http://{_LOOPBACK}:{CLIENT_PORT}",
        "listen-metrics-urls": f"http://{_EVERYWHERE}:{METRICS_PORT}",
        "initial-advertise-peer-urls": peer_url,
        "advertise-client-urls": client_url,
        "initial-cluster": f"{name}={peer_url}",
        "initial-cluster-state": "existing",
        "initial-cluster-token": token,
        "force-new-cluster": True,
        **_user_settings(options),
        **_defaults_and_extra(version, options.extra),
    }
    if minor_number(version) >= MANY_LEARNERS:
        settings["max-learners"] = MAX_LEARNERS
    return _text(settings)


def _text(settings: Mapping[str, Any], comment: Sequence[str] = ()) -> str:
    return "\n".join([*comment, *(f"{key}: {_yaml(value)}" for key, value in settings.items())]) + "\n"


_FUSE_COMMENT = (
    "# Only this member is listed, on purpose: a restart on its own data ignores the list, and on an emptied",
    "# directory etcd exits instead of rejoining under an identity whose votes and entries are lost.",
)


def _yaml(value: Any) -> str:
    """A value as JSON, which is YAML too and never takes a string for something else."""
    return json.dumps(value)


def _urls(peer_url: str, client_url: str, *, tls_peer: bool, tls_client: bool) -> dict[str, str]:
    peer, client = ("https" if tls_peer else "http"), ("https" if tls_client else "http")
    return {
        "listen-peer-urls": f"{peer}://{_EVERYWHERE}:{PEER_PORT}",
        "listen-client-urls": f"{client}://{_EVERYWHERE}:{CLIENT_PORT}",
        "listen-client-http-urls": f"{client}://{_EVERYWHERE}:{HTTP_PORT}",
        "listen-metrics-urls": f"http://{_EVERYWHERE}:{METRICS_PORT}",
        "initial-advertise-peer-urls": peer_url,
        "advertise-client-urls": client_url,
    }


def _security(version: str, *, tls_peer: bool, tls_client: bool) -> dict[str, dict[str, Any]]:
    """Both sides ask for certificates. From 3.6 on the address of a peer need not match its certificate's names.

    That check asks DNS for the names and refuses a pod that just moved; 3.5 has no way to switch it off in a file.
    """
    found: dict[str, dict[str, Any]] = {}
    if tls_client:
        found["client-transport-security"] = _files("server")
    if tls_peer:
        found["peer-transport-security"] = _files("peer")
        if minor_number(version) >= (3, 6):
            found["peer-transport-security"]["skip-client-san-verification"] = True
    return found


def _files(side: str) -> dict[str, Any]:
    folder = f"{TLS_ROOT}/{side}"
    return {
        "cert-file": f"{folder}/tls.crt",
        "key-file": f"{folder}/tls.key",
        "trusted-ca-file": f"{folder}/ca.crt",
        "client-cert-auth": True,
    }


def _user_settings(options: Options) -> dict[str, Any]:
    settings = {
        "quota-backend-bytes": options.quota_bytes,
        "heartbeat-interval": options.heartbeat_ms,
        "election-timeout": options.election_ms,
        "snapshot-count": options.snapshot_count,
        "auto-compaction-mode": options.auto_compaction_mode,
        "auto-compaction-retention": options.auto_compaction_retention,
    }
    return {key: value for key, value in settings.items() if value is not None}


def _defaults_and_extra(version: str, extra: Mapping[str, Any]) -> dict[str, Any]:
    """What etcd's operators advise for production, then what the user says instead or beside it.

    Of etcd's two corruption checks, both advised by its operations guide, the one at compaction is on. The one before
    a member serves is left to the user: there a member asks each peer in turn before it answers any itself, so members
    that start together wait for each other (seen: all three restarted, 14.5 s until they served instead of 0.5 s).
    """
    defaults: dict[str, Any]
    if minor_number(version) >= (3, 6):
        chosen = {"CompactHashCheck": "true"} | gates(extra.get(FEATURE_GATES, ""))
        defaults = {"watch-progress-notify-interval": WATCH_PROGRESS}
        extra = {**extra, FEATURE_GATES: ",".join(f"{gate}={value}" for gate, value in sorted(chosen.items()))}
    else:
        defaults = {
            "experimental-compact-hash-check-enabled": True,
            "experimental-watch-progress-notify-interval": WATCH_PROGRESS,
        }
    settings = {**defaults, **extra}
    return {key: file_value(version, key, value) for key, value in sorted(settings.items())}
