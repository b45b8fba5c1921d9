"""Where the tests, the demo and the bench run: a local cluster with the operator installed as a user would.

The operator gets exactly what deploy/ gives it; only the image's name is replaced. Waiting is done on watches.
"""

import os
import time
from pathlib import Path

import yaml

from devtools import kube, manifests
from devtools.project import DEPLOY, OPERATOR, ROOT
from etcd_operator.api import GROUP
from localcluster import artifacts
from localcluster.cluster import Cluster as LocalCluster
from localcluster.errors import ClusterError
from localcluster.progress import Progress

#: Where local clusters' API servers are (localcluster.addresses): reached directly, whatever proxy this machine has.
LOCAL_ADDRESSES = "198.18.0.0/15"
#: Enough to spread three members.
NODES = 3
#: What can go wrong on the way, each with a message for the person at the terminal.
FAILURES = (ClusterError, artifacts.BuildError, kube.KubectlError, kube.Timeout)
#: Seconds that an operator may take from `kubectl apply` to all replicas ready.
INSTALL_TIMEOUT = 120.0


def local_cluster(name: str, nodes: int | None, progress: Progress) -> LocalCluster:
    """The local cluster of that name, up and healthy, with kubectl on this process's PATH.

    `nodes`: None takes the cluster as large as it is, three nodes where there is none. Raises what `FAILURES` lists.
    """
    folder = artifacts.ensure_kubectl(progress).parent
    if str(folder) not in os.environ["PATH"].split(os.pathsep):
        os.environ["PATH"] = f"{folder}{os.pathsep}{os.environ['PATH']}"
    for variable in ("NO_PROXY", "no_proxy"):
        os.environ[variable] = ",".join(filter(None, (os.environ.get(variable), LOCAL_ADDRESSES)))
    if nodes is None and not exists(name):
        nodes = NODES
    return LocalCluster.up(name, nodes, progress)


def exists(name: str) -> bool:
    """Whether there is a local cluster of that name, in whatever state."""
    try:
        LocalCluster.find(name)
    except ClusterError:
        return False
    return True


def load_images(local: LocalCluster, progress: Progress) -> str:
    """Bring the operator, built from the checkout, and the proxy to all nodes; returns the operator's image."""
    image, archive = artifacts.ensure_operator_image(progress)
    local.load(archive)
    local.load(artifacts.ensure_haproxy_image(progress))
    return image


def install(cluster: kube.Cluster, image: str, *, flavour: str = "install.yaml", namespace: str = OPERATOR) -> None:
    """Apply an install manifest with that image, into that namespace, and wait until every replica is ready."""
    wanted = list(manifests.documents((DEPLOY / flavour).read_text()))
    text = yaml.safe_dump_all(manifests.with_operator_image(wanted, image))
    cluster.apply(text.replace(f"namespace: {OPERATOR}\n", f"namespace: {namespace}\n"))
    wait_for_operator(cluster, namespace=namespace)
    wait_until_listed(cluster)


def wait_until_listed(cluster: kube.Cluster) -> None:
    """Wait until kubectl finds the kinds: what it looks them up in is some seconds behind on a slow machine (seen).

    Raises kube.Timeout. There is nothing to watch for it, so ask again.
    """
    deadline = time.monotonic() + INSTALL_TIMEOUT
    while f'"{GROUP}"' not in cluster.request("GET", "/apis").text:
        if time.monotonic() > deadline:
            raise kube.Timeout(f"the API server does not list {GROUP}")
        time.sleep(0.2)


def wait_for_operator(cluster: kube.Cluster, *, namespace: str = OPERATOR, timeout: float = INSTALL_TIMEOUT) -> None:
    """Wait until the newest version of the operator runs with every replica ready and nothing older beside it."""
    cluster.wait_for_one(
        rolled_out, "deployments", namespace, OPERATOR, timeout=timeout, what="the operator rolled out"
    )


def rolled_out(deployment: kube.Manifest) -> bool:
    """What `kubectl rollout status` waits for."""
    status, wanted = deployment.get("status", {}), deployment["spec"]["replicas"]
    seen = status.get("observedGeneration", 0) >= deployment["metadata"]["generation"]
    counts = (status.get(key, 0) for key in ("replicas", "updatedReplicas", "availableReplicas"))
    return seen and all(count == wanted for count in counts)


def make_namespace(cluster: kube.Cluster, name: str, *, timeout: float = 120.0) -> None:
    """A namespace that enforces restricted Pod Security, as production does; one that is going is waited for first."""
    found = cluster.get("namespaces", None, name)
    if found and "deletionTimestamp" in found["metadata"]:
        cluster.wait_until_gone("namespaces", None, name=name, timeout=timeout)
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})


def leader_pod(cluster: kube.Cluster, *, namespace: str = OPERATOR) -> str:
    """The operator's pod that leads now, as its Lease says; empty where none does."""
    lease = cluster.get("leases", namespace, OPERATOR)
    holder = str((lease or {}).get("spec", {}).get("holderIdentity") or "")
    pods = (
        pod["metadata"]["name"] for pod in cluster.list("pods", namespace, labels=f"app.kubernetes.io/name={OPERATOR}")
    )
    return next((pod for pod in pods if holder.startswith(pod)), "")


def operator_metrics(cluster: kube.Cluster, pod: str, *, namespace: str = OPERATOR) -> str:
    """What an operator pod's /metrics says, through the API server, so that it works on any cluster."""
    path = f"{kube.path_of('pods', namespace)}/{pod}:8080/proxy/metrics"
    response = cluster.request("GET", path)
    response.raise_for_status()
    return response.text


def is_available(etcd: kube.Manifest) -> bool:
    """Whether an EtcdCluster has every member healthy and says so about its newest spec."""
    status, wanted = etcd.get("status", {}), etcd["spec"]["members"]
    healthy = sum(1 for member in status.get("members", []) if member.get("healthy"))
    return kube.is_true(etcd, "Available") and status.get("readyMembers") == wanted == healthy


def etcdctl_pod(etcd: str) -> str:
    """The manifest of docs/etcdctl.yaml for an EtcdCluster of that name."""
    text = (ROOT / "docs" / "etcdctl.yaml").read_text()
    return text.replace("sample-client", f"{etcd}-client").replace("name: etcdctl\nspec", f"name: {etcd}-etcdctl\nspec")


def relative(path: Path) -> str:
    """A path as one would type it in the checkout."""
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)
