"""CineBrain as it was released: six subjects who watched television while EEG and fMRI were recorded.

::

    FOLDER/
        videos.tar                        or videos/000000.mp4 ... 008099.mp4
        captions-qwen-2.5-vl-7b.json      a list of {"video", "text"}
        sub-0001/
            fMRI_preprocessed_data.tar    or visual_audio/0.npy ... 26999.npy, (voxel,) float64
            EEG_preprocessed_data.tar     or eeg_02/0.npy ... 26999.npy, (69, 800), 64 rows of them EEG

Archives are read in place. A part of the files is enough: a window is there where all its signals are.

Sources: the scripts of yanweifu-sii/CineBrain and JianxGao/CineBrain, and those of users who read the
release. The release itself was not at hand.
"""

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np
from numpy.typing import NDArray

from rtdecode.errors import UsageError
from train.data import leaks, regions
from train.data.dataset import Chain, Column, WindowTable
from train.data.layouts import cinebrain_clips as clips
from train.data.layouts.members import Member, array, numbered

WINDOW_S = 4.0
# The release takes volumes from the one after 4 s on: 4.8 s where a window begins with a volume.
LAG_S = 4.8
TR_S = 0.8
SFREQ_HZ = 1000.0
FPS = 8.0
# Rows of a segment that are EEG, and its samples. Further rows are other recordings, such as the heart's.
CHANNELS = 64
SAMPLES = 800
# Frames of a clip that the published systems use; a file may hold more.
FRAMES = 33
# Volumes of a whole recording.
_VOLUMES = clips.CLIPS * clips.TRS

_SUBJECT = re.compile(r"sub-\d{4}")
# Archive and unpacked folder of each signal.
_SIGNALS: Mapping[Column, tuple[str, str]] = {
    "eeg": ("EEG_preprocessed_data.tar", "eeg_02"),
    "fmri": ("fMRI_preprocessed_data.tar", "visual_audio"),
}
_VIDEOS = ("videos.tar", "videos")
_CAPTIONS = "captions-qwen-2.5-vl-7b.json"
# An atlas of this name in the folder gives the regions (`train.data.regions`).
_ATLASES = ("atlas.dlabel.nii", "atlas.npz")

_NOTES = (
    (
        "The EEG was filtered from 0.1 to 30 Hz forwards and backwards, and the fMRI went through fMRIPrep "
        "with AROMA, so that every value was made with knowledge of what came after it."
    ),
    (
        "Each voxel was z-scored over all runs, those for testing too; standardise by training runs "
        "(train.data.standard)."
    ),
    "The volumes of a window begin 4.0 to 4.8 s after it, depending on where its run began; 4.8 s is taken.",
    (
        "The last two runs are for testing: clips 4860 to 5399 where the second half is season 9, and 7560 "
        "to 8099, the published numbers, where it is season 11."
    ),
)
_COPY = (
    "The fMRI of sub-0005 was reported to be a copy of that of sub-0001. "
    "Quote no figure of sub-0005 without saying so."
)


