"""A hosted control plane's kube-apiserver: a Deployment that knows of no etcd until it is bound to one.

Real kube-apiservers of the local cluster's own image. Requests go to the pods themselves, with a bearer token.
"""

import base64
import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import requests
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from e2e.support import Cluster, Manifest, Snapshot, is_ready_pod
from localcluster.versions import kubernetes_image

#: Its name, and what selects its pods.
NAME = "kube-apiserver"
LABELS = f"app={NAME}"
#: What runs beside it, and elects leaders by Leases of the same names.
CONTROLLERS = ("kube-controller-manager", "kube-scheduler")
_OWN = {
    "service-account-issuer": "https://hosted.test",
    "service-account-key-file": "/keys/sa.pub",
    "service-account-signing-key-file": "/keys/sa.key",
    "token-auth-file": "/keys/tokens.csv",
    "service-cluster-ip-range": "10.111.0.0/24",
    "authorization-mode": "RBAC",
    "cert-dir": "/certificates",
    "secure-port": "6443",
    "endpoint-reconciler-type": "lease",
}


@dataclass(kw_only=True, slots=True)
class Hosted:
    """The kube-apiserver in one namespace."""

    cluster: Cluster
    namespace: str
    token: str = field(default_factory=lambda: secrets.token_hex(16))

    def manifests(self, *, replicas: int = 2, arguments: tuple[str, ...] = ()) -> list[Manifest]:
        """Its Secret and its Deployment; `arguments` beside those that every API server needs."""
        head = {"namespace": self.namespace}
        keys = {name: base64.b64encode(data).decode() for name, data in self._keys().items()}
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": f"{NAME}-keys", **head}, "data": keys}
        deployment = {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": NAME, **head},
            "spec": {
                "replicas": replicas,
                "selector": {"matchLabels": {"app": NAME}},
                "strategy": {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
                "template": {"metadata": {"labels": {"app": NAME}}, "spec": _pod(arguments)},
            },
        }
        return [secret, deployment]

    def controllers(self) -> list[Manifest]:
        """A Service before it, and the controller manager and the scheduler that use it."""
        head = {"namespace": self.namespace}
        port = {"port": 443, "targetPort": 6443}
        service = {"metadata": {"name": NAME, **head}, "spec": {"selector": {"app": NAME}, "ports": [port]}}
        access = {"kubeconfig": base64.b64encode(self._kubeconfig().encode()).decode()}
        return [
            {"apiVersion": "v1", "kind": "Service", **service},
            {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": f"{NAME}-access", **head}, "data": access},
            *(_controller(name, self.namespace) for name in CONTROLLERS),
        ]

    def _kubeconfig(self) -> str:
        server = {"server": f"https://{NAME}.{self.namespace}.svc", "insecure-skip-tls-verify": True}
        told = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "hosted", "cluster": server}],
            "users": [{"name": "tester", "user": {"token": self.token}}],
            "contexts": [{"name": "hosted", "context": {"cluster": "hosted", "user": "tester"}}],
            "current-context": "hosted",
        }
        return json.dumps(told)

    def deployment(self) -> Manifest:
        """The Deployment now."""
        found = self.cluster.get("deployments", self.namespace, NAME)
        assert found is not None
        return found

    def arguments(self) -> list[str]:
        """The container's arguments in the Deployment now."""
        told: list[str] = self.deployment()["spec"]["template"]["spec"]["containers"][0]["args"]
        return told

    def pods(self) -> dict[str, str]:
        """The addresses of the pods that are ready, by name."""
        return {
            pod["metadata"]["name"]: pod["status"]["podIP"]
            for pod in self.cluster.list("pods", self.namespace, labels=LABELS)
            if is_ready_pod(pod) and not pod["metadata"].get("deletionTimestamp")
        }

    def request(self, address: str, method: str, path: str, **options: Any) -> requests.Response:
        """One request to the API server in the pod of that address."""
        headers = {"Authorization": f"Bearer {self.token}", "Connection": "close"}
        with requests.Session() as session:
            session.trust_env = False
            return session.request(
                method, f"https://{address}:6443{path}", headers=headers, verify=False, timeout=5, **options
            )

    @contextmanager
    def stream(self, address: str, path: str, query: dict[str, str]) -> Iterator[Iterator[bytes]]:
        """The lines of a watch, as they come; silence of 10 s ends it."""
        with requests.Session() as session:
            session.trust_env = False
            headers = {"Authorization": f"Bearer {self.token}"}
            url = f"https://{address}:6443{path}"
            with session.get(url, params=query, headers=headers, verify=False, timeout=10, stream=True) as answer:
                answer.raise_for_status()
                yield answer.iter_lines()

    def put(self, name: str) -> None:
        """Create a ConfigMap through whichever pod is there. Raises requests' errors."""
        address = secrets.choice(sorted(self.pods().values()))
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}}
        self.request(address, "POST", "/api/v1/namespaces/default/configmaps", json=body).raise_for_status()

    def names(self) -> set[str]:
        """The names of all ConfigMaps there."""
        address = next(iter(self.pods().values()))
        told = self.request(address, "GET", "/api/v1/namespaces/default/configmaps").json()
        return {item["metadata"]["name"] for item in told["items"]}

    def _keys(self) -> dict[str, bytes]:
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        encoding, private = serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL
        public = serialization.PublicFormat.SubjectPublicKeyInfo
        return {
            "sa.key": key.private_bytes(encoding, private, serialization.NoEncryption()),
            "sa.pub": key.public_key().public_bytes(encoding, public),
            "tokens.csv": f"{self.token},tester,tester,system:masters\n".encode(),
        }


