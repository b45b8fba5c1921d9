"""What a local cluster is made of: programs and images, built when missing, cached outside the checkout.

The face of the building half: nodes, the command line and the tests use only this module, `versions` and
`progress`. Every `ensure_*` is idempotent, safe to call from two processes at once, instant when nothing
changed, and raises `BuildError`, whose message names the log to read and shows its last lines.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

from localcluster import debian, gobuild, haproxy, images, operatorimage, versions
from localcluster.cache import BuildError, cache_dir
from localcluster.progress import Progress

__all__ = [
    "BuildError",
    "cache_dir",
    "ensure_api_server_programs",
    "ensure_etcd_image",
    "ensure_etcd_programs",
    "ensure_haproxy_image",
    "ensure_haproxy_root",
    "ensure_kubectl",
    "ensure_node_images",
    "ensure_node_programs",
    "ensure_operator_image",
]


def ensure_node_programs(progress: Progress) -> Path:
    """A folder with kube (and links kubelet, kubeadm, kubectl, kube-*), containerd, its shim, ctr, runc and etcd.

    Also installs the Debian packages that nodes use on the host.
    """
    debian.ensure_packages(debian.NODE_PACKAGES, progress)
    return gobuild.cluster_programs(progress)


def ensure_node_images(progress: Progress) -> list[Path]:
    """docker-archives that every node imports; `versions` has the images' names."""
    return images.node_images(gobuild.cluster_programs(progress), progress)


def ensure_etcd_image(version: str, progress: Progress) -> Path:
    """A docker-archive of gcr.io/etcd-development/etcd:v`version`: distroless, programs in /usr/local/bin."""
    return images.etcd_image(version, ensure_etcd_programs(version, progress), progress)


def ensure_haproxy_image(progress: Progress) -> Path:
    """A docker-archive of `versions.HAPROXY_IMAGE`: Debian's HAProxy, laid out as in the official image."""
    return images.haproxy_image(progress)


def ensure_haproxy_root(progress: Progress) -> Path:
    """A folder with the files of that image, to run `haproxy.PROGRAM` from on the host; nobody writes into it."""
    return haproxy.ensure_root(progress)


def ensure_etcd_programs(version: str, progress: Progress) -> Path:
    """A folder with etcd, etcdctl and etcdutl of `version` ("3.7.3"), for use on the host."""
    return images.etcd_programs(version, progress)


def ensure_api_server_programs(progress: Progress) -> Path:
    """A folder with kube-apiserver and etcd, for tests outside a cluster."""
    return gobuild.cluster_programs(progress)


def ensure_kubectl(progress: Progress) -> Path:
    """A kubectl: the one on PATH unless it is older than `versions.OLDEST_KUBECTL`, else the built one."""
    on_path = shutil.which("kubectl")
    if on_path and _kubectl_version(on_path) >= versions.OLDEST_KUBECTL:
        return Path(on_path)
    return gobuild.cluster_programs(progress) / "kubectl"


def _kubectl_version(kubectl: str) -> tuple[int, int]:
    """Major and minor; (0, 0) when it does not say."""
    try:
        answer = subprocess.run(
            [kubectl, "version", "--client", "--output=json"], capture_output=True, check=True, timeout=30
        )
        told = json.loads(answer.stdout)["clientVersion"]
        return int(told["major"]), int(told["minor"].rstrip("+"))
    except (OSError, subprocess.SubprocessError, ValueError, KeyError):
        return (0, 0)


def ensure_operator_image(progress: Progress, *, tag: str | None = None) -> tuple[str, Path]:
    """Build the Containerfile of this checkout; the image's name and its docker-archive.

    The tag is made of the content unless `tag` says another: a changed operator is another image.
    """
    return operatorimage.ensure(progress, tag=tag)
