"""docker-archives: what containerd will find in them, and that the same content gives the same bytes."""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from pathlib import Path
from typing import IO, Any

from localcluster.pack import Folder, Image, Layer, Link, write_archive


def content(tar: tarfile.TarFile, name: str) -> IO[bytes]:
    file = tar.extractfile(name)
    assert file is not None
    return file


def manifest(archive: Path) -> list[dict[str, Any]]:
    with tarfile.open(archive) as tar:
        return list(json.load(content(tar, "manifest.json")))


def layer_entries(archive: Path, layer: str) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(archive) as tar, tarfile.open(fileobj=content(tar, layer)) as inner:
        return {entry.name: entry for entry in inner}


def program(folder: Path, text: str = "#!") -> Path:
    path = folder / "program"
    path.write_text(text)
    path.chmod(0o700)
    return path


def test_a_layer_holds_files_links_and_folders_with_their_parents(tmp_path: Path) -> None:
    layer: Layer = {
        "/usr/bin/tool": program(tmp_path),
        "/bin/sh": Link("tool"),
        "/etc/passwd": b"root",
        "/tmp": Folder(0o1777),
    }
    write_archive(tmp_path / "a.tar", [Image(names=("x:1",), layers=(layer,))])
    [image] = manifest(tmp_path / "a.tar")
    entries = layer_entries(tmp_path / "a.tar", image["Layers"][0])
    assert list(entries) == ["bin", "bin/sh", "etc", "etc/passwd", "tmp", "usr", "usr/bin", "usr/bin/tool"]
    assert entries["usr/bin/tool"].mode == 0o755, "whoever runs the container must be able to run it"
    assert entries["tmp"].mode == 0o1777
    assert entries["bin/sh"].linkname == "tool"
    assert {(entry.uid, entry.gid, entry.mtime) for entry in entries.values()} == {(0, 0, 0)}


def test_the_configuration_says_what_the_runtime_needs(tmp_path: Path) -> None:
    layer: Layer = {"/a": b"1"}
    image = Image(
        names=("x:1", "y:2"), layers=(layer,), entrypoint=("/a",), command=("b",), user="1", workdir="/w", ports=(2379,)
    )
    write_archive(tmp_path / "a.tar", [image])
    [entry] = manifest(tmp_path / "a.tar")
    with tarfile.open(tmp_path / "a.tar") as tar:
        raw = content(tar, entry["Config"]).read()
        layer_digest = hashlib.sha256(content(tar, entry["Layers"][0]).read()).hexdigest()
    told = json.loads(raw)
    assert entry["RepoTags"] == ["x:1", "y:2"]
    assert entry["Config"] == hashlib.sha256(raw).hexdigest() + ".json"
    assert told["rootfs"]["diff_ids"] == [f"sha256:{layer_digest}"]
    assert all(step["created"] for step in told["history"]), "buildah caches nothing on an image without dates"
    config = told["config"]
    assert (config["Entrypoint"], config["Cmd"], config["User"], config["WorkingDir"]) == (["/a"], ["b"], "1", "/w")
    assert config["ExposedPorts"] == {"2379/tcp": {}}


def test_images_share_a_layer_that_is_stored_once(tmp_path: Path) -> None:
    shared: Layer = {"/big": b"x" * 100_000}
    images = [Image(names=(f"i:{n}",), layers=(shared, {"/own": str(n).encode()})) for n in range(3)]
    write_archive(tmp_path / "a.tar", images)
    told = manifest(tmp_path / "a.tar")
    assert len({image["Layers"][0] for image in told}) == 1
    assert len({image["Layers"][1] for image in told}) == 3
    assert (tmp_path / "a.tar").stat().st_size < 200_000


def test_the_same_content_gives_the_same_bytes_on_another_day(tmp_path: Path) -> None:
    for name, time in (("a", 1e9), ("b", 2e9)):
        file = program(tmp_path)
        os.utime(file, (time, time))
        layer: Layer = {"/z": file, "/a": b"1"} if name == "a" else {"/a": b"1", "/z": file}
        write_archive(tmp_path / f"{name}.tar", [Image(names=("x:1",), layers=(layer,))])
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()


def test_a_tar_is_taken_as_the_layer_it_is(tmp_path: Path) -> None:
    ready = tmp_path / "ready.tar"
    with tarfile.open(ready, "w") as tar:
        tar.add(program(tmp_path), "bin/x")
    write_archive(tmp_path / "a.tar", [Image(names=("x:1",), layers=(ready,))])
    [image] = manifest(tmp_path / "a.tar")
    assert image["Layers"] == [hashlib.sha256(ready.read_bytes()).hexdigest() + ".tar"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tar", "program", "ready.tar"]
