"""What a failed test leaves for the person who looks into it: logs as they were written, and the last state.

Logs are followed, as those of a pod that was killed go with it. Must not judge anything.
"""

import json
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import requests

from devtools import kube
from devtools.kube import Cluster, KubectlError
from e2e.support import OPERATOR, OPERATOR_PODS, Etcd
from localcluster.cache import cache_dir

#: Lines of the operators' logs that a failure shows by itself.
STORY = 100
#: What a line of the log says of itself and not of what happened.
ENVELOPE = ("kind", "level", "logger", "timestamp")


@contextmanager
def evidence(etcd: Etcd, name: str, *, keep: bool) -> Iterator[Path]:
    """A folder for a test's files, with the logs of operators and members; it goes when all went well, unless kept."""
    folder = cache_dir() / "evidence" / f"{time.strftime('%Y%m%d-%H%M%S')}-{name}"
    (folder / "log").mkdir(parents=True)
    over = threading.Event()
    for namespace, labels in ((OPERATOR, OPERATOR_PODS), (etcd.namespace, etcd.labels)):
        threading.Thread(
            target=_follow, args=(etcd.cluster.apart(), namespace, labels, folder / "log", over), daemon=True
        ).start()
    try:
        yield folder
    except BaseException:
        _last_state(etcd, folder)
        print(f"Everything about this run is in {folder}", flush=True)
        raise
    finally:
        over.set()
    if keep:
        print(f"Everything about this run is in {folder}", flush=True)
    else:
        shutil.rmtree(folder, ignore_errors=True)


class OperatorLogs:
    """All that the operators say from now on, as files in a folder; until `close`."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self._cluster, self._folder, self._over = cluster, folder, threading.Event()
        threading.Thread(
            target=_follow, args=(cluster.apart(), OPERATOR, OPERATOR_PODS, folder, self._over), daemon=True
        ).start()

    def close(self) -> None:
        """Follow no further containers."""
        self._over.set()

    def report(self, namespace: str) -> str:
        """What happened in a namespace, and what the operators said of it or of no cluster, shortened."""
        about = ("-n", namespace, "get")
        columns = "AT:.lastTimestamp,ABOUT:.involvedObject.name,REASON:.reason,MESSAGE:.message"
        parts = [
            _ask(self._cluster, *about, "etcd,pods,persistentvolumeclaims", "-o", "wide"),
            _ask(self._cluster, *about, "etcd", "-o", "jsonpath={range .items[*]}{.status}{'\\n'}{end}"),
            _ask(self._cluster, *about, "events", "--sort-by=.lastTimestamp", "-o", f"custom-columns={columns}"),
            self._story(namespace),
        ]
        return "\n\n".join(parts)

    def _story(self, namespace: str) -> str:
        told = []
        for path in self._folder.glob("*.log"):
            for line in path.read_text(errors="replace").splitlines():
                time_, _, text = line.partition(" ")
                if f'"{namespace}/' in text or '"cluster":' not in text:
                    told.append(f"{time_[11:23]} {path.stem[-18:-13]} {_shortened(text)}")
        return "\n".join(sorted(told)[-STORY:])


def _ask(cluster: Cluster, *question: str) -> str:
    """What kubectl says, or why it says nothing."""
    try:
        return cluster.kubectl(*question)
    except (KubectlError, OSError, subprocess.TimeoutExpired) as error:
        return str(error)


def _shortened(line: str) -> str:
    """A line of the log without its envelope; as it is where it is no JSON."""
    try:
        said = json.loads(line)
    except ValueError:
        return line
    return f"{said.pop('event', '')} " + json.dumps({key: said[key] for key in said if key not in ENVELOPE})


def _follow(cluster: Cluster, namespace: str, labels: str, folder: Path, over: threading.Event) -> None:
    """Follow the log of every container that runs in these pods."""
    seen = set[str]()
    while not over.is_set():
        for pods in cluster.snapshots("pods", namespace, labels=labels, timeout=600):
            for name, pod in pods.items():
                for status in pod["status"].get("containerStatuses", []):
                    container = status.get("containerID", "")
                    if "running" in status["state"] and container not in seen:
                        seen.add(container)
                        path = folder / f"{name}-{container[-12:]}.log"
                        threading.Thread(
                            target=_copy, args=(cluster.apart(), namespace, name, path), daemon=True
                        ).start()
            if over.is_set():
                return


def _copy(cluster: Cluster, namespace: str, pod: str, path: Path) -> None:
    """Copy a container's log until it ends."""
    url = f"{kube.path_of('pods', namespace, pod)}/log?follow=true&timestamps=true"
    with (
        suppress(requests.RequestException, OSError),
        cluster.request("GET", url, stream=True, timeout=(10, None)) as log,
        path.open("wb") as file,
    ):
        for chunk in log.iter_content(None):
            file.write(chunk)
            file.flush()


def _last_state(etcd: Etcd, folder: Path) -> None:
    """What Kubernetes has of the EtcdCluster now; as much of it as can be had."""
    questions = {
        "etcdcluster.yaml": ("get", f"etcd/{etcd.name}", "-o", "yaml"),
        "objects.yaml": ("get", "statefulsets,configmaps,pods,persistentvolumeclaims", "-o", "yaml"),
        "objects.txt": ("get", "etcd,pods,persistentvolumeclaims", "-o", "wide"),
        "events.txt": ("get", "events", "--sort-by=.lastTimestamp"),
    }
    for file, question in questions.items():
        (folder / file).write_text(_ask(etcd.cluster, "-n", etcd.namespace, *question))
