"""A ridge on BOLD Moments: a slot is the response to a showing, and no run has more than one window."""

import json
import pickle
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from rtdecode import bundle as bundles
from rtdecode.cli import app
from rtdecode.disk.video import write_mp4
from train import evaluate
from train.config.run_files import read_run
from train.data.layouts import bold_moments
from train.run_recipe import main as train

# Videos, and showings of each, for training and for testing.
COUNTS = ((36, 3), (12, 4))
VOXELS = 40
FRAMES = 24


def release(folder: Path, counts: bold_moments.Counts = COUNTS) -> Path:
    """Write a release whose responses follow the colours of the videos, with noise of the same size."""
    rng = np.random.default_rng(0)
    videos = sum(count for count, _ in counts)
    looks = rng.integers(30, 225, (videos, 4, 4, 3))
    (folder / "stimuli").mkdir(parents=True)
    for number, look in enumerate(looks, 1):
        picture = look.repeat(16, 0).repeat(24, 1).astype(np.uint8)
        # The test follows on the training, whose videos have the numbers up to 1000 in the whole release.
        write_mp4(folder / "stimuli" / f"{number:04d}.mp4", np.repeat(picture[None], FRAMES, 0), 8)
    evoked = looks.reshape(videos, -1) @ rng.normal(0, 1, (48, VOXELS))
    evoked = (evoked - evoked.mean(0)) / evoked.std(0)
    (first, showings), (tests, test_showings) = counts
    pickled = {
        "train_data_allvoxel": evoked[:first, None] + rng.normal(0, 1, (first, showings, VOXELS)),
        "test_data_allvoxel": evoked[first:, None] + rng.normal(0, 1, (tests, test_showings, VOXELS)),
    }
    path = folder / "sub-01" / "Group41_betas-GLMsingle_type-typed_z=1.pkl"
    path.parent.mkdir()
    path.write_bytes(pickle.dumps(pickled))
    return folder


def expect_counts(monkeypatch: pytest.MonkeyPatch, counts: bold_moments.Counts = COUNTS) -> None:
    """Have releases opened that are as small as `release` writes them."""
    monkeypatch.setattr(bold_moments, "opened", partial(bold_moments.opened, counts=counts))


@pytest.mark.full
def test_responses_are_trained_on_and_told_apart_among_all_showings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expect_counts(monkeypatch)
    data = release(tmp_path / "bmd")
    run = tmp_path / "run"
    words = ["ridge", "scale=tiny", f"data={data}", "data.fps=5", f"out={run}"]
    assert train(words) == 0
    finished = read_run(run)
    figures = finished["figures"]
    two = figures["identification_2way_centred"]
    # Each of twelve videos counts once, with the mean over its four showings.
    assert two["n"] == 12
    assert two["value"] > 0.7
    assert figures["identification_2way_centred_null"]["value"] == 0
    assert abs(two["shuffled"] - 0.5) < 0.2
    (note,) = [row["note"] for row in finished["tables"]["notes"] if "teach" in row["note"]]
    assert "108 windows of 108 runs teach, and 48 of 48 are held out" in note
    out = tmp_path / "averaged"
    assert evaluate.main([str(run), f"data={data}", "repeats=averaged", f"out={out}"]) == 0
    averaged = json.loads((out / "figures.json").read_text())
    assert averaged["figures"]["identification_2way_centred"]["n"] == 12
    assert averaged["figures"]["identification_2way_centred"]["value"] >= two["value"]
    assert averaged["tables"]["films"][0]["signals"] == "mean of 4 repeats"
    exported: Any = CliRunner().invoke(app, ["export", str(run), "--out", str(tmp_path / "bundle")])
    assert exported.exit_code == 0, exported.output
    manifest = bundles.load(str(tmp_path / "bundle")).manifest
    # A response is read as one volume that lasts as long as its window.
    assert (manifest.grid.tr, manifest.grid.slots) == (3, 1)
    assert (manifest.clip.frames, manifest.clip.fps) == (15, 5)
    assert manifest.modalities == ["fmri"]
