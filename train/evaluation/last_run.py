"""The judge `last-run`: what can be judged of a decoder that was trained on one's own recordings.

The run that was kept from teaching is evaluated (`train.evaluation.section_runner`). Intervals are over
blocks of film. Guidance was chosen on the same run, and no weights.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from rtdecode.errors import UsageError
from train.config.builders import Later
from train.config.run_context import RunContext
from train.data.recorded_sessions import RecordedSessions
from train.evaluation import section
from train.evaluation.held_out_sessions import check_windows
from train.evaluation.held_runs import sessions_of
from train.evaluation.pictures import sheet
from train.evaluation.references import References
from train.evaluation.result import Decode, Evaluation, Request
from train.evaluation.section import EvaluatedRun, sections_of
from train.evaluation.section_runner import evaluate
from train.interface.system import Plan, Trained


@dataclass(frozen=True)
class LastRun:
    """The judge `last-run`.

    Attributes
    ----------
    sections : str
        Groups of metrics: words, with commas between them (`train.evaluation.section`).
    windows : int or None
        So many windows are evaluated, drawn by a fixed seed; None evaluates all.
    """

    sections: Later[str] = section.OF_RECORDED
    windows: Later[int | None] = None

    # It refuses whatever is asked, and says why.
    reads: ClassVar[Sequence[str]] = tuple(Request.__slots__)

    def check(self, data: Any) -> None:
        """Refuse data that are no recordings, sections that are not known, and too many windows.

        Raises
        ------
        UsageError
        """
        if not isinstance(data, RecordedSessions):
            raise UsageError(
                "judge-needs-recordings",
                "the judge last-run is for recordings (data=REC film=FILE). Choose another.",
            )
        sections_of(self.sections)
        check_windows(self.windows, [held_run.windows for held_run in data.held])

    def judge(
        self, work: RunContext, plan: Plan, data: RecordedSessions, trained: Trained, show: Decode
    ) -> Evaluation:
        """Judge what was just trained on the held run."""
        run = EvaluatedRun(show, trained.bundle, trained.system, References(clips=()))
        evaluation = evaluate(run, sessions_of(run, data.held, self.windows), sections_of(self.sections))
        notes = [{"note": text} for text in (data.division, novelty(data), data.timing) if text]
        picture = sheet(evaluation.first, trained.manifest, "held-out run")
        return Evaluation(evaluation.figures(fixed=False), {"notes": notes}, {"last-run.webp": picture})

    def evaluate(self, data: Any, trained: Trained, show: Decode, request: Request) -> Evaluation:
        """Refuse to judge a finished run by itself: it does not say where its recordings lie.

        Raises
        ------
        UsageError
        """
        raise UsageError(
            "evaluate-missing-recording",
            "this run was trained on recordings, and judged on the last one when it was trained "
            "(run.json). Judge it on another recording with its truth: data=RECORDING.",
        )


def novelty(data: RecordedSessions) -> str:
    """Say in a sentence whether the held windows show what was taught."""
    # Windows whose starts lie closer together than this on the time of one film show some of the same, s.
    window_s = float(data.grid.window)
    new = [session for session in data.held if session.source not in {other.source for other in data.taught}]
    if len(new) == len(data.held):
        return "The held run shows a film that teaches nothing: the figures tell what to expect of new films."
    repeated = 0
    for session in data.held:
        taught = [other.start_s for other in data.taught if other.source == session.source]
        if taught:
            gaps_s = np.abs(session.start_s[:, None] - np.concatenate(taught)).min(axis=1)
            repeated += int((gaps_s < window_s).sum())
    total = sum(session.windows for session in data.held)
    if not repeated:
        return (
            "No held session is of a fresh film: the held windows are other parts of films that teach. New "
            "films may be read less well."
        )
    return (
        f"No held session is of a fresh film: {repeated} of {total} held windows show what also taught. The "
        "figures tell how well a known film is recognised, and not what to expect of new ones."
    )
