"""Read EEG and markers from an XDF file, as LabRecorder writes it.

XDF (https://github.com/sccn/xdf) keeps the streams of LSL as they were sent, with the offsets of their
clocks. `pyxdf` puts all stamps on the clock of the computer that recorded. Jitter is left in the stamps, as
a live session receives it.
"""

import gzip
import logging
import math
import shutil
import struct
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO
from xml.etree.ElementTree import ParseError

import numpy as np
from numpy.typing import NDArray

from rtdecode.disk.film_marks import FilmMark, is_film_mark
from rtdecode.eeg.channels import infer_unit, microvolts
from rtdecode.eeg.rate import RateCheck
from rtdecode.errors import GeometryError, UsageError
from rtdecode.signal.eeg.badchannels import detrended
from streaming.importing.eeg import CHUNK_S, Block, EegFile, Marker
from streaming.importing.xdf_chunks import Chunk, chunks, damaged, thinned
from streaming.sources.lsl.layout import Description, Layout, layout_of
from streaming.sources.lsl.stim_channel import EdgeDetector

# How a file ends that gzip has compressed.
PACKED = ".xdfz"
# Stamps beyond this are Unix times, which tell when the participant came. They are moved to this time, s.
_UNIX_S = 1e8
_MOVED_TO_S = 1000.0
# Length of data by which a missing unit is judged, s.
_JUDGED_S = 1.0


@dataclass(frozen=True, slots=True)
class _Stream:
    """A stream of the file, with its stamps on the recorder's clock."""

    number: int
    description: Description
    kind: str
    values: Any
    stamps: NDArray[np.float64]
    strings: bool
    clock_segments: int

    @property
    def label(self) -> str:
        return f"{self.number} '{self.description.name}' ({self.kind or 'no type'})"


def read_xdf(
    path: Path,
    stream: str | None = None,
    markers: str | None = None,
    labels: Sequence[str] | None = None,
    unit: str | None = None,
) -> EegFile:
    """Read the EEG of an XDF file.

    Parameters
    ----------
    path : Path
        The XDF file.
    stream : str, optional
        Name of the EEG stream, or its number in the file. By default the only one of type EEG.
    markers : str, optional
        Name or number of the stream with the volume triggers. By default all streams without a rate.
    labels : sequence of str, optional
        Names of the channels, in the order of the stream, where it states none.
    unit : str, optional
        Unit of the channels that state none.

    Raises
    ------
    UsageError
        If the file is no XDF or is damaged, or it does not tell which stream is meant.
    GeometryError
        If the stream has no labelled EEG channel, no steady rate, or another rate than it states.
    """
    notes: list[str] = []
    streams = _load(path, notes)
    chosen = _eeg_stream(path, streams, stream)
    if chosen.strings:
        raise UsageError(
            "xdf-stream-not-numeric",
            "stream {stream} of {path} holds texts where the numbers of EEG were expected. Choose another "
            "with --stream; the file has {available}.",
            stream=chosen.label,
            path=path,
            available=[other.label for other in streams],
        )
    description = _described(path, chosen, labels, unit)
    layout = _with_unit(path, layout_of(description), chosen, notes)
    _check_rate(path, chosen)
    if chosen.clock_segments > 1:
        notes.append(
            f"The clock of stream {chosen.label} was set anew {chosen.clock_segments - 1} times; the offsets "
            "that the file holds put the samples of all parts on one clock."
        )
    texts = _marker_streams(path, streams, chosen, markers)
    if unread := [other.label for other in streams if other is not chosen and other not in texts]:
        notes.append(f"{path.name} has {len(unread)} other streams, which are left out: {', '.join(unread)}.")
    shift = _MOVED_TO_S - math.floor(chosen.stamps[0]) if abs(chosen.stamps[0]) > _UNIX_S else 0.0
    labelled = [
        Marker(float(stamp) + shift, label, text.label)
        for text in texts
        for stamp, label in zip(text.stamps, _labels(text), strict=True)
    ]
    labelled += _edges(layout, chosen, shift)
    return EegFile(
        montage=layout.montage,
        blocks=lambda: _blocks(layout, chosen, shift),
        first_at=float(chosen.stamps.min()) + shift,
        last_at=float(chosen.stamps.max()) + shift,
        markers=sorted((m for m in labelled if not is_film_mark(m.label)), key=lambda marker: marker.stamp),
        film_marks=[FilmMark(m.stamp, m.label, m.stamp) for m in labelled if is_film_mark(m.label)],
        notes=notes,
    )


