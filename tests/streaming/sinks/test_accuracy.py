"""What the truth says of clips whose worth is known: nothing is read from a film or drawn by a decoder."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rtdecode.bundle import Bundle
from rtdecode.types import Clip
from streaming.sinks.accuracy import sections
from streaming.sinks.truth import Archive, Truth
from tests.streaming.bundles import LABELS, make_bundle
from tests.streaming.windows import window

HEAD = "onset\tduration\ttrial_type"
LATENT = np.zeros(1, np.float32)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("b") / "bundle")


def films(count: int) -> np.ndarray:
    """True clips, (clip, frame, row, column, 3), each of another pattern."""
    rng = np.random.default_rng(4)
    return rng.integers(0, 256, (count, 2, 64, 96, 3)).astype(np.uint8)


def truth_of(folder: Path, rows: list[str], bundle: Bundle) -> Truth:
    """A truth of events alone."""
    path = folder / "events.tsv"
    path.write_text("\n".join([HEAD, *rows]) + "\n")
    return Truth(path, bundle)


def test_twins_are_scored_by_their_own_clips(bundle: Bundle, tmp_path: Path) -> None:
    truth = truth_of(tmp_path, [f"{4 * k}\t4\tshot" for k in range(8)], bundle)
    archive = Archive(tmp_path / "kept")
    true = films(8)
    blind = films(9)[8]
    for k in range(8):
        archive.add(window(k), Clip(true[k], LATENT, None, 0), true[k], blind)
    report = sections(truth, archive, bundle)
    archive.close()
    assert report["accuracy"]["identification_2way"]["value"] == 1
    identified = report["identified"]
    assert [line["window_s"] for line in identified] == [[4.0 * k, 4.0 * k + 4] for k in range(8)]
    assert all(line["run"] == 0 and line["wins"] == 1.0 for line in identified)
    # One clip for every window wins against half of the others: against all of them for one window, against
    # none for another.
    assert sorted(line["null_wins"] for line in identified) == pytest.approx([k / 7 for k in range(8)])
    assert report["baselines"]["null_brain"]["identification_2way"]["value"] == pytest.approx(0.5)


def test_clips_stand_beside_what_their_colours_alone_say(bundle: Bundle, tmp_path: Path) -> None:
    truth = truth_of(tmp_path, [f"{4 * k}\t4\tshot" for k in range(8)], bundle)
    archive = Archive(tmp_path / "kept")
    # Four levels of grey, each with a bright half on the left and on the right.
    true = np.zeros((8, 2, 64, 96, 3), np.uint8)
    for k in range(8):
        true[k] += np.uint8(40 + 20 * (k // 2))
        half = slice(0, 48) if k % 2 else slice(48, 96)
        true[k, :, :, half] += np.uint8(60)
    # The decoder knows the mean colour alone.
    for k in range(8):
        level = np.uint8(true[k].mean())
        archive.add(window(k), Clip(np.full((3, 64, 96, 3), level, np.uint8), LATENT, None, 0), true[k])
    baselines = sections(truth, archive, bundle)["baselines"]
    archive.close()
    assert baselines["null_brain"] is None
    won = {name: baseline["identification_2way"]["value"] for name, baseline in baselines.items() if baseline}
    # Less a mean clip of one colour nothing is left of one colour. The layout tells left from right: four of
    # seven others, and not the three whose contrast alone differs.
    assert won["own_colour"] == won["own_layout"] == won["told_colour"] == 0
    assert won["told_layout"] == pytest.approx(4 / 7)


def test_each_confidence_is_held_against_the_clip_it_was_said_of(bundle: Bundle, tmp_path: Path) -> None:
    truth = truth_of(tmp_path, [f"{4 * k}\t4\tshot" for k in range(24)], bundle)
    archive = Archive(tmp_path / "kept")
    true = films(24)
    for k in range(24):
        good = k < 16
        frames = true[k] if good else 255 - true[k]
        archive.add(window(k), Clip(frames, LATENT, None, 0, 0.9 if good else 0.2), true[k])
    confidence = sections(truth, archive, bundle)["confidence"]
    archive.close()
    assert confidence["reliability"]["bins"] == [
        {"confidence": pytest.approx(0.2), "win_rate": 0.0, "n": 8},
        {"confidence": pytest.approx(0.9), "win_rate": 1.0, "n": 16},
    ]
    assert confidence["reliability"]["ece"] == pytest.approx((16 * 0.1 + 8 * 0.2) / 24)
    # The surest two thirds win: nothing is lost until the others are kept too.
    assert confidence["risk_coverage"]["risk"][15] == 0
    assert confidence["risk_coverage"]["risk"][-1] == pytest.approx(8 / 24)


def test_a_confidence_is_held_against_the_share_of_2_way_comparisons(bundle: Bundle, tmp_path: Path) -> None:
    truth = truth_of(tmp_path, [f"{4 * k}\t4\tshot" for k in range(24)], bundle)
    archive = Archive(tmp_path / "kept")
    true = films(24)
    for k in range(24):
        # Every clip is that of the next window: it loses against one of the 23 others alone.
        archive.add(window(k), Clip(true[(k + 1) % 24], LATENT, None, 0, 0.9), true[k])
    confidence = sections(truth, archive, bundle)["confidence"]
    archive.close()
    (only,) = confidence["reliability"]["bins"]
    assert only["win_rate"] == pytest.approx(np.mean(_wins_of(true)))


def _wins_of(true: np.ndarray) -> list[float]:
    """Share of the other truths that a window's own truth beats, by correlation with the clip of the next."""
    flat = true.reshape(len(true), -1).astype(np.float64) - 128
    near = np.corrcoef(flat)
    similarity = np.roll(near, -1, axis=0)
    return [
        float(np.mean([row[k] > other for n, other in enumerate(row) if n != k]))
        for k, row in enumerate(similarity)
    ]


