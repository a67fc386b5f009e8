"""Builders of grid, pass band and baseline, with arguments as recipes write them."""

from collections.abc import Sequence

from rtdecode.errors import UsageError
from rtdecode.signal.eeg.band import EegBand
from rtdecode.signal.volume.baseline import Baseline
from rtdecode.timing import exact
from train.config.builders import Later
from train.data.clip_grid import SIZE, ClipGrid


def grid(
    tr: float | str | None,
    window: float | str,
    hop: float | str,
    lag: float | str,
    sfreq: float | str,
    fps: float | str,
    after: Later[int] = 0,
    size: Later[Sequence[int]] = SIZE,
    frame_after: Later[bool | None] = None,
) -> ClipGrid:
    """Make a grid from numbers or fractions written as text (``4/5``).

    Parameters
    ----------
    tr, window, hop, lag, sfreq, fps
        As in `rtdecode.timing.TimingGrid`.
    after : int
        Number of volumes after its own that a window reads.
    size, frame_after
        As in `train.data.clip_grid.ClipGrid`.

    Raises
    ------
    UsageError
        If there is no such grid, or a window or a hop has no whole number of frames.
    """
    return look_ahead_grid(tr, window, hop, lag, sfreq, fps, 0, after, size, frame_after)


def look_ahead_grid(
    tr: float | str | None,
    window: float | str,
    hop: float | str,
    lag: float | str,
    sfreq: float | str,
    fps: float | str,
    before: int,
    after: int,
    size: Later[Sequence[int]] = SIZE,
    frame_after: Later[bool | None] = None,
) -> ClipGrid:
    """Make a grid as `grid` does, whose windows also read some volumes before and after their own."""
    try:
        return ClipGrid(
            tr=None if tr is None else exact(tr),
            window=exact(window),
            hop=exact(hop),
            lag=exact(lag),
            sfreq=exact(sfreq),
            fps=exact(fps),
            before=before,
            after=after,
            size=_rows_and_columns(size),
            frame_after=_yes_or_no(frame_after),
        )
    except (ValueError, TypeError, LookupError) as error:
        raise UsageError(
            "recipe-grid-invalid", "the recipe's grid cannot be used: {error}", error=error
        ) from error


def _rows_and_columns(size: Sequence[int]) -> tuple[int, int]:
    if isinstance(size, str) or not isinstance(size, Sequence) or len(size) != 2:
        raise ValueError(f"size is rows and columns, such as [64, 96], found {size}")
    return size[0], size[1]


def _yes_or_no(frame_after: bool | None) -> bool | None:
    if frame_after is not None and not isinstance(frame_after, bool):
        raise ValueError(f"frame_after is true or false, found {frame_after}")
    return frame_after


def band(highpass_hz: float, lowpass_hz: float, order: int, reference: str) -> EegBand:
    """Choose the EEG's pass band."""
    return EegBand(highpass_hz, lowpass_hz, order, reference)


def baseline(
    warmup: int = 0, rate: float = 0.0, walk: float = 0.0, colour: float = 0.0, memory: float = 1.0
) -> Baseline:
    """Choose how a run's resting level is followed."""
    return Baseline(warmup=warmup, rate=rate, walk=walk, colour=colour, memory=memory)