def _described(path: Path, stream: _Stream, labels: Sequence[str] | None, unit: str | None) -> Description:
    """Add what the caller says to what a stream says of its channels.

    Raises
    ------
    UsageError
        If the stream states no names, or other ones, or as many were not given; or if the unit is no voltage.
    """
    description = stream.description
    if unit is not None and microvolts(unit) is None:
        raise UsageError(
            "xdf-unit-unsupported", "--unit {unit} is no voltage. Give V, mV, uV or nV.", unit=unit
        )
    units = [text or (unit or "") for text in description.units]
    if labels is None:
        if any(description.labels):
            return replace(description, units=units)
        raise UsageError(
            "xdf-labels-missing",
            "stream {stream} of {path} states no names of its {count} channels. Give them with --channels, "
            "in the order of the stream, with commas between them.",
            stream=stream.label,
            path=path,
            count=len(description.labels),
        )
    if any(description.labels):
        raise UsageError(
            "xdf-labels-stated",
            "stream {stream} of {path} states the names of its channels, {labels}. Leave --channels out.",
            stream=stream.label,
            path=path,
            labels=description.labels[:12],
        )
    if len(labels) != len(description.labels):
        raise UsageError(
            "xdf-labels-count",
            "stream {stream} of {path} has {count} channels, and --channels names {given}.",
            stream=stream.label,
            path=path,
            count=len(description.labels),
            given=len(labels),
        )
    return replace(description, labels=list(labels), units=units)


def _load(path: Path, notes: list[str]) -> list[_Stream]:
    import pyxdf

    log = _Log()
    logger = logging.getLogger(pyxdf.pyxdf.__name__)
    logger.addHandler(log)
    propagated = logger.propagate
    logger.propagate = False
    try:
        with _unpacked(path) as file:
            listed = chunks(path, file, notes)
            complete: dict[int, set[int]] = {}
            loaded = _loaded(path, file, listed, complete)
            # Where a clock was set anew within a chunk, all of that chunk is read by pyxdf.
            if any(complete.values()):
                loaded = _loaded(path, file, listed, complete)
            streams = [_stream(number, values) for number, values in enumerate(loaded, start=1)]
    except (ParseError, ValueError, LookupError, TypeError, struct.error, EOFError) as error:
        raise damaged(path, f"{type(error).__name__}: {error}") from error
    finally:
        logger.removeHandler(log)
        logger.propagate = propagated
    if log.errors:
        raise damaged(path, log.errors[0])
    return streams


def _loaded(
    path: Path, file: BinaryIO, listed: list[Chunk], complete: dict[int, set[int]]
) -> list[dict[str, Any]]:
    """Read the streams; `complete` is filled with the chunks that have to be copied whole."""
    import pyxdf

    copy, numbers = thinned(path, file, listed, complete)
    loaded, _ = pyxdf.load_xdf(copy, dejitter_timestamps=False)
    for values in loaded:
        stream = values["info"]["stream_id"]
        if stream in numbers and len(values["time_stamps"]):
            stamps, samples, uneven = numbers[stream].placed(values["time_stamps"])
            values["time_stamps"] = stamps
            values["time_series"] = samples
            complete.setdefault(stream, set()).update(uneven)
    return loaded


@contextmanager
def _unpacked(path: Path) -> Iterator[BinaryIO]:
    """Open a file; one that is compressed is unpacked into a file that is gone with the last who reads it."""
    with path.open("rb") as packed:
        if not path.name.lower().endswith(PACKED):
            yield packed
            return
        with tempfile.TemporaryFile() as file:
            try:
                with gzip.open(packed) as content:
                    shutil.copyfileobj(content, file)
            except (OSError, EOFError, zlib.error) as error:
                raise damaged(path, f"it cannot be unpacked ({error})") from error
            file.seek(0)
            yield file


