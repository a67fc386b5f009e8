"""Write XDF files as LabRecorder does (https://github.com/sccn/xdf/wiki/Specifications)."""

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

import numpy as np

from rtdecode.types import EegChunk, Trigger

if TYPE_CHECKING:
    from rtdecode.phantom.session import PhantomSession


def eeg_header(
    name: str,
    labels: Sequence[str],
    sfreq: float,
    *,
    kind: str = "EEG",
    form: str = "float32",
    unit: str = "microvolts",
    manufacturer: str = "",
) -> str:
    """The XML of an EEG stream."""
    channels = "".join(
        f"<channel><label>{escape(label)}</label><unit>{unit}</unit><type>EEG</type></channel>"
        for label in labels
    )
    return (
        f"<?xml version='1.0'?><info><name>{escape(name)}</name><type>{kind}</type>"
        f"<channel_count>{len(labels)}</channel_count><nominal_srate>{sfreq:g}</nominal_srate>"
        f"<channel_format>{form}</channel_format><desc><manufacturer>{escape(manufacturer)}</manufacturer>"
        f"<reference><label>FCz</label></reference><channels>{channels}</channels></desc></info>"
    )


def marker_header(name: str) -> str:
    """The XML of a stream of markers."""
    return (
        f"<?xml version='1.0'?><info><name>{escape(name)}</name><type>Markers</type><channel_count>1"
        "</channel_count><nominal_srate>0</nominal_srate><channel_format>string</channel_format><desc/>"
        "</info>"
    )


def chunk(tag: int, content: bytes) -> bytes:
    """A chunk with its length in front."""
    return b"\x04" + struct.pack("<IH", len(content) + 2, tag) + content


def stream_chunk(tag: int, stream: int, content: bytes) -> bytes:
    return chunk(tag, struct.pack("<I", stream) + content)


def samples(stream: int, stamps: np.ndarray, values: np.ndarray) -> bytes:
    """Samples, (sample, channel), each with its stamp."""
    parts = [
        b"\x08" + struct.pack("<d", stamp) + row.tobytes() for stamp, row in zip(stamps, values, strict=True)
    ]
    return stream_chunk(3, stream, b"\x04" + struct.pack("<I", len(parts)) + b"".join(parts))


def texts(stream: int, stamps: Sequence[float], labels: Sequence[str]) -> bytes:
    parts = [
        b"\x08" + struct.pack("<d", stamp) + b"\x04" + struct.pack("<I", len(text.encode())) + text.encode()
        for stamp, text in zip(stamps, labels, strict=True)
    ]
    return stream_chunk(3, stream, b"\x04" + struct.pack("<I", len(parts)) + b"".join(parts))


def clock_offset(stream: int, time: float, value: float) -> bytes:
    return stream_chunk(4, stream, struct.pack("<dd", time, value))


def footer(stream: int, count: int) -> bytes:
    return stream_chunk(
        6, stream, f"<?xml version='1.0'?><info><sample_count>{count}</sample_count></info>".encode()
    )


def file_of(chunks: Sequence[bytes]) -> bytes:
    head = b"<?xml version='1.0'?><info><version>1.0</version></info>"
    return b"XDF:" + chunk(1, head) + b"".join(chunks)


def write_session(path: Path, session: "PhantomSession") -> Path:
    """Write what LabRecorder makes of the streams of a simulated session."""
    parts = [
        stream_chunk(
            2,
            1,
            eeg_header(
                "phantom",
                session.montage.channels,
                session.montage.sfreq,
                manufacturer="rtdecode phantom (simulated)",
            ).encode(),
        ),
        stream_chunk(2, 2, marker_header("phantom-markers").encode()),
    ]
    for item in session.events():
        if isinstance(item, EegChunk):
            parts.append(samples(1, item.stamps, np.ascontiguousarray(item.data.T)))
        elif isinstance(item, Trigger):
            parts.append(texts(2, [item.stamp], [item.label]))
    path.write_bytes(file_of([*parts, footer(1, session.samples), footer(2, session.volumes)]))
    return path
