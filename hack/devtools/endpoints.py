"""Where an EtcdCluster with TLS answers clients, as its pods come and go. For tests and benches."""

import base64
import threading
from dataclasses import dataclass, field

from devtools import kube
from etcd_operator.etcd.model import Endpoint, TLSIdentity
from etcd_operator.resources.names import CLUSTER_LABEL


@dataclass(kw_only=True, slots=True)
class Endpoints:
    """The members of an EtcdCluster by name, from `follow` to `stop`; those known last after it.

    application: the pods' `app.kubernetes.io/name`: `etcd` for members, `etcd-proxy` for the proxies before them.
    """

    cluster: kube.Cluster
    namespace: str
    name: str
    application: str = "etcd"
    _addresses: dict[str, str] = field(default_factory=dict)
    _who: TLSIdentity | None = None
    _stop: threading.Event = field(default_factory=threading.Event)

    def follow(self) -> None:
        """Begin to follow the pods, and the Secret. Raises AssertionError while clients have none."""
        self._who = self._identity()
        threading.Thread(target=self._follow_pods, daemon=True, name="endpoints").start()
        threading.Thread(target=self._follow_secret, daemon=True, name="endpoints' Secret").start()

    def read(self) -> dict[str, Endpoint]:
        """Those of this moment, without following. Raises AssertionError while clients have no Secret."""
        self._who = self._identity()
        self._note(
            {pod["metadata"]["name"]: pod for pod in self.cluster.list("pods", self.namespace, labels=self._labels)}
        )
        return self.now

    def stop(self) -> None:
        """Follow no more."""
        self._stop.set()

    @property
    def now(self) -> dict[str, Endpoint]:
        """Each member's address, with who to be and whom to trust by the Secret as it is."""
        host, who = f"{self.name}.{self.namespace}.svc", self._who
        return {
            name: Endpoint(address=f"{address}:2379", server_name=host, tls=who)
            for name, address in self._addresses.items()
        }

    def _follow_pods(self) -> None:
        cluster = self.cluster.apart()
        while not self._stop.is_set():
            for pods in cluster.snapshots("pods", self.namespace, labels=self._labels, timeout=3600):
                self._note(pods)
                if self._stop.is_set():
                    return

    @property
    def _labels(self) -> str:
        return f"app.kubernetes.io/name={self.application},{CLUSTER_LABEL}={self.name}"

    def _note(self, pods: kube.Snapshot) -> None:
        addresses = {name: pod["status"].get("podIP") for name, pod in pods.items()}
        self._addresses = {name: address for name, address in addresses.items() if address}

    def _follow_secret(self) -> None:
        """As a client that reads its Secret again when it changes."""
        cluster = self.cluster.apart()
        fields = f"metadata.name={self.name}-client"
        while not self._stop.is_set():
            for secrets in cluster.snapshots("secrets", self.namespace, fields=fields, timeout=3600):
                if secrets:
                    self._who = self._identity()
                if self._stop.is_set():
                    return

    def _identity(self) -> TLSIdentity:
        secret = self.cluster.get("secrets", self.namespace, f"{self.name}-client")
        assert secret is not None, "clients have no Secret yet"
        data = {key: base64.b64decode(value) for key, value in secret["data"].items()}
        return TLSIdentity(ca=data["ca.crt"], cert=data["tls.crt"], key=data["tls.key"])
