"""Jumping to the newest samples when reading does not keep up."""

import numpy as np

from rtdecode.types import EegChunk
from streaming.session.backlog import StaleEegFilter


def chunk(arrived_at: float) -> EegChunk:
    return EegChunk(np.zeros((2, 50), np.float32), arrived_at - np.arange(50, 0, -1) / 500, arrived_at)


def judged(lag: StaleEegFilter, waits: list[float], began: float = 10.0) -> list[bool]:
    """Whether chunks that arrive every 0.1 s and wait so long are live."""
    arrivals = [began + k / 10 for k in range(len(waits))]
    return [
        lag.judge(chunk(arrived_at), arrived_at + wait).live
        for arrived_at, wait in zip(arrivals, waits, strict=True)
    ]


def test_a_stall_that_is_made_good_loses_nothing() -> None:
    lag = StaleEegFilter(9.0)
    lag.idle(10.0)
    assert all(judged(lag, [3.5, 3.4, 2.8, 2.1, 1.0, 0.1]))
    assert lag.notes() == []


def test_a_reader_that_is_always_busy_jumps_until_the_newest_samples_and_tells_it_once() -> None:
    lag = StaleEegFilter(0.0)
    first_chunk = chunk(10.0)
    assert lag.judge(first_chunk, 10.1) is first_chunk
    live = judged(lag, [1.5, 2.5, 1.8, 1.2, 0.9, 1.9])
    assert live == [True, False, False, False, True, True]
    (note,) = lag.notes()
    assert note.startswith("0.3 s of EEG that had waited for 2.5 s")
    assert lag.notes() == []


def test_a_pause_between_gives_it_time_again() -> None:
    lag = StaleEegFilter(5.0)
    lag.idle(9.0)
    assert judged(lag, [2.5, 2.6]) == [True, True]
    assert judged(lag, [2.5], began=20.0) == [False]
