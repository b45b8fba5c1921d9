"""What e2e tests share: an EtcdCluster as a user handles it, and keys written and read the way clients do.

Waiting goes through watches (`devtools.kube.Cluster`); nothing here sleeps or polls. Data goes through a pod that
mounts the client Secret (docs/etcdctl.yaml), so every read also proves the Secret and the Service.
"""

import asyncio
import base64
import json
import os
import threading
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import yaml

from devtools import environment, kube
from devtools.kube import Cluster, KubectlError, Manifest, Snapshot, Timeout, condition_of, is_ready_pod, is_true
from devtools.project import OPERATOR
from etcd_operator.etcd.client import EtcdClient
from etcd_operator.etcd.model import Endpoint, TLSIdentity

__all__ = [
    "OPERATOR",
    "OPERATOR_PODS",
    "Cluster",
    "Etcd",
    "KubectlError",
    "Manifest",
    "Snapshot",
    "Timeout",
    "Writer",
    "condition_of",
    "fresh_namespace",
    "identity",
    "is_ready_pod",
    "is_true",
    "kill_operator",
    "move_lead",
    "unhealthy",
]

T = TypeVar("T")
#: What selects the operator's own pods.
OPERATOR_PODS = f"app.kubernetes.io/name={OPERATOR}"

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

    def manifest(self, **spec: Any) -> Manifest:
        """The EtcdCluster with just that spec."""
        head = {"apiVersion": "externaletcd.io/v1alpha1", "kind": "EtcdCluster"}
        return {**head, "metadata": {"name": self.name, "namespace": self.namespace}, "spec": spec}

    def apply(self, **spec: Any) -> None:
        """`kubectl apply` the EtcdCluster with small requests, 1Gi volumes and no proxy unless told otherwise."""
        small = {"members": 3, "storage": {"size": "1Gi"}, "resources": SMALL, "proxy": {"enabled": False}}
        self.cluster.apply(self.manifest(**{**small, **spec}))

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

    def scale(self, members: int) -> None:
        """`kubectl scale` the EtcdCluster."""
        self.cluster.kubectl("-n", self.namespace, "scale", f"etcd/{self.name}", f"--replicas={members}")

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
        """The EtcdCluster as soon as the condition holds for it, within `timeout` seconds. Raises Timeout."""
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

    def wait_whole(self, *, timeout: float = AVAILABLE_TIMEOUT) -> Manifest:
        """The EtcdCluster once three members are healthy in pods that stay.

        Members that are being deleted answer for a moment yet, and count as ready in the StatefulSet as well.
        """
        place = ("statefulsets", self.namespace, self.name)
        self.cluster.wait_for_one(_is_complete, *place, what=f"StatefulSet {self.name} complete", timeout=timeout)
        self.cluster.wait_for(
            lambda seen: sum(is_ready_pod(pod) for pod in seen.values()) == len(seen) == 3,
            "pods",
            self.namespace,
            labels=f"{self.labels},app.kubernetes.io/name=etcd",
            what=f"three pods of {self.name} that stay",
            timeout=timeout,
        )
        return self.wait_available(timeout=timeout)

    def condition(self, type_: str) -> Manifest:
        """One of its conditions now; {} where it is not told."""
        return condition_of(self.get(), type_)

    def wait_told(self, *words: str, timeout: float = 15.0) -> str:
        """The first condition that says all these words in its reason and message. Raises Timeout."""
        told = self.wait(lambda seen: bool(sentence(seen, *words)), what=f"told: {words}", timeout=timeout)
        return sentence(told, *words)

    def event_reasons(self) -> set[str]:
        """The reasons of the events told about it so far."""
        return {
            event["reason"]
            for event in self.cluster.list("events", self.namespace)
            if event["involvedObject"].get("name") == self.name and event["involvedObject"]["kind"] == "EtcdCluster"
        }

    def wait_event(self, reason: str, *words: str, timeout: float = 60.0) -> None:
        """Wait for an event about it of that reason whose message has all the words. Raises Timeout."""
        self.cluster.wait_for(
            lambda events: any(all(word in event["message"] for word in words) for event in events.values()),
            "events",
            self.namespace,
            fields=f"involvedObject.kind=EtcdCluster,involvedObject.name={self.name},reason={reason}",
            what=f"event {reason}: {words}",
            timeout=timeout,
        )

    def wait_settled(self, *, timeout: float = AVAILABLE_TIMEOUT) -> Manifest:
        """The EtcdCluster as soon as it is as its spec asks, with every member healthy. Raises Timeout."""
        return self.wait(
            lambda seen: environment.is_available(seen) and bool(sentence(seen, "AsSpecified")),
            what=f"{self.name} as specified",
            timeout=timeout,
        )

    # --- its parts

    def stateful_set(self) -> Manifest:
        """Its StatefulSet now. Raises AssertionError where there is none."""
        found = self.cluster.get("statefulsets", self.namespace, self.name)
        assert found is not None, f"no StatefulSet {self.name}"
        return found

    def pods(self) -> dict[str, Manifest]:
        """Its members' pods now, by name."""
        labels = f"app.kubernetes.io/name=etcd,{self.labels}"
        return {pod["metadata"]["name"]: pod for pod in self.cluster.list("pods", self.namespace, labels=labels)}

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

    def metrics(self, pod: str) -> dict[str, float]:
        """What etcd itself says of a member on its metrics port, by name with labels."""
        response = self.cluster.request("GET", f"{kube.path_of('pods', self.namespace)}/{pod}:2381/proxy/metrics")
        response.raise_for_status()
        lines = (line.rsplit(" ", 1) for line in response.text.splitlines() if not line.startswith("#"))
        return {name: float(value) for name, value in lines}

    def container(self, pod: str) -> tuple[str, str]:
        """The node and the container ID of a member's etcd."""
        found = self.pods()[pod]
        status = next(status for status in found["status"]["containerStatuses"] if status["name"] == "etcd")
        return found["spec"]["nodeName"], status["containerID"].removeprefix("containerd://")

    def volume_folder(self, member: str) -> str:
        """Where a member's local-path volume lies on its node."""
        volume = self.cluster.get("persistentvolumes", None, self.claims()[f"data-{member}"]["spec"]["volumeName"])
        assert volume is not None, member
        source = volume["spec"].get("hostPath") or volume["spec"]["local"]
        return str(source["path"])

    def ready_addresses(self) -> set[str]:
        """The addresses behind the client Service now."""
        slices = self.cluster.list("endpointslices", self.namespace, labels=f"kubernetes.io/service-name={self.name}")
        return addresses_in({item["metadata"]["name"]: item for item in slices})

    def secret(self, suffix: str) -> dict[str, bytes]:
        """The content of the Secret NAME-SUFFIX. Raises AssertionError where there is none."""
        found = self.cluster.get("secrets", self.namespace, f"{self.name}-{suffix}")
        assert found is not None, f"no Secret {self.name}-{suffix}"
        return {key: base64.b64decode(value) for key, value in found["data"].items()}

    # --- its data

    def etcdctl(self, *arguments: str, timeout: float = 60.0, stdin: str | None = None) -> str:
        """Run etcdctl in a pod that mounts the client Secret; made at the first call, kept for later ones."""
        pod = f"{self.name}-etcdctl"
        if self.cluster.get("pods", self.namespace, pod) is None:
            self.cluster.apply(lasting_pod(self.name), namespace=self.namespace)
        self.cluster.wait_for_one(is_ready_pod, "pods", self.namespace, pod, timeout=60, what=f"{pod} ready")
        exec_ = ["-n", self.namespace, "exec", *([] if stdin is None else ["-i"]), pod, "--", "etcdctl"]
        try:
            return self.cluster.kubectl(*exec_, *arguments, timeout=timeout, stdin=stdin).strip()
        except KubectlError as error:
            if "closed all streams" not in str(error):
                raise
            # kubectl's own connection broke, which says nothing of etcd; all that is asked here may be asked twice.
            return self.cluster.kubectl(*exec_, *arguments, timeout=timeout, stdin=stdin).strip()

    def forget_client(self) -> None:
        """Take etcdctl's pod away: the Secret that it mounts is another one after the EtcdCluster was made anew."""
        pod = f"{self.name}-etcdctl"
        self.cluster.delete("pods", self.namespace, pod, gracePeriodSeconds=0)
        self.cluster.wait_until_gone("pods", self.namespace, name=pod)

    def endpoint(self, address: str) -> Endpoint:
        """A member by its pod's address, as a client with the client Secret reaches it."""
        access = self.secret("client")
        who = TLSIdentity(ca=access["ca.crt"], cert=access["tls.crt"], key=access["tls.key"])
        return Endpoint(address=f"{address}:2379", server_name=f"{self.name}.{self.namespace}.svc", tls=who)

    def ask(self, member: str, question: Callable[[EtcdClient, Endpoint], Awaitable[T]]) -> T:
        """Ask one member itself, past the Service. Raises EtcdError."""
        endpoint = self.endpoint(self.pods()[member]["status"]["podIP"])

        async def asked() -> T:
            async with EtcdClient() as client:
                return await question(client, endpoint)

        return asyncio.run(asked())

    def put(self, key: str, value: str) -> None:
        """Write a key. Raises KubectlError when etcd did not acknowledge it."""
        assert self.etcdctl("put", key, value) == "OK"

    def read(self, key: str) -> str:
        """The value of a key, linearizably; empty where there is none."""
        return self.etcdctl("get", key, "--print-value-only")

    def read_from(self, member: str, key: str) -> str:
        """The value of a key as that member itself has it; empty where there is none."""
        found = self.ask(member, lambda client, endpoint: client.get(endpoint, key.encode(), serializable=True))
        return (found or b"").decode()

    def member_ids(self) -> dict[str, str]:
        """Member IDs by name, as etcd itself lists them."""
        lines = (line.split(", ") for line in self.etcdctl("member", "list").splitlines())
        return {name: id_ for id_, _, name, *_ in lines}

    def voters(self) -> set[str]:
        """The voters' names, as etcd itself lists them. Raises AssertionError where there is anybody else."""
        listed = self.etcdctl("member", "list").splitlines()
        assert all(", started, " in line and line.endswith(", false") for line in listed), listed
        return {line.split(", ")[2] for line in listed}


