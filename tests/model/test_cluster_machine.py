"""Whatever happens, in whatever order: no acknowledged write is lost, nothing is founded twice, and all ends well.

Hypothesis lets users, stray hands, disks, nodes and the operator's own death interleave with the operator's writes;
`World.check` holds the invariants after every step. When it all stops, the cluster must come to rest: healthy, with
its data, and with an operator that writes nothing any more.
"""

from typing import Any, ClassVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from etcd_operator.api import EtcdClusterSpec
from model.kubernetes import MACHINES
from model.operator import Fault
from model.store import Propagation
from model.world import World

PODS = st.sampled_from(["a-0", "a-1", "a-2", "a-0", "a-1", "a-2", "a-3", "a-4"])
FAULTS = st.sampled_from(list(Fault.__args__))  # type: ignore[attr-defined]
SECRETS = st.sampled_from(["a-peer-ca", "a-client-ca", "a-peer", "a-server", "a-client"])
PROPAGATIONS = st.sampled_from(list(Propagation.__args__))  # type: ignore[attr-defined]

#: What users write into the spec: each a change that applies at once, waits, starts over, or is refused.
EDITS: dict[str, dict[str, Any]] = {
    "grow": {"members": 5},
    "shrink": {"members": 1},
    "back": {"members": 3},
    "seven": {"members": 7},
    "upgrade": {"version": "3.7.2"},
    "bigger volumes": {"storage": {"size": "9Gi"}},
    "even bigger volumes": {"storage": {"size": "10Gi"}},
    "delete volumes": {"storage": {"deletionPolicy": "Delete"}},
    "keep volumes": {"storage": {"deletionPolicy": "Retain"}},
    "another name": {"tls": {"client": {"extraSANs": ["etcd.example.com"]}}},
    "option": {"options": {"snapshotCount": 5000}},
    "bad option": {"options": {"extra": {"no-such-thing": 1}}},
    "no bad option": {"options": {"extra": {}}},
    "label": {"podTemplate": {"metadata": {"labels": {"team": "a"}}}},
    "no patience": {"healing": {"replaceAfter": "10s"}},
    "patience": {"healing": {"replaceAfter": "Never"}},
    "old data goes": {"healing": {"keepOldData": "0s"}},
    "old data stays": {"healing": {"keepOldData": "Never"}},
    "pause": {"paused": True},
    "resume": {"paused": False},
}

#: What a stray hand does to objects.
STRAY: dict[str, tuple[str, str, dict[str, Any]]] = {
    "scale down": ("StatefulSet", "a", {"spec": {"replicas": 0}}),
    "scale up": ("StatefulSet", "a", {"spec": {"replicas": 5}}),
    "image": ("StatefulSet", "a", {"spec": {"template": {"spec": {"priorityClassName": "high"}}}}),
    "strip the StatefulSet": ("StatefulSet", "a", {"metadata": {"annotations": None}}),
    "strip the ConfigMap": ("ConfigMap", "a-config", {"metadata": {"annotations": None}}),
    "garble a file": ("ConfigMap", "a-config", {"data": {"a-0.yaml": "name: [", "b": "c"}}),
    "no labels": ("ConfigMap", "a-config", {"metadata": {"labels": None}}),
    "no owner": ("ConfigMap", "a-config", {"metadata": {"ownerReferences": None}}),
    "selector": ("Service", "a", {"spec": {"selector": {"app.kubernetes.io/name": "other"}}}),
    "peers": ("Service", "a-peers", {"spec": {"publishNotReadyAddresses": False}}),
    "garble an authority": ("Secret", "a-peer-ca", {"data": {"tls.key": "AAAA"}}),
    "garble a certificate": ("Secret", "a-server", {"data": {"tls.crt": "!"}}),
    "budget": ("PodDisruptionBudget", "a", {"spec": {"maxUnavailable": 3}}),
    "strip a claim": ("PersistentVolumeClaim", "data-a-1", {"metadata": {"annotations": None}}),
    "unlabel a claim": ("PersistentVolumeClaim", "data-a-0", {"metadata": {"labels": None}}),
}


