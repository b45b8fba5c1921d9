"""Deleting old data: just what was told, wholly, and never what an etcd has open."""

import fcntl
from pathlib import Path

import pytest

from etcd_operator.agent.clean import RefusedError, clean, main


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    for incarnation in ("i1", "i2", "i3"):
        database = tmp_path / incarnation / "member" / "snap" / "db"
        database.parent.mkdir(parents=True)
        database.write_bytes(b"x" * 100)
    return tmp_path


def left(volume: Path) -> list[str]:
    return sorted(each.name for each in volume.iterdir())


def test_only_what_was_told_is_deleted(volume: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(volume), "i1", "i3"]) == 0
    assert left(volume) == ["i2"]
    assert capsys.readouterr().out.startswith("deleted i1, ")


def test_what_is_not_there_was_deleted(volume: Path) -> None:
    assert clean(volume, ["i1", "gone"])[1] == "gone is not there"
    assert clean(volume, ["i1"]) == ["i1 is not there"]


def test_a_deletion_that_was_cut_short_is_finished(volume: Path) -> None:
    (volume / "i1").rename(volume / "i1.going")
    assert main([str(volume), "i1"]) == 0
    assert left(volume) == ["i2", "i3"]


def test_data_that_an_etcd_has_open_is_not_deleted_and_nothing_else_either(
    volume: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (volume / "i2/member/snap/db").open("rb+") as database:
        fcntl.flock(database, fcntl.LOCK_EX)
        assert main([str(volume), "i1", "i2"]) == 1
    assert left(volume) == ["i1", "i2", "i3"]
    assert "i2 is in use" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["..", ".", "", "/etc", "i1/member", "i1.going", "lost+found", "-r"])
def test_names_that_are_no_incarnations_are_refused(volume: Path, name: str) -> None:
    with pytest.raises(RefusedError):
        clean(volume, ["i1", name])
    assert left(volume) == ["i1", "i2", "i3"]


def test_without_a_name_nothing_is_done(volume: Path) -> None:
    assert main([str(volume)]) == 2
