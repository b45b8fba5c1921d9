"""The two sides that `hack/bench` compares: an etcd written by hand, and the EtcdCluster that asks for the same.

The first is tests/bench/golden.sh, the whole shape with keys and volumes, kept unaltered. Both leave nothing behind
before the next one starts.
"""

import os
import subprocess

from devtools import kube
from devtools.project import ROOT

GOLDEN = ROOT / "tests" / "bench" / "golden.sh"
VERSION = "3.7.3"
NAMESPACE = "bench"
#: Seconds for either side to stand, or to be gone.
PATIENCE = 300.0


def golden(name: str) -> str:
    """The hand-written manifest under that name; its keys are made here, before the clock starts."""
    done = subprocess.run(
        ["bash", str(GOLDEN), name, f"v{VERSION}"],
        env={**os.environ, "NS": NAMESPACE},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def etcd_cluster(name: str, *, version: str = VERSION) -> kube.Manifest:
    """The EtcdCluster that asks for what the golden manifest holds; its volumes go with it."""
    return {
        "apiVersion": "externaletcd.io/v1alpha1",
        "kind": "EtcdCluster",
        "metadata": {"name": name},
        "spec": {
            "members": 3,
            "version": version,
            "storage": {"size": "1Gi", "storageClassName": "local-path", "deletionPolicy": "Delete"},
            "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}},
        },
    }


def remove_golden(cluster: kube.Cluster, name: str, manifest: str) -> None:
    """Take the golden manifest away, its volumes included; returns before they are gone."""
    cluster.kubectl("delete", "-n", NAMESPACE, "--wait=false", "-f", "-", stdin=manifest)
    for ordinal in range(3):
        cluster.delete("persistentvolumeclaims", NAMESPACE, f"data-{name}-{ordinal}")


def wait_until_clean(cluster: kube.Cluster) -> None:
    """Wait until nothing of a round is left: objects, pods, claims and volumes, so that no round pays for another."""
    for plural in ("etcdclusters", "statefulsets", "pods", "persistentvolumeclaims", "secrets", "services"):
        cluster.wait_until_gone(plural, NAMESPACE, timeout=PATIENCE)

    def no_volumes(volumes: kube.Snapshot) -> bool:
        claims = (volume["spec"].get("claimRef", {}) for volume in volumes.values())
        return all(claim.get("namespace") != NAMESPACE for claim in claims)

    cluster.wait_for(no_volumes, "persistentvolumes", timeout=PATIENCE, what="the volumes gone")
