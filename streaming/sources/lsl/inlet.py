"""Read one LSL inlet: open it in a thread, pull its samples, and move their stamps to the local clock.

Stamps come in on the sender's clock. The library estimates the offset of that clock every few seconds; a
robust line through the estimates of the last minute (`ClockOffset`) corrects the stamps.
"""

import threading
from collections import deque

import numpy as np
from numpy.typing import NDArray

from rtdecode.clocks.lines import robust_line
from rtdecode.errors import GeometryError
from rtdecode.liblsl import LostError, LslTimeoutError, pylsl
from rtdecode.signal import plausible
from rtdecode.types import Array

DTYPES = {
    pylsl.cf_float32: np.float32,
    pylsl.cf_double64: np.float64,
    pylsl.cf_int64: np.int64,
    pylsl.cf_int32: np.int32,
    pylsl.cf_int16: np.int16,
    pylsl.cf_int8: np.int8,
}
# Samples and markers per pull; pulls are repeated until nothing is left.
PULL = 1024
_MARKS = 64
# Interval at which the offset is asked for, s. The library measures it every 2 s, and asking for the
# latest value costs nothing.
_CORRECT_EVERY = 1.0
# Time within which a stream that has been announced must answer, s.
_OPEN_S = 5.0
# The line rests on this many offsets: one every 2 s, so those of the last minute.
_REMEMBERED = 32
# An offset this far from the line is doubted, s.
_DOUBTFUL = 0.005
# Time for which samples are kept while nobody pulls, s, and samples of a fast stream that are kept at most,
# as the library makes room for all of them at once.
_BUFFERED_S = 360
_BUFFERED_MOST = 2_000_000
# The line is extended to stamps so far from its newest offset, s: a little more than an inlet buffers.
_REACH_S = 400.0
# What `robust_line` is told: the least noise of an offset, s, and the usual drift between two clocks.
_NOISE_FLOOR = 1e-4
_DRIFT = 1e-4