@dataclass(eq=False)
class CineBrain:
    """The release, or a part of it, see `train.data.dataset.DataSet`.

    Attributes
    ----------
    places : (window,)
        Place of each window in its subject's recording, in clips.
    signals : mapping
        (subject, column) -> number of a volume or segment -> its file.
    videos : mapping
        Number of a clip -> its file.
    captions : mapping
        Number of a clip -> its caption.
    voxels : mapping
        Subject -> number of voxels.
    """

    folder: Path
    windows: WindowTable
    columns: Sequence[Column]
    missing: Sequence[str]
    notes: Sequence[str]
    places: NDArray[np.int64]
    signals: Mapping[tuple[str, Column], Mapping[int, Member]]
    videos: Mapping[int, Member]
    captions: Mapping[int, str]
    voxels: Mapping[str, int]
    layout: str = "cinebrain"
    window_s: float = WINDOW_S
    lag_s: float = LAG_S
    tr_s: float | None = TR_S
    sfreq: float | None = SFREQ_HZ
    fps: float | None = FPS
    chain: Chain = "offline"

    def read(self, column: Column, rows: Sequence[int] | NDArray[np.int64]) -> NDArray[Any]:
        """Read a column of some windows of one subject, see `train.data.dataset.DataSet.read`."""
        if column not in self.columns:
            raise UsageError(f"{self.folder} has no {column}; it has {', '.join(self.columns)}.")
        rows = np.asarray(rows, np.int64)
        if column == "clips":
            return self._stacked([self._clip(int(self.windows.shown[row])) for row in rows])
        if column == "captions":
            return np.array([self._caption(int(self.windows.shown[row])) for row in rows])
        subjects = set(self.windows.subject[rows].tolist())
        if len(subjects) != 1:
            raise ValueError(f"windows of one subject were expected, found {sorted(subjects)}")
        subject = subjects.pop()
        read = self._eeg if column == "eeg" else self._fmri
        return np.stack([read(subject, int(self.places[row])) for row in rows])

    def regions(self, subject: str) -> Mapping[str, NDArray[np.bool_]]:
        """Return the regions by the folder's ``atlas.dlabel.nii`` or ``atlas.npz``; none without."""
        for name in _ATLASES:
            if (self.folder / name).is_file() and "fmri" in self.columns:
                return regions.cinebrain(regions.read_atlas(self.folder / name), self.voxels[subject])
        return {}

    def _fmri(self, subject: str, place: int) -> NDArray[np.float32]:
        volumes = []
        for member in self._files(subject, "fmri", place):
            volumes.append(_whole(member, array(member), (self.voxels[subject],)))
        return np.stack(volumes)

    def _eeg(self, subject: str, place: int) -> NDArray[np.float32]:
        segments = []
        for member in self._files(subject, "eeg", place):
            found = array(member)
            # The rows that are no EEG may be fewer or more.
            rows = max(CHANNELS, found.shape[0] if found.ndim else 0)
            segments.append(_whole(member, found, (rows, SAMPLES))[:CHANNELS])
        return np.concatenate(segments, axis=1)

    def _files(self, subject: str, column: Column, place: int) -> list[Member]:
        known = self.signals[subject, column]
        return [known[number] for number in range(place * clips.TRS, (place + 1) * clips.TRS)]

    def _clip(self, clip: int) -> NDArray[np.uint8]:
        if clip not in self.videos:
            raise UsageError(f"{self.folder} has no video of clip {clip:06d}. Fetch videos.tar again.")
        member = self.videos[clip]
        content = member.read()
        frames: list[NDArray[np.uint8]] = []
        try:
            with av.open(io.BytesIO(content), "r") as container:
                for frame in container.decode(video=0):
                    frames.append(np.asarray(frame.to_ndarray(format="rgb24"), np.uint8))
                    if len(frames) == FRAMES:
                        break
        except (av.error.FFmpegError, IndexError) as error:
            raise UsageError(f"{member} cannot be read as a film ({error}). Fetch it again.") from error
        if len(frames) < FRAMES:
            raise UsageError(
                f"{member} has {len(frames)} frames, and {FRAMES} were expected. Fetch it again."
            )
        return np.stack(frames)

    def _stacked(self, found: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
        sizes = {one.shape[1:3] for one in found}
        if len(sizes) > 1:
            raise UsageError(
                f"clips of {self.folder} differ in size: {sorted(sizes)} rows and columns. "
                "Fetch the videos again."
            )
        return np.stack(found)

    def _caption(self, clip: int) -> str:
        if clip not in self.captions:
            raise UsageError(f"{self.folder / _CAPTIONS} has no caption of clip {clip:06d}. Fetch it again.")
        return self.captions[clip]


def recognises(folder: Path) -> bool:
    """Return whether a folder holds a subject's archive, or its unpacked files, under the release's names."""
    return bool(_subjects(folder))


def opened(folder: Path, subjects: list[str] | None = None) -> CineBrain:
    """Open the release.

    Parameters
    ----------
    folder : Path
    subjects : list of str, optional
        Such as ``sub-0001``, or the number alone. All that are there by default.

    Raises
    ------
    UsageError
        If a subject is not there, an archive is cut short, or two of the subjects have the same signals.
    """
    chosen = _chosen(folder, subjects)
    signals: dict[tuple[str, Column], Mapping[int, Member]] = {}
    missing: list[str] = []
    for subject in chosen:
        for column, (archive, inside) in _SIGNALS.items():
            place = _there(folder / subject, archive, inside)
            signals[subject, column] = numbered(place, ".npy", inside) if place else {}
            if not signals[subject, column]:
                missing.append(f"{subject}/{archive}")
    columns: list[Column] = [c for c in _SIGNALS if all(signals[subject, c] for subject in chosen)]
    if not columns:
        raise UsageError(
            f"the subjects {', '.join(chosen)} have neither EEG nor fMRI in common; missing: "
            f"{', '.join(missing)}. Choose others with subjects=."
        )
    windows, places, holes = _table(chosen, columns, signals)
    missing += holes
    shown = set(windows.shown.astype(np.int64).tolist())

    at = _there(folder, *_VIDEOS)
    videos = numbered(at, ".mp4") if at else {}
    captions = _captions(folder / _CAPTIONS)
    if videos:
        columns.append("clips")
        missing += [f"videos/{clip:06d}.mp4" for clip in sorted(shown - set(videos))]
    else:
        missing.append(_VIDEOS[0])
    if captions:
        columns.append("captions")
    else:
        missing.append(_CAPTIONS)

    has_fmri = "fmri" in columns
    data = CineBrain(
        folder=folder,
        windows=windows,
        columns=columns,
        missing=missing,
        notes=[*_NOTES, *([_COPY] if "sub-0005" in chosen else [])],
        places=places,
        signals=signals,
        videos=videos,
        captions=captions,
        voxels={subject: _voxels(signals[subject, "fmri"]) for subject in chosen} if has_fmri else {},
        tr_s=TR_S if has_fmri else None,
        sfreq=SFREQ_HZ if "eeg" in columns else None,
        fps=FPS if videos else None,
    )
    if twins := leaks.same_subjects(data):
        raise UsageError(" ".join(one.says for one in twins))
    return data


def _subjects(folder: Path) -> list[str]:
    """List the subjects of whom there is an archive or an unpacked folder."""
    found = []
    for path in sorted(folder.iterdir()):
        if _SUBJECT.fullmatch(path.name) and any(_there(path, *names) for names in _SIGNALS.values()):
            found.append(path.name)
    return found


def _chosen(folder: Path, subjects: list[str] | None) -> list[str]:
    there = _subjects(folder)
    if subjects is None:
        wanted = there
    else:
        wanted = [f"sub-{int(name):04d}" if name.isdigit() else name for name in subjects]
    unknown = [name for name in wanted if name not in there or name not in clips.SECOND]
    if unknown or not wanted:
        raise UsageError(
            f"{folder} has no data of {', '.join(unknown) or 'any subject'} that can be used. It has "
            f"{', '.join(there) or 'none'}, and it is known what {', '.join(clips.SECOND)} saw. "
            "Choose with subjects=."
        )
    return list(dict.fromkeys(wanted))


def _there(folder: Path, archive: str, inside: str) -> Path | None:
    """Find an archive, or else its unpacked folder."""
    if (folder / archive).is_file():
        return folder / archive
    return folder / inside if (folder / inside).is_dir() else None


def _table(
    subjects: list[str], columns: list[Column], signals: Mapping[tuple[str, Column], Mapping[int, Member]]
) -> tuple[WindowTable, NDArray[np.int64], list[str]]:
    """List the windows whose signals are whole, their places, and the files that others lack."""
    whose: list[str] = []
    where: list[NDArray[np.int64]] = []
    shown: list[NDArray[np.int64]] = []
    holes: list[str] = []
    for subject in subjects:
        there = np.zeros((len(columns), _VOLUMES), bool)
        for n, column in enumerate(columns):
            numbers = np.array(list(signals[subject, column]), np.int64)
            there[n, numbers[numbers < _VOLUMES]] = True
        by_clip = there.reshape(len(columns), clips.CLIPS, clips.TRS)
        # Of a clip that is not there at all nothing is missing: a user may hold some runs alone.
        begun: NDArray[np.bool_] = np.any(by_clip, axis=(0, 2))
        for n, column in enumerate(columns):
            lacking = (begun[:, None] & ~by_clip[n]).ravel()
            holes += [f"{subject}/{_SIGNALS[column][1]}/{k}.npy" for k in np.flatnonzero(lacking).tolist()]
        places = np.flatnonzero(by_clip.all(axis=(0, 2)))
        whose += [subject] * len(places)
        where.append(places)
        shown.append(clips.clips_at(subject, places))
    places = np.concatenate(where)
    if not len(places):
        raise UsageError(
            f"no window has all its {' and '.join(columns)}: {len(holes)} files are missing, such as "
            f"{', '.join(holes[:3]) or 'all'}. Fetch them."
        )
    runs = places // clips.RUN_CLIPS
    table = WindowTable(
        subject=np.array(whose),
        run=np.array([f"run-{run + 1:02d}" for run in runs.tolist()]),
        shown=np.array([f"{clip:06d}" for clip in np.concatenate(shown).tolist()]),
        start_s=(places % clips.RUN_CLIPS).astype(np.float64) * WINDOW_S,
        repeat=np.zeros(len(places), np.int64),
        held_out=runs >= clips.RUNS - clips.HELD_RUNS,
    )
    return table, places, holes


def _captions(path: Path) -> dict[int, str]:
    if not path.is_file():
        return {}
    entries = clips.read_list(path)
    return {clips.clip_number(path, entry): str(entry.get("text", "")) for entry in entries}


def _voxels(volumes: Mapping[int, Member]) -> int:
    """Return the number of voxels of a subject's first volume, which all others must have."""
    first = volumes[min(volumes)]
    found = array(first)
    if found.ndim != 1:
        raise UsageError(f"{first} has the shape {found.shape}, and (voxel,) was expected.")
    return len(found)


def _whole(member: Member, found: NDArray[Any], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return an array that has a shape and finite numbers alone."""
    if found.shape != shape or found.dtype.kind not in "fiu":
        raise UsageError(
            f"{member} has the shape {found.shape} of {found.dtype}, and {shape} was expected. "
            "Fetch it again."
        )
    bad = int((~np.isfinite(found)).sum())
    if bad:
        raise UsageError(
            f"{member} has {bad} values that are no numbers. Leave its subject or run out, or fetch it again."
        )
    return found.astype(np.float32)
