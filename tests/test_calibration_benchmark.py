"""The benchmark that holds a decoder's probabilities against what is true."""

from pathlib import Path

import pytest

from benchmarks.experiments import calibration
from rtdecode.errors import UsageError
from tests.refusals import refused

RUNS = Path(__file__).parents[1] / "train" / "runs"


@pytest.mark.full
def test_probabilities_of_the_shipped_model_are_held_against_wins_and_kinds() -> None:
    figures = calibration.measure(RUNS / "phantom", ["natural"], "easy", 3, 24.0)
    # Six windows a session, and beside each one of another kind. Some hold no brain that is read, and have no
    # confidence.
    assert 9 <= figures["confidence_calibration_error"]["n"] < 18
    assert figures["brain_calibration_error"]["n"] == 36
    # Half of the windows hold no brain whose signals belong together, and a constant is easily beaten.
    assert figures["brain_brier_skill"]["value"] > 0.2
    assert calibration.table({"easy": figures}).row_count == len(figures)


def test_a_run_that_promises_nothing_is_refused() -> None:
    with refused(UsageError, "benchmark-run-not-simulated"):
        calibration.measure(RUNS / "haxby", ["natural"], "easy", 1, 24.0)
    with refused(UsageError, "benchmark-confidence-missing"):
        calibration.measure(RUNS / "cinesync-tiny", ["shapes"], "easy", 1, 24.0)
