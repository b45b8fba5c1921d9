"""Write images as docker-archives, without any container engine.

An archive may hold several images; a layer that occurs in more than one is stored once. The same content
gives the same bytes: no clock, no user of this machine, no order of a directory gets into them.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

#: The age of every image and layer; buildah finds nothing in its cache on top of an image without one.
CREATED = "2020-01-01T00:00:00Z"


@dataclass(frozen=True, slots=True)
class Link:
    """A symbolic link to `target`."""

    target: str


@dataclass(frozen=True, slots=True)
class Folder:
    """An empty folder with the permissions `mode`."""

    mode: int = 0o755


#: What stands at a path of a layer: a file of this machine, a text, a link or a folder.
Content = Path | bytes | Link | Folder
#: Paths in the image (absolute) with their contents, or a tar that is the layer as it stands.
Layer = Mapping[str, Content] | Path


@dataclass(frozen=True, kw_only=True, slots=True)
class Image:
    """One image: its names, its layers from the bottom up, and how its program is started."""

    names: tuple[str, ...]
    layers: tuple[Layer, ...]
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    user: str = ""
    workdir: str = ""
    env: tuple[str, ...] = ()
    ports: tuple[int, ...] = field(default=())
    #: What asks the program to end, such as "SIGUSR1"; SIGTERM where empty.
    stop_signal: str = ""


@dataclass(frozen=True, slots=True)
class _Blob:
    digest: str
    path: Path


def write_archive(archive: Path, images: Sequence[Image]) -> None:
    """Write `images` into the docker-archive `archive`, which appears whole or not at all."""
    with tempfile.TemporaryDirectory(prefix=".pack-", dir=archive.parent) as folder:
        blobs: dict[int, _Blob] = {}  # by the identity of the layer: images share one by sharing the object
        new = Path(folder, "archive.tar")
        with tarfile.open(new, "w") as tar:
            written: set[str] = set()
            manifest = []
            for image in images:
                layers = [_blob(layer, Path(folder), blobs) for layer in image.layers]
                for layer in layers:
                    if layer.digest not in written:
                        written.add(layer.digest)
                        with layer.path.open("rb") as content:
                            tar.addfile(_plain(f"{layer.digest}.tar", layer.path.stat().st_size), content)
                config = json.dumps(_config(image, layers), sort_keys=True).encode()
                name = f"{hashlib.sha256(config).hexdigest()}.json"
                if name not in written:
                    written.add(name)
                    tar.addfile(_plain(name, len(config)), io.BytesIO(config))
                files = [f"{layer.digest}.tar" for layer in layers]
                manifest.append({"Config": name, "RepoTags": list(image.names), "Layers": files})
            text = json.dumps(manifest).encode()
            tar.addfile(_plain("manifest.json", len(text)), io.BytesIO(text))
        new.rename(archive)


def _blob(layer: Layer, folder: Path, known: dict[int, _Blob]) -> _Blob:
    if id(layer) not in known:
        path = layer if isinstance(layer, Path) else _write_layer(layer, folder / f"layer-{len(known)}.tar")
        with path.open("rb") as content:
            known[id(layer)] = _Blob(hashlib.file_digest(content, "sha256").hexdigest(), path)
    return known[id(layer)]


def _write_layer(layer: Mapping[str, Content], path: Path) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, content in sorted(_with_parents(layer).items()):
            _add(tar, name.lstrip("/"), content)
    return path


def _with_parents(layer: Mapping[str, Content]) -> dict[str, Content]:
    """The layer with the folders above its entries, which a runtime would otherwise make as it likes."""
    whole: dict[str, Content] = {}
    for name in layer:
        for parent in list(Path(name).parents)[:-1]:
            whole[str(parent)] = Folder()
    return {**whole, **layer}


def _add(tar: tarfile.TarFile, name: str, content: Content) -> None:
    entry = tarfile.TarInfo(name)
    match content:
        case bytes():
            entry.size, entry.mode = len(content), 0o644
            tar.addfile(entry, io.BytesIO(content))
        case Link():
            entry.type, entry.linkname, entry.mode = tarfile.SYMTYPE, content.target, 0o777
            tar.addfile(entry)
        case Folder():
            entry.type, entry.mode = tarfile.DIRTYPE, content.mode
            tar.addfile(entry)
        case Path():
            entry.size = content.stat().st_size
            entry.mode = 0o755 if os.access(content, os.X_OK) else 0o644
            with content.open("rb") as file:
                tar.addfile(entry, file)


def _plain(name: str, size: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.size = size
    return entry


def _config(image: Image, layers: Sequence[_Blob]) -> dict[str, object]:
    config: dict[str, object] = {"Env": [_PATH, *image.env]}
    if image.entrypoint:
        config["Entrypoint"] = list(image.entrypoint)
    if image.command:
        config["Cmd"] = list(image.command)
    if image.user:
        config["User"] = image.user
    if image.workdir:
        config["WorkingDir"] = image.workdir
    if image.ports:
        config["ExposedPorts"] = {f"{port}/tcp": {} for port in image.ports}
    if image.stop_signal:
        config["StopSignal"] = image.stop_signal
    return {
        "architecture": architecture(),
        "created": CREATED,
        "os": "linux",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer.digest}" for layer in layers]},
        "history": [{"created": CREATED, "created_by": "hack/localcluster"} for _ in layers],
    }


def architecture() -> str:
    """This machine's architecture as images call it."""
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