def _pod(arguments: tuple[str, ...]) -> Manifest:
    own = tuple(f"--{name}={value}" for name, value in _OWN.items())
    probe = {"path": "/readyz", "port": 6443, "scheme": "HTTPS"}
    return {
        "securityContext": {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
        "terminationGracePeriodSeconds": 10,
        "automountServiceAccountToken": False,
        "containers": [
            {
                "name": NAME,
                "image": kubernetes_image("kube-apiserver"),
                "command": ["kube-apiserver"],
                "args": [*own, *arguments],
                "resources": {"requests": {"cpu": "50m", "memory": "256Mi"}},
                "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                "readinessProbe": {"httpGet": probe, "periodSeconds": 1, "failureThreshold": 3, "timeoutSeconds": 5},
                "volumeMounts": [
                    {"name": "keys", "mountPath": "/keys", "readOnly": True},
                    {"name": "certificates", "mountPath": "/certificates"},
                ],
            }
        ],
        "volumes": [
            {"name": "keys", "secret": {"secretName": f"{NAME}-keys"}},
            {"name": "certificates", "emptyDir": {}},
        ],
    }


def _controller(name: str, namespace: str) -> Manifest:
    """A Deployment of one controller of the hosted control plane."""
    arguments = ["--kubeconfig=/access/kubeconfig", "--leader-elect=true", "--cert-dir=/certificates"]
    container = {
        "name": name,
        "image": kubernetes_image(name),
        "command": [name],
        "args": arguments,
        "resources": {"requests": {"cpu": "20m", "memory": "64Mi"}},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [
            {"name": "access", "mountPath": "/access", "readOnly": True},
            {"name": "certificates", "mountPath": "/certificates"},
        ],
    }
    pod = {
        "securityContext": {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
        "terminationGracePeriodSeconds": 5,
        "automountServiceAccountToken": False,
        "containers": [container],
        "volumes": [
            {"name": "access", "secret": {"secretName": f"{NAME}-access"}},
            {"name": "certificates", "emptyDir": {}},
        ],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": pod},
        },
    }


@dataclass(frozen=True, kw_only=True, slots=True)
class Binding:
    """An ApiServerBinding of a test."""

    cluster: Cluster
    namespace: str
    name: str = "hosted"

    def manifest(self, **spec: Any) -> Manifest:
        """It, of EtcdCluster `a` and the Deployment unless told otherwise."""
        wanted = {"clusterRef": {"name": "a"}, "target": {"deployment": {"name": NAME}}, **spec}
        head = {"apiVersion": "externaletcd.io/v1alpha1", "kind": "ApiServerBinding"}
        return {**head, "metadata": {"name": self.name, "namespace": self.namespace}, "spec": wanted}

    def apply(self, **spec: Any) -> None:
        self.cluster.apply(self.manifest(**spec))

    def wait_reason(self, reason: str, *words: str, timeout: float = 60.0) -> Manifest:
        """It, as soon as its condition Bound has that reason for the newest spec, and its message those words."""

        def told(seen: Manifest) -> bool:
            conditions = seen.get("status", {}).get("conditions", ())
            bound: Manifest = next((each for each in conditions if each["type"] == "Bound"), {})
            newest = bound.get("observedGeneration") == seen["metadata"]["generation"]
            return newest and bound["reason"] == reason and all(word in bound["message"] for word in words)

        return self.cluster.wait_for_one(
            told,
            "apiserverbindings",
            self.namespace,
            self.name,
            what=f"binding {self.name}: {reason} {words}",
            timeout=timeout,
        )


def running(seen: Snapshot, servers: str) -> bool:
    """Whether all pods are ready and run with that --etcd-servers."""
    return bool(seen) and all(
        is_ready_pod(pod) and f"--etcd-servers={servers}" in pod["spec"]["containers"][0]["args"]
        for pod in seen.values()
    )
