"""Changes that need a restart reach the members one after another, the leader last, and clients hardly notice."""

import threading
from dataclasses import dataclass, field

import pytest

from devtools import environment
from e2e.support import Cluster, Etcd, Manifest, identity, is_ready_pod, kill_operator, unhealthy
from e2e.writers import writing

MEMBERS = {"a-0", "a-1", "a-2"}
RESTART = "externaletcd.io/restart"
IMAGE = "gcr.io/etcd-development/etcd:v"


@dataclass(kw_only=True, slots=True)
class Restarts:
    """How the members' pods are replaced, watched between `with` and its end."""

    etcd: Etcd
    #: The members in the order in which they got another pod.
    order: list[str] = field(default_factory=list)
    #: The most members whose etcd did not run at the same time, and the most that Kubernetes had as not ready: it
    #: takes a second or two to notice that one is.
    most_down: int = 0
    most_unready: int = 0
    _seen: set[str] = field(default_factory=set)
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def __enter__(self) -> "Restarts":
        self._seen |= {pod["metadata"]["uid"] for pod in self.etcd.pods().values()}
        threading.Thread(target=self._watch, daemon=True, name="restarts").start()
        return self

    def __exit__(self, *_: object) -> None:
        newest = {pod["metadata"]["uid"] for pod in self.etcd.pods().values()}
        with self._changed:
            assert self._changed.wait_for(lambda: newest <= self._seen, timeout=30), "the watch is behind"
        print(f"restarted {self.order}; at most {self.most_down} down, {self.most_unready} not ready")

    def _watch(self) -> None:
        cluster = self.etcd.cluster.apart()
        for pods in cluster.snapshots("pods", self.etcd.namespace, labels=self.etcd.labels, timeout=600):
            down = MEMBERS - {name for name, pod in pods.items() if is_running(pod)}
            unready = MEMBERS - {name for name, pod in pods.items() if is_ready_pod(pod)}
            with self._changed:
                self.most_down = max(self.most_down, len(down))
                self.most_unready = max(self.most_unready, len(unready))
                for name, pod in pods.items():
                    if pod["metadata"]["uid"] not in self._seen:
                        self._seen.add(pod["metadata"]["uid"])
                        self.order.append(name)
                self._changed.notify_all()

    def check(self, *, last: str = "") -> None:
        """Every member once, never two at a time, and this one last."""
        assert sorted(self.order) == sorted(MEMBERS), self.order
        assert self.order[-1] == (last or self.order[-1]), self.order
        # How many were not ready is only printed: on a slow machine a member that runs misses a kubelet's probe.
        assert self.most_down == 1


def is_running(pod: Manifest) -> bool:
    """Whether its etcd runs and nobody has asked it to stop."""
    statuses = pod["status"].get("containerStatuses", [])
    return "deletionTimestamp" not in pod["metadata"] and any("running" in status["state"] for status in statuses)


def create(etcd: Etcd, **spec: object) -> str:
    """Make it with some data; returns who leads."""
    leader: str = etcd.create(**spec)["status"]["leader"]
    etcd.put("kept", "yes")
    return leader


def images(etcd: Etcd) -> dict[str, str]:
    return {name: pod["spec"]["containers"][0]["image"] for name, pod in etcd.pods().items()}


def quotas(etcd: Etcd) -> set[float]:
    """The quotas that the members run with, as they say themselves."""
    return {etcd.metrics(name)["etcd_server_quota_backend_bytes"] for name in MEMBERS}


def test_an_option_reaches_all_members_one_after_another(etcd: Etcd) -> None:
    leader = create(etcd)
    before = identity(etcd)
    with writing(etcd) as writers, Restarts(etcd=etcd) as restarts:
        etcd.apply(options={"quotaBackendBytes": "1Gi"})
        etcd.wait_settled()
    restarts.check(last=leader)
    writers.check()
    etcd.wait_event("MovingLeader", f"{leader} is to be restarted", "spec.options.quotaBackendBytes", timeout=10)
    assert quotas(etcd) == {1024**3}
    files = etcd.cluster.get("configmaps", etcd.namespace, "a-config")
    assert files is not None
    assert all("1073741824" in files["data"][f"{member}.yaml"] for member in MEMBERS)
    assert identity(etcd) == before
    assert etcd.read("kept") == "yes"


def test_an_image_that_does_not_exist_stops_at_the_first_member(etcd: Etcd) -> None:
    create(etcd)
    before, old = identity(etcd), images(etcd)
    etcd.apply(image={"repository": "registry.invalid/etcd"})
    told = etcd.wait_told("ImageUnavailable", "registry.invalid/etcd", timeout=60)
    (stopped,) = (name for name, image in images(etcd).items() if image != old[name])
    assert stopped in told
    etcd.wait(lambda seen: unhealthy(seen, stopped), what=f"only {stopped} down")
    assert etcd.condition("Available")["status"] == "True"
    assert etcd.condition("Progressing")["status"] == "False"
    etcd.put("meanwhile", "written")
    etcd.cluster.wait_for_one(
        lambda seen: seen["spec"]["template"]["spec"]["containers"][0]["image"] == old[stopped],
        "statefulsets",
        etcd.namespace,
        "a",
        what="the template that is known to work",
    )
    other = min(MEMBERS - {stopped})
    back = etcd.wait_replaced(other, etcd.kill(other, grace=0))
    assert back["spec"]["containers"][0]["image"] == old[other]
    etcd.wait(lambda seen: unhealthy(seen, stopped), what=f"only {stopped} down again")
    etcd.apply()
    etcd.wait_settled()
    assert images(etcd) == old
    assert identity(etcd) == before
    assert etcd.read("meanwhile") == "written"


