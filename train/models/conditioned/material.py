"""What a small system is trained on: films as latents, pictures and captions, and the signals of windows.

It comes from sessions of the simulated participant (`of_sessions`), whose films and signals are stages on
disk, or from a data set (`of_set`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode.bundle import Manifest
from rtdecode.errors import UsageError
from rtdecode.signal.volume.projection import Projection
from train.closed_form.patch_codec import FRAMES, encode_scaled
from train.config.builders import Later
from train.config.run_context import Arrays, RunContext
from train.data.arrays import golden, statistics
from train.data.chain import draft_bundle, unit_statistics
from train.data.clip_grid import shown_frames
from train.data.film_stages import (
    all_clips,
    film_stage,
    golden_windows,
    session_stage,
    some_of_each_kind,
)
from train.data.recorded_sessions import RecordedSessions
from train.data.set_windows import SetWindows
from train.data.sets.set_node import SIGNALS, DataSetWindows
from train.data.shards import Shards
from train.data.showing import AnyShowing, by_title
from train.data.simulated import FilmSessions
from train.data.taught import Taught
from train.data.voxel_choice import find_voxels
from train.data.voxel_order import HIERARCHY, STORED, ordered
from train.data.window_arrays import WindowArray, of_voxels
from train.models.conditioned import alignment
from train.models.conditioned.batches import PORTS
from train.parts.codecs.fitted_patch import fit_codec
from train.parts.encoders import film_net
from train.parts.text.words import captions

# Longest caption on disk, letters.
_LETTERS = 4096
# Sessions that statistics are computed from.
_STATISTICS = 24

# From clips (clip, frame, row, column, 3), and the words that an events file has for each of them, to what an
# encoder learns to predict, (clip, ...).
Describe = Callable[[NDArray[np.uint8], Sequence[str] | None], NDArray[Any]]


@dataclass(frozen=True)
class FilmSizes:
    """What films are reduced to.

    Attributes
    ----------
    channels : int
        Of the latents.
    contrast : float
        See `train.parts.codecs.fitted_patch.fit_codec`.
    embedding : int
        Width of the embeddings of frames and captions.
    every : int
        Every so many frames of a clip are embedded.
    tokens : int
        Words of a caption, and tokens of the condition that takes their place.
    turn : int
        Frames of a clip in each latent frame after the first: 4, or 1.
    """

    channels: int
    contrast: float
    embedding: int
    every: int
    tokens: int
    turn: Later[int] = FRAMES

    def __post_init__(self) -> None:
        if self.turn not in (1, FRAMES):
            raise UsageError(
                "film-sizes-turn-unknown",
                "system.films.turn is the number of frames in a latent frame, 1 or {frames}, found {turn}.",
                frames=FRAMES,
                turn=self.turn,
            )


@dataclass(frozen=True)
class Places:
    """Where what windows show lies.

    Attributes
    ----------
    clips : (window,) of str
        Windows of one name show the same clip.
    films : (window,) of str
        The film, or the run of a data set.
    start_s : (window,)
        Where in it each window starts.
    """

    clips: NDArray[np.str_]
    films: NDArray[np.str_]
    start_s: NDArray[np.float64]

    def near(self, rows: NDArray[np.int64], seconds: float) -> NDArray[np.bool_]:
        """Say which windows show the clip of a row, or something within so many seconds, (window, row)."""
        same_clip = self.clips[:, None] == self.clips[rows]
        same_film = self.films[:, None] == self.films[rows]
        close = np.abs(self.start_s[:, None] - self.start_s[rows]) < seconds
        return same_clip | (same_film & close)


@dataclass(frozen=True)
class Material:
    """Windows that teach, in the order in which they were shown.

    Attributes
    ----------
    codec : dict
        See `train.parts.codecs.fitted_patch.fit_codec`.
    latents : (window, channel, latent frame, row, column)
        What the codec makes of the clips.
    pictures : uint8, (window, frame, 3, 32, 48)
        See `train.parts.encoders.film_net.pictures`.
    captions : list of str
        Caption of each window.
    signals : mapping
        Port -> its values, in their own units.
    units : dict or None
        What normalises them, see `train.data.arrays.statistics`; None where they are normalised already.
    stats : dict
        Arrays of the bundle's ``stats.npz``.
    manifest : Manifest
        The draft, with its provenance.
    projection : Projection
        The voxels that are read.
    golden : dict
        See `train.data.arrays.golden`.
    held_out : dict
        Windows that teach nothing, see `train.models.conditioned.alignment`; empty where there are none.
    origin : str
        Where those come from, in a sentence.
    places : Places
        Which clip each window shows, and where it lies in its film.
    targets : mapping
        Name -> what the plan's descriptions make of the clips, (window, ...).
    cuts : callable or None
        Reads which frames begin a shot, bool (window, frame). A data set does not say it.
    folds : int64, (window,), or None
        Windows of one number are left out together when choices are made; None to leave out each by itself.
    """

    codec: Arrays
    latents: WindowArray
    pictures: NDArray[np.uint8]
    captions: list[str]
    signals: Mapping[str, WindowArray]
    units: Arrays | None
    stats: Arrays
    manifest: Manifest
    projection: Projection
    golden: Arrays
    held_out: Arrays
    origin: str
    places: Places

    targets: Mapping[str, WindowArray]
    cuts: Callable[[], WindowArray] | None = None
    folds: NDArray[np.int64] | None = None

    def shots(self) -> NDArray[np.int64]:
        """Number the shots of windows, (window,), by their first frames; of a data set, their clips."""
        _, clips = np.unique(self.places.clips, return_inverse=True)
        if self.cuts is None:
            return clips
        cuts = np.asarray(self.cuts()[:])
        films = self.places.films
        # A shot goes on from the first frame of a window into the next one, unless it ends before.
        ends = cuts[:-1, 1:].any(1) | cuts[1:, 0] | (films[1:] != films[:-1])
        numbers = np.cumsum(np.append(False, ends))
        # Windows that show the same clip show the same shot.
        _, firsts = np.unique(clips, return_index=True)
        return numbers[firsts][clips]


def of_sessions(
    work: RunContext,
    data: FilmSessions | RecordedSessions,
    sizes: FilmSizes,
    voxels: int,
    name: str,
    descriptions: Mapping[str, Describe],
    codec: Arrays | None = None,
    order: str = STORED,
    mark: str = "",
    vertices: NDArray[np.int64] | None = None,
) -> Material:
    """Reduce films, read the signals of who watched them, and choose voxels, each as a stage of the run.

    Parameters
    ----------
    work : RunContext
        The run that keeps the stages.
    data : FilmSessions or RecordedSessions
        The sessions of the run, of which those that teach are read.
    sizes : FilmSizes
        What films are reduced to.
    voxels : int
        Number of voxels that are read, those that follow films best.
    name : str
        What its bundle is called.
    descriptions : mapping
        Name of a target -> what makes it of clips.
    codec : dict, optional
        The codec of a run that this training begins at; it is fitted without one.
    order : str
        In which voxels are read, see `train.data.voxel_order`.
    mark : str
        What the names of a participant's stages begin with, where there are several; of those after the
        first one, nobody's windows are told apart.
    vertices : (voxel,), optional
        Flat indices of the voxels that are read, where none are to be chosen.
    """
    taught: list[AnyShowing] = list(data.showings(work))
    first = list({showing.source: showing for showing in reversed(taught)}.values())
    codec = codec or work.stage(
        "codec", lambda: fit_codec(all_clips(first), sizes.channels, sizes.contrast, sizes.turn)
    )
    sample = some_of_each_kind(taught)
    window_s = float(data.grid.window)
    find = partial(find_voxels, codec, sample, voxels, window_s)
    choice = work.stage(f"{mark}voxels", find if vertices is None else partial(_at, sample[0], vertices))
    areas = data.who.areas() if isinstance(data, FilmSessions) else {}
    places, stated_order = ordered(order, choice["voxels"], areas, work.seed)
    projection = taught[0].projection(choice["voxels"][places])
    level = choice["level"][places].astype(np.float32)
    draft = data.manifest(projection)
    raw = draft_bundle(draft, unit_statistics(draft, level), projection)
    jobs: dict[str, Any] = {}
    for showing in taught:
        jobs[film_stage(showing)] = partial(
            _draw, codec, sizes.every, shown_frames(draft), descriptions, showing
        )
        jobs[session_stage(showing)] = partial(showing.arrays, raw)
    work.make_all(jobs, "watching films")
    stats = work.stage(f"{mark}statistics", partial(_statistics, work, taught, level))
    films = [work.path(film_stage(showing)) for showing in taught]
    sessions = [work.path(session_stage(showing)) for showing in taught]
    return Material(
        codec=codec,
        latents=Shards(films, "latents"),
        # An hour of film has 40 MB of them.
        pictures=Shards(films, "pictures")[:],
        captions=Shards(films, "captions")[:].tolist(),
        signals={name: Shards(sessions, name) for name in _ports(draft)},
        units=stats,
        stats=stats | {"mean_clip": codec["mean_clip"]},
        manifest=replace(draft, name=name, provenance=data.provenance(work) | _stated(order, stated_order)),
        projection=projection,
        golden=golden_windows(work, taught[0], stats),
        held_out={} if mark else alignment.of_sessions(work, data, raw, stats, sizes.every),
        origin=alignment.origin_of_sessions(work, data),
        places=_places(taught),
        folds=by_title(taught),
        targets={name: Shards(films, name)[:] for name in descriptions},
        cuts=partial(Shards, films, "cuts"),
    )


def of_set(
    work: RunContext,
    data: DataSetWindows,
    sizes: FilmSizes,
    descriptions: Mapping[str, Describe],
    codec: Arrays | None = None,
    order: str = STORED,
) -> Material:
    """Read the windows of a data set that teach, of one participant.

    The arguments are those of `of_sessions`.
    """
    return of_windows(work, data.opened(work.data), sizes, descriptions, codec, order)


def of_windows(
    work: RunContext,
    windows: SetWindows,
    sizes: FilmSizes,
    descriptions: Mapping[str, Describe],
    codec: Arrays | None = None,
    order: str = STORED,
    mark: str = "",
) -> Material:
    """Read the windows that teach of a participant of a data set; clips are encoded as a stage of the run.

    The arguments are those of `of_sessions`.
    """
    taught = in_order(windows.taught(work.stages / f"{mark}{SIGNALS}"), windows, order, work.seed)
    clips = taught.clips_in_memory()
    codec = codec or work.stage("codec", lambda: fit_codec(clips, sizes.channels, sizes.contrast, sizes.turn))
    frames = shown_frames(taught.manifest)
    films = work.stage(
        f"{mark}films", lambda: _reduced(codec, clips, sizes.every, frames, descriptions, None)
    )
    return Material(
        codec=codec,
        latents=films["latents"],
        pictures=films["pictures"],
        captions=films["captions"].tolist(),
        signals=taught.signals,
        units=None,
        stats=taught.stats,
        manifest=taught.manifest,
        projection=taught.projection,
        golden=golden(taught.signals),
        held_out={} if mark else alignment.of_set(work, windows, taught, sizes.every),
        origin=alignment.origin_of_set(windows),
        places=places_of_set(windows),
        folds=taught.folds,
        targets={name: films[name] for name in descriptions},
    )


def in_order(taught: Taught, windows: SetWindows, order: str, seed: int) -> Taught:
    """Bring the voxels of a data set's windows into an order."""
    if order == STORED:
        return taught
    masks = windows.data.regions(windows.subject) if order == HIERARCHY else {}
    areas = {name: np.flatnonzero(mask) for name, mask in masks.items()}
    places, stated_order = ordered(order, windows.places(taught.projection), areas, seed)
    by_voxel = {name: values[places] for name, values in taught.stats.items() if name.startswith("fmri_")}
    return replace(
        taught,
        signals={**taught.signals, "fmri": of_voxels(taught.signals["fmri"], places)},
        stats=taught.stats | by_voxel,
        projection=replace(taught.projection, voxels=taught.projection.voxels[places]),
        manifest=replace(
            taught.manifest, provenance=taught.manifest.provenance | _stated(order, stated_order)
        ),
    )


