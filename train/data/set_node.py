"""The recipe's data node `data-set`: which windows of a data set (``data=DIR``) are trained on, and how."""

from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rtdecode.bundle import ClipGeometry, EegInput, FmriInput, Manifest
from rtdecode.errors import UsageError
from rtdecode.phantom.film.film import FPS, HEIGHT, WIDTH
from rtdecode.signal.eeg.band import EegBand
from rtdecode.signal.volume.baseline import Baseline
from rtdecode.timing import TimingGrid, exact
from train.data import splits
from train.data.chain import draft_manifest
from train.data.dataset import DataSet
from train.data.opening import opened
from train.data.set_windows import SetWindows
from train.data.splits import Split
from train.data.taught import Taught
from train.work import Work

# The layout of recordings of the simulated participant.
_SIMULATED = "phantom"
# Times that differ by less are the same, s.
_SAME_S = 1e-3
# Frames of a clip but the first come in latent frames of so many.
_FRAMES = 4


@dataclass
class DataSetWindows:
    """Which windows of a data set are trained on, and how a bundle reads the signals.

    Attributes
    ----------
    band, baseline
        What a session does to EEG and volumes. The windows of a release are taken as they are.
    sfreq : float
        Rate that the EEG is brought to, Hz, where the release has a higher one.
    voxels : int
        So many voxels are read, those that follow the clips best (`train.data.driven_voxels`).
    subject : str
        May be left out where there is one alone.
    test : str
        Names of the runs that are held out, with commas between them. By default those that the release keeps
        for testing, and the last run where it keeps none.
    layout : str
        Recognised by default, see `train.data.opening`.
    region : str
        Name of the voxels that may be read (`train.data.regions`); all by default.
    """

    band: EegBand
    baseline: Baseline
    sfreq: float
    voxels: int
    subject: str = ""
    test: str = ""
    layout: str = ""
    region: str = ""
    _opened: dict[Path, SetWindows] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.voxels, int) or self.voxels < 1:
            raise UsageError(
                "data-voxels-invalid",
                "data.voxels must be a whole number of 1 or more, found '{voxels}'.",
                voxels=self.voxels,
            )
        if not isinstance(self.sfreq, int | float) or self.sfreq < 1:
            raise UsageError(
                "data-sfreq-invalid",
                "data.sfreq must be a number of 1 or more, found '{sfreq}'.",
                sfreq=self.sfreq,
            )

    def check(self, work: Work) -> None:
        """Open the data set, and refuse what cannot be trained on.

        Raises
        ------
        UsageError
        """
        self.opened(work.data)

    def taught(self, work: Work) -> Taught:
        """Read the windows that teach."""
        return self.opened(work.data).taught()

    def opened(self, folder: Path | None) -> SetWindows:
        """Open a data set.

        Raises
        ------
        UsageError
            If there is none, or it lacks what is asked for.
        """
        if folder is None:
            raise UsageError(
                "recipe-needs-data",
                "this recipe trains on a data set: give its folder with data=DIR.",
            )
        if folder not in self._opened:
            self._opened[folder] = self._open(folder)
        return self._opened[folder]

    def _open(self, folder: Path) -> SetWindows:
        # On the command line, a name may look like a number.
        data = opened(folder, self.layout or None, [str(self.subject)] if self.subject else None)
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
                "{folder} has {subject_count} subjects ({subjects}), and one is trained on. Name it "
                "with data.subject=NAME.",
                folder=folder,
                subject_count=len(subjects),
                subjects=list(subjects),
            )
        for column in ("fmri", "clips"):
            if column not in data.columns:
                raise UsageError(
                    "data-missing-column",
                    "{folder} ({layout}) has no {column}; it has {available}. `python -m train.data "
                    "DIR` says what is missing.",
                    folder=folder,
                    layout=data.layout,
                    column=column,
                    available=list(data.columns),
                )
        _, slots, count = data.read("fmri", [0]).shape
        voxels = self._region(data, count)
        draft = self._draft(data, self._grid(data, slots), count, len(voxels))
        return SetWindows(data, self._split(data), voxels, self.voxels, draft)

    def _split(self, data: DataSet) -> Split:
        if self.test:
            return splits.by_runs(data.windows, [name.strip() for name in str(self.test).split(",")])
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

    def _region(self, data: DataSet, count: int) -> NDArray[np.int64]:
        if not self.region:
            return np.arange(count)
        regions = data.regions(data.windows.subjects[0])
        if self.region not in regions:
            there = ", ".join(regions) or "none, for want of an atlas"
            raise UsageError(
                "data-unknown-region",
                "data.region={region}: {folder} has the regions {available}.",
                region=self.region,
                folder=data.folder,
                available=there,
            )
        return np.flatnonzero(regions[self.region])

    def _grid(self, data: DataSet, slots: int) -> TimingGrid:
        assert data.tr_s is not None
        window = exact(round(data.window_s, 4))
        # A third of a second has no finite decimals: a window of whole TRs has them exactly.
        count = max(1, round(data.window_s / data.tr_s))
        whole = abs(count * data.tr_s - data.window_s) < _SAME_S
        tr = window / count if whole else exact(round(data.tr_s, 4))
        sfreq = exact(self.sfreq if data.sfreq is None else min(self.sfreq, data.sfreq))
        own = -(-window // tr)
        if slots < own:
            raise UsageError(
                "data-too-few-volumes",
                "{folder} ({layout}) has {volumes} volumes a window, and {expected} of {tr_s:g} s "
                "were expected in {window_s:g} s.",
                folder=data.folder,
                layout=data.layout,
                volumes=slots,
                expected=own,
                tr_s=data.tr_s,
                window_s=data.window_s,
            )
        try:
            return TimingGrid(
                tr=tr,
                sfreq=sfreq,
                window=window,
                hop=window,
                lag=exact(round(data.lag_s, 4)),
                fps=Fraction(FPS),
                after=slots - own,
            )
        except ValueError as error:
            raise UsageError(
                "data-grid-invalid",
                "{folder}: {error}. Choose a rate of the EEG that fits with data.sfreq=.",
                folder=data.folder,
                error=error,
            ) from error

    def _draft(self, data: DataSet, grid: TimingGrid, count: int, voxels: int) -> Manifest:
        eeg = None
        if "eeg" in data.columns:
            channels = data.read("eeg", [0]).shape[1]
            # Releases do not name their channels: these are the names that MNE gives to channels without any.
            names = [f"EEG {n:03d}" for n in range(1, channels + 1)]
            eeg = EegInput(names, self.band.reference, "microvolts", self.band)
        fmri = FmriInput(voxels, [count, 1, 1], np.eye(4).tolist(), self.baseline)
        frames = int(grid.window * FPS) // _FRAMES * _FRAMES + 1
        clip = ClipGeometry(frames, HEIGHT, WIDTH, float(FPS))
        simulated = data.layout == _SIMULATED
        return draft_manifest(data.layout, grid, clip, eeg, fmri, simulated=simulated, chain=data.chain)
