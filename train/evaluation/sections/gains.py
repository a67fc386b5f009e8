"""The section `gains`: by how much clips become better through the brain, its condition and adapters.

Clips are compared with others that lack something, window by window, by PSNR in dB: ``adapter_gain`` over the
same system without its adapters, ``condition_gain`` over the condition without a brain, and ``brain_gain``
over the brain of the window that each one is paired with. Of a system whose condition aims at no vector of
its own there are no figures.
"""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from rtdecode.scores.accuracy import psnr
from train.evaluation.beside import DECODER, EXCHANGED, NULL, WITHOUT_ADAPTERS
from train.evaluation.decoders import exchanged_rows
from train.evaluation.film_scores import Matrix, Scores
from train.evaluation.section import Decoded, EvaluatedRun, HeldOutWindows, Scorer, Section
from train.interface.system import System

# What the decoder's clips are compared with -> the figure.
_OVER = {NULL: "condition_gain", WITHOUT_ADAPTERS: "adapter_gain", EXCHANGED: "brain_gain"}


class Gains(Section):
    """See the module."""

    def begin(self, run: EvaluatedRun) -> Scorer:
        """Start to score a run."""
        return _Gained(run.system)


class _Gained(Scorer):
    chance: ClassVar[Mapping[str, float | None]] = dict.fromkeys(_OVER.values(), 0.0)

    def __init__(self, system: System) -> None:
        self._system = system
        self._has_aims = False
        self._quality: dict[str, Matrix] = {}

    def wants(self, suffix: str) -> bool:
        return self._has_aims and suffix in (DECODER, *_OVER)

    def film(self, windows: HeldOutWindows) -> None:
        self._has_aims = self._system.targets(windows.truth.clips[:1]) is not None
        self._quality = {}

    def score(self, suffix: str, decoded: Decoded, windows: HeldOutWindows) -> Scores:
        self._quality[suffix] = psnr(decoded.clips, windows.truth.clips)
        return {}

    def stand_in(self, suffix: str, decoded: Decoded, windows: HeldOutWindows) -> Scores:
        return {}

    def close(self, windows: HeldOutWindows, scores: Mapping[str, Scores]) -> dict[str, Scores]:
        weights = np.ones(len(windows.truth.clips))
        own_quality = self._quality.pop(DECODER, None)
        if own_quality is None:
            return {}
        gains = {_OVER[suffix]: own_quality - other for suffix, other in self._quality.items()}
        # A window that is paired with none has no other brain.
        is_paired = exchanged_rows(windows.truth) != np.arange(len(weights))
        gains["brain_gain"] = np.where(is_paired, gains["brain_gain"], np.nan)
        return {DECODER: {name: (gain, weights) for name, gain in gains.items()}}
