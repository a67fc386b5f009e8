"""The trained codecs that `benchmarks.codec` compares with the closed form."""

import tempfile
import time
import warnings
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from train.closed_form import patch_codec as patch
from train.models.compact.codec import ClipDecoder, First, Next, to_frames, to_patches

CHANNELS = 16
_BATCH = 6
_RATE = 2e-3
_WARM = 30
_NOISE = 0.25
_AT_ONCE = 25
_REPEATS = 30


def _conv(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, padding_mode="replicate")


def _trunk(inputs: int, width: int, blocks: int) -> nn.ModuleList:
    middle = [
        nn.Sequential(nn.SiLU(), _conv(width, width), nn.SiLU(), _conv(width, width)) for _ in range(blocks)
    ]
    return nn.ModuleList([_conv(inputs, width), *middle])


def _through(trunk: nn.ModuleList, x: Tensor) -> Tensor:
    x = trunk[0](x)
    for block in trunk[1:]:
        x = x + block(x)
    return functional.silu(x)


class NetDecoder(nn.Module):
    """A causal convolutional decoder, alone or as a residual on a linear one.

    Parameters
    ----------
    base : ClipDecoder or None
        The linear decoder, trained on; with it the last layer begins at zero.
    scale : (channel,)
        Standard deviation of the latents.
    width, blocks : int
        Channels and residual blocks at the latents' resolution.
    """

    def __init__(self, base: ClipDecoder | None, scale: Tensor, width: int, blocks: int) -> None:
        super().__init__()
        self.base = base
        self.scale = nn.Buffer(scale[:, None, None])
        self.trunk = _trunk(2 * len(scale), width, blocks)
        self.last = nn.Conv2d(width, patch.SIZE, 1)
        for values in self.last.parameters() if base is not None else ():
            nn.init.zeros_(values)

    def blocks(self, now: Tensor, before: Tensor, start: bool) -> Tensor:
        """Patches of latent frames (n, channel, row / 8, column / 8); at the start only one frame's."""
        both = torch.cat([now / self.scale, before / self.scale], dim=1)
        more = self.last(_through(self.trunk, both))
        if start:
            more = more.unflatten(1, (patch.FRAMES, -1)).mean(1)
        if self.base is None:
            return 0.5 + more
        if start:
            return more + to_patches(now, self.base.first_weight, self.base.first_bias)
        return more + to_patches(torch.cat([now, before], 1), self.base.next_weight, self.base.next_bias)

    def first(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        """Decode latent frame 0, see `ClipDecoder.first`."""
        now = latent[:, :, 0]
        return to_frames(self.blocks(now, torch.zeros_like(now), start=True)), latent

    def next(self, latent: Tensor, cache: Tensor) -> tuple[Tensor, Tensor]:
        """Decode a later latent frame, see `ClipDecoder.next`."""
        return to_frames(self.blocks(latent[:, :, 0], cache[:, :, 0], start=False)), latent

    def clip(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        """Patches of latent frame 0 and of all later ones, (clip, 192, ...) and (clip * n, 768, ...)."""
        now = latent.transpose(1, 2)
        start = self.blocks(now[:, 0], torch.zeros_like(now[:, 0]), start=True)
        return start, self.blocks(now[:, 1:].flatten(0, 1), now[:, :-1].flatten(0, 1), start=False)

    def forward(self, latent: Tensor) -> Tensor:
        """Decode whole clips at once, see `ClipDecoder.forward`."""
        start, rest = (to_frames(found) for found in self.clip(latent))
        return torch.cat([start, rest.unflatten(0, (len(latent), -1)).flatten(1, 2)], dim=1)


class ConvEncoder(nn.Module):
    """A causal convolutional encoder: strided down to patches, the rest at the latents' resolution."""

    def __init__(self, channels: int, width: int, blocks: int) -> None:
        super().__init__()
        self.inner = nn.Conv2d(patch.SIZE, width, 1)
        self.trunk = _trunk(2 * width, width, blocks)
        self.last = nn.Conv2d(width, channels, 1)
        self.even = nn.BatchNorm2d(channels, affine=False)

    def forward(self, now: Tensor, before: Tensor) -> Tensor:
        """Encode patches (n, row / 8, column / 8, 768) and the ones before, grey where there are none."""
        inner = [self.inner(x.movedim(-1, 1) - 0.5) for x in (now, before)]
        return self.even(self.last(_through(self.trunk, torch.cat(inner, 1))))

    def clip(self, found: Tensor) -> Tensor:
        """Encode the patches of clips (clip, n + 1, row / 8, column / 8, 768) to latents."""
        before = torch.cat([torch.full_like(found[:, :1], 0.5), found[:, :-1]], dim=1)
        latent = self(found.flatten(0, 1), before.flatten(0, 1))
        return latent.unflatten(0, found.shape[:2]).transpose(1, 2)

    def encode(self, clips: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Encode clips, see `train.closed_form.patch_codec.encode`."""
        parts = []
        with torch.inference_mode():
            for k in range(0, len(clips), _AT_ONCE):
                parts.append(self.clip(torch.from_numpy(patch.patches(clips[k : k + _AT_ONCE]))).numpy())
        return np.concatenate(parts)


def train_net(
    decoder: NetDecoder,
    encoder: ConvEncoder | None,
    clips: NDArray[np.uint8],
    latent: NDArray[np.float32] | None,
    budget_s: float,
) -> float:
    """Train a decoder on latents, or with its encoder, and return the processor's seconds.

    Half of the clips' latents carry white noise of up to a quarter of their spread.
    """
    modules = nn.ModuleList([decoder] if encoder is None else [decoder, encoder]).train()
    optimizer = torch.optim.Adam(modules.parameters(), _RATE, betas=(0.9, 0.99))
    generator = torch.Generator().manual_seed(0)
    rng = np.random.default_rng(0)
    start = time.process_time()
    step = 0
    while (spent := time.process_time() - start) < budget_s:
        optimizer.param_groups[0]["lr"] = _RATE * min(1, (step + 1) / _WARM) * (1 - spent / budget_s)
        which = rng.integers(len(clips), size=_BATCH)
        target = torch.from_numpy(patch.patches(clips[which]))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            known = None if latent is None else torch.from_numpy(latent[which])
            found = encoder.clip(target) if encoder is not None else known
            assert found is not None
            loss = _loss(decoder, found, target, generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        step += 1
    modules.eval()
    return time.process_time() - start


def _loss(decoder: NetDecoder, latent: Tensor, target: Tensor, generator: torch.Generator) -> Tensor:
    n = len(latent)
    level = _NOISE * torch.rand(n, 1, 1, 1, 1, generator=generator)
    level = level * (torch.rand(n, 1, 1, 1, 1, generator=generator) < 0.5)
    noise = torch.randn(latent.shape, generator=generator) * decoder.scale[:, None]
    start, rest = decoder.clip(latent + level * noise)
    target = target.movedim(-1, 2)
    first = (start.float() - target[:, 0, : start.shape[1]]).square().mean()
    later = (rest.float() - target[:, 1:].flatten(0, 1)).square().mean()
    frames = 1 + rest.shape[1] // start.shape[1] * (len(rest) // n)
    return (first + (frames - 1) * later) / frames


def onnx_speed(decoder: ClipDecoder | NetDecoder, latent: NDArray[np.float32]) -> dict[str, Any]:
    """Export both graphs, decode one clip (channel, n + 1, row / 8, column / 8) through them on one thread.

    Returns
    -------
    dict
        ``clip_ms`` and ``first_frame_ms`` (best of 30), ``kib`` of both files, ``off`` (largest difference).
    """
    decoder.eval()
    # Both have the methods that are exported.
    alike = cast(ClipDecoder, decoder)
    given = latent[None]
    with tempfile.TemporaryDirectory() as name:
        graphs = [_graph(part(alike), Path(name) / f"{k}.onnx") for k, part in enumerate((First, Next))]
        size = sum(path.stat().st_size for path in Path(name).iterdir())
    first = []
    clip = []
    made = []
    for _ in range(_REPEATS):
        start = time.perf_counter()
        frames, cache = (np.asarray(x) for x in graphs[0].run(None, {"latent": given[:, :, :1]}))
        first.append(time.perf_counter() - start)
        made = [frames]
        for t in range(1, given.shape[2]):
            frames, cache = graphs[1].run(None, {"latent": given[:, :, t : t + 1], "cache": cache})
            made.append(np.asarray(frames))
        clip.append(time.perf_counter() - start)
    with torch.inference_mode():
        off = np.abs(decoder(torch.from_numpy(given)).numpy() - np.concatenate(made, 1)).max()
    ms = {"clip_ms": round(1e3 * min(clip), 2), "first_frame_ms": round(1e3 * min(first), 2)}
    return ms | {"kib": round(size / 1024), "off": float(f"{off:.1e}")}


def _graph(part: First | Next, path: Path) -> onnxruntime.InferenceSession:
    ports = ["latent"] if isinstance(part, First) else ["latent", "cache"]
    # Ports that are given one and the same tensor become one port.
    given = tuple(torch.zeros(1, CHANNELS, 1, 8, 12) for _ in ports)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            part.eval(),
            given,
            path,
            input_names=ports,
            output_names=["frames", "cache_next"],
            dynamo=True,
            opset_version=18,
            external_data=False,
            verbose=False,
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
