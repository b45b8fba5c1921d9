"""`hack/demo`: from a bare machine to an etcd that serves, survives and refuses nonsense, in front of one's eyes.

Every command that it shows is the one that it runs. It leaves everything running.
"""

import argparse
import shlex
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import yaml

from devtools import environment, feed, kube
from devtools.project import OPERATOR, SAMPLES
from devtools.screen import MemberLine, Screen
from localcluster.progress import Progress

CLUSTER = "demo"
NAMESPACE = "etcd-demo"
SAMPLE = SAMPLES / "etcdcluster-minimal.yaml"

#: The names in a Secret and never what it holds: a screen is no place for a private key.
SECRET_KEYS = """{{range $key, $_ := .data}}{{$key}} {{end}}"""

#: Seconds for a member set to become healthy; an image may have to be pulled on a cluster that the user has.
READY_TIMEOUT = 300.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """Where the demo plays."""

    screen: Screen
    cluster: kube.Cluster
    etcd: str

    def kubectl(self, *arguments: str, stdin: str | None = None, show: bool = True) -> str:
        """Run kubectl in the demo's namespace, showing the command and its answer."""
        if show:
            self.screen.command(shlex.join(["kubectl", "-n", NAMESPACE, *arguments]))
        answer = self.cluster.kubectl("-n", NAMESPACE, *arguments, stdin=stdin)
        if show:
            self.screen.answer(answer)
        return answer


def set_stage(options: argparse.Namespace, screen: Screen) -> Stage:
    """A cluster with the operator in it: the local one, or the user's own."""
    etcd = str(yaml.safe_load(SAMPLE.read_text())["metadata"]["name"])
    if options.kubeconfig:
        screen.heading("1. The operator, into the cluster that you have")
        cluster = kube.Cluster(options.kubeconfig)
        image = options.image
    else:
        screen.heading("1. A local Kubernetes, and the operator in it")
        progress = Progress()
        screen.command(f"hack/cluster up --name {options.name} --nodes {options.nodes or environment.NODES}")
        local = environment.local_cluster(options.name, options.nodes, progress)
        cluster = kube.Cluster(local.kubeconfig)
        image = options.image or environment.load_images(local, progress)
        screen.answer(cluster.kubectl("get", "nodes"))
    screen.command(f"kubectl apply -f deploy/install.yaml   # with image {image}")
    environment.install(cluster, image)
    screen.answer(cluster.kubectl("get", "pods", "-n", OPERATOR))
    return Stage(screen=screen, cluster=cluster, etcd=etcd)


def create(stage: Stage) -> None:
    """Apply the sample and show the members appear."""
    stage.screen.heading("2. An etcd: three members, TLS, volumes")
    stage.screen.answer(SAMPLE.read_text())
    environment.make_namespace(stage.cluster, NAMESPACE)
    started = time.monotonic()
    stage.kubectl("apply", "-f", environment.relative(SAMPLE))
    watch_members(stage)
    stage.cluster.wait_for_one(bool, "secrets", NAMESPACE, f"{stage.etcd}-client", timeout=60)
    stage.screen.remark(
        f"All members healthy, client Secret published: {time.monotonic() - started:.1f} s after apply."
    )
    stage.kubectl("get", "etcd")


def watch_members(stage: Stage, *, gone: str = "") -> None:
    """Show the members until all are healthy; `gone` is the uid of a pod that must be replaced first.

    Raises kube.Timeout with the last status when that takes too long.
    """
    status = ""
    with stage.screen.members() as board:
        for picture in feed.follow(
            stage.cluster.kubeconfig, ["pods", "etcdclusters"], NAMESPACE, timeout=READY_TIMEOUT
        ):
            etcd = picture.get("etcdclusters", {}).get(stage.etcd)
            if etcd is None or "pods" not in picture:
                continue
            pods = members_of(picture["pods"], stage.etcd)
            status = str(etcd.get("status", {}).get("summary", ""))
            board.show({name: member_line(pod, etcd) for name, pod in pods.items()}, status)
            replaced = all(pod["metadata"]["uid"] != gone for pod in pods.values())
            ready = len(pods) == etcd["spec"]["members"] and all(map(kube.is_ready_pod, pods.values()))
            if replaced and ready and environment.is_available(etcd):
                return
    raise kube.Timeout(f"not healthy after {READY_TIMEOUT:g} s; status: {status or 'none yet'}")


def members_of(pods: kube.Snapshot, etcd: str) -> kube.Snapshot:
    """The pods that are members of an EtcdCluster, by the labels that the operator gives them."""
    wanted = {"app.kubernetes.io/name": "etcd", "externaletcd.io/cluster": etcd}.items()
    return {name: pod for name, pod in pods.items() if wanted <= pod["metadata"].get("labels", {}).items()}


