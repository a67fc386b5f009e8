"""The brain encoder: every window by its route, nothing from a silent modality, carry only where it fits."""

import numpy as np
import pytest
import torch

from train.closed_form.brain_maps import fit_discriminant, fit_logistic, fit_maps, place
from train.closed_form.refine import ROUTES, refine
from train.closed_form.space import SIZES, Space, split
from train.models.compact.encoder import SEAM_FEATURES, BrainEncoder, routes
from train.models.compact.refiner import Refiner, RefinerSizes, fit_refiner

SHAPE = (2, 3, 2, 2)
COMPONENTS = 4
TARGETS = 4 + sum(SIZES)


@pytest.fixture
def encoder() -> BrainEncoder:
    rng = np.random.default_rng(0)
    draw = lambda *shape: rng.standard_normal(shape).astype(np.float32)  # noqa: E731
    groups = {"fmri": 5 * 3, "eeg": 2 * 4}
    arrays = {
        "latent_shape": np.array(SHAPE),
        "voxels": draw(7, 3).astype(np.float16),
        "mixing": draw(2, 6),
        "cosines": draw(10, 4),
        "basis": draw(COMPONENTS, 24).astype(np.float16),
        "seam_frame": np.eye(2, dtype=np.float32),
        "seam_offset": np.zeros((2, 1, 2, 2), np.float32),
        "discriminant_carry": draw(8, sum(SIZES)),
        "offset_carry": draw(sum(SIZES)),
        "bank": draw(5, 24).astype(np.float16),
        "bank_values": np.eye(sum(SIZES), dtype=np.float32)[[11, 12, 13, 14, 15]],
        "corner_mean": draw(1, 2, 3, 4),
        "still_weight": draw(2, 4, 3, 3),
        "still_bias": draw(2),
        "heat": np.ones(3),
        "reads": np.ones(2),
    }
    arrays |= {f"{name}_feature_mean": draw(size) for name, size in groups.items()}
    pairs = (("both", "fmri"), ("both", "eeg"), ("fmri", "fmri"), ("eeg", "eeg"))
    arrays |= {f"{r}_{g}": 0.1 * draw(groups[g], TARGETS) for r, g in pairs}
    for route in ROUTES:
        arrays[f"seam_{route}"] = np.append(np.zeros(SEAM_FEATURES), -9.0)
        arrays[f"confidence_{route}"] = draw(len(SIZES) + 1)
    torch.manual_seed(0)
    state = Refiner(TARGETS, COMPONENTS, 6).state_dict()
    arrays |= {f"refiner.{name}": value.numpy() for name, value in state.items()}
    return BrainEncoder(arrays, 8).eval()


def _window(seed: int = 0) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return {
        "eeg": torch.randn(1, 6, 10),
        "eeg_mask": torch.ones(1, 10),
        "fmri": torch.randn(1, 5, 7),
        "fmri_mask": torch.ones(1, 5),
        "carry": torch.randn(1, 2, 2, 2, 2),
        "carry_mask": torch.zeros(1, 1),
    }


def _without(window: dict[str, torch.Tensor], name: str) -> dict[str, torch.Tensor]:
    gone = {key: torch.zeros_like(window[key]) for key in (name, f"{name}_mask")}
    return window | gone


