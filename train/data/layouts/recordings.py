"""Sessions of one's own, which ``rtdecode stream --record`` wrote, run through the chain of a session.

::

    FOLDER/recording.json              one recording, or
    FOLDER/REC/recording.json          recordings of one participant, or
    FOLDER/SUBJECT/REC/recording.json  recordings of several
    FOLDER/films/FILM                  the films that were shown, by the names they were shown by

A recording that holds the truth needs no film beside it. `train.data.recorded_sessions` trains on the same
recordings; here they are windows like those of any data set.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode.bundle.manifest import OFFLINE
from rtdecode.disk.film_marks import name_digest
from rtdecode.disk.hashed_folder import file_hash
from rtdecode.disk.recording import Recording
from rtdecode.errors import UsageError
from rtdecode.signal.eeg.band import EegBand
from rtdecode.signal.volume.baseline import Baseline
from rtdecode.timing import TimingGrid
from train.config.run_context import Arrays
from train.data.clip_grid import shown_frames
from train.data.dataset import Acquired, Chain, Column, WindowTable
from train.data.layouts.stored_arrays import finite
from train.data.nodes import grid as grid_of
from train.data.recorded import raw_bundle
from train.data.recorded_sessions import recorded_manifest, shared_head, shared_montage, shared_tr
from train.data.recorded_showing import RecordedShowing, stretches
from train.data.window_tables import Rows, checked_rows, chosen, joined, of_run

# The grid, the pass band and the baseline of the recipe `compact`.
GRID = grid_of(tr="4/5", window=4, hop=4, lag=4, sfreq=125, fps=8)
_BAND = EegBand()
_BASELINE = Baseline(warmup=0, rate=0.005)
_NOTES = (
    "EEG and volumes went through the chain of a session, so nothing in a window depends on what came later.",
    (
        "fMRI is the difference from the resting level, in the scanner's units; a volume or a sample that "
        "was lost is zero."
    ),
    (
        "A recording was run through the chain when it was opened, to see which windows it has. The chain "
        "runs again when a window of another recording is read."
    ),
    "Windows of several showings have one name where they begin within half a window of film time.",
)


@dataclass(eq=False)
class Recordings:
    """Recordings, opened; see `train.data.dataset.DataSet`.

    Attributes
    ----------
    showings : sequence of RecordedShowing
        Stretches in which a film ran through.
    where : int64, (window, 2)
        Number of the showing, and of the window in it.
    last_arrays : dict
        The arrays of the showing that was read last, and its clips.
    """

    folder: Path
    windows: WindowTable
    showings: Sequence[RecordedShowing]
    where: NDArray[np.int64]
    layout: str
    study: str
    window_s: float
    lag_s: float
    tr_s: float | None
    sfreq: float | None
    fps: float | None
    notes: Sequence[str] = _NOTES
    columns: Sequence[Column] = ("eeg", "fmri", "clips")
    chain: Chain = "causal"
    missing: Sequence[str] = ()
    last_arrays: dict[tuple[int, str], Arrays] = field(default_factory=dict, repr=False)

    def read(self, column: Column, rows: Rows) -> NDArray[Any]:
        """Read a column of some windows; see `train.data.dataset.DataSet.read`."""
        _, window_rows = checked_rows(self.windows, rows, column, self.columns, self.folder)
        numbers, places = self.where[window_rows].T
        by_position: dict[int, NDArray[Any]] = {}
        # One showing after another, so that each is run through the chain once.
        for number in np.unique(numbers):
            positions = np.flatnonzero(numbers == number)
            values = self._arrays(int(number), column)[column][places[positions]]
            by_position |= dict(zip(positions.tolist(), values, strict=True))
        stacked = np.stack([by_position[n] for n in range(len(window_rows))])
        return stacked if column == "clips" else finite(stacked, self.folder)

    def regions(self, subject: str) -> Mapping[str, NDArray[np.bool_]]:
        """Return no regions: the voxels are all those of the head."""
        return {}

    def acquired(self, subject: str) -> Acquired:
        """Return cap and head of a subject, and the resting level that its volumes differ from."""
        number = int(self.where[self.windows.subject == subject][0, 0])
        showing = self.showings[number]
        assert showing.draft.fmri is not None
        return Acquired(showing.head, showing.draft.fmri.baseline, showing.level, showing.draft.eeg)

    def _arrays(self, number: int, column: str) -> Arrays:
        kind = "clips" if column == "clips" else "signals"
        if (number, kind) not in self.last_arrays:
            for key in [key for key in self.last_arrays if key[1] == kind]:
                del self.last_arrays[key]
            showing = self.showings[number]
            if kind == "clips":
                # Without the frame after each window.
                self.last_arrays[number, kind] = {
                    "clips": showing.film().clips[:, : shown_frames(showing.draft)]
                }
            else:
                self.last_arrays[number, kind] = showing.arrays(
                    raw_bundle(showing.draft, showing.head, showing.level)
                )
        return self.last_arrays[number, kind]


def recognises(folder: Path) -> bool:
    """Whether a folder holds recordings, not all of them of the simulated participant."""
    recordings = recordings_in(folder)
    return bool(recordings) and not all(is_simulated(path) for path in recordings)


def opened(
    folder: Path,
    subjects: list[str] | None = None,
    *,
    grid: TimingGrid = GRID,
    band: EegBand = _BAND,
    baseline: Baseline = _BASELINE,
) -> Recordings:
    """Open recordings.

    Parameters
    ----------
    folder : Path
        See the module.
    subjects : list of str, optional
        Names of the participants' folders; ``participant`` where there are none. All by default.
    grid, band, baseline
        How the windows are cut; the recordings' TR takes the place of the grid's.

    Raises
    ------
    UsageError
        If there is no recording, its film is not there, or recordings of one participant do not fit together.
    """
    return opened_as("recordings", _NOTES, folder, subjects, grid, band, baseline)


def opened_as(
    layout: str,
    notes: Sequence[str],
    folder: Path,
    subjects: list[str] | None,
    grid: TimingGrid = GRID,
    band: EegBand = _BAND,
    baseline: Baseline = _BASELINE,
) -> Recordings:
    """Open recordings as a layout, with notes; see `opened`."""
    paths = recordings_in(folder)
    names = chosen(sorted({_subject(folder, path) for path in paths}), subjects, folder)
    showings: list[RecordedShowing] = []
    tables = []
    places = []
    for subject in names:
        subject_recordings = [Recording(path) for path in paths if _subject(folder, path) == subject]
        for showing in _showings(folder, subject_recordings, grid, band, baseline):
            tables.append(_table(subject, showing))
            places.append(np.stack([np.full(showing.windows, len(showings)), np.arange(showing.windows)], 1))
            showings.append(showing)
    windows = joined(tables)
    grids = {showing.draft.grid for showing in showings}
    if len(grids) > 1:
        raise UsageError(
            "recordings-subject-tr-mismatch",
            "{folder}: the subjects were scanned at several TRs. Open them one by one.",
            folder=folder,
        )
    (shared,) = grids
    return Recordings(
        folder=folder,
        windows=replace(windows, repeat=_repeats(windows)),
        showings=showings,
        where=np.concatenate(places),
        layout=layout,
        study="",
        window_s=float(shared.window),
        lag_s=float(shared.lag),
        tr_s=None if shared.tr is None else float(shared.tr),
        sfreq=float(shared.sfreq),
        fps=showings[0].draft.clip.fps,
        notes=notes,
        chain="offline" if any(showing.draft.chain == OFFLINE for showing in showings) else "causal",
    )


def recordings_in(folder: Path) -> list[Path]:
    """List the recordings of a folder: itself, or those in it, or those in folders of participants."""
    if (folder / "recording.json").is_file():
        return [folder]
    heads = [*folder.glob("*/recording.json"), *folder.glob("*/*/recording.json")]
    return sorted(head.parent for head in heads)


def _subject(folder: Path, path: Path) -> str:
    """Name the participant of a recording, by the folder that holds it if that is one of several."""
    return path.parent.name if path.parent.parent == folder else "participant"


def is_simulated(path: Path) -> bool:
    """Whether a recording says that its participant is simulated."""
    return Recording(path).meta.get("simulated") is True


def _showings(
    folder: Path, recordings: Sequence[Recording], grid: TimingGrid, band: EegBand, baseline: Baseline
) -> list[RecordedShowing]:
    """Find what was watched in the recordings of one participant."""
    montage = shared_montage(recordings)
    grid = replace(grid, tr=shared_tr(recordings, grid))
    head, level = shared_head(recordings)
    draft = recorded_manifest(grid, band, baseline, montage, head, recordings)
    showings: list[RecordedShowing] = []
    for number, recording in enumerate(recordings, 1):
        for film in _films(folder, recording):
            showings += stretches(recording, number, film, file_hash(film)[:16], head, level, draft)
    return showings


def _films(folder: Path, recording: Recording) -> list[Path]:
    """Find the films that a recording says were shown."""
    truth = recording.path / "truth" / "film.mp4"
    if truth.is_file():
        return [truth]
    films = sorted(path for path in (folder / "films").glob("*") if path.is_file())
    marked_names = {film.name for film in recording.films()} - {""}
    matches = [path for path in films if {name_digest(path.name), " ".join(path.name.split())} & marked_names]
    if marked_names and len(matches) == len(marked_names):
        return matches
    if not marked_names and len(films) == 1:
        return films
    what = (
        f"markers of {len(marked_names)} films" if marked_names else "no markers to tell which film was shown"
    )
    raise UsageError(
        "recordings-film-ambiguous",
        "{recording} has {markers}, and {folder} has {film_count} films, {match_count} of them by a "
        "name that was shown. Put the films that were shown there, under the names they were shown "
        "by.",
        recording=recording.path,
        markers=what,
        folder=folder / "films",
        film_count=len(films),
        match_count=len(matches),
    )


def _table(subject: str, showing: RecordedShowing) -> WindowTable:
    # A session begins where it likes, so that two showings of a film are not cut at the same film times.
    window_s = float(showing.draft.grid.window)
    titles = [f"{showing.source}/{round(start / window_s)}" for start in showing.start_s]
    # The stretch has the numbers of its recording, its run and its first window for a name. The first two are
    # those of the run: the recording's folder may have a name that tells who was recorded.
    run = showing.name.rpartition("-")[0]
    return of_run(subject, run, titles, showing.run_s)


def _repeats(windows: WindowTable) -> NDArray[np.int64]:
    """Count how often a subject had seen before what each window showed, with recordings in their order."""
    times_shown: Counter[tuple[str, str]] = Counter()
    repeats = np.zeros(len(windows), np.int64)
    for n, key in enumerate(zip(windows.subject.tolist(), windows.shown.tolist(), strict=True)):
        repeats[n] = times_shown[key]
        times_shown[key] += 1
    return repeats
