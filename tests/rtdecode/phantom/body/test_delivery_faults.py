import numpy as np
import pytest

from rtdecode.errors import UsageError
from rtdecode.phantom.body.delivery_faults import (
    KINDS,
    DeliveryOutcome,
    Fault,
    absences,
    dropped_volumes,
    outcomes,
    plan,
    received,
    trigger_lines,
    triggers,
)
from tests.refusals import refused


def test_a_fault_at_a_time() -> None:
    assert plan("volume-drop@20, eeg-drop@3:2", 60, 1) == (
        Fault("eeg-drop", 3.0, 2.0),
        Fault("volume-drop", 20.0, 0.0),
    )


def test_a_rate_gives_that_many_a_minute_and_the_same_for_a_seed() -> None:
    faults = plan("volume-drop=6", 6000, 1)
    assert 500 < len(faults) < 700
    assert faults == plan("volume-drop=6", 6000, 1)
    assert faults != plan("volume-drop=6", 6000, 2)


def test_volumes_are_lost_by_their_time() -> None:
    assert list(dropped_volumes(plan("volume-drop@2.4", 60, 1), 0.8, 80)) == [3]
    assert list(dropped_volumes(plan("volume-drop@2.4:1.6", 60, 1), 0.8, 80)) == [3, 4]
    assert list(dropped_volumes(plan("volume-drop@100", 60, 1), 0.8, 80)) == []


def test_samples_are_lost_by_their_time() -> None:
    is_received = received(plan("eeg-drop@1:0.5", 60, 1), np.arange(0, 3, 0.1))
    assert np.flatnonzero(~is_received).tolist() == [10, 11, 12, 13, 14]


def test_nothing_asked_nothing_lost() -> None:
    assert plan("", 60, 1) == ()
    assert received((), np.arange(5.0)).all()


@pytest.mark.parametrize(
    ("spec", "fault_kind"),
    [("eeg-warp@3", "eeg-warp"), ("sneeze=2", "sneeze")],
)
def test_a_kind_that_is_not_built_is_refused_with_those_that_are(spec: str, fault_kind: str) -> None:
    with refused(UsageError, "simulated-fault-unknown", fault_kind=fault_kind, available=list(KINDS)):
        plan(spec, 60, 1)


@pytest.mark.parametrize(
    "fault", ["volume-drop", "volume-drop@soon", "eeg-drop=", "volume-late@-1", "file-slow@3:-2"]
)
def test_a_fault_that_cannot_be_read_is_refused_with_how_to_write_one(fault: str) -> None:
    with refused(UsageError, "simulated-fault-malformed", fault=fault) as caught:
        plan(fault, 60, 1)
    assert "kind=rate" in str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_a_rate_and_a_usual_duration(kind: str) -> None:
    faults = plan(f"{kind}=6,{kind}@2", 600, 3)
    assert 30 < len(faults) < 95
    assert {fault.kind for fault in faults} == {kind}
    assert {fault.duration_s for fault in faults} == {KINDS[kind].usual_s}


def test_what_becomes_of_a_volume() -> None:
    spec = (
        "volume-dup@0.8,volume-late@1.6:3,volume-reorder@2.4,slice-drop@3.2,file-truncate@4,"
        "file-slow@4.8:2,volume-drop@5.6,volume-dup@5.6"
    )
    fate_of = outcomes(plan(spec, 60, 1), 0.8, 80, 1)
    assert list(fate_of) == [1, 2, 3, 4, 5, 6, 7]
    assert fate_of[1].again
    assert fate_of[2].late_s == 3
    assert 0.8 < fate_of[3].late_s < 1.2, "after its successor, before it is given up"
    assert fate_of[4].hole
    assert fate_of[5].cut is not None
    assert 0.05 <= fate_of[5].cut <= 0.95
    assert fate_of[6].slow_s == 2
    assert fate_of[7] == DeliveryOutcome((Fault("volume-drop", 5.6, 0.0),), lost=True), (
        "a lost volume has no double"
    )
    assert [index for index, fate in fate_of.items() if not fate.is_readable] == [4, 5, 7]


def test_spans_hit_every_volume_within_and_lateness_only_one() -> None:
    assert list(outcomes(plan("volume-dup@1.6:1.6", 60, 1), 0.8, 80, 1)) == [2, 3]
    assert list(outcomes(plan("volume-late@1.6:1.6", 60, 1), 0.8, 80, 1)) == [2]
    assert list(outcomes(plan("file-truncate@63:30", 60, 1), 0.8, 80, 1)) == [78, 79]


def test_no_volume_moves_behind_one_that_never_comes() -> None:
    assert list(outcomes(plan("volume-reorder@1.6,volume-drop@2.4", 60, 1), 0.8, 80, 1)) == [3]
    assert list(outcomes(plan("volume-reorder@7.2", 60, 1), 0.8, 10, 1)) == []


def test_absences_do_not_overlap() -> None:
    away = absences(plan("folder-vanish@3:2,folder-vanish@4:3,folder-vanish@10:1", 60, 1))
    assert [(start, stop) for start, stop, _ in away] == [(3.0, 7.0), (10.0, 11.0)]


def test_triggers_go_missing_and_appear() -> None:
    faults = plan("trigger-drop@1.6,trigger-extra@2.9,trigger-extra@4.1:0.5", 60, 1)
    sent, altered = triggers(faults, 0.8, 8)
    assert sent == pytest.approx([0, 0.8, 2.4, 2.9, 3.2, 4.0, 4.1, 4.35, 4.8, 5.6])
    assert [(fault.kind, trigger_s) for fault, trigger_s in altered] == [
        ("trigger-drop", 1.6),
        ("trigger-extra", 2.9),
        ("trigger-extra", 4.1),
        ("trigger-extra", 4.35),
    ]
    lines = trigger_lines(faults + plan("eeg-drop@2", 60, 1), 0.8, 8)
    assert [kind for kind, _, _ in lines] == ["trigger-drop", *["trigger-extra"] * 3]
    assert [detail["index"] for _, _, detail in lines] == [2, 3, 5, 5]
    assert triggers((), 0.8, 3)[0] == [0.0, 0.8, 1.6]
