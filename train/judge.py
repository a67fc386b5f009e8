"""Figures of a decoder on fresh sessions and on recordings."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rtdecode.accuracy import (
    correlations,
    entry,
    identification,
    identification_nway,
    report_accuracy,
    sessions_of,
)
from rtdecode.bundle import Bundle
from rtdecode.clip_file import ClipFile, Pixels, keep
from rtdecode.errors import UsageError
from rtdecode.events import Event, Span, apart, attribute, distractors, film_clip, read_events
from rtdecode.recording import Recording
from rtdecode.video import unpack_mp4
from train.data import haxby
from train.data.chain import windows
from train.data.phantom import Participant, events, session_arrays, spans, window_arrays
from train.decode import clips_of, decode
from train.recipe import numbers
from train.work import Arrays

Figures = dict[str, dict[str, Any]]

# How the routes through a decoder are named in figures.
ROUTES = {"": ("eeg", "fmri"), "_eeg": ("eeg",), "_fmri": ("fmri",)}


@dataclass(frozen=True)
class Judged:
    """What was found.

    Attributes
    ----------
    figures : dict
        Metric -> {value, chance, shuffled, constant, ci95, n}.
    tables : dict
        Lists of rows, and ``curves``.
    pictures : dict
        File name -> picture.
    """

    figures: Figures
    tables: dict[str, Any] = field(default_factory=dict)
    pictures: dict[str, Image.Image] = field(default_factory=dict)


def judge_phantom(
    model: str, weights: Arrays, bundle: Bundle, who: Participant, seeds: Sequence[int], seconds: float
) -> Figures:
    """Judge a closed-form decoder on fresh sessions of the simulated participant.

    Parameters
    ----------
    model, weights
        As of `train.decode.decode`.
    bundle : Bundle
    who : Participant
    seeds : sequence of int
        1000 and up.
    seconds : float
        Film in each session.

    Returns
    -------
    dict
        The identification metrics with both modalities, with ``_eeg`` and ``_fmri`` for one alone,
        and ``_background`` for a decoder that knows the true background and nothing else.
    """
    data = fresh(bundle, who, seeds, seconds)
    return judge_clips(model, weights, bundle, data.inputs, data.truths, data.where, data.known)


@dataclass(frozen=True)
class Fresh:
    """Windows of sessions that nothing was trained on.

    Attributes
    ----------
    inputs : dict
        Ports of the encode graph.
    truths : sequence of uint8 (frame, row, column, 3)
        A clip a window, without the instant of the cut.
    where : list of (run, start_s, stop_s)
        The run is the seed.
    known : dict
        Run -> shots.
    """

    inputs: Arrays
    truths: Sequence[Pixels]
    where: list[Span]
    known: dict[int, list[Event]]


def judging(seeds: str | int | list[int]) -> list[int]:
    """Read the seeds of fresh sessions, as of `train.recipe.numbers`.

    Raises
    ------
    UsageError
        For seeds that train.
    """
    found = numbers(seeds)
    if min(found, default=0) < 1000:
        raise UsageError(f"seeds below 1000 are for training; judge with 1000 and up, not {found}.")
    return found


def fresh(
    bundle: Bundle, who: Participant, seeds: Sequence[int], seconds: float, cuts: str = "grid"
) -> Fresh:
    """Simulate fresh sessions; arguments as of `judge_phantom`, `cuts` as of `Film`.

    Raises
    ------
    UsageError
        For seeds that train.
    """
    sessions = {seed: who.session(seed, seconds, cuts) for seed in judging(list(seeds))}
    films = {seed: session.film for seed, session in sessions.items()}
    parts = [session_arrays(bundle, session) for session in sessions.values()]
    inputs = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    truths = keep(film.clip(k)[:-1] for film in films.values() for k in range(film.windows))
    where = [span for seed, film in films.items() for span in spans(seed, film.windows, bundle.manifest.grid)]
    return Fresh(inputs, truths, where, events(films))


def judge_clips(
    model: str,
    weights: Arrays,
    bundle: Bundle,
    inputs: Arrays,
    truths: Sequence[Pixels],
    where: list[Span],
    known: Mapping[int, Sequence[Event]],
) -> Figures:
    """Judge a decoder on given windows, by every route through it and against baselines.

    Parameters
    ----------
    model, weights
        As of `train.decode.decode`.
    bundle : Bundle
    inputs : dict
        Ports of the encode graph.
    truths : sequence of uint8 (frame, row, column, 3)
        A clip a window.
    where : list of (run, start_s, stop_s)
    known : mapping
        Run -> shots.
    """
    mean = bundle.stats["mean_clip"]
    figures: Figures = {}
    for suffix, kept in ROUTES.items():
        clips = _shown(model, weights, bundle, only(inputs, kept), where)
        found = identification(correlations(clips, truths, mean), where, known)
        figures |= {f"{name}{suffix}": with_constant(value) for name, value in found.items() if value}
    wins = background_wins(truths, where, known, mean)
    return figures | background_baseline(wins, where)


def _shown(
    model: str, weights: Arrays, bundle: Bundle, inputs: Arrays, where: list[Span]
) -> Sequence[Pixels]:
    if model != "compact":
        return clips_of(model, weights, inputs)
    # Closed-form decoders are judged without torch.
    from train.reconstruct import reconstruct

    manifest = bundle.manifest
    return reconstruct(weights, inputs, where, manifest.recipe_digest, steps=manifest.steps).clips


def only(inputs: Arrays, kept: Sequence[str]) -> Arrays:
    """Leave the given modalities and blank the others, masks too."""
    names = {name for modality in kept for name in (modality, f"{modality}_mask")}
    return {name: x if name in names else np.zeros_like(x) for name, x in inputs.items()}


def with_constant(figure: dict[str, Any]) -> dict[str, Any]:
    """Say what the mean clip scores: it correlates with nothing, and a tie is lost."""
    return {**figure, "constant": 0.0}


def background_baseline(wins: NDArray[np.float64], where: list[Span]) -> Figures:
    """Judge a decoder that knows each clip's background and nothing else, by `background_wins`.

    It shows the clips of `background_clips`.
    """
    figure = entry(wins, 0.5, groups=sessions_of(where))
    return {"identification_2way_background": with_constant(figure)} if figure else {}


def background_clips(
    truths: Sequence[Pixels], where: list[Span], known: Mapping[int, Sequence[Event]]
) -> list[Pixels]:
    """Draw what a decoder shows that is told the true background: a clip a window, float64.

    It is the mean of all true clips of that background, the judged one among them: better than any mean
    from training could be.
    """
    alike: dict[str | None, list[Pixels]] = {}
    names = attribute(where, known, "background")
    for name, truth in zip(names, truths, strict=True):
        alike.setdefault(name, []).append(truth)
    file = ClipFile()
    means = {name: file.add(_mean_frames(clips)) for name, clips in alike.items()}
    return [means[name] for name in names]


def _mean_frames(clips: Sequence[Pixels]) -> Iterator[NDArray[np.float64]]:
    """Yield the mean of clips, frame by frame."""
    for frame in range(len(clips[0])):
        total = np.zeros(clips[0].shape[1:])
        for clip in clips:
            total += clip[frame]
        yield total / len(clips)


def background_wins(
    truths: Sequence[Pixels],
    where: list[Span],
    known: Mapping[int, Sequence[Event]],
    mean: Pixels,
) -> NDArray[np.float64]:
    """Share of 2-way comparisons that the clips of `background_clips` win, (window,)."""
    corr = correlations(background_clips(truths, where, known), truths, mean)
    return identification_nway(corr, distractors(where, known), 2)


def judge_recording(model: str, weights: Arrays, bundle: Bundle, path: Path) -> Figures:
    """Judge a decoder on a recording whose truth is known.

    Raises
    ------
    UsageError
        If the recording has no truth, or no window to be judged.
    """
    recording = Recording(path)
    if recording.truth is None:
        raise UsageError(f"{path} has no truth/events.tsv, and accuracy needs one. Record it with --truth.")
    modalities = [m for m in bundle.manifest.modalities if m != "eeg" or recording.montage is not None]
    dummies = recording.meta.get("dummies", 0)
    found = windows(bundle, recording.events(), recording.montage, modalities, dummies=dummies)
    if not found:
        raise UsageError(f"{path} holds no whole window for {' and '.join(modalities)}. Record longer.")
    inputs, manifest = window_arrays(bundle.manifest, found), bundle.manifest
    known = {0: read_events(recording.truth / "events.tsv")}
    where = [(w.run, w.start_s, w.stop_s) for w in found]
    if manifest.labels:
        return _classified(decode(model, weights, inputs)["scores"], where, known, bundle)
    film = unpack_mp4(recording.truth / "film.mp4")
    frames = manifest.grid.hop_frames
    truths = [film_clip(film, start, manifest.clip.fps, frames) for _, start, _ in where]
    kept = [i for i in apart(where) if len(truths[i]) == frames]
    if not kept:
        raise UsageError(
            f"no window of {path} lies inside {recording.truth / 'film.mp4'}, {len(film)} frames long. "
            "Give a recording with the film that was shown."
        )
    inputs = {name: x[kept] for name, x in inputs.items()}
    chosen = [truths[i] for i in kept]
    return judge_clips(model, weights, bundle, inputs, chosen, [where[i] for i in kept], known)


def judge_haxby(model: str, weights: Arrays, bundle: Bundle, data: Path | None, runs: list[int]) -> Figures:
    """Judge a classifier on runs it was not trained on.

    Parameters
    ----------
    model, weights, bundle
        As of `judge_recording`.
    data : Path or None
        See `train.data.haxby.folder`.
    runs : list of int
    """
    seen = set(bundle.manifest.provenance.get("runs", [])) & set(runs)
    if seen:
        raise UsageError(f"runs {sorted(seen)} were trained on and cannot judge.")
    place = haxby.folder(data)
    every = [haxby.load(place, number) for number in runs]
    found = [(run.number, w) for run in every for w in windows(bundle, run.volumes(), None)]
    inputs = window_arrays(bundle.manifest, [w for _, w in found])
    where = [(number, w.start_s, w.stop_s) for number, w in found]
    scores = decode(model, weights, inputs)["scores"]
    return _classified(scores, where, {run.number: run.events for run in every}, bundle)


def _classified(
    scores: NDArray[Any], where: list[Span], known: Mapping[int, Sequence[Event]], bundle: Bundle
) -> Figures:
    labels = bundle.manifest.labels or []
    correction = float(bundle.manifest.provenance.get("onset_correction_s", 0.0))
    told = report_accuracy(where, known, scores=scores, labels=labels, onset_correction_s=correction)
    figure = told["classification_top1"]
    # Blocks are balanced in the design; one label for all windows is right at chance.
    return {"classification_top1": {**figure, "constant": 1 / len(labels)}} if figure else {}
