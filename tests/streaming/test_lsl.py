"""The LSL source against real outlets in this process."""

import os
import time
from collections.abc import Callable
from itertools import count

import numpy as np
import pylsl
import pytest

from rtdecode.errors import GeometryError
from rtdecode.types import EegChunk, Trigger
from streaming.sources.lsl import LslSource, layout, select
from tests.streaming.player import SFREQ, markers, outlet

_NUMBER = count()


@pytest.fixture
def name() -> str:
    return f"lsl-test-{os.getpid()}-{next(_NUMBER)}"


def until(condition: Callable[[], bool], seconds: float = 15.0) -> None:
    """Wait for something real, within bounds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(0.01)


def connect(source: LslSource) -> list[EegChunk | Trigger]:
    found: list[EegChunk | Trigger] = []

    def there() -> bool:
        found.extend(source.poll())
        return source.montage is not None

    until(there)
    return found


def collect(source: LslSource, samples: int, triggers: int = 0) -> tuple[EegChunk, list[Trigger]]:
    """Poll until that much has come; the chunks joined."""
    items: list[EegChunk | Trigger] = []

    def enough() -> bool:
        items.extend(source.poll())
        got = sum(item.data.shape[1] for item in items if isinstance(item, EegChunk))
        return got >= samples and sum(isinstance(item, Trigger) for item in items) >= triggers

    until(enough)
    chunks = [item for item in items if isinstance(item, EegChunk)]
    data, stamps = np.concatenate([c.data for c in chunks], 1), np.concatenate([c.stamps for c in chunks])
    return EegChunk(data, stamps, chunks[-1].arrived_at), [i for i in items if isinstance(i, Trigger)]


def test_samples_and_triggers_arrive_with_their_own_stamps(name: str) -> None:
    eeg, marks = outlet(name), markers(name)
    source = LslSource(name)
    connect(source)
    until(lambda: (source.poll(), source.has_triggers)[1])
    until(lambda: bool(eeg.have_consumers() and marks.have_consumers()))
    sent = np.random.default_rng(0).normal(size=(3000, 4)).astype(np.float32)
    first = pylsl.local_clock() - 6
    eeg.push_chunk(sent, first + 2999 / SFREQ)
    marks.push_sample(["R128"], first + 0.25)
    chunk, triggers = collect(source, 3000, triggers=1)
    assert np.array_equal(chunk.data, sent.T)
    assert np.allclose(chunk.stamps, first + np.arange(3000) / SFREQ, atol=2e-3)
    assert np.allclose(np.diff(chunk.stamps), 1 / SFREQ, atol=1e-6)
    assert [t.label for t in triggers] == ["R128"]
    assert triggers[0].stamp == pytest.approx(first + 0.25, abs=2e-3)
    assert source.montage is not None
    assert (source.montage.channels, source.montage.sfreq) == (("Fp1", "Fz", "Cz", "Oz"), SFREQ)
    assert source.montage.reference == "FCz"
    source.close()


def test_other_channels_are_dropped_volts_become_microvolts_and_stim_edges_triggers(name: str) -> None:
    channels, types = ("ECG", "Cz", "TRIG", "Oz"), ("ECG", "EEG", "stim", "EEG")
    eeg = outlet(name, channels, types=types, unit="volts")
    source = LslSource(name)
    connect(source)
    until(lambda: bool(eeg.have_consumers()))
    sent = np.zeros((200, 4), np.float32)
    sent[:, 0], sent[:, 1], sent[:, 3] = 9, 1e-6, -2e-6
    sent[50:60, 2], sent[120:, 2] = 8, 16
    first = pylsl.local_clock()
    for part in range(0, 200, 30):
        block = sent[part : part + 30]
        eeg.push_chunk(block, first + (part + len(block) - 1) / SFREQ)
    chunk, triggers = collect(source, 200, triggers=2)
    assert source.montage is not None
    assert source.montage.channels == ("Cz", "Oz")
    assert np.allclose(chunk.data, [[1.0], [-2.0]], atol=1e-5)
    assert [t.label for t in triggers] == ["8", "16"]
    offsets = [t.stamp - first for t in triggers]
    assert offsets == pytest.approx([50 / SFREQ, 120 / SFREQ], abs=2e-3)
    source.close()


def test_a_stream_is_found_by_name_else_type_else_source_id(name: str) -> None:
    infos = [
        pylsl.StreamInfo("a", "EEG", 4, SFREQ, pylsl.cf_float32, "one"),
        pylsl.StreamInfo("b", "EEG", 4, SFREQ, pylsl.cf_float32, "two"),
        pylsl.StreamInfo("EEG", "Gaze", 2, SFREQ, pylsl.cf_float32, "three"),
        pylsl.StreamInfo("one", "Markers", 1, 0, pylsl.cf_string, "four"),
    ]
    chosen = {
        wanted: [s.name() for s in select(infos, wanted)] for wanted in ("b", "EEG", "Gaze", "one", "x")
    }
    assert chosen == {"b": ["b"], "EEG": ["EEG"], "Gaze": ["EEG"], "one": ["a"], "x": []}
    assert [s.name() for s in select(infos[:2], "EEG")] == ["a", "b"]


def test_a_stream_that_is_not_there_is_no_error_and_what_is_seen_is_said(name: str) -> None:
    other = outlet(f"{name}-other")
    source = LslSource(name)
    until(lambda: (source.poll(), f"{name}-other" in source.state)[1])
    assert source.montage is None
    assert f"'{name}'" in source.state
    eeg = outlet(name)
    connect(source)
    assert "4 EEG channels" in source.state
    source.close()
    del eeg, other


def test_a_stream_that_comes_back_is_read_again(name: str) -> None:
    eeg = outlet(name)
    source = LslSource(name)
    connect(source)
    until(lambda: bool(eeg.have_consumers()))
    eeg.push_chunk(np.ones((10, 4), np.float32))
    collect(source, 10)
    del eeg
    time.sleep(0.3)
    eeg = outlet(name)
    until(lambda: (source.poll(), bool(eeg.have_consumers()))[1], seconds=25)
    eeg.push_chunk(np.full((10, 4), 2, np.float32))
    chunk, _ = collect(source, 10)
    assert (chunk.data == 2).all()
    source.close()


def test_a_stream_without_labels_or_with_another_unit_is_refused(name: str) -> None:
    bare = pylsl.StreamInfo(name, "EEG", 4, SFREQ, pylsl.cf_float32, "")
    with pytest.raises(GeometryError, match="label"):
        layout(bare)
    stream = outlet(name, unit="degrees")
    with pytest.raises(GeometryError, match="degrees"):
        layout(stream.get_info())
