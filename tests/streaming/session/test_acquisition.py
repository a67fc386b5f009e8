"""What the acquisition takes from the folder, and what it tells of it."""

import math
import multiprocessing
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from fractions import Fraction
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from rtdecode.bundle import Bundle
from rtdecode.disk import calibration as calibrations
from rtdecode.disk.recording import Recording
from rtdecode.errors import GeometryError
from rtdecode.phantom.files.mosaic import mosaic_bytes
from rtdecode.types import EegChunk, Montage, Trigger, Volume, Window
from rtdecode.windows.assembler import Assembler
from streaming.session import acquisition, replay
from streaming.session.as_live import Windows
from streaming.session.mailbox import Mailbox, pack_status, slot_bytes, unpack_status
from streaming.session.orders import Sources, StreamOptions
from streaming.session.receiver import with_runs
from streaming.sources.folder.source import FolderSource
from streaming.status import Status
from tests.streaming.bundles import AFFINE, CHANNELS, SHAPE, make_bundle, scan

CONTEXT = multiprocessing.get_context("spawn")
START = datetime(2026, 3, 2, 12)


@pytest.fixture
def eeg_alone(tmp_path: Path) -> tuple[Bundle, acquisition._Acquisition]:
    """An acquisition of triggers that were pushed by hand."""
    bundle = make_bundle(tmp_path / "bundle", fmri=False)
    (tmp_path / "scanner").mkdir()
    sources = Sources(bundle.path, StreamOptions(fmri_dir=tmp_path / "scanner"))
    mailbox = Mailbox(CONTEXT, 1, slot_bytes(bundle))
    return bundle, acquisition._Acquisition(sources, mailbox, CONTEXT.Event(), lambda: True)


def test_a_day_of_short_runs_fits_every_status_and_is_all_reported(eeg_alone) -> None:
    bundle, made = eeg_alone
    mailbox = Mailbox(CONTEXT, 1, slot_bytes(bundle))
    known = {}
    status = Status()
    for number in range(300):
        at = 1000.0 + 20 * number
        made._assembler.push(Trigger(at, "R128", at), at)
        if number % 10 == 0 or number == 299:
            assert mailbox.put(pack_status(made._status(at)), timeout=0)
            message = mailbox.get(timeout=0)
            assert message is not None
            status = with_runs(known, unpack_status(message))
    assert len(status.counters["runs"]) == 300
    assert status.counters["runs"] == made._assembler.counters()["runs"]


def test_a_folder_full_of_other_files_fits_a_status(eeg_alone) -> None:
    bundle, made = eeg_alone
    made._folder._ignored |= {f"{n:05d}.dcm": f"volume {n // 2} came {'again ' * 20}" for n in range(6000)}
    status = made._status(1000.0)
    assert Mailbox(CONTEXT, 1, slot_bytes(bundle)).put(pack_status(status), timeout=0)
    assert status.notes[-1] == "not used: other files, for 2970 more reasons"
    assert made._status(1001.0).notes == []


def mosaic(index: int, uid: str, tr: float) -> bytes:
    volume = scan(np.random.default_rng(index)).astype(np.int16)
    return mosaic_bytes(volume, AFFINE, tr, index, 4, START + timedelta(seconds=tr * index), 0.6, uid)


def taken(
    folder: Path, bundle: Bundle, calibration: Path | None, record: Path | None = None
) -> tuple[FolderSource, list[Any]]:
    options = StreamOptions(fmri_dir=folder, existing="read", record=record, calibration=calibration)
    unread = Assembler(bundle, None, ["fmri"]).unread if calibration is None else lambda *_: None
    source = acquisition._folder(options, bundle, unread)
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
    source, volumes = taken(folder, bundle, tmp_path / "calibration" if calibrated else None)
    assert [volume.index for volume in volumes] == [0, 1, 2]
    ((name, reason),) = source.ignored
    assert name == "0_localizer.dcm"
    said = "trained at TR 0.5 s, this series says 2.3 s" if calibrated else "the bundle reads volumes of"
    assert said in reason


def other_grid(tr: float = 2.3, index: int = 0, slices: int = 4) -> bytes:
    volume = np.random.default_rng(index).normal(500, 20, (8, 8, slices)).astype(np.int16)
    at = START + timedelta(seconds=tr * index)
    return mosaic_bytes(volume, AFFINE, tr, index, 4, at, 0.6, "1.9")


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
    source, volumes = taken(folder, bundle, None, tmp_path / "record" if recorded else None)
    assert len(volumes) == taken_in
    assert len(source.ignored) == 2 - taken_in


