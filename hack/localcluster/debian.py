"""Debian packages: installed on this machine when missing, or unpacked into a folder.

Only what a local cluster needs; on another system it says what to install instead of guessing its names.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from localcluster.cache import BuildError, lock, log_file, run
from localcluster.progress import Progress

#: What the nodes use on the host: package -> a program or file that proves it, on any distribution.
NODE_PACKAGES = {
    "iproute2": "ip",
    "nftables": "nft",
    "iptables": "iptables",  # the portmap plugin of CNI still speaks it
    "containernetworking-plugins": "/usr/lib/cni/bridge",
    "conntrack": "conntrack",
    "util-linux": "nsenter",
    "mount": "mount",
    "kmod": "modprobe",
}

#: What building images and programs uses.
RUNC_PACKAGES = {
    "gcc": "gcc",
    "libc6-dev": "/usr/include/stdio.h",
    "pkg-config": "pkg-config",
    "libseccomp-dev": "/usr/include/seccomp.h",
}
IMAGE_PACKAGES = {"buildah": "buildah", "mmdebstrap": "mmdebstrap"}


def present(proof: str) -> bool:
    """Whether a file exists or a program is on PATH (the administrator's folders included)."""
    if proof.startswith("/"):
        return Path(proof).exists()
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
    return shutil.which(proof, path=path) is not None


def ensure_packages(packages: dict[str, str], progress: Progress) -> None:
    """Install those of `packages` (name -> proof) that are missing.

    Raises BuildError naming what is missing where it cannot: not Debian, not root, or apt-get failed.
    """
    missing = [name for name, proof in packages.items() if not present(proof)]
    if not missing:
        return
    if not shutil.which("apt-get"):
        raise BuildError(
            f"missing on this machine: {', '.join(missing)} (Debian's package names); "
            "apt-get is not here to install them, so install what your distribution calls them"
        )
    if os.geteuid() != 0:
        raise BuildError(f"missing packages; run: sudo apt-get install --no-install-recommends {' '.join(missing)}")
    with progress.step(f"Installing Debian packages: {', '.join(missing)}", estimate=15):
        apt(["install", "--yes", "--no-install-recommends", *missing])


def apt(arguments: Sequence[str], *, cwd: Path | None = None) -> None:
    """Run apt-get; a failure is tried once more after `apt-get update`, as old package lists cause most."""
    env = {"DEBIAN_FRONTEND": "noninteractive"}
    # apt's own lock refuses at once by default: wait for another apt-get instead.
    command = ["apt-get", "-o", "DPkg::Lock::Timeout=300", "-o", "Acquire::Retries=3"]
    with lock(log_file("apt").with_suffix(".lock")):
        try:
            run([*command, *arguments], log=log_file("apt"), env=env, cwd=cwd)
        except BuildError:
            run([*command, "update"], log=log_file("apt-update"), env=env)
            run([*command, *arguments], log=log_file("apt"), env=env, cwd=cwd)


def unpack(package: str, folder: Path) -> None:
    """Put the files of a Debian package into `folder` without installing it on this machine."""
    archives = folder / ".archives"
    archives.mkdir(parents=True)
    archives.chmod(0o777)  # apt downloads as a user of its own
    apt(["download", package], cwd=archives)
    for archive in archives.glob("*.deb"):
        subprocess.run(["dpkg-deb", "--extract", archive, folder], check=True)
    shutil.rmtree(archives)


def root_file_system(archive: Path, packages: Iterable[str], *, variant: str, drop: Iterable[str] = ()) -> None:
    """Write a tar of a Debian system with `packages` and what they depend on.

    `variant` is mmdebstrap's: "extract" only unpacks (no package's set-up runs, no dpkg in it),
    "custom" sets up exactly what is named. `drop`: globs of paths left out.
    """
    suite = _suite()
    excluded = [
        "/usr/share/doc/*",
        "/usr/share/man/*",
        "/usr/share/info/*",
        "/usr/share/locale/*",
        "/usr/share/lintian/*",
        "/usr/share/bash-completion/*",
        *drop,
    ]
    run(
        [
            "mmdebstrap",
            "--mode=root" if os.geteuid() == 0 else "--mode=auto",
            f"--variant={variant}",
            f"--include={','.join(packages)}",
            *[f"--dpkgopt=path-exclude={glob}" for glob in excluded],
            "--aptopt=Acquire::Retries 3",
            suite,
            archive,
        ],
        log=log_file(f"mmdebstrap-{archive.stem}"),
        # mmdebstrap takes SOURCE_DATE_EPOCH as the newest time a file may have: the same packages, the same tar.
        env={"SOURCE_DATE_EPOCH": "1700000000", "DEBIAN_FRONTEND": "noninteractive"},
    )


def _suite() -> str:
    """The release of Debian that this machine runs; the newest stable one where it runs something else."""
    release = dict(line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line)
    if release.get("ID") == "debian":
        return release.get("VERSION_CODENAME", "stable").strip('"')
    return "stable"
