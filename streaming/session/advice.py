"""Say after the first minute of a run whether its data look usable.

`sentence` is the rule: figures come in, one sentence goes out. `Advisor` follows the statuses of a session
and says the sentence once for each run. It speaks about data alone, never about safety.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from scipy.special import chdtri

from rtdecode.disk.calibration import Figures
from rtdecode.signal.volume.steady import Steadiness, remarks
from streaming.status import Status

# Run time after which a run is judged, s. `rtdecode.signal.volume.steady.Quality` judges the same minute.
FIRST_S = 60.0
# Where volumes are expected and too few have come, that is said after so many times this long.
_PATIENCE = 1.5
# Figures of the verdict in words, and how the figure and its limit are written. The limits, each with its
# source, are those of `rtdecode.signal.volume.steady.BARS`.
_WORDS = {
    "mean_fd_mm": ("mean displacement {}", "{:.2f} mm"),
    "max_fd_mm": ("largest displacement {}", "{:.1f} mm"),
    "moved_share": ("{} of the volumes moved by more than 0.5 mm", "{:.0%}"),
    "jump_share": ("{} of the volumes jump (DVARS)", "{:.0%}"),
    "unaligned_share": ("{} of the volumes could not be aligned", "{:.0%}"),
    "tsnr": ("tSNR {}", "{:.0f}"),
}
_BAD = 2
# A run whose tSNR surely lies below this share of the calibration's is not what was calibrated on. A choice
# of this project.
_TSNR_SHARE = 0.7
# Gradient artefact left at the slice harmonics above which the EEG is called poor, dB. A choice of this
# project: simulated sessions have -4 to 8.
_RESIDUAL_DB = 15.0
# Coverage of the interval of tSNR, and the degrees of freedom that a line through the volumes takes.
_COVERED = 0.95
_LINE = 2


@dataclass(frozen=True, slots=True)
class Eeg:
    """Figures of the session's EEG so far.

    Attributes
    ----------
    gaps : int
    bad_channels : int
        Number of channels that are bad now.
    too_many_bad : bool
        Whether they are more than can be interpolated.
    residual_db : float or None
        Gradient artefact left at the slice harmonics; None where there is none.
    """

    gaps: int = 0
    bad_channels: int = 0
    too_many_bad: bool = False
    residual_db: float | None = None


@dataclass(frozen=True, slots=True)
class Minute:
    """Figures of the first minute of a run.

    Attributes
    ----------
    run : int
        Number of the run, as in the report.
    steady : Steadiness or None
        Of its volumes; None without volumes.
    eeg : Eeg or None
        None without EEG.
    known : Figures or None
        The calibration's own figures; None without one.
    """

    run: int
    steady: Steadiness | None = None
    eeg: Eeg | None = None
    known: Figures | None = None


class Advisor:
    """Say one sentence for each run, once its first minute is over.

    Parameters
    ----------
    known : Figures or None
        Figures of the session's calibration, if it has one.
    volumes : bool
        Whether volumes are expected, and measured.
    after_s : float
        Run time after which a run is judged, s.
    """

    def __init__(self, known: Figures | None, *, volumes: bool, after_s: float = FIRST_S) -> None:
        self._known = known
        self._volumes = volumes
        self._after_s = after_s
        self._told: set[int] = set()

    def take(self, status: Status) -> list[str]:
        """Return a sentence for each run of which one can be said now, and has not been."""
        runs = status["counters"]["runs"]
        told = []
        for one in runs:
            if one["run"] in self._told:
                continue
            # The status has the run time of the newest run alone; an earlier run is over.
            elapsed_s = status["elapsed"] if one is runs[-1] else None
            text = self._said(one, status["counters"]["eeg"], elapsed_s)
            if text:
                self._told.add(one["run"])
                told.append(text)
        return told

    def _said(self, run: Mapping[str, Any], eeg: Mapping[str, Any], elapsed_s: float | None) -> str:
        heard = _heard(eeg)
        figures = (run.get("motion") or {}).get("first_minute")
        if figures is not None:
            steady = Steadiness(**figures)
            return sentence(Minute(run["run"], steady, heard, self._known), self._after_s)
        if elapsed_s is None or elapsed_s < self._after_s:
            return ""
        if not self._volumes:
            return sentence(Minute(run["run"], None, heard), self._after_s)
        if elapsed_s < _PATIENCE * self._after_s:
            return ""
        count = (run.get("motion") or {}).get("volumes", 0)
        return (
            f"consider stopping run {run['run']}: only {count} volumes could be read in its first "
            f"{elapsed_s:.0f} s, too few to judge it. Check the scanner's export."
        )


def sentence(minute: Minute, after_s: float = FIRST_S) -> str:
    """Say in one sentence whether a run looks usable, with the figures.

    Parameters
    ----------
    minute : Minute
    after_s : float
        Length of signal that the figures rest on, s.
    """
    bad, poor = _faults(minute)
    figures = ", ".join(_figures(minute))
    if bad:
        faults = ", ".join(bad + poor)
        return f"consider stopping run {minute.run} after {after_s:g} s: {faults}; measured: {figures}"
    but = f"; not good: {', '.join(poor)}" if poor else ""
    return f"run {minute.run} looks usable after {after_s:g} s: {figures}{but}"


def tsnr_interval(tsnr: float, volumes: int) -> tuple[float, float]:
    """Return the 95 % interval of a temporal signal-to-noise ratio that rests on so many volumes.

    The standard deviation about a line has a chi-square distribution with two degrees of freedom fewer than
    there are volumes. The median over a region is taken to be no more certain than a single voxel, since
    voxels share most of their noise.
    """
    freedom = volumes - _LINE
    # `chdtri` takes the probability of the upper tail.
    low, high = (chdtri(freedom, tail) for tail in ((1 + _COVERED) / 2, (1 - _COVERED) / 2))
    return tsnr * float(low / freedom) ** 0.5, tsnr * float(high / freedom) ** 0.5


def _faults(minute: Minute) -> tuple[list[str], list[str]]:
    """Return in words what is bad, and what is not good."""
    bad = list[str]()
    poor = list[str]()
    if minute.steady is not None:
        for bar, value, level in remarks(minute.steady):
            side = "at most" if bar.bad > bar.good else "at least"
            limit = bar.bad if level == _BAD else bar.good
            words, form = _WORDS[bar.figure]
            text = f"{words.format(form.format(value))} ({side} {form.format(limit)})"
            (bad if level == _BAD else poor).append(text)
        known = minute.known.tsnr_region if minute.known is not None else None
        tsnr = minute.steady.tsnr
        if known and tsnr and tsnr_interval(tsnr, minute.steady.volumes)[1] < _TSNR_SHARE * known:
            bad.append(f"tSNR is {tsnr / known:.0%} of the calibration's ({_TSNR_SHARE:.0%} at least)")
    eeg = minute.eeg
    if eeg is not None and eeg.too_many_bad:
        bad.append("too many EEG channels are bad to be interpolated")
    if eeg is not None and eeg.residual_db is not None and eeg.residual_db > _RESIDUAL_DB:
        poor.append(f"gradient residual {eeg.residual_db:.0f} dB (at most {_RESIDUAL_DB:g})")
    return bad, poor


def _figures(minute: Minute) -> list[str]:
    """Return the figures in words."""
    found = list[str]()
    steady = minute.steady
    if steady is not None:
        if steady.max_fd_mm is not None:
            count = f"{steady.moved} of {steady.volumes} volumes above 0.5 mm"
            found.append(f"displacement {steady.max_fd_mm:.1f} mm at most ({count})")
        found.append(f"{steady.jumps} DVARS jumps")
        if steady.tsnr is not None:
            low, high = tsnr_interval(steady.tsnr, steady.volumes)
            known = minute.known.tsnr_region if minute.known is not None else None
            beside = f"; {known:.0f} in the calibration" if known else ""
            found.append(f"tSNR {steady.tsnr:.0f} ({low:.0f} to {high:.0f}{beside})")
    eeg = minute.eeg
    if eeg is not None:
        found.append(f"EEG: gaps {eeg.gaps}, bad channels {eeg.bad_channels}")
        if eeg.residual_db is not None:
            found.append(f"gradient residual {eeg.residual_db:.1f} dB")
    return found


def _heard(counted: Mapping[str, Any]) -> Eeg | None:
    """Return the figures of the EEG from a status' counts; None if no sample has come."""
    if not counted.get("samples"):
        return None
    return Eeg(
        counted.get("gaps") or 0,
        len(counted.get("bad_channels") or []),
        bool(counted.get("too_many_bad")),
        counted.get("artifact_residual_db"),
    )
