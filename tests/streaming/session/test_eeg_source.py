"""Windows say whose EEG they hold, until somebody has confirmed it; and a session does not guess a stream."""

import fcntl
import json
import os
import subprocess
import sys
import termios
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from rtdecode.bundle import Bundle
from rtdecode.disk.recording import Recording, RecordingWriter
from rtdecode.eeg.stream import EegStream
from rtdecode.types import EegChunk, Montage
from streaming.decode.deadline import Job
from streaming.decode.decoder import Decoder
from streaming.session import keys, resume
from streaming.session.mailbox import pack, unpack
from streaming.session.operator import Operator
from streaming.session.options import ResumeState
from streaming.session.page_link import PageLink
from streaming.session.progress import Progress
from streaming.sinks import report
from streaming.sinks.clip_emitter import open_emitter
from streaming.sinks.session_folder import prepare
from streaming.sinks.truth import Truth
from streaming.status import Status
from tests.streaming.bundles import CHANNELS, make_bundle
from tests.streaming.windows import window

SFREQ = 500.0
# As the source tells of a stream that came back under another source id.
STREAM: dict[str, Any] = {
    "name": "amplifier",
    "host": "lab",
    "label": "'amplifier' of lab (EEG, source id 'a')",
    "matched_by": "type",
    "sfreq": SFREQ,
    "channels": list(CHANNELS),
    "keys": ["a", "b"],
    "beside": [],
    "source": 1,
}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("bundle") / "b")


def chunk(second: int, source: int) -> EegChunk:
    rng = np.random.default_rng(second)
    data = rng.normal(0, 10, (len(CHANNELS), int(SFREQ))).astype(np.float32)
    stamps = 100.0 + second + np.arange(len(data.T)) / SFREQ
    return EegChunk(data, stamps, float(stamps[-1]), source=source)


def test_a_span_that_holds_samples_of_another_source_says_so(bundle: Bundle) -> None:
    eeg_input = bundle.manifest.eeg
    assert eeg_input is not None
    stream = EegStream(eeg_input, bundle.stats, Montage(CHANNELS, SFREQ), 60.0)
    for second in range(12):
        # Second 6 is lost, then another source, then the first one again.
        if second != 6:
            stream.push(chunk(second, int(7 <= second < 9)))
    rate = float(bundle.manifest.grid.sfreq)
    spans = [(3.0, 5.9), (5.0, 6.9), (5.0, 8.5), (8.5, 10.0), (9.1, 11.0)]
    numbers = []
    for start, stop in spans:
        times = np.arange(100 + start, 100 + stop, 1 / rate)
        numbers.append(stream.source_of(times[stream.read(times).mask]))
    assert numbers == [0, 0, 1, 1, 0]
    assert stream.source_of(np.zeros(0)) == 0


def test_a_recording_keeps_the_source_and_an_earlier_one_has_none(tmp_path: Path) -> None:
    with RecordingWriter(tmp_path / "r", Montage(CHANNELS, SFREQ), {}) as writer:
        for second in range(3):
            writer.write(chunk(second, int(second == 1)))
    lines = (tmp_path / "r" / "events.jsonl").read_text().splitlines()
    assert ["source" in line for line in lines] == [False, True, False]
    chunks = [item for item in Recording(tmp_path / "r").events() if isinstance(item, EegChunk)]
    assert [eeg_chunk.source for eeg_chunk in chunks] == [0, 1, 0]


class Output:
    """An emitter, and its session's operator."""

    def __init__(self, bundle: Bundle, folder: Path, page: PageLink | None = None) -> None:
        out = folder / "out"
        prepare(out, overwrite=False)
        self.emitter = open_emitter(
            out, "s", bundle, Decoder(bundle), Truth(None, bundle), float, simulated=False
        )
        self.said: list[str] = []
        progress = cast("Progress", SimpleNamespace(tell=self.said.append, say=self.said.append))
        self.operator = Operator(page, out, progress, self.emitter)
        self.log = out / "operator.tsv"
        self.clips = out / "clips.jsonl"

    def source(self, **changes: Any) -> str | None:
        cut = window(eeg=changes.pop("eeg", True))
        # A window's record of its own, as previews need not be archived.
        self.emitter.emit(Job(unpack(pack(replace(cut, revision="preview", **changes), clip=0)), 0))
        self.emitter.settle()
        return json.loads(self.clips.read_text().splitlines()[-1])["eeg_source"]


