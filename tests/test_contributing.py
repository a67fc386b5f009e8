"""The worked examples that `CONTRIBUTING.md` points at. Its system is tried in `tests/test_seam.py`."""

import re
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from streaming.sources.folder.source import FolderSource
from tests.own_metric import Layout, correlation
from tests.own_scanner import slices_of
from train.config.builders import register
from train.config.run_files import read_run
from train.run_recipe import run

ROOT = Path(__file__).parents[1]
AFFINE = np.array([[-3.0, 0, 0, 40], [0, 3, 0, -50], [0, 0, 4, -20], [0, 0, 0, 1]])
TR_S = 1.5


def test_every_file_that_it_names_is_there():
    paths = re.findall(
        r"`((?:tests|streaming|train|rtdecode|docs)/[\w/.]+)`", (ROOT / "CONTRIBUTING.md").read_text()
    )
    assert {"tests/own_scanner.py", "tests/own_metric.py", "tests/seam_system.py"} <= set(paths)
    for name in paths:
        assert (ROOT / name).exists(), name


def test_a_scanner_of_its_own_is_read(tmp_path):
    volumes = np.random.default_rng(0).integers(0, 3000, (3, 16, 20, 5)).astype(np.int16)
    began = datetime(2026, 3, 1, 12, 0, 0)
    for index, volume in enumerate(volumes):
        for k, data in enumerate(slices_of(volume, AFFINE, TR_S, index, began)):
            (tmp_path / f"{index}-{k}.dcm").write_bytes(data)

    source = FolderSource(tmp_path, "read", bound=False)
    decoded = source.drain()

    assert [volume.index for volume in decoded] == [0, 1, 2]
    for volume, written in zip(decoded, volumes, strict=True):
        assert volume.tr_s == TR_S
        # The same value at the same place of the scanner, whatever the order of the axes.
        decoded_values = {
            tuple(np.round(place, 3)): value for place, value in _placed(volume.data, volume.affine)
        }
        written_values = {tuple(np.round(place, 3)): value for place, value in _placed(written, AFFINE)}
        assert decoded_values == written_values
    assert source.ignored == []


def _placed(data, affine):
    corners = np.argwhere(np.ones(data.shape, bool))
    places = corners @ affine[:3, :3].T + affine[:3, 3]
    return zip(places, data.ravel().astype(float), strict=True)


@pytest.mark.full
def test_a_metric_of_its_own_stands_in_the_runs_figures(tmp_path):
    register("layout", Layout)
    changes = [
        "scale=tiny",
        f"out={tmp_path / 'run'}",
        "data.seconds=200",
        "judge.builder=any-film",
        "judge.films=shapes",
        "judge.seeds=1000-1001",
        "judge.seconds=160",
        "judge.sections=identification,layout",
    ]
    figures = read_run(run("ridge", changes))["figures"]
    figure = figures["layout"]
    assert figure["n"] > 20
    assert figure["chance"] == 0.0
    low, high = figure["ci95"]
    assert low <= figure["value"] <= high
    # It stands beside the same controls and floors as every other metric.
    for control in ("layout_null", "layout_other_film", "layout_rest"):
        assert abs(figures[control]["value"]) < figure["value"], control
    assert figure["value"] > abs(figure["constant"])
    # Sections that are not listed are not computed.
    assert "ssim" not in figures


def test_a_metric_of_its_own_tells_the_right_places_from_the_wrong_ones():
    ramp = np.broadcast_to(10.0 * np.arange(6), (4, 6)).ravel()
    other = np.broadcast_to(10.0 * np.arange(4)[:, None], (4, 6)).ravel()
    truths = np.array([ramp, other])
    mirrored = np.array([2 * truths.mean(axis=0) - ramp, other])
    assert correlation(truths, truths).round(6).tolist() == [1.0, 1.0]
    assert correlation(mirrored, truths).round(6).tolist() == [-1.0, 1.0]
    assert correlation(np.array([truths.mean(axis=0)] * 2), truths).tolist() == [0.0, 0.0]
