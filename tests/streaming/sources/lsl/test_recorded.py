"""Recorded EEG from real amplifiers, sent by programs that are not ours."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pylsl
import pytest

from rtdecode.clocks.sample_clock import SampleClock
from rtdecode.eeg.channels import names
from rtdecode.types import EegChunk, Trigger
from streaming.sources.lsl.source import LslSource

pyxdf = pytest.importorskip("pyxdf")
pytest.importorskip("mne_lsl")

# mne-lsl's player in a process of its own: its liblsl is another version than pylsl's.
_PLAYER = """
import sys
from mne_lsl.player import PlayerLSL
with PlayerLSL(sys.argv[1], chunk_size=int(sys.argv[3]), name=sys.argv[2]):
    print("on", flush=True)
    sys.stdin.read()
"""
_BRAINVISION = {
    # file: how its binary is laid out, microvolts per unit, channels in volts, samples that are compared
    "test": (np.int16, "F", 0.5, 26, 9500),
    "test_old_layout_latin1_software_filter": (np.float32, "C", 0.1, 29, 1000),
}
_CAP = ("Fp1", "Fp2", "C3", "C4", "P7", "P8", "O1", "O2")


@pytest.mark.full
@pytest.mark.parametrize("file", _BRAINVISION)
def test_a_brainvision_recording_arrives_bit_by_bit(data_root: Path, file: str) -> None:
    kind, order, resolution, voltages, samples = _BRAINVISION[file]
    header = data_root / "scanner/mne_brainvision" / f"{file}.vhdr"
    labels, sent = brainvision(header, kind, order, resolution)
    name = f"real-{os.getpid()}-{len(file)}"
    source = LslSource(name)
    items = []
    with player(header, name, chunk=25):
        polled(source, items, lambda: count(items)[0] >= samples)
        source.close()
    got = joined(items)
    montage = source.montage
    assert montage is not None
    assert len(montage.channels) == voltages
    rows = [names(labels).index(channel) for channel in montage.channels]
    sent = sent[rows].astype(np.float32)
    start = place(got.data[:, :100], sent)
    assert np.array_equal(got.data, sent[:, (start + np.arange(got.data.shape[1])) % sent.shape[1]])
    clock = SampleClock(montage.sfreq)
    pieces = [piece for c in items if isinstance(c, EegChunk) for piece in clock.push(c.stamps, c.arrived_at)]
    assert sum(piece.stop - piece.start for piece in pieces) == got.data.shape[1]
    assert (clock.lost, clock.gaps) == (0, 0)


def test_an_xdf_recording_with_a_clock_reset_arrives_bit_by_bit(data_root: Path) -> None:
    signals, marks = xdf(data_root / "scanner/xdf_example_files/clock_resets.xdf")
    sent = signals["time_series"]
    raw = signals["time_stamps"]
    labels = [text[0] for text in marks["time_series"]]
    label_stamps = marks["time_stamps"]
    name = f"real-{os.getpid()}-xdf"
    eeg = outlet(name, len(sent.T))
    markers = marker_outlet(name)
    source = LslSource(name)
    items = []
    polled(source, items, lambda: source.has_triggers and eeg.have_consumers() and markers.have_consumers())
    # The first stamps lie on LSL's clock, as those of an amplifier do: others would be placed by arrival.
    shift = pylsl.local_clock() - raw[499]
    raw = raw + shift
    label_stamps = label_stamps + shift
    eeg.push_chunk(sent[:500], raw[:500].tolist())
    polled(source, items, lambda: count(items)[0] == 500)
    for first in range(500, len(sent), 500):
        eeg.push_chunk(sent[first : first + 500], raw[first : first + 500].tolist())
        items += source.poll()
    for text, stamp in zip(labels, label_stamps, strict=True):
        markers.push_sample([text], stamp)
    polled(source, items, lambda: count(items) == (len(raw), len(labels)))
    source.close()
    got = joined(items)
    triggers = [item for item in items if isinstance(item, Trigger)]
    assert np.array_equal(got.data, sent.T)
    # Both clocks are this machine's: the offset between them is a fraction of a millisecond.
    assert np.abs(got.stamps - raw).max() < 2e-3
    assert [t.label for t in triggers] == labels
    assert np.abs(np.array([t.stamp for t in triggers]) - label_stamps).max() < 2e-3


def brainvision(header: Path, kind: type, order: Any, resolution: float) -> tuple[list[str], np.ndarray]:
    """Labels and microvolts, (channel, sample), straight from the files."""
    labels = re.findall(r"^Ch\d+=([^,]*),", header.read_text("latin-1"), re.MULTILINE)
    raw = np.fromfile(header.with_suffix(".eeg"), np.dtype(kind).newbyteorder("<"))
    return labels, raw.reshape((len(labels), -1), order=order).astype(np.float64) * resolution


@contextmanager
def player(header: Path, name: str, chunk: int) -> Iterator[None]:
    """Replay a recording over and over, at its own pace."""
    command = [sys.executable, "-W", "ignore", "-c", _PLAYER, str(header), name, str(chunk)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    try:
        assert "on\n" in process.stdout, "mne-lsl's player did not start"
        yield
    finally:
        process.communicate(timeout=20)


def place(first: np.ndarray, recording: np.ndarray) -> int:
    """Where in a recording that repeats itself some samples are; there is one such place."""
    length = first.shape[1]
    twice = np.concatenate([recording, recording[:, :length]], axis=1)
    where = np.flatnonzero((recording == first[:, :1]).all(axis=0))
    starts = [i for i in where if np.array_equal(twice[:, i : i + length], first)]
    assert len(starts) == 1
    return int(starts[0])


def xdf(file: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The signal and the markers of a recording, with the stamps as they were sent."""
    streams, _ = pyxdf.load_xdf(
        file, synchronize_clocks=False, dejitter_timestamps=False, handle_clock_resets=False
    )
    by_type = {stream["info"]["type"][0]: stream for stream in streams}
    return by_type["EEG"], by_type["Markers"]


def outlet(name: str, channels: int) -> pylsl.StreamOutlet:
    info = pylsl.StreamInfo(name, "EEG", channels, 100.0, pylsl.cf_float32, name)
    described = info.desc().append_child("channels")
    for label in _CAP[:channels]:
        channel = described.append_child("channel")
        for key, value in (("label", label), ("unit", "microvolts"), ("type", "EEG")):
            channel.append_child_value(key, value)
    return pylsl.StreamOutlet(info)


def marker_outlet(name: str) -> pylsl.StreamOutlet:
    return pylsl.StreamOutlet(pylsl.StreamInfo(f"{name}-markers", "Markers", 1, 0, pylsl.cf_string, name))


def polled(source: LslSource, items: list[Any], condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Poll into a list until something is so."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"{source.state}; {count(items)} so far"
        items += source.poll()
        time.sleep(0.005)


def count(items: list[Any]) -> tuple[int, int]:
    """Samples and triggers."""
    samples = sum(len(item.stamps) for item in items if isinstance(item, EegChunk))
    return samples, sum(isinstance(item, Trigger) for item in items)


def joined(items: list[Any]) -> EegChunk:
    """All samples in one chunk."""
    chunks = [item for item in items if isinstance(item, EegChunk)]
    data = np.concatenate([c.data for c in chunks], 1)
    stamps = np.concatenate([c.stamps for c in chunks])
    return EegChunk(data, stamps, chunks[-1].arrived_at)
