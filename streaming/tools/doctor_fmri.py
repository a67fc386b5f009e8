"""Judge the volumes in a scanner's folder against a bundle: a part of ``rtdecode doctor``.

`look` reads what lies in the folder, as far as a few seconds allow. `judge` picks the series that a session
would read, and judges its grid, TR, values and level.
"""

import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from rtdecode.bundle import Bundle
from rtdecode.disk.calibration import Calibration
from rtdecode.errors import GeometryError
from rtdecode.signal import plausible
from rtdecode.timing import check_tr
from rtdecode.types import Volume
from rtdecode.windows.assembler import Assembler
from rtdecode.windows.head import Head
from rtdecode.windows.run import most_within
from streaming.checks import table
from streaming.checks.finding import BAD, NOTE, OK, Finding, counted, implausible
from streaming.sources.folder.source import FolderSource

# Time spent reading what lies in the folder, s.
_READ_S = 5.0
SEE = "see rtdecode volumes DIR"


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
class FolderVolumes:
    """What was found in a folder.

    Attributes
    ----------
    series : list of Series
        In the order in which they were found.
    ignored : list of (str, str)
        Files that are of no use, each with the reason.
    is_complete : bool
        False if time ran out before all files were read.
    """

    directory: Path
    series: list[Series]
    ignored: list[tuple[str, str]]
    is_complete: bool


def look(directory: Path, seconds: float = _READ_S) -> FolderVolumes:
    """Read the volumes that lie in a folder, as far as the time allows."""
    # Not bound to one kind of series: the first one found need not be the one that a session reads.
    return read(FolderSource(directory, "read", bound=False), seconds)


def read(source: FolderSource, seconds: float = _READ_S) -> FolderVolumes:
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
    return FolderVolumes(source.directory, list(series.values()), source.ignored, not volumes)


def _count(series: dict[str, Series], volume: Volume) -> None:
    entry = series.setdefault(volume.uid, Series(volume))
    entry.last = volume
    entry.readable.append((volume.index, volume.readable_at))
    holes = plausible.voxel_holes(volume.data)
    if holes is not None:
        lost = f"{holes.mean():.1%} of the voxels of {volume.name}"
        entry.faults.append(f"{lost} are not finite or beyond {plausible.VOXEL_LIMIT:g}")
    elif (constant := plausible.volume_constant(volume.data)) is not None:
        entry.faults.append(f"{volume.name}: {constant}")


def judge(
    folder: FolderVolumes, bundle: Bundle | None, calibration: Calibration | None
) -> tuple[list[Finding], Volume | None]:
    """Judge what lies in a folder.

    Parameters
    ----------
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
    if not folder.series:
        nothing = f"{folder.directory}: {table.VOLUMES_AWAITED.sentence}{_passed_over(folder)}"
        return [Finding("folder", NOTE, nothing, SEE)], None
    first = folder.series[0]
    if bundle is None:
        return [_folder(folder, first)], first.last
    if bundle.projection is None:
        names = {
            "subject": "grid",
            "bundle": bundle.manifest.name,
            "modality": "fMRI",
            "option": "--fmri-dir",
        }
        return [_folder(folder, first), table.SOURCE_UNREAD.find(**names)], first.last
    # Ask a session's own assembler, so that both always agree on what can be read.
    fits = Assembler(bundle, None, ["fmri"], calibration=calibration).unread
    reasons = [fits(series.last.data.shape, series.last.affine) for series in folder.series]
    readable = [series for series, reason in zip(folder.series, reasons, strict=True) if reason is None]
    series = readable[0] if readable else first
    findings = [_folder(folder, series)]
    if not readable:
        findings.append(table.OTHER_GRID.find(error=reasons[0]))
        return [*findings, tr(series.last, bundle), _values(series)], series.last
    how = "read through the calibration" if calibration is not None else "same grid as the bundle"
    findings += [Finding("grid", OK, how), tr(series.last, bundle), *_delivery(series)]
    values = _values(series)
    findings.append(values if values.state == BAD else _level(series.last, bundle, calibration))
    return findings, series.last


def _folder(folder: FolderVolumes, series: Series) -> Finding:
    size = " x ".join(str(n) for n in series.last.data.shape)
    least = "" if folder.is_complete else "at least "
    other_count = len(folder.series) - 1
    also = f", and {other_count} other series" if other_count else ""
    count = f"{least}{counted(len(series.readable), 'volume')} of {size} at TR {series.last.tr_s} s so far"
    sentence = f"{folder.directory}: {count}{also}{_passed_over(folder)}"
    return Finding("folder", NOTE, sentence, SEE) if folder.ignored else Finding("folder", OK, sentence)


def _passed_over(folder: FolderVolumes) -> str:
    if not folder.ignored:
        return ""
    name, reason = folder.ignored[-1]
    return f", {counted(len(folder.ignored), 'unusable file')}, the last {name}: {reason}"


def tr(volume: Volume, bundle: Bundle) -> Finding:
    """Judge whether a volume's TR is the one that the bundle was trained at."""
    trained_s = float(bundle.manifest.grid.tr or 0)
    if volume.tr_s is None:
        return table.TR_UNSTATED.find(trained_s=trained_s)
    try:
        check_tr(volume.tr_s, trained_s)
    except GeometryError:
        return table.OTHER_TR.find(tr_s=volume.tr_s, trained_s=trained_s)
    return table.TR.find(tr_s=volume.tr_s)


def _delivery(series: Series) -> list[Finding]:
    """Judge when the files came, by the times of their last changes; nothing without a TR or two volumes."""
    tr_s = series.last.tr_s
    if not tr_s or len(series.readable) < 2:
        return []
    index, readable_at = np.array(series.readable).T
    after_s = readable_at - tr_s * index
    behind_s = float(after_s.max() - after_s.min())
    burst = table.BURST.find(burst=most_within(readable_at, tr_s))
    return [replace(burst, found=f"{burst.found}, the latest {behind_s:.1f} s behind the promptest")]


def _values(series: Series) -> Finding:
    if series.faults:
        count = f"{len(series.faults)} of {counted(len(series.readable), 'volume')}"
        advice = "check the scanner's reconstruction and export"
        return Finding("voxels", BAD, f"{count}: {series.faults[-1]}", advice)
    return Finding("voxels", OK, "all of them finite")


def _level(volume: Volume, bundle: Bundle, calibration: Calibration | None) -> Finding:
    """Judge the level of the features that the bundle reads."""
    matched = None
    if calibration is not None and bundle.projection is not None:
        matched = calibration.matched(bundle.projection)
    trained = plausible.resting(bundle.stats, None if matched is None else matched.warmup_mean)
    fault = plausible.volume_level(Head(bundle, matched).read(volume), trained)
    if fault is None:
        return Finding("voxels", OK, "all of them finite, at a level as in training")
    return implausible("voxels", fault)
