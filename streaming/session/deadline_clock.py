"""By which clock an acquisition judges deadlines: arrivals, or in a backlog the files' own times."""

import math
from dataclasses import replace

from rtdecode.types import EegChunk, Trigger, Volume

Item = EegChunk | Trigger | Volume
# Clock of the deadlines until the first volume of a backlog;
# finite, as a recording cannot hold infinity.
_LONG_AGO = -1e12


class DeadlineClock:
    """Date what is taken, so that a replay judges the same deadlines.

    Parameters
    ----------
    behind : bool
        Whether a backlog of volumes is read first. Then deadlines go by the times at which the files became
        readable: by the local clock, all of them would have passed before the volumes are read.

    Attributes
    ----------
    behind_at : float or None
        Clock of the backlog, s; None in real time.
    """

    def __init__(self, *, behind: bool) -> None:
        # Deadlines up to here were kept while nothing waited, s. What arrived earlier and is taken later
        # counts from then, in a replay too.
        self._kept_at = -math.inf
        # By which deadlines were judged when the last item was taken, s. It never goes back.
        self._taken_at = -math.inf
        self.behind_at: float | None = _LONG_AGO if behind else None

    def now(self, now_at: float) -> float:
        """Return the time by which deadlines are judged: local time, or that of the backlog."""
        return now_at if self.behind_at is None else self.behind_at

    def stamp(self, item: Item, oldest_at: float) -> Item:
        """Let an item bear the time by which deadlines are judged when it is taken, if not its arrival.

        Parameters
        ----------
        item : EegChunk, Trigger or Volume
            What a source has brought.
        oldest_at : float
            When the first of all that still waits arrived, s; inf if nothing waits.
        """
        if self.behind_at is not None:
            # The clock steps from volume to volume and never back. The item
            # carries it into the recording, so that a replay goes by the same clock.
            readable_at = item.readable_at if isinstance(item, Volume) else self.behind_at
            self.behind_at = max(self.behind_at, readable_at)
            return replace(item, clock_at=self.behind_at)
        # An item counts from its arrival, however long it waited for its turn. But no deadline
        # passes as long as something waits that had arrived by then.
        clock_at = max(self._kept_at, min(item.arrived_at, oldest_at))
        return item if clock_at == item.arrived_at else replace(item, clock_at=clock_at)

    def time_of(self, item: Item) -> float:
        """Return the time by which deadlines are judged when an item is taken; a replay reckons likewise."""
        item_at = item.arrived_at if item.clock_at is None else item.clock_at
        self._taken_at = max(self._taken_at, item_at)
        return self._taken_at

    def keep(self, kept_at: float) -> None:
        """Note that deadlines up to a time were kept while nothing waited."""
        if self.behind_at is None:
            self._kept_at = kept_at

    def catch_up(self, now_at: float) -> None:
        """Go on in real time: all of the backlog has been read."""
        self._kept_at = now_at
        self.behind_at = None
