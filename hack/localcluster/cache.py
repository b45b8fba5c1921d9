"""Keep what was built outside the checkout, found by its name and by what it was built from.

An entry appears whole or not at all (built beside its place, then renamed), and two processes that want the
same thing do not both build it. Knows nothing of what the entries hold.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from localcluster.errors import ClusterError

#: Entries that nobody asked for during this many seconds are removed when a newer one of their kind is built.
UNUSED_FOR = 14 * 24 * 3600.0

#: How many lines of a failed program's log go into the error message.
TAIL_LINES = 20


class BuildError(ClusterError):
    """Something could not be made; the message says what to read or what to do."""


def cache_dir() -> Path:
    """EXTERNAL_ETCD_CACHE, else XDG_CACHE_HOME/external-etcd-operator, else ~/.cache/external-etcd-operator."""
    if own := os.environ.get("EXTERNAL_ETCD_CACHE"):
        return Path(own)
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return Path(shared) / "external-etcd-operator"
    return Path.home() / ".cache" / "external-etcd-operator"


def digest(*parts: str | bytes | Path) -> str:
    """16 hex digits that change when any part does; a Path stands for the file's or the tree's content."""
    total = hashlib.sha256()
    for part in parts:
        for chunk in _chunks(part):
            total.update(len(chunk).to_bytes(8, "big"))
            total.update(chunk)
    return total.hexdigest()[:16]


def _chunks(part: str | bytes | Path) -> Iterator[bytes]:
    match part:
        case str():
            yield part.encode()
        case bytes():
            yield part
        case Path() if part.is_dir():
            for path in sorted(part.rglob("*")):
                if path.is_file() and "__pycache__" not in path.parts:
                    yield str(path.relative_to(part)).encode()
                    yield b"x" if path.stat().st_mode & 0o100 else b"-"
                    yield path.read_bytes()
        case Path():
            yield part.read_bytes()


def entry(kind: str, key: str, build: Callable[[Path], None], *, keep: int | None = None) -> Path:
    """The folder `kind/key` of the cache; where it is missing, `build` fills an empty folder that becomes it.

    A second process asking for the same kind meanwhile waits, then finds the work done.
    `keep`: how many entries of this kind stay, the latest used ones; without it only age counts.
    Raises whatever `build` raises; nothing is kept then.
    """
    place = cache_dir() / "lab" / kind / key
    if not place.is_dir():
        place.parent.mkdir(parents=True, exist_ok=True)
        with lock(place.parent / ".lock"):
            if not place.is_dir():
                _build(place, build)
                _remove_unused(place.parent, keep)
    os.utime(place)  # says that it is still in use
    return place


def _build(place: Path, build: Callable[[Path], None]) -> None:
    for left_over in place.parent.glob(".building-*"):  # of a build that was killed: we hold the lock
        shutil.rmtree(left_over)
    work = Path(tempfile.mkdtemp(prefix=".building-", dir=place.parent))
    work.chmod(0o755)
    try:
        build(work)
        work.rename(place)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise


def _remove_unused(folder: Path, keep: int | None) -> None:
    entries = sorted((path for path in folder.iterdir() if path.is_dir()), key=lambda path: -path.stat().st_mtime)
    for index, path in enumerate(entries):
        if time.time() - path.stat().st_mtime > UNUSED_FOR or (keep is not None and index >= keep):
            shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold `path` (made when missing) exclusively; the kernel lets go when the process dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def log_file(name: str) -> Path:
    """Where the program or build `name` writes its output; the previous run's is overwritten."""
    folder = cache_dir() / "lab" / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{name}.log"


def run(
    command: Sequence[str | Path],
    *,
    log: Path,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    on_line: Callable[[str], None] | None = None,
) -> None:
    """Run `command` with its output in `log`, each line also told to `on_line`.

    `env` is added to this process's. Raises BuildError with the log's last lines when it fails.
    """
    words = [str(word) for word in command]
    with log.open("w") as out:
        out.write(f"$ {' '.join(words)}\n")
        out.flush()
        try:
            child = subprocess.Popen(
                words,
                cwd=cwd,
                env={**os.environ, **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
            )
        except FileNotFoundError as error:
            raise BuildError(f"{words[0]} is not installed") from error
        try:
            assert child.stdout is not None
            for line in child.stdout:
                out.write(line)
                if on_line:
                    on_line(line.rstrip("\n"))
            status = child.wait()
        except BaseException:  # Ctrl-C: do not leave a compiler behind
            child.terminate()
            child.wait()
            raise
    if status:
        raise BuildError(f"{words[0]} failed with status {status}; its log is {log}, its last lines:\n{tail(log)}")


def tail(log: Path, lines: int = TAIL_LINES) -> str:
    """The last lines of a log, indented for a message."""
    return "\n".join(f"  {line}" for line in log.read_text(errors="replace").splitlines()[-lines:])
