"""Judge a decoder on any film: ``python -m train.evaluate RUN film=shapes|natural|FILE[,FILE...]``.

One participant watches films in several sessions. Each session goes through the chain and the decoder, and
its clips are held against what was shown (`train.judging.film_scores`). Beside each figure stand those of
controls that it must beat, and of references that bound it; ``docs/training.md`` says what each means. A
system that says whether it sees a brain is judged by that too (`train.judging.presence`).

Where the film differs by session, intervals are over sessions if there are four of them. A film from a file
is the same in all sessions: a window's score is its mean over them, and intervals are over blocks of the
film. They tell what to expect of these windows with other noise, and little of other films.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rtdecode.bundle import Bundle
from rtdecode.disk.clip_file import Pixels
from rtdecode.errors import UsageError
from rtdecode.phantom.film.watched import KINDS, NONE, watched
from rtdecode.phantom.session import PhantomSession
from rtdecode.scores.colours import STILL, drawn_layout, layouts, one_colour
from train.data.arrays import averaged_signals
from train.data.clip_grid import shown_frames
from train.data.film_windows import check_adjacent, on_grid
from train.data.phantom import Participant, session_arrays, session_clips, session_spans
from train.data.simulated import SimulatedSessions
from train.judging import conditions, published
from train.judging.ceiling import Forward, likelihood
from train.judging.examples import examples
from train.judging.film_figures import (
    CONSTANT,
    DECODED_COLOURS,
    FLOORS,
    REVERSED,
    TOLD_COLOURS,
    figures,
    groups,
    words_of,
)
from train.judging.film_scores import (
    Scores,
    Shown,
    averaged,
    constant_scores,
    describe,
    identify,
    score,
    told_apart,
)
from train.judging.identification import ROUTES, by_preset, judging_seeds, only
from train.judging.judged import OWN_SESSIONS, Judged, Request, Show
from train.judging.oracle import Oracle
from train.judging.pictures import contact_sheet
from train.judging.presence import Presence
from train.judging.published import NEAREST, NULL, OTHER_FILM, Published, Tally
from train.judging.references import (
    References,
    fresh_sessions,
    kind_of,
    own_sessions,
    recoded,
    references,
    ridge_of,
    watch,
)
from train.metrics.cuts import step_profile
from train.metrics.pixels import NearestClips
from train.recipe import numbers
from train.system import Plan, System, Trained
from train.work import Arrays, Work, tracked

# What is added to the seed of the brain that watches another film.
_ELSEWHERE = 5000
# Where the film differs by session, each is held against what so many of the other brains lead to. One alone
# may happen to watch a film that is alike.
_OTHERS = 3
# Steps after a seam: the seam itself and a second.
_STEPS = 9
_SHEET_ROWS = 12
# Frames of a clip that a sheet shows.
_SHEET_AT = (1 / 8, 1 / 2, 7 / 8)
# Whose clips the page shows beside the film, and under which heading.
_PICTURED = {"": "reconstruction", NULL: "null brain", NEAREST: "nearest training clip"}

Drawn = TypeVar("Drawn")
Film = TypeVar("Film")


def on_film(data: Any, bundle: Bundle, system: System, show: Show, request: Request) -> Judged:
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
    films = [name.strip() for name in str(request.film).split(",")]
    for film in films:
        _check(film)
    _check_repeats(films, request)
    papers = published.load(request)
    found = Judged({}, {"networks": papers.told()} if papers.networks() else {}, simulated=True)
    # Films from files share them, as all of them are held against what is learned from one kind of film.
    ridge = _ridge(bundle, system, data.who, request)

    @cache
    def beside(learner: Participant) -> References:
        return references(show, bundle, system, learner, request.seconds, ridge(learner))

    for film in films:
        who = replace(data.who, film=film)
        judged = by_preset(
            who,
            request,
            lambda who: judge_film(show, bundle, system, who, request, beside(_learner(who)), papers),
        )
        before = "" if film == films[0] else f"{title(film)}/"
        made = {before + name: one for name, one in judged.figures.items()}
        tables = {before + name: table for name, table in judged.tables.items()}
        found = replace(
            found,
            figures=found.figures | made,
            tables=found.tables | tables,
            examples=found.examples + judged.examples,
        )
    return found


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
    """

    films: str
    seeds: str
    seconds: float

    makes_published: ClassVar[bool] = True

    def check(self, data: SimulatedSessions) -> None:
        """Refuse films, seeds, lengths and windows that cannot be judged.

        Raises
        ------
        UsageError
        """
        judging_seeds(self.seeds)
        data.check_length(self.seconds)
        check_adjacent(data.grid)
        for film in self.films.split(","):
            _check(film.strip())

    def judge(self, work: Work, plan: Plan, data: SimulatedSessions, trained: Trained, show: Show) -> Judged:
        """Judge what was just trained, and draw a picture of the first fresh session of each film."""
        request = Request(seeds=self.seeds, seconds=self.seconds, film=self.films, oracle=None)
        found = on_film(data, trained.bundle, trained.system, show, request)
        pictures = {}
        for film in (film.strip() for film in self.films.split(",")):
            session = replace(data.who, film=film).session(judging_seeds(self.seeds)[0], self.seconds)
            pictures[f"{film}.png"] = sheet(show, trained.bundle, session)
        return replace(found, pictures=pictures)

    def evaluate(self, data: SimulatedSessions, trained: Trained, show: Show, request: Request) -> Judged:
        """Judge a finished run as requested, on its own films where none is named."""
        asked = request if request.film is not None else replace(request, film=self.films)
        return on_film(data, trained.bundle, trained.system, show, asked)


