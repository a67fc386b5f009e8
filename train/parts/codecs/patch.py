"""The decoder from latents to frames, latent frame by latent frame, with an explicit cache.

A latent frame codes four video frames in patches of 8 x 8 pixels (`train.closed_form.patch_codec`); latent
frame 0 codes one. (`FrameDecoder` is for codecs whose latent frames hold one video frame each, and has no
cache.) The decoder is linear: every patch of frames is a weighted sum of the latents of the patch
itself and of its neighbours, in this latent frame and in the one before. It is fitted in closed form.
``docs/notebook/2026-11-20-codec.md`` compares it with other decoders.
"""

import math
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from rtdecode.bundle import ClipGeometry
from rtdecode.errors import UsageError
from train.closed_form import patch_codec as patch

_ROWS = patch.SIDE
_COLUMNS = patch.SIDE
_COLOURS = patch.COLOURS
# Values of one video frame of a patch.
_LATENT_FRAME = patch.SIZE // patch.FRAMES
# Clips whose neighbourhoods are in memory at once while the decoder is fitted, and clips in the fit.
_AT_ONCE = 50
_ENOUGH = 1000
# Least spread of a channel and least ridge penalty, so that every fit has a solution.
_FLOOR = 1e-6
_Rows = tuple[Tensor, Tensor]


def check_decodable(clip: ClipGeometry, side: int, turn: int = patch.FRAMES) -> None:
    """Refuse clips that the decoder, or what draws its latents, cannot have.

    Parameters
    ----------
    clip : ClipGeometry
        Frames, rows and columns of a clip.
    side : int
        Rows and columns come in multiples of so many pixels.
    turn : int
        Frames of a latent frame after the first: 4, or 1, which takes clips of any length.

    Raises
    ------
    UsageError
    """
    if turn == patch.FRAMES and (clip.frames <= turn or clip.frames % turn != 1):
        raise UsageError(
            "clip-frames-unsupported",
            "the recipe's clips have {frames} frames ({fps:g} a second), and this system draws one frame and "
            "then four at a time: 5, 9, 13 and so on. Choose a window and a frame rate (data.grid.window, "
            "data.grid.fps) with a multiple of four frames in a window, and leave data.grid.frame_after out.",
            frames=clip.frames,
            fps=clip.fps,
        )
    if clip.height % side or clip.width % side:
        raise UsageError(
            "clip-size-unsupported",
            "the recipe's clips have {rows} x {columns} pixels, and this system draws multiples of {side}. "
            "Give such a size (data.clip).",
            rows=clip.height,
            columns=clip.width,
            side=side,
        )


