"""The training batches of the video flow: clips, and what signals tell of them, with its errors.

`batch` draws clips at random, and leaves out or adds to each what a session may lack or have: a modality, the
clip before. Every random number depends on the place of the batch alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from train.closed_form.refine import ROUTES
from train.data.shards import Shards
from train.models.compact.encoder import CARRIED
from train.models.compact.flow import shifted
from train.trainer.loader import Place

# Least level of noise in training; below it nothing is left to be learned.
_LEAST_LEVEL = 0.01


@dataclass(frozen=True)
class Clips:
    """Clips in the order they were shown, session after session.

    Attributes
    ----------
    latents : float16 or float32, (clip, channel, latent frame, row, column)
        Scaled latents, in memory or on disk.
    glimpses : dict
        Route -> what the signals tell of each frame, held out and refined, (clip, latent frame, value).
    cuts_told : float32, (clip, frame)
        Held-out probabilities of a cut at each frame, from the EEG.
    joined : bool, (clip,)
        Whether another clip of the same film comes before.
    cut : bool, (clip,)
        Whether the clip begins with a cut.
    kinds : str, (clip,)
        The kind of film.
    sessions : int, (clip,)
        Number of the session.
    """

    latents: NDArray[Any] | Shards
    glimpses: dict[str, NDArray[np.float32]]
    cuts_told: NDArray[np.float32]
    joined: NDArray[np.bool_]
    cut: NDArray[np.bool_]
    kinds: NDArray[np.str_]
    sessions: NDArray[np.int64]

    @cached_property
    def rows(self) -> list[NDArray[np.int64]]:
        """The rows of each kind of film."""
        return [np.flatnonzero(self.kinds == kind) for kind in np.unique(self.kinds)]


@dataclass(frozen=True)
class Mixture:
    """How a batch is put together.

    Attributes
    ----------
    dropout : list of float
        Probabilities of the routes both, fmri and eeg, and of no signal.
    carry : float
        Probability that the clip before is known, where there is one.
    carry_noise : float
        Largest standard deviation of the noise on the clip before.
    largest : float
        Share of the batch at noise level 1. Without it the sampler's first step draws nothing.
    kinds : dict
        Kind of film -> its share of the batches, against those of the other kinds that there are. A kind that
        is not named has the share 1.
    """

    dropout: list[float]
    carry: float
    carry_noise: float
    largest: float
    kinds: dict[str, float]


@dataclass(frozen=True)
class Batch:
    """The tensors of one batch, named as in `CompactEncoder.condition` and `VideoFlow`.

    `seams` is None where the encoder that conditions on them is the participant's own.
    """

    latents: Tensor
    glimpses: Tensor
    cuts: Tensor
    route: Tensor
    carry: Tensor
    carry_mask: Tensor
    noise: Tensor
    level: Tensor
    seams: Tensor | None = None

    def to(self, device: torch.device, *, non_blocking: bool = False) -> "Batch":
        """Send all tensors to a device."""
        tensors = {name: tensor for name, tensor in vars(self).items() if tensor is not None}
        return Batch(**{n: tensor.to(device, non_blocking=non_blocking) for n, tensor in tensors.items()})


def batch(clips: Clips, mixture: Mixture, shift: float, place: Place) -> Batch:
    """Draw one batch. It depends on its place and the data alone, so that a resumed run sees the same.

    Parameters
    ----------
    clips : Clips
        The clips that rows are drawn from.
    mixture : Mixture
        How often a modality or the clip before is left out, and the share at noise level 1.
    shift : float
        See `train.models.compact.flow.Denoiser`.
    place : Place
        Where the batch belongs, which seeds its draws and says its size.
    """
    rows = []
    for n in range(place.size):
        rng = place.draws(n)
        row = _row(clips, mixture, rng)
        noise = rng.standard_normal(row[0].shape, np.float32)
        largest = n < round(mixture.largest * place.size)
        level = 1.0 if largest else max(shifted(rng.random(), shift), _LEAST_LEVEL)
        rows.append((*row, noise, level))
    columns = (np.stack(column) for column in zip(*rows, strict=True))
    return Batch(*(torch.from_numpy(np.ascontiguousarray(c, np.float32)) for c in columns))


def batch_of(
    everybody: Mapping[str, Clips], seams: Mapping[str, Tensor], mixture: Mixture, shift: float, place: Place
) -> Batch:
    """Draw one batch of the participant of its place.

    Parameters
    ----------
    everybody : mapping
        Name -> clips.
    seams : mapping
        Name -> `CompactEncoder.seams` of the participant's encoder.
    mixture, shift, place
        See `batch`.
    """
    clips = everybody[place.participant]
    return replace(batch(clips, mixture, shift, place), seams=seams[place.participant])


def _row(clips: Clips, mixture: Mixture, rng: np.random.Generator) -> Any:
    """Draw one clip, in the order of `Batch`: from the latents to whether the clip before is known."""
    # Every draw comes from one generator, so the order of these lines decides what a place holds.
    shares = np.array([mixture.kinds.get(str(clips.kinds[rows[0]]), 1.0) for rows in clips.rows])
    kind = clips.rows[rng.choice(len(shares), p=shares / shares.sum())]
    n = int(kind[rng.integers(len(kind))])
    which = int(rng.choice(4, p=mixture.dropout))
    route = np.eye(4)[which, :3]
    route_glimpses = clips.glimpses[ROUTES[min(which, 2)]][n]
    # The last of the four cases has no signal: its route is zeros, and so are its glimpses.
    glimpses = np.zeros_like(route_glimpses) if which == 3 else route_glimpses
    has_carry = clips.joined[n] and rng.random() < mixture.carry
    latents = clips.latents[n]
    carry = np.zeros_like(latents[:, -CARRIED:], np.float32)
    if has_carry:
        spread = rng.uniform(0, mixture.carry_noise)
        carry[:] = clips.latents[n - 1, :, -CARRIED:]
        carry[:, -1] += spread * rng.standard_normal(carry[:, -1].shape, dtype=np.float32)
    return latents, glimpses, clips.cuts_told[n], route, carry, [float(has_carry)]
