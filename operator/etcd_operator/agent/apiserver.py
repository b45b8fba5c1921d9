"""Bring a control-plane node's kube-apiserver to another etcd: `python3 -m etcd_operator.agent.apiserver PLAN_FOLDER`.

It runs on the node as root, with the node's processes, network and /etc/kubernetes. The folder holds the plan (see
`plan`) and the certificate's files. How it ended is one JSON object, where the kubelet makes it the pod's termination
message, and exit code 0 says that it was told, whatever it is: the kubelet starts any other run again.
"""

import argparse
import contextlib
import fcntl
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from etcd_operator.agent.node_files import NodeFiles
from etcd_operator.agent.plan import FILES, PLAN_FILE, SAVED_FOLDER, Plan, PlanInvalidError, Result
from etcd_operator.agent.readiness import Watch
from etcd_operator.agent.switch import Switch

#: Where the kubelet reads a container's last words (core/v1, Container.terminationMessagePath).
TERMINATION_LOG = "/dev/termination-log"


def certificate(folder: Path) -> dict[str, bytes]:
    """The certificate's files in the plan's folder, by name; empty where there are none. Raises `OSError`."""
    return {name: (folder / name).read_bytes() for name in FILES.values() if (folder / name).exists()}


def run(folder: Path, files: NodeFiles, watch: Watch, *, digest: str = "") -> Result:
    """Carry out the plan in that folder, if it is the one of that digest; whatever goes wrong is told in the result."""
    try:
        plan, held = Plan.parse((folder / PLAN_FILE).read_bytes()), certificate(folder)
        if digest and plan.digest(held) != digest:
            raise PlanInvalidError("the plan is not the one that this pod was made for: somebody has replaced it since")
        with _alone(files):
            return Switch(plan=plan, certificate=held, files=files, watch=watch).run()
    except PlanInvalidError as error:
        return Result(result="Refused", reason="PlanInvalid", message=str(error))
    except OSError as error:
        return _failed(str(error))
    except Exception as error:  # noqa: BLE001 - a pod that ends without a word tells nobody what to do
        return _failed(f"{type(error).__name__}: {error}")


def _failed(problem: str) -> Result:
    return Result(
        result="Refused", reason="Failed", message=f"{problem}; the next run finishes or undoes what was begun"
    )


@contextlib.contextmanager
def _alone(files: NodeFiles) -> Iterator[None]:
    """While no other run is under way on this node, such as that of a pod that was deleted by force.

    Raises BlockingIOError.
    """
    path = files.path(f"{SAVED_FOLDER}/lock")
    path.parent.mkdir(mode=0o700, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BlockingIOError("another run is under way on this node") from None
        yield
    finally:
        os.close(descriptor)


def main(arguments: Sequence[str], *, files: NodeFiles | None = None, watch: Watch | None = None) -> int:
    """Run the program; 0 when it was told how it ended."""
    parser = argparse.ArgumentParser(prog="etcd_operator.agent.apiserver", description=__doc__)
    parser.add_argument("folder", type=Path, metavar="PLAN_FOLDER")
    parser.add_argument("--digest", default="", help="of the plan and the certificate that this run is for")
    parser.add_argument("--result", type=Path, default=Path(TERMINATION_LOG))
    told = parser.parse_args(arguments)
    result = run(told.folder, files or NodeFiles(), watch or Watch(), digest=told.digest)
    told.result.write_text(result.to_json())
    print(result.to_json())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
