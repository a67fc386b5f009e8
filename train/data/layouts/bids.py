"""A laboratory's own BIDS folder: volumes, and the films that its events name.

::

    sub-01/[ses-01/]func/sub-01_task-film_run-1_bold.nii.gz    or .nii; and its sidecar, RepetitionTime
    sub-01/[ses-01/]func/sub-01_task-film_run-1_events.tsv     onset, duration, stim_file
    sub-01/[ses-01/]eeg/sub-01_task-film_run-1_eeg.vhdr        or .edf, .bdf, .set, if there
    stimuli/FILM                                               what stim_file names
    derivatives/fmriprep/sub-01/...                            with prepared=True

The EEG goes through the chain of a session, from the file that the amplifier wrote. A window is a stretch of
a film. A volume belongs to it if the middle of its acquisition lies in ``[start + lag, stop + lag)``; one
without all its volumes is left out.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode.bundle import EegInput
from rtdecode.errors import UsageError
from rtdecode.signal.eeg.band import EegBand
from rtdecode.signal.volume.baseline import Baseline
from rtdecode.signal.volume.projection import Projection
from train.data.arrays import in_head
from train.data.dataset import Acquired, Chain, Column, WindowTable
from train.data.layouts.bids_eeg import SFREQ, TRIGGER, check_caps, eeg_montage, eeg_windows
from train.data.layouts.bids_files import IMAGES, BidsRun, ShownFilm, bids_runs, shown_by_events, volume_files
from train.data.layouts.bids_timing import pauses
from train.data.layouts.bids_windows import check_places, cut_films
from train.data.layouts.film_clips import CLIP_FPS, CLIP_SIZE, film_clips
from train.data.layouts.film_sound import film_sound, has_sound
from train.data.layouts.stored_arrays import finite, image
from train.data.window_tables import Rows, checked_rows, chosen

LAG_S = 4.0
_RAW = (
    "The volumes are as the scanner wrote them: neither realigned nor registered. Where the head moved, or "
    "between sessions, a voxel is not one place."
)
_EEG = (
    "The EEG went through the chain of a session: gradients, heartbeat and bad channels by what came before, "
    "then a causal band-pass. Samples that could not be corrected are zero, as are those at which all "
    "channels of the file stand still."
)
_NO_EEG = "There is no EEG: not every run that showed a film has a file of it, or it was left out."
_PREPARED = (
    "fMRIPrep prepared the volumes from whole runs (motion, distortion, registration): every volume depends "
    "on later ones."
)


@dataclass(eq=False)
class Bids:
    """Runs of a BIDS folder, opened; see `train.data.dataset.DataSet`.

    Attributes
    ----------
    runs : sequence of BidsRun
        The runs whose numbers are in `where`.
    where : int64, (window, 2)
        Number of the run, and of the window's first volume in it.
    films : sequence of Path
        The film of each window.
    film_s : (window,)
        Film time at which each window starts, s.
    slots : int
        Number of volumes of a window.
    channels : sequence of str
        The EEG's channels; none without EEG.
    options : Options
        How windows are cut.
    last_cut : dict
        The volumes and the EEG of the runs that were read last, and the voxels of the head of each subject.
    """

    folder: Path
    windows: WindowTable
    runs: Sequence[BidsRun]
    where: NDArray[np.int64]
    films: Sequence[Path]
    film_s: NDArray[np.float64]
    slots: int
    channels: Sequence[str]
    options: "Options"
    window_s: float
    lag_s: float
    tr_s: float | None
    fps: float | None
    chain: Chain
    notes: Sequence[str]
    layout: str
    study: str
    columns: Sequence[Column]
    sfreq: float | None
    missing: Sequence[str] = ()
    last_cut: dict[str, Any] = field(default_factory=dict, repr=False)

    def read(self, column: Column, rows: Rows) -> NDArray[Any]:
        """Read a column of some windows; see `train.data.dataset.DataSet.read`."""
        subject, window_rows = checked_rows(self.windows, rows, column, self.columns, self.folder)
        if column == "clips":
            return self._of_films(window_rows, self._clips_of)
        if column == "sound":
            return self._of_films(window_rows, self._sound_of)
        if column == "eeg":
            return self._eeg(window_rows)
        head = self._head(subject)
        values = np.empty((len(window_rows), self.slots, len(head)), np.float32)
        numbers, firsts = self.where[window_rows].T
        # One run after another, so that each is unpacked once.
        for number in np.unique(numbers):
            in_run = np.flatnonzero(numbers == number)
            slots = firsts[in_run][:, None] + np.arange(self.slots)
            picked = self._volumes(int(number))[head][:, slots]
            values[in_run] = finite(np.moveaxis(picked, 0, -1), self.runs[number].bold)
        return values

    def regions(self, subject: str) -> Mapping[str, NDArray[np.bool_]]:
        """Return no regions: the voxels are all those of the head."""
        return {}

    def acquired(self, subject: str) -> Acquired:
        """Return cap and head of a subject.

        Raises
        ------
        UsageError
            If runs of the subject have volumes at another place, or another cap.
        """
        run_numbers = np.unique(self.where[self.windows.subject == subject, 0])
        runs = [self.runs[number] for number in run_numbers]
        volumes = image(runs[0].bold)
        check_places([run.bold for run in runs])
        rows, columns, slices = volumes.shape[:3]
        head = Projection(self._head(subject), (rows, columns, slices), np.asarray(volumes.affine))
        eeg = None
        files = [run.eeg for run in runs if run.eeg is not None]
        if files and self.channels:
            check_caps(files, self.channels)
            eeg = EegInput(list(self.channels), eeg_montage(files[0]).reference, "microvolts", EegBand())
        return Acquired(head, Baseline(), None, eeg)

    def _of_films(
        self, window_rows: NDArray[np.int64], cut: Callable[[Path, NDArray[np.float64]], NDArray[Any]]
    ) -> NDArray[Any]:
        """Cut what windows show or let hear, film by film."""
        by_position: dict[int, NDArray[Any]] = {}
        for film in dict.fromkeys(self.films[row] for row in window_rows):
            positions = [n for n, row in enumerate(window_rows) if self.films[row] == film]
            by_position |= dict(zip(positions, cut(film, self.film_s[window_rows[positions]]), strict=True))
        return np.stack([by_position[n] for n in range(len(window_rows))])

    def _clips_of(self, film: Path, starts_s: NDArray[np.float64]) -> NDArray[np.uint8]:
        assert self.fps is not None
        return film_clips(film, starts_s, self.window_s, self.fps, self.options.size)

    def _sound_of(self, film: Path, starts_s: NDArray[np.float64]) -> NDArray[np.float32]:
        return film_sound(film, starts_s, self.window_s)

    def _eeg(self, window_rows: NDArray[np.int64]) -> NDArray[np.float32]:
        assert self.sfreq is not None
        values = np.empty(
            (len(window_rows), len(self.channels), round(self.window_s * self.sfreq)), np.float32
        )
        for number in np.unique(self.where[window_rows, 0]):
            run_rows = np.flatnonzero(self.where[:, 0] == number)
            here = np.flatnonzero(np.isin(window_rows, run_rows))
            places = np.searchsorted(run_rows, window_rows[here])
            values[here] = self._eeg_of_run(int(number), run_rows)[places]
        return values

    def _eeg_of_run(self, number: int, run_rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Run a run's EEG through the chain and cut its windows, or return them if they were cut last."""
        if self.last_cut.get("eeg run") != number:
            path = self.runs[number].eeg
            assert path is not None
            assert self.tr_s is not None
            starts = self.windows.start_s[run_rows]
            order = np.argsort(starts, kind="stable")
            cut = eeg_windows(
                path,
                self.channels,
                starts[order],
                self.window_s,
                self.tr_s,
                trigger=self.options.trigger,
                dummies=_dummies(self.runs[number]),
            )
            self.last_cut["eeg run"] = number
            self.last_cut["eeg"] = finite(cut[np.argsort(order)], path)
        return self.last_cut["eeg"]

    def _volumes(self, number: int) -> NDArray[Any]:
        """Read the volumes of a run, (voxel, volume), or return them if it was read last."""
        if self.last_cut.get("run") != number:
            path = self.runs[number].bold
            try:
                volumes = np.asarray(image(path).dataobj)
            except (OSError, EOFError, ValueError) as error:
                raise UsageError(
                    "bold-damaged",
                    "{path} is cut short or damaged ({error}). Fetch the file again.",
                    path=path,
                    error=error,
                ) from error
            self.last_cut["run"] = number
            self.last_cut["volumes"] = volumes.reshape(-1, volumes.shape[3])
        return self.last_cut["volumes"]

    def _head(self, subject: str) -> NDArray[np.int64]:
        """Find the voxels of a subject's head, by fMRIPrep's mask of the first run, or by its mean."""
        if subject not in self.last_cut:
            first = int(self.where[self.windows.subject == subject][0, 0])
            mask = self._mask(first)
            if mask is None:
                mean = self._volumes(first).mean(1, dtype=np.float64)
                self.last_cut[subject] = in_head(finite(mean, self.runs[first].bold))
            else:
                self.last_cut[subject] = np.flatnonzero(mask)
        return self.last_cut[subject]

    def _mask(self, number: int) -> NDArray[Any] | None:
        bold = self.runs[number].bold
        stem, prepared, _ = bold.name.partition("_desc-preproc_bold")
        masks = [bold.with_name(f"{stem}_desc-brain_mask{ending}") for ending in IMAGES]
        path = next((path for path in masks if prepared and path.is_file()), None)
        if path is None:
            return None
        shape = image(bold).shape[:3]
        mask = np.asarray(image(path).dataobj)
        if mask.shape != shape or not mask.any():
            raise UsageError(
                "mask-grid-mismatch",
                "{path} is a mask of shape {mask_shape} with {mask_voxels} voxels, and {bold} has "
                "volumes of shape {volume_shape}. Fetch both again.",
                path=path,
                mask_shape=mask.shape,
                mask_voxels=np.count_nonzero(mask),
                bold=bold.name,
                volume_shape=shape,
            )
        return mask


