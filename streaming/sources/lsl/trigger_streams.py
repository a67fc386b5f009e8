"""Choose, of several marker streams, the one that brings an EEG stream's triggers, and read it.

``--markers NAME`` chooses it; else it is known by its name, as the programs of common amplifiers make it;
else, after a while, it is one of the same computer that belongs to nothing else. All streams that may be it
are opened, and one is read. A stream that sends is not given up for one that does not.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rtdecode.clocks.placement import MarkerPlacement
from rtdecode.disk import film_marks
from rtdecode.liblsl import pylsl
from rtdecode.types import Trigger
from streaming import client
from streaming.sources.lsl.inlet import Inlet, Opening

# What the programs of amplifiers append to the name of their EEG stream, in small letters: the first is also
# that of the simulated participant, the others are the two trigger inputs of BrainAmps and LiveAmps.
OWN_ENDS = ("-markers", "-stetriggerin", "-devicetrigger")
_TYPES = ("markers", "marker", "triggers", "trigger", "stim")
# Marker streams that belong to the EEG by their computer alone are opened only if it has none of its own by
# then, s.
_OWN_WITHIN = 3.0
# Time after which a stream that did not answer is tried again, s.
_RETRY = 0.5
_MAX_OPEN = 8

# How a marker stream belongs to the EEG stream: the lower, the surer.
_REQUESTED, _BY_NAME, _BY_HOST = range(3)
_REASONS = {
    _REQUESTED: "--markers names it",
    _BY_NAME: "its name is that of the EEG stream",
    _BY_HOST: "it is on the amplifier's computer, and no marker stream has the EEG stream's name",
}


@dataclass(frozen=True, slots=True)
class Candidate:
    """A marker stream that may bring the triggers.

    Attributes
    ----------
    info : pylsl.StreamInfo
        What the stream says of itself.
    grade : int
        How it belongs to the EEG stream; the lower, the surer.
    order : tuple of int
        Sorts those of one grade; the lower, the better.
    """

    info: pylsl.StreamInfo
    grade: int
    order: tuple[int, ...]

    @property
    def label(self) -> str:
        """Name and computer, for the terminal."""
        return f"'{self.info.name()}' of {self.info.hostname()}"


def candidates(
    streams: Sequence[pylsl.StreamInfo], eeg: str, host: str, requested: str | None = None
) -> list[Candidate]:
    """Return the marker streams that may bring the triggers of an EEG stream, the surest first.

    Parameters
    ----------
    streams : sequence of pylsl.StreamInfo
        All streams on the network.
    eeg, host : str
        Name and computer of the EEG stream.
    requested : str or None
        Name of the marker stream, where it was asked for: then no other is returned.
    """
    markers = [s for s in streams if s.nominal_srate() == pylsl.IRREGULAR_RATE and not _of_others(s)]
    if requested is not None:
        matches = [s for s in markers if s.name() == requested]
        matches = matches or [s for s in markers if s.name().lower() == requested.lower()]
        return _sorted([Candidate(s, _REQUESTED, (int(s.hostname() != host),)) for s in matches])
    own_names = {f"{eeg.lower()}{end}": place for place, end in enumerate(OWN_ENDS)}
    rated = {s.name().lower() for s in streams if s.nominal_srate() != pylsl.IRREGULAR_RATE}
    # Those of another EEG stream are another amplifier's.
    foreign_names = {f"{name}{end}" for name in rated for end in OWN_ENDS}
    suitable: list[Candidate] = []
    for info in markers:
        name = info.name().lower()
        away = int(info.hostname() != host)
        if name in own_names:
            suitable.append(Candidate(info, _BY_NAME, (away, own_names[name])))
        elif info.type().lower() in _TYPES and not away and name not in foreign_names:
            suitable.append(Candidate(info, _BY_HOST, ()))
    return _sorted(suitable)


def _of_others(info: pylsl.StreamInfo) -> bool:
    """Return whether a stream holds the marks of a film, or the clips of a session."""
    return info.name().endswith(film_marks.SUFFIX) or info.source_id().startswith(client.SOURCE)


def _sorted(streams: list[Candidate]) -> list[Candidate]:
    # Discovery still lists a stream for 5 s after it has gone: its successor is the newest.
    return sorted(streams, key=lambda stream: (stream.grade, stream.order, -stream.info.created_at()))


@dataclass(slots=True)
class _Open:
    """An open marker stream, where its stamps lie, and whether it has sent anything."""

    candidate: Candidate
    inlet: Inlet
    placement: MarkerPlacement
    sends: bool = False


class TriggerStreams:
    """The marker streams that may bring the triggers, of which one is read.

    Parameters
    ----------
    requested : str or None
        Name of the stream that is to be read; None chooses one.
    """

    def __init__(self, requested: str | None = None) -> None:
        self._requested = requested
        self._open: dict[str, _Open] = {}
        self._openings: dict[str, tuple[Candidate, Opening]] = {}
        self._retry_at: dict[str, float] = {}
        self._read: _Open | None = None
        self._seen: list[Candidate] = []
        self._told: tuple[str, ...] = ()
        self._notes: list[str] = []

    @property
    def reads(self) -> bool:
        """Whether a stream is read."""
        return self._read is not None

    @property
    def placement(self) -> MarkerPlacement | None:
        """Where the stamps of the stream that is read lie; None without one."""
        return None if self._read is None else self._read.placement

    def notes(self) -> list[str]:
        """Return which stream is read, and why, where that has changed since the last call."""
        notes = self._notes
        self._notes = []
        return notes

    def look(self, streams: Sequence[pylsl.StreamInfo], eeg: str, host: str, open_s: float) -> None:
        """Begin to open the streams that may bring the triggers.

        Parameters
        ----------
        streams : sequence of pylsl.StreamInfo
            All streams on the network.
        eeg, host : str
            Name and computer of the EEG stream.
        open_s : float
            How long that stream has been open, s.
        """
        now = pylsl.local_clock()
        self._seen = candidates(streams, eeg, host, self._requested)
        has_own = any(candidate.grade < _BY_HOST for candidate in self._seen)
        late = open_s > _OWN_WITHIN
        for candidate in self._seen:
            uid = candidate.info.uid()
            busy = uid in self._open or uid in self._openings or self._retry_at.get(uid, 0.0) > now
            room = len(self._open) + len(self._openings) < _MAX_OPEN
            if not busy and room and (candidate.grade < _BY_HOST or (late and not has_own)):
                self._openings[uid] = (candidate, Opening(candidate.info))
        if late:
            self._tell()

    def pull(self) -> list[Trigger]:
        """Return the markers that came in on the stream that is read, with their stamps as they came."""
        self._take_opened()
        texts: dict[str, list[tuple[str, float, float]]] = {}
        for uid, stream in [*self._open.items()]:
            marks = stream.inlet.pull_text()
            # The marks of a film that is being shown are never volume triggers.
            texts[uid] = [mark for mark in marks if not film_marks.is_film_mark(mark[0])]
            stream.sends = stream.sends or bool(texts[uid])
            if stream.inlet.lost:
                del self._open[uid]
        last = self._read
        self._choose()
        read = [] if self._read is None else texts[self._read.inlet.uid]
        # What a stream sent before it went is still taken.
        if last is not None and last is not self._read and last.inlet.lost:
            read = texts[last.inlet.uid] + read
        return [Trigger(stamp, label, arrived_at) for label, stamp, arrived_at in read]

    def close(self) -> None:
        """Close all streams."""
        self._open = {}
        self._openings = {}
        self._read = None

    def _take_opened(self) -> None:
        for uid, (candidate, opening) in [*self._openings.items()]:
            if not opening.done:
                continue
            del self._openings[uid]
            self._retry_at[uid] = pylsl.local_clock() + _RETRY
            if opening.refusal is not None:
                self._retry_at[uid] = math.inf
                self._notes.append(str(opening.refusal))
            if opening.inlet is not None:
                self._open[uid] = _Open(candidate, opening.inlet, MarkerPlacement())

    def _choose(self) -> None:
        """Choose the stream that is read from now on."""
        read = self._read
        if read is not None and read.inlet.uid not in self._open:
            read = None
        ranked = sorted(
            self._open.values(),
            key=lambda stream: (
                not stream.sends,
                stream.candidate.grade,
                stream.candidate.order,
                -stream.candidate.info.created_at(),
            ),
        )
        if read is None:
            read = ranked[0] if ranked else None
        elif ranked[0] is not read and self._gives_way(read, ranked[0]):
            read = ranked[0]
        self._read = read

    @staticmethod
    def _gives_way(read: _Open, other: _Open) -> bool:
        """Return whether the stream that is read is given up for another one."""
        surer = other.candidate.grade < read.candidate.grade
        if not read.sends:
            return other.sends or surer
        started_anew = other.candidate.info.name() == read.candidate.info.name() and (
            other.candidate.info.created_at() > read.candidate.info.created_at()
        )
        return other.sends and (surer or started_anew)

    def _tell(self) -> None:
        """Say which stream is read, and why, if there are others or the requested one is missing."""
        labels = sorted({candidate.label for candidate in self._seen})
        read = None if self._read is None else self._read.candidate
        key = ("" if read is None else read.label, *labels)
        if key == self._told:
            return
        self._told = key
        if read is None and self._requested is not None and not labels:
            self._notes.append(
                f"there is no marker stream '{self._requested}' (--markers), and no other is read. Start it, "
                "or correct its name"
            )
        unread = [label for label in labels if read is not None and label != read.label]
        if read is not None and unread:
            self._notes.append(
                f"{len(labels)} marker streams may bring the triggers: {read.label} is read, as "
                f"{_REASONS[read.grade]}{' and it sends' if self._read and self._read.sends else ''}; "
                f"{', '.join(unread)} not. Give --markers NAME for another one"
            )
