"""Sessions of the simulated participant, as a recipe's `data` node names them.

Nothing is simulated here: `SimulatedSessions` says who watches which films, and which seeds are whose.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from rtdecode.bundle import Bundle, Manifest
from rtdecode.bundle.manifest import CAUSAL, OFFLINE
from rtdecode.errors import UsageError
from rtdecode.phantom.body.cortex import MIXED
from rtdecode.phantom.body.scanner import head
from rtdecode.phantom.film.film import FPS
from rtdecode.phantom.film.watched import KNOWN_SHAPES, NATURAL, NONE, SHAPES
from rtdecode.phantom.session import PhantomSession, check_scanned_tr, check_subject, volumes_scanned
from rtdecode.scores.events import told_of
from rtdecode.signal.eeg.band import EegBand
from rtdecode.signal.volume.baseline import Baseline
from rtdecode.signal.volume.projection import Projection
from rtdecode.timing import TimingGrid
from train.config.builders import Later
from train.config.recipe import numbers
from train.config.run_context import Arrays, RunContext
from train.config.training_films import REAL, TrainingFilm
from train.data.arrays import in_head, normalised_signals, statistics
from train.data.chain import draft_bundle, unit_statistics
from train.data.clip_grid import ClipWindows, clip_of, with_size
from train.data.film_windows import clip_cuts, film_clips
from train.data.nodes import grid as grid_of
from train.data.phantom import (
    DISTURBANCES,
    MODALITIES,
    TRAINING_SEEDS,
    Participant,
    events,
    manifest,
    read_modalities,
    resting_level,
    session_arrays,
    session_clips,
    spans,
    whole_windows,
)
from train.data.showing import PARTS, HeadVolumes, ShownClips, by_title
from train.data.taught import Taught

KINDS = ("sessions", "free", "held", "presence", "controls")
# Length of a session in which something is suffered, at most, s: few numbers of its windows are needed.
_DISTURBED_S = 200.0
# How much higher the seeds of each further group of participants are, where groups watch films of their own.
_OF_NEXT_SET = 100
# Films whose cuts are where a session wants them.
_OF_SHAPES = (SHAPES, KNOWN_SHAPES)
# The grid of the simulated participant's films.
FILM_GRID = grid_of(tr="4/5", window=4, hop=4, lag=4, sfreq=125, fps=8)


@dataclass(frozen=True, slots=True)
class Showing:
    """One session for training: who watches which film, under which seed, for how long.

    Attributes
    ----------
    name : str
        Names its stages: the film's word or digest, and the seed.
    title : str
        Windows of one title may show the same pictures: those of a fixed film, under every seed, or those of
        one session.
    kind : str
        A kind of film: its word, or `real` for films from files.
    cuts : str
        Where a film of shapes cuts, see `rtdecode.phantom.film.film.Film`.
    grid : TimingGrid
        Of its windows.
    """

    name: str
    title: str
    who: Participant
    seed: int
    seconds: float
    kind: str = ""
    cuts: str = "grid"
    grid: TimingGrid = FILM_GRID

    @property
    def setting(self) -> str:
        """What its signals are like: the preset, and what is suffered."""
        return f"{self.who.preset} {self.who.disturbance}".strip()

    @property
    def windows(self) -> int:
        """Number of windows of the film whose volumes are all scanned."""
        return whole_windows(self.grid, int(self.seconds * FPS), volumes_scanned(self.seconds, self.who.tr_s))

    @property
    def pictures(self) -> str:
        """Name of the stage that holds its clips. A fixed film is the same under every seed."""
        return self.title

    @property
    def source(self) -> str:
        """Where its film comes from: a word or a path."""
        return self.who.film

    @property
    def parts(self) -> NDArray[np.int64]:
        """Which fifth of the film each window lies in, (window,)."""
        return np.arange(self.windows) * PARTS // self.windows

    @property
    def start_s(self) -> NDArray[np.float64]:
        """Film time at which each window starts, (window,)."""
        return float(self.grid.hop) * np.arange(self.windows, dtype=np.float64)

    @property
    def joined(self) -> NDArray[np.bool_]:
        """Whether each window goes on where the one before it ended, (window,)."""
        return (np.arange(self.windows) > 0) & (self.grid.hop == self.grid.window)

    def session(self) -> PhantomSession:
        """Make the session."""
        return self.who.session(self.seed, self.seconds, self.cuts)

    def film(self) -> ShownClips:
        """Return what the windows showed. The film's beginning counts as a cut."""
        film = self.session().film
        # What lies behind the last volume is no window.
        count = self.windows
        windows = ClipWindows(self.grid, clip_of(self.grid))
        return ShownClips(film_clips(film, windows)[:count], clip_cuts(film, windows)[:count])

    def words(self) -> list[str]:
        """Return the words of the shots in each window."""
        film = self.session().film
        # From 0 on, as the film's own times are.
        return told_of(spans(0, self.windows, self.grid), events({0: film}))

    def tiles(self) -> ShownClips:
        """Return what the windows showed: no session has a gap."""
        return self.film()

    def volumes(self, voxels: NDArray[np.int64] | None = None) -> HeadVolumes:
        """Return all volumes, at some voxels or at those that are bright on average."""
        session = self.session()
        volumes = [session.scanner.volume(n).reshape(-1) for n in range(session.volumes)]
        values = np.stack(volumes).astype(np.float32)
        mean = values.mean(0)
        if voxels is None:
            voxels = in_head(mean)
            if self.who.region:
                voxels = np.intersect1d(voxels, self.who.projection().voxels)
        times = np.arange(0.5, len(values)) * session.tr_s
        return HeadVolumes(values[:, voxels], times, voxels, mean[voxels])

    def projection(self, voxels: NDArray[np.int64]) -> Projection:
        """Make the projection that reads these voxels."""
        # Of the participant and not of a session, which would draw its film.
        place = head(self.who.subject, self.who.shape, self.who.cortex)
        return Projection(voxels, place.shape, place.affine)

    def arrays(self, bundle: Bundle) -> Arrays:
        """Run the session through the chain, see `train.data.phantom.window_arrays`."""
        return session_arrays(bundle, self.session())


