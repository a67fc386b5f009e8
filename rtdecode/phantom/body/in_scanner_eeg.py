"""Simulate the amplifier inside the magnet: 63 channels of EEG and an ECG, with all that the bore adds.

Seconds of EEG from `rtdecode.phantom.body.amplifier` come in. They are brought to the amplifier's rate,
heartbeat, pump and movement are added, the low-pass is applied, the gradient artefact is added (it is
modelled behind the low-pass), and the result is quantised.

The cap has its ground at AFz, as caps for the scanner do, so that this label of `standard64` is not a
channel. The converter is that of a BrainAmp MR (operating manual): 0.5 microvolts a bit and 16 bits, so
plus or minus 16.384 mV, behind the 250 Hz low-pass of `rtdecode.phantom.body.magnet`. Its clock is
independent of the scanner's.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import signal

from rtdecode.errors import UsageError
from rtdecode.phantom.body import magnet, pulse
from rtdecode.phantom.body.amplifier import LEAD_IN_S, REFERENCE, Amplifier, electrode_places, montage
from rtdecode.types import Float, Montage

SFREQ = 5000
GROUND = "AFz"
ECG = "ECG"
BIT_UV = 0.5
RAIL_UV = (-16384.0, 16383.5)
MOST_DRIFT_PPM = 50.0

# Lowest rate at which the EEG is made before it is brought to the amplifier's rate.
_BASE_HZ = 1000
# Samples of that rate that the interpolation reads to either side.
_TAPS = 16
# The leads on the chest pick up this many times as much of the gradients as those of the cap.
_LOOSE = 2.0
# The eyes are closed in this interval before the film, and from this long after its end on.
_OPEN_S = (-8.0, -3.0)
_SHUT_S = 1.0


@dataclass(frozen=True, slots=True)
class Artifacts:
    """What the bore adds to the EEG.

    Attributes
    ----------
    gradient : bool
        The gradient artefact.
    heartbeat : bool
        The ballistocardiogram; the ECG always has its heartbeats.
    pump : bool
        The vibration of the helium pump.
    motion : bool
        The slow changes of the gradient artefact by 1 %, and everything that a moving head adds.
    references : int
        Number of carbon-wire loops, which record artefacts without EEG: channels ``CWL1`` and so on, before
        the ECG.
    drift_ppm : float, optional
        How much faster the amplifier's clock runs than the scanner's. By default it is drawn with the seed,
        from 0 to 50.
    """

    gradient: bool = True
    heartbeat: bool = True
    pump: bool = True
    motion: bool = True
    references: int = 0
    drift_ppm: float | None = None

    def without(self) -> "Artifacts":
        """Return the settings of the same amplifier with no artefact in the EEG."""
        return replace(self, gradient=False, heartbeat=False, pump=False, motion=False)


def bore_montage(sfreq: float = SFREQ, references: int = 0) -> Montage:
    """Return the channels inside the magnet: 63 of `standard64`, any carbon-wire loops, and the ECG."""
    cap = tuple(label for label in montage().channels if label != GROUND)
    loops = tuple(f"CWL{i + 1}" for i in range(references))
    kinds = ("eeg",) * len(cap) + ("reference",) * references + ("ecg",)
    return Montage((*cap, *loops, ECG), float(sfreq), REFERENCE, kinds)


def clock_drift(seed: int, artifacts: Artifacts) -> float:
    """Return by how much the amplifier's clock is faster than the scanner's, in ppm."""
    drift_ppm = float(np.random.default_rng((seed, 79)).uniform(0, MOST_DRIFT_PPM))
    return round(drift_ppm, 1) if artifacts.drift_ppm is None else artifacts.drift_ppm


def describe(drift_ppm: float) -> str:
    """Return the constants in one line."""
    return (
        f"inside the magnet: gradients {magnet.RMS_UV:g} uV rms behind {magnet.LOW_PASS_HZ:g} Hz, "
        f"ground at {GROUND}, heartbeat {pulse.PULSE_UV:g} uV, helium pump {pulse.PUMP_UV:g} uV, "
        f"the amplifier's clock {drift_ppm:g} ppm fast, {BIT_UV:g} uV a bit within {RAIL_UV[1] / 1000:.1f} mV"
    )


def closed_eyes(film_s: float) -> tuple[tuple[float, float], ...]:
    """Return when the eyes are closed: for some seconds before the film, and from a second after its end."""
    return (_OPEN_S, (film_s + _SHUT_S, film_s + 3600.0))


def base_rate(sfreq: int) -> int:
    """Return the rate at which the EEG is made, from 1000 to 1999 Hz, of which the amplifier's is a multiple.

    Raises
    ------
    UsageError
        If the rate is no whole multiple of such a rate.
    """
    rate = next((rate for rate in range(_BASE_HZ, 2 * _BASE_HZ) if sfreq % rate == 0), None)
    if rate is None:
        raise UsageError(
            "phantom-amplifier-sfreq-unsupported",
            "inside the magnet the amplifier has a multiple of 1000 to 1999 samples a second, found "
            "{sfreq}; the usual rate is {default_sfreq}.",
            sfreq=sfreq,
            default_sfreq=SFREQ,
        )
    return rate


class InScannerAmplifier:
    """EEG and ECG inside the magnet, second by second.

    Parameters
    ----------
    eeg : Amplifier
        Amplifier of the same subject at `base_rate(sfreq)`, with the clock of this one.
    number : int
        Number of the subject.
    seed : int
        Seed of noise and artefacts.
    sfreq : int
        Sampling rate, Hz.
    drift_ppm : float
        How much faster than `sfreq` the samples come.
    gradient : rtdecode.phantom.body.magnet.GradientArtifact
        Artefact for as many channels as `bore_montage` has.
    artifacts : Artifacts
        What the bore adds to the EEG.
    stop_s : float
        Time by which the run is over.
    """

    def __init__(
        self,
        eeg: Amplifier,
        number: int,
        seed: int,
        sfreq: int,
        drift_ppm: float,
        gradient: magnet.GradientArtifact,
        artifacts: Artifacts,
        stop_s: float,
    ) -> None:
        self._eeg = eeg
        self._sfreq = sfreq
        self._seed = seed
        self._artifacts = artifacts
        self._rate = sfreq * (1 + drift_ppm * 1e-6)
        self._gradient = gradient
        self._cap = np.flatnonzero([label != GROUND for label in montage().channels])
        places = np.zeros((len(self._cap) + artifacts.references, 3), np.float32)
        places[: len(self._cap)] = electrode_places()[self._cap]
        self._heart = pulse.Heart(number, places, seed, -LEAD_IN_S, stop_s)
        self._pump = pulse.Pump(number, len(places), seed)
        self._turning = pulse.turning_field(number, len(places))

    def blocks(self, seconds: int) -> Iterator[Float]:
        """Yield what the amplifier sends from `LEAD_IN_S` before the film, (channel, sfreq) each second."""
        passing = magnet.low_pass(self._sfreq)
        state = np.zeros((len(passing), len(self._cap) + self._artifacts.references + 1, 2))
        rng = np.random.default_rng((self._seed, 80))
        blocks = _faster(self._eeg.blocks(seconds), self._sfreq)
        for second, eeg in enumerate(blocks):
            times = (second * self._sfreq + np.arange(self._sfreq)) / self._rate - LEAD_IN_S
            voltage = self._voltages(eeg, times, rng)
            # The gradient artefact comes after the filter because its model includes the low-pass.
            voltage, state = signal.sosfilt(passing, voltage, axis=1, zi=state)
            yield converted(self._with_gradient(voltage.astype(np.float32), times))

    def _voltages(self, eeg: Float, times: NDArray[np.float64], rng: np.random.Generator) -> Float:
        """Return everything in front of the low-pass except the gradients, (channel, n)."""
        artifacts = self._artifacts
        noise = np.float32(0.5) * rng.standard_normal(
            (artifacts.references + 1, len(times)), dtype=np.float32
        )
        body = np.concatenate([eeg[self._cap], noise[:-1]])
        if artifacts.heartbeat:
            body += self._heart.voltages(times)
        if artifacts.pump:
            body += self._pump.voltages(times)
        if artifacts.motion:
            body += self._turning @ self._gradient.turning(times)
        return np.concatenate([body, noise[-1:] + self._heart.ecg(times)])

    def _with_gradient(self, voltage: Float, times: NDArray[np.float64]) -> Float:
        if self._artifacts.gradient:
            added = self._gradient.voltages(times)
            added[-1] *= np.float32(_LOOSE)
            voltage += added
        return voltage


def converted(microvolts: Float) -> Float:
    """Return voltages as the converter quantises them: 0.5 microvolts a bit, clipped to its range."""
    quantised = np.rint(microvolts * np.float32(1 / BIT_UV)) * np.float32(BIT_UV)
    return np.minimum(np.maximum(quantised, np.float32(RAIL_UV[0])), np.float32(RAIL_UV[1]))


def _faster(blocks: Iterator[Float], sfreq: int) -> Iterator[Float]:
    """Yield blocks of a second at a higher rate, the new samples interpolated without delay."""
    block = next(blocks)
    factor = sfreq // block.shape[1]
    taps = (factor * signal.firwin(2 * _TAPS * factor + 1, 0.9 / factor, window="blackman")).astype(
        np.float32
    )
    before = np.zeros((64, _TAPS), np.float32)
    # Each block is interpolated together with the edges of its neighbours.
    while block is not None:
        after = next(blocks, None)
        ahead = np.zeros((64, _TAPS), np.float32) if after is None else after[:, :_TAPS]
        dense = signal.upfirdn(taps, np.concatenate([before, block, ahead], axis=1), up=factor, axis=1)
        start = 2 * _TAPS * factor
        yield np.ascontiguousarray(dense[:, start : start + factor * block.shape[1]], np.float32)
        before = block[:, -_TAPS:]
        block = after
