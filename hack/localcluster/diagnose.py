"""Where a node's programs write, and which of them to blame when the node does not come up. Only reads files."""

from __future__ import annotations

import re
from pathlib import Path

from localcluster.errors import ClusterError
from localcluster.node import Node

#: Programs with a log file of their own; all others are containers.
HOST_PROGRAMS = ("init", "containerd", "kubelet", "kubeadm")
#: What a kubelet or a container writes when it gives up.
_FATAL = re.compile(r'("?err"?=|^[EF]\d{4} |"level":"(fatal|panic)"|panic:|command failed)', re.MULTILINE)


def log_of(node: Node, program: str) -> Path:
    """The newest log file of a program or of a container or pod whose name starts with `program`."""
    if program in HOST_PROGRAMS:
        return node.logs / f"{program}.log"
    found = [path for path in _container_logs(node) if program in (path.parent.name, _pod_name(path))]
    found = found or [path for path in _container_logs(node) if _pod_name(path).startswith(program)]
    if not found:
        known = sorted({path.parent.name for path in _container_logs(node)})
        raise ClusterError(f"no log of {program} on {node.name}; there are {', '.join([*HOST_PROGRAMS, *known])}")
    return max(found, key=lambda path: path.stat().st_mtime)


def culprit(node: Node) -> Path | None:
    """The log of the program that most likely kept the node from coming up; None when nothing stands out.

    From the bottom up: what a program stands on is to blame before the program itself.
    """
    ends = _text(node.logs / "init.log")
    for program in ("containerd", "kubelet"):
        if re.search(rf"{program} ended with exit code (?!0\b)", ends):
            return node.logs / f"{program}.log"
    for program in ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"):
        logs = [path for path in _container_logs(node) if path.parent.name == program]
        restarted = [path for path in logs if path.stem != "0"]
        if restarted:
            return max(logs, key=lambda path: path.stat().st_mtime)
    kubelet = node.logs / "kubelet.log"
    if not _container_logs(node) and _FATAL.search(_text(kubelet)):
        return kubelet
    return None


def _container_logs(node: Node) -> list[Path]:
    """Files named NAMESPACE_POD_UID/CONTAINER/RESTARTS.log, as the kubelet keeps them."""
    return list((node.folder / "var" / "log" / "pods").glob("*/*/*.log"))


def _pod_name(path: Path) -> str:
    return path.parent.parent.name.split("_")[1]


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except FileNotFoundError:
        return ""
