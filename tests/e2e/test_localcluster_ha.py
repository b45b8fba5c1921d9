"""A local cluster with three control planes behind a balancer: any one of them may go.

Uses a cluster of its own (`ha`), which the last test takes down.
"""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from localcluster import balancer, cluster, network, processes, versions
from localcluster.balancer import Balancer
from localcluster.cluster import Cluster
from localcluster.errors import ClusterError
from localcluster.node import running_pid
from localcluster.progress import Progress

NAME = "ha"
#: Seconds for kubectl to be served again after a control plane died: until the balancer has noticed, a good two, until
#: etcd has another leader, and some for a busy machine.
TAKEN_OVER = 20.0

POD = """
apiVersion: v1
kind: Pod
metadata: {name: later}
spec:
  terminationGracePeriodSeconds: 0
  containers:
    - name: main
      image: @IMAGE@
      imagePullPolicy: Never
      command: [sh, -c, "until nslookup kubernetes.default.svc.cluster.local; do sleep 1; done; touch /ok; sleep 3600"]
      readinessProbe: {exec: {command: [cat, /ok]}, periodSeconds: 1}
"""


def kubectl(on: Cluster, *words: str, text: str | None = None) -> str:
    """Run kubectl; fails the test when kubectl fails."""
    done = subprocess.run(on.kubectl.argv(*words), input=text, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, f"kubectl {' '.join(words)}: {done.stderr}"
    return done.stdout


def balancer_of(on: Cluster) -> Balancer:
    found = balancer.of(on.state)
    assert found is not None
    return found


def links() -> set[str]:
    """Names of the cables at the switch, cut or not."""
    listed = ["ip", "-n", network.SWITCH_NETNS, "-br", "link"]
    out = subprocess.run(listed, capture_output=True, text=True, check=False).stdout
    return {line.split("@")[0].split()[0] for line in out.splitlines()}


def etcd_members(on: Cluster, node: str) -> list[str]:
    """Names of the voters of the control planes' etcd, told by the one on that node."""
    pki = "/etc/kubernetes/pki/etcd"
    files = [f"--cacert={pki}/ca.crt", f"--cert={pki}/server.crt", f"--key={pki}/server.key"]
    argv = ["etcdctl", "--endpoints=https://127.0.0.1:2379", *files, "member", "list"]
    lines = kubectl(on, "-n", "kube-system", "exec", f"etcd-{node}", "--", *argv).splitlines()
    return sorted(line.split(", ")[2] for line in lines if line.endswith("false"))


@pytest.fixture(scope="module")
def ha() -> Iterator[Cluster]:
    cluster.remove(NAME)
    yield Cluster.up(NAME, 4, Progress(), control_planes=3)
    cluster.remove(NAME)


def test_three_control_planes_and_a_worker_are_ready_behind_the_balancer(ha: Cluster) -> None:
    assert ha.ailments() == []
    planes = kubectl(ha, "get", "nodes", "-l", "node-role.kubernetes.io/control-plane", "-o", "name").split()
    assert planes == ["node/ha-1", "node/ha-2", "node/ha-3"]
    assert etcd_members(ha, "ha-3") == ["ha-1", "ha-2", "ha-3"]
    (known,) = yaml.safe_load(ha.kubeconfig.read_text())["clusters"]
    assert known["cluster"]["server"] == f"https://{balancer_of(ha).address}:6443"


def test_up_on_healthy_control_planes_changes_nothing(ha: Cluster) -> None:
    record = balancer_of(ha).record.read_text()
    pids = [running_pid(node) for node in ha.nodes]
    again = Cluster.up(NAME, None, Progress(), control_planes=3)
    assert [running_pid(node) for node in again.nodes] == pids
    assert balancer_of(again).record.read_text() == record
    with pytest.raises(ClusterError, match="cannot become 1"):
        Cluster.up(NAME, None, Progress(), control_planes=1)


def test_the_cluster_works_on_without_its_first_control_plane_until_that_is_back(ha: Cluster) -> None:
    ha.stop_node("ha-1")
    assert ha.ailments() == ["node ha-1 is stopped"]
    assert ha.kubectl.answers(TAKEN_OVER)
    kubectl(ha, "apply", "-f", "-", text=POD.replace("@IMAGE@", versions.BUSYBOX_IMAGE))
    kubectl(ha, "wait", "pod/later", "--for=condition=Ready", "--timeout=120s")  # as told by a scheduler, and by DNS
    ha.start_node("ha-1")
    assert Cluster.up(NAME, None, Progress()).ailments() == []
    assert etcd_members(ha, "ha-1") == ["ha-1", "ha-2", "ha-3"]


def test_up_brings_a_balancer_back_that_was_killed(ha: Cluster) -> None:
    pid = processes.running(balancer_of(ha).record, "the balancer")
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    assert ha.ailments() == ["ha-balancer does not run"]
    network.remove_namespace(balancer_of(ha).netns)
    assert Cluster.up(NAME, None, Progress()).ailments() == []


def test_down_leaves_no_balancer_behind(ha: Cluster) -> None:
    balanced = balancer_of(ha)
    assert processes.rooted_in(balanced.root) != []
    assert cluster.remove(NAME)
    assert cluster.leftovers(NAME) == []
    assert processes.rooted_in(balanced.root) == []
    assert not Path(network.NETNS_FOLDER, balanced.netns).exists()
    assert balanced.link not in links()
