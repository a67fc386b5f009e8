"""Say after the first minute of a run whether its data look usable.

`sentence` is the rule: figures come in, one sentence goes out. `QualityMonitor` follows the statuses of a
session and says the sentence once for each run. It speaks about data alone, never about safety.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from scipy.special import chdtri

from rtdecode.disk.calibration import QualityFigures
from rtdecode.signal.volume.run_quality import RunQuality
from streaming.checks import signals, table
from streaming.checks.finding import BAD, NOTE, OK, Finding, counted, judged
from streaming.status import Status

# Run time after which a run is judged, s. `rtdecode.signal.volume.run_quality.Quality` judges the same
# minute.
FIRST_S = 60.0
# Where volumes are expected and too few have come, that is said after so many times this long.
_PATIENCE = 1.5
# Coverage of the interval of tSNR, and the degrees of freedom that a line through the volumes takes.
_COVERED = 0.95
_LINE = 2


@dataclass(frozen=True, slots=True)
class FirstMinute:
    """Figures of the first minute of a run.

    Attributes
    ----------
    run : int
        Number of the run, as in the report.
    steady : RunQuality or None
        Of its volumes; None without volumes.
    eeg : mapping
        A status' counts of the EEG; empty without EEG.
    calibration : QualityFigures or None
        The calibration's own figures; None without one.
    """

    run: int
    steady: RunQuality | None
    eeg: Mapping[str, Any]
    calibration: QualityFigures | None = None


class QualityMonitor:
    """Say one sentence for each run, once its first minute is over.

    Parameters
    ----------
    calibration_figures : QualityFigures or None
        Figures of the session's calibration, if it has one.
    volumes : bool
        Whether volumes are expected, and measured.
    after_s : float
        Run time after which a run is judged, s.
    """

    def __init__(
        self, calibration_figures: QualityFigures | None, *, volumes: bool, after_s: float = FIRST_S
    ) -> None:
        self._known = calibration_figures
        self._volumes = volumes
        self._after_s = after_s
        self._told: set[int] = set()

    def take(self, status: Status) -> list[str]:
        """Return a sentence for each run of which one can be said now, and has not been."""
        runs = status.counters["runs"]
        sentences = []
        for run in runs:
            if run["run"] in self._told:
                continue
            # The status has the run time of the newest run alone; an earlier run is over.
            elapsed_s = status.elapsed if run is runs[-1] else None
            text = self._said(run, status.counters["eeg"], elapsed_s)
            if text:
                self._told.add(run["run"])
                sentences.append(text)
        return sentences

    def _said(self, run: Mapping[str, Any], eeg: Mapping[str, Any], elapsed_s: float | None) -> str:
        eeg = eeg if eeg.get("samples") else {}
        figures = (run.get("motion") or {}).get("first_minute")
        if figures is not None:
            steady = RunQuality(**figures)
            return sentence(FirstMinute(run["run"], steady, eeg, self._known), self._after_s)
        if elapsed_s is None or elapsed_s < self._after_s:
            return ""
        if not self._volumes:
            return sentence(FirstMinute(run["run"], None, eeg), self._after_s)
        if elapsed_s < _PATIENCE * self._after_s:
            return ""
        count = (run.get("motion") or {}).get("volumes", 0)
        finding = table.FEW_VOLUMES.find(volumes=count, elapsed_s=elapsed_s)
        return f"consider stopping run {run['run']}: {finding.found}; {finding.advice}."


def sentence(minute: FirstMinute, after_s: float = FIRST_S) -> str:
    """Say in one sentence whether a run looks usable, by the figures of its first `after_s` seconds."""
    findings = _judged(minute)
    figures = ", ".join(_figures(minute))
    bad, poor = ([finding.found for finding in findings if finding.state == state] for state in (BAD, NOTE))
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


def _judged(minute: FirstMinute) -> list[Finding]:
    steady = minute.steady
    findings = signals.eeg(minute.eeg)
    if steady is None:
        return findings
    motion = judged(table.MOTION.values(), asdict(steady))
    calibration_tsnr = minute.calibration.tsnr_region if minute.calibration is not None else None
    if calibration_tsnr and steady.tsnr:
        highest = tsnr_interval(steady.tsnr, steady.volumes)[1]
        shares = {"share": steady.tsnr / calibration_tsnr, "highest_share": highest / calibration_tsnr}
        motion.append(table.TSNR_SHARE.find(**shares))
    return motion + findings


def _figures(minute: FirstMinute) -> list[str]:
    """Return the figures in words."""
    texts = list[str]()
    steady = minute.steady
    if steady is not None:
        if steady.max_fd_mm is not None:
            count = f"{steady.moved} of {steady.volumes} volumes above 0.5 mm"
            texts.append(f"displacement {steady.max_fd_mm:.1f} mm at most ({count})")
        texts.append(counted(steady.jumps, "DVARS jump"))
        if steady.tsnr is not None:
            low, high = tsnr_interval(steady.tsnr, steady.volumes)
            calibration_tsnr = minute.calibration.tsnr_region if minute.calibration is not None else None
            comparison = f"; {calibration_tsnr:.0f} in the calibration" if calibration_tsnr else ""
            texts.append(f"tSNR {steady.tsnr:.0f} ({low:.0f} to {high:.0f}{comparison})")
    if minute.eeg:
        # What is not good is said beside the figures.
        texts.append(
            f"EEG: {', '.join(finding.found for finding in signals.eeg(minute.eeg) if finding.state == OK)}"
        )
    return texts
