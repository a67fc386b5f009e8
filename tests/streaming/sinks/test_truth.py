from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from rtdecode.disk.clip_file import StoredClip
from rtdecode.disk.video import write_mp4
from rtdecode.types import Clip
from streaming.sinks.accuracy import sections
from streaming.sinks.truth import Archive, Truth
from tests.streaming.bundles import LABELS, make_bundle
from tests.streaming.windows import window

HEAD = "onset\tduration\ttrial_type"


def write_film(folder: Path, clips: int) -> np.ndarray:
    """Clips of one grey level each, and the events that say so."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(2)
    coarse = rng.integers(0, 256, (clips, 4, 4, 6, 3), np.uint8)
    film = coarse.repeat(8, 1).repeat(16, 2).repeat(16, 3).reshape(32 * clips, 64, 96, 3)
    write_mp4(folder / "film.mp4", film, 8)
    rows = [f"{4 * k}\t4\tshot\t{'red' if k % 2 else 'blue'}" for k in range(clips)]
    (folder / "events.tsv").write_text("\n".join([f"{HEAD}\tbackground", *rows]) + "\n")
    return film


def test_the_film_is_cut_at_the_windows_in_any_order(tmp_path: Path) -> None:
    truth = Truth(tmp_path / "truth", make_bundle(tmp_path / "bundle"))
    assert truth.clip(window(0)) is None
    film = write_film(tmp_path / "truth", 4)
    for k in (0, 1, 1, 3, 2, 0):
        clip = truth.clip(window(k))
        assert clip is not None
        assert clip.shape == (32, 64, 96, 3)
        assert np.abs(clip.astype(int) - film[32 * k : 32 * k + 32]).mean() < 3
    assert truth.clip(window(4)) is None


def test_a_film_of_another_rate_is_read_at_the_rate_of_the_clips(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    film = write_film(tmp_path / "truth", 2)
    slow = replace(bundle.manifest, clip=replace(bundle.manifest.clip, fps=2.0))
    slow = replace(slow, grid=replace(slow.grid, fps=Fraction(2)))
    clip = Truth(tmp_path / "truth", replace(bundle, manifest=slow)).clip(window(1))
    assert clip is not None
    assert clip.shape == (8, 64, 96, 3)
    assert np.abs(clip.astype(int) - film[32:64:4]).mean() < 3


def test_the_truth_goes_with_a_recording(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    write_film(tmp_path / "truth", 2)
    (tmp_path / "truth" / "faults.jsonl").write_text("")
    Truth(tmp_path / "truth", bundle).copy_to(tmp_path / "kept")
    assert sorted(p.name for p in (tmp_path / "kept").iterdir()) == ["events.tsv", "faults.jsonl", "film.mp4"]
    Truth(tmp_path / "truth" / "events.tsv", bundle).copy_to(tmp_path / "alone")
    assert [p.name for p in (tmp_path / "alone").iterdir()] == ["events.tsv"]
    Truth(None, bundle).copy_to(tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_film_of_another_size_is_scaled_until_it_fills_that_of_the_clips(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    film = write_film(tmp_path / "truth", 2)
    small = replace(bundle.manifest, clip=replace(bundle.manifest.clip, height=32, width=32))
    clip = Truth(tmp_path / "truth", replace(bundle, manifest=small)).clip(window(1))
    assert clip is not None
    assert clip.shape == (32, 32, 32, 3)
    # Nothing is stretched: what lies at the sides is cut off.
    middle = film[32:64, ::2, 16:80:2]
    assert np.abs(clip.astype(int) - middle).mean() < 3


def test_a_film_that_cannot_be_read_is_given_up_with_one_reason(tmp_path: Path) -> None:
    write_film(tmp_path / "truth", 2)
    (tmp_path / "truth" / "film.mp4").write_bytes(b"no film at all" * 100)
    truth = Truth(tmp_path / "truth", make_bundle(tmp_path / "bundle"))
    assert truth.clip(window(0)) is None
    assert str(tmp_path / "truth") in truth.fault
    assert not truth.has_events
    assert truth.events() == []
    truth.copy_to(tmp_path / "kept")
    assert sorted(p.name for p in (tmp_path / "kept").iterdir()) == ["events.tsv", "film.mp4"]


@pytest.mark.parametrize("table", ["onset\tnothing else\n3\t4\n", "\xff\xfe\n"])
def test_events_that_cannot_be_read_are_given_up(table: str, tmp_path: Path) -> None:
    events = tmp_path / "events.tsv"
    events.write_bytes(table.encode("latin-1"))
    truth = Truth(events, make_bundle(tmp_path / "bundle", eeg=False, labels=LABELS))
    assert truth.category(window(0)) is None
    assert "events.tsv" in truth.fault


def test_a_perfect_decoder_is_perfect_and_leaves_no_file(tmp_path: Path) -> None:
    film = write_film(tmp_path / "truth", 6)
    bundle = make_bundle(tmp_path / "bundle")
    truth = Truth(tmp_path / "truth", bundle)
    archive = Archive(tmp_path / "kept")
    for k in range(6):
        frames = np.concatenate([film[32 * k : 32 * k + 32], film[32 * k : 32 * k + 1]])
        archive.add(window(k), Clip(frames, np.zeros(1, np.float32), None, 0), truth.clip(window(k)))
    archive.add(window(6), Clip(frames, np.zeros(1, np.float32), None, 0), truth.clip(window(6)))
    accuracy = sections(truth, archive, bundle)["accuracy"]
    assert accuracy["identification_2way"]["value"] == pytest.approx(1)
    assert accuracy["identification_2way"]["n"] == 6
    assert accuracy["identification_2way_same_background"]["n"] == 6
    assert accuracy["identification_50way"] is None
    assert accuracy["classification_top1"] is None
    archive.close()
    assert not (tmp_path / "kept").exists()


def test_what_is_kept_for_the_report_is_read_from_the_disk(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    clip_arrays = rng.integers(0, 256, (4, 3, 4, 9, 5, 3)).astype(np.uint8)
    archive = Archive(tmp_path / "kept")
    assert archive.pairs() == {}
    for k, (frames, truth, twin) in enumerate(clip_arrays):
        archive.add(window(k), Clip(frames, np.zeros(1, np.float32), None, 0), truth[:3], twin)
    parts = archive.pairs()
    assert {type(clip) for clips in parts.values() for clip in clips} == {StoredClip}
    for n, name in enumerate(("clip", "truth", "twin")):
        stored = np.stack([np.asarray(clip) for clip in parts[name]])
        assert np.array_equal(stored, clip_arrays[:, n, : 3 if name == "truth" else 4])
    archive.close()


def test_categories_from_events_alone(tmp_path: Path) -> None:
    events = tmp_path / "events.tsv"
    events.write_text(f"{HEAD}\n0\t10\tface\n12\t12\thouse\n")
    bundle = make_bundle(tmp_path / "bundle", eeg=False, labels=LABELS)
    truth = Truth(events, bundle)
    categories = [truth.category(window(k)) for k in range(6)]
    assert categories == ["face", "face", "between blocks", "house", "house", "house"]
    archive = Archive(tmp_path / "kept")
    for k in range(6):
        scores = dict.fromkeys(LABELS, 0.2) | {"face" if k < 4 else "house": 0.6}
        archive.add(
            window(k), Clip(np.zeros((1, 2, 2, 3), np.uint8), np.zeros(1, np.float32), scores, 0), None
        )
    entry = sections(truth, archive, bundle)["accuracy"]["classification_top1"]
    assert (entry["value"], entry["n"]) == (pytest.approx(4 / 5), 5)
    archive.close()


def test_without_a_truth_everything_is_unknown(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    truth = Truth(None, bundle)
    archive = Archive(tmp_path / "kept")
    assert truth.clip(window(0)) is None
    report = sections(truth, archive, bundle)
    assert set(report.pop("accuracy").values()) == {None}
    assert report == {"baselines": None, "confidence": None, "seam": None, "identified": None}
    archive.close()
