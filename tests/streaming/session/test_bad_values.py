"""A recording with values that are no numbers, replayed: nothing passes them on, every hole is visible."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rtdecode import bundle as bundles
from rtdecode.disk.recording import Recording, RecordingWriter
from rtdecode.disk.video import read_mp4
from rtdecode.phantom.session import PhantomSession
from rtdecode.scores.accuracy import correlations, identification_nway
from rtdecode.types import EegChunk, Trigger, Volume
from streaming.session import replay
from streaming.sinks.film import FilmSink
from tests.recordings import record

# On the run's time line, s; the window of each is known.
ONE_SAMPLE_S = 9.5
CHANNEL_FROM_S = 20.5
CHANNEL_TO_S = 25.5
# Volumes of TR 0.8 s that window 7 (28 to 32 s) reads with a lag of 4 s.
VOLUMES = (41, 42, 43)
CONCERNED = {2: "eeg", 5: "eeg", 6: "eeg", 7: "fmri"}
WINDOWS = 9


def damaged(source: Recording) -> Iterator[EegChunk | Trigger | Volume]:
    """The items of a recording with the three kinds of holes."""
    zero_at = next(item.stamp for item in source.events() if isinstance(item, Trigger))
    rng = np.random.default_rng(0)
    for item in source.events():
        if isinstance(item, EegChunk):
            data = item.data.copy()
            run_s = item.stamps - zero_at
            data[17, np.abs(run_s - ONE_SAMPLE_S) < 0.0005] = np.nan
            data[40, (run_s >= CHANNEL_FROM_S) & (run_s < CHANNEL_TO_S)] = np.nan
            yield replace(item, data=data)
        elif isinstance(item, Volume) and item.index in VOLUMES:
            values = item.data.astype(np.float32)
            values[rng.random(values.shape) < 0.05] = np.nan
            yield replace(item, data=values)
        else:
            yield item


def finite_json(text: str) -> Any:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    return json.loads(text, parse_constant=refuse)


def finals(out: Path) -> list[dict[str, Any]]:
    lines = [finite_json(line) for line in (out / "clips.jsonl").read_text().splitlines()]
    return [line for line in lines if line["revision"] == "final"]


@dataclass(frozen=True)
class Replays:
    """What the shipped bundle makes of nine windows, untouched and damaged."""

    film: Path
    intact: Path
    damaged: Path


@pytest.fixture(scope="module")
def replays(tmp_path_factory: pytest.TempPathFactory) -> Replays:
    folder = tmp_path_factory.mktemp("bad-values")
    record(PhantomSession("default", seconds=4.0 * WINDOWS), folder / "whole")
    # Without the truth no twins are decoded.
    (folder / "whole" / "truth").rename(folder / "truth")
    recording = Recording(folder / "whole")
    with RecordingWriter(folder / "damaged", recording.montage, recording.meta) as writer:
        for item in damaged(recording):
            writer.write(item)
    with pytest.MonkeyPatch.context() as patch:
        # Nobody looks at the films here.
        patch.setattr(FilmSink, "write", lambda *_, **__: None)
        for name in ("whole", "damaged"):
            replay.run(folder / name, "phantom", "max", folder / f"{name}-out", steps=1)
    return Replays(folder / "truth" / "film.mp4", folder / "whole-out", folder / "damaged-out")


def test_no_value_that_is_no_number_leaves_a_replay(replays: Replays) -> None:
    texts = [*replays.damaged.glob("*.json"), *replays.damaged.glob("*.jsonl")]
    assert {file.name for file in texts} == {"report.json", "clips.jsonl"}
    for file in texts:
        for line in [file.read_text()] if file.suffix == ".json" else file.read_text().splitlines():
            finite_json(line)
    arrays = list(replays.damaged.rglob("*.npy"))
    assert len(arrays) == 2 * WINDOWS
    assert all(np.isfinite(np.load(file)).all() for file in arrays)


def test_the_windows_concerned_are_marked_and_no_others(replays: Replays) -> None:
    for line in finals(replays.damaged):
        hit = CONCERNED.get(line["clip"])
        incomplete = {name for name, share in line["missing"].items() if share > 0}
        assert incomplete == ({hit} if hit else set()), line["clip"]
    assert all(max(line["missing"].values()) == 0 for line in finals(replays.intact))


def test_a_report_counts_what_was_no_number(replays: Replays) -> None:
    report = finite_json((replays.damaged / "report.json").read_text())
    assert report["eeg"]["nonfinite_samples"] == 5001
    assert report["fmri"]["nonfinite_voxels"] > 3 * 0.045 * 64 * 64 * 36
    assert report["windows"]["final"] == WINDOWS
    assert report["windows"]["degraded"] == len(CONCERNED)


def test_what_came_before_a_hole_has_the_same_bits(replays: Replays) -> None:
    intact = finals(replays.intact)
    holed = finals(replays.damaged)
    for line, other in zip(intact[:2], holed[:2], strict=True):
        before = np.load(replays.intact / line["latent"])
        assert np.array_equal(before, np.load(replays.damaged / other["latent"]))


def test_the_other_windows_are_recognised_as_well_as_without_holes(replays: Replays) -> None:
    scores = [identified(replays.film, out) for out in (replays.intact, replays.damaged)]
    assert scores[1] == pytest.approx(scores[0], abs=0.02)


def identified(film: Path, out: Path) -> float:
    """2-way identification of the windows without a hole, among each other."""
    bundle = bundles.load("phantom")
    hop = bundle.manifest.grid.hop_frames
    film_frames = read_mp4(film)
    lines = [line for line in finals(out) if line["clip"] not in CONCERNED]
    clips = [read_mp4(out / line["file"])[:hop] for line in lines]
    truths = [film_frames[hop * line["clip"] :][:hop] for line in lines]
    scores = correlations(clips, truths, bundle.stats["mean_clip"])
    off_diagonal = ~np.eye(len(lines), dtype=bool)
    return float(identification_nway(scores, off_diagonal, 2).mean())
