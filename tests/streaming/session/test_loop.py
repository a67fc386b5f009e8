"""A session's own process: what it takes next, and when it ends."""

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from rich.console import Console

from rtdecode.bundle import load
from rtdecode.disk.video import read_mp4
from rtdecode.errors import OutputError, SourceLostError
from streaming.decode.deadline import Job
from streaming.decode.decoder import Decoder
from streaming.session import live
from streaming.session.live import _Session
from streaming.session.orders import StreamOptions
from streaming.session.progress import Progress
from streaming.sinks.clip_emitter import Emitter, open_emitter
from streaming.sinks.session_folder import prepare
from streaming.sinks.truth import Truth
from streaming.status import Status
from tests.refusals import check_error, refused
from tests.streaming.bundles import make_bundle
from tests.streaming.session.test_acquisition import full_disk
from tests.streaming.sessions import TR, WINDOW
from tests.streaming.windows import window


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("b") / "bundle", tr=TR, window=WINDOW).path


def test_the_wait_for_sources_begins_when_they_are_looked_for(bundle: Path, tmp_path: Path) -> None:
    """The acquisition process takes long to start: only then is told what is missing."""
    options = StreamOptions(lsl="x", bundle=str(bundle), wait=30.0)
    made = _Session(options, load(str(bundle)), tmp_path, "s", Console())
    made._began_at -= 40
    assert made._judge() is None
    made._take_status(Status(waiting=["EEG: no stream"]))
    assert made._judge() is None
    made._began_at -= 40
    fault = made._judge()
    assert fault is not None
    check_error(fault, "session-start-timeout", wait_s=30.0, missing_sources="EEG: no stream")


@pytest.mark.parametrize("limit", [0.0, 30.0])
def test_silence_ends_it_unless_it_may_last(limit: float, bundle: Path, tmp_path: Path) -> None:
    options = StreamOptions(lsl="x", bundle=str(bundle), lost_after=limit)
    made = _Session(options, load(str(bundle)), tmp_path, "s", Console())
    made._status = Status(elapsed=1.0, silent=100.0)
    fault = made._judge()
    if limit == 0:
        assert fault is None
    else:
        assert isinstance(fault, SourceLostError)
        check_error(fault, "session-sources-silent", silent_s=100.0, limit_s=limit)


