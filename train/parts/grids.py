"""Timing grids as recipes write them."""

from rtdecode.errors import UsageError
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
    try:
        return TimingGrid(
            tr=None if tr is None else exact(tr),
            window=exact(window),
            hop=exact(hop),
            lag=exact(lag),
            sfreq=exact(sfreq),
            fps=exact(fps),
        )
    except (ValueError, TypeError) as error:
        raise UsageError(f"the recipe's grid cannot be used: {error}") from error
