"""A short synchronous client of Kubernetes for tests, the demo and the bench.

Reads, watches and waits go over HTTP through pykube, as their times are measured; what a user would type
goes through `kubectl`, so that it is proved to work. The operator itself uses neither.
"""

import json
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pykube
import requests
import yaml

from devtools.project import ROOT

Manifest = dict[str, Any]
#: The objects of one collection as last seen, by name; by namespace/name where it spans namespaces.
Snapshot = dict[str, Manifest]

#: Seconds for one ordinary request.
REQUEST_TIMEOUT = 10.0
#: Seconds without a byte after which a watch is begun anew.
WATCH_SILENCE = 30.0

#: Plural to API prefix, for the kinds that are needed here.
PREFIXES = {
    "etcdclusters": "/apis/externaletcd.io/v1alpha1",
    "apiserverbindings": "/apis/externaletcd.io/v1alpha1",
    "statefulsets": "/apis/apps/v1",
    "deployments": "/apis/apps/v1",
    "poddisruptionbudgets": "/apis/policy/v1",
    "networkpolicies": "/apis/networking.k8s.io/v1",
    "leases": "/apis/coordination.k8s.io/v1",
    "storageclasses": "/apis/storage.k8s.io/v1",
    "endpointslices": "/apis/discovery.k8s.io/v1",
}


class Timeout(AssertionError):  # noqa: N818 - an assertion, so that pytest reports it as a failure and not an error
    """What was waited for did not happen in time."""


class KubectlError(Exception):
    """kubectl ended with a failure; the text is what it said."""


def path_of(plural: str, namespace: str | None, name: str | None = None) -> str:
    """The API path of a collection, or of one object in it."""
    parts = [PREFIXES.get(plural, "/api/v1")]
    if namespace is not None:
        parts.append(f"namespaces/{quote(namespace)}")
    parts.append(plural)
    if name is not None:
        parts.append(quote(name))
    return "/".join(parts)


