"""How a storm deals out its faults, without a cluster."""

from itertools import islice
from pathlib import Path
from random import Random

import pytest

from e2e import storm
from e2e.faults import CHANGES, FAILURES, Fault, NoEffect, Scene
from e2e.storm import Storm, endless


@pytest.mark.parametrize("seed", range(20))
def test_every_kind_comes_in_each_round_and_growing_comes_before_shrinking(seed: int) -> None:
    dealt = [fault.name for fault in islice(endless(CHANGES, Random(seed)), 4 * len(CHANGES))]
    rounds = [dealt[begin : begin + len(CHANGES)] for begin in range(0, len(dealt), len(CHANGES))]
    assert all(sorted(names) == sorted(fault.name for fault in CHANGES) for names in rounds)
    assert [name for name in dealt if name.startswith("scaled")] == ["scaled up", "scaled down"] * 4


def test_a_seed_deals_the_same_faults_again() -> None:
    first, again, other = ([fault.name for fault in islice(endless(FAILURES, Random(seed)), 21)] for seed in (1, 1, 2))
    assert first == again != other


def test_a_fault_that_was_not_seen_to_take_effect_does_not_count(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fails(scene: Scene, dice: Random) -> str:
        raise NoEffect("nobody leads just now")

    monkeypatch.setattr(storm, "PAUSE", (0.0, 0.0))
    monkeypatch.setattr(storm, "OVERTIME", 0.2)
    monkeypatch.setattr(storm, "CHANGES", (Fault(name="works", strike=lambda scene, dice: "done"),))
    monkeypatch.setattr(storm, "FAILURES", (Fault(name="fails", strike=fails),))
    monkeypatch.setattr(Storm, "_own_scene", lambda self: self.scene)
    raging = Storm(scene=None, seed="1", log=tmp_path / "faults.log")  # type: ignore[arg-type]
    raging.rage(0.05)
    assert raging.counts["works"] > 0
    assert raging.missed["fails"] > 0
    assert raging.lacking == ["fails"]


def test_what_breaks_the_storm_itself_is_raised(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def breaks(scene: Scene, dice: Random) -> str:
        raise ZeroDivisionError

    monkeypatch.setattr(storm, "FAILURES", (Fault(name="breaks", strike=breaks),))
    monkeypatch.setattr(storm, "CHANGES", (Fault(name="works", strike=lambda scene, dice: "done"),))
    monkeypatch.setattr(storm, "PAUSE", (0.0, 0.0))
    monkeypatch.setattr(Storm, "_own_scene", lambda self: self.scene)
    raging = Storm(scene=None, seed="1", log=tmp_path / "faults.log")  # type: ignore[arg-type]
    with pytest.raises(ZeroDivisionError):
        raging.rage(5)
