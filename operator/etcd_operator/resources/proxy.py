"""The objects of the proxy in front of the members, one builder for each; `None` while it is switched off.

Pure. See `haproxy` for what the proxy does.
"""

import base64

from etcd_operator.resources.blueprint import Blueprint, owned_metadata
from etcd_operator.resources.compare import digest
from etcd_operator.resources.haproxy import (
    HARD_STOP_AFTER,
    STATS_PASSWORD,
    STATS_PORT,
    STATS_USER,
    haproxy_config,
)
from etcd_operator.resources.names import (
    CLIENT_PORT,
    CONFIG_DIGEST,
    HTTP_PORT,
    SERVING_LABEL,
    Manifest,
    helper_labels,
    proxy_selector,
    selector_labels,
)
from etcd_operator.resources.services import service_port
from etcd_operator.resources.spreading import apart

#: The user of the official image.
USER = 99
#: Seconds that a proxy which is to stop still takes connections, until every node knows that it goes.
LINGER = 3
_FOLDER = "/usr/local/etc/haproxy"


def proxy_secret(blueprint: Blueprint, password: str) -> Manifest | None:
    """User and password of the statistics page."""
    if not blueprint.proxy.enabled:
        return None
    data = {"username": "stats", "password": password}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": owned_metadata(blueprint, blueprint.names.proxy),
        "type": "kubernetes.io/basic-auth",
        "data": {key: base64.b64encode(value.encode()).decode() for key, value in data.items()},
    }


def proxy_config_map(blueprint: Blueprint) -> Manifest | None:
    """The proxy's configuration file."""
    if not blueprint.proxy.enabled:
        return None
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": owned_metadata(blueprint, blueprint.names.proxy),
        "data": {"haproxy.cfg": haproxy_config(blueprint.names, blueprint.proxy)},
    }


def members_service(blueprint: Blueprint) -> Manifest | None:
    """Headless: whom the proxy asks whether they are ready. Never a member that serves another cluster's data."""
    if not blueprint.proxy.enabled:
        return None
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": owned_metadata(blueprint, blueprint.names.members_service),
        "spec": {
            "clusterIP": "None",
            # The proxy's own checks see within a second what the kubelet's tell after several.
            "publishNotReadyAddresses": True,
            "selector": {**selector_labels(blueprint.names.name), SERVING_LABEL: "true"},
            "ports": [service_port("client", CLIENT_PORT), service_port("http", HTTP_PORT)],
        },
    }


def proxy_disruption_budget(blueprint: Blueprint) -> Manifest | None:
    """A budget that lets one proxy go at a time; `None` for a single one, which would never let a node be drained."""
    if not blueprint.proxy.enabled or blueprint.proxy.replicas == 1:
        return None
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": owned_metadata(blueprint, blueprint.names.proxy),
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": proxy_selector(blueprint.names.name)}},
    }


def proxy_deployment(blueprint: Blueprint) -> Manifest | None:
    """The proxies: a new one is ready before an old one goes, and each lingers until nobody is sent to it any more."""
    config = proxy_config_map(blueprint)
    if config is None:
        return None
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": owned_metadata(blueprint, blueprint.names.proxy),
        "spec": {
            "replicas": blueprint.proxy.replicas,
            "revisionHistoryLimit": 2,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "selector": {"matchLabels": proxy_selector(blueprint.names.name)},
            "template": {
                "metadata": {
                    "labels": helper_labels(blueprint.names.name, "proxy"),
                    # HAProxy reads its file when it starts: another one is another pod.
                    "annotations": {CONFIG_DIGEST: digest(config["data"])},
                },
                "spec": _pod(blueprint),
            },
        },
    }


def _pod(blueprint: Blueprint) -> Manifest:
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": LINGER + HARD_STOP_AFTER + 5,
        "imagePullSecrets": [{"name": secret.name} for secret in blueprint.spec.image.pull_secrets],
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "affinity": apart(proxy_selector(blueprint.names.name)),
        "containers": [_container(blueprint)],
        "volumes": [{"name": "config", "configMap": {"name": blueprint.names.proxy}}],
    }


def _container(blueprint: Blueprint) -> Manifest:
    return {
        "name": "haproxy",
        "image": blueprint.proxy.image,
        "imagePullPolicy": blueprint.proxy.pull_policy,
        "command": ["haproxy", "-W", "-db", "-f", f"{_FOLDER}/haproxy.cfg"],
        "env": [
            _from_secret(blueprint, STATS_USER, "username"),
            _from_secret(blueprint, STATS_PASSWORD, "password"),
        ],
        "ports": [
            {"name": "client", "containerPort": CLIENT_PORT},
            {"name": "http", "containerPort": HTTP_PORT},
            {"name": "stats", "containerPort": STATS_PORT},
        ],
        "lifecycle": {"preStop": {"sleep": {"seconds": LINGER}}},
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "startupProbe": _probe("/livez", period=1, failures=30),
        "livenessProbe": _probe("/livez", period=10, failures=3),
        "readinessProbe": _probe("/readyz", period=2, failures=2),
        "resources": dict(blueprint.proxy.resources),
        "volumeMounts": [{"name": "config", "mountPath": _FOLDER, "readOnly": True}],
    }


def _probe(path: str, *, period: int, failures: int) -> Manifest:
    return {
        "httpGet": {"path": path, "port": "stats"},
        "periodSeconds": period,
        "timeoutSeconds": 2,
        "failureThreshold": failures,
    }


def _from_secret(blueprint: Blueprint, variable: str, key: str) -> Manifest:
    reference = {"name": blueprint.names.proxy, "key": key}
    return {"name": variable, "valueFrom": {"secretKeyRef": reference}}
