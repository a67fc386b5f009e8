"""Which clips each subject of CineBrain saw, and when.

A subject's volumes are numbered from 0 to 26999 in the order of the recording, and so are the segments of
EEG, one for each volume. The clips of all three seasons are numbered together. Those of season 9 keep their
numbers as a place in the recording; those of season 11 follow on season 7, so that their places are 2700
lower than their numbers.

Sources: the scripts of yanweifu-sii/CineBrain (``data_video.py``, ``get_metric.py``) and of
JianxGao/CineBrain (``dtseries2npy.py``), and the lists of pairs that users of the release have written.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode.errors import UsageError

# Volumes of a clip, and clips of a run.
TRS = 5
RUN_CLIPS = 270
RUNS = 20
CLIPS = RUNS * RUN_CLIPS
# The last runs are kept for testing.
HELD_RUNS = 2
# Clips of season 7, which every subject saw first.
SEASON_7 = 2700
# Number of the first clip of what each subject saw second, season 9 or season 11.
SECOND = {
    "sub-0001": 2700,
    "sub-0002": 2700,
    "sub-0003": 5400,
    "sub-0004": 5400,
    "sub-0005": 5400,
    "sub-0006": 2700,
}
_SUBJECT = re.compile(r"sub-\d{4}")


def clips_at(subject: str, places: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the numbers of the clips at some places of a subject's recording."""
    return np.where(places < SEASON_7, places, places - SEASON_7 + SECOND[subject])


def place_of(subject: str, clip: int) -> int | None:
    """Return the place of a clip in a subject's recording; None if the subject did not see it."""
    if 0 <= clip < SEASON_7:
        return clip
    place = clip - SECOND[subject] + SEASON_7
    return place if SEASON_7 <= place < CLIPS else None


def wrong_pairs(path: Path) -> list[str]:
    """Name what is wrong in a list of pairs that was written for the release's own programs.

    Such a list has an entry ``{"video", "fmri", "eeg", "text"}`` for each clip, with the paths of the clip,
    of its five volumes and of its five segments. A list whose second half was made for the other season
    pairs clips with signals that belong to other clips.

    Returns
    -------
    list of str
        A sentence for each subject and kind of fault.

    Raises
    ------
    UsageError
        If the file is no such list.
    """
    unseen: dict[str, list[int]] = {}
    shifted: dict[tuple[str, str], list[int]] = {}
    for entry in read_list(path):
        clip = _number(path, entry["video"])
        for signal in ("fmri", "eeg"):
            files = entry.get(signal, [])
            subject = next(iter(_SUBJECT.findall(files[0])), None) if files else None
            if subject not in SECOND:
                continue
            place = place_of(subject, clip)
            if place is None:
                unseen.setdefault(subject, []).append(clip)
            elif [_number(path, file) for file in files] != list(range(TRS * place, TRS * (place + 1))):
                shifted.setdefault((subject, signal), []).append(clip)
    faults = [
        f"{path.name} has clips of a season that {subject} did not see ({_some(clips)})."
        for subject, clips in unseen.items()
    ]
    faults += [
        f"{path.name} pairs {len(clips)} clips with {signal} of other clips of {subject} ({_some(clips)})."
        for (subject, signal), clips in shifted.items()
    ]
    return faults


def read_list(path: Path) -> list[Mapping[str, Any]]:
    """Read a list of entries that each name a clip under ``video``.

    Raises
    ------
    UsageError
        If the file is no such list.
    """
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(
            "cinebrain-list-unreadable",
            "{path} cannot be read as JSON ({error}). Fetch the file again.",
            path=path,
            error=error,
        ) from error
    if not isinstance(entries, list) or not all(isinstance(e, dict) and "video" in e for e in entries):
        raise UsageError(
            "cinebrain-list-invalid",
            "{path} is no list of entries with the key 'video'. Remove it, or fetch it again.",
            path=path,
        )
    return entries


def clip_number(path: Path, entry: Mapping[str, Any]) -> int:
    """Return the number of the clip that an entry of a list names."""
    return _number(path, entry["video"])


def _number(path: Path, file: str) -> int:
    stem = Path(str(file)).stem
    if not stem.isdigit():
        raise UsageError(
            "cinebrain-clip-unnumbered",
            "{path} names the file '{file}', which has no number. Write the list again.",
            path=path,
            file=file,
        )
    return int(stem)


def _some(clips: list[int]) -> str:
    clips = sorted(set(clips))
    return ", ".join(map(str, clips[:3])) + (", ..." if len(clips) > 3 else "")
