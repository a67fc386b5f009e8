"""EEG and volume triggers from Lab Streaming Layer."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from pylsl.util import LostError
from pylsl.util import TimeoutError as LslTimeoutError

from rtdecode import film_marks
from rtdecode.errors import GeometryError
from rtdecode.liblsl import pylsl
from rtdecode.types import Array, EegChunk, Float, Montage, Trigger

_MICROVOLTS = {
    "": 1.0, "microvolts": 1.0, "microvolt": 1.0, "uv": 1.0, "µv": 1.0, "μv": 1.0,
    "millivolts": 1e3, "millivolt": 1e3, "mv": 1e3, "volts": 1e6, "volt": 1e6, "v": 1e6,
}  # fmt: skip
_STIM = {"stim", "stimulus", "trigger", "trig", "marker", "markers", "ttl"}
_DTYPES = {
    pylsl.cf_float32: np.float32,
    pylsl.cf_double64: np.float64,
    pylsl.cf_int32: np.int32,
    pylsl.cf_int16: np.int16,
    pylsl.cf_int8: np.int8,
}
# Samples per pull; the pull is repeated until nothing is left.
_PULL = 1024
_CORRECT_EVERY = 5.0
# A marker stream of another name is taken only when the stream's own has not shown up by then (s).
_OWN_MARKERS_WITHIN = 3.0
# Silence after which a newly opened stream of the same name replaces the old one (s).
_SILENT = 2.0


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the channels of an LSL stream go.

    Attributes
    ----------
    montage : Montage
        The EEG channels, in the order they are handed on.
    columns : int64, (channel,)
        Their columns in the stream.
    scale : float32, (channel, 1)
        Microvolts per unit of the stream.
    stim : list of int
        Columns of stim channels.
    """

    montage: Montage
    columns: NDArray[np.int64]
    scale: Float
    stim: list[int] = field(default_factory=list)


def layout(info: pylsl.StreamInfo) -> Layout:
    """Find the EEG channels of a stream by label and type.

    Parameters
    ----------
    info : pylsl.StreamInfo
        With its description, as an inlet returns it.

    Raises
    ------
    GeometryError
        If the stream has no labelled EEG channel, no steady rate, or a unit that is no voltage.
    """
    labels, kinds, units = (_described(info, key) for key in ("label", "type", "unit"))
    kinds = [kind.lower() for kind in kinds]
    columns = [i for i, kind in enumerate(kinds) if kind in ("eeg", "") and labels[i]]
    if not columns or info.nominal_srate() <= 0:
        raise GeometryError(
            f"LSL stream '{info.name()}' has {info.channel_count()} channels, {len(columns)} of them EEG "
            f"with a label, at {info.nominal_srate():g} Hz; labels (desc/channels/channel/label) and a "
            "steady rate are needed. Switch the channel description on in the amplifier's LSL program."
        )
    scale = np.array([[_scale(info.name(), labels[i], units[i])] for i in columns], np.float32)
    reference = info.desc().child("reference").child_value("label") or "unknown"
    montage = Montage(tuple(labels[i] for i in columns), info.nominal_srate(), reference)
    stim = [i for i, kind in enumerate(kinds) if kind in _STIM]
    return Layout(montage, np.array(columns, np.int64), scale, stim)


