"""Stories that must end well, each told once; `test_cluster_machine` finds those that nobody thought of."""

from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest

from etcd_operator.api import EtcdClusterSpec
from etcd_operator.cluster.settled import requested
from etcd_operator.resources.names import CLUSTER_ID, INCARNATION, MEMBER_STATE, Manifest
from etcd_operator.resources.secrets import content
from model import kubernetes
from model.operator import Fault
from model.store import Propagation
from model.world import CLAIM, World

TLS_OFF = {"peer": {"mode": "Off"}, "client": {"mode": "Off"}}


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.close()


def spec(members: int = 3, *, tls: bool = False, **fields: object) -> EtcdClusterSpec:
    return EtcdClusterSpec.model_validate({"members": members, "tls": {} if tls else TLS_OFF, **fields})


def go_on_until(world: World, arrived: Callable[[], bool]) -> None:
    for _ in range(60):
        if arrived():
            return
        world.round()
        if not arrived():
            world.tick()
    raise AssertionError("never got there")


def is_recorded(world: World) -> bool:
    return bool(((world.cluster or {}).get("status") or {}).get("bootstrap"))


def has_directories(world: World) -> int:
    return sum(len(volume.directories) for volume in world.kubernetes.nodes.volumes.values())


@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("tls", [True, False])
def test_a_cluster_is_founded_and_then_nothing_is_written_any_more(world: World, members: int, tls: bool) -> None:
    world.apply(spec(members, tls=tls))
    world.settle()
    assert world.size == members
    assert has_directories(world) == members
    world.operator.restart()
    assert [world.round() for _ in range(3)] == [[], [], []]
    world.tick(3600)
    assert [world.round() for _ in range(3)] == [[], [], []]


@pytest.mark.parametrize("fault", ["crash before", "crash after", "fail before", "fail after", "between"])
@pytest.mark.parametrize("story", ["founding", "adopting"])
def test_the_operator_may_die_at_any_write(fault: Fault, story: str) -> None:
    """One world for every write of the story, until there is no further write at which to die."""
    for nth in range(1, 100):
        world = World()
        world.apply(spec(3, tls=True))
        if story == "adopting":
            world.settle()
            world.delete("EtcdCluster", "a")
            world.apply(spec(5, tls=True))
        reached = _die_at(world, nth, fault)
        world.settle()
        assert has_directories(world) == world.size, f"founded twice after {fault} write {nth}"
        world.close()
        if not reached:
            assert nth > 15
            return
    raise AssertionError("never comes to rest")


def _die_at(world: World, nth: int, fault: Fault) -> bool:
    """Let the operator's nth write from now on meet its fault; `False` when all was done with fewer writes."""
    left = nth
    for _ in range(40):
        written = len(world.round({left: fault}))
        if written >= left:
            return True
        left -= written
        world.tick()
    return False


@pytest.mark.parametrize("members", [1, 3])
def test_a_founder_killed_at_its_first_write_does_not_stop_the_founding(world: World, members: int) -> None:
    world.etcd.kill_at_first_write = True
    world.apply(spec(members))
    for _ in range(8):
        world.round()
        world.tick()
    world.etcd.kill_at_first_write = False
    world.settle()
    assert world.size == members


def test_a_change_before_the_record_starts_over_with_it(world: World) -> None:
    world.kubernetes.nodes.unplaced.add("a-2")
    world.apply(spec(3))
    go_on_until(world, lambda: len(world.etcd.processes) == 2)
    world.apply(spec(5))
    world.round()
    world.settle()
    assert world.size == 5


def test_a_change_after_the_record_reaches_every_member(world: World) -> None:
    world.apply(spec(3))
    world.settle()
    before = world.recorded
    world.apply(spec(5, version="3.7.2", options={"snapshotCount": 5}))
    world.settle()
    assert world.recorded == before
    files = (world.store.get("ConfigMap", "a-config") or {})["data"]
    assert len(files) == 5
    assert all("snapshot-count: 5" in text for text in files.values())
    assert "pending" not in (world.cluster or {})["status"]
    assert has_directories(world) == 5


