"""Build the Go programs of a local cluster, as few compilations as possible.

One module (`go/`) requires everything that the demo needs, so packages that Kubernetes, containerd, CoreDNS and
etcd share compile once; `go/extra/NAME` are modules of their own for what only some tests need.
Go's own caches stay where the user has them. Says nothing about images.
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from localcluster import debian, versions
from localcluster.cache import BuildError, digest, entry, log_file, run
from localcluster.progress import Progress, Step
from localcluster.toolchain import ensure_go, go_version

SOURCE = Path(__file__).parent / "go"

#: Seconds that two cores take for 1,000 packages, and to link the programs in the end; for the estimate only.
SECONDS_PER_1000_PACKAGES = 95.0
LINK_SECONDS = 30.0

#: The same for all programs, or nothing compiles only once: no profile of one program may shape the code of
#: all (pgo), no debug data that the linker would drop again (dwarf), none of the file systems and tracing
#: that need more libraries.
FLAGS = (
    "-trimpath",
    "-buildvcs=false",
    "-pgo=off",
    "-gcflags=all=-dwarf=false",
    "-tags=no_btrfs,no_zfs,no_devmapper,grpcnotrace,seccomp",
)

_VERSION = "k8s.io/component-base/version"
LINKER_FLAGS = " ".join(
    [
        "-s -w",
        f"-X {_VERSION}.gitVersion=v{versions.KUBERNETES}",
        f"-X {_VERSION}.gitMajor={versions.KUBERNETES.split('.')[0]}",
        f"-X {_VERSION}.gitMinor={versions.KUBERNETES.split('.')[1]}",
        f"-X {_VERSION}.gitTreeState=clean",
        f"-X github.com/containerd/containerd/v2/version.Version=v{versions.CONTAINERD}",
        f"-X main.VERSION=v{versions.LOCAL_PATH_PROVISIONER}",
    ]
)

#: The programs that the binary `kube` is, told by the name it is called by.
KUBE_PROGRAMS = (
    "kubelet",
    "kubeadm",
    "kubectl",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kube-proxy",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Build:
    """One `go build`: packages that are built together into one folder."""

    title: str
    packages: tuple[str, ...]
    cgo: bool = False
    linker_flags: str = LINKER_FLAGS


CLUSTER_BUILDS = (
    Build(
        title="Building Kubernetes, containerd, etcd and CoreDNS",
        packages=(
            "./kube",
            "./etcd",
            "./coredns",
            "./pause",
            "go.etcd.io/etcd/etcdctl/v3",
            "go.etcd.io/etcd/etcdutl/v3",
            "github.com/containerd/containerd/v2/cmd/containerd",
            "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
            "github.com/containerd/containerd/v2/cmd/ctr",
        ),
    ),
    # By itself: it imports Sirupsen/logrus, and Go refuses a build in which sirupsen/logrus occurs as well.
    Build(title="Building local-path-provisioner", packages=("github.com/rancher/local-path-provisioner",)),
    Build(
        title="Building runc",
        packages=("github.com/opencontainers/runc",),
        cgo=True,  # what enters the container's namespaces before Go's threads start is C; so is libseccomp
        linker_flags=f"-s -w -X main.version={versions.RUNC}",
    ),
)


def cluster_programs(progress: Progress) -> Path:
    """The folder with every program of the cluster, `KUBE_PROGRAMS` as links; built when missing."""
    check_versions(SOURCE, versions.GO_MODULES)
    go = ensure_go(SOURCE, progress)
    sources = [path for name in ("kube", "etcd", "coredns", "pause") for path in (SOURCE / name, name)]
    key = _key(go, SOURCE / "go.mod", SOURCE / "go.sum", *sources, repr(CLUSTER_BUILDS))

    def build(target: Path) -> None:
        debian.ensure_packages(debian.RUNC_PACKAGES, progress)
        programs = target / "bin"
        for one in CLUSTER_BUILDS:
            go_build(go, SOURCE, one, programs, progress)
        for name in KUBE_PROGRAMS:
            (programs / name).symlink_to("kube")

    return entry("programs", key, build) / "bin"


def extra_programs(name: str, progress: Progress) -> Path:
    """The folder with the programs of the module `go/extra/NAME`: what its go.mod lists as tools, and its own mains.

    Raises BuildError when there is no such module.
    """
    if name not in versions.EXTRA_GO_MODULES:
        raise BuildError(f"{name} cannot be built here; what can: {', '.join(sorted(versions.EXTRA_GO_MODULES))}")
    module = SOURCE / "extra" / name
    check_versions(module, versions.EXTRA_GO_MODULES[name])
    go = ensure_go(module, progress)
    mains = [f"./{path.parent.name}" for path in sorted(module.glob("*/main.go"))]
    build = Build(title=f"Building {name}", packages=("tool", *mains), linker_flags="-s -w")
    key = f"{name}-{_key(go, module, repr(build))}"
    return entry("extra-programs", key, lambda target: go_build(go, module, build, target / "bin", progress)) / "bin"


def _key(go: Path, *parts: Path | str) -> str:
    version = ".".join(map(str, go_version(go)))
    return digest(version, platform.machine(), *FLAGS, *parts)


def go_build(go: Path, module: Path, build: Build, target: Path, progress: Progress) -> None:
    """Compile the packages of `build` into the folder `target`, telling how many of them are done.

    Raises BuildError with the log's last lines.
    """
    env = {
        "CGO_ENABLED": "1" if build.cgo else "0",
        "GOTOOLCHAIN": "local",
        "GOFLAGS": "-mod=readonly",
        "GOWORK": "off",
        "PATH": os.pathsep.join([str(go.parent), os.environ.get("PATH", os.defpath)]),
    }
    log = log_file("go-" + re.sub(r"\W+", "-", build.title.lower()))
    with progress.step(f"{build.title} (downloading sources)", estimate=None) as step:
        stale = _stale_packages(go, module, build, env, log, step)
    estimate = SECONDS_PER_1000_PACKAGES * stale / 1000 + LINK_SECONDS * len(build.packages) / 10
    with progress.step(build.title, estimate=estimate) as step:
        counter = _Counter(step, stale)
        run(
            [go, "build", "-v", *FLAGS, f"-ldflags={build.linker_flags}", "-o", f"{target}/", *build.packages],
            log=log,
            cwd=module,
            env=env,
            on_line=counter.line,
        )


def _stale_packages(go: Path, module: Path, build: Build, env: Mapping[str, str], log: Path, step: Step) -> int:
    """Fetch the sources; how many packages are not in Go's build cache yet."""
    command: Sequence[str | Path] = [
        *(go, "list", "-deps", *FLAGS),
        *("-f", "{{if .Stale}}stale {{.ImportPath}}{{end}}", *build.packages),
    ]
    count = 0

    def line(text: str) -> None:
        nonlocal count
        if text.startswith("stale "):
            count += 1
        elif text.startswith("go: downloading "):
            step.detail(text.removeprefix("go: "))

    run(command, log=log, cwd=module, env=env, on_line=line)
    return max(count, 1)


class _Counter:
    """Turns the lines of `go build -v` (one for each package that it compiles) into progress."""

    def __init__(self, step: Step, total: int) -> None:
        self._step = step
        self._total = total
        self._done = 0

    def line(self, text: str) -> None:
        if " " in text or "/" not in text:
            return
        self._done = min(self._done + 1, self._total)
        self._step.at(self._done, self._total)
        self._step.detail("linking" if self._done >= self._total - 1 else text)


def check_versions(folder: Path, modules: Mapping[str, str]) -> None:
    """The versions table and go.mod must say the same, or what is built is not what its name tells.

    Raises BuildError where they differ.
    """
    text = (folder / "go.mod").read_text()
    for module, version in modules.items():
        if not re.search(rf"^\s*(?:require )?{re.escape(module)} v{re.escape(version)}(?:\s|$)", text, re.MULTILINE):
            raise BuildError(f"versions.py says {module} {version}, {folder / 'go.mod'} says otherwise")
