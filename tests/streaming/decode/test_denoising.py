"""Bundles with a denoising stage: steps, noise, carry, null-brain twin, confidence."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rtdecode.bundle import Bundle, write
from rtdecode.bundle.engine import Engine, load
from rtdecode.bundle.graph import Graph
from rtdecode.bundle.runner import Program
from rtdecode.bundle.session import Session
from rtdecode.errors import BundleError, UsageError
from rtdecode.types import Window
from streaming.decode.decoder import Decoder
from tests.refusals import refused
from tests.streaming.bundles import make_bundle
from tests.streaming.windows import window

FITTED = {"fitted_on": "a held-out run"}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("b") / "bundle", steps=4, confidence=FITTED)


def latent(decoder: Decoder, index: int = 0, revision: str = "final", **how: object) -> np.ndarray:
    windowed_at = how.pop("windowed_at", 100.0 + 4 * index)
    data = window(index, revision, fmri=revision != "preview", windowed_at=windowed_at)
    return decoder.decode(data, **how).clip.latent


def edited(bundle: Bundle, folder: Path, **changes: np.ndarray | None) -> Bundle:
    """Copy a bundle with arrays of its golden window changed, or (None) left out."""
    arrays = {k: v for k, v in (bundle.golden() | changes).items() if v is not None}
    np.savez(folder / "golden.npz", **arrays)
    files = {name: bundle.path / name for name in bundle.manifest.files}
    return write(folder / "copy", bundle.manifest, files | {"golden.npz": folder / "golden.npz"})


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 8, 50])
def test_any_number_of_steps_is_taken_with_the_same_weights(bundle: Bundle, steps: int) -> None:
    decoded = Decoder(bundle).decode(window(), steps)
    assert decoded.clip.steps == steps
    assert decoded.clip.frames.shape == (33, 64, 96, 3)
    assert decoded.encoded_at <= decoded.denoised_at <= decoded.first_frame_at <= decoded.last_frame_at


def test_the_bundle_says_how_many_steps_are_usual(bundle: Bundle) -> None:
    assert np.array_equal(latent(Decoder(bundle)), latent(Decoder(bundle), steps=4))
    assert not np.allclose(latent(Decoder(bundle)), latent(Decoder(bundle), steps=2))


@pytest.fixture(scope="module")
def choosing(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle whose denoiser has a port for the share of detail."""
    return make_bundle(tmp_path_factory.mktemp("b") / "choosing", steps=4, detail=0.5)


def test_the_bundle_says_which_share_of_detail_is_usual(choosing: Bundle) -> None:
    decoded = Decoder(choosing).decode(window())
    assert decoded.clip.detail == Decoder(choosing).detail == 0.5
    assert np.array_equal(decoded.clip.latent, latent(Decoder(choosing), detail=0.5))


@pytest.mark.parametrize("steps", [1, 4])
def test_without_detail_a_clip_is_what_the_encoder_told(choosing: Bundle, steps: int) -> None:
    none, some, full = (latent(Decoder(choosing), steps=steps, detail=share) for share in (0.0, 0.5, 1.0))
    encoded = load(choosing).session().open(window(), steps).encode()
    np.testing.assert_allclose(none, encoded["condition"], atol=1e-5)
    assert not np.allclose(none, full)
    np.testing.assert_allclose(some, (none + full) / 2, atol=1e-5)


def test_a_null_brain_keeps_the_share_that_is_asked_for(choosing: Bundle) -> None:
    none, full = (Decoder(choosing).decode(window(), detail=share, null=True) for share in (0.0, 1.0))
    assert not np.allclose(none.clip.latent, full.clip.latent)


def test_a_share_of_detail_is_refused_where_none_can_be_chosen(
    bundle: Bundle, choosing: Bundle, tmp_path: Path
) -> None:
    assert Decoder(bundle).decode(window()).clip.detail is None
    with refused(UsageError, "detail-unsupported", detail=0.5, found="the share is fixed inside its graph"):
        Decoder(bundle).decode(window(), detail=0.5)
    closed = make_bundle(tmp_path / "closed")
    with refused(UsageError, "detail-unsupported", found="it decodes in closed form and draws none"):
        Decoder(closed).decode(window(), detail=0.0)
    for share in (-0.1, 1.5, float("nan")):
        with refused(UsageError, "detail-out-of-range", default=0.5) as caught:
            Decoder(choosing).decode(window(), detail=share)
        assert caught.value.exit_code == 2