def sheet(show: Show, bundle: Bundle, session: PhantomSession) -> Image.Image:
    """Draw film, clips, clips of one step and those of no brain of a session beside each other."""
    inputs = session_arrays(bundle, session)
    where = session_spans(bundle.manifest, session)
    clips: dict[str, Sequence[Pixels]] = {"film": list(session_clips(bundle.manifest, session))}
    clips["both"] = show(inputs, where).clips
    if bundle.manifest.steps > 1:
        clips["1 step"] = show(inputs, where, steps=1).clips
    clips["null brain"] = show(inputs, where, null=True).clips
    picked = np.linspace(0, len(where) - 1, min(_SHEET_ROWS, len(where))).astype(int)
    rows = {name: [each[row] for row in picked] for name, each in clips.items()}
    told = f"simulated participant, preset {session.preset.name}, {title(session.film_name)}"
    steps = bundle.manifest.steps
    frames = [int(share * shown_frames(bundle.manifest)) for share in _SHEET_AT]
    return contact_sheet(rows, frames, f"{told}, {steps} step{'s' if steps > 1 else ''}")


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
    drawn = [film for film in films if film in KINDS]
    if request.repeats == "averaged" and (drawn or len(judging_seeds(request.seeds)) < 2):
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
    show: Show,
    bundle: Bundle,
    system: System,
    who: Participant,
    request: Request,
    beside: References,
    papers: Published,
) -> Judged:
    """Judge sessions in which the participant watches one kind of film.

    Parameters
    ----------
    show : callable
        See `Show`.
    bundle : Bundle
    system : System
        What `show` shows.
    who : Participant
        Its `film` is ``shapes`` or ``natural``, of which each session shows another, or the path of a film,
        which is shown as a whole in each session.
    request : Request
        `seeds`, `seconds` and `repeats` are read.
    beside : References
        Made for this participant and preset, and the kind of film that stands for this one.
    papers : Published
        The networks by which published figures are made.
    """
    seeds = judging_seeds(request.seeds)
    fixed = who.film not in KINDS
    judging = _Judging(show, bundle, system, who, beside, apart=not fixed and len(seeds) > _OTHERS)
    scores: dict[str, list[Scores]] = {}
    shown: list[Shown] = []
    drawn: list[Sequence[Pixels]] = []
    profiles: list[_Profile] = []
    aimed: list[tuple[NDArray[np.floating], Shown]] = []
    told: list[NDArray[np.floating]] = []
    presence = Presence(system, float(bundle.manifest.grid.hop))
    tally = Tally(papers, judging.mean_clip, beside.clips)
    pictured: dict[str, Sequence[Pixels]] = {}
    # No session can average repeats: figures of a mean say how many there were.
    trials = [seeds] if request.repeats == "averaged" else [[seed] for seed in seeds]
    for trial in tracked(trials, f"{title(who.film)}, {who.preset}"):
        session = watch(who, trial[0], request.seconds)
        # A film from a file is the same each time.
        film = shown[0] if fixed and shown else judging.describe(session)
        tally.film(film, again=fixed)
        shown.append(film)
        again = (watch(who, seed, request.seconds) for seed in trial[1:])
        inputs = judging.inputs(chain([session], again))
        controls = judging.controls(trial, session.seconds)
        made = show(inputs, film.where)
        profiles += _profiles(made.clips, film)
        drawn.append(made.clips)
        null: Sequence[Pixels] = []
        for suffix, clips in judging.clips(made.clips, film, inputs, controls):
            null = clips if suffix == NULL else null
            found = judging.score(suffix, clips, film) | tally.add(suffix, clips)
            scores.setdefault(suffix, []).append(found)
            # Of the first session, which is enough to be looked at.
            if suffix in _PICTURED and len(shown) == 1:
                pictured[_PICTURED[suffix]] = clips
        wins, _ = scores[""][-1]["identification_2way_centred"]
        others = {name: controls[f"_{name}"] for name in ("rest", "other_subject")}
        presence.add(inputs, others, made.confidence, wins)
        if beside.forward is not None:
            known = judging.ceiling(beside.forward, session, film, inputs)
            scores.setdefault("_ceiling", []).append(known)
        constant = constant_scores(judging.mean_clip, film, beside.temperature)
        scores.setdefault(CONSTANT, []).append(constant | tally.constant())
        aims = system.targets(film.clips)
        if aims is not None:
            aimed.append((aims, film))
            told.append(conditions.vectors(system, inputs))
            for suffix, found in judging.conditions(told[-1], aims, film, inputs, controls):
                scores[suffix][-1] |= found
            gained = conditions.gains(show, made.clips, null, inputs, film)
            scores[""][-1] |= gained
            scores[CONSTANT][-1] |= conditions.unchanging(len(film.clips))
        tally.join_pictures(scores, CONSTANT)
    if judging.apart:
        scores[OTHER_FILM] = held_apart(drawn, shown, partial(judging.score, OTHER_FILM))
        if aimed:
            apart = held_apart(told, aimed, lambda found, aim: conditions.told_apart(found, *aim))
            scores[OTHER_FILM] = [a | b for a, b in zip(scores[OTHER_FILM], apart, strict=True)]
    if papers:
        if judging.apart:
            more = held_apart(tally.seen[""], tally.truths, papers.score)
            scores[OTHER_FILM] = [a | b for a, b in zip(scores[OTHER_FILM], more, strict=True)]
        scores |= tally.references()
    repeats = len(trials[0])
    signals = "single trials" if repeats == 1 else f"mean of {repeats} repeats"
    window_min = float(bundle.manifest.grid.window) / 60
    minutes = None if beside.oracle is None else beside.oracle.windows * window_min
    about = _told(who, shown, beside, fixed=fixed) | {
        "repeats": repeats,
        "signals": signals,
        "minutes of the ridge": minutes,
    }
    tables = {"films": [about], "steps after a seam": _steps(profiles)}
    kept, _ = groups(shown[:1] if fixed else shown, by_session=not fixed)
    every = np.tile(kept, len(shown)) if fixed else kept
    made = figures(scores, shown, fixed=fixed) | presence.figures(every) | tally.distances(every)
    tables["words"] = [{"film": title(who.film), "preset": who.preset} | words_of(made)]
    wins, _ = scores[""][0]["identification_2way_centred"]
    beside_film = {name: pictured[name] for name in _PICTURED.values() if name in pictured}
    versions = {"film": shown[0].clips, **beside_film}
    words = f"{title(who.film)}, {who.preset}, {signals}"
    picked = examples(words, wins, versions, bundle.manifest.clip.fps)
    return Judged(made, tables, examples=picked)


