"""Judge whether volumes come, and whose head they show: a part of ``rtdecode preflight``.

`export` judges the folder by what came into it while somebody listened. `head` registers a volume to the
calibration's reference: the data alone tell whether the calibration is of this head.
"""

import os
import time
from pathlib import Path

from rtdecode.disk.calibration import Calibration
from rtdecode.signal.volume.motion import THIN
from rtdecode.signal.volume.register import Registration, register
from rtdecode.types import Volume
from streaming.checks.finding import Finding
from streaming.tools.doctor_fmri import Looked

# A volume of the calibration's own head correlates with the reference above this, after alignment. Measured
# on recorded volumes of Siemens, GE and Philips scanners: 0.983 to 1.000 for the last volume of a series
# against the mean of those before it (nine series), at most 0.933 for another head (180 pairs of series), and
# 0.943 and 0.979 for one head in two scans with another order of slices. Of simulated heads, another one
# reached 0.964 (10 pairs).
SAME_HEAD = 0.97
# A head that lies further away than this, or is turned by more, was put into the coil anew. A choice of this
# project: within a run, heads move by millimetres.
_MOVED_MM = 10.0
_TURNED_DEG = 10.0
_AGAIN = "calibrate again, with this participant as they lie now"


def export(directory: Path, looked: Looked, heard_s: float) -> Finding:
    """Judge whether the export into a folder works.

    Parameters
    ----------
    directory : Path
        It is there.
    looked : Looked
        What came into the folder since somebody began to listen.
    heard_s : float
        How long somebody listened, s.
    """
    if not os.access(directory, os.R_OK | os.X_OK):
        found = f"{directory} cannot be listed"
        return Finding("export", "bad", found, "let this account read the folder")
    count = sum(len(one.readable) for one in looked.series)
    if count:
        return Finding("export", "ok", f"{count} volumes came in {heard_s:.0f} s and were read")
    if looked.ignored:
        name, reason = looked.ignored[-1]
        found = f"{len(looked.ignored)} files came in {heard_s:.0f} s, and none is a volume; {name}: {reason}"
        return Finding("export", "bad", found, "see rtdecode volumes DIR")
    newest_at = _newest_at(directory)
    if newest_at is None:
        return Finding("export", "ok", "the folder is empty: it waits for the scanner's first volume")
    age_s = max(0.0, time.time() - newest_at)
    found = f"old files only: the newest is {_spoken(age_s)} old, and none came in {heard_s:.0f} s"
    return Finding(
        "export", "note", found, "if the scanner runs, switch its real-time export to this folder on"
    )


def head(volume: Volume | None, calibration: Calibration) -> Finding:
    """Judge whether a calibration is of the head that is in the scanner now.

    Parameters
    ----------
    volume : Volume or None
        The newest volume; None if there is none.
    calibration : Calibration
    """
    if volume is None:
        found = "unknown: there is no volume yet to compare with the calibration's"
        return Finding("head", "note", found, "run it once more after a short scan, to be told")
    if min(*volume.data.shape, *calibration.reference.shape) < THIN:
        found = f"unknown: {volume.data.shape} voxels are too thin to be aligned"
        return Finding("head", "note", found)
    return judged(register(calibration.reference, calibration.affine, volume.data, volume.affine))


def judged(found: Registration) -> Finding:
    """Judge how a head lies in the scanner, as compared with the calibration's reference."""
    said = (
        f"the newest volume correlates with the calibration's reference at {found.correlation:.3f} "
        f"({SAME_HEAD:g} is needed), {found.moved_mm:.0f} mm and {found.turned_deg:.0f} degrees away"
    )
    if found.correlation < SAME_HEAD:
        return Finding("head", "bad", f"another participant's, or another session's: {said}", _AGAIN)
    if found.moved_mm > _MOVED_MM or found.turned_deg > _TURNED_DEG:
        return Finding("head", "note", f"the same head, but it lies elsewhere: {said}", _AGAIN)
    return Finding("head", "ok", said)


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
