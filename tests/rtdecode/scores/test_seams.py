import numpy as np
import pytest

from rtdecode.scores.seams import seam_ratio


def film(count: int, seed: int = 0, step: float = 3.0) -> np.ndarray:
    """A film that changes evenly: each frame is `step` grey levels from the one before it."""
    rng = np.random.default_rng(seed)
    signs = rng.choice([-1.0, 1.0], (8 * count + 1, 4, 6, 3))
    return 128 + step * np.cumsum(signs, axis=0)


def cut(frames: np.ndarray, count: int) -> list[np.ndarray]:
    return [frames[8 * k : 8 * k + 9] for k in range(count)]


WINDOWS = [(0, 4.0 * k, 4.0 * k + 4) for k in range(5)]


def test_a_film_joins_with_itself() -> None:
    clips = cut(film(5), 5)
    ratios = seam_ratio(clips, [clip[:-1] for clip in clips], WINDOWS, {})
    assert ratios is not None
    assert ratios["reconstruction"] == 0
    assert ratios["truth"] == pytest.approx(1)
    assert ratios["shown"] == pytest.approx(1)
    assert ratios["n"] == ratios["n_all"] == 4


@pytest.mark.parametrize(("jump_at", "steepest"), [(1, 8.0), (5, 0.0)])
def test_a_jump_right_after_the_seam_is_told(jump_at: int, steepest: float) -> None:
    still, later = np.zeros((2, 9, 4, 6, 3))
    later[jump_at:] = 40
    truths = [clip[:-1] for clip in cut(film(2), 2)]
    ratios = seam_ratio([still, later], truths, WINDOWS[:2], {})
    assert ratios is not None
    assert ratios["reconstruction"] == 0
    assert ratios["steepest"] == steepest
    assert ratios["steepest_truth"] == pytest.approx(1)


def test_clips_that_know_nothing_of_each_other_have_a_seam() -> None:
    clips = [film(1, seed) + 40 * seed for seed in range(5)]
    truths = [clip[:-1] for clip in cut(film(5), 5)]
    ratios = seam_ratio(clips, truths, WINDOWS, {})
    assert ratios is not None
    assert ratios["reconstruction"] > 8
    assert ratios["ci95"] is None
    assert ratios["interval"]["reason"].startswith("single windows are no units")
    assert ratios["truth"] == pytest.approx(1)


def test_the_interval_is_over_blocks_of_pairs() -> None:
    count = 45
    clips = [film(1, seed) + 40 * seed for seed in range(count)]
    truths = [clip[:-1] for clip in cut(film(count), count)]
    windows = [(0, 4.0 * k, 4.0 * k + 4) for k in range(count)]
    ratios = seam_ratio(clips, truths, windows, {})
    assert ratios is not None
    # Of 44 pairs, in four blocks.
    assert ratios["interval"]["units"] == 4
    assert ratios["interval"]["method"] == "t"
    assert len(ratios["interval"]["values"]) == 4
    assert ratios["ci95"][0] < ratios["reconstruction"] < ratios["ci95"][1]


def test_only_pairs_that_the_film_does_not_cut_are_counted() -> None:
    frames = film(5)
    frames[8 * 2 :] += 100  # a cut at 8 s
    clips = cut(frames, 5)
    truths = [clip[:-1] for clip in clips]
    ratios = seam_ratio(clips, truths, WINDOWS, {0: [0.0, 8.0]})
    assert ratios is not None
    assert (ratios["n"], ratios["n_all"]) == (3, 4)
    assert ratios["truth"] == pytest.approx(1)
    assert ratios["truth_all"] > 5
    assert ratios["n_same_shot"] == 3
    # What goes on after 8 s has filled the second half of the window before only if it began by 6 s.
    for cut_at, n in ((6.0, 3), (6.5, 2)):
        halves = seam_ratio(clips, truths, WINDOWS, {0: [cut_at, 0.0]})
        assert halves is not None
        assert (halves["n"], halves["n_same_shot"]) == (3, n)
    # The same in another order.
    order = [3, 1, 4, 0, 2]
    again = seam_ratio(*([part[i] for i in order] for part in (clips, truths, WINDOWS)), {0: [8.0]})
    assert again is not None
    assert again.pop("interval") == ratios.pop("interval")
    assert again == pytest.approx(ratios)
    # A cut inside the later window counts as well, one at its end does not.
    cut_within = seam_ratio(clips, truths, WINDOWS, {0: [10.0, 20.0]})
    assert cut_within is not None
    assert cut_within["n"] == 3


def test_without_a_pair_or_where_every_one_is_cut_nothing_is_known() -> None:
    clips = cut(film(5), 5)
    truths = [clip[:-1] for clip in clips]
    assert seam_ratio(clips[::2], truths[::2], WINDOWS[::2], {}) is None
    assert seam_ratio(truths, truths, WINDOWS, {}) is None
    runs = [(k, 0.0, 4.0) for k in range(5)]
    assert seam_ratio(clips, truths, runs, {}) is None
    ratios = seam_ratio(clips, truths, WINDOWS, {0: [0.0, 4.0, 8.0, 12.0, 16.0]})
    assert ratios is not None
    assert (ratios["n"], ratios["truth"], ratios["reconstruction"]) == (0, None, None)
    assert ratios["ci95"] is None
    assert ratios["n_all"] == 4
