"""Windows of one subject of a data set as a bundle's graphs read them: those that teach, and held-out runs.

`train.data.sets.set_node` opens a data set as `SetWindows`.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from rtdecode.bundle import Bundle, ClipGeometry, Manifest
from rtdecode.disk.clip_file import ComputedClip, Pixels, joined, keep
from rtdecode.errors import UsageError
from rtdecode.phantom.film.cuts import find_cuts
from rtdecode.phantom.film.film import FPS
from rtdecode.phantom.film.fit import filling
from rtdecode.phantom.film.watched import Pictures
from rtdecode.signal.volume.projection import Projection
from train.config.run_context import Arrays, progress
from train.data import near_duplicates, splits
from train.data.clip_grid import shown_frames
from train.data.dataset import Acquired, Column, DataSet
from train.data.driven_voxels import driven_voxels
from train.data.examined import examined
from train.data.reproducible_voxels import reproducible_voxels, segments
from train.data.splits import Repeats, Rows, Split
from train.data.standard import Statistics, names_digest, statistics
from train.data.stored_signals import StoredSignals, store
from train.data.taught import Taught
from train.data.window_arrays import Ones, ShardedEeg, Volumes, WindowArray, resampled

# How voxels are chosen.
DRIVEN = "driven"
REPRODUCIBLE = "reproducible"
CHOICES = (DRIVEN, REPRODUCIBLE)
# 16 GiB.
_MOST_CLIP_BYTES = 2**34
# Windows that are read at a time: clips may be large.
_AT_A_TIME = 8
# Parts of the time that are left out in turn where all runs show the same.
_PARTS = 5
# Subjects as releases call them. A folder of one's own may bear another name.
_CODE = re.compile(r"(sub-?|subj|subject|S)?\d+|participant")
# What figures are said to rest on where signals are read as released.
_UNSCALED = (
    "Signals were read as the release scaled them (data.standardise=false). Where that was done over "
    "training and test together, what was held out had a part in it: no figure of this run is free of that "
    "leak."
)
# An instant so close before a frame is that frame's, as a share of a frame.
_SLACK = 1e-6


@dataclass(frozen=True, eq=False)
class SetRun:
    """A run that is held out, as judges of held runs ask for it (`train.evaluation.held_runs.HeldRun`).

    Attributes
    ----------
    of : SetWindows
        The opened data set that the run is of.
    trials : sequence of (row,)
        Rows of the table whose signals are averaged to one window.
    """

    of: "SetWindows"
    trials: Sequence[Rows]

    @property
    def rows(self) -> Rows:
        """The first row of each trial, which names its clip."""
        return np.array([trial[0] for trial in self.trials])

    @property
    def windows(self) -> int:
        """Number of windows."""
        return len(self.trials)

    @property
    def run_s(self) -> NDArray[np.float64]:
        """Start of each window in the run, s.

        Responses to showings that were no run together have places of their own, none beside another.
        """
        if self.of.data.tr_s is None:
            return np.linspace(0.0, 2 * self.of.data.window_s * (self.windows - 1), self.windows)
        return self.of.data.windows.start_s[self.rows]

    def clips(self) -> list[Pixels]:
        """Return what the windows showed, as clips of the bundle; on disk if they are many or large."""
        return self._shown

    @cached_property
    def _shown(self) -> list[Pixels]:
        return keep(self.of.each_clip(self.rows))

    def watched(self) -> Pictures:
        """Return the film as if its windows had been shown one after the other, without the gaps."""
        length = shown_frames(self.of.draft)
        frames = joined(np.asarray(clip[k]) for clip in self.clips() for k in range(length))
        fps = self.of.draft.clip.fps
        gaps = np.flatnonzero(np.abs(np.diff(self.run_s) - self.of.data.window_s) > 1 / fps) + 1
        # What lies on the two sides of a gap belongs to two shots.
        cuts = np.union1d(find_cuts(frames), gaps * length)
        return Pictures(frames, cuts[cuts > 0], window=length, fps=fps)

    def arrays(self, bundle: Bundle) -> Arrays:
        """Return the signals that the bundle reads by port, normalised as it says."""
        voxels = None if bundle.projection is None else self.of.places(bundle.projection)
        return self.of.signals(self.trials, bundle.stats, voxels)


@dataclass(eq=False)
class SetWindows:
    """A data set that was opened.

    Attributes
    ----------
    data : DataSet
        Of one subject.
    split : Split
        Rows that teach, validate and test.
    voxels : int64, (voxel,)
        The voxels of the release that may be read: those of the region.
    max_voxels : int
        So many of them are read at most.
    draft : Manifest
        Of a bundle that reads all of `voxels`.
    choose : str
        How they are chosen, one of `CHOICES`.
    regions : sequence of str
        Names of the regions that `voxels` lie in; empty for all voxels.
    study_notes : sequence of str
        What is known of other folders of the same study.
    standardise : bool
        Whether signals are standardised by the windows that teach; otherwise they are read as released.
    most_clip_bytes : int
        Clips that teach are kept where together they take no more, and are read anew at each look otherwise.
    hashes : dict
        Name of what was shown -> see `near_duplicates.clip_hashes`; of the clips that were read so far.
    """

    data: DataSet
    split: Split
    voxels: NDArray[np.int64]
    max_voxels: int
    draft: Manifest
    choose: str = DRIVEN
    regions: Sequence[str] = ()
    study_notes: Sequence[str] = ()
    standardise: bool = True
    most_clip_bytes: int = _MOST_CLIP_BYTES
    hashes: dict[str, NDArray[np.uint64]] = field(default_factory=dict, repr=False)
    _last: tuple[int, NDArray[np.uint8]] | None = field(default=None, init=False, repr=False)

    @property
    def subject(self) -> str:
        """The subject."""
        return self.data.windows.subjects[0]

    @property
    def participant(self) -> str:
        """Whose the windows are, without a name that may be a person's."""
        return f"{self.data.layout}, {self.code or 'a participant'}"

    @property
    def code(self) -> str:
        """The subject as a release calls it; "" for a name that may be a person's."""
        return self.subject if _CODE.fullmatch(self.subject) else ""

    @cached_property
    def acquired(self) -> Acquired | None:
        """How a session acquires the signals, where the layout tells."""
        return self.data.acquired(self.subject)

    def places(self, projection: Projection) -> Rows:
        """Return the places, among the data set's voxels, of those that a bundle reads.

        Raises
        ------
        UsageError
            If the bundle reads other volumes than those of the data set.
        """
        if self.acquired is None:
            return projection.voxels
        if projection.shape != self.acquired.head.shape:
            raise UsageError(
                "data-volumes-mismatch",
                "{folder} ({layout}) has volumes of shape {shape}, and the bundle reads {expected}. Give the "
                "data that it was trained on, or train it again: before, bundles of such data did not keep "
                "the place of their voxels.",
                folder=self.data.folder,
                layout=self.data.layout,
                shape=list(self.acquired.head.shape),
                expected=list(projection.shape),
            )
        return np.searchsorted(self.acquired.head.voxels, projection.voxels)

    def _level(self, stats: Mapping[str, NDArray[Any]]) -> NDArray[Any] | float:
        """Return what is taken off the volumes: nothing where they are differences from a level already."""
        if self.acquired is not None and self.acquired.level is not None:
            return 0.0
        return stats["fmri_mean"]

    def taught(self, folder: Path | None = None) -> Taught:
        """Read the windows that teach. Their statistics rest on no other window.

        Parameters
        ----------
        folder : Path, optional
            Where the signals of all windows are kept in shards, of which batches are read
            (`train.data.stored_signals`); without it, those that teach are read into memory.
        """
        rows = self.split.train
        folds = self.folds()
        mean_clip = _mean_clip(self.taught_clips)
        stored = None if folder is None else store(self.data, self._columns, folder)
        data = stored or self.data
        subject_stats = statistics(data, rows, self._columns)[self.subject]
        stats = self._stats(subject_stats) | {"mean_clip": mean_clip}
        signals: dict[str, WindowArray] = {}
        if stored is None:
            signals |= self.signals(splits.trials(self.data.windows, rows), stats, self.voxels)
            chosen = self._chosen(signals["fmri"], folds)
            signals["fmri"] = np.ascontiguousarray(signals["fmri"][..., chosen])
        else:
            volumes = self._volumes(stored, stats)
            chosen = self._chosen(volumes, folds)
            signals |= self._from_shards(stored, volumes.some(chosen), stats)
        for name in ("fmri_mean", "fmri_scale"):
            stats[name] = stats[name][chosen]
        return Taught(
            signals=signals,
            clips=self.taught_clips,
            folds=folds,
            manifest=self._manifest(subject_stats, len(chosen), data),
            stats=stats,
            projection=self._projection(self.voxels[chosen]),
        )

    def _volumes(self, stored: StoredSignals, stats: Mapping[str, NDArray[Any]]) -> Volumes:
        """Return the volumes that teach, which lie in shards, as `signals` normalises them."""
        level = np.zeros(len(self.voxels), np.float32) + self._level(stats)
        shards = stored.signals["fmri"]
        return Volumes(shards, self.split.train, self.voxels, level, stats["fmri_scale"])

    def _from_shards(
        self, stored: StoredSignals, volumes: Volumes, stats: Mapping[str, NDArray[Any]]
    ) -> dict[str, WindowArray]:
        """Return the signals that teach, which lie in shards, as `signals` normalises them."""
        rows = self.split.train
        # A window is in the table only if its signals are whole.
        signals: dict[str, WindowArray] = {"fmri": volumes, "fmri_mask": Ones(volumes.shape[:2])}
        if "eeg" in stored.signals:
            samples = self.draft.grid.samples
            signals["eeg"] = ShardedEeg(
                stored.signals["eeg"], rows, samples, stats["eeg_mean"], stats["eeg_scale"]
            )
            signals["eeg_mask"] = Ones((len(rows), samples))
        return signals

    def _chosen(self, fmri: WindowArray, folds: NDArray[np.int64]) -> Rows:
        """Choose voxels by the windows that teach, (voxel,); what is held out has no part in it."""
        if self.choose == REPRODUCIBLE:
            return reproducible_voxels(fmri, segments(self.data.windows, self.split.train), self.max_voxels)
        return driven_voxels(self.taught_clips, fmri, folds, self.max_voxels)

    @cached_property
    def taught_clips(self) -> list[Pixels]:
        """What the windows that teach showed: on disk if they are many, and read at each look if too many."""
        rows = self.split.train
        clip = self.draft.clip
        shape = (clip.frames, clip.height, clip.width, 3)
        if len(rows) * math.prod(shape) <= self.most_clip_bytes:
            return keep(self.each_clip(rows))
        return [ComputedClip(shape, partial(self._part_of_clip, row)) for row in rows.tolist()]

    def _part_of_clip(self, row: int, frame: int, lines: slice) -> NDArray[np.uint8]:
        """Read some lines of a frame of a window's clip. The clip that was read last is kept."""
        if self._last is None or self._last[0] != row:
            (clip,) = self._read_clips(np.array([row]))
            self._last = (row, clip)
        return self._last[1][frame, lines]

    def test_runs(self, repeats: Repeats = "single") -> list[SetRun]:
        """List the runs that are held out. The mean of several showings belongs to the run of the first.

        Responses have no run of several windows: the first showings of all that is held out count as one,
        then the second showings, and so on.
        """
        trials = splits.trials(self.data.windows, self.split.test, repeats)
        windows = self.data.windows
        run_of = windows.run if self.data.tr_s is not None else windows.repeat.astype(str)
        runs = run_of[[trial[0] for trial in trials]]
        return [
            SetRun(self, [trial for trial, trial_run in zip(trials, runs, strict=True) if trial_run == run])
            for run in dict.fromkeys(runs.tolist())
        ]

    def clear(self, rows: Rows) -> NDArray[np.bool_]:
        """Say which windows look like nothing that teaches, (row,); see `train.data.near_duplicates`."""
        duplicates = near_duplicates.pairs(self.shown_hashes(rows), self.shown_hashes(self.split.train))
        return near_duplicates.without(self.data, rows, duplicates)

    def clips(self, rows: Rows) -> NDArray[np.uint8]:
        """Read what windows showed, in the size and rate of the bundle, (window, frame, row, column, 3)."""
        clip = self.draft.clip
        clips = np.empty((len(rows), clip.frames, clip.height, clip.width, 3), np.uint8)
        for n, window_clip in enumerate(self.each_clip(rows)):
            clips[n] = window_clip
        return clips

    def signals(
        self, trials: Sequence[Rows], stats: Mapping[str, NDArray[Any]], voxels: Rows | None
    ) -> Arrays:
        """Read the signals of trials and normalise them, by port; of a trial, the mean of its windows.

        Parameters
        ----------
        trials : sequence of (row,)
            Rows of the table that make each trial.
        stats : mapping
            Without any for the EEG, it is not read.
        voxels : (voxel,) or None
            Those that are read; None to read no volumes.
        """
        grid = self.draft.grid
        count = len(trials)
        # A window is in the table only if its signals are whole.
        arrays: Arrays = {}
        if voxels is not None:
            arrays["fmri"] = np.empty((count, grid.slots, len(voxels)), np.float32)
            arrays["fmri_mask"] = np.ones((count, grid.slots), np.float32)
        if self.draft.eeg is not None and "eeg_mean" in stats:
            arrays["eeg"] = np.empty((count, len(self.draft.eeg.channels), grid.samples), np.float32)
            arrays["eeg_mask"] = np.ones((count, grid.samples), np.float32)
        for first in progress(range(0, count, _AT_A_TIME), "reading signals"):
            batch = trials[first : first + _AT_A_TIME]
            part = slice(first, first + len(batch))
            if "fmri" in arrays:
                volumes = splits.read_trials(self.data, "fmri", batch)[..., voxels]
                arrays["fmri"][part] = (volumes - self._level(stats)) / stats["fmri_scale"]
            if "eeg" in arrays:
                eeg = resampled(splits.read_trials(self.data, "eeg", batch), grid.samples)
                arrays["eeg"][part] = (eeg - stats["eeg_mean"][:, None]) / stats["eeg_scale"][:, None]
        return arrays

    def folds(self) -> NDArray[np.int64]:
        """Say which windows that teach are left out together when choices are made, (window,).

        They are those of one run, and of all runs that show some of the same: a film that is shown twice must
        not be chosen by its own twin. Where that is all there is, they are those of a fifth of the film.
        """
        table = self.data.windows
        rows = self.split.train
        runs = _numbered(table.run[rows])
        titles = _numbered(table.shown[rows])
        if self.data.tr_s is None:
            # As many parts as there are showings would take long, and say no more.
            return titles * _PARTS // (titles.max() + 1)
        count = runs.max() + 1
        films = titles.max() + 1
        links = coo_array((np.ones(len(rows)), (runs, count + titles)), shape=(count + films, count + films))
        folds = connected_components(links, directed=False)[1][runs]
        return folds if folds.max() > 0 else titles * _PARTS // films

    @property
    def digest(self) -> str:
        """SHA-256 of the names of the windows that teach."""
        return names_digest(self.data.windows.names(self.split.train))

    @property
    def division(self) -> str:
        """Which runs teach and which are held out, in a sentence."""
        windows = self.data.windows
        taught, held_out = (
            len({*windows.run[rows].tolist()}) for rows in (self.split.train, self.split.test)
        )
        skipped = len(self.split.left_out)
        twins = f"; {skipped} that show the same as those are left out" if skipped else ""
        return (
            f"{self.participant}: {len(self.split.train)} windows of {taught} runs teach, "
            f"and {len(self.split.test)} of {held_out} are held out and judged{twins}."
        )

    def each_clip(self, rows: Rows) -> Iterator[NDArray[np.uint8]]:
        """Yield the clips of windows one by one, in the size and rate of the bundle."""
        for first in progress(range(0, len(rows), _AT_A_TIME), "reading clips"):
            yield from self._read_clips(rows[first : first + _AT_A_TIME])

    def _read_clips(self, rows: Rows) -> Iterator[NDArray[np.uint8]]:
        for row, released in zip(rows, self.data.read("clips", rows), strict=True):
            clip = _fitted(released, float(self.data.fps or FPS), self.draft.clip)
            self.hashes[str(self.data.windows.shown[row])] = near_duplicates.clip_hashes(clip)
            yield clip

    def shown_hashes(self, rows: Rows) -> dict[str, NDArray[np.uint64]]:
        """Return the hashes of what windows showed; only clips that were not read yet are read."""
        names = self.data.windows.shown[rows].tolist()
        unknown = [row for row, name in zip(rows, names, strict=True) if name not in self.hashes]
        for _ in self.each_clip(np.array(unknown, np.int64)):
            pass
        return {name: self.hashes[name] for name in dict.fromkeys(names)}

    @property
    def _notes(self) -> list[str]:
        """What is known of the data set, and that its own scaling is left in where it is."""
        return [*self.data.notes, *([] if self.standardise else [_UNSCALED])]

    @property
    def _columns(self) -> list[Column]:
        """The signals that are read."""
        return ["fmri"] if self.draft.eeg is None else ["eeg", "fmri"]

    def _stats(self, subject_stats: Statistics) -> Arrays:
        stats: Arrays = {
            "fmri_mean": subject_stats.mean["fmri"][self.voxels].astype(np.float32),
            "fmri_scale": subject_stats.deviation["fmri"][self.voxels].astype(np.float32),
        }
        if self.acquired is not None and self.acquired.level is not None:
            stats["fmri_mean"] = self.acquired.level[self.voxels]
        if self.draft.eeg is not None:
            stats["eeg_mean"] = subject_stats.mean["eeg"].astype(np.float32)
            stats["eeg_scale"] = subject_stats.deviation["eeg"].astype(np.float32)
        return stats if self.standardise else _as_released(stats)

    def _projection(self, voxels: NDArray[np.int64]) -> Projection:
        """Return voxels as a bundle reads them: most releases have values in a row and not in a volume."""
        if self.acquired is not None:
            head = self.acquired.head
            return replace(head, voxels=head.voxels[voxels])
        assert self.draft.fmri is not None
        count, *_ = self.draft.fmri.shape
        return Projection(voxels, (count, 1, 1), np.asarray(self.draft.fmri.affine))

    def _manifest(self, subject_stats: Statistics, voxels: int, data: DataSet) -> Manifest:
        # Every window that teaches is read for a training, so those of the test are read as well.
        examination = examined(data, self.split, {self.subject: subject_stats}, None, signals=True)
        runs, test_runs = (
            list(dict.fromkeys(self.data.windows.run[rows].tolist()))
            for rows in (self.split.train, self.split.test)
        )
        provenance = {
            "participant": self.participant,
            "runs": runs,
            "held_out": test_runs,
            "windows": len(self.split.train),
            "minutes": round(len(self.split.train) * self.data.window_s / 60, 2),
            "taught": subject_stats.digest,
            "told": [*self._notes, *self.study_notes, *examination.sentences()],
        }
        if self.choose != DRIVEN:
            provenance["voxels_chosen"] = self.choose
        # Bundles of one region alone have their digests from before regions were joined.
        if len(self.regions) > 1:
            provenance["regions"] = list(self.regions)
        assert self.draft.fmri is not None
        return replace(self.draft, provenance=provenance, fmri=replace(self.draft.fmri, voxels=voxels))


