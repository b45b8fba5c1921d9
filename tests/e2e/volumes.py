"""Volumes for the tests' clusters without a pod for each: folders of the nodes, made and removed from outside.

local-path-provisioner, the local cluster's own, starts one pod to make a volume and one to remove it; these are two of
three pods that start in a test, and a machine of two cores has little else to do. What is made here is the same: a
PersistentVolume on a path of the node that the scheduler chose, kept or deleted as its reclaim policy says
(the protocol of external provisioners: kubernetes-sigs/sig-storage-lib-external-provisioner). The tests of storage, of
mistakes about it and of the local cluster use local-path.
"""

import shutil
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import requests

from devtools import kube
from devtools.kube import Cluster, Manifest, Snapshot
from localcluster.cluster import Cluster as LocalCluster

CLASS = "test-folders"
PROVISIONER = "folders.test"
SELECTED_NODE = "volume.kubernetes.io/selected-node"
PROVISIONED_BY = "pv.kubernetes.io/provisioned-by"
DEFAULT = "storageclass.kubernetes.io/is-default-class"
#: Where folders lie on a node; beside those of local-path.
PLACE = "/var/lib/local-pv"
#: Seconds that one round of watches takes at the most.
ROUND = 600.0


class Volumes:
    """Makes and deletes the volumes of one local cluster from now on; its class is the default one meanwhile."""

    def __init__(self, cluster: Cluster, local: LocalCluster) -> None:
        self._cluster, self._local, self._over = cluster, local, threading.Event()
        cluster.apply(storage_class())
        self._make_default(CLASS, instead_of="local-path")
        for plural, sight in (("persistentvolumeclaims", self._see_claims), ("persistentvolumes", self._see_volumes)):
            threading.Thread(target=self._follow, args=(plural, sight), daemon=True, name=plural).start()

    def close(self) -> None:
        """Make no further volumes: local-path is the default again."""
        self._over.set()
        self._make_default("local-path", instead_of=CLASS)

    def _make_default(self, name: str, *, instead_of: str) -> None:
        for each, value in ((instead_of, "false"), (name, "true")):
            self._cluster.kubectl("annotate", "storageclass", each, f"{DEFAULT}={value}", "--overwrite")

    def _follow(self, plural: str, sight: Callable[[Cluster, Snapshot], None]) -> None:
        cluster = self._cluster.apart()
        while not self._over.is_set():
            for seen in cluster.snapshots(plural, timeout=ROUND):
                if self._over.is_set():
                    return
                with suppress(requests.RequestException):  # the next change, or the next round, tries again
                    sight(cluster, seen)

    def _see_claims(self, cluster: Cluster, seen: Snapshot) -> None:
        for claim in seen.values():
            node = claim["metadata"].get("annotations", {}).get(SELECTED_NODE)
            pending = claim["status"].get("phase") == "Pending" and "volumeName" not in claim["spec"]
            if node and pending and claim["spec"].get("storageClassName") == CLASS:
                volume = volume_for(claim, node)
                self._folder(volume).mkdir(mode=0o777, exist_ok=True)
                self._folder(volume).chmod(0o777)  # whatever the umask is
                made = cluster.request("POST", kube.path_of("persistentvolumes", None), json=volume)
                if made.status_code != requests.codes.conflict:
                    made.raise_for_status()

    def _see_volumes(self, cluster: Cluster, seen: Snapshot) -> None:
        for volume in seen.values():
            spec = volume["spec"]
            over = volume["status"].get("phase") == "Released" and spec["persistentVolumeReclaimPolicy"] == "Delete"
            if over and spec.get("storageClassName") == CLASS and "deletionTimestamp" not in volume["metadata"]:
                shutil.rmtree(self._folder(volume), ignore_errors=True)
                cluster.delete("persistentvolumes", None, volume["metadata"]["name"])

    def _folder(self, volume: Manifest) -> Path:
        """The volume's folder as this machine sees it."""
        path: str = volume["spec"]["hostPath"]["path"]
        return self._local.node(node_of(volume)).folder / path.lstrip("/")


def storage_class() -> Manifest:
    """What claims name."""
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": CLASS},
        "provisioner": PROVISIONER,
        "volumeBindingMode": "WaitForFirstConsumer",
        "reclaimPolicy": "Delete",
    }


def volume_for(claim: Manifest, node: str) -> Manifest:
    """The volume of a claim on a node."""
    metadata = claim["metadata"]
    name = f"pvc-{metadata['uid']}"
    hostname = {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name, "annotations": {PROVISIONED_BY: PROVISIONER}},
        "spec": {
            "capacity": {"storage": claim["spec"]["resources"]["requests"]["storage"]},
            "accessModes": claim["spec"]["accessModes"],
            "persistentVolumeReclaimPolicy": "Delete",
            "storageClassName": CLASS,
            "claimRef": {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "namespace": metadata["namespace"],
                "name": metadata["name"],
                "uid": metadata["uid"],
            },
            "hostPath": {"path": f"{PLACE}/{name}", "type": "Directory"},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [hostname]}]}},
        },
    }


def node_of(volume: Manifest) -> str:
    """The node that a volume is on."""
    (term,) = volume["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"]
    (expression,) = term["matchExpressions"]
    (node,) = expression["values"]
    return str(node)
