"""A cortex that participants share, beside one in which every voxel is drawn by itself.

python -m benchmarks.experiments.cortex [--preset easy] [--modalities fmri] [--json] [--write]

What is asked of `rtdecode.phantom.body.cortex`: that decoding is as hard as before (`calibration`), that
participants who watch one film are as alike as people are (`alike`), and that a ridge of three participants,
read vertex by vertex, tells something of a fourth (`zero-shot`), also as a start for a few minutes of the
fourth's own (`others first`). In a mixed cortex the last two tell nothing: they are the controls. Decoders
read volumes alone, as EEG is the same in both; what they tell apart are the leading components of clips among
those of the same session. Each of four participants is the fourth in turn. ``--modalities eeg,fmri`` lets the
decoder of the first part read EEG too, and leaves out the others. ``--write`` keeps the figures in
results/cortex.json, those of another preset in cortex-PRESET.json, and those with EEG in cortex-eeg.json.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.experiments import oracle
from benchmarks.result_files import RESULTS, write
from rtdecode.phantom.body.brain import neural_state, subject
from rtdecode.phantom.body.cortex import CORTICES, MIXED, SHARED, regions
from rtdecode.phantom.body.presets import PRESETS
from rtdecode.phantom.body.scanner import Scanner, head
from rtdecode.phantom.film.film import Film
from rtdecode.phantom.film.watched import Watched
from rtdecode.phantom.session import SCAN_ON_S, PhantomSession
from rtdecode.scores import intervals
from rtdecode.scores.accuracy import above, entry, identification_nway, shift_orders
from rtdecode.types import Float

# What decoders read.
FMRI = "fmri"
BOTH = "eeg,fmri"
PARTICIPANTS = (1, 2, 3, 4)
# Seeds of the sessions from which each participant's decoder learns, and of those on which it is judged.
TAUGHT = tuple(range(100 * number, 100 * number + 4) for number in PARTICIPANTS)
TAUGHT_S = 600.0
JUDGED = tuple(range(1000 + 5 * n, 1005 + 5 * n) for n in range(len(PARTICIPANTS)))
JUDGED_S = 200.0
MINUTES = (2.5, 5.0, 10.0, 40.0)
# Participants who watch the same films, the seeds of these, and their length.
_TOGETHER = (1, 2, 3, 4, 5, 6)
_FILMS = (990, 991, 992)
_FILM_S = 300.0
# Volumes until the response has begun.
_ONSET = 10

Scores = NDArray[np.float64]
Figure = dict[str, Any]


@dataclass(frozen=True)
class ParticipantWindows:
    """Windows of a participant's sessions.

    Attributes
    ----------
    volumes : (window, slot * voxel) float32
        In units of each voxel's standard deviation.
    codes : (window, component) float32
        What was shown.
    session : (window,) int64
    eeg : (window, channel * sample) float32, optional
        Where decoders read it.
    """

    volumes: Float
    codes: Float
    session: NDArray[np.int64]
    eeg: Float | None = None


@dataclass(frozen=True)
class Participant:
    """Windows from which a decoder learns, in their order, and those on which it is judged."""

    taught: ParticipantWindows
    judged: ParticipantWindows


@dataclass(frozen=True)
class Clips:
    """How clips become codes: by a codec of patches and its leading components over films of training."""

    codec: oracle.FilmCodec
    mean: Float
    axes: Float

    def codes(self, film: Watched) -> Float:
        """Code the clips of a film, (window, component)."""
        return np.asarray((_latents(self.codec, film) - self.mean) @ self.axes.T, np.float32)


def fit_clips(films: Sequence[Film]) -> Clips:
    """Fit the codec and the components to films."""
    codec = oracle.fit_codec(films)
    latents = np.concatenate([_latents(codec, film) for film in films])
    mean = latents.mean(axis=0)
    return Clips(codec, mean, oracle.leading(latents - mean))


def _latents(codec: oracle.FilmCodec, film: Watched) -> Float:
    return np.stack([codec.encode(film.clip(k)).reshape(-1) for k in range(film.windows)])


def recorded(
    preset: str,
    number: int,
    clips: Clips,
    taught: Sequence[int],
    judged: Sequence[int],
    modalities: str = FMRI,
) -> dict[str, Participant]:
    """Record a participant under seeds in both cortices, by the name of the cortex.

    The volumes to learn from set the level and the scale of each voxel.
    """
    learned = _pairs(preset, number, taught, TAUGHT_S, clips, modalities)
    fresh = _pairs(preset, number, judged, JUDGED_S, clips, modalities)
    people = {}
    for cortex in CORTICES:
        vectors = np.concatenate([session.vectors[cortex] for session in learned]).astype(np.float32)
        level = np.stack([vectors.mean(axis=0), vectors.std(axis=0)])
        people[cortex] = Participant(_windows(learned, cortex, level), _windows(fresh, cortex, level))
    return people


@dataclass(frozen=True)
class SessionPair:
    """One session in both cortices.

    Attributes
    ----------
    seed : int
    codes : (window, component) float32
        What was shown.
    vectors : dict of (volume, voxel) int16
        By the cortex.
    eeg : (window, channel * sample) float32, optional
        The same in both.
    """

    seed: int
    codes: Float
    vectors: dict[str, NDArray[np.int16]]
    eeg: Float | None


def _pairs(
    preset: str, number: int, seeds: Sequence[int], seconds: float, clips: Clips, modalities: str
) -> list[SessionPair]:
    sessions = []
    for seed in seeds:
        pair = [PhantomSession(preset, number, seed, seconds, cortex=cortex) for cortex in CORTICES]
        first, second = pair
        # The eye is the same, and most of the work.
        second.features = first.features
        vectors = {session.cortex: session.vectors() for session in pair}
        eeg = oracle.cut_eeg(first) if modalities == BOTH else None
        sessions.append(SessionPair(seed, clips.codes(first.film), vectors, eeg))
    return sessions


def _windows(sessions: Sequence[SessionPair], cortex: str, level: Float) -> ParticipantWindows:
    volumes = [
        oracle.cut_volumes(session.vectors[cortex], len(session.codes), *level) for session in sessions
    ]
    codes = [session.codes for session in sessions]
    number = np.repeat([session.seed for session in sessions], [len(part) for part in codes])
    eeg = [session.eeg for session in sessions if session.eeg is not None]
    return ParticipantWindows(
        np.concatenate(volumes), np.concatenate(codes), number, np.concatenate(eeg) if eeg else None
    )


def ridge(volumes: Float, codes: Float, elsewhere: Float) -> Float:
    """Learn codes from windows, and read those of windows elsewhere, (window, component)."""
    centre = volumes.mean(axis=0)
    mean = codes.mean(axis=0)
    rows = volumes - centre
    kernels = {"fmri": (rows @ rows.T, (elsewhere - centre) @ rows.T)}
    nothing = np.zeros((1, 1), np.float32)
    problem = oracle.Problem(kernels | {"eeg": (nothing, nothing)}, codes - mean)
    return oracle.predict(problem, oracle.FMRI_WEIGHTS["fmri"])[0].astype(np.float32) + mean


def ridge_of_both(taught: ParticipantWindows, judged: ParticipantWindows) -> Float:
    """Learn codes from volumes and EEG, and read those of other windows, (window, component)."""
    assert taught.eeg is not None
    assert judged.eeg is not None
    training = oracle.Windows(taught.volumes, taught.eeg)
    fresh = oracle.Windows(judged.volumes, judged.eeg)
    mean = taught.codes.mean(axis=0)
    problem = oracle.Problem(oracle.kernels_of(training, fresh), taught.codes - mean)
    return oracle.predict(problem, oracle.FMRI_WEIGHTS["both"])[0].astype(np.float32) + mean


def told_apart(read: Float, judged: ParticipantWindows) -> tuple[Scores, list[Scores]]:
    """Tell each window apart from the others of its session by its codes.

    Returns
    -------
    scores : (window,)
    shuffled : list of (window,)
        The same with windows moved circularly within their session by 30 s and more.
    """
    corr = _unit(read) @ _unit(judged.codes).T
    allowed = (judged.session[:, None] == judged.session) & ~np.eye(len(read), dtype=bool)
    orders = shift_orders(_spans(judged.session))
    scores = identification_nway(corr, allowed, 2)
    return scores, [identification_nway(corr[order], allowed, 2) for order in orders]


def _spans(session: NDArray[np.int64]) -> list[tuple[int, float, float]]:
    window_s = float(oracle.GRID.window)
    return [(int(number), window_s * n, window_s * (n + 1)) for n, number in enumerate(session)]


def _unit(codes: Float) -> Float:
    return codes / np.linalg.norm(codes, axis=1, keepdims=True)


def between(people: Sequence[Participant]) -> dict[str, Figure]:
    """Decode each participant by the ridge of the others, alone and as a start for their own minutes.

    Returns
    -------
    dict
        ``zero-shot``, and the same with the fourth's vertices exchanged; for each number of minutes the
        participant's ``own``, ``others first``, and the paired difference of the two.
    """
    scores: dict[str, list[tuple[Scores, list[Scores]]]] = {}
    for fourth in people:
        teachers = [person.taught for person in people if person is not fourth]
        volumes = np.concatenate([windows.volumes for windows in teachers])
        codes = np.concatenate([windows.codes for windows in teachers])
        judged = fourth.judged.volumes
        parts = [fourth.taught.volumes, judged, _exchanged(judged)]
        ends = np.cumsum([len(part) for part in parts[:-1]])
        start, read, exchanged = np.split(ridge(volumes, codes, np.concatenate(parts)), ends)
        decoded = {"zero-shot": read, "vertices exchanged": exchanged}
        for minutes in MINUTES:
            count = int(60 * minutes / float(oracle.GRID.window))
            volumes_read = fourth.taught.volumes[:count]
            codes_shown = fourth.taught.codes[:count]
            decoded[f"own {minutes:g}"] = ridge(volumes_read, codes_shown, judged)
            correction = ridge(volumes_read, codes_shown - start[:count], judged)
            decoded[f"others first {minutes:g}"] = read + correction
        for name, values in decoded.items():
            scores.setdefault(name, []).append(told_apart(values, fourth.judged))
    session = np.concatenate([person.judged.session for person in people])
    joined = {name: _joined(parts) for name, parts in scores.items()}
    figures = {name: _figure(*both, session) for name, both in joined.items()}
    for minutes in MINUTES:
        first = joined[f"others first {minutes:g}"][0]
        figures[f"gain {minutes:g}"] = above(first, joined[f"own {minutes:g}"][0], session)
    return figures


def _exchanged(volumes: Float) -> Float:
    """Give each vertex the values of another one."""
    slots = len(oracle.GRID.volumes(0))
    parts = volumes.reshape(len(volumes), slots, -1)
    order = np.random.default_rng(0).permutation(parts.shape[2])
    return parts[:, :, order].reshape(len(volumes), -1)


def _joined(parts: Sequence[tuple[Scores, list[Scores]]]) -> tuple[Scores, list[Scores]]:
    shuffled = [np.concatenate(order) for order in zip(*(orders for _, orders in parts), strict=True)]
    return np.concatenate([scores for scores, _ in parts]), shuffled


def _figure(scores: Scores, shuffled: Sequence[Scores], session: NDArray[np.int64]) -> Figure:
    figure = entry(scores, 0.5, shuffled, session)
    assert figure is not None
    return figure


def alike(preset: str, cortex: str) -> Figure:
    """Correlate the volumes of participants who watch one film, vertex by vertex, single trials.

    Returns
    -------
    dict
        ``vertices of V1``: mean over vertices, pairs and films. ``all vertices``: the same everywhere. ``mean
        of V1``: the correlation of the mean over V1. Their units are participants.
    """
    v1 = regions()["V1"]
    vertices = []
    means = []
    for seed in _FILMS:
        session = PhantomSession(preset, 1, seed, _FILM_S)
        series = [_series(session, number, cortex) for number in _TOGETHER]
        vertices.append([[(first * second).mean(axis=0) for second in series] for first in series])
        means.append(np.corrcoef([values[:, v1].mean(axis=1) for values in series]))
    pairs = np.mean(vertices, axis=0)
    return {
        "vertices of V1": mean_of_pairs(pairs[:, :, v1].mean(axis=2)),
        "all vertices": mean_of_pairs(pairs.mean(axis=2)),
        "mean of V1": mean_of_pairs(np.mean(means, axis=0)),
    }


def _series(session: PhantomSession, number: int, cortex: str) -> Scores:
    """Return the standardised values of a participant's voxels, (volume, voxel), without a linear trend."""
    # All watch the same film, and everybody has noise of their own.
    noise = np.random.default_rng((session.seed, number))
    state = neural_state(session.features, session.preset.feature_noise, SCAN_ON_S + 2.0, noise)
    place = head(number, cortex=cortex)
    person = subject(number, cortex)
    scan = Scanner(place, person, session.preset, state, session.volumes, 1000 * session.seed + number)
    volumes = [scan.volume(n).reshape(-1)[place.voxels] for n in range(_ONSET, session.volumes)]
    values = np.stack(volumes).astype(np.float64)
    line = np.stack([np.ones(len(values)), np.linspace(-1, 1, len(values))], axis=1)
    values -= line @ np.linalg.lstsq(line, values, rcond=None)[0]
    return values / values.std(axis=0)


