"""One way from held-out windows to figures: `evaluate` decodes them, and lets sections score them.

Windows come from whoever holds them out (`train.evaluation.any_film`, `train.evaluation.held_runs`),
decoders, controls and baselines from `train.evaluation.decoders`, and metrics from sections
(`train.evaluation.section`).
"""

import errno
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rtdecode.disk.clip_file import Pixels
from rtdecode.errors import UsageError
from train.config.run_context import progress
from train.evaluation import film_figures
from train.evaluation.beside import DECODER, NEAREST, NULL
from train.evaluation.decoders import by_system, decoders_of
from train.evaluation.film_scores import FilmWindows, Scores, averaged
from train.evaluation.held_out_sessions import HeldOutSessions
from train.evaluation.kept_decodes import BeingDecodedError
from train.evaluation.outlook import Outlook
from train.evaluation.result import Figures
from train.evaluation.section import Decoded, EvaluatedRun, HeldOutWindows, Scorer, Section, check_needs

# Whose clips are looked at beside the film, and under which heading.
HEADINGS = {DECODER: "reconstruction", NULL: "null brain", NEAREST: "nearest training clip"}
# Chooses what stands in for a control of a session: the numbers of sessions, and by how many windows their
# clips are shifted, round about. It gets the number of the session and how many windows each one has.
StandIn = Callable[[int, Sequence[int]], list[tuple[int, int]]]