def ask_for_restart(etcd: Etcd, value: str) -> None:
    etcd.cluster.kubectl("-n", etcd.namespace, "annotate", "etcd/a", f"{RESTART}={value}", "--overwrite")


def wait_restarted(etcd: Etcd, before: set[str]) -> None:
    """Wait until all pods are other ones, and all members healthy."""

    def other_ones(pods: dict[str, Manifest]) -> bool:
        uids = {pod["metadata"]["uid"] for pod in pods.values()}
        return set(pods) == MEMBERS and not uids & before and all(map(is_ready_pod, pods.values()))

    etcd.cluster.wait_for(other_ones, "pods", etcd.namespace, labels=etcd.labels, timeout=90, what="other pods")
    etcd.wait_settled()


def uids(etcd: Etcd) -> set[str]:
    return {pod["metadata"]["uid"] for pod in etcd.pods().values()}


def test_the_annotation_restarts_all_members_once(cluster: Cluster, etcd: Etcd) -> None:
    leader = create(etcd)
    before, old = identity(etcd), uids(etcd)
    with writing(etcd) as writers, Restarts(etcd=etcd) as restarts:
        ask_for_restart(etcd, "first")
        wait_restarted(etcd, old)
    restarts.check(last=leader)
    writers.check()
    assert identity(etcd) == before
    old = uids(etcd)
    ask_for_restart(etcd, "first")
    kill_operator(cluster)
    environment.wait_for_operator(cluster)
    etcd.apply()
    etcd.wait_settled()
    assert uids(etcd) == old
    ask_for_restart(etcd, "second")
    wait_restarted(etcd, old)


def upgrade(etcd: Etcd, version: str, *, rounds: int = 1, killed: bool = False) -> None:
    """Upgrade, and check that all members restarted in order, so many times, also when the operator is killed."""
    leader = etcd.status()["leader"]
    with Restarts(etcd=etcd) as restarts:
        etcd.apply(version=version)
        if killed:
            etcd.wait_event("Deleting", "it restarts")
            kill_operator(etcd.cluster)
        seen = etcd.wait_settled()
    if rounds == 1:
        restarts.check(last=leader)
    assert sorted(restarts.order) == sorted([*MEMBERS] * rounds), restarts.order
    assert restarts.most_down == 1
    assert seen["status"]["version"] == version
    assert {member["version"] for member in seen["status"]["members"]} == {version}
    assert set(images(etcd).values()) == {IMAGE + version}


@pytest.mark.parametrize(
    ("old", "rounds"),
    [
        ("3.6.16", {"3.7.3": 1}),
        # What 3.5 logged is in no snapshot yet; 3.7 ends with a panic when it finds that (seen).
        ("3.5.35", {"3.6.16": 1, "3.7.3": 2}),
    ],
)
def test_upgrades_one_right_after_the_other(
    etcd: Etcd, old_etcd_images: None, old: str, rounds: dict[str, int]
) -> None:
    create(etcd, version=old)
    before = identity(etcd)
    with writing(etcd) as writers:
        for version, times in rounds.items():
            upgrade(etcd, version, rounds=times, killed=old == "3.6.16")
    writers.check()
    assert identity(etcd) == before
    assert etcd.read("kept") == "yes"


def test_an_etcd_whose_snapshots_are_old_is_upgraded_as_well(etcd: Etcd, old_etcd_images: None) -> None:
    """There 3.6 does not see that the version was lower before, and saves no snapshot of what 3.5 logged by itself."""
    create(etcd, version="3.5.35", options={"snapshotCount": 10})
    for number in range(15):
        etcd.put(f"k{number}", "x")
    before = identity(etcd)
    etcd.apply(version="3.5.35")  # its members say in the log once more who they are
    etcd.wait_settled()
    upgrade(etcd, "3.6.16")
    upgrade(etcd, "3.7.3", rounds=2)
    assert identity(etcd) == before
    assert etcd.read("kept") == "yes"


def test_going_back_half_way_through_an_upgrade(etcd: Etcd, old_etcd_images: None) -> None:
    create(etcd, version="3.6.16")
    before = identity(etcd)
    with writing(etcd) as writers:
        etcd.apply(version="3.7.3")
        etcd.wait_status(
            lambda told: any(member.get("version") == "3.7.3" for member in told["members"]), what="the first upgraded"
        )
        etcd.apply(version="3.6.16")
        seen = etcd.wait_settled()
    writers.check()
    assert {member["version"] for member in seen["status"]["members"]} == {"3.6.16"}
    assert set(images(etcd).values()) == {IMAGE + "3.6.16"}
    assert identity(etcd) == before
    assert etcd.read("kept") == "yes"


def test_an_operator_killed_in_the_middle_of_a_restart(cluster: Cluster, etcd: Etcd) -> None:
    create(etcd)
    before = identity(etcd)
    with writing(etcd) as writers, Restarts(etcd=etcd) as restarts:
        etcd.apply(options={"quotaBackendBytes": "1Gi"})
        etcd.wait_event("Deleting", "it restarts")
        kill_operator(cluster)
        etcd.wait_settled()
    writers.check()
    restarts.check()
    assert quotas(etcd) == {1024**3}
    assert identity(etcd) == before
