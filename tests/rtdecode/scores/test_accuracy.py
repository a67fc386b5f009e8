"""Identification and classification against brute force and against decoders whose score is known."""

import re
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtdecode.errors import UsageError
from rtdecode.scores import accuracy
from rtdecode.scores.accuracy import (
    METRICS,
    above,
    correlations,
    identification,
    identification_nway,
    identification_top1,
    psnr,
    report_accuracy,
    sessions_of,
    shift_orders,
)
from rtdecode.scores.events import Event, attribute, categories, distractors, non_overlapping, read_events
from rtdecode.scores.intervals import of_mean
from tests.refusals import refused

BACKGROUNDS = ("navy", "forest", "maroon", "sand", "sky")


def grid_windows(count: int, run: int = 0, hop: float = 4.0, window: float = 4.0) -> list[tuple]:
    return [(run, k * hop, k * hop + window) for k in range(count)]


def shots(count: int, seconds: float = 4.0) -> list[Event]:
    return [
        Event(k * seconds, seconds, "shot", {"background": BACKGROUNDS[k % len(BACKGROUNDS)]})
        for k in range(count)
    ]


def clips(count: int, seed: int = 0, frames: int = 3) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return list(rng.integers(0, 256, (count, frames, 4, 5, 3)).astype(np.uint8))


def test_correlations_are_pearsons_over_the_whole_clip_without_the_mean_clip() -> None:
    decoded = clips(4, 1)
    true = clips(4, 2)
    mean = np.random.default_rng(3).uniform(0, 255, decoded[0].shape)
    corr = correlations(decoded, true, mean)
    for i in range(4):
        for j in range(4):
            a = (decoded[i] - mean).ravel()
            b = (true[j] - mean).ravel()
            assert corr[i, j] == pytest.approx(np.corrcoef(a, b)[0, 1], abs=1e-12)


def test_the_instant_of_the_cut_is_left_out() -> None:
    decoded = clips(3, 1, frames=4)
    true = clips(3, 2, frames=3)
    mean = np.zeros((4, 4, 5, 3))
    assert np.array_equal(
        correlations(decoded, true, mean), correlations([c[:3] for c in decoded], true, mean)
    )


def test_the_mean_clip_correlates_with_nothing_and_loses() -> None:
    mean = clips(1)[0]
    corr = correlations([mean] * 3, clips(3, 2), mean)
    assert np.isnan(corr).all()
    everyone = ~np.eye(3, dtype=bool)
    assert identification_nway(corr, everyone, 2).sum() == 0
    assert identification_top1(corr, everyone).sum() == 0


@pytest.mark.parametrize(("variance", "is_known"), [(0.5e-9, False), (2e-9, True)])
def test_a_clip_that_hardly_differs_from_the_mean_clip_correlates_with_nothing(
    variance: float, is_known: bool
) -> None:
    true = clips(2, 4)
    mean = np.full(true[0].shape, 127.0)
    signs = np.resize([1.0, -1.0], mean.shape)
    corr = correlations([mean + np.sqrt(variance) * signs] * 2, true, mean)
    assert np.isfinite(corr).all() == is_known


