"""HAProxy as a program on this machine: the root file system of its image, unpacked once.

Run from there by `chroot`, it is the very HAProxy that pods run; no package is installed, so no service is started.
"""

from __future__ import annotations

import json
import tarfile
import tempfile
from pathlib import Path

from localcluster import images
from localcluster.cache import entry
from localcluster.progress import Progress
from localcluster.shell import run

#: The program, within the root file system.
PROGRAM = "/usr/sbin/haproxy"
#: User and group that the image has for it.
USER = 99


def ensure_root(progress: Progress) -> Path:
    """The folder that holds the image's files; built when missing, not to be written into."""
    archive = images.haproxy_image(progress)

    def unpack(folder: Path) -> None:
        with progress.step("Unpacking HAProxy (once)", estimate=2):
            _unpack(archive, folder)

    return entry("haproxy", archive.parent.name, unpack, keep=1)


def _unpack(archive: Path, folder: Path) -> None:
    """Unpack the layers of a docker-archive with a single image, without its devices."""
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".layers-") as layers:
        run(["tar", "-x", "-f", archive, "-C", layers])
        with tarfile.open(archive) as tar:
            manifest = tar.extractfile("manifest.json")
            assert manifest is not None
            (image,) = json.load(manifest)
        for layer in image["Layers"]:
            run(["tar", "-x", "-f", Path(layers, layer), "-C", folder, "--exclude=./dev/*"])
