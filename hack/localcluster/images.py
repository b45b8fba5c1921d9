"""The images that nodes start with, and etcd's, from the programs that `gobuild` made.

Names and tags are those that kubeadm and upstream's manifests ask for, so nothing that runs in the cluster can
tell that no registry was asked. The operator's own image is made elsewhere.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from localcluster import debian, gobuild, versions
from localcluster.cache import digest, entry
from localcluster.pack import Folder, Image, Layer, Link, write_archive
from localcluster.progress import Progress

#: Bump when what this module or `pack` writes changes, so that cached archives are made anew.
LAYOUT = "1"

#: What a distroless image has besides its program.
DISTROLESS: Layer = {
    "/etc/passwd": (
        b"root:x:0:0:root:/root:/sbin/nologin\n"
        b"nobody:x:65534:65534:nobody:/nonexistent:/sbin/nologin\n"
        b"nonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin\n"
    ),
    "/etc/group": b"root:x:0:\nnobody:x:65534:\ntty:x:5:\nstaff:x:50:\nnonroot:x:65532:\n",
    "/etc/nsswitch.conf": b"hosts: files dns\n",
    "/home/nonroot": Folder(0o755),
    "/root": Folder(0o700),
    "/tmp": Folder(0o1777),
}

#: Left out of the layer that gives kube-proxy its nft: most of the C library's weight is character sets.
NOT_FOR_NFT = ("/usr/lib/*/gconv/*", "/usr/share/zoneinfo/*", "/usr/share/perl*", "/var/cache/*")
#: Left out of HAProxy's image: what a proxy without a shell never opens.
NOT_FOR_HAPROXY = (*NOT_FOR_NFT, "/usr/bin/dpkg*", "/usr/bin/perl*", "/var/lib/dpkg/info/*", "/bin/tar")


def node_images(programs: Path, progress: Progress) -> list[Path]:
    """docker-archives of everything that a new node needs before it can run a pod."""
    system = entry("images", f"system-{_key(programs)}", lambda folder: _write_system(folder, programs, progress))
    cluster_etcd = entry(
        "images",
        f"etcd-{versions.ETCD}-{_key(programs)}",
        lambda folder: _write_etcd(
            folder, versions.ETCD, programs, progress, (versions.etcd_image(versions.ETCD), versions.KUBEADM_ETCD_IMAGE)
        ),
    )
    return [system / "images.tar", cluster_etcd / "images.tar"]


def etcd_image(version: str, programs: Path, progress: Progress) -> Path:
    """A docker-archive of etcd `version`, laid out as upstream's, from `programs`."""
    names = (versions.etcd_image(version),)
    folder = entry(
        "images",
        f"etcd-{version}-only-{_key(programs)}",
        lambda folder: _write_etcd(folder, version, programs, progress, names),
    )
    return folder / "images.tar"


def haproxy_image(progress: Progress) -> Path:
    """A docker-archive of Debian's HAProxy, with program, user and stop signal as in the official image."""
    key = digest(LAYOUT, versions.HAPROXY_IMAGE, Path(__file__), Path(__file__).with_name("pack.py"))
    return entry("images", f"haproxy-{key}", lambda folder: _write_haproxy(folder, progress)) / "images.tar"


def _write_haproxy(folder: Path, progress: Progress) -> None:
    debian.ensure_packages(debian.IMAGE_PACKAGES, progress)
    with progress.step("Making the image of HAProxy from Debian's package", estimate=10):
        root = folder / "root.tar"
        debian.root_file_system(root, ["haproxy"], variant="extract", drop=NOT_FOR_HAPROXY)
        accounts: Layer = {
            "/etc/passwd": b"root:x:0:0:root:/root:/sbin/nologin\nhaproxy:x:99:99::/var/lib/haproxy:/sbin/nologin\n",
            "/etc/group": b"root:x:0:\nhaproxy:x:99:\n",
            "/usr/local/sbin/haproxy": Link("/usr/sbin/haproxy"),
            "/usr/local/etc/haproxy": Folder(),
        }
        image = Image(
            names=(versions.HAPROXY_IMAGE,),
            layers=(root, DISTROLESS, accounts),
            command=("haproxy", "-f", "/usr/local/etc/haproxy/haproxy.cfg"),
            workdir="/var/lib/haproxy",
            user="haproxy",
            stop_signal="SIGUSR1",
        )
        write_archive(folder / "images.tar", [image])
        root.unlink()


