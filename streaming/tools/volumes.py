"""List the volumes that a scanner's folder holds: the command ``rtdecode volumes``.

`run` reads the folder with the source of a session, once or until it is stopped, and prints a line for each
volume, lost ones included, and at the end the files that gave no volume.
"""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from rtdecode import strict_json, terminal
from rtdecode.disk import private
from rtdecode.disk.folders import what_is_there
from rtdecode.errors import UsageError
from rtdecode.types import Volume
from streaming.session import interrupts
from streaming.sources.folder.series import SeriesRun
from streaming.sources.folder.source import FolderSource

_POLL_S = 0.02
_KEYS = (
    "index", "series", "run", "shape", "affine", "tr_s", "acquired_s", "complete", "missing_slices", "mean",
    "parse_ms", "file",
)  # fmt: skip
_COLUMNS = "{:>6} {:>6}  {:<15} {:>7} {:>9} {:>9} {:>8}  {}"

Line = dict[str, Any]


def run(
    directory: Path,
    once: bool,
    as_json: bool,
    nifti: Path | None,
    *,
    series: int | None = None,
    moco: bool = False,
    include: str = "",
) -> int:
    """List the volumes of a folder, one line each, and at the end the files that are not volumes.

    Parameters
    ----------
    directory : Path
        The folder to read, including files that are already there.
    once : bool
        Read what is there, list it in order, and end; otherwise follow the folder until Ctrl-C or SIGTERM.
    as_json : bool
        JSON lines instead of a table.
    nifti : Path or None
        Folder to write each volume to, as ``<series>_<index>.nii``.
    series : int or None
        Take only runs that begin with this SeriesNumber.
    moco : bool
        Take the scanner's motion-corrected series instead of the plain one.
    include : str
        Part of the names of series that are not left out for their name alone.

    Returns
    -------
    int
        Exit code.

    Raises
    ------
    UsageError
        If the folder does not exist, or `nifti` is the folder that is read.
    """
    if not directory.is_dir():
        raise UsageError(
            "export-folder-missing",
            "{folder} is no folder: found {found}. Give the folder that the scanner exports to.",
            folder=directory,
            found=what_is_there(directory),
        )
    if nifti is not None and nifti.resolve() == directory.resolve():
        raise UsageError(
            "nifti-folder-conflict",
            "--nifti {folder} is the folder that is read: give another one",
            folder=nifti,
        )
    if nifti is not None:
        try:
            private.folder(nifti)
        except OSError as error:
            raise UsageError(
                "nifti-folder-unwritable",
                "--nifti {folder} cannot be made: {error}. Give another folder.",
                folder=nifti,
                error=error,
            ) from error
    # List every series. Do not read volumes that were written into a subfolder as new ones.
    source = FolderSource(
        directory, existing="read", series=series, moco=moco, include=include, bound=False, exclude=nifti
    )
    stop = threading.Event()
    with interrupts.on_interrupt(lambda _name: stop.set()):
        lines = _once(source, nifti, stop) if once else _follow(source, nifti, stop)
        total = _print_json(lines, stop) if as_json else _print_rows(lines, stop)
    _print_end(source, total, as_json)
    return 0


def write_nifti(volume: Volume, path: Path) -> None:
    """Write a volume as a single-file NIfTI-1: int16 where that is exact, float32 otherwise."""
    image = nib.Nifti1Image(volume.data, volume.affine)
    image.header.set_xyzt_units("mm", "sec")
    image.header["pixdim"][4] = volume.tr_s or 0.0
    image.set_sform(volume.affine, code=1)
    image.set_qform(volume.affine, code=1)
    image.to_filename(private.file(path))


def _once(source: FolderSource, nifti: Path | None, stop: threading.Event) -> Iterator[Line]:
    # Files are read in no particular order: read them all first, then yield the volumes by run and
    # index, with the lost ones in their places.
    lines_by_run: dict[str, dict[int, Line]] = {}
    while not stop.is_set() and (volumes := source.drain()):
        for volume in volumes:
            lines_by_run.setdefault(volume.uid, {})[volume.index] = _take(source, volume, nifti)
    for run in sorted(source.runs, key=lambda r: (r.series, r.order)):
        lines = lines_by_run.get(run.uid, {})
        _start_at_first(lines)
        lost = {index: _lost(run, index, hole.missing_slices) for index, hole in run.holes.items()}
        for _, line in sorted((lines | lost).items()):
            yield line