class _Log(logging.Handler):
    """Gathers what pyxdf logs as errors: parts that it passed over."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.errors: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.errors.append(record.getMessage())


def _stream(number: int, values: dict[str, Any]) -> _Stream:
    info = values["info"]
    described = _first(info, "desc")
    listed = _first(described, "channels")
    channels = listed.get("channel", []) if isinstance(listed, dict) else []
    count = int(_text(info, "channel_count"))
    channels = [channels[n] if n < len(channels) else {} for n in range(count)]
    description = Description(
        name=_text(info, "name"),
        sfreq=float(_text(info, "nominal_srate")),
        labels=[_text(channel, "label") for channel in channels],
        types=[_text(channel, "type") for channel in channels],
        units=[_text(channel, "unit") for channel in channels],
        reference=_text(_first(described, "reference"), "label"),
        manufacturer=_text(described, "manufacturer"),
    )
    return _Stream(
        number=number,
        description=description,
        kind=_text(info, "type"),
        values=values["time_series"],
        stamps=np.asarray(values["time_stamps"], np.float64),
        strings=_text(info, "channel_format") == "string",
        clock_segments=len(info["clock_segments"]),
    )


def _first(tree: Any, key: str) -> Any:
    """Return the first element of a name of what pyxdf makes of XML: lists of dicts or of texts."""
    values = tree.get(key) if isinstance(tree, dict) else None
    return values[0] if values else None


def _text(tree: Any, key: str) -> str:
    value = _first(tree, key)
    return value.strip() if isinstance(value, str) else ""


def _eeg_stream(path: Path, streams: Sequence[_Stream], name: str | None) -> _Stream:
    if name is not None:
        matching = _named(streams, name)
    else:
        matching = [stream for stream in streams if stream.kind.lower() == "eeg"]
    filled = [stream for stream in matching if len(stream.stamps)]
    if len(filled) == 1:
        return filled[0]
    raise UsageError(
        "xdf-eeg-stream-unclear",
        "{path} has {count} streams with samples that {match}. Choose that of the EEG with --stream NAME "
        "or its number; the file has {available}.",
        path=path,
        count=len(filled),
        match="are of the type EEG" if name is None else f"are '{name}'",
        available=[f"{stream.label}: {len(stream.stamps)} samples" for stream in streams],
    )


def _named(streams: Sequence[_Stream], name: str) -> list[_Stream]:
    by_name = [stream for stream in streams if stream.description.name == name]
    return by_name or [stream for stream in streams if str(stream.number) == name]


def _marker_streams(path: Path, streams: Sequence[_Stream], eeg: _Stream, name: str | None) -> list[_Stream]:
    irregular = [stream for stream in streams if stream is not eeg and not stream.description.sfreq]
    if name is None:
        return irregular
    matching = _named(irregular, name)
    if len(matching) != 1:
        raise UsageError(
            "xdf-marker-stream-unclear",
            "{path} has {count} marker streams '{name}'. Give --markers a name or number of {available}.",
            path=path,
            count=len(matching),
            name=name,
            available=[stream.label for stream in irregular],
        )
    # Film markers of `rtdecode play` have a stream of their own, which is never that of the triggers.
    return [*matching, *(stream for stream in irregular if any(map(is_film_mark, _labels(stream))))]


def _labels(stream: _Stream) -> list[str]:
    if stream.strings:
        return [str(texts[0]) for texts in stream.values]
    return [f"{value:g}" for value in np.asarray(stream.values, np.float64)[:, 0]]


def _with_unit(path: Path, layout: Layout, stream: _Stream, notes: list[str]) -> Layout:
    """Conclude a unit that the stream does not state from the size of its data, as a session does."""
    if not np.isnan(layout.scale).any():
        return layout
    rows = [n for n, kind in enumerate(layout.montage.kinds) if kind == "eeg"]
    second = round(_JUDGED_S * layout.montage.sfreq)
    data = np.asarray(stream.values[:second], np.float64)[:, layout.columns[rows]]
    rms = float(np.median(detrended(data.T).std(axis=1)))
    scale = infer_unit(rms)
    if scale is None:
        raise GeometryError(
            "xdf-unit-unknown",
            "stream {stream} of {path} states no unit, and data of {rms:.3g} rms do not tell which. Give it "
            "with --unit.",
            stream=stream.label,
            path=path,
            rms=rms,
        )
    notes.append(f"Stream {stream.label} states no unit: {scale:g} microvolts, as its {rms:.3g} rms say.")
    return layout.with_unit(scale)


def _check_rate(path: Path, stream: _Stream) -> None:
    """Refuse a stream that was sent at another rate than it states."""
    check = RateCheck(stream.description.sfreq)
    size = max(1, round(CHUNK_S * stream.description.sfreq))
    newest = -math.inf
    for first in range(0, len(stream.stamps), size):
        stamps = stream.stamps[first : first + size]
        newest = max(newest, float(stamps[-1]))
        if fault := check.push(stamps, newest):
            raise GeometryError(
                "xdf-rate-mismatch",
                "stream {stream} of {path}: {fault}. Windows cannot be cut from it.",
                stream=stream.label,
                path=path,
                fault=fault,
            )


def _blocks(layout: Layout, stream: _Stream, shift: float) -> Iterator[Block]:
    size = max(1, round(CHUNK_S * layout.montage.sfreq))
    for first in range(0, len(stream.stamps), size):
        part = slice(first, first + size)
        yield layout.convert(stream.values[part]), stream.stamps[part] + shift


def _edges(layout: Layout, stream: _Stream, shift: float) -> list[Marker]:
    edges = EdgeDetector(layout.stim)
    values = np.asarray(stream.values)
    triggers = edges.push(values, stream.stamps + shift, 0.0) if layout.stim else []
    return [Marker(trigger.stamp, trigger.label, f"stim channel of {stream.label}") for trigger in triggers]