def _key(programs: Path) -> str:
    # The folder's own name is a key made of all that went into the programs.
    return digest(LAYOUT, programs.parent.name, versions.PAUSE, Path(__file__), Path(__file__).with_name("pack.py"))


def _write_etcd(folder: Path, version: str, programs: Path, progress: Progress, names: tuple[str, ...]) -> None:
    with progress.step(f"Packing the image of etcd {version}", estimate=1):
        files: Layer = {
            **{f"/usr/local/bin/{name}": programs / name for name in ("etcd", "etcdctl", "etcdutl")},
            "/var/etcd": Folder(),
            "/var/lib/etcd": Folder(0o755),
        }
        image = Image(
            names=names,
            layers=(DISTROLESS, files),
            command=("/usr/local/bin/etcd",),
            workdir="/var/lib/etcd/",
            user="0",
            ports=(2379, 2380),
        )
        write_archive(folder / "images.tar", [image])


def _write_system(folder: Path, programs: Path, progress: Progress) -> None:
    debian.ensure_packages(debian.IMAGE_PACKAGES, progress)
    nft = folder / "nft.tar"
    busybox = folder / "busybox"
    with progress.step("Fetching nftables and busybox for images", estimate=6):
        debian.root_file_system(nft, ["nftables"], variant="extract", drop=NOT_FOR_NFT)
        debian.unpack("busybox-static", busybox)
    with progress.step("Packing the images of the nodes", estimate=3):
        images = [
            *_kubernetes(programs, nft),
            Image(
                names=(versions.PAUSE_IMAGE,),
                layers=({"/pause": programs / "pause"},),
                entrypoint=("/pause",),
                user="65535:65535",
            ),
            Image(
                names=(versions.COREDNS_IMAGE,),
                layers=(DISTROLESS, {"/coredns": programs / "coredns"}),
                entrypoint=("/coredns",),
            ),
            Image(
                names=(versions.LOCAL_PATH_IMAGE,),
                layers=(DISTROLESS, {"/usr/bin/local-path-provisioner": programs / "local-path-provisioner"}),
                entrypoint=("local-path-provisioner",),
            ),
            Image(
                names=(versions.BUSYBOX_IMAGE,),
                layers=(DISTROLESS, _busybox(busybox / "bin" / "busybox")),
                command=("sh",),
            ),
        ]
        write_archive(folder / "images.tar", images)
    nft.unlink()
    subprocess.run(["rm", "-r", busybox], check=True)


def _kubernetes(programs: Path, nft: Path) -> list[Image]:
    """One image for each program of the control plane; the binary is the lowest layer of all: it is unpacked once."""
    binary: Layer = {"/usr/local/bin/kube": programs / "kube"}
    images = []
    for name in ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy"):
        own: Layer = {f"/usr/local/bin/{name}": Link("kube")}
        layers = (binary, nft, own) if name == "kube-proxy" else (binary, DISTROLESS, own)
        images.append(Image(names=(versions.kubernetes_image(name),), layers=layers))
    return images


def _busybox(program: Path) -> Layer:
    applets = subprocess.run([program, "--list"], capture_output=True, text=True, check=True).stdout.split()
    links = {f"/bin/{applet}": Link("busybox") for applet in applets if applet != "busybox"}
    return {"/bin/busybox": program, **links}


def etcd_programs(version: str, progress: Progress) -> Path:
    """The folder with etcd, etcdctl and etcdutl of `version`; built when missing."""
    if version == versions.ETCD:
        return gobuild.cluster_programs(progress)
    return gobuild.extra_programs(f"etcd-{version}", progress)
