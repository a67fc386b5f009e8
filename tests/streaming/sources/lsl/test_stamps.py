"""Stamps of another clock and stamps that jump, over real outlets and through a session's own chain."""

import os
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

import numpy as np
import pylsl
import pytest

from rtdecode.clocks.sample_clock import SampleClock
from rtdecode.errors import GeometryError
from rtdecode.types import EegChunk, Montage, Trigger
from streaming.checks.eeg_capture import EegCapture
from streaming.sources.lsl.inlet import ClockOffset
from streaming.sources.lsl.source import LslSource
from streaming.tools import doctor_eeg
from tests.refusals import refused
from tests.streaming.bundles import CHANNELS, make_bundle
from tests.streaming.player import SFREQ, markers, outlet

_NUMBER = count()


@pytest.fixture
def name() -> str:
    return f"stamps-test-{os.getpid()}-{next(_NUMBER)}"


class Sent:
    """An amplifier whose last channel counts samples, and what a session makes of its stamps."""

    def __init__(self, name: str, stamp: Callable[[np.ndarray], np.ndarray], *, marked: bool = False) -> None:
        self.eeg = outlet(name)
        self.marks = markers(name) if marked else None
        self.source = LslSource(name)
        self.clock = SampleClock(SFREQ)
        self.stamp = stamp
        self.began: float | None = None
        self.number = 0
        self.off: list[np.ndarray] = []
        self.triggers: list[Trigger] = []
        self.notes: list[str] = []

    def run(self, seconds: float, limit_s: float = 60.0) -> "Sent":
        last = time.monotonic() + limit_s
        while sum(map(len, self.off)) < seconds * SFREQ:
            assert time.monotonic() < last, (self.source.state, self.notes)
            self.send()
            for item in self.source.poll():
                self.take(item)
            self.notes += self.source.notes()
            time.sleep(0.005)
        self.source.close()
        return self

    def send(self) -> None:
        ready = self.eeg.have_consumers() and (self.marks is None or self.marks.have_consumers())
        if not ready:
            return
        self.began = pylsl.local_clock() if self.began is None else self.began
        due = int((pylsl.local_clock() - self.began) * SFREQ)
        if due - self.number < 10:
            return
        numbers = np.arange(self.number, due)
        data = np.repeat(numbers[:, None], len(CHANNELS), 1).astype(np.float32)
        stamps = self.stamp(self.began + numbers / SFREQ)
        self.eeg.push_chunk(data, [float(stamp) for stamp in stamps])
        for number in numbers[numbers % SFREQ == 0]:
            if self.marks is not None:
                stamp = self.stamp(np.array([self.began + number / SFREQ]))
                self.marks.push_sample([f"R{number // SFREQ}"], float(stamp[0]))
        self.number = due

    def take(self, item: EegChunk | Trigger) -> None:
        if isinstance(item, Trigger):
            self.triggers.append(item)
            return
        for piece in self.clock.push(item.stamps, item.arrived_at):
            self.off.append(piece.times - self.times(item.data[-1, piece.start : piece.stop]))

    def times(self, numbers: np.ndarray) -> np.ndarray:
        """When samples were acquired, s on the local clock."""
        assert self.began is not None
        return self.began + numbers.astype(float) / SFREQ


def test_unix_time_in_milliseconds_is_placed_by_arrival_and_its_triggers_too(name: str) -> None:
    unix = time.time() - pylsl.local_clock()
    sent = Sent(name, lambda local: 1e3 * (local + unix), marked=True).run(3.0)
    off = np.concatenate(sent.off)
    # A busy machine sends and reads late; without placing they are off by 1.8e9 s.
    assert np.abs(off).max() < 0.5
    assert sent.clock.report()["lost_samples"] == 0
    assert [note for note in sent.notes if "in milliseconds, lie" in note and "placed by arrival" in note]
    # Triggers lie among the samples that they were sent with.
    assert len(sent.triggers) >= 2
    for trigger in sent.triggers:
        expected = sent.times(np.array([int(trigger.label[1:]) * SFREQ]))[0]
        assert trigger.stamp - expected == pytest.approx(float(np.median(off)), abs=0.05)


