"""What a storm does to an EtcdCluster: each fault is done, and proved to have taken effect, before it counts.

A fault takes a scene and dice, and returns a sentence about what it did; whatever it cut off is whole again when it
returns. It raises NoEffect, or what the tools that it uses raise, when it was not seen to take effect: in a storm that
happens, as another fault may have been quicker.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random

import requests

from devtools import environment
from devtools.endpoints import Endpoints
from devtools.kube import KubectlError, Snapshot, is_ready_pod
from e2e.support import OPERATOR, Etcd, Manifest, kill_operator
from etcd_operator.etcd.client import EtcdClient
from etcd_operator.etcd.errors import EtcdError
from etcd_operator.etcd.model import Endpoint, MemberReport, hex_id
from etcd_operator.resources.names import REVISION
from localcluster.cluster import Cluster as LocalCluster
from localcluster.errors import ClusterError

#: Seconds for a member to say something of itself.
GLANCE = 0.8
#: Seconds between two looks at what no watch tells: etcd itself.
LOOK = 0.3
#: Seconds for what one failure leads to, and for what is asked of the operator while others fail.
SOON, PATIENCE = 60.0, 90.0
#: A table of packet filter rules in a member's pod: peers' packets come and go no more.
CUT = """
table inet storm {
  chain incoming { type filter hook input priority 0; tcp dport 2380 drop; tcp sport 2380 drop; }
  chain outgoing { type filter hook output priority 0; tcp dport 2380 drop; tcp sport 2380 drop; }
}
"""


class NoEffect(Exception):  # noqa: N818 - not an error: it does not count, that is all
    """The fault was not seen to take effect; the text is why."""


#: What a fault may raise that did not take effect. AssertionError is what `support` and `kube` say of things that are
#: not there (any more), or not in time.
MISSES = (
    NoEffect,
    AssertionError,
    KubectlError,
    ClusterError,
    EtcdError,
    LookupError,
    StopIteration,
    requests.RequestException,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """Where the faults happen. bereft: the members that were made to lose their data, by the ID that they had then."""

    etcd: Etcd
    local: LocalCluster
    endpoints: Endpoints
    bereft: dict[int, str] = field(default_factory=dict)

    def reports(self) -> dict[str, MemberReport]:
        """What members say of themselves now; those that do not answer are missing."""
        return asyncio.run(_reports(dict(self.endpoints.now)))

    def run(self, node: str, script: str) -> str:
        """Run a shell script in a node. Raises NoEffect when it fails."""
        done = self.local.exec(node, ["sh", "-ec", script])
        if done.returncode:
            raise NoEffect(f"on {node}: {(done.stderr or done.stdout).strip()}")
        return done.stdout.strip()

    def until(self, holds: Callable[[dict[str, MemberReport]], bool], what: str, seconds: float) -> None:
        """Ask the members until it holds for their reports. Raises NoEffect when it does not in time."""
        deadline = time.monotonic() + seconds
        while not holds(self.reports()):
            if time.monotonic() > deadline:
                raise NoEffect(f"after {seconds:.0f} s: not {what}")
            time.sleep(LOOK)


async def _reports(endpoints: dict[str, Endpoint]) -> dict[str, MemberReport]:
    async with EtcdClient() as client:

        async def report(endpoint: Endpoint) -> MemberReport | None:
            try:
                return await client.status(endpoint, timeout=GLANCE)
            except EtcdError:
                return None

        said = await asyncio.gather(*map(report, endpoints.values()))
    return {name: each for name, each in zip(endpoints, said, strict=True) if each is not None}


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """One kind of fault."""

    name: str
    strike: Callable[[Scene, Random], str]


def leader_of(reports: dict[str, MemberReport]) -> tuple[str, int]:
    """Who leads in the newest term, and that term. Raises NoEffect where nobody does."""
    leading = {name: report.raft_term for name, report in reports.items() if report.is_leader}
    if not leading:
        raise NoEffect("nobody leads just now")
    name = max(leading, key=lambda each: leading[each])
    return name, leading[name]


def leader_or_any(scene: Scene, dice: Random) -> str:
    """The leader in half of the cases, else any member."""
    if dice.random() < 0.5:
        return leader_of(scene.reports())[0]
    return dice.choice(sorted(scene.etcd.pods()))


# --- failures: what breaks by itself


def kill_pod(scene: Scene, dice: Random) -> str:
    """Delete a member's pod at once, as when a node evicts it without a word."""
    member = dice.choice(sorted(scene.etcd.pods()))
    uid = scene.etcd.kill(member, grace=0)

    def replaced(pods: Snapshot) -> bool:
        return member not in pods or pods[member]["metadata"]["uid"] != uid

    scene.etcd.cluster.wait_for(
        replaced, "pods", scene.etcd.namespace, labels=scene.etcd.labels, timeout=SOON, what=f"{member}'s old pod gone"
    )
    return f"{member}'s pod"


