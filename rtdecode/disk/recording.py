"""A session on disk: what arrived, when, in the order it arrived.

::

    recording.json   schema, montage, meta
    eeg.f32          float32 microvolts, sample by sample (channels together)
    stamps.f64       float64 stamp of each sample
    volumes.bin      pixels of each volume, C order
    events.jsonl     one line an item: chunk, trigger or volume, with its times
    film.jsonl       one line a marker of `rtdecode play`, where a film was shown
    truth/           film.mp4, events.tsv, where the truth is known
    calibration/     the calibration of the session, where it had one

Only pixels and the fields of `rtdecode.types.Volume` are kept, never the scanner's file. No name is
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
CALIBRATION = "calibration"
"""Folder in a recording that holds the session's calibration, and the key of `meta` that says so."""


class RecordingWriter:
    """Append items to a recording as they arrive; what was written stays readable after a crash.

    Parameters
    ----------
    path : Path
        A new or empty folder.
    montage : Montage or None
        None without EEG, or until `set_montage`.
    meta : dict
        Plain JSON values: simulated or not, by which bundle it was decoded.
    key : bytes, optional
        The session's, under which names become digests; default: a new one.
    resume : bool
        Go on with a recording whose writer died: what it left torn is cut off, its montage and meta stay.

    Raises
    ------
    UsageError
        If the folder is in use.
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
        # The channels of the newest chunk, where a recording is gone on with, and those that come now.
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

    def __enter__(self) -> "RecordingWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def set_montage(self, montage: Montage | None) -> None:
        """Write down the montage once it is known; a recording that is gone on with keeps its first."""
        if self._before is None:
            self._montage = montage
            self._write_head()
        elif montage != self._before:
            self._changed = montage

    def note(self, **meta: Any) -> None:
        """Add to `meta`: how the session ended, for example."""
        self._meta |= meta
        self._write_head()

    def keep_calibration(self, calibration: Calibration) -> None:
        """Copy the session's calibration into the recording, so that a replay needs nothing else."""
        calibrations.copy(calibration, self._path / CALIBRATION)

    def _write_head(self) -> None:
        head = {"schema": SCHEMA, "montage": self._montage and asdict(self._montage), "meta": self._meta}
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
            changed = item.montage or self._changed
            self._changed = None
            line |= {} if changed is None else {"montage": asdict(changed)}
        elif isinstance(item, Trigger):
            line = asdict(item) | {"label": self._pseudonyms.marker(item.label)}
        else:
            line = self._volume(item)
        self._events.write(strict_json.dumps(line) + "\n")
        if not isinstance(item, EegChunk):
            self.flush()

    def flush(self) -> None:
        """Hand everything to the operating system; data before the lines that speak of them."""
        for file in (self._eeg, self._stamps, self._volumes, self._events):
            file.flush()

    def close(self) -> None:
        """Finish the files: all of them, before the first error is raised."""
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
    """A recording read back.

    Attributes
    ----------
    montage : Montage or None
    meta : dict
    truth : Path or None
        Folder with ``events.tsv`` and, for a film, ``film.mp4``.
    """

    def __init__(self, path: Path) -> None:
        try:
            head = json.loads((path / "recording.json").read_text())
        except (OSError, json.JSONDecodeError) as error:
            raise UsageError(
                f"{path} is no recording: a folder with recording.json was expected ({error}). "
                "Make one with `rtdecode stream --record DIR` or `rtdecode simulate --record DIR`."
            ) from error
        if head["schema"] != SCHEMA:
            raise UsageError(f"{path} has recording schema {head['schema']}, this version reads {SCHEMA}.")
        montage = head["montage"]
        self.path = path
        self.montage = montage and _montage(montage)
        self.meta: dict[str, Any] = head["meta"]
        self.truth = path / "truth" if (path / "truth" / "events.tsv").is_file() else None

    def digest(self) -> str:
        """Digest of what was recorded and when, 16 hexadecimal digits: it tells recordings apart."""
        return digest_of({name: file_hash(self.path / name) for name in ("recording.json", "events.jsonl")})

    @property
    def restarted_at(self) -> list[float]:
        """Local times at which an acquisition that had died was started again."""
        return [one["resumed_at"] for one in self.meta.get("restarts", [])]

    def has_triggers(self) -> bool:
        """Whether any trigger was recorded."""
        with (self.path / "events.jsonl").open() as lines:
            return any('"stamp"' in line for line in lines)

    def has_volumes(self) -> bool:
        """Whether any volume was recorded."""
        with (self.path / "events.jsonl").open() as lines:
            return any('"shape": ' in line for line in lines if line.endswith("\n"))

    def events(self) -> Iterator[EegChunk | Trigger | Volume]:
        """The items in the order they arrived; what a crash has torn, a line or its data, ends them."""
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
                    yield EegChunk(data.T, when, line["arrived_at"], live, changed, clock_at)
                elif "stamp" in line:
                    stamp = line.pop("stamp")
                    yield Trigger(stamp=math.nan if stamp is None else stamp, **line)
                else:
                    volumes.seek(line.pop("at"))
                    data = _values(volumes, line.pop("dtype"), *line.pop("shape"))
                    if data is None:
                        return
                    yield Volume(data=data, affine=np.array(line.pop("affine"), np.float64), **line)

    def films(self) -> list[ShownFilm]:
        """The films that `rtdecode play` showed, in order; their times are those of `events`.

        ``films()[0].onset_at`` is the film's zero on the clock of the samples and triggers.
        """
        file = self.path / "film.jsonl"
        lines = file.read_text().splitlines(keepends=True) if file.is_file() else []
        return showings(FilmMark(**json.loads(text)) for text in lines if text.endswith("\n"))


def check_unused(path: Path) -> None:
    """Refuse a recording's folder that holds something, or that is none.

    Raises
    ------
    UsageError
    """
    if taken(path):
        raise UsageError(f"the recording folder {path} is not empty. Give a new or empty folder.")


def _cut_torn(path: Path, montage: Montage | None) -> Montage | None:
    """Cut a recording to the items that are whole; returns the montage of the newest chunk."""
    sizes = {"events.jsonl": 0, "eeg.f32": 0, "stamps.f64": 0, "volumes.bin": 0}
    there = {name: _size(path / name) for name in sizes}
    with (path / "events.jsonl").open("ab+") as lines:
        lines.seek(0)
        for text in lines:
            if not text.endswith(b"\n"):
                break
            line = json.loads(text)
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
    film = path / "film.jsonl"
    if film.is_file():
        os.truncate(film, film.read_bytes().rfind(b"\n") + 1)
    return montage


def _size(file: Path) -> int:
    return file.stat().st_size if file.is_file() else 0


def _montage(line: dict[str, Any]) -> Montage:
    kinds = tuple(line.get("kinds", ()))
    simulated = line.get("simulated", False)
    return Montage(tuple(line["channels"]), line["sfreq"], line["reference"], kinds, simulated)


def _values(file: IO[bytes], kind: Any, *shape: int) -> NDArray[Any] | None:
    """The next values of a file; None where some of them are missing."""
    size = math.prod(shape) * np.dtype(kind).itemsize
    raw = file.read(size)
    return np.frombuffer(raw, kind).reshape(shape) if len(raw) == size else None
