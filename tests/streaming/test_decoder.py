from pathlib import Path

import numpy as np
import pytest

from rtdecode.bundle import load, write
from rtdecode.errors import BundleError
from streaming.decoder import Decoder, NonFiniteError
from tests.streaming.bundles import LABELS, damage, make_bundle
from tests.streaming.windows import window


def test_a_clip_has_the_frames_of_its_latent(tmp_path: Path) -> None:
    decoder = Decoder(make_bundle(tmp_path / "bundle"))
    decoded = decoder.decode(window())
    assert decoded.clip.frames.shape == (33, 64, 96, 3)
    assert decoded.clip.frames.dtype == np.uint8
    assert decoded.clip.scores is None
    low = 1 / (1 + np.exp(-decoded.clip.latent[0, 0, :, 0, 0]))
    shown = decoded.clip.frames[:, 0, 0, 0] / 255
    assert np.allclose(shown[0], low[0], atol=0.003)
    assert np.allclose(shown[1:].reshape(8, 4), low[1:, None], atol=0.003)
    assert decoded.started_at <= decoded.encoded_at <= decoded.first_frame_at <= decoded.last_frame_at


def test_an_absent_modality_is_zeros_under_a_zero_mask(tmp_path: Path) -> None:
    decoder = Decoder(make_bundle(tmp_path / "bundle"))
    full, without = window(), window(fmri=False)
    zeroed = window()
    zeroed.fmri[:], zeroed.fmri_mask[:] = 0, False
    same = decoder.decode(without).clip.latent
    assert np.array_equal(same, decoder.decode(zeroed).clip.latent)
    assert not np.allclose(same, decoder.decode(full).clip.latent)


def test_scores_carry_the_labels(tmp_path: Path) -> None:
    decoder = Decoder(make_bundle(tmp_path / "bundle", eeg=False, labels=LABELS))
    scores = decoder.decode(window(eeg=False)).clip.scores
    assert scores is not None
    assert list(scores) == LABELS
    assert sum(scores.values()) == pytest.approx(1)


def test_a_bundle_that_decodes_otherwise_than_promised_is_refused(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    golden = bundle.golden()
    golden["latent"] = golden["latent"] + 0.01
    np.savez(tmp_path / "golden.npz", **golden)
    files = {name: bundle.path / name for name in bundle.manifest.files}
    other = write(tmp_path / "other", bundle.manifest, files | {"golden.npz": tmp_path / "golden.npz"})
    with pytest.raises(BundleError, match="golden"):
        Decoder(other)


def test_a_changed_byte_is_refused(tmp_path: Path) -> None:
    path = damage(make_bundle(tmp_path / "bundle"), tmp_path / "damaged")
    with pytest.raises(BundleError, match=r"encode\.onnx"):
        load(path)


def test_a_file_that_is_no_graph_is_refused(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    (tmp_path / "bundle" / "decode_next.onnx").write_bytes(b"no graph")
    with pytest.raises(BundleError, match=r"decode_next\.onnx"):
        Decoder(bundle)


def test_a_missing_stage_is_refused(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    bundle.manifest.stages["decode_first"] = None
    with pytest.raises(BundleError, match="decode_first"):
        Decoder(bundle)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("steps", [0, 2])
def test_a_window_of_numbers_that_are_none_gives_no_clip_and_leaves_no_trace(
    value: float, steps: int, tmp_path: Path
) -> None:
    bundle = make_bundle(tmp_path / "bundle", steps=steps)
    decoder, other = Decoder(bundle), Decoder(bundle)
    bad = window(1)
    assert bad.eeg is not None
    bad.eeg[0, 7] = value
    for each in (decoder, other):
        each.decode(window(0))
    with pytest.raises(NonFiniteError, match="window 1 of run 0 has no clip"):
        decoder.decode(bad)
    found, expected = (each.decode(window(2)).clip.latent for each in (decoder, other))
    assert np.array_equal(found, expected)
