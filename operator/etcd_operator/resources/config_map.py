"""One etcd configuration file per member, the fuse among them.

Pure. While a cluster bootstraps, each file carries the whole initial cluster and `new`. Once bootstrap was
recorded, a member's file lists only itself with `existing`: on its data a restart ignores the list, on an
emptied directory etcd exits and refuses again (seen on 3.5, 3.6 and 3.7). Only the file of a member that was added
and has not started yet carries the whole member list with `existing`, which is how etcd joins; it must be exactly
etcd's own list, learners that have not started included ("member count is unequal" otherwise).
"""

from etcd_operator.api import EtcdClusterSpec
from etcd_operator.etcd.config import Options, member_file, recovery_file
from etcd_operator.resources.blueprint import Blueprint, foundation_annotations, owned_metadata
from etcd_operator.resources.names import Manifest

#: The key of the file that makes a member the only one; no member has such a name.
RECOVERY_FILE = "recovery.yaml"


def config_map(blueprint: Blueprint) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": owned_metadata(blueprint, blueprint.names.config_map, foundation_annotations(blueprint)),
        "data": {f"{member}.yaml": _file(blueprint, member) for member in blueprint.members} | _recovery(blueprint),
    }


def _recovery(blueprint: Blueprint) -> dict[str, str]:
    """The file that makes a member the only one, for just as long as that is done; no member's pod reads it."""
    recovery = blueprint.recovery
    if recovery is None or recovery.state != "Forcing":
        return {}
    member = recovery.member
    text = recovery_file(
        name=member,
        incarnation=blueprint.seat(member).incarnation,
        version=blueprint.as_of(blueprint.revision_of(member)).spec.version,
        peer_url=blueprint.peer_url(member),
        client_url=blueprint.client_url(member),
        token=blueprint.token,
        options=options(blueprint.as_of(blueprint.revision_of(member)).spec),
    )
    return {RECOVERY_FILE: text}


def _file(blueprint: Blueprint, member: str) -> str:
    seat, blueprint = blueprint.seat(member), blueprint.as_of(blueprint.revision_of(member))
    listed = (member,) if blueprint.bootstrapped and not seat.joining else blueprint.members
    return member_file(
        name=member,
        incarnation=seat.incarnation,
        version=blueprint.spec.version,
        peer_url=blueprint.peer_url(member),
        client_url=blueprint.client_url(member),
        initial_cluster={name: blueprint.peer_url(name) for name in listed},
        state="existing" if blueprint.bootstrapped else "new",
        token=blueprint.token,
        tls_peer=blueprint.peer_tls,
        tls_client=blueprint.client_tls,
        options=options(blueprint.spec),
    )


def options(spec: EtcdClusterSpec) -> Options:
    """The user's options in etcd's own units: bytes and milliseconds."""
    wanted = spec.options
    compaction = wanted.auto_compaction
    return Options(
        quota_bytes=wanted.quota_backend_bytes.bytes,
        heartbeat_ms=wanted.heartbeat_interval.milliseconds(),
        election_ms=wanted.election_timeout.milliseconds(),
        snapshot_count=wanted.snapshot_count,
        auto_compaction_mode=compaction.mode.lower() if compaction else None,
        auto_compaction_retention=str(compaction.retention) if compaction else None,
        extra=wanted.extra,
    )
