"""The section `start`: what drawing adds to the latents that it starts from.

Of a system that draws over latents (`train.interface.system.Condition.start_level` between 0 and 1), clips
are held against these latents drawn as they are: ``start_gain``, by how many dB of PSNR they come nearer to
the film; ``condition_gain_start``, what the latents alone gain over the clip without a brain; and ``frechet``
and ``frechet_start``, how far the vectors of both lie from those of the film as two normal distributions.
PSNR favours blurred pictures, and that distance does not. Of any other system there are no figures.
"""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from rtdecode.scores.accuracy import psnr
from train.evaluation.beside import CONSTANT, DECODER, NULL, START
from train.evaluation.film_scores import Matrix, Scores
from train.evaluation.reconstruct import draws_over_start
from train.evaluation.result import Figures
from train.evaluation.section import Decoded, EvaluatedRun, HeldOutWindows, Scorer, Section
from train.interface.system import System
from train.metrics import fvd

GAIN = "start_gain"
OF_START = "condition_gain"
DISTANCE = "frechet"
# Whose distance from the film is computed.
_FAR = (DECODER, START)


class DrawnOverStart(Section):
    """See the module."""

    def begin(self, run: EvaluatedRun) -> Scorer:
        """Start to score a run."""
        return _Drawn(run.system)


class _Drawn(Scorer):
    chance: ClassVar[Mapping[str, float | None]] = {GAIN: 0.0, OF_START: 0.0}

    def __init__(self, system: System) -> None:
        self._system = system
        self._is_scored = False
        self._quality: dict[str, Matrix] = {}
        # Of each suffix, the vectors of its clips in each session.
        self._vectors: dict[str, list[NDArray[np.floating]]] = {}
        self._film: list[NDArray[np.floating]] = []

    def wants(self, suffix: str) -> bool:
        return self._is_scored and suffix in (*_FAR, NULL, CONSTANT)

    def film(self, windows: HeldOutWindows) -> None:
        aims = self._system.targets(windows.truth.clips)
        self._is_scored = aims is not None and draws_over_start(self._system, windows.inputs)
        self._quality = {}
        if aims is not None:
            self._film.append(aims)

    def score(self, suffix: str, decoded: Decoded, windows: HeldOutWindows) -> Scores:
        # Without the frame after the window.
        frames = len(windows.truth.clips[0])
        clips = [clip[:frames] for clip in decoded.clips]
        if suffix != CONSTANT:
            self._quality[suffix] = psnr(clips, windows.truth.clips)
        if suffix != NULL:
            vectors = self._system.targets(np.stack(clips))
            assert vectors is not None, "the film has vectors"
            self._vectors.setdefault(suffix, []).append(vectors)
        return {}

    def stand_in(self, suffix: str, decoded: Decoded, windows: HeldOutWindows) -> Scores:
        return {}

    def close(self, windows: HeldOutWindows, scores: Mapping[str, Scores]) -> dict[str, Scores]:
        if not self._is_scored:
            return {}
        weights = np.ones(len(windows.truth.clips))
        start = self._quality[START]
        return {
            DECODER: {GAIN: (self._quality[DECODER] - start, weights)},
            START: {OF_START: (start - self._quality[NULL], weights)},
        }

    def figures(self, units: NDArray[np.int64]) -> Figures:
        if START not in self._vectors:
            return {}
        film = np.concatenate(self._film).astype(np.float64)
        vectors = {
            suffix: np.concatenate(of_sessions).astype(np.float64)
            for suffix, of_sessions in self._vectors.items()
        }
        same = fvd.frechet(vectors[CONSTANT], film)
        return {
            f"{DISTANCE}{suffix}": fvd.figure(
                fvd.frechet(vectors[suffix], film),
                len(film),
                same,
                fvd.jackknife(vectors[suffix], film, units),
            )
            for suffix in _FAR
        }