@dataclass(frozen=True)
class _Judging:
    """A decoder, the participant whose sessions it decodes, and what stands beside it.

    If `apart`, each session shows a film of its own, and there are enough of them to stand for each other's
    brains that watch another film.
    """

    show: Show
    bundle: Bundle
    system: System
    who: Participant
    beside: References
    apart: bool

    @property
    def mean_clip(self) -> Pixels:
        """Training mean, without the frame after the window."""
        return self.bundle.stats["mean_clip"][: shown_frames(self.bundle.manifest)]

    @cached_property
    def _training(self) -> NearestClips:
        return NearestClips(self.beside.clips, self.mean_clip)

    def describe(self, session: PhantomSession) -> Shown:
        """Measure what a session shows."""
        manifest = self.bundle.manifest
        again = recoded(self.system, self.bundle, session_clips(manifest, session))
        return describe(on_grid(session.film, manifest), session_spans(manifest, session), again)

    def clips(
        self, own: Sequence[Pixels], shown: Shown, inputs: Arrays, controls: dict[str, Arrays]
    ) -> Iterator[tuple[str, Sequence[Pixels]]]:
        """Yield the clips of the decoder, of its controls and of the oracle, each under its suffix.

        Parameters
        ----------
        own : sequence of (frame, row, column, 3)
            What the decoder draws of both modalities.
        shown : Shown
        inputs : dict
            What it drew them from.
        controls : dict
            See `controls`.
        """
        where = shown.where
        frames = len(shown.clips[0])
        for suffix, kept in ROUTES.items():
            yield suffix, own if suffix == "" else self.show(only(inputs, kept), where).clips
            if suffix == "" and self.beside.clips:
                drawn = [clip[:frames] for clip in own]
                yield NEAREST, self._training.to(drawn)
        if self.system.denoises:
            yield "_one_step", self.show(inputs, where, steps=1).clips
        yield "_null", self.show(inputs, where, null=True).clips
        yield REVERSED, [clip[:frames][::-1] for clip in own]
        yield from zip(TOLD_COLOURS, told_colours(shown.clips), strict=True)
        for suffix, other in controls.items():
            yield suffix, self.show(other, where).clips
        if self.beside.oracle is not None:
            yield "_oracle", self.beside.oracle.clips(inputs)
            yield from zip(DECODED_COLOURS, self.beside.oracle.floors(inputs), strict=True)

    def conditions(
        self,
        own: NDArray[np.floating],
        aims: NDArray[np.floating],
        shown: Shown,
        inputs: Arrays,
        controls: dict[str, Arrays],
    ) -> Iterator[tuple[str, Scores]]:
        """Score the vectors of the decoder's condition, of its controls and of the oracle, by their suffixes.

        Parameters
        ----------
        own, aims : (window, value)
            The vectors that both modalities gave, and what they aim at.
        shown : Shown
        inputs : dict
            What they were given.
        controls : dict
            See `controls`.
        """
        for suffix, kept in ROUTES.items():
            found = own if suffix == "" else conditions.vectors(self.system, only(inputs, kept))
            yield suffix, conditions.told_apart(found, aims, shown)
        for suffix, other in controls.items():
            found = conditions.vectors(self.system, other)
            yield suffix, conditions.told_apart(found, aims, shown)
        read = None if self.beside.oracle is None else self.beside.oracle.vectors(inputs)
        if read is not None:
            yield "_oracle", conditions.told_apart(read, aims, shown)

    def inputs(self, sessions: Iterable[PhantomSession]) -> Arrays:
        """Run the sessions of a trial through the chain, and average their signals."""
        return averaged_signals([session_arrays(self.bundle, session) for session in sessions])

    def controls(self, trial: Sequence[int], seconds: float) -> dict[str, Arrays]:
        """Simulate the brains that tell nothing of the film, or tell it as no decoder has learned."""
        resting = replace(self.who, film=NONE)
        elsewhere = replace(self.who, film=self.beside.kind)
        stranger = replace(self.who, subject=self.who.subject + 1)
        found = {
            "_rest": self.inputs(watch(resting, seed, seconds) for seed in trial),
            "_other_subject": self.inputs(watch(stranger, seed, seconds) for seed in trial),
        }
        if not self.apart:
            others = (watch(elsewhere, seed + _ELSEWHERE, seconds) for seed in trial)
            found[OTHER_FILM] = self.inputs(others)
        return found

    def score(self, suffix: str, clips: Sequence[Pixels], shown: Shown) -> Scores:
        """Hold clips against the film."""
        beside = self.beside
        temperature = beside.oracle_temperature if suffix == "_oracle" else beside.temperature
        # Of one modality alone, and of clips that know colours alone, no other figure is made.
        alone = suffix in (*ROUTES, *FLOORS, REVERSED) and suffix != ""
        scored = told_apart if alone else score
        return scored(clips, shown, self.mean_clip, temperature)

    def ceiling(self, forward: Forward, session: PhantomSession, shown: Shown, inputs: Arrays) -> Scores:
        """Identify windows by the known forward model."""
        likely = likelihood(forward, self.bundle, session, inputs)
        return identify(likely, likely, shown, temperature=1.0)