def test_one_clip_for_every_window_is_at_chance() -> None:
    true = clips(12, 4)
    corr = correlations([clips(1, 5)[0]] * 12, true, np.full(true[0].shape, 128.0))
    assert identification_nway(corr, ~np.eye(12, dtype=bool), 2).mean() == pytest.approx(0.5)


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 7), st.integers(2, 5), st.integers(0, 1000))
def test_the_closed_form_is_the_mean_over_all_sets_of_distractors(count: int, n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    corr = rng.integers(0, 4, (count, count)).astype(float)  # few values: ties occur
    allowed = rng.random((count, count)) < 0.8
    np.fill_diagonal(allowed, False)
    scores = identification_nway(corr, allowed, n)
    for i in range(count):
        sets = list(combinations(np.flatnonzero(allowed[i]), n - 1))
        if not sets:
            assert np.isnan(scores[i])
            continue
        wins = [all(corr[i, i] > corr[i, j] for j in chosen) for chosen in sets]
        assert scores[i] == pytest.approx(np.mean(wins))


def test_one_distractor_is_enough_to_be_first_of() -> None:
    corr = np.array([[0.9, 0.1], [0.7, 0.3]])
    assert identification_top1(corr, ~np.eye(2, dtype=bool)).tolist() == [1, 0]
    assert np.isnan(identification_top1(corr, np.zeros((2, 2), bool))).all()


def test_distractors_share_neither_time_nor_shot() -> None:
    events = {0: [Event(0, 3, "shot"), Event(3, 6, "shot"), Event(9, 7, "shot")]}
    windows = [*grid_windows(4), (1, 0.0, 4.0), (0, 2.0, 6.0)]
    allowed = distractors(windows, events)
    assert not allowed[0, 0]
    assert not allowed[0, 1], "the second shot lies in both"
    assert allowed[0, 3]
    assert allowed[0, 4], "another run"
    assert not allowed[0, 5], "they overlap"
    assert np.array_equal(allowed, allowed.T)


def test_a_window_has_the_background_of_its_longest_shot() -> None:
    events = {
        0: [Event(0, 1.5, "shot", {"background": "navy"}), Event(1.5, 9, "shot", {"background": "sky"})]
    }
    assert attribute([(0, 0.0, 4.0), (0, 20.0, 24.0)], events, "background") == ["sky", None]


@pytest.mark.parametrize("counts", [(60,), (38, 38), (25, 60)])
def test_shifts_go_at_least_half_a_minute_around_within_a_run(counts: tuple[int, ...]) -> None:
    windows = [w for run, count in enumerate(counts) for w in grid_windows(count, run)]
    orders = shift_orders(windows)
    assert len({tuple(order) for order in orders}) >= accuracy.MIN_SHIFTS
    for order in orders:
        assert sorted(order) == list(range(len(windows)))
        for i, j in enumerate(order):
            (run, start, _), (other, moved, _) = windows[i], windows[j]
            assert run == other
            apart_s = abs(start - moved)
            assert min(apart_s, counts[run] * 4 - apart_s) >= 30


def test_the_shortest_shift_is_half_a_minute_where_windows_follow_each_other_by_the_second() -> None:
    windows = [(0, float(k), k + 4.0) for k in range(120)]
    shifts = {int(order[0]) for order in shift_orders(windows)}
    assert min(min(shift, 120 - shift) for shift in shifts) == 30


def test_the_first_and_the_last_shift_are_as_far_from_the_truth() -> None:
    orders = shift_orders(grid_windows(60))
    # 32 s one way and 32 s the other way round: eight windows.
    assert orders[0][0] == 60 - 8
    assert orders[-1][0] == 8


def test_shifts_are_the_same_wherever_a_run_begins() -> None:
    late = [(run, start + 600, stop + 600) for run, start, stop in grid_windows(60)]
    assert np.array_equal(shift_orders(late), shift_orders(grid_windows(60)))


def test_a_short_run_has_too_few_shifts() -> None:
    assert shift_orders(grid_windows(30)) == []
    assert shift_orders([]) == []


def test_a_perfect_decoder_and_its_control() -> None:
    true = clips(60, 6)
    report = report_accuracy(
        grid_windows(60), {0: shots(60)}, clips=true, truths=true, mean_clip=np.full(true[0].shape, 127.0)
    )
    assert set(report) == set(METRICS)
    for name, chance in (("2way", 0.5), ("2way_same_background", 0.5), ("50way", 0.02), ("top1", 1 / 60)):
        figure = report[f"identification_{name}"]
        assert figure is not None
        assert (figure["value"], figure["ci95"], figure["n"]) == (1, [1, 1], 60)
        assert figure["chance"] == pytest.approx(chance)
        assert figure["shuffled"] == pytest.approx(chance, abs=0.05)
    assert report["classification_top1"] is None


def test_figures_are_null_below_what_they_need() -> None:
    true = clips(49, 6)
    mean = np.full((3, 4, 5, 3), 127.0)
    report_of_49 = report_accuracy(grid_windows(49), {0: shots(49)}, clips=true, truths=true, mean_clip=mean)
    assert report_of_49["identification_50way"] is None
    assert report_of_49["identification_2way"] is not None
    assert report_of_49["identification_2way"]["shuffled"] is None
    report_of_1 = report_accuracy(
        grid_windows(1), {0: shots(1)}, clips=true[:1], truths=true[:1], mean_clip=mean
    )
    assert set(report_of_1.values()) == {None}
    assert set(report_accuracy([], {}).values()) == {None}


@pytest.mark.parametrize("absent", ["clips", "truths", "mean_clip"])
def test_without_clips_truths_and_the_mean_clip_nothing_is_identified(absent: str) -> None:
    true = clips(4, 6)
    needed = {"clips": true, "truths": true, "mean_clip": np.full(true[0].shape, 127.0)}
    report = report_accuracy(grid_windows(4), {0: shots(4)}, **(needed | {absent: None}))
    assert set(report.values()) == {None}


def test_of_overlapping_windows_the_first_count() -> None:
    windows = grid_windows(9, hop=2.0)
    assert non_overlapping(windows) == [0, 2, 4, 6, 8]
    assert non_overlapping(windows[::-1]) == [8, 6, 4, 2, 0]


def test_the_order_of_the_windows_does_not_matter() -> None:
    decoded = clips(60, 7)
    true = clips(60, 8)
    mean = np.full((3, 4, 5, 3), 127.0)
    windows = grid_windows(60)
    events = {0: shots(60)}
    order = np.random.default_rng(0).permutation(60)
    moved = report_accuracy(
        [windows[i] for i in order],
        events,
        clips=[decoded[i] for i in order],
        truths=[true[i] for i in order],
        mean_clip=mean,
    )
    assert moved == report_accuracy(windows, events, clips=decoded, truths=true, mean_clip=mean)


def test_reading_the_background_alone_gives_nine_of_ten() -> None:
    rng = np.random.default_rng(9)
    patterns = {name: rng.uniform(0, 255, (3, 4, 5, 3)) for name in BACKGROUNDS}
    names = rng.choice(BACKGROUNDS, 300)
    true = [patterns[n] + rng.normal(0, 12, (3, 4, 5, 3)) for n in names]
    decoded = [patterns[n] + rng.normal(0, 1, (3, 4, 5, 3)) for n in names]
    events = [Event(4.0 * k, 4, "shot", {"background": n}) for k, n in enumerate(names)]
    report = report_accuracy(
        grid_windows(300), {0: events}, clips=decoded, truths=true, mean_clip=np.mean(true, axis=0)
    )
    assert report["identification_2way"]["value"] == pytest.approx(0.9, abs=0.02)
    assert report["identification_2way_same_background"]["value"] == pytest.approx(0.5, abs=0.04)


def test_a_window_counts_when_it_lies_wholly_inside_a_corrected_block() -> None:
    events = {3: [Event(15.0, 22.5, "cat"), Event(52.5, 22.5, "shoe"), Event(90.0, 22.5, "plane")]}
    windows = grid_windows(28, run=3)
    truth, block = categories(windows, events, ["cat", "shoe"], onset_correction_s=4.0)
    in_block = {w: (int(t), int(b)) for w, t, b in zip(windows, truth, block, strict=True) if t >= 0}
    assert list(in_block) == [windows[k] for k in (3, 4, 5, 6, 7, 13, 14, 15, 16)]
    assert set(in_block.values()) == {(0, 0), (1, 1)}


def test_classification_is_strict_and_over_blocks() -> None:
    labels = ["cat", "shoe", "face", "chair"]
    rng = np.random.default_rng(1)
    events = {
        run: [Event(36.0 * b, 24.0, str(name)) for b, name in enumerate(rng.choice(labels, 8))]
        for run in (0, 1)
    }
    windows = [w for run in (0, 1) for w in grid_windows(72, run)]
    truth, _ = categories(windows, events, labels)
    scores = np.eye(4)[np.maximum(truth, 0)]
    report = report_accuracy(windows, events, scores=scores, labels=labels)
    figure = report["classification_top1"]
    assert (figure["value"], figure["chance"], figure["n"]) == (1, 0.25, 96)
    best = scores.argmax(1)
    moved = [(best[order] == truth)[truth >= 0].mean() for order in shift_orders(windows)]
    assert figure["shuffled"] == pytest.approx(np.mean(moved))
    assert figure["shuffled"] < 0.6
    misclassified = report_accuracy(windows, events, scores=np.roll(scores, 1, axis=1), labels=labels)
    assert misclassified["classification_top1"]["value"] == 0


def test_the_interval_of_a_classification_is_over_blocks() -> None:
    labels = ["cat", "shoe"]
    rng = np.random.default_rng(5)
    names = rng.choice(labels, 12)
    events = {0: [Event(24.0 * b, 24.0, str(name)) for b, name in enumerate(names)]}
    windows = grid_windows(72)
    truth, block = categories(windows, events, labels)
    # A block is right as a whole or wrong as a whole: twelve things were tried, not 72.
    hit = rng.integers(0, 2, 12)[block - block.min()]
    scores = np.eye(2)[np.where(hit, truth, 1 - truth)]
    figure = report_accuracy(windows, events, scores=scores, labels=labels)["classification_top1"]
    assert figure is not None
    assert figure["value"] == hit.mean()
    assert figure["ci95"] == of_mean(hit.astype(float), block).ci95
    assert figure["interval"]["units"] == 12
    assert np.ptp(figure["ci95"]) > 1.8 * np.ptp(of_mean(hit.astype(float)).ci95)


def test_events_are_read_with_their_attributes(tmp_path: Path) -> None:
    path = tmp_path / "events.tsv"
    path.write_text("onset\tduration\ttrial_type\tbackground\n4.0\t4.0\tshot\tsky\n0.0\t4.0\tshot\tnavy\n")
    first, second = read_events(path)
    assert first == Event(0.0, 4.0, "shot", {"background": "navy"})
    assert second.stop_s == 8.0


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("onset\ttrial_type\n1\tcat\n", "duration"),
        ("onset\tduration\ttrial_type\nsoon\t1\tcat\n", "soon"),
    ],
)
def test_a_table_that_holds_no_events_is_named(tmp_path: Path, text: str, error: str) -> None:
    path = tmp_path / "events.tsv"
    path.write_text(text)
    with refused(UsageError, "events-malformed", path=path, error=re.compile(error)) as caught:
        read_events(path)
    assert "onset, duration and" in str(caught.value)


