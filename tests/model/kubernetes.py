"""The controllers of the model: StatefulSets become pods and claims, claims become volumes, pods become processes."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from etcd_operator.cluster.records import annotations, is_terminating, timestamp
from etcd_operator.cluster.trouble import is_ready
from etcd_operator.resources.names import CERTIFICATES_REFRESHED, CLEANS, FILES_REFRESHED, Manifest
from etcd_operator.resources.secrets import content
from model.etcd import Etcd, EtcdExitedError, Process, Volume
from model.store import PROTECTION, Store

#: A container that ended is started again after this long, and files that changed reach a pod after that long.
BACK_OFF, MOUNTS_LAG = timedelta(seconds=10), timedelta(seconds=60)
#: Where pods run; a volume is tied to the node that it was made on.
MACHINES = tuple(f"n{number}" for number in range(8))
HOSTNAME = "kubernetes.io/hostname"
#: The liveness probe ends a process that has not answered for this long.
HUNG = timedelta(seconds=15)


@dataclass
class Container:
    """What the kubelet knows of one pod's etcd container."""

    mounts: dict[str, Any]
    synced_at: datetime
    refreshed: str
    ended_at: datetime | None = None
    hung_since: datetime | None = None


@dataclass
class Nodes:
    """The machines: volumes by the name of their PersistentVolume, containers by the UID of their pod."""

    volumes: dict[str, Volume] = field(default_factory=dict)
    containers: dict[str, Container] = field(default_factory=dict)
    addresses: int = 0
    #: Pods that no node has room for now.
    unplaced: set[str] = field(default_factory=set)
    #: Volumes that outlived their claim.
    kept: dict[str, Volume] = field(default_factory=dict)


