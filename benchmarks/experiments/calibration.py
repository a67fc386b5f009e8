"""Whether a decoder's probabilities can be believed: `brain` and `confidence` held against what is true.

    python -m benchmarks.experiments.calibration RUN [--presets easy,default,hard] [--films natural,shapes]
                                                     [--sessions 67] [--seconds 60] [--out FILE]

In each fresh session the participant watches another film. ``confidence``, the promised share of 2-way
comparisons that a clip wins, is held against the share that it won. ``brain`` is held against whether there
is one. Beside each window of film stands one of another kind, in the shares of the prior for which systems
are trained (`train.models.compact.presence`): every second one has the EEG of the session before, and the
others of a session are all of one kind (rest, another participant, noise, a cap put on wrongly). The kinds
take turns from session to session. Intervals are over sessions.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.any_film import rounded
from benchmarks.played import with_interval
from benchmarks.result_files import write
from rtdecode.errors import RtDecodeError, UsageError, explain
from rtdecode.phantom.body.presets import preset_named
from rtdecode.phantom.film.watched import KINDS, NONE
from train.compare import Decoder, opened
from train.config.run_context import Arrays, progress
from train.data.phantom import TRAINING_SEEDS, Participant, session_arrays, spans
from train.evaluation.film_scores import describe, told_apart
from train.evaluation.reconstruct import brain_of
from train.evaluation.references import watch
from train.evaluation.result import Figures
from train.evaluation.sections import presence

_FIRST_SEED = TRAINING_SEEDS.stop
# Bits are not looked at, and nothing else depends on it.
_TEMPERATURE = 1.0

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class _Promised:
    """What was promised in one session, and what came true.

    Attributes
    ----------
    confidence, wins : (window,)
    brain, other : (window,)
        Probability of a brain in the windows of film, and in those of other kinds that stand beside them.
    """

    confidence: Matrix
    wins: Matrix
    brain: Matrix
    other: Matrix


@dataclass(frozen=True)
class _Judge:
    """A decoder, and its participant, who watches one kind of film under one preset."""

    decoder: Decoder
    who: Participant
    seconds: float

    def sessions(self, count: int) -> Iterator[_Promised]:
        """Judge so many sessions."""
        # The first session lends its EEG to the one after it, and is not judged.
        before = self._inputs(self.who, _FIRST_SEED)
        seeds = range(_FIRST_SEED + 1, _FIRST_SEED + 1 + count)
        for number, seed in enumerate(progress(seeds, f"{self.who.film}, {self.who.preset}")):
            session = watch(self.who, seed, self.seconds)
            inputs = session_arrays(self.decoder.bundle, session)
            where = spans(seed, session.film.windows, self.decoder.bundle.manifest.grid)
            decoded = self.decoder.show(inputs, where)
            if decoded.confidence is None:
                raise UsageError(
                    "benchmark-confidence-missing",
                    "This run gives its clips no confidence that could be held against wins.",
                )
            mean_clip = self.decoder.bundle.stats["mean_clip"][:-1]
            scores = told_apart(decoded.clips, describe(session.film, where), mean_clip, _TEMPERATURE)
            wins, _ = scores["identification_2way_centred"]
            kind = presence.NEITHER[number % len(presence.NEITHER)]
            other = self._brain(self._of_kind(kind, inputs, seed))
            other[::2] = self._brain(presence.together(inputs, before))[::2]
            yield _Promised(decoded.confidence, wins, self._brain(inputs), other)
            before = inputs

    def _of_kind(self, kind: str, inputs: Arrays, seed: int) -> Arrays:
        """Return windows of a kind, as many as the session has."""
        if kind == "rest":
            return self._inputs(replace(self.who, film=NONE), seed)
        if kind == "other_subject":
            return self._inputs(replace(self.who, subject=self.who.subject + 1), seed)
        if kind == "noise":
            return presence.noise(inputs, np.random.default_rng(seed))
        return presence.permuted(inputs)

    def _inputs(self, who: Participant, seed: int) -> Arrays:
        return session_arrays(self.decoder.bundle, watch(who, seed, self.seconds))

    def _brain(self, inputs: Arrays) -> Matrix:
        probabilities = brain_of(self.decoder.system, inputs)
        if probabilities is None:
            raise UsageError(
                "benchmark-brain-missing",
                "This run says nothing of brains that could be held against what is true.",
            )
        return probabilities[:, presence.BRAIN]


def measure(run: Path, films: Sequence[str], preset: str, count: int, seconds: float) -> Figures:
    """Hold a run's probabilities against what is true, under one preset.

    Parameters
    ----------
    run : Path
        A folder that `train.run` wrote.
    films : sequence of str
        Kinds of film, of which each session shows another.
    preset : str
    count : int
        Number of sessions of each kind of film.
    seconds : float
        Length of each.

    Returns
    -------
    dict
        ``brain_calibration_error``, ``brain_brier_skill`` and the same of ``confidence``, as
        `train.evaluation.sections.presence` makes them.

    Raises
    ------
    UsageError
        If the run was not trained on the simulated participant, or promises nothing.
    """
    decoder = opened(run)
    promised: list[_Promised] = []
    for film in films:
        who = replace(decoder.who, film=film, preset=preset_named(preset).name)
        promised += _Judge(decoder, who, seconds).sessions(count)
    session = np.repeat(np.arange(len(promised)), [len(promise.wins) for promise in promised])
    confidence = np.concatenate([promise.confidence for promise in promised])
    wins = np.concatenate([promise.wins for promise in promised])
    # A window that has no other to be told from wins nothing and loses nothing; one in which no brain is read
    # has no confidence.
    comparable = np.isfinite(wins) & np.isfinite(confidence)
    figures = presence.promises("confidence", confidence[comparable], wins[comparable], session[comparable])
    brain = np.concatenate([promise.brain for promise in promised] + [promise.other for promise in promised])
    right = np.repeat([1.0, 0.0], len(session))
    return figures | presence.promises("brain", brain, right, np.tile(session, 2))


def table(by_preset: dict[str, Figures]) -> Table:
    """Lay out the figures of every preset."""
    names = list(dict.fromkeys(name for figures in by_preset.values() for name in figures))
    laid = Table("", *by_preset, title="95 % intervals over sessions", title_justify="left")
    for name in names:
        cells = (figures.get(name) for figures in by_preset.values())
        laid.add_row(
            name, *(f"{with_interval(figure)}, n {figure['n']}" if figure else "-" for figure in cells)
        )
    return laid


def main() -> int:
    """Read the arguments, measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="a folder that `train.run` wrote")
    parser.add_argument("--presets", default="easy,default,hard")
    kinds = ", ".join(kind for kind in KINDS if kind != NONE)
    parser.add_argument("--films", default="natural,shapes", help=f"of {kinds}")
    parser.add_argument("--sessions", type=int, default=67, help="of each kind of film")
    parser.add_argument("--seconds", type=float, default=60.0, help="of film in each session")
    parser.add_argument("--out", type=Path, help="a JSON file for the figures")
    args = parser.parse_args()
    by_preset: dict[str, Figures] = {}
    try:
        for preset in args.presets.split(","):
            films = args.films.split(",")
            by_preset[preset] = rounded(measure(args.run, films, preset, args.sessions, args.seconds))
            if args.out is not None:
                write(args.out, by_preset)
    except RtDecodeError as error:
        return explain(error)
    Console(width=None if Console().is_terminal else 140).print(table(by_preset))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