def lasting_pod(etcd: str) -> Manifest:
    """The pod of docs/etcdctl.yaml, but it stays up when etcd is away: it waits for its standard input.

    On the control plane, the node that no test stops or cuts off.
    """
    pod: Manifest = yaml.safe_load(environment.etcdctl_pod(etcd))
    container = pod["spec"]["containers"][0]
    container |= {"command": ["/usr/local/bin/etcdctl", "txn", "--interactive"], "stdin": True}
    # Of its own, etcdctl gives up after 5 s; kube-proxy may take that long on a busy node to learn of other endpoints.
    container["env"] = [*container.get("env", []), {"name": "ETCDCTL_COMMAND_TIMEOUT", "value": "40s"}]
    pod["spec"]["nodeSelector"] = {"node-role.kubernetes.io/control-plane": ""}
    return pod


def _is_complete(stateful_set: Manifest) -> bool:
    """Whether a StatefulSet has seen that it should have three pods, has them, and stays."""
    status, wanted = stateful_set.get("status", {}), stateful_set["spec"]["replicas"]
    return (
        "deletionTimestamp" not in stateful_set["metadata"]
        and status.get("observedGeneration") == stateful_set["metadata"]["generation"]
        and status.get("replicas") == status.get("readyReplicas") == wanted == 3
    )


