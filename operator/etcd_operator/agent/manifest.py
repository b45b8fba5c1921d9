"""The manifest of a node's static kube-apiserver pod: read, changed and written, and what else it tells.

Pure: text in, text out.
"""

import posixpath
import re
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import yaml

from etcd_operator.agent.plan import Plan
from etcd_operator.binding import arguments
from etcd_operator.binding.files import relative_path
from etcd_operator.resources.names import Manifest

#: Strings that need no quotes for any reader of YAML, 1.1 or 1.2: for kubelets a plain `1e3` or `y`, which PyYAML would
#: write so, is no string.
_PLAIN = re.compile(r"(?:--)?[/A-Za-z][-\w./:=,]*", re.ASCII)
_WORDS = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan", "inf"})

#: Where kube-apiserver listens, if nothing says otherwise (--secure-port), and where it tells whether it is ready.
DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 6443
DEFAULT_PATH = "/readyz"


class ManifestError(Exception):
    """A manifest that is none of an API server; the text says what is wrong with it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Probe:
    """Where to ask whether the API server is ready."""

    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    scheme: str = "HTTPS"
    path: str = DEFAULT_PATH


class _Loader(yaml.SafeLoader):
    """Reads dates as the strings that Kubernetes takes them for."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


class _Dumper(yaml.SafeDumper):
    """Writes each string so that nobody takes it for anything else, and nothing by reference."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _string(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    plain = _PLAIN.fullmatch(text) and text.lower() not in _WORDS
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if plain else '"')


_Dumper.add_representer(str, _string)


def read(text: bytes) -> Manifest:
    """The pod in a manifest, YAML or JSON; raises `ManifestError`."""
    try:
        pod = yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, UnicodeDecodeError, ValueError) as error:
        raise ManifestError(f"the manifest cannot be read: {error}") from None
    if not isinstance(pod, dict) or not isinstance((pod.get("spec") or {}), dict):
        raise ManifestError("the manifest holds no pod")
    return pod


def write(pod: Manifest) -> bytes:
    """The manifest of that pod; raises `ManifestError` where it would be read as another one."""
    text = yaml.dump(pod, Dumper=_Dumper, sort_keys=False, default_flow_style=False, width=2**16, allow_unicode=True)
    if read(text.encode()) != pod:
        raise ManifestError("the manifest cannot be written as it was read")
    return text.encode()


def container(pod: Manifest, name: str) -> Manifest:
    """The API server's container; raises `ManifestError`."""
    listed = pod["spec"].get("containers") or [] if pod.get("spec") else []
    found: Manifest | None = next((each for each in listed if each.get("name") == name), None)
    if found is None:
        there = ", ".join(str(each.get("name")) for each in listed) or "none"
        raise ManifestError(f"the manifest has no container {name}, but {there}")
    return found


def changed(pod: Manifest, plan: Plan) -> Manifest:
    """The pod as the plan wants it, the very same where it is so.

    Raises `ManifestError` and `UnreadableArgumentsError`.
    """
    present = container(pod, plan.container)
    wanted = arguments.changed(present, plan.flags)
    metadata = dict(pod.get("metadata") or {})
    annotations = dict(metadata.get("annotations") or {})
    for name, value in plan.annotations.items():
        annotations.pop(name, None)
        if value is not None:
            annotations[name] = value
    if wanted == present and annotations == (metadata.get("annotations") or {}):
        return pod
    metadata.pop("annotations", None)
    containers = [wanted if each is present else each for each in pod["spec"]["containers"]]
    return {
        **pod,
        "metadata": {**metadata, **({"annotations": annotations} if annotations else {})},
        "spec": {**pod["spec"], "containers": containers},
    }


def host_path(pod: Manifest, name: str, path: str) -> str | None:
    """Where the node has the file that its container has at that path; `None` where it is on none of its folders."""
    mounts = [
        (each, relative)
        for each in container(pod, name).get("volumeMounts") or ()
        if (relative := relative_path(str(each["mountPath"]), path)) is not None
    ]
    if not mounts:
        return None
    mount, relative = max(mounts, key=lambda each: len(posixpath.normpath(each[0]["mountPath"])))
    for volume in pod["spec"].get("volumes") or ():
        if volume.get("name") == mount["name"] and volume.get("hostPath"):
            return posixpath.normpath(posixpath.join(volume["hostPath"]["path"], mount.get("subPath", ""), relative))
    return None


def probe(pod: Manifest, name: str) -> Probe:
    """Where the manifest's own readiness probe asks; kube-apiserver's defaults where it does not say."""
    present = container(pod, name)
    asked = (present.get("readinessProbe") or {}).get("httpGet") or {}
    ports = {str(each.get("name")): each["containerPort"] for each in present.get("ports") or ()}
    port = asked.get("port")
    port = ports.get(str(port), port)
    usable = port is not None and str(port).isdecimal()
    return Probe(
        host=str(asked.get("host") or DEFAULT_HOST),
        port=int(str(port)) if usable else _secure_port(present),
        scheme=str(asked.get("scheme") or ("HTTP" if asked else "HTTPS")).upper(),
        path=str(asked.get("path") or DEFAULT_PATH),
    )


def _secure_port(present: Manifest) -> int:
    port = DEFAULT_PORT
    for word, behind in pairwise([*(present.get("command") or ()), *(present.get("args") or ()), ""]):
        flag, equals, value = str(word).partition("=")
        value = value if equals else str(behind)
        if flag.replace("_", "-") == "--secure-port" and value.isdecimal():
            port = int(value)
    return port
