import time

import numpy as np
import pytest
from scipy import signal

from rtdecode.phantom.body import amplifier
from rtdecode.phantom.body.brain import calibration_cuts, calibration_state
from rtdecode.phantom.body.presets import PRESETS
from rtdecode.phantom.session import PhantomSession


@pytest.fixture(scope="module")
def eeg() -> np.ndarray:
    return PhantomSession("hard", seed=31, seconds=50).eeg()


def test_the_cap_has_64_channels_against_fcz() -> None:
    montage = amplifier.montage()
    assert len(montage.channels) == 64
    assert montage.reference == "FCz"
    assert "FCz" not in montage.channels
    places = dict(zip(montage.channels, amplifier.electrode_places(), strict=True))
    assert np.allclose([np.linalg.norm(p) for p in places.values()], 1, atol=1e-4)
    assert places["Cz"] @ [0, 0, 1] > 0.999
    assert places["Oz"][1] < -0.9
    assert places["T8"][0] > 0.9
    for left_name, right_name in (("F3", "F4"), ("PO7", "PO8"), ("TP9", "TP10"), ("C5", "C6")):
        assert np.allclose(places[left_name] * [-1, 1, 1], places[right_name], atol=1e-5)


def test_a_dipole_is_seen_by_the_electrode_above_it() -> None:
    montage = amplifier.montage()
    for name in ("Oz", "C4", "F7"):
        place = amplifier.electrode_places()[montage.channels.index(name)].astype(float)
        field = amplifier.lead_field(70 * place[None], place[None])[0]
        assert montage.channels[int(field.argmax())] == name


def test_levels_are_what_the_constants_say(eeg: np.ndarray) -> None:
    frequencies, power = signal.welch(eeg - eeg.mean(axis=0), 1000, nperseg=4000)
    power = power.mean(axis=0)
    slope = np.polyfit(*(np.log10(x[(frequencies > 2) & (frequencies < 7)]) for x in (frequencies, power)), 1)
    assert -1.7 < slope[0] < -0.8
    assert power[frequencies == 10] > 5 * power[frequencies == 15]
    assert power[frequencies == 50] > 3 * power[frequencies == 45]
    assert 10 < (eeg - eeg.mean(axis=0)).std(axis=1).mean() < 25


def test_blinks_are_frontal(eeg: np.ndarray) -> None:
    names = amplifier.montage().channels
    peaks = {name: np.abs(eeg[names.index(name)]).max() for name in ("Fpz", "Pz")}
    assert peaks["Fpz"] > 90
    assert peaks["Fpz"] > 1.5 * peaks["Pz"]


@pytest.mark.parametrize("name", ["easy", "default", "hard"])
def test_the_evoked_power_lies_at_its_level(name: str) -> None:
    preset = PRESETS[name]
    gain = amplifier.evoked_gain(1, preset.feature_noise, preset.eeg_db)
    drive = gain * amplifier.source_drive(1, calibration_state(preset.feature_noise), calibration_cuts())
    parts = [amplifier.evoked(amplifier.leads(1), drive, t + np.arange(0, 1, 0.008)) for t in range(10, 60)]
    waves = np.concatenate(parts)
    power = (waves - waves.mean(axis=1, keepdims=True)).var()
    assert abs(10 * np.log10(power / 12.0**2) - preset.eeg_db) < 1.5


def test_the_evoked_response_follows_the_cut_and_never_leads_it() -> None:
    quiet = calibration_state(0.8) * 0
    frame = round((amplifier.LEAD_S + 40) * 8)
    quiet[frame:] = 1.0
    drive = amplifier.source_drive(1, quiet, np.array([320]))
    times = np.arange(39.0, 42.0, 0.002)
    waves = amplifier.evoked(amplifier.leads(1), drive, times)
    strength = np.abs(waves).mean(axis=1)
    assert not waves[times < 40].any()
    assert 40.05 < times[strength.argmax()] < 40.35


def test_pieces_equal_the_whole() -> None:
    drive = amplifier.source_drive(1, calibration_state(1.0), calibration_cuts())
    times = np.arange(12.0, 14.0, 0.001)
    uncut = amplifier.evoked(amplifier.leads(1), drive, times)
    parts = [amplifier.evoked(amplifier.leads(1), drive, piece) for piece in np.array_split(times, 9)]
    assert np.allclose(np.concatenate(parts), uncut, atol=1e-4 * np.abs(uncut).max())


@pytest.mark.parametrize("sfreq", [250, 512, 5000])
def test_other_sampling_rates_give_the_same_levels(sfreq: int) -> None:
    x = PhantomSession("easy", seed=31, seconds=2, sfreq=sfreq).eeg()
    assert x.shape == (64, 20 * sfreq)
    assert 5 < np.median((x - x.mean(axis=0)).std(axis=1)) < 30


@pytest.mark.full
@pytest.mark.timed
def test_the_eeg_costs_little() -> None:
    session = PhantomSession("easy", seed=31, seconds=20)
    blocks = session.eeg_blocks()
    next(blocks)
    start = time.process_time()
    assert sum(1 for _ in blocks) == 37
    assert (time.process_time() - start) / 37 < 0.02, "a fiftieth of real time"
