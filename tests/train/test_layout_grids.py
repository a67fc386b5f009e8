"""A ridge on small folders in published layouts: trained, judged, exported, replayed, streamed or refused.

Each row of the table is a layout with the keys that it takes. Volumes follow what was shown, so that the
held-out runs are identified. Windows of a held-out run are replayed as the acquisition that the bundle
reads: each ends in one final, with the bits of the batch. What was trained on the scanner's own volumes goes
live, and what was trained on prepared files is refused.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from rtdecode.bundle import Bundle, prepared
from rtdecode.cli import app
from rtdecode.disk.recording import Recording
from rtdecode.errors import BundleError
from tests.refusals import refused
from tests.test_live import finals, program
from tests.train import layouts, test_data_set, test_responses
from tests.train.test_grids import check_equal, exported
from tests.train.trainer import test_participants
from train import evaluate
from train.config.recipe import build, read
from train.config.run_files import read_run
from train.data.chain import windows
from train.data.set_windows import SetRun
from train.run_recipe import run as make_run

TWO_WAY = "identification_2way_centred"
# What stands beside each figure: the null brain, other times, what looks like nothing that taught.
CONTROLS = ("_null", "_nearest", "_without_near_duplicates")


@dataclass(frozen=True)
class Row:
    """A layout, the keys of a recipe, and what a bundle then has."""

    name: str
    write: Callable[[Path], Path]
    keys: tuple[str, ...]
    layout: str
    tr: float
    window: float
    lag: float
    frames: int
    after: int = 0
    modalities: tuple[str, ...] = ("fmri",)


def cinebrain(folder: Path) -> Path:
    """Write runs of CineBrain that are long enough for a window to have others of 30 s later."""
    counts = ((0, 16), (1, 16), (2, 16), (18, 16), (19, 16))
    places = [270 * run + n for run, count in counts for n in range(count)]
    return test_data_set.release(folder, places)


def simulated(folder: Path) -> Path:
    return layouts.sessions(folder, seeds=(1, 2, 3), seconds=60, tr_s=2.0)


ROWS = [
    Row(
        "cc2017, MinD-Video",
        test_participants.study,
        ("data.subject=subject1", "data.frames=6", "data.after=1"),
        "mindvideo",
        2,
        2,
        4,
        6,
        1,
    ),
    Row(
        "cc2017, NeuroClips", layouts.neuroclips, ("data.fps=3", "data.after=1"), "neuroclips", 2, 2, 4, 6, 1
    ),
    Row("cc2017, NeuroClips, 8 fps", layouts.neuroclips, (), "neuroclips", 2, 2, 4, 17),
    Row(
        "CineBrain",
        cinebrain,
        ("data.fps=4",),
        "cinebrain",
        0.8,
        4,
        4.8,
        17,
        0,
        ("eeg", "fmri"),
    ),
    Row(
        "CineBrain, fMRI",
        cinebrain,
        ("data.modalities=[fmri]", "data.frames=12", "data.after=2"),
        "cinebrain",
        0.8,
        4,
        4.8,
        # A codec takes the first frame alone, and then four at a time.
        13,
        2,
    ),
    Row("BOLD Moments", test_responses.release, ("data.frames=6",), "bold-moments", 3, 3, 0, 6),
    Row(
        "BIDS, 2 s",
        layouts.bids,
        ("data.window=2", "data.frames=6", "data.after=1"),
        "bids",
        2,
        2,
        4,
        6,
        1,
    ),
    Row("BIDS, 4 s", layouts.bids, ("data.window=4", "data.lag=6", "data.fps=3"), "bids", 2, 4, 6, 13),
    Row(
        "recordings, 2 s",
        simulated,
        ("data.window=2", "data.fps=3"),
        "phantom",
        2,
        2,
        4,
        6,
        0,
        ("eeg", "fmri"),
    ),
    Row(
        "recordings, 2 s, fMRI",
        simulated,
        ("data.window=2", "data.frames=6", "data.after=1", "data.modalities=[fmri]"),
        "phantom",
        2,
        2,
        4,
        6,
        1,
    ),
]
# One row is enough where time is short.
QUICK = ("cc2017, MinD-Video",)
LIVE = ("BIDS, 2 s", "recordings, 2 s")
ALL = [pytest.param(row, id=row.name, marks=() if row.name in QUICK else pytest.mark.full) for row in ROWS]


def held_run(data: Path, row: Row) -> SetRun:
    """Return the first run that is held out; of responses, as many showings as make a run."""
    node = build(read("ridge", [f"data={data}", "scale=tiny", *row.keys]).tree["data"])
    return node.opened(data).test_runs()[0]


def recorded(row: Row, data: Path, bundle: Bundle, run: SetRun, place: Path) -> Path:
    """Return a held-out run as a recording: that of the layout itself, or one of its values."""
    if row.layout == "phantom":
        return data / "session-3"
    return layouts.replayable(bundle, run.of.data, run.rows, place)


def check_signals(row: Row, bundle: Bundle, recording: Path, run: SetRun) -> None:
    """Hold what a session reads of a recording against what was trained on and judged."""
    played = Recording(recording)
    seconds = run.windows * row.window
    cut = windows(bundle, played.events(), played.montage, list(row.modalities), seconds)
    read_by_judge = run.arrays(bundle)
    assert len(cut) == run.windows
    # A release has filtered its EEG, and a session does so once more.
    names = ("fmri", "eeg") if row.layout == "phantom" and "eeg" in row.modalities else ("fmri",)
    for name in names:
        read_live = np.stack([getattr(window, name) for window in cut])
        np.testing.assert_allclose(read_live, read_by_judge[name], atol=2e-3)


def trained(row: Row, place: Path) -> tuple[Path, Path]:
    """Write a folder and train on it; return both."""
    data = row.write(place / "data")
    return data, make_run("ridge", ["scale=tiny", f"data={data}", *row.keys, f"out={place / 'run'}"])


def check_figures(run: Path, data: Path, place: Path) -> dict[str, Any]:
    """Hold the figures of a training against those of a later evaluation, and return them."""
    out = place / "judged"
    assert evaluate.main([str(run), f"data={data}", f"out={out}"]) == 0
    figures = json.loads((out / "figures.json").read_text())["figures"]
    two = figures[TWO_WAY]
    assert two == read_run(run)["figures"][TWO_WAY]
    # A few windows have no interval.
    assert two["value"] > 0.65
    assert two["ci95"] is None or two["ci95"][0] > 0.5
    assert two["shuffled"] < two["value"]
    for control in CONTROLS:
        assert f"{TWO_WAY}{control}" in figures
    assert figures[f"{TWO_WAY}_null"]["value"] == 0
    return figures


def check_manifest(bundle: Bundle, row: Row) -> None:
    manifest = bundle.manifest
    grid = manifest.grid
    assert manifest.name == row.layout
    assert grid.tr is not None
    lengths_s = [float(length) for length in (grid.tr, grid.window, grid.hop, grid.lag)]
    assert lengths_s == [row.tr, row.window, row.window, row.lag]
    assert (manifest.clip.frames, grid.after) == (row.frames, row.after)
    assert tuple(manifest.modalities) == row.modalities
    assert manifest.parity["status"] == "passed"


def check_whether_live(bundle: Bundle, row: Row, place: Path) -> None:
    """Require that a session refuses a bundle of prepared files at once, and no other."""
    words = ["stream", "--fmri-dir", place / "console", "--bundle", bundle.path, "--out", place / "live"]
    if row.layout in ("phantom", "bids"):
        assert prepared.notice(bundle.manifest) is None
        return
    with refused(BundleError, "bundle-prepared-files", bundle=row.layout):
        CliRunner().invoke(app, list(map(str, words)), catch_exceptions=False)
    assert not (place / "live").exists()


@pytest.mark.parametrize("row", ALL)
def test_a_layout_is_trained_on_judged_exported_and_replayed(
    row: Row, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    test_responses.expect_counts(monkeypatch)
    data, run = trained(row, tmp_path)
    figures = check_figures(run, data, tmp_path)
    bundle = exported(run, tmp_path / "bundle")
    check_manifest(bundle, row)
    check_whether_live(bundle, row, tmp_path)
    run_held_out = held_run(data, row)
    recording = recorded(row, data, bundle, run_held_out, tmp_path / "recording")
    check_signals(row, bundle, recording, run_held_out)
    out = tmp_path / "replayed"
    words = ["replay", str(recording), "--bundle", str(bundle.path), "--out", str(out)]
    replayed: Any = CliRunner().invoke(app, [*words, "--speed", "max", "--best"])
    assert replayed.exit_code == 0, replayed.output
    windows_read = run_held_out.windows
    if row.layout == "phantom":
        # Of its last window, volumes that follow are in the recording and in no window of the data set.
        windows_read += row.after
    report = check_equal(bundle, recording, out, windows_read * row.window)
    assert report["windows"]["expected"] == windows_read
    two = figures[TWO_WAY]
    print(
        f"| {row.name} | {' '.join(row.keys)} | TR {row.tr:g} s, {row.window:g} s, lag {row.lag:g} s, "
        f"after {row.after} | {row.frames} frames | 2-way {two['value']:.3f} (n {two['n']}) "
        f"| {report['windows']['final']} of {report['windows']['expected']} replayed |"
    )


@pytest.mark.full
@pytest.mark.paced
@pytest.mark.parametrize("row", [row for row in ROWS if row.name in LIVE], ids=lambda row: row.name)
def test_a_layout_is_streamed_live(row: Row, tmp_path: Path) -> None:
    data, run = trained(row, tmp_path)
    bundle = exported(run, tmp_path / "bundle")
    out = tmp_path / "out"
    read_words = ["--bundle", bundle.path, "--out", out, "--record", tmp_path / "recording", "--wait", 120]
    if row.layout == "phantom":
        seconds = 24.0
        both = ["--lsl", "rtdecode-layout", "--fmri-dir", tmp_path / "scanner", "--seconds", seconds]
        player_words = ["simulate", *both, "--preset", "easy", "--seed", 1003, "--tr", row.tr]
    else:
        (image,) = data.glob("sub-01/func/*run-4_bold.nii.gz")
        seconds = held_run(data, row).windows * row.window
        both = ["--fmri-dir", tmp_path / "scanner", "--seconds", seconds, "--existing", "read"]
        player_words = ["play-volumes", image, "--fmri-dir", tmp_path / "scanner"]
        (tmp_path / "scanner").mkdir()
    with program("stream", *both, *read_words) as reader, program(*player_words):
        output, _ = reader.communicate(timeout=300)
        assert reader.returncode == 0, output
    report = check_equal(bundle, tmp_path / "recording", out, seconds)
    assert report["windows"]["expected"] == seconds // row.window
    # No window is decoded before its last volume has arrived.
    wait_ms = 1000 * float(bundle.manifest.grid.wait)
    assert min(line["latency_ms"]["since_stimulus"] for line in finals(out)) >= wait_ms
    late_ms = report["latency_ms"]["since_stimulus"]["p50"]
    print(
        f"| {row.name} | {report['windows']['final']} finals, {report['windows']['skipped']} skips of "
        f"{report['windows']['expected']} | live, {late_ms:.0f} ms after the stimulus |"
    )
