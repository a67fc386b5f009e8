"""Time EEG inside a scanner from chunk to ring: a stage of ``rtdecode bench``.

`bore` simulates 64 channels at 5 kHz with gradient artefacts. `eeg_push` sends them, in chunks of 20 ms,
through a session's chain with every cleaning step on.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from rtdecode.eeg.stream import EegStream
from rtdecode.phantom.body.amplifier import LEAD_IN_S
from rtdecode.phantom.body.brain import TR
from rtdecode.phantom.body.in_scanner_eeg import Artifacts
from rtdecode.phantom.session import MARKER, PhantomSession
from rtdecode.types import EegChunk, Float, Montage, Trigger
from streaming.tools.eeg_watch import whole_stream

SFREQ = 5000
CHUNK_S = 0.02
# Stream time before the first push that counts, s: by then templates and filters have settled.
SETTLED_S = 40.0
# At this drift, the time that repeats has a whole number of samples and of TRs.
DRIFT_PPM = 20.0
REPEATED_S = 40
# The same two for a quick benchmark.
_QUICK_SETTLED_S = 19.0
_QUICK_REPEATED_S = 8
# Local time of the first sample, s.
_START_AT = 10_000.0
# Delay of a chunk's arrival after its last stamp, and mean jitter of its stamps, s.
_DELAY_S = 0.002
_JITTER_S = 1e-4
# How much of the signal the chain keeps, s.
_KEEP_S = 40.0


@dataclass(frozen=True, slots=True)
class Bore:
    """Endless EEG inside a running scanner, of which the last part repeats.

    Attributes
    ----------
    montage : Montage
        63 EEG channels and an ECG at 5 kHz.
    data : float32, (channel, sample)
        The signal, from before the scanner starts.
    repeats_from : int
        Index of the sample that follows the last one.
    rate : float
        Rate of the amplifier by the scanner's clock, Hz.
    """

    montage: Montage
    data: Float
    repeats_from: int
    rate: float

    def stream(self, seconds: float, seed: int = 0) -> Iterator[EegChunk | Trigger]:
        """Yield chunks and volume triggers for some seconds, in order of arrival."""
        rng = np.random.default_rng(seed)
        size = round(CHUNK_S * SFREQ)
        trigger = 0
        for first in range(0, int(seconds * SFREQ), size):
            stamps = _START_AT + np.arange(first, first + size) / self.rate + rng.exponential(_JITTER_S)
            arrived_at = float(stamps[-1]) + _DELAY_S
            yield EegChunk(self._samples(first, size), stamps, arrived_at)
            while _START_AT + LEAD_IN_S + trigger * TR <= stamps[-1]:
                yield Trigger(_START_AT + LEAD_IN_S + trigger * float(TR), MARKER, arrived_at)
                trigger += 1

    def _samples(self, first: int, count: int) -> Float:
        index = np.arange(first, first + count)
        total = self.data.shape[1]
        again = self.repeats_from + (index - total) % (total - self.repeats_from)
        return self.data[:, np.where(index < total, index, again)]


def bore(repeated_s: int = REPEATED_S) -> Bore:
    """Simulate the EEG inside a scanner, which takes some 20 s.

    Parameters
    ----------
    repeated_s : int
        Time inside the running scanner, s. It repeats without a jump only if it is `REPEATED_S`.
    """
    artifacts = Artifacts(drift_ppm=DRIFT_PPM)
    session = PhantomSession("easy", seconds=float(repeated_s), sfreq=SFREQ, artifacts=artifacts)
    repeated = round(repeated_s * session.rate)
    start = round((LEAD_IN_S + 4) * session.rate)
    blocks = []
    have = 0
    for block in session.eeg_blocks():
        blocks.append(block)
        have += block.shape[1]
        if have >= start + repeated:
            break
    return Bore(session.montage, np.concatenate(blocks, axis=1)[:, : start + repeated], start, session.rate)


def scanner_chain(repeated_s: int = REPEATED_S) -> tuple[Bore, EegStream]:
    """Make the EEG inside a scanner, and a chain that takes it with every cleaning step on."""
    source = bore(repeated_s)
    return source, whole_stream(source.montage, _KEEP_S, float(TR))


def eeg_push(samples: int, *, quick: bool = False) -> list[float]:
    """Time chunks of 20 ms (64 channels at 5 kHz, gradients on) until they are clean and in the ring.

    Parameters
    ----------
    samples : int
        Number of pushes that count, after 40 s of stream.
    quick : bool
        Count after 19 s of stream, nine of them with the scanner running. At most 100 pushes are then
        possible before the signal repeats.

    Returns
    -------
    list of float
        Time of each push, ms.
    """
    settled_s = _QUICK_SETTLED_S if quick else SETTLED_S
    source, stream = scanner_chain(_QUICK_REPEATED_S if quick else REPEATED_S)
    times_ms: list[float] = []
    for item in source.stream(settled_s + (samples + 1) * CHUNK_S):
        start = time.perf_counter()
        take(stream, item)
        if isinstance(item, EegChunk):
            times_ms.append(1e3 * (time.perf_counter() - start))
    return times_ms[-samples:]


def take(stream: EegStream, item: EegChunk | Trigger) -> None:
    """Hand a chunk or a volume trigger to the chain."""
    if isinstance(item, EegChunk):
        stream.push(item)
    else:
        stream.trigger(item.stamp, arrived_at=item.arrived_at)
