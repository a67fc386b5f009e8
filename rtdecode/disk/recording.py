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

import hashlib
import math
import os
import reprlib
from collections.abc import Iterator
from dataclasses import asdict
from functools import cached_property
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from rtdecode import strict_json
from rtdecode.disk import calibration as calibrations
from rtdecode.disk import private, recording_index, recording_text
from rtdecode.disk.calibration import Calibration
from rtdecode.disk.film_marks import FilmMark, ShownFilm, showings, without_name
from rtdecode.disk.folders import is_in_use, what_is_there
from rtdecode.disk.hashed_folder import digest_of
from rtdecode.disk.identity import Pseudonyms, new_key
from rtdecode.disk.recording_index import FLUSH_S, Entry, Loss, Survey
from rtdecode.disk.recording_text import HEAD, MARK, META, UnknownKeys, head_fault, line_fault
from rtdecode.errors import RecordingError, UsageError
from rtdecode.types import EegChunk, Montage, Trigger, Volume

SCHEMA = 1
# Name of the folder in a recording that holds the session's calibration, and of the key in `meta` that
# says that there is one.
CALIBRATION = "calibration"
_FILM = "film.jsonl"
# Samples that one read delivers at the beginning span less, s.
_FIRST_CHUNK_S = 3600.0


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
            recording = Recording(path)
            self._meta = recording.meta
            self._montage = recording.montage
            self._before = _cut_torn(recording)
        else:
            check_unused(path)
            private.folder(path, exclusive=True)
        self._write_head()
        self._events = private.open_file(path / "events.jsonl", "a")
        self._eeg = private.open_file(path / "eeg.f32", "ab")
        self._stamps = private.open_file(path / "stamps.f64", "ab")
        self._volumes = private.open_file(path / "volumes.bin", "ab")
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
        # A full disk or a crash leaves the old head.
        private.write_whole(self._path / "recording.json", strict_json.dumps(head, indent=1) + "\n")

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
        if not isinstance(item, EegChunk) or item.arrived_at - self._flushed_at >= FLUSH_S:
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
            self._film = private.open_file(self._path / _FILM, "a", buffering=1)
        line = asdict(mark) | {"label": without_name(mark.label)}
        self._film.write(strict_json.dumps(line) + "\n")

    def _volume(self, volume: Volume) -> dict[str, Any]:
        offset = self._volumes.tell()
        self._volumes.write(np.ascontiguousarray(volume.data).tobytes())
        names = ("index", "series", "tr_s", "acquired_s", "recon_s", "readable_at", "arrived_at", "parsed_at")
        line = {name: getattr(volume, name) for name in (*names, "simulated", "clock_at")}
        line["name"] = f"volume {volume.index}"
        line["uid"] = self._pseudonyms.series(volume.uid)
        line |= {"shape": list(volume.data.shape), "dtype": volume.data.dtype.str, "at": offset}
        line["affine"] = volume.affine.tolist()
        return line


