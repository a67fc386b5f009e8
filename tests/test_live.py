"""Sessions in real time over the real interfaces, and what must be equal about them."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rtdecode import bundle as bundles
from rtdecode.bundle import Bundle
from rtdecode.clocks.run_clock import RunClock
from rtdecode.clocks.sample_clock import SampleClock
from rtdecode.disk.recording import Recording
from rtdecode.scores.accuracy import classification
from rtdecode.scores.events import read_events
from rtdecode.signal.eeg.band import EegFilter
from rtdecode.signal.volume.baseline import normalizer
from rtdecode.signal.volume.projection import project
from rtdecode.types import EegChunk, Trigger, Volume, Window
from streaming.decode.decoder import Decoder
from train.config.run_files import weights
from train.data import haxby
from train.models.haxby.system import Category

SHIPPED_RUNS = Path(__file__).parents[1] / "train" / "runs"
HAXBY = Path(__file__).parent / "data" / "haxby"


@contextlib.contextmanager
def program(*words: object) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "rtdecode.cli", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
        process.kill()
        process.communicate()


def finals(out: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (out / "clips.jsonl").read_text().splitlines()]
    return [line for line in lines if line["revision"] == "final"]


def in_one_pass(recording: Recording, bundle: Bundle, count: int) -> Iterator[Window]:
    """The windows of a recording from whole arrays: no chunks, no rings, no deadlines."""
    items = list(recording.events())
    manifest = bundle.manifest
    grid = bundle.manifest.grid
    stats = bundle.stats
    assert manifest.eeg is not None
    assert manifest.fmri is not None
    assert bundle.projection is not None
    assert recording.montage is not None
    chunks = [i for i in items if isinstance(i, EegChunk)]
    volumes = sorted((i for i in items if isinstance(i, Volume)), key=lambda v: v.index)
    clock = RunClock(grid.tr)
    triggers = [i for i in items if isinstance(i, Trigger)]
    for volume in volumes[:5]:
        clock.add_volume(volume)
    pick = [recording.montage.channels.index(name) for name in manifest.eeg.channels]
    sfreq = recording.montage.sfreq
    eeg = EegFilter(manifest.eeg.band, sfreq).push(np.concatenate([c.data for c in chunks], axis=1)[pick])
    mean = stats["eeg_mean"][:, None]
    scale = stats["eeg_scale"][:, None]
    clock_of_samples = SampleClock(sfreq).push(
        np.concatenate([c.stamps for c in chunks]), chunks[-1].arrived_at
    )
    times = np.concatenate([piece.times for piece in clock_of_samples])
    assert not any(piece.lost for piece in clock_of_samples)
    norm = normalizer(stats, manifest.fmri.baseline)
    voxels = bundle.projection.bind(volumes[0].data.shape, volumes[0].affine)
    vectors = np.stack([norm.push(project(v.data, voxels)) for v in volumes])
    assert [v.index for v in volumes] == list(range(len(volumes)))
    for k in range(count):
        start, stop = (float(t) for t in grid.span(k))
        # The clock remembers some minutes of triggers: each window has those of its own past.
        while triggers and (
            not clock.is_placed or clock.elapsed(triggers[0].stamp) <= stop + float(grid.lag)
        ):
            clock.add_trigger(triggers.pop(0).stamp)
        instants = clock.to_local(start + np.arange(grid.samples) / float(grid.sfreq), stop)
        place = np.interp(instants, times, np.arange(times.size))
        # An instant within a thousandth of a sample of a sample is that sample.
        place = np.where(np.abs(place - np.rint(place)) < 1e-3, np.rint(place), place)
        lower = np.floor(place).astype(int)
        share = (place - lower).astype(np.float32)
        yield Window(
            run=0,
            index=k,
            start_s=start,
            stop_s=stop,
            session_s=start,
            revision="final",
            eeg=((eeg[:, lower] * (1 - share) + eeg[:, lower + 1] * share - mean) / scale).astype(np.float32),
            eeg_mask=np.ones(grid.samples, bool),
            fmri=vectors[list(grid.volumes(k))],
            fmri_mask=np.ones(grid.slots, bool),
            fmri_expected=np.ones(grid.slots, bool),
            floor_at=0.0,
        )


@pytest.mark.full
@pytest.mark.paced
@pytest.mark.timeout(900)
def test_a_long_live_session_equals_the_batch_on_every_window(tmp_path: Path) -> None:
    out = tmp_path / "out"
    record = tmp_path / "recording"
    both = [
        "--lsl",
        "rtdecode-long",
        "--fmri-dir",
        tmp_path / "scanner",
        "--truth",
        tmp_path / "truth",
    ]
    # Longer than the five minutes of stamps that the clocks remember.
    both += ["--seconds", 400]
    with (
        program("simulate", *both, "--preset", "easy", "--seed", 1003) as player,
        program("stream", *both, "--out", out, "--record", record, "--wait", 120) as reader,
    ):
        output, _ = reader.communicate(timeout=800)
        assert reader.returncode == 0, output
        assert player.poll() in (None, 0)
    report = json.loads((out / "report.json").read_text())
    print(json.dumps({name: report[name] for name in ("windows", "latency_ms", "memory_mb", "accuracy")}))
    assert report["windows"] == {
        "expected": 100,
        "final": 100,
        "preview": 100,
        "refined": 0,
        "skipped": 0,
        "degraded": 0,
        "fallback": 0,
        "dropped_previews": 0,
    }
    _check_accuracy(report["accuracy"])
    bundle = bundles.load("phantom")
    decoder = Decoder(bundle)
    lines = finals(out)
    assert [line["clip"] for line in lines] == list(range(100))
    for line, window in zip(lines, in_one_pass(Recording(record), bundle, 100), strict=True):
        batch = decoder.decode(window).clip.latent
        live = np.load(out / line["latent"])
        assert np.abs(live - batch).max() <= 1e-3, f"window {line['clip']}"


@pytest.mark.full
@pytest.mark.paced
@pytest.mark.timeout(600)
def test_late_volumes_and_a_moving_head_in_the_magnet_are_replayed_as_they_were_live(
    data_root: Path, tmp_path: Path
) -> None:
    motion = data_root / "motion" / "sub-xp207_task-2dNF_run-02.tsv"
    delivery = data_root / "scan-times" / "sub-19_ses-001_task-main_run-005.tsv"
    out = tmp_path / "out"
    record = tmp_path / "recording"
    both = ["--lsl", "rtdecode-late", "--fmri-dir", tmp_path / "scanner"]
    both += ["--truth", tmp_path / "truth", "--seconds", 100]
    simulator_words = [
        "--preset",
        "easy",
        "--seed",
        1004,
        "--in-magnet",
        "--motion",
        motion,
        "--delivery",
        delivery,
    ]
    with (
        program("simulate", *both, *simulator_words) as player,
        program("stream", *both, "--out", out, "--record", record, "--wait", 120) as reader,
    ):
        output, _ = reader.communicate(timeout=400)
        assert reader.returncode == 0, output
        assert player.poll() in (None, 0)
    report = json.loads((out / "report.json").read_text())
    print(json.dumps({name: report[name] for name in ("windows", "eeg", "fmri", "latency_ms")}))
    windows = report["windows"]
    assert windows["expected"] == windows["final"] == 25
    assert windows["refined"] >= 5
    assert report["fmri"]["late"] >= 5 * windows["refined"] - 4
    assert report["fmri"]["burst"] >= 20
    assert report["fmri"]["delay_s"]["max"] > 20
    assert report["eeg"]["lost_samples"] == 0

    again = tmp_path / "again"
    with program("replay", record, "--speed", "max", "--out", again) as replayed:
        output, _ = replayed.communicate(timeout=400)
        assert replayed.returncode == 0, output
    live = {path.name: np.load(path) for path in (out / "clips").glob("*.npy")}
    batch = {path.name: np.load(path) for path in (again / "clips").glob("*.npy")}
    assert sum("refined" in name for name in live) == windows["refined"]
    for name, latent in batch.items():
        # When a burst is read, a preview may be dropped or get fewer steps.
        if "preview" not in name:
            assert np.array_equal(live[name], latent), name


def _check_accuracy(accuracy: dict[str, Any]) -> None:
    assert accuracy["identification_2way"]["value"] >= 0.90
    assert accuracy["identification_2way_same_background"]["value"] >= 0.75
    assert 0.45 <= accuracy["identification_2way"]["shuffled"] <= 0.55


@pytest.mark.full
@pytest.mark.paced
@pytest.mark.timeout(600)
def test_two_recorded_runs_at_real_time_equal_the_batch(tmp_path: Path) -> None:
    runs = (9, 10)
    scores = []
    spans = []
    with contextlib.ExitStack() as stack:
        readers = [_play(stack, run, tmp_path / str(run)) for run in runs]
        for reader in readers:
            output, _ = reader.communicate(timeout=500)
            assert reader.returncode == 0, output
    bundle = bundles.load("haxby")
    labels = bundle.manifest.labels
    assert labels is not None
    for run in runs:
        lines = finals(tmp_path / str(run) / "out")
        live = np.array([[line["scores"][label] for label in labels] for line in lines])
        assert live.shape == (73, 8)
        assert np.abs(live - _batch_scores(bundle, run)[:73]).max() <= 1e-5
        scores.append(live)
        spans += [(run, *line["window_s"]) for line in lines]
    events = {run: read_events(HAXBY / f"run{run:03d}" / "bold_events.tsv") for run in runs}
    correction = bundle.manifest.provenance["onset_correction_s"]
    accuracy = classification(np.concatenate(scores), spans, events, labels, correction)
    assert accuracy is not None
    print(json.dumps(accuracy))
    assert accuracy["value"] >= 0.42
    assert accuracy["ci95"][0] > 0.125
    assert accuracy["n"] >= 60


def _play(stack: contextlib.ExitStack, run: int, folder: Path) -> subprocess.Popen[str]:
    """Start one program that plays a run and one that decodes it."""
    (folder / "scanner").mkdir(parents=True)
    source = HAXBY / f"run{run:03d}"
    words = ["--fmri-dir", folder / "scanner", "--bundle", "haxby", "--out", folder / "out"]
    words += ["--truth", source / "bold_events.tsv", "--seconds", 295]
    # The player may be the faster one to start.
    words += ["--existing", "read"]
    reader = stack.enter_context(program("stream", *words))
    stack.enter_context(
        program("play-volumes", source / "bold_1slice.nii.gz", "--fmri-dir", folder / "scanner")
    )
    return reader


def _batch_scores(bundle: Bundle, run: int) -> np.ndarray:
    """Scores of a run by the training package's own decoder, from whole arrays."""
    image = haxby.load(HAXBY, run)
    grid = bundle.manifest.grid
    spec = bundle.manifest.fmri
    stats = bundle.stats
    assert spec is not None
    assert bundle.projection is not None
    norm = normalizer(stats, spec.baseline)
    voxels = bundle.projection.bind(image.data.shape[:3], image.affine)
    vectors = np.stack([norm.push(project(image.data[..., n], voxels)) for n in range(image.data.shape[3])])
    window_volumes = [grid.volumes(k) for k in range(73)]
    fmri = np.zeros((73, grid.slots, spec.voxels), np.float32)
    mask = np.zeros((73, grid.slots), np.float32)
    for k, indices in enumerate(window_volumes):
        fmri[k, : len(indices)] = vectors[list(indices)]
        mask[k, : len(indices)] = 1
    system = Category(weights(SHIPPED_RUNS / "haxby"))
    return system.condition({"fmri": fmri, "fmri_mask": mask}).scores
