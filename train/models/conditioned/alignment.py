"""How well held-out windows are told apart by the class vectors of a brain encoder, while it is aligned.

`of_sessions` and `of_set` keep windows that teach nothing as a stage of the run. The training loop calls
`HeldOutWindows.show` at the end of a phase: it holds their vectors against those of what was watched, prints
how well they are told apart, and keeps the figures and a sheet beside the stages. Nothing is learned from it.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from rtdecode import strict_json, terminal
from rtdecode.bundle import Bundle
from rtdecode.disk import private
from rtdecode.scores.accuracy import identification_nway, identification_top1
from train.config.run_context import Arrays, RunContext, read_arrays
from train.config.training_films import training_films
from train.data.arrays import normalised_signals
from train.data.clip_grid import shown_frames
from train.data.phantom import TRAINING_SEEDS
from train.data.recorded_sessions import RecordedSessions
from train.data.recorded_showing import RecordedShowing
from train.data.set_windows import SetWindows
from train.data.shards import Shards
from train.data.showing import AnyShowing
from train.data.simulated import FilmSessions
from train.data.taught import Taught
from train.data.window_arrays import WindowArray
from train.evaluation.last_run import novelty
from train.models.conditioned.trainable import FRAMES, BrainVideo, Contrasts, evaluated
from train.parts.encoders import film_net
from train.trainer.phases import Phase

# Windows that are told apart, at most: as many as a pool of `train.metrics.retrieval` has.
WINDOWS = 300
TABLE = "alignment"
BOTH = "both"
_STAGE = "held-out"
# Windows that are encoded at once.
_AT_ONCE = 32
# Rows of a sheet, and clips in each after the one that was shown.
_SHEET_ROWS = 8
_FIRST = 5
# Pixels between what was shown and what was found.
_GAP = 8


@dataclass(frozen=True)
class HeldOutWindows:
    """Windows that teach nothing.

    Attributes
    ----------
    work : RunContext
        The run, of which their signals are a stage.
    frames : float32, (window, frame, embedding)
        Embeddings of what they showed.
    phases : collection of str
        Names of the phases that bring brain vectors near those embeddings; at the end of each they are told
        apart.
    origin : str
        Where they come from, in a sentence.
    """

    work: RunContext
    frames: NDArray[np.float32]
    phases: Collection[str]
    origin: str

    @torch.no_grad()
    def show(self, system: BrainVideo, phase: str, step: int) -> None:
        """Tell the windows apart by each modality and by both, if the phase brings vectors together."""
        if phase not in self.phases:
            return
        path = self.work.path(_STAGE)
        ports = [port for name in system.encoder.modalities for port in (name, f"{name}_mask")]
        signals = {port: Shards([path], port) for port in ports}
        device = next(system.encoder.parameters()).device
        clips = system.pooling(torch.from_numpy(self.frames).to(device)).cpu()
        names = _routes(system.encoder.modalities)
        with evaluated(system.encoder):
            vectors = [_vectors(system, signals, name) for name in names]
        alike = [(vector @ clips.T).numpy().astype(np.float64) for vector in vectors]
        rows = [
            {"phase": phase, "step": step, "by": name, **identify_clips(similarity)}
            for name, similarity in zip(names, alike, strict=True)
        ]
        _say(rows, self.origin)
        # What has most to tell comes last.
        _sheet(Shards([path], "stills")[:], alike[-1]).save(_picture(self.work, phase))
        private.write_whole(_file(self.work, phase), strict_json.dumps(rows) + "\n")


def identify_clips(alike: NDArray[np.float64]) -> dict[str, Any]:
    """Say how often a window's own clip, and a clip's own window, is nearest.

    Parameters
    ----------
    alike : (window, clip)
        Similarities; the clip of window i is clip i, and no other shows any of the same.

    Returns
    -------
    dict
        ``windows``; ``two_way`` against one other clip; ``clip_by_brain`` and ``brain_by_clip``, shares that
        come first of all; ``two_way_chance`` and ``first_chance``. A tie is lost.
    """
    count = len(alike)
    is_other = ~np.eye(count, dtype=np.bool_)
    return {
        "windows": count,
        "two_way": float(identification_nway(alike, is_other, 2).mean()),
        "two_way_chance": 0.5,
        "clip_by_brain": float(identification_top1(alike, is_other).mean()),
        "brain_by_clip": float(identification_top1(alike.T, is_other).mean()),
        "first_chance": 1 / count,
    }


def of_sessions(
    work: RunContext,
    data: FilmSessions | RecordedSessions,
    raw: Bundle,
    stats: Arrays,
    frame_step: int,
) -> Arrays:
    """Read sessions that teach nothing, and reduce their films as those that teach were.

    Parameters
    ----------
    work : RunContext
        The run, which keeps what is read as a stage.
    data : FilmSessions or RecordedSessions
        The sessions of the run, those that are held out among them.
    raw : Bundle
        The chain that leaves signals in their own units.
    stats : dict
        What normalises them, from sessions that teach.
    frame_step : int
        One frame in so many is embedded.

    Returns
    -------
    dict
        Signals by port, ``pictures`` (see `train.parts.encoders.film_net.pictures`) and ``stills`` (window,
        row, column, 3); empty where no session is held out.
    """
    grid = raw.manifest.grid
    # Windows that overlap show some of the same.
    step = int(-(-grid.window // grid.hop))
    held_out = _held_out(work, data)
    frames = shown_frames(raw.manifest)
    if sum(showing.windows for showing in held_out) < 2 * step:
        return {}

    def make() -> Arrays:
        parts = [_session(showing, raw, stats, frame_step, frames, step) for showing in held_out]
        arrays = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        rows = _spread(len(arrays["stills"]))
        return {name: values[rows] for name, values in arrays.items()}

    return work.stage(_STAGE, make)


def origin_of_sessions(work: RunContext, data: FilmSessions | RecordedSessions) -> str:
    """Say which sessions `of_sessions` reads."""
    if isinstance(data, RecordedSessions):
        return novelty(data)
    names = ", ".join(showing.title for showing in _held_out(work, data))
    return f"They are of sessions that teach nothing ({names})."


def of_set(work: RunContext, windows: SetWindows, taught: Taught, frame_step: int | None = None) -> Arrays:
    """Read windows of the runs that are held out of a data set, each of another clip; see `keep_of_set`.

    Returns
    -------
    dict
        As for `of_sessions`.
    """
    path = keep_of_set(work, windows, taught, frame_step)
    return {} if path is None else read_arrays(path)


def keep_of_set(
    work: RunContext, windows: SetWindows, taught: Taught, frame_step: int | None = None
) -> Path | None:
    """Keep windows of the runs that are held out of a data set, each of another clip, as a stage of the run.

    Parameters
    ----------
    work : RunContext
        The run that keeps the stage.
    windows : SetWindows
        The data set, which says what is held out.
    taught : Taught
        Those that teach, whose statistics normalise these.
    frame_step : int, optional
        One frame in so many goes into ``pictures``; none without it.

    Returns
    -------
    Path or None
        Where they lie; None where fewer than two windows are held out.
    """
    rows = rows_of_set(windows)
    if len(rows) < 2:
        return None

    def make() -> Arrays:
        voxels = windows.places(taught.projection)
        arrays = windows.signals([np.array([row]) for row in rows], taught.stats, voxels)
        frames = shown_frames(taught.manifest)
        stills = []
        pictures = []
        for clip in windows.each_clip(rows):
            stills.append(clip[frames // 2])
            if frame_step is not None:
                pictures.append(film_net.pictures(clip[None, :frames], frame_step))
        if pictures:
            arrays["pictures"] = np.concatenate(pictures)
        return arrays | {"stills": np.stack(stills)}

    return work.make(_STAGE, make)


def rows_of_set(windows: SetWindows) -> NDArray[np.int64]:
    """Choose the windows of a data set that are told apart: those held out, the first of each clip."""
    held_out = windows.split.test
    _, first = np.unique(windows.data.windows.shown[held_out], return_index=True)
    rows = held_out[np.sort(first)]
    return rows[_spread(len(rows))]


def origin_of_set(windows: SetWindows) -> str:
    """Say which windows `of_set` reads."""
    runs = list(dict.fromkeys(windows.data.windows.run[rows_of_set(windows)].tolist()))
    return f"They are of runs that are held out ({', '.join(runs)})."


def aligning(phases: Mapping[str, Phase], contrasts: Contrasts) -> list[str]:
    """List the phases that bring brain vectors near those of the frames that were watched."""
    near_frames = {name for name, pair in contrasts.items() if FRAMES in pair}
    return [name for name, phase in phases.items() if near_frames & {*phase.losses}]


def table(work: RunContext, phases: Collection[str]) -> dict[str, list[dict[str, Any]]]:
    """Return what was told at the end of phases, as a table of the run; none where nothing was told."""
    files = [_file(work, name) for name in phases]
    rows = list(chain.from_iterable(json.loads(path.read_text()) for path in files if path.is_file()))
    return {TABLE: rows} if rows else {}


def pictures(work: RunContext, phases: Collection[str]) -> dict[str, Image.Image]:
    """Return the sheets that were kept at the end of phases, by the names of their files."""
    paths = [_picture(work, name) for name in phases]
    return {path.name: Image.open(path) for path in paths if path.is_file()}


def _held_out(work: RunContext, data: FilmSessions | RecordedSessions) -> list[AnyShowing]:
    """List sessions that teach nothing. Of simulated ones, there is always one more under a fresh seed."""
    if isinstance(data, RecordedSessions):
        return _first_showings(data.showings(work, "held"), float(data.grid.window))
    if data.held in ("", None):
        used = chain.from_iterable(data.seeds(work).values())
        unused = sorted({*TRAINING_SEEDS} - {*used})
        if not unused:
            return []
        # The next one after those that teach, and seeds are counted from the run's own.
        after = [seed for seed in unused if seed >= max(data.seeds(work)["sessions"])]
        data = replace(data, held=str((after or unused)[0] - work.seed))
    if not any(film.by_seed for film, _ in data.films):
        # Who has seen a film from a file in one session knows it in all.
        data = replace(data, films=tuple((film, data.seconds) for film in training_films(data.who.film)))
    return list(data.showings(work, "held"))


def _first_showings(showings: Sequence[RecordedShowing], window_s: float) -> list[AnyShowing]:
    """Leave out windows that show some of what an earlier one showed."""
    start_times: dict[str, list[float]] = {}
    first_showings: list[AnyShowing] = []
    for showing in showings:
        before = start_times.setdefault(showing.source, [])
        chosen = np.zeros(showing.windows, np.bool_)
        for number, start_s in enumerate(showing.start_s.tolist()):
            chosen[number] = all(abs(start_s - other) >= window_s - 1e-6 for other in before)
            if chosen[number]:
                before.append(start_s)
        if chosen.any():
            first_showings.append(showing.some(chosen, showing.name))
    return first_showings


def _session(
    showing: AnyShowing, raw: Bundle, stats: Arrays, frame_step: int, frames: int, step: int
) -> Arrays:
    """Read every so many windows of a session."""
    arrays = showing.arrays(raw)
    arrays |= normalised_signals(arrays, stats)
    clips = showing.film().clips
    arrays |= {"pictures": film_net.pictures(clips[:, :frames], frame_step), "stills": clips[:, frames // 2]}
    return {name: values[::step].copy() for name, values in arrays.items()}


def _spread(count: int) -> NDArray[np.int64]:
    """Choose rows from all over so many, `WINDOWS` at most."""
    return np.linspace(0, count - 1, min(count, WINDOWS)).round().astype(np.int64)


def _routes(modalities: Collection[str]) -> list[str]:
    """List what windows are told apart by; what has most to tell comes last."""
    names = list(modalities)
    return [*names, BOTH] if len(names) > 1 else names


def _vectors(system: BrainVideo, arrays: Mapping[str, WindowArray], name: str) -> Tensor:
    """Return the class vectors of windows by one modality, as if there were no other, or by both."""
    encoder = system.encoder
    device = next(encoder.parameters()).device
    vectors = []
    for first in range(0, len(arrays[f"{encoder.modalities[0]}_mask"]), _AT_ONCE):
        signals = {}
        for modality in encoder.modalities:
            is_read = float(name in (modality, BOTH))
            for port in (modality, f"{modality}_mask"):
                values = arrays[port][first : first + _AT_ONCE].astype(np.float32)
                signals[port] = is_read * torch.from_numpy(values).to(device)
        _, pooled = encoder.condition(signals)
        vectors.append(pooled.float().cpu())
    return torch.cat(vectors)


def _say(rows: Sequence[Mapping[str, Any]], origin: str) -> None:
    console = terminal.console(stderr=True, soft_wrap=True)
    say = partial(console.print, markup=False, highlight=False)
    first = rows[0]
    count = first["windows"]
    say(
        f"{first['phase']}, step {first['step']}: {count} held-out windows are told apart. {origin} Chance "
        f"is {first['two_way_chance']:g} (2-way) and {first['first_chance']:.4f} (first of {count})."
    )
    for row in rows:
        say(
            f"  by {row['by']}: 2-way {row['two_way']:.3f}; first of {count}: clip by brain "
            f"{row['clip_by_brain']:.3f}, brain by clip {row['brain_by_clip']:.3f}"
        )


def _sheet(stills: NDArray[np.uint8], alike: NDArray[np.float64]) -> Image.Image:
    """Lay what some windows showed beside the clips that their vectors find first, one row for each."""
    count = len(stills)
    rows = np.linspace(0, count - 1, min(_SHEET_ROWS, count)).round().astype(int)
    gap = np.full((stills.shape[1], _GAP, 3), 255, np.uint8)
    lines = []
    for row in rows:
        nearest = np.argsort(-alike[row], kind="stable")[:_FIRST]
        lines.append(np.concatenate([stills[row], gap, *stills[nearest]], axis=1))
    return Image.fromarray(np.concatenate(lines))


def _file(work: RunContext, phase: str) -> Path:
    return work.stages / f"{TABLE}-{phase}.json"


def _picture(work: RunContext, phase: str) -> Path:
    return work.stages / f"{TABLE}-{phase}.png"