@dataclass(frozen=True)
class SimulatedSessions:
    """Who watches which films, and how a bundle reads the signals.

    Attributes
    ----------
    who : Participant
        The simulated participant who watches.
    grid, band, baseline
        Grid of the windows, EEG filter, and how the resting level of the volumes is followed.
    sessions, free, held : str
        Seeds of the sessions that are watched: those cut on the window grid, those cut freely, and those on
        which choices are made and no weights are trained, which are cut freely too.
    seconds : float
        Length of the film under each seed; of a film from a file no more is shown.
    modalities : tuple of str
        What a bundle reads: ``eeg`` and ``fmri``, or one of them.
    subjects : tuple of int
        Numbers of the participants, where there are several; `who` is the first of them.
    shows : str
        The films that are watched where ``films=`` names none, in the same words; "" leaves it to `who`.
    seed_offset : int
        Added to all seeds, beside the seed of the run.
    """

    who: Participant
    grid: TimingGrid
    band: EegBand
    baseline: Baseline
    sessions: str
    seconds: float
    free: str = ""
    held: str = ""
    modalities: tuple[str, ...] = MODALITIES
    subjects: tuple[int, ...] = ()
    shows: str = ""
    seed_offset: int = 0

    def participants(self) -> dict[str, Self]:
        """Return the sessions of each participant by name, the default one first.

        All watch the same films, under noise of their own (`train.data.phantom.Participant.own_noise`), or
        those of their set of films (`film_sets` of `FilmSessions`).

        Returns
        -------
        dict
            Such as ``sub-01``; of a single participant, who needs no name, "".
        """
        if not self.subjects:
            return {"": self}
        first, *further = self.subjects
        people = [replace(self.who, subject=first)]
        people += [replace(self.who, subject=number, own_noise=True) for number in further]
        return {
            who.name: replace(self, who=who, subjects=(), **self._films_of_participant(number))
            for number, who in enumerate(people)
        }

    def _films_of_participant(self, number: int) -> dict[str, Any]:
        """Return the values by which the films of one participant differ from those of the first."""
        return {}

    def check(self, work: RunContext) -> None:
        """Refuse what cannot be trained on before anything is simulated.

        Raises
        ------
        UsageError
            If the recipe was given a folder of data, a seed is used twice or is one for judging, nobody is
            scanned at the grid's TR, or a session holds no window.
        """
        work.refuse_data()
        for sessions in self.participants().values():
            sessions.seeds(work)
        check_scanned_tr(self.who.tr_s, "data.grid.tr")
        self.check_length(self.seconds)

    def check_length(self, seconds: float) -> None:
        """Refuse sessions of a length in which no window is whole.

        Raises
        ------
        UsageError
        """
        scanned = volumes_scanned(seconds, self.who.tr_s)
        if whole_windows(self.grid, int(seconds * FPS), scanned if "fmri" in self.modalities else None):
            return
        raise UsageError(
            "data-session-too-short",
            "a session with {film_s:g} s of film holds no window: the first one, of {window_s:g} s, needs "
            "{needed} volumes ({after} of them after its own), and {scanned} of TR {tr_s:g} s are scanned. "
            "Show more film (seconds), or read fewer volumes after a window (data.grid.after).",
            film_s=seconds,
            window_s=float(self.grid.window),
            needed=self.grid.volumes(0).stop,
            after=self.grid.after,
            scanned=scanned,
            tr_s=self.who.tr_s,
        )

    def seeds(self, work: RunContext) -> dict[str, list[int]]:
        """Return the seeds of each kind, moved by the seed of the run.

        Raises
        ------
        UsageError
            If a seed is used twice or is one for judging.
        """
        by_kind = {
            kind: self._kind(kind, work.seed + self.seed_offset) for kind in KINDS if hasattr(self, kind)
        }
        all_seeds = [seed for seeds in by_kind.values() for seed in seeds]
        if not {*all_seeds} <= {*TRAINING_SEEDS} or len({*all_seeds}) < len(all_seeds):
            raise UsageError(
                "training-seeds-invalid",
                "training seeds must be distinct and below 1000 (seeds from 1000 on are for "
                "judging), found {seeds}.",
                seeds=by_kind,
            )
        return by_kind

    def with_films(self, films: Sequence[TrainingFilm]) -> "FilmSessions":
        """Let the participant watch other films.

        Fresh sessions, on which a trained system is judged, show the first film that differs by seed, and
        `natural` where none does: a fixed film would be known already.

        Raises
        ------
        UsageError
            If a film cannot be read, or is shorter than one window.
        """
        fresh_film = next((film.name for film in films if film.by_seed), NATURAL)
        window_s = float(self.grid.window)
        lengths = [self.seconds if film.by_seed else film.length(self.seconds, window_s) for film in films]
        timed_films = tuple(zip(films, lengths, strict=True))
        return FilmSessions(
            **(vars(self) | {"who": replace(self.who, film=fresh_film), "films": timed_films})
        )

    def showings(self, work: RunContext) -> list[Showing]:
        """List the sessions for training, which are those of `sessions`."""
        seeds = self.seeds(work)["sessions"]
        return [
            Showing(f"{self.who.prefix}{seed}", str(seed), self.who, seed, self.seconds, grid=self.grid)
            for seed in seeds
        ]

    def of_subject(self, name: str | None) -> Self:
        """Return the sessions of one participant; None is for the default one."""
        everybody = self.participants()
        return everybody[next(iter(everybody)) if name is None else name]

    def taught(self, work: RunContext) -> Taught:
        """Simulate the sessions of `sessions`, each as a stage on disk, and normalise their windows."""
        showings = self.showings(work)
        first = showings[0]
        projection = self.who.projection()
        draft = self.manifest()
        # The sessions first go through a chain that leaves signals in their own units, because the
        # statistics that normalise them are computed from its windows.
        level = resting_level(work, first.who, first.seed, first.seconds, first.name)
        raw = draft_bundle(draft, unit_statistics(draft, level), projection)
        watched = _watched(work, raw, showings)
        clips = watched.pop("clips")
        stats = statistics(watched, level) | {"mean_clip": np.rint(clips.mean(0)).astype(np.uint8)}
        return Taught(
            signals=watched | normalised_signals(watched, stats),
            clips=clips,
            folds=self.left_out(work),
            manifest=replace(draft, provenance=self.provenance(work)),
            stats=stats,
            projection=projection,
        )

    def everybody_taught(self, work: RunContext) -> dict[str, Taught]:
        """Simulate the sessions that teach, by participant, the default one first; see `taught`."""
        return {name: sessions.taught(work) for name, sessions in self.participants().items()}

    def left_out(self, work: RunContext) -> NDArray[np.int64] | None:
        """Say which windows are left out together when choices are made; None leaves out each by itself."""
        return None

    def _kind(self, kind: str, offset: int) -> list[int]:
        text = getattr(self, kind)
        return [] if text in ("", None) else [offset + seed for seed in numbers(text)]

    def manifest(self, projection: Projection | None = None) -> Manifest:
        """Draft the manifest of a bundle that is trained on these sessions.

        It reads the voxels of `projection`; by default those that the film drives.
        """
        return manifest(self.who, self.grid, self.band, self.baseline, projection, self.modalities)

    def provenance(self, work: RunContext) -> dict[str, Any]:
        """Return what a bundle says about the data it was trained on."""
        used = {kind: seeds for kind, seeds in self.seeds(work).items() if seeds}
        who = f"preset {self.who.preset}, subject {self.who.subject}{_cortex(self.who)}"
        return {
            "participant": f"simulated, {who}",
            **used,
            "seconds": self.seconds,
        }


