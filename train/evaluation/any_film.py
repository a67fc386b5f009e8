"""Judge a decoder on any film: ``python -m train.evaluate RUN film=shapes|natural|FILE[,FILE...]``.

One participant watches films in several sessions. Each session goes through the chain and the decoder, and
its clips are held against what was shown (`train.evaluation.film_scores`). Beside each figure stand those of
controls that it must beat, and of references that bound it; ``docs/evaluation.md`` says what each means. A
system that says whether it sees a brain is judged by that too (`train.evaluation.sections.presence`).

Where the film differs by session, intervals are over sessions if there are four of them. A film from a file
is the same in all sessions: a window's score is its mean over them, and intervals are over blocks of the
film. They tell what to expect of these windows with other noise, and little of other films.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rtdecode.bundle import Bundle
from rtdecode.errors import UsageError
from rtdecode.phantom.film.film import FPS
from rtdecode.phantom.film.watched import KINDS, NONE, watched
from rtdecode.phantom.session import PhantomSession
from rtdecode.scores.events import told_of
from train.config.builders import Later
from train.config.recipe import numbers
from train.config.run_context import Arrays, RunContext
from train.data.arrays import averaged_signals
from train.data.film_windows import check_adjacent, on_grid
from train.data.phantom import (
    Participant,
    events,
    session_arrays,
    session_spans,
    whole_windows,
    windows_of,
)
from train.data.simulated import SimulatedSessions
from train.evaluation import published, section
from train.evaluation.beside import OTHER_FILM, OTHER_SUBJECT, RESTING_BRAIN
from train.evaluation.examples import examples
from train.evaluation.film_figures import groups, words_of
from train.evaluation.film_scores import FilmWindows, describe
from train.evaluation.held_out_sessions import HeldOutSessions, Rows, check_windows, draw_windows
from train.evaluation.identification import by_preset, judging_seeds
from train.evaluation.oracle import Oracle
from train.evaluation.pictures import sheet
from train.evaluation.references import (
    References,
    fresh_sessions,
    kind_of,
    own_sessions,
    recoded,
    references,
    ridge_of,
    watch,
)
from train.evaluation.result import OF_FILMS, OWN_SESSIONS, Decode, Evaluation, Request
from train.evaluation.section import EvaluatedRun, HeldOutWindows, Section, sections_for, sections_of
from train.evaluation.section_runner import decode_ahead, evaluate
from train.interface.system import Plan, System, Trained

# What is added to the seed of the brain that watches another film.
_ELSEWHERE = 5000
# Where the film differs by session, each is held against what so many of the other brains lead to. One alone
# may happen to watch a film that is alike.
_OTHER_BRAINS = 3


def on_film(data: Any, bundle: Bundle, system: System, show: Decode, request: Request) -> Evaluation:
    """Judge a finished run on the films of a request, each at each of its presets.

    Figures and tables of all films but the first carry the film's name and a slash before their own.

    Raises
    ------
    UsageError
        Before anything is judged, if the run was not trained on the simulated participant, a seed is one
        for training, a film cannot be watched, a session holds no window, windows do not follow each other,
        or a network cannot be loaded.
    """
    if not isinstance(data, SimulatedSessions):
        raise UsageError(
            "film-needs-simulated-participant",
            "film={film} is for runs trained on the simulated participant, who can watch any film. "
            "Judge this run on recorded data (runs=, data=).",
            film=request.film,
        )
    judging_seeds(request.seeds)
    data.check_length(request.seconds)
    check_adjacent(bundle.manifest.grid)
    sections = sections_for(request, section.ALL_SECTIONS)
    films = [name.strip() for name in str(request.film).split(",")]
    for film in films:
        _check(film)
    _check_repeats(films, request)
    networks = published.load(request)
    combined = Evaluation(
        {}, {"networks": networks.network_rows()} if networks.networks() else {}, simulated=True
    )
    # Films from files share them, as all of them are held against what is learned from one kind of film.
    ridge = _ridge(bundle, system, data.who, request)

    @cache
    def baselines_of(learner: Participant) -> References:
        # What decodes ahead scores nothing.
        if request.ahead:
            return References((), learner.film)
        return references(show, bundle, system, learner, request.seconds, ridge(learner))

    for film in films:
        who = replace(data.who, film=film)

        def judge(who: Participant) -> Evaluation:
            baselines = baselines_of(_learner(who))
            run = EvaluatedRun(
                show,
                bundle,
                system,
                baselines,
                networks,
                decodes_twice=request.decodes_twice,
                regions=_regions(bundle, who),
            )
            return judge_film(run, who, request, sections)

        judged = by_preset(who, request, judge)
        before = "" if film == films[0] else f"{title(film)}/"
        figures = {before + name: figure for name, figure in judged.figures.items()}
        tables = {before + name: table for name, table in judged.tables.items()}
        combined = replace(
            combined,
            figures=combined.figures | figures,
            tables=combined.tables | tables,
            pictures=combined.pictures | judged.pictures,
            examples=combined.examples + judged.examples,
        )
    return combined


@dataclass(frozen=True)
class AnyFilm:
    """The judge `any-film`: what can be judged of any film, on fresh sessions.

    Attributes
    ----------
    films : str
        What the participant watches: words, with commas between them.
    seeds : str
        Seeds of fresh sessions, from 1000 on.
    seconds : float
        Length of the film in each.
    sections : str
        Groups of metrics: words, with commas between them (`train.evaluation.section`).
    windows : int or None
        So many windows of each film are evaluated, drawn by a fixed seed; None evaluates all.
    """

    films: str
    seeds: str
    seconds: float
    sections: Later[str] = section.ALL_SECTIONS
    windows: Later[int | None] = None

    reads: ClassVar[Sequence[str]] = OF_FILMS

    def check(self, data: SimulatedSessions) -> None:
        """Refuse films, seeds, lengths and windows that cannot be judged.

        Raises
        ------
        UsageError
        """
        judging_seeds(self.seeds)
        data.check_length(self.seconds)
        check_adjacent(data.grid)
        sections_of(self.sections)
        for film in self.films.split(","):
            _check(film.strip())
            if film.strip() in KINDS:
                # As many as there are at most: the last one may lack a volume.
                count = whole_windows(data.grid, round(self.seconds * FPS), None)
                check_windows(self.windows, [count] * len(judging_seeds(self.seeds)))

    def judge(
        self, work: RunContext, plan: Plan, data: SimulatedSessions, trained: Trained, show: Decode
    ) -> Evaluation:
        """Judge what was just trained."""
        request = Request(
            seeds=self.seeds,
            seconds=self.seconds,
            film=self.films,
            sections=self.sections,
            windows=self.windows,
            oracle=None,
        )
        return on_film(data, trained.bundle, trained.system, show, request)

    def evaluate(
        self, data: SimulatedSessions, trained: Trained, show: Decode, request: Request
    ) -> Evaluation:
        """Judge a finished run as requested, on its own films where none is named."""
        options = {key: getattr(request, key) or getattr(self, key) for key in ("sections", "windows")}
        full_request = replace(request, film=request.film or self.films, **options)
        return on_film(data, trained.bundle, trained.system, show, full_request)


def title(film: str) -> str:
    """Return what a film is called in figures."""
    return film if film in KINDS else Path(film).stem


def _check(film: str) -> None:
    if film == NONE:
        raise UsageError(
            "judge-film-none",
            "film=none shows nothing that could be judged. Give shapes, natural or a file.",
        )
    if film not in KINDS:
        watched(film, None, 0, "grid")


def _check_repeats(films: Sequence[str], request: Request) -> None:
    """Refuse to average where nothing is repeated."""
    generated = [film for film in films if film in KINDS]
    if request.repeats == "averaged" and (generated or len(judging_seeds(request.seeds)) < 2):
        raise UsageError(
            "judge-averaging-unsupported",
            "repeats=averaged averages the signals of sessions that show one film; found "
            "film={film}, seeds={seeds}. Give film=FILE, which each session shows as a whole, and "
            "two seeds or more.",
            film=request.film,
            seeds=request.seeds,
        )


def _learner(who: Participant) -> Participant:
    return replace(who, film=kind_of(who.film))


def _ridge(
    bundle: Bundle, system: System, trained: Participant, request: Request
) -> Callable[[Participant], Oracle | None]:
    """Return what fits the ridge for a participant who watches an endless film."""
    if request.oracle is None:
        # Written without a value (``oracle=``), there is none.
        return lambda _: None
    if request.oracle == OWN_SESSIONS:
        # The same for all films and presets: it had what the decoder had.
        of_own = cache(lambda: ridge_of(bundle, system, own_sessions(bundle, trained)))
        return lambda _: of_own()
    seeds = numbers(request.oracle)
    return cache(lambda who: ridge_of(bundle, system, fresh_sessions(who, seeds, request.seconds)))


def judge_film(
    run: EvaluatedRun, who: Participant, request: Request, sections: Sequence[Section]
) -> Evaluation:
    """Judge sessions in which the participant watches one kind of film.

    Parameters
    ----------
    run : EvaluatedRun
        Its baselines are made for this participant and preset, and the kind of film that stands for this one.
    who : Participant
        Its `film` is ``shapes`` or ``natural``, of which each session shows another, or the path of a film,
        which is shown as a whole in each session.
    request : Request
        `seeds`, `seconds`, `repeats`, `windows` and `ahead` are read.
    sections : sequence of Section
        What makes the figures.
    """
    seeds = judging_seeds(request.seeds)
    fixed = who.film not in KINDS
    # Where the film differs by session, and there are enough of them, they stand for each other's brains that
    # watch another film.
    is_apart = not fixed and len(seeds) > _OTHER_BRAINS
    # No session can average repeats: figures of a mean say how many there were.
    trials = [seeds] if request.repeats == "averaged" else [[seed] for seed in seeds]
    sessions = _Watched(run, who, request.seconds, trials, is_apart=is_apart).sessions(request.windows)
    if request.ahead:
        decode_ahead(run, sessions, sections)
        return Evaluation({})
    stand_ins = {OTHER_FILM: next_sessions} if is_apart else {}
    evaluation = evaluate(run, sessions, sections, stand_ins)
    repeats = len(trials[0])
    signals = "single trials" if repeats == 1 else f"mean of {repeats} repeats"
    window_min = float(run.bundle.manifest.grid.window) / 60
    oracle = run.baselines.oracle
    about = _told(who, evaluation.truths, run.baselines, fixed=fixed) | {
        "repeats": repeats,
        "signals": signals,
        "minutes of the ridge": None if oracle is None else oracle.windows * window_min,
    }
    figures = evaluation.figures(fixed=fixed)
    tables = {
        "films": [about],
        **evaluation.tables(),
        "words": [{"film": title(who.film), "preset": who.preset} | words_of(figures)],
    }
    words = f"{title(who.film)}, {who.preset}, {signals}"
    picked = examples(words, evaluation.wins, evaluation.first, run.bundle.manifest.clip.fps)
    picture = sheet(evaluation.first, run.bundle.manifest, f"{words}, simulated participant")
    shown_pictures = {f"{title(who.film)}.webp": picture, **evaluation.pictures(title(who.film))}
    return Evaluation(figures, tables, shown_pictures, picked)


def _regions(bundle: Bundle, who: Participant) -> dict[str, NDArray[np.bool_]]:
    """Say where the areas of a participant lie among the voxels that a bundle reads."""
    if bundle.projection is None:
        return {}
    read = bundle.projection.voxels
    masks = {name: np.isin(read, voxels) for name, voxels in who.areas().items()}
    return {name: mask for name, mask in masks.items() if mask.any()}


@dataclass(frozen=True)
class _Watched:
    """Makes the held-out windows of a simulated participant who watches films."""

    run: EvaluatedRun
    who: Participant
    seconds: float
    # Each trial is a session, or the mean of several, by their seeds.
    trials: Sequence[Sequence[int]]
    is_apart: bool

    def sessions(self, window_count: int | None) -> HeldOutSessions:
        """Draw so many windows of all trials; None takes all."""
        first = self._watch(self.who, self.trials[0][0])
        # Sessions of one length have as many windows.
        counts = [windows_of(self.run.bundle.manifest, first)] * len(self.trials)
        rows = draw_windows(counts, window_count, same=True)

        @cache
        def same_film() -> FilmWindows:
            return self._describe(first, rows[0])

        def windows(number: int) -> HeldOutWindows:
            trial = self.trials[number]
            session = self._watch(self.who, trial[0]) if number else first
            # A film from a file is the same each time.
            truth = self._describe(session, rows[number]) if self.who.film in KINDS else same_film()
            again = (self._watch(self.who, seed) for seed in trial[1:])
            inputs = self._inputs(chain([session], again), rows[number])
            controls = self._controls(trial, session.seconds, rows[number])
            # The clips of simulated sessions lie where their windows do.
            return HeldOutWindows(
                number,
                inputs,
                truth.where,
                truth,
                controls,
                session,
                rows[number],
                event_words=told_of(truth.where, events({truth.where[0][0]: session.film})),
            )

        return HeldOutSessions(f"{title(self.who.film)}, {self.who.preset}", rows, sum(counts), windows)

    def _watch(self, who: Participant, seed: int) -> PhantomSession:
        return watch(who, seed, self.seconds)

    def _describe(self, session: PhantomSession, rows: Rows) -> FilmWindows:
        """Measure what a session shows."""
        bundle = self.run.bundle
        manifest = bundle.manifest
        film = on_grid(session.film, manifest)
        again = recoded(self.run.system, bundle, (film.clip(k)[: manifest.clip.frames] for k in rows))
        spans = session_spans(manifest, session)
        return describe(film, [spans[row] for row in rows], again, rows)

    def _inputs(self, sessions: Iterable[PhantomSession], rows: Rows) -> Arrays:
        """Run the sessions of a trial through the chain, and average their signals."""
        signals = averaged_signals([session_arrays(self.run.bundle, session) for session in sessions])
        return {name: values[rows] for name, values in signals.items()}

    def _controls(self, trial: Sequence[int], seconds: float, rows: Rows) -> dict[str, Arrays]:
        """Simulate the brains that tell nothing of the film, or tell it as no decoder has learned."""
        resting = replace(self.who, film=NONE)
        elsewhere = replace(self.who, film=self.run.baselines.kind)
        stranger = replace(self.who, subject=self.who.subject + 1)
        controls = {
            RESTING_BRAIN: self._inputs((watch(resting, seed, seconds) for seed in trial), rows),
            OTHER_SUBJECT: self._inputs((watch(stranger, seed, seconds) for seed in trial), rows),
        }
        if not self.is_apart:
            other_films = (watch(elsewhere, seed + _ELSEWHERE, seconds) for seed in trial)
            controls[OTHER_FILM] = self._inputs(other_films, rows)
        return controls


def next_sessions(number: int, counts: Sequence[int]) -> list[tuple[int, int]]:
    """Choose the clips of the next sessions, which show other films, to stand for a brain elsewhere."""
    return [((number + step) % len(counts), 0) for step in range(1, _OTHER_BRAINS + 1)]


def _told(
    who: Participant, truths: Sequence[FilmWindows], baselines: References, *, fixed: bool
) -> dict[str, Any]:
    """Say what was judged, and what its figures rest on."""
    films = truths[:1] if fixed else truths
    _, resampled = groups(films, by_session=not fixed)
    return {
        "film": title(who.film),
        "preset": who.preset,
        "sessions": len(truths),
        "windows": sum(len(film.where) for film in films),
        "cuts": sum(len(film.cuts) for film in films),
        "near-duplicates": sum(film.near for film in films),
        "intervals over": resampled,
        "learned and other film": baselines.kind,
        "temperature": baselines.temperature,
        "left out": "" if baselines.clips else "_nearest (all training films are from files)",
    }
