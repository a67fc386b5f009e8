"""Read the volumes of one run from a folder that a scanner exported, or from a file of many volumes.

The files are read by what reads them in a session (`streaming.sources.folder`). They come in no particular
order, so the voxels wait in a temporary file until all have been read.
"""

import json
import math
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np

from rtdecode.disk.folders import what_is_there
from rtdecode.errors import UsageError
from rtdecode.types import Volume
from streaming.sources.folder.files import counterparts
from streaming.sources.folder.series import SeriesRun
from streaming.sources.folder.source import FolderSource

# How files of many volumes end.
SUFFIXES = (".nii", ".nii.gz", ".par", ".rec", ".dcm", ".dcm.gz", ".hdr", ".img")
# Written by `rtdecode to-bids` into sidecars where there are no triggers: seconds after the first EEG sample.
FIRST_VOLUME = "FirstVolumeAfterFirstSample"
# Also of theirs: how many volumes at the beginning of the file a session passes over.
DUMMIES = "DummyVolumes"
# No TR is longer, s: who writes so much has written milliseconds.
_LONGEST_TR_S = 60.0
# TRs differ by less where one of them was rounded, as a share.
_SAME_TR = 0.01


@dataclass(frozen=True, slots=True)
class _Stored:
    """A volume whose voxels wait in the file, from `offset` bytes on."""

    volume: Volume
    offset: int


