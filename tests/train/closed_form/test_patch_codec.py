"""The patch codec codes large clips by parts, to the same values."""

import numpy as np
import pytest

from train.closed_form import patch_codec


@pytest.mark.parametrize("frames", [9, 6])
def test_large_clips_are_coded_by_parts(frames: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    clips = rng.integers(0, 255, (5, frames, 16, 24, 3), np.uint8)
    codec = patch_codec.fit_codec(clips, 24)
    latents = patch_codec.encode(codec, clips)
    decoded = patch_codec.decode(codec, latents)
    assert decoded.shape == clips.shape
    # One clip, and one latent frame, at a time.
    monkeypatch.setattr(patch_codec, "_VALUES", 1)
    parts = patch_codec.fit_codec(list(clips), 24)
    np.testing.assert_allclose(parts.mean, codec.mean, rtol=1e-6)
    np.testing.assert_allclose(np.abs(parts.basis), np.abs(codec.basis), atol=1e-3)
    np.testing.assert_allclose(patch_codec.encode(codec, iter(clips)), latents, atol=1e-5)
    np.testing.assert_allclose(patch_codec.decode(codec, latents), decoded, atol=1e-12)
