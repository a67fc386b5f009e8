"""What a session does next with its windows, and what it says of a source."""

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from rtdecode.disk.video import read_mp4
from rtdecode.errors import OutputError
from streaming.decode.deadline import Job
from streaming.decode.decoder import Decoder
from streaming.session.decided import DecisionLog
from streaming.session.decode_loop import DecodeLoop
from streaming.session.receiver import Receiver
from streaming.session.reporter import Interval, Reporter, SessionCounts
from streaming.sinks.clip_emitter import ClipEmitter, open_emitter
from streaming.sinks.session_folder import prepare
from streaming.sinks.truth import Truth
from tests.refusals import refused
from tests.streaming.bundles import make_bundle
from tests.streaming.clips import tally
from tests.streaming.session.test_acquisition import full_disk
from tests.streaming.windows import window

HOP_S = 4.0


class Emitted:
    """An emitter that decodes at once, and keeps what it did in order."""

    def __init__(self) -> None:
        self.done: list[tuple[str, int]] = []
        self.lefts: list[float] = []
        self.skipped: list[int] = []
        self.unarchived = self.pending = 0
        self.is_written = True
        self.now_at = 100.0
        self.takes_s = 0.0
        self.tally = tally()

    def collect(self) -> None:
        """Nothing is on its way."""

    settle = collect

    def ask(self, job: Job, left_s: float) -> None:
        self.now_at += self.takes_s
        self.done.append((job.window.revision, job.clip))
        self.lefts.append(left_s)
        self.unarchived += job.window.revision == "final"

    def archive_next(self) -> None:
        self.done.append(("film", self.unarchived))
        self.unarchived -= 1

    def skip(self, job: Job) -> None:
        self.skipped.append(job.clip)


def loop_over(emitted: Any, at_once: int = 1) -> DecodeLoop:
    now = (lambda: emitted.now_at) if isinstance(emitted, Emitted) else time.monotonic
    return DecodeLoop(cast("ClipEmitter", emitted), DecisionLog(None, print), HOP_S, at_once, now)


def test_a_backlog_is_decoded_to_its_end_however_long_that_takes() -> None:
    emitted = Emitted()
    emitted.takes_s = 10.0
    loop = loop_over(emitted)
    for clip in range(4):
        loop.put(Job(window(clip, windowed_at=0.0), clip, backlog=True))
    while loop.is_unfinished:
        loop.step()
    assert [clip for revision, clip in emitted.done if revision == "final"] == [0, 1, 2, 3]
    assert emitted.skipped == []


def test_film_and_twins_wait_for_windows_with_a_deadline_and_refined_ones_for_them() -> None:
    emitted = Emitted()
    loop = loop_over(emitted)
    for clip, revision in ((0, "refined"), (1, "final"), (2, "final"), (3, "preview")):
        loop.put(Job(window(clip, revision), clip, backlog=True))
    while len(loop):
        assert loop.is_busy
        loop.step()
    urgent = [("final", 1), ("final", 2), ("preview", 3)]
    assert emitted.done == [*urgent, ("film", 2), ("film", 1), ("refined", 0)]
    assert not loop.is_busy


def test_late_windows_are_skipped_and_those_that_wait_share_the_time() -> None:
    emitted = Emitted()
    loop = loop_over(emitted)
    for clip, windowed_at in enumerate((94.0, 99.0, 100.0)):
        loop.put(Job(window(clip, windowed_at=windowed_at), clip))
    loop.step()
    assert emitted.skipped == [0]
    assert emitted.done == [("final", 1)]
    assert emitted.lefts == [pytest.approx(1.5)]


def test_a_decoder_elsewhere_gets_several_windows_and_each_the_whole_time() -> None:
    emitted = Emitted()
    loop = loop_over(emitted, at_once=2)
    for clip in range(3):
        loop.put(Job(window(clip, windowed_at=100.0), clip))
    loop.step()
    assert emitted.lefts == [4.0]
    emitted.pending = 2
    assert not loop.is_busy
    loop.step()
    assert [clip for _, clip in emitted.done] == [0], "as many are on their way as it takes"


def test_windows_that_nobody_can_write_are_counted_as_skipped() -> None:
    emitted = Emitted()
    loop = loop_over(emitted)
    for clip, revision in enumerate(("final", "preview", "final", "refined")):
        loop.put(Job(window(clip, revision), clip, backlog=True))
    loop.drop_waiting()
    assert (len(loop), emitted.done) == (0, [])
    assert emitted.tally.counts == {"skipped": 2}


def test_a_thing_is_due_once_every_few_seconds() -> None:
    timer = Interval(5.0, 100.0)
    assert [timer.due(now) for now in (104.0, 105.0, 105.1, 106.0, 110.2)] == [
        False,
        False,
        True,
        False,
        True,
    ]


def test_previews_that_give_way_are_in_the_report(tmp_path: Path) -> None:
    emitted = Emitted()
    loop = loop_over(emitted)
    for revision in ("preview", "final"):
        loop.put(Job(window(0, revision, windowed_at=100.0), 0))
    loop.step()
    built: list[dict[str, Any]] = []

    def build(*_: Any, **values: Any) -> Any:
        built.append(values)
        return {"ended": values["ended"]}

    emitter = cast("ClipEmitter", SimpleNamespace(simulated=False))
    facts = SessionCounts(1.5, loop.dropped_previews, {"fault": None}, [])
    Reporter(tmp_path / "report.json", build).write("running", emitter, Receiver(None), facts)
    assert built[0]["dropped_previews"] == 1
    assert json.loads((tmp_path / "report.json").read_text()) == {"ended": "running"}


def test_a_full_disk_is_told_at_the_next_step(tmp_path: Path) -> None:
    """That the exit code is 1, and that a recording goes on, is tested in `test_faults.py`."""
    loaded = make_bundle(tmp_path / "bundle")
    out = tmp_path / "out"
    prepare(out, overwrite=False)
    output = open_emitter(out, "s", loaded, Decoder(loaded), Truth(None, loaded), float, simulated=True)
    loop = loop_over(output)
    loop.put(Job(window(0), 0, backlog=True))
    loop.step()
    output.settle()
    loop.step()
    assert output.unarchived == 0
    loop.put(Job(window(1), 1, backlog=True))
    with full_disk():
        loop.step()
        while not output.is_written:
            time.sleep(0.001)
        with refused(OutputError, "output-write-failed", error="File too large"):
            loop.step()
    output.close()
    (line,) = (out / "clips.jsonl").read_text().splitlines()
    assert len(read_mp4(out / json.loads(line)["file"])) == 33
    assert len(read_mp4(out / "film.mp4")) == 32
    assert not list(out.glob("**/*.part"))