@pytest.mark.parametrize("policy", ["Retain", "Delete"])
@pytest.mark.parametrize(("before", "after"), [(1, 3), (3, 5), (5, 3), (3, 1), (1, 7), (7, 1)])
def test_a_running_etcd_is_scaled(world: World, before: int, after: int, policy: str) -> None:
    world.apply(spec(before, storage={"deletionPolicy": policy}))
    world.settle()
    world.apply(spec(after, storage={"deletionPolicy": policy}))
    world.settle()
    assert len(world.roster.voters) == after
    assert len(world.store.all(CLAIM)) == (after if policy == "Delete" else max(before, after))


@pytest.mark.parametrize("fault", ["crash after", "between"])
@pytest.mark.parametrize(
    "story",
    ["up", "down", "lost volume", "emptied", "restart", "scale and restart", "larger", "larger by replacement"],
)
def test_a_change_of_members_may_be_cut_short_at_any_write(fault: Fault, story: str) -> None:
    """One world for every write of the change, until there is no further write at which to die.

    To die before a write is to die after the one before it.
    """
    for nth in range(1, 100):
        world = World()
        world.apply(spec(5 if story == "down" else 3))
        world.settle()
        before = world.recorded
        CHANGES[story](world)
        reached = _die_at(world, nth, fault)
        world.settle()
        assert world.recorded == before
        world.close()
        if not reached:
            assert nth > 4
            return
    raise AssertionError("never comes to rest")


def larger(world: World, *, expandable: bool) -> None:
    world.store.expandable = expandable
    world.apply(spec(3, storage={"size": "9Gi"}))


CHANGES: dict[str, Callable[[World], None]] = {
    "up": lambda world: world.apply(spec(5)),
    "down": lambda world: world.apply(spec(3, storage={"deletionPolicy": "Delete"})),
    "lost volume": lambda world: world.lose_claim("a-1"),
    "emptied": lambda world: world.wipe("a-1"),
    "restart": lambda world: world.apply(spec(3, options={"snapshotCount": 5})),
    "scale and restart": lambda world: world.apply(spec(1, options={"snapshotCount": 5})),
    "larger": lambda world: larger(world, expandable=True),
    "larger by replacement": lambda world: larger(world, expandable=False),
}


@pytest.mark.parametrize("expandable", [True, False])
def test_volumes_grow_and_no_member_restarts_for_nothing(world: World, expandable: bool) -> None:
    world.apply(spec(3))
    world.settle()
    pods = {pod["metadata"]["uid"] for pod in world.store.all("Pod")}
    ids = set(world.roster.members)
    larger(world, expandable=expandable)
    world.settle()
    sizes = {str(requested(claim)) for claim in [*world.store.all(CLAIM), *templates(world)]}
    assert sizes == {"9Gi"}
    assert len(pods & {pod["metadata"]["uid"] for pod in world.store.all("Pod")}) == (3 if expandable else 0)
    assert len(ids & set(world.roster.members)) == (3 if expandable else 0)
    assert has_directories(world) == 3


def test_the_only_member_grows_when_others_have_joined_it(world: World) -> None:
    world.apply(spec(1))
    world.settle()
    world.apply(spec(1, storage={"size": "9Gi"}))
    world.settle()
    assert world.told("VolumesNotGrown")
    world.apply(spec(3, storage={"size": "9Gi"}))
    world.settle()
    assert {str(requested(claim)) for claim in world.store.all(CLAIM)} == {"9Gi"}


def test_larger_volumes_and_a_restart_and_more_members_at_once(world: World) -> None:
    world.apply(spec(3))
    world.settle()
    world.apply(spec(5, storage={"size": "9Gi"}, options={"snapshotCount": 5}))
    world.settle()
    assert {str(requested(claim)) for claim in world.store.all(CLAIM)} == {"9Gi"}


MEMORY = {"medium": "Memory", "size": "512Mi"}


def lose_pod(world: World, *pods: str) -> None:
    for pod in pods:
        world.delete("Pod", pod)


IN_MEMORY: dict[str, Callable[[World], None]] = {
    "a pod goes": lambda world: lose_pod(world, "a-1"),
    "restart": lambda world: world.apply(spec(3, storage=MEMORY, options={"snapshotCount": 5})),
}