def _cortex(who: Participant) -> str:
    read = f", {who.region} alone" if who.region else ""
    return "" if who.cortex == MIXED else f", {who.cortex} cortex{read}"


@dataclass(frozen=True)
class FilmSessions(SimulatedSessions):
    """Sessions in which the films of ``films=`` are watched, each under every seed of `sessions`.

    Attributes
    ----------
    films : tuple of (TrainingFilm, float)
        The films, and how many seconds are shown of each.
    presence : str
        Seeds of sessions from which it is learned what a brain looks like, see
        `train.models.compact.presence`: like those held, and with each of `train.data.phantom.DISTURBANCES`.
    controls : str
        Seeds of sessions from which it is learned what is no film that is watched; the same apart from that.
    presets : list of str
        The presets of those of `held`, `presence` and `controls`.
    chain : str
        ``causal``, as in a session, or ``offline`` (`train.data.offline`), for comparison alone.
    film_sets : int
        Into how many groups the participants are divided, in their order. Each group watches films of its
        own: those of seeds 100 higher than the group's before it. All watch the same films in one group.
    """

    films: tuple[tuple[TrainingFilm, float], ...] = ()
    presence: str = ""
    controls: str = ""
    presets: tuple[str, ...] = ()
    chain: str = CAUSAL
    film_sets: int = 1

    def __post_init__(self) -> None:
        people = max(len(self.subjects), 1)
        if not 1 <= self.film_sets <= people:
            raise UsageError(
                "data-film-sets-invalid",
                "data.film_sets={film_sets} divides {people} participants into groups that watch films of "
                "their own: give 1, for the same films, to {people}.",
                film_sets=self.film_sets,
                people=people,
            )
        if self.chain not in (CAUSAL, OFFLINE):
            raise UsageError(
                "data-chain-unknown",
                "data.chain is {causal} or {offline}, found {chain!r}.",
                causal=CAUSAL,
                offline=OFFLINE,
                chain=self.chain,
            )

    def _films_of_participant(self, number: int) -> dict[str, Any]:
        group = number * self.film_sets // max(len(self.subjects), 1)
        return {"seed_offset": self.seed_offset + group * _OF_NEXT_SET, "film_sets": 1}

    def manifest(self, projection: Projection | None = None) -> Manifest:
        """Draft the manifest as for other sessions; it also says by which chain they are prepared."""
        return replace(super().manifest(projection), chain=self.chain)

    def showings(self, work: RunContext, kind: str = "sessions") -> list[Showing]:
        """List the sessions of one kind (of `KINDS`): every film under every seed.

        Films from files are for training alone: who has seen them in one session knows them in all. `free`
        are sessions of shapes, as other films have cuts of their own. Sessions that are held are cut freely
        as well, like any that is decoded, and watched at every preset; so are those of `presence`, also with
        each disturbance. In `controls` nothing is watched.
        """
        if kind == "controls":
            return self._resting(work)
        chosen = kind in ("held", "presence")
        presets = self.presets if chosen and self.presets else (self.who.preset,)
        suffered = ("", *DISTURBANCES) if kind == "presence" else ("",)
        showings = []
        for film, seconds in self.films:
            if (kind != "sessions" and not film.by_seed) or (kind == "free" and film.name not in _OF_SHAPES):
                continue
            for what, preset, seed in product(suffered, presets, self.seeds(work)[kind]):
                title = f"{film.key}-{seed}" if film.by_seed else film.key
                showings.append(
                    Showing(
                        name=f"{self.who.prefix}{film.key}-{seed}{self._at(preset)}{_mark(what)}",
                        title=title,
                        who=replace(self.who, film=film.source, preset=preset, disturbance=what),
                        seed=seed,
                        seconds=min(seconds, _DISTURBED_S) if what else seconds,
                        kind=film.name if film.by_seed else REAL,
                        cuts="grid" if kind == "sessions" else "free",
                        grid=self.grid,
                    )
                )
        return showings

    def _resting(self, work: RunContext) -> list[Showing]:
        """List sessions in which the participant rests before a grey screen."""
        return [
            Showing(
                name=f"{self.who.prefix}{NONE}-{seed}{self._at(preset)}{_mark(what)}",
                title=f"{NONE}-{seed}",
                who=replace(self.who, film=NONE, preset=preset, disturbance=what),
                seed=seed,
                seconds=min(self.seconds, _DISTURBED_S) if what else self.seconds,
                kind=NONE,
                grid=self.grid,
            )
            for what, preset, seed in product(("", *DISTURBANCES), self.presets, self.seeds(work)["controls"])
        ]

    def _at(self, preset: str) -> str:
        return "" if preset == self.who.preset else f"-{preset}"

    @property
    def held_out(self) -> str:
        """What the confidence is fitted on, in words."""
        return f"held-out simulated windows, presets {', '.join(self.presets)}"

    def left_out(self, work: RunContext) -> NDArray[np.int64]:
        """Say which windows are left out together when choices are made, (window,), from 0 on.

        They are those of one title: a window of a fixed film that is shown under two seeds must not be chosen
        by its own twin. Where there is one title alone, they are those of one fifth of its time.
        """
        return by_title(self.showings(work))

    def provenance(self, work: RunContext) -> dict[str, Any]:
        """Return what a bundle says about its data. Films from files go by their name alone, and digest."""
        films = [
            {"film": film.name, "seconds": seconds} | ({} if film.by_seed else {"sha256": film.digest})
            for film, seconds in self.films
        ]
        return super().provenance(work) | {"films": films}


