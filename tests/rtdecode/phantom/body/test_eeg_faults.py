import math

import numpy as np
import pytest

from rtdecode.phantom.body import eeg_faults
from rtdecode.phantom.body.delivery_faults import plan, received
from rtdecode.phantom.body.in_scanner_eeg import RAIL_UV, Artifacts
from rtdecode.phantom.session import START_AT, PhantomSession
from rtdecode.types import EegChunk

SPEC = "eeg-drop@1:0.5,eeg-drop@1.2:1,eeg-restart@4:1,eeg-clip@6:0.1"
SPEC += ",eeg-jump@3:2,eeg-jump@5:0.75,trigger-drop@1.6"


def chunks(session: PhantomSession) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    eeg_chunks = [item for item in session.events() if isinstance(item, EegChunk)]
    arrivals = np.array([chunk.arrived_at for chunk in eeg_chunks])
    return (
        np.concatenate([c.data for c in eeg_chunks], axis=1),
        np.concatenate([c.stamps for c in eeg_chunks]),
        arrivals,
    )


@pytest.mark.parametrize("artifacts", [None, Artifacts(drift_ppm=37.0)])
def test_every_lost_sample_is_in_the_log(artifacts: Artifacts | None) -> None:
    session = PhantomSession("easy", seed=7, seconds=1, sfreq=1000, spec=SPEC, artifacts=artifacts)
    lines = session.signal_lines()
    assert [t for _, t, _ in lines] == sorted(t for _, t, _ in lines)
    lost = np.zeros(session.samples, bool)
    for kind, _, detail in lines:
        if kind in ("eeg-drop", "eeg-restart"):
            span = slice(detail["first_sample"], detail["first_sample"] + detail["samples"])
            assert not lost[span].any()
            lost[span] = True
    times = session.sample_times(0, session.samples)
    assert np.array_equal(lost, ~received(session.faults, times))
    data, stamps, arrivals = chunks(session)
    assert data.shape[1] == (~lost).sum()
    assert np.array_equal(data, session.eeg()[:, ~lost])
    assert (np.diff(arrivals) > 0).all()
    sent = stamps - START_AT - times[~lost]
    for start, stop, jump in ((-10, 3, 0), (3, 5, 2), (5, 99, 1.25)):
        in_interval = (times[~lost] >= start) & (times[~lost] < stop)
        assert np.allclose(sent[in_interval], jump, atol=0.003)


def test_jumps_go_forwards_and_back() -> None:
    faults = plan("eeg-jump@3:2,eeg-jump@5:0.75,eeg-jump@7", 60, 1)
    assert eeg_faults.jumps(faults) == [(3.0, 2.0), (5.0, -0.75), (7.0, 0.5)]
    assert eeg_faults.stamp_shift(faults, np.array([0, 3, 5.5, 8])).tolist() == [0, 2, 1.25, 1.75]


def test_an_outlet_comes_back_as_itself_or_as_another() -> None:
    faults = plan("eeg-restart@3,eeg-restart@3.5:1,eeg-restart@9", 60, 1)
    assert eeg_faults.restarts(faults) == [(3.0, 4.5, True), (9.0, 10.0, False)]
    assert received(faults, np.array([2.9, 3.0, 4.4, 4.5, 9.9, 10.0])).tolist() == [
        True,
        False,
        False,
        True,
        False,
        True,
    ]


@pytest.mark.parametrize("artifacts", [None, Artifacts()])
def test_clipped_channels_are_at_the_rail_for_as_long(artifacts: Artifacts | None) -> None:
    session = PhantomSession(
        "easy", seed=7, seconds=1, sfreq=1000, spec="eeg-clip@6:0.1", artifacts=artifacts
    )
    (_, _, detail) = session.signal_lines()[0]
    eeg = session.eeg()
    clean = session.clean()
    railed = np.abs(eeg) >= RAIL_UV[1]
    names = [session.montage.channels[i] for i in np.flatnonzero(railed.any(axis=1))]
    assert names == detail["channels"]
    assert 1 <= len(names) <= 4
    first = detail["first_sample"]
    count = detail["samples"]
    assert count == 100
    assert railed[railed.any(axis=1)].sum() == count * len(names)
    assert railed[:, first : first + count].any(axis=1).sum() == len(names)
    assert np.abs(clean).max() < 5000
    if artifacts is None:
        assert np.array_equal(eeg[~railed], clean[~railed])


def test_spans_are_those_of_the_sample_times() -> None:
    session = PhantomSession("easy", seed=7, seconds=1, sfreq=5000, artifacts=Artifacts(drift_ppm=41.3))
    times = session.sample_times(0, session.samples)
    for start, stop in ((-99, -10), (-10, -9.9998), (0, 0.8), (3.3, 3.3), (8.99, 20), (5, math.inf)):
        first, count = session.sample_span(start, stop)
        expected = np.flatnonzero((times >= start) & (times < stop))
        assert count == len(expected)
        assert count == 0 or first == expected[0]
