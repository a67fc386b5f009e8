"""Simulate the EEG of a participant whose neural state is known.

The state of `rtdecode.phantom.body.brain` comes in, and seconds of EEG go out, (64, sample) in microvolts.
The state drives dipoles in a sphere, whose responses reach a cap of 64 electrodes through a lead field;
background EEG, alpha, blinks, mains and sensor noise are added.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import signal

from rtdecode.phantom.body.brain import LEAD_S, calibration_cuts, calibration_state, feature_strengths
from rtdecode.phantom.body.gaze import Gaze
from rtdecode.phantom.body.presets import Preset
from rtdecode.phantom.film.features import FEATURES
from rtdecode.phantom.film.film import FPS
from rtdecode.types import Float, Montage

REFERENCE = "FCz"
LEAD_IN_S = 10
SOURCES = 40
BACKGROUND = 80

_MONTAGE = Path(__file__).parents[2] / "montages" / "standard64.tsv"
# FCz lies 23 degrees in front of Cz.
_REFERENCE_PLACE = (0.0, np.sin(np.deg2rad(23)), np.cos(np.deg2rad(23)))
_HEAD_MM = 92.0
_BRAIN_MM = 79.0
_CONDUCTIVITY = 0.33
# Three waves of each source's response: delay (s), width (s), weight. All are over after `_TRF_S`.
_TRF = ((0.100, 0.020, 1.0), (0.170, 0.030, -1.2), (0.300, 0.060, 0.5))
_TRF_S = 0.6
# Share of the recent past, with this time constant, that is subtracted from the state.
_ADAPTED = 0.5
_ADAPTATION_S = 1.0
# Gain right after a cut, gain in between, and how fast the first decays to the second.
_CUT_GAIN = 1.0
_FLOW_GAIN = 0.12
_CUT_S = 0.3
# The same right after a saccade, which brings a new picture to the retina, but not another scene.
_SACCADE_GAIN = 0.4
# Standard deviation over shots of each source's gain.
_JITTER = 0.3
# Gain of the alpha while the eyes are closed.
_CLOSED_GAIN = 3.0
# Levels of the background, the alpha, the mains, the sensors and the blinks: assumptions.
_BACKGROUND_UV = 12.0
_ALPHA_UV = 6.0
_LINE_UV = 2.0
_SENSOR_UV = 0.5
_BLINK_UV = 100.0
_LINE_HZ = 50.0
_BLINKS_PER_MIN = 12.0
# What the eyes bring to the nearest electrode for each degree that they turn (right, up): an assumption.
_EYE_UV = (8.0, 6.0)
# Where the right eye lies (right, front, up); the left one lies opposite.
_RIGHT_EYE = (0.45, 0.82, -0.35)


def montage(sfreq: float = 1000) -> Montage:
    """Return the montage of the cap: 64 channels, recorded against FCz."""
    return Montage(tuple(_electrodes()[0]), float(sfreq), REFERENCE)


def electrode_places() -> Float:
    """Return the positions of the channels on a unit sphere (right, front, up), (64, 3).

    Notes
    -----
    The positions are those of a spherical 10-10 system. Rows lie 23 degrees apart along the midline, and the
    outer ring lies 92 degrees from Cz in steps of 18 degrees. The other positions divide the great circle
    from the ring to the midline.
    """
    return _electrodes()[1]


@dataclass(frozen=True, slots=True)
class Leads:
    """How the sources of a subject are driven and how they reach the electrodes.

    Attributes
    ----------
    mixing : (feature, source) float32
        Weights from the features of the neural state to the evoked sources.
    delays, weights : (source, 3) float32
        Time course of each source's response.
    evoked : (source, 64) float32
        Lead field of the evoked sources, against FCz.
    background : (source, 64) float32
        Lead field of the background, in microvolts against FCz.
    alpha, blink : float32
        Lead field of the alpha, (source, 64), and topography of a blink, (64,), in microvolts against FCz.
    eyes : (2, 64) float32
        Topography of a degree that the eyes turn right, and up, in microvolts against FCz.
    """

    mixing: Float
    delays: Float
    weights: Float
    evoked: Float
    background: Float
    alpha: Float
    blink: Float
    eyes: Float


@lru_cache(maxsize=8)
def leads(number: int) -> Leads:
    """Draw the sources of a subject from its number alone."""
    rng = np.random.default_rng((number, 31))
    mixing = rng.normal(size=(FEATURES, SOURCES)) * (rng.random((FEATURES, SOURCES)) < 0.25)
    alpha = lead_field(_places(rng, 3, back=(-0.95, -0.8)), _directions(rng, 3))
    background = lead_field(_places(rng, BACKGROUND), _directions(rng, BACKGROUND))
    frontal = np.exp(4 * (_with_reference(electrode_places()) @ np.array([0, 0.93, -0.37]) - 1))
    blink = _BLINK_UV * frontal / frontal.max()
    return Leads(
        mixing=(mixing * feature_strengths()[:, None]).astype(np.float32),
        delays=(np.array([d for d, _, _ in _TRF]) + rng.normal(0, 0.012, (SOURCES, 1))).astype(np.float32),
        weights=(np.array([w for _, _, w in _TRF]) * rng.uniform(0.5, 1.5, (SOURCES, 3))).astype(np.float32),
        evoked=lead_field(_places(rng, SOURCES, back=(-0.95, 0.0)), _directions(rng, SOURCES)),
        background=background * np.float32(_BACKGROUND_UV / _spread(background)),
        alpha=alpha * np.float32(_ALPHA_UV / _spread(alpha)),
        blink=(blink[:-1] - blink[-1]).astype(np.float32),
        eyes=_eye_field(),
    )


def _eye_field() -> Float:
    """Return the potential of the eyes' dipoles for a degree right and up, (2, 64), against FCz."""
    places = _with_reference(electrode_places())
    right_eye, left_eye = (
        np.exp(4 * (places @ np.array([side * _RIGHT_EYE[0], *_RIGHT_EYE[1:]]) - 1)) for side in (1, -1)
    )
    # The front of an eye is positive: the electrodes that both eyes turn to become more positive.
    field = np.stack([right_eye - left_eye, right_eye + left_eye])
    field *= np.array(_EYE_UV)[:, None] / np.abs(field).max(axis=1, keepdims=True)
    return (field[:, :-1] - field[:, -1:]).astype(np.float32)