@pytest.mark.parametrize("fault", ["crash after", "between"])
@pytest.mark.parametrize("story", IN_MEMORY)
def test_a_change_of_members_in_memory_may_be_cut_short_at_any_write(fault: Fault, story: str) -> None:
    for nth in range(1, 100):
        world = World()
        world.apply(spec(3, storage=MEMORY))
        world.settle()
        before, kept = world.recorded, set(world.acknowledged)
        IN_MEMORY[story](world)
        reached = _die_at(world, nth, fault)
        world.settle()
        assert not world.damaged
        assert world.recorded == before
        assert kept < world.acknowledged
        assert not world.store.all(CLAIM)
        world.close()
        if not reached:
            assert nth > 4
            return
    raise AssertionError("never comes to rest")


def test_a_container_in_memory_is_started_again_as_the_same_member(world: World) -> None:
    world.apply(spec(3, storage=MEMORY))
    world.settle()
    ids = set(world.roster.members)
    world.kubernetes.crash("a-1")
    world.settle()
    assert set(world.roster.members) == ids


def test_all_pods_in_memory_gone_is_told_and_nothing_is_founded_anew_until_it_is_applied_again(world: World) -> None:
    world.apply(spec(3, storage=MEMORY))
    world.settle()
    before = world.recorded
    lose_pod(world, "a-0", "a-1", "a-2")
    for _ in range(30):
        world.round()
        world.tick()
    assert world.told("DataLost")
    assert world.recorded == before
    assert not world.kubernetes.behind("a")
    world.delete("EtcdCluster", "a")
    world.settle()
    world.apply(spec(3, storage=MEMORY))
    world.settle()
    assert world.recorded != before


def templates(world: World) -> list[Manifest]:
    found = world.store.get("StatefulSet", "a")
    return list(found["spec"]["volumeClaimTemplates"]) if found else []


def test_members_that_never_started_are_not_taken_for_founded(world: World) -> None:
    """Two of three have a quorum and name the third as well; the fuse would keep it out for good."""
    world.kubernetes.nodes.unplaced.add("a-2")
    world.apply(spec(3))
    for _ in range(20):
        world.round()
        world.tick()
    assert len(world.etcd.processes) == 2
    assert not is_recorded(world)
    world.settle()
    assert has_directories(world) == 3


@pytest.mark.parametrize("members", [1, 3, 5])
def test_deleting_and_applying_again_serves_the_old_data(world: World, members: int) -> None:
    world.apply(spec(3, tls=True))
    world.settle()
    before, kept = world.recorded, set(world.acknowledged)
    world.delete("EtcdCluster", "a")
    world.settle()
    assert {each["kind"] for each in world.store.all()} == {CLAIM, "PersistentVolume", "Node"}
    world.apply(spec(members, tls=True))
    world.settle()
    assert world.recorded == before
    assert kept
    assert kept < world.acknowledged


def test_data_is_found_again_although_all_pods_were_killed_right_after_the_record(world: World) -> None:
    """Clients must not write before a volume tells whose data it holds: nothing else outlives the EtcdCluster."""
    world.apply(spec(3))
    go_on_until(world, lambda: is_recorded(world))
    for pod in ("a-0", "a-1", "a-2"):
        world.kubernetes.crash(pod)
    for _ in range(8):
        world.round()
    for _ in range(15):
        world.tick()
    world.delete("EtcdCluster", "a")
    world.settle()
    world.apply(spec(3))
    world.settle()


def test_with_deletion_policy_delete_the_volumes_go_and_the_next_one_is_new(world: World) -> None:
    world.apply(spec(3, storage={"deletionPolicy": "Delete"}))
    world.settle()
    first = world.recorded
    world.delete("EtcdCluster", "a")
    world.settle()
    assert {each["kind"] for each in world.store.all()} == {"Node"}
    world.apply(spec(3))
    world.settle()
    assert world.recorded != first


def test_volumes_alone_are_enough_to_find_the_cluster_again(world: World) -> None:
    world.apply(spec(3))
    world.settle()
    before = world.recorded
    world.edit("EtcdCluster", "a", {"status": None})
    world.delete("ConfigMap", "a-config")
    world.delete("StatefulSet", "a")
    world.settle()
    assert world.recorded == before


@pytest.mark.parametrize("propagation", ["Background", "Foreground", "Orphan"])
def test_a_deleted_stateful_set_comes_back_around_the_same_data(world: World, propagation: Propagation) -> None:
    world.apply(spec(3, tls=True))
    world.settle()
    before = world.recorded
    world.delete("StatefulSet", "a", propagation)
    world.settle()
    assert world.recorded == before


