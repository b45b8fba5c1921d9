"""The world of the model: Kubernetes, etcd, the operator, users and clients; and what must hold in it at any time."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from etcd_operator.api import EtcdCluster, EtcdClusterSpec
from etcd_operator.cluster.records import annotations, is_terminating, owner_uids
from etcd_operator.etcd.model import hex_id
from etcd_operator.resources.names import CLUSTER_ID, Manifest
from model.etcd import Data, Etcd, Volume
from model.kubernetes import Controllers
from model.operator import Fault, Operator
from model.store import Propagation, Store

#: Rounds within which everything must have come to rest, and how many must then pass without any change.
PATIENCE, QUIET = 150, 3
CLAIM = "PersistentVolumeClaim"


class World:
    """One EtcdCluster named `a`, now and then, and everything around it."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        self.store = Store(self._clock)
        self.etcd = Etcd()
        self.kubernetes = Controllers(self.store, self.etcd, self._clock)
        self.operator = Operator(self.store, self.etcd, self._clock, self.kubernetes.run)
        self.store.on_delete = self._on_delete
        self.store.on_gone = self._on_gone
        self.problems: list[str] = []
        #: Writes that were acknowledged to clients and that no deletion on request has taken away.
        self.acknowledged: set[str] = set()
        self._written = 0
        #: The etcd cluster that was recorded, and how many members it has; as long as something records it.
        self.recorded: str = ""
        self.size = 0
        #: Data was destroyed by the disk: from then on only safety is asked for, not health.
        self.damaged = False
        self._bound_before_round: set[str] = set()
        #: UIDs of the Services and Secrets by which clients got in.
        self._opened: set[str] = set()

    def close(self) -> None:
        self.operator.close()

    def _clock(self) -> datetime:
        return self.now

    # --- what happens ------------------------------------------------------------------------------------------------

    def tick(self, seconds: float = 1.0) -> None:
        """Time passes, and Kubernetes, etcd and the clients do their work once."""
        self.now += timedelta(seconds=seconds)
        self.kubernetes.run()
        self.write()
        self.check()

    def round(self, faults: Mapping[int, Fault] | None = None, *, watch_lags: bool = False) -> list[str]:
        """The operator looks once."""
        self._bound_before_round = {
            claim["metadata"]["uid"] for claim in self.store.all(CLAIM) if claim["status"]["phase"] == "Bound"
        }
        writes = self.operator.run(faults, watch_lags=watch_lags)
        self.check()
        return writes

    def write(self) -> bool:
        """A client writes through the Service, with the Secret; `True` when the write was acknowledged."""
        if self.store.get("Secret", "a-client") is None:
            return False
        for process in self.kubernetes.behind("a"):
            self._written += 1
            if self.etcd.put(process, str(self._written)):
                self.acknowledged.add(str(self._written))
                return True
        return False

    def apply(self, spec: EtcdClusterSpec) -> None:
        """`kubectl apply` of the EtcdCluster."""
        full = spec.model_dump(by_alias=True, exclude_none=True, mode="json")
        if (live := self.cluster) is not None:
            metadata = live["metadata"]
            if full != live["spec"]:
                live["spec"] = full
                metadata["generation"] += 1
                self.store.touch(live)
            return
        manifest = {"apiVersion": "externaletcd.io/v1alpha1", "kind": "EtcdCluster", "spec": full}
        self.store.create({**manifest, "metadata": {"name": "a", "namespace": "ns"}})

    @property
    def cluster(self) -> Manifest | None:
        return self.store.get("EtcdCluster", "a")

    @property
    def spec(self) -> EtcdClusterSpec:
        assert self.cluster is not None
        return EtcdCluster.model_validate(self.cluster).spec

    def delete(self, kind: str, name: str, propagation: Propagation = "Background") -> None:
        self.store.delete(kind, name, propagation=propagation)
        self.check()

    def edit(self, kind: str, name: str, patch: Manifest) -> None:
        """A stray hand changes an object, when there is one."""
        if self.store.get(kind, name) is not None:
            self.store.patch(kind, name, patch)
        self.check()

    def wipe(self, pod: str) -> None:
        """The disk of a member loses everything, while its process ends."""
        volume = self.kubernetes.volume_of(pod)
        if volume is not None and volume.directories:
            self.kubernetes.crash(pod)
            self.etcd.stop(pod)
            volume.directories.clear()
            self.damaged = True

    # --- what must hold ----------------------------------------------------------------------------------------------

    def data(self) -> list[Data]:
        """Every data directory on every volume that is there."""
        return [data for volume in self.kubernetes.nodes.volumes.values() for data in volume.directories.values()]

    def records(self) -> set[str]:
        """The cluster IDs that any object records."""
        bootstrap = ((self.cluster or {}).get("status") or {}).get("bootstrap") or {}
        recording = (*self.store.all("StatefulSet"), *self.store.all("ConfigMap"), *self.store.all(CLAIM))
        return {bootstrap.get("clusterID", ""), *(annotations(each).get(CLUSTER_ID, "") for each in recording)} - {""}

    def check(self) -> None:
        """Every invariant, at this very moment; raises AssertionError."""
        recorded = self.records()
        assert len(recorded) <= 1, f"objects record different etcd clusters: {recorded}"
        self._check_record(next(iter(recorded), ""))
        self._check_doors(bool(recorded))
        self._check_data()
        assert not self.problems, self.problems

    def _check_record(self, recorded: str) -> None:
        if not recorded:
            assert not self.acknowledged, "the proof of bootstrap is lost, and data with it"
        if recorded != self.recorded:
            assert not (recorded and self.acknowledged), f"etcd {self.recorded} became {recorded}"
            self.recorded = recorded
            found = [data for data in self.data() if hex_id(data.cluster_id) == recorded]
            assert found or not recorded, f"etcd {recorded} was recorded, and nothing has its data"
            self.size = len(found[0].members) if found else 0

    def _check_doors(self, recorded: bool) -> None:
        """Nobody gets in before the record, and by the moment that a door opens the files hold the fuse."""
        uid = self.cluster["metadata"]["uid"] if self.cluster else ""
        for kind, name in (("Service", "a"), ("Secret", "a-client")):
            door = self.store.get(kind, name)
            if door is None or uid not in owner_uids(door):
                continue
            assert recorded, f"{kind} {name} lets clients in before the bootstrap was recorded"
            if door["metadata"]["uid"] not in self._opened:
                self._opened.add(door["metadata"]["uid"])
                files = (self.store.get("ConfigMap", "a-config") or {"data": {}})["data"]
                assert not any('"new"' in text for text in files.values()), f"{kind} {name} opened before the fuse"

    def _check_data(self) -> None:
        """What clients reach is one etcd cluster, the recorded one, and it holds every acknowledged write."""
        served = {process.data.cluster_id: process for process in self.kubernetes.behind("a")}
        assert len(served) <= 1, "two etcd clusters are served"
        for cluster_id, process in served.items():
            assert hex_id(cluster_id) == self.recorded, "an etcd is served that is not the recorded one"
            if self.etcd.is_ready(process):
                lost = {f"put {value}" for value in self.acknowledged} - process.data.entries
                assert not lost, f"acknowledged writes are lost: {sorted(lost)}"

    def _on_delete(self, manifest: Manifest) -> None:
        """A claim may go with the EtcdCluster that owns it (deletionPolicy Delete), or while nothing was ever on it."""
        if manifest["kind"] != CLAIM:
            return
        living = "" if self.cluster is None or is_terminating(self.cluster) else self.cluster["metadata"]["uid"]
        asked = owner_uids(manifest) and living not in owner_uids(manifest)
        if not asked and manifest["metadata"]["uid"] in self._bound_before_round:
            self.problems.append(f"{manifest['metadata']['name']} was deleted although nobody asked for it")

    def _on_gone(self, manifest: Manifest) -> None:
        """A claim takes its volume along; volumes that went on request take the claim to their data along."""
        if manifest["kind"] != CLAIM:
            return
        volume = self.kubernetes.nodes.volumes.pop(manifest["spec"].get("volumeName", ""), None)
        lost = [hex_id(data.cluster_id) for data in (volume or Volume()).directories.values()]
        if self.recorded in lost:
            left = [data for data in self.data() if hex_id(data.cluster_id) == self.recorded]
            self.damaged = bool(left)
            if len(left) <= self.size // 2:
                self.acknowledged.clear()

    # --- coming to rest ----------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Without further faults everything comes to rest, healthy, and then nothing is written any more."""
        for process in self.etcd.processes.values():
            process.frozen = process.lagging = False
        self.etcd.kill_at_first_write = False
        self.kubernetes.nodes.unplaced.clear()
        quiet = 0
        for _ in range(PATIENCE):
            before = self.store.version
            self.tick(1.0 if quiet == 0 else 5.0)
            wrote = self.round()
            blocked = self.damaged or self.told("NameTaken")
            # Members may crash on and on where nobody may, or can, do anything about it.
            rests = not wrote and (blocked or self.cluster is None or self.store.version == before)
            quiet = quiet + 1 if rests else 0
            if quiet >= QUIET and (blocked or self.problem_at_rest() is None):
                return
        raise AssertionError(f"does not come to rest: {self.problem_at_rest() or self.operator.kube.writes}")

    def told(self, reason: str) -> bool:
        """Whether a condition gives this reason."""
        conditions = ((self.cluster or {}).get("status") or {}).get("conditions") or []
        return any(condition["reason"] == reason for condition in conditions)

    def problem_at_rest(self) -> str | None:
        """Why this is not a cluster that is well; `None` when it is, or when there is none and nothing is left."""
        if self.cluster is None:
            left = [f"{each['kind']} {each['metadata']['name']}" for each in self.store.all() if owner_uids(each)]
            return f"left over: {left}" if left else None
        status: dict[str, Any] = self.cluster.get("status") or {}
        conditions = {each["type"]: (each["status"], each["message"]) for each in status.get("conditions", [])}
        if conditions.get("Available", ("",))[0] != "True" and not self.told("AuthorityLost"):
            return f"not available: {conditions}"
        if status.get("clusterID") != self.recorded:
            return f"status.clusterID is {status.get('clusterID')}, not {self.recorded}"
        ready = [pod for pod in self.store.all("Pod") if not is_terminating(pod)]
        if not len(ready) == status.get("readyMembers") == self.size:
            return f"{len(ready)} pods, {status.get('readyMembers')} ready, of {self.size}"
        if not self.kubernetes.behind("a"):
            return "clients have no way in"
        if self.store.get("Secret", "a-client") is None and not self.told("AuthorityLost"):
            return "clients have no certificate"
        return None
