"""The local cluster itself: up, repair, stop, partition, load and down, on real nodes.

Uses clusters of its own (`lab` and `other`), so that what happens here hurts nobody else. The last test takes them
down and compares the machine with what it was before.
"""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from localcluster import artifacts, cgroups, cluster, network, versions
from localcluster.cluster import Cluster
from localcluster.node import running_pid
from localcluster.progress import Progress

ROOT = Path(__file__).parents[2]
#: Seconds for Kubernetes to notice that a node is gone: its grace period, and some for a busy machine.
NOTICE = 60

#: How a cluster's name stands in paths of its folder, in names of namespaces and in paths of cgroups.
PLACES = (("clusters/", "/"), ("external-etcd-", "-"), ("external-etcd/", "-"))

WEB = """
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: web}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: web}
spec:
  serviceName: web
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      nodeSelector: {kubernetes.io/hostname: lab-2}
      terminationGracePeriodSeconds: 0
      containers:
        - name: web
          image: @IMAGE@
          imagePullPolicy: Never
          command: [sh, -c, "[ -e /data/first ] || hostname > /data/first; exec httpd -f -p 8080 -h /data"]
          readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
          volumeMounts: [{name: data, mountPath: /data}]
      volumes: [{name: data, persistentVolumeClaim: {claimName: web}}]
"""


@dataclass(frozen=True)
class Machine:
    """What a cluster could leave behind on this machine."""

    namespaces: set[str]
    links: set[str]
    routes: str
    mounts: set[str]
    cgroups: set[str]
    processes: set[str]
    parameters: dict[str, str]

    @classmethod
    def now(cls) -> "Machine":
        # Others may work on this machine at the same time, so what counts is what bears our names. Processes in a
        # node's containers do not; they are in its cgroups, which can only be removed when they are empty.
        ours = tuple(f"{place}{name}{end}" for name in ("lab", "other") for place, end in PLACES)
        lines = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout.splitlines()
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
        names = ("kernel/panic", "kernel/panic_on_oops", "vm/overcommit_memory", "fs/inotify/max_user_instances")
        return cls(
            namespaces={name for name in network.namespaces() if any(word in name for word in ours)},
            links={path.name for path in Path("/sys/class/net").iterdir()},
            routes=subprocess.run(["ip", "route"], capture_output=True, text=True, check=True).stdout,
            mounts={line for line in mounts if any(word in line for word in ours)},
            cgroups={
                str(path)
                for root, _ in cgroups.this_machine()
                for path in root.glob(f"{cgroups.TOP}/*/")
                if any(word in str(path) for word in ours)
            },
            processes={line for line in lines if any(word in line for word in ours)},
            parameters={name: Path("/proc/sys", name).read_text() for name in names},
        )


