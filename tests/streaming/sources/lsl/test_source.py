"""The LSL source against real outlets in this process."""

import copy
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from types import FrameType

import numpy as np
import pylsl
import pytest

from rtdecode import liblsl
from rtdecode.errors import GeometryError, UsageError
from rtdecode.types import EegChunk, Montage, Trigger
from streaming.client import SOURCE
from streaming.sources.lsl.inlet import Inlet
from streaming.sources.lsl.layout import layout
from streaming.sources.lsl.source import LslSource, select
from streaming.sources.lsl.trigger_streams import candidates
from tests.refusals import refused
from tests.streaming.player import SFREQ, markers, outlet

_NUMBER = count()


@pytest.fixture
def name() -> str:
    return f"lsl-test-{os.getpid()}-{next(_NUMBER)}"


def until(condition: Callable[[], bool], seconds: float = 120.0) -> None:
    """Wait for something real, within bounds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(0.01)


def connect(source: LslSource) -> list[EegChunk | Trigger]:
    items: list[EegChunk | Trigger] = []

    def is_connected() -> bool:
        items.extend(source.poll())
        return source.montage is not None

    until(is_connected)
    return items


def collect(source: LslSource, samples: int, triggers: int = 0) -> tuple[EegChunk, list[Trigger]]:
    """Poll until that much has come; the chunks joined."""
    items: list[EegChunk | Trigger] = []

    def enough() -> bool:
        items.extend(source.poll())
        got = sum(item.data.shape[1] for item in items if isinstance(item, EegChunk))
        return got >= samples and sum(isinstance(item, Trigger) for item in items) >= triggers

    until(enough)
    chunks = [item for item in items if isinstance(item, EegChunk)]
    data = np.concatenate([c.data for c in chunks], 1)
    stamps = np.concatenate([c.stamps for c in chunks])
    return EegChunk(data, stamps, chunks[-1].arrived_at), [i for i in items if isinstance(i, Trigger)]


def test_samples_and_triggers_arrive_with_their_own_stamps(name: str) -> None:
    eeg = outlet(name)
    marks = markers(name)
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
    assert np.allclose(chunk.stamps, first + np.arange(3000) / SFREQ, atol=0.02)
    assert np.allclose(np.diff(chunk.stamps), 1 / SFREQ, atol=1e-6)
    assert [t.label for t in triggers] == ["R128"]
    assert triggers[0].stamp == pytest.approx(first + 0.25, abs=0.02)
    assert source.montage is not None
    assert (source.montage.channels, source.montage.sfreq) == (("Fp1", "Fz", "Cz", "Oz"), SFREQ)
    assert source.montage.reference == "FCz"
    source.close()


def test_ecg_is_kept_volts_become_microvolts_and_stim_edges_triggers(name: str) -> None:
    channels = ("ECG", "cz", "TRIG", "EEG Oz-Ref")
    types = ("ECG", "EEG", "stim", "EEG")
    eeg = outlet(name, channels, types=types, unit="volts")
    source = LslSource(name)
    connect(source)
    until(lambda: bool(eeg.have_consumers()))
    sent = np.zeros((200, 4), np.float32)
    sent[:, 0], sent[:, 1], sent[:, 3] = 9, 1e-6, -2e-6
    sent[50:60, 2] = 8
    sent[120:, 2] = 16
    first = pylsl.local_clock()
    for part in range(0, 200, 30):
        block = sent[part : part + 30]
        eeg.push_chunk(block, first + (part + len(block) - 1) / SFREQ)
    chunk, triggers = collect(source, 200, triggers=2)
    assert source.montage is not None
    assert source.montage.channels == ("ECG", "Cz", "Oz")
    assert source.montage.kinds == ("ecg", "eeg", "eeg")
    assert np.allclose(chunk.data, [[9e6], [1.0], [-2.0]], atol=1e-5)
    assert [t.label for t in triggers] == ["8", "16"]
    offsets = [t.stamp - first for t in triggers]
    assert offsets == pytest.approx([50 / SFREQ, 120 / SFREQ], abs=0.02)
    source.close()


def test_a_stream_is_found_by_name_else_type_else_source_id(name: str) -> None:
    infos = [
        pylsl.StreamInfo("a", "EEG", 4, SFREQ, pylsl.cf_float32, "one"),
        pylsl.StreamInfo("b", "EEG", 4, SFREQ, pylsl.cf_float32, "two"),
        pylsl.StreamInfo("EEG", "Gaze", 2, SFREQ, pylsl.cf_float32, "three"),
        pylsl.StreamInfo("one", "Markers", 1, 0, pylsl.cf_string, "four"),
    ]
    chosen = {query: [s.name() for s in select(infos, query)] for query in ("b", "EEG", "Gaze", "one", "x")}
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


def test_the_clips_of_a_session_are_never_triggers(name: str) -> None:
    eeg = outlet(name)
    other = pylsl.StreamOutlet(pylsl.StreamInfo(f"{name}-box", "Markers", 1, 0, pylsl.cf_string, name))
    # Opened last, so that it would be taken.
    clips = pylsl.StreamOutlet(
        pylsl.StreamInfo(f"{name}-clips", "Markers", 1, 0, pylsl.cf_string, f"{SOURCE}{name}-clips")
    )
    network = pylsl.ContinuousResolver(forget_after=5.0)
    stream_names = [name, f"{name}-box", f"{name}-clips"]

    def streams() -> list[pylsl.StreamInfo]:
        return [info for info in network.results() if info.name() in stream_names]

    until(lambda: len(streams()) == 3)
    infos = streams()
    assert [candidate.info.name() for candidate in candidates(infos, name, infos[0].hostname())] == [
        f"{name}-box"
    ]
    del eeg, other, clips


def again(source: LslSource, stream: pylsl.StreamOutlet) -> None:
    until(lambda: (source.poll(), bool(stream.have_consumers()))[1], seconds=120)


def test_a_stream_that_comes_back_in_another_order_goes_on_in_the_first_one(name: str) -> None:
    eeg = outlet(name)
    marks = markers(name)
    source = LslSource(name)
    connect(source)
    until(lambda: (source.poll(), bool(eeg.have_consumers() and marks.have_consumers()))[1])
    eeg.push_chunk(np.ones((10, 4), np.float32))
    collect(source, 10)
    del eeg
    until(lambda: (source.poll(), "was closed" in source.state)[1])
    marks.push_sample(["R128"])
    until(lambda: any(isinstance(item, Trigger) for item in source.poll()))
    eeg = outlet(name, ("OZ", "Fp1", "extra", "CZ", "FZ"), source_id="another")
    until(lambda: (source.poll(), source.reopened)[1] == 1)
    again(source, eeg)
    eeg.push_chunk(np.tile(np.arange(5, dtype=np.float32), (10, 1)))
    chunk, _ = collect(source, 10)
    assert (chunk.data.T == [1, 4, 3, 0]).all()
    assert chunk.montage is None
    assert [word in note for word, note in zip(("was closed", "is back"), source.notes(), strict=True)]
    assert (source.montage and source.montage.channels, source.reopened) == (("Fp1", "Fz", "Cz", "Oz"), 1)
    marks.push_sample(["R128"])
    until(lambda: any(isinstance(item, Trigger) for item in source.poll()))
    source.close()


def test_another_rate_is_announced_and_lost_channels_are_refused_until_they_are_back(name: str) -> None:
    def needs_oz(montage: Montage) -> str | None:
        return None if "Oz" in montage.channels else "Oz is gone"

    eeg = outlet(name)
    source = LslSource(name, accept=needs_oz)
    connect(source)
    del eeg
    without_oz = outlet(name, ("Fp1", "Fz", "Cz", "Pz"))
    until(lambda: (source.poll(), "Oz is gone" in source.state)[1])
    del without_oz
    eeg = outlet(name, ("Fp1", "Fz", "Cz", "Oz", "Pz"), sfreq=1000)
    again(source, eeg)
    eeg.push_chunk(np.ones((10, 5), np.float32))
    chunk = next(i for i in collect_chunks(source, 10) if i.montage is not None)
    assert chunk.montage == source.montage == Montage(("Fp1", "Fz", "Cz", "Oz"), 1000)
    del eeg
    eeg = outlet(name, ("Oz", "Fp1", "Cz"), sfreq=1000)
    again(source, eeg)
    eeg.push_chunk(np.tile(np.array([3, 1, 2], np.float32), (10, 1)))
    chunks = collect_chunks(source, 10)
    assert chunks[0].montage == Montage(("Fp1", "Cz", "Oz"), 1000)
    assert (chunks[0].data.T == [1, 2, 3]).all()
    source.close()


def test_a_change_is_announced_although_the_stream_was_lost_before_its_first_sample(name: str) -> None:
    eeg = outlet(name)
    source = LslSource(name)
    connect(source)
    for times in (1, 2):
        del eeg
        eeg = outlet(name, sfreq=1000)
        until(lambda times=times: (source.poll(), source.reopened)[1] == times)
    again(source, eeg)
    eeg.push_chunk(np.ones((10, 4), np.float32))
    chunks = collect_chunks(source, 10)
    assert chunks[0].montage == source.montage == Montage(("Fp1", "Fz", "Cz", "Oz"), 1000)
    source.close()


def closed_within(source: LslSource, ask: Callable[[LslSource], object], number: int) -> bool:
    """Ask a copy of a source that is closed, as by another thread, before one instruction of the answer.

    Returns
    -------
    bool
        Whether the answer had so many instructions.
    """
    source_copy = copy.copy(source)
    instructions = count(1)
    is_closed = False

    def trace(frame: FrameType, event: str, _: object) -> Callable[..., object]:
        nonlocal is_closed
        frame.f_trace_opcodes = True
        if event == "opcode" and not is_closed and next(instructions) == number:
            is_closed = True
            source_copy.close()
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        ask(source_copy)
    finally:
        sys.settrace(before)
    return is_closed


@pytest.mark.parametrize("ask", [lambda source: source.state, LslSource.notes], ids=["state", "notes"])
def test_a_stream_may_be_closed_while_its_note_is_asked_for(
    name: str, ask: Callable[[LslSource], object]
) -> None:
    """Another thread polls: what is there at one instruction may be gone at the next."""
    eeg = outlet(name)
    source = LslSource(name)
    connect(source)
    numbers = count(1)
    while closed_within(source, ask, next(numbers)):
        pass
    assert next(numbers) > 20
    source.close()
    del eeg


def collect_chunks(source: LslSource, samples: int) -> list[EegChunk]:
    chunks: list[EegChunk] = []

    def enough() -> bool:
        chunks.extend(item for item in source.poll() if isinstance(item, EegChunk))
        return sum(chunk.data.shape[1] for chunk in chunks) >= samples

    until(enough)
    return chunks


@pytest.mark.parametrize(("size", "word", "scale"), [(20.0, "microvolts", 1.0), (3e-5, "volts", 1e6)])
def test_a_missing_unit_is_concluded_from_the_data_and_said(
    name: str, size: float, word: str, scale: float
) -> None:
    eeg = outlet(name, unit="")
    source = LslSource(name)
    connect(source)
    until(lambda: bool(eeg.have_consumers()))
    sent = np.random.default_rng(1).normal(0, size, (2 * SFREQ, 4)).astype(np.float32)
    sent[: SFREQ // 2] = 0
    for part in range(0, len(sent), SFREQ // 4):
        eeg.push_chunk(sent[part : part + SFREQ // 4])
        time.sleep(0.01)
        assert part > SFREQ // 4 or not [i for i in source.poll() if isinstance(i, EegChunk)]
    chunk = np.concatenate([c.data for c in collect_chunks(source, len(sent))], 1)
    assert np.array_equal(chunk, (sent.T * np.float64(scale)).astype(np.float32))
    assert f"no unit: taken as {word}" in source.state
    assert [f"no unit: taken as {word}" in note for note in source.notes()] == [True]
    assert source.notes() == []
    source.close()


def test_what_piled_up_is_whole_and_dated_by_when_it_could_be_read(name: str) -> None:
    eeg = outlet(name, source_id="x")
    source = LslSource(name)
    connect(source)
    until(lambda: bool(eeg.have_consumers()))
    sent = np.arange(4000 * 4, dtype=np.float32).reshape(4000, 4)
    source.poll()
    polled = pylsl.local_clock()
    eeg.push_chunk(sent)
    time.sleep(0.5)
    chunks = collect_chunks(source, 4000)
    assert np.array_equal(np.concatenate([c.data for c in chunks], 1), sent.T)
    arrivals = [c.arrived_at for c in chunks]
    assert arrivals == sorted(arrivals)
    assert arrivals[0] <= polled
    assert arrivals[-1] >= polled + 0.5
    age = source.age_s(pylsl.local_clock())
    assert age is not None
    assert age >= 0
    source.close()


_READER = """
import sys, time
from streaming.sources.lsl.source import LslSource
source = LslSource("nobody", peers=sys.argv[1:])
time.sleep(600)
"""


def test_named_peers_are_asked_directly_and_so_are_those_of_the_site(tmp_path: Path) -> None:
    hosts = ("127.0.0.8", "127.0.0.9")
    with ExitStack() as stack:
        peers = [stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in hosts]
        peers[0].bind((hosts[0], 0))
        port = peers[0].getsockname()[1]
        peers[1].bind((hosts[1], port))
        settings = tmp_path / "lsl_api.cfg"
        settings.write_text(f"[ports]\nBasePort = {port}\n[lab]\nKnownPeers = {{{hosts[0]}}} ; the lab's\n")
        env = os.environ | {"LSLAPICFG": str(settings)}
        command = [sys.executable, "-c", _READER, hosts[1]]
        reader = stack.enter_context(subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL))
        stack.callback(reader.kill)
        for peer in peers:
            peer.settimeout(120)
            assert peer.recv(2000).startswith(b"LSL:shortinfo")


def test_a_peer_with_a_port_is_refused() -> None:
    with refused(UsageError, "lsl-peer-invalid", invalid_peers="'host 16572'"):
        liblsl.reach(["host 16572"])


def test_a_stream_of_a_size_that_no_amplifier_has_is_refused_before_a_buffer_is_made(name: str) -> None:
    fast = pylsl.StreamOutlet(pylsl.StreamInfo(name, "EEG", 64, 1e6, pylsl.cf_float32, ""))
    source = LslSource(name)
    with refused(GeometryError, "lsl-stream-implausible", stream=name, explanation=re.compile("1e\\+06 Hz")):
        connect(source)
    assert not fast.have_consumers()
    wide = pylsl.StreamInfo(f"{name}-wide", "EEG", 5000, 250, pylsl.cf_float32, "")
    with refused(GeometryError, "lsl-stream-implausible", explanation=re.compile("5000 channels")):
        Inlet(wide)


def test_a_stream_that_comes_back_with_such_a_size_is_not_opened(name: str) -> None:
    first = outlet(name, source_id=f"{name}-id")
    source = LslSource(name)
    connect(source)
    del first
    until(lambda: (source.poll(), "waiting for it" in source.state)[1])
    fast = pylsl.StreamOutlet(pylsl.StreamInfo(name, "EEG", 64, 1e6, pylsl.cf_float32, f"{name}-id"))
    until(lambda: (source.poll(), "1e+06 Hz" in source.state)[1])
    assert not fast.have_consumers()
    again = outlet(name, source_id=f"{name}-id")
    until(lambda: (source.poll(), bool(again.have_consumers()))[1])


def test_a_stream_of_text_is_named(name: str) -> None:
    text = pylsl.StreamOutlet(pylsl.StreamInfo(name, "EEG", 1, 250, pylsl.cf_string, ""))
    source = LslSource(name)
    until(lambda: (source.poll(), "sends text, and no numbers" in source.state)[1])
    assert name in source.state
    del text


def test_a_stream_without_labels_or_with_another_unit_is_refused(name: str) -> None:
    bare = pylsl.StreamInfo(name, "EEG", 4, SFREQ, pylsl.cf_float32, "")
    with refused(GeometryError, "lsl-channels-or-sfreq-missing"):
        layout(bare)
    twice = outlet(name, ("T7", "T3", "Cz"))
    with refused(GeometryError, "lsl-channel-duplicate", channels=["T7"], labels=["T7", "T3"]):
        layout(twice.get_info())
    stream = outlet(name, unit="degrees")
    with refused(GeometryError, "lsl-channel-unit-unsupported", unit="degrees"):
        layout(stream.get_info())


def test_a_description_of_more_channels_than_any_amplifier_has_is_refused_at_once() -> None:
    """What a sender says of itself once it is open need not be what it announced."""
    with refused(GeometryError, "lsl-stream-implausible"):
        layout(pylsl.StreamInfo("many", "EEG", 2**31 - 1, SFREQ, pylsl.cf_float32, ""))
