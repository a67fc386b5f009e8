"""Builders of grid, pass band and baseline, with arguments as recipes write them."""

from rtdecode.errors import UsageError
from rtdecode.signal.eeg.band import EegBand
from rtdecode.signal.volume.baseline import Baseline
from rtdecode.timing import TimingGrid, exact


def grid(
    tr: float | str | None,
    window: float | str,
    hop: float | str,
    lag: float | str,
    sfreq: float | str,
    fps: float | str,
) -> TimingGrid:
    """Make a grid from numbers or fractions written as text (``4/5``)."""
    # Look-ahead has a builder of its own: another argument here, even with a default, would change the
    # digest of every recipe.
    return look_ahead_grid(tr, window, hop, lag, sfreq, fps, before=0, after=0)


def look_ahead_grid(
    tr: float | str | None,
    window: float | str,
    hop: float | str,
    lag: float | str,
    sfreq: float | str,
    fps: float | str,
    before: int,
    after: int,
) -> TimingGrid:
    """Make a grid as `grid` does, whose windows also read some volumes before and after their own."""
    try:
        return TimingGrid(
            tr=None if tr is None else exact(tr),
            window=exact(window),
            hop=exact(hop),
            lag=exact(lag),
            sfreq=exact(sfreq),
            fps=exact(fps),
            before=before,
            after=after,
        )
    except (ValueError, TypeError) as error:
        raise UsageError(
            "recipe-grid-invalid", "the recipe's grid cannot be used: {error}", error=error
        ) from error


def band(highpass_hz: float, lowpass_hz: float, order: int, reference: str) -> EegBand:
    """Choose the EEG's pass band."""
    return EegBand(highpass_hz, lowpass_hz, order, reference)


def baseline(
    warmup: int = 0, rate: float = 0.0, walk: float = 0.0, colour: float = 0.0, memory: float = 1.0
) -> Baseline:
    """Choose how a run's resting level is followed."""
    return Baseline(warmup=warmup, rate=rate, walk=walk, colour=colour, memory=memory)