def lead_field(places: NDArray[np.float64], directions: NDArray[np.float64]) -> Float:
    """Return the potential of current dipoles at the electrodes, against FCz.

    Parameters
    ----------
    places : (source, 3)
        Positions in mm from the middle of the head.
    directions : (source, 3)
        Unit moments.

    Returns
    -------
    (source, 64) float32
        Arbitrary units.

    Notes
    -----
    The medium is infinite and homogeneous: V = q . (r - r0) / (4 pi sigma |r - r0|^3).
    """
    electrodes = _with_reference(electrode_places()) * _HEAD_MM
    away = electrodes[None] - places[:, None]
    potential = np.einsum("sex,sx->se", away, directions)
    potential = potential / (4 * np.pi * _CONDUCTIVITY * np.linalg.norm(away, axis=2) ** 3)
    return (potential[:, :-1] - potential[:, -1:]).astype(np.float32)


class Amplifier:
    """EEG of a subject whose neural state is known, second by second.

    Parameters
    ----------
    number : int
        Number of the subject.
    preset : Preset
        Levels of noise and background.
    state : (frame, feature)
        Neural state, as from `rtdecode.phantom.body.brain.neural_state`.
    cuts : (shot,)
        Film frames at which a shot begins.
    sfreq : int
        Sampling rate, Hz.
    seed : int
        Seed of the noise.
    clock : float
        Ratio of the true sampling rate to `sfreq`; above 1 the samples come faster.
    closed : tuple of (float, float)
        Start and stop of the times with closed eyes, in seconds of film time. The alpha is then three times
        as large.
    gaze : Gaze, optional
        Where the eyes point; by default they do not move.

    Notes
    -----
    The sources are driven by the difference of the state from its own recent past, strongly after a cut and
    weakly in between. Each source answers with a sum of three Gaussians. The background is pink
    (power 1/f^1.2, flat below 0.5 Hz), with occipital alpha, mains, sensor noise and blinks.
    """

    def __init__(
        self,
        number: int,
        preset: Preset,
        state: Float,
        cuts: NDArray[np.int64],
        sfreq: int,
        seed: int,
        clock: float = 1.0,
        closed: tuple[tuple[float, float], ...] = (),
        gaze: Gaze | None = None,
    ) -> None:
        self._sfreq = sfreq
        self._seed = seed
        self._leads = leads(number)
        self._clock = clock
        self._closed = closed
        self._gaze = gaze
        saccades = np.zeros(0, np.int64) if gaze is None else gaze.saccades(len(state))
        jitter = 1 + _JITTER * np.random.default_rng((seed, 32)).standard_normal((len(cuts) + 1, SOURCES))
        shot = np.searchsorted(cuts + round(LEAD_S * FPS), np.arange(len(state)), side="right")
        gain = evoked_gain(number, preset.feature_noise, preset.eeg_db)
        self._drive = gain * source_drive(number, state, cuts, saccades) * jitter[shot].astype(np.float32)

    def blocks(self, seconds: int) -> Iterator[Float]:
        """Yield the EEG second by second from `LEAD_IN_S` before the film, (64, sfreq) float32 microvolts."""
        noise = _background(self._leads, self._sfreq, seconds, self._seed, self._clock, self._closed)
        for second, background in zip(range(-LEAD_IN_S, seconds - LEAD_IN_S), noise, strict=False):
            times = second + np.arange(self._sfreq) / self._sfreq
            # With a fast clock, the samples lie closer together on the film's time line.
            times += (times + LEAD_IN_S) * (1 / self._clock - 1)
            eeg = evoked(self._leads, self._drive, times) + background
            if self._gaze is not None:
                eeg += self._gaze.directions(times).astype(np.float32) @ self._leads.eyes
            yield np.ascontiguousarray(eeg.T)


