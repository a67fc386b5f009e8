import numpy as np
import pytest

from rtdecode.errors import UsageError
from rtdecode.phantom.faults import Fault, dropped_volumes, plan, received


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
    kept = received(plan("eeg-drop@1:0.5", 60, 1), np.arange(0, 3, 0.1))
    assert np.flatnonzero(~kept).tolist() == [10, 11, 12, 13, 14]


def test_nothing_asked_nothing_lost() -> None:
    assert plan("", 60, 1) == ()
    assert received((), np.arange(5.0)).all()


@pytest.mark.parametrize(
    "spec", ["folder-vanish@3", "volume-drop", "volume-drop@soon", "eeg-drop=", "sneeze=2"]
)
def test_what_is_not_built_is_said(spec: str) -> None:
    with pytest.raises(UsageError, match=r"volume-drop|kind=rate"):
        plan(spec, 60, 1)