class Cluster:
    """One Kubernetes cluster, through its kubeconfig.

    patience: by how much every time limit is stretched now (`devtools.patience`).
    """

    def __init__(self, kubeconfig: Path, *, patience: Callable[[], float] = lambda: 1.0) -> None:
        self.kubeconfig = kubeconfig.resolve()
        self.patience = patience
        self.http = pykube.HTTPClient(pykube.KubeConfig.from_file(str(kubeconfig)), timeout=REQUEST_TIMEOUT)

    def apart(self) -> "Cluster":
        """The same cluster over connections of its own, for another thread."""
        return Cluster(self.kubeconfig, patience=self.patience)

    # --- kubectl

    def kubectl(self, *arguments: str, stdin: str | None = None, timeout: float = 120.0) -> str:
        """Run kubectl; returns its output, raises KubectlError with its words when it fails."""
        done = self.try_kubectl(*arguments, stdin=stdin, timeout=timeout)
        if done.returncode:
            raise KubectlError(f"kubectl {' '.join(arguments)}: {(done.stderr or done.stdout).strip()}")
        return done.stdout

    def try_kubectl(
        self, *arguments: str, stdin: str | None = None, timeout: float = 120.0
    ) -> subprocess.CompletedProcess[str]:
        """Run kubectl in the checkout's root and say how it ended, for what is expected to be refused."""
        return subprocess.run(
            ["kubectl", "--kubeconfig", str(self.kubeconfig), *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout * self.patience(),
            check=False,
            cwd=ROOT,
        )

    def apply(self, *manifests: Mapping[str, Any] | str, namespace: str | None = None) -> str:
        """`kubectl apply` of objects or of manifest text."""
        # As YAML throughout: kubectl reads a first document in JSON as a stream of JSON, which knows no separators.
        text = "\n---\n".join(part if isinstance(part, str) else yaml.safe_dump(dict(part)) for part in manifests)
        scope = ["-n", namespace] if namespace else []
        return self.kubectl("apply", *scope, "-f", "-", stdin=text)

    # --- requests

    def request(self, method: str, path: str, **options: Any) -> requests.Response:
        """One request to the API server; the caller judges the answer."""
        options.setdefault("timeout", REQUEST_TIMEOUT * self.patience())
        response: requests.Response = self.http.session.request(method, self.http.url + path, **options)
        return response

    def get(self, plural: str, namespace: str | None, name: str) -> Manifest | None:
        """An object, or None where there is none of that name."""
        response = self.request("GET", path_of(plural, namespace, name))
        if response.status_code == requests.codes.not_found:
            return None
        response.raise_for_status()
        found: Manifest = response.json()
        return found

    def list(self, plural: str, namespace: str | None = None, *, labels: str = "") -> list[Manifest]:
        """All objects of a collection that carry the labels."""
        response = self.request("GET", path_of(plural, namespace), params={"labelSelector": labels})
        response.raise_for_status()
        items: list[Manifest] = response.json()["items"]
        return items

    def delete(self, plural: str, namespace: str | None, name: str, **options: Any) -> None:
        """Ask for an object's deletion; one that is gone already is fine. `options` are DeleteOptions."""
        response = self.request("DELETE", path_of(plural, namespace, name), json=options or None)
        if response.status_code != requests.codes.not_found:
            response.raise_for_status()

    # --- watches

    def snapshots(
        self, plural: str, namespace: str | None = None, *, labels: str = "", fields: str = "", timeout: float
    ) -> Iterator[Snapshot]:
        """The collection now, then again after each change, until `timeout` stretched seconds have passed.

        How far they are stretched is looked at when they are over. Lists anew where the watch ends, breaks or is too
        old, so nothing is missed while an API server restarts.
        """
        began = time.monotonic()
        path = path_of(plural, namespace)
        query = {key: value for key, value in (("labelSelector", labels), ("fieldSelector", fields)) if value}
        while (left := began + timeout * self.patience() - time.monotonic()) > 0:
            deadline = time.monotonic() + left
            try:
                response = self.request("GET", f"{path}?{urlencode(query)}")
                response.raise_for_status()
                listing = response.json()
                seen = {_key(item, namespace): item for item in listing["items"]}
                yield dict(seen)
                follow = query | {
                    "watch": "true",
                    "resourceVersion": listing["metadata"]["resourceVersion"],
                    "timeoutSeconds": str(max(1, int(left) + 1)),
                }
                yield from self._follow(f"{path}?{urlencode(follow)}", namespace, seen, deadline)
            except requests.RequestException:
                # Refused or reset while the API server restarts: nothing to await but its return.
                time.sleep(min(0.2, max(0.0, deadline - time.monotonic())))

    def _follow(self, url: str, namespace: str | None, seen: Snapshot, deadline: float) -> Iterator[Snapshot]:
        """One watch, applied to `seen`; returns when it ends, the deadline passed, or a relist is due."""
        silence = max(0.1, min(WATCH_SILENCE, deadline - time.monotonic()))
        with self.request("GET", url, stream=True, timeout=(REQUEST_TIMEOUT, silence)) as response:
            for line in response.iter_lines():
                event = json.loads(line)
                if event["type"] == "ERROR":
                    return
                name = _key(event["object"], namespace)
                if event["type"] == "DELETED":
                    seen.pop(name, None)
                else:
                    seen[name] = event["object"]
                yield dict(seen)
                if time.monotonic() > deadline:
                    return

    def wait_for(
        self,
        condition: Callable[[Snapshot], bool],
        plural: str,
        namespace: str | None = None,
        *,
        labels: str = "",
        fields: str = "",
        timeout: float = 60.0,
        what: str = "",
    ) -> Snapshot:
        """The first snapshot of a collection for which the condition holds. Raises Timeout after `timeout` seconds,
        stretched by the cluster's patience."""
        last: Snapshot = {}
        for last in self.snapshots(plural, namespace, labels=labels, fields=fields, timeout=timeout):
            if condition(last):
                return last
        limit = f"{timeout:g} s, stretched {self.patience():.1f} times"
        raise Timeout(f"after {limit}: not {what or condition.__name__}; last seen: {describe(last)}")

    def wait_for_one(
        self,
        condition: Callable[[Manifest], bool],
        plural: str,
        namespace: str | None,
        name: str,
        *,
        timeout: float = 60.0,
        what: str = "",
    ) -> Manifest:
        """One object once it exists and the condition holds. Raises Timeout after `timeout` seconds."""

        def holds(seen: Snapshot) -> bool:
            return name in seen and condition(seen[name])

        found = self.wait_for(
            holds, plural, namespace, fields=f"metadata.name={name}", timeout=timeout, what=what or f"{plural}/{name}"
        )
        return found[name]

    def wait_until_gone(
        self, plural: str, namespace: str | None, *, name: str = "", labels: str = "", timeout: float = 60.0
    ) -> None:
        """Wait until a collection, or the one object of it that is named, is empty."""
        fields = f"metadata.name={name}" if name else ""
        self.wait_for(
            lambda seen: not seen,
            plural,
            namespace,
            labels=labels,
            fields=fields,
            timeout=timeout,
            what=f"{plural} {name or labels} gone",
        )


def _key(item: Manifest, namespace: str | None) -> str:
    """What an object is known by in a snapshot of a namespace, or (None) of the whole cluster."""
    metadata = item["metadata"]
    return (
        metadata["name"] if namespace or "namespace" not in metadata else f"{metadata['namespace']}/{metadata['name']}"
    )


def condition_of(manifest: Mapping[str, Any], type_: str) -> Manifest:
    """A status condition by its type; {} where it is not told."""
    conditions: Sequence[Manifest] = manifest.get("status", {}).get("conditions", [])
    return next((condition for condition in conditions if condition["type"] == type_), {})


def is_true(manifest: Mapping[str, Any], type_: str) -> bool:
    """Whether a condition is told as True about the newest spec."""
    condition = condition_of(manifest, type_)
    newest = manifest["metadata"].get("generation")
    return condition.get("status") == "True" and condition.get("observedGeneration", newest) == newest


def is_ready_pod(pod: Mapping[str, Any]) -> bool:
    """Whether a pod is ready and not on its way out."""
    return "deletionTimestamp" not in pod["metadata"] and condition_of(pod, "Ready").get("status") == "True"


def describe(seen: Snapshot) -> str:
    """The statuses of a snapshot, short enough for an error message."""
    statuses = {name: item.get("status", {}) for name, item in seen.items()}
    return json.dumps(statuses, default=str)[:2000]
