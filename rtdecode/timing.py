"""Where windows, EEG samples, volumes and video frames lie on a run's time line.

A `TimingGrid` holds a bundle's rates and lengths and answers which samples and volumes belong to window k.
Times are `fractions.Fraction` seconds, because floats would lose volumes: ``int(2.4 / 0.8)`` is 2.
"""

from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor

from rtdecode.errors import GeometryError


def exact(value: float | str | Fraction) -> Fraction:
    """Convert a time to the fraction it was meant to be.

    Parameters
    ----------
    value : float, str or Fraction
        A float is read by its shortest decimal form, so 0.8 becomes 4/5.
    """
    return Fraction(repr(value)) if isinstance(value, float) else Fraction(value)


@dataclass(frozen=True, slots=True)
class TimingGrid:
    """The timing of a bundle's windows, samples, volumes and frames.

    Attributes
    ----------
    tr : Fraction or None
        Repetition time, s; None for a bundle without fMRI.
    sfreq : Fraction
        Sampling rate of the model's EEG grid, Hz.
    window, hop, lag : Fraction
        Length of a window, distance between the starts of two windows, and haemodynamic lag, s.
    fps : Fraction
        Frame rate of the clip, Hz.
    before, after : int
        Number of volumes that a window reads before and after its own. Volumes after it add latency,
        because the window waits for them.

    Notes
    -----
    Window k covers stimulus time ``[start, stop) = [k * hop, k * hop + window)`` and takes the EEG of that
    span. A volume belongs to window k if the middle of its acquisition lies in
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
        if any(not isinstance(count, int) or count < 0 for count in (self.before, self.after)):
            raise ValueError(f"before and after are counts of volumes, found {self.before} and {self.after}")
        if self.tr is None and (self.before or self.after):
            raise ValueError(f"{self.before} volumes before and {self.after} after are read, and tr is null")
        # Graphs have one fixed input shape, so every window must hold the same number of samples.
        if (self.window * self.sfreq).denominator != 1 or (self.hop * self.sfreq).denominator != 1:
            raise ValueError(
                f"window {self.window} s and hop {self.hop} s must be whole samples at {self.sfreq} Hz"
            )

    @property
    def samples(self) -> int:
        """Number of EEG samples in a window."""
        return int(self.window * self.sfreq)

    @property
    def slots(self) -> int:
        """Largest number of volumes that one window can hold."""
        return 0 if self.tr is None else self.before + ceil(self.window / self.tr) + self.after

    @property
    def wait(self) -> Fraction:
        """Time from a window's end to the end of its volumes, s: the lag plus the volumes after it."""
        return self.lag if self.tr is None else self.lag + self.after * self.tr

    @property
    def hop_frames(self) -> int:
        """Video frames shown per hop; the frame at the cut to the next window is not counted."""
        return int(self.hop * self.fps)

    def span(self, k: int) -> tuple[Fraction, Fraction]:
        """Return the stimulus time [start, stop) of window k, s."""
        start = k * self.hop
        return start, start + self.window

    def volumes(self, k: int) -> range:
        """Return the indices of the volumes that window k reads; empty without fMRI.

        Indices below 0 are left out: the run has no volumes there.
        """
        if self.tr is None:
            return range(0)
        stop = self.span(k)[1]
        # The middle of volume n is at (n + 1/2) * tr, so the first volume whose middle lies at or
        # after time t is ceil(t / tr - 1/2).
        end = ceil((stop + self.lag) / self.tr - Fraction(1, 2)) + self.after
        return range(max(self._first(k), 0), max(end, 0))

    def empty_slots(self, k: int) -> int:
        """Count the slots of window k that lie before the first volume of the run."""
        return 0 if self.tr is None else max(0, -self._first(k))

    def _first(self, k: int) -> int:
        """Return the volume index of window k's first slot, which is negative before the run begins."""
        assert self.tr is not None
        start = self.span(k)[0]
        return ceil((start + self.lag) / self.tr - Fraction(1, 2)) - self.before

    def count(self, seconds: float | Fraction) -> int:
        """Count the windows that lie wholly inside the first `seconds` of stimulus time."""
        room = exact(seconds) - self.window
        return 0 if room < 0 else floor(room / self.hop) + 1


def check_tr(tr_s: float | None, trained_s: float, name: str = "this series") -> None:
    """Refuse a series whose TR differs from the bundle's.

    Parameters
    ----------
    tr_s : float or None
        The TR in the series' header; None is accepted unchecked.
    trained_s : float
        The bundle's TR.
    name : str
        Name of the series, for the message.

    Raises
    ------
    GeometryError
        If they differ by more than 1 %.
    """
    # A header may be slightly off (0.7995 s for 0.8 s); the run clock follows that as a slope.
    if tr_s is not None and abs(tr_s - trained_s) > 0.01 * trained_s:
        raise GeometryError(
            "tr-mismatch",
            "the bundle was trained at TR {bundle_tr_s:g} s, {series} says {tr_s:g} s. Scan with the "
            "trained protocol, or give another --bundle.",
            bundle_tr_s=trained_s,
            series=name,
            tr_s=tr_s,
        )