def source_drive(
    number: int, state: Float, cuts: NDArray[np.int64], saccades: NDArray[np.int64] | None = None
) -> Float:
    """Return the drive of each evoked source at each frame, (frame, source) float32.

    Cuts and saccades are frames of the film; the state begins `LEAD_S` before it.
    """
    keep = float(np.exp(-1 / (FPS * _ADAPTATION_S)))
    slow = np.asarray(signal.lfilter([0, 1 - keep], [1, -keep], state, axis=0))
    gain = _FLOW_GAIN + _CUT_GAIN * np.exp(-_since(cuts, len(state)) / _CUT_S)
    if saccades is not None:
        gain += _SACCADE_GAIN * np.exp(-_since(saccades, len(state)) / _CUT_S)
    return ((gain[:, None] * (state - _ADAPTED * slow)).astype(np.float32)) @ leads(number).mixing


def _since(starts: NDArray[np.int64], count: int) -> NDArray[np.float64]:
    """Return how long ago the last start was in each frame of a state, s, (frame,)."""
    frames = np.arange(count)
    # Before the first start, the last one counts as infinitely long ago.
    onset_frames = np.concatenate([[-(10**6)], starts + round(LEAD_S * FPS)])
    return (frames - onset_frames[np.searchsorted(onset_frames, frames, side="right") - 1]) / FPS


def evoked(head: Leads, drive: Float, times: NDArray[np.float64]) -> Float:
    """Return the response of the sources at the electrodes at given film times, (time, 64) float32."""
    # Only frames within the length of a response before these times can contribute.
    first = max(int(np.floor((times[0] - _TRF_S + LEAD_S) * FPS)), 0)
    last = int(np.floor((times[-1] + LEAD_S) * FPS)) + 1
    part = drive[first:last]
    lag = (times[:, None] - (np.arange(first, first + len(part)) / FPS - LEAD_S)[None]).astype(np.float32)
    out = np.zeros((len(times), 64), np.float32)
    for wave, (_, width, _) in enumerate(_TRF):
        # Each source has its own delay. Four groups of similar delay keep this a matrix product.
        order = np.array_split(np.argsort(head.delays[:, wave]), 4)
        for group in order:
            delay = head.delays[group, wave].mean()
            shape = np.exp(-0.5 * ((lag - delay) / width) ** 2) * (lag >= 0)
            out += shape @ ((part[:, group] * head.weights[group, wave]) @ head.evoked[group])
    return out


@lru_cache(maxsize=8)
def evoked_gain(number: int, noise: float, level_db: float) -> float:
    """Return the factor that brings the evoked power to `level_db` over the background's.

    Both are taken under the average reference, on a film that serves for calibration only.
    """
    drive = source_drive(number, calibration_state(noise), calibration_cuts())
    seconds = [t + np.arange(0, 1, 1 / 125) for t in range(4, 196)]
    power = np.mean([_average_reference(evoked(leads(number), drive, t)).var() for t in seconds])
    return float(_BACKGROUND_UV * np.sqrt(10 ** (level_db / 10) / power))


