"""Which voxels are read: attention, occlusion and a ridge's pattern, against what is known."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from rtdecode.errors import UsageError
from tests.refusals import refused
from train.evaluate import read_request
from train.evaluation.section import ALL_SECTIONS, sections_for
from train.evaluation.sections import attention
from train.evaluation.sections.attention import AttentionMaps, occlusion, ranked, ridge_patterns
from train.interface.system import Attention, Condition

WINDOWS = 40
VOXELS = 24
# Six patches of four voxels, of which the last wraps.
PATCHES = np.arange(24).reshape(6, 4)
# What of each voxel reaches the condition.
WEIGHTS = np.repeat([0.0, 0.1, 0.5, 1.0, 2.0, 3.0], 4)


class Reader:
    """A system whose condition is a weighted copy of its voxels, and who attends as it reads."""

    attends = True

    def condition(self, inputs: dict[str, np.ndarray]) -> Condition:
        return Condition(tokens=torch.from_numpy(inputs["fmri"] * WEIGHTS))

    def attention(self, inputs: dict[str, np.ndarray]) -> Attention:
        shares = np.array([1, 2, 3, 4, 5, 6]) / 21
        count = len(inputs["fmri"])
        layers = np.stack([shares, np.full(6, 1 / 6), shares[::-1]])
        return Attention(
            np.repeat(layers[:, None], count, axis=1).astype(np.float32), PATCHES, {"masked": layers}
        )

    def targets(self, clips: np.ndarray) -> np.ndarray:
        return clips


def session(number: int) -> Any:
    """Make windows whose voxels follow two numbers of the film, as their weights say."""
    rng = np.random.default_rng(number)
    film = rng.standard_normal((WINDOWS, 2))
    mixture = np.random.default_rng(7).standard_normal((2, VOXELS)) * WEIGHTS
    volumes = (film @ mixture)[:, None] + rng.standard_normal((WINDOWS, 2, VOXELS))
    inputs = {"fmri": volumes.astype(np.float32), "fmri_mask": np.ones((WINDOWS, 2), np.float32)}
    return SimpleNamespace(inputs=inputs, truth=SimpleNamespace(clips=film), session="simulated")


def run(**changes: Any) -> Any:
    regions = {"V1": np.arange(VOXELS) < 8, "V2": np.arange(VOXELS) >= 8}
    bundle = SimpleNamespace(manifest=SimpleNamespace(name="own"))
    return SimpleNamespace(**{"system": Reader(), "bundle": bundle, "regions": regions, **changes})


@pytest.fixture
def scorer(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(attention, "known_weights", lambda bundle, session: WEIGHTS)
    started = AttentionMaps().begin(run())
    for number in range(6):
        started.close(session(number), {})
    return started


def test_covered_patches_move_the_condition_as_far_as_they_are_read() -> None:
    moved = occlusion(Reader(), session(0).inputs, PATCHES)  # type: ignore[arg-type]
    assert moved[0] == 0
    assert (np.diff(moved) > 0).all()


def test_the_pattern_of_a_ridge_follows_what_drives_voxels() -> None:
    sessions = [session(number) for number in range(4)]
    volumes = [windows.inputs["fmri"] for windows in sessions]
    patterns = ridge_patterns(volumes, [windows.truth.clips for windows in sessions])
    assert len(patterns) == 4
    by_patch = np.mean(patterns, axis=0)[PATCHES].mean(1)
    # The weakest two are noise.
    assert (np.diff(by_patch[1:]) > 0).all()


def test_maps_are_ranked_against_known_weights_with_shuffled_ones_as_a_floor(scorer: Any) -> None:
    figures = scorer.figures(np.zeros(0))
    assert figures["attention_first_rank"]["value"] == pytest.approx(1)
    assert figures["attention_last_rank"]["value"] == pytest.approx(-1)
    # An even map has no ranks.
    even = figures["attention_middle_rank"]
    assert even["value"] is None
    assert "same in all patches" in even["reason"]
    assert figures["occlusion_rank"]["value"] == pytest.approx(1)
    assert figures["ridge_pattern_rank"]["value"] > 0.8
    for figure in figures.values():
        assert figure["n"] == 6
    occluded = figures["occlusion_rank"]
    assert abs(occluded["shuffled"]) < 0.2 < occluded["shuffled_95"] < 1


def test_intervals_are_over_sessions() -> None:
    rng = np.random.default_rng(0)
    maps = WEIGHTS[PATCHES].mean(1) + rng.normal(0, 1, (30, 6))
    figure = ranked(maps, WEIGHTS, PATCHES)
    low, high = figure["ci95"]
    assert low <= figure["value"] <= high
    assert low < 1


def test_shares_by_region_add_up_and_stand_beside_the_share_of_voxels(scorer: Any) -> None:
    rows = scorer.tables()["attention by region"]
    assert [row["region"] for row in rows] == ["V1", "V2"]
    assert [row["voxels"] for row in rows] == pytest.approx([8 / 24, 16 / 24])
    names = [name for name in rows[0] if name not in ("region", "voxels")]
    assert names[:3] == ["first, after masked", "middle, after masked", "last, after masked"]
    assert names[-3:] == ["occlusion", "ridge pattern", "known weights"]
    for name in names:
        assert sum(row[name] for row in rows) == pytest.approx(1, abs=1e-5), name
    assert rows[0]["first, held out"] == pytest.approx(3 / 21)
    picture = scorer.pictures()["attention"]
    assert picture.width > 500


def test_a_system_without_patches_is_refused() -> None:
    for system in (SimpleNamespace(attends=False, attention=None), SimpleNamespace()):
        with refused(UsageError, "attention-unsupported", run="own"):
            AttentionMaps().begin(run(system=system))


def test_it_is_computed_where_it_is_asked_for() -> None:
    def kinds(*changes: str) -> list[str]:
        return [type(section).__name__ for section in sections_for(read_request([*changes]), ALL_SECTIONS)]

    assert "AttentionMaps" not in kinds()
    assert kinds("attention=yes")[-1] == "AttentionMaps"
    assert kinds("sections=identification", "attention=yes") == ["IdentificationSection", "AttentionMaps"]
    with refused(UsageError, "evaluate-not-boolean", key="attention", found="all"):
        read_request(["attention=all"])
