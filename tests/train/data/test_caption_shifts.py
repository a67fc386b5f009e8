"""Captions that are shifted or permuted against their clips are told, by embeddings that were computed."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rtdecode.errors import UsageError
from tests.refusals import refused
from tests.train.data import cinebrain_folder as release
from tests.train.data.held import MemoryDataSet, table
from tests.train.targets.models import clip_tower, words
from train.data import caption_shifts
from train.data.__main__ import main
from train.data.caption_shifts import CaptionShift, caption_shift
from train.data.examined import examined
from train.data.target_cache import Target, compute
from train.targets.__main__ import main as compute_targets
from train.weights.source import Source

WIDTH = 24


def embedded(values: NDArray[Any], digest: str = "0" * 64, **arrays: NDArray[Any]) -> Any:
    """Make a target of a model that gives these values, (title, ...), whatever it reads."""

    def target(name: str) -> Target:
        source = Source((Path("model"),), digest, "transformers folder", "MIT")
        return Target(name, "captions", source, {}, lambda: lambda texts: {"values": values, **arrays})

    return target


def stored(data: Any, out: Path, **targets: Any) -> Path:
    """Compute targets, all titles in one file."""
    compute(data, [make(name) for name, make in targets.items()], out, lot=10_000)
    return out


def captioned_set(runs: int = 2, windows: int = 60, copies: int = 1) -> MemoryDataSet:
    rows = [
        (f"sub-{subject}", f"run-{run:02d}", f"{run:02d}-{n:03d}", False)
        for subject in range(copies)
        for run in range(runs)
        for n in range(windows)
    ]
    return MemoryDataSet(table(*rows), {"captions": [f"{title} is described" for _, _, title, _ in rows]})


def vectors(seed: int, data: MemoryDataSet, noise: float = 1.5) -> tuple[NDArray[Any], NDArray[Any]]:
    """Draw embeddings of frames (title, 2, feature) and of true captions (title, feature).

    Clips have scenes, so that neighbours are alike, and the two kinds lie apart, as with CLIP.
    """
    draws = np.random.default_rng(seed)
    count = len({*data.windows.shown.tolist()})
    white = draws.normal(size=(count + 2, WIDTH))
    content = white[2:] + 0.7 * white[1:-1] + 0.4 * white[:-2]
    frames = content[:, None] + 0.5 * draws.normal(size=(count, 2, WIDTH)) + 4 * draws.normal(size=WIDTH)
    texts = content + noise * draws.normal(size=(count, WIDTH)) + 4 * draws.normal(size=WIDTH)
    return frames, texts


def shift_of(data: MemoryDataSet, frames: NDArray[Any], texts: NDArray[Any], out: Path) -> CaptionShift:
    return caption_shift(data, stored(data, out, image=embedded(frames), text=embedded(texts)))


def by_runs(texts: NDArray[Any], runs: int, later: int) -> NDArray[Any]:
    return np.concatenate([np.roll(part, -later, axis=0) for part in np.split(texts, runs)])


@pytest.mark.parametrize("runs", [1, 2, 10])
def test_true_captions_fit_and_nothing_is_told(runs: int, tmp_path: Path) -> None:
    data = captioned_set(runs, 120 // runs)
    shift = shift_of(data, *vectors(0, data), tmp_path)
    assert (shift.is_shifted, shift.is_permuted) == (False, False)
    assert (shift.windows, shift.neighbours) == (120, 120 - 4 * runs)
    assert shift.over_permuted is not None
    assert shift.over_permuted.low > 0.5
    assert shift.over_own is not None
    assert shift.over_own.high < 0
    assert shift.says.startswith("Captions fit their clips better")


@pytest.mark.parametrize("runs", [1, 10])
@pytest.mark.parametrize("later", [-2, -1, 1, 2])
def test_captions_of_another_window_are_told_with_the_side(runs: int, later: int, tmp_path: Path) -> None:
    data = captioned_set(runs, 120 // runs)
    frames, texts = vectors(1, data)
    # The caption that describes a clip comes `later` windows after it.
    shift = shift_of(data, frames, by_runs(texts, runs, -later), tmp_path)
    assert shift.is_shifted
    assert not shift.is_permuted
    assert shift.step == later
    assert f"{abs(later)} window" in shift.says
    assert ("later fit" if later > 0 else "earlier fit") in shift.says


@pytest.mark.parametrize("runs", [1, 10])
def test_permuted_captions_are_told(runs: int, tmp_path: Path) -> None:
    data = captioned_set(runs, 240 // runs)
    frames, texts = vectors(2, data)
    draws = np.random.default_rng(2)
    # Within runs, so that captions still fit the film.
    permuted = np.concatenate([draws.permutation(part) for part in np.split(texts, runs)])
    shift = shift_of(data, frames, permuted, tmp_path)
    assert (shift.is_shifted, shift.is_permuted) == (False, True)
    assert "no better than captions of other windows" in shift.says


def test_few_windows_tell_nothing(tmp_path: Path) -> None:
    data = captioned_set(2, 15)
    frames, texts = vectors(3, data)
    shift = shift_of(data, frames, by_runs(texts, 2, 1), tmp_path)
    assert shift.says == "Whether captions fit their clips cannot be told from 30 windows."
    assert (shift.is_shifted, shift.is_permuted) == (False, False)


def test_windows_without_neighbours_are_compared_with_permuted_captions_alone(tmp_path: Path) -> None:
    data = captioned_set(1, 120)
    data.windows.start_s[:] *= 2
    shift = shift_of(data, *vectors(4, data), tmp_path)
    assert (shift.windows, shift.neighbours, shift.over_own) == (120, 0, None)
    assert shift.says.endswith("Whether they are shifted cannot be told from 0 windows.")


def test_captions_that_are_all_the_same_tell_nothing(tmp_path: Path) -> None:
    data = captioned_set(1, 120)
    frames, texts = vectors(5, data)
    shift = shift_of(data, frames, np.repeat(texts[:1], 120, axis=0), tmp_path)
    assert "cannot be told" in shift.says


def test_a_clip_that_several_saw_counts_once(tmp_path: Path) -> None:
    alone, several = captioned_set(), captioned_set(copies=3)
    frames, texts = vectors(6, alone)
    assert shift_of(several, frames, texts, tmp_path / "a") == shift_of(alone, frames, texts, tmp_path / "b")


def test_honest_captions_give_no_false_alarm(tmp_path: Path) -> None:
    """Exact captions and vague ones, in one run and in many, of few windows and of many."""
    for seed in range(20):
        data = captioned_set((1, 2, 10)[seed % 3], (12, 24)[seed % 2] * (10, 5, 1)[seed % 3])
        shift = shift_of(
            data, *vectors(seed, data, noise=(0.5, 1.5, 3.0, 4.5)[seed % 4]), tmp_path / str(seed)
        )
        assert (shift.is_shifted, shift.is_permuted) == (False, False), seed


def test_embeddings_that_cannot_be_compared_are_refused(tmp_path: Path) -> None:
    data = captioned_set(1, 60)
    frames, texts = vectors(7, data)
    image, text = embedded(frames), embedded(texts)
    with refused(UsageError, "targets-missing-index", folder=tmp_path / "a" / "text"):
        caption_shift(data, stored(data, tmp_path / "a", image=image))
    with refused(UsageError, "targets-missing-index", folder=tmp_path / "b" / "image"):
        caption_shift(data, stored(data, tmp_path / "b", text=text))
    with refused(UsageError, "caption-shift-width-mismatch", image_width=WIDTH, text_width=WIDTH - 1):
        caption_shift(data, stored(data, tmp_path / "c", image=image, text=embedded(texts[:, 1:])))
    with refused(UsageError, "caption-shift-two-models", image_model="0" * 12, text_model="1" * 12):
        caption_shift(data, stored(data, tmp_path / "d", image=image, text=embedded(texts, "1" * 64)))
    tokens = embedded(texts[:, None], counts=np.ones(60, np.int64))
    with refused(UsageError, "target-text-not-pooled"):
        caption_shift(data, stored(data, tmp_path / "e", image=image, text=tokens))
    parts = embedded(texts[:, None], passages=np.ones(60, np.int64))
    with refused(UsageError, "target-text-of-passages"):
        caption_shift(data, stored(data, tmp_path / "g", image=image, text=parts))
    with refused(UsageError, "targets-missing-titles", missing_count=60):
        caption_shift(captioned_set(2, 60), stored(data, tmp_path / "f", image=image, text=text))


def test_what_is_told_is_a_fault() -> None:
    data = captioned_set(1, 6)
    gain = caption_shifts.Gain(0.8, 0.5, 1.1)
    none = caption_shifts.Gain(0.0, -0.1, 0.1)
    faults = {}
    for name, shift in {
        "shifted": CaptionShift(60, gain, 56, 1, gain),
        "permuted": CaptionShift(60, none, 56, 1, none),
        "true": CaptionShift(60, gain, 56, 1, none),
    }.items():
        findings = examined(data, None, {}, None, signals=False, caption_shift=shift)
        assert findings.shifts == [shift.says]
        assert "captions that were shifted against their clips" in findings.looked_for
        faults[name] = [(fault.kind, fault.says == shift.says) for fault in findings.faults]
    assert faults == {"shifted": [("shifted captions", True)], "permuted": [("captions", True)], "true": []}


def test_the_command_looks_where_it_is_given_targets(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "release"
    release.write(folder, ["sub-0001"], unpacked=True)
    model = tmp_path / "clip"
    clip_tower(model)
    words(model)
    out = tmp_path / "out"
    models = [f"image={model}", "image.licence=MIT", f"text={model}", "text.licence=MIT"]
    assert compute_targets([str(folder), *models, f"out={out}"]) == 0
    capsys.readouterr()

    def findings(*arguments: str) -> dict[str, Any]:
        assert main([str(folder), *arguments, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    unread = "captions that were shifted against their clips (targets=DIR)"
    assert unread in findings()["not_looked_for"]
    examination = findings(f"targets={out}")
    assert unread not in examination["not_looked_for"]
    assert "captions that were shifted against their clips" in examination["looked_for"]
    assert examination["shifts"] == ["Whether captions fit their clips cannot be told from 0 windows."]
    assert main([str(folder), f"targets={tmp_path}"]) == 2
    assert "targets" in capsys.readouterr().err
