import numpy as np

from rtdecode.scores.accuracy import correlations, identification
from streaming.page.running_score import RunningIdentification

MEAN = np.full((33, 24, 40, 3), 100.0)


def film(seed: int, frames: int = 32) -> np.ndarray:
    """A clip with something coarse in it and something fine."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(60, 140, (frames // 8, 3, 5, 3)).repeat(8, 0).repeat(8, 1).repeat(8, 2)
    return np.clip(coarse + rng.normal(0, 30, coarse.shape), 0, 255).astype(np.uint8)


def words(clips: list[np.ndarray], truths: list[np.ndarray]) -> str:
    so_far = RunningIdentification(MEAN)
    text = ""
    for index, (clip, truth) in enumerate(zip(clips, truths, strict=True)):
        so_far.add((0, 4.0 * index, 4.0 * index + 4), clip, truth)
        text = so_far.words({})
    return text


def test_one_clip_alone_is_not_identified() -> None:
    assert words([film(0)], [film(0)]) == ""


def test_right_clips_win_and_clips_that_show_nothing_lose() -> None:
    truths = [film(seed) for seed in range(6)]
    assert words(truths, truths).startswith("2-way 1.00, chance 0.5, 6 clips")
    mean = [MEAN.astype(np.uint8)] * 6
    assert words(mean, truths).startswith("2-way 0.00, chance")
    # There is an interval once four blocks are there.
    many = [film(seed) for seed in range(40)]
    assert words(many, many).startswith("2-way 1.00 (1.00 to 1.00, 4 units: 1.00,")


def test_the_figure_is_near_that_of_the_report() -> None:
    rng = np.random.default_rng(1)
    truths = [film(seed) for seed in range(40)]
    clips = [np.clip(truth + rng.normal(0, 40, truth.shape), 0, 255) for truth in truths]
    # Half of them show something else.
    clips[::2] = [film(seed + 100).astype(np.float64) for seed in range(20)]
    clips = [clip.astype(np.uint8) for clip in clips]
    spans = [(0, 4.0 * index, 4.0 * index + 4) for index in range(40)]
    entry = identification(correlations(clips, truths, MEAN), spans, {})["identification_2way"]
    assert entry is not None
    assert 0.6 < entry["value"] < 0.9
    score = float(words(clips, truths).split()[1])
    assert abs(score - entry["value"]) < 0.06


def test_in_a_long_session_only_the_newest_clips_count() -> None:
    so_far = RunningIdentification(MEAN)
    mean = MEAN.astype(np.uint8)
    for index in range(330):
        truth = film(index)
        # The first thirty clips show nothing, and all others what was shown.
        so_far.add((0, 4.0 * index, 4.0 * index + 4), mean if index < 30 else truth, truth)
    text = so_far.words({})
    assert text.startswith("2-way 1.00")
    assert "the newest 300 clips" in text


def test_a_clip_may_be_longer_than_its_truth() -> None:
    clips = [np.concatenate([film(seed), film(9)[:1]]) for seed in range(3)]
    assert words(clips, [film(seed) for seed in range(3)]).startswith("2-way 1.00")
