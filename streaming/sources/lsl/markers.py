"""Read as text the marker stream that belongs to an EEG stream."""

from rtdecode.liblsl import LostError, LslTimeoutError, pylsl
from streaming.sources.lsl.inlet import Inlet
from streaming.sources.lsl.source import seen, select

# Interval at which the network is searched, s.
_LOOK_EVERY = 0.2


class MarkerSource:
    """The marker stream ``NAME-film`` or ``NAME-markers``, found by its name.

    If `name` is a type or source id, NAME stands for the names of the streams that have it. A stream that
    is opened anew, as by the next film, replaces the one before.

    Parameters
    ----------
    name : str
        As for `streaming.sources.lsl.source.LslSource`.
    suffix : str
        What follows NAME in the marker stream's name.

    Attributes
    ----------
    state : str
        What was found, or what is there instead.
    """

    def __init__(self, name: str, suffix: str) -> None:
        self._name = name
        self._suffix = suffix
        self._resolver = pylsl.ContinuousResolver(forget_after=5.0)
        self._inlet: Inlet | None = None
        self._opened: set[str] = set()
        self._looked_at = -_LOOK_EVERY
        self.state = "not looked for yet"

    @property
    def found(self) -> bool:
        """Whether the stream has been found."""
        return self._inlet is not None

    def poll(self) -> list[tuple[str, float, float]]:
        """Return the new markers: text, stamp on the local clock, time of arrival."""
        now = pylsl.local_clock()
        # Pull before looking: a newer stream replaces the open one, whose last markers would be lost.
        marks = self._pull()
        if now - self._looked_at >= _LOOK_EVERY:
            self._looked_at = now
            self._look()
        return marks

    def _pull(self) -> list[tuple[str, float, float]]:
        if self._inlet is None:
            return []
        marks = self._inlet.pull_text()
        if self._inlet.lost:
            self._inlet = None
        return marks

    def _look(self) -> None:
        streams = self._resolver.results()
        names = {f"{n}{self._suffix}" for n in (self._name, *(s.name() for s in select(streams, self._name)))}
        fresh = [s for s in streams if s.type() == "Markers" and s.name() in names]
        fresh = [s for s in fresh if s.uid() not in self._opened]
        if fresh:
            self._open(max(fresh, key=lambda s: s.created_at()))
        elif self._inlet is None:
            self.state = f"no LSL stream {self._name}{self._suffix}; seen: {seen(streams)}"

    def _open(self, info: pylsl.StreamInfo) -> None:
        try:
            self._inlet = Inlet(info)
        except (LslTimeoutError, LostError):
            self.state = f"LSL stream '{info.name()}' is announced by {info.hostname()} but does not answer"
            return
        self._opened.add(info.uid())
        self.state = f"LSL stream '{info.name()}' of {info.hostname()}"
