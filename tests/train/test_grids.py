"""A ridge on windows of other lengths, TRs and rates: trained, judged, exported, replayed and streamed.

Each row of the table is a grid. Every window of a replay, and of a live session, ends in one final or one
skip, and what a final holds has the bits of the batch.
"""

import json
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from rtdecode import bundle as bundles
from rtdecode.bundle import Bundle
from rtdecode.cli import app
from rtdecode.disk.recording import Recording
from rtdecode.errors import UsageError
from rtdecode.phantom.session import PhantomSession
from streaming.decode.decoder import Decoder
from tests.recordings import record
from tests.refusals import refused
from tests.test_live import SHIPPED_RUNS, finals, program
from tests.train.models.cinesync.test_cinesync import SMALL as CINESYNC
from train import evaluate
from train.config.run_files import read_run
from train.data.chain import windows
from train.run_recipe import run as make_run

# Length of the sessions that are judged, s.
SECONDS = 24


@dataclass(frozen=True)
class Row:
    """A grid as a recipe's changes, and what a bundle then has."""

    name: str
    changes: tuple[str, ...]
    tr: Fraction
    window: int
    frames: int
    modalities: tuple[str, ...] = ("eeg", "fmri")
    after: int = 0
    seconds: int = SECONDS
    # What `rtdecode simulate` is asked for besides the TR.
    participant: tuple[str, ...] = ()


FMRI = "data.modalities=[fmri]"
TWO = ("data.grid.tr=2", "data.grid.window=2", "data.grid.hop=2")
ROWS = [
    Row("4 s, both", (), Fraction(4, 5), 4, 33),
    Row("2 s, both, 3 fps", (*TWO, "data.grid.fps=3"), Fraction(2), 2, 6),
    Row("2 s, fMRI, 3 fps", (*TWO, "data.grid.fps=3", FMRI), Fraction(2), 2, 6, ("fmri",)),
    Row("2 s, fMRI, 8 fps", (*TWO, FMRI), Fraction(2), 2, 17, ("fmri",)),
    Row(
        "2 s, fMRI, 3 fps, one volume more",
        (*TWO, "data.grid.fps=3", "data.grid.after=1", FMRI, "data.seconds=24", "judge.seconds=12"),
        Fraction(2),
        2,
        6,
        ("fmri",),
        1,
        12,
    ),
    Row(
        "3 s, TR 1.75 s", ("data.grid.tr=7/4", "data.grid.window=3", "data.grid.hop=3"), Fraction(7, 4), 3, 25
    ),
]
SHARED = Row(
    "4 s, both, a cortex that is shared",
    ("data.who.cortex=shared",),
    Fraction(4, 5),
    4,
    33,
    participant=("--cortex", "shared"),
)
# One row is enough where time is short; all of them are in `make test-all`.
SLOW = [
    pytest.param(row, id=row.name, marks=pytest.mark.full if n != 4 else ()) for n, row in enumerate(ROWS)
]


def exported(run: Path, out: Path) -> Bundle:
    outcome: Any = CliRunner().invoke(app, ["export", str(run), "--out", str(out)])
    assert outcome.exit_code == 0, outcome.output
    return bundles.load(str(out))


def batch(bundle: Bundle, recording: Path, seconds: float) -> list[np.ndarray]:
    """Latents of all windows of a recording, decoded one after the other outside any session."""
    read = Recording(recording)
    cut = windows(bundle, read.events(), read.montage, bundle.manifest.modalities, seconds)
    decoder = Decoder(bundle)
    return [decoder.decode(window).clip.latent for window in cut]


def check_equal(bundle: Bundle, recording: Path, out: Path, seconds: float) -> dict[str, Any]:
    """Hold a session's finals against the batch, and return its report."""
    report = json.loads((out / "report.json").read_text())
    lines = finals(out)
    counts = report["windows"]
    assert counts["final"] + counts["skipped"] == counts["expected"]
    assert counts["skipped"] == counts["degraded"] == 0
    latents = batch(bundle, recording, seconds)
    assert [line["clip"] for line in lines] == list(range(counts["expected"]))
    assert len(latents) == len(lines)
    for line, latent in zip(lines, latents, strict=True):
        np.testing.assert_array_equal(np.load(out / line["latent"]), latent)
    return report


def print_row(row: Row, run: Path, report: dict[str, Any], n: int) -> None:
    """Print a line of the table."""
    figures = read_run(run)["figures"]
    two = next(figures[name] for name in figures if name.startswith("identification_2way"))
    # A replay at its best has no latency.
    late = report["latency_ms"]["since_stimulus"]
    when = "replayed" if late is None else f"live, {late['p50']:.0f} ms after the stimulus"
    print(
        f"| {row.name} | TR {float(row.tr):g} s | {row.frames} frames | {n} windows "
        f"| 2-way {two['value']:.3f} (n {two['n']}) | {when} |"
    )


