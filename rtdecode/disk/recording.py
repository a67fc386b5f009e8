"""A session on disk: everything that arrived, with its times, in the order in which it arrived.

A `RecordingWriter` appends the items of a session as they come, and a `Recording` reads them back for a
replay or a training.

::

    recording.json   schema, montage, meta
    eeg.f32          float32 microvolts, sample by sample (channels together)
    stamps.f64       float64 stamp of each sample
    volumes.bin      voxels of each volume, C order
    events.jsonl     one line per item: chunk, trigger or volume, with its times
    film.jsonl       one line per marker of `rtdecode play`, if a film was shown
    truth/           film.mp4, events.tsv, if the truth is known
    calibration/     the calibration of the session, if it had one

Only voxels and the fields of `rtdecode.types.Volume` are kept, never the scanner's file. No names are
written: a volume is called by its index, a series and a marker's text become digests under a key that is
not kept (`rtdecode.disk.identity`), and a film's name becomes a digest.
"""

import json
import math
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from rtdecode.disk import calibration as calibrations
from rtdecode.disk import strict_json
from rtdecode.disk.calibration import Calibration
from rtdecode.disk.film_marks import FilmMark, ShownFilm, showings, without_name
from rtdecode.disk.folders import taken
from rtdecode.disk.identity import Pseudonyms, new_key
from rtdecode.disk.sealed import digest_of, file_hash
from rtdecode.errors import UsageError
from rtdecode.types import EegChunk, Montage, Trigger, Volume

SCHEMA = 1
# Chunks wait in the files' buffers no longer than this, s: a killed process loses what waits there.
_FLUSH_S = 1.0
# Name of the folder in a recording that holds the session's calibration, and of the key in `meta` that
# says that there is one.
CALIBRATION = "calibration"


class RecordingWriter:
    """Append items to a recording as they arrive, so that it stays readable after a crash.

    Parameters
    ----------
    path : Path
        A new or empty folder.
    montage : Montage or None
        None without EEG, or if `set_montage` will be called.
    meta : dict
        Plain JSON values, for example whether it is simulated and which bundle decoded it.
    key : bytes, optional
        The session's key, under which names become digests; by default a new one.
    resume : bool
        Continue a recording whose writer died. Incomplete items at its end are cut off, and its montage and
        meta are kept.

    Raises
    ------
    UsageError
        If the folder is not empty, or, with `resume`, holds no recording.
    """

    def __init__(
        self,
        path: Path,
        montage: Montage | None,
        meta: dict[str, Any],
        key: bytes | None = None,
        *,
        resume: bool = False,
    ) -> None:
        self._path = path
        self._meta = dict(meta)
        self._montage = montage
        self._pseudonyms = Pseudonyms(key or new_key())
        # In a resumed recording: the montage of its newest chunk, and the one that the next chunk
        # must state because it differs.
        self._before: Montage | None = None
        self._changed: Montage | None = None
        if resume:
            kept = Recording(path)
            self._meta = kept.meta
            self._montage = kept.montage
            self._before = _cut_torn(path, kept.montage)
        else:
            check_unused(path)
            path.mkdir(parents=True, exist_ok=True)
        self._write_head()
        self._events = (path / "events.jsonl").open("a")
        self._eeg = (path / "eeg.f32").open("ab")
        self._stamps = (path / "stamps.f64").open("ab")
        self._volumes = (path / "volumes.bin").open("ab")
        self._film: IO[str] | None = None
        # The first chunk goes out at once: a run of EEG alone begins with it.
        self._flushed_at = -math.inf

    def __enter__(self) -> "RecordingWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def set_montage(self, montage: Montage | None) -> None:
        """Write the montage once it is known; a resumed recording keeps its first one."""
        if self._before is None:
            self._montage = montage
            self._write_head()
        elif montage != self._before:
            self._changed = montage

    def note(self, **meta: Any) -> None:
        """Add to `meta`, for example how the session ended."""
        self._meta |= meta
        self._write_head()

    def keep_calibration(self, calibration: Calibration) -> None:
        """Copy the session's calibration into the recording, so that a replay needs nothing else."""
        calibrations.copy(calibration, self._path / CALIBRATION)

    def _write_head(self) -> None:
        head = {"schema": SCHEMA, "montage": self._montage and asdict(self._montage), "meta": self._meta}
        # Written beside the old head and then renamed, so that a full disk or a
        # crash leaves the old one.
        part = self._path / "recording.json.part"
        try:
            part.write_text(strict_json.dumps(head, indent=1) + "\n")
            part.replace(self._path / "recording.json")
        finally:
            part.unlink(missing_ok=True)

    def write(self, item: EegChunk | Trigger | Volume | FilmMark) -> None:
        """Append one item."""
        if isinstance(item, FilmMark):
            self._write_mark(item)
            return
        if isinstance(item, EegChunk):
            self._eeg.write(np.ascontiguousarray(item.data.T, np.float32).tobytes())
            self._stamps.write(item.stamps.astype(np.float64).tobytes())
            line: dict[str, Any] = {"samples": item.data.shape[1], "arrived_at": item.arrived_at}
            line |= {} if item.live else {"live": False}
            line |= {} if item.clock_at is None else {"clock_at": item.clock_at}
            line |= {} if item.source == 0 else {"source": item.source}
            changed = item.montage or self._changed
            self._changed = None
            line |= {} if changed is None else {"montage": asdict(changed)}
        elif isinstance(item, Trigger):
            line = asdict(item) | {"label": self._pseudonyms.marker(item.label)}
        else:
            line = self._volume(item)
        self._events.write(strict_json.dumps(line) + "\n")
        # Chunks come many times a second and may wait a little in the files' buffers. The rarer triggers and
        # volumes go out at once, with everything before them.
        if not isinstance(item, EegChunk) or item.arrived_at - self._flushed_at >= _FLUSH_S:
            self._flushed_at = item.arrived_at
            self.flush()

    def flush(self) -> None:
        """Hand everything to the operating system, the data before the lines that describe them."""
        for file in (self._eeg, self._stamps, self._volumes, self._events):
            file.flush()

    def close(self) -> None:
        """Close all files, and then raise the first error, if there was one."""
        errors: list[OSError] = []
        for file in (self._eeg, self._stamps, self._volumes, self._events, self._film):
            try:
                file.close() if file is not None else None
            except OSError as error:
                errors.append(error)
        if errors:
            raise errors[0]

    def _write_mark(self, mark: FilmMark) -> None:
        if self._film is None:
            # Line by line, so that a crash loses no marker that was received.
            self._film = (self._path / "film.jsonl").open("a", buffering=1)
        line = asdict(mark) | {"label": without_name(mark.label)}
        self._film.write(strict_json.dumps(line) + "\n")

    def _volume(self, volume: Volume) -> dict[str, Any]:
        at = self._volumes.tell()
        self._volumes.write(np.ascontiguousarray(volume.data).tobytes())
        names = ("index", "series", "tr_s", "acquired_s", "recon_s", "readable_at", "arrived_at", "parsed_at")
        line = {name: getattr(volume, name) for name in (*names, "simulated", "clock_at")}
        line["name"] = f"volume {volume.index}"
        line["uid"] = self._pseudonyms.series(volume.uid)
        line |= {"shape": list(volume.data.shape), "dtype": volume.data.dtype.str, "at": at}
        line["affine"] = volume.affine.tolist()
        return line


