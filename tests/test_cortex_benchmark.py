"""The benchmark of the shared cortex, on participants whose voxels are a known map of what is shown."""

import numpy as np
import pytest

from benchmarks.experiments import cortex, oracle

SLOTS = len(oracle.GRID.volumes(0))
VOXELS = 60


def windows(weights: np.ndarray, sessions: list[int], count: int) -> cortex.ParticipantWindows:
    """Windows of sessions: codes at random, and volumes that follow them by the weights, with noise."""
    rng = np.random.default_rng(sessions)
    codes = rng.normal(size=(count * len(sessions), oracle.COMPONENTS)).astype(np.float32)
    signal = codes @ weights
    volumes = np.repeat((signal + rng.normal(size=signal.shape))[:, None], SLOTS, axis=1)
    flat = volumes.reshape(len(codes), -1).astype(np.float32)
    return cortex.ParticipantWindows(flat, codes, np.repeat(sessions, count))


def people(maps: list[np.ndarray]) -> list[cortex.Participant]:
    return [
        cortex.Participant(windows(weights, [10 * n], 60), windows(weights, [10 * n + 1, 10 * n + 2], 50))
        for n, weights in enumerate(maps)
    ]


def random_map(seed: int) -> np.ndarray:
    # The first component is strong, so that some of what is shown can be read.
    weights = np.random.default_rng(seed).normal(size=(oracle.COMPONENTS, VOXELS))
    return weights * (np.arange(oracle.COMPONENTS) < 20)[:, None]


def test_what_participants_share_is_read_of_a_fourth_and_what_they_do_not_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cortex, "MINUTES", (2.5,))
    figures = cortex.between(people([random_map(0)] * 4))
    assert figures["zero-shot"]["ci95"][0] > 0.6
    assert figures["zero-shot"]["shuffled"] == pytest.approx(0.5, abs=0.03)
    assert figures["vertices exchanged"]["ci95"][0] < 0.55
    assert figures["gain 2.5"]["ci95"][0] > 0
    assert figures["zero-shot"]["interval"]["units"] == 8
    unshared = cortex.between(people([random_map(seed) for seed in range(4)]))
    assert unshared["zero-shot"]["value"] < 0.6
    assert unshared["gain 2.5"]["value"] < 0.02


def test_right_codes_win_against_all_windows_of_their_session() -> None:
    judged = windows(random_map(0), [1, 2], 50)
    scores, shuffled = cortex.told_apart(judged.codes, judged)
    assert np.all(scores == 1)
    assert np.mean(shuffled) == pytest.approx(0.5, abs=0.03)


def test_the_mean_of_pairs_leaves_everybody_themselves_out() -> None:
    matrix = np.full((5, 5), 0.2) + 0.8 * np.eye(5)
    matrix[0, 1] = matrix[1, 0] = 0.4
    figure = cortex.mean_of_pairs(matrix)
    assert figure["value"] == pytest.approx(0.22)
    low, high = figure["ci95"]
    assert low < 0.22 < high
    assert figure["interval"]["units"] == 5
