"""The closed forms against the slow ways of computing the same."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtdecode.scores.events import Event
from train.closed_form import patch_codec
from train.closed_form.lda import fit_lda, fit_temperature, softmax
from train.closed_form.ridge import PENALTIES, fit_ridge
from train.closed_form.stem import fill_slots, fit_eeg_stem, fit_voxel_stem, fixed_signs
from train.data.haxby import LABELS
from train.models.haxby.pictograms import pictograms
from train.models.haxby.trials import Blocks, Candidates, Trials, choose, plateau


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def film(clips: int, seed: int = 0) -> np.ndarray:
    """Clips of 9 frames that a few components explain."""
    rng = np.random.default_rng(seed)
    basis = rng.normal(0, 30, (3, 9, 16, 24, 3))
    return np.clip(128 + np.einsum("nk,kfhwc->nfhwc", rng.standard_normal((clips, 3)), basis), 0, 255).astype(
        np.uint8
    )


def test_patches_hold_every_pixel_where_it_belongs() -> None:
    clips = film(2)
    cut = patch_codec.patches(clips)
    assert cut.shape == (2, 3, 2, 3, patch_codec.SIZE)
    block = cut[1, 2, 1, 2].reshape(4, 8, 8, 3) * 255
    assert np.allclose(block, clips[1, 5:9, 8:16, 16:24], atol=1e-3)
    assert np.allclose(cut[0, 0, 0, 0].reshape(4, -1), cut[0, 0, 0, 0].reshape(4, -1)[0])


def test_a_codec_with_all_components_loses_nothing() -> None:
    clips = film(6)
    full_codec = patch_codec.fit_codec(clips, patch_codec.SIZE)
    again = patch_codec.decode(full_codec, patch_codec.encode(full_codec, clips))
    assert np.abs(again - clips / 255.0).max() < 1e-4


def test_fewer_components_lose_more_and_the_signs_are_settled() -> None:
    clips = film(8)
    errors = []
    for channels in (4, 16, 64):
        small = patch_codec.fit_codec(clips, channels)
        errors.append(
            np.square(patch_codec.decode(small, patch_codec.encode(small, clips)) - clips / 255.0).mean()
        )
        assert np.allclose(small.basis, patch_codec.fit_codec(clips[::-1], channels).basis, atol=1e-3)
    assert errors[0] > errors[1] > errors[2]


def primal_loo(x: np.ndarray, y: np.ndarray, penalty: float, folds: np.ndarray | None = None) -> np.ndarray:
    """Leave each row or fold out, fit, predict it: the slow way, with an intercept that is not penalised."""
    scale = np.square(x - x.mean(0)).sum() / len(x)
    out = np.zeros_like(y)
    groups = np.arange(len(x)) if folds is None else folds
    for fold in np.unique(groups):
        training = groups != fold
        mean = x[training].mean(0)
        level = y[training].mean(0)
        a = x[training] - mean
        w = np.linalg.solve(a.T @ a + penalty * scale * np.eye(x.shape[1]), a.T @ (y[training] - level))
        out[~training] = level + (x[~training] - mean) @ w
    return out


def test_the_held_out_error_is_the_one_of_leaving_out() -> None:
    x = noise(25, 6)
    y = x @ noise(6, 3, seed=1) + noise(25, 3, seed=2)
    ridge = fit_ridge([x], y, [])
    errors = np.array([np.square(y - primal_loo(x, y, p)).mean(0) for p in PENALTIES])
    assert np.allclose(ridge.explained, 1 - errors.min(0) / y.var(0), atol=1e-6)


@pytest.mark.parametrize("features", [6, 40])
def test_windows_that_are_left_out_together_are_predicted_from_the_others(features: int) -> None:
    folds = np.array([0] * 3 + [1] * 9 + [2] * 13)[np.random.default_rng(4).permutation(25)]
    x = noise(25, features)
    y = x @ noise(features, 3, seed=1) + noise(25, 3, seed=2)
    ridge = fit_ridge([x], y, [], folds)
    errors = np.array([np.square(y - primal_loo(x, y, p, folds)).mean(0) for p in PENALTIES])
    assert np.allclose(ridge.explained, 1 - errors.min(0) / y.var(0), atol=1e-6)
    alone = fit_ridge([x], y, [], np.arange(25))
    assert np.allclose(alone.held_out, fit_ridge([x], y, []).held_out, atol=1e-6)


def test_a_window_is_not_chosen_by_its_own_twin() -> None:
    """Noise that is shown twice explains nothing, and leaving out one window alone would not notice."""
    x = np.tile(noise(20, 30), (2, 1))
    y = np.tile(noise(20, 2, seed=1), (2, 1))
    pairs = np.tile(np.arange(20), 2)
    assert fit_ridge([x], y, []).explained.min() > 0.9
    assert fit_ridge([x], y, [], pairs).explained.max() < 0.5


def test_many_windows_and_many_features_are_fitted_to_the_same() -> None:
    a = noise(60, 5)
    b = 20 * noise(60, 8, seed=1)
    a[:, 4] = a[:, 0] - a[:, 1]
    y = a @ noise(5, 2, seed=2) + noise(60, 2, seed=3)
    narrow = fit_ridge([a, b], y, [0.3, 0.6])
    # Features of zeros: the same regression from the other Gram matrix.
    wide = fit_ridge([np.pad(a, ((0, 0), (0, 60))), b], y, [0.3, 0.6])
    assert np.allclose(narrow.held_out, wide.held_out, atol=1e-6)
    assert np.allclose(narrow.explained, wide.explained, atol=1e-6)
    assert np.allclose(narrow.maps[0], wide.maps[0][:5], atol=1e-6)
    assert np.allclose(narrow.maps[1], wide.maps[1], atol=1e-6)


def test_two_groups_are_one_group_of_weighted_features() -> None:
    a = noise(30, 5)
    b = 20 * noise(30, 8, seed=1)
    y = a @ noise(5, 2, seed=2) + noise(30, 2, seed=3)
    both = fit_ridge([a, b], y, [0.3])
    scales = [np.sqrt(w / (np.square(x - x.mean(0)).sum() / 30)) for w, x in ((0.3, a), (0.7, b))]
    joined = np.concatenate([a * scales[0], b * scales[1]], axis=1)
    single = fit_ridge([joined], y, [])
    predicted = (a - both.means[0]) @ both.maps[0] + (b - both.means[1]) @ both.maps[1]
    assert np.allclose(predicted, (joined - single.means[0]) @ single.maps[0], atol=1e-6)


def test_a_useless_group_gets_the_small_weight() -> None:
    a = noise(80, 4)
    b = noise(80, 4, seed=1)
    y = a @ noise(4, 1, seed=2)
    assert fit_ridge([a, b], y, [0.05, 0.95]).explained[0] > fit_ridge([a, b], y, [0.05]).explained[0]


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([6, 40]), st.floats(0.05, 1.0))
def test_lda_is_the_textbook_one(seed: int, voxels: int, shrinkage: float) -> None:
    y = np.arange(24) % 3
    x = noise(24, voxels, seed=seed) + y[:, None]
    [(weights, offset)] = fit_lda(x, y, 3, [shrinkage])
    means = np.stack([x[y == c].mean(0) for c in range(3)])
    within = (x - means[y]).T @ (x - means[y]) / (24 - 3)
    shrunk = (1 - shrinkage) * within + shrinkage * np.trace(within) / voxels * np.eye(voxels)
    expected = np.linalg.solve(shrunk, means.T)
    assert np.allclose(weights, expected, rtol=1e-6, atol=1e-8)
    assert np.allclose(offset, -0.5 * np.einsum("cv,vc->c", means, expected))


def test_the_temperature_makes_overconfident_scores_honest() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 4, 4000)
    logits = rng.standard_normal((4000, 4)) + np.eye(4)[y]  # honest: unit noise, unit distance
    assert fit_temperature(logits, y) == pytest.approx(1.0, rel=0.15)
    assert fit_temperature(7 * logits, y) == pytest.approx(7.0, rel=0.15)
    assert softmax(logits).sum(1) == pytest.approx(np.ones(4000))


def test_the_eeg_stem_keeps_what_is_slow_and_evens_out_what_is_strong() -> None:
    t = np.arange(100) / 100
    slow = noise(50, 2, 1) * np.cos(np.pi * 3 * t) * [[9.0], [1.0]]
    eeg = (slow + 0.01 * noise(50, 2, 100, seed=1)).astype(np.float32)
    stem = fit_eeg_stem(eeg, 2, 8, 1.0)
    out = stem(eeg)
    assert out.shape == (50, 16)
    assert np.allclose(out.reshape(50, 2, 8), stem.mixing @ eeg @ stem.cosines, atol=1e-3)
    assert out.std(0).reshape(2, 8).mean(0) == pytest.approx(np.ones(8), rel=0.5)
    assert np.array_equal(stem.mixing, fit_eeg_stem(eeg, 2, 8, 1.0).mixing)


def test_the_voxel_stem_is_orthonormal() -> None:
    basis = fit_voxel_stem(noise(10, 3, 20).astype(np.float32), 5)
    assert np.allclose(basis.T @ basis, np.eye(5), atol=1e-8)


def test_missing_volumes_become_the_mean_of_the_others() -> None:
    fmri = noise(2, 3, 4)
    mask = np.array([[1.0, 0, 1], [0, 0, 0]])
    fmri *= mask[:, :, None]
    filled = fill_slots(fmri, mask)
    assert np.allclose(filled[0, 1], fmri[0, [0, 2]].mean(0))
    assert np.allclose(filled[0, [0, 2]], fmri[0, [0, 2]])
    assert not filled[1].any()


def test_a_plateau_has_its_middle_taken() -> None:
    values = [0.0, 1, 2, 3, 4, 5, 6]
    assert plateau(values, np.array([0.1, 0.5, 0.6, 0.61, 0.6, 0.5, 0.1]), 50) == 3
    assert plateau(values, np.array([0.9, 0.1, 0.1, 0.1, 0.1, 0.1, 0.9]), 50) == 0


def simulated_runs(shift_s: float) -> tuple[Trials, Blocks]:
    """Runs whose response follows the events' file by a shift, window by window."""
    rng = np.random.default_rng(5)
    patterns = rng.standard_normal((4, 30))
    labels = ("a", "b", "c", "d")
    rows = []
    spans = []
    events = {}
    for run in range(6):
        events[run] = [Event(12 + 24.0 * b, 12.0, labels[c]) for b, c in enumerate(rng.permutation(4))]
        for k in range(30):
            current_events = [e for e in events[run] if e.onset_s - shift_s < 4 * k + 2 < e.stop_s - shift_s]
            signal = patterns[labels.index(current_events[0].trial_type)] if current_events else 0
            rows.append(signal + 1.5 * rng.standard_normal(30))
            spans.append((run, 4.0 * k, 4.0 * k + 4))
    return Trials(np.stack(rows), spans), Blocks(events, labels)


