"""The parts of an acquisition from plain values: no thread, no source, no bundle, no mailbox."""

import math
import multiprocessing
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from rtdecode.types import EegChunk, Montage, Trigger, Volume
from rtdecode.windows.assembler import Counters
from streaming.message import Message
from streaming.session.deadline_clock import DeadlineClock
from streaming.session.mailbox import Mailbox, pack_status
from streaming.session.outbox import Outbox
from streaming.session.recorder import Recorder
from streaming.session.source_activity import SourceActivity
from streaming.session.source_events import CaughtUp, EegReading, Event, FolderReading, NoTriggers
from streaming.session.source_reader import Reading, SourceReader
from streaming.session.status_builder import EegState, FolderState, Moment, RunState, StatusBuilder
from streaming.status import Status

CHUNK = EegChunk(np.zeros((1, 2), np.float32), np.array([99.9, 100.0]), 100.01)


def volume(readable_at: float, arrived_at: float | None = None) -> Volume:
    arrived_at = readable_at if arrived_at is None else arrived_at
    data = np.zeros((1, 1, 1), np.float32)
    return Volume(data, np.eye(4), 0, 1, 0.5, 0.0, 0.6, readable_at, arrived_at, arrived_at, "v", "1")


# The clock of the deadlines.


def test_an_item_counts_from_its_arrival() -> None:
    clock = DeadlineClock(behind=False)
    assert clock.stamp(volume(100.0), math.inf).clock_at is None
    assert clock.time_of(volume(100.0)) == 100.0
    assert clock.time_of(volume(99.0)) == 100.0, "it never goes back"
    assert clock.now(123.0) == 123.0


def test_no_deadline_passes_while_something_waits_that_had_arrived_by_then() -> None:
    clock = DeadlineClock(behind=False)
    assert clock.stamp(volume(100.0), 98.5).clock_at == 98.5


def test_what_arrived_before_a_deadline_that_was_kept_counts_from_then() -> None:
    clock = DeadlineClock(behind=False)
    clock.keep(101.0)
    assert clock.stamp(volume(100.0), math.inf).clock_at == 101.0
    assert clock.stamp(volume(102.0), math.inf).clock_at is None


def test_in_a_backlog_the_clock_steps_from_volume_to_volume() -> None:
    clock = DeadlineClock(behind=True)
    trigger = Trigger(4000.0, "R128", 4000.0)
    assert clock.now(4000.0) == clock.stamp(trigger, math.inf).clock_at
    assert clock.now(4000.0) < -1e9, "long ago, and finite"
    assert clock.stamp(volume(1000.5, 4000.0), 0.0).clock_at == 1000.5
    assert clock.stamp(volume(1000.0, 4000.0), 0.0).clock_at == 1000.5
    assert clock.stamp(trigger, math.inf).clock_at == 1000.5
    # Deadlines of a backlog are not kept by the local clock.
    clock.keep(4000.0)
    clock.catch_up(4001.0)
    assert clock.now(4002.0) == 4002.0
    assert clock.stamp(volume(4000.5), math.inf).clock_at == 4001.0


# The recorder.


def test_a_disk_that_is_full_ends_the_recording_and_nothing_else() -> None:
    def full(_: Any) -> None:
        raise OSError(28, "No space left on device")

    written: list[str] = []
    closed: list[str] = []

    def close() -> None:
        closed.append("closed")
        raise OSError(28, "No space left on device")

    recorder = Recorder(cast("Any", SimpleNamespace(close=close)))
    recorder.record(lambda _: written.append("one"))
    assert (recorder.is_open, recorder.fault) == (True, "")
    recorder.record(full)
    recorder.record(lambda _: written.append("two"))
    assert (recorder.is_open, recorder.fault) == (False, "No space left on device")
    assert (written, closed) == (["one"], ["closed"])


# The outbox.


class Slots:
    """A mailbox of few slots."""

    def __init__(self, free: int) -> None:
        self.free = free
        self.got: list[int] = []
        self.waits: list[float] = []

    def put(self, message: Message, timeout: float) -> bool:
        self.waits.append(timeout)
        if not self.free:
            return False
        self.free -= 1
        self.got.append(message.head["n"])
        return True


def message(number: int) -> Message:
    return Message({"n": number}, {})


def test_messages_wait_in_order_until_there_is_room() -> None:
    slots = Slots(1)
    outbox = Outbox(slots.put, lambda: True)
    for number in range(3):
        outbox.send(message(number))
    assert (slots.got, len(outbox)) == ([0], 2)
    assert set(slots.waits) == {0.0}, "reading does not wait"
    slots.free = 5
    outbox.hold_refined(message(9))
    outbox.post()
    assert slots.got == [0, 1, 2]
    outbox.send_refined()
    outbox.send_refined()
    assert slots.got == [0, 1, 2, 9]


