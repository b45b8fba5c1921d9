"""The balancer before the API servers of a cluster with several control planes, as kubeadm's guide asks for one.

An HAProxy in a network namespace of its own, plugged into the switch as a node is. It asks each API server whether it
is ready, and sends nobody to one that is not: a control plane that lost its power is taken out within two seconds.
A cluster with a single control plane has none.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from localcluster import haproxy, network, processes
from localcluster.addresses import balancer_address, node_address
from localcluster.errors import ClusterError
from localcluster.node import Node, nodes_of
from localcluster.shell import run
from localcluster.state import ClusterState

#: Where API servers listen, and the balancer before them.
PORT = 6443
#: Seconds for it to listen after it was started.
START_TIMEOUT = 20.0

# Checks: half a second to connect (which is one packet there and back, and TLS), so that one that is silent is out
# after some two seconds; five for the answer of an API server that has much to do. Its etcd does not count: all share
# it, and an etcd that elects a leader is no reason to cut every client off. /readyz may be read by anybody.
# A client that is connected to a dead one would wait for minutes: it is disconnected when the server is taken out.
CONFIG = """\
global
    log stdout format timed daemon notice
    maxconn 4000
    nbthread 1
    uid {user}
    gid {user}

defaults
    log global
    mode tcp
    balance leastconn
    retries 3
    option redispatch 1
    option clitcpka
    option srvtcpka
    timeout connect 500ms
    timeout check 5s
    timeout client 1h
    timeout server 1h

listen api-servers
    bind {address}:{port}
    option httpchk GET /readyz?exclude=etcd&exclude=etcd-readiness
    http-check expect status 200
    default-server check check-ssl verify none inter 500ms fastinter 100ms fall 3 rise 1
    default-server on-marked-down shutdown-sessions
{servers}
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Balancer:
    """The balancer of a cluster."""

    cluster: ClusterState

    @property
    def name(self) -> str:
        return f"{self.cluster.name}-balancer"

    @property
    def address(self) -> str:
        return balancer_address(self.cluster.number)

    @property
    def netns(self) -> str:
        return f"external-etcd-{self.name}"

    @property
    def link(self) -> str:
        """Name of its cable at the switch."""
        return f"c{self.cluster.number}lb"

    @property
    def folder(self) -> Path:
        return self.cluster.folder / "balancer"

    @property
    def root(self) -> Path:
        """What its process sees as /."""
        return self.folder / "root"

    @property
    def record(self) -> Path:
        return self.folder / "process.json"

    @property
    def log(self) -> Path:
        return self.folder / "haproxy.log"


def of(cluster: ClusterState) -> Balancer | None:
    """The cluster's balancer; None for one with a single control plane."""
    return Balancer(cluster=cluster) if cluster.control_planes > 1 else None


def api_address(cluster: ClusterState) -> str:
    """Where the cluster's API is: at its balancer, or else at its only control plane."""
    balancer = of(cluster)
    return balancer.address if balancer else node_address(cluster.number, 1)


def config(balancer: Balancer) -> str:
    """What HAProxy is told."""
    return CONFIG.format(
        user=haproxy.USER,
        address=balancer.address,
        port=PORT,
        servers="\n".join(_servers(nodes_of(balancer.cluster))),
    )


def ailments(balancer: Balancer, plugged: set[str]) -> list[str]:
    """What is wrong with it, in words, given the cables that are `plugged` in."""
    if processes.running(balancer.record, balancer.name) is None:
        return [f"{balancer.name} does not run"]
    if balancer.link not in plugged or balancer.netns not in network.namespaces():
        return [f"{balancer.name} is cut off"]
    return []


def ensure(balancer: Balancer, files: Path) -> None:
    """Start it, from what `artifacts.ensure_haproxy_root` gives, unless it runs and is plugged in. The switch is there.

    Raises ClusterError with its log when it does not come up.
    """
    if ailments(balancer, network.plugged_links()):
        stop(balancer)
        _start(balancer, files)


def stop(balancer: Balancer) -> None:
    """End it and unplug it, as far as it is there."""
    pid = processes.running(balancer.record, balancer.name)
    if pid is not None:
        processes.kill(pid, balancer.name)
    processes.kill_rooted_in(balancer.root, balancer.name)  # of a start that was interrupted before it was recorded
    balancer.record.unlink(missing_ok=True)
    network.unplug(netns=balancer.netns, link=balancer.link, pods=None)


def _servers(nodes: Iterable[Node]) -> list[str]:
    return [f"    server {node.name} {node.address}:{PORT}" for node in nodes if node.is_control_plane]


def _start(balancer: Balancer, files: Path) -> None:
    if balancer.root.exists():
        shutil.rmtree(balancer.root)
    balancer.folder.mkdir(parents=True, exist_ok=True)
    run(["cp", "--archive", "--link", files, balancer.root])  # of its own, as it reads its configuration there
    (balancer.root / "haproxy.cfg").write_text(config(balancer))
    network.plug_in(netns=balancer.netns, link=balancer.link, address=balancer.address, pods=None)
    inside = ["nsenter", f"--net={network.NETNS_FOLDER / balancer.netns}", "chroot", str(balancer.root)]
    with balancer.log.open("ab") as sink:
        process = subprocess.Popen(
            [*inside, haproxy.PROGRAM, "-db", "-f", "/haproxy.cfg"],
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            start_new_session=True,  # it outlives whoever called
            cwd="/",
        )
    processes.write_record(balancer.record, process.pid)
    _wait_until_it_listens(balancer, process)


def _wait_until_it_listens(balancer: Balancer, process: subprocess.Popen[bytes]) -> None:
    """Ask until a connection is taken: HAProxy in the foreground has no other way to tell."""
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection((balancer.address, PORT), timeout=1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise ClusterError(f"{balancer.name} does not start", log=balancer.log)
