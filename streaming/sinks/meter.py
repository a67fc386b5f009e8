"""The latency ledger: what each clip cost, and the percentiles of a session."""

from collections import defaultdict, deque

import numpy as np

from rtdecode.types import Window

DURATIONS = (
    "volume_to_vector",
    "eeg_push",
    "encode",
    "denoise",
    "first_frame",
    "last_frame",
    "beyond_floor",
    "beyond_floor_preview",
    "since_stimulus",
)
INSTANTS = (
    "acquired",
    "arrived",
    "parsed",
    "corrected",
    "windowed",
    "encoded",
    "first_frame",
    "last_frame",
    "emitted",
)
# A day of EEG chunks would be 4 million: the newest are kept.
_KEPT = 200_000

Durations = dict[str, float | None]


def durations(
    window: Window, started_at: float, stamps: dict[str, float], costs: Durations, *, live: bool
) -> Durations:
    """What one clip cost, ms, by the names of the contract.

    Parameters
    ----------
    window : Window
    started_at : float
        When decoding began.
    stamps : dict
        Instants of the ledger on the local clock, up to ``emitted``, and the window's ``stop``.
    costs : dict
        ``volume_to_vector`` and ``eeg_push`` of its newest inputs, ms.
    live : bool
        False on a virtual clock: only what decoding itself took is known.
    """
    found: Durations = dict.fromkeys(DURATIONS)
    found["encode"] = _ms(stamps["encoded"] - started_at)
    if "denoised" in stamps:
        found["denoise"] = _ms(stamps["denoised"] - stamps["encoded"])
    for name in ("first_frame", "last_frame"):
        found[name] = _ms(stamps[name] - (stamps["windowed"] if live else started_at))
    if live:
        beyond = "beyond_floor" if window.revision == "final" else "beyond_floor_preview"
        found[beyond] = _ms(stamps["emitted"] - window.floor_at)
        found["since_stimulus"] = _ms(stamps["emitted"] - stamps["stop"])
        found |= costs
    return found


def instants(window: Window, stamps: dict[str, float], *, live: bool) -> Durations:
    """The ledger's instants relative to the floor, ms; None on a virtual clock."""
    return {
        name: _ms(stamps[name] - window.floor_at) if live and name in stamps else None for name in INSTANTS
    }


class Meter:
    """Collects durations and tells their percentiles."""

    def __init__(self) -> None:
        self._seen: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=_KEPT))

    def add(self, found: Durations) -> None:
        """Take durations in ms; unknown ones are left out."""
        for name, value in found.items():
            if value is not None:
                self._seen[name].append(value)

    def summary(self) -> dict[str, dict[str, float] | None]:
        """Percentiles of each duration, ms; None where nothing was measured."""
        return {name: percentiles(self._seen[name]) if self._seen[name] else None for name in DURATIONS}


def percentiles(values: deque[float]) -> dict[str, float]:
    """p50, p95, p99 and the largest."""
    p50, p95, p99 = np.percentile(np.array(values), [50, 95, 99])
    return {"p50": float(p50), "p95": float(p95), "p99": float(p99), "max": float(max(values))}


def _ms(seconds: float) -> float:
    return round(1e3 * seconds, 3)
