"""Scores of windows against a film: what the truth scores, and what a constant clip does."""

import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from rtdecode.disk import clip_file
from rtdecode.disk.clip_file import ClipFile, Pixels, StoredClip
from rtdecode.phantom.film.film import Film
from rtdecode.scores import accuracy, intervals
from rtdecode.scores.colours import layouts
from train.closed_form import patch_codec
from train.data.phantom import film_clips
from train.evaluation.beside import CONSTANT, TOLD_COLOURS
from train.evaluation.decoders import COLOURS_ALONE
from train.evaluation.film_figures import at_chance, difference, figure, figures, groups, words_of
from train.evaluation.film_scores import (
    CHANCE,
    TEMPORAL,
    FilmWindows,
    changes,
    describe,
    in_pairs,
    look_once,
    matched,
    near_duplicates,
    score,
    similarity,
)
from train.metrics.order import order
from train.metrics.quality import ssim
from train.run_recipe import table

NWAY = (
    "identification_2way_centred",
    "identification_10way_centred",
    "identification_top1_centred",
    "identification_2way_matched",
)


@cache
def film() -> Film:
    return Film(60, seed=3, cuts="free")


@cache
def film_truth() -> FilmWindows:
    where = [(0, 4.0 * k, 4.0 * k + 4) for k in range(film().windows)]
    return describe(film(), where, film_clips(film())[:, :-1])


def mean() -> np.ndarray:
    return np.mean(film_truth().clips, axis=0)


@cache
def true_scores() -> dict[str, float]:
    return scores(list(film_truth().clips))


def scores(clips: list[np.ndarray]) -> dict[str, float]:
    """Mean of each metric over the windows, under its weights."""
    means = {}
    for name, (values, weights) in score(clips, film_truth(), mean(), temperature=0.05).items():
        scored = np.isfinite(values) & (weights > 0)
        means[name] = float(np.average(values[scored], weights=weights[scored])) if scored.any() else np.nan
    return means


def clips(count: int, seed: int = 0) -> list[np.ndarray]:
    cells = np.random.default_rng(seed).integers(0, 255, (count, 1, 8, 12, 3))
    return list(np.kron(cells, np.ones((4, 8, 8, 1))).astype(np.uint8).reshape(count, 4, 64, 96, 3))


def test_the_truth_scores_all() -> None:
    true_means = true_scores()
    expected = dict.fromkeys(
        (*NWAY, "order", "layout_colour", "layout_luminance", "motion_energy", "ssim"), 1.0
    )
    expected |= {"sharpness": 1.0, "sharpness_codec": 1.0, "direction_error_deg": 0.0}
    for name, value in expected.items():
        assert true_means[name] == pytest.approx(value, abs=1e-3), name
    # At most the logarithm of the number of candidates, and as many cuts as can be found in the film itself.
    assert 2 < true_means["bits_per_window"] < np.log2(15)
    assert true_means["cut_f1"] > 0.8


def test_the_truth_through_a_codec_is_identified() -> None:
    true_clips = film_clips(film())
    codec = patch_codec.fit_codec(true_clips, 16)
    coded_clips = np.rint(255 * patch_codec.decode(codec, patch_codec.encode(codec, true_clips))).astype(
        np.uint8
    )
    means = scores(list(coded_clips))
    for name in (*NWAY, "order"):
        assert means[name] == pytest.approx(1, abs=0.01), name


@pytest.mark.parametrize("which", ["flat", "a window of the film", "another picture", "the mean"])
def test_a_clip_that_is_always_the_same_wins_nothing(which: str) -> None:
    clip = {
        "flat": np.full_like(film_truth().clips[0], 90),
        "a window of the film": np.asarray(film_truth().clips[4]),
        "another picture": np.repeat(clips(1, 7)[0], 8, axis=0),
        "the mean": mean(),
    }[which]
    means = scores([clip] * len(film_truth().clips))
    assert means["identification_2way_matched"] == 0.5
    assert means["order"] == 0.5
    for name in (
        "identification_2way_centred",
        "identification_top1_centred",
        "layout_colour",
        "layout_luminance",
        "motion_energy",
    ):
        assert means[name] == 0, name
    assert means["bits_per_window"] == pytest.approx(0, abs=1e-9)
    # The judge measures such a clip once.
    if which == "flat":
        count = len(film_truth().clips)
        again = score([clip] * count, film_truth(), clip, 0.05, look_once(clip, count))
        assert again.keys() == means.keys()
        assert np.nanmean(again["ssim"][0]) == pytest.approx(means["ssim"])


