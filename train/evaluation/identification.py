"""The judge `identification`: figures of a decoder on fresh sessions, and on recordings.

Fresh sessions are simulated (`fresh`) from seeds that never train, or a recording with its truth is read
(`judge_recording`). The windows are decoded with both modalities and with each alone, and the clips are
identified among the film's own. A decoder that knows nothing but the true background stands beside them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rtdecode.bundle import Bundle
from rtdecode.disk.clip_file import ClipFile, Pixels, StoredClip, keep
from rtdecode.disk.recording import Recording
from rtdecode.disk.video import unpack_mp4
from rtdecode.errors import RecordingError, UsageError
from rtdecode.phantom.body.presets import preset_named
from rtdecode.phantom.film.fit import at_size
from rtdecode.phantom.session import PhantomSession
from rtdecode.scores.accuracy import (
    correlations,
    entry,
    identification,
    identification_nway,
    report_accuracy,
    sessions_of,
)
from rtdecode.scores.events import (
    Event,
    Span,
    attribute,
    distractors,
    film_clip,
    non_overlapping,
    read_events,
)
from train.config.recipe import numbers
from train.config.run_context import Arrays, RunContext
from train.data.clip_grid import shown_frames
from train.data.phantom import (
    Participant,
    events,
    session_arrays,
    session_clips,
    session_spans,
    window_arrays,
    windows_of,
)
from train.data.recorded import cut_windows
from train.data.simulated import SimulatedSessions
from train.evaluation.beside import only, routes_of
from train.evaluation.pictures import rows
from train.evaluation.reconstruct import Reconstruction
from train.evaluation.result import OF_FRESH_SESSIONS, Decode, Evaluation, Figures, Request, unknown
from train.interface.system import Plan, Trained

# Where in a window the frames lie that the sheet shows, and seconds of a fresh session.
_SHOWN_AT = (0, 1 / 4, 1 / 2, 3 / 4)
_SHOWN_S = 20.0
# Why no window gives a figure, and its chance level.
_ALONE = "no window has another that it could be taken for"
_NO_WINDOW: dict[str, tuple[float | None, str]] = {
    "identification_2way": (1 / 2, _ALONE),
    "identification_2way_same_background": (1 / 2, "no window has another with the same background"),
    "identification_50way": (1 / 50, "no window has 49 others that it could be taken for"),
    "identification_top1": (None, _ALONE),
}


@dataclass(frozen=True)
class Identification:
    """The judge `identification`: it compares clips with the film of fresh sessions, by every route.

    Attributes
    ----------
    seeds : str
        Seeds of fresh sessions, from 1000 on.
    seconds : float
        Length of the film in each.
    """

    seeds: str
    seconds: float

    reads: ClassVar[Sequence[str]] = OF_FRESH_SESSIONS

    def check(self, data: SimulatedSessions) -> None:
        """Refuse seeds that are for training.

        Raises
        ------
        UsageError
        """
        judging_seeds(self.seeds)
        data.check_length(self.seconds)

    def judge(
        self, work: RunContext, plan: Plan, data: SimulatedSessions, trained: Trained, show: Decode
    ) -> Evaluation:
        """Judge what was just trained, and draw a picture of the first fresh session."""
        seeds = judging_seeds(self.seeds)
        figures = judge_phantom(show, trained.bundle, data.who, seeds, self.seconds)
        session = data.who.session(seeds[0], _SHOWN_S)
        if not windows_of(trained.manifest, session):
            # A long window, or one that waits for many volumes, does not fit into so little.
            session = data.who.session(seeds[0], self.seconds)
        return Evaluation(figures, pictures={"fresh.webp": _sheet(show, trained.bundle, session)})

    def evaluate(
        self, data: SimulatedSessions, trained: Trained, show: Decode, request: Request
    ) -> Evaluation:
        """Judge a finished run as requested.

        Raises
        ------
        UsageError
            If a session holds no window.
        """
        data.check_length(request.seconds)
        return by_preset(data.who, request, partial(self._figures, trained.bundle, show, request))

    def _figures(self, bundle: Bundle, show: Decode, request: Request, who: Participant) -> Evaluation:
        return Evaluation(judge_phantom(show, bundle, who, numbers(request.seeds), request.seconds))


def by_preset(who: Participant, request: Request, judge: Callable[[Participant], Evaluation]) -> Evaluation:
    """Judge on each requested preset. Figures and tables of all but the first carry the preset's name.

    Parameters
    ----------
    who : Participant
        Whose preset is replaced by each requested one.
    request : Request
        `presets` is read.
    judge : callable
        Takes the participant at a preset.

    Raises
    ------
    UsageError
        Before anything is judged, if a preset is not known.
    """
    # All names are read before the first preset is judged, which takes long.
    presets = [preset_named(name.strip()).name for name in str(request.presets).split(",")]
    combined = replace(judge(replace(who, preset=presets[0])), simulated=True)
    for preset in presets[1:]:
        other = judge(replace(who, preset=preset))
        figures = {f"{preset}/{name}": figure for name, figure in other.figures.items()}
        tables = {f"{preset}/{name}": table for name, table in other.tables.items()}
        pictures = {f"{preset}-{name}": picture for name, picture in other.pictures.items()}
        combined = replace(
            combined,
            figures=combined.figures | figures,
            tables=combined.tables | tables,
            pictures=combined.pictures | pictures,
        )
    return combined


def _sheet(show: Decode, bundle: Bundle, session: PhantomSession) -> Image.Image:
    """Draw film and reconstruction of a fresh session, row below row."""
    inputs = session_arrays(bundle, session)
    manifest = bundle.manifest
    clips = show(inputs, session_spans(manifest, session)).clips
    pairs = zip(session_clips(manifest, session), clips, strict=True)
    frames = shown_frames(manifest)
    sheet = rows([clip for pair in pairs for clip in pair], [int(share * frames) for share in _SHOWN_AT])
    return sheet.resize((sheet.width * 2, sheet.height * 2), Image.Resampling.LANCZOS)


def judge_phantom(
    show: Decode, bundle: Bundle, who: Participant, seeds: Sequence[int], seconds: float
) -> Figures:
    """Judge identification on fresh sessions of the simulated participant.

    Parameters
    ----------
    show : callable
        See `Decode`.
    bundle : Bundle
        By its grid and chain the sessions become windows.
    who : Participant
        Who watches in the sessions.
    seeds : sequence of int
        1000 and up.
    seconds : float
        Length of the film in each session.

    Returns
    -------
    dict
        The identification metrics with both modalities, with ``_eeg`` and ``_fmri`` for one alone,
        and ``_background`` for a decoder that knows the true background and nothing else.
    """
    data = fresh(bundle, who, seeds, seconds)
    return judge_clips(show, bundle, data.inputs, data.truths, data.where, data.events_by_run)


@dataclass(frozen=True)
class Fresh:
    """Windows of sessions that nothing was trained on.

    Attributes
    ----------
    inputs : dict
        Signals by port, as the encode graph takes them.
    truths : sequence of uint8 (frame, row, column, 3)
        The true clip of each window, without its last frame, which may lie behind a cut.
    where : list of (run, start_s, stop_s)
        The run is the seed.
    events_by_run : dict
        Run -> shots.
    """

    inputs: Arrays
    truths: Sequence[Pixels]
    where: list[Span]
    events_by_run: dict[int, list[Event]]


def judging_seeds(seeds: str | int | list[int]) -> list[int]:
    """Read the seeds of fresh sessions, as `train.config.recipe.numbers` does.

    Raises
    ------
    UsageError
        If a seed is one of those for training.
    """
    parsed = numbers(seeds)
    if min(parsed, default=0) < 1000:
        raise UsageError(
            "judging-seeds-reserved",
            "seeds below 1000 are for training; judge with 1000 and up, not {seeds}.",
            seeds=parsed,
        )
    return parsed


def fresh(
    bundle: Bundle, who: Participant, seeds: Sequence[int], seconds: float, cuts: str = "grid"
) -> Fresh:
    """Simulate fresh sessions; arguments as for `judge_phantom`, `cuts` as for `Film`.

    Raises
    ------
    UsageError
        If a seed is one of those for training.
    """
    sessions = {seed: who.session(seed, seconds, cuts) for seed in judging_seeds(list(seeds))}
    manifest = bundle.manifest
    # By the number that `session_spans` gives a session.
    films = {session.seed: session.film for session in sessions.values()}
    parts = [session_arrays(bundle, session) for session in sessions.values()]
    inputs = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    length = shown_frames(manifest)
    truths = keep(clip[:length] for session in sessions.values() for clip in session_clips(manifest, session))
    where = [span for session in sessions.values() for span in session_spans(manifest, session)]
    return Fresh(inputs, truths, where, events(films))


def judge_clips(
    show: Decode,
    bundle: Bundle,
    inputs: Arrays,
    truths: Sequence[Pixels],
    where: list[Span],
    events_by_run: Mapping[int, Sequence[Event]],
) -> Figures:
    """Judge a decoder on given windows, by every route through it and against baselines.

    Parameters
    ----------
    show : callable
        See `Decode`.
    bundle : Bundle
        Its mean clip is subtracted, and its manifest says which modalities there are.
    inputs : dict
        Signals by port, as the encode graph takes them.
    truths : sequence of uint8 (frame, row, column, 3)
        The true clip of each window.
    where : list of (run, start_s, stop_s)
        Run and time of each window.
    events_by_run : mapping
        Run -> shots.
    """
    mean = bundle.stats["mean_clip"]
    figures: Figures = {}
    for suffix, modalities in routes_of(bundle.manifest).items():
        clips = show(only(inputs, modalities), where).clips
        entries = identification(correlations(clips, truths, mean), where, events_by_run)
        figures |= named_figures(entries, suffix)
    wins = background_wins(truths, where, events_by_run, mean)
    return figures | background_baseline(wins, where)


def named_figures(entries: Mapping[str, dict[str, Any] | None], suffix: str) -> Figures:
    """Name the figures of a route; one that no window gives is null, with its reason.

    Parameters
    ----------
    entries : mapping
        From `identification`.
    suffix : str
        Of `train.evaluation.beside.ROUTES`, or of another decoder.
    """
    return {
        f"{name}{suffix}": unknown(_NO_WINDOW[name][0], 0, _NO_WINDOW[name][1])
        if figure is None
        else with_constant(figure)
        for name, figure in entries.items()
    }


def with_constant(figure: dict[str, Any]) -> dict[str, Any]:
    """Add the score of the mean clip, which is 0: it correlates with nothing, and a tie is lost."""
    return {**figure, "constant": 0.0}


def background_baseline(wins: NDArray[np.float64], where: list[Span]) -> Figures:
    """Make the figure of a decoder that knows each clip's background and nothing else.

    `wins` come from `background_wins`. The decoder shows the clips of `background_clips`.
    """
    figure = entry(wins, 0.5, groups=sessions_of(where))
    baseline = unknown(1 / 2, 0, _ALONE) if figure is None else with_constant(figure)
    return {"identification_2way_background": baseline}


def background_clips(
    truths: Sequence[Pixels], where: list[Span], events_by_run: Mapping[int, Sequence[Event]]
) -> list[Pixels]:
    """Draw what a decoder would show that is told the true background, a float64 clip for each window.

    The clip is the mean of all true clips with that background. The judged one is among them, so it is
    better than any mean from training could be.
    """
    alike: dict[str | None, list[Pixels]] = {}
    names = attribute(where, events_by_run, "background")
    for name, truth in zip(names, truths, strict=True):
        alike.setdefault(name, []).append(truth)
    # On disk, because clips may be large.
    file = ClipFile()
    means = {name: file.add(_mean_frames(clips)) for name, clips in alike.items()}
    return [means[name] for name in names]


def _mean_frames(clips: Sequence[Pixels]) -> Iterator[NDArray[np.float64]]:
    """Yield the mean of clips frame by frame, with no more than one frame in memory."""
    for frame in range(len(clips[0])):
        total = np.zeros(clips[0].shape[1:])
        for clip in clips:
            total += clip[frame]
        yield total / len(clips)


def background_wins(
    truths: Sequence[Pixels],
    where: list[Span],
    events_by_run: Mapping[int, Sequence[Event]],
    mean: Pixels,
) -> NDArray[np.float64]:
    """Compute the share of 2-way comparisons that the clips of `background_clips` win, (window,)."""
    corr = correlations(background_clips(truths, where, events_by_run), truths, mean)
    return identification_nway(corr, distractors(where, events_by_run), 2)


def _true_film(path: Path, fps: float | None = None) -> StoredClip:
    """Unpack the film of a recording, at the rate of the clips.

    Raises
    ------
    RecordingError
        If it cannot be read.
    """
    try:
        return unpack_mp4(path, fps)
    except (OSError, ValueError) as error:
        raise RecordingError(
            "recording-film-unreadable",
            "{path} cannot be read as a film ({error}). Copy the recording again from where it was made.",
            path=path,
            error=getattr(error, "strerror", None) or error,
        ) from error


def judge_recording(show: Decode, bundle: Bundle, path: Path) -> Figures:
    """Judge a decoder on a recording whose truth is known; arguments as for `judge_clips`.

    Raises
    ------
    UsageError
        If the recording has no truth, or no window to be judged.
    """
    recording = Recording(path)
    if recording.truth is None:
        raise UsageError(
            "recording-missing-truth",
            "{path} has no truth/events.tsv, and accuracy needs one. Record it with --truth.",
            path=path,
        )
    # A recording without a montage holds no EEG; it is judged on the volumes alone.
    modalities = [m for m in bundle.manifest.modalities if m != "eeg" or recording.montage is not None]
    # As a replay does, with the calibration that the session had.
    cut = cut_windows(bundle, recording, modalities, recording.calibration())
    if not cut:
        raise UsageError(
            "recording-too-short",
            "{path} holds no whole window for {modalities}. Record longer.",
            path=path,
            modalities=" and ".join(modalities),
        )
    inputs = window_arrays(bundle.manifest, cut)
    manifest = bundle.manifest
    events_by_run = {0: read_events(recording.truth / "events.tsv")}
    where = [(w.run, w.start_s, w.stop_s) for w in cut]
    if manifest.labels:
        return classified(show(inputs, where), where, events_by_run, bundle)
    film = _true_film(recording.truth / "film.mp4", manifest.clip.fps)
    frames = manifest.grid.hop_frames
    truths = [film_clip(film, start, manifest.clip.fps, frames) for _, start, _ in where]
    # Overlapping windows show the same film twice, and the film may end inside the last window.
    rows = [i for i in non_overlapping(where) if len(truths[i]) == frames]
    if not rows:
        raise UsageError(
            "recording-windows-outside-film",
            "no window of {path} lies inside {film_path}, {frame_count} frames long. Give a "
            "recording with the film that was shown.",
            path=path,
            film_path=recording.truth / "film.mp4",
            frame_count=len(film),
        )
    inputs = {name: x[rows] for name, x in inputs.items()}
    chosen: Sequence[Pixels] = [truths[i] for i in rows]
    size = (manifest.clip.height, manifest.clip.width)
    if chosen[0].shape[1:3] != size:
        # On disk if they are many.
        chosen = keep(at_size(np.asarray(truth), size) for truth in chosen)
    return judge_clips(show, bundle, inputs, chosen, [where[i] for i in rows], events_by_run)


def classified(
    reconstruction: Reconstruction,
    where: list[Span],
    events_by_run: Mapping[int, Sequence[Event]],
    bundle: Bundle,
) -> Figures:
    """Judge the scores of named categories against what was shown."""
    labels = bundle.manifest.labels or []
    correction = bundle.manifest.onset_correction_s
    accuracy = report_accuracy(
        where, events_by_run, scores=reconstruction.scores, labels=labels, onset_correction_s=correction
    )
    figure = accuracy["classification_top1"]
    # Blocks are balanced in the design, so one label for all windows is right at chance level.
    chance = 1 / len(labels)
    if figure is None:
        return {"classification_top1": unknown(chance, 0, "no window lies within one block")}
    return {"classification_top1": {**figure, "constant": chance}}
