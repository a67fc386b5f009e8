"""Bad signals are what they are called, at the level that was asked for, and the benchmark counts them."""

import numpy as np
import pytest

from benchmarks import bars, result_files
from benchmarks.experiments import bad_signals
from benchmarks.experiments.bad_signals import levels_of
from benchmarks.experiments.presence import Answers, five, missed, worst
from benchmarks.result_files import RESULTS

SIGNAL = np.random.default_rng(0).standard_normal((4, 16, 500)).astype(np.float32) * 3
VOLUMES = np.random.default_rng(1).standard_normal((4, 5, 2000)).astype(np.float32) * 2


def power(signal: np.ndarray) -> np.ndarray:
    return np.square(signal, dtype=np.float64).mean(axis=(1, 2))


@pytest.mark.parametrize("name", ["white", "unfiltered white", "pink", "line", "sine", "one copied to all"])
@pytest.mark.parametrize("level", [0.1, 30.0])
def test_noise_of_the_cap_has_the_size_that_was_asked_for(name: str, level: float) -> None:
    signals = bad_signals.EEG[name](SIGNAL, np.random.default_rng(2), level)
    assert signals.shape == SIGNAL.shape
    np.testing.assert_allclose(power(signals), level**2 * power(SIGNAL), rtol=1e-3)
    assert np.abs(np.corrcoef(signals.ravel(), SIGNAL.ravel())[0, 1]) < 0.3


@pytest.mark.parametrize("name", ["white", "bottle"])
def test_noise_of_the_scanner_has_the_size_that_was_asked_for(name: str) -> None:
    signals = bad_signals.FMRI[name](VOLUMES, np.random.default_rng(2), 3.0)
    np.testing.assert_allclose(power(signals), 9 * power(VOLUMES), rtol=1e-3)


def test_the_line_hums_at_fifty_hertz_and_white_noise_ends_where_the_chain_ends() -> None:
    def spectrum(name: str) -> np.ndarray:
        signals = bad_signals.EEG[name](SIGNAL, np.random.default_rng(3), 1.0)
        return np.square(np.abs(np.fft.rfft(signals))).mean((0, 1))

    spectra = {name: spectrum(name) for name in ("line", "white", "unfiltered white")}
    hertz = np.fft.rfftfreq(500, 1 / 125)
    assert hertz[spectra["line"].argmax()] == 50
    beyond = hertz > 50
    assert spectra["white"][beyond].sum() < 0.05 * spectra["white"].sum()
    assert spectra["unfiltered white"][beyond].sum() > 0.15 * spectra["unfiltered white"].sum()


def test_no_channel_and_no_voxel_stays_in_its_place() -> None:
    for signals, signal, axis in (
        (bad_signals.EEG["channels permuted"](SIGNAL, np.random.default_rng(4), 1.0), SIGNAL, 1),
        (bad_signals.FMRI["voxels shuffled"](VOLUMES, np.random.default_rng(4), 1.0), VOLUMES, 2),
    ):
        np.testing.assert_array_equal(np.sort(signals, axis), np.sort(signal, axis))
        same = (np.moveaxis(signals, axis, 0) == np.moveaxis(signal, axis, 0)).all((1, 2))
        assert not same.any()


def test_a_cap_may_be_half_saturated_bridged_or_one_channel() -> None:
    rng = np.random.default_rng(5)
    moved = (bad_signals.EEG["half saturated"](SIGNAL, rng, 1.0) != SIGNAL).any((0, 2))
    assert moved.sum() == 8
    shorted = bad_signals.EEG["eight bridged"](SIGNAL, rng, 1.0)
    changed = np.flatnonzero((shorted != SIGNAL).any((0, 2)))
    assert len(changed) == 8
    assert (shorted[:, changed] == shorted[:, changed[:1]]).all()
    copied = bad_signals.EEG["one copied to all"](SIGNAL, rng, 1.0)
    assert (copied == copied[:, :1]).all()


