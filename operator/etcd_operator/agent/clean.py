"""Delete data that was kept aside: `python3 -m etcd_operator.agent.clean VOLUME INCARNATION...`.

It runs beside a member, on its volume, and deletes just the directories that it was told. It must never delete one that
an etcd has open, whatever it was told: etcd holds a lock on its database as long as it runs.
"""

import fcntl
import os
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

#: Names of incarnations, as the operator draws them: never a path.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*")
#: What a directory is called while it is deleted: never half a directory under a name that something could start from.
_GOING = ".going"


class RefusedError(Exception):
    """A directory must not be deleted; the message says why."""


def clean(volume: Path, incarnations: Sequence[str]) -> list[str]:
    """Delete these directories of the volume; returns a sentence for each. One that is not there has been deleted.

    Raises `RefusedError`, and deletes none, for a name that is no incarnation's and for data that an etcd has open;
    `OSError` for what the file system refuses.
    """
    for incarnation in incarnations:
        if not _NAME.fullmatch(incarnation):
            raise RefusedError(f"{incarnation!r} is no directory of a member")
        _refuse_data_in_use(volume / incarnation)
    return [_delete(volume, incarnation) for incarnation in incarnations]


def _refuse_data_in_use(directory: Path) -> None:
    database = directory / "member" / "snap" / "db"
    try:
        descriptor = os.open(database, os.O_RDWR)
    except FileNotFoundError:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # as bbolt locks it
    except BlockingIOError:
        raise RefusedError(f"{directory} is in use: an etcd runs on it") from None
    finally:
        os.close(descriptor)


def _delete(volume: Path, incarnation: str) -> str:
    directory, going = volume / incarnation, volume / f"{incarnation}{_GOING}"
    if directory.exists() and not going.exists():
        directory.rename(going)
    if not going.exists():
        return f"{incarnation} is not there"
    size = sum(each.lstat().st_size for each in going.rglob("*"))
    shutil.rmtree(going)
    return f"deleted {incarnation}, {size} bytes"


def main(arguments: Sequence[str]) -> int:
    """Run the program; 0 when nothing of what it was told is left."""
    if len(arguments) < 2:
        print("usage: clean VOLUME INCARNATION...", file=sys.stderr)
        return 2
    try:
        for told in clean(Path(arguments[0]), arguments[1:]):
            print(told)
    except (RefusedError, OSError) as error:
        print(f"nothing more is deleted: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
