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
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rtdecode.errors import UsageError
from train.data import cinebrain_clips as clips
from train.data import leaks
from train.data.dataset import Column, WindowTable
from train.data.layouts.cinebrain_set import CAPTIONS, FPS, SFREQ_HZ, TR_S, WINDOW_S, CineBrain, count_voxels
from train.data.layouts.film_sound import has_sound
from train.data.layouts.members import Member, numbered

# Volumes of a whole recording.
_VOLUMES = clips.CLIPS * clips.TRS

_SUBJECT = re.compile(r"sub-\d{4}")
# Archive and unpacked folder of each signal.
_SIGNALS: Mapping[Column, tuple[str, str]] = {
    "eeg": ("EEG_preprocessed_data.tar", "eeg_02"),
    "fmri": ("fMRI_preprocessed_data.tar", "visual_audio"),
}
_VIDEOS = ("videos.tar", "videos")

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


def recognises(folder: Path) -> bool:
    """Return whether a folder holds a subject's archive, or its unpacked files, under the release's names."""
    return bool(_subjects(folder))


def opened(folder: Path, subjects: list[str] | None = None) -> CineBrain:
    """Open the release.

    Parameters
    ----------
    folder : Path
        Holds ``sub-0001``, ``sub-0002``, ..., the videos and the captions.
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
        for column, (archive, subfolder) in _SIGNALS.items():
            place = _there(folder / subject, archive, subfolder)
            signals[subject, column] = numbered(place, ".npy", subfolder) if place else {}
            if not signals[subject, column]:
                missing.append(f"{subject}/{archive}")
    columns: list[Column] = [c for c in _SIGNALS if all(signals[subject, c] for subject in chosen)]
    if not columns:
        raise UsageError(
            "cinebrain-no-common-signal",
            "the subjects {subjects} have neither EEG nor fMRI in common; missing: {missing}. Choose "
            "others with subjects=.",
            subjects=list(chosen),
            missing=list(missing),
        )
    windows, places, holes = _table(chosen, columns, signals)
    missing += holes
    shown_clips = set(windows.shown.astype(np.int64).tolist())

    video_place = _there(folder, *_VIDEOS)
    videos = numbered(video_place, ".mp4") if video_place else {}
    captions = _captions(folder / CAPTIONS)
    if videos:
        columns.append("clips")
        first = videos[min(videos)]
        if has_sound(io.BytesIO(first.read()), first):
            columns.append("sound")
        missing += [f"videos/{clip:06d}.mp4" for clip in sorted(shown_clips - set(videos))]
    else:
        missing.append(_VIDEOS[0])
    if captions:
        columns.append("captions")
    else:
        missing.append(CAPTIONS)

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
        voxels={subject: count_voxels(signals[subject, "fmri"]) for subject in chosen} if has_fmri else {},
        tr_s=TR_S if has_fmri else None,
        sfreq=SFREQ_HZ if "eeg" in columns else None,
        fps=FPS if videos else None,
    )
    if twins := leaks.same_subjects(data):
        explanation = " ".join(twin.says for twin in twins)
        raise UsageError("cinebrain-duplicate-subject", "{explanation}", explanation=explanation)
    return data


def _subjects(folder: Path) -> list[str]:
    """List the subjects of whom there is an archive or an unpacked folder."""
    subjects = []
    for path in sorted(folder.iterdir()):
        if _SUBJECT.fullmatch(path.name) and any(_there(path, *names) for names in _SIGNALS.values()):
            subjects.append(path.name)
    return subjects


def _chosen(folder: Path, subjects: list[str] | None) -> list[str]:
    available = _subjects(folder)
    if subjects is None:
        selected = available
    else:
        selected = [f"sub-{int(name):04d}" if name.isdigit() else name for name in subjects]
    unknown = [name for name in selected if name not in available or name not in clips.SECOND]
    if unknown or not selected:
        raise UsageError(
            "cinebrain-unknown-subject",
            "{folder} has no data of {subjects} that can be used. It has {available}, and it is "
            "known what {supported} saw. Choose with subjects=.",
            folder=folder,
            subjects=", ".join(unknown) or "any subject",
            available=", ".join(available) or "none",
            supported=list(clips.SECOND),
        )
    return list(dict.fromkeys(selected))


def _there(folder: Path, archive: str, subfolder: str) -> Path | None:
    """Find an archive, or else its unpacked folder."""
    if (folder / archive).is_file():
        return folder / archive
    return folder / subfolder if (folder / subfolder).is_dir() else None


def _table(
    subjects: list[str], columns: list[Column], signals: Mapping[tuple[str, Column], Mapping[int, Member]]
) -> tuple[WindowTable, NDArray[np.int64], list[str]]:
    """List the windows whose signals are whole, their places, and the files that others lack."""
    whose: list[str] = []
    where: list[NDArray[np.int64]] = []
    clip_numbers: list[NDArray[np.int64]] = []
    holes: list[str] = []
    for subject in subjects:
        has_file = np.zeros((len(columns), _VOLUMES), bool)
        for n, column in enumerate(columns):
            numbers = np.array(list(signals[subject, column]), np.int64)
            has_file[n, numbers[numbers < _VOLUMES]] = True
        by_clip = has_file.reshape(len(columns), clips.CLIPS, clips.TRS)
        # Of a clip that is not there at all nothing is missing: a user may hold some runs alone.
        clip_exists: NDArray[np.bool_] = np.any(by_clip, axis=(0, 2))
        for n, column in enumerate(columns):
            lacking = (clip_exists[:, None] & ~by_clip[n]).ravel()
            holes += [f"{subject}/{_SIGNALS[column][1]}/{k}.npy" for k in np.flatnonzero(lacking).tolist()]
        places = np.flatnonzero(by_clip.all(axis=(0, 2)))
        whose += [subject] * len(places)
        where.append(places)
        clip_numbers.append(clips.clips_at(subject, places))
    places = np.concatenate(where)
    if not len(places):
        raise UsageError(
            "cinebrain-no-full-window",
            "no window has all its {columns}: {missing_count} files are missing, such as "
            "{missing_files}. Fetch them.",
            columns=" and ".join(columns),
            missing_count=len(holes),
            missing_files=", ".join(holes[:3]) or "all",
        )
    runs = places // clips.RUN_CLIPS
    table = WindowTable(
        subject=np.array(whose),
        run=np.array([f"run-{run + 1:02d}" for run in runs.tolist()]),
        shown=np.array([f"{clip:06d}" for clip in np.concatenate(clip_numbers).tolist()]),
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
