"""What a session makes of the windows and statuses that its acquisition sends."""

from pathlib import Path
from typing import Any

import pytest

from rtdecode.errors import OutputError
from streaming.session.faults import SessionFaults
from streaming.session.receiver import Receiver
from streaming.status import Status
from tests.refusals import check_error
from tests.streaming.windows import window

HEAD: dict[str, Any] = {"clip": 0, "costs": {"eeg_push": 1.0}, "backlog": False}


def status(*runs: int, **values: Any) -> Status:
    counters: Any = {"eeg": {}, "fmri": {}, "clock": {}, "runs": [{"run": run} for run in runs]}
    return Status(counters=counters, **values)


def test_windows_become_jobs_and_those_that_are_cut_again_do_not() -> None:
    receiver = Receiver(None)
    assert not receiver.windows_came
    job = receiver.take_window(window(0), HEAD)
    assert job is not None
    assert (job.clip, job.costs, job.backlog, job.acquisition) == (0, {"eeg_push": 1.0}, False, 0)
    assert receiver.windows_came
    assert receiver.died(10.0, -9, handing_over=False) is None
    assert receiver.take_window(window(0), HEAD) is None
    job = receiver.take_window(window(1), HEAD | {"clip": 1})
    assert job is not None
    assert (job.clip, job.acquisition) == (1, 1)


def test_the_newest_status_has_every_run_and_the_items_are_kept_for_a_restart() -> None:
    receiver = Receiver(None)
    items = [{"stamp": float(n), "label": "R128"} for n in range(3)]
    receiver.take_status(status(0, items=items[:2]), 100.0)
    receiver.take_status(status(1, items=items[2:], elapsed=4.0), 101.0)
    assert [run["run"] for run in receiver.status.counters["runs"]] == [0, 1]
    assert receiver.status.items == []
    assert receiver.has_begun
    past = receiver.past()
    assert past.items == items
    assert past.status == receiver.status


def test_what_is_said_of_statuses_is_said_once() -> None:
    receiver = Receiver(Path("scanner"))
    first = status(existing=3, notes=["not used: a.txt"], simulated=True, heard=True)
    assert receiver.take_status(first, 100.0) == [
        "3 files that were already in scanner are ignored",
        "not used: a.txt",
        "Simulated participant: a source says so.",
    ]
    assert receiver.take_status(status(existing=3, simulated=True, heard=True), 101.0) == []


def test_a_hole_is_said_when_data_come_in_again() -> None:
    receiver = Receiver(None)
    receiver.take_status(status(heard=True), 100.0)
    receiver.died(101.0, -9, handing_over=False)
    assert receiver.take_status(status(), 102.0) == []
    (sentence,) = receiver.take_status(status(heard=True), 103.5)
    assert sentence == "the acquisition is receiving again, after 2.5 s without data"


@pytest.mark.parametrize(("deaths", "handing_over"), [(3, False), (1, True)])
def test_an_acquisition_that_dies_too_often_or_at_the_end_is_not_started_again(
    deaths: int, handing_over: bool
) -> None:
    receiver = Receiver(None)
    receiver.take_status(status(elapsed=7.0), 100.0)
    faults = [receiver.died(101.0 + n, -9, handing_over=handing_over) for n in range(deaths)]
    assert faults[:-1] == [None] * (deaths - 1)
    assert receiver.ended
    fault = faults[-1]
    assert fault is not None
    check_error(fault, "acquisition-process-died", cause="killed by SIGKILL")
    often = "" if handing_over else " 3 times, the last ones within a minute"
    assert fault.reason == f"the acquisition process ended unexpectedly{often} (killed by SIGKILL)"
    assert [death["run_s"] for death in receiver.restarts.report] == [7.0] * deaths


def test_the_last_status_ends_the_acquisition() -> None:
    receiver = Receiver(None)
    receiver.take_status(status(), 100.0)
    assert not receiver.ended
    receiver.take_status(status(), 101.0, ends=True)
    assert receiver.ended


# Faults.


def full() -> OutputError:
    return OutputError("output-write-failed", "full", reason="clips cannot be written: full")


def test_a_session_without_a_recording_ends_when_clips_cannot_be_written() -> None:
    faults = SessionFaults(None)
    with pytest.raises(OutputError):
        faults.lose_clips(full())
    assert faults.section() is None


def test_a_session_goes_on_while_clips_or_recording_can_be_written() -> None:
    faults = SessionFaults(Path("record"))
    assert faults.first is None
    assert faults.section() == {"fault": None}
    assert "rtdecode replay record" in faults.lose_clips(full())
    assert faults.first is faults.clips
    with pytest.raises(OutputError, match="full"):
        faults.lose_recording("No space left on device")
    other_way_round = SessionFaults(Path("record"))
    sentence = other_way_round.lose_recording("No space left on device")
    assert sentence.endswith("Decoding goes on.")
    assert other_way_round.section() == {"fault": "No space left on device"}
    with pytest.raises(OutputError, match="full"):
        other_way_round.lose_clips(full())


def test_the_fault_that_ends_it_comes_before_those_that_were_held_back() -> None:
    faults = SessionFaults(Path("record"))
    faults.lose_recording("No space left on device")
    assert faults.first is faults.recording
    first = OutputError("output-write-failed", "{path} cannot be written", path="one")
    second = OutputError("output-write-failed", "{path} cannot be written", path="two")
    faults.end(first)
    faults.end(second)
    assert faults.first is first