def test_what_changes_within_a_clip_is_judged_without_its_colours() -> None:
    """The truth in other colours wins; the truth that stands still, or runs backwards, does not."""
    other = clips(1, 3)[0].mean(axis=0)
    moved = [np.asarray(clip, np.float64) - clip.mean(axis=0) + other for clip in film_truth().clips]
    still = [np.broadcast_to(clip.mean(axis=0), clip.shape) for clip in film_truth().clips]
    backwards = [clip[::-1] for clip in film_truth().clips]
    assert true_scores()[TEMPORAL] == 1
    assert scores(moved)[TEMPORAL] == 1
    assert scores(still)[TEMPORAL] == 0
    assert scores(still)["identification_2way_centred"] > 0.9
    assert scores(backwards)[TEMPORAL] < 0.9


def test_colours_that_are_told_say_much_and_less_than_the_truth() -> None:
    colour_clips = (COLOURS_ALONE[suffix](film_truth().clips).clips for suffix in TOLD_COLOURS)
    flat, still = (scores([*clips])["identification_2way_centred"] for clips in colour_clips)
    assert 0.7 < flat < still < 1


def test_words_stand_for_what_the_figures_hold() -> None:
    def figure_from(low: float | None) -> dict[str, Any]:
        return {"ci95": None if low is None else [low, 1.0]}

    names = ("identification_2way_centred_above_decoded_colour", TEMPORAL, f"{TEMPORAL}_above_reversed")
    for lows, words in (
        ((0.01, 0.51, 0.01), (True, True)),
        ((0.0, 0.5, 0.01), (False, False)),
        ((0.01, 0.51, 0.0), (True, False)),
        ((None, 0.51, None), (None, None)),
    ):
        figures_of_film = dict(zip(names, map(figure_from, lows), strict=True))
        assert tuple(words_of(figures_of_film).values()) == words
    assert tuple(words_of({}).values()) == (None, None)


def test_a_control_is_at_chance_where_its_interval_is_narrow() -> None:
    assert at_chance({"ci95": [0.45, 0.55], "n": 300})
    assert not at_chance({"ci95": [0.45, 0.55], "n": 299})
    assert not at_chance({"ci95": [0.40, 0.60], "n": 300})
    assert not at_chance({"ci95": None, "n": 300})


def test_clips_of_other_windows_score_as_by_chance() -> None:
    other_films = [Film(60, seed=n, cuts="free") for n in (11, 12, 13)]
    film_means = [scores(list(film_clips(other))) for other in other_films]
    for name in ("identification_2way_centred", "identification_2way_matched", "order"):
        assert np.mean([means[name] for means in film_means]) == pytest.approx(0.5, abs=0.15), name
    assert np.mean([means["layout_luminance"] for means in film_means]) == pytest.approx(0, abs=0.15)


def test_strata_are_counted_by_cuts_inside_a_window() -> None:
    values = score(list(film_truth().clips), film_truth(), mean(), 0.05)
    counts = [np.isfinite(values[f"identification_2way_centred_cuts_{n}"][0]).sum() for n in (0, 1, 2)]
    frames = [cut % 32 for cut in film_truth().cuts]
    assert sum(counts) == len(film_truth().clips)
    assert sum(film_truth().within) == sum(frame > 0 for frame in frames)
    assert counts[0] == (film_truth().within == 0).sum()


def test_windows_are_paired_with_those_of_the_most_similar_layout() -> None:
    base = clips(4)
    near = [np.clip(clip.astype(int) + 3, 0, 255).astype(np.uint8) for clip in base]
    colours = layouts(base + near)
    allowed = ~np.eye(8, dtype=bool)
    assert matched(colours, allowed) == [(0, 4), (1, 5), (2, 6), (3, 7)]
    # A pair that shares a shot is not made.
    allowed[0, 4] = allowed[4, 0] = False
    pairs = matched(colours, allowed)
    assert (0, 4) not in pairs
    assert len(pairs) == 4
    # These pairs are near-duplicates, and no others are.
    duplicates = near_duplicates(base + near, colours)
    assert np.argwhere(np.triu(duplicates, 1)).tolist() == [[0, 4], [1, 5], [2, 6], [3, 7]]


def test_a_pair_is_won_by_both_one_or_none_of_its_members() -> None:
    corr = np.array([[3.0, 1, 0], [2, 1, 0], [0, 0, 0]])
    wins = in_pairs(corr, [(0, 1)])
    assert wins[:2].tolist() == [0.5, 0.5]
    assert np.isnan(wins[2])
    assert in_pairs(np.array([[3.0, 1], [0, 1]]), [(0, 1)]).tolist() == [1, 1]
    assert in_pairs(np.array([[1.0, 3], [1, 0]]), [(0, 1)]).tolist() == [0, 0]
    assert in_pairs(np.full((2, 2), np.nan), [(0, 1)]).tolist() == [0.5, 0.5]