def test_a_session_that_was_killed_takes_nothing_and_is_not_waited_for() -> None:
    slots = Slots(0)
    alive = True
    outbox = Outbox(slots.put, lambda: alive)
    for number in range(32):
        outbox.send(message(number))
    assert slots.waits[-1] == 0.0
    alive = False
    outbox.send(message(32))
    assert slots.waits[-1] == 0.5, "beyond so many, reading waits for the session"
    assert len(outbox) == 0


# Sources.


def test_a_source_that_was_silent_comes_back() -> None:
    activity = SourceActivity()
    assert activity.silent_s(100.0) is None
    assert activity.is_silent("eeg", 100.0)
    assert activity.since("eeg", 100.0) == ""
    activity.came("eeg", 100.0)
    activity.came("fmri", 101.0)
    assert not activity.is_silent("eeg", 102.0)
    assert activity.is_silent("eeg", 102.1)
    assert activity.since("eeg", 104.0) == "silent for 4 s, "
    assert activity.silent_s(105.0) == 4.0
    activity.came("eeg", 102.1)
    activity.came("fmri", 107.0)
    assert activity.returns == {"eeg": 1, "fmri": 0}


def test_volumes_of_a_long_tr_are_silent_later() -> None:
    activity = SourceActivity(tr_s=3.0)
    activity.came("fmri", 100.0)
    assert not activity.is_silent("fmri", 112.0)
    assert activity.is_silent("fmri", 112.1)


def test_the_montage_comes_first_and_triggers_are_waited_for_some_seconds() -> None:
    montage = Montage(("Cz",), 500.0)
    source: Any = SimpleNamespace(poll=lambda: [CHUNK], montage=None, has_triggers=False)
    reading = EegReading(source)
    assert list(reading.poll(100.0)) == [CHUNK]
    source.montage = montage
    assert list(reading.poll(101.0)) == [montage, CHUNK]
    assert list(reading.poll(107.0)) == [CHUNK]
    assert list(reading.poll(107.1)) == [CHUNK, NoTriggers()]
    assert list(reading.poll(120.0)) == [CHUNK]


def test_triggers_that_come_are_expected() -> None:
    montage = Montage(("Cz",), 500.0)
    reading = EegReading(
        cast("Any", SimpleNamespace(poll=lambda: [CHUNK], montage=montage, has_triggers=True))
    )
    assert list(reading.poll(100.0)) == [montage, CHUNK]
    assert list(reading.poll(200.0)) == [CHUNK]


@pytest.mark.parametrize("behind", [True, False])
def test_the_backlog_is_read_when_all_files_have_been_tried(behind: bool) -> None:
    batches = [[volume(1.0)], [], [], [volume(2.0)]]
    unread = [True, True, False, False]
    source: Any = SimpleNamespace(directory=Path("scanner"), old=True, unread=True)

    def poll(now_at: float) -> list[Volume]:
        source.unread = unread[int(now_at)]
        return batches[int(now_at)]

    source.poll = poll
    reading = FolderReading(source, behind=behind)
    events = [list(reading.poll(float(n))) for n in range(4)]
    assert [len(some) for some in events] == [1, 0, int(behind), 1]
    if behind:
        assert events[2] == [CaughtUp(Path("scanner"), old=True)]


def test_what_a_thread_finds_is_left_in_order_until_it_is_stopped() -> None:
    stop: Any = multiprocessing.get_context("spawn").Event()
    reader = SourceReader(stop)
    closed: list[bool] = []

    def poll(_: float) -> Iterator[Event]:
        yield CHUNK
        yield CaughtUp(Path("scanner"), old=False)
        yield volume(100.0)
        yield NoTriggers()

    def pause_s() -> float:
        stop.set()
        return 0.0

    reader.read(Reading(poll, pause_s, lambda: closed.append(True)))
    assert closed == [True]
    assert reader.turns.volumes == 2, "that the backlog is read comes behind its volumes"
    assert reader.turns.oldest == 100.0
    kinds = [type(reader.turns.take(timeout=0)).__name__ for _ in range(len(reader.turns))]
    assert sorted(kinds) == ["CaughtUp", "EegChunk", "NoTriggers", "Volume"]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("Thread-read")]


# The status.


def counters(*runs: int) -> Counters:
    counts = ("duplicate", "rejected_files", "out_of_order", "late")
    return {
        "eeg": {"age_ms": 5.0},
        "fmri": dict.fromkeys(counts, 1),
        "clock": {},
        "runs": [{"run": run} for run in runs],
    }


def run(elapsed: float | None = 5.0, **values: Any) -> RunState:
    return replace(RunState(elapsed, 9, 4, False, 0, counters(0)), **values)


def built(builder: StatusBuilder, now_at: float, **how: Any) -> Status:
    eeg = how.pop("eeg", None)
    folder = how.pop("folder", None)
    state = how.pop("run", run())
    return builder.build(Moment(now_at=now_at, wall_s=0.0, **how), state, eeg, folder)