def recognises(folder: Path) -> bool:
    """Whether a folder is a BIDS data set with volumes."""
    return (folder / "dataset_description.json").is_file() and bool(volume_files(folder))


def opened(
    folder: Path,
    subjects: list[str] | None = None,
    *,
    lag_s: float = LAG_S,
    window_s: float | None = None,
    prepared: bool = False,
    space: str = "",
    fps: float = CLIP_FPS,
    size: tuple[int, int] = CLIP_SIZE,
    eeg: bool = True,
    trigger: str = TRIGGER,
) -> Bids:
    """Open a BIDS folder.

    Parameters
    ----------
    folder : Path
        Root of the BIDS folder.
    subjects : list of str, optional
        Such as ``sub-01``. All by default.
    lag_s : float
        Haemodynamic lag.
    window_s : float, optional
        Length of a window, a whole number of TRs. By default the one that is nearest to 4 s.
    prepared : bool
        Whether the volumes that fMRIPrep prepared are read, and not those of the scanner.
    space : str
        The space of prepared volumes, which is needed where there are several.
    fps : float
        Frames a second of the clips.
    size : (int, int)
        Rows and columns of the clips.
    eeg : bool
        Whether EEG is read where every run has a file of it.
    trigger : str
        Text of a volume trigger in these files.

    Raises
    ------
    UsageError
        If no run shows a film, a film is missing, or runs of one subject differ in TR or grid.
    """
    options = Options(lag_s, window_s, fps, size, eeg, trigger)
    runs = bids_runs(folder, prepared=prepared, space=space)
    return opened_runs(folder, subjects, runs, lambda run: shown_by_events(folder, run), options)


