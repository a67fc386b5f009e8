"""The stages of every decoder, run by the runtime from its own states, draw what the decoder draws."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from export.run import graphs_of, wired
from rtdecode.bundle import ClipGeometry
from rtdecode.bundle.engine import Engine
from rtdecode.bundle.golden import decode
from tests import small
from tests.train.parts.codecs.decoders import tiny_state
from tests.train.targets.models import cogvideox_vae, wan_vae
from train.interface.system import Traced
from train.parts.codecs.full_video_decoder import full_decoder
from train.parts.codecs.tiny_video_decoder import TinyVideoDecoder
from train.parts.codecs.video_decoder import VideoDecoder, frames, stages

_LATENT = (4, 5, 2, 3)
# Pictures of 16 x 24 pixels are brought to this.
_SIZE = (12, 20)


def _tiny(folder: Path) -> VideoDecoder:
    decoder = TinyVideoDecoder(4)
    state = tiny_state(4).items()
    decoder.load_state_dict({name: x for name, x in state if name.startswith("decoder.")})
    return decoder.eval()


_MAKERS: dict[str, Callable[[Path], VideoDecoder]] = {
    "tiny": _tiny,
    "wan": lambda folder: full_decoder(wan_vae(folder)),
    "cogvideox": lambda folder: full_decoder(cogvideox_vae(folder)),
}


class _Encode(nn.Module):
    """Some latents of some volumes."""

    def forward(self, fmri: Tensor) -> Tensor:
        channels, count, rows, columns = _LATENT
        waves = torch.arange(1, 1 + channels * count * rows * columns) * fmri.mean()
        return torch.sin(waves).view(1, *_LATENT)


@pytest.mark.full
@torch.no_grad()
@pytest.mark.parametrize("kind", _MAKERS)
def test_two_windows_of_a_bundle_are_drawn_as_the_decoder_draws_them(kind: str, tmp_path: Path) -> None:
    decoder = _MAKERS[kind](tmp_path)
    draft = replace(small.manifest(modalities=("fmri",)), clip=ClipGeometry(17, *_SIZE, 8.0))
    example = torch.zeros(1, draft.grid.slots, 5)
    listed = [
        Traced("encode", _Encode(), {"fmri": example}, ["latent"]),
        *stages(decoder, _LATENT, _SIZE),
    ]
    graphs = graphs_of(listed)
    manifest = wired(draft, graphs, {stage.name: stage.bindings for stage in listed})
    assert all(state.scope == "window" for state in manifest.states.values())
    models = {name: graph.SerializeToString() for name, graph in graphs.items()}
    engine = Engine(manifest, models, "the test")
    # What one window kept must not reach the next.
    for seed in (1, 2):
        volumes = torch.full_like(example, float(seed))
        decoded = decode(engine, {"fmri": volumes.numpy()}, 0, "the test")["frames"]
        expected = frames(decoder(_Encode()(volumes)), _SIZE).numpy()
        assert decoded.shape == (1, 17, *_SIZE, 3)
        assert np.abs(decoded - expected).max() < 2e-5
