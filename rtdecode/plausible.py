"""What a measurement can be: limits on values, levels and rates, and a sentence where one is passed.

Each function returns None where nothing is wrong, and otherwise a sentence that says what was found, what
was expected and what to do. A session and `rtdecode doctor` judge by the same functions.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode.signal.eeg.band import EegBand

Reals = NDArray[np.floating[Any]]
Mask = NDArray[np.bool_]

EEG_LIMIT_UV = 1e6
"""No EEG amplifier measures beyond this, microvolts: DC-coupled ones reach some 0.4 V."""
VOXEL_LIMIT = 1e9
"""No scanner writes a voxel beyond this: 16 bits and a scale slope stay far below."""
FAR = 20.0
"""A level that differs by more than this factor from that of training is none of the same kind.

Participants, caps and scanner gains differ by a few times; another unit differs by 1000 and more.
"""
MOST_CHANNELS = 0.5
"""An EEG sample of which more channels than this share are no numbers is a gap as a whole."""
MOST_VOXELS = 0.5
"""A volume of which more of the bundle's features than this share are no numbers is a hole as a whole."""
RATE_SHARE = 0.01
"""Share by which a stream's rate may differ from the declared one; amplifiers keep theirs within 0.001."""
_RATE_SLACK_S = 0.15


def eeg_holes(data: Reals) -> Mask | None:
    """EEG values that are no measurement: not finite, or beyond `EEG_LIMIT_UV`.

    Parameters
    ----------
    data : (channel, sample)
        Microvolts.

    Returns
    -------
    (channel, sample) bool, or None
        None where all are good.
    """
    return _beyond(data, EEG_LIMIT_UV)


def voxel_holes(data: NDArray[Any]) -> Mask | None:
    """Voxels that are no measurement: not finite, or beyond `VOXEL_LIMIT`; None where all are good."""
    return None if data.dtype.kind in "biu" else _beyond(data, VOXEL_LIMIT)


def volume_constant(data: NDArray[Any]) -> str | None:
    """Say that all values of a volume that are numbers are the same, or that none is a number."""
    # Two voxels that differ are enough, and most volumes show them at once.
    few = data.ravel(order="K")[:: max(1, data.size // 64)]
    if few.size and few.min() < few.max():
        return None
    known = data
    if data.size and not (np.isfinite(data.min()) and np.isfinite(data.max())):
        known = data[np.isfinite(data)]
    if not known.size:
        return "no voxel is a number: check the scanner's reconstruction and export"
    least = known.min()
    if least < known.max():
        return None
    return f"every voxel is {least:g}: check the scanner's reconstruction and export"


def volume_level(values: Reals, trained: Reals) -> str | None:
    """Say that the level of a volume is not that of training.

    Parameters
    ----------
    values : (voxel,)
        The voxels that the bundle reads, finite.
    trained : (voxel,)
        Their resting level: the bundle's ``fmri_mean``, or that of today's calibration.
    """
    usual = float(np.median(trained))
    level = float(np.median(values))
    if usual <= 0 or usual / FAR <= level <= usual * FAR:
        return None
    return (
        f"the voxels that the bundle reads lie at {level:.4g}, at training they lay at {usual:.4g}: check "
        "the scanner's rescaling and that this is the functional series"
    )


def eeg_level(spread_uv: Reals, trained_uv: Reals) -> str | None:
    """Say that the EEG's level is not that of training.

    Parameters
    ----------
    spread_uv : (channel,)
        Standard deviation of each channel in the bundle's band, microvolts.
    trained_uv : (channel,)
        The bundle's ``eeg_scale``; ones where training has not measured it yet.
    """
    if (trained_uv == 1).all():
        return None
    ratio = float(np.median(spread_uv / trained_uv))
    if 1 / FAR <= ratio <= FAR:
        return None
    return (
        f"the EEG's standard deviation in the bundle's band is {float(np.median(spread_uv)):.4g} uV, at "
        f"training it was {float(np.median(trained_uv)):.4g} uV: check the unit that the outlet declares "
        "(microvolts, volts), the electrodes and the amplifier's gain"
    )


def declared_rate(declared_hz: float, measured_hz: float, span_s: float) -> str | None:
    """Say that a stream does not send at the rate it declares.

    Parameters
    ----------
    declared_hz, measured_hz : float
    span_s : float
        How long was measured, s; chunks and networks blur its ends by some 0.15 s.
    """
    off = abs(measured_hz / declared_hz - 1)
    if off <= RATE_SHARE + _RATE_SLACK_S / span_s:
        return None
    return (
        f"the stream declares {declared_hz:g} Hz and sends {measured_hz:.4g} samples a second: set the "
        "outlet's nominal rate to the amplifier's"
    )


def bundle_rate(sfreq_hz: float, grid_hz: float, band: EegBand) -> str | None:
    """Say that a stream is too slow for a bundle.

    Parameters
    ----------
    sfreq_hz : float
        Of the stream.
    grid_hz : float
        Rate of the bundle's EEG samples (`TimingGrid.sfreq`).
    band : EegBand
        Of the bundle.
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
    """Where values are not within a limit; two passes without a copy where all are."""
    if not data.size or (data.min() >= -limit and data.max() <= limit):
        return None
    return ~(np.abs(data) <= limit)
