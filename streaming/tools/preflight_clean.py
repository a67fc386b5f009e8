"""Send what was heard through a session's artefact correction: a part of ``rtdecode preflight``."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode.clocks.sample_clock import SampleClock
from rtdecode.eeg.channels import kind_of
from rtdecode.eeg.cleaner import Cleaner, Part
from rtdecode.signal.eeg.quality import usable
from rtdecode.types import Montage, Trigger
from streaming.checks.eeg_capture import EegCapture
from streaming.tools.doctor_eeg import without_holes

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Cleaned:
    """A stream after the correction.

    Attributes
    ----------
    times : (sample,)
        Local times of the samples as they came, s.
    lost : int
        Number of samples that are missing between them.
    rate : float
        Sampling rate after the correction, Hz.
    ecg : list of (n,), or None
        Pieces of the electrocardiogram without gap and without gradients, microvolts; None without one.
    gradient : dict or None
        What is reported of the gradient artefact; None if there was none.
    references : bool
        Whether there are channels that record artefacts only.
    """

    times: Values
    lost: int
    rate: float
    ecg: list[Values] | None
    gradient: dict[str, Any] | None
    references: bool


def clean(capture: EegCapture, montage: Montage, tr_s: float | None) -> Cleaned:
    """Remove the artefacts from what was heard.

    Parameters
    ----------
    tr_s : float or None
        TR of the sequence, s.
    """
    cleaner = Cleaner(montage, tr_s)
    clock = SampleClock(montage.sfreq)
    pairs = zip(montage.channels, montage.kinds, strict=True)
    kinds = [kind_of(label, kind) for label, kind in pairs]
    lead = kinds.index("ecg") if "ecg" in kinds else None
    times: list[Values] = []
    pieces: list[Values] = []
    lost = 0
    # Whether the next part continues the last piece.
    goes_on = False
    for item in capture.items:
        if isinstance(item, Trigger):
            cleaner.trigger(clock.local(item.stamp, item.arrived_at))
            continue
        chunk = without_holes(item)
        for piece in clock.push(chunk.stamps, chunk.arrived_at):
            times.append(piece.times)
            lost += piece.lost
            for part in cleaner.push(chunk.data[:, piece.start : piece.stop], piece.times, piece.lost):
                if lead is not None:
                    goes_on = _continue(pieces, part, lead, goes_on)
    return Cleaned(
        np.concatenate(times) if times else np.zeros(0),
        lost,
        cleaner.rate,
        None if lead is None else pieces,
        cleaner.report()["gradient"],
        "reference" in kinds,
    )


def _continue(pieces: list[Values], part: Part, lead: int, goes_on: bool) -> bool:
    """Add a part's usable samples to the pieces; return whether the last of them is usable."""
    good = usable(part.quality)
    edges = [0, *(np.flatnonzero(np.diff(good)) + 1).tolist(), len(good)]
    for start, stop in pairwise(edges):
        values = part.data[lead, start:stop].astype(np.float64)
        if not good[start]:
            goes_on = False
        elif goes_on and not (part.hole and start == 0):
            pieces[-1] = np.concatenate([pieces[-1], values])
        else:
            pieces.append(values)
            goes_on = True
    return goes_on
