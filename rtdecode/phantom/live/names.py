"""The files of a simulated run: what each scanner calls them, where they lie, what is in them."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from rtdecode.phantom.body.scanner import slice_times
from rtdecode.phantom.files.classic import instance_number, slice_bytes
from rtdecode.phantom.files.enhanced import enhanced_bytes
from rtdecode.phantom.files.mosaic import mosaic_bytes
from rtdecode.phantom.files.nifti import nifti_bytes
from rtdecode.phantom.files.vendors import vendor_named
from rtdecode.phantom.session import SERIES, PhantomSession

_PATTERNS = {
    "siemens-mosaic": r"001_(\d{6})_\d{6}\.dcm",
    "siemens-enhanced": r"MR\.1\.(\d+)\.\d+\.dcm",
    "ge": r"s(\d+)",
    "philips": r"(\d+)_bold",
    "nifti": r"run-(\d+)_vol-\d+\.nii",
}
_GE_FIRST = 2_862_279


@dataclass(frozen=True, slots=True)
class ExportedRun:
    """What the files of a run have in common: SeriesNumber, SeriesInstanceUID, start by the wall clock."""

    series: int
    uid: str
    wall: datetime


@dataclass(frozen=True, slots=True)
class ExportedFile:
    """A file's path below the export folder, and its bytes."""

    name: str
    data: bytes


def names(session: PhantomSession, scanner: str, series: int, index: int) -> list[str]:
    """Paths of the files of volume `index` below the export folder, in the order of its slices."""
    if scanner == "siemens-mosaic":
        return [f"001_{series:06d}_{index + 1:06d}.dcm"]
    if scanner == "siemens-enhanced":
        return [f"MR.1.{series}.{index + 1}.dcm"]
    if scanner == "nifti":
        return [f"run-{series:03d}_vol-{index:05d}.nii"]
    slices = session.head.shape[2]
    numbers = [instance_number(scanner, index, k, slices, session.volumes) for k in range(slices)]
    if scanner == "ge":
        return [f"s{series}/i{_GE_FIRST + n}.MRDC.{n}" for n in numbers]
    return [f"{series:04d}_bold/IM_{n:04d}" for n in numbers]


def files(
    session: PhantomSession, scanner: str, run: ExportedRun, index: int, absent: int | None = None
) -> list[ExportedFile]:
    """The files of one volume.

    Parameters
    ----------
    session : PhantomSession
        The session that is exported.
    scanner : str
        One of `rtdecode.phantom.files.vendors.VENDORS`.
    run : ExportedRun
        What the files of the run have in common.
    index : int
        Number of the volume in the run.
    absent : int, optional
        A slice that is lost: its file or frame is not there, or its tile is empty.
    """
    called = names(session, scanner, run.series, index)
    volume = session.scanner.volume(index)
    if vendor_named(scanner).by_slice:
        contents = _slices(session, scanner, run, index, volume)
        present = [k for k in range(len(called)) if k != absent]
        return [ExportedFile(called[k], contents[k]) for k in present]
    return [ExportedFile(called[0], _whole(session, scanner, run, index, volume, absent))]


def write_run(
    folder: Path,
    session: PhantomSession,
    scanner: str,
    indices: Iterable[int],
    run: ExportedRun | None = None,
) -> list[Path]:
    """Write volumes of a session into a folder as a scanner would, without waiting for any clock.

    Parameters
    ----------
    folder : Path
        Made if it does not exist.
    session : PhantomSession
        The session that is exported.
    scanner : str
        One of `rtdecode.phantom.files.vendors.VENDORS`; the session's own does not matter.
    indices : iterable of int
        The volumes, in the order of writing.
    run : ExportedRun, optional
        By default the first series of the session, started at noon of a fixed day.

    Returns
    -------
    list of Path
        In the order of writing.
    """
    run = run or ExportedRun(SERIES, session.uid, datetime(2026, 3, 2, 12))
    written = []
    for index in indices:
        for file in files(session, scanner, run, index):
            path = folder / file.name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(file.data)
            written.append(path)
    return written


def next_series(folder: Path, scanner: str) -> int:
    """The SeriesNumber of the next run in a folder: one more than the last of this scanner's there."""
    matches = (re.fullmatch(_PATTERNS[scanner], path.name) for path in folder.iterdir())
    used = [int(match[1]) for match in matches if match]
    return max([SERIES, *(number + 1 for number in used)])


def second_name(name: str, scanner: str) -> str:
    """What a file is called when it is exported once more: NIfTI files, numbered by name, are replaced."""
    path = PurePosixPath(name)
    if scanner == "nifti":
        return name
    stem, suffix = (path.stem, path.suffix) if path.suffix == ".dcm" else (path.name, "")
    return str(path.with_name(f"{stem} (1){suffix}"))


def _slices(
    session: PhantomSession, scanner: str, run: ExportedRun, index: int, volume: NDArray[np.int16]
) -> list[bytes]:
    place = session.head
    times = tuple(slice_times(session.head.shape[2], session.tr_s).tolist())
    acquired = run.wall + timedelta(seconds=index * session.tr_s)
    return slice_bytes(
        scanner,
        volume,
        place.affine,
        session.tr_s,
        index,
        run.series,
        acquired,
        run.uid,
        times,
        session.volumes,
    )


def _whole(
    session: PhantomSession,
    scanner: str,
    run: ExportedRun,
    index: int,
    volume: NDArray[np.int16],
    absent: int | None,
) -> bytes:
    affine = session.head.affine
    times = tuple(slice_times(session.head.shape[2], session.tr_s).tolist())
    acquired = run.wall + timedelta(seconds=index * session.tr_s)
    recon_s = session.recon_of(index)
    if scanner == "siemens-enhanced":
        return enhanced_bytes(
            volume,
            affine,
            session.tr_s,
            index,
            run.series,
            acquired,
            recon_s,
            run.uid,
            times,
            session.volumes,
            absent,
        )
    if absent is not None:
        volume = volume.copy()
        volume[:, :, absent] = 0
    if scanner == "nifti":
        return nifti_bytes(volume, affine, session.tr_s)
    return mosaic_bytes(volume, affine, session.tr_s, index, run.series, acquired, recon_s, run.uid, times)
