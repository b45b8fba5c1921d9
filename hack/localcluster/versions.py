"""The versions and image names that a local cluster is made of, in one place.

A version here and the `require` line in `go/` say the same thing twice; `gobuild` refuses to build when
they differ. Nothing is built in here.
"""

from __future__ import annotations

from typing import Final

KUBERNETES: Final = "1.37.1"
CONTAINERD: Final = "2.4.2"
RUNC: Final = "1.5.2"
COREDNS: Final = "1.15.0"
LOCAL_PATH_PROVISIONER: Final = "0.0.30"
PAUSE: Final = "3.10.2"

#: The etcd that the local cluster itself stores its state in, and the newest that the operator is tried with.
ETCD: Final = "3.7.3"
#: Every etcd that can be built; those other than `ETCD` only when asked for.
ETCD_VERSIONS: Final = ("3.7.3", "3.6.16", "3.5.35")

#: The oldest kubectl on PATH that is used instead of the built one.
OLDEST_KUBECTL: Final = (1, 31)

#: Module path -> version, as `go/go.mod` must require it.
GO_MODULES: Final = {
    "k8s.io/kubernetes": KUBERNETES,
    "github.com/containerd/containerd/v2": CONTAINERD,
    "github.com/opencontainers/runc": RUNC,
    "github.com/coredns/coredns": COREDNS,
    "github.com/rancher/local-path-provisioner": LOCAL_PATH_PROVISIONER,
    "go.etcd.io/etcd/server/v3": ETCD,
    "go.etcd.io/etcd/etcdctl/v3": ETCD,
    "go.etcd.io/etcd/etcdutl/v3": ETCD,
}

#: The modules under `go/extra/`, built only when asked for, and what each must require.
EXTRA_GO_MODULES: Final = {
    "etcd-3.6.16": {"go.etcd.io/etcd/server/v3": "3.6.16"},
    "etcd-3.5.35": {"go.etcd.io/etcd/server/v3": "3.5.35"},
}

#: Where kubeadm looks for its images; the names below are what it asks for when given these tags.
KUBERNETES_REPOSITORY: Final = "registry.k8s.io"
COREDNS_TAG: Final = f"v{COREDNS}"
ETCD_TAG: Final = f"{ETCD}-0"
PAUSE_IMAGE: Final = f"{KUBERNETES_REPOSITORY}/pause:{PAUSE}"
COREDNS_IMAGE: Final = f"{KUBERNETES_REPOSITORY}/coredns/coredns:{COREDNS_TAG}"
KUBEADM_ETCD_IMAGE: Final = f"{KUBERNETES_REPOSITORY}/etcd:{ETCD_TAG}"
LOCAL_PATH_IMAGE: Final = f"docker.io/rancher/local-path-provisioner:v{LOCAL_PATH_PROVISIONER}"
#: A few megabytes with `sh` and busybox's programs: what local-path-provisioner's helper pods run.
BUSYBOX_IMAGE: Final = "docker.io/library/busybox:stable"

#: HAProxy as the official image lays it out, here of Debian's package.
HAPROXY_IMAGE: Final = "docker.io/library/haproxy:2.6"


def kubernetes_image(program: str) -> str:
    """The image that kubeadm runs `program` (kube-apiserver, kube-proxy, ...) from."""
    return f"{KUBERNETES_REPOSITORY}/{program}:v{KUBERNETES}"


def etcd_image(version: str) -> str:
    """The image of etcd `version` ("3.7.3") under the name that upstream publishes it by."""
    return f"gcr.io/etcd-development/etcd:v{version}"