class Session:
    """An acquisition that records, and what it sends: items go in by hand."""

    def __init__(
        self, folder: Path, *, existing: str = "ignore", eeg: bool = False, lsl: str | None = None
    ) -> None:
        self.bundle = make_bundle(folder / "bundle", eeg=eeg, tr=Fraction(1, 2), window=Fraction(1))
        self.record = folder / "record"
        (folder / "scanner").mkdir()
        meta = {"simulated": False, "bundle": self.bundle.digest}
        options = StreamOptions(lsl=lsl, fmri_dir=folder / "scanner", existing=existing, record=self.record)
        sources = Sources(self.bundle.path, options, meta)
        mailbox = Mailbox(CONTEXT, 64, slot_bytes(self.bundle))
        self.made = acquisition._Acquisition(sources, mailbox, CONTEXT.Event(), lambda: True)
        self.sent: list[dict[str, Any]] = []
        self.windows: list[Window] = []
        self.made.send = lambda message: self.sent.append(message.head)
        self.made._emit = self._emit

    def _emit(self, windows: list[Window]) -> None:
        self.windows += windows
        self.sent += [{"kind": "window"} for _ in windows]

    def take(self, *items: EegChunk | Trigger | Volume) -> None:
        for item in items:
            self.made._take(item)

    def again(self) -> list[Window]:
        """The windows that a replay cuts."""
        self.made.close()
        kept = Recording(self.record)
        windows = Windows(partial(replay.assembler, kept, self.bundle, kept.calibration()), kept.montage)
        items = replay._items(kept, self.bundle, windows.assembler)
        return [job.window for job in windows.jobs(items, -math.inf, None)]