@pytest.mark.full
@pytest.mark.parametrize("row", SLOW)
def test_simulated_sessions_are_trained_judged_exported_and_replayed(row: Row, tmp_path: Path) -> None:
    run = make_run("ridge", ["scale=tiny", *row.changes, f"out={tmp_path / 'run'}"])
    bundle = exported(run, tmp_path / "bundle")
    manifest = bundle.manifest
    assert manifest.modalities == list(row.modalities)
    assert (manifest.grid.tr, manifest.grid.window, manifest.grid.after) == (row.tr, row.window, row.after)
    assert manifest.clip.frames == row.frames
    figures = evaluate.evaluate(run, evaluate.Request(seeds="1001", seconds=row.seconds))
    count = int(row.seconds / row.window)
    assert figures["identification_2way"]["n"] == count
    session = PhantomSession("easy", 1, 1002, row.seconds, tr_s=float(row.tr))
    recording = record(session, tmp_path / "recording")
    out = tmp_path / "replayed"
    words = ["replay", str(recording), "--bundle", str(tmp_path / "bundle"), "--out", str(out)]
    replayed: Any = CliRunner().invoke(app, [*words, "--speed", "max", "--best"])
    assert replayed.exit_code == 0, replayed.output
    report = check_equal(bundle, recording, out, row.seconds)
    assert report["windows"]["expected"] == count
    assert report["accuracy"]["identification_2way"]["n"] == count
    print_row(row, run, report, count)


@pytest.mark.full
@pytest.mark.paced
@pytest.mark.parametrize("row", [ROWS[1], ROWS[4], SHARED], ids=lambda row: row.name)
def test_a_live_session_equals_the_batch(row: Row, tmp_path: Path) -> None:
    run = make_run("ridge", ["scale=tiny", *row.changes, f"out={tmp_path / 'run'}"])
    bundle = exported(run, tmp_path / "bundle")
    out = tmp_path / "out"
    recording = tmp_path / "recording"
    both = ["--lsl", "rtdecode-grid", "--fmri-dir", tmp_path / "scanner", "--truth", tmp_path / "truth"]
    both += ["--seconds", SECONDS]
    person = ["--preset", "easy", "--seed", 1003, "--tr", float(row.tr), *row.participant]
    read = ["--bundle", tmp_path / "bundle", "--out", out, "--record", recording, "--wait", 120]
    with (
        program("simulate", *both, *person) as player,
        program("stream", *both, *read) as reader,
    ):
        output, _ = reader.communicate(timeout=300)
        assert reader.returncode == 0, output
        assert player.poll() in (None, 0)
    report = check_equal(bundle, recording, out, SECONDS)
    count = SECONDS // row.window
    assert report["windows"]["expected"] == count
    # No window is decoded before its last volume has arrived, which is not before its acquisition has ended,
    # and the latency that is reported holds the wait.
    least_ms = 1000 * float(bundle.manifest.grid.wait)
    for line in finals(out):
        assert 0 <= line["t_ms"]["arrived"] <= line["t_ms"]["windowed"]
        latency = line["latency_ms"]
        assert latency["since_stimulus"] - latency["beyond_floor"] >= least_ms
    print_row(row, run, report, count)
    again = tmp_path / "again"
    words = ["replay", str(recording), "--bundle", str(tmp_path / "bundle"), "--out", str(again)]
    replayed: Any = CliRunner().invoke(app, [*words, "--speed", "max", "--as-live"])
    assert replayed.exit_code == 0, replayed.output
    assert f"{count} of {count}" in " ".join(replayed.output.split())
    check_equal(bundle, recording, again, SECONDS)


# A system that is trained with gradients, as small as it can be, on a grid that its codec can have.
OF_GRADIENTS = {
    "compact": ("data.shows=shapes", "data.sessions=0-2", "judge.films=shapes"),
    "cinesync": (*CINESYNC, "judge.films=shapes"),
}
OF_HALF_SIZE = ("data.grid.fps=4", "data.clip=32x48", "data.grid.after=1", "judge.seeds=1000")