def _mean_clip(clips: Sequence[Pixels]) -> NDArray[np.uint8]:
    """Average clips, of which one at a time is in memory, (frame, row, column, 3)."""
    total = np.zeros(clips[0].shape)
    for clip in clips:
        total += np.asarray(clip)
    return np.rint(total / len(clips)).astype(np.uint8)


def _as_released(stats: Arrays) -> Arrays:
    """Return statistics by which nothing is changed."""
    return {
        name: np.ones_like(values) if name.endswith("_scale") else np.zeros_like(values)
        for name, values in stats.items()
    }


def _numbered(names: NDArray[np.str_]) -> NDArray[np.int64]:
    """Number names in the order in which they come, (name,), from 0 on."""
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names.tolist()))}
    return np.array([numbers[name] for name in names.tolist()])


def _fitted(clip: NDArray[np.uint8], fps: float, geometry: ClipGeometry) -> NDArray[np.uint8]:
    """Bring a clip to a size and a rate: at each instant the frame that is on. The last one stays on."""
    instants = np.arange(geometry.frames) * (fps / geometry.fps)
    numbers = np.minimum((instants + _SLACK).astype(int), len(clip) - 1)
    size = (geometry.height, geometry.width)
    if clip.shape[1:3] == size:
        return clip[numbers]
    fitted = {n: filling(Image.fromarray(clip[n]), size) for n in dict.fromkeys(numbers.tolist())}
    return np.stack([fitted[n] for n in numbers.tolist()])
