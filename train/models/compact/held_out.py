"""Held-out windows that the video model draws, in the form that `train.tuning` takes."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from rtdecode.phantom.film.film import ATTRIBUTES
from rtdecode.phantom.film.reader import accuracy
from train.closed_form.refine import ROUTES
from train.closed_form.space import split
from train.models.compact.batches import Clips
from train.models.compact.encoder import CARRIED
from train.models.compact.system import decode, decoder_of, sample
from train.models.compact.trainable import Trainables
from train.tuning import Drawn
from train.work import Arrays

# Clips that are drawn at once, to bound the memory.
_AT_ONCE = 20
# The attributes that a viewer should be able to name.
_SHOWN = ("shape", "color", "background", "texture")


class HeldOutClips:
    """Clips of sessions that neither encoder nor flow was trained on, drawn from the points they lead to.

    They are drawn without carry, and the codec's reconstruction stands for the truth. Guidance is chosen
    first, and then the sharpness of the probabilities. `draw` leaves the last sharpness in the encoder.

    Parameters
    ----------
    system : Trainables
    codec : dict
    clips : Clips
    shift, steps
        Shift and number of steps of the sampler.
    """

    settings: Mapping[str, Sequence[float]] = {
        "guidance": (1.0, 2.0, 3.0, 4.0),
        "sharpness": (1.0, 3.0, 8.0),
    }
    routes: Sequence[str] = ROUTES
    preferred: str = "attributes"

    def __init__(self, system: Trainables, codec: Arrays, clips: Clips, shift: float, steps: int) -> None:
        self._system = system
        self._clips = clips
        self._shift = shift
        self._steps = steps
        self._decoder = decoder_of(codec)
        # All windows are identified among each other.
        self.sessions = np.zeros(len(clips.latents), np.int64)
        self.truths = decode(self._decoder, clips.latents[:].astype(np.float32))
        self.mean_clip = codec["mean_clip"]

    @torch.no_grad()
    def draw(self, route: str, settings: Mapping[str, float]) -> Drawn:
        """Draw every clip from its point by one route. Its doubt is the entropies of its attributes."""
        encoder = self._system.encoder
        encoder.sharpness = settings["sharpness"]
        denoiser = self._system.denoiser(self._decoder, self._shift, settings["guidance"])
        clips = self._clips
        # The same noise for all settings, so that they differ in nothing else.
        rng = np.random.default_rng(0)
        shown: list[NDArray[np.float32]] = []
        doubt: list[NDArray[np.float64]] = []
        for n in range(0, len(clips.latents), _AT_ONCE):
            point = torch.from_numpy(clips.points[route][n : n + _AT_ONCE])
            way = torch.eye(len(ROUTES))[ROUTES.index(route)].expand(len(point), -1)
            noise = rng.standard_normal(clips.latents[n : n + _AT_ONCE].shape, np.float32)
            start = torch.from_numpy(noise)
            blank = torch.zeros_like(start[:, :, -CARRIED:])
            condition, embedding, values = encoder.condition(point, way, blank, torch.zeros(len(point), 1))
            shown.append(sample(denoiser, start, condition, embedding, self._steps).numpy())
            doubt.append(encoder.doubt(values).numpy().astype(np.float64))
        return Drawn(decode(self._decoder, np.concatenate(shown)), np.concatenate(doubt))

    def figures(self, clips: NDArray[np.uint8]) -> dict[str, float]:
        """Return the share of clips off which each attribute is read correctly, and the mean over four."""
        shown = {
            name: [values[n] for n in share.argmax(1)]
            for (name, values), share in zip(ATTRIBUTES.items(), split(self._clips.attributes), strict=True)
        }
        truths = [dict(zip(shown, row, strict=True)) for row in zip(*shown.values(), strict=True)]
        found = {name: float(hits.mean()) for name, hits in accuracy(list(clips), truths).items()}
        return found | {"attributes": float(np.mean([found[name] for name in _SHOWN]))}