class LslSource:
    """An EEG stream and its volume triggers, by name, else type, else source id.

    Nothing here waits for a stream: `poll` returns what there is, and a stream that is not there
    yet, or not there any more, is looked for again at each call.

    Parameters
    ----------
    name : str
        Name, type or source id of the EEG stream.

    Attributes
    ----------
    montage : Montage or None
        None until the stream has been found.
    data_at : float or None
        When samples last came in.
    state : str
        What was found, or what is seen instead.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._resolver = pylsl.ContinuousResolver(forget_after=5.0)
        self._eeg: Inlet | None = None
        self._layout: Layout | None = None
        self._markers: Inlet | None = None
        self._stim: Float | None = None
        self._opened_at = 0.0
        self._looked_at = -np.inf
        self.data_at: float | None = None
        self.state = "not looked for yet"

    @property
    def montage(self) -> Montage | None:
        """Channels of the stream, None until it has been found."""
        return None if self._layout is None else self._layout.montage

    @property
    def has_triggers(self) -> bool:
        """Whether a marker stream or a stim channel has been found."""
        return self._markers is not None or bool(self._layout and self._layout.stim)

    def poll(self) -> list[EegChunk | Trigger]:
        """Everything that has come in since the last call, markers first.

        Raises
        ------
        GeometryError
            If the stream found carries no usable EEG, or came back as another one.
        """
        now = pylsl.local_clock()
        if now - self._looked_at > (0.2 if self._eeg is None or self._markers is None else 1.0):
            self._looked_at = now
            self._look(now)
        items: list[EegChunk | Trigger] = []
        try:
            items += self._pull_markers()
            items += self._pull_eeg()
        except LostError:
            self._eeg = self._markers = None
            self.state = f"LSL stream '{self._name}' was closed; waiting for it to come back"
        return items

    def close(self) -> None:
        """Close the inlets."""
        self._eeg = self._markers = None

    def _look(self, now: float) -> None:
        streams = self._resolver.results()
        if self._eeg is None or self._silent(now):
            self._find_eeg(streams, now)
        if self._eeg is not None and (self._markers is None or not self._own(self._markers.name)):
            self._find_markers(streams, now)

    def _silent(self, now: float) -> bool:
        return now - max(self.data_at or 0.0, self._opened_at) > _SILENT

    def _find_eeg(self, streams: list[pylsl.StreamInfo], now: float) -> None:
        matches = select(streams, self._name)
        names = sorted({s.name() for s in matches})
        if self._eeg is not None:
            matches = [s for s in matches if s.uid() != self._eeg.uid]
        if len(names) > 1:
            self.state = f"{len(names)} LSL streams match '{self._name}': {', '.join(names)}; give one's name"
        elif matches:
            self._open(max(matches, key=lambda s: s.created_at()), now)
        elif self._eeg is None:
            self.state = f"no LSL stream with name, type or source id '{self._name}'; seen: {seen(streams)}"

    def _open(self, info: pylsl.StreamInfo, now: float) -> None:
        try:
            inlet = Inlet(info)
            found = layout(inlet.inlet.info(timeout=5.0))
        except (LslTimeoutError, LostError):
            self.state = f"LSL stream '{info.name()}' is announced by {info.hostname()} but does not answer"
            return
        self._check_same(found)
        self._eeg, self._layout, self._stim = inlet, found, None
        self._markers = None
        self._opened_at = now
        count = len(found.montage.channels)
        self.state = f"LSL stream '{info.name()}': {count} EEG channels at {found.montage.sfreq:g} Hz"

    def _check_same(self, found: Layout) -> None:
        if self._layout is not None and found.montage != self._layout.montage:
            old, new = self._layout.montage, found.montage
            raise GeometryError(
                f"LSL stream '{self._name}' came back with {len(new.channels)} channels at {new.sfreq:g} Hz, "
                f"the session began with {len(old.channels)} at {old.sfreq:g} Hz. Start a new session."
            )

    def _own(self, marker_name: str) -> bool:
        return self._eeg is not None and marker_name == f"{self._eeg.name}-markers"

    def _find_markers(self, streams: list[pylsl.StreamInfo], now: float) -> None:
        markers = [s for s in streams if s.type() == "Markers"]
        own = [s for s in markers if self._own(s.name())]
        if own:
            self._open_markers(max(own, key=lambda s: s.created_at()))
        elif self._markers is None and self._eeg is not None and now - self._opened_at > _OWN_MARKERS_WITHIN:
            taken = {f"{s.name()}-markers" for s in streams}
            near = [s for s in markers if s.hostname() == self._eeg.host and s.name() not in taken]
            near = [s for s in near if not s.name().endswith(film_marks.SUFFIX)]
            if near:
                self._open_markers(max(near, key=lambda s: s.created_at()))

    def _open_markers(self, info: pylsl.StreamInfo) -> None:
        try:
            self._markers = Inlet(info)
        except (LslTimeoutError, LostError):
            self._markers = None

    def _pull_markers(self) -> list[Trigger]:
        if self._markers is None:
            return []
        marks = [mark for mark in self._markers.pull_text() if not film_marks.is_film_mark(mark[0])]
        return [Trigger(stamp, label, at) for label, stamp, at in marks]

    def _pull_eeg(self) -> list[EegChunk | Trigger]:
        if self._eeg is None or self._layout is None:
            return []
        items: list[EegChunk | Trigger] = []
        while True:
            raw, stamps = self._eeg.pull()
            if len(stamps) == 0:
                return items
            now = self.data_at = pylsl.local_clock()
            items += self._stim_triggers(raw, stamps, now)
            data = raw[:, self._layout.columns].T.astype(np.float32) * self._layout.scale
            items.append(EegChunk(data, stamps, now))

    def _stim_triggers(self, raw: Array, stamps: NDArray[np.float64], now: float) -> list[Trigger]:
        assert self._layout is not None
        if not self._layout.stim:
            return []
        values = raw[:, self._layout.stim].astype(np.float32)
        before = values[:1] if self._stim is None else self._stim[None]
        past = np.concatenate([before, values[:-1]])
        self._stim = values[-1]
        rows, columns = np.nonzero((past == 0) & (values != 0))
        return [
            Trigger(float(stamps[r]), f"{values[r, c]:g}", now) for r, c in zip(rows, columns, strict=True)
        ]


def select(streams: Sequence[pylsl.StreamInfo], name: str) -> list[pylsl.StreamInfo]:
    """Streams called `name`; if there are none, of that type; if there are none, of that source id."""
    signals = [s for s in streams if s.channel_format() in _DTYPES]
    for key in (pylsl.StreamInfo.name, pylsl.StreamInfo.type, pylsl.StreamInfo.source_id):
        matches = [s for s in signals if key(s) == name]
        if matches:
            return matches
    return []


def seen(streams: Sequence[pylsl.StreamInfo]) -> str:
    """Name the streams on the network."""
    words = [f"{s.name()} ({s.type() or 'no type'}, {s.channel_count()} ch)" for s in streams]
    return ", ".join(sorted(words)[:8]) or "none"


class _ClockOffset:
    """Offset between a sender's clock and ours: a line through the last minute of estimates."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, float]] = deque(maxlen=12)

    def push(self, at: float, offset: float) -> None:
        self._seen.append((at, offset))

    def of(self, stamps: NDArray[np.float64]) -> NDArray[np.float64]:
        at, offset = np.array(self._seen).T
        if len(at) < 4:
            return np.full(stamps.shape, float(np.median(offset)))
        slope, level = np.polyfit(at - at[-1], offset, 1)
        return level + slope * (stamps + offset[-1] - at[-1])


