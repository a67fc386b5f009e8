"""What a status tells where stamps were placed by their arrival, or have jumped."""

import time
from pathlib import Path

import numpy as np
import pytest

from rtdecode.types import EegChunk, Montage, Trigger
from rtdecode.windows.run_sorter import SessionRuns
from streaming.session.status_builder import EegState
from tests.streaming.bundles import CHANNELS
from tests.streaming.session.test_acquisition import Session

SFREQ = 500
JUMP_S = 200_000.0


def begin(folder: Path, *, by_arrival: bool = False) -> tuple[Session, float]:
    session = Session(folder, eeg=True, lsl="nobody-is-called-so", stamped=not by_arrival)
    session.take(Montage(CHANNELS, float(SFREQ)))
    return session, time.monotonic() - 12.0


def take(session: Session, start_at: float, seconds: float, jump_s: float = 0.0) -> None:
    rng = np.random.default_rng(0)
    for part in range(int(10 * seconds)):
        times = start_at + part / 10 + np.arange(SFREQ // 10) / SFREQ
        data = rng.normal(0, 10, (len(CHANNELS), len(times))).astype(np.float32)
        session.take(EegChunk(data, times + jump_s, float(times[-1]) + 0.01))


@pytest.mark.parametrize("by_arrival", [True, False])
def test_no_age_and_no_delay_rest_on_stamps_that_were_placed(tmp_path: Path, by_arrival: bool) -> None:
    session, start_at = begin(tmp_path, by_arrival=by_arrival)
    take(session, start_at, 5.0)
    now_at = time.monotonic()
    status = session.intake.status(now_at, 0.0, EegState(placed_by_arrival=by_arrival))
    assert (status.counters["eeg"]["age_ms"] is None) is by_arrival
    assert (status.costs["eeg_push"] == []) is by_arrival
    session.close()


def test_behind_a_jump_the_newest_sample_and_its_triggers_stay_where_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, start_at = begin(tmp_path)
    triggers: list[Trigger] = []
    monkeypatch.setattr(SessionRuns, "trigger", lambda _, trigger: triggers.append(trigger))
    take(session, start_at, 5.0)
    # The stim channel's trigger comes before the first samples with the jump.
    session.take(Trigger(start_at + 5.05 + JUMP_S, "8", start_at + 5.06))
    take(session, start_at + 5.0, 5.0, JUMP_S)
    session.take(Trigger(start_at + 10.05 + JUMP_S, "8", start_at + 10.06))
    now = time.monotonic()
    status = session.status(now)
    counters = status.counters["eeg"]
    assert (counters["lost_samples"], counters["gaps"], counters["epochs"]) == (0, 0, 2)
    assert status.newest_sample_at == pytest.approx(start_at + 10.0, abs=0.05)
    assert 0 < min(status.costs["eeg_push"]) < max(status.costs["eeg_push"]) < 20_000
    # What the run's clock is given.
    stamps = [trigger.stamp - start_at for trigger in triggers]
    assert stamps == pytest.approx([5.05, 10.05], abs=0.02)
    session.close()