def test_a_folder_full_of_other_files_fits_a_status() -> None:
    builder = StatusBuilder(None)
    ignored = [(f"{n:05d}.dcm", f"volume {n // 2} came {'again ' * 20}") for n in range(6000)]
    folder = FolderState(ignored=ignored)
    status = built(builder, 100.0, folder=folder)
    mailbox = Mailbox(multiprocessing.get_context("spawn"), 1, 65536)
    assert mailbox.put(pack_status(status), timeout=0)
    assert status.notes[-1] == "not used: other files, for 2970 more reasons"
    assert built(builder, 101.0, folder=folder).notes == []


def test_notes_are_told_once_in_order() -> None:
    builder = StatusBuilder(None)
    builder.note("old files")
    first = built(
        builder,
        100.0,
        folder=FolderState(ignored=[("a.txt", "no image"), ("b.txt", "no image")]),
        eeg=EegState(notes=["a stream is back"]),
        run=run(refused=["series 7: a localizer"], notes=["a run began"]),
        lag_notes=["3.0 s of EEG"],
        unread=["another grid", ""],
    )
    assert first.notes == [
        "not used: b.txt: no image",
        "not used: series 7: a localizer",
        "not used: 3.0 s of EEG",
        "recorded, but not decoded: another grid",
        "a run began",
        "old files",
        "EEG: a stream is back",
    ]
    assert built(builder, 101.0, unread=["another grid"]).notes == []


def test_what_folder_and_assembler_count_adds_up_or_counts_once() -> None:
    folder = FolderState(
        {"duplicate": 2, "rejected_files": 3, "out_of_order": 4, "late": 0, "existing_files": 7}
    )
    status = built(StatusBuilder(None), 100.0, folder=folder, run=run(counters=counters(*range(20))))
    assert status.counters["fmri"] == {"duplicate": 3, "rejected_files": 4, "out_of_order": 4, "late": 1}
    assert status.existing == 7
    assert [entry["run"] for entry in status.counters["runs"]] == list(range(4, 20))
    before = StatusBuilder(None, before=lambda counted: {**counted, "clock": {"source": "header"}})
    assert built(before, 100.0).counters["clock"] == {"source": "header"}


@pytest.mark.parametrize("by_arrival", [True, False])
def test_samples_that_were_placed_by_their_arrival_have_no_age(by_arrival: bool) -> None:
    status = built(StatusBuilder(None), 100.0, eeg=EegState(placed_by_arrival=by_arrival))
    assert status.counters["eeg"]["age_ms"] == (None if by_arrival else 5.0)


def test_what_is_waited_for_is_named() -> None:
    builder = StatusBuilder(None)
    eeg = EegState(state="no LSL stream 'x'")
    folder = FolderState({"vanished": 2}, is_missing=True, state="the folder is not there")
    status = built(builder, 100.0, eeg=eeg, folder=folder, run=run(None))
    assert status.waiting == ["EEG: no LSL stream 'x'", "fMRI: the folder is not there"]
    assert status.folder == {"gone": 2, "back": 1}
    builder.activity.came("eeg", 100.0)
    builder.activity.came("fmri", 100.0)
    assert built(builder, 101.0, eeg=eeg, folder=folder, run=run(None)).waiting == [
        "the first volume trigger"
    ]
    status = built(builder, 105.0, eeg=eeg, folder=folder)
    assert status.waiting == ["EEG: silent for 5 s, no LSL stream 'x'"]
    assert status.silent == 5.0
    assert built(builder, 105.0, items_wait=True).silent is None


def test_a_status_is_due_twice_a_second_and_at_once_for_a_volume() -> None:
    builder = StatusBuilder(None)
    assert builder.is_due(100.0)
    builder.sent(100.0)
    assert not builder.is_due(100.4)
    assert builder.is_due(100.5)
    builder.begin(CHUNK, behind=False)
    assert builder.is_due(100.1), "the first sample is told at once"
    builder.newest_sample_at = 100.0
    builder.sent(100.1)
    builder.begin(CHUNK, behind=False)
    builder.begin(volume(100.0), behind=True)
    assert not builder.is_due(100.2)
    builder.begin(volume(100.0), behind=False)
    assert builder.is_due(100.2)


def test_items_are_told_some_at_a_time_and_costs_since_the_last_status() -> None:
    builder = StatusBuilder(None)
    for n in range(40):
        builder.remember(Trigger(100.0 + n, "R128", 100.0 + n))
    builder.sent(100.0)
    assert builder.is_due(100.1), "so many items are told at once"
    builder.count_cost("eeg_push", 0.0015)
    first = built(builder, 100.1)
    assert (len(first.items), first.costs["eeg_push"]) == (32, [1.5])
    assert builder.has_untold
    second = built(builder, 100.2)
    assert (len(second.items), second.costs["eeg_push"]) == (8, [])
    assert builder.newest_costs == {"volume_to_vector": None, "eeg_push": 1.5}
