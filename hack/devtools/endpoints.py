"""Where the members of an EtcdCluster with TLS answer clients, as their pods come and go. For tests and benches."""

import base64
import threading
from dataclasses import dataclass, field

from devtools import kube
from etcd_operator.etcd.model import Endpoint, TLSIdentity
from etcd_operator.resources.names import CLUSTER_LABEL


@dataclass(kw_only=True, slots=True)
class Endpoints:
    """The members of an EtcdCluster by name, from `follow` to `stop`; those known last after it."""

    cluster: kube.Cluster
    namespace: str
    name: str
    now: dict[str, Endpoint] = field(default_factory=dict)
    _stop: threading.Event = field(default_factory=threading.Event)

    def follow(self) -> None:
        """Begin to follow the pods. Raises AssertionError while clients have no Secret."""
        who = self._identity()
        threading.Thread(target=self._follow, args=(who,), daemon=True, name="endpoints").start()

    def stop(self) -> None:
        """Follow no more."""
        self._stop.set()

    def _follow(self, who: TLSIdentity) -> None:
        host = f"{self.name}.{self.namespace}.svc"
        cluster = kube.Cluster(self.cluster.kubeconfig)
        labels = f"{CLUSTER_LABEL}={self.name}"
        while not self._stop.is_set():
            for pods in cluster.snapshots("pods", self.namespace, labels=labels, timeout=3600):
                addresses = {name: pod["status"].get("podIP") for name, pod in pods.items()}
                self.now = {
                    name: Endpoint(address=f"{address}:2379", server_name=host, tls=who)
                    for name, address in addresses.items()
                    if address
                }
                if self._stop.is_set():
                    return

    def _identity(self) -> TLSIdentity:
        secret = self.cluster.get("secrets", self.namespace, f"{self.name}-client")
        assert secret is not None, "clients have no Secret yet"
        data = {key: base64.b64decode(value) for key, value in secret["data"].items()}
        return TLSIdentity(ca=data["ca.crt"], cert=data["tls.crt"], key=data["tls.key"])
