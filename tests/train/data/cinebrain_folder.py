"""Writes a small folder as CineBrain was released, from the description of the release alone."""

import io
import json
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode.disk.video import write_mp4
from tests.train.data.layouts.laboratory import add_sound, tone

VOXELS = 7
# Places in the recording, in clips of 4 s: of runs 1, 2, 11, 19 and 20.
PLACES = (0, 1, 270, 271, 2700, 2701, 4860, 4861, 5130, 5131)
SEASON_11 = {"sub-0003", "sub-0004", "sub-0005"}


@dataclass
class Written:
    """What was written: the values that must be read again."""

    fmri: dict[tuple[str, int], NDArray[np.float64]] = field(default_factory=dict)
    eeg: dict[tuple[str, int], NDArray[np.float64]] = field(default_factory=dict)
    films: dict[int, NDArray[np.uint8]] = field(default_factory=dict)
    captions: dict[int, str] = field(default_factory=dict)


def clip_of(subject: str, place: int) -> int:
    """The number of a clip, as the release's issue tells it: season 11 follows on season 9 in the numbers."""
    return place + 2700 if subject in SEASON_11 and place >= 2700 else place


def film(clip: int) -> NDArray[np.uint8]:
    """A clip of 33 frames: soft blobs that no other clip has."""
    draws = np.random.default_rng(clip)
    coarse = draws.integers(30, 225, (4, 4, 3))
    return np.repeat(coarse.repeat(12, 0).repeat(16, 1)[None], 33, axis=0).astype(np.uint8)


def write(
    folder: Path,
    subjects: Iterable[str] = ("sub-0001", "sub-0003"),
    places: Iterable[int] = PLACES,
    *,
    unpacked: bool = False,
    voxels: int = VOXELS,
    volumes: Mapping[str, NDArray[np.float64]] | None = None,
    films: bool = True,
    eeg: bool = True,
    sound: bool = False,
) -> Written:
    """Write a release of some subjects, with the clips at some places of their recordings.

    Parameters
    ----------
    folder : Path
    subjects, places : iterable
    unpacked : bool
        Whether files lie in folders, not in archives.
    voxels : int
    volumes : mapping, optional
        Subject -> (volume, voxel), the values of all volumes at `places`; random where not given.
    films, eeg, sound : bool
        Whether there are any. The sound of clip n is a tone of 300 + n Hz.
    """
    written = Written()
    places = list(places)
    clips = set()
    for subject in subjects:
        draws = np.random.default_rng(int(subject[-4:]))
        given_volumes = None if volumes is None else volumes[subject]
        subject_volumes = (
            draws.normal(0, 1, (5 * len(places), voxels)) if given_volumes is None else given_volumes
        )
        fmri: dict[str, Any] = {}
        segments: dict[str, Any] = {}
        for n, place in enumerate(places):
            clips.add(clip_of(subject, place))
            for k in range(5):
                number = 5 * place + k
                written.fmri[subject, number] = subject_volumes[5 * n + k]
                fmri[f"visual_audio/{number}.npy"] = npy(subject_volumes[5 * n + k])
                if eeg:
                    written.eeg[subject, number] = draws.normal(0, 20, (69, 800)).astype(np.float32)
                    segments[f"eeg_02/{number}.npy"] = npy(written.eeg[subject, number])
        pack(folder / subject, "fMRI_preprocessed_data.tar", fmri, unpacked)
        if eeg:
            pack(folder / subject, "EEG_preprocessed_data.tar", segments, unpacked)
    if films:
        _films(folder, sorted(clips), written, unpacked, sound=sound)
    return written


def npy(values: NDArray[Any]) -> bytes:
    """The bytes of an array's file."""
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


def pack(folder: Path, archive: str, files: Mapping[str, bytes], unpacked: bool) -> None:
    """Write files into an archive, or side by side."""
    folder.mkdir(parents=True, exist_ok=True)
    if unpacked:
        for name, content in files.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(content)
        return
    with tarfile.open(folder / archive, "w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))


def _films(folder: Path, clips: list[int], written: Written, unpacked: bool, *, sound: bool) -> None:
    files = {}
    for clip in clips:
        written.films[clip] = film(clip)
        written.captions[clip] = f"Clip {clip} is shown. Nothing else is."
        path = folder / "one.mp4"
        write_mp4(path, written.films[clip], 8)
        if sound:
            add_sound(path, tone(300 + clip, 4)[None])
        files[f"videos/{clip:06d}.mp4"] = path.read_bytes()
        path.unlink()
    pack(folder, "videos.tar", files, unpacked)
    entries = [
        {"video": f"/data/videos/{clip:06d}.mp4", "text": text} for clip, text in written.captions.items()
    ]
    (folder / "captions-qwen-2.5-vl-7b.json").write_text(json.dumps(entries))


def pairs(folder: Path, subject: str, name: str, shift: int = 0, clip_shift: int = 0) -> Path:
    """Write a list of pairs for the release's own programs, its signals or clips shifted by some clips."""
    entries = []
    for place in PLACES:
        numbers = range(5 * (place + shift), 5 * (place + shift) + 5)
        clip = clip_of(subject, place) + (clip_shift if place >= 2700 else 0)
        entries.append(
            {
                "video": f"/data/videos/{clip:06d}.mp4",
                "fmri": [f"/data/{subject}/visual_audio/{n}.npy" for n in numbers],
                "eeg": [f"/data/{subject}/eeg_02/{n}.npy" for n in numbers],
                "text": "A clip.",
            }
        )
    path = folder / name
    path.write_text(json.dumps(entries))
    return path