def test_a_window_takes_the_route_of_what_it_has():
    there = torch.tensor([[1.0, 1.0], [1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    assert routes(there).tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]]


def test_what_an_absent_modality_would_have_said_changes_nothing(encoder):
    window = _window()
    for name in ("eeg", "fmri"):
        one = encoder(**_without(window, name))
        other = encoder(**_without(_window(1) | {k: v for k, v in window.items() if name not in k}, name))
        for a, b in zip(one, other, strict=True):
            assert torch.equal(a, b)
        assert not torch.allclose(one[0], encoder(**window)[0])


def test_without_a_brain_there_is_nothing_but_the_null_tokens(encoder):
    silent = _without(_without(_window(), "eeg"), "fmri")
    condition, embedding, _ = encoder(**silent)
    assert not condition.any()
    torch.testing.assert_close(embedding[0], encoder.null_eeg + encoder.null_fmri)
    values = encoder.probabilities(torch.zeros(1, TARGETS), torch.zeros(1, 3), 1.0)
    assert all(torch.allclose(p, torch.full_like(p, 1 / p.shape[1])) for p in split(values))


def test_a_missing_volume_is_replaced_by_the_mean_of_the_others(encoder):
    window = _window()
    window["fmri"][:, 2] = window["fmri"][:, [0, 1, 3, 4]].mean(1)
    holed = window | {"fmri": window["fmri"].clone(), "fmri_mask": window["fmri_mask"].clone()}
    holed["fmri"][:, 2] = holed["fmri_mask"][:, 2] = 0
    torch.testing.assert_close(encoder(**holed)[0], encoder(**window)[0], rtol=1e-4, atol=1e-4)


def test_the_clip_before_is_shown_only_if_this_one_goes_on(encoder):
    window = _window() | {"carry_mask": torch.ones(1, 1)}
    condition, *_ = encoder(**window)
    assert not condition[:, 2:5].any(), "the test for a seam says no"
    assert condition[:, 7].eq(1).all(), "a surround is remembered instead"
    start = encoder.stand_still(window["carry"])
    assert torch.equal(condition[:, 8:10], start.expand(-1, -1, 3, -1, -1)), "the sampler begins with its end"
    assert condition[:, 10].eq(1).all()
    encoder.seam_both[-1] = 9.0
    condition, *_ = encoder(**window)
    assert condition[:, 4].eq(1).all()
    assert torch.equal(condition[:, 2:4], window["carry"][:, :, 1:].expand(-1, -1, 3, -1, -1))
    assert not condition[:, 5:8].any()
    condition, *_ = encoder(**(window | {"carry_mask": torch.zeros(1, 1)}))
    assert not condition[:, 2:5].any()
    assert not condition[:, 8:].any()


def test_a_modality_that_is_not_read_is_as_good_as_absent(encoder):
    window = _window()
    expected = encoder(**_without(window, "eeg"))
    encoder.reads[1] = 0
    for a, b in zip(encoder(**window), expected, strict=True):
        assert torch.equal(a, b)


def test_heat_makes_probabilities_even(encoder):
    point = torch.randn(1, TARGETS)
    route = torch.eye(3)[:1]
    plain = encoder.probabilities(point, route, 1.0)
    encoder.heat[0] = 4.0
    torch.testing.assert_close(encoder.probabilities(point, route, 4.0), plain)


def test_the_surround_remembered_is_of_the_likeliest_kind_and_fits_into_the_corners(encoder):
    route = torch.eye(3)[:1]
    drawn = torch.zeros(1, *SHAPE)
    for n in range(5):
        values = torch.full((1, sum(SIZES)), 0.01)
        values[0, 11 + n] = 0.9
        corners, seen = encoder.remember(values, drawn, route)
        bare = corners - encoder.corner_mean
        torch.testing.assert_close(bare.flatten(), encoder.bank[n].float(), rtol=1e-5, atol=1e-5)
        laid = encoder.around(bare, seen)
        assert torch.equal(laid[:, :2].flatten(3), bare)
        assert laid[:, 2].eq(1).all()


def test_sharper_probabilities_commit_themselves_to_the_same_values(encoder):
    point = torch.randn(5, TARGETS)
    route = torch.eye(3)[:1].expand(5, -1)
    plain = encoder.probabilities(point, route, 1.0)
    for soft, hard in zip(split(plain), split(encoder.probabilities(point, route, 50.0)), strict=True):
        assert torch.equal(soft.argmax(1), hard.argmax(1))
        assert (hard.amax(1) >= soft.amax(1) - 1e-6).all()


def test_confidence_is_a_probability_and_falls_with_doubt(encoder):
    encoder.confidence_both[:-1] = -1.0
    encoder.confidence_both[-1] = 2.0
    route = torch.eye(3)[:1]
    sure = torch.cat([torch.eye(n)[:1] for n in SIZES], 1)
    even = torch.cat([torch.full((1, n), 1 / n) for n in SIZES], 1)
    certain, doubtful = (float(encoder.confidence(v, route)) for v in (sure, even))
    assert 0 < doubtful < certain < 1


def test_maps_fitted_to_windows_predict_fresh_ones():
    from train.closed_form.brain_maps import StemSizes

    rng = np.random.default_rng(0)
    y = rng.standard_normal((300, 3))
    x = {m: (y @ rng.standard_normal((3, 12)) + rng.standard_normal((300, 12))) for m in ("fmri", "eeg")}
    x = {m: v.astype(np.float32) for m, v in x.items()}
    maps, held = fit_maps({m: v[:200] for m, v in x.items()}, y[:200], StemSizes(1, 1, 1, 0.0, [0.5]))
    fresh = place(maps, {m: v[200:] for m, v in x.items()})
    for route in ROUTES:
        r = np.corrcoef(fresh[route].ravel(), y[200:].ravel())[0, 1]
        assert r > 0.8
        assert abs(np.corrcoef(held[route].ravel(), y[:200].ravel())[0, 1] - r) < 0.06
    assert np.corrcoef(held["both"].ravel(), y[:200].ravel())[0, 1] > max(
        np.corrcoef(held[r].ravel(), y[:200].ravel())[0, 1] for r in ("fmri", "eeg")
    )


def test_a_discriminants_probabilities_are_as_often_right_as_they_say():
    rng = np.random.default_rng(0)
    labels = [rng.integers(0, n, 3000) for n in SIZES]
    attributes = np.concatenate([np.eye(n)[y] for n, y in zip(SIZES, labels, strict=True)], axis=1)
    points = attributes @ rng.standard_normal((sum(SIZES), 20)) + 1.5 * rng.standard_normal((3000, 20))
    weights, offset = fit_discriminant(points[:2000], attributes[:2000], 0.1)
    for part, y in zip(split(points[2000:] @ weights + offset), labels, strict=True):
        p = np.exp(part - part.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        right = p.argmax(1) == y[2000:]
        assert right.mean() > 1.3 / part.shape[1]
        assert abs(p.max(1).mean() - right.mean()) < 0.06


def _products(count: int) -> tuple[dict[str, np.ndarray], np.ndarray, Space]:
    """Points of which the first two targets' product tells the third and the first attribute."""
    rng = np.random.default_rng(1)
    seen = rng.standard_normal((count, 2))
    hidden = seen[:, :1] * seen[:, 1:]
    shown = [np.eye(n)[rng.integers(0, n, count)] for n in SIZES]
    shown[0] = np.eye(SIZES[0])[(hidden[:, 0] > 0).astype(int)]
    truth = np.concatenate([seen, hidden, *shown], axis=1)
    blank = np.zeros_like(truth)
    points = {route: blank.copy() for route in ROUTES}
    for route, noise in (("both", 0.1), ("fmri", 0.2), ("eeg", 2.0)):
        points[route][:, :2] = seen + noise * rng.standard_normal(seen.shape)
    size = truth.shape[1]
    return points, truth, Space(np.zeros(1), np.zeros((3, 1)), np.zeros(size), np.ones(size))


def test_the_perceptron_finds_what_linear_maps_cannot_tell():
    points, truth, space = _products(1200)
    sizes = RefinerSizes(32, 0.0, 12, 32, 5e-3, 0.01, 1.0, 3)
    net, held_out = fit_refiner({r: p[:1000] for r, p in points.items()}, truth[:1000], space, sizes, 0)
    right = truth[1000:, 3:6].argmax(1)
    found = {r: refine(net, {q: p[1000:] for q, p in points.items()}, r) for r in ROUTES}
    for refined, true in ((found["both"], truth[1000:]), (held_out["both"], truth[:1000])):
        assert np.corrcoef(refined[:, 2], true[:, 2])[0, 1] > 0.8
    accuracy = {r: float((found[r][:, 3:6].argmax(1) == right).mean()) for r in ROUTES}
    assert accuracy["both"] > 0.85
    assert accuracy["fmri"] > 0.8
    assert accuracy["eeg"] < accuracy["fmri"]


def test_the_perceptron_in_numpy_is_the_one_in_torch_and_sees_its_own_route_alone():
    points, _, _ = _products(5)
    net = Refiner(points["both"].shape[1], 3, 8)
    state = {name: value.numpy() for name, value in net.state_dict().items()}
    stacked = torch.from_numpy(np.stack([points[r] for r in ROUTES], 1).astype(np.float32))
    for n, route in enumerate(ROUTES):
        found = Refiner.load(state)(stacked, torch.eye(3)[n].expand(5, -1)).numpy()
        np.testing.assert_allclose(found, refine(state, points, route), atol=1e-5)
        alone = {q: p if q == route or route == "both" else np.full_like(p, 9.0) for q, p in points.items()}
        np.testing.assert_array_equal(refine(state, points, route), refine(state, alone, route))
    assert not Refiner.load(state)(stacked, torch.zeros(5, 3)).any()


def test_the_logistic_regression_finds_the_slope_that_made_the_data():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4000, 2)) * [1, 5] + [3, 0]
    p = 1 / (1 + np.exp(-(x @ [1.0, -0.2] - 2)))
    found = fit_logistic(x, (rng.random(4000) < p).astype(float))
    np.testing.assert_allclose(found, [1.0, -0.2, -2], atol=0.3)
