"""Deliver EEG and volume triggers from the Lab Streaming Layer (LSL).

Each poll looks for streams that are missing, takes the inlets that threads have opened meanwhile, and
returns the markers and samples that came in. A stream is found by name, type or source id; the marker
stream that belongs to it by its name or, after a while, by its host.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from rtdecode import liblsl
from rtdecode.disk import film_marks
from rtdecode.errors import GeometryError
from rtdecode.liblsl import pylsl
from rtdecode.types import EegChunk, Montage, Trigger
from streaming import client
from streaming.sources.lsl import impedance
from streaming.sources.lsl.inlet import DTYPES, Inlet, Opening
from streaming.sources.lsl.layout import layout
from streaming.sources.lsl.pulses import Triggers
from streaming.sources.lsl.reader import EegReader

# Interval at which the network is searched while a stream is missing, and while none is, s.
_LOOK_EVERY = 0.1
_LOOK_IDLY = 1.0
# A marker stream of another name is taken only if the stream's own has not shown up by then, s.
_OWN_MARKERS_WITHIN = 3.0
# After this much silence another stream of the same name may replace the open one, s.
_SILENT = 2.0
# Time after which a stream that did not answer is tried again, s.
_RETRY = 0.5
# If two polls lie further apart than this, samples have piled up between them, s.
_HELD_UP = 0.1


class LslSource:
    """An EEG stream and its volume triggers, found by name, else type, else source id.

    Nothing here waits for a stream: `poll` returns what there is, and keeps looking for a stream that is
    not there yet or has gone. A stream that comes back with its channels in another order continues in
    the order of the first one. If it has another rate or other channels, the `montage` of its first chunk
    says so, or the stream is refused.

    Parameters
    ----------
    name : str
        Name, type or source id of the EEG stream.
    peers : sequence of str
        Hosts to ask directly because discovery does not reach them (`rtdecode.liblsl.reach`).
    accept : callable or None
        Maps the montage of a stream that came back changed to the reason why it cannot be used, or None.

    Attributes
    ----------
    data_at : float or None
        When samples last came in.
    newest_at : float or None
        Stamp of the newest sample, on the local clock.
    reopened : int
        Number of times the stream came back.
    """

    def __init__(
        self,
        name: str,
        peers: Sequence[str] = (),
        accept: Callable[[Montage], str | None] | None = None,
    ) -> None:
        if peers:
            liblsl.reach(peers)
        self._name = name
        self._accept = accept
        self._resolver = pylsl.ContinuousResolver(forget_after=5.0)
        self._eeg: EegReader | None = None
        self._opening: Opening | None = None
        self._markers: Inlet | None = None
        self._opening_markers: Opening | None = None
        self._triggers = Triggers()
        self._notes: deque[str] = deque(maxlen=64)
        self._unit_note = ""
        self._first: Montage | None = None
        self._montage: Montage | None = None
        self._changed: Montage | None = None
        self._retry_at: dict[str, float] = {}
        self._opened_at = 0.0
        self._looked_at = -np.inf
        self._polled_at = pylsl.local_clock()
        self._state = "not looked for yet"
        self.data_at: float | None = None
        self.newest_at: float | None = None
        self.reopened = 0

    @property
    def state(self) -> str:
        """What was found, or what is there instead."""
        note = self._note()
        return f"{self._state}; {note}" if note else self._state

    @property
    def montage(self) -> Montage | None:
        """Channels that are handed on; None until the stream has been found."""
        return self._montage

    @property
    def has_triggers(self) -> bool:
        """Whether a marker stream or a stim channel has been found."""
        return self._markers is not None or bool(self._eeg and self._eeg.layout.stim)

    @property
    def host(self) -> str:
        """Name of the computer that sends the stream; empty without one."""
        return "" if self._eeg is None else self._eeg.inlet.host

    def impedances(self) -> dict[str, float]:
        """Return the impedances that the stream's description states, kilohms, by channel."""
        return {} if self._eeg is None else impedance.stated(self._eeg.inlet.info)

    def notes(self) -> list[str]:
        """Return in sentences what happened to the stream since the last call; safe from any thread."""
        unit = self._note()
        fresh = [self._notes.popleft() for _ in range(len(self._notes))]
        fresh += [unit] if unit and unit != self._unit_note else []
        self._unit_note = unit
        return fresh

    def _note(self) -> str:
        eeg = self._eeg  # read once: the polling thread may close the stream meanwhile
        return eeg.note if eeg is not None else ""

    def age_s(self, now_at: float) -> float | None:
        """Return the age of the newest sample, s; None before the first."""
        return None if self.newest_at is None else now_at - self.newest_at

    def poll(self) -> list[EegChunk | Trigger]:
        """Return everything that came in since the last call, triggers first.

        Raises
        ------
        GeometryError
            If the first stream found carries no usable EEG.
        """
        now = pylsl.local_clock()
        missing = self._eeg is None or self._markers is None
        if now - self._looked_at > (_LOOK_EVERY if missing else _LOOK_IDLY):
            self._looked_at = now
            self._look(now)
        self._opened(now)
        items = [*self._pull_markers(), *self._pull_eeg()]
        self._polled_at = pylsl.local_clock()
        return items

    def close(self) -> None:
        """Close the inlets."""
        self._eeg = self._markers = self._opening = self._opening_markers = None

    def _look(self, now: float) -> None:
        streams = self._resolver.results()
        if self._eeg is None or self._silent(now):
            self._find_eeg(streams, now)
        # A borrowed marker stream is given up for the stream's own. Just after the EEG was opened, its
        # own is sought again too, as it may have been restarted together with the EEG.
        sought = self._markers is None or not self._own(self._markers.name)
        sought = sought or now - self._opened_at < _OWN_MARKERS_WITHIN
        if self._eeg is not None and sought and self._opening_markers is None:
            self._find_markers(streams, now)

    def _silent(self, now: float) -> bool:
        return now - max(self.data_at or 0.0, self._opened_at) > _SILENT

    def _find_eeg(self, streams: list[pylsl.StreamInfo], now: float) -> None:
        matches = select(streams, self._name)
        names = sorted({s.name() for s in matches})
        if self._eeg is not None:
            matches = [s for s in matches if s.uid() != self._eeg.inlet.uid]
        ready = [s for s in matches if self._retry_at.get(s.uid(), 0.0) <= now]
        if len(names) > 1:
            self._state = (
                f"{len(names)} LSL streams match '{self._name}': {', '.join(names)}; give the name of one"
            )
        elif ready:
            # Streams that were lost or did not answer come after those that have not been tried.
            best = max(ready, key=lambda s: (s.uid() not in self._retry_at, s.created_at()))
            # An opening under way is abandoned only for a stream that has not been tried.
            if self._opening is None or (
                best.uid() != self._opening.uid and best.uid() not in self._retry_at
            ):
                self._opening = Opening(best)
        elif self._eeg is None and not matches:
            wanted = f"no LSL stream with name, type or source id '{self._name}'"
            self._state = f"{wanted}; seen: {seen(streams)}"

    def _opened(self, now: float) -> None:
        """Take over the inlets that have been opened meanwhile."""
        markers = self._opening_markers
        opening = self._opening
        if markers is not None and markers.done:
            self._markers = markers.inlet or self._markers
            self._opening_markers = None
        if opening is None or not opening.done:
            return
        self._opening = None
        if opening.inlet is not None:
            self._take(opening.inlet, now)
            return
        self._retry_at[opening.uid] = now + _RETRY
        self._state = f"LSL stream '{opening.name}' is announced by {opening.host} but does not answer"

    def _take(self, inlet: Inlet, now: float) -> None:
        """Continue with an opened stream if its channels fit."""
        old = self._montage
        if self._eeg is not None and not self._silent(now):
            return  # the old stream sends again
        try:
            found = layout(inlet.info)
        except GeometryError as error:
            # The first stream decides whether a session can begin; later ones may not end it.
            if old is None:
                raise
            self._refuse(inlet, str(error))
            return
        found = found.ordered_as(self._first) if self._first is not None else found
        same = old is not None and (old.channels, old.sfreq) == (found.montage.channels, found.montage.sfreq)
        reason = self._accept(found.montage) if old is not None and not same and self._accept else None
        if reason is not None:
            self._refuse(inlet, reason)
            return
        self._eeg = EegReader(inlet, found)
        self._opened_at = now
        self._retry_at.clear()
        self.reopened += old is not None
        count = found.montage.kinds.count("eeg")
        channels = f"{count} EEG channels at {found.montage.sfreq:g} Hz"
        self._state = f"LSL stream '{inlet.name}': {channels}"
        if old is not None:
            self._notes.append(
                f"LSL stream '{inlet.name}' is back ({channels}); its samples count once the filters "
                "have settled"
            )
        # A change stays to be told until a chunk bears it, although the stream may be lost before.
        if old is not None and not same:
            self._changed = found.montage
        self._montage = found.montage
        self._first = self._first or found.montage

    def _refuse(self, inlet: Inlet, reason: str) -> None:
        # Never tried again: a sender that is set up anew announces itself under another uid.
        self._retry_at[inlet.uid] = np.inf
        self._state = f"LSL stream '{inlet.name}' came back, but not as it was: {reason}"
        self._notes.append(self._state)

    def _own(self, marker_name: str) -> bool:
        return self._eeg is not None and marker_name == f"{self._eeg.inlet.name}-markers"

    def _find_markers(self, streams: list[pylsl.StreamInfo], now: float) -> None:
        assert self._eeg is not None
        present = self._markers.uid if self._markers is not None else None
        markers = [s for s in streams if s.type() == "Markers" and self._retry_at.get(s.uid(), 0.0) <= now]
        markers = [s for s in markers if s.uid() != present]
        found = [s for s in markers if self._own(s.name())]
        if not found and self._markers is None and now - self._opened_at > _OWN_MARKERS_WITHIN:
            # Fall back to markers of the same host that belong neither to another stream nor to a film,
            # and that are not the clips of a session.
            taken = {f"{s.name()}-markers" for s in streams}
            near = [s for s in markers if s.hostname() == self._eeg.inlet.host and s.name() not in taken]
            near = [s for s in near if not s.source_id().startswith(client.SOURCE)]
            found = [s for s in near if not s.name().endswith(film_marks.SUFFIX)]
        if found:
            # Discovery still lists a stream for 5 s after it has gone, beside its successor.
            newest = max(found, key=lambda s: s.created_at())
            self._retry_at[newest.uid()] = now + _RETRY
            self._opening_markers = Opening(newest)

    def _pull_markers(self) -> list[Trigger]:
        if self._markers is None:
            return []
        # The marks of a film that is being shown are never volume triggers.
        marks = [mark for mark in self._markers.pull_text() if not film_marks.is_film_mark(mark[0])]
        if self._markers.lost:
            self._markers = None
        return self._triggers.once("markers", [Trigger(stamp, label, at) for label, stamp, at in marks])

    def _pull_eeg(self) -> list[EegChunk | Trigger]:
        if self._eeg is None:
            return []
        chunks, triggers = self._eeg.pull()
        now = pylsl.local_clock()
        if now - self._polled_at > _HELD_UP:
            chunks = self._dated(chunks, self._eeg.layout.montage.sfreq, now)
        if chunks:
            chunks[0] = replace(chunks[0], montage=self._changed)
            self._changed = None
            self.data_at = chunks[-1].arrived_at
            self.newest_at = float(chunks[-1].stamps[-1])
        if self._eeg.inlet.lost:
            self._retry_at[self._eeg.inlet.uid] = now
            self._eeg = None
            self._state = f"LSL stream '{self._name}' was closed; waiting for it to come back"
            self._notes.append(
                f"{self._state}. Start it again at the amplifier; the session goes on meanwhile"
            )
        return [*self._triggers.once("stim", triggers), *chunks]

    def _dated(self, chunks: list[EegChunk], sfreq: float, now: float) -> list[EegChunk]:
        """Date chunks that piled up by when they could have been read, not by when they were.

        Counted back from now by their lengths, but not to before the last poll, which had emptied the inlet.
        """
        waited = 0.0
        out = list[EegChunk]()
        for chunk in reversed(chunks):
            out.append(replace(chunk, arrived_at=max(self._polled_at, now - waited)))
            waited += chunk.data.shape[1] / sfreq
        return out[::-1]


def select(streams: Sequence[pylsl.StreamInfo], name: str) -> list[pylsl.StreamInfo]:
    """Return the streams called `name`, else those of that type, else those of that source id."""
    signals = [s for s in streams if s.channel_format() in DTYPES]
    for key in (pylsl.StreamInfo.name, pylsl.StreamInfo.type, pylsl.StreamInfo.source_id):
        matches = [s for s in signals if key(s) == name]
        if matches:
            return matches
    return []


def seen(streams: Sequence[pylsl.StreamInfo]) -> str:
    """Name the streams on the network, at most eight of them."""
    words = [f"{s.name()} ({s.type() or 'no type'}, {s.channel_count()} ch)" for s in streams]
    return ", ".join(sorted(words)[:8]) or "none"
