"""Read EEG files by MNE-Python: BrainVision, EDF and BDF, EEGLAB, FIF.

The samples of a file follow each other at its rate, and the first of them has the stamp 0. Nothing is
filtered or referenced anew. Units are read from the file once more (`rtdecode.eeg.file_units`).
"""

from collections.abc import Iterator
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode.disk.tsv import read_tsv
from rtdecode.eeg import channels
from rtdecode.eeg.file_units import microvolts_of
from rtdecode.eeg.mne_file import open_file
from rtdecode.errors import UsageError
from rtdecode.types import Montage
from streaming.importing.eeg import CHUNK_S, Block, EegFile, Marker
from streaming.sources.lsl.stim_channel import EdgeDetector

SUFFIXES = (".vhdr", ".edf", ".bdf", ".set", ".fif", ".fif.gz")
# Files that belong to one of these, and what is given instead.
PARTS = {".eeg": ".vhdr", ".vmrk": ".vhdr", ".fdt": ".set"}
# What a session keeps of a stream.
_RECORDED = ("eeg", "ecg", "eog", "reference")
# Formats that state when the first sample was acquired, in local time.
_LOCAL_TIME = (".vhdr", ".edf", ".bdf")
# Length of what is read from the disk in one go, s.
_READ_S = 10.0
_MICROVOLTS = 1e6
# Annotations at which programs write that samples do not follow each other, or were taken out.
_BREAKS = ("New Segment", "boundary", "BAD_ACQ_SKIP", "EDGE boundary")


def read_file(path: Path) -> EegFile:
    """Read the EEG of a file.

    Raises
    ------
    UsageError
        If the file cannot be read, has no EEG channel, or states units that are not known.
    """
    raw = open_file(path, "import")
    labels = channels.names(raw.ch_names)
    types = raw.get_channel_types()
    kinds = tuple(_kind(label, kind) for label, kind in zip(labels, types, strict=True))
    rows = [row for row, kind in enumerate(kinds) if kind in _RECORDED]
    if "eeg" not in kinds:
        raise UsageError(
            "import-eeg-channel-missing",
            "{path} has no EEG channel; it has {channels}. Name the channels as the 10-20 system does.",
            path=path,
            channels=list(labels)[:12],
        )
    sfreq = float(raw.info["sfreq"])
    recorded = tuple(labels[row] for row in rows)
    if twice := sorted({label for label in recorded if recorded.count(label) > 1}):
        raise UsageError(
            "import-eeg-channel-repeated",
            "{path} has more than one channel called {channels}. Give each its own name.",
            path=path,
            channels=twice,
        )
    montage = Montage(recorded, sfreq, "unknown", tuple(kinds[row] for row in rows))
    if path.name.lower().endswith((".fif", ".fif.gz")):
        scale = np.full(len(rows), _MICROVOLTS)
    else:
        scale = microvolts_of(path, raw, kinds)[rows]
    stim = [row for row, kind in enumerate(kinds) if kind == "stim"]
    markers = [*_annotated(path, raw), *_edges(raw, stim, sfreq)]
    notes = _gaps(path, raw)
    return EegFile(
        montage=montage,
        blocks=partial(_blocks, raw, rows, scale[:, None], sfreq),
        first_at=0.0,
        last_at=(raw.n_times - 1) / sfreq,
        markers=sorted(markers, key=lambda marker: marker.stamp),
        notes=notes,
        offline=_offline(path, raw),
        began=_began(path, raw),
    )


def read_triggers(path: Path) -> list[Marker]:
    """Read volume triggers from a table with the column ``onset``, seconds after the first sample.

    Raises
    ------
    UsageError
        If the table cannot be read, or has no such column or something else than numbers in it.
    """
    markers = []
    for row in read_tsv(path):
        try:
            stamp = float(row["onset"])
        except (KeyError, ValueError) as error:
            raise UsageError(
                "import-triggers-malformed",
                "{path} is no table of triggers ({error}): it needs a column onset with seconds after the "
                "first sample.",
                path=path,
                error=error,
            ) from error
        text = row.get("value") or row.get("trial_type") or "trigger"
        markers.append(Marker(stamp, text, path.name))
    return markers


