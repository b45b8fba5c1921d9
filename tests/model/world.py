"""The world of the model: Kubernetes, etcd, the operator, users and clients; and what must hold in it at any time."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import yaml

from etcd_operator.api import EtcdCluster, EtcdClusterSpec, ProxySpec
from etcd_operator.cluster.records import MEMBER, annotations, is_terminating, owner_uids
from etcd_operator.cluster.settled import requested
from etcd_operator.etcd.model import hex_id
from etcd_operator.resources.names import CLUSTER_ID, MEMBER_STATE, RECOVERY, REVISION, Manifest
from model.etcd import Data, Etcd, Volume
from model.kubernetes import MACHINES, Controllers, tmpfs_of
from model.membership import Change, History, Roster
from model.operator import Fault, Operator
from model.store import ORPHAN, Propagation, Store

#: Rounds within which everything must have come to rest, and how many must then pass without any change.
#: Both authorities rotated in a cluster in memory are twelve members replaced, in 155 rounds when nothing disturbs.
PATIENCE, QUIET = 400, 3
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
        self.etcd.on_change = self._on_change
        self.etcd.on_force = self._on_force
        self.problems: list[str] = []
        #: Writes that were acknowledged to clients and that no deletion on request has taken away.
        self.acknowledged: set[str] = set()
        self._written = 0
        #: The etcd cluster that was recorded, as long as something records it.
        self.recorded: str = ""
        #: Members that were made the only ones, in turn, as a user asked for it.
        self.forced: list[int] = []
        #: Data was destroyed that nothing brings back: from then on only safety is asked for, not health.
        self.damaged = False
        #: The etcd cluster whose ConfigMap was seen without `new` while it was recorded: it has the fuse for good.
        self._fused: str = ""
        self._bound_before_round: set[str] = set()
        self._members_before_round: set[int] = set()
        #: UIDs of claims that a stray hand deleted.
        self._astray: set[str] = set()
        #: Whether it is the operator that acts now.
        self._operator_acts = False
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
        self._members_before_round = {
            process.data.member_id for process in self.etcd.processes.values() if self.etcd.leader_of(process)
        }
        self._operator_acts = True
        writes = self.operator.run(faults, watch_lags=watch_lags)
        self._operator_acts = False
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
        """`kubectl apply` of the EtcdCluster, without a proxy: nothing of the etcd depends on one."""
        full = spec.model_copy(update={"proxy": ProxySpec(enabled=False)}).model_dump(
            by_alias=True, exclude_none=True, mode="json"
        )
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
            self.damaged = self.damaged or not self._can_heal()

    def lose_node(self, pod: str) -> None:
        """The machine of a member dies, and somebody deletes its Node object."""
        claim = self.store.get(CLAIM, f"data-{pod}")
        if claim is not None and (node := self.kubernetes.node_of_volume(claim["spec"].get("volumeName", ""))):
            self.kubernetes.fail_node(node)
            self.kubernetes.delete_node(node)
            self.damaged = self.damaged or not self._can_heal()
        self.check()

    def lose_claim(self, pod: str, *, with_pod: bool = True) -> None:
        """A stray hand deletes the claim of a member, and its pod with it; the volume goes when the pod has gone."""
        if (claim := self.store.get(CLAIM, f"data-{pod}")) is not None:
            volume = self.kubernetes.volume_of(pod) or Volume()
            self._astray.add(claim["metadata"]["uid"])
            self.store.delete(CLAIM, f"data-{pod}")
            if with_pod:
                self.store.delete("Pod", pod)
            if self._of_voters(volume.directories.values()):
                self.damaged = self.damaged or not self._can_heal()
        self.check()

    # --- what must hold ----------------------------------------------------------------------------------------------

    def data(self) -> list[Data]:
        """Every data directory on every volume that is there."""
        return [data for volume in self.kubernetes.nodes.volumes.values() for data in volume.directories.values()]

    @property
    def history(self) -> History:
        """What was committed in the recorded etcd cluster."""
        return self.etcd.history.get(int(self.recorded or "0", 16)) or History(Roster())

    @property
    def roster(self) -> Roster:
        """The newest member list of the recorded etcd cluster, whoever knows of it."""
        return self.history.roster

    @property
    def size(self) -> int:
        """How many members the cluster is to have at rest."""
        return self.spec.members if self.cluster is not None else len(self.roster.members)

    def _of_voters(self, directories: Iterable[Data]) -> set[int]:
        """The voters of the recorded etcd cluster whose data this is."""
        found = {data.member_id for data in directories if hex_id(data.cluster_id) == self.recorded}
        return found & self.roster.voters

    def _voters_with_data(self) -> set[int]:
        """Those on volumes that are there to stay."""
        doomed = {claim["spec"].get("volumeName") for claim in self.store.all(CLAIM) if is_terminating(claim)}
        doomed |= {tmpfs_of(pod) for pod in self.store.all("Pod") if is_terminating(pod)}
        doomed |= {each["metadata"]["name"] for each in self.store.all("PersistentVolume") if self._is_stranded(each)}
        kept = (volume for name, volume in self.kubernetes.nodes.volumes.items() if name not in doomed)
        return self._of_voters(data for volume in kept for data in volume.directories.values())

    def _is_stranded(self, volume: Manifest) -> bool:
        """Whether a volume was on a machine that is gone for good."""
        return self.store.get("Node", self.kubernetes.node_of_volume(volume["metadata"]["name"])) is None

    def _can_heal(self) -> bool:
        """A member that lost its data is replaced, as long as the voters that have theirs are a quorum."""
        return self.roster.has_quorum(self._voters_with_data())

    def records(self) -> set[str]:
        """The cluster IDs that any object records; volumes of members that were removed record nothing any more."""
        bootstrap = ((self.cluster or {}).get("status") or {}).get("bootstrap") or {}
        claims = [claim for claim in self.store.all(CLAIM) if annotations(claim).get(MEMBER_STATE, MEMBER) == MEMBER]
        recording = (*self.store.all("StatefulSet"), *self.store.all("ConfigMap"), *claims)
        return {bootstrap.get("clusterID", ""), *(annotations(each).get(CLUSTER_ID, "") for each in recording)} - {""}

    def check(self) -> None:
        """Every invariant, at this very moment; raises AssertionError."""
        recorded = self.records()
        assert len(recorded) <= 1, f"objects record different etcd clusters: {recorded}"
        self._check_record(next(iter(recorded), ""))
        self._check_doors(bool(recorded))
        self._check_fuse()
        self._check_data()
        self._check_membership()
        assert not self.problems, self.problems

    def _check_record(self, recorded: str) -> None:
        if not recorded:
            assert not self.acknowledged, "the proof of bootstrap is lost, and data with it"
        if recorded != self.recorded:
            assert not (recorded and self.acknowledged), f"etcd {self.recorded} became {recorded}"
            self.recorded = recorded
            found = [data for data in self.data() if hex_id(data.cluster_id) == recorded]
            assert found or not recorded, f"etcd {recorded} was recorded, and nothing has its data"

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
                assert not self._founds(), f"{kind} {name} opened before the fuse"

    def _check_fuse(self) -> None:
        """Once the files of a recorded cluster hold no `new`, no file of it ever does again."""
        if self.recorded and self.store.get("ConfigMap", "a-config") is not None:
            assert not (self._fused == self.recorded and self._founds()), "a file founds what was founded before"
            self._fused = self._fused if self._founds() else self.recorded

    def _founds(self) -> bool:
        """Whether a member with an empty directory would found an etcd cluster."""
        files = (self.store.get("ConfigMap", "a-config") or {"data": {}})["data"]
        return any('"new"' in text for text in files.values())

    def _check_membership(self) -> None:
        """One voter at a time, and none that comes back with less than it had."""
        assert not self.etcd.problems, self.etcd.problems
        for one, next_one in pairwise(self.history.voters):
            assert len(one ^ next_one) <= 1, f"more than one voter changed at once: {one} became {next_one}"

    def _on_change(self, change: Change) -> None:
        """The voters that a change leads to must be a quorum of those that run now, or ran when the operator looked."""
        if not change.roster.has_quorum(change.connected | self._members_before_round):
            self.problems.append(f"{change.entry!r} leaves no quorum of voters that run")

    def _on_force(self, data: Data) -> None:
        """What the member did not know to be committed is lost, as was said; what it has is all there is."""
        self.acknowledged = {value for value in self.acknowledged if f"put {value}" in data.entries}
        self.forced.append(data.member_id)
        self.damaged = not self._can_heal()

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
        """A claim may go with the EtcdCluster that owned it (deletionPolicy Delete), or when no data on it counts.

        With Delete only the data of voters counts, whom etcd must have removed first; with Retain also that of members
        that ever were voters.
        """
        uid = manifest["metadata"]["uid"]
        if manifest["kind"] == "Pod" and self._operator_acts and self._holds_in_memory(manifest):
            self.problems.append(f"Pod {manifest['metadata']['name']} was deleted with a voter's data in its memory")
        if manifest["kind"] != CLAIM or uid in self._astray or uid not in self._bound_before_round:
            return
        if self._makes_room_for_a_larger_one(manifest):
            return
        alive = self.cluster is not None and not is_terminating(self.cluster)
        living = self.cluster["metadata"]["uid"] if self.cluster is not None and alive else ""
        if owner_uids(manifest) and living not in owner_uids(manifest):
            return
        name = manifest["spec"].get("volumeName", "")
        if self._is_retained(name):
            return
        volume = self.kubernetes.nodes.volumes.get(name, Volume())
        asked = alive and self.spec.storage.deletion_policy == "Delete"
        counts = self.roster.voters if asked else self.history.ever_voted
        for data in volume.directories.values():
            ours = hex_id(data.cluster_id) == self.recorded
            if data.member_id in counts if ours else not asked:
                self.problems.append(f"{manifest['metadata']['name']} was deleted although nobody asked for it")

    def _makes_room_for_a_larger_one(self, claim: Manifest) -> bool:
        """A volume that cannot grow as the user asked goes when etcd has removed its member.

        Nothing counts then that its member ever held: every voter has its data on a volume that stays.
        """
        if self.cluster is None or is_terminating(self.cluster) or self.store.expandable:
            return False
        asked, wanted = requested(claim), self.spec.storage.size
        volume = self.kubernetes.nodes.volumes.get(claim["spec"].get("volumeName", ""), Volume())
        return (
            asked is not None
            and asked < wanted
            and annotations(claim).get(MEMBER_STATE) == MEMBER
            and not self._of_voters(volume.directories.values())
            and self._voters_with_data() == set(self.roster.voters)
        )

    def _holds_in_memory(self, pod: Manifest) -> bool:
        """Whether a voter's data is in this pod's memory, and goes with it."""
        volume = self.kubernetes.nodes.volumes.get(tmpfs_of(pod), Volume())
        return bool(self._of_voters(volume.directories.values()))

    def _is_retained(self, volume: str) -> bool:
        made = self.store.get("PersistentVolume", volume)
        return made is not None and made["spec"]["persistentVolumeReclaimPolicy"] == "Retain"

    def _on_gone(self, manifest: Manifest) -> None:
        """A claim takes its volume along; volumes that went on request take the claim to their data along."""
        if manifest["kind"] == "Pod" and self._holds_in_memory(manifest):
            self.kubernetes.nodes.volumes.pop(tmpfs_of(manifest), None)
            self.damaged = self.damaged or not self._can_heal()
        if manifest["kind"] == "EtcdCluster" and manifest["spec"]["storage"]["medium"] == "Memory":
            self.acknowledged.clear()  # and its data with them
            self.damaged = self.damaged and ORPHAN in manifest["metadata"].get("finalizers", [])
        if manifest["kind"] != CLAIM:
            return
        name = manifest["spec"].get("volumeName", "")
        volume = self.kubernetes.nodes.volumes.pop(name, None) or Volume()
        if self._is_retained(name):
            self.kubernetes.nodes.kept[name] = volume
        elif (made := self.store.get("PersistentVolume", name)) is not None:
            self.store.remove(made)
        if not self._of_voters(volume.directories.values()):
            return
        left = self._voters_with_data()
        if manifest["metadata"]["uid"] not in self._astray:
            self.damaged = bool(left) and (self.damaged or not self._can_heal())
        if not self.roster.has_quorum(left):
            self.acknowledged.clear()

    # --- coming to rest ----------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Without further faults everything comes to rest, healthy, and then nothing is written any more."""
        for process in self.etcd.processes.values():
            process.frozen = process.lagging = False
        self.etcd.kill_at_first_write = False
        self.etcd.unsettled = 0
        self.kubernetes.nodes.unplaced.clear()
        for node in MACHINES:
            self.kubernetes.recover_node(node)
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

    def recovery(self) -> str:
        """What the ConfigMap records of a rebuild."""
        return annotations(self.store.get("ConfigMap", "a-config")).get(RECOVERY, "")

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
        if problem := self._problem_of_members():
            return problem
        if problem := self._problem_of_volumes():
            return problem
        if not self.kubernetes.behind("a"):
            return "clients have no way in"
        if self.store.get("Secret", "a-client") is None and not self.told("AuthorityLost"):
            return "clients have no certificate"
        return None

    def _problem_of_volumes(self) -> str | None:
        """Which volumes are smaller than the spec asks for, where they can be made larger."""
        if self.spec.members == 1 and not self.store.expandable:
            return None if self._small_claims() <= {"a-0"} else f"volumes are small: {self._small_claims()}"
        return f"volumes are small: {self._small_claims()}" if self._small_claims() else None

    def _small_claims(self) -> set[str]:
        wanted = {f"a-{ordinal}" for ordinal in range(self.spec.members)}
        claims = {claim["metadata"]["name"].removeprefix("data-"): claim for claim in self.store.all(CLAIM)}
        return {
            name
            for name in wanted & set(claims)
            if (asked := requested(claims[name])) is None or asked < self.spec.storage.size
        }

    def _problem_of_members(self) -> str | None:
        """Why the members, and what they run, are not what the spec asks for."""
        wanted = {f"a-{ordinal}" for ordinal in range(self.spec.members)}
        roster, pods = self.roster, {pod["metadata"]["name"] for pod in self.store.all("Pod")}
        names = {member.name for member in roster.members.values()}
        if names != wanted or roster.learners:
            return f"etcd has the members {sorted(names)}, {len(roster.learners)} of them learners"
        replicas = (self.store.get("StatefulSet", "a") or {"spec": {"replicas": 0}})["spec"]["replicas"]
        if replicas != len(wanted) or pods != wanted:
            return f"pods are {sorted(pods)}, and {replicas} are asked for"
        texts = (self.store.get("ConfigMap", "a-config") or {"data": {}})["data"]
        fuses = {name: _is_fuse(text) for name, text in texts.items() if name.endswith(".yaml")}
        if fuses != {f"{member}.yaml": True for member in wanted}:
            return f"files, and whether they are the fuse: {fuses}"
        revisions = {annotations(pod).get(REVISION) for pod in self.store.all("Pod")}
        if revisions != {annotations(self.store.get("ConfigMap", "a-config")).get(REVISION)}:
            return f"pods are of the revisions {revisions}"
        return None


def _is_fuse(text: str) -> bool:
    try:
        file = yaml.safe_load(text)
        return bool(file["initial-cluster-state"] == "existing" and file["initial-cluster"].count("=") == 1)
    except (yaml.YAMLError, KeyError, TypeError):
        return False
