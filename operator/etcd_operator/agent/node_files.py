"""Files of a node, changed so that a crash at any moment leaves each of them whole: the old one, or the new one."""

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from etcd_operator.agent.plan import KUBERNETES

#: What a file is called while it is written. The kubelet ignores names that begin with a dot (pkg/kubelet/config,
#: file.go and file_linux.go), so that it never sees half of a manifest.
_ASIDE = ".{}.external-etcd"


class Disk:
    """The single steps, each of which is done or not; a test puts a crash before and after each."""

    def write(self, path: Path, data: bytes, mode: int, owner: tuple[int, int] | None) -> None:
        """Make a file, on the disk when it returns; one that is there is no more what it was."""
        path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb") as file:  # noqa: PTH123 - a descriptor, so that nobody else may read it meanwhile
            file.write(data)
            if owner is not None:
                os.fchown(descriptor, *owner)
            os.fchmod(descriptor, mode)
            file.flush()
            os.fsync(descriptor)

    def rename(self, old: Path, new: Path) -> None:
        """Give a file another name, in place of what has it."""
        old.rename(new)

    def unlink(self, path: Path) -> None:
        """Remove a file that may be there."""
        path.unlink(missing_ok=True)

    def make_folder(self, path: Path, mode: int) -> None:
        """Make a folder and those above it."""
        path.mkdir(mode=mode, parents=True, exist_ok=True)

    def sync(self, folder: Path) -> None:
        """Bring the names in a folder to the disk."""
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeFiles:
    """The node's files by their paths on the node, all below /etc/kubernetes, which is at `root`."""

    root: Path = Path(KUBERNETES)
    disk: Disk = field(default_factory=Disk)

    def path(self, name: str) -> Path:
        """Where this program has a file of the node; PermissionError for one outside of /etc/kubernetes."""
        pure = PurePosixPath(name)
        if ".." in pure.parts or not pure.is_relative_to(KUBERNETES):
            raise PermissionError(f"{name} is not below {KUBERNETES}")
        return self.root / pure.relative_to(KUBERNETES)

    def read(self, name: str) -> bytes | None:
        """What the file holds; `None` where there is none. Raises `OSError`."""
        try:
            return self.path(name).read_bytes()
        except FileNotFoundError:
            return None

    def write(self, name: str, data: bytes, *, mode: int | None = 0o600) -> None:
        """Put a file in place of what is there; mode `None`: mode and owner are those of the former one.

        Its folder is made where it is missing, for root alone. What is there already is but brought to the disk, as a
        run before may have been killed just then. Raises `OSError`.
        """
        path = self.path(name)
        if not path.parent.is_dir():
            self.disk.make_folder(path.parent, 0o700)
            self.disk.sync(path.parent.parent)
        if self.read(name) != data:
            owner = None
            if mode is None:
                former = path.stat()
                mode, owner = stat.S_IMODE(former.st_mode), (former.st_uid, former.st_gid)
            aside = _aside(path)
            self.disk.write(aside, data, mode, owner)
            self.disk.rename(aside, path)
        self.disk.sync(path.parent)

    def remove(self, name: str) -> None:
        """Remove a file that may be there."""
        path = self.path(name)
        if path.exists():
            self.disk.unlink(path)
            self.disk.sync(path.parent)

    def clean_up(self, name: str) -> None:
        """Remove what a run that was killed left of its writing of that file."""
        aside = _aside(self.path(name))
        if aside.exists():
            self.disk.unlink(aside)


def _aside(path: Path) -> Path:
    return path.with_name(_ASIDE.format(path.name))
