"""What the acquisition takes from the folder, and what it tells of it."""

import math
import multiprocessing
import resource
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from rtdecode.bundle import Bundle
from rtdecode.disk import calibration as calibrations
from rtdecode.disk.film_marks import FilmMark
from rtdecode.disk.recording import Recording, RecordingWriter
from rtdecode.errors import GeometryError
from rtdecode.phantom.files.mosaic import mosaic_bytes
from rtdecode.types import EegChunk, Montage, Trigger, Volume, Window
from rtdecode.windows.assembler import Assembler
from streaming.message import Message
from streaming.session import acquisition
from streaming.session.acquisition_loop import AcquisitionLoop, SourceStates
from streaming.session.mailbox import Mailbox, pack_status, slot_bytes, unpack, unpack_status
from streaming.session.open_sources import open_folder
from streaming.session.options import AcquisitionConfig, ResumeState, StreamOptions
from streaming.session.outbox import Outbox
from streaming.session.receiver import with_runs
from streaming.session.source_reader import SourceReader
from streaming.sources.folder.source import FolderSource
from streaming.status import Status
from tests.streaming.acquired import Acquired, replayed
from tests.streaming.bundles import AFFINE, CHANNELS, SHAPE, make_bundle, scan

CONTEXT = multiprocessing.get_context("spawn")
START = datetime(2026, 3, 2, 12)


@pytest.fixture
def triggers_alone(tmp_path: Path) -> Acquired:
    """An acquisition of triggers that are pushed by hand."""
    return Acquired(make_bundle(tmp_path / "bundle", fmri=False), None, ["fmri"])


def test_a_day_of_short_runs_fits_every_status_and_is_all_reported(triggers_alone: Acquired) -> None:
    mailbox = Mailbox(CONTEXT, 1, slot_bytes(triggers_alone.bundle))
    runs = {}
    status = Status()
    for number in range(300):
        trigger_at = 1000.0 + 20 * number
        triggers_alone.assembler.push(Trigger(trigger_at, "R128", trigger_at), trigger_at)
        if number % 10 == 0 or number == 299:
            assert mailbox.put(pack_status(triggers_alone.status(trigger_at)), timeout=0)
            message = mailbox.get(timeout=0)
            assert message is not None
            status = with_runs(runs, unpack_status(message))
    assert len(status.counters["runs"]) == 300
    assert status.counters["runs"] == triggers_alone.assembler.counters()["runs"]


def mosaic(index: int, uid: str, tr: float) -> bytes:
    volume = scan(np.random.default_rng(index)).astype(np.int16)
    return mosaic_bytes(volume, AFFINE, tr, index, 4, START + timedelta(seconds=tr * index), 0.6, uid)


def read_folder(
    folder: Path, bundle: Bundle, calibration: Path | None, record: Path | None = None
) -> tuple[FolderSource, list[Any]]:
    options = StreamOptions(fmri_dir=folder, existing="read", record=record, calibration=calibration)
    unread = Assembler(bundle, None, ["fmri"]).unread if calibration is None else lambda *_: None
    source = open_folder(options, bundle, unread)
    assert source is not None
    volumes = []
    for _ in range(5):
        volumes += source.poll(time.monotonic())
    return source, volumes


@pytest.mark.parametrize("calibrated", [True, False])
def test_a_localizer_before_the_run_is_refused_and_named(tmp_path: Path, calibrated: bool) -> None:
    folder = tmp_path / "scanner"
    folder.mkdir()
    bundle = make_bundle(tmp_path / "bundle", eeg=False, tr=Fraction(1, 2), window=Fraction(1))
    (folder / "0_localizer.dcm").write_bytes(mosaic(0, "1.9", 2.3) if calibrated else other_grid())
    for index in range(3):
        (folder / f"1_{index:04d}.dcm").write_bytes(mosaic(index, "1.2.3", 0.5))
    source, volumes = read_folder(folder, bundle, tmp_path / "calibration" if calibrated else None)
    assert [volume.index for volume in volumes] == [0, 1, 2]
    ((name, reason),) = source.ignored
    assert name == "0_localizer.dcm"
    expected = "trained at TR 0.5 s, this series says 2.3 s" if calibrated else "the bundle reads volumes of"
    assert expected in reason


