"""What the sources of an acquisition bring: items, and what was found out about their streams.

The threads that read the sources poll `EegReading` and `FolderReading`, and leave the events to the main
thread.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rtdecode.disk import film_marks
from rtdecode.disk.film_marks import FilmMark
from rtdecode.types import EegChunk, Montage, Trigger, Volume
from streaming.sources.folder.source import FolderSource
from streaming.sources.lsl.markers import MarkerSource
from streaming.sources.lsl.source import LslSource

# If no source of triggers shows up for so long after the EEG stream, a run without volumes
# begins with the first sample, s.
_MARKERS_WITHIN = 6.0


@dataclass(frozen=True, slots=True)
class NoTriggers:
    """No stream brings triggers: a run without volumes begins with the first sample."""


@dataclass(frozen=True, slots=True)
class CaughtUp:
    """Everything that lay in the folder before the session has been read.

    Attributes
    ----------
    directory : Path
        The export folder.
    old : bool
        Whether its files are of an earlier time, so that their last run is over.
    """

    directory: Path
    old: bool


@dataclass(frozen=True, slots=True)
class Failure:
    """A thread that reads a source has failed.

    Attributes
    ----------
    error : BaseException or None
        What ended the thread; None if that is not known.
    """

    error: BaseException | None


Event = EegChunk | Trigger | Volume | Montage | FilmMark | NoTriggers | CaughtUp | Failure


class EegReading:
    """Poll the EEG stream; its montage comes before the first sample, which is recorded and decoded by it.

    Parameters
    ----------
    source : LslSource
        The EEG stream to be polled.
    """

    def __init__(self, source: LslSource) -> None:
        self._source = source
        self._montage: Montage | None = None
        self._found_at = 0.0
        self._triggers_expected = True

    def poll(self, now_at: float) -> Iterator[Event]:
        """Yield what has come since the last call.

        Parameters
        ----------
        now_at : float
            Local clock, s.
        """
        for item in self._source.poll():
            if self._montage is None:
                self._montage = self._source.montage
                self._found_at = now_at
                if self._montage is not None:
                    yield self._montage
            yield item
        late = self._montage is not None and now_at - self._found_at > _MARKERS_WITHIN
        if self._triggers_expected and late and not self._source.has_triggers:
            self._triggers_expected = False
            yield NoTriggers()


class FolderReading:
    """Poll the export folder, and tell once when its backlog has been read.

    Parameters
    ----------
    source : FolderSource
        The export folder to be polled.
    behind : bool
        Whether files that lay there before the session are read.
    """

    def __init__(self, source: FolderSource, *, behind: bool) -> None:
        self._source = source
        self._behind = behind

    @property
    def is_reading(self) -> bool:
        """Whether files wait to be read, so that the next poll is due at once."""
        return bool(self._source.unread)

    def poll(self, now_at: float) -> Iterator[Event]:
        """Yield the volumes that have come since the last call."""
        volumes = self._source.poll(now_at)
        yield from volumes
        # A poll reads only some of the files: the backlog ends when all have been tried.
        if self._behind and not volumes and not self._source.unread:
            self._behind = False
            yield CaughtUp(self._source.directory, self._source.old)


class FilmReading:
    """Poll the markers of `rtdecode play`.

    Parameters
    ----------
    name : str
        Of the EEG stream that they belong to.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._source: MarkerSource | None = None

    def poll(self, _now_at: float) -> Iterator[Event]:
        """Yield the markers that have come since the last call."""
        # Made in the thread that reads it.
        self._source = self._source or MarkerSource(self._name, film_marks.SUFFIX)
        for label, stamp, arrived_at in self._source.poll():
            yield FilmMark(stamp, label, arrived_at)
