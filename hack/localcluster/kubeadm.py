"""kubeadm on the nodes: what it is told, and running it.

Real kubeadm makes a real cluster; where its defaults aim at machines that run for years, these aim at a cluster that
is up in seconds and notices a dead node soon. Why each differs is said beside it.
"""

from __future__ import annotations

import itertools
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from localcluster import balancer, external_etcd, versions
from localcluster.addresses import DNS_SERVICE, SERVICES, cluster_pods, node_address
from localcluster.cgroups import TOP
from localcluster.diagnose import culprit
from localcluster.errors import ClusterError
from localcluster.node import Node, command
from localcluster.node_init import NODE
from localcluster.shell import run
from localcluster.state import ClusterState

#: Seconds for kubeadm to finish.
TIMEOUT = 240.0
#: Only kubeadm and the shims that start the kubelet: with a systemctl in reach it would insist on systemd.
KUBEADM_PATH = f"{NODE}/programs:{NODE}/shims"
# Kubeadm's first call is also its wait for an API server that the kubelet only now starts (kubeadm's
# EnsureAdminClusterRoleBinding): 1 m by default, too little for a slow or busy machine.
_TIMEOUTS = {"kubernetesAPICall": f"{TIMEOUT - 30:.0f}s"}  # ends before us, to tell what it waited for


def init_config(node: Node, certificate_key: str = "") -> str:
    """What `kubeadm init` is told.

    `certificate_key`: 64 hex digits that the certificates are encrypted with, on their way to other control planes.
    """
    init: dict[str, Any] = {
        "apiVersion": "kubeadm.k8s.io/v1beta4",
        "kind": "InitConfiguration",
        "localAPIEndpoint": _api_endpoint(node),
        "nodeRegistration": _registration(node),
        "patches": {"directory": "/etc/kubernetes/patches"},
        "timeouts": _TIMEOUTS,
        # kubelet-finalize restarts the kubelet for a certificate that rotates; this one is good for a year.
        "skipPhases": ["preflight", "addon/coredns", "kubelet-finalize"],
    }
    if certificate_key:
        init["certificateKey"] = certificate_key
    proxy = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "conntrack": {"maxPerCore": 0},  # that limit belongs to the whole machine
    }
    return yaml.safe_dump_all([init, _cluster_config(node.cluster), _kubelet_config(), proxy])


def _cluster_config(state: ClusterState) -> dict[str, Any]:
    # A single control plane has nobody to elect, and after a restart nobody's lease to wait for.
    alone = {"leader-elect": "false"} if state.control_planes == 1 else {}
    planes = [node_address(state.number, number) for number in range(1, state.control_planes + 1)]
    balanced = balancer.of(state)
    cluster: dict[str, Any] = {
        "apiVersion": "kubeadm.k8s.io/v1beta4",
        "kind": "ClusterConfiguration",
        "clusterName": state.name,
        "kubernetesVersion": f"v{versions.KUBERNETES}",
        "encryptionAlgorithm": "ECDSA-P256",  # made in no time; RSA keys take seconds
        "dns": {"imageTag": versions.COREDNS_TAG},
        "networking": {"podSubnet": cluster_pods(state.number), "serviceSubnet": SERVICES},
        "etcd": _etcd(state),
        "apiServer": {"certSANs": [*planes, *([balanced.address] if balanced else []), "localhost", "127.0.0.1"]},
        "controllerManager": {
            "extraArgs": _arguments(
                {
                    **alone,
                    "node-monitor-grace-period": "16s",  # 50 s by default: a stopped node is noticed soon
                    "node-monitor-period": "2s",
                    "allocate-node-cidrs": "false",  # ours follow from the node's number
                    # At 20 requests a second it takes 10 s to start its controllers and create the first pods.
                    "kube-api-qps": "300",
                    "kube-api-burst": "600",
                    "flex-volume-plugin-dir": "/var/lib/kubelet/volumeplugins",
                }
            )
        },
        "scheduler": {"extraArgs": _arguments(alone)},
    }
    if balanced:
        cluster["controlPlaneEndpoint"] = f"{balanced.address}:{balancer.PORT}"
    return cluster


def _etcd(state: ClusterState) -> dict[str, Any]:
    if state.etcd_servers:
        return {"external": external_etcd.kubeadm_section(state.etcd_servers)}
    return {
        "local": {
            "imageTag": versions.ETCD_TAG,
            # Nothing in this cluster needs to outlive a power cut of the machine; bootstrapping is twice as fast.
            "extraArgs": _arguments({"unsafe-no-fsync": "true"}),
        }
    }


@dataclass(frozen=True, kw_only=True, slots=True)
class Invitation:
    """With what another node joins."""

    #: Where the API is, as HOST:PORT.
    endpoint: str
    token: str
    ca_hash: str
    #: For control planes: what the certificates in the cluster are encrypted with.
    certificate_key: str = ""


