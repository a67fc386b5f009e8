"""Runs of the Human Connectome Project, without what was shown: fMRI alone, for masked brain modelling.

::

    100610/MNINonLinear/Results/tfMRI_MOVIE1_7T_AP/
        tfMRI_MOVIE1_7T_AP_Atlas_1.6mm_MSMAll_hp2000_clean.dtseries.nii

The files are CIFTI (nibabel): a run's volumes, each on the vertices of the cortex and the voxels below it.
Layout: HCP 1200 release; for its users see jqin4749/MindVideo, src/MindVideo/utils/dataset.py, hcp_dataset.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nibabel.cifti2 import cifti2_axes
from numpy.typing import NDArray

from rtdecode.errors import UsageError
from train.data.dataset import Chain, Column, WindowTable
from train.data.layouts.stored_arrays import finite, image
from train.data.window_tables import Rows, checked_rows, chosen, joined, of_run

_RESULTS = Path("MNINonLinear", "Results")
# Windows are a whole number of volumes, about so long, s.
_ABOUT_S = 4.0
# CIFTI's times in seconds, by the unit that a file names.
_SECONDS = {"SECOND": 1.0}
_NOTES = (
    (
        "No film is read: there is fMRI alone, at lag 0. Windows of one run at one time have the same name "
        "for all subjects, because they saw the same film; the subjects scanned before 22 August 2014 saw "
        "other clips in part."
    ),
    (
        "The runs were motion-corrected, registered, high-passed over the whole run and, in files named "
        "clean, cleaned by ICA over the whole run: every volume depends on later ones."
    ),
)


@dataclass(eq=False)
class Hcp:
    """Runs, opened; see `train.data.dataset.DataSet`.

    Attributes
    ----------
    runs : sequence of Path
        Files of the runs.
    where : int64, (window, 2)
        Number of the run, and of the window's first volume in it.
    slots : int
        Number of volumes of a window.
    """

    folder: Path
    windows: WindowTable
    runs: Sequence[Path]
    where: NDArray[np.int64]
    slots: int
    window_s: float
    tr_s: float | None
    layout: str = "hcp"
    study: str = "hcp"
    columns: Sequence[Column] = ("fmri",)
    lag_s: float = 0.0
    sfreq: float | None = None
    fps: float | None = None
    chain: Chain = "offline"
    missing: Sequence[str] = ()
    notes: Sequence[str] = _NOTES

    def read(self, column: Column, rows: Rows) -> NDArray[Any]:
        """Read a column of some windows; see `train.data.dataset.DataSet.read`."""
        _, window_rows = checked_rows(self.windows, rows, column, self.columns, self.folder)
        numbers, firsts = self.where[window_rows].T
        read: list[NDArray[np.float32]] = []
        opened_runs = {int(number): image(self.runs[number], "CIFTI") for number in np.unique(numbers)}
        for number, first in zip(numbers.tolist(), firsts.tolist(), strict=True):
            # The file is mapped: only the volumes of the window are read.
            values = np.asarray(opened_runs[number].dataobj[first : first + self.slots])
            read.append(finite(values, self.runs[number]))
        return np.stack(read)

    def regions(self, subject: str) -> Mapping[str, NDArray[np.bool_]]:
        """Return the structures that CIFTI names, such as ``CORTEX_LEFT`` and ``HIPPOCAMPUS_LEFT``."""
        first = self.where[self.windows.subject == subject][0, 0]
        axis = _axes(self.runs[first])[1]
        masks = {}
        for name, part, _ in axis.iter_structures():
            mask = np.zeros(len(axis), bool)
            mask[part] = True
            masks[str(name).removeprefix("CIFTI_STRUCTURE_")] = mask
        return masks

    def acquired(self, subject: str) -> None:
        """Return nothing: the release names neither its channels nor the place of its voxels."""


def recognises(folder: Path) -> bool:
    """Whether a folder holds runs of subjects in this layout."""
    return any(folder.glob(f"*/{_RESULTS}/*/*_Atlas*.dtseries.nii"))


def opened(
    folder: Path, subjects: list[str] | None = None, *, window_s: float | None = None, kind: str = ""
) -> Hcp:
    """Open the runs.

    Parameters
    ----------
    folder : Path
        Holds a folder for each subject, such as ``100610``.
    subjects : list of str, optional
        Such as ``100610``. All by default.
    window_s : float, optional
        Length of a window, a whole number of TRs. By default the one that is nearest to 4 s.
    kind : str
        What follows the run's name in the file's, such as ``_Atlas_MSMAll_hp2000_clean``. It is needed where
        a run has several files.

    Raises
    ------
    UsageError
        If a run has several files, a file is damaged, or runs differ in TR or in their voxels.
    """
    available = sorted(
        {path.parents[3].name for path in folder.glob(f"*/{_RESULTS}/*/*_Atlas*.dtseries.nii")}
    )
    runs: list[Path] = []
    tables: list[WindowTable] = []
    places: list[NDArray[np.int64]] = []
    shared: tuple[float, int] | None = None
    slots = 0
    for subject in chosen(available, subjects, folder):
        for place in sorted((folder / subject / _RESULTS).iterdir()):
            path = _file(place, kind)
            if path is None:
                continue
            times, voxels = _axes(path)
            tr_s = _tr_s(path, times)
            shared = shared or (tr_s, len(voxels))
            _same(path, (tr_s, len(voxels)), runs[0] if runs else path, shared)
            slots = _slots(tr_s, window_s)
            count = len(times) // slots
            starts = np.arange(count) * slots
            titles = [f"{_stimulus(subject, place.name)}/{k:03d}" for k in range(count)]
            tables.append(of_run(subject, place.name, titles, starts * tr_s))
            places.append(np.stack([np.full(count, len(runs)), starts], 1))
            runs.append(path)
    if shared is None:
        raise UsageError(
            "hcp-kind-missing",
            "{folder}: no run has a file with {kind} in its name. Give another kind.",
            folder=folder,
            kind=kind,
        )
    return Hcp(
        folder=folder,
        windows=joined(tables),
        runs=runs,
        where=np.concatenate(places),
        slots=slots,
        window_s=slots * shared[0],
        tr_s=shared[0],
    )


def _file(place: Path, kind: str) -> Path | None:
    """Find the file of a run."""
    files = sorted(place.glob(f"{place.name}_Atlas*.dtseries.nii"))
    if kind:
        files = [path for path in files if path.name == f"{place.name}{kind}.dtseries.nii"]
    if len(files) > 1:
        kinds = [path.name.removeprefix(place.name).removesuffix(".dtseries.nii") for path in files]
        raise UsageError(
            "hcp-run-ambiguous",
            "{folder} has several files of one run: {kinds}. Give one as kind.",
            folder=place,
            kinds=list(kinds),
        )
    return files[0] if files else None


def _axes(path: Path) -> tuple[cifti2_axes.SeriesAxis, cifti2_axes.BrainModelAxis]:
    run = image(path, "CIFTI")
    if not isinstance(run, nibabel.Cifti2Image):
        raise UsageError("hcp-not-cifti", "{path} is no CIFTI file. Fetch the file again.", path=path)
    times, voxels = (run.header.get_axis(n) for n in (0, 1))
    if not isinstance(times, cifti2_axes.SeriesAxis) or not isinstance(voxels, cifti2_axes.BrainModelAxis):
        raise UsageError(
            "hcp-not-dense-series",
            "{path} is no dense time series. Give the .dtseries.nii of the run.",
            path=path,
        )
    return times, voxels


def _tr_s(path: Path, times: cifti2_axes.SeriesAxis) -> float:
    if times.unit not in _SECONDS or not times.step > 0:
        raise UsageError(
            "hcp-tr-invalid",
            "{path} has volumes every {step} {unit}; seconds were expected.",
            path=path,
            step=times.step,
            unit=times.unit,
        )
    return float(times.step)


def _same(path: Path, tr_and_voxels: tuple[float, int], first: Path, shared: tuple[float, int]) -> None:
    if tr_and_voxels != shared:
        raise UsageError(
            "hcp-runs-mismatch",
            "{path} has {voxels} voxels every {tr_s:g} s, and {first_path} has {first_voxels} every "
            "{first_tr_s:g} s. Open runs of one kind, with kind, or subjects one by one.",
            path=path,
            voxels=tr_and_voxels[1],
            tr_s=tr_and_voxels[0],
            first_path=first,
            first_voxels=shared[1],
            first_tr_s=shared[0],
        )


def _slots(tr_s: float, window_s: float | None) -> int:
    slots = max(1, round((window_s or _ABOUT_S) / tr_s))
    # A nanosecond of slack, as times are floats.
    if window_s is not None and abs(slots * tr_s - window_s) > 1e-9:
        raise UsageError(
            "window-not-whole-trs",
            "a window has a whole number of TRs of {tr_s:g} s, and {window_s:g} s were asked for. Ask for a "
            "multiple of the TR.",
            tr_s=tr_s,
            window_s=window_s,
        )
    return slots


def _stimulus(subject: str, run: str) -> str:
    """Name what a run showed: the same to all subjects if it was a film, and nothing in common if not."""
    return run if "MOVIE" in run else f"{subject}/{run}"