class VolumeRun:
    """The volumes of one run, in order.

    Attributes
    ----------
    tr_s : float or None
        Repetition time; None if neither headers nor the caller state it.
    notes : list of str
        What has to be known of the files, one sentence each.
    first_after_s : float or None
        When volume 0 began after the first EEG sample, s, where a sidecar of `rtdecode to-bids` states it.
    dummies : int
        Number of volumes at the beginning that a session passes over, as that sidecar states it.
    began : datetime or None
        When volume 0 began by the scanner's clock, where the headers state it.
    """

    def __init__(
        self,
        stored: list[_Stored],
        file: IO[bytes],
        tr_s: float | None,
        discards: list[int],
        notes: list[str],
        *,
        first_after_s: float | None = None,
        dummies: int = 0,
        began: datetime | None = None,
    ) -> None:
        self._stored = stored
        self._file = file
        self.tr_s = tr_s
        self._discards = discards
        self.notes = notes
        self.first_after_s = first_after_s
        self.dummies = dummies
        self.began = began

    def __enter__(self) -> "VolumeRun":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    @property
    def indices(self) -> list[int]:
        """Positions on the acquisition grid, ascending; the first is 0."""
        return [stored.volume.index for stored in self._stored]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of a volume."""
        return self._stored[0].volume.data.shape

    @property
    def count(self) -> int:
        """Number of places on the acquisition grid, lost volumes included."""
        return self.indices[-1] + 1

    @property
    def spans(self) -> set[int]:
        """Numbers of triggers that fit: one a volume, and one for each that a sidecar says was discarded.

        Volumes that the scanner discarded may have triggers or not.
        """
        return {self.count + discarded for discarded in self._discards}

    @property
    def simulated(self) -> bool:
        """Whether the files declare their participant to be simulated."""
        return any(stored.volume.simulated for stored in self._stored)

    def volumes(self, begins_at: float, tr_s: float, local_tr_s: float) -> Iterator[Volume]:
        """Yield the volumes with their times.

        Parameters
        ----------
        begins_at : float
            Start of volume 0 on the clock of the EEG, s.
        tr_s, local_tr_s : float
            TR by the scanner's clock and by that of the EEG.

        Notes
        -----
        Nothing tells when a file became readable in the session: it counts as readable as soon as its image
        was finished, by its header or, where that does not say, once it was acquired. `recon_s` is that time,
        so that a replay places each volume where the import has placed it.
        """
        for stored in self._stored:
            volume = stored.volume
            self._file.seek(stored.offset)
            kind = volume.data.dtype
            data = np.frombuffer(self._file.read(volume.data.size * kind.itemsize), kind)
            recon_s = max(volume.recon_s or 0.0, tr_s)
            readable_at = begins_at + volume.index * local_tr_s + recon_s
            yield replace(
                volume,
                data=data.reshape(volume.data.shape),
                tr_s=tr_s,
                recon_s=recon_s,
                readable_at=readable_at,
                arrived_at=readable_at,
                parsed_at=readable_at,
            )


def read_volumes(
    source: Path,
    spool: Path,
    *,
    series: int | None = None,
    tr_s: float | None = None,
    moco: bool = False,
    include: str = "",
    sidecar: Mapping[str, Any] | None = None,
) -> VolumeRun:
    """Read the volumes of a folder or of a file.

    Parameters
    ----------
    source : Path
        A folder, or a NIfTI, PAR or DICOM file.
    spool : Path
        Folder for the temporary file with the voxels.
    series : int, optional
        SeriesNumber of the run that is wanted, where a folder holds several.
    tr_s : float, optional
        Repetition time, in place of that of headers and sidecar.
    moco, include
        As for `rtdecode volumes`.
    sidecar : mapping, optional
        What is said of the volumes, in place of the JSON file beside a NIfTI file.

    Raises
    ------
    UsageError
        If there is no volume, or more than one run, or the TR cannot be.
    """
    sidecar = _sidecar(source) if sidecar is None else sidecar
    opened = partial(FolderSource, existing="read", moco=moco, include=include, bound=False)
    if source.is_dir():
        return _read(opened(source), source, spool, series, tr_s, sidecar)
    with tempfile.TemporaryDirectory() as folder:
        for name in {source.name, *counterparts(source.name)}:
            if (source.parent / name).is_file():
                os.symlink((source.parent / name).resolve(), Path(folder) / name)
        return _read(opened(Path(folder)), source, spool, series, tr_s, sidecar)


def _read(
    folder: FolderSource,
    source: Path,
    spool: Path,
    series: int | None,
    tr_s: float | None,
    sidecar: Mapping[str, Any],
) -> VolumeRun:
    # Its owner's alone, and gone with the last process that has it open.
    file = tempfile.TemporaryFile(dir=spool)  # noqa: SIM115
    try:
        by_run: dict[str, list[_Stored]] = {}
        while volumes := folder.drain():
            for volume in volumes:
                offset = file.tell()
                file.write(np.ascontiguousarray(volume.data).tobytes())
                # A view of one number in place of the voxels.
                empty = np.broadcast_to(np.zeros((), volume.data.dtype), volume.data.shape)
                by_run.setdefault(volume.uid, []).append(_Stored(replace(volume, data=empty), offset))
        run = _chosen(folder, source, by_run, series)
        placed = sorted(by_run[run.uid], key=lambda item: item.volume.index)
        lost = _lost_by(source, sidecar, len(placed))
        stored = [item for item in placed if item.volume.index not in lost]
        tr_s = _tr(source, stored, sidecar, tr_s)
        notes = [*_lost(source, run, lost), *_ignored(folder, source), *_other_tr(stored, tr_s)]
        first = placed[0].volume
        return VolumeRun(
            _from(first, stored),
            file,
            tr_s,
            _discards(source, sidecar),
            notes,
            first_after_s=_first_after(source, sidecar),
            dummies=_count(source, sidecar, DUMMIES),
            began=_began(run, first),
        )
    except BaseException:
        file.close()
        raise


def _chosen(
    folder: FolderSource, source: Path, by_run: dict[str, list[_Stored]], series: int | None
) -> SeriesRun:
    runs = [run for run in folder.runs if run.uid in by_run]
    if not runs:
        raise UsageError(
            "import-volumes-missing",
            "{source} holds no volume: {contents}. Give the folder that the scanner exported, a NIfTI file "
            "of four dimensions, or the PAR file of a PAR/REC pair.",
            source=source,
            contents=f"{len(folder.ignored)} files were read, and {_last(folder)}"
            if folder.ignored
            else what_is_there(source),
        )
    matching = [run for run in runs if series is None or run.series == series]
    if len(matching) != 1:
        raise UsageError(
            "import-series-unclear",
            "{source} holds {count} runs{asked}, and a recording is made of one. Choose it by --series, or "
            "move its files into a folder of their own. Found: {available}.",
            source=source,
            count=len(matching),
            asked="" if series is None else f" of series {series}",
            available=[
                f"series {run.label} ({len(by_run[run.uid])} volumes of "
                f"{' x '.join(str(size) for size in run.kind[0])})"
                for run in runs
            ],
        )
    return matching[0]


def _last(folder: FolderSource) -> str:
    name, reason = folder.ignored[-1]
    return f"the last, {name}, is {reason}"


def _lost_by(source: Path, sidecar: Mapping[str, Any], count: int) -> set[int]:
    """Return which volumes `rtdecode to-bids` says were lost: the file has ones in their place."""
    listed = sidecar.get("LostVolumes", [])
    if isinstance(listed, list) and all(type(index) is int for index in listed) and len(set(listed)) < count:
        return set(listed)
    raise UsageError(
        "import-lost-volumes-invalid",
        "{source} has the LostVolumes {listed!r}, and a list of some of its {count} volumes was expected.",
        source=source,
        listed=listed,
        count=count,
    )


def _lost(source: Path, run: SeriesRun, by_sidecar: set[int]) -> list[str]:
    lost = sorted({*run.holes, *by_sidecar})
    if not lost:
        return []
    listed = ", ".join(str(index) for index in lost[:12])
    further = f" and {len(lost) - 12} more" if len(lost) > 12 else ""
    return [f"{source.name} lacks {len(lost)} of {run.stop} volumes, counted from 0: {listed}{further}."]


def _ignored(folder: FolderSource, source: Path) -> list[str]:
    # A sidecar beside its volumes is no surprise.
    strange = [(name, reason) for name, reason in folder.ignored if not name.endswith(".json")]
    if not strange:
        return []
    name, reason = strange[0]
    return [f"{len(strange)} files of {source.name} gave no volume; the first, {name}: {reason}."]


def _sidecar(source: Path) -> dict[str, Any]:
    """Read the JSON file beside a NIfTI file; empty where there is none."""
    suffix = next((suffix for suffix in SUFFIXES if source.name.lower().endswith(suffix)), "")
    path = source.with_name(source.name[: len(source.name) - len(suffix)] + ".json")
    if source.is_dir() or not path.is_file():
        return {}
    try:
        tree = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UsageError(
            "import-sidecar-unreadable", "the sidecar {path} cannot be read: {error}", path=path, error=error
        ) from error
    return tree if isinstance(tree, dict) else {}


def _tr(
    source: Path, stored: list[_Stored], sidecar: Mapping[str, Any], given_s: float | None
) -> float | None:
    by_header = next((item.volume.tr_s for item in stored if item.volume.tr_s), None)
    repetition_s = sidecar.get("RepetitionTime", by_header)
    if given_s is not None:
        return given_s
    if repetition_s is None:
        return None
    number = isinstance(repetition_s, int | float) and not isinstance(repetition_s, bool)
    if not number or not 0 < repetition_s <= _LONGEST_TR_S:
        raise UsageError(
            "import-tr-invalid",
            "{source} has the repetition time {tr_s!r}, and seconds were expected. Give it with --tr.",
            source=source,
            tr_s=repetition_s,
        )
    return float(repetition_s)


def _other_tr(stored: list[_Stored], tr_s: float | None) -> list[str]:
    by_header = next((item.volume.tr_s for item in stored if item.volume.tr_s), None)
    if by_header is None or tr_s is None or abs(by_header - tr_s) <= _SAME_TR * tr_s:
        return []
    return [f"The headers of the volumes state a TR of {by_header:g} s; {tr_s:g} s is taken."]


def _discards(source: Path, sidecar: Mapping[str, Any]) -> list[int]:
    """Return how many volumes may have had a trigger before the first one, as a sidecar of BIDS states it."""
    by_user = _count(source, sidecar, "NumberOfVolumesDiscardedByUser")
    return [by_user, by_user + _count(source, sidecar, "NumberOfVolumesDiscardedByScanner")]


def _count(source: Path, sidecar: Mapping[str, Any], key: str) -> int:
    count = sidecar.get(key, 0)
    if type(count) is not int or count < 0:
        raise UsageError(
            "import-discarded-invalid",
            "{source} has the {key} {count!r}, and a count was expected. Write the right one.",
            source=source,
            key=key,
            count=count,
        )
    return count


def _first_after(source: Path, sidecar: Mapping[str, Any]) -> float | None:
    """Return how long after the first EEG sample volume 0 began, as `rtdecode to-bids` states it."""
    value = sidecar.get(FIRST_VOLUME)
    if value is None or (type(value) in (int, float) and math.isfinite(value)):
        return value
    raise UsageError(
        "import-first-volume-invalid",
        "{source} has the {key} {value!r}, and seconds were expected. Give them with --volumes-at.",
        source=source,
        key=FIRST_VOLUME,
        value=value,
    )


def _began(run: SeriesRun, first: Volume) -> datetime | None:
    """Return when a volume began by the scanner's clock."""
    if run.origin is None or first.acquired_s is None:
        return None
    return run.origin + timedelta(seconds=first.acquired_s)


def _from(first: Volume, stored: list[_Stored]) -> list[_Stored]:
    """Count indices and header times from the first volume that is there, in whatever order it was read."""
    volumes = []
    for item in stored:
        index = item.volume.index - first.index
        acquired_s = item.volume.acquired_s
        if acquired_s is not None and first.acquired_s is not None:
            acquired_s = round(acquired_s - first.acquired_s, 6)
        volumes.append(_Stored(replace(item.volume, index=index, acquired_s=acquired_s), item.offset))
    return volumes
