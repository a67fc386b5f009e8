"""What is chosen on the held-out training sessions: how sharply to commit, and what confidence is worth.

The test for a seam is fitted to them as well (`train.models.system`); no other weights are.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from rtdecode.accuracy import correlations, identification_nway
from rtdecode.phantom.film import ATTRIBUTES
from rtdecode.phantom.reader import accuracy
from train.data.conditions import Clips
from train.models.brain import CARRIED
from train.models.codec import ClipDecoder
from train.models.compact import decode, decoder_of, sample
from train.models.flow import Denoiser
from train.models.trainable import System
from train.parts.brain import fit_logistic
from train.parts.refine import ROUTES
from train.parts.space import split
from train.work import Arrays

SHARPNESS = (1.0, 3.0, 8.0)
GUIDANCE = (1.0, 2.0, 3.0, 4.0)
_AT_ONCE = 20
_SHOWN = ("shape", "color", "background", "texture")
# Identification that may be given up for attributes that are legible.
_SLACK = 0.01


@dataclass(frozen=True)
class Calibration:
    """What was found; the sharpness and the confidence lie in the encoder.

    Attributes
    ----------
    guidance : float
    table : list of dict
        Identification and attribute accuracy at each guidance and sharpness that was tried.
    """

    guidance: float
    table: list[dict[str, float]]


def calibrate(system: System, codec: Arrays, held: Clips, shift: float, steps: int) -> Calibration:
    """Choose guidance and sharpness, and fit the confidence.

    First the guidance at the middle sharpness, then the sharpness: the value at which most of shape,
    colour, background and texture are read correctly off the clips, among those whose 2-way
    identification lies within 0.01 of the best. The confidence is a logistic regression of the share of
    2-way comparisons that a clip wins on the entropies of the attributes' probabilities, by route.

    Parameters
    ----------
    system : System
    codec : dict
    held : Clips
        Of sessions that neither encoder nor flow was trained on. All is chosen on the same windows,
        drawn without carry; the codec's reconstruction stands for the truth.
    shift, steps
        Of the sampler.
    """
    decoder = decoder_of(codec)
    truths = decode(decoder, held.latents[:].astype(np.float32))

    def tried(guidance: float, sharpness: float) -> dict[str, float]:
        system.encoder.sharpness = sharpness
        denoiser = system.denoiser(decoder, shift, guidance)
        clips, _ = _draw(system, denoiser, decoder, held, "both", steps)
        row = {"guidance": guidance, "sharpness": sharpness}
        return (
            row | {"identification_2way": float(_wins(clips, truths, codec).mean())} | _legible(clips, held)
        )

    table = [tried(guidance, SHARPNESS[1]) for guidance in GUIDANCE]
    guidance = _best(table)["guidance"]
    rows = [row for row in table if row["guidance"] == guidance]
    more = [tried(guidance, sharpness) for sharpness in SHARPNESS if sharpness != SHARPNESS[1]]
    system.encoder.sharpness = _best(rows + more)["sharpness"]
    denoiser = system.denoiser(decoder, shift, guidance)
    for route in ROUTES:
        clips, doubt = _draw(system, denoiser, decoder, held, route, steps)
        weights = fit_logistic(doubt, _wins(clips, truths, codec))
        system.encoder.get_buffer(f"confidence_{route}").copy_(torch.from_numpy(weights))
    return Calibration(guidance, table + more)


def _best(table: list[dict[str, float]]) -> dict[str, float]:
    best = max(row["identification_2way"] for row in table)
    fair = [row for row in table if row["identification_2way"] >= best - _SLACK]
    return max(fair, key=lambda row: row["attributes"])


@torch.no_grad()
def _draw(
    system: System, denoiser: Denoiser, decoder: ClipDecoder, clips: Clips, route: str, steps: int
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Draw every clip from its point by one route: clips, and the entropies of its attributes."""
    rng, shown, doubt = np.random.default_rng(0), [], []
    for n in range(0, len(clips.latents), _AT_ONCE):
        point = torch.from_numpy(clips.points[route][n : n + _AT_ONCE])
        way = torch.eye(3)[ROUTES.index(route)].expand(len(point), -1)
        start = torch.from_numpy(rng.standard_normal(clips.latents[n : n + _AT_ONCE].shape, np.float32))
        blank = torch.zeros_like(start[:, :, -CARRIED:])
        condition, embedding, values = system.encoder.condition(point, way, blank, torch.zeros(len(point), 1))
        shown.append(sample(denoiser, start, condition, embedding, steps).numpy())
        doubt.append(system.encoder.doubt(values).numpy().astype(np.float64))
    return decode(decoder, np.concatenate(shown)), np.concatenate(doubt)


def _wins(clips: NDArray[np.uint8], truths: NDArray[np.uint8], codec: Arrays) -> NDArray[np.float64]:
    corr = correlations(list(clips[:, :-1]), list(truths[:, :-1]), codec["mean_clip"])
    return identification_nway(corr, ~np.eye(len(clips), dtype=bool), 2)


def _legible(clips: NDArray[np.uint8], held: Clips) -> dict[str, float]:
    """Share of clips off which each attribute is read correctly, and the mean over four of them."""
    shown = {
        name: [values[n] for n in share.argmax(1)]
        for (name, values), share in zip(ATTRIBUTES.items(), split(held.attributes), strict=True)
    }
    truths = [dict(zip(shown, row, strict=True)) for row in zip(*shown.values(), strict=True)]
    found = {name: float(hits.mean()) for name, hits in accuracy(list(clips), truths).items()}
    return found | {"attributes": float(np.mean([found[name] for name in _SHOWN]))}