@pytest.mark.parametrize("sure", [19, 20])
def test_curves_are_of_twenty_clips_or_more_that_have_a_confidence(
    sure: int, bundle: Bundle, tmp_path: Path
) -> None:
    truth = truth_of(tmp_path, [f"{4 * k}\t4\tshot" for k in range(sure + 3)], bundle)
    archive = Archive(tmp_path / "kept")
    for k, true in enumerate(films(sure + 3)):
        archive.add(window(k), Clip(true, LATENT, None, 0, 0.9 if k >= 3 else None), true)
    confidence = sections(truth, archive, bundle)["confidence"]
    archive.close()
    assert (confidence and confidence["reliability"]["n"]) == (20 if sure == 20 else None)


def test_two_clips_can_be_told_apart_and_one_cannot(bundle: Bundle, tmp_path: Path) -> None:
    truth = truth_of(tmp_path, ["0\t4\tshot", "4\t4\tshot"], bundle)
    archive = Archive(tmp_path / "kept")
    for k, true in enumerate(films(2)):
        assert sections(truth, archive, bundle)["accuracy"]["identification_2way"] is None
        archive.add(window(k), Clip(true, LATENT, None, 0), true)
    identification = sections(truth, archive, bundle)["accuracy"]["identification_2way"]
    archive.close()
    assert (identification["value"], identification["n"]) == (1, 2)


def test_categories_are_judged_where_the_pictures_were(tmp_path: Path) -> None:
    """The table's onsets lag the pictures by 4 s, as the bundle's provenance says."""
    labelled = make_bundle(tmp_path / "bundle", eeg=False, labels=LABELS)
    lagging = replace(labelled, manifest=replace(labelled.manifest, provenance={"onset_correction_s": 4.0}))
    categories = ["face", "face", "house", "house", "chair", "chair"]
    rows = ["4\t8\tface", "12\t8\thouse", "20\t8\tchair"]
    archive = Archive(tmp_path / "kept")
    for k, name in enumerate(categories):
        scores = dict.fromkeys(LABELS, 0.2) | {name: 0.6}
        archive.add(window(k), Clip(films(1)[0], LATENT, scores, 0), None)
    corrected, plain = (
        sections(truth_of(tmp_path, rows, variant), archive, variant)["accuracy"]["classification_top1"]
        for variant in (lagging, labelled)
    )
    archive.close()
    truth = truth_of(tmp_path, rows, lagging)
    assert [truth.category(window(k)) for k in range(6)] == categories
    assert (corrected["value"], corrected["n"]) == (1, 6)
    assert (plain["value"], plain["n"]) == (pytest.approx(3 / 5), 5)