def sentence(seen: Manifest, *words: str) -> str:
    """The first of an EtcdCluster's conditions about its newest spec that says all these words; empty if none does."""
    for condition in seen.get("status", {}).get("conditions", []):
        told = f"{condition.get('reason')}: {condition.get('message')}"
        newest = condition.get("observedGeneration") == seen["metadata"]["generation"]
        if newest and all(word in told for word in words):
            return told
    return ""


def unhealthy(seen: Manifest, *names: str) -> bool:
    """Whether just these members are told as not healthy."""
    members = seen.get("status", {}).get("members", [])
    return {member["name"] for member in members if not member.get("healthy")} == set(names)


def addresses_in(slices: Snapshot) -> set[str]:
    """The ready addresses of EndpointSlices."""
    return {
        address
        for item in slices.values()
        for endpoint in item.get("endpoints") or []
        if endpoint["conditions"].get("ready")
        for address in endpoint["addresses"]
    }


def identity(etcd: Etcd) -> tuple[str, dict[str, str], dict[str, str]]:
    """What must never change once bootstrap was recorded: the cluster ID, the member IDs, the volumes with the data."""
    ids, claims = etcd.member_ids(), etcd.claims()
    volumes = {name: claims[f"data-{name}"]["spec"]["volumeName"] for name in ids}
    return etcd.status()["clusterID"], ids, volumes


def kill_operator(cluster: Cluster) -> None:
    """Kill all replicas at once, without warning."""
    for pod in cluster.list("pods", OPERATOR, labels=OPERATOR_PODS):
        cluster.delete("pods", OPERATOR, pod["metadata"]["name"], gracePeriodSeconds=0)


def move_lead(etcd: Etcd, member: str) -> None:
    """Have a member lead, and wait until the operator has seen it."""
    leader, target = etcd.status()["leader"], int(etcd.member_ids()[member], 16)
    if leader != member:
        etcd.ask(leader, lambda client, endpoint: client.move_leader(endpoint, target))
    etcd.wait_status(lambda told: told.get("leader") == member, what=f"{member} leads")


@dataclass(kw_only=True, slots=True)
class Writer:
    """Writes one key after another until it is stopped, and remembers which writes were acknowledged."""

    etcd: Etcd
    acknowledged: list[str] = field(default_factory=list)
    refused: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread = field(init=False)

    def __enter__(self) -> "Writer":
        self.etcd.put("writer/begin", "")
        self._thread = threading.Thread(target=self._write, daemon=True, name="writer")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _write(self) -> None:
        number = 0
        while not self._stop.is_set():
            number += 1
            key = f"writer/{number:06}"
            try:
                self.etcd.put(key, "x")
                self.acknowledged.append(key)
            except (KubectlError, AssertionError):
                self.refused += 1

    def lost(self) -> set[str]:
        """Keys whose write was acknowledged and that are not there."""
        return set(self.acknowledged) - set(self._keys())

    def _keys(self) -> list[str]:
        return self.etcd.etcdctl("get", "writer/", "--prefix", "--keys-only").split()
