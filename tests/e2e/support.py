"""What e2e tests share: an EtcdCluster as a user handles it, and keys written and read the way clients do.

Waiting goes through watches (`devtools.kube.Cluster`); nothing here sleeps or polls. Data goes through a pod that
mounts the client Secret (docs/etcdctl.yaml), so every read also proves the Secret and the Service.
"""

import base64
import json
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from devtools import environment, kube
from devtools.kube import Cluster, KubectlError, Manifest, Snapshot, Timeout, condition_of, is_ready_pod, is_true

__all__ = [
    "Cluster",
    "Etcd",
    "KubectlError",
    "Manifest",
    "Snapshot",
    "Timeout",
    "condition_of",
    "fresh_namespace",
    "is_ready_pod",
    "is_true",
]

#: Seconds for a three-member cluster to stand on a slow machine with everything else going on.
AVAILABLE_TIMEOUT = 120.0
#: Small enough for many clusters on one machine.
SMALL = {"requests": {"cpu": "20m", "memory": "48Mi"}}


@contextmanager
def fresh_namespace(cluster: Cluster) -> Iterator[str]:
    """A namespace that enforces restricted Pod Security; afterwards its deletion is asked for, not waited for."""
    name = f"e2e-{uuid.uuid4().hex[:8]}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
    yield name
    if not os.environ.get("E2E_KEEP"):
        cluster.kubectl("delete", "namespace", name, "--wait=false")