def mean_of_pairs(matrix: Scores) -> Figure:
    """Make the figure of a mean over all pairs of participants, and of nobody with themselves.

    Parameters
    ----------
    matrix : (participant, participant) float64
        A value of each pair, the same in both orders.

    Returns
    -------
    dict
        ``value``, ``chance``, the interval over participants, and their number ``n``.
    """
    values = matrix - np.diag(np.diag(matrix))
    pairs = 1 - np.eye(len(matrix))

    def mean(counts: Scores) -> Scores:
        weight = np.einsum("di,ij,dj->d", counts, pairs, counts)
        return np.einsum("di,ij,dj->d", counts, values, counts) / weight

    figure = {"value": float(mean(np.ones((1, len(matrix))))[0]), "chance": 0.0}
    return figure | intervals.of_statistic(mean, len(matrix)).entries() | {"n": len(matrix)}


def calibrated(preset: str, clips: Clips, modalities: str = FMRI) -> dict[str, Figure]:
    """Decode participant 1 after 80 minutes in both cortices.

    Returns
    -------
    dict
        ``mixed``, ``shared``, and their paired ``difference``.
    """
    people = recorded(preset, PARTICIPANTS[0], clips, oracle.TRAINING, [*chain(*JUDGED)], modalities)
    scores = {}
    figures: dict[str, Figure] = {}
    for cortex, person in people.items():
        if modalities == BOTH:
            read = ridge_of_both(person.taught, person.judged)
        else:
            read = ridge(person.taught.volumes, person.taught.codes, person.judged.volumes)
        scores[cortex], shuffled = told_apart(read, person.judged)
        figures[cortex] = _figure(scores[cortex], shuffled, person.judged.session)
    session = people[MIXED].judged.session
    figures["difference"] = above(scores[SHARED], scores[MIXED], session)
    return figures