def _stated(order: str, sentence: str) -> dict[str, str]:
    """Return what a bundle says of the order of its voxels, unless nobody asked for one."""
    return {} if order == STORED else {"voxel_order": sentence}


def _ports(draft: Manifest) -> list[str]:
    """List the signals that the windows of a bundle have, and their masks."""
    read = {"eeg": draft.eeg, "fmri": draft.fmri}
    return [port for port in PORTS if read[port.removesuffix("_mask")] is not None]


def _places(showings: Sequence[AnyShowing]) -> Places:
    films = np.concatenate([np.full(showing.windows, showing.title) for showing in showings])
    start_s = np.concatenate([showing.start_s for showing in showings])
    clips = np.array([f"{film} {start:.3f}" for film, start in zip(films, start_s, strict=True)])
    return Places(clips, films, start_s)


def places_of_set(windows: SetWindows) -> Places:
    """Say where lies what the windows of a data set that teach show."""
    rows = windows.split.train
    listed = windows.data.windows
    runs = [f"{subject} {run}" for subject, run in zip(listed.subject[rows], listed.run[rows], strict=True)]
    return Places(listed.shown[rows], np.array(runs), listed.start_s[rows])


def _at(showing: AnyShowing, voxels: NDArray[np.int64]) -> Arrays:
    """Return voxels with their resting level, as `find_voxels` does."""
    return {"voxels": voxels, "level": showing.volumes(voxels).level}