def kill_process(scene: Scene, dice: Random) -> str:
    """Kill a member's etcd; of those that died least often, as Kubernetes makes the others wait ever longer."""
    deaths = {name: _restarts(pod) for name, pod in scene.etcd.pods().items() if is_ready_pod(pod)}
    member = dice.choice(sorted(name for name, count in deaths.items() if count == min(deaths.values())))
    _kill_etcd(scene, member)
    return f"{member}'s etcd"


def kill_leader(scene: Scene, dice: Random) -> str:
    """Kill the etcd that leads; another one is elected, or the same again in a later term."""
    member, term = leader_of(scene.reports())
    _kill_etcd(scene, member)
    scene.until(lambda reports: _elected_since(reports, term), "another election", SOON)
    return f"{member}, which led in term {term}"


def _elected_since(reports: dict[str, MemberReport], term: int) -> bool:
    return any(report.is_leader and report.raft_term > term for report in reports.values())


def _restarts(pod: Manifest) -> int:
    return sum(status["restartCount"] for status in pod["status"].get("containerStatuses", []))


def _kill_etcd(scene: Scene, member: str) -> None:
    """SIGKILL; returns when Kubernetes has another container, or another pod, in its place, or the member is gone."""
    node, container = scene.etcd.container(member)
    scene.run(node, f"ctr -n k8s.io tasks kill -s SIGKILL {container}")

    def another(pods: Snapshot) -> bool:
        statuses = pods.get(member, {}).get("status", {}).get("containerStatuses", [])
        running = [status for status in statuses if "running" in status["state"]]
        return member not in pods or any(container not in status.get("containerID", "") for status in running)

    scene.etcd.cluster.wait_for(
        another, "pods", scene.etcd.namespace, labels=scene.etcd.labels, timeout=SOON, what=f"{member} started again"
    )


def hang(scene: Scene, dice: Random) -> str:
    """Stop a member's etcd in the middle of whatever it does, and let it go on later as if no time had passed."""
    member = leader_or_any(scene, dice)
    node, container = scene.etcd.container(member)
    with _after_all(lambda: scene.run(node, f"ctr -n k8s.io tasks kill -s SIGCONT {container}")):
        scene.run(node, f"ctr -n k8s.io tasks kill -s SIGSTOP {container}")
        seconds = _hold(scene, dice, 4, 9, lambda reports: member not in reports, f"{member} silent")
    return f"{member} for {seconds:.0f} s"


def cut_off_node(scene: Scene, dice: Random) -> str:
    """Pull the network cable of a node with a member, and put it back."""
    member = leader_or_any(scene, dice)
    node = scene.etcd.pods()[member]["spec"]["nodeName"]
    with _after_all(lambda: scene.local.heal(node)):
        scene.local.partition(node)
        seconds = _hold(scene, dice, 6, 14, lambda reports: member not in reports, f"{member} silent")
    # Where the API server is on that node, nothing can be asked before it is back.
    scene.etcd.cluster.wait_for_one(bool, "nodes", None, node, timeout=SOON)
    return f"{node} with {member} for {seconds:.0f} s"


