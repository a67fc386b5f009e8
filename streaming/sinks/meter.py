"""The latency ledger: how long each stage of a clip took, and the percentiles over a session."""

from array import array
from collections import defaultdict
from collections.abc import Sequence
from functools import partial

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
    "wire",
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

Durations = dict[str, float | None]


def durations(
    window: Window,
    started_at: float,
    stamps: dict[str, float],
    costs: Durations,
    *,
    live: bool,
    wire_s: float | None = None,
) -> Durations:
    """Return the durations of one clip, ms, by the names in `DURATIONS`.

    Parameters
    ----------
    window : Window
        The window of the clip.
    started_at : float
        When decoding began.
    stamps : dict
        Instants of the ledger on the local clock, up to ``emitted``, and the window's ``stop``.
    costs : dict
        ``volume_to_vector`` and ``eeg_push`` of the newest inputs, ms.
    live : bool
        False on a virtual clock, where only the time of decoding itself is known.
    wire_s : float, optional
        Time on the way to a decoder elsewhere and back, s.
    """
    durations_ms: Durations = dict.fromkeys(DURATIONS)
    durations_ms["wire"] = None if wire_s is None else _ms(wire_s)
    durations_ms["encode"] = _ms(stamps["encoded"] - started_at)
    if "denoised" in stamps:
        durations_ms["denoise"] = _ms(stamps["denoised"] - stamps["encoded"])
    # On a virtual clock the window was cut at a time of the recording, so frames are timed from the
    # start of decoding.
    for name in ("first_frame", "last_frame"):
        durations_ms[name] = _ms(stamps[name] - (stamps["windowed"] if live else started_at))
    if live:
        beyond = {"final": "beyond_floor", "preview": "beyond_floor_preview"}.get(window.revision)
        if beyond is not None:
            durations_ms[beyond] = _ms(stamps["emitted"] - window.floor_at)
        durations_ms["since_stimulus"] = _ms(stamps["emitted"] - stamps["stop"])
        durations_ms |= costs
    return durations_ms


def instants(window: Window, stamps: dict[str, float], *, live: bool) -> Durations:
    """Return the ledger's instants relative to the floor, ms; None on a virtual clock."""
    return {
        name: _ms(stamps[name] - window.floor_at) if live and name in stamps else None for name in INSTANTS
    }


class Meter:
    """Collect durations and summarise them.

    Parameters
    ----------
    n_newest : int
        So many of the newest values of each duration count, of 8 bytes each: a day has 4 million EEG chunks.
    """

    def __init__(self, n_newest: int = 200_000) -> None:
        self._seen: dict[str, _Newest] = defaultdict(partial(_Newest, n_newest))

    def add(self, durations_ms: Durations) -> None:
        """Add durations in ms; unknown ones (None) are left out."""
        for name, value in durations_ms.items():
            if value is not None:
                self._seen[name].add(value)

    def summary(self) -> dict[str, dict[str, float] | None]:
        """Return the percentiles of each duration, ms; None if nothing was measured."""
        durations_ms = {name: self._seen[name].values for name in DURATIONS if name in self._seen}
        return {name: percentiles(durations_ms[name]) if name in durations_ms else None for name in DURATIONS}


class _Newest:
    """The newest values, eight bytes each."""

    def __init__(self, count: int) -> None:
        self.values = array("d")
        self._count = count
        self._next = 0

    def add(self, value: float) -> None:
        if len(self.values) < self._count:
            self.values.append(value)
            return
        self.values[self._next] = value
        self._next = (self._next + 1) % self._count


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """Return the 50th, 95th and 99th percentiles and the maximum."""
    p50, p95, p99 = np.percentile(np.array(values), [50, 95, 99])
    return {"p50": float(p50), "p95": float(p95), "p99": float(p99), "max": float(max(values))}


def _ms(seconds: float) -> float:
    return round(1e3 * seconds, 3)
