"""A scanner with another TR than that of the shipped bundles."""

import numpy as np
import pytest

from rtdecode.errors import UsageError
from rtdecode.phantom.body.scanner import settling_factor, slice_times
from rtdecode.phantom.session import PhantomSession
from rtdecode.types import Trigger, Volume
from tests.refusals import refused


def test_volumes_and_triggers_come_at_the_tr_that_was_asked_for() -> None:
    session = PhantomSession("easy", seed=1001, seconds=12, sfreq=250, tr_s=2.0, motion="typical")
    items = list(session.events(chunk_s=1.0))
    volumes = [item for item in items if isinstance(item, Volume)]
    triggers = [item for item in items if isinstance(item, Trigger)]
    assert len(volumes) == len(triggers) == 10
    assert {volume.tr_s for volume in volumes} == {2.0}
    assert np.diff([trigger.arrived_at for trigger in triggers]) == pytest.approx(2.0)
    assert [volume.acquired_s for volume in volumes] == pytest.approx(2.0 * np.arange(10))
    assert 1 < slice_times(36, 2.0).max() < 2


def test_a_longer_tr_lets_the_magnetisation_recover() -> None:
    assert settling_factor(0, 3.0) < settling_factor(0, 0.8)
    assert settling_factor(1, 3.0) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("tr_s", [0.1, 9.0, float("nan")])
def test_a_tr_that_no_scanner_has_is_refused(tr_s: float) -> None:
    with refused(UsageError, "phantom-tr-out-of-range", min_tr_s=0.3, max_tr_s=5.0):
        PhantomSession("easy", tr_s=tr_s)