def test_the_noise_is_the_windows_own(bundle: Bundle) -> None:
    """Same data, other window: other noise; another decoder, another order: the same clip."""
    decoder = Decoder(bundle, carry=False)
    first = latent(decoder, 0)
    second = latent(decoder, 1)
    assert not np.allclose(first, second)
    again = Decoder(bundle, carry=False)
    assert np.array_equal(second, latent(again, 1))
    assert np.array_equal(first, latent(again, 0))
    other = replace(window(0), run=1)
    assert not np.allclose(first, decoder.decode(other).clip.latent)


def test_a_final_carries_on_from_the_final_before_it(bundle: Bundle) -> None:
    with_carry = Decoder(bundle)
    without = Decoder(bundle, carry=False)
    assert np.array_equal(latent(with_carry, 0), latent(without, 0))
    assert not np.allclose(latent(with_carry, 1), latent(without, 1))


def read_by_encode(engine: Engine, session: Session, cut: Window) -> dict[str, np.ndarray]:
    """What the encode graph is run on for a window."""
    inputs: list[dict[str, np.ndarray]] = []
    graph = engine.graphs["encode"]

    def watch(arrays: dict[str, np.ndarray], stay: set[str]) -> dict[str, np.ndarray]:
        inputs.append({name: np.asarray(values) for name, values in arrays.items()})
        return graph(arrays, stay)

    plan = Program(engine.manifest, engine.graphs | {"encode": watch})
    watched = Session(plan)
    watched.restore(session.snapshot())
    watched.open(cut, 4).encode()
    return inputs[0]


def test_what_is_carried_is_the_last_latent_frame(bundle: Bundle) -> None:
    engine = load(bundle)
    session = engine.session()
    first = window(0)
    opened = session.open(first, 4)
    opened.encode()
    before = np.concatenate(list(opened.latents()), axis=2)
    session.keep(first, opened)
    inputs = read_by_encode(engine, session, window(1))
    assert np.array_equal(inputs["carry"], before[:, :, 8:9])
    assert inputs["carry_mask"] == 1
    assert read_by_encode(engine, session, window(2))["carry_mask"] == 0


def test_after_a_hole_or_in_another_run_nothing_is_carried(bundle: Bundle) -> None:
    decoder = Decoder(bundle)
    without = Decoder(bundle, carry=False)
    latent(decoder, 0)
    assert np.array_equal(latent(decoder, 2), latent(without, 2))
    other = replace(window(3), run=1)
    assert np.array_equal(decoder.decode(other).clip.latent, without.decode(other).clip.latent)


def chain(decoder: Decoder, order: list[tuple[int, str, float]]) -> dict[tuple[int, str], np.ndarray]:
    return {
        (k, revision): latent(decoder, k, revision, windowed_at=windowed_at)
        for k, revision, windowed_at in order
    }


def test_previews_carry_on_by_the_order_of_the_cuts_not_of_the_decoding(bundle: Bundle) -> None:
    preview0 = (0, "preview", 4.0)
    final0 = (0, "final", 8.85)
    preview1 = (1, "preview", 8.0)
    live = chain(Decoder(bundle), [preview0, preview1, final0])
    late = chain(Decoder(bundle), [preview0, final0, preview1])
    assert np.array_equal(live[1, "preview"], late[1, "preview"])
    # A final that was cut first is the better one to carry on from.
    early = chain(Decoder(bundle), [preview0, (0, "final", 7.9), preview1])
    assert not np.allclose(early[1, "preview"], live[1, "preview"])
    # No final carries on from a preview.
    alone = chain(Decoder(bundle), [preview0, (1, "final", 12.85)])
    fresh = chain(Decoder(bundle), [(1, "final", 12.85)])
    assert np.array_equal(alone[1, "final"], fresh[1, "final"])


def test_a_refined_window_carries_on_from_the_refined_one_and_else_from_the_final(bundle: Bundle) -> None:
    finals = [(k, "final", 10.0 + 4 * k) for k in range(6)]
    decoder = Decoder(bundle)
    live = chain(decoder, finals)
    # The signals are the same, so that a refined window 2 that carries on from final 1 is final 2.
    refined = chain(decoder, [(2, "refined", 40.0)])
    assert np.array_equal(refined[2, "refined"], live[2, "final"])
    other = replace(window(3, "refined", windowed_at=40.1), eeg=None)
    changed = decoder.decode(other).clip.latent
    assert not np.allclose(changed, live[3, "final"])
    after = chain(decoder, [(4, "refined", 40.2)])
    assert not np.allclose(after[4, "refined"], live[4, "final"])
    # The finals that follow do not depend on it.
    assert np.array_equal(latent(decoder, 6, windowed_at=41.0), latent_after(Decoder(bundle), finals, 6))