def told_colours(clips: Sequence[Pixels]) -> tuple[Sequence[Pixels], Sequence[Pixels]]:
    """Draw clips that know the true mean colours alone, and the true layouts: what colour alone can say."""
    return one_colour(clips), drawn_layout(layouts(clips, STILL), clips[0].shape)


def held_apart(
    drawn: Sequence[Drawn], shown: Sequence[Film], hold: Callable[[Drawn, Film], Scores]
) -> list[Scores]:
    """Hold the film of each session against the clips of the next ones, and average the scores.

    Parameters
    ----------
    drawn : sequence
        The clips of each session, or what was measured of them.
    shown : sequence
        Its film; another one in each.
    hold : callable
        Scores clips against a film.
    """
    found = []
    for number, film in enumerate(shown):
        others = [drawn[(number + step) % len(drawn)] for step in range(1, _OTHERS + 1)]
        scores = [hold(clips, film) for clips in others]
        found.append({metric: averaged(scores, metric) for metric in scores[0]})
    return found


# The decoder's mean steps after its seams, the film's, and the number of seams.
_Profile = tuple[Any, Any, int]


def _profiles(clips: Sequence[Pixels], shown: Shown) -> list[_Profile]:
    frames = len(shown.clips[0])
    ours, count = step_profile([clip[:frames] for clip in clips], shown.cuts, _STEPS)
    film, _ = step_profile(shown.clips, shown.cuts, _STEPS)
    return [(ours, film, count)] if count else []


def _steps(profiles: list[_Profile]) -> list[dict[str, Any]]:
    """List how much the picture changes at a seam and from frame to frame after it, in grey levels."""
    if not profiles:
        return []
    ours, film, counts = zip(*profiles, strict=True)
    pairs = zip(
        np.average(ours, axis=0, weights=counts), np.average(film, axis=0, weights=counts), strict=True
    )
    return [{"step": n, "clips": float(a), "film": float(b)} for n, (a, b) in enumerate(pairs)]


def _told(who: Participant, shown: Sequence[Shown], beside: References, *, fixed: bool) -> dict[str, Any]:
    """Say what was judged, and what its figures rest on."""
    films = shown[:1] if fixed else shown
    _, resampled = groups(films, by_session=not fixed)
    return {
        "film": title(who.film),
        "preset": who.preset,
        "sessions": len(shown),
        "windows": sum(len(film.where) for film in films),
        "cuts": sum(len(film.cuts) for film in films),
        "near-duplicates": sum(film.near for film in films),
        "intervals over": resampled,
        "learned and other film": beside.kind,
        "temperature": beside.temperature,
        "left out": "" if beside.clips else "_nearest (all training films are from files)",
    }
