"""What the operator is told of a session.

Statuses and the tally of the clips carry counts. A count that has risen becomes a sentence, which says what
happened and what to do: at once when it begins, then at most once a hop for each kind of event.
"""

import math
from dataclasses import dataclass

from streaming.checks import signals, table
from streaming.checks.finding import OK, counted
from streaming.sinks.clip_tally import ClipTally
from streaming.status import Status

# A volume that is out of order comes within so many TRs: only then is it told as missing.
_OUT_OF_ORDER_TRS = 1.5


@dataclass(frozen=True, slots=True)
class Event:
    """A kind of event and how often it has happened.

    Attributes
    ----------
    kind : str
        What happened; the sentence begins with it.
    count : int
        How often so far. A count may fall (a volume came after all) and is told again when it rises.
    detail : str
        What it means, and what to do.
    stands_s : float
        Time for which a rise has to last before it is told, s.
    """

    kind: str
    count: int
    detail: str
    stands_s: float = 0.0


class EventNotifier:
    """Choose what is told.

    Parameters
    ----------
    hop_s : float
        Shortest time between two sentences of one kind, s. What happens meanwhile is summed up in the next.
    """

    def __init__(self, hop_s: float) -> None:
        self._hop_s = hop_s
        self._told: dict[str, int] = {}
        self._told_at: dict[str, float] = {}
        self._risen_at: dict[str, float] = {}

    def take(self, events: list[Event], now_at: float, *, ends: bool = False) -> list[str]:
        """Return sentences on what is new.

        Parameters
        ----------
        events : list of Event
            All counts as they stand now.
        now_at : float
            Local clock, s.
        ends : bool
            The session is over: tell everything that has not been told.
        """
        return [self._tell(event, now_at) for event in events if self._due(event, now_at, ends)]

    def _due(self, event: Event, now_at: float, ends: bool) -> bool:
        # A count that has fallen takes back what was told of it, so that its next rise is news.
        reported = min(self._told.get(event.kind, 0), event.count)
        self._told[event.kind] = reported
        if event.count == reported:
            self._risen_at.pop(event.kind, None)
            return False
        stood_s = now_at - self._risen_at.setdefault(event.kind, now_at)
        quiet_s = now_at - self._told_at.get(event.kind, -math.inf)
        return ends or (stood_s >= event.stands_s and quiet_s >= self._hop_s)

    def _tell(self, event: Event, now_at: float) -> str:
        increase = event.count - self._told[event.kind]
        self._told[event.kind] = event.count
        self._told_at[event.kind] = now_at
        del self._risen_at[event.kind]
        return f"{event.kind}{_counted(increase, event.count)}: {event.detail}"


def _counted(increase: int, count: int) -> str:
    if count == 1:
        return ""
    return f" ({count} in all)" if increase == count else f" ({increase} more, {count} in all)"


def happened(status: Status, tally: ClipTally, now_at: float) -> list[Event]:
    """Return everything that is counted in a session, in the order in which it is told.

    Parameters
    ----------
    status : Status
        The newest status of the acquisition.
    tally : ClipTally
        Counts of the clips so far.
    now_at : float
        Local clock, s.
    """
    return [*_sources(status), *_signals(status, tally), *_clips(status, tally, now_at)]


def _sources(status: Status) -> list[Event]:
    """Return the events of the sources: the folder, silence, and new runs."""
    folder = status.folder
    back = status.back
    newest_run = status.newest_run
    number = 0 if newest_run is None else newest_run["run"]
    return [
        Event(
            "fMRI folder gone",
            folder.get("gone", 0),
            f"volumes are missing until it is back; {table.FOLDER_MISSING.advice}. The session reads it "
            "again by itself.",
        ),
        Event("fMRI folder back", folder.get("back", 0), "its volumes are read again."),
        Event("fMRI back", back.get("fmri", 0), "volumes are arriving again."),
        Event(
            "EEG back",
            back.get("eeg", 0),
            "samples are arriving again; the filters have to settle first.",
        ),
        Event(
            "new run",
            number,
            f"run {number} began, with a time line and a resting level of its own. No action is needed if "
            "the scanner was started again.",
        ),
    ]


def _signals(status: Status, tally: ClipTally) -> list[Event]:
    """Return the holes and faults in the data that came."""
    eeg = status.counters["eeg"]
    fmri = status.counters["fmri"]
    bad = eeg.get("bad_channels") or []
    lost = counted(eeg.get("lost_samples") or 0, "sample")
    return [
        Event(
            "EEG gap",
            eeg.get("gaps") or 0,
            f"{lost} lost so far. Clips of that time are degraded; {table.EEG_GAPS.advice}.",
        ),
        Event(
            "EEG stamps jumped",
            # The stream's first clock epoch is no jump.
            max(0, (eeg.get("epochs") or 0) - 1),
            f"{table.EEG_JUMPS.advice}.",
        ),
        Event(
            "EEG channel bad",
            len(bad),
            f"{', '.join(bad)}; {table.BAD_CHANNELS.advice}.",
        ),
        Event(
            "fMRI volume missing",
            fmri.get("missing") or 0,
            f"clips that need it are degraded; {table.FEW_VOLUMES.advice}.",
            stands_s=_OUT_OF_ORDER_TRS * tally.tr_s,
        ),
        Event(
            "fMRI volume late",
            fmri.get("late") or 0,
            "it arrived after its clip had been made without it. Check the load of the scanner's "
            "reconstruction and of the network share.",
        ),
    ]


def _clips(status: Status, tally: ClipTally, now_at: float) -> list[Event]:
    """Return what is wrong with the clips themselves."""
    counts = tally.counts
    words = tally.words
    newest = tally.newest
    # Once every final is out, no clip is due any more.
    due = newest is not None and status.elapsed is not None and not status.done
    age = signals.clip_age(now_at - newest.emitted_at if newest is not None and due else 0.0, tally.hop_s)
    return [
        Event(
            "clip late",
            counts["late"],
            f"{words.get('late')}. End other programs on this machine, or give fewer --steps.",
        ),
        Event(
            "clip degraded",
            counts["degraded"],
            f"{words.get('degraded')}. Do not judge it like a complete one; see the lines on EEG and fMRI.",
        ),
        Event(
            "window skipped",
            counts["skipped"],
            f"{words.get('skipped', 'it was not decoded')}. Check the sources and the load of this machine.",
        ),
        Event(
            "no new clip",
            int(age.state != OK),
            f"{age.found}; {age.advice}.",
        ),
    ]