@pytest.mark.parametrize("replicas", [0, 1, 5])
def test_a_stray_scale_is_undone(world: World, replicas: int) -> None:
    world.apply(spec(3))
    world.settle()
    world.edit("StatefulSet", "a", {"spec": {"replicas": replicas}})
    for _ in range(3):
        world.tick()
    world.settle()
    assert len(world.store.all("Pod")) == 3


def test_pods_of_a_bootstrap_that_was_given_up_are_never_recorded(world: World) -> None:
    """Orphaned pods are adopted by the next StatefulSet, although they run the etcd of the one before."""
    world.kubernetes.nodes.unplaced.add("a-2")
    world.apply(spec(3))
    go_on_until(world, lambda: len(world.etcd.processes) == 2)
    world.apply(spec(3, options={"snapshotCount": 5}))
    world.round()
    world.delete("StatefulSet", "a", "Orphan")
    world.settle()
    for pod in ("a-0", "a-1", "a-2"):
        world.delete("Pod", pod)
    world.settle()
    assert len(set(world.etcd.processes)) == 3


def test_an_emptied_member_does_not_come_back_under_its_old_identity(world: World) -> None:
    world.apply(spec(3))
    world.settle()
    before = world.etcd.processes["a-1"].data.member_id
    world.wipe("a-1")
    world.settle()
    assert sorted(world.etcd.processes) == ["a-0", "a-1", "a-2"]
    assert world.etcd.processes["a-1"].data.member_id != before


