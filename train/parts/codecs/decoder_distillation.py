"""What a tiny video decoder learns from a full one: its losses, its batches, and how near it comes."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rtdecode.scores.accuracy import psnr
from train.parts.codecs.decoded_films import DecodedClips
from train.parts.codecs.tiny_video_decoder import SCALE, TinyVideoDecoder
from train.trainer.loader import Place
from train.trainer.loop import Trainable

Clip = NDArray[np.uint8]

PICTURES = "pictures"
CHANGES = "changes"
_WHITE = 255


class Distilled(Trainable):
    """A tiny decoder and its losses against what a full decoder draws from the same latents.

    - ``pictures``: the mean absolute difference.
    - ``changes``: the same of the changes from row to row, from column to column and from frame to frame, so
      that blur and flicker cost something (in space: Mathieu, Couprie and LeCun 2016, arXiv:1511.05440,
      eq. 6 with alpha 1).
    """

    offered = (PICTURES, CHANGES)

    def __init__(self, decoder: TinyVideoDecoder) -> None:
        super().__init__()
        self.decoder = decoder

    def losses(self, batch: Mapping[str, Tensor], names: Sequence[str]) -> dict[str, Tensor]:
        """Return the losses of ``latents``, from which the full decoder draws ``pictures`` (uint8)."""
        errors = self.decoder.unlimited(batch["latents"]) - batch["pictures"] / _WHITE
        losses: dict[str, Tensor] = {}
        if PICTURES in names:
            losses[PICTURES] = errors.abs().mean()
        if CHANGES in names:
            # Frames, rows and columns. A difference of changes is the change of the difference.
            changes = [errors.diff(dim=axis).abs().mean() for axis in (1, 3, 4)]
            losses[CHANGES] = torch.stack(changes).mean()
        return losses


def draw(clips: DecodedClips, side: int, place: Place) -> dict[str, Tensor]:
    """Draw a batch of clips, and of each the same random part of latents and pictures.

    At its edges a part lacks what lay beyond them. The decoder learns to do with as little there as at the
    edges of a picture.

    Parameters
    ----------
    clips : DecodedClips
        The clips that the batch is drawn from.
    side : int
        Rows and columns of latents; all, where there are fewer.
    place : Place
        Where the batch belongs; it fixes which clips and which parts are drawn.
    """
    latents: list[Tensor] = []
    pictures: list[Tensor] = []
    for row, number in enumerate(place.rows(len(clips)).tolist()):
        draws = place.draws(row)
        down = _part(clips.latents.shape[3], side, draws)
        across = _part(clips.latents.shape[4], side, draws)
        latents.append(torch.from_numpy(clips.latents[number, :, :, down, across]))
        pixels = clips.pictures[number, :, :, _scaled(down), _scaled(across)]
        pictures.append(torch.from_numpy(pixels))
    return {"latents": torch.stack(latents), "pictures": torch.stack(pictures)}


def _part(size: int, side: int, draws: np.random.Generator) -> slice:
    start = int(draws.integers(max(size - side, 0) + 1))
    return slice(start, min(start + side, size))


def _scaled(part: slice) -> slice:
    return slice(SCALE * part.start, SCALE * part.stop)


@torch.inference_mode()
def redrawn(decoder: TinyVideoDecoder, clips: DecodedClips) -> Iterator[Clip]:
    """Decode clips in turns, where the decoder is; yield each as (frame, row, column, 3)."""
    place = next(decoder.parameters())
    for number in range(len(clips)):
        latent = torch.from_numpy(clips.latents[number])[None].to(place)
        frames = torch.cat(list(decoder.in_turns(latent)), dim=1)[0]
        yield _as_clip((_WHITE * frames.float()).round().byte().cpu().numpy())


def truths(clips: DecodedClips) -> Iterator[Clip]:
    """Yield what the full decoder draws, (frame, row, column, 3) a clip."""
    for number in range(len(clips)):
        yield _as_clip(clips.pictures[number])


def mean_clip(clips: DecodedClips) -> Clip:
    """Average clips over all of them, (frame, row, column, 3)."""
    total = np.zeros(clips.pictures.shape[1:], np.float32)
    for number in range(len(clips)):
        total += clips.pictures[number]
    return _as_clip(np.rint(total / len(clips)).astype(np.uint8))


def decibels(decoded: Iterable[Clip], clips: Iterable[Clip]) -> float:
    """Compute the peak signal-to-noise ratio over all pixels of some clips of one size, dB.

    It comes from one mean squared error. The mean of the clips' own ratios would be infinite as soon as one
    clip, such as a black one, is matched.
    """
    errors = 10 ** (-psnr(decoded, clips) / 10)
    with np.errstate(divide="ignore"):
        return float(-10 * np.log10(errors.mean()))


def _as_clip(pictures: NDArray[np.uint8]) -> Clip:
    return np.moveaxis(pictures, 1, -1)