def _mark(disturbance: str) -> str:
    return f"-{disturbance}" if disturbance else ""


def _watched(work: RunContext, raw: Bundle, showings: Sequence[Showing]) -> Arrays:
    """Make windows and clips of all sessions. Each session is a stage."""

    def make(showing: Showing) -> Arrays:
        session = showing.who.session(showing.seed, showing.seconds)
        return session_arrays(raw, session) | {"clips": session_clips(raw.manifest, session)}

    parts = [
        work.stage(f"session-{showing.name}", lambda showing=showing: make(showing))
        for showing in work.track(showings, "sessions")
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def simulated_sessions(
    who: Participant,
    grid: TimingGrid,
    band: EegBand,
    baseline: Baseline,
    sessions: str,
    seconds: float,
    free: str = "",
    held: str = "",
    modalities: Later[Sequence[str]] = MODALITIES,
    subject: Later[str | int | list[int] | None] = None,
    clip: Later[str] = "",
) -> SimulatedSessions:
    """Make sessions of the simulated participant, with the arguments of `SimulatedSessions`.

    `subject` takes the place of ``who.subject``; there may be several, see `read_subjects`. `clip` is a size
    of the clips as for `train.data.clip_grid.with_size`.

    Raises
    ------
    UsageError
        If the participant is scanned at another TR than the grid's, there is no such modality, or `subject`
        names no participants.
    """
    grid = with_size(grid, clip)
    subjects = read_subjects(who, subject)
    return SimulatedSessions(
        who=replace(who.scanned_on(grid), subject=subjects[0]),
        grid=grid,
        band=band,
        baseline=baseline,
        sessions=sessions,
        seconds=seconds,
        free=free,
        held=held,
        modalities=read_modalities(modalities),
        subjects=_several(subjects),
    )


def read_subjects(who: Participant, subject: str | int | list[int] | None) -> list[int]:
    """Read the numbers of the simulated participants of a run, such as ``1-4``.

    Parameters
    ----------
    who : Participant
        The only one where no other is named.
    subject : str, int, list of int or None
        As `train.config.recipe.numbers` reads it.

    Raises
    ------
    UsageError
        If there is no such participant, or one is named twice.
    """
    subjects = [who.subject] if subject in (None, "", []) else numbers(subject)
    for number in subjects:
        check_subject(number)
    if twice := sorted({number for number in subjects if subjects.count(number) > 1}):
        raise UsageError(
            "simulated-participant-named-twice",
            "data.subject={subject} names {participants} twice. Name every participant once.",
            subject=subject,
            participants=", ".join(replace(who, subject=number).name for number in twice),
        )
    return subjects


def _several(subjects: Sequence[int]) -> tuple[int, ...]:
    return tuple(subjects) if len(subjects) > 1 else ()


def film_sessions(
    who: Participant,
    grid: TimingGrid,
    band: EegBand,
    baseline: Baseline,
    sessions: str,
    free: str,
    held: str,
    controls: str,
    presets: Sequence[str],
    seconds: float,
    shows: str,
    chain: str = CAUSAL,
    presence: str = "",
    subject: Later[str | int | list[int] | None] = None,
    clip: Later[str] = "",
    modalities: Later[Sequence[str]] = MODALITIES,
    film_sets: Later[int] = 1,
) -> FilmSessions:
    """Make sessions in which several films are watched, with the arguments of `FilmSessions`.

    The films themselves are looked up when a run begins (`SimulatedSessions.with_films`). `subject` is as for
    `simulated_sessions`, and `clip` a size of the clips as for `train.data.clip_grid.with_size`.
    """
    grid = with_size(grid, clip)
    subjects = read_subjects(who, subject)
    return FilmSessions(
        who=replace(who.scanned_on(grid), subject=subjects[0]),
        grid=grid,
        band=band,
        baseline=baseline,
        sessions=sessions,
        free=free,
        held=held,
        controls=controls,
        presets=tuple(presets),
        seconds=seconds,
        shows=shows,
        chain=chain,
        presence=presence,
        modalities=read_modalities(modalities),
        subjects=_several(subjects),
        film_sets=film_sets,
    )
