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
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from localcluster import (
    artifacts,
    balancer,
    cgroups,
    dns_probe,
    external_etcd,
    health,
    imagestore,
    kubeadm,
    limits,
    network,
    processes,
    state,
)
from localcluster import node as machines
from localcluster.addons import addons
from localcluster.addresses import DNS_SERVICE
from localcluster.diagnose import culprit, log_of
from localcluster.errors import ClusterError
from localcluster.external_etcd import ExternalEtcd
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Cluster:
    """A cluster that was brought up (whether it still runs is another matter: `ailments`)."""

    state: ClusterState

    @classmethod
    def up(
        cls,
        name: str = "dev",
        nodes: int | None = None,
        progress: Progress | None = None,
        *,
        control_planes: int | None = None,
        etcd: ExternalEtcd | None = None,
    ) -> Cluster:
        """Make the cluster healthy; a second when it is. `nodes`: at least as it has, None for as many as it has.

        `control_planes` and `etcd`, the one outside that it is to use, are for a new cluster; None for as it is.
        Raises ClusterError, telling which log to read, or artifacts.BuildError.
        """
        progress = progress or Progress()
        state.check(name, nodes, control_planes)
        servers = etcd.servers if etcd else None
        with state.cluster_lock(name), _stopping_on_interrupt():
            found = state.allocate(name, nodes, control_planes=control_planes, etcd_servers=servers)
            if etcd:
                external_etcd.keep(etcd, found)
            cluster = cls(state=found)
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
    def witness(self) -> Node:
        """The first control plane that runs: where to ask, and whom to blame; the first of all when none does."""
        planes = self.nodes[: self.state.control_planes]
        return next((node for node in planes if machines.running_pid(node) is not None), planes[0])

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
        if balanced := balancer.of(self.state):
            wrong += balancer.ailments(balanced, plugged)
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
                files = self._balancer_files(Progress())
                _prepare_machine()
                self._start_balancer(files)
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
        files = self._balancer_files(progress)
        since = _now()
        with progress.step(f"Starting {_count(self.nodes)} of cluster {self.name}", estimate=3):
            _prepare_machine()
            self._start_balancer(files)
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
                if self.state.etcd_servers:
                    external_etcd.end_former_life(self.kubectl, self.nodes, since)
        others = [node for node in others if not node.is_member]
        self._join_control_planes([node for node in others if node.is_control_plane], progress)
        with progress.step("Waiting until nodes, DNS and storage are ready", estimate=8):
            with ThreadPoolExecutor() as pool:
                joining = pool.submit(self._join, [node for node in others if not node.is_control_plane])
                self.kubectl.apply(addons(self.state))
                joining.result()
            self._wait_ready(self.nodes, since)
            self._wait_for_addons({node.name for node in started}, since)

    def _balancer_files(self, progress: Progress) -> Path | None:
        return artifacts.ensure_haproxy_root(progress) if balancer.of(self.state) else None

    def _start_balancer(self, files: Path | None) -> None:
        balanced = balancer.of(self.state)
        if balanced and files:
            balancer.ensure(balanced, files)

    def _start_all(self, programs: Path, pattern: Path) -> list[Node]:
        """Start what does not run, and anew what was never set up (all, when the control plane is missing).

        Where control planes have an etcd each, one that did not finish joining may be a member of it already, without
        which it has no quorum: then all is made anew, too. It never was whole, as no control plane comes later.
        Returns the nodes that were started.
        """
        alone = 1 if self.state.etcd_servers else self.state.control_planes
        lost = not all(node.is_member for node in self.nodes[:alone])
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

    def _join_control_planes(self, fresh: list[Node], progress: Progress) -> None:
        """At once with an etcd outside, else one after the other: etcd takes one new member at a time."""
        if fresh:
            invitation = self._invite(fresh)
            for nodes in [fresh] if self.state.etcd_servers else [[node] for node in fresh]:
                names = " and ".join(node.name for node in nodes)
                with progress.step(f"Setting up another control plane on {names}", estimate=18):
                    _each(nodes, lambda node: kubeadm.join(node, invitation))

    def _join(self, fresh: list[Node]) -> None:
        if fresh:
            invitation = self._invite(fresh)
            _each(fresh, lambda node: kubeadm.join(node, invitation))

    def _invite(self, fresh: list[Node]) -> kubeadm.Invitation:
        """What nodes join with."""
        return kubeadm.invite(self.nodes[0], control_planes=any(node.is_control_plane for node in fresh))

    def _wait_for_api_server(self) -> None:
        """Wait until it answers; where nobody listens, a watch would end at once. Raises ClusterError."""
        fine = self.kubectl.answers(API_TIMEOUT)
        asked = self.witness
        require(fine, "the API server does not answer", culprit(asked) or log_of(asked, "kubelet"))

    def _wait_ready(self, nodes: list[Node], since: datetime.datetime) -> None:
        """Wait until kubelets that started after `since` have reported that they are ready."""
        names = {node.name for node in nodes}
        waited = self.kubectl.watch_until(
            "nodes", done=lambda seen: health.all_ready(seen, names, since), seconds=READY_TIMEOUT
        )
        slow = nodes[-1]
        require(waited, f"not all of {', '.join(sorted(names))} become Ready", culprit(slow) or log_of(slow, "kubelet"))

    def _wait_for_addons(self, started: set[str], since: datetime.datetime) -> None:
        fine = self.kubectl.watch_until(
            "pods", "-A", done=lambda seen: health.addons_run(seen, started, since), seconds=READY_TIMEOUT
        ) and self.kubectl.watch_until(
            "deployments", "-A", done=lambda seen: health.available(seen, health.ADDONS), seconds=READY_TIMEOUT
        )
        require(fine, f"{' or '.join(health.ADDONS)} does not become available", culprit(self.witness))
        if not self._dns_answers(30):
            raise ClusterError("the cluster's DNS Service does not answer", log=self._log_of("coredns"))

    def _log_of(self, program: str) -> Path | None:
        """The log of a program on the first control plane that has one."""
        for node in self.nodes[: self.state.control_planes]:
            with suppress(ClusterError):
                return log_of(node, program)
        return None

    def _dns_answers(self, seconds: float) -> bool:
        """Whether the DNS Service tells a name's address to a control plane's node."""
        probe = [sys.executable, "-I", "-S", dns_probe.__file__, DNS_SERVICE, PROBED_NAME, str(seconds)]
        inside = ["nsenter", f"--net={network.NETNS_FOLDER / self.witness.netns}"]
        return run([*inside, *probe], timeout=seconds + 10, check=False).returncode == 0


def remove(name: str) -> bool:
    """Take a cluster down, whatever shape it is in; False when there was none."""
    found = state.find(name)
    if found is None:
        return False
    with state.cluster_lock(name):
        nodes = machines.nodes_of(found)
        _each(nodes, machines.stop)
        if balanced := balancer.of(found):
            balancer.stop(balanced)
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
    left += [f"process {pid}" for pid in processes.rooted_in(folder)]
    mounts = Path("/proc/self/mountinfo").read_text()
    return left + ([f"mounts below {folder}"] if f"{folder}/" in mounts else [])


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
