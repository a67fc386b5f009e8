"""One EEG stream, followed with the classes of a session: what `rtdecode eeg` has to say of it."""

from collections import deque
from typing import Any

import numpy as np

from rtdecode.bundle import EegInput
from rtdecode.eeg.stream import EegStream
from rtdecode.errors import GeometryError
from rtdecode.liblsl import pylsl
from rtdecode.signal.eeg.band import EegBand
from rtdecode.types import EegChunk, Float, Montage, Trigger
from streaming.sources.lsl.source import LslSource

KEYS = (
    "stream", "rate_hz", "lost_samples", "gaps", "jitter_ms", "drift_ppm", "triggers",
    "artifact_residual_db", "bad_channels", "age_ms",
)  # fmt: skip
_DIGITS = {"rate_hz": 4, "jitter_ms": 4, "drift_ppm": 2, "artifact_residual_db": 1, "age_ms": 1}
_KEEP_S = 10.0
# A stream that cannot be read is looked at again after this: its program may have been set right, s.
_RETRY_S = 5.0
# Span that the levels before and after the chain are taken over, s.
_LEVEL_S = 1.0


class Watch:
    """Reads one stream; nothing here waits for it.

    Parameters
    ----------
    name : str
        As for `streaming.sources.lsl.source.LslSource`.

    Attributes
    ----------
    name : str
    last_trigger : Trigger or None
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._source = LslSource(name)
        self._refused: str | None = None
        self._retry_at = 0.0
        self._stream: EegStream | None = None
        self._triggers: deque[float] = deque(maxlen=64)
        self._count = 0
        self._raw: deque[Float] = deque()
        self.last_trigger: Trigger | None = None

    @property
    def state(self) -> str:
        """What the source says of itself, or why the stream is not read."""
        return self._refused or self._source.state

    @property
    def montage(self) -> Montage | None:
        """Channels of the stream; None until it has been found and understood."""
        return None if self._stream is None or self.refused else self._stream.montage

    @property
    def refused(self) -> bool:
        """Whether the stream cannot be read as EEG."""
        return self._refused is not None

    def poll(self) -> None:
        """Take what has come in."""
        now = pylsl.local_clock()
        if self._refused is not None and now < self._retry_at:
            return
        try:
            for item in self._source.poll():
                self._take(item)
        except GeometryError as error:
            self._refused = str(error)
            self._retry_at = now + _RETRY_S
            self._source.close()
            self._source = LslSource(self.name)

    def close(self) -> None:
        """Stop reading."""
        self._source.close()

    def line(self, known: dict[str, Any] | None = None) -> dict[str, Any]:
        """What is known, by `KEYS`; what is not is None. From `details`, where they have been asked for."""
        found: dict[str, Any] = dict.fromkeys(KEYS)
        known = self.details() if known is None else known
        found |= {key: known[key] for key in KEYS if key in known}
        found |= {"stream": self.name, "age_ms": self.age_ms()}
        found["triggers"] = self._count if self._source.has_triggers or self._count else None
        for key, digits in _DIGITS.items():
            if found[key] is not None:
                found[key] = round(float(found[key]), digits)
        return found

    def details(self) -> dict[str, Any]:
        """Everything that the chain reports of itself."""
        return self._stream.report() if self._stream is not None else {}

    def age_ms(self) -> float | None:
        """Age of the newest sample, ms."""
        age_s = self._source.age_s(pylsl.local_clock())
        return None if age_s is None else 1e3 * age_s

    def levels_uv(self) -> tuple[float | None, float | None]:
        """Amplitude of the last second as it came and as a decoder gets it: median channel's rms, uV."""
        if self._stream is None or not self._raw:
            return None, None
        before = _level(np.concatenate(self._raw, axis=1))
        times = self._stream.newest - np.arange(_LEVEL_S, 0, -1 / min(self._stream.montage.sfreq, 250.0))
        after = self._stream.read(times)
        return before, None if after.values is None else _level(after.values[:, after.mask])

    def trigger_every_s(self) -> float | None:
        """Median distance of the last triggers, s."""
        return float(np.median(np.diff(self._triggers))) if len(self._triggers) > 2 else None

    def _take(self, item: EegChunk | Trigger) -> None:
        if isinstance(item, Trigger):
            self._count += 1
            self._triggers.append(item.stamp)
            self.last_trigger = item
            if self._stream is not None:
                self._stream.trigger(item.stamp, arrived_at=item.arrived_at)
            return
        self._refused = None
        montage = item.montage if self._stream is not None else self._source.montage
        if montage is not None:
            self._go_on(montage)
        if self._stream is not None:
            self._push(item, self._stream)

    def _go_on(self, montage: Montage) -> None:
        """Begin with a montage, or go on with it; other channels begin anew."""
        same = self._stream is not None and eeg_channels(montage) == eeg_channels(self._stream.montage)
        if self._stream is not None and same:
            self._stream.change(montage)
        else:
            self._stream = whole_stream(montage, _KEEP_S)
        self._raw.clear()

    def _push(self, chunk: EegChunk, stream: EegStream) -> None:
        stream.push(chunk)
        rows = [i for i, kind in enumerate(stream.montage.kinds) if kind == "eeg"]
        self._raw.append(chunk.data[rows])
        held = sum(part.shape[1] for part in self._raw)
        while held - self._raw[0].shape[1] >= _LEVEL_S * stream.montage.sfreq:
            held -= self._raw.popleft().shape[1]


def whole_stream(montage: Montage, keep_s: float, tr_s: float | None = None) -> EegStream:
    """Build the chain of a session for all EEG channels of a montage, in microvolts.

    Parameters
    ----------
    montage : Montage
    keep_s : float
        Seconds to remember.
    tr_s : float or None
        Repetition time, where it is known; the triggers tell it otherwise.
    """
    channels = eeg_channels(montage)
    stats = {
        "eeg_mean": np.zeros(len(channels), np.float32),
        "eeg_scale": np.ones(len(channels), np.float32),
    }
    band = EegBand(lowpass_hz=min(40.0, 0.4 * montage.sfreq), reference="average" if channels[1:] else "none")
    return EegStream(
        EegInput(channels, montage.reference, "microvolts", band), stats, montage, keep_s, tr_s=tr_s
    )


def eeg_channels(montage: Montage) -> list[str]:
    """Labels of the EEG channels alone."""
    return [label for label, kind in zip(montage.channels, montage.kinds, strict=True) if kind == "eeg"]


def _level(data: Float) -> float | None:
    """Median over the channels of the standard deviation, (channel, sample)."""
    return float(np.median(data.std(axis=1))) if data.shape[1] > 1 else None
