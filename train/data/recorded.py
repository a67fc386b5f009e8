"""Recordings of one participant who watched a film, run through the chain of a session.

Recordings and the films they saw come in. `read_recordings` finds the voxels of the head, cuts the windows,
and puts each on the time line of its film. Out comes a `Recorded`: EEG by window, every volume once with the
windows that it belongs to, and the film time of each. A fit (`train.fitting`) starts from it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rtdecode.bundle import Bundle, Manifest
from rtdecode.disk.calibration import Calibration
from rtdecode.disk.film_marks import ShownFilm, name_digest
from rtdecode.disk.recording import Recording
from rtdecode.errors import UsageError
from rtdecode.signal.volume.projection import Projection
from rtdecode.types import Volume, Window
from train.data.arrays import in_head
from train.data.chain import draft_bundle, unit_statistics, windows

Matrix = NDArray[np.float64]
Reals = NDArray[np.float32]


@dataclass(frozen=True)
class Eeg:
    """EEG of the windows.

    Attributes
    ----------
    data : float32, (window, channel, sample)
        Filtered EEG in microvolts; holes are zero.
    mask : bool, (window, sample)
        False where a sample lies in a hole.
    """

    data: Reals
    mask: NDArray[np.bool_]


@dataclass(frozen=True)
class Fmri:
    """Volumes of the windows, in the order they were acquired.

    Attributes
    ----------
    head : Projection
        The voxels of the head.
    level : (voxel,)
        Mean over the recordings.
    volumes : float32, (volume, voxel)
        Difference from the resting level.
    film : int64, (volume,)
        Number of the recording, and so of its film.
    times : (volume,)
        Film time of the middle of the acquisition, s.
    rows : int64, (window, slot)
        Rows of `volumes` that each window reads; -1 where one is missing.
    slot_s : (slot,)
        Mean time from the window's start to the middle of the acquisition, s.
    """

    head: Projection
    level: Reals
    volumes: Reals
    film: NDArray[np.int64]
    times: Matrix
    rows: NDArray[np.int64]
    slot_s: Matrix

    def slots(self, parts: NDArray[np.floating]) -> NDArray[np.floating]:
        """Arrange rows of (volume, component) by window, with the mean of the others in place of a hole."""
        has_volume = (self.rows >= 0)[:, :, None]
        filled = np.where(has_volume, parts[self.rows], 0)
        mean = filled.sum(1, keepdims=True) / np.maximum(has_volume.sum(1, keepdims=True), 1)
        return np.where(has_volume, filled, mean)


@dataclass(frozen=True)
class Recorded:
    """The contents of a participant's recordings, by window.

    Attributes
    ----------
    eeg : Eeg or None
        EEG of the windows; None where it is not read.
    fmri : Fmri or None
        Volumes of the windows; None where they are not read.
    film : int64, (window,)
        Number of the recording, and so of its film.
    start_s : (window,)
        Film time of each window's start, s.
    """

    eeg: Eeg | None
    fmri: Fmri | None
    film: NDArray[np.int64]
    start_s: Matrix

    def __len__(self) -> int:
        return len(self.start_s)


def modalities(recordings: Sequence[Recording], manifest: Manifest) -> list[str]:
    """List the sources that the bundle reads and every recording has.

    Raises
    ------
    UsageError
        If there is none.
    """
    eeg = all(recording.montage is not None for recording in recordings)
    fmri = all(next(_volumes(recording), None) is not None for recording in recordings)
    sources = [
        name for name, present in (("eeg", eeg), ("fmri", fmri)) if present and name in manifest.modalities
    ]
    if not sources:
        raise UsageError(
            "recordings-no-modality",
            "no modality can be fitted: the bundle must read EEG that every recording holds, or "
            "volumes that every recording holds. Look into recording.json and events.jsonl of each.",
        )
    return sources


def read_recordings(
    recordings: Sequence[Recording], lengths: Sequence[float], names: Sequence[str], manifest: Manifest
) -> Recorded:
    """Run recordings through the chain and place their windows on the time of the film.

    Where a recording holds the markers of `rtdecode play`, they say when the film began. Otherwise the film
    is taken to begin with the run.

    Parameters
    ----------
    recordings : sequence of Recording
        Recordings of one participant, each with one film.
    lengths : sequence of float
        Length of the film that each of them saw, s.
    names : sequence of str
        File names of the films.
    manifest : Manifest
        Manifest of the bundle to be fitted.
    """
    sources = modalities(recordings, manifest)
    head, level = find_head(recordings) if "fmri" in sources else (None, None)
    raw = raw_bundle(manifest, head, level)
    film_windows: list[tuple[Window, int, float]] = []
    for number, recording in enumerate(recordings):
        cut = cut_windows(raw, recording, sources)
        starts = film_starts(recording, cut, lengths[number], names[number])
        placed = zip(cut, starts, strict=True)
        film_windows += [(w, number, t) for w, t in placed if np.isfinite(t) and is_whole(w, sources)]
    if not film_windows:
        where = ", ".join(str(recording.path) for recording in recordings)
        raise UsageError(
            "recordings-outside-film",
            "no window of {recordings} lies inside the film. Give the film shown, and its recording.",
            recordings=where,
        )
    windows = [window for window, _, _ in film_windows]
    film = np.array([n for _, n, _ in film_windows])
    start_s = np.array([t for _, _, t in film_windows])
    eeg = _eeg(windows) if "eeg" in sources else None
    fmri = None
    if head is not None and level is not None:
        fmri = _fmri(windows, film, start_s, raw, level)
    return Recorded(eeg, fmri, film, start_s)


def cut_windows(
    raw: Bundle, recording: Recording, sources: list[str], calibration: Calibration | None = None
) -> list[Window]:
    """Run a recording through the chain, as the session that made it did; a calibration places the voxels."""
    return windows(
        raw,
        recording.events(),
        recording.montage,
        sources,
        dummies=recording.meta.get("dummies", 0),
        triggers_expected=recording.has_triggers(),
        restarted_at=recording.restarted_at,
        calibration=calibration,
    )


def film_starts(
    recording: Recording, cut: Sequence[Window], seconds: float, name: str
) -> NDArray[np.float64]:
    """Find the film time at which each window starts, s; NaN for one that does not lie inside the film.

    Raises
    ------
    UsageError
        If the markers of `rtdecode play` belong to other films, or if there are several runs and no markers
        to tell which one showed the film.
    """
    showings = _showings(recording, name)
    if not showings and len({window.run for window in cut}) > 1:
        raise UsageError(
            "recording-run-ambiguous",
            "{recording} has {runs} runs and no markers of `rtdecode play` to tell which one showed "
            "the film. Give recordings of one run each.",
            recording=recording.path,
            runs=len({window.run for window in cut}),
        )
    # Without markers the film's zero is the run's.
    starts = [_start(window, showings, seconds) if showings else window.start_s for window in cut]
    length = float(cut[0].stop_s - cut[0].start_s) if cut else 0.0
    # Times are sums of floats, so a window that touches an end of the film counts as inside.
    return np.array([t if -1e-6 <= t <= seconds - length + 1e-6 else np.nan for t in starts])


def _showings(recording: Recording, name: str) -> list[ShownFilm]:
    """Find the showings of the named film.

    The marker of a film's start names it. Where none was received, all showings are taken.
    """
    films = recording.films()
    marked_names = {film.name for film in films} - {""}
    # A recording may hold the name itself in place of its digest, with single spaces.
    accepted = (name_digest(name), " ".join(name.split()))
    matches = [film for film in films if film.name in accepted]
    if marked_names and not matches:
        raise UsageError(
            "recording-film-mismatch",
            "{recording} has the markers of {marked_films} films of other names, and the film given "
            "is {film}. Give the film that was shown, under the name it was shown by.",
            recording=recording.path,
            marked_films=len(marked_names),
            film=name,
        )
    return matches or films


def _start(window: Window, films: Sequence[ShownFilm], seconds: float) -> float:
    """Find the film time of a window's start, in the last film that had begun.

    The film's zero is a median over frames, some of which were shown late. So a window may start up to a
    frame before it.
    """
    start_at = window.stamps["stop"] - (window.stop_s - window.start_s)
    elapsed_s = [start_at - film.onset_at for film in films if start_at >= film.onset_at - 1 / film.fps]
    return max(0.0, elapsed_s[-1]) if elapsed_s and elapsed_s[-1] <= seconds else np.nan


def is_whole(window: Window, sources: Sequence[str]) -> bool:
    """Whether at least half of each modality was received in a window."""
    return all(window.missing[name] <= 0.5 for name in sources)


def _volumes(recording: Recording) -> Iterator[Volume]:
    return (item for item in recording.events() if isinstance(item, Volume))


def find_head(recordings: Sequence[Recording]) -> tuple[Projection, Reals]:
    """Find the voxels of the head, on the grid of the first volume, and their mean over all volumes."""
    first = next(_volumes(recordings[0]))
    grid = Projection(np.arange(first.data.size), (first.data.shape[0], *first.data.shape[1:]), first.affine)
    order = np.arange(first.data.size)
    like = first
    total = np.zeros(first.data.size)
    count = 0
    for recording in recordings:
        for volume in _volumes(recording):
            # Another recording may have another field of view or orientation.
            if volume.data.shape != like.data.shape or not np.array_equal(volume.affine, like.affine):
                order = grid.bind(volume.data.shape, volume.affine, volume.name)
                like = volume
            total += volume.data.reshape(-1)[order].astype(np.float64)
            count += 1
    mean = total / count
    head_voxels = in_head(mean)
    return replace(grid, voxels=head_voxels), mean[head_voxels].astype(np.float32)


def raw_bundle(manifest: Manifest, head: Projection | None, level: Reals | None) -> Bundle:
    """Make a bundle that leaves EEG and every voxel of the head in their own units."""
    if head is not None and manifest.fmri is not None:
        affine = head.affine.tolist()
        voxels = replace(manifest.fmri, voxels=len(head.voxels), shape=list(head.shape), affine=affine)
        manifest = replace(manifest, fmri=voxels)
    return draft_bundle(manifest, unit_statistics(manifest, level), head)


def _eeg(windows: Sequence[Window]) -> Eeg:
    data = [window.eeg for window in windows if window.eeg is not None]
    return Eeg(np.stack(data), np.stack([window.eeg_mask for window in windows]))


def _fmri(
    windows: Sequence[Window], film: NDArray[np.int64], start_s: Matrix, raw: Bundle, level: Reals
) -> Fmri:
    """Line up the volumes of all windows, each once even where several windows read it."""
    grid = raw.manifest.grid
    head = raw.projection
    assert head is not None
    assert grid.tr is not None
    tr = float(grid.tr)
    rows = np.full((len(windows), grid.slots), -1)
    row_of: dict[tuple[int, int, int], int] = {}
    data: list[Reals] = []
    where: list[tuple[int, float]] = []
    total, count = np.zeros((2, grid.slots))
    for n, window in enumerate(windows):
        # Index of the volume in slot 0; negative where the window begins before the run's first volume.
        first = grid.volumes(window.index).start - grid.empty_slots(window.index)
        for slot in np.flatnonzero(window.fmri_mask):
            assert window.fmri is not None
            # Overlapping windows share volumes: a volume is known by recording, run and index.
            key = (int(film[n]), window.run, int(first + slot))
            after_s = (key[2] + 0.5) * tr - window.start_s
            total[slot], count[slot] = total[slot] + after_s, count[slot] + 1
            if key not in row_of:
                row_of[key] = len(data)
                data.append(window.fmri[slot])
                where.append((key[0], start_s[n] + after_s))
            rows[n, slot] = row_of[key]
    numbers = np.array([n for n, _ in where])
    times = np.array([t for _, t in where])
    return Fmri(head, level, np.stack(data), numbers, times, rows, total / np.maximum(count, 1))