def test_two_decoders_are_compared_window_by_window() -> None:
    rng = np.random.default_rng(3)
    hard = rng.random(200)
    better = 0.9 - 0.3 * hard
    worse = 0.88 - 0.3 * hard + rng.normal(0, 0.01, 200)
    difference = above(better, worse)
    assert difference["value"] == pytest.approx((better - worse).mean())
    # What makes a window hard is in both and cancels: each interval alone would overlap the other's.
    assert difference["ci95"][0] > 0.015
    assert of_mean(better).ci95[0] < of_mean(worse).ci95[1]
    assert difference["chance"] == 0
    assert difference["n"] == 200


def test_an_interval_keeps_the_windows_of_a_session_together() -> None:
    windows = [(run, 4.0 * n, 4.0 * n + 4) for run in (3, 7, 8, 9, 12) for n in range(10)]
    sessions = sessions_of(windows)
    assert sessions is not None
    assert sessions.tolist() == [n // 10 for n in range(50)]
    # Three sessions are too few, and ten windows of each are as many blocks.
    assert sessions_of(windows[:30]) is None
    in_blocks = sessions_of([(0, 4.0 * n, 4.0 * n + 4) for n in range(45)])
    assert in_blocks is not None
    assert np.bincount(in_blocks).tolist() == [10, 10, 10, 15]
    # Clips of the first three sessions find themselves, those of the others do not.
    matches = np.repeat([1.0, 1.0, 1.0, -1.0, -1.0], 10)
    corr = np.zeros((50, 50))
    np.fill_diagonal(corr, matches)
    figure = identification(corr, windows, {})["identification_2way"]
    assert figure is not None
    scores = (matches > 0).astype(float)
    assert figure["ci95"] == of_mean(scores, sessions).ci95
    assert figure["interval"]["values"] == [1, 1, 1, 0, 0]
    assert np.ptp(figure["ci95"]) > 2 * np.ptp(of_mean(scores).ci95)


def test_windows_that_only_one_decoder_is_scored_on_are_not_compared() -> None:
    difference = above(np.array([1.0, np.nan, 0.5]), np.array([0.5, 0.0, np.nan]))
    assert (difference["value"], difference["n"]) == (0.5, 1)
    for other in (np.array([np.nan, 1.0, np.nan]), np.zeros(2)):
        with pytest.raises(ValueError, match="two scores per window"):
            above(np.array([1.0, np.nan, 0.5]), other)


def test_noise_is_told_in_decibel_over_all_frames() -> None:
    truth = np.full((2, 8, 8, 3), 100, np.uint8)
    clip = truth + np.array([0, 10], np.uint8)[:, None, None, None]
    longer = np.concatenate([clip, clip])
    decibels = psnr([clip, longer, truth], [truth, truth, truth])
    assert decibels[:2] == pytest.approx(10 * np.log10(255**2 / 50))
    assert decibels[2] == np.inf
    assert psnr([truth], [clip])[0] == decibels[0], "bytes do not wrap around"