@dataclass(frozen=True, slots=True)
class Options:
    """How windows are cut; see `opened`."""

    lag_s: float = LAG_S
    window_s: float | None = None
    fps: float = CLIP_FPS
    size: tuple[int, int] = CLIP_SIZE
    eeg: bool = True
    trigger: str = TRIGGER


def opened_runs(
    folder: Path,
    subjects: list[str] | None,
    runs: Sequence[BidsRun],
    shown_in: Callable[[BidsRun], list[ShownFilm]],
    options: Options,
    layout: str = "bids",
    extra_notes: Sequence[str] = (),
) -> Bids:
    """Open runs of which `shown_in` says which films they showed, with `extra_notes`; see `opened`."""
    names = chosen(sorted({run.subject for run in runs}), subjects, folder)
    chosen_runs = [run for run in runs if run.subject in names]
    cut = cut_films(folder, chosen_runs, shown_in, options.lag_s, options.window_s)
    prepared = "desc-preproc" in chosen_runs[0].bold.name
    used = [chosen_runs[number] for number in np.unique(cut.where[:, 0])]
    channels = _channels(used) if options.eeg else []
    paused = [note for note in [pauses(cut.times.values())] if note]
    notes = (_PREPARED if prepared else _RAW, _EEG if channels else _NO_EEG, *paused, *extra_notes)
    columns: list[Column] = ["eeg", "fmri", "clips"] if channels else ["fmri", "clips"]
    if any(has_sound(film) for film in dict.fromkeys(cut.films)):
        columns.append("sound")
    return Bids(
        folder=folder,
        windows=cut.windows,
        runs=chosen_runs,
        where=cut.where,
        films=cut.films,
        film_s=cut.film_s,
        slots=cut.slots,
        channels=channels,
        options=options,
        window_s=float(cut.slots * cut.tr),
        lag_s=options.lag_s,
        tr_s=float(cut.tr),
        fps=options.fps,
        chain="offline" if prepared else "causal",
        notes=notes,
        layout=layout,
        study="" if layout == "bids" else layout,
        columns=columns,
        sfreq=SFREQ if channels else None,
    )


def _dummies(run: BidsRun) -> int:
    """Return how many volumes had a trigger and were then taken out of the file."""
    discarded = run.sidecar.get("NumberOfVolumesDiscardedByUser", 0)
    if isinstance(discarded, bool) or not isinstance(discarded, int) or discarded < 0:
        raise UsageError(
            "dummy-volumes-invalid",
            "{path} has NumberOfVolumesDiscardedByUser {discarded_volumes!r}; a count was expected.",
            path=run.bold,
            discarded_volumes=discarded,
        )
    return discarded


def _channels(runs: Sequence[BidsRun]) -> list[str]:
    """Return the EEG channels of the first run; none where not every run has EEG."""
    if any(run.eeg is None for run in runs):
        return []
    first = runs[0].eeg
    assert first is not None
    montage = eeg_montage(first)
    return [name for name, kind in zip(montage.channels, montage.kinds, strict=True) if kind == "eeg"]
