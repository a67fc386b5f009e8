"""The section `pictures`: how like the film clips are, in colours, motion, sharpness and cuts."""

from typing import Any

import numpy as np

from train.evaluation.beside import CONSTANT, DECODER, FLOORS, HELPERS, ORACLE, REVERSED, ROUTES
from train.evaluation.film_scores import (
    PICTURES_CHANCE,
    TOLD_COLOUR,
    FilmWindows,
    Scores,
    look_once,
    pictured,
)
from train.evaluation.section import Decoded, EvaluatedRun, HeldOutWindows, Scorer, Section
from train.metrics.cuts import step_profile

# Of one modality alone, of clips that know colours alone and of those backwards, there are no pictures.
_LEFT_OUT = (*ROUTES, *FLOORS, REVERSED, *HELPERS)
# No signal changes a clip of the true colour.
_OF_COLOUR = (DECODER, ORACLE, CONSTANT)
# Steps after a seam: the seam itself and a second.
_STEPS = 9

# The decoder's mean steps after its seams, the film's, and the number of seams.
_Profile = tuple[Any, Any, int]


class Pictures(Section):
    """See the module."""

    def begin(self, run: EvaluatedRun) -> Scorer:
        """Start to score a run."""
        return _Pictured()


class _Pictured(Scorer):
    chance = PICTURES_CHANCE

    def __init__(self) -> None:
        self._profiles: list[_Profile] = []

    def wants(self, suffix: str) -> bool:
        return suffix == DECODER or suffix not in _LEFT_OUT

    def score(self, suffix: str, decoded: Decoded, windows: HeldOutWindows) -> Scores:
        if suffix == DECODER:
            self._profiles += _profiles(decoded, windows.truth)
        truths = windows.truth.clips
        looks = look_once(decoded.clips[0][: len(truths[0])], len(truths)) if suffix == CONSTANT else None
        scores = pictured(decoded.clips, windows.truth, looks)
        return {name: value for name, value in scores.items() if name != TOLD_COLOUR or suffix in _OF_COLOUR}

    def tables(self) -> dict[str, list[dict[str, Any]]]:
        return {"steps after a seam": _steps(self._profiles)}


def _profiles(decoded: Decoded, truth: FilmWindows) -> list[_Profile]:
    frames = len(truth.clips[0])
    clip_steps, count = step_profile([clip[:frames] for clip in decoded.clips], truth.cuts, _STEPS)
    film, _ = step_profile(truth.clips, truth.cuts, _STEPS)
    return [(clip_steps, film, count)] if count else []


def _steps(profiles: list[_Profile]) -> list[dict[str, Any]]:
    """List how much the picture changes at a seam and from frame to frame after it, in grey levels."""
    if not profiles:
        return []
    clip_steps, film, counts = zip(*profiles, strict=True)
    pairs = zip(
        np.average(clip_steps, axis=0, weights=counts), np.average(film, axis=0, weights=counts), strict=True
    )
    return [{"step": n, "clips": float(a), "film": float(b)} for n, (a, b) in enumerate(pairs)]
