import copy
from typing import Any

import pytest

from streaming.page import lamps
from streaming.page.lamps import AMBER, GREEN, GREY, RED, Lamp, Silence, Steadied
from streaming.status import NOTHING, Status

TR = 0.8


def status(**counters: dict[str, Any]) -> Status:
    made = copy.deepcopy(NOTHING)
    made["counters"].update(counters)  # type: ignore[typeddict-item]
    return made


def test_eeg_that_flows_is_green_and_says_what_comes() -> None:
    seen = lamps.eeg(status(eeg={"rate_hz": 1000.2, "gaps": 2}), Silence(eeg=0.1), asked=True)
    assert (seen.colour, seen.found, seen.advice) == (GREEN, "1000 Hz, 2 gaps", "")


@pytest.mark.parametrize(("silent", "colour"), [(None, AMBER), (1.9, GREEN), (3.0, AMBER), (9.0, RED)])
def test_silent_eeg_is_told_and_gets_worse(silent: float | None, colour: str) -> None:
    assert lamps.eeg(status(), Silence(eeg=silent), asked=True).colour == colour


def test_bad_channels_are_named() -> None:
    seen = lamps.eeg(status(eeg={"bad_channels": ["Cz", "Oz"]}), Silence(eeg=0.0), asked=True)
    assert seen.colour == AMBER
    assert "Cz, Oz" in seen.found


def test_triggers_without_files_mean_that_the_export_is_off() -> None:
    early_lamp = lamps.fmri(status(eeg={"triggers": 2}), Silence(eeg=0.0, trigger=0.5), TR, asked=True)
    assert (early_lamp.colour, early_lamp.advice) == (AMBER, ""), "the first volume may still come"
    seen = lamps.fmri(status(eeg={"triggers": 20}), Silence(eeg=0.0, trigger=0.5), TR, asked=True)
    assert seen.colour == RED
    assert "export is off" in seen.advice
    without = lamps.fmri(status(), Silence(eeg=0.0), TR, asked=True)
    assert without.colour == AMBER
    assert "export is off" not in without.advice


@pytest.mark.parametrize(("trigger", "cause"), [(0.5, "stopped in the middle"), (15.0, "run is over")])
def test_volumes_that_stop_have_another_cause_while_triggers_go_on(trigger: float, cause: str) -> None:
    seen = lamps.fmri(status(), Silence(eeg=0.0, volume=15.0, trigger=trigger), TR, asked=True)
    assert seen.colour == AMBER
    assert cause in seen.advice
    assert lamps.fmri(status(), Silence(0.0, 60.0, trigger), TR, asked=True).colour == RED


def test_a_long_tr_is_no_silence() -> None:
    assert lamps.fmri(status(), Silence(volume=9.0), 3.0, asked=True).colour == GREEN


def test_bursts_are_told_with_their_size() -> None:
    seen = lamps.fmri(
        status(fmri={"volumes": 90, "missing": 1, "burst": 31}), Silence(volume=1.0), TR, asked=True
    )
    assert seen.found == "90 volumes, 1 missing, bursts of up to 31"


def test_lost_triggers_are_told_only_while_volumes_come() -> None:
    lost = lamps.triggers(status(), Silence(volume=0.5, trigger=9.0), TR, asked=True)
    assert (lost.colour, "trigger cable" in lost.advice) == (AMBER, True)
    assert lamps.triggers(status(), Silence(volume=60.0, trigger=60.0), TR, asked=True).colour == GREEN
    assert lamps.triggers(status(), Silence(), TR, asked=False).colour == GREY


@pytest.mark.parametrize(("age", "colour"), [(None, GREY), (4.0, GREEN), (9.0, AMBER), (20.0, RED)])
def test_a_stale_clip_is_told(age: float | None, colour: str) -> None:
    assert lamps.clips(age, late=0, finals=3, hop_s=4.0).colour == colour


def final(brain: float | None, **by: float) -> dict[str, Any]:
    """The record of a final, as far as the lamp looks at it."""
    return {"brain": brain, "brain_by": {"eeg": None, "fmri": None} | by}


def test_a_brain_that_is_gone_is_believed_after_five_finals_alone() -> None:
    assert lamps.brain([]).colour == GREY
    assert lamps.brain([final(None)] * 2).colour == GREY
    assert lamps.brain([final(0.9)] * 5).colour == GREEN
    assert lamps.brain([final(0.1)] * 4).colour == AMBER
    assert lamps.brain([final(0.9)] + [final(0.1)] * 5).colour == RED
    assert lamps.brain([final(0.9)] * 3 + [final(0.1)] * 2).colour == AMBER
    assert lamps.brain([final(0.9)] * 2 + [final(0.1)] * 3).colour == RED


def test_a_modality_that_is_not_read_is_named_by_the_lamp() -> None:
    noisy = lamps.brain([final(0.1, eeg=0.0, fmri=0.9)] * 5)
    assert (noisy.colour, noisy.found) == (RED, "EEG: nothing readable in 5 finals; the volumes are read")
    assert "is read" not in lamps.brain([final(0.1, eeg=0.0, fmri=0.0)] * 5).found
    alone = lamps.brain([final(0.1, fmri=0.0)] * 5)
    assert alone.found == "fMRI: nothing readable in 5 finals"
    assert lamps.brain([final(0.1, eeg=0.0)] * 4).colour == AMBER


def test_a_recording_that_broke_off_is_red() -> None:
    assert lamps.recording("", asked=False).colour == GREY
    assert lamps.recording("", asked=True).colour == GREEN
    assert lamps.recording("No space left on device", asked=True).colour == RED


def test_a_lamp_turns_only_once_a_change_has_lasted() -> None:
    shown = Steadied()

    def at(now: float, colour: str) -> str:
        return shown.take([Lamp("EEG", colour, colour)], now)[0].found

    assert at(0.0, GREEN) == GREEN
    assert [at(0.5, RED), at(1.0, GREEN), at(1.2, RED)] == [GREEN] * 3, "it does not flutter"
    assert at(1.9, RED) == GREEN
    assert at(2.3, RED) == RED
    assert [at(2.5, GREEN), at(4.0, GREEN)] == [RED, RED], "a better state has to last longer"
    assert at(4.6, GREEN) == GREEN
