"""The section `identification`: windows of a session told apart by their clips."""

from train.evaluation.beside import (
    CEILING,
    CONSTANT,
    DECODER,
    FLOORS,
    ORACLE,
    REVERSED,
    ROUTES,
)
from train.evaluation.film_scores import IDENTIFICATION_CHANCE, TEMPORAL, Scores, told_apart
from train.evaluation.section import Decoded, EvaluatedRun, HeldOutWindows, Scorer, Section

# One modality alone and clips that know colours alone are judged by these.
_MAIN_METRICS = (
    "identification_2way_centred",
    "identification_2way_matched",
    "identification_10way_centred",
)
# The suffixes under which windows are also told apart by their number of cuts. Those of a constant stand in
# the figures of all.
_BY_CUTS = (DECODER, ORACLE, CEILING, CONSTANT)
_BITS = "bits_per_window"
# What bits are computed with where they are left out.
_ANY_TEMPERATURE = 1.0


class IdentificationSection(Section):
    """See the module."""

    def begin(self, run: EvaluatedRun) -> Scorer:
        """Start to score a run."""
        return _Identified(run)


class _Identified(Scorer):
    chance = IDENTIFICATION_CHANCE

    def __init__(self, run: EvaluatedRun) -> None:
        self._mean_clip = run.mean_clip
        self._baselines = run.baselines

    def score(self, suffix: str, decoded: Decoded, windows: HeldOutWindows) -> Scores:
        baselines = self._baselines
        temperature = baselines.oracle_temperature if suffix == ORACLE else baselines.temperature
        any_temperature = _ANY_TEMPERATURE if temperature is None else temperature
        scores = told_apart(decoded.clips, windows.truth, self._mean_clip, any_temperature)
        if temperature is None:
            del scores[_BITS]
        return {metric: value for metric, value in scores.items() if stands(metric, suffix)}


def stands(metric: str, suffix: str) -> bool:
    """Whether there is a figure of a metric for what has a suffix."""
    if suffix == REVERSED:
        return metric == TEMPORAL
    if "_cuts_" in metric and suffix not in _BY_CUTS:
        return False
    is_told_few = suffix in FLOORS or (suffix in ROUTES and suffix != DECODER)
    return metric in _MAIN_METRICS or not is_told_few