def test_a_volume_that_goes_under_its_member_is_replaced_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the kubelet starts the container again with the new file while the pod holds the old volume."""
    monkeypatch.setattr(kubernetes, "BACK_OFF", timedelta(0))
    monkeypatch.setattr(kubernetes, "MOUNTS_LAG", timedelta(0))
    world.apply(spec(3))
    world.settle()
    before = dict(world.etcd.processes)
    changes = len(world.history.voters)
    world.lose_claim("a-1", with_pod=False)
    world.settle()
    after = world.etcd.processes
    assert {name for name in after if after[name].data is not before[name].data} == {"a-1"}
    assert len(world.history.voters) == changes + 2, "one was removed, one promoted"


def test_a_member_that_lags_gives_no_joiner_the_identity_of_one_that_was_removed(world: World) -> None:
    world.apply(spec(5))
    world.settle()
    before = world.etcd.processes["a-2"].data.member_id
    world.etcd.processes["a-0"].lagging = True
    world.wipe("a-2")
    for _ in range(30):
        world.round()
        world.tick()
    world.etcd.processes["a-0"].lagging = False
    world.settle()
    assert world.etcd.problems == []
    assert sorted(world.etcd.processes) == [f"a-{ordinal}" for ordinal in range(5)]
    assert world.etcd.processes["a-2"].data.member_id != before


def test_emptied_members_do_not_found_a_new_etcd_together(world: World) -> None:
    world.apply(spec(3))
    world.settle()
    for pod in ("a-0", "a-1", "a-2"):
        world.wipe(pod)
        world.delete("Pod", pod)
    world.settle()
    assert world.etcd.processes == {}
    assert (world.cluster or {})["status"]["summary"].startswith("Quorum lost")


def refused(world: World) -> str:
    """What is told where nothing is founded or served, as the records disagree."""
    for _ in range(10):
        world.round()
        world.tick()
    assert world.etcd.processes == {}
    conditions = {each["type"]: each for each in (world.cluster or {})["status"]["conditions"]}
    assert conditions["Progressing"]["reason"] == "RecordsDisagree"
    message: str = conditions["Progressing"]["message"]
    return message


def test_nothing_is_founded_beside_what_members_left_that_were_scaled_away(world: World) -> None:
    world.apply(spec(3))
    world.settle()
    world.apply(spec(1))
    world.settle()
    world.delete("EtcdCluster", "a")
    world.settle()
    world.lose_claim("a-0")
    world.apply(spec(3))
    message = refused(world)
    assert "data-a-1, data-a-2 hold what removed members" in message
    world.lose_claim("a-1")
    world.lose_claim("a-2")
    go_on_until(world, lambda: world.told("Bootstrapping"))


def test_volumes_of_two_clusters_are_never_served_together(world: World) -> None:
    world.apply(spec(3))
    world.settle()
    world.delete("EtcdCluster", "a")
    world.settle()
    claim = world.store.get(CLAIM, "data-a-2")
    assert claim is not None
    claim["metadata"]["annotations"] |= {CLUSTER_ID: "deadbeef", INCARNATION: "other", MEMBER_STATE: "member"}
    world.check = lambda: None  # type: ignore[method-assign] # two clusters are recorded here, on purpose
    world.apply(spec(3))
    message = refused(world)
    assert "deadbeef" in message


@pytest.mark.parametrize("name", ["a-peer-ca", "a-client-ca"])
def test_a_deleted_authority_is_put_back_from_memory(world: World, name: str) -> None:
    world.apply(spec(3, tls=True))
    world.settle()
    before = content(world.store.get("Secret", name))
    world.delete("Secret", name)
    world.settle()
    assert content(world.store.get("Secret", name)) == before


@pytest.mark.parametrize("name", ["a-peer-ca", "a-client-ca"])
def test_an_authority_that_nobody_remembers_is_told_and_the_members_serve_on(world: World, name: str) -> None:
    world.apply(spec(3, tls=True))
    world.settle()
    world.operator.restart()
    world.delete("Secret", name)
    world.settle()
    conditions = {each["type"]: each for each in (world.cluster or {})["status"]["conditions"]}
    assert conditions["Degraded"]["reason"] == "AuthorityLost"
    assert world.store.get("Secret", name) is None


def test_all_secrets_may_go_and_the_cluster_comes_back(world: World) -> None:
    world.apply(spec(3, tls=True))
    world.settle()
    before = world.recorded
    world.operator.restart()
    for secret in world.store.all("Secret"):
        world.delete("Secret", secret["metadata"]["name"])
    world.settle()
    assert world.recorded == before


@pytest.mark.parametrize("members", [3, 5])
def test_a_status_alone_is_enough_to_find_the_cluster_again(world: World, members: int) -> None:
    """Right after the record, before any object or volume learned of it."""
    world.apply(spec(3))
    go_on_until(world, lambda: is_recorded(world))
    before = world.recorded
    world.delete("ConfigMap", "a-config")
    world.delete("StatefulSet", "a")
    world.apply(spec(members))
    world.settle()
    for pod in ("a-0", "a-1", "a-2"):
        world.delete("Pod", pod)
    world.settle()
    assert world.recorded == before
    assert has_directories(world) == members


def test_volumes_without_labels_are_found_before_anything_is_founded_beside_them(world: World) -> None:
    """As after a restore of volumes from elsewhere, or a stray hand."""
    world.apply(spec(3))
    world.settle()
    before = world.recorded
    world.delete("EtcdCluster", "a")
    for member in ("a-0", "a-1", "a-2"):
        world.edit(CLAIM, f"data-{member}", {"metadata": {"labels": None}})
    world.settle()
    world.apply(spec(3))
    world.settle()
    assert world.recorded == before


@pytest.mark.parametrize("gone", [["a-peer-ca", "a-peer"], ["a-client-ca", "a-server"]])
@pytest.mark.parametrize("running", [2, 3])
def test_an_authority_lost_while_founding_does_not_stop_it(world: World, gone: list[str], running: int) -> None:
    """A new one is made, and the members that trust the old one would never hear of it."""
    world.kubernetes.nodes.unplaced |= {"a-2"} if running == 2 else set()
    world.apply(spec(3, tls=True))
    go_on_until(world, lambda: len(world.etcd.processes) == running)
    world.operator.restart()
    for name in gone:
        world.delete("Secret", name)
    world.settle()


def test_pods_of_an_old_stateful_set_that_take_the_new_files_are_not_recorded_with_it(world: World) -> None:
    """They waited for the ConfigMap, and found anew what their StatefulSet was not made for; it is replaced first."""
    world.kubernetes.nodes.unplaced.add("a-0")
    world.apply(spec(1))
    for _ in range(6):
        world.round()
        world.tick()
    world.apply(spec(1, storage={"size": "9Gi"}))
    world.round()
    world.kubernetes.nodes.unplaced.clear()
    world.tick()
    assert list(world.etcd.processes) == ["a-0"]
    world.settle()
    template = (world.store.get("StatefulSet", "a") or {})["spec"]["volumeClaimTemplates"][0]
    assert template["spec"]["resources"]["requests"]["storage"] == "9Gi"
