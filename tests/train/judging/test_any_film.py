"""A decoder is judged on films that it was not made for."""

from pathlib import Path

import numpy as np
import pytest

from rtdecode.disk.video import write_mp4
from rtdecode.errors import UsageError
from rtdecode.phantom.film.film import Film
from rtdecode.scores.events import distractors
from tests.train.tiny import tiny
from train.evaluate import Request, evaluate
from train.judging.any_film import _in_pairs, _scores, matched

NAMES = ("identification_2way", "identification_10way", "identification_top1", "identification_2way_matched")


def clips(count: int, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    cells = rng.integers(0, 255, (count, 1, 8, 12, 3))
    return list(np.kron(cells, np.ones((4, 8, 8, 1))).astype(np.uint8).reshape(count, 4, 64, 96, 3))


def test_windows_are_paired_with_those_of_the_most_similar_layout() -> None:
    base = clips(4)
    near = [np.clip(clip.astype(int) + 3, 0, 255).astype(np.uint8) for clip in base]
    allowed = ~np.eye(8, dtype=bool)
    assert matched(base + near, allowed) == [(0, 4), (1, 5), (2, 6), (3, 7)]
    # A pair that shares a shot is not made.
    allowed[0, 4] = allowed[4, 0] = False
    pairs = matched(base + near, allowed)
    assert (0, 4) not in pairs
    assert len(pairs) == 4


def test_a_constant_clip_scores_half_in_pairs_and_the_truth_all() -> None:
    truths = clips(20)
    allowed = distractors([(0, 4.0 * k, 4.0 * k + 4) for k in range(20)], {})
    pairs = matched(truths, allowed)
    assert len(pairs) == 10
    mean = np.mean(truths, axis=0)
    constant = _scores([clips(1, 7)[0]] * 20, truths, mean, allowed, pairs)
    assert constant["identification_2way_matched"].mean() == 0.5
    assert not constant["identification_2way"].any()
    right = _scores(truths, truths, mean, allowed, pairs)
    assert all((right[name] == 1).all() for name in NAMES)


def test_a_pair_is_won_by_both_one_or_none_of_its_members() -> None:
    corr = np.array([[3.0, 1, 0], [2, 1, 0], [0, 0, 0]])
    found = _in_pairs(corr, [(0, 1)])
    assert found[:2].tolist() == [0.5, 0.5]
    assert np.isnan(found[2])


def test_a_run_is_judged_on_a_film_from_a_file_beside_its_controls(tmp_path: Path) -> None:
    path = tmp_path / "film.mp4"
    write_mp4(path, Film(48, seed=1200).frames, 8)
    figures = evaluate(tiny("ridge"), Request(film=str(path), seeds="1000-1001"))
    assert {name + suffix for name in NAMES for suffix in ("", "_eeg", "_fmri", "_rest", "_null")} == set(
        figures
    )
    assert all(figure["n"] == 12 for figure in figures.values())
    assert figures["identification_2way"]["value"] > 0.6
    # A brain at rest, and none at all, tell nothing of the film.
    for name in NAMES[:1] + NAMES[3:]:
        assert abs(figures[f"{name}_rest"]["value"] - 0.5) < 0.25
        assert abs(figures[f"{name}_null"]["value"] - 0.5) < 0.25 or name == "identification_2way"
    assert figures["identification_2way_matched"]["constant"] == 0.5


def test_a_film_for_a_run_of_recorded_data_is_refused() -> None:
    with pytest.raises(UsageError, match="is for runs trained on the simulated participant"):
        evaluate(tiny("haxby"), Request(film="film.mp4"))
    with pytest.raises(UsageError, match="seeds below 1000 are for training"):
        evaluate(tiny("ridge"), Request(film="film.mp4", seeds="3"))
