"""The Services of a cluster: the members' stable names, the one address that clients learn, members from outside.

Pure.
"""

from etcd_operator.api import ProxyService
from etcd_operator.resources.blueprint import Blueprint, owned_metadata
from etcd_operator.resources.names import (
    CLIENT_PORT,
    HTTP_PORT,
    METRICS_PORT,
    PEER_PORT,
    POD_NAME,
    SERVING_LABEL,
    Manifest,
    proxy_selector,
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
                service_port("client", CLIENT_PORT),
                service_port("peer", PEER_PORT),
                service_port("metrics", METRICS_PORT),
                service_port("http", HTTP_PORT),
            ],
        },
    }


def client_service(blueprint: Blueprint, *, through_proxy: bool = False) -> Manifest | None:
    """The proxies, or the members, that are ready.

    `None` until bootstrap was recorded, so that no client writes into an abandoned one.
    """
    if not blueprint.bootstrapped:
        return None
    name, wanted = blueprint.names.name, blueprint.proxy.service if blueprint.proxy.enabled else ProxyService()
    ranges = {"loadBalancerSourceRanges": list(wanted.load_balancer_source_ranges)}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": owned_metadata(blueprint, blueprint.names.client_service, wanted.annotations),
        "spec": {
            "type": wanted.type,
            "selector": proxy_selector(name) if through_proxy else {**selector_labels(name), SERVING_LABEL: "true"},
            "ports": [
                service_port("client", CLIENT_PORT, node_port=wanted.node_port),
                service_port("http", HTTP_PORT),
            ],
            **(ranges if wanted.load_balancer_source_ranges else {}),
        },
    }


def member_services(blueprint: Blueprint) -> list[Manifest]:
    """One for each member, by which it is reached at a port of every node, where the user wants that."""
    names = blueprint.names
    if not blueprint.bootstrapped or blueprint.spec.access.members != "NodePort":
        return []
    return [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": owned_metadata(blueprint, names.member_service(member)),
            "spec": {
                "type": "NodePort",
                "selector": {**selector_labels(names.name), SERVING_LABEL: "true", POD_NAME: member},
                "ports": [service_port("client", CLIENT_PORT)],
            },
        }
        for member in blueprint.members
    ]


def service_port(name: str, number: int, *, node_port: int | None = None) -> Manifest:
    """A port of a Service, and of the pods behind it, by its name."""
    port: Manifest = {"name": name, "port": number, "targetPort": name, "protocol": "TCP"}
    return port if node_port is None else {**port, "nodePort": node_port}