@pytest.mark.parametrize("shift_s", [0.0, 4.0])
def test_the_onset_correction_is_found(shift_s: float) -> None:
    trials, blocks = simulated_runs(shift_s)
    candidates = Candidates([-4.0, 0.0, 4.0, 8.0], [0.0], [0.3])
    assert choose({0.0: lambda runs: trials}, blocks, list(range(6)), candidates).correction_s == shift_s


def test_what_is_chosen_rests_on_the_training_runs_alone() -> None:
    trials, blocks = simulated_runs(4.0)
    candidates = Candidates([0.0, 4.0, 8.0], [0.0], [0.1, 0.5])
    other = trials.x.copy()
    other[trials.run == 5] += 100
    changed = Trials(other, trials.spans)
    before, after = ({0.0: lambda runs, variant=variant: variant} for variant in (trials, changed))
    training_runs = list(range(5))
    assert choose(before, blocks, training_runs, candidates) == choose(
        after, blocks, training_runs, candidates
    )


def test_exchanged_labels_keep_each_runs_categories() -> None:
    _, blocks = simulated_runs(0.0)
    moved = blocks.permuted(np.random.default_rng(0))
    names = [[[e.trial_type for e in run] for run in b.events.values()] for b in (blocks, moved)]
    assert [sorted(run) for run in names[0]] == [sorted(run) for run in names[1]]
    assert names[0] != names[1]