def status(**changes: Any) -> Status:
    return replace(Status(sent_at=1.0, elapsed=5.0), **changes)


def test_a_changed_source_is_in_each_clip_until_it_is_confirmed(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = Output(bundle, tmp_path)
    typed: list[list[str]] = [["c"], ["x", "c"]]
    monkeypatch.setattr(keys, "entered", lambda: typed.pop(0))
    # As long as nothing has changed, nobody reads the terminal.
    output.operator.follow(status(eeg_stream=STREAM | {"source": 0}))
    assert len(typed) == 2
    assert output.source() == "opened"
    assert output.source(eeg_source=1) == "changed"
    assert output.source(eeg=False) is None
    output.operator.follow(status(eeg_stream=STREAM))
    assert output.source(eeg_source=1) == "confirmed"
    assert "EEG source confirmed" in output.said[-1]
    assert output.log.read_text().splitlines()[-1].endswith("EEG source confirmed")
    # Another change is another question.
    assert output.source(eeg_source=2) == "changed"
    output.operator.follow(status(eeg_stream=STREAM | {"source": 2}))
    assert output.source(eeg_source=2) == "confirmed"
    output.emitter.close()


def test_the_page_confirms_it_too(bundle: Bundle, tmp_path: Path) -> None:
    confirmed: list[int] = []
    requests = [SimpleNamespace(what="confirm", word="", requested_at=1.0)] * 2
    page = SimpleNamespace(
        requests=lambda: requests,
        confirmed=confirmed.append,
        show_twin=lambda _: None,
        show_decoder=lambda _: None,
        death=str,
    )
    output = Output(bundle, tmp_path, cast("Any", page))
    output.operator.follow(status(eeg_stream=STREAM))
    assert confirmed == [1]
    assert output.source(eeg_source=1) == "confirmed"
    output.emitter.close()


_READ = """
import sys, time
from streaming.session import keys
lines = []
while not lines:
    lines = keys.entered()
    time.sleep(0.02)
print(lines)
"""


def test_keys_are_read_from_a_terminal_and_from_nothing_else() -> None:
    master, slave = os.openpty()
    # A session of its own, whose terminal the program is in the foreground of.
    foreground = partial(fcntl.ioctl, slave, termios.TIOCSCTTY, 0)
    with subprocess.Popen(
        [sys.executable, "-c", _READ],
        stdin=slave,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=foreground,
    ) as process:
        os.write(master, b" C\n")
        try:
            assert process.communicate(timeout=60)[0] == "['c']\n"
        finally:
            process.kill()
            os.close(master)
            os.close(slave)
    assert keys.entered() == []


def test_the_next_acquisition_stays_with_the_stream() -> None:
    resumed = resume.Resumption(ResumeState([], status(eeg_stream=STREAM)))
    opened = resumed.opened
    assert opened is not None
    assert (opened.name, opened.host, opened.keys) == ("amplifier", "lab", ["a", "b"])
    assert resume.Resumption(ResumeState([], status())).opened is None


@pytest.mark.parametrize(
    ("matched_by", "name", "host"),
    [("type", "amplifier", "lab"), ("source id", "amplifier", "lab"), ("name", None, None)],
)
def test_the_report_names_a_stream_that_was_not_named(
    matched_by: str, name: str | None, host: str | None, bundle: Bundle, tmp_path: Path
) -> None:
    output = Output(bundle, tmp_path)
    written = report.build(
        "s",
        bundle,
        output.emitter,
        status().counters,
        0,
        simulated=False,
        ended="",
        memory_mb=None,
        judged=None,
        eeg_stream=STREAM | {"matched_by": matched_by},
    )
    output.emitter.close()
    assert written["eeg_stream"] == {"matched_by": matched_by, "name": name, "host": host, "sources": 2}
