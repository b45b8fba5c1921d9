"""Laying the user's `spec.podTemplate` over the operator's own pod template.

Pure. Maps are merged, lists with a natural key are merged by it, other lists are replaced, and `null` takes a
field out: what `kubectl patch --type strategic` does, as far as pods need it. What would break the members is
refused by name, so that the status can say so before anything is applied.
"""

import posixpath
from pathlib import PurePosixPath
from typing import Any

from etcd_operator.resources.names import GROUP, Manifest, object_labels

MERGE_KEYS = {
    "containers": "name",
    "initContainers": "name",
    "ephemeralContainers": "name",
    "volumes": "name",
    "env": "name",
    "volumeMounts": "mountPath",
    "ports": "name",
    "imagePullSecrets": "name",
    "hostAliases": "ip",
}
OWN_VOLUMES = {"data", "config", "server", "peer"}
OWN_PATHS = tuple(PurePosixPath(path) for path in ("/var/lib/etcd", "/etc/etcd", "/tls"))
#: What of the etcd container is the operator's alone: its arguments and files decide what data it serves.
OWN_CONTAINER_FIELDS = ("command", "args", "image", "startupProbe", "livenessProbe", "readinessProbe", "workingDir")
OWN_POD_FIELDS = ("hostname", "subdomain", "restartPolicy", "setHostnameAsFQDN", "hostNetwork")


def merge(base: Any, over: Any, *, key: str = "") -> Any:
    """`over` laid upon `base`; neither is changed."""
    if isinstance(base, dict) and isinstance(over, dict):
        merged = {name: value for name, value in base.items() if name not in over}
        for name, value in over.items():
            if value is not None:
                merged[name] = merge(base.get(name), value, key=name)
        return merged
    if isinstance(base, list) and isinstance(over, list) and key in MERGE_KEYS:
        return _merge_list(base, over, MERGE_KEYS[key])
    return over


def _merge_list(base: list[Any], over: list[Any], by: str) -> list[Any]:
    if not all(isinstance(item, dict) and by in item for item in [*base, *over]):
        return over
    changed = {item[by]: item for item in over}
    known = {item[by] for item in base}
    return [merge(item, changed.get(item[by], {})) for item in base] + [item for item in over if item[by] not in known]


def overlay_problems(overlay: Manifest) -> list[str]:
    """Why this overlay cannot be used, one sentence each; empty when it can."""
    metadata, pod = overlay.get("metadata") or {}, overlay.get("spec") or {}
    problems = [
        f"spec.podTemplate.metadata.labels: {label} belongs to the operator"
        for label in metadata.get("labels") or {}
        if label in object_labels("") or label.startswith(f"{GROUP}/")
    ]
    problems += [
        f"spec.podTemplate.metadata.annotations: {name} belongs to the operator"
        for name in metadata.get("annotations") or {}
        if name.startswith(f"{GROUP}/")
    ]
    problems += [f"spec.podTemplate.spec.{field} belongs to the operator" for field in OWN_POD_FIELDS if field in pod]
    problems += [
        f"spec.podTemplate.spec.volumes: the name {volume['name']} is taken by the operator"
        for volume in _named(pod.get("volumes"))
        if volume["name"] in OWN_VOLUMES
    ]
    for container in _named(pod.get("containers")):
        if container["name"] == "etcd":
            problems += _container_problems(container)
    return problems


def _container_problems(container: Manifest) -> list[str]:
    where = "spec.podTemplate.spec.containers[etcd]"
    instead = {"image": "use spec.image and spec.version"}
    problems = [
        f"{where}.{field} belongs to the operator; {instead.get(field, 'use spec.options for settings of etcd')}"
        for field in OWN_CONTAINER_FIELDS
        if field in container
    ]
    if "volumeMounts" in container and not isinstance(container["volumeMounts"], list):
        problems.append(f"{where}.volumeMounts must be a list: the operator's own mounts cannot be taken away")
    problems += [
        f"{where}.volumeMounts: {mount['mountPath']} belongs to the operator"
        for mount in container.get("volumeMounts") or []
        if isinstance(mount, dict) and _is_own_path(str(mount.get("mountPath", "")))
    ]
    problems += [
        f"{where}.env: {variable['name']} belongs to the operator"
        for variable in _named(container.get("env"))
        if variable["name"] == "POD_NAME"
    ]
    return problems


def _is_own_path(path: str) -> bool:
    """Whether a mount there would hide, or stand within, one of the operator's own."""
    wanted = PurePosixPath(posixpath.normpath(f"/{path}".replace("//", "/")))
    return any(wanted == own or wanted in own.parents or own in wanted.parents for own in OWN_PATHS)


def _named(items: Any) -> list[Manifest]:
    return [item for item in items or [] if isinstance(item, dict) and isinstance(item.get("name"), str)]