def sharpness_scores(
    values: list[float], weights: list[float] | None = None
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    window_weights = np.ones(len(values)) if weights is None else np.array(weights)
    return {"sharpness": (np.array(values), window_weights)}


def test_a_window_of_a_fixed_film_is_averaged_over_sessions() -> None:
    count = len(film_truth().clips)
    sessions = [sharpness_scores([0.0] * count), sharpness_scores([1.0] * (count - 1) + [np.nan])]
    averaged = figures({"": sessions, CONSTANT: sessions}, [film_truth()] * 2, CHANCE, fixed=True)[
        "sharpness"
    ]
    assert averaged["n"] == count
    # The last window was scored in one session alone.
    assert averaged["value"] == pytest.approx(0.5 * (count - 1) / (count - 0.5))
    separate = figures({"": sessions, CONSTANT: sessions}, [film_truth()] * 2, CHANCE, fixed=False)[
        "sharpness"
    ]
    assert separate["n"] == 2 * count - 1


def test_intervals_resample_sessions_or_blocks() -> None:
    assert len(np.unique(groups([film_truth()] * 20, by_session=True)[0])) == 20
    assert len(np.unique(groups([film_truth()] * 4, by_session=True)[0])) == 4
    # A film of 60 s has two blocks of 30 s, and one of ten windows or more.
    assert len(np.unique(groups([film_truth()] * 20, by_session=False)[0])) == 40
    assert len(np.unique(groups([film_truth()] * 9, by_session=False)[0])) == 9
    # Three sessions, or three blocks, are too few to be units.
    assert len(np.unique(groups([film_truth()] * 3, by_session=True)[0])) == 3 * len(film_truth().clips)
    words = [groups([film_truth()] * count, by_session=count == 4)[1] for count in (4, 20, 9, 1)]
    assert words == ["sessions", "30 s blocks", "blocks of 10 windows or more", "windows"]


def test_a_figure_that_too_few_windows_have_is_null_with_its_reason() -> None:
    count = len(film_truth().clips)
    values = [1.0] * 4 + [np.nan] * (count - 4)
    short = {
        "order": sharpness_scores(values)["sharpness"],
        "psnr": sharpness_scores([20.0] * count)["sharpness"],
    }
    result = figures({"": [short], "_oracle": [short], CONSTANT: [short]}, [film_truth()], CHANCE, fixed=True)
    order = result["order"]
    assert (order["value"], order["ci95"], order["n"], order["chance"]) == (None, None, 4, 0.5)
    assert order["reason"] == f"4 of {count} windows can be scored, and 5 are needed"
    assert result["order_above_oracle"]["value"] is None
    assert result["psnr_above_oracle"]["value"] == 0
    assert "reason" not in result["psnr"]
    # The table has a row for it, and rounding leaves it as it is.
    assert table(result).row_count == len(result)
    assert intervals.rounded(order, 3) == order


def test_a_figure_is_the_mean_under_its_weights() -> None:
    sharpness = figure(np.array([1.0, 0, np.nan]), np.array([3.0, 1, 5]), 0.5, np.arange(3))
    assert sharpness is not None
    assert sharpness["value"] == 0.75
    assert sharpness["n"] == 2
    assert sharpness["ci95"] is None
    assert sharpness["interval"]["reason"] == "fewer than 4 units"
    assert figure(np.array([np.nan]), np.ones(1), 0.5, np.arange(1)) is None


def test_decoders_are_compared_window_by_window() -> None:
    rng = np.random.default_rng(0)
    hard = rng.normal(0, 10, 60)
    weights = np.ones(60)
    gain = difference((hard + 1, weights), (hard, weights), np.arange(60))
    # What windows differ by themselves is gone.
    assert gain is not None
    assert gain["value"] == pytest.approx(1)
    assert gain["ci95"] == pytest.approx([1, 1])
    assert gain["chance"] == 0
    # Windows that one of them lacks are left out on both sides.
    half_missing = np.where(np.arange(60) < 30, np.nan, 2.0)
    partly = difference((half_missing, weights), (np.arange(60) / 59, weights), np.arange(60))
    assert partly is not None
    assert partly["n"] == 30
    assert partly["value"] == pytest.approx(2 - np.arange(30, 60).mean() / 59)
    assert difference((np.full(60, np.nan), weights), (hard, weights), np.arange(60)) is None


def test_a_ratio_of_sums_is_compared_over_all_windows() -> None:
    first = (np.array([1.0, np.nan, 0.0]), np.array([2.0, 0, 2]))
    second = (np.array([1.0, 0.0, np.nan]), np.array([2.0, 1, 0]))
    gain = difference(first, second, np.arange(3), pooled=True)
    assert gain is not None
    assert gain["value"] == pytest.approx(2 / 4 - 2 / 3)
    assert gain["n"] == 3


def test_every_metric_has_its_chance() -> None:
    assert {*true_scores()} - {"identification_top1_centred"} <= CHANCE.keys()


def stored(pixels: Sequence[Pixels]) -> list[StoredClip]:
    file = ClipFile()
    return [file.add(np.asarray(clip)) for clip in pixels]


def faint() -> list[np.ndarray]:
    """The film, fainter and with grain."""
    rng = np.random.default_rng(5)
    return [np.asarray(clip) // 2 + rng.integers(0, 60, clip.shape, np.uint8) for clip in film_truth().clips]


def test_clips_in_files_have_the_scores_of_clips_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    in_memory = score(faint(), film_truth(), mean(), 0.05)
    # All that is pixels of them lies in files, too.
    monkeypatch.setattr(clip_file, "IN_MEMORY", 0)
    on_disk = replace(film_truth(), clips=list(stored(film_truth().clips)))
    on_disk_scores = score(stored(faint()), on_disk, mean(), 0.05)
    assert on_disk_scores.keys() == in_memory.keys()
    for name, pair in in_memory.items():
        np.testing.assert_array_equal(on_disk_scores[name], pair, err_msg=name)
    described = describe(film(), film_truth().where)
    assert all(isinstance(clip, StoredClip) for clip in described.clips)
    for expected, clip in zip(film_truth().clips, described.clips, strict=True):
        assert np.array_equal(np.asarray(clip), expected)
    assert np.array_equal(described.allowed, film_truth().allowed)
    for name, measured in vars(described.looks).items():
        assert np.array_equal(measured, getattr(film_truth().looks, name)), name


def test_clips_of_one_session_are_correlated_less_their_mean() -> None:
    """By in_memory arrays, which clips in files never are."""

    def expected(decoded: np.ndarray, film: np.ndarray) -> np.ndarray:
        centred = [side - side.mean(axis=0) for side in (decoded, film)]
        return np.corrcoef(*[session.reshape(len(session), -1) for session in centred])[
            : len(decoded), len(decoded) :
        ]

    # Several blocks to a frame, and several pieces.
    decoded, film = np.random.default_rng(4).integers(0, 256, (2, 4, 7, 160, 300, 3)).astype(np.float64)
    film += decoded
    decoded, film = (np.rint(side / 2).astype(np.uint8).astype(np.float64) for side in (decoded, film))
    sides = [stored(list(side.astype(np.uint8))) for side in (decoded, film)]
    np.testing.assert_allclose(similarity(*sides), expected(decoded, film), atol=1e-6)
    moving = similarity(changes(sides[0]), changes(sides[1]))
    parts = [side - side.mean(axis=1, keepdims=True) for side in (decoded, film)]
    np.testing.assert_allclose(moving, expected(*parts), atol=1e-6)


def peak(call: Callable[[], object]) -> int:
    """Bytes that a call takes at its highest."""
    tracemalloc.start()
    call()
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak_bytes


@pytest.mark.parametrize("part", ["similarity", "changes", "order", "near_duplicates", "ssim"])
def test_memory_does_not_grow_with_the_number_of_clips(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clip_file, "IN_MEMORY", 0)
    shape = (4, 300, 400, 3)

    def took(count: int) -> int:
        pixels = np.random.default_rng(count).integers(0, 256, (count, *shape), np.uint8)
        decoded = stored(list(pixels))
        truths = stored(list(pixels[::-1]))
        del pixels
        look: dict[str, Callable[[], object]] = {
            "similarity": lambda: similarity(decoded, truths),
            "changes": lambda: similarity(changes(decoded), changes(truths)),
            "order": lambda: order(decoded, truths, np.ones(count, bool)),
            "near_duplicates": lambda: near_duplicates(truths, np.zeros((count, 4, 6, 3))),
            "ssim": lambda: ssim(decoded, truths),
        }
        return peak(look[part])

    bytes_of_3 = took(3)
    # Some rows of every clip are held, of each side and once more while they are stacked.
    rows = accuracy.BLOCK * 8
    assert took(11) - bytes_of_3 < 8 * 6 * rows