@pytest.mark.full
@pytest.mark.parametrize("recipe", OF_GRADIENTS)
def test_systems_that_draw_latents_follow_the_grid(recipe: str, tmp_path: Path) -> None:
    run = make_run(
        recipe, ["scale=tiny", *OF_GRADIENTS[recipe], *TWO, *OF_HALF_SIZE, f"out={tmp_path / 'run'}"]
    )
    bundle = exported(run, tmp_path / "bundle")
    clip = bundle.manifest.clip
    assert (clip.frames, clip.height, clip.width, clip.fps) == (9, 32, 48, 4)
    assert (bundle.manifest.grid.tr, bundle.manifest.grid.window, bundle.manifest.grid.after) == (2, 2, 1)
    # Six clips, each with five of its frames.
    with Image.open(run / "samples.webp") as sheet:
        assert sheet.width == 5 * clip.width
        assert sheet.height % (6 * clip.height) == 0
    judged = evaluate.evaluate(
        run, evaluate.Request(seeds="1001", seconds=SECONDS, film="shapes", oracle=None)
    )
    count = SECONDS // 2
    assert judged["identification_2way_centred"]["n"] == count
    session = PhantomSession("easy", 1, 1002, SECONDS, tr_s=2.0)
    recording = record(session, tmp_path / "recording")
    out = tmp_path / "replayed"
    words = ["replay", str(recording), "--bundle", str(tmp_path / "bundle"), "--out", str(out)]
    replayed: Any = CliRunner().invoke(app, [*words, "--speed", "max", "--best"])
    assert replayed.exit_code == 0, replayed.output
    report = check_equal(bundle, recording, out, SECONDS)
    # The film of the recording is four times as large as the clips, and is scaled to them.
    assert report["accuracy"]["identification_2way"]["n"] == count
    of_recording = evaluate.evaluate(run, evaluate.Request(data=recording))
    assert of_recording["identification_2way"]["n"] == count


@pytest.mark.parametrize(
    ("recipe", "changes", "code", "values"),
    [
        ("compact", (*TWO, "data.grid.fps=3"), "clip-frames-unsupported", {"frames": 6, "fps": 3}),
        ("compact", ("data.grid.frame_after=false",), "clip-frames-unsupported", {"frames": 32}),
        ("compact", ("data.grid.size=[40,56]",), "clip-size-unsupported", {"rows": 40, "side": 16}),
        ("cinesync", ("data.clip=40x56",), "clip-size-unsupported", {"rows": 40, "side": 16}),
        ("ridge", ("data.clip=60x96",), "clip-size-invalid", {"size": "60x96"}),
        ("compact", ("data.grid.window=2",), "film-windows-not-adjacent", {"window_s": 2, "hop_s": 4}),
        ("compact", ("data.grid.after=31",), "data-session-too-short", {"after": 31, "film_s": 24}),
        ("cinesync", (*TWO, "data.grid.fps=3"), "clip-frames-unsupported", {"frames": 6}),
        ("cinesync", (*TWO, "data.grid.fps=2"), "film-net-frames-too-few", {"frames": 5, "every": 4}),
        ("ridge", ("data.grid.tr=8",), "phantom-tr-out-of-range", {"tr_s": 8, "argument": "data.grid.tr"}),
    ],
)
def test_what_a_system_cannot_learn_on_a_grid_is_refused_before_anything_is_simulated(
    recipe: str, changes: tuple[str, ...], code: str, values: dict[str, Any], tmp_path: Path
) -> None:
    with refused(UsageError, code, **values):
        make_run(recipe, ["scale=tiny", *changes, f"out={tmp_path / 'run'}"])
    assert not list(tmp_path.iterdir())


def test_look_ahead_beyond_a_session_is_refused_before_anything_is_simulated(tmp_path: Path) -> None:
    with refused(UsageError, "data-session-too-short", after=60, needed=63, scanned=28):
        make_run("ridge", ["scale=tiny", *TWO, "data.grid.after=60", f"out={tmp_path / 'run'}"])
    assert not list(tmp_path.iterdir())


def test_a_teacher_of_other_windows_is_refused_before_anything_is_simulated(tmp_path: Path) -> None:
    words = ["scale=tiny", f"teacher={SHIPPED_RUNS / 'phantom'}", "data.grid.window=2", "data.grid.hop=2"]
    with refused(
        UsageError,
        "teacher-grid-mismatch",
        teacher_grid={"window": "4", "hop": "4"},
        grid={"window": "2", "hop": "2"},
    ):
        make_run("compact-distilled", [*words, "films=shapes", f"out={tmp_path / 'run'}"])
    assert not list(tmp_path.iterdir())


def test_a_grid_without_whole_frames_is_refused_before_anything_is_simulated(tmp_path: Path) -> None:
    with refused(UsageError, "recipe-grid-invalid"):
        make_run("ridge", ["scale=tiny", "data.grid.fps=7.3", f"out={tmp_path / 'run'}"])
    assert not list(tmp_path.iterdir())