def join_config(node: Node, invitation: Invitation) -> str:
    """What `kubeadm join` is told."""
    discovery = {
        "apiServerEndpoint": invitation.endpoint,
        "token": invitation.token,
        "caCertHashes": [invitation.ca_hash],
    }
    join = {
        "apiVersion": "kubeadm.k8s.io/v1beta4",
        "kind": "JoinConfiguration",
        "discovery": {"bootstrapToken": discovery},
        "nodeRegistration": _registration(node),
        "patches": {"directory": "/etc/kubernetes/patches"},
        "skipPhases": ["preflight"],
    }
    if node.is_control_plane:
        join["controlPlane"] = {"localAPIEndpoint": _api_endpoint(node), "certificateKey": invitation.certificate_key}
        join["timeouts"] = _TIMEOUTS
    return yaml.safe_dump(join)


def init(node: Node) -> None:
    """Make the node a control plane that also runs pods."""
    external_etcd.give(node)
    _prepare(node, init_config(node))
    _kubeadm(node, "init")
    node.set_member()


def invite(control_plane: Node, *, control_planes: bool) -> Invitation:
    """Let nodes join, `control_planes` among them: those need the certificates of the one that is there."""
    key = _upload_certificates(control_plane) if control_planes else ""
    argv = ["env", f"PATH={KUBEADM_PATH}", "kubeadm", "token", "create", "--print-join-command"]
    words = run(command(control_plane, argv), timeout=30).stdout.split()
    after = dict(itertools.pairwise(words))
    return Invitation(
        endpoint=after["join"],
        token=after["--token"],
        ca_hash=after["--discovery-token-ca-cert-hash"],
        certificate_key=key,
    )


def _upload_certificates(control_plane: Node) -> str:
    """Put the authorities and keys into a Secret, for two hours; returns the key that they are encrypted with.

    Told by a file, as only that says whether the certificate of an etcd outside is among them.
    """
    key = secrets.token_hex(32)
    file = control_plane.kubernetes / "upload-certs.yaml"
    file.touch(mode=0o600)
    file.write_text(init_config(control_plane, key))
    argv = ["init", "phase", "upload-certs", "--upload-certs", "--config", f"/etc/kubernetes/{file.name}"]
    run(command(control_plane, ["env", f"PATH={KUBEADM_PATH}", "kubeadm", *argv]), timeout=60)
    file.unlink()
    return key


def join(node: Node, invitation: Invitation) -> None:
    """Make the node a worker, or another control plane. One control plane after the other where each has an etcd."""
    _prepare(node, join_config(node, invitation))
    _kubeadm(node, "join")
    node.set_member()


def write_kubeconfig(control_plane: Node, target: Path) -> None:
    """The administrator's kubeconfig, named after the cluster, readable for its owner only."""
    config = yaml.safe_load((control_plane.kubernetes / "admin.conf").read_text())
    name = control_plane.cluster.name
    (cluster,), (user,), (context,) = config["clusters"], config["users"], config["contexts"]
    cluster["name"] = context["name"] = config["current-context"] = name
    user["name"] = f"{name}-admin"
    context["context"] = {"cluster": name, "user": f"{name}-admin"}
    new = target.with_suffix(".new")
    new.touch(mode=0o600)
    new.write_text(yaml.safe_dump(config))
    new.replace(target)


def _api_endpoint(node: Node) -> dict[str, Any]:
    return {"advertiseAddress": node.address, "bindPort": balancer.PORT}


def _kubelet_config() -> dict[str, Any]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "cgroupDriver": "cgroupfs",
        "failCgroupV1": False,
        "failSwapOn": False,
        "clusterDNS": [DNS_SERVICE],
        "resolvConf": "/etc/resolv.conf",
        "volumePluginDir": "/var/lib/kubelet/volumeplugins",
        "syncFrequency": "10s",  # 60 s by default: how soon changed Secrets and ConfigMaps reach running pods
        "fileCheckFrequency": "1s",
        "nodeStatusUpdateFrequency": "4s",
        "nodeLeaseDurationSeconds": 16,
        # The disk is the machine's, and shared: a full one is not this node's fault, and images are never cleaned up.
        "evictionHard": {
            "memory.available": "100Mi",
            "nodefs.available": "1%",
            "imagefs.available": "1%",
            "nodefs.inodesFree": "1%",
        },
        "imageGCHighThresholdPercent": 100,
    }


def _registration(node: Node) -> dict[str, Any]:
    return {
        "name": node.name,
        "criSocket": "unix:///run/containerd/containerd.sock",
        "imagePullPolicy": "Never",
        "taints": [],
        "kubeletExtraArgs": _arguments({"node-ip": node.address}),
    }


def _arguments(values: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"name": name, "value": value} for name, value in values.items()]


def _prepare(node: Node, config: str) -> None:
    patches = node.kubernetes / "patches"
    patches.mkdir(parents=True, exist_ok=True)
    (node.kubernetes / "kubeadm.yaml").write_text(config)
    (patches / "kubeletconfiguration.json").write_text(json.dumps({"cgroupRoot": f"/{TOP}/{node.name}"}))


def _kubeadm(node: Node, verb: str) -> None:
    argv = ["env", f"PATH={KUBEADM_PATH}", "kubeadm", verb, "--config", "/etc/kubernetes/kubeadm.yaml"]
    log = node.logs / "kubeadm.log"
    try:
        run(command(node, argv), timeout=TIMEOUT, log=log)
    except ClusterError as error:
        raise ClusterError(f"kubeadm {verb} did not succeed on {node.name}", log=culprit(node) or log) from error
