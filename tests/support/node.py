"""A control-plane node without a kubelet: /etc/kubernetes, /proc and a clock, in which time passes while one waits."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from etcd_operator.agent import manifest
from etcd_operator.agent.manifest import Probe
from etcd_operator.agent.node_files import Disk, NodeFiles
from etcd_operator.agent.plan import MANIFEST, PKI_FOLDER, SAVED_FOLDER, Plan
from etcd_operator.agent.readiness import Watch
from etcd_operator.binding import arguments

OLD_SERVERS, NEW_SERVERS = "https://127.0.0.1:2379", "https://new:2379"
OLD_FLAGS = {
    "etcd-cafile": "/etc/kubernetes/pki/etcd/ca.crt",
    "etcd-certfile": "/etc/kubernetes/pki/apiserver-etcd-client.crt",
    "etcd-keyfile": "/etc/kubernetes/pki/apiserver-etcd-client.key",
    "etcd-servers": OLD_SERVERS,
}
NEW_FLAGS: dict[str, str | None] = {
    "etcd-servers": NEW_SERVERS,
    "etcd-cafile": f"{PKI_FOLDER}/ca.crt",
    "etcd-certfile": f"{PKI_FOLDER}/tls.crt",
    "etcd-keyfile": f"{PKI_FOLDER}/tls.key",
    "etcd-prefix": "/registry",
}
CERTIFICATE = {"ca.crt": b"new authority", "tls.key": b"new key", "tls.crt": b"new certificate"}


def plan(**given: Any) -> Plan:
    defaults: dict[str, Any] = {
        "flags": NEW_FLAGS,
        "annotations": {"externaletcd.io/bound-by": "ns/name"},
        "before": OLD_FLAGS,
        "patience": 10,
    }
    return Plan(**(defaults | given))


def pod(flags: Mapping[str, str | None], annotations: Mapping[str, str] | None = None) -> dict[str, Any]:
    """As kubeadm writes it."""
    words = [f"--{name}={value}" for name, value in sorted(flags.items()) if value is not None]
    host = {"path": "/etc/kubernetes/pki", "type": "DirectoryOrCreate"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "annotations": {"kubeadm.kubernetes.io/kube-apiserver.advertise-address.endpoint": "10.0.0.1:6443"}
            | dict(annotations or {}),
            "creationTimestamp": None,
            "labels": {"component": "kube-apiserver", "tier": "control-plane"},
            "name": "kube-apiserver",
            "namespace": "kube-system",
        },
        "spec": {
            "containers": [
                {
                    "name": "kube-apiserver",
                    "command": ["kube-apiserver", "--advertise-address=10.0.0.1", *words, "--secure-port=6443"],
                    "readinessProbe": {
                        "httpGet": {"host": "10.0.0.1", "path": "/readyz", "port": "probe-port", "scheme": "HTTPS"}
                    },
                    "ports": [{"containerPort": 6443, "name": "probe-port", "protocol": "TCP"}],
                    "volumeMounts": [{"mountPath": "/etc/kubernetes/pki", "name": "k8s-certs", "readOnly": True}],
                }
            ],
            "hostNetwork": True,
            "volumes": [{"hostPath": host, "name": "k8s-certs"}],
        },
        "status": {},
    }


def short_pod(flags: Mapping[str, str | None], annotations: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The same without what a run never looks at: it is read thousands of times, and PyYAML is slow."""
    made = pod(flags)
    container = made["spec"]["containers"][0]
    asked = container["readinessProbe"]["httpGet"] | {"port": 6443}
    kept = {name: container[name] for name in ("name", "command", "volumeMounts")}
    containers = [{**kept, "readinessProbe": {"httpGet": asked}}]
    return {
        "metadata": {"annotations": {"a": "b"} | dict(annotations or {})},
        "spec": {"containers": containers, "volumes": made["spec"]["volumes"]},
    }


#: Whether an API server with these etcd flags becomes ready, by the authority that its file held when it started.
Accepts = Callable[[Mapping[str, str], bytes | None], bool]


#: There are few manifests, and thousands of moments at which one is looked at.
read_manifest = functools.cache(manifest.read)


class Killed(BaseException):
    """The run ends here: no handler of the program may survive it, as none survives SIGKILL."""


