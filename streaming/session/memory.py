"""Memory of a session: the sum of the proportional set sizes (PSS) of its processes."""

import psutil


class MemoryMeter:
    """Sample the memory of this process and its children every few seconds.

    Parameters
    ----------
    interval_s : float
        Shortest time between two samples, s.

    Attributes
    ----------
    peak_mb : float or None
        The largest sample, MB; None before the first.
    """

    def __init__(self, interval_s: float = 3.0) -> None:
        self._interval_s = interval_s
        self._sampled_at = 0.0
        self._this = psutil.Process()
        self.peak_mb: float | None = None

    def sample(self, now_at: float, *, now: bool = False) -> None:
        """Take a sample if one is due at local time `now_at`, s, or at once with `now`."""
        if not now and now_at - self._sampled_at < self._interval_s:
            return
        self._sampled_at = now_at
        total = sum(_pss(process) for process in [self._this, *self._this.children(recursive=True)])
        self.peak_mb = max(self.peak_mb or 0.0, total / 2**20)


def _pss(process: psutil.Process) -> int:
    # A child may end while it is looked at. Only Linux has PSS, in which shared pages count once.
    try:
        info = process.memory_full_info()
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return 0
    return getattr(info, "pss", info.rss)
