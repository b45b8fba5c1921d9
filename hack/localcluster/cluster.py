"""A local cluster as a whole: up, down, and what one does to its nodes in between.

`Cluster.up` brings any state of affairs (nothing, a crash half way, the morning after a reboot) to a healthy cluster:
it looks at what is there and does only what is missing. What is told to a person goes through `Progress`.
"""

from __future__ import annotations

import datetime
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from localcluster import artifacts, cgroups, dns_probe, health, imagestore, kubeadm, limits, network, state, versions
from localcluster import node as machines
from localcluster.addresses import DNS_SERVICE
from localcluster.diagnose import culprit, log_of
from localcluster.errors import ClusterError
from localcluster.kubectl import Kubectl, require
from localcluster.node import Node
from localcluster.progress import Progress
from localcluster.shell import run, stop_all
from localcluster.state import ClusterState

#: Seconds for an API server that was there before to answer again.
API_TIMEOUT = 120.0
#: Seconds for nodes, DNS and storage to be ready once the API server answers.
READY_TIMEOUT = 120.0

#: A name that every cluster has.
PROBED_NAME = "kubernetes.default.svc.cluster.local"

MANIFESTS = Path(__file__).parent / "manifests"


@dataclass(frozen=True, kw_only=True, slots=True)
class Cluster:
    """A cluster that was brought up (whether it still runs is another matter: `ailments`)."""

    state: ClusterState

    @classmethod
    def up(cls, name: str = "dev", nodes: int | None = None, progress: Progress | None = None) -> Cluster:
        """Make the cluster healthy; a second when it is. `nodes`: at least as it has, None for as many as it has.

        Raises ClusterError, telling which log to read, or artifacts.BuildError.
        """
        progress = progress or Progress()
        state.check(name, nodes)
        with state.cluster_lock(name), _stopping_on_interrupt():
            cluster = cls(state=state.allocate(name, nodes))
            if cluster.ailments():
                cluster._mend(progress)
            return cluster

    @classmethod
    def find(cls, name: str) -> Cluster:
        """The cluster of that name. Raises ClusterError where there is none."""
        found = state.find(name)
        if found is None:
            raise ClusterError(f"there is no cluster {name} (hack/cluster list)")
        return cls(state=found)

    @classmethod
    def of_node(cls, node: str) -> Cluster:
        """The cluster that has the node of that name. Raises ClusterError where there is none."""
        name, _, number = node.rpartition("-")
        if not name or not number.isdigit():
            raise ClusterError(f"{node} is no node: they are named CLUSTER-NUMBER, such as dev-1 (hack/cluster list)")
        return cls.find(name)

    @property
    def name(self) -> str:
        return self.state.name

    @property
    def nodes(self) -> list[Node]:
        return machines.nodes_of(self.state)

    @property
    def kubeconfig(self) -> Path:
        return self.state.folder / "kubeconfig"

    @property
    def kubectl(self) -> Kubectl:
        programs = machines.programs_of(self.nodes[0]) or artifacts.ensure_node_programs(Progress())
        return Kubectl(program=programs / "kubectl", kubeconfig=self.kubeconfig)

    def node(self, name: str) -> Node:
        """The node of that name. Raises ClusterError where there is none."""
        for node in self.nodes:
            if node.name == name:
                return node
        raise ClusterError(f"cluster {self.name} has no node {name}, only {', '.join(n.name for n in self.nodes)}")

    def ailments(self) -> list[str]:
        """What is wrong with the cluster, in words; empty when it is healthy."""
        plugged = network.plugged_links()
        wrong = []
        for node in self.nodes:
            if not node.is_member:
                wrong.append(f"node {node.name} is not set up")
            elif machines.running_pid(node) is None:
                wrong.append(f"node {node.name} is stopped")
            elif node.link not in plugged:
                wrong.append(f"node {node.name} is cut off")
        if wrong:
            return wrong
        try:
            items = self.kubectl.get("nodes,deployments,storageclasses", "-A", timeout=3)
        except ClusterError as error:
            return [f"the API server does not answer: {error}"]
        wrong = health.ailments(items, {node.name for node in self.nodes})
        return wrong or ([] if self._dns_answers(1) else ["the cluster's DNS Service does not answer"])

    def load(self, archive: Path) -> None:
        """Put the images of a docker-archive on all nodes; instant for those that have it.

        Nodes that are stopped get it when they start.
        """
        imagestore.remember(archive, self.state)
        with _stopping_on_interrupt():
            self._load_remembered([node for node in self.nodes if machines.running_pid(node) is not None])

    def exec(self, node: str, argv: Sequence[str], *, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run a command inside a node and return what it said and its exit code."""
        return run(machines.command(self.node(node), argv), timeout=timeout, check=False)

    def stop_node(self, name: str) -> None:
        """Power off: everything in the node dies at once; its disk stays."""
        node = self.node(name)
        with state.cluster_lock(self.name):
            machines.stop(node)

    def start_node(self, name: str) -> None:
        """Power on: a node that was stopped comes back as from a reboot; returns when it is Ready."""
        node = self.node(name)
        with state.cluster_lock(self.name), _stopping_on_interrupt():
            if machines.running_pid(node) is None:
                since = _now()
                _prepare_machine()
                machines.start(node, artifacts.ensure_node_programs(Progress()))
                self._load_remembered([node])
                self._wait_for_api_server()
                self._wait_ready([node], since)

    def partition(self, name: str) -> None:
        """Pull the node's cable: it runs on, and reaches nobody."""
        network.cut(self.node(name).link, off=True)

    def heal(self, name: str) -> None:
        """Put the cable back."""
        network.cut(self.node(name).link, off=False)

    def down(self) -> None:
        """Remove the cluster and everything it left on this machine."""
        remove(self.name)

    def _mend(self, progress: Progress) -> None:
        programs = artifacts.ensure_node_programs(progress)
        pattern = imagestore.ensure_pattern(artifacts.ensure_node_images(progress), programs, progress)
        since = _now()
        with progress.step(f"Starting {_count(self.nodes)} of cluster {self.name}", estimate=3):
            _prepare_machine()
            started = self._start_all(programs, pattern)
            self._load_remembered(self.nodes)
        first, *others = self.nodes
        if first.is_member:
            kubeadm.write_kubeconfig(first, self.kubeconfig)
            with progress.step("Waiting for the API server", estimate=10):
                self._wait_for_api_server()
        else:
            with progress.step(f"Setting up the control plane on {first.name}", estimate=8):
                kubeadm.init(first)
                kubeadm.write_kubeconfig(first, self.kubeconfig)
        with progress.step("Waiting until nodes, DNS and storage are ready", estimate=8):
            with ThreadPoolExecutor() as pool:
                joining = pool.submit(self._join, [node for node in others if not node.is_member])
                self.kubectl.apply(addons(first))
                joining.result()
            self._wait_ready(self.nodes, since)
            self._wait_for_addons({node.name for node in started}, since)

    def _start_all(self, programs: Path, pattern: Path) -> list[Node]:
        """Start what does not run, and anew what was never set up (all, when the control plane is missing).

        Returns the nodes that were started.
        """
        lost = not self.nodes[0].is_member
        started = []

        def start(node: Node) -> None:
            if lost or not node.is_member:
                machines.stop(node)
                machines.wipe(node)
            if machines.running_pid(node) is None:
                imagestore.give(pattern, node)
                machines.start(node, programs)
                started.append(node)
            network.plug_in(netns=node.netns, link=node.link, address=node.address, pods=node.pods)

        _each(self.nodes, start)
        return started

    def _load_remembered(self, nodes: list[Node]) -> None:
        archives = imagestore.remembered(self.state)
        _each(nodes, lambda node: [imagestore.load(archive, node) for archive in archives])

    def _join(self, fresh: list[Node]) -> None:
        if fresh:
            how = kubeadm.join_command(self.nodes[0])
            _each(fresh, lambda node: kubeadm.join(node, how))

    def _wait_for_api_server(self) -> None:
        """Wait until it answers; where nobody listens, a watch would end at once. Raises ClusterError."""
        first = self.nodes[0]
        fine = self.kubectl.answers(API_TIMEOUT)
        require(fine, "the API server does not answer", culprit(first) or log_of(first, "kubelet"))

    def _wait_ready(self, nodes: list[Node], since: datetime.datetime) -> None:
        """Wait until kubelets that started after `since` have reported that they are ready."""
        names = {node.name for node in nodes}
        waited = self.kubectl.watch_until(
            "nodes", done=lambda seen: health.all_ready(seen, names, since), seconds=READY_TIMEOUT
        )
        slow = nodes[-1]
        require(waited, f"not all of {', '.join(sorted(names))} become Ready", culprit(slow) or log_of(slow, "kubelet"))

    def _wait_for_addons(self, started: set[str], since: datetime.datetime) -> None:
        first = self.nodes[0]
        fine = self.kubectl.watch_until(
            "pods", "-A", done=lambda seen: health.addons_run(seen, started, since), seconds=READY_TIMEOUT
        ) and self.kubectl.watch_until(
            "deployments", "-A", done=lambda seen: health.available(seen, health.ADDONS), seconds=READY_TIMEOUT
        )
        require(fine, f"{' or '.join(health.ADDONS)} does not become available", culprit(first))
        require(self._dns_answers(30), "the cluster's DNS Service does not answer", log_of(first, "coredns"))

    def _dns_answers(self, seconds: float) -> bool:
        """Whether the DNS Service tells a name's address to the control plane's node."""
        probe = [sys.executable, "-I", "-S", dns_probe.__file__, DNS_SERVICE, PROBED_NAME, str(seconds)]
        inside = ["nsenter", f"--net={network.NETNS_FOLDER / self.nodes[0].netns}"]
        return run([*inside, *probe], timeout=seconds + 10, check=False).returncode == 0


def remove(name: str) -> bool:
    """Take a cluster down, whatever shape it is in; False when there was none."""
    found = state.find(name)
    if found is None:
        return False
    with state.cluster_lock(name):
        nodes = machines.nodes_of(found)
        _each(nodes, machines.stop)
        for node in nodes:
            machines.wipe(node)
        with state.machine_lock():
            machines.wipe_folder(found.folder)
            if not state.find_all():
                network.remove_switch()
                limits.restore_all(state.limits_record())
    return True


def leftovers(name: str) -> list[str]:
    """What is still on this machine of a cluster that was taken down; for tests, and to be sure."""
    prefix = f"{name}-"
    left = [f"namespace {netns}" for netns in network.namespaces() if netns.startswith(f"external-etcd-{prefix}")]
    left += [f"cgroup {node}" for node in (f"{prefix}{n}" for n in range(1, 16)) if cgroups.exists(node)]
    folder = state.clusters_dir() / name
    left += [f"folder {folder}"] if folder.exists() else []
    mounts = Path("/proc/self/mountinfo").read_text()
    return left + ([f"mounts below {folder}"] if f"{folder}/" in mounts else [])


def addons(control_plane: Node) -> str:
    """What every cluster has beside kubeadm's own: DNS and storage."""
    values = {
        "@API_ADDRESS@": control_plane.address,
        "@DNS_SERVICE@": DNS_SERVICE,
        "@COREDNS@": versions.COREDNS_IMAGE,
        "@PROVISIONER@": versions.LOCAL_PATH_IMAGE,
        "@HELPER@": versions.BUSYBOX_IMAGE,
    }
    text = "\n---\n".join((MANIFESTS / name).read_text() for name in ("coredns.yaml", "local-path.yaml"))
    for mark, value in values.items():
        text = text.replace(mark, value)
    return text


def _prepare_machine() -> None:
    """What nodes of all clusters share."""
    with state.machine_lock():
        limits.raise_all(state.limits_record())
        network.ensure_switch()


def _each(nodes: Iterable[Node], action: Callable[[Node], object]) -> None:
    """Do the same on several nodes at once; when one fails, the others still finish."""
    listed = list(nodes)
    with ThreadPoolExecutor(max_workers=max(1, len(listed))) as pool:
        for result in [pool.submit(action, node) for node in listed]:
            result.result()


@contextmanager
def _stopping_on_interrupt() -> Iterator[None]:
    """End what threads wait for when the person gives up, so that they return and locks are released."""
    try:
        yield
    except BaseException:
        stop_all()
        raise


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def _count(nodes: Sequence[Node]) -> str:
    return "the node" if len(nodes) == 1 else f"{len(nodes)} nodes"
