"""No figure that would rest on stamps which were placed by their arrival is given."""

from dataclasses import replace

import numpy as np
import pytest

from streaming.sources.lsl.source import LslSource
from streaming.tools import preflight_sync
from streaming.tools.eeg_watch import Watch
from tests.streaming.tools.test_preflight import silent, triggered

NOTE = "stamps lie 9 s from this machine's LSL clock"


def test_clocks_are_not_compared_by_stamps_that_were_placed_by_arrival() -> None:
    jitter = np.random.default_rng(1).normal(0, 1e-4, 25)
    what, cleaned = silent(triggered(np.arange(0.1, 19.9, 0.8) + jitter))
    assert preflight_sync.by_triggers(what, cleaned, 0.8) is not None
    placed = replace(what, stamps=NOTE)
    assert preflight_sync.by_triggers(placed, cleaned, 0.8) is None
    assert preflight_sync.sync(placed, cleaned, 0.8).state == "note"


@pytest.mark.parametrize("by_arrival", [True, False])
def test_the_age_of_samples_is_told_by_stamps_alone(
    by_arrival: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = Watch("nobody-is-called-so")
    monkeypatch.setattr(LslSource, "placed_by_arrival", property(lambda _: by_arrival))
    monkeypatch.setattr(LslSource, "age_s", lambda *_: 0.25)
    assert watch.line()["age_ms"] == (None if by_arrival else 250.0)
    watch.close()