class Recording:
    """A recording, read back.

    Attributes
    ----------
    montage : Montage or None
    meta : dict
    truth : Path or None
        Folder with ``events.tsv`` and, for a film, ``film.mp4``.

    Raises
    ------
    UsageError
        If `path` is no recording, or one of a different schema.
    """

    def __init__(self, path: Path) -> None:
        try:
            head = json.loads((path / "recording.json").read_text())
        except (OSError, json.JSONDecodeError) as error:
            raise UsageError(
                "recording-unreadable",
                "{path} is no recording: a folder with recording.json was expected ({error}). Make "
                "one with `rtdecode stream --record DIR` or `rtdecode simulate --record DIR`.",
                path=path,
                error=error,
            ) from error
        if head["schema"] != SCHEMA:
            raise UsageError(
                "recording-schema-unsupported",
                "{path} has recording schema {schema}, this version reads {supported_schema}.",
                path=path,
                schema=head["schema"],
                supported_schema=SCHEMA,
            )
        montage = head["montage"]
        self.path = path
        self.montage = montage and _montage(montage)
        self.meta: dict[str, Any] = head["meta"]
        self.truth = path / "truth" if (path / "truth" / "events.tsv").is_file() else None

    def digest(self) -> str:
        """Return a digest of what was recorded and when, 16 hexadecimal digits, to tell recordings apart.

        The events hold the times of every item, so the large data files need not be read.
        """
        return digest_of({name: file_hash(self.path / name) for name in ("recording.json", "events.jsonl")})

    @property
    def restarted_at(self) -> list[float]:
        """Local times at which the acquisition was started again after it had died."""
        return [one["resumed_at"] for one in self.meta.get("restarts", [])]

    def has_triggers(self) -> bool:
        """Return whether any trigger was recorded."""
        return self._has('"stamp"')

    def has_volumes(self) -> bool:
        """Return whether any volume was recorded."""
        return self._has('"shape": ')

    def _has(self, key: str) -> bool:
        """Return whether any line has a key."""
        # A last line without its end was torn by a crash, and its item is not read back.
        with (self.path / "events.jsonl").open() as lines:
            return any(key in line for line in lines if line.endswith("\n"))

    def events(self) -> Iterator[EegChunk | Trigger | Volume]:
        """Yield the items in the order in which they arrived.

        A line, or the data of an item, that a crash left incomplete ends the recording.
        """
        channels = len(self.montage.channels) if self.montage else 0
        with (
            (self.path / "events.jsonl").open() as lines,
            (self.path / "eeg.f32").open("rb") as eeg,
            (self.path / "stamps.f64").open("rb") as stamps,
            (self.path / "volumes.bin").open("rb") as volumes,
        ):
            for text in lines:
                if not text.endswith("\n"):
                    return
                line = json.loads(text)
                if "samples" in line:
                    n = line["samples"]
                    changed = line.get("montage") and _montage(line["montage"])
                    channels = len(changed.channels) if changed else channels
                    data = _values(eeg, np.float32, n, channels)
                    when = _values(stamps, np.float64, n)
                    if data is None or when is None:
                        return
                    live = line.get("live", True)
                    clock_at = line.get("clock_at")
                    source = line.get("source", 0)
                    yield EegChunk(data.T, when, line["arrived_at"], live, changed, clock_at, source)
                elif "stamp" in line:
                    stamp = line.pop("stamp")
                    # JSON has no NaN: a stamp that was not finite was written as null.
                    yield Trigger(stamp=math.nan if stamp is None else stamp, **line)
                else:
                    volumes.seek(line.pop("at"))
                    data = _values(volumes, line.pop("dtype"), *line.pop("shape"))
                    if data is None:
                        return
                    yield Volume(data=data, affine=np.array(line.pop("affine"), np.float64), **line)

    def films(self) -> list[ShownFilm]:
        """Return the films that `rtdecode play` showed, in order, with times on the clock of `events`.

        ``films()[0].onset_at`` is the film's zero on the clock of the samples and triggers.
        """
        file = self.path / "film.jsonl"
        lines = file.read_text().splitlines(keepends=True) if file.is_file() else []
        return showings(FilmMark(**json.loads(text)) for text in lines if text.endswith("\n"))


