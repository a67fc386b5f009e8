"""Judge volume triggers, and the clocks of amplifier and scanner: a part of ``rtdecode preflight``.

A clock that is locked to the scanner's takes the same number of samples in every TR. Where gradients run, the
period of their artefact tells this to a part of a ppm. Otherwise a line through the triggers' samples tells
it, as far as the triggers are exact.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode.clocks.triggers import Chain, Train
from rtdecode.signal.gradient.timing import TriggerLine
from streaming.checks import table
from streaming.checks.eeg_capture import EegCapture
from streaming.checks.finding import OK, Finding, counted
from streaming.tools.preflight_clean import Cleaned

# The artefact's period is not trusted further than this, ppm: of simulated clocks it was up to 0.1 off, more
# than the scatter of the epochs tells, as every epoch is measured against the ones before it.
_GRADIENT_PPM = 0.2
# A trigger on a stim channel stands for an instant within one sample: standard deviation, samples.
_ROUNDED = 1 / np.sqrt(12)
# Half the width of a 95 % interval, in standard errors.
_WIDE = 2.0
# Fewer triggers, or epochs of the artefact, give no line.
_LEAST = 5
# Most epochs that the artefact's period rests on (`rtdecode.signal.gradient.state.Gradient.line`).
_LINE = 16


@dataclass(frozen=True, slots=True)
class Drift:
    """How far a period measured in samples is from the TR.

    Attributes
    ----------
    ppm, error_ppm : float
        Distance from the TR, and half of its 95 % interval.
    scatter : float
        Root mean square distance of the starts from a line, samples.
    by : str
        What was measured.
    """

    ppm: float
    error_ppm: float
    scatter: float
    by: str


def volume_triggers(capture: EegCapture, tr_s: float) -> tuple[Chain, str] | None:
    """Return the triggers that mark the volumes of a TR, and their label; None if there are none."""
    trains: dict[str, Train] = {}
    for trigger in sorted(capture.triggers, key=lambda event: event.stamp):
        trains.setdefault(trigger.label, Train(tr_s)).push(trigger.stamp)
    candidates = [(train.best(-np.inf), label) for label, train in trains.items()]
    chains = [(best[0], label) for best, label in candidates if best is not None]
    return max(chains, key=lambda candidate: candidate[0].count, default=None)


def triggers(capture: EegCapture, tr_s: float | None, volumes: int | None) -> Finding:
    """Judge the triggers that came, by how many volumes came meanwhile; None without a folder."""
    count = len(capture.triggers)
    volume_chain = volume_triggers(capture, tr_s) if tr_s else None
    if volume_chain is not None:
        chain, label = volume_chain
        return table.VOLUME_TRIGGERS.find(triggers=count, marking=chain.count, label=label, tr_s=tr_s)
    none = (
        f"{counted(count, 'trigger')}, none of them at the TR of {tr_s or 0:g} s," if count else "no trigger"
    )
    if volumes:
        span_s = capture.chunks[-1].arrived_at - capture.chunks[0].arrived_at
        came = counted(volumes, "volume")
        return table.TRIGGERS_MISSING.find(triggers=none, silent_s=span_s, volumes=came)
    return (
        table.TRIGGERS_AWAITED.find(triggers=none) if capture.has_triggers else table.NO_TRIGGER_LINE.find()
    )


def sync(capture: EegCapture, cleaned: Cleaned, tr_s: float | None) -> Finding:
    """Judge whether the amplifier's clock is locked to the scanner's, which runs at a TR in s."""
    drift = None
    if tr_s and capture.montage is not None:
        drift = by_gradient(cleaned.gradient, capture.montage.sfreq, tr_s)
        drift = drift or by_triggers(capture, cleaned, tr_s)
    if drift is None:
        return table.CLOCKS_UNKNOWN.find()
    coarse = table.CLOCKS_COARSE.find(**asdict(drift))
    surely_ppm = abs(drift.ppm) - drift.error_ppm
    return coarse if coarse.state != OK else table.CLOCKS.find(surely_ppm=surely_ppm, **asdict(drift))


def by_gradient(report: dict[str, Any] | None, sfreq: float, tr_s: float) -> Drift | None:
    """Measure the drift by the period of the gradient artefact; None where it is not known.

    Parameters
    ----------
    report : dict or None
        `rtdecode.signal.gradient.remover.GradientRemover.report`.
    sfreq : float
        Nominal sampling rate, Hz.
    tr_s : float
        TR of the sequence, s.
    """
    if report is None or report["period_ppm"] is None or report["epochs"] < _LEAST:
        return None
    scatter = report["timing_us"] * 1e-6 * sfreq
    error = _slope_error(scatter, np.arange(min(report["epochs"], _LINE))) / (tr_s * sfreq)
    error_ppm = max(_WIDE * 1e6 * error, _GRADIENT_PPM)
    return Drift(report["period_ppm"], error_ppm, scatter, "epochs of the gradient artefact")


def by_triggers(capture: EegCapture, cleaned: Cleaned, tr_s: float) -> Drift | None:
    """Measure the drift by the samples at which volume triggers came; None for too few, or after a gap."""
    volume_chain = volume_triggers(capture, tr_s)
    if volume_chain is None or volume_chain[0].count < _LEAST or cleaned.lost or capture.montage is None:
        return None
    volumes, times = volume_chain[0].arrays()
    stamps = np.concatenate([chunk.stamps for chunk in capture.chunks])
    # A trigger of a stim channel bears the stamp of its sample.
    exact = np.isin(times, stamps)
    # Stamps that were placed by their arrival tell nothing of two clocks.
    if capture.stamps and not exact.all():
        return None
    if exact.all():
        places = np.array([np.flatnonzero(stamps == time_s)[0] for time_s in times], np.float64)
    else:
        places = np.interp(times, cleaned.times, np.arange(len(cleaned.times)))
    period = tr_s * capture.montage.sfreq
    line = TriggerLine(places[0], period, len(volumes))
    for volume, place in zip(volumes, places, strict=True):
        line.add(round(volume - volumes[0]), place)
    noise = max(line.scatter, float(_ROUNDED) if exact.all() else 0.0)
    error = _slope_error(noise, volumes) / period
    return Drift(1e6 * (line.period / period - 1), _WIDE * 1e6 * error, line.scatter, "triggers")


def _slope_error(scatter: float, volumes: NDArray[Any]) -> float:
    """Return the standard error of the slope of a line through points (n,) with this scatter."""
    return scatter / float(np.sqrt(np.sum((volumes - volumes.mean()) ** 2)))
