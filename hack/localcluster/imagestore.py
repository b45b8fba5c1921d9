"""Images on nodes: what every node starts with, and what is loaded later.

Unpacking the same images on every new node would cost most of the time that a start takes. They are unpacked once
into a containerd folder that serves as the pattern, and a new node gets that folder as hard links: containerd never
writes into unpacked layers and blobs, only into its databases, which are copied. As a welcome effect, all nodes share
one page cache for the programs in them.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from localcluster import artifacts
from localcluster.errors import ClusterError
from localcluster.node import Node, command
from localcluster.progress import Progress
from localcluster.shell import run
from localcluster.state import ClusterState

#: Seconds for one image to be unpacked, on a slow disk.
IMPORT_TIMEOUT = 300.0

#: Seconds for containerd to answer.
START_TIMEOUT = 60.0

PATTERN_TOML = """\
version = 3
root = "{root}"
state = "{state}/state"
disabled_plugins = ["io.containerd.nri.v1.nri", "io.containerd.internal.v1.opt", "io.containerd.grpc.v1.cri",
  "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime", "io.containerd.cri.v1.podsandbox"]
[grpc]
  address = "{state}/containerd.sock"
[ttrpc]
  address = "{state}/containerd.sock.ttrpc"
"""


def fingerprint(archives: Iterable[Path]) -> str:
    """Tells two sets of archives apart without reading them: by name, size and time of change."""
    parts = sorted(f"{path} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in archives)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def ensure_pattern(archives: Sequence[Path], programs: Path, progress: Progress) -> Path:
    """The containerd folder with all of `archives` unpacked; made when missing. Older ones are removed."""
    patterns = artifacts.cache_dir() / "node-images"
    patterns.mkdir(parents=True, exist_ok=True)
    pattern = patterns / fingerprint([*archives, programs / "containerd"])
    with (patterns / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not pattern.exists():
            with progress.step("Unpacking the node images (once)", estimate=20) as step:
                for old in patterns.glob("[!.]*"):
                    shutil.rmtree(old)
                new = pattern.with_suffix(".new")
                with _containerd(new, programs) as address:
                    for done, archive in enumerate(archives):
                        step.at(done, len(archives))
                        step.detail(archive.name)
                        import_image([str(programs / "ctr"), "--address", address], archive)
                new.rename(pattern)
    return pattern


def give(pattern: Path, node: Node) -> None:
    """Put the images into the folder of a node that has none yet."""
    target = node.folder / "var" / "lib" / "containerd"
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    new = target.with_suffix(".new")
    if new.exists():
        shutil.rmtree(new)
    run(["cp", "--archive", "--link", pattern, new], timeout=IMPORT_TIMEOUT)
    for database in new.rglob("*.db"):
        copy = database.with_suffix(".copy")
        shutil.copy2(database, copy)
        copy.replace(database)
    new.rename(target)


def load(archive: Path, node: Node) -> bool:
    """Import an archive into a running node; False when this very archive was loaded before."""
    mark = fingerprint([archive])
    loaded = node.folder / "loaded-images"
    if loaded.exists() and mark in loaded.read_text().split():
        return False
    import_image(command(node, ["ctr"]), archive)
    with loaded.open("a") as record:
        record.write(mark + "\n")
    return True


def remember(archive: Path, cluster: ClusterState) -> None:
    """Nodes that are stopped or do not exist yet get this archive as well, when they start."""
    if archive.resolve() not in remembered(cluster):
        with (cluster.folder / "archives").open("a") as record:
            record.write(f"{archive.resolve()}\n")


def remembered(cluster: ClusterState) -> list[Path]:
    """Archives that were loaded into the cluster, as far as they still exist."""
    record = cluster.folder / "archives"
    paths = [Path(line) for line in record.read_text().splitlines()] if record.exists() else []
    return [path for path in paths if path.exists()]


def import_image(ctr: Sequence[str], archive: Path) -> None:
    """`ctr images import` of one archive, through a pipe: the node need not see the file."""
    with archive.open("rb") as content:
        run([*ctr, "-n", "k8s.io", "images", "import", "--local", "-"], stdin=content, timeout=IMPORT_TIMEOUT)


@contextmanager
def _containerd(root: Path, programs: Path) -> Iterator[str]:
    """A containerd on its own, for unpacking; gives its address. It is stopped in an orderly way."""
    root.mkdir()
    log = root.with_name(".containerd.log")
    with tempfile.TemporaryDirectory(prefix="external-etcd-", dir="/tmp") as state:
        config = Path(state, "containerd.toml")
        config.write_text(PATTERN_TOML.format(root=root, state=state))
        address = f"{state}/containerd.sock"
        argv = ["unshare", "--mount", str(programs / "containerd"), "--config", str(config)]
        notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        notify.bind(f"{state}/notify")
        notify.settimeout(START_TIMEOUT)
        with log.open("wb") as sink:
            environment = {**os.environ, "NOTIFY_SOCKET": f"{state}/notify"}
            process = subprocess.Popen(argv, stdout=sink, stderr=sink, env=environment, start_new_session=True)
        try:
            notify.recv(4096)  # READY=1, by sd_notify
            yield address
        except TimeoutError:
            raise ClusterError(f"containerd does not start within {START_TIMEOUT:.0f} s", log=log) from None
        finally:
            process.terminate()
            process.wait(timeout=30)
            notify.close()