def kubectl(on: Cluster, *words: str, text: str | None = None) -> str:
    """Run kubectl; fails the test when kubectl fails."""
    done = subprocess.run(on.kubectl.argv(*words), input=text, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, f"kubectl {' '.join(words)}: {done.stderr}"
    return done.stdout


def nodes_are(on: Cluster, name: str, ready: str) -> None:
    kubectl(on, "wait", f"node/{name}", f"--for=condition=Ready={ready}", f"--timeout={NOTICE}s")


def reaches(on: Cluster, node: str, address: str, *, again: bool = False) -> bool:
    """Whether a TCP connection can be made from inside the node.

    again: the cable was put back just now; a search for the neighbour that began before still fails ("no route").
    """
    host, port = address.rsplit(":", 1)
    script = f"exec 3<>/dev/tcp/{host}/{port}"
    if again:
        script = f"until (exec 3<>/dev/tcp/{host}/{port}) 2>&-; do sleep 0.1; done"
    return on.exec(node, ["timeout", "5", "bash", "-c", script]).returncode == 0


def the_file(on: Cluster, url: str) -> str:
    """What the web server answers, asked from inside the control plane's node."""
    host = url.removeprefix("http://").split("/")[0]
    address, _, port = host.partition(":")
    script = f"exec 3<>/dev/tcp/{address}/{port or 80}; printf 'GET /first HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3"
    done = on.exec(on.nodes[0].name, ["timeout", "10", "bash", "-c", script])
    return done.stdout.splitlines()[-1] if done.returncode == 0 and done.stdout else f"nothing ({done.stderr})"


def serves_again(on: Cluster, url: str) -> bool:
    """Whether the web server is back, once every node has heard of its new address."""
    until = time.monotonic() + 60
    while the_file(on, url) != "web-0":
        if time.monotonic() > until:
            return False
        time.sleep(0.5)
    return True


@pytest.fixture(scope="module")
def before() -> Machine:
    for name in ("lab", "other"):
        cluster.remove(name)
    return Machine.now()


@pytest.fixture(scope="module")
def lab(before: Machine) -> Iterator[Cluster]:
    yield Cluster.up("lab", 2, Progress())
    cluster.remove("lab")


@pytest.fixture(scope="module")
def web(lab: Cluster) -> str:
    """A web server on lab-2 with a volume; gives its Service's address."""
    kubectl(lab, "apply", "-f", "-", text=WEB.replace("@IMAGE@", versions.BUSYBOX_IMAGE))
    served(lab)
    return kubectl(lab, "get", "service", "web", "-o", "jsonpath={.spec.clusterIP}")


def served(on: Cluster) -> None:
    """Wait until the web server's pod of now is ready."""
    kubectl(on, "rollout", "status", "statefulset/web", "--timeout=120s")
    kubectl(on, "wait", "pod/web-0", "--for=condition=Ready", "--timeout=120s")


def test_up_on_a_healthy_cluster_changes_nothing_and_is_little_work(lab: Cluster) -> None:
    pids = [running_pid(node) for node in lab.nodes]
    started = os.times()
    again = Cluster.up("lab", None, Progress())
    # A second on an idle machine. Time spent, not passed: other tests may keep this machine busy.
    assert sum(os.times()[:4]) - sum(started[:4]) < 1.5
    assert again.ailments() == []
    assert [running_pid(node) for node in again.nodes] == pids


def test_the_kubeconfig_is_named_after_the_cluster_and_private(lab: Cluster) -> None:
    config: dict[str, Any] = yaml.safe_load(lab.kubeconfig.read_text())
    assert config["current-context"] == "lab"
    assert lab.kubeconfig.stat().st_mode & 0o077 == 0


def test_commands_run_inside_the_node(lab: Cluster) -> None:
    assert lab.exec("lab-2", ["hostname"]).stdout == "lab-2\n"
    assert "kubelet" in lab.exec("lab-2", ["ps", "-eo", "args"]).stdout
    assert "lab-1" not in lab.exec("lab-2", ["ps", "-eo", "args"]).stdout
    assert lab.exec("lab-2", ["sh", "-c", "exit 3"]).returncode == 3


def test_pods_services_names_and_volumes_work_across_nodes(lab: Cluster, web: str) -> None:
    assert the_file(lab, f"http://{web}") == "web-0"
    pod = kubectl(lab, "get", "pod", "web-0", "-o", "jsonpath={.status.podIP}")
    assert the_file(lab, f"http://{pod}:8080") == "web-0"
    inside = ["exec", "web-0", "--", "wget", "-qO-", "http://web.default.svc.cluster.local/first"]
    assert kubectl(lab, *inside) == "web-0\n"


def test_names_outside_the_cluster_do_not_exist_and_no_packet_has_a_way_out(lab: Cluster, web: str) -> None:
    asked = subprocess.run(
        lab.kubectl.argv("exec", "web-0", "--", "nslookup", "example.com"), capture_output=True, text=True, check=False
    )
    assert "NXDOMAIN" in asked.stdout + asked.stderr
    way = ["ip", "-n", network.SWITCH_NETNS, "route", "get", "203.0.113.1"]
    assert subprocess.run(way, capture_output=True, check=False).returncode != 0


def test_an_image_that_is_loaded_is_on_all_nodes(lab: Cluster) -> None:
    lab.load(artifacts.ensure_etcd_image(versions.ETCD, Progress()))
    for node in lab.nodes:
        assert (
            versions.etcd_image(versions.ETCD)
            in lab.exec(node.name, ["ctr", "-n", "k8s.io", "images", "ls", "-q"]).stdout
        )


def test_a_partitioned_node_runs_on_reaches_nobody_and_comes_back(lab: Cluster) -> None:
    api = f"{lab.nodes[0].address}:6443"
    assert reaches(lab, "lab-2", api)
    lab.partition("lab-2")
    assert not reaches(lab, "lab-2", api)
    assert lab.ailments() == ["node lab-2 is cut off"]
    nodes_are(lab, "lab-2", "Unknown")
    lab.heal("lab-2")
    assert reaches(lab, "lab-2", api, again=True)
    nodes_are(lab, "lab-2", "True")


def test_a_stopped_node_is_gone_at_once_and_its_volumes_outlive_it(lab: Cluster, web: str) -> None:
    lab.stop_node("lab-2")
    assert not cgroups.exists("lab-2")
    assert lab.ailments() == ["node lab-2 is stopped"]
    nodes_are(lab, "lab-2", "Unknown")
    lab.start_node("lab-2")
    served(lab)
    assert serves_again(lab, f"http://{web}")
    assert Cluster.up("lab", None, Progress()).ailments() == []


def test_the_control_planes_node_is_stopped_and_started(lab: Cluster) -> None:
    lab.stop_node("lab-1")
    assert "node lab-1 is stopped" in lab.ailments()
    lab.start_node("lab-1")
    nodes_are(lab, "lab-1", "True")
    served(lab)


def test_up_after_a_crash_of_everything_repairs_and_keeps_the_data(lab: Cluster, web: str) -> None:
    kubectl(lab, "create", "configmap", "kept", "--from-literal=key=value")
    for node in lab.nodes:
        pid = running_pid(node)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        network.remove_namespace(node.netns)
    lab.kubeconfig.unlink()
    assert Cluster.up("lab", None, Progress()).ailments() == []
    assert kubectl(lab, "get", "configmap", "kept", "-o", "jsonpath={.data.key}") == "value"
    served(lab)
    assert the_file(lab, f"http://{web}") == "web-0"


def test_an_interrupted_up_goes_on_when_called_again_and_clusters_reach_each_other(lab: Cluster) -> None:
    argv = [str(ROOT / "hack" / "cluster"), "up", "--name", "other"]
    process = subprocess.Popen(argv, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if "Setting up the control plane" in line:
            break
    process.send_signal(signal.SIGINT)
    rest = process.stderr.read()
    assert process.wait(timeout=60) != 0
    assert "interrupted" in rest
    assert "Traceback" not in rest
    other = Cluster.up("other", None, Progress())
    assert other.ailments() == []
    assert reaches(lab, "lab-2", f"{other.nodes[0].address}:6443")
    assert reaches(other, "other-1", f"{lab.nodes[0].address}:6443")


def test_down_leaves_nothing_behind(lab: Cluster, before: Machine) -> None:
    for name in ("other", "lab"):
        cluster.remove(name)
        assert cluster.leftovers(name) == []
        assert cluster.remove(name) is False
    assert Machine.now() == before
