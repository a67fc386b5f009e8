"""The section `ceiling`: windows identified by someone who knows how the simulator makes their signals."""

from collections.abc import Mapping

from rtdecode.bundle import Bundle
from train.evaluation.beside import CEILING
from train.evaluation.ceiling import Forward, likelihood
from train.evaluation.film_scores import Scores, identify
from train.evaluation.section import EvaluatedRun, HeldOutWindows, Scorer, Section

# The likelihoods are probabilities already.
_TEMPERATURE = 1.0


class Ceiling(Section):
    """See the module. Of recorded people there is none."""

    def begin(self, run: EvaluatedRun) -> Scorer | None:
        """Start to score a run; None where no forward model is known."""
        forward = run.baselines.forward
        return None if forward is None else _Known(forward, run.bundle)


class _Known(Scorer):
    def __init__(self, forward: Forward, bundle: Bundle) -> None:
        self._forward = forward
        self._bundle = bundle

    def wants(self, suffix: str) -> bool:
        # The signals say all.
        return False

    def close(self, windows: HeldOutWindows, scores: Mapping[str, Scores]) -> dict[str, Scores]:
        if windows.session is None:
            return {}
        likely = likelihood(self._forward, self._bundle, windows.session, windows.inputs, windows.rows)
        return {CEILING: identify(likely, likely, windows.truth, _TEMPERATURE)}
