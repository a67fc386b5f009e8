"""The brain encoder: every window by its route, nothing from a silent modality, carry only where it fits."""

import numpy as np
import onnxruntime
import pytest
import torch

from tests.train.models.compact.small import COMPONENTS, PICTURES, SHAPE, VALUES, small_arrays, small_encoder
from train.closed_form import onsets
from train.closed_form.brain_maps import StemSizes, fit_logistic, fit_maps, place
from train.closed_form.cuts import cut_probabilities
from train.closed_form.refine import ROUTES, Shots, refine
from train.models.compact.encoder import CompactEncoder, routes
from train.models.compact.refiner import Refiner, RefinerSizes, fit_refiner


@pytest.fixture
def encoder() -> CompactEncoder:
    return small_encoder()


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
    masks = torch.tensor([[1.0, 1.0], [1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    assert routes(masks).tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]]


def test_what_an_absent_modality_would_have_said_changes_nothing(encoder):
    window = _window()
    for name in ("eeg", "fmri"):
        outputs = encoder(**_without(window, name))
        other = encoder(**_without(_window(1) | {k: v for k, v in window.items() if name not in k}, name))
        for a, b in zip(outputs, other, strict=True):
            assert torch.equal(a, b)
        assert not torch.allclose(outputs[0], encoder(**window)[0])


def test_without_a_brain_there_is_nothing_but_the_null_tokens(encoder):
    silent = _without(_without(_window(), "eeg"), "fmri")
    condition, embedding, _, brain, by = encoder(**silent)
    assert not condition.any()
    torch.testing.assert_close(embedding[0], encoder.null_eeg + encoder.null_fmri)
    assert brain.tolist() == [[0, 0, 1]]
    assert by.tolist() == [[0, 0]]


def test_a_brain_is_told_by_probabilities_and_one_modality_is_never_inconsistent(encoder):
    encoder.inconsistent[:] = 0
    encoder.get_buffer("neither_both")[:] = 0
    window = _window()
    brains = {name: encoder(**_without(window, name))[3] for name in ("eeg", "fmri")}
    both = encoder(**window)[3]
    assert both[0, 1] > 0
    for brain in (both, *brains.values()):
        assert brain.min() >= 0
        assert float(brain.sum()) == pytest.approx(1, abs=1e-6)
    assert [float(brain[0, 1]) for brain in brains.values()] == [0, 0]


def test_a_missing_volume_is_replaced_by_the_mean_of_the_others(encoder):
    window = _window()
    window["fmri"][:, 2] = window["fmri"][:, [0, 1, 3, 4]].mean(1)
    holed = window | {"fmri": window["fmri"].clone(), "fmri_mask": window["fmri_mask"].clone()}
    holed["fmri"][:, 2] = holed["fmri_mask"][:, 2] = 0
    torch.testing.assert_close(encoder(**holed)[0], encoder(**window)[0], rtol=1e-4, atol=1e-4)


def test_the_clip_before_is_shown_only_if_this_one_goes_on(encoder):
    window = _window() | {"carry_mask": torch.ones(1, 1)}
    condition, *_ = encoder(**window)
    assert condition.shape[1] == 3 * SHAPE[0] + 12
    assert encoder.flow_channels == 15, "the cuts are the last that the flow sees"
    assert not condition[:, 2:5].any(), "the test for a seam says no"
    start = encoder.stand_still(window["carry"])
    assert not condition[:, 17].any(), "it is sure of that, so that the clip begins with a cut"
    encoder.seam_both[-1] = -1.0
    unsure, *_ = encoder(**window)
    assert not unsure[:, 2:5].any()
    assert unsure[:, 17].eq(1).all()
    assert torch.equal(unsure[:, 15:17], start.expand(-1, -1, 3, -1, -1)), "the sampler begins with its end"
    encoder.seam_both[-1] = 9.0
    joined, *_ = encoder(**window)
    assert joined[:, 4].eq(1).all()
    assert torch.equal(joined[:, 2:4], window["carry"][:, :, 1:].expand(-1, -1, 3, -1, -1))
    assert torch.equal(joined[:, 5:], unsure[:, 5:])
    condition, *_ = encoder(**(window | {"carry_mask": torch.zeros(1, 1)}))
    assert not condition[:, 2:5].any()
    assert not condition[:, 15:].any()


def test_cuts_are_told_by_the_eeg_alone_and_lie_beside_their_frames(encoder):
    window = _window()
    condition, *_ = encoder(**window)
    mixed = encoder.mixing.numpy() @ (window["eeg"].numpy() @ encoder.cut_bins.numpy())
    weights = {name: encoder.get_buffer(name).numpy() for name in ("cut_kernel", "cut_offset")}
    expected = cut_probabilities(weights, mixed)
    assert expected.shape == (1, 8)
    assert np.ptp(expected) > 0.1
    laid = condition[:, 11:15]
    assert laid.shape[1:] == (4, *SHAPE[1:])
    assert laid.amax((3, 4)).equal(laid.amin((3, 4))), "the same at every place"
    # Latent frame 0 is the first video frame alone, and the last one ends with the frame after the window.
    series = laid[0, :, :, 0, 0].T.flatten().numpy()
    np.testing.assert_allclose(series, np.concatenate([np.zeros(3), expected[0], [0]]), atol=1e-6)
    blind, *_ = encoder(**_without(window, "eeg"))
    assert not blind[:, 11:15].any()


def test_a_seam_is_told_by_the_cut_the_colours_and_the_likeness(encoder):
    torch.manual_seed(3)
    carry = torch.randn(1, 2, 1, 2, 2)
    cuts = torch.zeros(1, 8)
    cuts[:, 0] = 0.7
    same = encoder.seam_features(cuts, carry.expand(-1, -1, 3, -1, -1), carry)
    torch.testing.assert_close(same, torch.tensor([[0.7, 0.0, 1.0]]))
    lighter = encoder.seam_features(cuts, carry + 2, carry)
    torch.testing.assert_close(lighter[0, 1], torch.tensor(8.0))
    mean = encoder.latent_mean.view(2, 1, 2, 2)
    opposite = encoder.seam_features(cuts, 2 * mean - carry, carry)
    torch.testing.assert_close(opposite[0, 2], torch.tensor(-1.0))


@pytest.mark.full
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_the_exported_graph_is_the_encoder_and_has_its_five_outputs(encoder, tmp_path):
    window = _window() | {"carry_mask": torch.ones(1, 1)}
    outputs = ["condition", "embedding", "confidence", "brain", "brain_by"]
    torch.onnx.export(
        encoder,
        tuple(window.values()),
        tmp_path / "encode.onnx",
        input_names=list(window),
        output_names=outputs,
        dynamo=True,
        opset_version=18,
        verbose=False,
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(tmp_path / "encode.onnx", options)
    assert [port.name for port in session.get_outputs()] == outputs
    for inputs in (window, _without(window, "eeg"), _without(_without(window, "eeg"), "fmri")):
        graph_outputs = session.run(outputs, {name: value.numpy() for name, value in inputs.items()})
        for name, graph_output, other in zip(outputs, graph_outputs, encoder(**inputs), strict=True):
            np.testing.assert_allclose(graph_output, other.detach().numpy(), atol=1e-4, err_msg=name)


def test_pictures_draw_the_clip_and_variations_the_structure_tensor(encoder):
    glimpses = torch.randn(2, SHAPE[1], VALUES)
    clips = encoder.draw(glimpses)
    assert clips.shape == (2, *SHAPE)
    expected = glimpses[1, 2, :PICTURES] @ encoder.pictures + encoder.latent_mean
    torch.testing.assert_close(clips[1, :, 2].flatten(), expected)
    varied = encoder.draw_structure(glimpses)
    assert varied.shape == (2, 6, *SHAPE[1:])
    torch.testing.assert_close(varied[1, :, 2].flatten(), glimpses[1, 2, PICTURES:] @ encoder.varied)
    moved = glimpses.clone()
    moved[:, :, PICTURES:] += 1
    assert torch.equal(encoder.draw(moved), clips)
    moved = glimpses.clone()
    moved[:, :, :PICTURES] += 1
    assert torch.equal(encoder.draw_structure(moved), varied)
    assert encoder.led(torch.randn(2, 3, COMPONENTS)).shape == (2, 3, SHAPE[1], VALUES)


def test_the_onset_of_a_shot_is_told_as_in_numpy(encoder):
    window = _window()
    mixed = encoder.mixing.numpy() @ (window["eeg"].numpy() @ encoder.cut_bins.numpy())
    weights = {name: encoder.get_buffer(name).numpy() for name in ("onset_kernel", "onset_offset")}
    cuts, onset_glimpses = encoder.shots(window["eeg"])
    assert cuts.shape == (1, 8)
    np.testing.assert_allclose(
        onset_glimpses.numpy(), onsets.onset_structure(weights, mixed), rtol=1e-4, atol=1e-4
    )


def test_signals_out_of_all_proportion_are_no_brain_whatever_the_regressions_say(encoder):
    for route in ROUTES:
        weights = encoder.get_buffer(f"neither_{route}")
        weights[:] = 0
        # All but certain that there is something.
        weights[-1] = -20
    encoder.inconsistent[:] = 0
    encoder.inconsistent[-1] = -20
    window = _window()
    *_, brain, by = encoder(**window)
    assert brain[0, 0] > 0.9
    assert by.min() > 0.9
    for size in (1e-12, 1e12):
        for number, name in enumerate(("eeg", "fmri")):
            *_, brain, by = encoder(**(window | {name: size * window[name]}))
            assert torch.isfinite(brain).all()
            assert brain[0].tolist() == pytest.approx([0, 0, 1], abs=0.05)
            assert by[0, number] < 0.05
            assert by[0, 1 - number] > 0.9, "the other one is still read"


def test_weights_of_before_tell_no_modalities_apart():
    arrays = {
        name: value for name, value in small_arrays().items() if not name.endswith(("_middle", "_root"))
    }
    old = CompactEncoder(arrays, 8).eval()
    condition, _, _, brain = old(**_window())
    assert condition.shape[0] == len(brain) == 1
    assert not [name for name in old.state_dict() if name.endswith("_root")]


def test_a_modality_that_is_not_read_is_as_good_as_absent(encoder):
    window = _window()
    expected = encoder(**_without(window, "eeg"))
    encoder.reads[1] = 0
    for a, b in zip(encoder(**window), expected, strict=True):
        assert torch.equal(a, b)


def test_confidence_is_a_probability_and_grows_with_what_the_signals_tell(encoder):
    weights = encoder.get_buffer("confidence_both")
    weights[:] = 0
    weights[:2] = 1
    route = torch.eye(3)[:1]
    glimpses = torch.randn(1, SHAPE[1], VALUES)
    measured = torch.zeros(1, len(weights) - 3)
    little, much = (float(encoder.confidence(gain * glimpses, measured, route)) for gain in (0.2, 2.0))
    assert 0 < little < much < 1


def test_maps_fitted_to_windows_predict_fresh_ones():
    rng = np.random.default_rng(0)
    y = rng.standard_normal((300, 3))
    x = {m: (y @ rng.standard_normal((3, 12)) + rng.standard_normal((300, 12))) for m in ("fmri", "eeg")}
    x = {m: v.astype(np.float32) for m, v in x.items()}
    sizes = StemSizes(1, 1, 1, 0.0, [0.5])
    folds = np.arange(200) // 10
    maps, held_out = fit_maps({m: v[:200] for m, v in x.items()}, y[:200], sizes, folds)
    fresh = place(maps, {m: v[200:] for m, v in x.items()})
    for route in ROUTES:
        r = np.corrcoef(fresh[route].ravel(), y[200:].ravel())[0, 1]
        assert r > 0.8
        assert abs(np.corrcoef(held_out[route].ravel(), y[:200].ravel())[0, 1] - r) < 0.06
    assert np.corrcoef(held_out["both"].ravel(), y[:200].ravel())[0, 1] > max(
        np.corrcoef(held_out[r].ravel(), y[:200].ravel())[0, 1] for r in ("fmri", "eeg")
    )


FRAMES = 3
SIZES = RefinerSizes(48, 0.0, 12, 32, 5e-3, 0.01, 3)


def _products(count: int) -> tuple[dict[str, np.ndarray], np.ndarray, Shots]:
    """Glimpses of which the first two values' product tells the third; nothing tells the fourth."""
    rng = np.random.default_rng(1)
    factors = rng.standard_normal((count, FRAMES, 2))
    truth = np.concatenate(
        [factors, factors[..., :1] * factors[..., 1:], rng.standard_normal((count, FRAMES, 1))], 2
    )
    led = {route: np.zeros_like(truth) for route in ROUTES}
    for route, noise in (("both", 0.1), ("fmri", 0.2), ("eeg", 2.0)):
        led[route][..., :2] = factors + noise * rng.standard_normal(factors.shape)
    # Every latent frame is a shot of its own.
    return led, truth, Shots(np.ones((count, 8), np.float32), np.zeros((count, 8, 4), np.float32))


def _part(led: dict[str, np.ndarray], rows: slice) -> dict[str, np.ndarray]:
    return {route: values[rows] for route, values in led.items()}


def _alike(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.corrcoef(first.ravel(), second.ravel())[0, 1])


def test_the_perceptron_finds_what_linear_maps_cannot_tell():
    led, truth, decoded_shots = _products(1200)
    taught = slice(0, 1000)
    fresh = slice(1000, 1200)
    titles = np.arange(1000) // 10
    net, held_out = fit_refiner(
        _part(led, taught), truth[taught], decoded_shots.part(taught), SIZES, titles, 0
    )
    predicted = {r: refine(net, _part(led, fresh), decoded_shots.part(fresh), r) for r in ROUTES}
    for refined, true in ((predicted["both"], truth[fresh]), (held_out["both"], truth[taught])):
        assert _alike(refined[..., 2], true[..., 2]) > 0.8
        assert abs(_alike(refined[..., 3], true[..., 3])) < 0.25, "what nothing tells is not told"
    correlations = {r: _alike(predicted[r][..., 2], truth[fresh, :, 2]) for r in ROUTES}
    assert correlations["fmri"] > 0.7
    assert correlations["eeg"] < correlations["fmri"]


def test_frames_of_one_shot_are_told_together_and_others_apart():
    """Each frame is told with much noise, and the shot shows the same throughout."""
    rng = np.random.default_rng(2)
    cuts = np.zeros((900, 8), np.float32)
    cuts[::2, 4] = 1
    shots = rng.standard_normal((2, 900, 1, 2))
    truth = np.repeat(shots[0], FRAMES, axis=1)
    # A cut at the fifth video frame leaves the last of three latent frames to the next shot.
    truth[::2, 2:] = shots[1][::2]
    led = {route: truth + 1.5 * rng.standard_normal(truth.shape) for route in ROUTES}
    decoded_shots = Shots(cuts, np.zeros((900, 8, 2), np.float32))
    net, _ = fit_refiner(
        _part(led, slice(600)), truth[:600], decoded_shots.part(slice(600)), SIZES, np.arange(600), 0
    )
    fresh = slice(600, 900)
    errors = {
        name: np.square(refine(net, _part(led, fresh), variant, "both") - truth[fresh])
        for name, variant in (
            ("told", decoded_shots.part(fresh)),
            ("not told", Shots(0 * cuts[fresh], decoded_shots.onsets[fresh])),
        )
    }
    cut = {name: float(error[::2, 2].mean()) for name, error in errors.items()}
    assert cut["told"] < 0.7 * cut["not told"]


def test_an_onset_tells_of_the_frames_of_its_shot_alone():
    rng = np.random.default_rng(4)
    cuts = np.zeros((600, 8), np.float32)
    cuts[:, 4] = 1
    truth = rng.standard_normal((600, FRAMES, 2))
    onset_glimpses = np.zeros((600, 8, 2), np.float32)
    onset_glimpses[:, 4] = truth[:, 2]
    # What would be shown if a shot began elsewhere is of no use.
    onset_glimpses[:, :4] = 9 * rng.standard_normal((600, 4, 2))
    led = {route: np.zeros_like(truth) for route in ROUTES}
    net, _ = fit_refiner(led, truth, Shots(cuts, onset_glimpses), SIZES, np.arange(600), 0)
    predicted = {route: refine(net, led, Shots(cuts, onset_glimpses), route) for route in ROUTES}
    for route in ("both", "eeg"):
        assert _alike(predicted[route][:, 2], truth[:, 2]) > 0.9
        assert abs(_alike(predicted[route][:, 0], truth[:, 0])) < 0.3
    assert abs(_alike(predicted["fmri"][:, 2], truth[:, 2])) < 0.3, "volumes know no onset"


def test_a_title_is_refined_by_a_perceptron_that_never_saw_it():
    """Windows of one title are twins: what they show must not come back, which nothing else tells."""
    rng = np.random.default_rng(3)
    titles = np.arange(120) // 4
    truth = rng.standard_normal((30, FRAMES, 4))[titles]
    keys = rng.standard_normal((30, FRAMES, 4))[titles]
    led = {route: keys + 0.01 * rng.standard_normal(keys.shape) for route in ROUTES}
    decoded_shots = Shots(np.ones((120, 8), np.float32), np.zeros((120, 8, 4), np.float32))
    sizes = RefinerSizes(64, 0.0, 60, 30, 2e-2, 0.0, 2)
    net, held_out = fit_refiner(led, truth, decoded_shots, sizes, titles, 0)
    assert _alike(refine(net, led, decoded_shots, "both"), truth) > 0.9
    assert abs(_alike(held_out["both"], truth)) < 0.5


def test_the_perceptron_in_numpy_is_the_one_in_torch_and_sees_its_own_route_alone():
    led, _, _ = _products(5)
    rng = np.random.default_rng(6)
    decoded_shots = Shots(rng.random((5, 8), np.float32), rng.standard_normal((5, 8, 4)).astype(np.float32))
    net = Refiner(FRAMES, 4, 8)
    net.scale.uniform_(0.5, 2)
    state = {name: value.numpy() for name, value in net.state_dict().items()}
    inputs = [
        np.stack([led[r] for r in ROUTES], 1).astype(np.float32),
        decoded_shots.cuts,
        decoded_shots.onsets,
    ]
    tensors = [torch.from_numpy(value) for value in inputs]
    loaded = Refiner.load(state, FRAMES)
    for n, route in enumerate(ROUTES):
        by_torch = loaded(*tensors, torch.eye(3)[n].expand(5, -1)).numpy()
        np.testing.assert_allclose(by_torch, refine(state, led, decoded_shots, route), atol=1e-5)
        alone = {q: p if q == route or route == "both" else np.full_like(p, 9.0) for q, p in led.items()}
        np.testing.assert_array_equal(
            refine(state, led, decoded_shots, route), refine(state, alone, decoded_shots, route)
        )
    assert not loaded(*tensors, torch.zeros(5, 3)).any()


def test_the_logistic_regression_finds_the_slope_that_made_the_data():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4000, 2)) * [1, 5] + [3, 0]
    p = 1 / (1 + np.exp(-(x @ [1.0, -0.2] - 2)))
    coefficients = fit_logistic(x, (rng.random(4000) < p).astype(float))
    np.testing.assert_allclose(coefficients, [1.0, -0.2, -2], atol=0.3)


def test_a_row_of_weight_two_counts_as_two_rows():
    rng = np.random.default_rng(1)
    x = rng.standard_normal((200, 2))
    y = (rng.random(200) < 0.5).astype(float)
    twice = rng.integers(1, 3, 200)
    weighted = fit_logistic(x, y, 1e-9, weights=twice.astype(float))
    repeated = fit_logistic(np.repeat(x, twice, axis=0), np.repeat(y, twice), 1e-9)
    np.testing.assert_allclose(weighted, repeated, atol=1e-6)
    assert np.abs(weighted - fit_logistic(x, y, 1e-9)).max() > 1e-3