class ClipDecoder(nn.Module):
    """A linear, causal decoder of latents.

    Parameters
    ----------
    first_weight : (192, channel, k, k)
        Weights from latent frame 0 to one frame of a patch: row, column, colour in C order.
    first_bias : (192,)
        Bias of those outputs, in the units of `next_bias`.
    next_weight : (768, 2 channel, k, k)
        Weights from a latent frame and the one before to four frames of a patch: frame, row, column, colour.
    next_bias : (768,)
        Brightness in [0, 1], like the outputs. The latents at the picture's edge are repeated beyond it.
    """

    def __init__(
        self, first_weight: Tensor, first_bias: Tensor, next_weight: Tensor, next_bias: Tensor
    ) -> None:
        super().__init__()
        # Copies: training them must not reach the arrays they were made from.
        self.first_weight = nn.Parameter(first_weight.clone())
        self.first_bias = nn.Parameter(first_bias.clone())
        self.next_weight = nn.Parameter(next_weight.clone())
        self.next_bias = nn.Parameter(next_bias.clone())

    def first(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        """Decode latent frame 0.

        Parameters
        ----------
        latent : (clip, channel, 1, row / 8, column / 8)
            Latent frame 0 of each clip.

        Returns
        -------
        frames : (clip, 1, row, column, 3)
            In [0, 1].
        cache : (clip, channel, 1, row / 8, column / 8)
            The cache that `next` takes.
        """
        return to_frames(to_patches(latent[:, :, 0], self.first_weight, self.first_bias)), latent

    def next(self, latent: Tensor, cache: Tensor) -> tuple[Tensor, Tensor]:
        """Decode a later latent frame to four frames and the cache for the next; shapes as for `first`."""
        both = torch.cat([latent, cache], dim=1)[:, :, 0]
        return to_frames(to_patches(both, self.next_weight, self.next_bias)), latent

    def forward(self, latent: Tensor) -> Tensor:
        """Decode whole clips at once.

        Parameters
        ----------
        latent : (clip, channel, n + 1, row / 8, column / 8)
            All latent frames of each clip.

        Returns
        -------
        (clip, 4 n + 1, row, column, 3)
        """
        start, _ = self.first(latent[:, :, :1])
        both = torch.cat([latent[:, :, 1:], latent[:, :, :-1]], dim=1).transpose(1, 2).flatten(0, 1)
        following = to_frames(to_patches(both, self.next_weight, self.next_bias))
        return torch.cat([start, following.unflatten(0, (len(latent), -1)).flatten(1, 2)], dim=1)


class FrameDecoder(nn.Module):
    """A linear decoder of latents that hold one video frame each.

    Parameters
    ----------
    weight : (192, channel, k, k)
        Weights from a latent frame to a patch: row, column, colour in C order.
    bias : (192,)
        Brightness in [0, 1], like the outputs. The latents at the picture's edge are repeated beyond it.
    """

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.clone())
        self.bias = nn.Parameter(bias.clone())

    def forward(self, latent: Tensor) -> Tensor:
        """Decode latents (clip, channel, n, row / 8, column / 8) to (clip, n, row, column, 3) in [0, 1]."""
        every_frame = latent.transpose(1, 2).flatten(0, 1)
        frames = to_frames(to_patches(every_frame, self.weight, self.bias))
        return frames.unflatten(0, (len(latent), -1)).flatten(1, 2)


class First(nn.Module):
    """`ClipDecoder.first` as a module, which an export can trace."""

    def __init__(self, decoder: ClipDecoder) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        """Decode latent frame 0 to frames and cache."""
        return self.decoder.first(latent)


class Next(nn.Module):
    """`ClipDecoder.next` as a module, which an export can trace."""

    def __init__(self, decoder: ClipDecoder) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, latent: Tensor, cache: Tensor) -> tuple[Tensor, Tensor]:
        """Decode a later latent frame to frames and cache."""
        return self.decoder.next(latent, cache)


