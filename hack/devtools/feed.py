"""Several watches as one stream, for whoever shows or times what happens across kinds."""

import queue
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from devtools.kube import Cluster, Snapshot

#: The newest snapshot of each collection that is followed, by its plural; one not seen yet is absent.
Picture = dict[str, Snapshot]


def follow(
    kubeconfig: Path, plurals: Sequence[str], namespace: str, *, labels: str = "", timeout: float
) -> Iterator[Picture]:
    """The collections after every change to any of them, until `timeout` seconds have passed.

    Each watch has its own thread and its own connection. `labels` selects in all collections.
    """
    events: queue.Queue[tuple[str, Snapshot]] = queue.Queue()
    deadline = time.monotonic() + timeout
    stop = threading.Event()

    def watch(plural: str) -> None:
        for snapshot in Cluster(kubeconfig).snapshots(plural, namespace, labels=labels, timeout=timeout):
            if stop.is_set():
                return
            events.put((plural, snapshot))

    for plural in plurals:
        threading.Thread(target=watch, args=(plural,), daemon=True, name=f"watch {plural}").start()
    picture: Picture = {}
    try:
        while (left := deadline - time.monotonic()) > 0:
            try:
                plural, snapshot = events.get(timeout=left)
            except queue.Empty:
                return
            picture[plural] = snapshot
            yield dict(picture)
    finally:
        stop.set()