def test_the_offset_of_a_clock_is_not_extended_over_a_jump() -> None:
    offset = ClockOffset()
    rng = np.random.default_rng(1)
    clock = SampleClock(SFREQ)
    true: list[np.ndarray] = []
    placed: list[np.ndarray] = []
    for second in range(60):
        second_start = 5000.0 + second
        if second % 2 == 0:
            offset.push(second_start, -700.0 + 3e-5 * second + rng.normal(0, 5e-5))
        for part in range(0, SFREQ, 50):
            local = second_start + np.arange(part, part + 50) / SFREQ
            # The sender's stamps jump by what somebody's recordings show.
            stamps = local + 700.0 - 3e-5 * (local - 5000.0) + 200_000.0 * (second >= 30)
            for piece in clock.push(stamps + offset.of(stamps), float(local[-1]) + 0.01):
                true.append(local[piece.start : piece.stop])
                placed.append(piece.times)
    report = clock.report()
    assert (report["lost_samples"], report["gaps"], report["epochs"]) == (0, 0, 2)
    off = np.concatenate(placed) - np.concatenate(true)
    assert np.abs(off).max() < 2e-3


def test_a_trigger_that_comes_before_the_first_sample_behind_a_jump_is_placed_by_its_arrival() -> None:
    clock = SampleClock(SFREQ)
    jump_s = 200_000.0
    for second in range(10):
        local = 5000.0 + second + np.arange(SFREQ) / SFREQ
        clock.push(local + jump_s * (second >= 6), float(local[-1]) + 0.01)
        if second == 5:
            assert clock.local(5006.0 + jump_s, 5006.01) == pytest.approx(5006.0, abs=1e-6)
            assert clock.local(5006.0, 5006.01) == 5006.0
    assert clock.local(5009.5 + jump_s, 5009.51) == pytest.approx(5009.5, abs=1e-6)
    # From a marker stream, whose stamps did not jump.
    assert clock.local(5009.5, 5009.51) == 5009.5


def test_irregular_stamps_of_another_clock_end_the_first_stream_in_words(name: str) -> None:
    sent = Sent(name, lambda local: 1.8e9 + 3.3 * local)
    with refused(GeometryError, "eeg-stamps-irregular", sfreq=SFREQ):
        sent.run(3.0)
    sent.source.close()


def test_a_stream_that_comes_back_with_them_is_refused_and_the_session_goes_on(name: str) -> None:
    sent = Sent(name, lambda local: local).run(0.5)
    sent.source = LslSource(name, opened=sent.source.opened)
    sent.stamp = lambda local: np.full(len(local), 1.8e9)
    last = time.monotonic() + 60
    while not any("not regular" in note for note in sent.notes):
        assert time.monotonic() < last, sent.source.state
        sent.send()
        assert not sent.source.poll()
        sent.notes += sent.source.notes()
        time.sleep(0.005)
    sent.source.close()


def test_the_doctor_says_it_of_the_stamps_and_not_of_the_unit(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b", fmri=False)
    eeg_input = bundle.manifest.eeg
    assert eeg_input is not None
    montage = Montage(CHANNELS, float(SFREQ))
    data = np.random.default_rng(0).normal(0, 10, (len(CHANNELS), 4 * SFREQ)).astype(np.float32)
    stamps = 100 + np.arange(4 * SFREQ) / SFREQ
    items: list[EegChunk | Trigger] = [
        EegChunk(data[:, i : i + 50], stamps[i : i + 50], float(stamps[i + 49])) for i in range(0, 2000, 50)
    ]
    note = "stamps lie 9 s from this machine's LSL clock. Let its program stamp with LSL's own clock"
    findings = doctor_eeg.findings(EegCapture(montage, items, True, "", [], stamps=note), bundle, eeg_input)
    by_subject = {finding.subject: finding for finding in findings}
    assert (by_subject["stamps"].state, by_subject["unit"].state) == ("note", "ok")
    assert by_subject["stamps"].advice.startswith("Let its program")
    usual = doctor_eeg.findings(EegCapture(montage, items, True, "", []), bundle, eeg_input)
    assert "stamps" not in {finding.subject for finding in usual}