def cut_off_peers(scene: Scene, dice: Random) -> str:
    """Cut a member off from its peers alone: clients still reach it, so it must know by itself what it may not tell."""
    member = leader_or_any(scene, dice)
    pod = scene.etcd.pods()[member]
    node, sandbox = pod["spec"]["nodeName"], _sandbox(scene, pod)
    with _after_all(lambda: scene.run(node, f"{sandbox}nsenter -t $pid -n nft delete table inet storm")):
        scene.run(node, f"{sandbox}nsenter -t $pid -n nft -f - <<'RULES'\n{CUT}RULES\n")
        seconds = _hold(
            scene,
            dice,
            5,
            10,
            lambda reports: member in reports and reports[member].leader_id == 0,
            f"{member} without a leader",
        )
    return f"{member} for {seconds:.0f} s"


def _sandbox(scene: Scene, pod: Manifest) -> str:
    """A script's beginning that sets $pid to the process that holds the pod's network."""
    node, uid = pod["spec"]["nodeName"], pod["metadata"]["uid"]
    own = f'labels."io.kubernetes.pod.uid"=={uid},labels."io.cri-containerd.kind"==sandbox'
    found = scene.run(node, f"ctr -n k8s.io containers ls -q '{own}'")
    return f'pid=$(ctr -n k8s.io tasks ls | awk \'$1 == "{found}" {{ print $2 }}\'); test -n "$pid"; '


@contextmanager
def _after_all(repair: Callable[[], object]) -> Iterator[None]:
    """Repair at the end, whatever happened; what has gone meanwhile needs no repair."""
    try:
        yield
    finally:
        try:
            repair()
        except NoEffect as gone:
            print(f"nothing to repair: {gone}")


def _hold(
    scene: Scene,
    dice: Random,
    least: float,
    most: float,
    shows: Callable[[dict[str, MemberReport]], bool],
    what: str,
) -> float:
    """Let a fault last, at least until it shows; how long it did, in seconds. Raises NoEffect when it never shows."""
    began, seconds = time.monotonic(), dice.uniform(least, most)
    scene.until(shows, what, most)
    time.sleep(max(0.0, began + seconds - time.monotonic()))
    return time.monotonic() - began


def kill_operators(scene: Scene, dice: Random) -> str:
    """Kill the process of the operator that leads, or delete all operators; another leads in the end."""
    cluster = scene.etcd.cluster
    old = _holder(cluster.get("leases", OPERATOR, OPERATOR) or {})
    leader = cluster.get("pods", OPERATOR, environment.leader_pod(cluster) or "none")
    if leader is None:
        raise NoEffect("no operator leads just now")
    if all_ := dice.random() < 0.4:
        kill_operator(cluster)
    else:  # so that it cannot even give up its Lease
        (container,) = (status["containerID"] for status in leader["status"]["containerStatuses"])
        kill = f"ctr -n k8s.io tasks kill --all -s SIGKILL {container.removeprefix('containerd://')}"
        scene.run(leader["spec"]["nodeName"], kill)
    cluster.wait_for_one(
        lambda lease: _holder(lease) not in ("", old), "leases", OPERATOR, OPERATOR, timeout=SOON, what="another leader"
    )
    return "all of them" if all_ else str(leader["metadata"]["name"])


def _holder(lease: Manifest) -> str:
    return str(lease.get("spec", {}).get("holderIdentity") or "")


# --- changes: what is asked of the operator, and data that it must replace


def scale(scene: Scene, size: int) -> str:
    """Ask for that many members, and wait until just those vote."""
    if scene.etcd.get()["spec"]["members"] == size:
        raise NoEffect(f"it has {size} already")
    scene.etcd.scale(size)
    wanted = {f"{scene.etcd.name}-{number}" for number in range(size)}

    def voting(status: Manifest) -> bool:
        members = status.get("members", [])
        return {each["name"] for each in members if each.get("role") == "Voter"} == wanted and len(members) == size

    scene.etcd.wait_status(voting, what=f"{size} voters", timeout=PATIENCE)
    return f"{size} voters"