def test_a_backlog_is_decoded_to_its_end_however_long_that_takes(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_at = 100.0
    decoded: list[int] = []

    def decode(job: Job, _left_s: float) -> None:
        nonlocal now_at
        now_at += 10.0
        decoded.append(job.clip)

    monkeypatch.setattr(live, "time", SimpleNamespace(monotonic=lambda: now_at))
    made = _Session(StreamOptions(lsl="x"), load(str(bundle)), tmp_path, "s", Console())
    made._output = cast(
        "Emitter",
        SimpleNamespace(
            ask=decode,
            notes=list,
            tally=SimpleNamespace(categories=list),
            unarchived=0,
            is_written=True,
            settle=lambda: None,
            pending=0,
            collect=lambda: None,
            await_clip=lambda _limit_s: None,
        ),
    )
    for clip in range(4):
        made._inbox.put(Job(window(clip, at=0.0), clip, backlog=True))
    made._ended = True
    made._hand_over()
    assert decoded == [0, 1, 2, 3]


def test_film_and_twins_wait_for_windows_with_a_deadline_and_refined_ones_for_them(
    bundle: Path, tmp_path: Path
) -> None:
    done: list[tuple[str, int]] = []
    output = SimpleNamespace(
        notes=list,
        tally=SimpleNamespace(categories=list),
        unarchived=0,
        pending=0,
        is_written=True,
        settle=lambda: None,
        collect=lambda: None,
    )

    def ask(job: Job, _left_s: float) -> None:
        done.append((job.window.revision, job.clip))
        output.unarchived += job.window.revision == "final"

    def keep_one() -> None:
        done.append(("film", output.unarchived))
        output.unarchived -= 1

    output.ask = ask
    output.archive_next = keep_one
    made = _Session(StreamOptions(lsl="x"), load(str(bundle)), tmp_path, "s", Console())
    made._output = cast("Emitter", output)
    for clip, revision in ((0, "refined"), (1, "final"), (2, "final"), (3, "preview")):
        made._inbox.put(Job(window(clip, revision), clip, backlog=True))
    while len(made._inbox):
        made._decode_one()
    urgent = [("final", 1), ("final", 2), ("preview", 3)]
    assert done == [*urgent, ("film", 2), ("film", 1), ("refined", 0)]


@pytest.mark.parametrize(("lost_after", "patience"), [(30.0, 30.0), (5.0, 5.0), (0.0, 30.0)])
def test_the_wait_for_late_volumes_ends_when_none_comes_any_more(
    lost_after: float, patience: float, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_at = 100.0
    monkeypatch.setattr(live, "time", SimpleNamespace(monotonic=lambda: now_at))
    options = StreamOptions(lsl="x", lost_after=lost_after)
    made = _Session(options, load(str(bundle)), tmp_path, "s", Console())
    said: list[str] = []
    made._progress = cast("Progress", SimpleNamespace(say=said.append))

    def waits(volumes: int, awaited: int = 2) -> bool:
        counters = {"eeg": {}, "fmri": {"volumes": volumes}, "clock": {}, "runs": []}
        made._status = Status(done=True, awaited=awaited, counters=counters, silent=1e3)
        # Both sources may fall silent meanwhile: the session has had its seconds.
        assert made._judge() is None
        return made._late_volumes_come()

    assert not waits(10, awaited=0)
    assert said == []
    assert waits(10)
    (sentence,) = said
    assert "2 of them without volumes that are late" in sentence
    assert f"for {patience:g} s" in sentence
    now_at = 100.0 + patience - 0.1
    assert waits(10)
    assert waits(11)
    now_at = 100.0 + 2 * patience - 0.2
    assert waits(11)
    now_at = 100.0 + 2 * patience
    assert not waits(11)
    assert not waits(12, awaited=0)
    assert len(said) == 1


def test_ctrl_c_ends_the_wait_for_late_volumes(bundle: Path, tmp_path: Path) -> None:
    made = _Session(StreamOptions(lsl="x"), load(str(bundle)), tmp_path, "s", Console())
    made._progress = cast("Progress", SimpleNamespace(say=lambda _: None))
    counters = {"eeg": {}, "fmri": {"volumes": 3}, "clock": {}, "runs": []}
    made._status = Status(done=True, awaited=2, counters=counters)
    looked: list[float] = []

    def receive(timeout: float) -> None:
        looked.append(timeout)
        made._interrupt("SIGINT")

    made._receive = receive
    made._decode = made._periodic = lambda: None
    assert made._loop() == "stopped by SIGINT"
    assert len(looked) == 1


def test_previews_that_give_way_are_in_the_report(bundle: Path, tmp_path: Path) -> None:
    loaded = load(str(bundle))
    made = _Session(StreamOptions(lsl="x"), loaded, tmp_path, "s", Console())
    prepare(tmp_path, overwrite=False)
    truth = Truth(None, loaded)
    made._output = open_emitter(tmp_path, "s", loaded, Decoder(loaded), truth, float, simulated=True)
    for revision in ("preview", "final"):
        made._inbox.put(Job(window(0, revision), 0))
    made._inbox.take(100.0)
    made._progress = cast("Progress", SimpleNamespace(told=[]))
    assert made._write_report("running", None)["windows"]["dropped_previews"] == 1
    made._output.close()


def test_a_full_disk_ends_a_session_that_records_nothing(tmp_path: Path) -> None:
    """That the exit code is 1, and that a recording goes on, is tested in `test_faults.py`."""
    loaded = make_bundle(tmp_path / "bundle")
    out = tmp_path / "out"
    made = _Session(StreamOptions(lsl="x"), loaded, out, "s", Console())
    prepare(out, overwrite=False)
    output = open_emitter(out, "s", loaded, Decoder(loaded), Truth(None, loaded), float, simulated=True)
    made._output = output
    made._progress = cast("Progress", SimpleNamespace(tell=print))
    made._inbox.put(Job(window(0), 0, backlog=True))
    made._decode()
    output.settle()
    made._decode()
    assert output.unarchived == 0
    made._inbox.put(Job(window(1), 1, backlog=True))
    with full_disk():
        made._decode()
        while not output.is_written:
            time.sleep(0.001)
        with refused(OutputError, "output-write-failed", error="File too large"):
            made._decode()
    output.close()
    (line,) = (out / "clips.jsonl").read_text().splitlines()
    assert len(read_mp4(out / json.loads(line)["file"])) == 33
    assert len(read_mp4(out / "film.mp4")) == 32
    assert not list(out.glob("**/*.part"))


def test_what_a_source_says_of_the_participant_is_shown(tmp_path: Path) -> None:
    real = make_bundle(tmp_path / "bundle", simulated=False)
    made = _Session(StreamOptions(lsl="x"), real, tmp_path, "s", Console())
    said: list[str] = []
    prepare(tmp_path / "out", overwrite=False)
    output = open_emitter(
        tmp_path / "out", "s", real, Decoder(real), Truth(None, real), float, simulated=False
    )
    made._output = output
    made._progress = cast("Progress", SimpleNamespace(say=said.append))
    for simulated in (False, True, True):
        made._take_status(Status(simulated=simulated))
    assert said == ["Simulated participant: a source says so."]
    assert output.simulated
    output.close()
