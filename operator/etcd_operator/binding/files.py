"""From where a container has a file that an argument names: the Secret or ConfigMap behind the volume.

Pure. Enough to read, with the API server's own certificate, the etcd that it uses now.
"""

import posixpath
from dataclasses import dataclass
from typing import Literal

from etcd_operator.resources.names import Manifest


@dataclass(frozen=True, kw_only=True, slots=True)
class FileSource:
    """One key of a Secret or a ConfigMap."""

    kind: Literal["Secret", "ConfigMap"]
    name: str
    key: str


def file_source(pod: Manifest, container: Manifest, path: str) -> FileSource | None:
    """Where the file at that path comes from, by a pod's spec; `None` for what no Secret or ConfigMap holds."""
    below = [each for each in container.get("volumeMounts", ()) if relative_path(each["mountPath"], path) is not None]
    if not below:
        return None
    mount = max(below, key=lambda each: len(each["mountPath"]))  # the innermost hides the others
    relative = relative_path(mount["mountPath"], path) or ""
    relative = posixpath.normpath(posixpath.join(mount.get("subPath", ""), relative))
    volume: Manifest = next((each for each in pod.get("volumes", ()) if each["name"] == mount["name"]), {})
    for source in (volume, *volume.get("projected", {}).get("sources", ())):
        found = _in_source(source, relative)
        if found:
            return found
    return None


def relative_path(folder: str, path: str) -> str | None:
    """The path below the folder, empty for the folder itself; `None` outside of it."""
    relative = posixpath.relpath(posixpath.normpath(path), posixpath.normpath(folder))
    if relative == ".." or relative.startswith("../"):
        return None
    return "" if relative == "." else relative


def _in_source(source: Manifest, path: str) -> FileSource | None:
    secret, config_map = source.get("secret"), source.get("configMap")
    held = secret or config_map
    if held is None:
        return None
    items = {item["path"]: item["key"] for item in held.get("items", ())}
    key = items.get(path) if items else path
    name = held.get("secretName") or held.get("name")
    if not key or not name:
        return None
    return FileSource(kind="Secret" if secret else "ConfigMap", name=name, key=key)
