"""Follow one EEG stream with the classes of a session, for `rtdecode eeg` to show.

A `Watch` polls the stream's samples and triggers, sends them through the chain that a session uses, and
reports rate, losses, jitter, artefacts, bad channels and levels.
"""

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
# How much of the signal the chain keeps, s.
_KEEP_S = 10.0
# An unreadable stream is tried again after this time, s: its program may be set right by then.
_RETRY_S = 5.0
# Span that the levels before and after the chain are taken over, s.
_LEVEL_S = 1.0


class Watch:
    """Follow one stream without ever waiting for it.

    Parameters
    ----------
    name : str
        Name, type or source id of the stream, as for `streaming.sources.lsl.source.LslSource`.

    Attributes
    ----------
    last_trigger : Trigger or None
        The newest trigger.
    last_note : str
        What the source said last: which stream it is, where its stamps lie, which triggers are read.
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
        self.last_note = ""
        self._notes: list[str] = []

    @property
    def state(self) -> str:
        """What the source says about itself, or why the stream is not read."""
        return self._refused or self._source.state

    @property
    def montage(self) -> Montage | None:
        """Channels of the stream; None until it has been found and understood."""
        return None if self._stream is None or self.refused else self._stream.montage

    @property
    def ambiguous(self) -> bool:
        """Whether several streams have the name, so that none is read."""
        return self._source.ambiguous

    @property
    def refused(self) -> bool:
        """Whether the stream cannot be read as EEG."""
        return self._refused is not None

    def poll(self) -> None:
        """Take what has arrived."""
        now = pylsl.local_clock()
        if self._refused is not None and now < self._retry_at:
            return
        try:
            for item in self._source.poll():
                self._take(item)
            self._notes += self._source.notes()
            self.last_note = self._notes[-1] if self._notes else self.last_note
        except GeometryError as error:
            self._refused = str(error)
            self._retry_at = now + _RETRY_S
            # A new source looks at the stream's description again.
            self._source.close()
            self._source = LslSource(self.name)

    def notes(self) -> list[str]:
        """Return what the source has said since the last call."""
        notes = self._notes
        self._notes = []
        return notes

    def close(self) -> None:
        """Stop reading."""
        self._source.close()

    def line(self, details: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return a value for each of `KEYS`, None where it is not known.

        Parameters
        ----------
        details : dict, optional
            What `details` returned, if the caller has asked for it already.
        """
        values: dict[str, Any] = dict.fromkeys(KEYS)
        details = self.details() if details is None else details
        values |= {key: details[key] for key in KEYS if key in details}
        # By samples that are placed by their arrival no age can be told.
        age_ms = None if self._source.placed_by_arrival else self.age_ms()
        values.update(stream=self.name, age_ms=age_ms)
        values["triggers"] = self._count if self._source.has_triggers or self._count else None
        for key, digits in _DIGITS.items():
            if values[key] is not None:
                values[key] = round(float(values[key]), digits)
        return values

    def details(self) -> dict[str, Any]:
        """Return everything that the chain reports about itself."""
        return self._stream.report() if self._stream is not None else {}

    def age_ms(self) -> float | None:
        """Return the age of the newest sample, ms."""
        now = pylsl.local_clock()
        if self._stream is not None and np.isfinite(self._stream.received):
            # Its stamp may have jumped, which the chain knows.
            return 1e3 * (now - self._stream.received)
        age_s = self._source.age_s(now)
        return None if age_s is None else 1e3 * age_s

    def levels_uv(self) -> tuple[float | None, float | None]:
        """Compute the level of the last second, as it came and as a decoder gets it.

        Returns
        -------
        before, after : float or None
            Median over the channels of the standard deviation, microvolts.
        """
        if self._stream is None or not self._raw:
            return None, None
        before = _level(np.concatenate(self._raw, axis=1))
        # No more than 250 samples a second: the chain's band ends at 40 Hz.
        times = self._stream.newest - np.arange(_LEVEL_S, 0, -1 / min(self._stream.montage.sfreq, 250.0))
        after = self._stream.read(times)
        return before, None if after.values is None else _level(after.values[:, after.mask])

    def trigger_every_s(self) -> float | None:
        """Return the median interval between the last triggers, s; None for fewer than three."""
        return float(np.median(np.diff(self._triggers))) if len(self._triggers) > 2 else None

    def _take(self, item: EegChunk | Trigger) -> None:
        if isinstance(item, Trigger):
            self._count += 1
            self._triggers.append(item.stamp)
            self.last_trigger = item
            if self._stream is not None:
                self._stream.trigger(item.stamp, arrived_at=item.arrived_at)
            return
        # Samples came, so the stream is readable after all.
        self._refused = None
        montage = item.montage if self._stream is not None else self._source.montage
        if montage is not None:
            self._go_on(montage)
        if self._stream is not None:
            self._push(item, self._stream)

    def _go_on(self, montage: Montage) -> None:
        """Begin with a montage, or go on with it; a montage with other channels begins a new chain."""
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
        # Drop the oldest chunks as long as those left still hold the span of the level.
        sample_count = sum(part.shape[1] for part in self._raw)
        while sample_count - self._raw[0].shape[1] >= _LEVEL_S * stream.montage.sfreq:
            sample_count -= self._raw.popleft().shape[1]


def whole_stream(montage: Montage, keep_s: float, tr_s: float | None = None) -> EegStream:
    """Build the chain of a session for all EEG channels of a montage, in microvolts.

    Parameters
    ----------
    keep_s : float
        How much of the signal to keep, s.
    tr_s : float or None
        The TR, if it is known; otherwise it is found from the triggers.
    """
    channels = eeg_channels(montage)
    stats = {
        "eeg_mean": np.zeros(len(channels), np.float32),
        "eeg_scale": np.ones(len(channels), np.float32),
    }
    # The band ends below half the rate of a slow stream. A single channel has no average
    # reference: taken off itself, nothing would be left.
    band = EegBand(lowpass_hz=min(40.0, 0.4 * montage.sfreq), reference="average" if channels[1:] else "none")
    return EegStream(
        EegInput(channels, montage.reference, "microvolts", band), stats, montage, keep_s, tr_s=tr_s
    )


def eeg_channels(montage: Montage) -> list[str]:
    """Return the labels of the EEG channels, without channels of other kinds."""
    return [label for label, kind in zip(montage.channels, montage.kinds, strict=True) if kind == "eeg"]


def _level(data: Float) -> float | None:
    """Return the median over channels of the standard deviation of (channel, sample)."""
    return float(np.median(data.std(axis=1))) if data.shape[1] > 1 else None