def other_grid(tr: float = 2.3, index: int = 0, slices: int = 4) -> bytes:
    volume = np.random.default_rng(index).normal(500, 20, (8, 8, slices)).astype(np.int16)
    acquired_at = START + timedelta(seconds=tr * index)
    return mosaic_bytes(volume, AFFINE, tr, index, 4, acquired_at, 0.6, "1.9")


@pytest.mark.parametrize(
    ("tr", "slices", "recorded", "taken_in"),
    [(0.5, 4, True, 2), (0.5, 4, False, 0), (2.3, 4, True, 0), (0.5, 3, True, 0)],
)
def test_a_run_on_another_grid_is_taken_to_be_recorded(
    tr: float, slices: int, recorded: bool, taken_in: int, tmp_path: Path
) -> None:
    folder = tmp_path / "scanner"
    folder.mkdir()
    bundle = make_bundle(tmp_path / "bundle", eeg=False, tr=Fraction(1, 2), window=Fraction(1))
    for index in range(2):
        (folder / f"{index:04d}.dcm").write_bytes(other_grid(tr, index, slices))
    source, volumes = read_folder(folder, bundle, None, tmp_path / "record" if recorded else None)
    assert len(volumes) == taken_in
    assert len(source.ignored) == 2 - taken_in


class Session(Acquired):
    """An acquisition that records; items go in by hand."""

    def __init__(
        self,
        folder: Path,
        *,
        existing: str = "ignore",
        eeg: bool = False,
        lsl: str | None = None,
        past: ResumeState | None = None,
        stamped: bool = True,
    ) -> None:
        bundle = make_bundle(folder / "bundle", eeg=eeg, tr=Fraction(1, 2), window=Fraction(1))
        self.record = folder / "record"
        meta = {"simulated": False, "bundle": bundle.digest}
        names = ["eeg", "fmri"] if lsl else ["fmri"]
        behind = existing == "read"
        super().__init__(bundle, self.record, names, behind=behind, past=past, meta=meta, stamped=stamped)

    def sent_windows(self) -> list[tuple[int, str]]:
        """Number and revision of the windows that were sent, in order."""
        windows = [message.head["window"] for message in self.sent if message.head["kind"] == "window"]
        return [(window["index"], window["revision"]) for window in windows]

    def again(self) -> list[Window]:
        """The windows of a replay."""
        self.close()
        return replayed(self.record, self.bundle, self.record.with_name("replayed"))


def volumes(count: int, *, shape: tuple[int, int, int] = SHAPE, lay_for: float = 0.0, **fields: Any) -> list:
    rng = np.random.default_rng(0)
    out = []
    for index in range(count):
        data = scan(rng)[: shape[0], : shape[1], : shape[2]]
        ready = 1000.0 + 0.5 * (index + 1) + 0.1
        arrived_at = ready if not lay_for else 1000.0 + lay_for + index / 100
        out.append(
            Volume(
                data,
                AFFINE,
                index,
                4,
                0.5,
                0.5 * index,
                0.6,
                ready,
                arrived_at,
                arrived_at,
                f"v{index}",
                "1",
                **fields,
            )
        )
    return out


def missing(windows: list[Window]) -> list[float]:
    return [window.missing["fmri"] for window in windows]


def test_files_that_lay_there_are_replayed_as_the_session_took_them(tmp_path: Path) -> None:
    session = Session(tmp_path, existing="read")
    session.take(Trigger(4000.0, "R128", 4000.0), *volumes(10, lay_for=3000.0))
    assert missing(session.windows) == [0.0] * 4
    played = session.again()
    assert missing(played)[:4] == [0.0] * 4
    for live, again in zip(session.windows, played, strict=False):
        assert np.array_equal(live.fmri, again.fmri)


