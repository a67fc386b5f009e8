"""The chain of an analysis after the session: windows that are prepared with knowledge of the future."""

from dataclasses import replace

import numpy as np
import pytest

from rtdecode.bundle import Bundle
from rtdecode.bundle.manifest import OFFLINE
from rtdecode.errors import UsageError
from rtdecode.phantom.session import PhantomSession
from rtdecode.signal.eeg.band import EegBand
from tests.refusals import refused
from tests.train.tiny import tiny
from train.artifacts.run_folder import draft_of
from train.config.recipe import build, read
from train.config.run_context import Arrays
from train.data.offline import detrended, offline_arrays, zero_phase
from train.data.phantom import session_arrays

_SECONDS = 32.0


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return draft_of(tiny("ridge"))


@pytest.fixture(scope="module")
def session() -> PhantomSession:
    return PhantomSession("easy", 1, 1006, _SECONDS)


@pytest.fixture(scope="module")
def offline(bundle: Bundle, session: PhantomSession) -> Arrays:
    return offline_arrays(bundle, session)


def test_a_bundle_that_says_so_gets_its_windows_from_the_whole_session(
    bundle: Bundle, session: PhantomSession, offline: Arrays
) -> None:
    offline_bundle = replace(bundle, manifest=replace(bundle.manifest, chain=OFFLINE))
    arrays = session_arrays(offline_bundle, session)
    assert arrays.keys() == offline.keys()
    assert all(np.array_equal(arrays[name], offline[name]) for name in arrays)


def test_windows_hold_the_same_signals_as_the_causal_ones(
    bundle: Bundle, session: PhantomSession, offline: Arrays
) -> None:
    causal = session_arrays(bundle, session)
    assert {name: x.shape for name, x in causal.items()} == {name: x.shape for name, x in offline.items()}
    assert offline["eeg_mask"].all()
    assert np.array_equal(causal["fmri_mask"], offline["fmri_mask"])

    # The causal filter comes late, each frequency by its own delay. Moved by the mean, the two agree best.
    causal_eeg = causal["eeg"].transpose(1, 0, 2).reshape(len(causal["eeg"][0]), -1)
    offline_eeg = offline["eeg"].transpose(1, 0, 2).reshape(causal_eeg.shape)
    alike = [
        np.corrcoef(causal_eeg[:, n:].ravel(), offline_eeg[:, : causal_eeg.shape[1] - n].ravel())[0, 1]
        for n in range(5)
    ]
    assert 1 <= int(np.argmax(alike)) <= 3
    assert max(alike) > 0.75

    # The causal chain knows no trend yet. Over the windows of one session most voxels follow each other.
    voxels = offline["fmri"].shape[2]
    pairs = zip(causal["fmri"].reshape(-1, voxels).T, offline["fmri"].reshape(-1, voxels).T, strict=True)
    assert np.median([np.corrcoef(a, b)[0, 1] for a, b in pairs]) > 0.7


def test_the_past_depends_on_the_future() -> None:
    rng = np.random.default_rng(0)
    series = rng.standard_normal((60, 5))
    changed = series.copy()
    changed[40:] += 3
    assert not np.allclose(detrended(series)[:20], detrended(changed)[:20])
    eeg = rng.standard_normal((4, 4000))
    other = eeg.copy()
    other[:, 2000:] *= 5
    band = EegBand()
    assert not np.allclose(zero_phase(eeg, band, 1000)[:, :1900], zero_phase(other, band, 1000)[:, :1900])


def test_a_filter_that_runs_both_ways_delays_nothing() -> None:
    times = np.arange(4000) / 1000
    wave = np.sin(2 * np.pi * 6 * times)
    eeg = np.stack([wave, -wave])
    filtered = zero_phase(eeg, EegBand(), 1000)[0, 1000:3000]
    assert np.corrcoef(filtered, wave[1000:3000])[0, 1] > 0.999


def test_series_are_brought_to_deviation_one_and_a_dead_one_stays_zero() -> None:
    times = np.linspace(-1, 1, 80)
    noise = np.random.default_rng(1).standard_normal(80)
    series = np.stack([100 + 7 * times**2 + noise, np.full(80, 5.0)], axis=1)
    scaled = detrended(series)
    assert np.isclose(scaled[:, 0].std(), 1)
    assert abs(np.polyfit(times, scaled[:, 0], 2)).max() < 1e-6
    assert np.allclose(scaled[:, 1], 0, atol=1e-3)


def test_a_recipe_says_by_which_chain_its_sessions_are_prepared() -> None:
    offline = build(read("cinesync", ["scale=tiny", "data.chain=offline"]).tree)["data"]
    causal = build(read("cinesync", ["scale=tiny"]).tree)["data"]
    assert (offline.manifest().chain, causal.manifest().chain) == ("offline", "causal")
    with refused(UsageError, "data-chain-unknown", causal="causal", offline="offline", chain="both"):
        build(read("cinesync", ["scale=tiny", "data.chain=both"]).tree)