def _follow(source: FolderSource, nifti: Path | None, stop: threading.Event) -> Iterator[Line]:
    """Yield volumes as they come, and lost ones when they are overdue, until stopped."""
    # A folder that vanishes, as a network share does, is reported once and waited for.
    missing = source.missing
    while not stop.is_set():
        now = time.monotonic()
        for volume in source.poll(now):
            yield _take(source, volume, nifti)
        for run, index, slices in source.lost(now):
            yield _lost(run, index, slices)
        if source.missing != missing:
            missing = source.missing
            gone = "is not there any more" if missing else "is there again"
            terminal.say(f"the folder {source.directory} {gone}")
        time.sleep(_POLL_S)


def _take(source: FolderSource, volume: Volume, nifti: Path | None) -> Line:
    label = source.runs.of(volume).label
    if nifti is not None:
        write_nifti(volume, nifti / f"{label}_{volume.index:05d}.nii")
    return {
        "index": volume.index,
        "series": volume.series,
        "run": label,
        "shape": list(volume.data.shape),
        "affine": np.round(volume.affine, 6).tolist(),
        "tr_s": volume.tr_s,
        "acquired_s": volume.acquired_s,
        "complete": True,
        "missing_slices": 0,
        "mean": float(volume.data.mean(dtype=np.float64)),
        "parse_ms": round(1000 * (volume.parsed_at - volume.arrived_at), 3),
        "file": volume.name,
    }


def _lost(run: SeriesRun, index: int, missing_slices: int) -> Line:
    line: Line = dict.fromkeys(_KEYS)
    return line | {
        "index": index,
        "series": run.series,
        "run": run.label,
        "tr_s": run.kind[2],
        "complete": False,
        "missing_slices": missing_slices,
    }


def _start_at_first(lines: dict[int, Line]) -> None:
    """Count header times from the run's first volume, in whatever order the files were read."""
    times = {index: line["acquired_s"] for index, line in lines.items() if line["acquired_s"] is not None}
    if not times:
        return
    # The source set the run's zero by the volume that it read first; set it by the lowest index
    # instead. If that is not 0, earlier volumes are missing, and its time follows from the TR.
    first = min(times)
    lead = first * (lines[first]["tr_s"] or 0.0) - times[first]
    for index, acquired_s in times.items():
        lines[index]["acquired_s"] = round(acquired_s + lead, 6)


def _print_json(lines: Iterator[Line], stop: threading.Event) -> int:
    return _each(lines, lambda line: terminal.line(strict_json.dumps(line)), stop)


def _print_rows(lines: Iterator[Line], stop: threading.Event) -> int:
    heads = ("series", "index", "shape", "TR s", "start s", "mean", "parse ms", "file")
    console = terminal.console(soft_wrap=True)
    console.print(_COLUMNS.format(*heads), style="bold")
    return _each(lines, lambda line: console.print(_COLUMNS.format(*_cells(line)), markup=False), stop)


def _each(lines: Iterator[Line], show: Callable[[Line], None], stop: threading.Event) -> int:
    """Show every line, until there are no more or it is stopped; return the number of complete volumes."""
    total = 0
    for line in lines:
        show(line)
        total += line["complete"]
        if stop.is_set():
            break
    return total


def _cells(line: Line) -> list[str]:
    if not line["complete"]:
        return [line["run"], str(line["index"]), f"lost ({line['missing_slices']} slices)", *[""] * 5]
    shape = " x ".join(str(n) for n in line["shape"])
    times = ["" if line[key] is None else f"{line[key]:.3f}" for key in ("tr_s", "acquired_s")]
    numbers = [f"{line['mean']:.1f}", f"{line['parse_ms']:.1f}"]
    return [line["run"], str(line["index"]), shape, *times, *numbers, line["file"]]


def _print_end(source: FolderSource, total: int, as_json: bool) -> None:
    ignored = [{"file": name, "reason": reason} for name, reason in source.ignored]
    if as_json:
        terminal.line(strict_json.dumps({"ignored": ignored, "volumes": total}))
        return
    console = terminal.console(soft_wrap=True)
    console.print(f"{total} volumes, {len(ignored)} files ignored")
    for entry in ignored:
        console.print(f"  {entry['file']}: {entry['reason']}", markup=False)