class Recording:
    """A recording, read back.

    Parameters
    ----------
    path : Path
        The recording's folder.
    partial : bool
        Whether `events` goes on where data are missing, as in a copy that was cut short. Otherwise it
        refuses such a recording.

    Attributes
    ----------
    montage : Montage or None
        Labels and kinds of the EEG channels; None without EEG.
    meta : dict
        The field ``meta`` of ``recording.json``.
    truth : Path or None
        Folder with ``events.tsv`` and, for a film, ``film.mp4``.

    Raises
    ------
    UsageError
        If `path` is no recording, or one of a different schema.
    RecordingError
        If its head is damaged. The index is read, and checked, once something is asked of it.
    """

    def __init__(self, path: Path, *, partial: bool = False) -> None:
        file = path / "recording.json"
        if not os.path.lexists(file):
            raise UsageError(
                "recording-unreadable",
                "{path} is no recording: found {found}, and a folder with recording.json was expected. Make "
                "one with `rtdecode stream --record DIR` or `rtdecode simulate --record DIR`.",
                path=path,
                found=what_is_there(path),
            )
        self._unknown = UnknownKeys()
        head = _head(file, self._unknown)
        self.path = path
        self.montage = _head_montage(file, head["montage"], self._unknown)
        self.meta: dict[str, Any] = head["meta"]
        self.truth = path / "truth" if (path / "truth" / "events.tsv").is_file() else None
        self._partial = partial

    def digest(self) -> str:
        """Return a digest of what was recorded and when, 16 hexadecimal digits, to tell recordings apart.

        The events hold the times of every item, so the large data files need not be read.
        """
        texts = {}
        for name in ("recording.json", recording_index.EVENTS):
            with recording_text.opened(self.path / name) as file:
                texts[name] = hashlib.sha256(file.read()).hexdigest()
        return digest_of(texts)

    @property
    def restarted_at(self) -> list[float]:
        """Local times at which the acquisition was started again after it had died."""
        return [restart["resumed_at"] for restart in self.meta.get("restarts", [])]

    @cached_property
    def survey(self) -> Survey:
        """What the index names, and what of it is there."""
        return recording_index.survey(self.path, self.montage, self._unknown)

    @property
    def loss(self) -> Loss:
        """What the recording lacks."""
        return self.survey.loss

    @property
    def offline(self) -> bool:
        """Whether its signals were filtered or cleaned after their session, as some imported ones were."""
        return self.meta.get("chain") == "offline"

    def has_triggers(self) -> bool:
        """Return whether any trigger was recorded."""
        return self.survey.triggers > 0

    def has_volumes(self) -> bool:
        """Return whether any volume was recorded."""
        return self.survey.volumes > 0

    def notes(self) -> list[str]:
        """Say what is lost, and what was passed over, one sentence for each.

        Without `partial`, that the recording is not whole is said by `events`.
        """
        sentences = []
        if self.loss.damage and self._partial:
            sentences.append(f"{self.path} is not whole: {self.loss.sentence()}. They count as lost.")
        elif self.loss and not self.loss.damage:
            sentences.append(
                f"{self.path} ends in the middle of an item, as where a session was killed: "
                f"{self.loss.sentence()}. It is read up to there."
            )
        if self.offline:
            sentences.append(
                f"The signals of {self.path} were filtered or cleaned after their session: nothing that is "
                "decoded of them is a figure of a live session."
            )
        self._marks()
        return [*sentences, *(f"{self.path}: {sentence}" for sentence in self._unknown.sentences())]

    def calibration(self) -> Calibration | None:
        """Load the calibration of the session; None if it had none.

        Raises
        ------
        UsageError
            If it is missing, or has another digest than the recording states.
        """
        stated_path = self.meta.get(CALIBRATION)
        if stated_path is None:
            return None
        path = self.path / CALIBRATION
        if not path.is_dir():
            # Recordings of earlier versions held no copy of it.
            path = Path(stated_path)
            if not path.is_absolute() or not path.is_dir():
                raise UsageError(
                    "recording-calibration-missing",
                    "the recording {recording} was made with a calibration that is not in it. Copy the "
                    "folder made by `rtdecode calibrate` to {calibration}.",
                    recording=self.path,
                    calibration=self.path / CALIBRATION,
                )
        calibration = calibrations.load(path)
        digest = self.meta.get("calibration_digest")
        if digest not in (None, calibration.digest):
            raise UsageError(
                "recording-calibration-mismatch",
                "the recording {recording} was made with the calibration {expected_digest}, but "
                "{calibration} holds {actual_digest}, which may read other voxels. Restore the original "
                "one.",
                recording=self.path,
                expected_digest=digest,
                calibration=path,
                actual_digest=calibration.digest,
            )
        return calibration

    def events(self) -> Iterator[EegChunk | Trigger | Volume]:
        """Return the items in the order in which they arrived.

        A line, or the data of an item, that a crash left incomplete ends the recording. Of a recording that
        is not whole, with `partial`, chunks and volumes whose data are missing come without them: they are
        not `live`, and hold zeros.

        Raises
        ------
        RecordingError
            If the recording is not whole, without `partial`; while it is read, if it is damaged.
        """
        if self.loss.damage and not self._partial:
            raise RecordingError(
                "recording-incomplete",
                "{path} is not whole: {lost}. Copy the recording again from where it was made. `rtdecode "
                "replay` decodes what is there.",
                path=self.path,
                lost=self.loss.sentence(),
                lost_samples=self.loss.samples,
                lost_eeg_s=self.loss.eeg_s,
                lost_volumes=self.loss.volumes,
                unlisted_eeg_s=self.loss.unlisted_eeg_s,
                unlisted_volumes=self.loss.unlisted_volumes,
            )
        return self._items()

    def _items(self) -> Iterator[EegChunk | Trigger | Volume]:
        with (
            _opened_data(self.path / recording_index.EEG) as eeg,
            _opened_data(self.path / recording_index.STAMPS) as stamps,
            _opened_data(self.path / recording_index.VOLUMES) as volumes,
        ):
            eeg_bytes, stamps_bytes, volumes_bytes = map(_size, (eeg, stamps, volumes))
            for entry in recording_index.entries(self.path, self.montage, self._unknown):
                line = entry.line
                if "stamp" in line:
                    stamp = line.pop("stamp")
                    # JSON has no NaN: a stamp that was not finite was written as null.
                    yield Trigger(stamp=math.nan if stamp is None else stamp, **line)
                    continue
                # Nothing is read, and no room made for it, unless the file has it.
                if "samples" in line:
                    intact = entry.eeg_end <= eeg_bytes and entry.stamps_end <= stamps_bytes
                else:
                    intact = entry.volumes_end <= volumes_bytes
                if not intact and not self.loss.damage:
                    return
                if "samples" in line:
                    chunk = _chunk(entry, eeg if intact else None, stamps if intact else None)
                    if entry.stamps_end == len(chunk.stamps) * chunk.stamps.itemsize:
                        _check_first(self.path / recording_index.STAMPS, chunk)
                    yield chunk
                else:
                    yield _volume(line, volumes if intact else None)

    def films(self) -> list[ShownFilm]:
        """Return the films that `rtdecode play` showed, in order, with times on the clock of `events`.

        ``films()[0].onset_at`` is the film's zero on the clock of the samples and triggers.
        """
        return showings(self._marks())

    def _marks(self) -> list[FilmMark]:
        file = self.path / _FILM
        if not os.path.lexists(file):
            return []
        marks = []
        for number, text in recording_text.lines(file):
            try:
                tree = recording_text.parsed(text)
                if fault := MARK.fault(tree):
                    raise ValueError(fault)
            except ValueError as error:
                raise line_fault(file, number, str(error)) from error
            line = self._unknown.without(_FILM, MARK, tree)
            stamp = math.nan if line["stamp"] is None else line["stamp"]
            marks.append(FilmMark(stamp, line["label"], line["arrived_at"]))
        return marks


