"""The Secrets of a cluster: two authorities, and the leaf certificates that they sign.

Pure: says which certificates are wanted, for which names, and how a Secret that holds one looks. Issuing them
is `pki`'s; deciding when is `cluster.certificates`'.
"""

import base64
import hashlib
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from etcd_operator.etcd.options import minor_number
from etcd_operator.resources.blueprint import Blueprint, owned_metadata
from etcd_operator.resources.names import (
    CLIENT_CLUSTER,
    CLIENT_NAMESPACE,
    CLIENT_PORT,
    CLIENT_UID,
    ISSUED_AT,
    MANAGED_BY_LABEL,
    MANAGER,
    ROTATE_CLIENT,
    ROTATE_PEER,
    Manifest,
)

Side = Literal["peer", "client"]

#: The newest minor version whose members check a peer's address against the DNS names of its certificate, which
#: a wildcard cannot pass: there the certificate lists every member by name (design: TLS).
LAST_MINOR_WITH_SAN_CHECK = (3, 5)


NONE: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, kw_only=True, slots=True)
class LeafRequest:
    """A certificate that the cluster wants, and the Secret that is to hold it."""

    secret: str
    side: Side
    common_name: str
    dns_names: tuple[str, ...] = ()
    ip_addresses: tuple[str, ...] = ()
    server: bool = True


def authority_name(blueprint: Blueprint, side: Side) -> str:
    return blueprint.names.peer_authority if side == "peer" else blueprint.names.client_authority


def rotate_annotation(side: Side) -> str:
    return ROTATE_PEER if side == "peer" else ROTATE_CLIENT


def wanted_authorities(blueprint: Blueprint) -> tuple[Side, ...]:
    wanted: list[tuple[Side, bool]] = [("peer", blueprint.peer_tls), ("client", blueprint.client_tls)]
    return tuple(side for side, on in wanted if on)


def peer_leaf(blueprint: Blueprint) -> LeafRequest:
    names = blueprint.names
    checked = minor_number(blueprint.oldest_version) <= LAST_MINOR_WITH_SAN_CHECK
    hosts = tuple(names.host(member) for member in blueprint.members) if checked else (f"*.{names.peer_domain}",)
    return LeafRequest(secret=names.peer_certificate, side="peer", common_name=f"{names.name} peer", dns_names=hosts)


def server_leaf(blueprint: Blueprint) -> LeafRequest:
    names = blueprint.names
    extra = dict.fromkeys((*blueprint.spec.tls.client.extra_sans, *blueprint.outside))
    addresses = tuple(san for san in extra if is_address(san))
    service = (names.client_service, f"{names.client_service}.{names.namespace}", names.client_host())
    return LeafRequest(
        secret=names.server_certificate,
        side="client",
        common_name=f"{names.name} server",
        dns_names=(
            f"*.{names.peer_domain}",
            *service,
            f"{names.client_host()}.{names.domain}",
            "localhost",
            *(san for san in extra if san not in addresses),
        ),
        ip_addresses=("127.0.0.1", "::1", *addresses),
    )


def client_leaf(blueprint: Blueprint) -> LeafRequest:
    """What applications present. Its common name is fit to be etcd's all-powerful user, as that is what it is."""
    return LeafRequest(
        secret=blueprint.names.client_access, side="client", common_name="root", dns_names=("root",), server=False
    )


def named_client_leaf(blueprint: Blueprint, client: str) -> LeafRequest:
    """What one of `spec.clients` presents: it is an etcd user of that name, should etcd be told to have users."""
    name = blueprint.names.client_secret(client)
    return LeafRequest(secret=name, side="client", common_name=client, dns_names=(client,), server=False)


def client_copy(blueprint: Blueprint, client: str, namespace: str, data: Mapping[str, bytes]) -> Manifest:
    """The copy of a client's Secret in another namespace: no owner reference reaches there, labels tell whose it is."""
    labels = {
        MANAGED_BY_LABEL: MANAGER,
        CLIENT_CLUSTER: blueprint.names.name,
        CLIENT_NAMESPACE: blueprint.names.namespace,
    }
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": blueprint.names.client_copy(client),
            "namespace": namespace,
            "labels": labels,
            "annotations": {CLIENT_UID: blueprint.uid},
        },
        "type": "Opaque",
        "data": {key: base64.b64encode(value).decode() for key, value in data.items()},
    }


def is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def secret(
    blueprint: Blueprint, name: str, data: Mapping[str, bytes], *, issued_at: str, rotation: Mapping[str, str] = NONE
) -> Manifest:
    """A Secret of the cluster; `data` maps keys to raw bytes, `rotation` is what the annotations tell beside."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": owned_metadata(blueprint, name, {ISSUED_AT: issued_at, **rotation}),
        "type": "Opaque",
        "data": {key: base64.b64encode(value).decode() for key, value in data.items()},
    }


def authority_digest(trusted: bytes) -> str:
    """By which a process that reads its authorities when it starts is told to be behind: of a ca.crt."""
    return hashlib.sha256(trusted).hexdigest()[:16]


def client_endpoints(blueprint: Blueprint) -> str:
    return f"{blueprint.client_scheme}://{blueprint.names.client_host()}:{CLIENT_PORT}"


def content(live: Manifest | None) -> dict[str, bytes]:
    """The raw bytes of a live Secret by key; what is not base64 counts as absent, so that it is issued anew."""
    data = {}
    for key, value in ((live or {}).get("data") or {}).items():
        try:
            data[key] = base64.b64decode(value, validate=True)
        except ValueError:
            continue
    return data