def _kind(label: str, mne_type: str) -> str:
    # MNE-Python calls what it does not know EEG, so the label may say more.
    return channels.kind_of(label, "" if mne_type in ("eeg", "misc") else mne_type)


def _annotated(path: Path, raw: Any) -> list[Marker]:
    notes = raw.annotations
    # Annotations of a file with a date count from its clock's zero, which may lie before the first sample.
    zero = raw.first_time if notes.orig_time is not None else 0.0
    return [
        # BrainVision puts the kind of marker before its text: "Response/R128".
        Marker(float(onset) - zero, str(text).rpartition("/")[2].strip(), path.name)
        for onset, text in zip(notes.onset, notes.description, strict=True)
        if not str(text).startswith(_BREAKS)
    ]


def _gaps(path: Path, raw: Any) -> list[str]:
    notes = raw.annotations
    zero = raw.first_time if notes.orig_time is not None else 0.0
    onsets = [
        float(onset) - zero
        for onset, text in zip(notes.onset, notes.description, strict=True)
        if str(text).startswith(_BREAKS) and onset - zero > 0
    ]
    if not onsets:
        return []
    listed = ", ".join(f"{onset:.3f}" for onset in onsets[:8])
    sentence = (
        f"{path.name} was interrupted {len(onsets)} times, at {listed} s; how long it was, the file does not "
        "say to its readers. What comes after the first interruption lies too early."
    )
    return [sentence]


def _offline(path: Path, raw: Any) -> str:
    """Say what was done to the signals after they were recorded; empty where nothing is known of it."""
    if path.suffix.lower() == ".set":
        return "EEGLAB's files do not tell how their signals were filtered, referenced or cleaned"
    if not path.name.lower().endswith((".fif", ".fif.gz")):
        return ""
    lowpass = raw.info["lowpass"]
    filtered = raw.info["highpass"] or (lowpass is not None and lowpass < 0.49 * raw.info["sfreq"])
    return "the file says that it was filtered" if filtered or raw.info["custom_ref_applied"] else ""


def _began(path: Path, raw: Any) -> datetime | None:
    """Return when the first sample was acquired, in local time, as far as a file states it."""
    # FIF and EEGLAB state it in the time of another zone, or not at all.
    if path.suffix.lower() not in _LOCAL_TIME or raw.info["meas_date"] is None:
        return None
    # MNE-Python calls the local time of these files UTC.
    return raw.info["meas_date"].replace(tzinfo=None)


def _blocks(raw: Any, rows: list[int], scale: NDArray[np.float64], sfreq: float) -> Iterator[Block]:
    size = max(1, round(CHUNK_S * sfreq))
    step = size * max(1, round(_READ_S / CHUNK_S))
    for first in range(0, raw.n_times, step):
        stop = min(first + step, raw.n_times)
        data = (raw.get_data(picks=rows, start=first, stop=stop) * scale).astype(np.float32)
        for start in range(0, stop - first, size):
            part = data[:, start : start + size]
            yield part, np.arange(first + start, first + start + part.shape[1]) / sfreq


def _edges(raw: Any, rows: list[int], sfreq: float) -> list[Marker]:
    if not rows:
        return []
    edges = EdgeDetector(list(range(len(rows))))
    markers = []
    step = round(_READ_S * sfreq)
    for first in range(0, raw.n_times, step):
        values = raw.get_data(picks=rows, start=first, stop=min(first + step, raw.n_times)).T
        stamps = np.arange(first, first + len(values)) / sfreq
        triggers = edges.push(values, stamps, 0.0)
        markers += [Marker(trigger.stamp, trigger.label, "stim channel") for trigger in triggers]
    return markers
