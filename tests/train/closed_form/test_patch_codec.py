"""The patch codec codes large clips by parts, to the same values."""

import numpy as np
import pytest

from train.closed_form import patch_codec


@pytest.mark.parametrize("frames", [9, 6])
def test_large_clips_are_coded_by_parts(frames: int) -> None:
    rng = np.random.default_rng(0)
    clips = rng.integers(0, 255, (5, frames, 16, 24, 3), np.uint8)
    codec = patch_codec.fit_codec(clips, 24)
    latents = patch_codec.encode(codec, clips)
    decoded = patch_codec.decode(codec, latents)
    assert decoded.shape == clips.shape
    # One clip, and one latent frame, at a time.
    parts = patch_codec.fit_codec(list(clips), 24, value_limit=1)
    np.testing.assert_allclose(parts.mean, codec.mean, rtol=1e-6)
    np.testing.assert_allclose(np.abs(parts.basis), np.abs(codec.basis), atol=1e-3)
    latents_by_parts = patch_codec.encode(codec, iter(clips), value_limit=1)
    np.testing.assert_allclose(latents_by_parts, latents, atol=1e-5)
    decoded_by_parts = patch_codec.decode(codec, latents, value_limit=1)
    np.testing.assert_allclose(decoded_by_parts, decoded, atol=1e-12)
