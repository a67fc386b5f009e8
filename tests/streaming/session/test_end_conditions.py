"""When a live session ends: statuses and times in, a reason or a fault out."""

import pytest

from rtdecode.errors import SourceLostError
from rtdecode.windows.assembler import Counters
from streaming.session.end_conditions import EndConditions
from streaming.status import Status
from tests.refusals import check_error


def with_volumes(volumes: int) -> Counters:
    return {"eeg": {}, "fmri": {"volumes": volumes}, "clock": {}, "runs": []}


def test_the_wait_for_sources_begins_when_they_are_looked_for() -> None:
    """The acquisition process takes long to start: only then is told what is missing."""
    ends = EndConditions(30.0, 30.0)
    status = Status(waiting=["EEG: no stream", "fMRI: no file"])
    assert ends.fault(status, 140.0) is None
    ends.seek(140.0)
    assert ends.fault(status, 170.0) is None
    ends.seek(170.0)
    fault = ends.fault(status, 170.1)
    assert fault is not None
    check_error(fault, "session-start-timeout", wait_s=30.0, missing_sources="EEG: no stream; fMRI: no file")
    assert fault.reason == "waited 30 s (--wait) for a run to begin; still missing: EEG, fMRI"


def test_a_session_may_wait_for_ever() -> None:
    ends = EndConditions(0.0, 30.0)
    ends.seek(0.0)
    assert ends.fault(Status(), 1e6) is None


@pytest.mark.parametrize("limit", [0.0, 30.0])
def test_silence_ends_it_unless_it_may_last(limit: float) -> None:
    ends = EndConditions(60.0, limit)
    assert ends.fault(Status(elapsed=1.0, silent=30.0), 100.0) is None
    fault = ends.fault(Status(elapsed=1.0, silent=100.0), 100.0)
    if limit == 0:
        assert fault is None
    else:
        assert isinstance(fault, SourceLostError)
        check_error(fault, "session-sources-silent", silent_s=100.0, limit_s=limit)


@pytest.mark.parametrize("is_running", [True, False])
def test_several_streams_that_fit_end_the_wait_with_1(is_running: bool) -> None:
    ends = EndConditions(1.0, 30.0)
    ends.seek(100.0)
    waiting = ["EEG: 2 LSL streams match 'EEG': 'a' of here, 'b' of there; none is read"]
    ambiguous = Status(eeg_ambiguous=True, waiting=waiting, elapsed=0.5 if is_running else None)
    assert ends.fault(ambiguous, 100.5) is None
    error = ends.fault(ambiguous, 102.0)
    assert error is not None
    check_error(error, "session-eeg-ambiguous", missing_sources=waiting[0], wait_s=1.0)
    assert error.exit_code == 1
    assert "'a'" not in error.reason


def test_a_session_that_has_begun_is_not_ended_by_streams_that_come_later() -> None:
    ends = EndConditions(1.0, 30.0)
    ends.seek(100.0)
    assert ends.fault(Status(elapsed=5.0), 102.0) is None
    assert ends.fault(Status(elapsed=5.0, eeg_ambiguous=True), 103.0) is None


@pytest.mark.parametrize(("lost_after", "patience"), [(30.0, 30.0), (5.0, 5.0), (0.0, 30.0)])
def test_the_wait_for_late_volumes_ends_when_none_comes_any_more(lost_after: float, patience: float) -> None:
    ends = EndConditions(60.0, lost_after)

    def waits(volumes: int, now_at: float, awaited: int = 2) -> bool:
        # Both sources may fall silent meanwhile: the session has had its seconds.
        status = Status(done=True, awaited=awaited, counters=with_volumes(volumes), silent=1e3)
        assert ends.fault(status, now_at) is None
        reason = ends.reason(status, now_at)
        assert reason in ("", "the requested seconds were decoded")
        return not reason

    assert not waits(10, 100.0, awaited=0)
    assert ends.notice() == ""
    assert waits(10, 100.0)
    sentence = ends.notice()
    assert "2 of them without volumes that are late" in sentence
    assert f"for {patience:g} s" in sentence
    assert waits(10, 100.0 + patience - 0.1)
    assert waits(11, 100.0 + patience - 0.1)
    assert waits(11, 100.0 + 2 * patience - 0.2)
    assert not waits(11, 100.0 + 2 * patience)
    assert not waits(12, 100.0 + 2 * patience, awaited=0)
    assert ends.notice() == ""


def test_ctrl_c_ends_the_wait_for_late_volumes() -> None:
    ends = EndConditions(60.0, 30.0)
    status = Status(done=True, awaited=2, counters=with_volumes(3))
    assert ends.reason(status, 100.0) == ""
    ends.interrupted = "stopped by SIGINT"
    assert ends.reason(status, 100.0) == "stopped by SIGINT"


def test_a_session_goes_on_until_its_windows_are_decoded() -> None:
    ends = EndConditions(60.0, 30.0)
    assert ends.reason(Status(elapsed=3.0), 100.0) == ""
    assert ends.reason(Status(elapsed=9.0, done=True), 100.0) == "the requested seconds were decoded"