def measure(preset: str, modalities: str = FMRI) -> dict[str, Any]:
    """Compute all figures of a preset; with EEG, those of the calibration."""
    clips = fit_clips([Film(TAUGHT_S, seed) for seed in TAUGHT[0]])
    figures: dict[str, Any] = {
        "preset": preset,
        "modalities": modalities,
        "calibration": calibrated(preset, clips, modalities),
    }
    if modalities == BOTH:
        return figures
    people = [
        recorded(preset, number, clips, taught, judged)
        for number, taught, judged in zip(PARTICIPANTS, TAUGHT, JUDGED, strict=True)
    ]
    for cortex in CORTICES:
        together = between([person[cortex] for person in people])
        figures[cortex] = {"alike": alike(preset, cortex), "between": together}
    return figures


def tables(figures: dict[str, Any]) -> list[Table]:
    """Lay out the figures as they are printed."""
    calibration = Table(
        "80 minutes of participant 1",
        "2-way (95 % interval)",
        title=f"preset {figures['preset']}, {figures['modalities']}",
    )
    for name, figure in figures["calibration"].items():
        today = f"; mixed {figure['mixed']:.3f}" if "mixed" in figure else ""
        calibration.add_row(name, _told(figure) + today)
    laid = [calibration]
    if MIXED not in figures:
        return laid
    for part in ("alike", "between"):
        table = Table(part, *CORTICES)
        for name in figures[MIXED][part]:
            table.add_row(name, *(_told(figures[cortex][part][name]) for cortex in CORTICES))
        laid.append(table)
    return laid


def _out(preset: str, modalities: str) -> Path:
    """Return the file that keeps figures."""
    name = "cortex" + "-eeg" * (modalities == BOTH) + f"-{preset}" * (preset != "easy")
    return RESULTS / f"{name}.json"


def _told(figure: Figure) -> str:
    return f"{figure['value']:.3f} ({intervals.words(figure)})"


def main(words: Sequence[str] | None = None) -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", default="easy", choices=list(PRESETS))
    parser.add_argument("--modalities", default=FMRI, choices=[FMRI, BOTH], help="what decoders read")
    parser.add_argument("--json", action="store_true", help="print JSON alone")
    parser.add_argument("--write", action="store_true", help="keep the figures in benchmarks/results")
    options = parser.parse_args(words)
    figures = measure(options.preset, options.modalities)
    if options.json:
        print(json.dumps(figures))  # noqa: T201
    else:
        console = Console(width=None if Console().is_terminal else 140)
        for table in tables(figures):
            console.print(table)
    if options.write:
        write(_out(options.preset, options.modalities), figures)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
