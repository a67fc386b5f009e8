"""Judge the volumes in a scanner's folder against a bundle: a part of ``rtdecode doctor``.

`look` reads what lies in the folder, as far as a few seconds allow. `judge` picks the series that a session
would read, and judges its grid, TR, values and level.
"""

import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from rtdecode import plausible
from rtdecode.bundle import Bundle
from rtdecode.disk.calibration import Calibration
from rtdecode.errors import GeometryError
from rtdecode.timing import check_tr
from rtdecode.types import Volume
from rtdecode.windows.assembler import Assembler
from rtdecode.windows.head import Head
from rtdecode.windows.run import most_within
from streaming.checks.finding import Finding
from streaming.sources.folder.source import FolderSource

# Time spent reading what lies in the folder, s.
_READ_S = 5.0
# So many volumes within one TR are no burst: one that is a little late comes with the next.
_TOGETHER = 2


@dataclass(slots=True)
class Series:
    """The volumes of one series that were read.

    Attributes
    ----------
    last : Volume
        The newest volume.
    faults : list of str
        What is wrong with a volume's values, one sentence for each faulty volume.
    readable : list of (int, float)
        Index of each volume, and the local time from which its file could be read, s.
    """

    last: Volume
    faults: list[str] = field(default_factory=list)
    readable: list[tuple[int, float]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Looked:
    """What was found in a folder.

    Attributes
    ----------
    directory : Path
    series : list of Series
        In the order in which they were found.
    ignored : list of (str, str)
        Files that are of no use, each with the reason.
    whole : bool
        False if time ran out before all files were read.
    """

    directory: Path
    series: list[Series]
    ignored: list[tuple[str, str]]
    whole: bool


def look(directory: Path, seconds: float = _READ_S) -> Looked:
    """Read the volumes that lie in a folder, as far as the time allows."""
    # Not bound to one kind of series: the first one found need not be the one that a session reads.
    return read(FolderSource(directory, "read", bound=False), seconds)


def read(source: FolderSource, seconds: float = _READ_S) -> Looked:
    """Read what a source of a folder has to give now, as far as the time allows."""
    series: dict[str, Series] = {}
    until = time.monotonic() + seconds
    volumes = source.drain()
    while volumes:
        for volume in volumes:
            _count(series, volume)
        if time.monotonic() > until:
            break
        volumes = source.drain()
    return Looked(source.directory, list(series.values()), source.ignored, not volumes)


def _count(series: dict[str, Series], volume: Volume) -> None:
    one = series.setdefault(volume.uid, Series(volume))
    one.last = volume
    one.readable.append((volume.index, volume.readable_at))
    holes = plausible.voxel_holes(volume.data)
    if holes is not None:
        lost = f"{holes.mean():.1%} of the voxels of {volume.name}"
        one.faults.append(f"{lost} are not finite or beyond {plausible.VOXEL_LIMIT:g}")
    elif (constant := plausible.volume_constant(volume.data)) is not None:
        one.faults.append(f"{volume.name}: {constant}")


def judge(
    looked: Looked, bundle: Bundle | None, calibration: Calibration | None
) -> tuple[list[Finding], Volume | None]:
    """Judge what lies in a folder.

    Parameters
    ----------
    looked : Looked
    bundle : Bundle or None
        None only reports what there is.
    calibration : Calibration or None
        The calibration of the session to come.

    Returns
    -------
    list of Finding
    Volume or None
        The newest volume of the series that a session would read, or of the first series if it would read
        none.
    """
    if not looked.series:
        found = f"{looked.directory}: no volume yet{_passed_over(looked)}"
        return [Finding("folder", "note", found, "see rtdecode volumes DIR")], None
    if bundle is None:
        return [_folder(looked, looked.series[0])], looked.series[0].last
    if bundle.projection is None:
        found = f"the bundle {bundle.manifest.name} reads no fMRI"
        unread = Finding("grid", "note", found, "leave --fmri-dir out, or give another --bundle")
        return [_folder(looked, looked.series[0]), unread], looked.series[0].last
    # Ask a session's own assembler, so that both always agree on what can be read.
    fits = Assembler(bundle, None, ["fmri"], calibration=calibration).unread
    reasons = [fits(one.last.data.shape, one.last.affine) for one in looked.series]
    read = [one for one, reason in zip(looked.series, reasons, strict=True) if reason is None]
    one = read[0] if read else looked.series[0]
    found = [_folder(looked, one)]
    if not read:
        found.append(Finding("grid", "bad", str(reasons[0]), "calibrate with --bundle, or give another"))
        return [*found, _tr(one.last, bundle), _values(one)], one.last
    how = "read through the calibration" if calibration is not None else "same grid as the bundle"
    found.append(Finding("grid", "ok", how))
    found.append(_tr(one.last, bundle))
    found += _delivery(one)
    values = _values(one)
    found.append(values if values.state == "bad" else _level(one.last, bundle, calibration))
    return found, one.last


def _folder(looked: Looked, one: Series) -> Finding:
    size = " x ".join(str(n) for n in one.last.data.shape)
    least = "" if looked.whole else "at least "
    others = len(looked.series) - 1
    beside = f", and {others} other series" if others else ""
    count = f"{least}{len(one.readable)} volumes of {size} at TR {one.last.tr_s} s so far"
    found = f"{looked.directory}: {count}{beside}{_passed_over(looked)}"
    if looked.ignored:
        return Finding("folder", "note", found, "see rtdecode volumes DIR")
    return Finding("folder", "ok", found)


def _passed_over(looked: Looked) -> str:
    if not looked.ignored:
        return ""
    name, reason = looked.ignored[-1]
    return f", {len(looked.ignored)} unusable files, the last {name}: {reason}"


def _tr(volume: Volume, bundle: Bundle) -> Finding:
    trained_s = float(bundle.manifest.grid.tr or 0)
    if volume.tr_s is None:
        found = f"the files state no TR; the bundle's is {trained_s:g} s"
        return Finding("TR", "note", found, "check the protocol")
    try:
        check_tr(volume.tr_s, trained_s, volume.name)
    except GeometryError as error:
        return Finding("TR", "bad", str(error), "scan with the trained protocol, or give another --bundle")
    return Finding("TR", "ok", f"{volume.tr_s:g} s")


def _delivery(one: Series) -> list[Finding]:
    """Judge when the files came, by the times of their last changes; nothing without a TR or two volumes."""
    tr_s = one.last.tr_s
    if not tr_s or len(one.readable) < 2:
        return []
    index, readable_at = np.array(one.readable).T
    after_s = readable_at - tr_s * index
    behind_s = float(after_s.max() - after_s.min())
    together = most_within(readable_at, tr_s)
    found = f"at most {together} volumes within one TR, the latest {behind_s:.1f} s behind the promptest"
    if together <= _TOGETHER:
        return [Finding("delivery", "ok", found)]
    advice = "unless they were copied here, let the console reconstruct and export in real time"
    return [Finding("delivery", "note", found, f"{advice}: finals go out without volumes that are late")]


def _values(one: Series) -> Finding:
    if one.faults:
        found = f"{len(one.faults)} of {len(one.readable)} volumes: {one.faults[-1]}"
        return Finding("voxels", "bad", found, "check the scanner's reconstruction and export")
    return Finding("voxels", "ok", "all of them finite")


def _level(volume: Volume, bundle: Bundle, calibration: Calibration | None) -> Finding:
    """Judge the level of the features that the bundle reads."""
    matched = None
    if calibration is not None and bundle.projection is not None:
        matched = calibration.matched(bundle.projection)
    trained = plausible.resting(bundle.stats, None if matched is None else matched.warmup_mean)
    features = Head(bundle, matched).read(volume)
    wrong = plausible.volume_level(features, trained)
    if wrong is None:
        return Finding("voxels", "ok", "all of them finite, at a level as in training")
    found, _, advice = wrong.rpartition(": ")
    return Finding("voxels", "bad", found, advice)
