"""The ridge oracle and the noise of the ceiling, on arrays whose relation is known."""

import numpy as np
import pytest

from rtdecode.scores.colours import layouts
from train.config.run_context import Arrays
from train.evaluation.ceiling import SharedNoise
from train.evaluation.oracle import fit_oracle


def session(count: int, seed: int, noise: float) -> Arrays:
    """Windows of about one colour each, which four voxels show; EEG that says nothing."""
    rng = np.random.default_rng(seed)
    colours = rng.integers(40, 215, (count, 3))
    grain = rng.integers(-3, 4, (count, 33, 16, 24, 3))
    clips = (colours[:, None, None, None] + grain).astype(np.uint8)
    mixing = np.random.default_rng(0).normal(size=(3, 4))
    voxels = (colours - 128) / 64 @ mixing
    fmri = np.repeat(voxels[:, None], 5, axis=1) + noise * rng.normal(size=(count, 5, 4))
    eeg = rng.normal(size=(count, 3, 120))
    return {"eeg": eeg.astype(np.float32), "fmri": fmri.astype(np.float32), "clips": clips}


def error(decoded: list[np.ndarray], clips: np.ndarray) -> float:
    return float(np.sqrt(np.square(layouts(decoded) - layouts(list(clips))).mean()))


@pytest.mark.parametrize("absent", ["eeg", "fmri"])
def test_one_modality_is_enough(absent: str) -> None:
    """Here the EEG is a copy of the volumes, so that each tells the colours by itself."""

    def alone(seed: int) -> Arrays:
        windows = session(40, seed, 0.05)
        wave = np.random.default_rng(9).normal(size=24).astype(np.float32)
        windows["eeg"] = windows["fmri"][:, 0, :, None] * wave
        return {name: values for name, values in windows.items() if name != absent}

    oracle = fit_oracle([alone(1), alone(2)], frames=32, carry=True)
    judged = alone(3)
    assert error(oracle.clips(judged), judged["clips"]) < 8
    flat, _ = oracle.floors(judged)
    assert error([*np.stack(flat)], judged["clips"]) < 8


def test_what_lies_after_the_window_is_no_part_of_what_it_showed() -> None:
    training = [session(40, seed, 0.05) for seed in (1, 2)]
    for windows in training:
        windows["clips"][:, -1] = 0
    oracle = fit_oracle(training, frames=32, carry=False)
    flat, _ = oracle.floors(session(20, 3, 0.05))
    assert flat[0].shape == (32, 16, 24, 3)
    # With the black frames, the mean would be darker by a thirty-third.
    within = np.concatenate([windows["clips"][:, :32] for windows in training])
    assert oracle.mean_look[:3] == pytest.approx(within.mean((0, 1, 2, 3)), abs=1e-6)


def test_a_slot_without_a_volume_has_the_windows_mean() -> None:
    oracle = fit_oracle([session(40, seed, 0.05) for seed in (1, 2)], frames=32, carry=False)
    judged = session(20, 3, 0.05)
    judged["fmri_mask"] = np.ones((20, 5), np.float32)
    judged["fmri_mask"][::2, 3:] = 0
    judged["fmri"] *= judged["fmri_mask"][:, :, None]
    assert error(oracle.clips(judged), judged["clips"]) < 8


@pytest.mark.parametrize("carry", [False, True])
def test_the_oracle_reads_what_is_there(carry: bool) -> None:
    oracle = fit_oracle([session(40, 1, 0.05), session(40, 2, 0.05)], frames=32, carry=carry)
    judged = session(20, 3, 0.05)
    decoded = oracle.clips(judged)
    assert decoded[0].shape == (33, 16, 24, 3)
    assert error(decoded, judged["clips"]) < 8
    # A grey that knows nothing is off by the spread of the colours.
    assert error([np.full_like(clip, 128) for clip in decoded], judged["clips"]) > 40


def test_floors_are_what_is_read_of_the_colours() -> None:
    """Halves of the pictures differ: a flat colour cannot say it, and a layout can."""

    def halved(seed: int) -> Arrays:
        windows = session(60, seed, 0.05)
        second = session(60, seed + 50, 0.05)
        half = windows["clips"].shape[3] // 3
        windows["clips"][:, :, :, :half] = second["clips"][:, :, :, :half]
        return windows | {"fmri": np.concatenate([windows["fmri"], second["fmri"]], axis=2)}

    oracle = fit_oracle([halved(1), halved(2)], frames=32, carry=False)
    judged = halved(3)
    flat, still = (np.stack(decoded) for decoded in oracle.floors(judged))
    clips = judged["clips"][:, :-1]
    assert flat.shape == still.shape == clips.shape
    assert np.ptp(flat, axis=(1, 2, 3)).max() == 0
    assert np.ptp(still, axis=1).max() == 0
    # Two of six columns are of the second colour.
    assert error([*still], clips) < 10 < error([*flat], clips)
    true = clips.mean(axis=(1, 2, 3))
    assert np.abs(flat[:, 0, 0, 0] - true).mean() < 10 < np.abs(true - true.mean(0)).mean()


def test_sessions_of_one_film_are_left_out_together() -> None:
    """A penalty that was chosen among showings of one film would be that of a film known by heart."""
    showing = session(40, 1, 1.0)
    second_showing = showing | {
        "fmri": showing["fmri"] + np.random.default_rng(5).normal(size=showing["fmri"].shape)
    }
    further = [session(40, seed, 1.0) for seed in (2, 3)]
    by_session = fit_oracle([showing, second_showing, *further], frames=32, carry=False)
    by_film = fit_oracle([showing, second_showing, *further], frames=32, carry=False, films=[0, 0, 1, 2])
    assert by_film.signals.explained.mean() < by_session.signals.explained.mean()


def test_the_carry_helps_where_a_window_continues_the_one_before() -> None:
    def continued(seed: int) -> Arrays:
        windows = session(60, seed, 2.0)
        # Every second window shows what the one before it does.
        windows["clips"] = np.repeat(windows["clips"][::2], 2, axis=0)
        windows["fmri"] = np.repeat(windows["fmri"][::2], 2, axis=0)
        windows["fmri"][1::2] = np.random.default_rng(seed + 50).normal(size=windows["fmri"][1::2].shape)
        return windows

    training = [continued(1), continued(2)]
    judged = continued(3)
    with_carry = error(fit_oracle(training, frames=32, carry=True).clips(judged), judged["clips"])
    assert with_carry < error(fit_oracle(training, frames=32, carry=False).clips(judged), judged["clips"])


def test_shared_noise_is_inverted_as_a_whole() -> None:
    rng = np.random.default_rng(0)
    slots = 3
    voxels = 4
    roots = rng.normal(size=(voxels, slots, slots))
    voxel_covariances = roots @ roots.transpose(0, 2, 1) + np.eye(slots)
    columns = rng.normal(size=(slots * voxels, 2))
    # Slots run slowest in a window, so a voxel's values lie `voxels` apart.
    dense = columns @ columns.T
    for voxel in range(voxels):
        voxel_slots = voxel + voxels * np.arange(slots)
        dense[np.ix_(voxel_slots, voxel_slots)] += voxel_covariances[voxel]
    windows = rng.normal(size=(5, slots * voxels))
    weighted = SharedNoise(voxel_covariances, columns).precision(windows)
    np.testing.assert_allclose(weighted, windows @ np.linalg.inv(dense), atol=1e-10)