class ClusterMachine(RuleBasedStateMachine):
    """One EtcdCluster and all that can befall it."""

    #: What its users say of its storage, and the fewest members that it may have.
    storage: ClassVar[dict[str, Any]] = {}
    fewest = 1

    def __init__(self) -> None:
        super().__init__()
        self.world = World()

    def teardown(self) -> None:
        try:
            if self.world.cluster is not None:
                self._mend_spec()
                self.world.settle()
        finally:
            self.world.close()

    @initialize(
        members=st.sampled_from([1, 3, 3, 3]),
        tls=st.booleans(),
        rounds=st.sampled_from([0, 2, 3, 4, 5, 14]),
        hitch=st.sampled_from(["", "", "a member has no room", "a founder is killed"]),
    )
    def found(self, members: int, tls: bool, rounds: int, hitch: str) -> None:
        self.world.etcd.kill_at_first_write = hitch == "a founder is killed"
        if hitch == "a member has no room":
            self.world.kubernetes.nodes.unplaced.add(f"a-{max(members, self.fewest) - 1}")
        mode = {"mode": "Managed" if tls else "Off"}
        client = {**mode, "rotationGrace": "5s"}
        self.base: dict[str, Any] = {"tls": {"peer": mode, "client": client}, "storage": self.storage}
        self.asked = 0
        self._apply(members)
        for _ in range(rounds):
            self.world.round()
            self.world.tick()

    # --- the operator ------------------------------------------------------------------------------------------------

    @rule(faults=st.dictionaries(st.integers(1, 6), FAULTS, max_size=2), watch_lags=st.booleans())
    def round(self, faults: dict[int, Fault], watch_lags: bool) -> None:
        self.world.round(faults, watch_lags=watch_lags)

    @rule(rounds=st.integers(1, 6))
    def rounds(self, rounds: int) -> None:
        for _ in range(rounds):
            self.world.round()
            self.world.tick()

    @rule()
    def the_operator_is_killed(self) -> None:
        self.world.operator.restart()

    # --- Kubernetes, etcd, time --------------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([0.1, 1, 11, 61, 86400, 61 * 86400]))
    def time_passes(self, seconds: float) -> None:
        self.world.tick(seconds)

    @rule(ticks=st.integers(1, 4))
    def kubernetes_works(self, ticks: int) -> None:
        for _ in range(ticks):
            self.world.tick()

    @rule(pods=st.sets(PODS, min_size=1))
    def pods_are_deleted(self, pods: set[str]) -> None:
        for pod in sorted(pods):
            self.world.delete("Pod", pod)

    @rule(pods=st.sets(PODS, min_size=1))
    def containers_crash(self, pods: set[str]) -> None:
        for pod in sorted(pods):
            self.world.kubernetes.crash(pod)

    @rule(pod=PODS, frozen=st.booleans())
    def a_member_hangs_or_comes_back(self, pod: str, frozen: bool) -> None:
        if process := self.world.etcd.processes.get(pod):
            process.frozen = frozen

    @rule(pod=PODS, lagging=st.booleans())
    def a_member_lags_or_catches_up(self, pod: str, lagging: bool) -> None:
        if process := self.world.etcd.processes.get(pod):
            process.lagging = lagging

    @rule(pod=PODS, room=st.booleans())
    def a_pod_finds_no_room_or_does(self, pod: str, room: bool) -> None:
        (self.world.kubernetes.nodes.unplaced.discard if room else self.world.kubernetes.nodes.unplaced.add)(pod)

    @rule(expandable=st.booleans())
    def volumes_can_grow_or_cannot(self, expandable: bool) -> None:
        self.world.store.expandable = expandable

    @rule()
    def the_next_founder_is_killed_at_its_first_write(self) -> None:
        self.world.etcd.kill_at_first_write = True

    @rule(calls=st.integers(1, 4))
    def etcd_asks_to_wait_with_changes_of_members(self, calls: int) -> None:
        self.world.etcd.unsettled = calls

    @precondition(lambda self: not self.world.damaged and len(self.world.roster.voters) >= 3)
    @rule(pod=PODS)
    def a_disk_is_emptied(self, pod: str) -> None:
        self.world.wipe(pod)

    @precondition(lambda self: not self.world.damaged and len(self.world.roster.voters) >= 3)
    @rule(pod=PODS)
    def a_claim_is_deleted_by_a_stray_hand(self, pod: str) -> None:
        self.world.lose_claim(pod)

    @precondition(lambda self: not self.storage)  # what is in memory there is no member's any more, in the same pod
    @rule(node=st.sampled_from(MACHINES[:4]), up=st.booleans())
    def a_node_dies_or_comes_back(self, node: str, up: bool) -> None:
        (self.world.kubernetes.recover_node if up else self.world.kubernetes.fail_node)(node)

    @precondition(lambda self: not self.storage and not self.world.damaged and len(self.world.roster.voters) >= 3)
    @rule(pod=PODS)
    def a_node_is_lost_for_good(self, pod: str) -> None:
        if sum(self.world.store.get("Node", node) is None for node in MACHINES) < 3:
            self.world.lose_node(pod)

    # --- people ------------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.world.cluster is not None)
    @rule(edit=st.sampled_from(sorted(EDITS)))
    def the_spec_is_edited(self, edit: str) -> None:
        self._edit(EDITS[edit])

    @precondition(lambda self: self.world.cluster is not None)
    @rule(side=st.sampled_from(["peer", "client"]))
    def a_rotation_is_asked_for(self, side: str) -> None:
        self.asked += 1
        asked = {f"externaletcd.io/rotate-{side}": str(self.asked)}
        self.world.edit("EtcdCluster", "a", {"metadata": {"annotations": asked}})

    @rule(edit=st.sampled_from(sorted(STRAY)))
    def a_stray_hand_edits(self, edit: str) -> None:
        self.world.edit(*STRAY[edit])

    @precondition(lambda self: self.world.cluster is not None and not self.storage)
    @rule()
    def the_status_is_deleted(self) -> None:
        self.world.edit("EtcdCluster", "a", {"status": None})

    @rule(propagation=PROPAGATIONS)
    def the_stateful_set_is_deleted(self, propagation: Propagation) -> None:
        self.world.delete("StatefulSet", "a", propagation)

    @rule(service=st.sampled_from(["a", "a-peers"]))
    def a_service_is_deleted(self, service: str) -> None:
        self.world.delete("Service", service)

    @rule(secret=SECRETS)
    def a_secret_is_deleted(self, secret: str) -> None:
        self.world.delete("Secret", secret)

    @rule()
    def the_config_map_is_deleted(self) -> None:
        self.world.delete("ConfigMap", "a-config")

    @rule()
    def the_budget_is_deleted(self) -> None:
        self.world.delete("PodDisruptionBudget", "a")

    @precondition(lambda self: self.world.cluster is not None)
    @rule(propagation=PROPAGATIONS)
    def the_cluster_is_deleted(self, propagation: Propagation) -> None:
        self.world.delete("EtcdCluster", "a", propagation)

    @precondition(lambda self: self.world.cluster is None)
    @rule(members=st.sampled_from([1, 3, 5]))
    def the_cluster_is_applied_again(self, members: int) -> None:
        self._apply(members)

    @precondition(lambda self: self.world.cluster is not None)
    @rule()
    def all_comes_to_rest(self) -> None:
        self._mend_spec()
        self.world.settle()

    @invariant()
    def holds(self) -> None:
        self.world.check()

    def _mend_spec(self) -> None:
        """A spec that is refused or paused is not expected to work."""
        self._edit({"paused": False, "options": {"extra": {}}})

    def _apply(self, members: int) -> None:
        self.world.apply(EtcdClusterSpec.model_validate({**self.base, "members": max(members, self.fewest)}))

    def _edit(self, patch: dict[str, Any]) -> None:
        if self.world.cluster is not None and not self.world.cluster["metadata"].get("deletionTimestamp"):
            full = self.world.spec.model_dump(by_alias=True, exclude_none=True, mode="json")
            edited = EtcdClusterSpec.model_validate(_laid_over(full, patch))
            # The API server refuses all else.
            if edited.storage.size >= self.world.spec.storage.size and edited.members >= self.fewest:
                self.world.apply(edited)


def _laid_over(base: Any, patch: Any) -> Any:
    if not isinstance(base, dict) or not isinstance(patch, dict) or not patch:
        return patch
    return {**base, **{name: _laid_over(base.get(name), value) for name, value in patch.items()}}


class MemoryMachine(ClusterMachine):
    """The same with data in memory, which goes with its pods.

    Without volumes, three objects tell that the etcd was founded: here nobody deletes the status as well.
    """

    storage: ClassVar[dict[str, Any]] = {"medium": "Memory", "size": "512Mi"}
    fewest = 3


TestClusterMachine = ClusterMachine.TestCase
TestMemoryMachine = MemoryMachine.TestCase
TestMemoryMachine.settings = settings(max_examples=settings().max_examples // 4)