@dataclass(slots=True)
class Node:
    """The node. `crashes`: its API server ends where it would not become ready; `deaf`: the kubelet does nothing.

    dies: the time at which a run that waits is killed.
    """

    folder: Path
    accepts: Accepts = lambda flags, authority: True
    crashes: bool = False
    deaf: bool = False
    disk: Disk = field(default_factory=Disk)
    time: float = 0.0
    dies: float | None = None
    #: The manifest that runs, its flags, what it read of its authority when it started, and its PID while it runs.
    text: bytes = b""
    flags: Mapping[str, str] = field(default_factory=dict)
    authority: bytes | None = None
    pid: int | None = None
    started: int = 100

    def __post_init__(self) -> None:
        for part in ("proc/sys/kernel/random", "kubernetes/manifests", "kubernetes/pki/etcd"):
            (self.folder / part).mkdir(parents=True)
        (self.folder / "proc/sys/kernel/random/boot_id").write_text("boot-1\n")
        for path in list(OLD_FLAGS.values())[:3]:
            self.files.path(path).write_bytes(f"old {path}".encode())

    @property
    def files(self) -> NodeFiles:
        return NodeFiles(root=self.folder / "kubernetes", disk=self.disk)

    @property
    def watch(self) -> Watch:
        return Watch(proc=self.folder / "proc", ask=self.ask, now=lambda: self.time, sleep=self.sleep)

    @property
    def manifest(self) -> bytes:
        return self.files.path(MANIFEST).read_bytes()

    def run_with(self, wanted: dict[str, Any]) -> bytes:
        """Write a manifest by hand and let it run."""
        text = yaml.safe_dump(wanted).encode()
        self.files.path(MANIFEST).write_bytes(text)
        self.kubelet()
        return text

    def held(self) -> dict[str, bytes]:
        """All files below /etc/kubernetes by path, but those that are kept for later runs."""
        root = self.folder / "kubernetes"
        found = {str(Path("/etc/kubernetes") / each.relative_to(root)): each for each in root.rglob("*")}
        return {
            path: each.read_bytes()
            for path, each in found.items()
            if each.is_file() and not path.startswith(f"{SAVED_FOLDER}/")
        }

    def kubelet(self) -> None:
        """Run what the manifests' folder says; it would run whatever file it finds there."""
        listed = [each for each in (self.folder / "kubernetes/manifests").iterdir() if each.name[0] != "."]
        assert [each.name for each in listed] == ["kube-apiserver.yaml"]
        text = listed[0].read_bytes()
        if self.deaf or (text == self.text and self.pid):
            return
        self.end()
        container = read_manifest(text)["spec"]["containers"][0]
        self.text, self.flags = text, arguments.flags(container)
        self.authority = self.files.read(self.flags["etcd-cafile"]) if "etcd-cafile" in self.flags else None
        self.start_process(container["command"])

    def start_process(self, words: list[str]) -> None:
        self.started += 1
        self.pid = self.started
        folder = self.folder / "proc" / str(self.pid)
        folder.mkdir()
        (folder / "cmdline").write_text("".join(f"{word}\0" for word in words))
        (folder / "stat").write_text(f"{self.pid} (kube apiserver)) S {' '.join(['0'] * 18)} {self.started} 0\n")

    def end(self) -> None:
        """End the API server."""
        if self.pid is not None:
            folder = self.folder / "proc" / str(self.pid)
            for each in folder.iterdir():
                each.unlink()
            folder.rmdir()
            self.pid = None

    def restart(self) -> None:
        """Start the machine again; its kubelet looks when it is told."""
        self.end()
        path = self.folder / "proc/sys/kernel/random/boot_id"
        path.write_text(f"{path.read_text().strip()}+1\n")
        self.started = 100

    def sleep(self, seconds: float) -> None:
        self.time += seconds
        if self.dies is not None and self.time >= self.dies:
            raise Killed
        if self.crashes and self.pid is not None and not self.accepts(self.flags, self.authority):
            self.end()
        else:
            self.kubelet()

    def ask(self, probe: Probe) -> str:
        assert (probe.host, probe.port) == ("10.0.0.1", 6443)
        if self.pid is None:
            return "/readyz does not answer: connection refused"
        return "" if self.accepts(self.flags, self.authority) else "/readyz answers 500: [-]etcd failed"
