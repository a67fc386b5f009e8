"""Plan what goes wrong with the EEG on its way: lost samples, jumping stamps, restarts, clipped channels."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode.phantom.body.delivery_faults import Fault, absences
from rtdecode.phantom.body.in_scanner_eeg import RAIL_UV

_MOST_CLIPPED = 4  # channels that one clip drives to the rail
# Maps a span of run time (start, stop) to its first sample and how many it has.
Span = Callable[[float, float], tuple[int, int]]


def jumps(faults: tuple[Fault, ...]) -> list[tuple[float, float]]:
    """Return from which run times on stamps jump, and by how much: forwards, then back, and so on."""
    eeg_jumps = [fault for fault in faults if fault.kind == "eeg-jump"]
    return [(fault.start_s, fault.duration_s * (-1) ** i) for i, fault in enumerate(eeg_jumps)]


def stamp_shift(faults: tuple[Fault, ...], seconds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return by how much the stamp of each run time (sample,) is wrong, s."""
    out = np.zeros(len(seconds))
    for start, jump in jumps(faults):
        out[seconds >= start] += jump
    return out


def restarts(faults: tuple[Fault, ...]) -> list[tuple[float, float, bool]]:
    """Return when the outlet is away: start, stop, and whether it comes back under the same source id.

    The first comes back as it was, the next as another, and so on.
    """
    away = absences(faults, "eeg-restart")
    return [(start, stop, i % 2 == 0) for i, (start, stop, _) in enumerate(away)]


def clips(
    faults: tuple[Fault, ...], channels: int, seed: int
) -> list[tuple[Fault, NDArray[np.int64], float]]:
    """Return each clip with the channels that it drives to the rail, and which rail, microvolts."""
    clipped = []
    for i, fault in enumerate(fault for fault in faults if fault.kind == "eeg-clip"):
        rng = np.random.default_rng((seed, 43, i))
        hit = np.sort(rng.permutation(channels)[: rng.integers(1, _MOST_CLIPPED + 1)])
        clipped.append((fault, hit, float(rng.choice(RAIL_UV))))
    return clipped


def clip(
    data: NDArray[np.float32],
    seconds: NDArray[np.float64],
    hit: list[tuple[Fault, NDArray[np.int64], float]],
) -> None:
    """Apply the clips that `clips` found to samples (channel, sample) of these run times, in place."""
    for fault, channels, rail in hit:
        first, last = np.searchsorted(seconds, (fault.start_s, fault.start_s + fault.duration_s))
        data[channels, first:last] = rail


def eeg_lines(
    faults: tuple[Fault, ...], channels: Sequence[str], seed: int, span: Span
) -> list[tuple[str, float, dict[str, Any]]]:
    """Return what is logged of the EEG, in order: kind, run time, detail.

    Parameters
    ----------
    faults : tuple of Fault
        All faults of the session.
    channels : sequence of str
        Their labels.
    seed : int
        The session's seed.
    span : callable
        Maps a span of run time to the number of its first sample, and how many there are.

    Returns
    -------
    list of (str, float, dict)
        ``first_sample`` and ``samples`` count from the amplifier's first sample; a sample that is lost
        twice counts for the earlier fault.
    """
    lines = _losses(faults, span)
    for start, jump in jumps(faults):
        lines.append(
            ("eeg-jump", start, {"jump_s": jump, "first_sample": span(start, np.inf)[0], "samples": 0})
        )
    for fault, hit, rail in clips(faults, len(channels), seed):
        first, count = span(fault.start_s, fault.start_s + fault.duration_s)
        detail = {"duration_s": fault.duration_s, "first_sample": first, "samples": count}
        lines.append(
            (fault.kind, fault.start_s, detail | {"channels": [channels[i] for i in hit], "rail_uv": rail})
        )
    return sorted(lines, key=lambda line: line[1])


def _losses(faults: tuple[Fault, ...], span: Span) -> list[tuple[str, float, dict[str, Any]]]:
    drops = [(f.start_s, f.start_s + f.duration_s, None) for f in faults if f.kind == "eeg-drop"]
    lines: list[tuple[str, float, dict[str, Any]]] = []
    done = 0
    for start, stop, same in sorted([*drops, *restarts(faults)], key=lambda loss: loss[:2]):
        first, count = span(start, stop)
        last = first + count
        first = max(first, done)
        done = max(done, last)
        detail = {
            "duration_s": round(stop - start, 6),
            "first_sample": first,
            "samples": max(last - first, 0),
        }
        if same is None:
            lines.append(("eeg-drop", start, detail))
        else:
            lines.append(("eeg-restart", start, detail | {"source_id": "same" if same else "another"}))
    return lines
