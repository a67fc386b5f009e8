from typing import Any, cast

import pytest

from rtdecode.windows.assembler import Counters
from streaming.checks.finding import BAD, NOTE, OFF, OK, Finding
from streaming.page import indicators
from streaming.page.indicators import Debounced, Silence
from streaming.status import Status

TR = 0.8


def status(**counters: dict[str, Any]) -> Status:
    none: Counters = {"eeg": {}, "fmri": {}, "clock": {}, "runs": []}
    return Status(counters=cast("Counters", none | counters))


def test_eeg_that_flows_is_ok_and_says_what_comes() -> None:
    lamp = indicators.eeg(status(eeg={"rate_hz": 1000.2, "gaps": 2}), Silence(eeg=0.1), requested=True)
    assert (lamp.state, lamp.found, lamp.advice) == (OK, "1000 Hz, 2 gaps", "")


@pytest.mark.parametrize(("silent", "state"), [(None, NOTE), (1.9, OK), (3.0, NOTE), (9.0, BAD)])
def test_silent_eeg_is_told_and_gets_worse(silent: float | None, state: str) -> None:
    assert indicators.eeg(status(), Silence(eeg=silent), requested=True).state == state


def test_a_bundle_of_fmri_alone_reads_no_eeg_whatever_comes() -> None:
    for silence in (Silence(eeg=0.1), Silence(eeg=9.0), Silence()):
        lamp = indicators.eeg(status(), silence, requested=True, decoded=False)
        assert (lamp.state, lamp.found) == (OFF, "not read by this bundle")


def test_bad_channels_are_named() -> None:
    lamp = indicators.eeg(status(eeg={"bad_channels": ["Cz", "Oz"]}), Silence(eeg=0.0), requested=True)
    assert lamp.state == NOTE
    assert "Cz, Oz" in lamp.found


def test_triggers_without_files_mean_that_the_export_is_off() -> None:
    early_lamp = indicators.fmri(
        status(eeg={"triggers": 2}), Silence(eeg=0.0, trigger=0.5), TR, requested=True
    )
    assert (early_lamp.state, early_lamp.advice) == (NOTE, ""), "the first volume may still come"
    lamp = indicators.fmri(status(eeg={"triggers": 20}), Silence(eeg=0.0, trigger=0.5), TR, requested=True)
    assert lamp.state == BAD
    assert "export is off" in lamp.advice
    without = indicators.fmri(status(), Silence(eeg=0.0), TR, requested=True)
    assert without.state == NOTE
    assert "export is off" not in without.advice


@pytest.mark.parametrize(("trigger", "cause"), [(0.5, "stopped in the middle"), (15.0, "run is over")])
def test_volumes_that_stop_have_another_cause_while_triggers_go_on(trigger: float, cause: str) -> None:
    lamp = indicators.fmri(status(), Silence(eeg=0.0, volume=15.0, trigger=trigger), TR, requested=True)
    assert lamp.state == NOTE
    assert cause in lamp.advice
    assert indicators.fmri(status(), Silence(0.0, 60.0, trigger), TR, requested=True).state == BAD


def test_a_long_tr_is_no_silence() -> None:
    assert indicators.fmri(status(), Silence(volume=9.0), 3.0, requested=True).state == OK


def test_bursts_are_told_with_their_size() -> None:
    lamp = indicators.fmri(
        status(fmri={"volumes": 90, "missing": 1, "burst": 31}), Silence(volume=1.0), TR, requested=True
    )
    assert lamp.found == "90 volumes, 1 missing, up to 31 volumes within one TR"


def test_lost_triggers_are_told_only_while_volumes_come() -> None:
    lost = indicators.triggers(status(), Silence(volume=0.5, trigger=9.0), TR, requested=True)
    assert (lost.state, "trigger cable" in lost.advice) == (NOTE, True)
    assert indicators.triggers(status(), Silence(volume=60.0, trigger=60.0), TR, requested=True).state == OK
    assert indicators.triggers(status(), Silence(), TR, requested=False).state == OFF


@pytest.mark.parametrize(("age", "state"), [(None, OFF), (4.0, OK), (9.0, NOTE), (20.0, BAD)])
def test_a_stale_clip_is_told(age: float | None, state: str) -> None:
    assert indicators.clips(age, late=0, finals=3, hop_s=4.0).state == state


def final(brain: float | None, **by: float) -> dict[str, Any]:
    """The record of a final, as far as the lamp looks at it."""
    return {"brain": brain, "brain_by": {"eeg": None, "fmri": None} | by}


def test_a_brain_that_is_gone_is_believed_after_five_finals_alone() -> None:
    assert indicators.brain([]).state == OFF
    assert indicators.brain([final(None)] * 2).state == OFF
    assert indicators.brain([final(0.9)] * 5).state == OK
    assert indicators.brain([final(0.1)] * 4).state == NOTE
    assert indicators.brain([final(0.9)] + [final(0.1)] * 5).state == BAD
    assert indicators.brain([final(0.9)] * 3 + [final(0.1)] * 2).state == NOTE
    assert indicators.brain([final(0.9)] * 2 + [final(0.1)] * 3).state == BAD


def test_a_modality_that_is_not_read_is_named_by_the_lamp() -> None:
    noisy = indicators.brain([final(0.1, eeg=0.0, fmri=0.9)] * 5)
    assert (noisy.state, noisy.found) == (BAD, "EEG: nothing readable in 5 finals; the volumes are read")
    assert "is read" not in indicators.brain([final(0.1, eeg=0.0, fmri=0.0)] * 5).found
    alone = indicators.brain([final(0.1, fmri=0.0)] * 5)
    assert alone.found == "fMRI: nothing readable in 5 finals"
    assert indicators.brain([final(0.1, eeg=0.0)] * 4).state == NOTE


def test_a_recording_that_broke_off_is_bad() -> None:
    assert indicators.recording("", requested=False).state == OFF
    assert indicators.recording("", requested=True).state == OK
    assert indicators.recording("No space left on device", requested=True).state == BAD


def test_a_lamp_turns_only_once_a_change_has_lasted() -> None:
    steadied = Debounced()

    def state_at(now: float, state: str) -> str:
        return steadied.take([Finding("EEG", state, state)], now)[0].found

    assert state_at(0.0, OK) == OK
    assert [state_at(0.5, BAD), state_at(1.0, OK), state_at(1.2, BAD)] == [OK] * 3, "it does not flutter"
    assert state_at(1.9, BAD) == OK
    assert state_at(2.3, BAD) == BAD
    assert [state_at(2.5, OK), state_at(4.0, OK)] == [BAD, BAD], "a better state has to last longer"
    assert state_at(4.6, OK) == OK
