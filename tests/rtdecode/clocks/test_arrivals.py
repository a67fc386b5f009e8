"""What headers and files tell of a run's begin."""

import dataclasses
import math

import numpy as np
import pytest

from rtdecode.clocks.arrivals import USUAL_DELAY, Arrivals
from tests import small

ZERO = 900.0


@pytest.mark.parametrize("days", [0, 1, 2])
def test_a_header_time_counts_on_both_sides_of_midnight(days: int) -> None:
    """The header's TR is half a per cent longer than the nominal one, which its times alone tell."""
    run = Arrivals(0.8)
    for volume in small.volumes(40, ZERO):
        seconds = volume.index * 0.8 * 1.005
        past_midnight = (86390.0 + seconds) % 86400.0
        readable_at = ZERO + seconds + 0.8 + USUAL_DELAY
        stamped = dataclasses.replace(
            volume, tr_s=None, recon_s=None, acquired_s=past_midnight + days * 86400.0
        )
        zero = run.add(dataclasses.replace(stamped, readable_at=readable_at, arrived_at=readable_at))
        assert zero == pytest.approx(ZERO, abs=1e-6)
    assert run.source == "header"


def test_a_slow_file_is_no_part_of_the_spread() -> None:
    rng = np.random.default_rng(0)
    run = Arrivals(0.8)
    late_s = rng.uniform(0.0, 0.02, 60)
    late_s[30] = 3.0
    for volume, late in zip(small.volumes(60, ZERO), late_s, strict=True):
        readable_at = volume.readable_at + late
        run.add(dataclasses.replace(volume, readable_at=readable_at, arrived_at=readable_at))
    _, spread = run.line(math.inf)
    assert spread == pytest.approx(np.delete(late_s, 30).std(), rel=0.05)
