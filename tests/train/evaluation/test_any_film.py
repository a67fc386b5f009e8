"""A decoder is judged on films that it was not made for."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rtdecode.disk.video import write_mp4
from rtdecode.errors import UsageError
from rtdecode.phantom.film.film import Film
from tests.refusals import refused
from tests.train.tiny import tiny
from train.config.recipe import numbers
from train.config.run_files import read_run
from train.evaluate import Request, evaluate, judged
from train.evaluation.any_film import next_sessions
from train.evaluation.beside import FLOORS
from train.evaluation.film_scores import CHANCE, TEMPORAL, FilmWindows, describe, told_apart
from train.evaluation.page import page

CONTROLS = ("_rest", "_other_film", "_other_subject", "_null")


@pytest.mark.full
def test_a_run_is_judged_on_films_beside_controls_and_references(tmp_path: Path) -> None:
    path = tmp_path / "dancing.mp4"
    write_mp4(path, Film(24, seed=1200, cuts="free").frames, 8)
    request = Request(film=f"{path},shapes", seeds="1000-1001", seconds=24, oracle="900-901")
    figures = evaluate(tiny("ridge"), request)
    # Six windows of a film from a file, averaged over sessions; twice six of a film for each session.
    assert figures["identification_2way_centred"]["n"] == 6
    assert figures["shapes/identification_2way_centred"]["n"] == 12
    # Few windows have enough distractors or a cut, and no signal changes a clip of the true colour.
    unscored_endings = ("10way_centred", "50way_centred", "told_colour", "order")
    metrics = {name for name in CHANCE if not name.endswith(unscored_endings) and "_cuts_" not in name}
    for suffix in ("", "_oracle", *CONTROLS):
        assert metrics <= {name.removesuffix(suffix) for name in figures if name.endswith(suffix)}
    for name, figure in figures.items():
        assert {"value", "chance", "shuffled", "constant", "ci95", "interval", "n"} == figure.keys() - {
            "reason"
        }
        assert (figure["value"] is None) == ("reason" in figure), name
        assert (figure["ci95"] is None) == (figure["interval"]["reason"] is not None), name
        if figure["ci95"] is not None:
            low, high = figure["ci95"]
            assert low - 1e-9 <= figure["value"] <= high + 1e-9, name
    # No window has 49 distractors, and that is said.
    assert figures["identification_50way_centred"]["value"] is None
    assert figures["identification_50way_centred"]["reason"] == (
        "0 of 6 windows can be scored, and 3 are needed"
    )
    # The decoder is compared with what stands beside it, window by window.
    for metric in metrics - {"bits_per_window"}:
        for reference in ("oracle", "nearest"):
            above = figures[f"{metric}_above_{reference}"]
            pair = figures[metric]["value"] - figures[f"{metric}_{reference}"]["value"]
            assert above["value"] == pytest.approx(pair), metric
            assert above["chance"] == 0
    assert not any("above" in name and name.endswith(CONTROLS) for name in figures)
    # Clips that know colours alone are held against the film as well, and the decoder against them.
    for floor in FLOORS:
        centred = f"identification_2way_centred{floor}"
        assert figures[centred]["n"] == 6
        pair = figures["identification_2way_centred"]["value"] - figures[centred]["value"]
        assert figures[f"identification_2way_centred_above{floor}"]["value"] == pytest.approx(pair)
        assert f"psnr{floor}" not in figures or floor == "_told_colour"
    assert figures[f"{TEMPORAL}_reversed"]["chance"] == 0.5
    # What is known of the simulation identifies every window, more than any decoder does.
    assert figures["identification_2way_centred_ceiling"]["value"] > 0.95
    assert figures["shapes/identification_2way_centred_ceiling"]["value"] > 0.95
    # A clip that is always the same.
    assert figures["identification_2way_matched"]["constant"] == 0.5
    assert figures["layout_luminance"]["constant"] == 0
    assert figures["bits_per_window"]["constant"] == pytest.approx(0, abs=1e-9)


@pytest.mark.full
def test_the_ridge_beside_a_run_had_the_sessions_of_the_run() -> None:
    run = tiny("ridge")
    request = Request(film="shapes,natural", seeds="1000-1001", seconds=24)
    page_of_run = judged(run, request)
    arguments = read_run(run)["arguments"]["data"]
    minutes = len(numbers(arguments["sessions"])) * arguments["seconds"] / 60
    for name in ("films", "natural/films"):
        assert page_of_run.tables[name][0]["minutes of the ridge"] == pytest.approx(minutes, abs=0.1)
    assert page_of_run.figures["identification_2way_centred_oracle"]["n"] == 12
    # The page says whether the clips are pictures, and whether they move as the film does.
    assert {"picture", "video"} <= page_of_run.tables["words"][0].keys()


@pytest.mark.full
def test_the_mean_of_repeats_is_one_trial_by_name(tmp_path: Path) -> None:
    path = tmp_path / "dancing.mp4"
    write_mp4(path, Film(24, seed=1200, cuts="free").frames, 8)
    request = Request(film=str(path), seeds="1000-1003", seconds=24, oracle=None, presets="hard")
    single = judged(tiny("ridge"), request)
    averaged = judged(tiny("ridge"), replace(request, repeats="averaged"))
    assert single.tables["films"][0]["signals"] == "single trials"
    assert averaged.tables["films"][0]["signals"] == "mean of 4 repeats"
    assert averaged.tables["films"][0]["sessions"] == 1
    (n,) = {evaluation.figures["psnr"]["n"] for evaluation in (single, averaged)}
    assert n == 6
    # Noise of four sessions is halved by their mean, and brings the clips nearer to the film.
    assert averaged.figures["psnr"]["value"] > single.figures["psnr"]["value"]
    assert "mean of 4 repeats" in averaged.examples[0].words
    assert "averaged before they were decoded, of dancing (mean of 4 repeats)" in page(averaged)
    assert "no repetitions were averaged" in page(single)


def test_each_film_is_held_against_the_brains_of_the_next_sessions() -> None:
    assert next_sessions(3, [6] * 5) == [(4, 0), (0, 0), (1, 0)]
    films = [described(seed) for seed in range(5)]
    scores = []
    for number, film in enumerate(films):
        for session, _ in next_sessions(number, [len(session_film.clips) for session_film in films]):
            clips = films[session].clips
            scores.append(told_apart(clips, film, np.zeros_like(clips[0]), 0.05))
    # They see other films perfectly, which tells nothing of this one.
    two = np.concatenate([session_scores["identification_2way_centred"][0] for session_scores in scores])
    assert 0.4 < np.nanmean(two) < 0.6


def described(seed: int) -> FilmWindows:
    film = Film(40, seed, "free")
    return describe(film, [(seed, 4.0 * k, 4.0 * k + 4) for k in range(film.windows)])


def test_what_cannot_be_judged_is_refused_before_anything_is_judged() -> None:
    with refused(UsageError, "film-needs-simulated-participant", film="film.mp4"):
        evaluate(tiny("haxby"), Request(film="film.mp4"))
    with refused(UsageError, "judging-seeds-reserved", seeds=[3]):
        evaluate(tiny("ridge"), Request(film="shapes", seeds="3"))
    with refused(UsageError, "judge-film-none"):
        evaluate(tiny("ridge"), Request(film="shapes,none"))
    with refused(UsageError, "film-unknown", film="missing.mp4"):
        evaluate(tiny("ridge"), Request(film="shapes,missing.mp4"))
    with refused(UsageError, "judge-averaging-unsupported", film="shapes", seeds="1000-1001"):
        evaluate(tiny("ridge"), Request(film="shapes", repeats="averaged"))
    with refused(UsageError, "evaluate-key-unread", unread=["repeats"]):
        evaluate(tiny("ridge"), Request(seeds="1000", seconds=24, repeats="averaged"))
    with refused(UsageError, "oracle-seeds-not-training", seeds=[1000]):
        evaluate(tiny("ridge"), Request(film="shapes", oracle="1000"))