def check_unused(path: Path) -> None:
    """Refuse a folder for a recording that is not empty or is not a folder.

    Raises
    ------
    UsageError
    """
    if is_in_use(path):
        raise UsageError(
            "recording-folder-not-empty",
            "the recording's folder {folder} is in use: found {found}. Give a new or empty folder.",
            folder=path,
            found=what_is_there(path),
        )


def session_of(path: Path) -> str | None:
    """Return the session that a recording's head names; None without a head that can be read."""
    try:
        return recording_text.parsed(recording_text.head_bytes(path / "recording.json"))["meta"]["session"]
    except (OSError, ValueError, LookupError, TypeError, RecordingError):
        return None


def holds_data(path: Path) -> bool:
    """Return whether a recording's folder holds anything but its head and copies of what lies elsewhere."""
    copies = {"recording.json", CALIBRATION, "truth"}
    entries = [entry for entry in path.iterdir() if entry.name not in copies and entry.name[0] != "."]
    return any(entry.is_dir() or entry.stat().st_size for entry in entries)


def _cut_torn(recording: Recording) -> Montage | None:
    """Cut a recording back to its complete items, and return the montage of its newest chunk.

    Raises
    ------
    RecordingError
        If more would be cut off than a writer loses that is killed.
    """
    if recording.loss.damage:
        recording.events()
    intact = recording.survey.intact
    for name, size in (
        (recording_index.EVENTS, intact.index_end),
        (recording_index.EEG, intact.eeg_end),
        (recording_index.STAMPS, intact.stamps_end),
        (recording_index.VOLUMES, intact.volumes_end),
    ):
        if recording_text.size_of(recording.path / name) > size:
            os.truncate(recording.path / name, size)
    # Markers have no data beside their lines, so only a torn last line is cut off.
    film = recording.path / _FILM
    if film.is_file():
        os.truncate(film, film.read_bytes().rfind(b"\n") + 1)
    return intact.montage