def making_up(decoder: ClipDecoder) -> Tensor:
    """Find the correction with which a latent frame is decoded as if the one before it were another.

    Returns
    -------
    (channel, channel, k, k)
        A convolution such that ``next(z + conv(d), before)`` is near ``next(z, before + d)``. It is found by
        least squares over the values of a patch, with a penalty for what the frames after it would show of
        ``conv(d)``. The effect of the correction on neighbouring patches is ignored.
    """
    channels = decoder.next_weight.shape[1] // 2
    k = decoder.next_weight.shape[-1]
    now, before = decoder.next_weight.detach().double().split(channels, dim=1)
    current = now[:, :, k // 2, k // 2]
    after = before[:, :, k // 2, k // 2]
    correction = torch.linalg.solve(current.T @ current + after.T @ after, current.T @ before.flatten(1))
    return correction.unflatten(1, (channels, k, k)).float().contiguous()


def to_patches(latent: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Map latents (n, channel, row / 8, column / 8) to patches (n, values, row / 8, column / 8)."""
    edge = weight.shape[-1] // 2
    wider = functional.pad(latent, (edge,) * 4, mode="replicate") if edge else latent
    return functional.conv2d(wider, weight, bias)


def to_frames(blocks: Tensor) -> Tensor:
    """Lay patches (n, 192 or 768, row / 8, column / 8) out as frames (n, 1 or 4, row, column, 3), clamped."""
    n, values, rows, columns = blocks.shape
    frames = values // _LATENT_FRAME
    cut = blocks.reshape(n, frames, _ROWS, _COLUMNS, _COLOURS, rows, columns).permute(0, 1, 5, 2, 6, 3, 4)
    return cut.reshape(n, frames, rows * _ROWS, columns * _COLUMNS, _COLOURS).clamp(0, 1)


def load_decoder(state: Mapping[str, Tensor]) -> ClipDecoder:
    """Make a decoder from its `state_dict`."""
    return ClipDecoder(state["first_weight"], state["first_bias"], state["next_weight"], state["next_bias"])


def fit_decoder(
    latent: NDArray[np.float32], clips: NDArray[np.uint8], noise: float = 0.1, reach: int = 1
) -> ClipDecoder:
    """Fit the decoder by least squares. The same data always give the same decoder.

    Fitting on latents with white noise added is, in expectation, a ridge regression with the noise's
    variance as penalty (Bishop 1995, Neural Computation 7, 108), so no noise is drawn.

    Parameters
    ----------
    latent : float32, (clip, channel, n + 1, row / 8, column / 8)
        Latents in the scale in which the decoder shall take them.
    clips : uint8, (clip, 4 n + 1, row, column, 3)
        The clips that they code. Of more than 1000 clips, evenly spaced ones are used.
    noise : float
        The noise on latents that the decoder is best for, in standard deviations of each channel.
    reach : int
        Neighbours that the decoder sees on each side, patches.

    Raises
    ------
    ValueError
        If there is not one latent for each clip.
    """
    even, clips, spread = _sample(latent, clips)
    first = _solve(_opening(even, clips, reach), noise, spread)
    following = _solve(_following(even, clips, reach), noise, np.concatenate([spread, spread]))
    return ClipDecoder(*first, *following)


def fit_frame_decoder(
    latent: NDArray[np.float32], clips: NDArray[np.uint8], noise: float = 0.1, reach: int = 1
) -> FrameDecoder:
    """Fit the decoder of single frames as `fit_decoder` does.

    Parameters
    ----------
    latent : float32, (clip, channel, n, row / 8, column / 8)
        Latents of the clips, with as many latent frames as frames.
    clips : uint8, (clip, n, row, column, 3)
        The true clips that the decoder should draw.
    noise, reach
        See `fit_decoder`.

    Raises
    ------
    ValueError
        If there is not one latent for each clip.
    """
    even, clips, spread = _sample(latent, clips)
    return FrameDecoder(*_solve(_stills(even, clips, reach), noise, spread))


def _sample(
    latent: NDArray[np.float32], clips: NDArray[np.uint8]
) -> tuple[NDArray[np.float32], NDArray[np.uint8], NDArray[np.float64]]:
    """Take evenly spaced clips; return their latents in units of each channel's spread, and that spread."""
    if len(latent) != len(clips) or not len(clips):
        raise ValueError(f"one latent for each clip is needed, found {len(latent)} for {len(clips)} clips.")
    # Rounded up, so that no more clips than that are used.
    stride = -(-len(clips) // _ENOUGH)
    latent = latent[::stride]
    # In these units, the noise and so the penalty are the same for all channels.
    spread = np.maximum(latent.std((0, 2, 3, 4), dtype=np.float64), _FLOOR)
    even = (latent / spread[:, None, None, None]).astype(np.float32)
    return even, clips[::stride], spread


def fit_still(
    ends: NDArray[np.float32], stills: NDArray[np.float32], reach: int = 1
) -> tuple[Tensor, Tensor]:
    """Fit a map from the last two latent frames of a clip to a latent frame 0 that shows its end.

    Parameters
    ----------
    ends : float32, (clip, channel, 2, row / 8, column / 8)
        The last two latent frames.
    stills : float32, (clip, channel, row / 8, column / 8)
        Latent frame 0 of a clip that begins with the last video frame.
    reach : int
        Neighbours that the map sees on each side, patches.

    Returns
    -------
    weight : (channel, 2 channel, k, k)
        The last latent frame's channels come first, as for `ClipDecoder.next`.
    bias : (channel,)
    """
    both = np.concatenate([ends[:, :, 1], ends[:, :, 0]], axis=1)
    spread = np.maximum(both.std((0, 2, 3), dtype=np.float64), _FLOOR)
    even = torch.from_numpy((both / spread[:, None, None]).astype(np.float32))
    target = torch.from_numpy(stills).permute(0, 2, 3, 1).flatten(0, 2)
    return _solve(iter([(_around(even, reach), target)]), 0.0, spread)


def _opening(latent: NDArray[np.float32], clips: NDArray[np.uint8], reach: int) -> Iterator[_Rows]:
    """Yield neighbourhoods in latent frame 0, and the patches of video frame 0."""
    for k in range(0, len(clips), _AT_ONCE):
        target = torch.from_numpy(patch.patches(clips[k : k + _AT_ONCE, :1])[..., :_LATENT_FRAME])
        yield _around(torch.from_numpy(latent[k : k + _AT_ONCE, :, 0]), reach), target.flatten(0, 3)


def _stills(latent: NDArray[np.float32], clips: NDArray[np.uint8], reach: int) -> Iterator[_Rows]:
    """Yield neighbourhoods in each latent frame, and the patches of its one video frame."""
    for k in range(0, len(clips), _AT_ONCE):
        every_frame = torch.from_numpy(latent[k : k + _AT_ONCE]).transpose(1, 2).flatten(0, 1)
        target = torch.from_numpy(patch.patches(clips[k : k + _AT_ONCE], turn=1))
        yield _around(every_frame, reach), target.flatten(0, 3)


def _following(latent: NDArray[np.float32], clips: NDArray[np.uint8], reach: int) -> Iterator[_Rows]:
    """Yield neighbourhoods in each later latent frame and the one before it, and its patches."""
    for k in range(0, len(clips), _AT_ONCE):
        z = torch.from_numpy(latent[k : k + _AT_ONCE])
        both = torch.cat([z[:, :, 1:], z[:, :, :-1]], dim=1).transpose(1, 2).flatten(0, 1)
        target = torch.from_numpy(patch.patches(clips[k : k + _AT_ONCE])[:, 1:])
        yield _around(both, reach), target.flatten(0, 3)


def _around(latent: Tensor, reach: int) -> Tensor:
    """Return the neighbourhood of each patch and a one, (n * row * column, channel * k * k + 1)."""
    wider = functional.pad(latent, (reach,) * 4, mode="replicate") if reach else latent
    rows = functional.unfold(wider, 2 * reach + 1).transpose(1, 2).flatten(0, 1)
    return functional.pad(rows, (0, 1), value=1.0)


def _solve(rows: Iterator[_Rows], noise: float, spread: NDArray[np.float64]) -> tuple[Tensor, Tensor]:
    """Solve for weight (target, channel, k, k) and bias. The rows' inputs are divided by their spread.

    The rows are summed up part by part, so that they are never in memory together.
    """
    gram = torch.zeros(1, 1, dtype=torch.float64)
    cross = torch.zeros(1, 1, dtype=torch.float64)
    for x, y in rows:
        gram = gram + (x.T @ x).double()
        cross = cross + (x.T @ y).double()
    penalty = torch.full((len(gram),), noise**2 + _FLOOR, dtype=torch.float64)
    # The last input is a one: it belongs to the bias, which has no penalty, and its sum counts the rows.
    penalty[-1] = 0
    solved = torch.linalg.solve(gram + torch.diag(penalty * gram[-1, -1]), cross)
    weight = solved[:-1].T.reshape(cross.shape[1], len(spread), -1) / torch.from_numpy(spread)[:, None]
    side = math.isqrt(weight.shape[2])
    return weight.unflatten(2, (side, side)).float().contiguous(), solved[-1].float().contiguous()