def latent_after(decoder: Decoder, before: list[tuple[int, str, float]], k: int) -> np.ndarray:
    chain(decoder, before)
    return latent(decoder, k, windowed_at=41.0)


def test_the_null_brain_has_the_same_noise_and_no_signal(bundle: Bundle) -> None:
    decoder = Decoder(bundle)
    latent(decoder, 0)
    twin = latent(decoder, 1, null=True)
    nothing = window(1, eeg=False, fmri=False)
    assert np.array_equal(twin, Decoder(bundle, carry=False).decode(nothing).clip.latent)
    # It leaves no trace: the final after it carries on as if it had not been there.
    untouched = Decoder(bundle)
    latent(untouched, 0)
    assert np.array_equal(latent(decoder, 1), latent(untouched, 1))


def test_a_closed_form_bundle_has_a_null_brain_and_no_steps(tmp_path: Path) -> None:
    decoder = Decoder(make_bundle(tmp_path / "bundle"))
    assert decoder.steps == 0
    twin = decoder.decode(window(), null=True).clip
    assert twin.steps == 0
    assert np.array_equal(twin.latent, decoder.decode(window(eeg=False, fmri=False)).clip.latent)
    with refused(UsageError, "steps-unsupported"):
        decoder.decode(window(), 4)


def test_steps_must_be_positive(bundle: Bundle) -> None:
    with refused(UsageError, "steps-not-positive"):
        Decoder(bundle).decode(window(), 0)


def test_confidence_is_told_only_where_it_was_calibrated(bundle: Bundle, tmp_path: Path) -> None:
    sure = Decoder(bundle).decode(window()).clip.confidence
    data = window()
    ports = {name: getattr(data, name)[None] for name in ("eeg", "eeg_mask", "fmri", "fmri_mask")}
    encode = Graph(bundle.read("encode.onnx"), "encode.onnx")
    first = {name: np.zeros(encode.inputs[name][0]) for name in ("carry", "carry_mask")}
    assert sure == pytest.approx(encode(ports | first)["confidence"].item())
    assert abs(sure - 0.5) > 0.001, "or its contrary would pass"
    assert Decoder(make_bundle(tmp_path / "b", steps=4)).decode(window()).clip.confidence is None


def test_carry_and_noise_of_the_golden_window_are_checked(bundle: Bundle, tmp_path: Path) -> None:
    golden = bundle.golden()
    spread = golden["latent"].std()
    Decoder(edited(bundle, tmp_path, latent=golden["latent"] + np.float32(5e-4 * spread)))
    for name, shift in (("latent", 3e-3 * spread), ("confidence", 0.01), ("frames", 0.01), ("noise", 0.1)):
        other = edited(bundle, tmp_path, **{name: golden[name] + np.float32(shift)})
        output = "latent" if name == "noise" else name
        with refused(BundleError, "golden-difference-too-large", output=output):
            Decoder(other)
    with refused(BundleError, "golden-array-missing", missing=["noise"]):
        Decoder(edited(bundle, tmp_path, noise=None))
    with refused(BundleError, "golden-array-missing", missing=["carry"]):
        Decoder(edited(bundle, tmp_path, carry=None))


def test_a_manifest_that_promises_what_the_graphs_lack_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    files = {name: bundle.path / name for name in bundle.manifest.files}
    with refused(BundleError, "wiring-steps-not-positive", steps=0):
        write(tmp_path / "never", replace(bundle.manifest, steps=0), files)
    closed = make_bundle(tmp_path / "closed")
    files = {name: closed.path / name for name in closed.manifest.files}
    with refused(BundleError, "wiring-confidence-output-missing"):
        write(tmp_path / "sure", replace(closed.manifest, confidence=FITTED), files)


def test_an_empty_modality_and_no_carry_share_the_zero_mask(bundle: Bundle) -> None:
    engine = load(bundle)
    ports = read_by_encode(engine, engine.session(), window(fmri=False))
    assert set(ports) == {"eeg", "eeg_mask", "fmri", "fmri_mask", "carry", "carry_mask"}
    for name in ("fmri", "fmri_mask", "carry", "carry_mask"):
        assert not ports[name].any()
    complete = window()
    assert complete.eeg is not None
    assert np.array_equal(ports["eeg"][0], complete.eeg)