def _head(file: Path, unknown: UnknownKeys) -> dict[str, Any]:
    """Read and check the head.

    Raises
    ------
    RecordingError
        If it is damaged.
    UsageError
        If it has a schema of another version.
    """
    try:
        tree = recording_text.parsed(recording_text.head_bytes(file))
        # Another schema has other fields, so it is named before these are looked at.
        schema = tree.get("schema") if isinstance(tree, dict) else None
        if type(schema) is int and schema != SCHEMA:
            raise UsageError(
                "recording-schema-unsupported",
                "{path} has recording schema {schema}, this version reads {supported_schema}. Read it with "
                "the version of rtdecode that wrote it, or with a newer one.",
                path=file.parent,
                schema=reprlib.repr(schema),
                supported_schema=SCHEMA,
            )
        if fault := HEAD.fault(tree):
            raise ValueError(fault)
        if fault := META.fault(tree["meta"]):
            raise ValueError(f"meta: {fault}")
    except ValueError as error:
        raise head_fault(file, str(error)) from error
    return unknown.without(file.name, HEAD, tree)


def _head_montage(file: Path, tree: dict[str, Any] | None, unknown: UnknownKeys) -> Montage | None:
    if tree is None:
        return None
    try:
        return recording_text.montage_of(tree, unknown, file.name)
    except ValueError as error:
        raise head_fault(file, str(error)) from error


def _opened_data(path: Path) -> IO[bytes]:
    """Open a data file; one that is missing is empty."""
    return recording_text.opened(path) if os.path.lexists(path) else BytesIO()


def _size(file: IO[bytes]) -> int:
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    return size


def _chunk(entry: Entry, eeg: IO[bytes] | None, stamps: IO[bytes] | None) -> EegChunk:
    """Read the next chunk; None in place of its files makes one that was lost."""
    line = entry.line
    assert entry.montage is not None
    shape = (line["samples"], len(entry.montage.channels))
    return EegChunk(
        _values(eeg, np.dtype(np.float32), shape).T,
        _values(stamps, np.dtype(np.float64), shape[:1]),
        line["arrived_at"],
        eeg is not None and line.get("live", True),
        entry.changed,
        line.get("clock_at"),
        line.get("source", 0),
    )


def _check_first(path: Path, chunk: EegChunk) -> None:
    """Refuse stamps that do not tell when the samples begin; what follows may jump as it did live.

    Raises
    ------
    RecordingError
    """
    stamps = chunk.stamps[np.isfinite(chunk.stamps)]
    if len(stamps) and float(stamps.max()) - float(stamps.min()) > _FIRST_CHUNK_S:
        raise RecordingError(
            "recording-stamps-invalid",
            "{path} is damaged: the stamps of its first {samples} samples range from {first_at:g} to "
            "{last_at:g} s. Copy the recording again from where it was made.",
            path=path,
            samples=len(stamps),
            first_at=float(stamps.min()),
            last_at=float(stamps.max()),
        )


def _volume(line: dict[str, Any], volumes: IO[bytes] | None) -> Volume:
    """Read the next volume; None in place of the file makes one that was lost."""
    data = _values(volumes, np.dtype(line["dtype"]), tuple(line["shape"]))
    fields = {name: line[name] for name in line.keys() - {"dtype", "shape", "at", "affine"}}
    return Volume(data, np.array(line["affine"], np.float64), live=volumes is not None, **fields)


def _values(file: IO[bytes] | None, kind: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Read the next values of a file; None gives zeros, or stamps that are not known."""
    if file is None:
        # A view of one number, which needs no memory however much was lost.
        return np.broadcast_to(np.full((), np.nan if len(shape) == 1 else 0, kind), shape)
    return np.frombuffer(file.read(math.prod(shape) * kind.itemsize), kind).reshape(shape)