class Controllers:
    """Whatever Kubernetes does by itself, one pass at a time."""

    def __init__(self, store: Store, etcd: Etcd, clock: Callable[[], datetime]) -> None:
        self.store = store
        self.etcd = etcd
        self.nodes = Nodes()
        self._clock = clock
        for name in MACHINES:
            store.create({"kind": "Node", "metadata": {"name": name, "labels": {HOSTNAME: name}}})
            self._say_ready(name, "True")

    # --- machines ----------------------------------------------------------------------------------------------------

    def _say_ready(self, name: str, status: str) -> None:
        if (node := self.store.get("Node", name)) is not None:
            node["status"] = {"conditions": [{"type": "Ready", "status": status}]}
            self.store.touch(node)

    def is_up(self, name: str) -> bool:
        return (node := self.store.get("Node", name)) is not None and is_ready(node)

    def fail_node(self, name: str) -> None:
        """A machine dies: what ran on it has ended, and nobody ends its pods."""
        self._say_ready(name, "Unknown")
        for pod in self.store.all("Pod"):
            if pod["spec"].get("nodeName") == name:
                self.etcd.stop(pod["metadata"]["name"])

    def recover_node(self, name: str) -> None:
        self._say_ready(name, "True")

    def delete_node(self, name: str) -> None:
        """The Node object of a dead machine goes for good, with its disks."""
        if (node := self.store.get("Node", name)) is not None and not is_ready(node):
            self.store.remove(node)

    def node_of_volume(self, volume: str) -> str:
        """The machine that a volume is on."""
        made = self.store.get("PersistentVolume", volume)
        if made is None:
            return ""
        (term,) = made["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"]
        return str(term["matchExpressions"][0]["values"][0])

    # --- controllers -------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """One pass of everything."""
        self.store.collect_garbage()
        for manifest in self.store.all("StatefulSet"):
            if not is_terminating(manifest):
                self._stateful_set(manifest)
        for claim in self.store.all("PersistentVolumeClaim"):
            self._resize(claim)
        for pod in self.store.all("Pod"):
            self._bind(pod)
            self._pod(pod)
        for name in self.etcd.step():
            self._end(name, 0, "")
        for pod in self.store.all("Pod"):
            self._report(pod)

    def _stateful_set(self, owner: Manifest) -> None:
        if owner.get("status", {}).get("observedGeneration") != owner["metadata"]["generation"]:
            owner["status"] = {**owner.get("status", {}), "observedGeneration": owner["metadata"]["generation"]}
            self.store.touch(owner)
        spec, name = owner["spec"], owner["metadata"]["name"]
        for pod in self.store.all("Pod", spec["selector"]["matchLabels"]):
            metadata = pod["metadata"]
            if not metadata.get("ownerReferences") and not is_terminating(pod):
                metadata["ownerReferences"] = [_controller(owner)]
                self.store.touch(pod)
            owned = [reference["uid"] for reference in metadata.get("ownerReferences") or []]
            ordinal = int(metadata["name"].rpartition("-")[2])
            if owned == [owner["metadata"]["uid"]] and ordinal >= spec["replicas"]:
                self.store.delete("Pod", metadata["name"])
        for ordinal in range(spec["replicas"]):
            self._member(owner, f"{name}-{ordinal}")

    def _member(self, owner: Manifest, pod: str) -> None:
        existing = self.store.get("Pod", pod)
        if existing is not None and (is_terminating(existing) or existing["status"]["phase"] != "Pending"):
            return
        template = next(iter(owner["spec"].get("volumeClaimTemplates", [])), None)
        claim = self.store.get("PersistentVolumeClaim", f"data-{pod}")
        if template is None:
            pass
        elif claim is None:
            labels = {**template["metadata"]["labels"], **owner["spec"]["selector"]["matchLabels"]}
            metadata = {"name": f"data-{pod}", "namespace": "ns", "labels": labels, "finalizers": [PROTECTION]}
            self.store.create({**template, "metadata": metadata, "status": {"phase": "Pending"}})
        elif is_terminating(claim):
            return
        if existing is not None:  # it never started: its claim may have gone meanwhile, and is made anew
            return
        of_template = owner["spec"]["template"]
        metadata = {
            "name": pod,
            "namespace": "ns",
            "labels": dict(of_template["metadata"]["labels"]),
            "annotations": dict(of_template["metadata"].get("annotations") or {}),
            "ownerReferences": [_controller(owner)],
        }
        manifest = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": of_template["spec"]}
        self.store.create({**manifest, "status": {"phase": "Pending"}})

    def _bind(self, pod: Manifest) -> None:
        pod["status"] = pod.get("status") or {"phase": "Pending"}
        claim = self.store.get("PersistentVolumeClaim", f"data-{_member(pod['metadata']['name'])}")
        if claim is None or is_terminating(claim) or claim["status"]["phase"] == "Bound":
            return
        taken = {self.node_of_volume(each["spec"].get("volumeName", "")) for each in self.store.all(claim["kind"])}
        room = [name for name in MACHINES if self.is_up(name)]
        if not room:
            return
        volume = f"pv-{claim['metadata']['uid']}"
        self.nodes.volumes[volume] = Volume()
        node = next((name for name in room if name not in taken), room[0])
        expression = {"key": HOSTNAME, "operator": "In", "values": [node]}
        affinity = {"required": {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}}
        spec = {"nodeAffinity": affinity, "persistentVolumeReclaimPolicy": "Delete"}
        self.store.create({"kind": "PersistentVolume", "metadata": {"name": volume}, "spec": spec})
        claim["spec"] = {**claim["spec"], "volumeName": volume}
        claim["status"] = {"phase": "Bound", "capacity": dict(claim["spec"]["resources"]["requests"])}
        self.store.touch(claim)

    def _resize(self, claim: Manifest) -> None:
        """What asks for more gets it, one pass later."""
        asked = claim["spec"]["resources"]["requests"]
        if claim["status"]["phase"] == "Bound" and claim["status"].get("capacity") != asked:
            claim["status"]["capacity"] = dict(asked)
            self.store.touch(claim)

    def volume_of(self, pod: str) -> Volume | None:
        """The volume of a pod's claim, or the tmpfs that lives as long as the pod."""
        found = self.store.get("Pod", pod)
        if found is not None and is_in_memory(found):
            return self.nodes.volumes.setdefault(tmpfs_of(found), Volume())
        claim = self.store.get("PersistentVolumeClaim", f"data-{_member(pod)}")
        return self.nodes.volumes.get(claim["spec"].get("volumeName", "")) if claim else None

    def _pod(self, pod: Manifest) -> None:
        name, uid = pod["metadata"]["name"], pod["metadata"]["uid"]
        node = pod["spec"].get("nodeName")
        if node and self.store.get("Node", node) is None:
            self.store.remove(pod)
            return
        if node and not self.is_up(node):
            return
        if is_terminating(pod):
            self.etcd.stop(name)
            self.nodes.containers.pop(uid, None)
            self.store.remove(pod)
            self.nodes.volumes.pop(tmpfs_of(pod), None)
            return
        if told := annotations(pod).get(CLEANS):
            self.clean(pod, told.split(","))
            return
        container = self.nodes.containers.get(uid)
        if container is None:
            container = self._first_container(pod)
        elif self._is_due(pod, container):
            self._sync(pod, container)
        if container is None:
            return
        process = self.etcd.processes.get(name)
        if process is not None and process.frozen:
            container.hung_since = container.hung_since or self._clock()
            if self._clock() - container.hung_since >= HUNG:
                self.crash(name, 137, "")
        elif process is None and (container.ended_at is None or self._clock() - container.ended_at >= BACK_OFF):
            self._start(pod, container)

    def clean(self, pod: Manifest, incarnations: list[str]) -> None:
        """Old data goes from a volume, at whatever moment the pod comes to run."""
        volume = self.volume_of(pod["metadata"]["name"])
        if volume is None or pod["status"]["phase"] == "Succeeded":
            return
        for path in [path for path in volume.directories if path.rpartition("/")[2] in incarnations]:
            assert all(each.data is not volume.directories[path] for each in self.etcd.processes.values()), path
            del volume.directories[path]
        pod["status"]["phase"] = "Succeeded"
        pod["status"]["containerStatuses"] = [{"name": "clean", "state": {"terminated": {"exitCode": 0}}}]
        self.store.touch(pod)

    def _first_container(self, pod: Manifest) -> Container | None:
        mounts = self._mounts(pod)
        if mounts is None or self.volume_of(pod["metadata"]["name"]) is None:
            return None
        node = self._place(pod)
        if pod["metadata"]["name"] in self.nodes.unplaced or not self.is_up(node):
            return None
        pod["spec"] = {**pod["spec"], "nodeName": node}
        container = Container(mounts=mounts, synced_at=self._clock(), refreshed=_touched(pod))
        self.nodes.containers[pod["metadata"]["uid"]] = container
        return container

    def _place(self, pod: Manifest) -> str:
        """The machine that a pod is for: its volume's, or any that is up where it has none."""
        if is_in_memory(pod):
            return next(filter(self.is_up, MACHINES), "")
        return self.node_of_volume(str((self._claim(pod) or {}).get("spec", {}).get("volumeName", "")))

    def _claim(self, pod: Manifest) -> Manifest | None:
        return self.store.get("PersistentVolumeClaim", f"data-{_member(pod['metadata']['name'])}")

    def _is_due(self, pod: Manifest, container: Container) -> bool:
        return _touched(pod) != container.refreshed or self._clock() - container.synced_at >= MOUNTS_LAG

    def _sync(self, pod: Manifest, container: Container) -> None:
        """Bring changed files into the pod; what has gone from the API server stays as it was."""
        mounts = self._mounts(pod)
        container.synced_at, container.refreshed = self._clock(), _touched(pod)
        if mounts is None:
            return
        container.mounts = mounts
        if process := self.etcd.processes.get(pod["metadata"]["name"]):
            process.shows_peers = mounts.get("peer", {}).get("tls.crt", b"")
            process.shows_clients = mounts.get("server", {}).get("tls.crt", b"")

    def _mounts(self, pod: Manifest) -> dict[str, Any] | None:
        mounts: dict[str, Any] = {}
        for volume in pod["spec"]["volumes"]:
            if "emptyDir" in volume:
                continue
            if "configMap" in volume:
                found = self.store.get("ConfigMap", volume["configMap"]["name"])
                mounts[volume["name"]] = dict(found["data"]) if found else None
            elif "secret" in volume:
                found = self.store.get("Secret", volume["secret"]["secretName"])
                mounts[volume["name"]] = content(found) if found else None
        return None if None in mounts.values() else mounts

    def _start(self, pod: Manifest, container: Container) -> None:
        name, volume = pod["metadata"]["name"], self.volume_of(pod["metadata"]["name"])
        if volume is None:
            return
        status = pod["status"]
        if "podIP" not in status:
            self.nodes.addresses += 1
            status |= {"phase": "Running", "podIP": f"10.0.0.{self.nodes.addresses}"}
        try:
            file = pod["spec"]["containers"][0]["command"][-1].rpartition("/")[2].replace("$(POD_NAME)", name)
            self.etcd.start(name, status["podIP"], container.mounts, volume, file)
        except EtcdExitedError as error:
            self._ended(pod, container, 1 if str(error) else 137, str(error))
            return
        container.ended_at = container.hung_since = None
        self._container_state(pod, {"running": {"startedAt": timestamp(self._clock())}})

    def crash(self, name: str, code: int = 137, message: str = "") -> None:
        """The container of a running pod ends; the kubelet starts it again after its back-off."""
        if name in self.etcd.processes:
            self._end(name, code, message)

    def _end(self, name: str, code: int, message: str) -> None:
        pod = self.store.get("Pod", name)
        container = self.nodes.containers.get(pod["metadata"]["uid"]) if pod else None
        if pod is not None and container is not None:
            self._ended(pod, container, code, message)

    def _ended(self, pod: Manifest, container: Container, code: int, message: str) -> None:
        self.etcd.stop(pod["metadata"]["name"])
        container.ended_at, container.hung_since = self._clock(), None
        self._container_state(pod, {"terminated": {"exitCode": code, "message": message}})

    def _container_state(self, pod: Manifest, state: Manifest) -> None:
        before: Manifest = next(iter(pod["status"].get("containerStatuses") or []), {})
        last = before["state"] if "terminated" in before.get("state", {}) else before.get("lastState", {})
        status = {"name": "etcd", "state": state, "lastState": last, "started": "running" in state}
        pod["status"]["containerStatuses"] = [status]
        self.store.touch(pod)

    def _report(self, pod: Manifest) -> None:
        """The readiness probe."""
        process = self.etcd.processes.get(pod["metadata"]["name"])
        ready = process is not None and not process.frozen and self.etcd.is_ready(process)
        conditions = [{"type": "Ready", "status": str(ready)}]
        if pod["status"].get("conditions") != conditions:
            pod["status"]["conditions"] = conditions
            self.store.touch(pod)

    def behind(self, service: str) -> list[Process]:
        """The processes that a client reaches through a Service."""
        found = self.store.get("Service", service)
        pods = self.store.all("Pod", found["spec"]["selector"]) if found else []
        ready = [pod for pod in pods if {"type": "Ready", "status": "True"} in pod["status"].get("conditions", [])]
        return [self.etcd.processes[name] for pod in ready if (name := pod["metadata"]["name"]) in self.etcd.processes]


def is_in_memory(pod: Manifest) -> bool:
    return any("emptyDir" in volume for volume in pod["spec"]["volumes"])


def tmpfs_of(pod: Manifest) -> str:
    """The name by which `Nodes.volumes` has what a pod keeps in memory."""
    return f"tmpfs-{pod['metadata']['uid']}"


def _touched(pod: Manifest) -> str:
    found = annotations(pod)
    return f"{found.get(FILES_REFRESHED)} {found.get(CERTIFICATES_REFRESHED)}"


def _member(pod: str) -> str:
    """The member whose volume a pod mounts: its own, or that of the member beside which it runs."""
    return pod.removesuffix("-recovery").removesuffix("-cleaning")


def _controller(owner: Manifest) -> Manifest:
    metadata = owner["metadata"]
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": metadata["name"],
        "uid": metadata["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }
