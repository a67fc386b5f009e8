"""The video flow: a small three-dimensional U-Net over the latents of a clip, and the sampler around it.

Noisy latents, their noise level, and a map and a vector from the brain encoder come in. `VideoFlow` predicts
from them the velocity, or the clean latents. `Denoiser` makes one step of the sampler of it, with guidance
and the join to the clip before. Export writes the `Denoiser` as ``denoise.onnx``.
"""

from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from train.parts.codecs.patch import to_patches

Layer = TypeVar("Layer", bound=nn.Module)

_GROUPS = 8
_FREQUENCIES = 32
# Power of the noise level by which guidance is held back: it rises as the noise falls.
_RISE = 8
# Latent frames over which a clip that continues the one before moves away from its end.
_JOINED = 6
# Latent frames, rows and columns over which noise is averaged to find its slow part.
_SLOW = (3, 2, 2)
# Share of that end in the first latent frames of all other clips, which dissolve from it.
_DISSOLVING = (1.0, 0.5, 0.0)


class VideoFlow(nn.Module):
    """The velocity of a rectified flow from noise to the latents of a clip, given what the brain says.

    With clean latents x, noise e and level t, the noisy latents are ``(1 - t) x + t e`` and the velocity
    is ``e - x`` (Liu, Gong and Liu 2023, Flow straight and fast, equation 1). The network's own output is
    preconditioned as in Karras et al. 2022 (Elucidating the design space, table 1), adapted to this path: at
    t = 1 the network predicts the clean clip, near t = 0 the noise.

    The first channels of the condition hold the clip as the brain encoder draws it. Both ends of the path are
    taken less that clip, so the network draws what the encoder leaves open, and before any training it shows
    what the encoder draws.

    The attention's layers have the names that they have in diffusers.

    Parameters
    ----------
    channels, frames, height, width : int
        Shape of the latents.
    condition_channels : int
        Channels of the map that is laid beside the latents.
    embedding : int
        Size of the vector that modulates every block.
    widths : (int, int)
        Channels at full and at half resolution, multiples of 8.
    blocks : (int, int)
        Blocks at full resolution, on the way down and again up, and at half resolution.
    heads : int
        Heads of the attention among all places and times at half resolution.
    spread : list of float, optional
        Root mean square of each channel of what the network draws; 1 where not given.
    spans : bool
        Whether the network is also told at which level a step ends, so that it can learn to take large
        steps (`train.distillation`). Before it has learned, that makes no difference.

    Attributes
    ----------
    config : dict
        The parameters, from which the same flow is made again.
    """

    place: Tensor
    deviation: Tensor
    frequencies: Tensor

    def __init__(
        self,
        channels: int = 16,
        frames: int = 9,
        height: int = 8,
        width: int = 12,
        condition_channels: int = 43,
        embedding: int = 128,
        widths: tuple[int, int] = (64, 128),
        blocks: tuple[int, int] = (2, 3),
        heads: int = 4,
        spread: list[float] | None = None,
        *,
        spans: bool = False,
    ) -> None:
        super().__init__()
        self.config: dict[str, Any] = {
            "channels": channels,
            "frames": frames,
            "height": height,
            "width": width,
            "condition_channels": condition_channels,
            "embedding": embedding,
            "widths": widths,
            "blocks": blocks,
            "heads": heads,
            "spread": spread,
            "spans": spans,
        }
        # The order of these modules fixes which random numbers each of them begins with.
        wide, deep = widths
        self.time = nn.Sequential(
            nn.Linear(2 * _FREQUENCIES, embedding), nn.SiLU(), nn.Linear(embedding, embedding)
        )
        self.enter = nn.Conv3d(channels + condition_channels + 3, wide, 1)
        self.before = nn.ModuleList(Block(wide, embedding) for _ in range(blocks[0]))
        self.down = OverSpace(wide, deep, 2, stride=2)
        self.middle = nn.ModuleList(Block(deep, embedding) for _ in range(blocks[1]))
        self.attention = Attention(deep, heads)
        self.up = nn.ConvTranspose3d(deep, wide, (1, 2, 2), stride=(1, 2, 2))
        self.after = nn.ModuleList(Block(wide, embedding) for _ in range(blocks[0]))
        self.norm = nn.GroupNorm(_GROUPS, wide)
        self.leave = _silenced(nn.Conv3d(wide, channels, 1))
        sides = [torch.linspace(-1, 1, n) for n in (frames, height, width)]
        self.register_buffer("place", torch.stack(torch.meshgrid(*sides, indexing="ij"))[None])
        self.register_buffer("deviation", torch.tensor(spread or [1.0] * channels).view(1, -1, 1, 1, 1))
        self.register_buffer("frequencies", torch.logspace(0, 3, _FREQUENCIES))
        # Last, so that the other modules begin with the same random numbers with it and without.
        self.span = _spans(embedding) if spans else None

    def forward(self, noisy: Tensor, level: Tensor, condition: Tensor, embedding: Tensor) -> Tensor:
        """Predict the velocity.

        Parameters
        ----------
        noisy : (batch, channel, frame, row, column)
            Noisy latents.
        level : (batch,)
            Noise level t, from 1 (noise) to above 0.
        condition : (batch, condition channel, frame, row, column)
            Channels beyond these are for the sampler, and the network ignores them.
        embedding : (batch, embedding)
            The pooled condition, see `train.models.compact.encoder.CompactEncoder.condition`.
        """
        clean = self.clean(noisy, level, condition, embedding)
        return (noisy - clean) / level.view(-1, 1, 1, 1, 1)

    def clean(
        self,
        noisy: Tensor,
        level: Tensor,
        condition: Tensor,
        embedding: Tensor,
        until: Tensor | None = None,
    ) -> Tensor:
        """Predict the clean latents. The first arguments are those of `forward`.

        With `until`, (batch,), a flow with spans predicts where the straight line to level `until` of the
        path would arrive at level 0: ``(noisy - clean) / level`` is then the mean velocity in between.
        """
        encoder_clip = self.encoder_clip(condition)
        # Noisy latents are linear in the clean ones, so the encoder's clip is subtracted by its share.
        residual = noisy - (1 - level.view(-1, 1, 1, 1, 1)) * encoder_clip
        keep, gain, scale = preconditioning(level, self.deviation)
        skip = encoder_clip + keep * residual
        return skip + gain * self.network(residual * scale, level, condition, embedding, until).float()

    def encoder_clip(self, condition: Tensor) -> Tensor:
        """Return the part of the clean latents that the network does not draw: the encoder's clip."""
        return condition[:, : self.config["channels"]]

    def network(
        self,
        scaled: Tensor,
        level: Tensor,
        condition: Tensor,
        embedding: Tensor,
        until: Tensor | None = None,
    ) -> Tensor:
        """Return the network's own output, which has about unit variance.

        `scaled` are the noisy latents without `encoder_clip`, scaled to unit variance. The other arguments
        are those of `clean`.
        """
        e = embedding + self.time(self._waves(level))
        if until is not None and self.span is not None:
            e = e + self.span(self._waves(level - until))
        place = self.place.expand(len(scaled), -1, -1, -1, -1)
        visible = condition[:, : self.config["condition_channels"]]
        h = self.enter(torch.cat([scaled, visible, place], 1))
        for block in self.before:
            h = block(h, e)
        k = self.down(h)
        for n, block in enumerate(self.middle):
            k = block(k, e)
            # Attention once, half way, and at half resolution, where it has a quarter of the places.
            if n == len(self.middle) // 2:
                k = self.attention(k)
        h = h + self.up(k)
        for block in self.after:
            h = block(h, e)
        return self.leave(functional.silu(self.norm(h)))

    def _waves(self, level: Tensor) -> Tensor:
        """Turn levels, (batch,), into sines and cosines, (batch, 2 frequency)."""
        angles = level[:, None] * self.frequencies
        return torch.cat([angles.sin(), angles.cos()], 1)


