"""The recipe's data node `data-set`: which windows of data sets (``data=A,B``) are trained on, and how."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode import terminal
from rtdecode.bundle import ClipGeometry, EegInput, FmriInput, Manifest, prepared
from rtdecode.errors import UsageError
from rtdecode.phantom.film.film import FPS
from rtdecode.signal.eeg.band import EegBand
from rtdecode.signal.volume.baseline import Baseline
from rtdecode.timing import TimingGrid, exact
from train.config.builders import Later
from train.config.run_context import RunContext
from train.data import regions, several_sets, splits
from train.data.chain import draft_manifest
from train.data.clip_grid import SIZE, ClipGrid, clip_of, read_size
from train.data.dataset import DataSet
from train.data.look_ahead import look_ahead
from train.data.participant_values import FolderSubject, folders_of, read_subjects, read_values, runs_of
from train.data.phantom import MODALITIES, read_modalities
from train.data.reproducible_voxels import segments
from train.data.set_windows import CHOICES, DRIVEN, REPRODUCIBLE, SetWindows
from train.data.sets.opening import CUT, WindowCut, check_columns, opened
from train.data.several_sets import Participants
from train.data.splits import Split
from train.data.taught import Taught

# The layout of recordings of the simulated participant.
_SIMULATED = "phantom"
# Folder of the shards of signals among the stages of a run.
SIGNALS = "signals"
# Times that differ by less are the same, s.
_SAME_S = 1e-3
# Windows of a run that is held out are told apart from each other.
_FEWEST_WINDOWS = 2
# Frames of a clip but the first come in latent frames of so many.
_FRAMES = 4
# What the recipe `ridge` says of `voxels`, for those of whom nothing is said where others have their own.
_VOXELS = 2000


@dataclass(frozen=True, slots=True)
class OwnKeys:
    """What each participant may have for itself; see `DataSetWindows`."""

    voxels: int
    after: int
    window: float | str | None
    lag: float | str | None
    layout: str
    region: str

    def __post_init__(self) -> None:
        if not isinstance(self.voxels, int) or self.voxels < 1:
            raise UsageError(
                "data-voxels-invalid",
                "data.voxels must be a whole number of 1 or more, found '{voxels}'.",
                voxels=self.voxels,
            )
        if not isinstance(self.after, int) or self.after < 0:
            raise UsageError(
                "data-after-invalid",
                "data.after is a number of volumes, 0 or more, found '{after}'.",
                after=self.after,
            )


@dataclass
class DataSetWindows:
    """Which windows of data sets are trained on, and how a bundle reads the signals.

    Of several participants, each may have `voxels`, `after`, `window`, `lag`, `layout` and `region` of its
    own (`train.data.participant_values`): ``data.window=A:2,B:3``.

    Attributes
    ----------
    band, baseline
        What a session does to EEG and volumes. The windows of a release are taken as they are, and those of
        one's own recordings and BIDS folders have been through the chain of their layout.
    sfreq : float
        Rate that the EEG is brought to, Hz, where the release has a higher one.
    voxels : int
        So many voxels are read, or at most so many, see `choose`.
    subject : str or sequence of str
        May be left out where there is one alone. Several have commas between them, and of several folders the
        name or the path of one stands before each, and a colon (`train.data.participant_values`).
    test : str
        Names of the runs that are held out, with commas between them. By default those that the release keeps
        for testing, and the last run where it keeps none. A run of one of several folders may be named as a
        subject of it is.
    layout : str
        Recognised by default, see `train.data.sets.opening`.
    region : str
        Name of the voxels that may be read (`train.data.regions`), or several names with plus signs between
        them, such as ``visual+auditory_mmp``; all by default.
    after : int
        Number of volumes after its own that a window reads (`train.data.look_ahead`).
    fps : float or None
        Frames a second of the clips; 8 by default.
    clip : str
        Rows and columns of the clips, such as ``480x720``. By default those that the system draws, or 64x96.
    window, lag : float or None
        How windows are cut, s, of layouts that leave it to the reader (`train.data.sets.opening.CUT`). By
        default as the layout does it.
    modalities : sequence of str
        What is read of a set with EEG and fMRI: both, or fMRI alone.
    standardise : bool
        Whether signals are standardised by the windows that teach; false reads them as released.
    frames : int or None
        Frames of each clip that lie in its window, evenly, in place of `fps`: windows of other lengths then
        have as many.
    choose : str
        Which of them are read: ``driven``, those that follow the clips best (`train.data.driven_voxels`), or
        ``reproducible``, those that respond alike to showings of the same (`train.data.reproducible_voxels`).
    """

    band: EegBand
    baseline: Baseline
    sfreq: float
    voxels: int | str
    subject: str | Sequence[str] = ""
    test: str = ""
    layout: str = ""
    region: str = ""
    after: Later[int | str] = 0
    fps: Later[float | str | None] = None
    clip: Later[str] = ""
    window: Later[float | str | None] = None
    lag: Later[float | str | None] = None
    modalities: Later[Sequence[str]] = MODALITIES
    choose: Later[str] = DRIVEN
    frames: Later[int | None] = None
    standardise: Later[bool] = True
    _opened: dict[Path, Participants] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.sfreq, int | float) or self.sfreq < 1:
            raise UsageError(
                "data-sfreq-invalid",
                "data.sfreq must be a number of 1 or more, found '{sfreq}'.",
                sfreq=self.sfreq,
            )
        self.modalities = read_modalities(self.modalities)
        if self.frames is not None and (not isinstance(self.frames, int) or self.frames < 1):
            raise UsageError(
                "data-frames-invalid",
                "data.frames is a number of frames, 1 or more, found '{frames}'.",
                frames=self.frames,
            )
        if self.frames is not None and self.fps is not None:
            raise UsageError(
                "data-frames-fps-conflict",
                "data.frames={frames} and data.fps={fps} both say how many frames a clip has. Give one of "
                "them.",
                frames=self.frames,
                fps=self.fps,
            )
        if self.choose not in CHOICES:
            raise UsageError(
                "data-choose-unknown",
                "data.choose is one of {available}, found '{choose}'.",
                available=list(CHOICES),
                choose=self.choose,
            )

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns of the clips."""
        return read_size(self.clip, "data.clip") if self.clip else SIZE

    def of_size(self, clip: ClipGeometry | tuple[int, int]) -> "DataSetWindows":
        """Return the same windows with clips of another size, in rows and columns, or of that of a clip."""
        rows, columns = clip if isinstance(clip, tuple) else (clip.height, clip.width)
        return self if self.size == (rows, columns) else replace(self, clip=f"{rows}x{columns}")

    def check(self, work: RunContext) -> None:
        """Open the data sets, and refuse what cannot be trained on.

        Raises
        ------
        UsageError
        """
        everybody = self.participants(work.data)
        for windows in everybody.values():
            _check_runs(windows)
        if len(everybody) > 1:
            several_sets.check_copies(everybody)
            assert work.data is not None
            self._opened[work.data] = several_sets.check_studies(everybody)

    def say(self) -> None:
        """Print that a bundle of the windows decodes prepared files, where it does; once they were opened."""
        every_set = [windows for everybody in self._opened.values() for windows in everybody.values()]
        sentences = [prepared.notice(windows.draft) for windows in every_set]
        terminal.say(*filter(None, dict.fromkeys(sentences)))

    def taught(self, work: RunContext) -> Taught:
        """Read the windows that teach, of one participant; their signals lie among the run's stages."""
        return self.opened(work.data).taught(work.stages / SIGNALS)

    def everybody_taught(self, work: RunContext) -> dict[str, Taught]:
        """Read the windows that teach, by participant, the default one first.

        Raises
        ------
        UsageError
            If a clip that is held out of one folder teaches a participant of another.
        """
        everybody = self.participants(work.data)
        taught = {name: windows.taught() for name, windows in everybody.items()}
        # Clips have been looked at by now, and maps are yet to be fitted.
        several_sets.check_near_duplicates(everybody)
        return taught

    def opened(self, data: Path | None) -> SetWindows:
        """Open a data set with one participant.

        Raises
        ------
        UsageError
            If there is none, it lacks what is asked for, or several participants are asked for.
        """
        everybody = self.participants(data)
        if len(everybody) > 1:
            raise UsageError(
                "data-several-participants",
                "this recipe learns from one participant, and {count} are asked for: {participants}. Name "
                "one folder and one subject, or take ridge.",
                count=len(everybody),
                participants=list(everybody),
            )
        (windows,) = everybody.values()
        return windows

    def participants(self, data: Path | None) -> Participants:
        """Open the windows of all participants by name, the default one first.

        Raises
        ------
        UsageError
            If there are none, a folder lacks what is asked for, or they cannot be trained on together.
        """
        if data is None:
            raise UsageError(
                "recipe-needs-data",
                "this recipe trains on a data set: give its folder with data=DIR.",
            )
        if data not in self._opened:
            # On the command line, a name may look like a number.
            subject = self.subject if isinstance(self.subject, list | tuple) else str(self.subject or "")
            participants = read_subjects(data, subject)
            every_key = self._own_keys(participants)
            folders = folders_of(data)
            opened_sets = [
                self._open(participant, folders, own_keys)
                for participant, own_keys in zip(participants, every_key, strict=True)
            ]
            names = several_sets.names_of(opened_sets)
            everybody = dict(zip(names, opened_sets, strict=True))
            if len(everybody) > 1:
                several_sets.check_clips(everybody)
                everybody = several_sets.held_for_all(everybody)
            self._opened[data] = everybody
        return self._opened[data]

    def _own_keys(self, participants: Sequence[FolderSubject]) -> list[OwnKeys]:
        """Read what is said of each participant."""
        defaults = {"voxels": _VOXELS, "after": 0, "window": None, "lag": None, "layout": "", "region": ""}
        values = {
            key: read_values(key, getattr(self, key), participants, default)
            for key, default in defaults.items()
        }
        return [
            OwnKeys(**{key: by_participant[number] for key, by_participant in values.items()})
            for number in range(len(participants))
        ]

    def _open_set(self, participant: FolderSubject, own_keys: OwnKeys) -> DataSet:
        subjects = [participant.subject] if participant.subject else None
        layout = own_keys.layout or None
        data = opened(participant.folder, layout, subjects, self._cut(own_keys))
        if self.frames is None or own_keys.window is not None:
            return data
        # How many frames a second these are is known once the layout has said how long its windows are.
        return opened(participant.folder, layout, subjects, self._cut(own_keys, data.window_s))

    def _open(self, participant: FolderSubject, folders: Sequence[Path], own_keys: OwnKeys) -> SetWindows:
        folder = participant.folder
        data = self._open_set(participant, own_keys)
        subjects = data.windows.subjects
        if "features" in data.columns and "clips" not in data.columns:
            raise UsageError(
                "data-features-without-clips",
                "{folder} ({layout}) has features of what was watched and no clips. Learn the features with "
                "target=features.",
                folder=folder,
                layout=data.layout,
            )
        if len(subjects) > 1:
            raise UsageError(
                "data-several-subjects",
                "{folder} has {subject_count} subjects ({subjects}), and none is named. Name one with "
                "data.subject=NAME, or several, with commas between them.",
                folder=folder,
                subject_count=len(subjects),
                subjects=list(subjects),
            )
        check_columns(data, "fmri", "clips")
        self._check_window(data, own_keys)
        if own_keys.after:
            data = look_ahead(data, own_keys.after)
        _, slots, count = data.read("fmri", [0]).shape
        names, voxels = self._region(data, count, own_keys.region)
        draft = self._draft(data, self._grid(data, slots), count, len(voxels))
        split = self._split(data, runs_of(str(self.test), folder, folders))
        if self.choose == REPRODUCIBLE:
            # Refused before anything is read for long.
            segments(data.windows, split.train)
        return SetWindows(
            data, split, voxels, own_keys.voxels, draft, self.choose, names, standardise=self.standardise
        )

    def _split(self, data: DataSet, test: Sequence[str]) -> Split:
        if test:
            return splits.by_runs(data.windows, test)
        if data.windows.held_out.any():
            return splits.released(data.windows)
        runs = list(dict.fromkeys(data.windows.run.tolist()))
        if len(runs) == 1:
            raise UsageError(
                "data-single-run",
                "{folder} has one run of {subject}, {run}, and a test takes whole runs. Add another one.",
                folder=data.folder,
                subject=data.windows.subjects[0],
                run=runs[0],
            )
        return splits.by_runs(data.windows, runs[-1:])

    def _region(self, data: DataSet, count: int, region: str) -> tuple[list[str], NDArray[np.int64]]:
        """Return the names of the regions that are read, and their voxels; all voxels where none is named."""
        if not region:
            return [], np.arange(count)
        region_masks = data.regions(data.windows.subjects[0])
        unknown = regions.unknown(region, region_masks)
        if unknown:
            raise UsageError(
                "data-unknown-region",
                "data.region={region}: {folder} has no region {unknown}. Its regions are: {available}. Name "
                "one of them, or several with + between them.",
                region=region,
                folder=data.folder,
                unknown=unknown,
                available=", ".join(region_masks) or "none, for want of an atlas",
            )
        return regions.parts(region, region_masks), np.flatnonzero(regions.joined(region, region_masks))

    def _cut(self, own_keys: OwnKeys, window_s: float | None = None) -> WindowCut | None:
        """Return how windows are cut and clips look; None where nothing is said of it.

        `window_s` is how long windows are, where that is known.
        """
        try:
            if self._usual and own_keys.window is None and own_keys.lag is None:
                return None
            window, lag = (
                None if seconds is None else exact(seconds) for seconds in (own_keys.window, own_keys.lag)
            )
            length = window if window_s is None else exact(round(window_s, 4))
            return WindowCut(self._fps(length), self.size, window, lag)
        except (ValueError, TypeError, LookupError) as error:
            raise UsageError(
                "data-cut-invalid",
                "data.window={window}, data.lag={lag} and data.fps={fps} are lengths in s and frames a "
                "second ({error}).",
                window=own_keys.window,
                lag=own_keys.lag,
                fps=self.fps,
                error=error,
            ) from error

    def _fps(self, window: Fraction | None) -> Fraction:
        """Return the frames a second of clips in windows of this length, s."""
        if self.frames is not None and window is not None:
            return self.frames / window
        return exact(FPS if self.fps is None else self.fps)

    @property
    def _usual(self) -> bool:
        """Whether nothing is said of how clips look."""
        return self.fps is None and self.frames is None and self.size == SIZE

    def _check_window(self, data: DataSet, own_keys: OwnKeys) -> None:
        """Refuse windows that were asked for and that the layout does not have."""
        for name, asked_s, released_s in (
            ("window", own_keys.window, data.window_s),
            ("lag", own_keys.lag, data.lag_s),
        ):
            if asked_s is not None and abs(float(exact(asked_s)) - released_s) > _SAME_S:
                raise UsageError(
                    "data-window-released",
                    "data.{key}={asked}: {folder} ({layout}) was released with windows of {window_s:g} s and "
                    "volumes {lag_s:g} s later. Leave data.{key} out; windows are cut anew in {available}.",
                    key=name,
                    asked=asked_s,
                    folder=data.folder,
                    layout=data.layout,
                    window_s=data.window_s,
                    lag_s=data.lag_s,
                    available=list(CUT),
                )

    def _grid(self, data: DataSet, slots: int) -> TimingGrid:
        window = exact(round(data.window_s, 4))
        # The response to a window is read as one volume that lasts as long.
        tr_s = data.window_s if data.tr_s is None else data.tr_s
        # A third of a second has no finite decimals: a window of whole TRs has them exactly.
        count = max(1, round(data.window_s / tr_s))
        whole_trs = abs(count * tr_s - data.window_s) < _SAME_S
        tr = window / count if whole_trs else exact(round(tr_s, 4))
        sfreq = exact(self.sfreq if data.sfreq is None else min(self.sfreq, data.sfreq))
        own_volumes = -(-window // tr)
        if slots < own_volumes:
            raise UsageError(
                "data-too-few-volumes",
                "{folder} ({layout}) has {volumes} volumes a window, and {expected} of {tr_s:g} s "
                "were expected in {window_s:g} s.",
                folder=data.folder,
                layout=data.layout,
                volumes=slots,
                expected=own_volumes,
                tr_s=tr_s,
                window_s=data.window_s,
            )
        timing: dict[str, Any] = {
            "tr": tr,
            "sfreq": sfreq,
            "window": window,
            "hop": window,
            "lag": exact(round(data.lag_s, 4)),
            "after": slots - own_volumes,
        }
        try:
            if self._usual:
                return TimingGrid(fps=self._fps(window), **timing)
            return ClipGrid(fps=self._fps(window), size=self.size, **timing)
        except (ValueError, LookupError) as error:
            raise UsageError(
                "data-grid-invalid",
                "{folder}: {error}. Choose a rate of the EEG that fits with data.sfreq=, and a rate and a "
                "size of the clips with data.fps= and data.clip=.",
                folder=data.folder,
                error=error,
            ) from error

    def _draft(self, data: DataSet, grid: TimingGrid, count: int, voxels: int) -> Manifest:
        acquired = data.acquired(data.windows.subjects[0])
        eeg = None
        if "eeg" in data.columns and "eeg" in self.modalities and acquired is not None:
            eeg = acquired.eeg
        elif "eeg" in data.columns and "eeg" in self.modalities:
            channels = data.read("eeg", [0]).shape[1]
            # Releases do not name their channels.
            eeg = EegInput(prepared.numbered(channels), self.band.reference, "microvolts", self.band)
        # What is not known of the place of voxels is read as a row of them.
        fmri = FmriInput(voxels, *prepared.in_a_row(count), self.baseline)
        if acquired is not None:
            head = acquired.head
            fmri = FmriInput(voxels, list(head.shape), head.affine.tolist(), acquired.baseline)
        clip = clip_of(grid)
        if self.fps is None and self.frames is None:
            # Without a word, what is beyond whole latent frames of a codec is left out.
            frames = int(grid.window * grid.fps) // _FRAMES * _FRAMES + 1
            clip = replace(clip, frames=frames)
        simulated = data.layout == _SIMULATED
        return draft_manifest(data.layout, grid, clip, eeg, fmri, simulated=simulated, chain=data.chain)


def _check_runs(windows: SetWindows) -> None:
    """Refuse a data set of volumes no run of which has two windows to be told apart."""
    data = windows.data
    if data.tr_s is None:
        return
    runs, counts = np.unique(data.windows.run[windows.split.test], return_counts=True)
    if counts.max() < _FEWEST_WINDOWS:
        raise UsageError(
            "data-one-window-runs",
            "{folder} ({layout}): none of {runs} runs that are held out has more than one window, and "
            "windows are told apart within a run. Give runs of {fewest_windows} windows of {window_s:g} s or "
            "more.",
            folder=data.folder,
            layout=data.layout,
            runs=len(runs),
            fewest_windows=_FEWEST_WINDOWS,
            window_s=data.window_s,
        )
