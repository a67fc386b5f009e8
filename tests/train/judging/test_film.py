"""Judging a decoder that draws film: every figure, on a closed-form decoder in its place."""

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rtdecode.disk import clip_file
from rtdecode.disk.clip_file import keep
from rtdecode.errors import UsageError
from rtdecode.phantom.film.film import ATTRIBUTES, Film
from rtdecode.scores.events import Event
from rtdecode.scores.reliability import reliability
from tests.refusals import refused
from tests.train.shows import ridge
from tests.train.tiny import tiny
from train.data.phantom import film_clips, participant
from train.evaluate import claim, show_tables, write
from train.judging.film import STEPS, Route, confidence_rows, judge, judge_preset, routes_figures
from train.judging.identification import Fresh, fresh
from train.judging.judged import Judged
from train.judging.pictures import contact_sheet
from train.metrics import attributes
from train.metrics.pixels import gradient_energy, nearest
from train.reconstruct import Reconstruction
from train.run_folder import arrays, draft_of

SECONDS = 24.0


@cache
def run() -> tuple[Any, Any]:
    held = draft_of(tiny("ridge"))
    provenance = held.manifest.provenance | {"sessions": [0], "seconds": 40.0}
    held = replace(held, manifest=replace(held.manifest, steps=4, provenance=provenance))
    return ridge(arrays(tiny("ridge"), "weights")), held


@cache
def found() -> Judged:
    return judge(*run(), participant("easy", 1), [1000], SECONDS, free_seed=1011)


def test_every_figure_has_its_parts() -> None:
    figures = found().figures
    for name, figure in figures.items():
        assert {"value", "chance", "shuffled", "constant", "ci95", "interval", "n"} <= set(figure), name
        # So short a session has no units, and says so.
        assert (figure["ci95"] is None) == (figure["interval"]["reason"] is not None), name
    for suffix in ("", "_eeg", "_fmri", "_null", "_nearest", "_background"):
        assert figures[f"identification_2way{suffix}"]["chance"] == 0.5
    for name, values in ATTRIBUTES.items():
        figure = figures[f"attribute_{name}"]
        assert figure["chance"] == 1 / len(values)
        assert figure["reader"] == 1
    json.dumps(found().figures, allow_nan=False)
    json.dumps(found().tables, allow_nan=False)


def test_the_paired_figures_are_differences_of_the_others() -> None:
    value = {name: figure["value"] for name, figure in found().figures.items()}
    above = value["identification_2way"] - value["identification_2way_background"]
    assert value["identification_2way_above_background"] == pytest.approx(above)
    assert value["psnr_mean_clip"] < value["psnr_background"] < 100
    assert value["psnr_above_mean_clip"] == pytest.approx(value["psnr"] - value["psnr_mean_clip"])
    better = max(value["identification_2way_eeg"], value["identification_2way_fmri"])
    assert value["fusion_gain_2way"] == pytest.approx(value["identification_2way"] - better)
    carry = value["identification_2way_free"] - value["identification_2way_free_without_carry"]
    assert value["carry_gain_2way"] == pytest.approx(carry)


def test_a_twin_without_a_signal_is_the_mean_clip_here() -> None:
    figures = found().figures
    assert figures["psnr_null"]["value"] == pytest.approx(figures["psnr_mean_clip"]["value"], abs=0.05)
    assert figures["psnr"]["value"] != pytest.approx(figures["psnr_null"]["value"], abs=0.05)
    assert abs(figures["identification_2way_null"]["value"] - 0.5) < 0.3


def test_there_is_a_row_for_each_number_of_steps() -> None:
    rows = found().tables["steps"]
    assert [row["steps"] for row in rows] == list(STEPS)
    assert rows[2]["psnr"] == pytest.approx(found().figures["psnr"]["value"])
    assert rows[2]["texture"] == found().figures["attribute_texture"]["value"]
    sharp = [row["sharpness"] for row in rows]
    assert 0 < sharp[0] < sharp[1] < sharp[2] < sharp[3] < 1