def test_every_category_has_its_own_picture_with_the_note() -> None:
    pages = pictograms(LABELS, (128, 192), "category decoding, not a reconstruction")
    assert pages.shape == (8, 128, 192, 3)
    bare = pictograms(LABELS, (128, 192), "")
    assert (pages[:, -24:] != bare[:, -24:]).any((1, 2, 3)).all()
    assert np.array_equal(pages[:, :100], bare[:, :100])
    distance = [np.abs(a.astype(int) - b).mean() for i, a in enumerate(bare) for b in bare[:i]]
    assert min(distance) > 5


# Those of up to 2048 voxels are found by their covariance, and those of more without it.
@pytest.mark.parametrize(("voxels", "most_components"), [(300, 64), (2100, 39)])
def test_components_of_few_and_of_many_voxels_are_the_principal_ones(voxels: int, most_components: int):
    rng = np.random.default_rng(3)
    driven = rng.standard_normal((8, 5, 6)) @ rng.standard_normal((6, voxels))
    volumes = (driven + 0.05 * rng.standard_normal((8, 5, voxels))).astype(np.float32)
    components = fit_voxel_stem(volumes, 6)
    principal = np.linalg.svd(volumes.reshape(40, voxels).astype(np.float64), full_matrices=False).Vh[:6]
    np.testing.assert_allclose(components, fixed_signs(principal.T), atol=1e-5)
    np.testing.assert_array_equal(components, fit_voxel_stem(volumes, 6))
    # Without the covariance, forty volumes have no more components than 39.
    assert fit_voxel_stem(volumes, 64).shape == (voxels, most_components)
