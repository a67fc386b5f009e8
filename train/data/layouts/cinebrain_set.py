"""Windows of CineBrain, read from the files of its release (`train.data.layouts.cinebrain` finds them)."""

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np
from numpy.typing import NDArray

from rtdecode.disk.film_file import OpenFilm, open_film
from rtdecode.errors import UsageError
from train.data import cinebrain_clips as clips
from train.data import regions
from train.data.dataset import Chain, Column, WindowTable
from train.data.layouts.film_sound import film_sound
from train.data.layouts.members import Member, array

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
# Rates that differ by so large a share are the same, and lengths by so much, s.
_SAME = 0.01
_ABOUT_S = 0.15

CAPTIONS = "captions-qwen-2.5-vl-7b.json"
# An atlas of this name in the folder gives the regions (`train.data.regions`).
_ATLASES = ("atlas.dlabel.nii", "atlas.npz")


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
    study: str = "cinebrain"
    window_s: float = WINDOW_S
    lag_s: float = LAG_S
    tr_s: float | None = TR_S
    sfreq: float | None = SFREQ_HZ
    fps: float | None = FPS
    chain: Chain = "offline"

    def read(self, column: Column, rows: Sequence[int] | NDArray[np.int64]) -> NDArray[Any]:
        """Read a column of some windows of one subject, see `train.data.dataset.DataSet.read`."""
        if column not in self.columns:
            raise UsageError(
                "data-missing-column",
                "{folder} has no {column}; it has {available}.",
                folder=self.folder,
                column=column,
                available=list(self.columns),
            )
        rows = np.asarray(rows, np.int64)
        if column == "clips":
            return self._stacked([self._clip(int(self.windows.shown[row])) for row in rows])
        if column == "sound":
            return np.concatenate([self._sound(int(self.windows.shown[row])) for row in rows])
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

    def acquired(self, subject: str) -> None:
        """Return nothing: the release names neither its channels nor the place of its voxels."""

    def _fmri(self, subject: str, place: int) -> NDArray[np.float32]:
        volumes = []
        for member in self._files(subject, "fmri", place):
            volumes.append(_whole(member, array(member), (self.voxels[subject],)))
        return np.stack(volumes)

    def _eeg(self, subject: str, place: int) -> NDArray[np.float32]:
        segments = []
        for member in self._files(subject, "eeg", place):
            segment = array(member)
            # The rows that are no EEG may be fewer or more.
            rows = max(CHANNELS, segment.shape[0] if segment.ndim else 0)
            segments.append(_whole(member, segment, (rows, SAMPLES))[:CHANNELS])
        return np.concatenate(segments, axis=1)

    def _files(self, subject: str, column: Column, place: int) -> list[Member]:
        members = self.signals[subject, column]
        return [members[number] for number in range(place * clips.TRS, (place + 1) * clips.TRS)]

    def _video(self, clip: int) -> Member:
        if clip not in self.videos:
            raise UsageError(
                "cinebrain-video-missing",
                "{folder} has no video of clip {clip:06d}. Fetch videos.tar again.",
                folder=self.folder,
                clip=clip,
            )
        return self.videos[clip]

    def _sound(self, clip: int) -> NDArray[np.float32]:
        member = self._video(clip)
        return film_sound(io.BytesIO(member.read()), [0.0], WINDOW_S, member)

    def _clip(self, clip: int) -> NDArray[np.uint8]:
        member = self._video(clip)
        content = member.read()
        frames: list[NDArray[np.uint8]] = []
        try:
            with open_film(io.BytesIO(content), member) as film:
                frames = [film.picture(frame) for frame in _shown(film, member)]
        except (av.error.FFmpegError, IndexError) as error:
            raise UsageError(
                "film-unreadable",
                "{path} cannot be read as a film ({error}). Fetch it again.",
                path=member,
                error=error,
            ) from error
        if len(frames) < FRAMES:
            raise UsageError(
                "cinebrain-video-truncated",
                "{member} has {frames} frames, and {expected} were expected. Fetch it again.",
                member=member,
                frames=len(frames),
                expected=FRAMES,
            )
        return np.stack(frames)

    def _stacked(self, clip_arrays: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
        sizes = {clip.shape[1:3] for clip in clip_arrays}
        if len(sizes) > 1:
            raise UsageError(
                "cinebrain-clip-size-mismatch",
                "clips of {folder} differ in size: {sizes} rows and columns. Fetch the videos again.",
                folder=self.folder,
                sizes=sorted(sizes),
            )
        return np.stack(clip_arrays)

    def _caption(self, clip: int) -> str:
        if clip not in self.captions:
            raise UsageError(
                "cinebrain-caption-missing",
                "{path} has no caption of clip {clip:06d}. Fetch it again.",
                path=self.folder / CAPTIONS,
                clip=clip,
            )
        return self.captions[clip]


def count_voxels(volumes: Mapping[int, Member]) -> int:
    """Return the number of voxels of a subject's first volume, which all others must have."""
    first = volumes[min(volumes)]
    volume = array(first)
    if volume.ndim != 1:
        raise UsageError(
            "cinebrain-volume-not-flat",
            "{member} has the shape {shape}, and (voxel,) was expected.",
            member=first,
            shape=volume.shape,
        )
    return len(volume)


def _shown(film: OpenFilm, member: Member) -> Iterator[av.VideoFrame]:
    """Yield the frames of a clip at the layout's rate.

    Raises
    ------
    UsageError
        If the film has another rate, and another length as well: then it is not known what it shows when.
    """
    if film.fps is None or abs(float(film.fps) - FPS) <= _SAME * FPS:
        return (frame for _, frame in islice(film.frames(), FRAMES))
    length_s = film.length_s or 0.0
    if not WINDOW_S - _ABOUT_S <= length_s <= FRAMES / FPS + _ABOUT_S:
        raise UsageError(
            "cinebrain-video-rate-mismatch",
            "{member} has {fps:g} frames a second and lasts {length_s:g} s, and {expected_fps:g} in "
            "{window_s:g} s were expected. Convert it to that rate and length, or fetch the videos again.",
            member=member,
            fps=float(film.fps),
            length_s=length_s,
            expected_fps=FPS,
            window_s=WINDOW_S,
        )
    # The last frame begins as the window ends.
    return film.on_at((n / FPS for n in range(FRAMES)), 1 / FPS)


def _whole(member: Member, stored: NDArray[Any], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return an array that has a shape and finite numbers alone."""
    if stored.shape != shape or stored.dtype.kind not in "fiu":
        raise UsageError(
            "cinebrain-shape-mismatch",
            "{member} has the shape {shape} of {dtype}, and {expected} was expected. Fetch it again.",
            member=member,
            shape=stored.shape,
            dtype=stored.dtype,
            expected=shape,
        )
    # A large number may have no place in single precision.
    with np.errstate(over="ignore"):
        values = stored.astype(np.float32)
    bad = int((~np.isfinite(values)).sum())
    if bad:
        raise UsageError(
            "cinebrain-nonfinite-values",
            "{member} has {nonfinite_values} values that are no numbers. Leave its subject or run "
            "out, or fetch it again.",
            member=member,
            nonfinite_values=bad,
        )
    return values
