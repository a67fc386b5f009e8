"""The bundle of random weights at the published shapes, written at small ones."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.full_size_bundle import bundle_of, layered, sized
from benchmarks.gpu_stages import case_of
from rtdecode.bundle import golden, load
from streaming.decode.decoder import Decoder


@pytest.mark.full
@pytest.mark.parametrize("backbone", ["wan", "cogvideox"])
def test_a_bundle_decodes_what_torch_decodes(backbone: str, tmp_path: Path) -> None:
    case = sized(case_of(backbone, "tiny", "cpu"), "32x48")
    bundle = bundle_of(case, tmp_path / "bundle", 2)
    assert load(bundle.path).digest == bundle.digest
    # The decoder refuses a bundle that differs from what its golden window expects, which is torch's.
    decoder = Decoder(bundle)
    assert decoder.differences.keys() == {"latent", "frames"}
    assert decoder.differences["latent"] < 1e-4
    clip = decoder.decode(golden.window(bundle)).clip
    assert clip.frames.shape == (33, 32, 48, 3)
    assert np.ptp(clip.frames) > 0
    assert bundle.manifest.built["decode_next"].outputs["frames"].dtype == "uint8"
    # CogVideoX counts its steps itself.
    assert decoder.numbers_of_steps == ({1, 2, 4} if backbone == "wan" else None)


def test_fewer_layers_and_other_sizes_leave_all_other_shapes_as_they_are() -> None:
    case = case_of("cogvideox", "full", "cpu")
    assert layered(case, None) == case
    smaller = layered(sized(case, "64x96"), 2)
    assert smaller.latent == (16, 9, 8, 12)
    assert (smaller.sizes.layers, smaller.encoder.fmri.depth, smaller.encoder.eeg.depth) == (2, 2, 2)
    assert replace(smaller.sizes, layers=case.sizes.layers) == case.sizes
    assert smaller.encoder.fmri.width == case.encoder.fmri.width
    assert smaller.signals == case.signals