@dataclass(frozen=True)
class SectionScores:
    """What `evaluate` found.

    Attributes
    ----------
    scores : dict
        Suffix of a decoder, control or baseline -> its scores in each session.
    truths : list of FilmWindows
        What was watched in each.
    first : dict
        Heading -> clips in the first session, to be looked at.
    scorers : list of Scorer
        One for each section, which makes its figures.
    available : int
        Number of held-out windows, with those that were not drawn.
    """

    scores: dict[str, list[Scores]]
    truths: list[FilmWindows]
    first: dict[str, Sequence[Pixels]]
    scorers: list[Scorer]
    available: int

    def figures(self, *, fixed: bool) -> Figures:
        """Make all figures; arguments as of `film_figures.figures`."""
        units, _ = film_figures.groups(self.truths[:1] if fixed else self.truths, by_session=not fixed)
        units_of_all = np.tile(units, len(self.truths)) if fixed else units
        chance = {name: level for scorer in self.scorers for name, level in scorer.chance.items()}
        figures = film_figures.figures(self.scores, self.truths, chance, fixed=fixed)
        for scorer in self.scorers:
            figures |= scorer.figures(units_of_all)
        evaluated = sum(len(truth.clips) for truth in self.truths)
        if evaluated == self.available:
            return figures
        # Where every session shows the same, windows are counted once.
        of = {"drawn_of": self.available // (len(self.truths) if fixed else 1)}
        return {name: figure | of for name, figure in figures.items()}

    @property
    def wins(self) -> NDArray[np.float64]:
        """Share of its comparisons that each window of the first session wins; NaN where it has none."""
        unknown = np.full(len(self.truths[0].clips), np.nan)
        first = self.scores.get(DECODER, [{}])[0]
        return first.get("identification_2way_centred", (unknown, unknown))[0]

    def tables(self) -> dict[str, list[dict[str, Any]]]:
        """Return the tables of all sections."""
        return {title: rows for scorer in self.scorers for title, rows in scorer.tables().items()}

    def pictures(self, title: str) -> dict[str, Image.Image]:
        """Return the pictures of all sections, by the names of their files."""
        by_section = [scorer.pictures() for scorer in self.scorers]
        return {
            f"{title}-{name}.png": picture
            for of_section in by_section
            for name, picture in of_section.items()
        }


def evaluate(
    run: EvaluatedRun,
    sessions: HeldOutSessions,
    sections: Sequence[Section],
    stand_ins: Mapping[str, StandIn] | None = None,
) -> SectionScores:
    """Decode held-out windows, and score them.

    Parameters
    ----------
    run : EvaluatedRun
        The run, with what stands beside it.
    sessions : HeldOutSessions
        The signals of one at a time are held.
    sections : sequence of Section
        What makes the figures.
    stand_ins : mapping, optional
        Suffix -> what chooses the decoder's clips of other windows that stand in for a control. Their scores
        are averaged.

    Raises
    ------
    UsageError
        Before anything is decoded, if a section needs a modality that the run does not read, or there is no
        room for its clips.
    """
    scorers = _begun(run, sections)
    choosers = stand_ins or {}
    scores: dict[str, list[Scores]] = {}
    evaluated: list[HeldOutWindows] = []
    reconstructions: list[Callable[[], Decoded]] = []
    first: dict[str, Sequence[Pixels]] = {}
    outlook: Outlook | None = None
    for number in progress(range(len(sessions.rows)), sessions.title):
        windows = sessions.make(number)
        decoders = _wanted(run, windows, scorers)
        if outlook is None:
            outlook = Outlook(run, sessions, windows, len(by_system(decoders)), stand_ins=bool(choosers))
        with _room():
            scores_of_session, decoded_clips = _session(decoders, windows, scorers)
        outlook.after(number + 1)
        for suffix, scores_of_suffix in scores_of_session.items():
            scores.setdefault(suffix, []).append(scores_of_suffix)
        if not evaluated:
            pictured = {HEADINGS[suffix]: decoded.clips for suffix, decoded in decoded_clips.items()}
            first = {"film": windows.truth.clips, **pictured}
        if choosers:
            own_decode = decoded_clips[DECODER]
            again = partial(_again, run, sessions, number)
            reconstructions.append(again if run.decodes_twice else lambda own_decode=own_decode: own_decode)
        # The signals are done with.
        evaluated.append(replace(windows, inputs={}, controls={}, session=None))
    for suffix, choose in choosers.items():
        chosen = [choose(windows.number, sessions.counts) for windows in evaluated]
        stood_in: dict[tuple[int, int, int], Scores] = {}
        for origin, reconstruction in enumerate(reconstructions):
            decoded = reconstruction()
            for windows, origins in zip(evaluated, chosen, strict=True):
                for steps in (steps for session, steps in origins if session == origin):
                    clips = decoded.stands_in(origin, steps)
                    stood_in[windows.number, origin, steps] = _stood_in(suffix, clips, windows, scorers)
        scores[suffix] = [
            _averaged([stood_in[number, session, steps] for session, steps in origins])
            for number, origins in enumerate(chosen)
        ]
    for scorer in scorers:
        scores |= scorer.references()
    truths = [windows.truth for windows in evaluated]
    return SectionScores(scores, truths, first, scorers, sessions.available)


def decode_ahead(run: EvaluatedRun, sessions: HeldOutSessions, sections: Sequence[Section]) -> None:
    """Decode what `evaluate` will need, beside a process that evaluates, and pass over what that one decodes.

    Both keep clips in the same folder (`train.evaluation.kept_decodes`). The arguments are those of
    `evaluate`.
    """
    scorers = _begun(run, sections)
    for number in progress(range(len(sessions.rows)), f"{sessions.title}, ahead"):
        windows = sessions.make(number)
        for make in by_system(_wanted(run, windows, scorers)).values():
            with suppress(BeingDecodedError), _room():
                make()


def _begun(run: EvaluatedRun, sections: Sequence[Section]) -> list[Scorer]:
    check_needs(sections, run.bundle)
    return [scorer for section in sections if (scorer := section.begin(run)) is not None]


def _wanted(
    run: EvaluatedRun, windows: HeldOutWindows, scorers: Sequence[Scorer]
) -> dict[str, Callable[[], Decoded]]:
    """Show the sections the film of a session, and list the decoders that they want for it."""
    for scorer in scorers:
        scorer.film(windows)
    return decoders_of(run, windows, lambda suffix: any(scorer.wants(suffix) for scorer in scorers))


def _again(run: EvaluatedRun, sessions: HeldOutSessions, number: int) -> Decoded:
    """Decode the system's own clips of a session once more."""
    return decoders_of(run, sessions.make(number), lambda _: False)[DECODER]()


@contextmanager
def _room() -> Iterator[None]:
    """Say what to do where a disk is full."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise UsageError(
            "evaluation-disk-full",
            "the disk is full: clips of the evaluation could not be written ({error}). Make room and give "
            "the same command again: what was kept is not decoded again.",
            error=error.strerror,
        ) from error


def _session(
    decoders: Mapping[str, Callable[[], Decoded]], windows: HeldOutWindows, scorers: Sequence[Scorer]
) -> tuple[dict[str, Scores], dict[str, Decoded]]:
    """Decode and score one session; return the scores by suffix, and what is looked at afterwards."""
    scores: dict[str, Scores] = {}
    decoded_clips: dict[str, Decoded] = {}
    for suffix, make in decoders.items():
        decoded = make()
        if suffix in HEADINGS:
            decoded_clips[suffix] = decoded
        for scorer in scorers:
            if scorer.wants(suffix):
                scores.setdefault(suffix, {}).update(scorer.score(suffix, decoded, windows))
    for scorer in scorers:
        for suffix, scores_of_suffix in scorer.close(windows, scores).items():
            scores.setdefault(suffix, {}).update(scores_of_suffix)
    return {suffix: scored for suffix, scored in scores.items() if scored}, decoded_clips


def _stood_in(suffix: str, clips: Decoded, windows: HeldOutWindows, scorers: Sequence[Scorer]) -> Scores:
    """Score clips of other windows that stand in for a control."""
    scores: Scores = {}
    for scorer in scorers:
        scores |= scorer.stand_in(suffix, clips, windows)
    return scores


def _averaged(scores: Sequence[Scores]) -> Scores:
    return {metric: averaged(scores, metric) for metric in scores[0]}