def member_line(pod: kube.Manifest, etcd: kube.Manifest) -> MemberLine:
    """One member's line: what etcd's status says of it once it is up, what its pod says until then."""
    name, node = pod["metadata"]["name"], pod["spec"].get("nodeName", "")
    if "deletionTimestamp" in pod["metadata"]:
        return MemberLine(node=node, state="stopping")
    told: kube.Manifest = next(
        (one for one in etcd.get("status", {}).get("members", []) if one.get("name") == name), {}
    )
    if kube.is_ready_pod(pod) and told.get("healthy"):
        leads = ", leader" if etcd["status"].get("leader") == name else ""
        return MemberLine(node=node, state=f"{told.get('role', 'Voter')}, healthy{leads}", healthy=True)
    if kube.is_ready_pod(pod):
        return MemberLine(node=node, state=f"not healthy: {told.get('reason') or 'joining'}")
    return MemberLine(node=node, state=waiting_reason(pod) or pod["status"].get("phase", "Pending").lower())


def waiting_reason(pod: kube.Manifest) -> str:
    """What a pod's container waits for, in Kubernetes' word; "starting" once it runs; empty where neither is known."""
    for container in pod["status"].get("containerStatuses", []):
        if waiting := container["state"].get("waiting"):
            return str(waiting.get("reason", ""))
        if "running" in container["state"]:
            return "starting"
    return ""


def write_and_read(stage: Stage) -> None:
    """Put and get a key over TLS, with nothing but the client Secret."""
    stage.screen.heading("3. A key, over TLS, with the client Secret")
    stage.kubectl("get", "secret", f"{stage.etcd}-client", "-o", f"go-template={SECRET_KEYS}")
    stage.screen.command("kubectl apply -f docs/etcdctl.yaml   # a pod that mounts the Secret")
    stage.kubectl("apply", "-f", "-", stdin=environment.etcdctl_pod(stage.etcd), show=False)
    pod = f"{stage.etcd}-etcdctl"
    stage.cluster.wait_for_one(kube.is_ready_pod, "pods", NAMESPACE, pod, timeout=READY_TIMEOUT)
    stage.kubectl("exec", pod, "--", "etcdctl", "put", "greeting", "hello")
    stage.kubectl("exec", pod, "--", "etcdctl", "get", "greeting")


def refuse_even(stage: Stage) -> None:
    """Ask for four members and be refused."""
    stage.screen.heading("4. Four members? The API server refuses, and says why")
    arguments = ["-n", NAMESPACE, "scale", f"etcd/{stage.etcd}", "--replicas=4"]
    stage.screen.command(shlex.join(["kubectl", *arguments]))
    done = stage.cluster.try_kubectl(*arguments)
    if not done.returncode:
        raise AssertionError("four members were accepted")
    stage.screen.answer(done.stderr)


def kill_a_pod(stage: Stage) -> None:
    """Kill the leader's pod, show it come back, and that nothing was lost."""
    etcd = stage.cluster.get("etcdclusters", NAMESPACE, stage.etcd) or {}
    victim = etcd["status"].get("leader") or f"{stage.etcd}-0"
    stage.screen.heading(f"5. Kill {victim}, the leader")
    pod = stage.cluster.get("pods", NAMESPACE, victim) or {}
    started = time.monotonic()
    stage.kubectl("delete", "pod", victim, "--wait=false")
    watch_members(stage, gone=pod["metadata"]["uid"])
    stage.screen.remark(f"Back, all members healthy: {time.monotonic() - started:.1f} s after the kill.")
    stage.kubectl("exec", f"{stage.etcd}-etcdctl", "--", "etcdctl", "get", "greeting")


def farewell(stage: Stage, options: argparse.Namespace) -> None:
    """The state it is left in, and what to try next."""
    stage.screen.heading("It keeps running. Try next:")
    kubeconfig = options.kubeconfig or f"$(hack/cluster kubeconfig --name {options.name})"
    stage.screen.answer(
        f"export KUBECONFIG={kubeconfig}\n"
        f"kubectl -n {NAMESPACE} get etcd -w\n"
        f"kubectl -n {NAMESPACE} describe etcd {stage.etcd}\n"
        f"kubectl -n {NAMESPACE} exec {stage.etcd}-etcdctl -- etcdctl endpoint status --cluster -w table"
    )
    if not options.kubeconfig:
        stage.screen.remark(f"And when you have seen enough: hack/cluster down --name {options.name}")


def main(argv: list[str] | None = None) -> int:
    """Play the demo; 0 when everything happened as shown."""
    parser = argparse.ArgumentParser(
        prog="hack/demo", description="See the operator work, on a local Kubernetes or on yours."
    )
    parser.add_argument("--kubeconfig", type=Path, help="use this cluster instead of a local one")
    parser.add_argument("--image", help="use this operator image, which the cluster can pull or has")
    parser.add_argument("--name", default=CLUSTER, help="the local cluster's name (%(default)s)")
    parser.add_argument("--nodes", type=int, help="the local cluster's nodes (three)")
    options = parser.parse_args(argv)
    if options.kubeconfig and not options.image:
        parser.error("--kubeconfig needs --image: which operator image can that cluster pull?")
    if options.kubeconfig and shutil.which("kubectl") is None:
        parser.error("kubectl is not on PATH")
    screen = Screen()
    try:
        stage = set_stage(options, screen)
        for act in (create, write_and_read, refuse_even, kill_a_pod):
            act(stage)
        farewell(stage, options)
    except (AssertionError, *environment.FAILURES) as error:
        print(f"hack/demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
