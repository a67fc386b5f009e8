"""The grid of a session in exact fractions: TRs, samples, windows.

Times are `fractions.Fraction` seconds. Floats would lose volumes: ``int(2.4 / 0.8)`` is 2.
"""

from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor

from rtdecode.errors import GeometryError


def exact(value: float | str | Fraction) -> Fraction:
    """Read a time as the fraction it was meant to be.

    Parameters
    ----------
    value : float, str or Fraction
        Floats are read by their shortest decimal form, so 0.8 is 4/5.
    """
    return Fraction(repr(value)) if isinstance(value, float) else Fraction(value)


@dataclass(frozen=True, slots=True)
class TimingGrid:
    """Where windows, samples, volumes and frames lie on a run's time line.

    Attributes
    ----------
    tr : Fraction or None
        Repetition time, s; None for a bundle without fMRI.
    sfreq : Fraction
        Sampling rate of the model's EEG grid, Hz.
    window, hop, lag : Fraction
        Length of a window, distance of two windows, haemodynamic lag, s.
    fps : Fraction
        Frame rate of the clip, Hz.
    before, after : int
        Volumes before and after its own that a window reads too. Those after it are latency: a window
        waits for them.

    Notes
    -----
    Window k covers stimulus time ``[k * hop, k * hop + window)`` and takes the EEG of that span.
    A volume belongs to window k if the middle of its acquisition lies in
    ``[start + lag, stop + lag)``.
    """

    tr: Fraction | None
    sfreq: Fraction
    window: Fraction
    hop: Fraction
    lag: Fraction
    fps: Fraction
    before: int = 0
    after: int = 0

    def __post_init__(self) -> None:
        positive = {"sfreq": self.sfreq, "window": self.window, "hop": self.hop, "fps": self.fps}
        for name, value in positive.items():
            if value <= 0:
                raise ValueError(f"{name} must be positive, found {value}")
        if self.tr is not None and self.tr <= 0:
            raise ValueError(f"tr must be positive, found {self.tr}")
        if self.lag < 0:
            raise ValueError(f"lag must not be negative, found {self.lag}")
        if min(self.before, self.after) < 0:
            raise ValueError(f"before and after are counts of volumes, found {self.before} and {self.after}")
        if self.tr is None and (self.before or self.after):
            raise ValueError(f"{self.before} volumes before and {self.after} after are read, and tr is null")
        if (self.window * self.sfreq).denominator != 1 or (self.hop * self.sfreq).denominator != 1:
            raise ValueError(
                f"window {self.window} s and hop {self.hop} s must be whole samples at {self.sfreq} Hz"
            )

    @property
    def samples(self) -> int:
        """EEG samples in a window."""
        return int(self.window * self.sfreq)

    @property
    def slots(self) -> int:
        """Most volumes that one window can hold."""
        return 0 if self.tr is None else self.before + ceil(self.window / self.tr) + self.after

    @property
    def wait(self) -> Fraction:
        """Time from a window's end to that of its volumes: the lag, and the volumes after it, s."""
        return self.lag if self.tr is None else self.lag + self.after * self.tr

    @property
    def hop_frames(self) -> int:
        """Video frames shown per hop, without the instant of the cut."""
        return int(self.hop * self.fps)

    def span(self, k: int) -> tuple[Fraction, Fraction]:
        """Stimulus time [start, stop) of window k, s."""
        start = k * self.hop
        return start, start + self.window

    def volumes(self, k: int) -> range:
        """Indices of the volumes of window k, with those before and after it; empty without fMRI."""
        if self.tr is None:
            return range(0)
        stop = self.span(k)[1]
        end = ceil((stop + self.lag) / self.tr - Fraction(1, 2)) + self.after
        return range(max(self._first(k), 0), max(end, 0))

    def empty_slots(self, k: int) -> int:
        """Count the slots of window k that lie before the first volume of the run."""
        return 0 if self.tr is None else max(0, -self._first(k))

    def _first(self, k: int) -> int:
        """Index of the volume of window k's first slot; below 0 where there can be none."""
        assert self.tr is not None
        start = self.span(k)[0]
        return ceil((start + self.lag) / self.tr - Fraction(1, 2)) - self.before

    def count(self, seconds: float | Fraction) -> int:
        """Windows that lie wholly inside the first `seconds` of stimulus time."""
        room = exact(seconds) - self.window
        return 0 if room < 0 else floor(room / self.hop) + 1


def check_tr(tr_s: float | None, trained_s: float, name: str = "this series") -> None:
    """Refuse a series that was acquired at another TR than the bundle's.

    Parameters
    ----------
    tr_s : float or None
        What its header says; None is taken as it comes.
    trained_s : float
        The bundle's.
    name : str
        The series, for the message.

    Raises
    ------
    GeometryError
        If they differ by more than 1 %.
    """
    if tr_s is not None and abs(tr_s - trained_s) > 0.01 * trained_s:
        raise GeometryError(
            f"the bundle was trained at TR {trained_s:g} s, {name} says {tr_s:g} s. Scan with the trained "
            "protocol, or give another --bundle."
        )
