"""Read as text the marker stream that belongs to an EEG stream."""

from rtdecode.liblsl import pylsl
from streaming.sources.lsl.inlet import Inlet, Opening
from streaming.sources.lsl.source import select, stream_names

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
        self._opening: Opening | None = None
        self._opened: set[str] = set()
        self._looked_at = -_LOOK_EVERY
        self.state = "not looked for yet"

    @property
    def is_found(self) -> bool:
        """Whether the stream has been found."""
        return self._inlet is not None

    def poll(self) -> list[tuple[str, float, float]]:
        """Return the new markers: text, stamp on the local clock, time of arrival."""
        now = pylsl.local_clock()
        # Pull first: a newer stream replaces the open one, whose last markers would be lost.
        marks = self._pull()
        self._take_opened()
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
            newest = max(fresh, key=lambda s: s.created_at())
            if self._opening is None or self._opening.uid != newest.uid():
                self._opening = Opening(newest)
        elif self._inlet is None:
            self.state = f"no LSL stream {self._name}{self._suffix}; seen: {stream_names(streams)}"

    def _take_opened(self) -> None:
        opening = self._opening
        if opening is None or not opening.done:
            return
        self._opening = None
        if opening.refusal is not None:
            self._opened.add(opening.uid)
            self.state = str(opening.refusal)
            return
        if opening.inlet is None:
            self.state = f"LSL stream '{opening.name}' is announced by {opening.host} but does not answer"
            return
        self._inlet = opening.inlet
        self._opened.add(opening.uid)
        self.state = f"LSL stream '{opening.name}' of {opening.host}"