def test_surrogates_keep_the_looks_and_lose_the_time() -> None:
    windows = {"eeg": SIGNAL, "fmri": VOLUMES, "eeg_mask": np.ones((4, 500))}
    signals = bad_signals.surrogates(windows, np.random.default_rng(6))
    # As many turns in all channels: what they have in common stays.
    for window, other in zip(signals["eeg"], SIGNAL, strict=True):
        np.testing.assert_allclose(window @ window.T, other @ other.T, rtol=1e-3, atol=1)
    np.testing.assert_allclose(power(signals["fmri"]).sum(), power(VOLUMES).sum(), rtol=1e-4)
    assert signals["eeg_mask"] is windows["eeg_mask"]


def test_kinds_have_the_levels_that_make_sense() -> None:
    assert levels_of("eight bridged") == [1.0]
    assert 1.0 not in levels_of("scaled")
    assert min(levels_of("white")) == 0.1
    assert max(levels_of("white")) == 30


def answers(brain: list[float]) -> Answers:
    values = np.array(brain)
    return Answers(values, np.stack([values, values], 1), 0 * values, np.full(len(values), 0.8))


def test_a_row_counts_what_is_taken_for_a_brain() -> None:
    true = answers([0.9, 0.8])
    row = answers([0.5, 0.1, 0.85, 0.0]).row_against(true)
    assert row["above"] == 0.5
    assert row["auroc"] == pytest.approx(7 / 8)
    assert (row["confidence"], row["taken"], row["n"]) == (None, 2, 4), "too few to speak of"
    assert answers([0.9] * 20).row_against(true)["confidence"] == pytest.approx(0.8)


def test_means_are_of_five_windows_in_a_row() -> None:
    means = five(np.array([0.5, 0.5, 0.5, 0.5, 0.5, 1.0]))
    np.testing.assert_allclose(means, [0, 0.8])


def test_bars_are_held_against_the_worst_of_each_sort() -> None:
    def bad(kind: str, replaced: str, route: str, above: float, **by: float) -> dict[str, object]:
        return {"kind": kind, "replaced": replaced, "route": route, "above": above, "by": by}

    kinds = ("rest", "EEG of another film", "EEG of a window before", "surrogates", "one bad channel")
    rows = [{"kind": kind, "route": "both", "means_above_0": 0.01 * n} for n, kind in enumerate(kinds)]
    no_film = [row | {"above": 0.85, "confidence": 0.9, "wins": 0.87} for row in rows]
    no_film.append({"kind": "rest", "route": "eeg", "means_above_0": 0.9, "above": 0.9, "confidence": 0.99})
    signals = [
        bad("eeg: white", "eeg", "eeg", 0.02),
        bad("eeg: white", "eeg", "both", 0.9, eeg=0.03, fmri=0.97),
        bad("fmri: white", "fmri", "both", 0.8, eeg=0.96, fmri=0.01),
        bad("eeg: sine, fmri: white", "both", "both", 0.04, eeg=0.5, fmri=0.5),
    ]
    values = worst({"windows_lost": 0.1, "confidence": 0.9, "wins": 0.95}, no_film, signals)
    assert values["bad_above"] == 0.04
    assert (values["bad_modality_above"], values["true_modality_above"]) == (0.03, 0.96)
    assert (values["rest_means_above_0"], values["other_film_means_above_0"]) == (0.0, 0.01)
    assert values["bad_channel_loses"] == pytest.approx(0.05)
    assert values["confidence_above_wins"] == pytest.approx(0.03)


def test_the_bars_that_are_missed_are_those_that_are_listed() -> None:
    path = RESULTS / "presence.json"
    values = result_files.read(path)
    listed = bars.lapses(path)
    assert listed.keys() <= values.keys() == {"easy", "default", "hard"}
    for preset, figures in values.items():
        assert missed(figures, preset) == listed.get(preset, []), preset
        assert figures["clean"]["sessions"] == 20
