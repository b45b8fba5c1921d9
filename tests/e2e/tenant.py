"""Another cluster of this machine, whose API servers use an EtcdCluster of the first one; and who writes there."""

import base64
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests
import yaml

from devtools.patience import Patience
from e2e.support import Cluster, Etcd
from localcluster import artifacts, external_etcd
from localcluster.cluster import Cluster as LocalCluster
from localcluster.progress import Progress

CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"
#: Seconds for twenty writes on a busy machine, after whatever happened to the etcd.
WRITES_AGAIN = 120.0
FLAGS = ("--etcd-servers", "--etcd-cafile", "--etcd-certfile", "--etcd-keyfile", "--etcd-prefix")


@dataclass(kw_only=True, slots=True)
class Tenant:
    """A cluster that kubeadm made, with three control planes and a worker."""

    local: LocalCluster
    folder: Path
    created: set[str] = field(default_factory=set)
    refused: int = 0
    longest_gap: float = 0.0
    last_error: str = ""
    _session: requests.Session = field(default_factory=requests.Session)
    _server: str = ""
    _stop: threading.Event = field(default_factory=threading.Event)

    @classmethod
    def up(cls, name: str, etcd: Etcd, folder: Path) -> "Tenant":
        """Set up as docs/kube-apiserver.md has it: the addresses from the status, the files from the client Secret."""
        certificates = folder / "etcd-client"
        certificates.mkdir()
        for file, content in etcd.secret("client").items():
            (certificates / file).write_bytes(content)
        servers = ",".join(etcd.get()["status"]["endpoints"]["external"])
        outside = external_etcd.read(servers, certificates)
        made = cls(local=LocalCluster.up(name, 4, Progress(), control_planes=3, etcd=outside), folder=folder)
        made.local.load(artifacts.ensure_operator_image(Progress())[1])
        made.sign_in()
        return made

    def sign_in(self) -> None:
        """As the administrator of its kubeconfig."""
        config = yaml.safe_load(self.local.kubeconfig.read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        paths = {}
        for name, holder, key in (
            ("ca", cluster, "certificate-authority-data"),
            ("cert", user, "client-certificate-data"),
            ("key", user, "client-key-data"),
        ):
            paths[name] = self.folder / name
            paths[name].write_bytes(base64.b64decode(holder[key]))
        self._session.trust_env = False
        self._session.verify, self._session.cert = str(paths["ca"]), (str(paths["cert"]), str(paths["key"]))
        self._server = cluster["server"]

    def cluster(self) -> Cluster:
        """As Kubernetes."""
        return Cluster(self.local.kubeconfig, patience=Patience())

    def put(self, name: str) -> None:
        """Create a ConfigMap; raises `requests.RequestException` unless it was acknowledged."""
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}}
        self._session.post(f"{self._server}{CONFIG_MAPS}", json=body, timeout=10).raise_for_status()

    def names(self) -> set[str]:
        """All ConfigMaps that there are."""
        told = self._session.get(f"{self._server}{CONFIG_MAPS}", timeout=60)
        told.raise_for_status()
        return {each["metadata"]["name"] for each in told.json()["items"]}

    def arguments(self) -> dict[str, list[str]]:
        """The etcd arguments of each node's API server, by what its pod says."""
        found: dict[str, list[str]] = {}
        for pod in self.cluster().list("pods", "kube-system", labels="component=kube-apiserver"):
            command = pod["spec"]["containers"][0]["command"]
            found[pod["spec"]["nodeName"]] = [word for word in command if word.startswith(FLAGS)]
        return found

    def configuration(self) -> dict[str, Any]:
        """What kubeadm knows."""
        found = self.cluster().get("configmaps", "kube-system", "kubeadm-config")
        assert found is not None
        told: dict[str, Any] = yaml.safe_load(found["data"]["ClusterConfiguration"])
        return told

    def _write(self) -> None:
        last = time.monotonic()
        while not self._stop.wait(0.05):
            name = f"use-{secrets.token_hex(6)}"
            try:
                self.put(name)
            except requests.RequestException as error:
                self.refused, self.last_error = self.refused + 1, str(error)
                continue
            self.created.add(name)
            now = time.monotonic()
            self.longest_gap, last = max(self.longest_gap, now - last), now

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Somebody writes all the while, before and after it too; at the end all that was acknowledged is there."""
        self._stop.clear()
        writer = threading.Thread(target=self._write)
        writer.start()
        try:
            self._await_writes()
            yield
            self._await_writes()
        finally:
            self._stop.set()
            writer.join()
        print(f"{len(self.created)} objects, {self.refused} refused, longest gap {self.longest_gap:.1f} s")
        assert self.created - self.names() == set()

    def _await_writes(self) -> None:
        """Until some more are acknowledged."""
        before, until = len(self.created), time.monotonic() + WRITES_AGAIN
        while len(self.created) < before + 20:
            assert time.monotonic() < until, f"nobody can write: {self.last_error}"
            time.sleep(0.1)
