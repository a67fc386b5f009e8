"""The tiny decoder has the published layout, and decodes in turns what it decodes at once."""

import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from rtdecode.errors import UsageError
from tests.refusals import refused
from tests.train.parts.codecs.decoders import tiny_state
from train.parts.codecs.tiny_video_decoder import TinyVideoDecoder, from_published
from train.parts.codecs.video_decoder import cache_bytes, cache_shapes

_LICENCE = "MIT"
# Latents of 13 frames of 16 x 24 pixels.
_LATENT = (16, 4, 2, 3)


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    """Return random weights under the published names, encoder and decoder."""
    return tiny_state()


@pytest.fixture(scope="module")
def decoder(state: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> TinyVideoDecoder:
    path = tmp_path_factory.mktemp("weights") / "taew2_1.pth"
    torch.save(state, path)
    published, source = from_published(path, _LICENCE)
    assert source.licence == _LICENCE
    return published


def test_every_weight_is_where_it_was_published(decoder: TinyVideoDecoder, state: dict[str, Tensor]) -> None:
    loaded = decoder.state_dict()
    assert loaded.keys() == {name for name in state if name.startswith("decoder.")}
    assert all(torch.equal(value, state[name]) for name, value in loaded.items())


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"decoder.24.weight": torch.zeros(3)}, "1 left over: decoder.24.weight"),
        ({"decoder.4.conv.2.bias": None}, "1 missing: decoder.4.conv.2.bias"),
        ({"decoder.1.weight": None}, "1 missing: decoder.1.weight"),
        # As in the weights for Wan 2.2, which draw patches of 2 x 2 pixels.
        ({"decoder.22.weight": torch.zeros(12, 64, 3, 3)}, "1 of another shape or kind: decoder.22.weight"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(
    state: dict[str, Tensor], tmp_path: Path, change: dict[str, Tensor | None], fault: str
) -> None:
    changed = {name: value for name, value in {**state, **change}.items() if value is not None}
    save_file(changed, tmp_path / "w.safetensors")
    file = tmp_path / "w.safetensors"
    with refused(UsageError, "weights-module-mismatch", source=file, faults=re.compile(re.escape(fault))):
        from_published(tmp_path / "w.safetensors", _LICENCE)


def test_weights_need_a_licence(state: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(state, tmp_path / "w.pth")
    with refused(UsageError, "weights-missing-licence", path=tmp_path / "w.pth"):
        from_published(tmp_path / "w.pth", " ")


@torch.no_grad()
def test_it_computes_what_the_published_layers_say(
    decoder: TinyVideoDecoder, state: dict[str, Tensor]
) -> None:
    latent = _latents(1)
    # Far beyond the limit, so that the squashing is seen.
    latent[0, 0] *= 20
    expected = _published(state, latent)
    decoded = decoder(latent)
    assert decoded.shape == (1, 13, 3, 16, 24)
    assert (decoded - expected).abs().max() < 1e-5
    # Something is drawn, and not all of it is cut off at black and white.
    assert ((decoded > 0) & (decoded < 1)).float().mean() > 0.5
    assert decoded.std() > 0.01


@torch.no_grad()
def test_turns_give_what_the_whole_clip_gives(decoder: TinyVideoDecoder) -> None:
    latent = _latents(2)
    at_once = decoder(latent)
    turns = list(decoder.in_turns(latent))
    assert [turn.shape[1] for turn in turns] == [1, 4, 4, 4]
    assert (torch.cat(turns, dim=1) - at_once).abs().max() < 1e-5
    # The memory has a part in it.
    _, cache = decoder.first(latent[:, :, :1])
    alone, _ = decoder.next(latent[:, :, 1:2], {name: torch.zeros_like(x) for name, x in cache.items()})
    assert (alone - turns[1]).abs().max() > 1e-3


@torch.no_grad()
def test_sessions_that_take_turns_do_not_disturb_each_other(decoder: TinyVideoDecoder) -> None:
    first, second = _latents(2).split(1)
    both = list(zip(decoder.in_turns(first), decoder.in_turns(second), strict=True))
    assert torch.equal(torch.cat([turn for turn, _ in both], dim=1), torch.cat([*decoder.in_turns(first)], 1))
    assert torch.equal(
        torch.cat([turn for _, turn in both], dim=1), torch.cat([*decoder.in_turns(second)], 1)
    )


def test_it_keeps_nine_frames_of_features(decoder: TinyVideoDecoder) -> None:
    shapes = cache_shapes(decoder, (16, 9, 60, 90))
    assert sorted(shapes.values()) == sorted(
        [(1, 256, 60, 90)] * 3 + [(1, 128, 120, 180)] * 3 + [(1, 64, 240, 360)] * 3
    )


@pytest.mark.parametrize(
    ("columns", "dtype", "expected"),
    [
        (90, torch.float32, 116_121_600),
        (90, torch.float16, 58_060_800),
        (90, torch.bfloat16, 58_060_800),
        (104, torch.float32, 134_184_960),
        (104, torch.bfloat16, 67_092_480),
    ],
)
def test_a_session_keeps_so_many_bytes_at_published_sizes(
    columns: int, dtype: torch.dtype, expected: int
) -> None:
    """33 frames of 480 x 720 and of 480 x 832; what is kept has the precision of the decoder."""
    with torch.device("meta"):
        decoder = TinyVideoDecoder().to(dtype)
    assert cache_bytes(decoder, (16, 9, 60, columns)) == expected


@torch.no_grad()
def test_the_first_frame_leaves_before_the_others_are_decoded(decoder: TinyVideoDecoder) -> None:
    latent = _latents(1)
    at_once = decoder(latent)
    frame_counts: list[int] = []
    last = decoder.decoder["22"]
    hook = last.register_forward_hook(lambda layer, inputs, outputs: frame_counts.append(len(outputs)))
    turns = decoder.in_turns(latent)
    first = next(turns)
    assert frame_counts == [1]
    # What comes later has no part in it.
    latent[:, :, 1:] = torch.nan
    again = next(decoder.in_turns(latent))
    hook.remove()
    assert torch.equal(first, again)
    assert (first - at_once[:, :1]).abs().max() < 1e-5


@torch.no_grad()
def test_without_limits_it_draws_beyond_black_and_white(decoder: TinyVideoDecoder) -> None:
    latent = 3 * _latents(1)
    free = decoder.unlimited(latent)
    assert free.min() < 0
    assert torch.equal(free.clamp(0, 1), decoder(latent))


def _latents(clips: int) -> Tensor:
    return torch.randn(clips, *_LATENT, generator=torch.Generator().manual_seed(1))


def _published(state: dict[str, Tensor], latent: Tensor) -> Tensor:
    """Decode one clip layer by layer in the published order, with a list of frames in place of a batch."""

    def conv(x: Tensor, name: str) -> Tensor:
        weight = state[f"decoder.{name}.weight"]
        return functional.conv2d(x, weight, state.get(f"decoder.{name}.bias"), padding=weight.shape[-1] // 2)

    frames = [functional.relu(conv(3 * torch.tanh(x / 3), "1")) for x in latent.unbind(2)]
    for start, growth in ((3, 1), (9, 2), (15, 2)):
        for block in range(start, start + 3):
            before = torch.zeros_like(frames[0])
            refined = []
            for frame in frames:
                x = functional.relu(conv(torch.cat([frame, before], 1), f"{block}.conv.0"))
                x = conv(functional.relu(conv(x, f"{block}.conv.2")), f"{block}.conv.4")
                refined.append(functional.relu(x + frame))
                before = frame
            frames = refined
        frames = [functional.interpolate(x, scale_factor=2) for x in frames]
        frames = [part for x in frames for part in conv(x, f"{start + 4}.conv").chunk(growth, 1)]
        frames = [conv(x, f"{start + 5}") for x in frames]
    pictures = [conv(functional.relu(x), "22").clamp(0, 1) for x in frames]
    return torch.stack(pictures[3:], 1)