@dataclass(frozen=True, kw_only=True, slots=True)
class Etcd:
    """One EtcdCluster in one namespace."""

    cluster: Cluster
    namespace: str
    name: str

    @property
    def labels(self) -> str:
        """What selects everything that belongs to it."""
        return f"externaletcd.io/cluster={self.name}"

    # --- what the user says

    def apply(self, **spec: Any) -> None:
        """`kubectl apply` the EtcdCluster with small requests and 1Gi volumes unless told otherwise."""
        whole = {"members": 3, "storage": {"size": "1Gi"}, "resources": SMALL, **spec}
        manifest = {
            "apiVersion": "externaletcd.io/v1alpha1",
            "kind": "EtcdCluster",
            "metadata": {"name": self.name},
            "spec": whole,
        }
        self.cluster.apply(manifest, namespace=self.namespace)

    def create(self, **spec: Any) -> Manifest:
        """Apply, and wait until all members are healthy; returns the EtcdCluster."""
        self.apply(**spec)
        return self.wait_available()

    def patch(self, patch: Manifest, *, subresource: str | None = None) -> Manifest:
        """A JSON merge patch of the EtcdCluster, or of its status. Raises requests.HTTPError when refused."""
        path = kube.path_of("etcdclusters", self.namespace, self.name) + (f"/{subresource}" if subresource else "")
        response = self.cluster.request(
            "PATCH", path, data=json.dumps(patch), headers={"Content-Type": "application/merge-patch+json"}
        )
        response.raise_for_status()
        patched: Manifest = response.json()
        return patched

    def delete(self, *, wait: bool = True) -> None:
        """Delete the EtcdCluster; with `wait`, until its pods are gone too."""
        self.cluster.delete("etcdclusters", self.namespace, self.name)
        if wait:
            self.cluster.wait_until_gone("etcdclusters", self.namespace, name=self.name)
            self.cluster.wait_until_gone("pods", self.namespace, labels=self.labels)

    # --- what the user sees

    def get(self) -> Manifest:
        """The EtcdCluster now. Raises AssertionError where there is none."""
        found = self.cluster.get("etcdclusters", self.namespace, self.name)
        assert found is not None, f"no EtcdCluster {self.name}"
        return found

    def status(self) -> Manifest:
        """Its status now; {} where there is none yet."""
        status: Manifest = self.get().get("status", {})
        return status

    def wait(self, condition: Callable[[Manifest], bool], *, what: str = "", timeout: float = 60.0) -> Manifest:
        """The EtcdCluster as soon as the condition holds for it. Raises Timeout."""
        return self.cluster.wait_for_one(
            condition, "etcdclusters", self.namespace, self.name, what=what, timeout=timeout
        )

    def wait_status(self, condition: Callable[[Manifest], bool], *, what: str = "", timeout: float = 60.0) -> Manifest:
        """The status as soon as the condition holds for it. Raises Timeout."""
        found = self.wait(lambda etcd: condition(etcd.get("status", {})), what=what, timeout=timeout)
        status: Manifest = found["status"]
        return status

    def wait_available(self, *, timeout: float = AVAILABLE_TIMEOUT) -> Manifest:
        """The EtcdCluster as soon as all members are healthy and the client Secret is published."""
        found = self.wait(environment.is_available, what=f"{self.name} available", timeout=timeout)
        self.cluster.wait_for_one(bool, "secrets", self.namespace, f"{self.name}-client", timeout=30)
        return found

    def condition(self, type_: str) -> Manifest:
        """One of its conditions now; {} where it is not told."""
        return condition_of(self.get(), type_)

    def event_reasons(self) -> set[str]:
        """The reasons of the events told about it so far."""
        return {
            event["reason"]
            for event in self.cluster.list("events", self.namespace)
            if event["involvedObject"].get("name") == self.name and event["involvedObject"]["kind"] == "EtcdCluster"
        }

    # --- its parts

    def pods(self) -> dict[str, Manifest]:
        """Its members' pods now, by name."""
        return {pod["metadata"]["name"]: pod for pod in self.cluster.list("pods", self.namespace, labels=self.labels)}

    def claims(self) -> dict[str, Manifest]:
        """Its volume claims now, by name."""
        found = self.cluster.list("persistentvolumeclaims", self.namespace, labels=self.labels)
        return {claim["metadata"]["name"]: claim for claim in found}

    def kill(self, pod: str, *, grace: int | None = None) -> str:
        """Delete a pod (`grace` seconds, 0: at once) without waiting; returns its uid."""
        uid: str = self.pods()[pod]["metadata"]["uid"]
        options = {} if grace is None else {"gracePeriodSeconds": grace}
        self.cluster.delete("pods", self.namespace, pod, **options)
        return uid

    def wait_replaced(self, pod: str, uid: str, *, timeout: float = 90.0) -> Manifest:
        """The pod of that name once it is another one than `uid` and ready. Raises Timeout."""
        return self.cluster.wait_for_one(
            lambda seen: seen["metadata"]["uid"] != uid and is_ready_pod(seen),
            "pods",
            self.namespace,
            pod,
            what=f"{pod} replaced and ready",
            timeout=timeout,
        )

    def secret(self, suffix: str) -> dict[str, bytes]:
        """The content of the Secret NAME-SUFFIX. Raises AssertionError where there is none."""
        found = self.cluster.get("secrets", self.namespace, f"{self.name}-{suffix}")
        assert found is not None, f"no Secret {self.name}-{suffix}"
        return {key: base64.b64decode(value) for key, value in found["data"].items()}

    # --- its data

    def etcdctl(self, *arguments: str, timeout: float = 30.0) -> str:
        """Run etcdctl in a pod that mounts the client Secret; made at the first call, kept for later ones."""
        pod = f"{self.name}-etcdctl"
        if self.cluster.get("pods", self.namespace, pod) is None:
            self.cluster.apply(environment.etcdctl_pod(self.name), namespace=self.namespace)
        self.cluster.wait_for_one(is_ready_pod, "pods", self.namespace, pod, timeout=60, what=f"{pod} ready")
        return self.cluster.kubectl(
            "-n", self.namespace, "exec", pod, "--", "etcdctl", *arguments, timeout=timeout
        ).strip()

    def put(self, key: str, value: str) -> None:
        """Write a key. Raises KubectlError when etcd did not acknowledge it."""
        assert self.etcdctl("put", key, value) == "OK"

    def read(self, key: str) -> str:
        """The value of a key, linearizably; empty where there is none."""
        return self.etcdctl("get", key, "--print-value-only")
