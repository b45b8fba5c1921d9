"""The operator's image, from the Containerfile that users build, on a base made of Debian packages.

buildah stands in for the user's container engine, and a small Debian stands in for the public Python image,
which no registry may be in reach for. How this machine reaches the Python package index (pip's settings, the
certificates, folders of wheels) is lent to the build by mounts and never becomes part of a layer.
"""

from __future__ import annotations

import ast
import os
import shutil
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from localcluster import debian, pack
from localcluster.cache import cache_dir, digest, entry, log_file, run
from localcluster.images import DISTROLESS
from localcluster.pack import Image, Layer, write_archive
from localcluster.progress import Progress

ROOT = Path(__file__).parents[2]
NAME = "docker.io/library/external-etcd-operator"

#: What the Containerfile reads; `.containerignore` leaves out the rest.
INPUTS = ("Containerfile", ".containerignore", "pyproject.toml", "constraints.txt", "LICENSE", "operator")

#: The Python of the image; libstdc++ and zlib are what wheels with compiled parts link to.
BASE_PACKAGES = ("base-files", "libc6", "python3", "libstdc++6", "zlib1g", "tzdata", "netbase")
#: What installing Python packages needs besides.
BUILD_PACKAGES = (*BASE_PACKAGES, "python3-pip", "dash", "coreutils", "findutils")
#: Left out of the image: what a Python service without a shell and a terminal never opens.
NOT_FOR_BASE = (
    "/usr/lib/*/gconv/*",
    "/usr/lib/python3*/test/*",
    "/usr/lib/python3*/idlelib/*",
    "/usr/lib/python3*/lib2to3/*",
    "/usr/lib/python3*/pydoc_data/*",
    "/usr/lib/python3*/ensurepip/*",
    "/usr/share/perl*",
    "/usr/share/zoneinfo/posix/*",
    "/usr/share/zoneinfo/right/*",
    "/var/cache/*",
    "/var/lib/dpkg/info/*",
    "/usr/bin/dpkg*",
    "/usr/bin/debconf*",
    "/bin/tar",
)

#: How many versions of the image stay in the cache, each of some 150 MB.
ARCHIVES_KEPT = 4


def ensure(progress: Progress, *, tag: str | None = None) -> tuple[str, Path]:
    """The image's name and its docker-archive; built only when something that goes into it changed.

    Raises BuildError with the log's last lines.
    """
    base = digest(Path(__file__), Path(pack.__file__), *BASE_PACKAGES, *BUILD_PACKAGES)
    key = digest(base, *(part for name in INPUTS for part in (name, ROOT / name)))
    image = f"{NAME}:{tag or f'dev-{key}'}"

    def build(folder: Path) -> None:
        debian.ensure_packages(debian.IMAGE_PACKAGES, progress)
        store = _Store(cache_dir() / "lab" / "buildah")
        names = [f"localhost/{part}:{base}" for part in ("base", "build")]
        if not any(store.has(name) for name in names):
            store.empty()  # all that is in it stands on another base and is never used again
        for name, part, packages in zip(names, ("base", "build"), (BASE_PACKAGES, BUILD_PACKAGES), strict=True):
            if not store.has(name):
                with progress.step(f"Making the {part} image of Debian packages", estimate=12):
                    store.pull(_write_base(folder, name, packages))
        layers = digest(base, *(ROOT / name for name in ("Containerfile", "pyproject.toml", "constraints.txt")))
        with progress.step("Building the operator's image", estimate=8 if store.knows(layers) else 40):
            store.build(image, base, _context(folder))
            store.export(image, folder / "image.tar")
        store.learn(layers)

    name = key if tag is None else f"{key}-{tag}"
    return image, entry("operator-image", name, build, keep=ARCHIVES_KEPT) / "image.tar"


def _context(folder: Path) -> Path:
    """A copy of what the Containerfile reads: the build sees one moment of the checkout, and no caches of Python."""
    context = folder / "context"
    context.mkdir()
    for name in INPUTS:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, context / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy(source, context / name)
    return context


def _write_base(folder: Path, name: str, packages: Sequence[str]) -> Path:
    """A docker-archive of an image `name` with a root file system of Debian packages and the usual certificates."""
    work = folder / "base"
    work.mkdir()
    root = work / "root.tar"
    debian.root_file_system(root, packages, variant="extract", drop=NOT_FOR_BASE)
    # Unpacked alone: the package's own set-up needs openssl and perl to join these files into one.
    debian.unpack("ca-certificates", work / "ca-certificates")
    files = sorted((work / "ca-certificates/usr/share/ca-certificates/mozilla").glob("*.crt"))
    certificates: Layer = {"/etc/ssl/certs/ca-certificates.crt": b"".join(path.read_bytes() for path in files)}
    archive = folder / "base.tar"
    write_archive(archive, [Image(names=(name,), layers=(root, DISTROLESS, certificates))])
    shutil.rmtree(work)
    return archive


