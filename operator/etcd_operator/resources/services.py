"""The two Services of a cluster: the members' stable names, and the one address that clients learn.

Pure.
"""

from etcd_operator.resources.blueprint import Blueprint, owned_metadata
from etcd_operator.resources.names import (
    CLIENT_PORT,
    HTTP_PORT,
    METRICS_PORT,
    PEER_PORT,
    SERVING_LABEL,
    Manifest,
    selector_labels,
)


def peer_service(blueprint: Blueprint) -> Manifest:
    """Headless; names members before they are ready, as they must find each other to become so."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": owned_metadata(blueprint, blueprint.names.peer_service),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": selector_labels(blueprint.names.name),
            "ports": [
                _port("client", CLIENT_PORT),
                _port("peer", PEER_PORT),
                _port("metrics", METRICS_PORT),
                _port("http", HTTP_PORT),
            ],
        },
    }


def client_service(blueprint: Blueprint) -> Manifest | None:
    """Ready members only; `None` until bootstrap was recorded, so that no client writes into an abandoned one."""
    if not blueprint.bootstrapped:
        return None
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": owned_metadata(blueprint, blueprint.names.client_service),
        "spec": {
            "type": "ClusterIP",
            "selector": {**selector_labels(blueprint.names.name), SERVING_LABEL: "true"},
            "ports": [_port("client", CLIENT_PORT), _port("http", HTTP_PORT)],
        },
    }


def _port(name: str, number: int) -> Manifest:
    return {"name": name, "port": number, "targetPort": name, "protocol": "TCP"}