def check_unused(path: Path) -> None:
    """Refuse a folder for a recording that is not empty or is not a folder.

    Raises
    ------
    UsageError
    """
    if taken(path):
        raise UsageError(
            "recording-folder-not-empty",
            "the recording folder {folder} is not empty. Give a new or empty folder.",
            folder=path,
        )


def _cut_torn(path: Path, montage: Montage | None) -> Montage | None:
    """Cut a recording back to its complete items, and return the montage of its newest chunk."""
    # The sizes of the files after the last item that is complete: its line has its end, and every
    # data file is long enough for it.
    sizes = {"events.jsonl": 0, "eeg.f32": 0, "stamps.f64": 0, "volumes.bin": 0}
    there = {name: _size(path / name) for name in sizes}
    with (path / "events.jsonl").open("ab+") as lines:
        lines.seek(0)
        for text in lines:
            if not text.endswith(b"\n"):
                break
            line = json.loads(text)
            # The montage and the sizes count only if all of this item is there.
            now = montage
            after = dict(sizes)
            after["events.jsonl"] += len(text)
            if "samples" in line:
                now = _montage(line["montage"]) if line.get("montage") else montage
                channels = len(now.channels) if now is not None else 0
                after["eeg.f32"] += line["samples"] * channels * np.dtype(np.float32).itemsize
                after["stamps.f64"] += line["samples"] * np.dtype(np.float64).itemsize
            elif "shape" in line:
                bytes_of_one = math.prod(line["shape"]) * np.dtype(line["dtype"]).itemsize
                after["volumes.bin"] = line["at"] + bytes_of_one
            if any(after[name] > there[name] for name in sizes):
                break
            montage = now
            sizes = after
    for name, size in sizes.items():
        if there[name] > size:
            os.truncate(path / name, size)
    # Markers have no data beside their lines, so only a torn last line is cut off.
    film = path / "film.jsonl"
    if film.is_file():
        os.truncate(film, film.read_bytes().rfind(b"\n") + 1)
    return montage


def _size(file: Path) -> int:
    return file.stat().st_size if file.is_file() else 0


def _montage(line: dict[str, Any]) -> Montage:
    # Recordings of earlier versions state neither kinds nor whether the participant is simulated.
    kinds = tuple(line.get("kinds", ()))
    simulated = line.get("simulated", False)
    return Montage(tuple(line["channels"]), line["sfreq"], line["reference"], kinds, simulated)


def _values(file: IO[bytes], kind: Any, *shape: int) -> NDArray[Any] | None:
    """Read the next values of a file; None if some of them are missing."""
    size = math.prod(shape) * np.dtype(kind).itemsize
    raw = file.read(size)
    return np.frombuffer(raw, kind).reshape(shape) if len(raw) == size else None
