"""Of several marker streams, which one is read, and what is said of it."""

import os
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

import numpy as np
import pylsl
import pytest

from rtdecode.errors import UsageError
from rtdecode.types import Trigger
from streaming.client import SOURCE
from streaming.session.checks import check
from streaming.session.options import StreamOptions
from streaming.sources.lsl.source import LslSource
from streaming.sources.lsl.trigger_streams import candidates
from tests.refusals import refused
from tests.streaming.bundles import make_bundle
from tests.streaming.player import outlet

_NUMBER = count()


@pytest.fixture
def name() -> str:
    return f"markers-test-{os.getpid()}-{next(_NUMBER)}"


def stream(
    name: str,
    kind: str = "Markers",
    host: str = "lab",
    source_id: str = "",
    rate: float = 0.0,
    created_at: float = 0.0,
) -> pylsl.StreamInfo:
    """A stream as discovery tells of it."""
    info = pylsl.StreamInfo(name, kind, 1, rate, pylsl.cf_string if not rate else pylsl.cf_float32, source_id)
    info.hostname = lambda: host  # type: ignore[method-assign]
    info.created_at = lambda: created_at  # type: ignore[method-assign]
    return info


def names(streams: list[pylsl.StreamInfo], preferred: str | None = None) -> list[str]:
    return [candidate.info.name() for candidate in candidates(streams, "Amp", "lab", preferred)]


def test_an_amplifiers_own_streams_come_first_whatever_their_case() -> None:
    streams = [
        stream("Amp", "EEG", rate=500.0),
        stream("pictures", created_at=9.0),
        stream("amp-devicetrigger"),
        stream("Amp-STETriggerIn"),
        stream("AMP-Markers"),
    ]
    assert names(streams) == ["AMP-Markers", "Amp-STETriggerIn", "amp-devicetrigger", "pictures"]


def test_what_belongs_to_others_is_no_candidate() -> None:
    streams = [
        stream("Amp", "EEG", rate=500.0),
        stream("Other", "EEG", rate=500.0),
        stream("Other-markers"),
        stream("other-STETriggerIn"),
        stream("Amp-film"),
        stream("lab-clips", source_id=f"{SOURCE}lab"),
        stream("button box", host="elsewhere"),
        stream("Impedances", "Impedance"),
    ]
    assert names(streams) == []


def test_the_triggers_of_the_same_computer_come_before_those_of_another_one() -> None:
    streams = [stream("Amp-markers", host="elsewhere", created_at=9.0), stream("Amp-DeviceTrigger")]
    assert names(streams) == ["Amp-DeviceTrigger", "Amp-markers"]


def test_a_name_that_was_asked_for_is_taken_alone_on_any_computer() -> None:
    streams = [stream("Amp-markers"), stream("Box", "anything", host="elsewhere"), stream("box")]
    assert names(streams, "Box") == ["Box"]
    assert names(streams, "BOX") == ["box", "Box"]
    assert names(streams, "absent") == []


class Lab:
    """An amplifier and marker streams, and what a source makes of them."""

    def __init__(self, name: str, markers: str | None = None) -> None:
        self.name = name
        self.eeg = outlet(name, source_id=name)
        self.streams: dict[str, pylsl.StreamOutlet] = {}
        self.source = LslSource(name, markers=markers)
        self.labels: list[str] = []
        self.notes: list[str] = []

    def add(self, end: str, kind: int = pylsl.cf_string) -> None:
        info = pylsl.StreamInfo(f"{self.name}{end}", "Markers", 1, 0, kind, f"{self.name}{end}")
        self.streams[end] = pylsl.StreamOutlet(info)

    def send(self, *ends: str) -> None:
        for end in ends:
            self.streams[end].push_sample([7] if end == "-STETriggerIn" else [f"of {end}"])

    def step(self, *ends: str) -> None:
        self.eeg.push_chunk(np.zeros((5, 4), np.float32))
        self.send(*ends)
        self.labels += [item.label for item in self.source.poll() if isinstance(item, Trigger)]
        self.notes += self.source.notes()
        time.sleep(0.01)

    def until(self, condition: Callable[[], object], *ends: str) -> None:
        last = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < last, (self.source.state, self.labels, self.notes)
            self.step(*ends)

    def open(self, *ends: str) -> None:
        self.until(lambda: all(self.streams[end].have_consumers() for end in ends))


def test_the_amplifiers_own_input_is_read_beside_a_newer_stream_of_pictures(name: str) -> None:
    lab = Lab(name)
    lab.add("-STETriggerIn", pylsl.cf_int32)
    lab.add(" pictures")
    lab.open("-STETriggerIn")
    lab.until(lambda: len(lab.labels) > 5, "-STETriggerIn", " pictures")
    lab.until(lambda: lab.notes, " pictures")
    assert set(lab.labels) == {"7"}
    assert "2 marker streams may bring the triggers" in lab.notes[0]
    assert f"'{name}-STETriggerIn' of" in lab.notes[0].partition("is read")[0]
    assert "--markers" in lab.notes[0]
    lab.source.close()


def test_of_two_inputs_the_one_that_sends_is_read_and_is_not_given_up(name: str) -> None:
    lab = Lab(name)
    lab.add("-STETriggerIn", pylsl.cf_int32)
    lab.add("-DeviceTrigger")
    lab.open("-STETriggerIn", "-DeviceTrigger")
    lab.until(lambda: lab.labels, "-DeviceTrigger")
    # One that sends nothing comes with a better name, and then sends too.
    lab.add("-markers")
    lab.open("-markers")
    lab.labels.clear()
    lab.until(lambda: len(lab.labels) > 5, "-DeviceTrigger")
    lab.until(lambda: len(lab.labels) > 15, "-DeviceTrigger", "-markers")
    assert set(lab.labels) == {"of -DeviceTrigger"}
    del lab.streams["-DeviceTrigger"]
    lab.until(lambda: lab.labels[-1] == "of -markers", "-markers")
    lab.source.close()


def test_a_stream_that_was_asked_for_is_read_in_place_of_the_amplifiers_own(name: str) -> None:
    lab = Lab(name, markers=f"{name} box")
    lab.add("-markers")
    lab.until(lambda: any("there is no marker stream" in note for note in lab.notes), "-markers")
    assert not lab.labels
    assert not lab.source.has_triggers
    lab.add(" box")
    lab.until(lambda: lab.labels, "-markers", " box")
    assert set(lab.labels) == {"of  box"}
    lab.source.close()


def test_markers_without_an_eeg_stream_are_refused(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b")
    options = StreamOptions(fmri_dir=tmp_path, markers="box", bundle=str(bundle.path))
    with refused(UsageError, "session-markers-without-eeg", markers="box"):
        check(options, bundle)