def _background(
    head: Leads,
    sfreq: int,
    seconds: int,
    seed: int,
    clock: float,
    closed: tuple[tuple[float, float], ...],
) -> Iterator[Float]:
    """Yield everything that is not evoked, (sfreq, 64) for each second, drawn in order."""
    rng = np.random.default_rng((seed, 33))
    phase = rng.uniform(0, 6.28)
    strength = _LINE_UV * np.sqrt(2) * rng.uniform(0.5, 1.5, 64).astype(np.float32)
    blinks = np.cumsum(rng.exponential(60 / _BLINKS_PER_MIN, 20 + int(seconds)))
    pink = _Shaped(_pink(sfreq), BACKGROUND, sfreq, rng)
    alpha = _Shaped(_alpha(sfreq), 3, sfreq, rng)
    for second in range(seconds):
        times = (second + np.arange(sfreq) / sfreq) / clock
        out = pink.next(sfreq) @ head.background
        out += (alpha.next(sfreq) * _openness(times - LEAD_IN_S, closed)) @ head.alpha
        out += np.float32(_SENSOR_UV) * rng.standard_normal((sfreq, 64), dtype=np.float32)
        out += np.sin(2 * np.pi * _LINE_HZ * times + phase).astype(np.float32)[:, None] * strength
        # Blinks close enough to reach into this second.
        close = blinks[np.abs(blinks - second - 0.5) < 1]
        if close.size:
            lids = np.exp(-0.5 * ((times[:, None] - close) / 0.07) ** 2).sum(axis=1)
            out += lids.astype(np.float32)[:, None] * head.blink
        yield out


def _openness(times: NDArray[np.float64], closed: tuple[tuple[float, float], ...]) -> Float:
    """Return the factor of the alpha, (time, 1); it changes over 0.25 s as the eyes close or open."""
    shut = np.zeros(len(times))
    for start, stop in closed:
        shut = np.maximum(shut, np.clip(np.minimum(times - start, stop - times) / 0.25, 0, 1))
    return (1 + (_CLOSED_GAIN - 1) * shut).astype(np.float32)[:, None]


class _Shaped:
    """Filter white noise to unit output variance, in consecutive pieces."""

    def __init__(
        self, sections: NDArray[np.float64], count: int, sfreq: int, rng: np.random.Generator
    ) -> None:
        impulse = np.asarray(signal.sosfilt(sections, np.eye(1, 20 * sfreq)[0]))
        self._sections = sections.copy()
        self._sections[0, :3] /= np.sqrt((impulse**2).sum())
        self._rng = rng
        self._state = np.zeros((len(sections), 2, count))
        # Let the filter settle.
        for _ in range(4):
            self.next(sfreq)

    def next(self, samples: int) -> Float:
        white = self._rng.standard_normal((samples, self._state.shape[2]), dtype=np.float32)
        shaped, self._state = signal.sosfilt(self._sections, white, axis=0, zi=self._state)
        return shaped.astype(np.float32)


def _pink(sfreq: int) -> NDArray[np.float64]:
    """Return a filter whose power falls as 1/f^1.2 above 0.5 Hz, as second-order sections.

    The poles lie a constant factor apart, and a zero follows each of them 0.6 of the way to the next.
    """
    count = 6
    ratio = (0.4 * sfreq / 0.5) ** (1 / count)
    poles = 0.5 * ratio ** np.arange(count)
    zeros = poles * ratio**0.6
    to_plane = -2 * np.pi / sfreq
    return np.asarray(signal.zpk2sos(np.exp(to_plane * zeros), np.exp(to_plane * poles), 1.0))


def _alpha(sfreq: int) -> NDArray[np.float64]:
    return np.asarray(signal.butter(1, [9.5, 10.5], "bandpass", fs=sfreq, output="sos"))


def _places(rng: np.random.Generator, count: int, back: tuple[float, float] = (-1, 1)) -> NDArray[np.float64]:
    """Draw points below the surface of the brain, in mm, whose direction has its y component in a range."""
    y = rng.uniform(*back, count)
    angle = rng.uniform(-0.15 * np.pi, 1.15 * np.pi, count)
    side = np.sqrt(1 - y**2)
    return (
        rng.uniform(0.75, 1, (count, 1))
        * _BRAIN_MM
        * np.stack([side * np.cos(angle), y, side * np.sin(angle)], axis=1)
    )


def _directions(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    moment = rng.normal(size=(count, 3))
    return moment / np.linalg.norm(moment, axis=1, keepdims=True)


def _spread(field: Float) -> float:
    """Return the rms over the cap that sources of unit variance produce under the average reference."""
    return float(np.sqrt((_average_reference(field) ** 2).sum(axis=0).mean()))


def _average_reference(x: Float) -> Float:
    return x - x.mean(axis=-1, keepdims=True)


def _with_reference(places: Float) -> NDArray[np.float64]:
    return np.concatenate([places.astype(np.float64), [_REFERENCE_PLACE]])


@lru_cache(maxsize=1)
def _electrodes() -> tuple[list[str], Float]:
    rows = [line.split("\t") for line in _MONTAGE.read_text().splitlines()[1:]]
    return [row[0] for row in rows], np.array([row[1:] for row in rows], np.float32)
