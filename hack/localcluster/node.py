"""One node: its folder, its processes, its power switch.

A node is a tree of processes in namespaces of its own (network, mounts, processes, host name, IPC) and in cgroups of
its own; `node_init` is its first process. The folder outlives the processes: starting a node again is a reboot.
Knows containerd and the network, but not Kubernetes.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from localcluster import cgroups, network, node_init, processes, versions
from localcluster.addresses import SWITCH, node_address, node_pods
from localcluster.errors import ClusterError
from localcluster.state import ClusterState

#: Seconds for containerd to answer after the node was started.
START_TIMEOUT = 60.0

CONTAINERD_TOML = """\
version = 3
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.nri.v1.nri", "io.containerd.internal.v1.opt"]
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins."io.containerd.cri.v1.runtime"]
  enable_unprivileged_ports = true
  enable_unprivileged_icmp = true
  disable_apparmor = true
  # Without CAP_SYS_RESOURCE nobody may lower an OOM score, and runc gives up trying.
  restrict_oom_score_adj = true
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["/usr/lib/cni", "/opt/cni/bin"]
    conf_dir = "/run/node/state/cni"
  [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
      SystemdCgroup = false
      BinaryName = "/run/node/programs/runc"
[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "@PAUSE@"
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Node:
    """Node `number` (from 1) of a cluster; the first ones are its control planes."""

    cluster: ClusterState
    number: int

    @property
    def name(self) -> str:
        return f"{self.cluster.name}-{self.number}"

    @property
    def address(self) -> str:
        return node_address(self.cluster.number, self.number)

    @property
    def pods(self) -> str:
        return node_pods(self.cluster.number, self.number)

    @property
    def netns(self) -> str:
        return f"external-etcd-{self.name}"

    @property
    def link(self) -> str:
        """Name of the node's cable at the switch (at most 15 characters are allowed)."""
        return f"c{self.cluster.number}n{self.number}"

    @property
    def is_control_plane(self) -> bool:
        return self.number <= self.cluster.control_planes

    @property
    def folder(self) -> Path:
        return self.cluster.folder / "nodes" / self.name

    @property
    def kubernetes(self) -> Path:
        """The node's /etc/kubernetes."""
        return self.folder / "kubernetes"

    @property
    def logs(self) -> Path:
        return self.folder / "log"

    @property
    def is_member(self) -> bool:
        """Whether kubeadm finished on it."""
        return (self.folder / "member").exists()

    def set_member(self) -> None:
        """Remember that kubeadm finished."""
        (self.folder / "member").touch()


def nodes_of(cluster: ClusterState) -> list[Node]:
    """All nodes of a cluster, the control planes first."""
    return [Node(cluster=cluster, number=number) for number in range(1, cluster.nodes + 1)]


def running_pid(node: Node) -> int | None:
    """Process ID of the node's first process; None when the node does not run.

    One that was killed takes a moment to die, with all that runs in it: that is waited for.
    """
    return processes.running(node.folder / "process.json", f"node {node.name}")


def start(node: Node, programs: Path) -> None:
    """Power on: returns when containerd answers. Raises ClusterError with the log of what failed."""
    stop(node)
    _write_files(node)
    network.plug_in(netns=node.netns, link=node.link, address=node.address, pods=node.pods)
    spec = {
        "name": node.name,
        "address": node.address,
        "gateway": str(SWITCH),
        "netns": str(network.NETNS_FOLDER / node.netns),
        "cgroup_members": [str(path) for path in cgroups.create(node.name)],
        "state": str(node.folder),
        "programs": str(programs),
    }
    (node.folder / "spec.json").write_text(json.dumps(spec, indent=2))
    _launch(node)


def programs_of(node: Node) -> Path | None:
    """The folder of the programs that the node was started with last; None when it never was, or that is gone."""
    try:
        programs = Path(json.loads((node.folder / "spec.json").read_text())["programs"])
    except FileNotFoundError:
        return None
    return programs if programs.exists() else None


def stop(node: Node) -> None:
    """Power off: everything in the node dies at once, and nothing of it but its folder is left."""
    pid = running_pid(node)
    if pid is not None:
        processes.kill(pid, f"node {node.name}")
    (node.folder / "process.json").unlink(missing_ok=True)
    cgroups.remove(node.name)
    network.unplug(netns=node.netns, link=node.link, pods=node.pods)


def wipe(node: Node) -> None:
    """Forget all that a stopped node holds."""
    wipe_folder(node.folder)


def wipe_folder(folder: Path) -> None:
    """Remove a folder and all that is in it, if it is there."""
    if folder.exists():
        shutil.rmtree(folder)


def command(node: Node, argv: Sequence[str]) -> list[str]:
    """The command line that runs `argv` inside the node. Raises ClusterError when the node is stopped."""
    pid = running_pid(node)
    if pid is None:
        raise ClusterError(f"node {node.name} is stopped (hack/cluster start-node {node.name})")
    path = f"{node_init.NODE}/programs:{node_init.NODE}/shims:{os.defpath}:/usr/local/bin:/usr/sbin:/sbin"
    env = ["env", f"PATH={path}", "KUBECONFIG=/etc/kubernetes/admin.conf"]
    return ["nsenter", "-t", str(pid), "-n", "-m", "-u", "-i", "-p", "--wd=/", "--", *env, *argv]


def _write_files(node: Node) -> None:
    for name in ("kubernetes", "var", "tmp", "log", "cni"):
        (node.folder / name).mkdir(parents=True, exist_ok=True)
    (node.folder / "tmp").chmod(0o1777)
    (node.folder / "containerd.toml").write_text(CONTAINERD_TOML.replace("@PAUSE@", versions.PAUSE_IMAGE))
    # ptp, not bridge: every packet is routed, so Services work without br_netfilter. IPAM forgets at a reboot.
    ipam = {
        "type": "host-local",
        "dataDir": "/run/cni-ipam",
        "ranges": [[{"subnet": node.pods}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    plugins = [
        {"type": "ptp", "ipMasq": False, "ipam": ipam},
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ]
    conflist = {"cniVersion": "1.0.0", "name": "pods", "plugins": plugins}
    (node.folder / "cni" / "10-pods.conflist").write_text(json.dumps(conflist, indent=2))


def _launch(node: Node) -> None:
    """Start the first process, in a session of its own so that it outlives whoever called."""
    log = node.logs / "init.log"
    reader, writer = os.pipe()
    argv = [sys.executable, "-I", "-S", node_init.__file__, "outside", str(node.folder / "spec.json"), str(writer)]
    with log.open("ab") as sink:
        subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            pass_fds=[writer],
            start_new_session=True,
            cwd="/",
        )
    os.close(writer)
    said = b""
    try:
        while b"ready\n" not in said:
            if not select.select([reader], [], [], START_TIMEOUT)[0]:
                raise ClusterError(
                    f"containerd on {node.name} did not answer within {START_TIMEOUT:.0f} s",
                    log=node.logs / "containerd.log",
                )
            chunk = os.read(reader, 4096)
            if not chunk:
                raise ClusterError(f"node {node.name} did not start", log=log)
            said += chunk
            if said.startswith(b"pid ") and b"\n" in said:
                processes.write_record(node.folder / "process.json", int(said.split()[1]))
    finally:
        os.close(reader)