def volumes(count: int, *, shape: tuple[int, int, int] = SHAPE, lay_for: float = 0.0, **more: Any) -> list:
    rng = np.random.default_rng(0)
    out = []
    for index in range(count):
        data = scan(rng)[: shape[0], : shape[1], : shape[2]]
        ready = 1000.0 + 0.5 * (index + 1) + 0.1
        at = ready if not lay_for else 1000.0 + lay_for + index / 100
        out.append(
            Volume(data, AFFINE, index, 4, 0.5, 0.5 * index, 0.6, ready, at, at, f"v{index}", "1", **more)
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
    notes = session.made._status(1006.0).notes
    assert len(notes) == 1
    assert notes[0].startswith("recorded, but not decoded: the bundle reads volumes of")
    assert session.made._status(1007.0).notes == []
    played = session.again()
    assert missing(played)[:3] == [1.0] * 3
    kept = [item for item in Recording(session.record).events() if isinstance(item, Volume)]
    assert [volume.data.shape for volume in kept] == [(8, 8, 4)] * 10
    assert all(volume.live for volume in kept)


@pytest.mark.parametrize("simulated", [True, False])
def test_a_recording_says_simulated_where_a_source_does(tmp_path: Path, simulated: bool) -> None:
    session = Session(tmp_path, existing="read")
    session.take(*volumes(4, simulated=simulated))
    told = [head["kind"] for head in session.sent if head["kind"] == "window" or head["status"]["simulated"]]
    assert told[:1] == (["status"] if simulated else ["window"])
    session.made.close()
    assert Recording(session.record).meta["simulated"] is simulated


def test_a_stream_that_says_so_makes_the_recording_simulated(tmp_path: Path) -> None:
    session = Session(tmp_path, eeg=True)
    session.made._leave(partial(session.made._set_montage, Montage(CHANNELS, 500.0, simulated=True)))
    session.made._step(timeout=1.0)
    session.made.close()
    assert Recording(session.record).meta["simulated"] is True


def test_that_no_triggers_are_expected_waits_its_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the thread of the EEG stream finds out is left to the main thread, in order."""
    session = Session(tmp_path, eeg=True)
    made = session.made
    seconds = iter(range(0, 1000, 10))
    clock = SimpleNamespace(monotonic=lambda: next(seconds), sleep=lambda _: made._stop.set())
    monkeypatch.setattr(acquisition, "time", clock)
    chunk = EegChunk(np.zeros((len(CHANNELS), 5), np.float32), 1000.0 + np.arange(5) / 500, 1000.1)
    lsl: Any = SimpleNamespace(
        poll=lambda: [chunk], montage=Montage(CHANNELS, 500.0), has_triggers=False, close=lambda: None
    )
    made._lsl = lsl
    made._read_lsl()
    assert made._assembler.triggers_expected
    actions = [made._turns.take(timeout=0) for _ in range(len(made._turns))]
    assert len(actions) == 3
    actions[-1]()
    assert not made._assembler.triggers_expected
    made.close()


def write_montage(session: Session) -> None:
    session.made._leave(partial(session.made._set_montage, Montage(CHANNELS, 500.0)))
    session.made._step(timeout=1.0)


def write_volume(session: Session) -> None:
    session.take(*volumes(1))


def write_end(session: Session) -> None:
    session.made._stop.set()
    session.made.run()


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
    assert session.made._status(1000.0).record_fault == ""
    with full_disk():
        write(session)
    assert session.made._status(1000.0).record_fault == "File too large"
    assert list(Recording(session.record).events()) == []
    session.made.close()


def test_what_came_after_a_full_disk_is_decoded(tmp_path: Path) -> None:
    session = Session(tmp_path)
    arrived = volumes(10)
    session.take(*arrived[:4])
    with full_disk():
        session.take(arrived[4])
    session.take(*arrived[5:])
    assert missing(session.windows) == [0.0] * 4
    kept = [item.index for item in Recording(session.record).events() if isinstance(item, Volume)]
    assert kept == [0, 1, 2, 3]
    session.made.close()


def test_the_first_fault_is_told_not_what_closing_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(error: Exception) -> None:
        raise error

    broken = SimpleNamespace(
        run=lambda: fail(GeometryError("head-wrong", "the {number}", number="first")),
        close=lambda: fail(OSError("the second")),
    )
    told: list[dict[str, Any]] = []
    monkeypatch.setattr(acquisition.signal, "signal", lambda *_: None)
    monkeypatch.setattr(acquisition, "_Acquisition", lambda *_: broken)
    mailbox: Any = SimpleNamespace(put=lambda message, timeout: told.append(message.head))
    acquisition.main(Sources(Path(), StreamOptions()), mailbox, CONTEXT.Event())
    (head,) = told
    assert head["error"] == {
        "code": "head-wrong",
        "message": "the first",
        "exit_code": 4,
        "values": {"number": "first"},
    }


def test_what_waits_to_be_taken_is_no_silence(tmp_path: Path) -> None:
    session = Session(tmp_path)
    (volume,) = volumes(1)
    session.take(volume)
    assert session.made._status(volume.arrived_at + 40).silent == pytest.approx(40)
    session.made._leave(partial(session.made._take, volume))
    assert session.made._status(volume.arrived_at + 40).silent is None
    session.made.close()


def test_the_calibrations_digest_goes_with_a_recording(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = make_bundle(tmp_path / "bundle", fmri=False)
    found = SimpleNamespace(digest="0123", matched=lambda _: None)
    monkeypatch.setattr(calibrations, "load", lambda _: found)
    options = StreamOptions(record=tmp_path / "record", calibration=tmp_path / "calibration")
    sources = Sources(bundle.path, options, {"calibration": str(tmp_path / "calibration")})
    mailbox = Mailbox(CONTEXT, 1, slot_bytes(bundle))
    acquisition._Acquisition(sources, mailbox, CONTEXT.Event(), lambda: True).close()
    assert Recording(tmp_path / "record").meta["calibration_digest"] == "0123"


def fed(made: Any, items: list[EegChunk | Trigger | Volume]) -> None:
    """Leave items in order of arrival, all before any is taken, and then take them."""
    for item in items:
        made._leave(partial(made._take, item), item.arrived_at, volume=isinstance(item, Volume))
    while len(made._turns):
        # However slowly the machine takes them, no EEG is passed over for that.
        made._lag.idle(time.monotonic())
        made._step(timeout=0)


def triggers(count: int) -> list[Trigger]:
    return [Trigger(1000.0 + 0.5 * n, "R128", 1000.01 + 0.5 * n) for n in range(count)]


def burst(*indices: int, at: float) -> dict[int, float]:
    """When volumes of a burst arrive, by their index."""
    return {index: at + 0.01 * n for n, index in enumerate(indices)}


def late(count: int, at: dict[int, float]) -> list[Volume]:
    """Volumes of which some come late."""
    out = []
    for volume in volumes(count):
        ready = at.get(volume.index, volume.arrived_at)
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
    bundle = make_bundle(tmp_path / "bundle", eeg=False, tr=Fraction(1, 2), window=Fraction(1))
    (tmp_path / "scanner").mkdir()
    mailbox = Mailbox(CONTEXT, 1, slot_bytes(bundle))
    sources = Sources(bundle.path, StreamOptions(fmri_dir=tmp_path / "scanner"))
    made = acquisition._Acquisition(sources, mailbox, CONTEXT.Event(), lambda: True)
    fed(made, [*volumes(40)])
    assert made._assembler.counters()["fmri"]["volumes"] == 40
    heads: list[Any] = []
    while (message := mailbox.get(timeout=0)) is not None:
        heads.append(message.head)
        made._leave(list)
        made._step(timeout=0)
    windows = [head["window"]["index"] for head in heads if head["kind"] == "window"]
    assert windows == list(range(19))
    # A status tells of a few volumes at a time, and together they tell of each once.
    statuses = [head["status"] for head in heads if head["kind"] == "status"]
    told = [[item["index"] for item in status["items"]] for status in statuses]
    assert [index for some in told for index in some] == list(range(40))
    assert max(map(len, told)) <= 32


def test_refined_windows_are_sent_when_no_volume_waits(tmp_path: Path) -> None:
    """The burst completes final 4 too, and the decoder should be free for it."""
    session = Session(tmp_path)
    made = session.made
    made._emit = partial(acquisition._Acquisition._emit, made)
    before = [item for item in by_arrival(*triggers(13), *late(4, {})) if item.arrived_at < 1006.02]
    fed(made, before)
    fed(made, [*late(12, burst(*range(4, 12), at=1006.02))[4:]])
    sent = [head["window"] for head in session.sent if head["kind"] == "window"]
    assert [(one["index"], one["revision"]) for one in sent] == [
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
    session.made._emit = partial(acquisition._Acquisition._emit, session.made)
    before = [item for item in by_arrival(*triggers(13), *late(4, {})) if item.arrived_at < 1006.02]
    fed(session.made, before)
    fed(session.made, [*late(10, burst(*range(4, 10), at=1006.02))[4:]])
    sent = [head["window"] for head in session.sent if head["kind"] == "window"]
    assert [one["index"] for one in sent if one["revision"] == "refined"] == [1, 2, 3]
    again = session.again()
    assert [window.index for window in again if window.revision == "refined"] == [1, 2, 3]


def test_whose_turn_it_was_changes_no_final_and_no_refined_window(tmp_path: Path) -> None:
    """Everything waits from the start: no taker is slower. In order of arrival the same windows come out."""
    session = Session(tmp_path, eeg=True, lsl="an amplifier")
    session.made._set_montage(Montage(CHANNELS, 500.0))
    # The burst ends a hundredth of a second before the deadline of window 4, which reads volumes 10 and 11.
    items = by_arrival(*chunks(16), *triggers(29), *late(26, burst(*range(4, 13), at=1006.76)))
    fed(session.made, items)
    taken = list(Recording(session.record).events())
    order = [type(item).__name__ for item in taken]
    assert order != [type(item).__name__ for item in items]
    assembler = Assembler(session.bundle, Montage(CHANNELS, 500.0), ["eeg", "fmri"])
    plain = {(w.index, w.revision): w for w in assembler.play(items) if w.revision != "preview"}
    again = {(w.index, w.revision): w for w in session.again() if w.revision != "preview"}
    live = {(w.index, w.revision): w for w in session.windows if w.revision != "preview"}
    assert {k for k, revision in live if revision == "refined"} == {1, 2, 3}
    assert [live[4, "final"].fmri_mask.all(), live[3, "final"].fmri_mask.any()] == [True, False]
    assert plain.keys() & again.keys() >= live.keys()
    for key, window in live.items():
        for other in (plain[key], again[key]):
            for name in ("eeg", "eeg_mask", "fmri", "fmri_mask"):
                assert np.array_equal(getattr(window, name), getattr(other, name)), (key, name)


def test_a_deadline_that_was_kept_while_nothing_waited_is_kept_in_a_replay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file is being read when the deadline of its window passes: it had arrived, and comes too late."""
    session = Session(tmp_path)
    arrived = volumes(8)
    session.take(*arrived[:3])
    monkeypatch.setattr(acquisition, "time", SimpleNamespace(monotonic=lambda: 1003.0, time=lambda: 0.0))
    session.made._step(timeout=0)
    assert missing(session.windows) == [0.5]
    session.take(replace(arrived[3], arrived_at=1002.8), *arrived[4:])
    shown = [(window.index, window.revision) for window in session.windows]
    assert shown == [(0, "final"), (0, "refined"), (1, "final"), (2, "final")]
    played = session.again()
    assert [(window.index, window.revision) for window in played] == shown
    assert missing(played) == missing(session.windows)
