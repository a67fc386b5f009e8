"""Judge how steady the signal of a run is.

Values of the voxels and the framewise displacement come in, one volume at a time. `Quality` keeps figures of
motion, of signal changes between volumes and of the temporal signal-to-noise ratio, and gives a verdict
after the first minute.
"""

import math
from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rtdecode.types import Float

GRADES = ("good", "acceptable", "bad")

_MINUTE_S = 60.0
# Number of volumes whose median DVARS is the usual one, and the fewest that have a usual one.
_RECENT = 60
_MIN_VOLUMES = 5
# A volume is a jump if its DVARS is more than this many times the usual one.
_JUMP = 1.5


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one figure.

    Attributes
    ----------
    figure : str
        Name of an attribute of `RunQuality`.
    good, bad : float
        The figure is good up to the first limit, acceptable up to the second, and bad above it. Where
        `bad` is the smaller one, as for tsnr, the directions are reversed.
    source : str
        Where the limits come from.
    """

    figure: str
    good: float
    bad: float
    source: str


_PROJECT_CHOICE = "a choice of this project"
BARS = (
    Limits("mean_fd_mm", 0.25, 0.55, "Parkes et al. 2018, NeuroImage 171:415, stringent and lenient"),
    Limits("max_fd_mm", 5.0, 10.0, f"5 mm: Parkes et al. 2018, stringent; 10 mm: {_PROJECT_CHOICE}"),
    Limits(
        "moved_share",
        0.2,
        0.5,
        f"0.2: Parkes et al. 2018, of FD above 0.5 mm, Power et al. 2012; 0.5: {_PROJECT_CHOICE}",
    ),
    Limits("jump_share", 0.1, 0.3, f"{_PROJECT_CHOICE}, DVARS above {_JUMP} times its running median"),
    Limits("unaligned_share", 0.05, 0.2, _PROJECT_CHOICE),
    Limits(
        "tsnr",
        40.0,
        20.0,
        f"{_PROJECT_CHOICE}; 3 T and 3 mm give 50 to 100, Triantafyllou et al. 2005, NeuroImage 26:243",
    ),
)


@dataclass(frozen=True, slots=True)
class RunQuality:
    """Figures of the run so far.

    Attributes
    ----------
    volumes : int
        Number of volumes.
    mean_fd_mm, max_fd_mm : float or None
        Mean and largest framewise displacement; None until a volume was aligned.
    moved_share : float or None
        Share of the aligned volumes that moved by more than 0.5 mm.
    unaligned_share : float or None
        Share of the volumes whose alignment did not converge.
    dvars_percent : float or None
        DVARS of the last volume: root mean square over voxels of the change since the volume before, in
        percent of the mean signal (Power et al. 2012, NeuroImage 59:2142). None for centred signals.
    jump_share : float or None
        Share of the volumes whose DVARS is more than 1.5 times the median of the 60 before.
    tsnr : float or None
        Temporal signal-to-noise ratio: mean divided by standard deviation about a straight line, median
        over voxels; None before ten volumes, and for centred signals.
    moved, jumps : int
        Number of volumes that moved by more than 0.5 mm, and of those that are a jump.
    """

    volumes: int
    mean_fd_mm: float | None
    max_fd_mm: float | None
    moved_share: float | None
    unaligned_share: float | None
    dvars_percent: float | None
    jump_share: float | None
    tsnr: float | None
    moved: int = 0
    jumps: int = 0


@dataclass(frozen=True, slots=True)
class StartVerdict:
    """Judgement of the first minute of a run.

    Attributes
    ----------
    grade : str
        ``good``, ``acceptable`` or ``bad``: the worst grade of any figure.
    reasons : tuple of str
        One reason for each figure that is not good, with its limit and the source of the limit.
    figures : RunQuality
        The figures of that minute.
    """

    grade: str
    reasons: tuple[str, ...]
    figures: RunQuality


class Quality:
    """Follow the figures of a run, with constant memory and cost per volume.

    Parameters
    ----------
    tr_s : float
        Repetition time, s.
    seconds : float
        Length of signal on which the verdict is based.
    centred : bool
        Whether the signals were centred before, as released z-scores are: they have no level, so that no
        figure is given as a share of it.

    Attributes
    ----------
    verdict : StartVerdict or None
        None until the run has lasted that long; unchanged afterwards.
    """

    def __init__(self, tr_s: float, seconds: float = _MINUTE_S, *, centred: bool = False) -> None:
        if not (tr_s > 0 and seconds > 0):
            raise ValueError(f"the TR and the time to judge must be above 0 s, found {tr_s} and {seconds}")
        self._centred = centred
        # At least the ten volumes that tsnr needs; the margin keeps rounding from adding a volume.
        self._judge_at = max(10, math.ceil(seconds / tr_s - 1e-6))
        self.reset()

    def reset(self) -> None:
        """Start a run."""
        self.verdict: StartVerdict | None = None
        self._count = self._aligned = self._moved = self._unaligned = self._jumps = self._compared = 0
        self._fd_sum = self._fd_max = 0.0
        self._dvars: float | None = None
        self._recent: deque[float] = deque(maxlen=_RECENT)
        self._last: NDArray[np.float64] | None = None
        self._now: RunQuality | None = None

    def push(self, values: Float, fd_mm: float | None = None) -> None:
        """Take in the next volume.

        Parameters
        ----------
        values : (voxel,)
            Values of the same voxels in every volume of a run, not normalised, and read after motion
            correction if there is any.
        fd_mm : float or None
            Framewise displacement; NaN if the alignment did not converge, None without alignment.
        """
        x = values.astype(np.float64)
        self._count += 1
        self._now = None
        if fd_mm is not None:
            self._displaced(fd_mm)
        if self._last is None:
            self._mean = x.copy()
            self._spread = np.zeros_like(x)
            self._slope = np.zeros_like(x)
        else:
            self._changed(x - self._last)
            self._accumulate(x)
        self._last = x
        if self._count == self._judge_at:
            self.verdict = judge(self.now())

    def now(self) -> RunQuality:
        """Return the figures of the run up to the last volume."""
        if self._now is None:
            self._now = self._figures()
        return self._now

    def _figures(self) -> RunQuality:
        aligned = self._aligned or None
        n_measured = self._aligned + self._unaligned
        tsnr = None if self._centred else self.tsnr_map()
        return RunQuality(
            volumes=self._count,
            mean_fd_mm=aligned and self._fd_sum / aligned,
            max_fd_mm=aligned and self._fd_max,
            moved_share=aligned and self._moved / aligned,
            unaligned_share=self._unaligned / n_measured if n_measured else None,
            dvars_percent=None if self._centred else self._dvars,
            jump_share=self._jumps / self._compared if self._compared else None,
            tsnr=None if tsnr is None or not tsnr.any() else float(np.median(tsnr[tsnr > 0])),
            moved=self._moved,
            jumps=self._jumps,
        )

    def tsnr_map(self) -> Float | None:
        """Return the temporal signal-to-noise ratio of each voxel, (voxel,) float32; None before ten volumes.

        Voxels without a positive mean or without any variation get 0.
        """
        n = self._count
        if n < 10 or self._last is None:
            return None
        # Sum of squares of 0 .. n-1 about their mean. The line costs two degrees of freedom.
        times = n * (n * n - 1) / 12
        variance = np.maximum(self._spread - self._slope**2 / times, 0.0) / (n - 2)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where((variance > 0) & (self._mean > 0), self._mean / np.sqrt(variance), 0.0)
        return ratio.astype(np.float32)

    def _displaced(self, fd_mm: float) -> None:
        if math.isnan(fd_mm):
            self._unaligned += 1
            return
        self._aligned += 1
        self._moved += int(fd_mm > 0.5)
        self._fd_sum += fd_mm
        self._fd_max = max(self._fd_max, fd_mm)

    def _changed(self, change: NDArray[np.float64]) -> None:
        level = 100.0 if self._centred else abs(float(self._mean.mean()))
        self._dvars = 100 * float(np.sqrt(np.mean(change**2))) / level if level > 0 else None
        if self._dvars is None:
            return
        if len(self._recent) >= _MIN_VOLUMES:
            self._compared += 1
            self._jumps += int(self._dvars > _JUMP * float(np.median(self._recent)))
        self._recent.append(self._dvars)

    def _accumulate(self, x: NDArray[np.float64]) -> None:
        """Update Welford's moments, and with them the co-moment with time (Pebay 2008, SAND2008-6212)."""
        n = self._count
        before = x - self._mean
        self._mean += before / n
        self._spread += before * (x - self._mean)
        self._slope += before * ((n - 1) / 2)


def judge(figures: RunQuality) -> StartVerdict:
    """Compare the figures of a run with `BARS`; figures that are None do not count."""
    worst = 0
    reasons = []
    for bar in BARS:
        value = getattr(figures, bar.figure)
        if value is None:
            continue
        sign = 1 if bar.bad > bar.good else -1
        level = int(sign * (value - bar.good) > 0) + int(sign * (value - bar.bad) > 0)
        if level:
            side = "up to" if bar.bad > bar.good else "from"
            reasons.append(
                f"{bar.figure} {value:.3g} is {GRADES[level]} (good: {side} {bar.good:g}; {bar.source})"
            )
        worst = max(worst, level)
    return StartVerdict(GRADES[worst], tuple(reasons), figures)