class Inlet:
    """One inlet with its clock offset and its buffer.

    Parameters
    ----------
    info : pylsl.StreamInfo
        Of a stream that answers; opening waits up to 10 s for it.
    """

    def __init__(self, info: pylsl.StreamInfo) -> None:
        self.uid, self.name, self.host = info.uid(), info.name(), info.hostname()
        self.inlet = pylsl.StreamInlet(info, max_buflen=360, recover=True)
        self.inlet.open_stream(timeout=5.0)
        self._offset = _ClockOffset()
        self._corrected_at = -np.inf
        dtype = _DTYPES.get(info.channel_format())
        self._buffer = None if dtype is None else np.empty((_PULL, info.channel_count()), dtype)
        self._correct(timeout=5.0)

    def pull(self) -> tuple[Array, NDArray[np.float64]]:
        """Samples that are there, (sample, channel), with their stamps on the local clock."""
        assert self._buffer is not None
        _, stamps = self.inlet.pull_chunk(timeout=0.0, max_samples=_PULL, dest_obj=self._buffer)
        self._correct(timeout=0.5)
        raw = np.asarray(stamps, np.float64)
        return self._buffer[: len(raw)], raw + self._offset.of(raw)

    def pull_text(self) -> list[tuple[str, float, float]]:
        """Markers that are there: text, stamp on the local clock, time of arrival."""
        samples, stamps = self.inlet.pull_chunk(timeout=0.0, max_samples=64)
        self._correct(timeout=0.5)
        now = pylsl.local_clock()
        raw = np.asarray(stamps, np.float64)
        local = raw + self._offset.of(raw)
        return [(str(s[0]), float(at), now) for s, at in zip(samples or [], local, strict=True)]

    def _correct(self, timeout: float) -> None:
        now = pylsl.local_clock()
        if now - self._corrected_at < _CORRECT_EVERY:
            return
        self._corrected_at = now
        try:
            self._offset.push(now, self.inlet.time_correction(timeout=timeout))
        except LslTimeoutError:
            if np.isneginf(self._corrected_at):
                raise


def _described(info: pylsl.StreamInfo, key: str) -> list[str]:
    values: list[str] = []
    channel = info.desc().child("channels").child("channel")
    for _ in range(info.channel_count()):
        values.append(channel.child_value(key))
        channel = channel.next_sibling("channel")
    return values


def _scale(name: str, label: str, unit: str) -> float:
    scale = _MICROVOLTS.get(unit.strip().lower())
    if scale is None:
        raise GeometryError(
            f"channel {label} of LSL stream '{name}' is in '{unit}'; microvolts, millivolts and volts "
            "are read. Set the unit in the amplifier's LSL program."
        )
    return scale
