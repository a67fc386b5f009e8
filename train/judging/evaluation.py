"""One way from held-out windows to figures: `evaluate` decodes them, and lets sections score them.

Windows come from whoever holds them out (`train.judging.any_film`, `train.judging.held_runs`), decoders,
controls and baselines from `train.judging.decoders`, and metrics from sections (`train.judging.section`).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode.disk.clip_file import Pixels
from train.judging import film_figures
from train.judging.beside import NEAREST, NULL, OWN
from train.judging.decoders import decode
from train.judging.film_scores import Scores, Shown, averaged
from train.judging.judged import Figures
from train.judging.section import Decoded, EvaluatedRun, HeldOutWindows, Scorer, Section, check_needs

# Whose clips are looked at beside the film, and under which heading.
HEADINGS = {OWN: "reconstruction", NULL: "null brain", NEAREST: "nearest training clip"}
# Chooses what stands in for a control of a session: the numbers of sessions, and by how many windows their
# clips are shifted, round about. It gets the number of the session and how many windows each one has.
StandIn = Callable[[int, Sequence[int]], list[tuple[int, int]]]


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found.

    Attributes
    ----------
    scores : dict
        Suffix of a decoder, control or baseline -> its scores in each session.
    truths : list of Shown
        What was watched in each.
    first : dict
        Heading -> clips in the first session, to be looked at.
    scorers : list of Scorer
    """

    scores: dict[str, list[Scores]]
    truths: list[Shown]
    first: dict[str, Sequence[Pixels]]
    scorers: list[Scorer]

    def figures(self, *, fixed: bool) -> Figures:
        """Make all figures; arguments as of `film_figures.figures`."""
        units, _ = film_figures.groups(self.truths[:1] if fixed else self.truths, by_session=not fixed)
        units_of_all = np.tile(units, len(self.truths)) if fixed else units
        chance = {name: level for scorer in self.scorers for name, level in scorer.chance.items()}
        figures = film_figures.figures(self.scores, self.truths, chance, fixed=fixed)
        for scorer in self.scorers:
            figures |= scorer.figures(units_of_all)
        return figures

    @property
    def wins(self) -> NDArray[np.float64]:
        """Share of its comparisons that each window of the first session wins; NaN where it has none."""
        unknown = np.full(len(self.truths[0].clips), np.nan)
        first = self.scores.get(OWN, [{}])[0]
        return first.get("identification_2way_centred", (unknown, unknown))[0]

    def tables(self) -> dict[str, list[dict[str, Any]]]:
        """Return the tables of all sections."""
        return {title: rows for scorer in self.scorers for title, rows in scorer.tables().items()}


def evaluate(
    run: EvaluatedRun,
    sessions: Iterable[HeldOutWindows],
    sections: Sequence[Section],
    stand_ins: Mapping[str, StandIn] | None = None,
) -> Evaluation:
    """Decode held-out windows, and score them.

    Parameters
    ----------
    run : EvaluatedRun
    sessions : iterable of HeldOutWindows
        The signals of one at a time are held.
    sections : sequence of Section
    stand_ins : mapping, optional
        Suffix -> what chooses the decoder's clips of other windows that stand in for a control. Their scores
        are averaged.

    Raises
    ------
    UsageError
        Before anything is decoded, if a section needs a modality that the run does not read.
    """
    check_needs(sections, run.bundle)
    scorers = [scorer for section in sections if (scorer := section.begin(run)) is not None]
    choosers = stand_ins or {}
    scores: dict[str, list[Scores]] = {}
    evaluated: list[HeldOutWindows] = []
    reconstructions: list[Decoded] = []
    first: dict[str, Sequence[Pixels]] = {}
    for windows in sessions:
        scores_of_session, decoded_clips = _session(run, windows, scorers)
        for suffix, scores_of_suffix in scores_of_session.items():
            scores.setdefault(suffix, []).append(scores_of_suffix)
        if not evaluated:
            pictured = {HEADINGS[suffix]: decoded.clips for suffix, decoded in decoded_clips.items()}
            first = {"film": windows.truth.clips, **pictured}
        if choosers:
            reconstructions.append(decoded_clips[OWN])
        # The signals are done with.
        evaluated.append(replace(windows, inputs={}, controls={}, session=None))
    counts = [len(windows.truth.clips) for windows in evaluated]
    for suffix, choose in choosers.items():
        scores[suffix] = []
        for windows in evaluated:
            chosen = choose(windows.number, counts)
            clips = [reconstructions[session].stands_in(session, steps) for session, steps in chosen]
            scores[suffix].append(_stood_in(suffix, clips, windows, scorers))
    for scorer in scorers:
        scores |= scorer.references()
    return Evaluation(scores, [windows.truth for windows in evaluated], first, scorers)


def _session(
    run: EvaluatedRun, windows: HeldOutWindows, scorers: Sequence[Scorer]
) -> tuple[dict[str, Scores], dict[str, Decoded]]:
    """Decode and score one session; return the scores by suffix, and what is looked at afterwards."""

    def is_wanted(suffix: str) -> bool:
        return any(scorer.wants(suffix) for scorer in scorers)

    for scorer in scorers:
        scorer.film(windows)
    scores: dict[str, Scores] = {}
    decoded_clips: dict[str, Decoded] = {}
    for suffix, decoded in decode(run, windows, is_wanted):
        if suffix in HEADINGS:
            decoded_clips[suffix] = decoded
        for scorer in scorers:
            if scorer.wants(suffix):
                scores.setdefault(suffix, {}).update(scorer.score(suffix, decoded, windows))
    for scorer in scorers:
        for suffix, scores_of_suffix in scorer.close(windows, scores).items():
            scores.setdefault(suffix, {}).update(scores_of_suffix)
    return {suffix: scored for suffix, scored in scores.items() if scored}, decoded_clips


def _stood_in(
    suffix: str, clips: Sequence[Decoded], windows: HeldOutWindows, scorers: Sequence[Scorer]
) -> Scores:
    """Average the scores of several stand-ins."""
    averages: Scores = {}
    for scorer in scorers:
        scores = [scorer.stand_in(suffix, decoded, windows) for decoded in clips]
        averages |= {metric: averaged(scores, metric) for metric in scores[0]}
    return averages