def preconditioning(level: Tensor, spread: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the factors of the noisy latents, of the network's output and of its input.

    The clean latents are ``first * noisy + second * network(third * noisy)``.

    Parameters
    ----------
    level : (batch,)
        Noise level t.
    spread : (1, channel, 1, 1, 1)
        Root mean square of the clean latents, without what is known of them.
    """
    t = level.view(-1, 1, 1, 1, 1)
    total = ((1 - t) * spread) ** 2 + t**2
    return (1 - t) * spread**2 / total, t * spread / total.sqrt(), 1 / total.sqrt()


class Block(nn.Module):
    """Two convolutions over space, and one over time between them, modulated by the embedding.

    The last convolution begins with zeros, so that an untrained block leaves its input as it is.
    """

    def __init__(self, width: int, embedding: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(_GROUPS, width)
        self.norm2 = nn.GroupNorm(_GROUPS, width)
        self.space1 = OverSpace(width, width, 3, padding=1)
        self.time = OverTime(width, width, (3, 1), padding=(1, 0))
        self.space2 = _silenced(OverSpace(width, width, 3, padding=1))
        self.modulate = nn.Linear(embedding, 2 * width)

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        """Add to h, (batch, width, frame, row, column)."""
        gain, offset = self.modulate(functional.silu(embedding))[:, :, None, None, None].chunk(2, 1)
        inner = self.time(self.space1(functional.silu(self.norm1(h))))
        return h + self.space2(functional.silu(self.norm2(inner) * (1 + gain) + offset))


# `OverSpace` and `OverTime` are three-dimensional convolutions with kernels that are flat in time or in
# space. They are written as two-dimensional ones, because ONNX Runtime computes those a quarter faster.
class OverSpace(nn.Conv2d):
    """A convolution over rows and columns, in each frame by itself."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """Map (batch, channel, frame, row, column)."""
        frames = input.shape[2]
        output = super().forward(input.transpose(1, 2).flatten(0, 1))
        return output.unflatten(0, (-1, frames)).transpose(1, 2)


class OverTime(nn.Conv2d):
    """A convolution over frames, at each place by itself."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """Map (batch, channel, frame, row, column)."""
        return super().forward(input.flatten(3)).unflatten(3, input.shape[3:])


class Attention(nn.Module):
    """Self-attention among all places and times."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(_GROUPS, width)
        self.to_q, self.to_k, self.to_v = (nn.Linear(width, width) for _ in range(3))
        self.to_out = nn.Linear(width, width)
        nn.init.zeros_(self.to_out.weight)
        nn.init.zeros_(self.to_out.bias)

    def forward(self, h: Tensor) -> Tensor:
        """Add to h, (batch, width, frame, row, column)."""
        tokens = self.norm(h).flatten(2).transpose(1, 2)
        q, k, v = (
            project(tokens).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for project in (self.to_q, self.to_k, self.to_v)
        )
        mixed = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return h + self.to_out(mixed).transpose(1, 2).reshape(h.shape)


def _silenced(layer: Layer) -> Layer:
    """Set a layer's weights to zero."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def _spans(embedding: int) -> nn.Sequential:
    """Make the layers that are told how far a step goes; they begin with saying nothing."""
    last = _silenced(nn.Linear(embedding, embedding))
    return nn.Sequential(nn.Linear(2 * _FREQUENCIES, embedding), nn.SiLU(), last)


class Denoiser(nn.Module):
    """One step of the sampler, with its schedule inside. This is what ``denoise.onnx`` computes.

    A step goes from level t to level r of an evenly spaced clock: n steps from noise to clean latents are at
    ``1, 1 - 1/n, ..., 0``. The noise levels are those of the clock moved towards noise,
    ``shift t / (1 + (shift - 1) t)`` (Esser et al. 2024, Scaling rectified flow transformers, equation 23).
    Each step is an Euler step.

    The clean latents are guided away from what the flow expects of no brain at all,
    ``brain + (guidance - 1) (brain - null)`` (Ho and Salimans 2022, arXiv:2207.12598, equation 6, for
    the clean latents). Guidance has no effect at level 1, and nearly its full effect from about 0.6 on.
    A flow with spans is told where the step ends. It has learned the guidance with its steps
    (`train.models.compact.student`), and is not guided again.

    A clip that continues the one before is not guided, but joined to it: its first latent frame becomes the
    last video frame of that clip, standing still, and the later latent frames are moved by the same
    difference, less and less. A clip that shows something else dissolves from the one before. This happens
    after the last step, and takes the half second of the clip's first five video frames.

    Parameters
    ----------
    flow : VideoFlow
        The network that predicts the velocity.
    shift : float
        How far the noise levels are moved towards noise; 1 leaves them evenly spaced.
    guidance : float
        Strength of the guidance; 1 for none.
    calm : float
        Share of the noise's slow part, its mean over `_SLOW` latents, that is left out from the start. Slow
        noise becomes layout that the brain did not tell of, and fast noise becomes detail.
    null : (embedding,)
        The embedding without a brain.
    making_up : (channel, channel, k, k)
        See `train.parts.codecs.patch.making_up`.
    detail : float
        Share that is kept by default of what the flow draws beyond the encoder's own clip. On the line from
        the mean of all clips that fit to one clip drawn from them lies the best trade of fidelity for realism
        (Freirich, Michaeli and Meir 2021, A theory of the distortion-perception tradeoff in Wasserstein
        space, arXiv:2107.02555). The encoder's clip stands for the mean.
    """

    null: Tensor
    making_up: Tensor
    joining: Tensor

    def __init__(
        self,
        flow: VideoFlow,
        shift: float,
        guidance: float,
        calm: float,
        null: Tensor,
        making_up: Tensor,
        detail: float = 1.0,
    ) -> None:
        super().__init__()
        self.flow = flow
        self.shift = shift
        self.guidance = guidance
        self.calm = calm
        self.detail = detail
        self.register_buffer("null", null.detach().clone())
        self.register_buffer("making_up", making_up.detach().clone())
        joining = (1 - torch.arange(flow.place.shape[2]) / _JOINED).clamp(min=0)
        self.register_buffer("joining", joining.view(1, 1, -1, 1, 1))

    def forward(
        self,
        latent: Tensor,
        condition: Tensor,
        embedding: Tensor,
        t: Tensor,
        r: Tensor,
        detail: Tensor | None = None,
    ) -> Tensor:
        """Take a step from `t` to `r` of the clock, both (1,) float.

        `detail`, (1,) float from 0 to 1, is another share than the sampler's own.
        """
        now = shifted(t, self.shift)
        after = shifted(r, self.shift)
        slow = slow_part(latent)
        latent = latent - self.calm * (t >= 1).float() * slow
        # The path to the clip stays what it is, and its last step ends nearer to the encoder's.
        share = self.detail if detail is None else detail
        step_detail = 1 - (1 - share) * (r <= 0).float()
        clean = self.clean(latent, now, condition, embedding, after, detail=step_detail)
        next_latent = clean + (latent - clean) * (after / now)
        # Conditions are factors and not branches, because this module is traced into one graph.
        # A flag of the condition has one value everywhere in its channel, so the mean is that value.
        uncut = condition[:, -1].mean((1, 2, 3)).view(-1, 1, 1, 1, 1)
        dissolves = (uncut - self.carried(condition)) * (r <= 0).float()
        return next_latent + dissolves * (self.dissolved(next_latent, condition) - next_latent)

    def dissolved(self, clean: Tensor, condition: Tensor) -> Tensor:
        """Let a clip dissolve from the end of the one before.

        The decoder looks one latent frame back, and each latent frame of the dissolve follows one that is
        mixed in other shares. So each is corrected to be decoded as if the one before had its own shares.
        """
        start = self.start(condition)[:, :, 0]
        frames: list[Tensor] = []
        for n, share in enumerate(_DISSOLVING[: clean.shape[2]]):
            frame = share * start + (1 - share) * clean[:, :, n]
            if n:
                before = share * start + (1 - share) * clean[:, :, n - 1]
                frame = frame + to_patches(before - frames[-1], self.making_up)
            frames.append(frame)
        return torch.cat([torch.stack(frames, 2), clean[:, :, len(frames) :]], 2)

    def clean(
        self,
        latent: Tensor,
        level: Tensor,
        condition: Tensor,
        embedding: Tensor,
        until: Tensor | None = None,
        *,
        guided: bool = True,
        detail: Tensor | float = 1.0,
    ) -> Tensor:
        """Predict the clean latents; arguments as of `VideoFlow.clean`, levels (1,) or (batch,).

        A flow without spans is guided, unless that is not wanted. `detail` is the share of what it draws.
        """
        carried = self.carried(condition)
        if self.flow.span is None and guided and self.guidance != 1:
            brain, null = self._with_and_without(latent, level, condition, embedding)
            # In a session all clips of a call are at one level; in distillation each may be at its own.
            wide = level if len(level) == 1 else level.view(-1, 1, 1, 1, 1)
            # At level 1 the prediction is a mean of many clips, which guidance would only exaggerate.
            strength = (self.guidance - 1) * (1 - wide**_RISE) * (1 - carried)
            clean = brain + strength * (brain - null)
        else:
            ends = level if until is None else until
            rows = len(latent)
            clean = self.flow.clean(latent, level.expand(rows), condition, embedding, ends.expand(rows))
        encoder_clip = self.flow.encoder_clip(condition)
        clean = encoder_clip + detail * (clean - encoder_clip)
        # `joining` falls from 1 at latent frame 0 to 0: a joined clip begins exactly with `start`.
        return clean + carried * self.joining * (self.start(condition) - clean[:, :, :1])

    def _with_and_without(
        self, latent: Tensor, level: Tensor, condition: Tensor, embedding: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Predict the clean latents with the brain, and without one."""
        # The clips with the brain and those without one are predicted in one call, of twice the batch.
        conditions = torch.cat([condition, torch.zeros_like(condition)])
        embeddings = torch.cat([embedding, self.null.expand_as(embedding)])
        twice = torch.cat([latent, latent])
        levels = level.expand(len(twice)) if len(level) == 1 else torch.cat([level, level])
        brain, null = self.flow.clean(twice, levels, conditions, embeddings).chunk(2)
        return brain, null

    def carried(self, condition: Tensor) -> Tensor:
        """Return 1 for clips that continue the one before and 0 for others, (batch, 1, 1, 1, 1)."""
        return condition[:, 2 * self.flow.config["channels"]].mean((1, 2, 3)).view(-1, 1, 1, 1, 1)

    def start(self, condition: Tensor) -> Tensor:
        """Return the latent frame of the last video frame before, (batch, channel, 1, row, column)."""
        return condition[:, -1 - self.flow.config["channels"] : -1, :1]


def slow_part(noise: Tensor) -> Tensor:
    """Return the means of noise over blocks of `_SLOW` latents, in the noise's own shape.

    The last block is shorter where the latent frames are no multiple of its length.
    """
    length, *sides = _SLOW
    remainder = noise.shape[2] % length
    if not remainder:
        return _block_means(noise, _SLOW)
    parts = noise.split([noise.shape[2] - remainder, remainder], 2)
    blocks = [(size, *sides) for size in (length, remainder)]
    means = [_block_means(*pair) for pair in zip(parts, blocks, strict=True) if pair[0].shape[2]]
    return torch.cat(means, 2)


def _block_means(noise: Tensor, block: tuple[int, ...]) -> Tensor:
    return functional.interpolate(functional.avg_pool3d(noise, block), scale_factor=block)


def shifted(u: Any, shift: float) -> Any:
    """Move levels in [0, 1] towards noise."""
    return shift * u / (1 + (shift - 1) * u)


def clock(steps: int) -> list[float]:
    """Return where on the clock so many steps begin, and at last where they end: 1, 1 - 1/n, ..., 0."""
    return [1 - n / steps for n in range(steps + 1)]