def _draw(
    codec: Arrays, frame_step: int, frames: int, descriptions: Mapping[str, Describe], showing: AnyShowing
) -> Arrays:
    """Reduce the film of a session."""
    film = showing.film()
    reduced = _reduced(codec, film.clips, frame_step, frames, descriptions, showing.words())
    return reduced | {"cuts": film.cuts[:, :frames]}


def _reduced(
    codec: Arrays,
    clips: NDArray[np.uint8],
    frame_step: int,
    frames: int,
    descriptions: Mapping[str, Describe],
    events: Sequence[str] | None,
) -> Arrays:
    """Encode and caption clips, and keep the pictures that are embedded, of so many frames of the window."""
    # The frame after the window may lie behind a cut: the codec needs it, and captions are not told of it.
    window_clips = clips[:, :frames]
    return {
        "latents": np.concatenate([encode_scaled(codec, clip[None]) for clip in clips]).astype(np.float16),
        "pictures": film_net.pictures(window_clips, frame_step),
        "captions": np.array(captions(list(window_clips), events), f"U{_LETTERS}"),
        **{name: describe(window_clips, events) for name, describe in descriptions.items()},
    }


def _statistics(work: RunContext, taught: Sequence[AnyShowing], level: NDArray[np.float32]) -> Arrays:
    """Compute the statistics of signals from sessions all over the training."""
    sample = taught[:: -(-len(taught) // _STATISTICS)]
    parts = [work.read(session_stage(showing)) for showing in sample]
    read = [name for name in ("eeg", "fmri") if name in parts[0]]
    together = {name: np.concatenate([part[name] for part in parts]) for name in read}
    return statistics(together, level)