def test_a_grid_that_cannot_be_read_is_recorded_and_said_once(tmp_path: Path) -> None:
    session = Session(tmp_path)
    session.take(*volumes(10, shape=(8, 8, 4)))
    assert missing(session.windows) == [1.0] * 3
    notes = session.status(1006.0).notes
    assert len(notes) == 1
    assert notes[0].startswith("recorded, but not decoded: the bundle reads volumes of")
    assert session.status(1007.0).notes == []
    played = session.again()
    assert missing(played)[:3] == [1.0] * 3
    recorded = [item for item in Recording(session.record).events() if isinstance(item, Volume)]
    assert [volume.data.shape for volume in recorded] == [(8, 8, 4)] * 10
    assert all(volume.live for volume in recorded)


@pytest.mark.parametrize("simulated", [True, False])
def test_a_recording_says_simulated_where_a_source_does(tmp_path: Path, simulated: bool) -> None:
    session = Session(tmp_path, existing="read")
    session.take(*volumes(4, simulated=simulated))
    assert session.first == [simulated, False, False, False], "before any window, and once"
    assert session.windows
    session.close()
    assert Recording(session.record).meta["simulated"] is simulated


def test_a_stream_that_says_so_makes_the_recording_simulated(tmp_path: Path) -> None:
    session = Session(tmp_path, eeg=True)
    session.take(Montage(CHANNELS, 500.0, simulated=True))
    assert session.first == [True]
    session.close()
    assert Recording(session.record).meta["simulated"] is True


def write_montage(session: Session) -> None:
    session.take(Montage(CHANNELS, 500.0))


def write_volume(session: Session) -> None:
    session.take(*volumes(1))


def write_end(session: Session) -> None:
    session.loop.finish()