def test_clips_that_begin_where_the_last_one_ended_have_no_seam() -> None:
    rows = {(row["carry"], row["pairs"]): row for row in found().tables["seam"]}
    assert rows[True, "all"]["n"] == rows[False, "all"]["n"] == SECONDS / 4 - 1
    assert rows[True, "no cut"]["n"] >= 1
    assert rows[True, "no cut"]["reconstruction"] == 0
    assert rows[False, "no cut"]["reconstruction"] > 0.5
    assert found().figures["seam_ratio"]["value"] == 0
    assert found().figures["seam_ratio_without_carry"]["truth"] == rows[False, "no cut"]["truth"] > 0


def test_confidence_is_held_against_wins_by_every_route() -> None:
    rows = found().tables["confidence"]
    assert [row["route"] for row in rows] == ["both", "eeg", "fmri"]
    curves = found().tables["curves"]
    assert rows[0]["wins"] == pytest.approx(found().figures["identification_2way"]["value"])
    assert rows[0]["calibration_error"] == curves["both"]["reliability"]["ece"] > 0
    assert rows[0]["risk_of_all"] == pytest.approx(1 - rows[0]["wins"])


def test_pictures_and_figures_are_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    claim(tmp_path / "new")
    write(tmp_path / "new", found())
    told = json.loads((tmp_path / "new" / "figures.json").read_text())
    assert told["figures"].keys() == found().figures.keys()
    assert {path.name for path in (tmp_path / "new").glob("*.png")} == {
        "sheet.png",
        "steps.png",
        "reliability.png",
    }
    sheet = found().pictures["sheet.png"]
    assert sheet.width > 5 * 3 * 96
    show_tables(found().tables)
    assert "calibration_error" in capsys.readouterr().out
    with refused(UsageError, "output-folder-not-empty", folder=tmp_path / "new"):
        claim(tmp_path / "new")


# That clips in a file are compared as those in memory is tried in `tests/rtdecode/disk/test_clip_file.py`.
@pytest.mark.full
def test_clips_in_a_file_are_judged_as_those_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    show, held = run()
    before = found()
    monkeypatch.setattr(clip_file, "IN_MEMORY", 0)

    def kept(*given: Any, **how: Any) -> Reconstruction:
        made = show(*given, **how)
        return replace(made, clips=keep(made.clips))

    again = judge(kept, held, participant("easy", 1), [1000], SECONDS, free_seed=1011)
    assert again.figures == before.figures
    assert again.tables["seam"] == before.tables["seam"]
    assert [row["sharpness"] for row in again.tables["steps"]] == [
        row["sharpness"] for row in before.tables["steps"]
    ]
    assert again.pictures["sheet.png"].tobytes() == before.pictures["sheet.png"].tobytes()


def test_a_sheet_of_large_clips_has_small_pictures() -> None:
    clip = np.zeros((3, 480, 720, 3), np.uint8)
    clip[2, :, 360:] = 200
    sheet = contact_sheet({"film": [clip] * 4}, [0, 2], "large")
    assert sheet.size == (2 * 240, 44 + 4 * (160 + 6) - 6)
    column = np.asarray(sheet)[44 : 44 + 160]
    assert (column[:, :350] == 0).all()
    assert (column[:, 370:] == 200).all()


def test_a_further_preset_is_judged_sparingly() -> None:
    harder = judge_preset(*run(), participant("hard", 1), [1000], SECONDS)
    assert {"identification_2way", "fusion_gain_2way", "psnr_above_mean_clip"} <= set(harder.figures)
    assert not any(name.startswith("attribute") for name in harder.figures)
    assert harder.figures["psnr"]["value"] < found().figures["psnr"]["value"]


def test_training_seeds_cannot_judge() -> None:
    with refused(UsageError, "judging-seeds-reserved", seeds=[1000, 7]):
        fresh(run()[1], participant("easy", 1), [1000, 7], 8.0)


def route(scores: list[float], confidence: list[float] | None = None) -> Route:
    blank = np.zeros((0, 33, 64, 96, 3), np.uint8)
    sure = None if confidence is None else np.array(confidence)
    made = Reconstruction(blank, np.zeros((0,), np.float32), sure)
    return Route(made, {}, {"2way": np.array(scores), "50way": np.full(len(scores), np.nan)}, 0.0)


