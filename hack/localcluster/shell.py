"""Run other programs: with a time limit, with their output kept, and gone when the caller gives up.

Threads wait for programs while the main thread may be interrupted (Ctrl-C): whatever runs here is known, so
`stop_all` ends exactly those processes and the waiting threads return. Knows nothing about clusters.
"""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from localcluster.errors import ClusterError

_running: set[subprocess.Popen[str]] = set()
_lock = threading.Lock()

#: Names of environment variables that would send requests for the cluster's addresses to a proxy.
PROXY_VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


def run(
    argv: Sequence[str | Path],
    *,
    timeout: float = 60,
    check: bool = True,
    log: Path | None = None,
    stdin: IO[bytes] | None = None,
    text: str | None = None,
    env: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run `argv` for at most `timeout` seconds and return what it said.

    `text` is what it reads, else `stdin`, else nothing. With `log`, all output is appended to that file (and the
    result's output is empty). With `check`, an exit code other than 0 raises ClusterError with the program's own
    words or its log; running out of time always does.
    """
    words = [str(word) for word in argv]
    with (log or Path(os.devnull)).open("a") as sink:
        process = subprocess.Popen(
            words,
            stdin=subprocess.PIPE if text is not None else (stdin or subprocess.DEVNULL),
            stdout=sink if log else subprocess.PIPE,
            stderr=subprocess.STDOUT if log else subprocess.PIPE,
            env=dict(env) if env is not None else None,
            text=True,
        )
    with _lock:
        _running.add(process)
    try:
        out, err = process.communicate(text, timeout=timeout)
    except subprocess.TimeoutExpired:
        raise ClusterError(f"{_short(words)} did not end within {timeout:.0f} s", log=log) from None
    finally:
        with _lock:
            _running.discard(process)
        if process.poll() is None:
            process.kill()
            process.wait()
    if check and process.returncode:
        said = (err or out or "").strip()
        why = f": {said}" if said else ""
        raise ClusterError(f"{_short(words)} failed with exit code {process.returncode}{why}", log=log)
    return subprocess.CompletedProcess(words, process.returncode, out or "", err or "")


def stop_all() -> None:
    """End every program that `run` waits for now; their waiters see a failure and return."""
    with _lock:
        for process in _running:
            process.terminate()


def direct_environment() -> dict[str, str]:
    """This process's environment without proxies: the cluster's addresses are reached directly or not at all."""
    return {name: value for name, value in os.environ.items() if name not in PROXY_VARIABLES}


def _short(words: Sequence[str]) -> str:
    text = " ".join(words)
    return text if len(text) <= 160 else text[:157] + "..."