class ClockOffset:
    """Offset between a sender's clock and ours: a robust line through the last minute of estimates.

    An estimate far from the line counts only if the next one agrees with it. So a stall of the network is
    forgotten, while a sender's clock that was set anew begins a new line.
    """

    def __init__(self) -> None:
        self._seen: deque[tuple[float, float]] = deque(maxlen=_REMEMBERED)
        self._doubted: tuple[float, float] | None = None
        self._line = (0.0, 0.0, 0.0)

    def push(self, measured_at: float, offset: float) -> None:
        """Take an estimate.

        Parameters
        ----------
        measured_at : float
            When the library was asked; local clock, s.
        offset : float
            What to add to the sender's stamps, s.
        """
        if self._seen and offset == self._seen[-1][1]:
            return  # not measured again since
        if self._seen and abs(offset - self._at(measured_at)) > _DOUBTFUL:
            before = self._doubted
            self._doubted = (measured_at, offset)
            if before is None or abs(offset - before[1]) > _DOUBTFUL:
                return
            self._seen.clear()
            self._seen.append(before)
        self._doubted = None
        self._seen.append((measured_at, offset))
        ats, offsets = np.array(self._seen).T
        line = robust_line(ats - measured_at, offsets, 0.0, noise_floor=_NOISE_FLOOR, slope_spread=_DRIFT)
        self._line = (measured_at, line.offset, line.slope if len(ats) >= 4 else 0.0)

    def of(self, stamps: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return what to add to the sender's stamps, (sample,), s.

        One line serves for all of them, so that no step falls between two samples. It is never extended to
        stamps that have jumped, or that lie on another clock: they get the newest offset.
        """
        measured_at, offset, slope = self._line
        since = stamps + offset - measured_at
        return offset + slope * np.where(np.abs(since) <= _REACH_S, since, 0.0)

    def _at(self, local: float) -> float:
        measured_at, offset, slope = self._line
        return offset + slope * (local - measured_at)


class Inlet:
    """One inlet with its clock offset and its buffer.

    The inlet is lost when its sender goes. The library's own recovery is off, because it would join
    another outlet of the same source id without telling its channels or rate.

    Parameters
    ----------
    info : pylsl.StreamInfo
        The stream. Opening waits until it answers.

    Attributes
    ----------
    uid, name, host : str
        Those of the sender.
    info : pylsl.StreamInfo
        The stream's information with its description.
    offset : ClockOffset
        Offset of the sender's clock from ours.
    lost : bool
        Whether the sender has gone, so that no more will come.

    Raises
    ------
    GeometryError
        If it declares a size that no amplifier has. Then nothing is made for it.
    pylsl.util.TimeoutError, pylsl.util.LostError
        If the stream does not answer.
    """

    def __init__(self, info: pylsl.StreamInfo) -> None:
        self.uid = info.uid()
        self.name = info.name()
        self.host = info.hostname()
        rate = checked_rate(info)
        buffered_s = min(_BUFFERED_S, int(_BUFFERED_MOST / rate)) if rate else _BUFFERED_S
        self._inlet = pylsl.StreamInlet(info, max_buflen=buffered_s, recover=False)
        self._inlet.open_stream(timeout=_OPEN_S)
        self.info = self._inlet.info(timeout=_OPEN_S)
        self.offset = ClockOffset()
        self.lost = False
        dtype = DTYPES.get(info.channel_format())
        self._buffer = None if dtype is None else np.empty((PULL, info.channel_count()), dtype)
        self._corrected_at = pylsl.local_clock()
        self.offset.push(self._corrected_at, self._inlet.time_correction(timeout=_OPEN_S))

    def pull(self) -> tuple[Array, NDArray[np.float64]]:
        """Return up to `PULL` samples, (sample, channel), and their stamps on the local clock.

        Never waits. The samples lie in a buffer that the next pull overwrites.
        """
        assert self._buffer is not None
        stamps = []
        try:
            _, stamps = self._inlet.pull_chunk(timeout=0.0, max_samples=PULL, dest_obj=self._buffer)
            self._correct()
        except LostError:
            self.lost = True
        raw = np.asarray(stamps, np.float64)
        return self._buffer[: len(raw)], raw + self.offset.of(raw) if stamps else raw

    def pull_text(self) -> list[tuple[str, float, float]]:
        """Return the markers that are there: text, stamp on the local clock, time of arrival."""
        marks: list[tuple[str, float, float]] = []
        while True:
            samples = []
            stamps = []
            try:
                samples, stamps = self._inlet.pull_chunk(timeout=0.0, max_samples=_MARKS)
                self._correct()
            except LostError:
                self.lost = True
            if not stamps:
                return marks
            now = pylsl.local_clock()
            raw = np.asarray(stamps, np.float64)
            local = raw + self.offset.of(raw)
            marks += [(str(s[0]), float(stamp), now) for s, stamp in zip(samples or [], local, strict=True)]

    def _correct(self) -> None:
        now = pylsl.local_clock()
        if now - self._corrected_at < _CORRECT_EVERY:
            return
        self._corrected_at = now
        try:
            self.offset.push(now, self._inlet.time_correction(timeout=0.01))
        except LslTimeoutError:
            return  # no new estimate: the line continues as it is


def checked_rate(info: pylsl.StreamInfo) -> float:
    """Return the nominal rate of a stream, Hz, if an amplifier may have its rate and its channels.

    Raises
    ------
    GeometryError
    """
    fault = plausible.stream_size(info.nominal_srate(), info.channel_count())
    if fault is not None:
        raise GeometryError(
            "lsl-stream-implausible",
            "LSL stream '{stream}' of {host} is not read: {explanation}.",
            stream=info.name(),
            host=info.hostname(),
            explanation=fault,
        )
    return info.nominal_srate()


class Opening:
    """Open an inlet in a thread of its own, so that a sender that does not answer holds up nothing.

    Parameters
    ----------
    info : pylsl.StreamInfo
        The stream as the resolver returned it.

    Attributes
    ----------
    uid, name, host : str
        Those of the sender.
    refusal : GeometryError or None
        Why the stream is not opened, however often it is asked; None if nothing speaks against it.
    """

    def __init__(self, info: pylsl.StreamInfo) -> None:
        self.uid = info.uid()
        self.name = info.name()
        self.host = info.hostname()
        self.refusal: GeometryError | None = None
        self._inlet: Inlet | None = None
        self._thread = threading.Thread(target=self._open, args=(info,), daemon=True)
        self._thread.start()

    @property
    def done(self) -> bool:
        """Whether the inlet has been opened, or has failed to open."""
        return not self._thread.is_alive()

    @property
    def inlet(self) -> Inlet | None:
        """The inlet once `done`; None before, or if the stream did not answer."""
        return self._inlet if self.done else None

    def _open(self, info: pylsl.StreamInfo) -> None:
        try:
            self._inlet = Inlet(info)
        except GeometryError as error:
            self.refusal = error
        except (LslTimeoutError, LostError):
            self._inlet = None