def test_fusion_gains_over_the_better_modality() -> None:
    routes = {"": route([1, 0.9, 1, 1]), "_eeg": route([0.5, 0.9, 0.9, 0.9]), "_fmri": route([1, 0.6, 1, 1])}
    where = [(0, 4.0 * k, 4.0 * k + 4) for k in range(4)]
    figures = routes_figures(routes, where)
    assert figures["fusion_gain_2way"]["value"] == pytest.approx(0.075)
    assert figures["fusion_gain_2way"]["over"] == "fmri"
    # No window has 49 others: the figure is there, and says so.
    assert figures["fusion_gain_50way"]["value"] is None
    assert "others enough" in figures["fusion_gain_50way"]["reason"]


def test_intervals_are_over_sessions_where_there_are_enough_of_them() -> None:
    # Five windows of each session are alike: there are six numbers, not thirty.
    values = [0.2, 0.9, 0.4, 0.8, 0.6, 0.7]
    by_session = np.repeat(values, 5).tolist()
    even = [0.5] * 30
    routes = {"": route(by_session), "_eeg": route(even), "_fmri": route(even)}
    of_sessions = [(n // 5, 4.0 * n, 4.0 * n + 4) for n in range(30)]
    together = [(0, 4.0 * n, 4.0 * n + 4) for n in range(30)]
    wide = routes_figures(routes, of_sessions)["fusion_gain_2way"]
    assert wide["interval"]["units"] == 6
    assert wide["interval"]["values"] == pytest.approx([value - 0.5 for value in values])
    # Three blocks of ten windows are too few; single windows stand in their place.
    narrow = routes_figures(routes, together)["fusion_gain_2way"]
    assert narrow["interval"]["units"] == 30
    assert np.ptp(wide["ci95"]) > 2 * np.ptp(narrow["ci95"])


def test_windows_without_a_score_do_not_count_for_the_confidence() -> None:
    scores = [1.0, np.nan, 0.5]
    sure = [0.9, 0.8, 0.6]
    rows, curves = confidence_rows({"": route(scores, sure), "_eeg": route(scores)})
    assert [row["route"] for row in rows] == ["both"]
    assert rows[0]["n"] == 2
    assert curves["both"]["reliability"] == reliability(np.array([0.9, 0.6]), np.array([1.0, 0.5]))


def test_attributes_are_held_against_the_film_and_its_shifts() -> None:
    film = Film(4 * 56, seed=1020)
    clips = film_clips(film)[:, :32]
    where = [(0, 4.0 * k, 4.0 * k + 4) for k in range(56)]
    known = {0: [Event(s.onset, s.duration, "shot", dict(s.attributes)) for s in film.shots]}
    read = [dict(shot.attributes) for shot in film.shots]
    assert attributes.readings(clips[:3]) == read[:3]
    half = [one if k % 2 else read[(k + 9) % 56] for k, one in enumerate(read)]
    figures = attributes.figures(half, read[1:] + read[:1], read, where, known)
    for name, values in ATTRIBUTES.items():
        figure = figures[f"attribute_{name}"]
        chance = 1 / len(values)
        assert figure["value"] == pytest.approx(0.5 + chance / 2, abs=0.15)
        assert figure["shuffled"] == pytest.approx(chance, abs=0.15)
        assert figure["constant"] == pytest.approx(chance, abs=0.2)
        assert figure["reader"] == 1


def test_the_nearest_clip_is_the_one_itself_however_faint() -> None:
    films = [film_clips(Film(40.0, seed)) for seed in (3, 4)]
    clips = np.concatenate(films)[:, :32]
    mean = np.rint(clips.mean(0)).astype(np.uint8)
    faint = np.rint(0.3 * clips[[2, 15]] + 0.7 * mean).astype(np.uint8)
    assert np.array_equal(nearest(faint, films, mean), clips[[2, 15]])


def test_blur_takes_gradient_energy() -> None:
    clip = film_clips(Film(8.0, 5))[:1]
    soft = ((clip[:, :, :, 1:].astype(int) + clip[:, :, :, :-1]) // 2).astype(np.uint8)
    assert gradient_energy(soft)[0] < gradient_energy(clip)[0]
    assert gradient_energy(np.full((1, 4, 8, 8, 3), 9, np.uint8))[0] == 0


def test_fresh_windows_of_a_free_film_know_their_shots() -> None:
    data = fresh(run()[1], participant("easy", 1), [1011], 16.0, "free")
    assert isinstance(data, Fresh)
    assert [clip.shape for clip in data.truths] == [(32, 64, 96, 3)] * 4
    assert [shot.onset_s % 4 for shot in data.known[1011]] != [0.0] * len(data.known[1011])