def restart(scene: Scene, dice: Random) -> str:
    """Ask for a restart in order, and wait until every pod is made anew for it."""
    etcd = scene.etcd
    old = {pod["metadata"]["annotations"].get(REVISION) for pod in etcd.pods().values()}
    etcd.cluster.kubectl(
        *("-n", etcd.namespace, "annotate", f"etcd/{etcd.name}", "--overwrite"),
        f"externaletcd.io/restart={dice.getrandbits(32):08x}",
    )

    def anew(pods: Snapshot) -> bool:
        now = {pod["metadata"]["annotations"].get(REVISION) for pod in pods.values()}
        return len(pods) >= 3 and len(now) == 1 and not now & old

    pods = etcd.cluster.wait_for(
        anew, "pods", etcd.namespace, labels=etcd.labels, timeout=PATIENCE, what="all pods of another revision"
    )
    return f"{len(pods)} pods"


def lose_volume(scene: Scene, dice: Random) -> str:
    """Delete a member's volume and its pod."""

    def strike(member: str) -> None:
        scene.etcd.cluster.delete("persistentvolumeclaims", scene.etcd.namespace, f"data-{member}")
        scene.etcd.kill(member, grace=0)

    return _lose_data(scene, dice, strike)


def lose_directory(scene: Scene, dice: Random) -> str:
    """Empty a member's data directory under it, and kill its etcd."""
    return _lose_data(scene, dice, lambda member: empty(scene.etcd, scene.local, member))


def empty(etcd: Etcd, local: LocalCluster, member: str) -> None:
    """Empty a member's volume under it, and kill its etcd before it can notice."""
    node, container = etcd.container(member)
    folder = etcd.volume_folder(member)
    script = f"rm -rf {folder}/*; ctr -n k8s.io tasks kill -s SIGKILL {container}"
    done = local.exec(node, ["sh", "-ec", script])
    assert done.returncode == 0, done


def _lose_data(scene: Scene, dice: Random, strike: Callable[[str], None]) -> str:
    """Make one member lose its data, while all others have theirs, and wait until another votes in its place."""
    etcd, deadline = scene.etcd, time.monotonic() + SOON
    while not (ids := _intact(scene)):
        if time.monotonic() > deadline:
            raise NoEffect("not every member has its data: two losses at once would be more than three can bear")
        time.sleep(LOOK)
    member = dice.choice(sorted(ids))
    scene.bereft[ids[member]] = member
    strike(member)

    def replaced(status: Manifest) -> bool:
        return any(
            each["name"] == member and each.get("id") != hex_id(ids[member]) and each.get("role") == "Voter"
            for each in status.get("members", [])
        )

    etcd.wait_status(replaced, what=f"{member} replaced", timeout=PATIENCE)
    return f"{member}, which was {hex_id(ids[member])}"


def _intact(scene: Scene) -> dict[str, int]:
    """The member IDs by name, where all that are wanted vote and have their data; empty where that is not so."""
    size, reports = scene.etcd.get()["spec"]["members"], scene.reports()
    voting = {name: report.member_id for name, report in reports.items() if report.leader_id and not report.is_learner}
    return voting if len(voting) == size and not scene.bereft.keys() & set(voting.values()) else {}


FAILURES = (
    Fault(name="pod killed", strike=kill_pod),
    Fault(name="etcd killed", strike=kill_process),
    Fault(name="leader killed", strike=kill_leader),
    Fault(name="etcd hangs", strike=hang),
    Fault(name="node cut off", strike=cut_off_node),
    Fault(name="peers cut off", strike=cut_off_peers),
    Fault(name="operator killed", strike=kill_operators),
)
CHANGES = (
    Fault(name="scaled up", strike=lambda scene, _: scale(scene, 5)),
    Fault(name="scaled down", strike=lambda scene, _: scale(scene, 3)),
    Fault(name="restarted", strike=restart),
    Fault(name="volume lost", strike=lose_volume),
    Fault(name="directory emptied", strike=lose_directory),
)