@contextmanager
def full_disk() -> Iterator[None]:
    """Let this process write nothing more."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("write", [write_montage, write_volume, write_end])
def test_a_full_disk_ends_the_recording_and_nothing_else(
    write: Callable[[Session], None], tmp_path: Path
) -> None:
    session = Session(tmp_path, eeg=True)
    assert session.status(1000.0).record_fault == ""
    with full_disk():
        write(session)
    assert session.status(1000.0).record_fault == "File too large"
    assert list(Recording(session.record).events()) == []
    session.close()


def test_what_came_after_a_full_disk_is_decoded(tmp_path: Path) -> None:
    session = Session(tmp_path)
    arrived = volumes(10)
    session.take(*arrived[:4])
    with full_disk():
        session.take(arrived[4])
    session.take(*arrived[5:])
    assert missing(session.windows) == [0.0] * 4
    recorded = [item.index for item in Recording(session.record).events() if isinstance(item, Volume)]
    assert recorded == [0, 1, 2, 3]
    session.close()


def run_until_stopped(options: StreamOptions, bundle: Bundle, meta: dict[str, Any]) -> list[Message]:
    """The whole body of an acquisition process that is stopped before it has read anything."""
    stop = CONTEXT.Event()
    stop.set()
    sent: list[Message] = []
    mailbox: Any = SimpleNamespace(put=lambda message, timeout: sent.append(message) or True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(acquisition.signal, "signal", lambda *_: None)
        # Put back afterwards: the reader sets one of its own.
        patch.setattr(threading, "excepthook", threading.excepthook)
        acquisition.main(AcquisitionConfig(bundle.path, options, meta), mailbox, stop)
    return sent


def test_the_first_fault_is_told_not_what_closing_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(error: Exception) -> None:
        raise error

    first = GeometryError("head-wrong", "the {number}", number="first")
    monkeypatch.setattr(AcquisitionLoop, "finish", lambda _: fail(first))
    monkeypatch.setattr(SourceReader, "join", lambda _: fail(OSError("the second")))
    bundle = make_bundle(tmp_path / "bundle", fmri=False)
    (message,) = run_until_stopped(StreamOptions(), bundle, {})
    assert message.head["error"] == {
        "code": "head-wrong",
        "message": "the first",
        "exit_code": 4,
        "values": {"number": "first"},
    }


def test_what_waits_to_be_taken_is_no_silence(tmp_path: Path) -> None:
    session = Session(tmp_path)
    (volume,) = volumes(1)
    session.take(volume)
    assert session.status(volume.arrived_at + 40).silent == pytest.approx(40)
    assert session.turns.leave(volume, volume.arrived_at, volume=True, timeout=0)
    assert session.status(volume.arrived_at + 40).silent is None
    session.close()


def test_the_calibrations_digest_goes_with_a_recording(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = make_bundle(tmp_path / "bundle", fmri=False)
    stub = SimpleNamespace(digest="0123", matched=lambda _: None)
    monkeypatch.setattr(calibrations, "load", lambda _: stub)
    copies: list[Any] = []
    monkeypatch.setattr(
        RecordingWriter, "keep_calibration", lambda _, calibration: copies.append(calibration)
    )
    options = StreamOptions(record=tmp_path / "record", calibration=tmp_path / "calibration")
    (last,) = run_until_stopped(options, bundle, {"calibration": str(tmp_path / "calibration")})
    assert last.head["kind"] == "end"
    recording = Recording(tmp_path / "record")
    assert recording.meta["calibration_digest"] == "0123"
    assert copies == [stub]
    # A replay cuts the same windows by these.
    assert recording.meta["listening_since"] < recording.meta["ended_at"]
    assert recording.meta["triggers_expected"] is True


def triggers(count: int) -> list[Trigger]:
    return [Trigger(1000.0 + 0.5 * n, "R128", 1000.01 + 0.5 * n) for n in range(count)]


def burst(*indices: int, first_at: float) -> dict[int, float]:
    """When volumes of a burst arrive, by their index."""
    return {index: first_at + 0.01 * n for n, index in enumerate(indices)}


def late(count: int, arrivals: dict[int, float]) -> list[Volume]:
    """Volumes of which some come late."""
    out = []
    for volume in volumes(count):
        ready = arrivals.get(volume.index, volume.arrived_at)
        out.append(replace(volume, readable_at=ready, arrived_at=ready, parsed_at=ready))
    return sorted(out, key=lambda volume: volume.arrived_at)


def by_arrival(*items: EegChunk | Trigger | Volume) -> list[EegChunk | Trigger | Volume]:
    return sorted(items, key=lambda item: item.arrived_at)


def chunks(seconds: float) -> list[EegChunk]:
    """EEG from a second before the run on, in chunks of a tenth of a second."""
    rng = np.random.default_rng(1)
    out = []
    for n in range(round(10 * seconds)):
        stamps = 999.0 + 0.1 * n + np.arange(50) / 500
        data = rng.normal(0, 20, (len(CHANNELS), 50)).astype(np.float32)
        out.append(EegChunk(data, stamps, float(stamps[-1]) + 0.005))
    return out


def test_a_session_that_is_busy_holds_up_nothing_and_misses_no_message(tmp_path: Path) -> None:
    """The mailbox is full from the first message on, as long as nobody reads it."""
    session = Session(tmp_path)
    is_read = False

    def put(message: Message, _timeout: float) -> bool:
        if is_read or not session.sent:
            session.sent.append(message)
            return True
        return False

    session.outbox = Outbox(put, lambda: True)
    session.loop = AcquisitionLoop(
        session.turns, session.intake, session.outbox, SourceStates, time.monotonic
    )
    session.feed(volumes(40))
    assert session.assembler.counters()["fmri"]["volumes"] == 40
    assert len(session.sent) == 1
    is_read = True
    while session.builder.has_untold or len(session.outbox):
        # Something that is taken, as the deadlines of a run long ago would pass while nothing waits.
        session.turns.leave(FilmMark(1000.0, "frame 0", 1000.0), math.inf, volume=False, timeout=0)
        session.loop.step(timeout=0)
    heads = [message.head for message in session.sent]
    assert session.sent_windows() == [(index, "final") for index in range(19)]
    # A status tells of a few volumes at a time, and together they tell of each once.
    statuses = [head["status"] for head in heads if head["kind"] == "status"]
    indices = [[item["index"] for item in status["items"]] for status in statuses]
    assert [index for some in indices for index in some] == list(range(40))
    assert max(map(len, indices)) <= 32
    session.close()


def test_refined_windows_are_sent_when_no_volume_waits(tmp_path: Path) -> None:
    """The burst completes final 4 too, and the decoder should be free for it."""
    session = Session(tmp_path)
    before = [item for item in by_arrival(*triggers(13), *late(4, {})) if item.arrived_at < 1006.02]
    session.feed(before)
    session.feed([*late(12, burst(*range(4, 12), first_at=1006.02))[4:]])
    assert session.sent_windows() == [
        *((k, "final") for k in range(5)),
        *((k, "refined") for k in (1, 2, 3)),
    ]
    again = session.again()
    assert [(window.index, window.revision) for window in again if window.revision == "refined"] == [
        (k, "refined") for k in (1, 2, 3)
    ]


def test_the_refined_window_that_ends_a_burst_does_not_overtake_those_before_it(tmp_path: Path) -> None:
    """Each carries on from the one before it, so another order would be other clips."""
    session = Session(tmp_path)
    before = [item for item in by_arrival(*triggers(13), *late(4, {})) if item.arrived_at < 1006.02]
    session.feed(before)
    session.feed([*late(10, burst(*range(4, 10), first_at=1006.02))[4:]])
    assert [index for index, revision in session.sent_windows() if revision == "refined"] == [1, 2, 3]
    again = session.again()
    assert [window.index for window in again if window.revision == "refined"] == [1, 2, 3]


def test_whose_turn_it_was_changes_no_final_and_no_refined_window(tmp_path: Path) -> None:
    """Everything waits from the start: no taker is slower. In order of arrival the same windows come out."""
    session = Session(tmp_path, eeg=True, lsl="an amplifier")
    session.take(Montage(CHANNELS, 500.0))
    # The burst ends a hundredth of a second before the deadline of window 4, which reads volumes 10 and 11.
    items = by_arrival(*chunks(16), *triggers(29), *late(26, burst(*range(4, 13), first_at=1006.76)))
    session.feed(items)
    recorded = list(Recording(session.record).events())
    order = [type(item).__name__ for item in recorded]
    assert order != [type(item).__name__ for item in items]
    assembler = Assembler(session.bundle, Montage(CHANNELS, 500.0), ["eeg", "fmri"])
    plain = {(w.index, w.revision): w for w in assembler.play(items) if w.revision != "preview"}
    again = {(w.index, w.revision): w for w in session.again() if w.revision != "preview"}
    sent = [unpack(message) for message in session.sent if message.head["kind"] == "window"]
    live = {(w.index, w.revision): w for w in sent if w.revision != "preview"}
    assert {k for k, revision in live if revision == "refined"} == {1, 2, 3}
    assert [live[4, "final"].fmri_mask.all(), live[3, "final"].fmri_mask.any()] == [True, False]
    assert plain.keys() & again.keys() >= live.keys()
    for key, window in live.items():
        for other in (plain[key], again[key]):
            for name in ("eeg", "eeg_mask", "fmri", "fmri_mask"):
                assert np.array_equal(getattr(window, name), getattr(other, name)), (key, name)


def test_a_deadline_that_was_kept_while_nothing_waited_is_kept_in_a_replay(tmp_path: Path) -> None:
    """A file is being read when the deadline of its window passes: it had arrived, and comes too late."""
    session = Session(tmp_path)
    arrived = volumes(8)
    session.take(*arrived[:3])
    session.now = lambda: 1003.0
    session.idle()
    assert missing(session.windows) == [0.5]
    session.take(replace(arrived[3], arrived_at=1002.8), *arrived[4:])
    revisions = [(window.index, window.revision) for window in session.windows]
    assert revisions == [(0, "final"), (0, "refined"), (1, "final"), (2, "final")]
    played = session.again()
    assert [(window.index, window.revision) for window in played] == revisions
    assert missing(played) == missing(session.windows)