class _Store:
    """buildah with its images in a folder of the cache."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        # buildah wants a policy for images that it fetches; nothing is fetched here, and the machine may have none.
        self._policy = folder / "policy.json"
        self._policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}\n')

    def _command(self, verb: str, *words: str | Path) -> list[str | Path]:
        return ["buildah", "--root", self._folder / "storage", "--runroot", self._folder / "run", verb, *words]

    def has(self, image: str) -> bool:
        """Whether the store holds an image of this name."""
        command = self._command("images", "--quiet", image)
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def empty(self) -> None:
        """Remove all images and layers."""
        run(self._command("rmi", "--all", "--force"), log=log_file("operator-image-clean"))

    def knows(self, layers: str) -> bool:
        """Whether an image on these layers was built before, so that a build finds them."""
        return self._mark(layers).exists()

    def learn(self, layers: str) -> None:
        """Remember that an image on these layers was built."""
        self._mark(layers).touch()

    def _mark(self, layers: str) -> Path:
        return self._folder / f"built-{layers}"

    def pull(self, archive: Path) -> None:
        """Take the image in a docker-archive into the store; the archive is removed."""
        command = self._command("pull", "--signature-policy", self._policy, f"docker-archive:{archive}")
        run(command, log=log_file("operator-base"))
        archive.unlink()

    def build(self, image: str, base: str, context: Path) -> None:
        """Build the Containerfile in `context` and name the result `image`."""
        with tempfile.TemporaryDirectory(prefix="external-etcd-") as folder:
            run(
                self._command(
                    "build",
                    *("--isolation", "chroot", "--network", "host", "--layers", "--pull-never", "--format", "docker"),
                    *("--signature-policy", self._policy),
                    *(
                        "--build-arg",
                        f"BASE=localhost/base:{base}",
                        "--build-arg",
                        f"BUILD_BASE=localhost/build:{base}",
                    ),
                    *pip_access(Path(folder)),
                    *("--tag", image, "--tag", f"{NAME}:latest"),
                    *("--file", context / "Containerfile", context),
                ),
                log=log_file("operator-image"),
            )
        shutil.rmtree(context)

    def export(self, image: str, archive: Path) -> None:
        """Write `image` as a docker-archive that containerd imports under the same name."""
        command = self._command("push", "--signature-policy", self._policy, image, f"docker-archive:{archive}:{image}")
        run(command, log=log_file("operator-image-export"))


def pip_access(folder: Path) -> list[str]:
    """buildah's options that let pip inside the build reach what pip on this machine reaches.

    pip's settings come from several files and the environment; `pip config list` tells all of them, and they
    become one pip.conf in `folder`, handed in as a secret: it is there while pip runs, and in no layer.
    """
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
    ).stdout
    settings = merged_pip_settings(listed)
    options = []
    certificates = (
        settings.pop("cert", None) or os.environ.get("SSL_CERT_FILE") or ssl.get_default_verify_paths().cafile
    )
    if certificates and Path(certificates).is_file():
        settings["cert"] = "/run/secrets/ca.crt"
        options.append(f"--secret=id=ca.crt,src={certificates}")
    wheels = [
        path for path in settings.get("find-links", "").split() if Path(path).is_dir() and any(Path(path).iterdir())
    ]
    options += [f"--volume={path}:{path}:ro" for path in wheels]
    file = folder / "pip.conf"
    lines = [f"{name} = {value}".replace("\n", "\n  ") for name, value in settings.items()]
    file.write_text("\n".join(["[global]", *lines, ""]))
    return [f"--secret=id=pip.conf,src={file}", *options]


def merged_pip_settings(listed: str) -> dict[str, str]:
    """What `pip config list` printed, as one set: `install` wins over `global`, the environment over both."""
    ranks = {"global": 0, "install": 1, ":env:": 2}
    found: dict[str, tuple[int, str]] = {}
    for line in listed.splitlines():
        key, _, quoted = line.partition("=")
        section, _, name = key.rpartition(".")
        rank = ranks.get(section)
        if rank is not None and rank >= found.get(name, (0, ""))[0]:
            found[name] = (rank, str(ast.literal_eval(quoted)))
    return {name: value for name, (_, value) in sorted(found.items())}
