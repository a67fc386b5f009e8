"""Deliver EEG and volume triggers from the Lab Streaming Layer (LSL).

Each poll looks for streams that are missing, takes the inlets that threads have opened meanwhile, and
returns the markers and samples that came in. A stream is found by name, type or source id, and from then on
the source stays with it (`streaming.sources.lsl.opened`); the marker stream that belongs to it is found by
its name or, after a while, by its host.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from rtdecode import liblsl
from rtdecode.clocks.placement import MarkerPlacement
from rtdecode.errors import GeometryError
from rtdecode.liblsl import pylsl
from rtdecode.types import EegChunk, Montage, Trigger
from streaming.sources.lsl import impedance
from streaming.sources.lsl.inlet import DTYPES, Inlet, Opening
from streaming.sources.lsl.layout import layout
from streaming.sources.lsl.opened import OpenedStream, describe
from streaming.sources.lsl.reader import EegReader
from streaming.sources.lsl.stim_channel import Triggers
from streaming.sources.lsl.trigger_streams import TriggerStreams

# Interval at which the network is searched while a stream is missing, and while none is, s.
_LOOK_EVERY = 0.1
_LOOK_IDLY = 1.0
# After this much silence the stream may be opened anew, s: its program may have been started again.
_SILENT = 2.0
# The first stream is opened once it has been the only one that fits for so long, s: streams of several
# computers do not become known at the same instant.
_ALONE_S = 0.5
# Time after which a stream that did not answer is tried again, s.
_RETRY = 0.5
# If two polls lie further apart than this, samples have piled up between them, s.
_HELD_UP = 0.1
# By what a stream is found, in this order.
_KEYS = {
    "name": pylsl.StreamInfo.name,
    "type": pylsl.StreamInfo.type,
    "source id": pylsl.StreamInfo.source_id,
}


class LslSource:
    """An EEG stream and its volume triggers, found by name, else type, else source id.

    Nothing here waits for a stream: `poll` returns what there is, and keeps looking for a stream that is
    not there yet or has gone. If several streams fit at first, none is opened. Once one has been opened, no
    other is read in its place: what comes back has to be that stream (`OpenedStream`). A stream that comes
    back with its channels in another order continues in the order of the first one. If it has another rate or
    other channels, the `montage` of its first chunk says so, or the stream is refused.

    Parameters
    ----------
    name : str
        Name, type or source id of the EEG stream.
    peers : sequence of str
        Hosts to ask directly because discovery does not reach them (`rtdecode.liblsl.reach`).
    accept : callable or None
        Maps the montage of a stream that came back changed to the reason why it cannot be used, or None.
    opened : OpenedStream or None
        The stream that an earlier process of the session had opened.
    markers : str or None
        Name of the marker stream that brings the triggers; None chooses one (`TriggerStreams`).

    Attributes
    ----------
    opened : OpenedStream or None
        The stream that the source stays with; None before it has been found.
    ambiguous : bool
        Whether no stream was opened because several fit.
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
        *,
        opened: OpenedStream | None = None,
        markers: str | None = None,
    ) -> None:
        if peers:
            liblsl.reach(peers)
        self._name = name
        self._accept = accept
        self._resolver = pylsl.ContinuousResolver(forget_after=5.0)
        self._eeg: EegReader | None = None
        self._opening: Opening | None = None
        self._markers = TriggerStreams(markers)
        self._unplaced: deque[Trigger] = deque()
        self._triggers = Triggers()
        self._notes: deque[str] = deque(maxlen=64)
        self._unit_note = ""
        self.opened = opened
        self._taken_over = opened is not None
        self.ambiguous = False
        # Since when one stream alone has fitted, and streams that were told to be other ones.
        self._alone: tuple[str, float] | None = None
        self._others: set[str] = set()
        # Number of the source that is read, see `OpenedStream.number`.
        self._number = 0
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
        return self._markers.reads or bool(self._eeg and self._eeg.layout.stim)

    @property
    def host(self) -> str:
        """Name of the computer that sends the stream; empty without one."""
        return "" if self._eeg is None else self._eeg.inlet.host

    def to_json(self) -> dict[str, Any] | None:
        """Return the stream that was opened as plain values; None before it has been found."""
        if self.opened is None:
            return None
        return {**self.opened.to_json(), "source": self._number}

    def impedances(self) -> dict[str, float]:
        """Return the impedances that the stream's description states, kilohms, by channel."""
        return {} if self._eeg is None else impedance.described_impedances(self._eeg.inlet.info)

    def notes(self) -> list[str]:
        """Return in sentences what happened to the stream since the last call; safe from any thread."""
        unit = self._note()
        fresh = [self._notes.popleft() for _ in range(len(self._notes))]
        fresh += [unit] if unit and unit != self._unit_note else []
        self._unit_note = unit
        return fresh

    def _note(self) -> str:
        eeg = self._eeg  # read once: the polling thread may close the stream meanwhile
        notes = (eeg.note if eeg is not None else "", self._marker_note)
        return "; ".join(filter(None, notes))

    @property
    def _marker_note(self) -> str:
        placement = self._markers.placement
        return "" if placement is None else placement.note

    @property
    def unit_note(self) -> str:
        """What was concluded about a missing unit; otherwise empty."""
        eeg = self._eeg
        return "" if eeg is None else eeg.unit_note

    @property
    def stamps_note(self) -> str:
        """Where stamps of samples and triggers lie that do not agree with their arrival; otherwise empty."""
        eeg = self._eeg
        notes = ("" if eeg is None else eeg.placement.note, self._marker_note)
        return "; ".join(filter(None, notes))

    @property
    def placed_by_arrival(self) -> bool:
        """Whether samples are placed by their arrival, so that no delay can be measured by their stamps."""
        eeg = self._eeg
        return eeg is not None and bool(eeg.placement.by_arrival)

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
        missing = self._eeg is None or not self._markers.reads
        if now - self._looked_at > (_LOOK_EVERY if missing else _LOOK_IDLY):
            self._looked_at = now
            self._look(now)
        self._opened(now)
        items = [*self._pull_markers(), *self._pull_eeg()]
        self._polled_at = pylsl.local_clock()
        return items

    def close(self) -> None:
        """Close the inlets."""
        self._eeg = self._opening = None
        self._markers.close()

    def _look(self, now: float) -> None:
        streams = self._resolver.results()
        if self._eeg is not None and self.opened is not None:
            self.opened.watch(streams, self._eeg.inlet.uid, self.data_at, now)
        if self._eeg is None or self._silent(now):
            self._find_eeg(streams, now)
        if self._eeg is not None:
            inlet = self._eeg.inlet
            self._markers.look(streams, inlet.name, inlet.host, now - self._opened_at)
            self._notes += self._markers.notes()

    def _silent(self, now: float) -> bool:
        return now - max(self.data_at or 0.0, self._opened_at) > _SILENT

    def _find_eeg(self, streams: list[pylsl.StreamInfo], now: float) -> None:
        if self.opened is None:
            self._find_first(streams, now)
        else:
            self._find_again(streams, self.opened, now)

    def _find_first(self, streams: list[pylsl.StreamInfo], now: float) -> None:
        """Open the stream that was asked for, if there is one and no more."""
        matches = select(streams, self._name)
        several = ambiguity(matches, self._name)
        self.ambiguous = several is not None
        if several is not None:
            self._opening = self._alone = None
            self._state = several
            return
        if not matches:
            self._alone = None
            if self._opening is None:
                text = [s for s in streams if any(value(s) == self._name for value in _KEYS.values())]
                reason = (
                    f"LSL stream {describe(text[0])} sends text, and no numbers"
                    if text
                    else f"no LSL stream with name, type or source id '{self._name}'"
                )
                self._state = f"{reason}; seen: {stream_names(streams)}"
            return
        label = describe(matches[0])
        if self._alone is None or self._alone[0] != label:
            self._alone = (label, now)
        if now - self._alone[1] >= _ALONE_S:
            self._open(matches, now)

    def _find_again(self, streams: list[pylsl.StreamInfo], opened: OpenedStream, now: float) -> None:
        """Open the stream that was lost, and name what is there in its place."""
        uid = None if self._eeg is None else self._eeg.inlet.uid
        signals = [s for s in streams if s.channel_format() in DTYPES and s.uid() != uid]
        matches = opened.again(signals)
        # Discovery still lists a stream for 5 s after it has gone, beside the one that takes its place.
        fresh = [s for s in matches if s.uid() not in self._retry_at]
        fresh = [s for s in fresh if opened.knows(s)] or fresh
        labels = sorted({describe(s) for s in fresh})
        if len(labels) > 1:
            self._state = (
                f"{len(labels)} LSL streams may be {opened.label}, which this session opened: "
                f"{', '.join(labels)}; none is read. End all but the right one"
            )
        elif matches:
            self._open(fresh or matches, now)
        else:
            self._tell_others([s for s in select(signals, self._name) if s.uid() not in self._others], opened)

    def _tell_others(self, streams: list[pylsl.StreamInfo], opened: OpenedStream) -> None:
        """Say of streams that fit what was asked for why they are not read."""
        for info in streams:
            self._others.add(info.uid())
            self._notes.append(
                f"LSL stream {describe(info)} is another source than {opened.label}, which this session "
                "opened, and is not read. The session goes on without EEG until its own stream is back. For "
                "the other one, start a new session with its name or source id as --lsl"
            )

    def _open(self, matches: list[pylsl.StreamInfo], now: float) -> None:
        """Begin to open the newest of some streams."""
        ready = [s for s in matches if self._retry_at.get(s.uid(), 0.0) <= now]
        if not ready:
            return
        # Streams that were lost or did not answer come after those that have not been tried.
        best = max(ready, key=lambda s: (s.uid() not in self._retry_at, s.created_at()))
        # An opening under way is abandoned only for a stream that has not been tried.
        if self._opening is None or (best.uid() != self._opening.uid and best.uid() not in self._retry_at):
            self._opening = Opening(best)

    def _opened(self, now: float) -> None:
        """Take over the inlets that have been opened meanwhile."""
        opening = self._opening
        if opening is None or not opening.done:
            return
        self._opening = None
        if opening.inlet is not None:
            self._take(opening.inlet, now)
            return
        if opening.refusal is not None:
            # As with its channels, the first stream decides whether a session can begin.
            if self.opened is None:
                raise opening.refusal
            self._refuse(opening.uid, opening.name, str(opening.refusal))
            return
        self._retry_at[opening.uid] = now + _RETRY
        self._state = f"LSL stream '{opening.name}' is announced by {opening.host} but does not answer"

    def _take(self, inlet: Inlet, now: float) -> None:
        """Continue with an opened stream if it is the right one and its channels fit."""
        old = self._montage
        if self._eeg is not None and not self._silent(now):
            return  # the old stream sends again
        try:
            columns = layout(inlet.info)
        except GeometryError as error:
            # The first stream decides whether a session can begin; later ones may not end it.
            if self.opened is None:
                raise
            self._refuse(inlet.uid, inlet.name, str(error))
            return
        if self.opened is not None:
            columns = columns.ordered_as(self.opened.channels)
        montage = columns.montage
        same = old is not None and (old.channels, old.sfreq) == (montage.channels, montage.sfreq)
        reason = self._accept(montage) if old is not None and not same and self._accept else None
        if reason is not None:
            self._refuse(inlet.uid, inlet.name, reason)
            return
        count = montage.kinds.count("eeg")
        channels = f"{count} EEG channels at {montage.sfreq:g} Hz"
        if self.opened is None:
            self.opened = self._choose(inlet.info, montage)
        elif not self._recognise(inlet, montage, channels, self.opened):
            return
        self._eeg = EegReader(inlet, columns)
        self._opened_at = now
        self._retry_at.clear()
        self.reopened += old is not None
        self._state = f"LSL stream '{inlet.name}' of {inlet.host}: {channels}"
        # A change stays to be told until a chunk bears it, although the stream may be lost before.
        if old is not None and not same:
            self._changed = montage
        self._montage = montage

    def _choose(self, info: pylsl.StreamInfo, montage: Montage) -> OpenedStream:
        """Stay with a stream from now on, and say which one it is where its name was not asked for."""
        sentence = choice(info, self._name)
        self._notes += [sentence] if sentence else []
        return OpenedStream.from_info(info, montage, _matched_by(info, self._name))

    def _recognise(self, inlet: Inlet, montage: Montage, channels: str, opened: OpenedStream) -> bool:
        """Return whether a stream is the opened one, and say that it is back."""
        count = len(opened.keys)
        number = opened.number(inlet.info.source_id(), montage)
        if number is None:
            reason = f"it is {describe(inlet.info)} with {channels}, not {opened.label}"
            self._refuse(inlet.uid, inlet.name, reason)
            return False
        self._number = number
        sentence = (
            f"LSL stream '{inlet.name}' is back ({channels}); its samples count once the filters have settled"
        )
        if number >= count:
            sentence += (
                f". It is now {describe(inlet.info)} and was {opened.label}: its windows say eeg_source: "
                "changed until somebody confirms that it is the same participant's amplifier (C on the page, "
                "or c and Enter here)"
            )
        # The first stream of a process that took over is no news, unless it is another source.
        if self._montage is not None or number >= count:
            self._notes.append(sentence)
        return True

    def _refuse(self, uid: str, name: str, reason: str) -> None:
        # Never tried again: a sender that is set up anew announces itself under another uid.
        self._retry_at[uid] = np.inf
        self._state = f"LSL stream '{name}' came back, but not as it was: {reason}"
        self._notes.append(self._state)

    def _pull_markers(self) -> list[Trigger]:
        self._unplaced += self._markers.pull()
        return self._triggers.once("markers", self._placed())

    def _placed(self) -> list[Trigger]:
        """Return the markers of which can be told when they were sent, in order."""
        samples = None if self._eeg is None else self._eeg.placement
        now = pylsl.local_clock()
        triggers: list[Trigger] = []
        while self._unplaced:
            mark = self._unplaced[0]
            placement = self._markers.placement or MarkerPlacement()
            stamp = placement.place(mark.stamp, mark.arrived_at, now, time.time(), samples)
            if stamp is None:
                break
            triggers.append(replace(self._unplaced.popleft(), stamp=stamp))
        return triggers

    def _pull_eeg(self) -> list[EegChunk | Trigger]:
        if self._eeg is None:
            return []
        try:
            chunks, triggers = self._eeg.pull()
        except GeometryError as error:
            # As with its channels, the first stream decides whether a session can begin.
            if self.data_at is None and not self._taken_over:
                raise
            self._refuse(self._eeg.inlet.uid, self._eeg.inlet.name, str(error))
            self._eeg = None
            return []
        now = pylsl.local_clock()
        if now - self._polled_at > _HELD_UP:
            chunks = self._dated(chunks, self._eeg.layout.montage.sfreq, now)
        if chunks:
            if self._number:
                chunks = [replace(chunk, source=self._number) for chunk in chunks]
            chunks[0] = replace(chunks[0], montage=self._changed)
            self._changed = None
            self.data_at = chunks[-1].arrived_at
            self.newest_at = float(chunks[-1].stamps[-1])
        if self._eeg.inlet.lost:
            self._retry_at[self._eeg.inlet.uid] = now
            self._eeg = None
            label = self.opened.label if self.opened is not None else f"'{self._name}'"
            self._state = f"LSL stream {label} was closed; waiting for it to come back"
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
    for value in _KEYS.values():
        matches = [s for s in signals if value(s) == name]
        if matches:
            return matches
    return []


def ambiguity(matches: Sequence[pylsl.StreamInfo], name: str) -> str | None:
    """Name the streams that `select` returned, if they are several; None for one, or one started anew."""
    labels = sorted({describe(info) for info in matches})
    if len(labels) < 2:
        return None
    return (
        f"{len(labels)} LSL streams match '{name}': {', '.join(labels)}; none is read. Give the name or the "
        "source id of one, or end the other"
    )


def choice(info: pylsl.StreamInfo, name: str) -> str | None:
    """Say which stream `name` stands for where that is not its name; else None."""
    matched_by = _matched_by(info, name)
    if matched_by == "name":
        return None
    return f"'{name}' is no stream's name but a {matched_by}: LSL stream {describe(info)} is read"


def _matched_by(info: pylsl.StreamInfo, name: str) -> str:
    return next(key for key, value in _KEYS.items() if value(info) == name)


def stream_names(streams: Sequence[pylsl.StreamInfo]) -> str:
    """Name the streams on the network, at most eight of them."""
    words = [f"{s.name()} ({s.type() or 'no type'}, {s.channel_count()} ch)" for s in streams]
    return ", ".join(sorted(words)[:8]) or "none"
