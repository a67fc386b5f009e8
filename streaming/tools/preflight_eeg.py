"""Judge what some seconds of EEG tell of a participant in the scanner: a part of ``rtdecode preflight``.

`impedances` judges the electrodes by what the amplifier sends, `ecg` whether heartbeats can be seen, and
`alpha` whether the rhythm of the closed eyes can. Nothing here speaks about safety.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rtdecode.bundle import Bundle, EegInput
from rtdecode.eeg.channels import canonical
from rtdecode.errors import GeometryError
from rtdecode.signal.heartbeat.beats import REGULAR
from rtdecode.signal.heartbeat.rpeaks import RPeaks
from rtdecode.signal.intervals import true_runs
from streaming.checks import table
from streaming.checks.eeg_capture import EegCapture
from streaming.checks.finding import BAD, NOTE, OK, Finding
from streaming.tools.doctor_eeg import played
from streaming.tools.preflight_clean import Cleaned

Values = NDArray[np.float64]

# Heart rates of a person who lies still, a minute. A choice of this project.
_BEATS_A_MINUTE = (40.0, 140.0)
# Median correlation of a beat, within 60 ms of its R-peak, with the mean of the others. A choice of this
# project, between simulated electrocardiograms (0.74 with noise of a third of the R-peak, 0.99 with little)
# and what the detector finds in noise (up to 0.53).
_ALIKE = 0.65
_AROUND_S = 0.06
# Share of the intervals between beats that must be regular. A choice of this project; extra beats are usual.
_REGULAR_SHARE = 0.75
# Fewer beats tell no rhythm.
_LEAST_BEATS = 5
# The detector sets its thresholds in 2.5 s, so shorter pieces are left out, and so much is needed in all, s.
_PIECE_S = 4.0
_LEAST_S = 8.0
# The detector needs this rate, Hz.
_LEAST_HZ = 200.0
# Channels over the visual cortex, where the rhythm of the closed eyes is largest (Adrian & Matthews 1934,
# Brain 57:355).
_OCCIPITAL = ("O1", "Oz", "O2", "PO3", "POz", "PO4", "PO7", "PO8")
# The rhythm's band and its neighbours, Hz.
_ALPHA_HZ = (8.0, 12.0)
_BESIDE_HZ = ((5.0, 7.0), (13.0, 15.0))
# Length of the spectra's segments, s: a resolution of 0.5 Hz.
_SEGMENT_S = 2.0
# Fewer seconds of usable EEG give no spectrum, s.
_SPECTRUM_S = 6.0


@dataclass(frozen=True, slots=True)
class Beats:
    """Heartbeats that were found in an electrocardiogram.

    Attributes
    ----------
    per_minute : float or None
        60 s divided by the median interval; None below two beats in a piece.
    regular : float
        Share of the intervals that are 0.75 to 1.5 times the median.
    alike : float
        Median correlation of a beat with the mean of the others.
    seconds : float
        Length of the signal that was searched, s.
    """

    count: int
    per_minute: float | None
    regular: float
    alike: float
    seconds: float

    @property
    def plausible(self) -> bool:
        """Whether these are the beats of a heart."""
        if self.per_minute is None or self.count < _LEAST_BEATS:
            return False
        low, high = _BEATS_A_MINUTE
        steady = self.regular >= _REGULAR_SHARE and self.alike >= _ALIKE
        return steady and low <= self.per_minute <= high


def impedances(kilohms: dict[str, float]) -> Finding:
    """Judge impedances, kilohms, by channel; empty if the amplifier sends none."""
    measured = {name: value for name, value in kilohms.items() if np.isfinite(value) and value > 0}
    if not measured:
        return Finding("impedances", OK, "unknown: the amplifier sends none with a unit over LSL")
    highest = max(measured.values())
    return table.IMPEDANCES.find(
        channels=len(measured),
        median=float(np.median([*measured.values()])),
        largest=highest,
        high=[name for name, value in measured.items() if value > (table.IMPEDANCES.note or 0.0)],
    )


def ecg(cleaned: Cleaned) -> Finding:
    """Judge whether heartbeats can be seen in the electrocardiogram."""
    if cleaned.references:
        return Finding("ECG", OK, "not needed: the stream has channels that record artefacts only")
    if cleaned.ecg is None:
        sentence = "no ECG channel: the heartbeat's artefact would be found in the EEG alone"
        return Finding("ECG", NOTE, sentence, "connect the ECG, and call its channel ECG in the LSL program")
    pieces = [piece for piece in cleaned.ecg if len(piece) >= _PIECE_S * cleaned.rate]
    whole_s = sum(map(len, pieces)) / cleaned.rate
    if cleaned.rate < _LEAST_HZ or whole_s < _LEAST_S:
        sentence = f"unknown: only {whole_s:.0f} s at {cleaned.rate:g} Hz are free of gradients and gaps"
        return Finding("ECG", NOTE, sentence, "look again while the scanner rests, or listen longer")
    heartbeats = beats(pieces, cleaned.rate)
    if heartbeats.plausible:
        rate = f"{heartbeats.per_minute:.0f} a minute"
        sentence = f"{heartbeats.count} heartbeats in {heartbeats.seconds:.0f} s, {rate}"
        return Finding("ECG", OK, sentence)
    low, high = _BEATS_A_MINUTE
    rate = "no rhythm" if heartbeats.per_minute is None else f"{heartbeats.per_minute:.0f} a minute"
    sentence = (
        f"no heartbeat can be seen: {heartbeats.count} peaks in {heartbeats.seconds:.0f} s ({rate}, {low:g} "
        f"to {high:g} expected), {heartbeats.regular:.0%} of the intervals regular, alike to "
        f"{max(heartbeats.alike, 0.0):.2f} ({_ALIKE:g} needed)"
    )
    return Finding("ECG", BAD, sentence, "check the ECG electrode: the heartbeat's artefact is removed by it")


def beats(pieces: Sequence[Values], sfreq: float) -> Beats:
    """Find heartbeats in an electrocardiogram, and say how much they are like those of a heart.

    Parameters
    ----------
    pieces : sequence of (n,)
        Pieces of the signal, without gaps and without gradients, microvolts.
    sfreq : float
        Hz; 200 or more.
    """
    peaks = [np.array(RPeaks(sfreq).push(piece)) for piece in pieces]
    intervals = np.concatenate([np.diff(piece_peaks) for piece_peaks in peaks])
    count = sum(map(len, peaks))
    seconds = sum(map(len, pieces)) / sfreq
    if not len(intervals):
        return Beats(count, None, 0.0, 0.0, seconds)
    usual = float(np.median(intervals))
    low, high = REGULAR
    regular = float(np.mean((intervals > low * usual) & (intervals < high * usual)))
    around = round(_AROUND_S * sfreq)
    shapes = [
        shape
        for piece, piece_peaks in zip(pieces, peaks, strict=True)
        for shape in _shapes(piece, piece_peaks, around)
    ]
    return Beats(count, 60 * sfreq / usual, regular, _alike(shapes), seconds)


def _shapes(piece: Values, peaks: Values, around: int) -> list[Values]:
    """Cut the beats out of a piece, (2 * around + 1,) each."""
    places = [round(peak) for peak in peaks if around <= round(peak) < len(piece) - around]
    return [piece[place - around : place + around + 1] for place in places]


def _alike(beats: list[Values]) -> float:
    """Return the median correlation of a beat with the mean of the others; 0 for fewer than three."""
    if len(beats) < 3:
        return 0.0
    shapes = np.stack(beats)
    shapes = shapes - shapes.mean(axis=1, keepdims=True)
    shapes /= np.maximum(np.linalg.norm(shapes, axis=1, keepdims=True), 1e-12)
    mean_shape = shapes.sum(axis=0) - shapes
    mean_shape /= np.maximum(np.linalg.norm(mean_shape, axis=1, keepdims=True), 1e-12)
    return float(np.median(np.einsum("bn,bn->b", shapes, mean_shape)))


def alpha(opened: EegCapture, closed: EegCapture, bundle: Bundle, eeg_input: EegInput) -> Finding:
    """Judge by how much the occipital alpha of a stream rises when the eyes are closed."""
    levels = [alpha_db(capture, bundle, eeg_input) for capture in (opened, closed)]
    if None in levels:
        sentence = "unknown: too little usable EEG of occipital channels came"
        return Finding("alpha", NOTE, sentence, "see the lines on cap, rate and level, or listen longer")
    open_db, closed_db = (float(level or 0.0) for level in levels)
    return table.ALPHA.find(rise_db=closed_db - open_db, open_db=open_db, closed_db=closed_db)


def alpha_db(capture: EegCapture, bundle: Bundle, eeg_input: EegInput) -> float | None:
    """Return the power of the occipital alpha over that of the bands beside it, dB.

    Median over channels of what a session's own chain gives. None if too little of it is usable.
    """
    names = [i for i, name in enumerate(eeg_input.channels) if canonical(name) in _OCCIPITAL]
    if capture.montage is None or not capture.chunks or not names:
        return None
    try:
        chain = played(capture, bundle, eeg_input, capture.montage)
    except GeometryError:
        return None
    rate_hz = float(bundle.manifest.grid.sfreq)
    count = int((chain.newest - chain.first) * rate_hz) if np.isfinite(chain.newest) else 0
    span = chain.read(chain.newest - np.arange(count)[::-1] / rate_hz)
    if span.values is None:
        return None
    longest = _longest(span.mask)
    if longest.stop - longest.start < _SPECTRUM_S * rate_hz:
        return None
    # Imported where it is used: it takes as long to load as all else.
    from scipy.signal import welch

    hz, power = welch(
        span.values[names, longest].astype(np.float64), rate_hz, nperseg=int(_SEGMENT_S * rate_hz)
    )
    neighbours_db = np.mean([_band_db(hz, power, band) for band in _BESIDE_HZ], axis=0)
    return float(np.median(_band_db(hz, power, _ALPHA_HZ) - neighbours_db))


def _band_db(hz: Values, power: Values, band: tuple[float, float]) -> Values:
    in_band = (hz >= band[0]) & (hz <= band[1])
    return 10 * np.log10(np.maximum(power[:, in_band].mean(axis=1), 1e-30))


def _longest(mask: NDArray[np.bool_]) -> slice:
    """Return the longest stretch that is True throughout."""
    return slice(*max(true_runs(mask), key=lambda span: span[1] - span[0], default=(0, 0)))
