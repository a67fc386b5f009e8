"""Limits on what a measurement can be: values, levels and sampling rates.

`eeg_holes` and `voxel_holes` mark values that are no measurement. The other functions return None if nothing
is wrong, and otherwise a sentence that says what was found, what was expected and what to do. A session and
`rtdecode doctor` judge by the same functions.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode.signal.eeg.band import EegBand

Reals = NDArray[np.floating[Any]]
Mask = NDArray[np.bool_]

# Largest value that an EEG amplifier can measure, microvolts. DC-coupled ones reach about 0.4 V.
EEG_LIMIT_UV = 1e6
# Largest value that a scanner writes for a voxel. 16 bits and a scale slope stay far below it.
VOXEL_LIMIT = 1e9
# A level that differs from that of training by more than this factor is of another kind. Participants,
# caps and scanner gains differ by a few times; another unit differs by 1000 and more.
FAR = 20.0
# Signals whose level in training lies fewer standard deviations than this above zero were centred, as the
# z-scores of releases are: what is left of the level is rounding. A scanner's voxels have 20 to 100 (tSNR).
CENTRED = 5.0
# The spread of fewer features than this may be small in one volume by chance.
_FEWEST = 16
# If more than this share of the channels of an EEG sample are not numbers, the whole sample is a gap.
MOST_CHANNELS = 0.5
# If more than this share of the bundle's features in a volume are not numbers, the whole volume is a hole.
MOST_VOXELS = 0.5
# Share by which a stream's rate may differ from the declared one. Amplifiers keep theirs within 0.001.
RATE_SHARE = 0.01
# What amplifiers offer at most: samples a second, channels, and values a second of all channels. Buffers are
# made by what a stream declares, so more than this is not believed.
MOST_SFREQ_HZ = 100_000.0
# Below it no amplifier sends, and liblsl does not return from smoothing the stamps of a stream of 0.001 Hz.
LEAST_SFREQ_HZ = 1.0
LARGEST_CAP = 1024
MOST_VALUES_HZ = 25_600_000.0
# Chunks and networks blur the two ends of a measured span by this much, s.
_RATE_SLACK_S = 0.15


def eeg_holes(data: Reals) -> Mask | None:
    """Mark EEG values that are no measurement: not finite, or beyond `EEG_LIMIT_UV`.

    Parameters
    ----------
    data : (channel, sample)
        Microvolts.

    Returns
    -------
    (channel, sample) bool, or None
        None if all values are good.
    """
    return _beyond(data, EEG_LIMIT_UV)


def voxel_holes(data: NDArray[Any]) -> Mask | None:
    """Mark voxels that are no measurement: not finite, or beyond `VOXEL_LIMIT`; None if all are good."""
    # Integers are always finite.
    return None if data.dtype.kind in "biu" else _beyond(data, VOXEL_LIMIT)


def volume_constant(data: NDArray[Any]) -> str | None:
    """Describe a volume whose finite values are all the same, or that has none; None otherwise."""
    # Two voxels that differ are enough, and some 64 of them nearly always hold such a pair.
    sample = data.ravel(order="K")[:: max(1, data.size // 64)]
    if sample.size and sample.min() < sample.max():
        return None
    finite = data
    if data.size and not (np.isfinite(data.min()) and np.isfinite(data.max())):
        finite = data[np.isfinite(data)]
    if not finite.size:
        return "no voxel is a number: check the scanner's reconstruction and export"
    least = finite.min()
    if least < finite.max():
        return None
    return f"every voxel is {least:g}: check the scanner's reconstruction and export"


@dataclass(frozen=True, eq=False)
class Resting:
    """Where the features of volumes lay in training: what those of a session are judged by.

    Attributes
    ----------
    level : (feature,)
        Their resting level.
    spread : (feature,)
        Their standard deviation in training.
    centred : bool
        Whether the signals of the training were centred: then the spread is the measure, and not the level.
    """

    level: Reals
    spread: Reals
    centred: bool

    @cached_property
    def usual(self) -> float:
        """Median of the resting levels."""
        return float(np.median(self.level))

    @cached_property
    def measured(self) -> bool:
        """Whether training has measured them. While a bundle is trained they are all zeros and ones."""
        return bool(np.any(self.level) or np.any(self.spread != 1))

    @property
    def expected(self) -> str:
        """What the bundle expects, in words."""
        if not self.centred:
            return f"in training it was {self.usual:.4g}"
        spread = float(np.median(self.spread))
        return f"in training, whose signals were centred, their standard deviation was {spread:.4g}"

    def part(self, features: Mask) -> "Resting":
        """Return some of the features, by a mask (feature,)."""
        return Resting(self.level[features], self.spread[features], self.centred)

    def far(self, values: Reals) -> Mask:
        """Mark the features of a volume, (feature,), that are far from where they lay in training."""
        if not self.measured:
            return np.zeros(len(values), bool)
        if self.centred:
            return np.abs(values - self.level) > FAR * self.spread
        return np.abs(values) > FAR * self.usual

    def distance(self, values: Reals) -> float:
        """Return how far features lie from their level in standard deviations, the median over features."""
        return float(np.median(np.abs(values - self.level) / self.spread))

    def described(self, values: Reals) -> str:
        """Describe the features of a volume, (feature,), beside what the bundle expects."""
        level = float(np.median(values))
        if not self.centred:
            return f"the voxels that the bundle reads have a median of {level:.4g}; {self.expected}"
        typical = float(np.median(np.abs(values - self.level)))
        return (
            f"the voxels that the bundle reads have a median of {level:.4g} and lie {typical:.4g} from their "
            f"means in training (median); {self.expected}"
        )


def resting(stats: Mapping[str, NDArray[Any]], today: Reals | None = None) -> Resting:
    """Say where features lay in training, from a bundle's ``fmri_mean`` and ``fmri_scale``.

    Parameters
    ----------
    stats : mapping
        The bundle's statistics.
    today : (feature,), optional
        The mean of today's calibration. It takes the place of training's where that is a level.
    """
    level = stats["fmri_mean"]
    spread = stats["fmri_scale"]
    centred = float(np.median(level)) < CENTRED * float(np.median(spread))
    return Resting(level if centred or today is None else today, spread, centred)


def volume_level(values: Reals, trained: Resting) -> str | None:
    """Describe a volume whose values are far from those of training; None if they are near.

    Where the signals of the training were centred, their distance from the training's means is compared with
    its standard deviations, and otherwise their level with the resting level.

    Parameters
    ----------
    values : (feature,)
        The features that the bundle reads, finite.
    trained : Resting
        Of the same features.
    """
    if not trained.measured:
        return None
    if trained.centred:
        distance = trained.distance(values)
        if distance <= FAR and (distance >= 1 / FAR or len(values) < _FEWEST):
            return None
        return f"{trained.described(values)}: prepare the volumes as those of the training were"
    level = float(np.median(values))
    if trained.usual <= 0 or trained.usual / FAR <= level <= trained.usual * FAR:
        return None
    advice = "check the scanner's rescaling and that this is the functional series"
    return f"{trained.described(values)}: {advice}"


def eeg_level(spread_uv: Reals, trained_uv: Reals) -> str | None:
    """Describe EEG whose level is far from that of training; None if it is near.

    Parameters
    ----------
    spread_uv : (channel,)
        Standard deviation of each channel in the bundle's band, microvolts.
    trained_uv : (channel,)
        The bundle's ``eeg_scale``; all ones if training has not measured it.
    """
    if (trained_uv == 1).all():
        return None
    ratio = float(np.median(spread_uv / trained_uv))
    if 1 / FAR <= ratio <= FAR:
        return None
    return (
        f"{eeg_described(spread_uv, trained_uv)}: check the unit that the outlet declares "
        "(microvolts, volts), the electrodes and the amplifier's gain"
    )


def eeg_described(spread_uv: Reals, trained_uv: Reals) -> str:
    """Describe the level of EEG, as for `eeg_level`, beside what the bundle expects."""
    return (
        f"the EEG's standard deviation in the bundle's band is {float(np.median(spread_uv)):.4g} uV, at "
        f"training it was {float(np.median(trained_uv)):.4g} uV"
    )


def declared_rate(declared_hz: float, measured_hz: float, span_s: float) -> str | None:
    """Describe a stream that does not send at its declared rate; None if it does.

    Parameters
    ----------
    declared_hz, measured_hz : float
        Rate that the stream declares, and the one that was measured, Hz.
    span_s : float
        Length of the measurement, s. The shorter it is, the larger the difference that is allowed.
    """
    off = abs(measured_hz / declared_hz - 1)
    if off <= RATE_SHARE + _RATE_SLACK_S / span_s:
        return None
    return (
        f"the stream declares {declared_hz:g} Hz and sends {measured_hz:.4g} samples a second: set the "
        "outlet's nominal rate to the amplifier's"
    )


def stream_size(sfreq_hz: float, channels: int) -> str | None:
    """Describe a stream that declares a rate or a number of channels that no amplifier has; None otherwise.

    Parameters
    ----------
    sfreq_hz : float
        Nominal rate; 0 for a stream without a steady one.
    channels : int
        Of all kinds.
    """
    rate = sfreq_hz if math.isfinite(sfreq_hz) and sfreq_hz >= 0 else math.inf
    steady = rate == 0 or LEAST_SFREQ_HZ <= rate <= MOST_SFREQ_HZ
    if steady and 0 < channels <= LARGEST_CAP and rate * channels <= MOST_VALUES_HZ:
        return None
    return (
        f"the stream declares {channels} channels at {sfreq_hz:g} Hz; 1 to {LARGEST_CAP} channels and "
        f"{LEAST_SFREQ_HZ:.0f} to {MOST_SFREQ_HZ:.0f} Hz are read, {MOST_VALUES_HZ:.0f} values a second in "
        "all: set the outlet's nominal rate and channels to the amplifier's"
    )


def bundle_rate(sfreq_hz: float, grid_hz: float, band: EegBand) -> str | None:
    """Describe a stream that is too slow for a bundle; None if it is fast enough.

    Parameters
    ----------
    sfreq_hz : float
        Sampling rate of the stream.
    grid_hz : float
        Rate of the bundle's EEG samples (`TimingGrid.sfreq`).
    band : EegBand
        The bundle's band. The stream must reach past twice its highest edge (Nyquist).
    """
    edge_hz = max(band.lowpass_hz, band.notch_hz or 0.0)
    least_hz = max(grid_hz, 2 * edge_hz)
    if sfreq_hz >= grid_hz and sfreq_hz > 2 * edge_hz:
        return None
    return (
        f"the stream has {sfreq_hz:g} samples a second, the bundle reads {grid_hz:g} with a band up to "
        f"{edge_hz:g} Hz: set the amplifier to more than {least_hz:g} Hz"
    )


def _beyond(data: NDArray[Any], limit: float) -> Mask | None:
    """Mark values that are not within a limit; None if all are."""
    # Where all are good this takes two passes and no copy. A NaN makes every comparison false, so
    # that it neither passes here nor escapes the mask below.
    if not data.size or (data.min() >= -limit and data.max() <= limit):
        return None
    return ~(np.abs(data) <= limit)
