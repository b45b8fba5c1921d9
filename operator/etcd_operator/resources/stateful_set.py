"""The StatefulSet that runs the members.

Pure. The operator orders restarts (`OnDelete`), members start side by side (`Parallel`), and volumes outlive
the StatefulSet whatever happens to it (`Retain`, always).
"""

from etcd_operator.resources.blueprint import Blueprint, foundation_annotations, owned_metadata
from etcd_operator.resources.names import (
    CLIENT_PORT,
    HTTP_PORT,
    METRICS_PORT,
    PEER_PORT,
    REVISION,
    SERVING_LABEL,
    Manifest,
    object_labels,
    selector_labels,
)
from etcd_operator.resources.overlay import merge
from etcd_operator.resources.spreading import apart

#: The user that etcd runs as; upstream's image brings none of its own.
USER = 65532


def stateful_set(blueprint: Blueprint) -> Manifest:
    # The same whatever the members run: it is immutable.
    claims = [] if blueprint.in_memory else [_volume_claim(blueprint)]
    blueprint = blueprint.as_of(blueprint.template_revision)
    overlay = blueprint.spec.pod_template.model_dump(by_alias=True, exclude_none=True, mode="json")
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": owned_metadata(blueprint, blueprint.names.stateful_set, foundation_annotations(blueprint)),
        "spec": {
            "serviceName": blueprint.names.peer_service,
            "replicas": blueprint.replicas,
            "podManagementPolicy": "Parallel",
            "updateStrategy": {"type": "OnDelete"},
            "persistentVolumeClaimRetentionPolicy": {"whenScaled": "Retain", "whenDeleted": "Retain"},
            "revisionHistoryLimit": 2,
            "selector": {"matchLabels": selector_labels(blueprint.names.name)},
            "template": merge(_pod_template(blueprint), overlay),
            **({"volumeClaimTemplates": claims} if claims else {}),
        },
    }


def _pod_template(blueprint: Blueprint) -> Manifest:
    image = blueprint.spec.image
    return {
        "metadata": {
            "labels": {**object_labels(blueprint.names.name), SERVING_LABEL: "true"},
            "annotations": {REVISION: blueprint.template_revision, **blueprint.authority_annotations},
        },
        "spec": {
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "imagePullSecrets": [{"name": secret.name} for secret in image.pull_secrets],
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": USER,
                "runAsGroup": USER,
                "fsGroup": USER,
                "fsGroupChangePolicy": "OnRootMismatch",
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "affinity": apart(selector_labels(blueprint.names.name)),
            "containers": [_etcd_container(blueprint)],
            "volumes": _volumes(blueprint),
        },
    }


def _etcd_container(blueprint: Blueprint) -> Manifest:
    spec = blueprint.spec
    return {
        "name": "etcd",
        "image": f"{spec.image.repository}:v{spec.version}",
        "imagePullPolicy": spec.image.pull_policy,
        "command": ["/usr/local/bin/etcd", "--config-file=/etc/etcd/$(POD_NAME).yaml"],
        "env": [{"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
        "ports": [
            {"name": "client", "containerPort": CLIENT_PORT},
            {"name": "peer", "containerPort": PEER_PORT},
            {"name": "metrics", "containerPort": METRICS_PORT},
            {"name": "http", "containerPort": HTTP_PORT},
        ],
        # Why etcd exited, in its own words, without asking for logs.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        **_probes(),
        "resources": dict(spec.resources),
        "volumeMounts": _volume_mounts(blueprint),
    }


def _probes() -> Manifest:
    """Liveness and startup ask /livez: /readyz fails while quorum is lost, and would kill members just then.

    The startup budget is ten minutes, as the metrics port listens only after the log was replayed. Readiness
    is a linearizable read; three failures, so that an election does not empty the Service.
    """
    return {
        "startupProbe": _probe("/livez", period=1, failures=600),
        "livenessProbe": _probe("/livez", period=5, failures=3),
        "readinessProbe": _probe("/readyz", period=1, failures=3),
    }


def _probe(path: str, *, period: int, failures: int) -> Manifest:
    return {
        "httpGet": {"path": path, "port": "metrics"},
        "periodSeconds": period,
        "timeoutSeconds": 2,
        "failureThreshold": failures,
    }


def _volume_mounts(blueprint: Blueprint) -> list[Manifest]:
    mounts = [{"name": "data", "mountPath": "/var/lib/etcd"}, {"name": "config", "mountPath": "/etc/etcd"}]
    if blueprint.client_tls:
        mounts.append({"name": "server", "mountPath": "/tls/server"})
    if blueprint.peer_tls:
        mounts.append({"name": "peer", "mountPath": "/tls/peer"})
    return mounts


def _volumes(blueprint: Blueprint) -> list[Manifest]:
    names = blueprint.names
    volumes: list[Manifest] = [{"name": "config", "configMap": {"name": names.config_map}}]
    if blueprint.in_memory:
        tmpfs = {"medium": "Memory", "sizeLimit": str(blueprint.spec.storage.size)}
        volumes.append({"name": "data", "emptyDir": tmpfs})
    if blueprint.client_tls:
        volumes.append({"name": "server", "secret": {"secretName": names.server_certificate}})
    if blueprint.peer_tls:
        volumes.append({"name": "peer", "secret": {"secretName": names.peer_certificate}})
    return volumes


def _volume_claim(blueprint: Blueprint) -> Manifest:
    storage = blueprint.spec.storage
    spec: Manifest = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": str(storage.size)}}}
    if storage.storage_class_name is not None:
        spec["storageClassName"] = storage.storage_class_name
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data", "labels": object_labels(blueprint.names.name)},
        "spec": spec,
    }
