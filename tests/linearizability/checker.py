"""Builds the checker of histories (the Go program beside this file, on Porcupine) and asks it for a verdict."""

import json
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path

from localcluster import gobuild
from localcluster.cache import digest, entry
from localcluster.progress import Progress
from localcluster.toolchain import ensure_go, go_version

MODULE = Path(__file__).parent
PORCUPINE = {"github.com/anishathalye/porcupine": "1.3.1"}
BUILD = gobuild.Build(title="Building the linearizability checker", packages=(".",), linker_flags="-s -w")
#: Seconds after which a history counts as undecided, which is no pass.
TIMEOUT = 300.0


class NoHistory(Exception):  # noqa: N818 - the name says what is wrong
    """What was given is no history; the text is the checker's."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What the checker says; see `report` in main.go.

    verdict: Linearizable, NotLinearizable or Undecided. operations: how many were checked; unknown: those of them whose
    outcome no client knows. pictures: HTML files, one for each of the first keys that are not linearizable.
    """

    verdict: str
    operations: int
    unknown: int
    keys: int
    seconds: float
    reasons: tuple[str, ...]
    pictures: tuple[str, ...]

    @property
    def linearizable(self) -> bool:
        """Whether the history was proved to be; running out of time is no proof."""
        return self.verdict == "Linearizable"


def program(progress: Progress) -> Path:
    """The checker, built when it is not in the cache. Raises BuildError."""
    gobuild.check_versions(MODULE, PORCUPINE)
    go = ensure_go(MODULE, progress)
    sources = [MODULE / "go.mod", MODULE / "go.sum", *sorted(MODULE.glob("*.go"))]
    version = ".".join(map(str, go_version(go)))
    key = digest(version, platform.machine(), *gobuild.FLAGS, repr(BUILD), *sources)
    folder = entry("linearizability", key, lambda target: gobuild.go_build(go, MODULE, BUILD, target, progress), keep=4)
    return folder / "linearizability"


def judge(checker: Path, history: Path, *, pictures: Path, timeout: float = TIMEOUT) -> Verdict:
    """The verdict on a history. Raises NoHistory where the file is none."""
    argv = [str(checker), f"-timeout={timeout:f}s", f"-html={pictures}", str(history)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if not done.stdout:
        raise NoHistory(done.stderr.strip())
    told = json.loads(done.stdout)
    return Verdict(**{**told, "reasons": tuple(told["reasons"]), "pictures": tuple(told["pictures"])})
