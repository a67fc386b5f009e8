"""Judge whether volumes come, and whose head they show: a part of ``rtdecode preflight``.

`export` judges the folder by what came into it while somebody listened. `head` registers a volume to the
calibration's reference: the data alone tell whether the calibration is of this head.
"""

import os
import time
from pathlib import Path

from rtdecode.disk.calibration import Calibration
from rtdecode.signal.volume.motion import THIN
from rtdecode.signal.volume.register import register
from rtdecode.types import Volume
from streaming.checks import table
from streaming.checks.finding import BAD, NOTE, OK, Finding, counted, joined, judged
from streaming.tools.doctor_fmri import SEE, FolderVolumes


def export(directory: Path, folder: FolderVolumes, heard_s: float) -> Finding:
    """Judge whether the export into a folder works.

    Parameters
    ----------
    directory : Path
        It is there.
    folder : FolderVolumes
        What came into the folder since somebody began to listen.
    heard_s : float
        How long somebody listened, s.
    """
    if not os.access(directory, os.R_OK | os.X_OK):
        return Finding("export", BAD, f"{directory} cannot be listed", "let this account read the folder")
    count = sum(len(series.readable) for series in folder.series)
    if count:
        return Finding("export", OK, f"{counted(count, 'volume')} came in {heard_s:.0f} s, and could be read")
    if folder.ignored:
        name, reason = folder.ignored[-1]
        files = f"{counted(len(folder.ignored), 'file')} came in {heard_s:.0f} s"
        return Finding("export", BAD, f"{files}, and none is a volume; {name}: {reason}", SEE)
    newest_at = _newest_at(directory)
    if newest_at is None:
        return Finding("export", OK, "the folder is empty: it waits for the scanner's first volume")
    age_s = max(0.0, time.time() - newest_at)
    old = f"old files only: the newest is {_spoken(age_s)} old, and none came in {heard_s:.0f} s"
    return Finding("export", NOTE, old, table.VOLUMES_AWAITED.advice)


def head(volume: Volume | None, calibration: Calibration) -> Finding:
    """Judge whether a calibration is of the head that is in the scanner now.

    Parameters
    ----------
    volume : Volume or None
        The newest volume; None if there is none.
    """
    if volume is None:
        return table.HEAD_UNKNOWN.find()
    if min(*volume.data.shape, *calibration.reference.shape) < THIN:
        return Finding("head", NOTE, f"unknown: {volume.data.shape} voxels are too thin to be aligned")
    placed = register(calibration.reference, calibration.affine, volume.data, volume.affine)
    values = {name: getattr(placed, name) for name in ("correlation", "moved_mm", "turned_deg")}
    values["furthest"] = max(placed.moved_mm, placed.turned_deg)
    return joined("head", judged((table.HEAD, table.HEAD_PLACE), values))


def _newest_at(directory: Path) -> float | None:
    """Return when the newest file below a folder was changed, s since 1970; None without one."""
    times: list[float] = []
    for folder, _, names in os.walk(directory):
        for name in names:
            try:
                times.append(os.stat(Path(folder) / name).st_mtime)
            except FileNotFoundError:
                continue  # deleted since it was listed
    return max(times, default=None)


def _spoken(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds / 3600:.0f} hours"
