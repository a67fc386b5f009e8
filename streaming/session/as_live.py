"""A replay that repeats what was live: the windows that the session cut, and what it decided for each.

`choose` says whether a recording can be replayed like that. `Windows` cuts the windows as the acquisition
processes of the session did, one process after the other. `AsLive` decodes each as it was decoded, and
compares the clip.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from enum import IntEnum
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from rtdecode.bundle import Bundle
from rtdecode.bundle import decisions as files
from rtdecode.bundle.decisions import Decision, Decisions, Key, Restart
from rtdecode.errors import UsageError
from rtdecode.types import EegChunk, Montage, Trigger, Volume, Window
from rtdecode.windows.assembler import Assembler, Counters
from streaming.decode.deadline import Job
from streaming.decode.decoder import Decoded
from streaming.session import resume
from streaming.session.decided import decision
from streaming.session.options import ResumeState
from streaming.session.restarts import Restarts
from streaming.session.resume import Resumption
from streaming.sinks.clip_emitter import ClipEmitter
from streaming.status import Status

Item = EegChunk | Trigger | Volume
# Clips that other processors draw from the same latent, but for its last digits, differ in no mean colour by
# more than this.
_COLOUR_TOLERANCE = 1


@dataclass(frozen=True, slots=True)
class Choice:
    """How a recording is replayed.

    Attributes
    ----------
    decisions : Decisions or None
        What is repeated; None where every window is decoded at full steps.
    sentence : str
        Which of the two is done, and why.
    """

    decisions: Decisions | None
    sentence: str


def choose(
    recording: Path,
    bundle: Bundle,
    as_live: bool | None,
    *,
    steps: int | None,
    carry: bool,
    detail: float | None = None,
    calibrated: bool = False,
) -> Choice:
    """Say how a recording is replayed.

    Parameters
    ----------
    recording : Path
        Folder of the recording.
    bundle : Bundle
        What the replay decodes with.
    as_live : bool or None
        What was asked for; None takes what the recording allows.
    steps : int or None
        Denoising steps, if any number was asked for.
    carry : bool
        False with ``--no-carry``: no clip carries on from the one before it.
    detail : float, optional
        Share of detail, if one was asked for.
    calibrated : bool
        Whether a calibration was given in place of the session's.

    Raises
    ------
    UsageError
        If `as_live` was asked for and cannot be, or the decisions cannot be read.
    """
    otherwise = _asked_otherwise(as_live, steps, detail, carry=carry, calibrated=calibrated)
    decisions = None if otherwise else files.read(recording)
    reason = otherwise or _not_repeatable(decisions, bundle)
    if not reason:
        assert decisions is not None
        return Choice(
            decisions,
            f"As live: each window is decoded as session {decisions.session} decided, as the recording holds "
            "its decisions with this bundle. --best decodes every window at full steps instead.",
        )
    if as_live:
        raise UsageError(
            "replay-as-live-impossible",
            "{recording} cannot be replayed --as-live: {cause}. Without --as-live every window is "
            "decoded at full steps.",
            recording=recording,
            cause=reason,
        )
    count = f"{steps} steps" if steps is not None else "full steps"
    return Choice(None, f"Not as live: every window is decoded at {count}, as {reason}.")


def _asked_otherwise(
    as_live: bool | None, steps: int | None, detail: float | None, *, carry: bool, calibrated: bool
) -> str:
    """Say which flag asks for other clips than were live; empty if none does."""
    if as_live is False:
        return "--best asks for it"
    if steps is not None:
        return f"--steps {steps} asks for other clips"
    if detail is not None:
        return f"--detail {detail:g} asks for other clips"
    if calibrated:
        return "--calibration reads the head where another calibration found it"
    return "" if carry else "--no-carry asks for other clips"


def _not_repeatable(decisions: Decisions | None, bundle: Bundle) -> str:
    """Say why a recording's decisions are not repeated; empty if they are."""
    if decisions is None:
        return (
            "the recording holds no decisions of a session (simulated and imported recordings, and those of "
            "earlier versions, hold none)"
        )
    if decisions.bundle != bundle.digest:
        return f"the session decoded with the bundle {decisions.bundle}, and this one is {bundle.digest}"
    return "" if decisions.is_of(bundle) else "the session decoded as another --subject"


class Make(Protocol):
    """Makes an assembler of the recording."""

    def __call__(self, montage: Montage | None, **changed: Any) -> Assembler:
        """Make it with a montage, and with other values than those for the recording as a whole."""
        ...


class Windows:
    """The windows of a recording.

    To repeat a session, each acquisition process has an assembler of its own, which knows of the one before
    it what that process was told. Otherwise one assembler reads through the restarts.

    Parameters
    ----------
    make : callable
        Makes an assembler of the recording.
    montage : Montage or None
        With which the recording begins.
    decisions : Decisions or None
        What is repeated.

    Attributes
    ----------
    assembler : Assembler
        The one that cuts windows now.
    """

    def __init__(self, make: Make, montage: Montage | None, decisions: Decisions | None = None) -> None:
        self._make = make
        self._montage = montage
        self._decisions = decisions
        self._restarts = [] if decisions is None else list(decisions.restarts)
        self._resumed: Resumption | None = None
        self._notes: list[str] = []
        # Triggers and volumes so far, without pixels.
        self._items: list[dict[str, Any]] = []
        # Told of each new assembler.
        self.on_new: Callable[[Assembler], None] = lambda _: None
        if decisions is None:
            self.assembler = make(montage)
        else:
            # The session found the stream while it ran.
            settings = {"restarted_at": []} if self._restarts else {}
            self.assembler = make(None, **settings, **self._known_by(self._restarts[:1]))

    def counters(self) -> Counters:
        """Return the counts of the session so far."""
        counters = self.assembler.counters()
        return counters if self._resumed is None else self._resumed.counted(counters)

    def notes(self) -> list[str]:
        """Return what `Assembler.notes` does."""
        notes = self._notes + self.assembler.notes()
        self._notes = []
        return notes

    def jobs(self, items: Iterable[Item], ended_at: float, rested_at: float | None) -> Iterator[Job]:
        """Yield the windows of the recording's items in the order in which they were cut."""
        if self._decisions is None:
            for window in self.assembler.play(items, ended_at, rested_at=rested_at):
                yield Job(window, self.assembler.clip(window))
            return
        numbers = Restarts()
        for number, window in self._cut(iter(items), ended_at, rested_at):
            decided = self._decisions.by_key.get(_key(window))
            # What a process had cut when it was killed may never have reached the session, which then had the
            # window from the next one.
            if self._decisions.restarts and decided is not None and decided.acquisition != number:
                continue
            if numbers.is_new(window):
                clip = numbers.clip(window, self.assembler.clip(window))
                yield Job(window, clip, acquisition=number)

    def _cut(
        self, items: Iterator[Item], ended_at: float, rested_at: float | None
    ) -> Iterator[tuple[int, Window]]:
        """Yield windows, each with the number of the process that cut it."""
        first = self._restarts[0].acquisition - 1 if self._restarts else 0
        ends = [restart.restarted_at for restart in self._restarts]
        waiting: list[Item] = []
        for number, until in enumerate([*ends, np.inf], first):
            if number > first:
                for window in self._resume(self._restarts[number - first - 1], number - first):
                    yield number, window
            last = until == np.inf
            since = ends[number - first - 1] if number > first else -np.inf
            rested = rested_at if rested_at is not None and since <= rested_at < until else None
            segment = self._segment(items, until, waiting)
            stop_at = ended_at if last else until
            for window in self.assembler.play(segment, stop_at, ends=last, rested_at=rested):
                yield number, window

    def _segment(self, items: Iterator[Item], until: float, waiting: list[Item]) -> Iterator[Item]:
        """Yield the items that arrived before a time; the one that did not is left in `waiting`."""
        while True:
            item = waiting.pop() if waiting else next(items, None)
            if item is None:
                return
            if item.arrived_at >= until:
                waiting.append(item)
                return
            yield self._placed(item)

    def _placed(self, item: Item) -> Item:
        """Let the assembler have the montage when the stream was found; remember what a restart tells of."""
        if not isinstance(item, EegChunk):
            if self._restarts:
                self._items.append(resume.to_record(item))
            if isinstance(item, Trigger):
                self._find_stream()
            return item
        self._montage = item.montage or self._montage
        if self._find_stream():
            item = replace(item, montage=None)
        if self._resumed is not None and self.assembler.montage is not None:
            self._resumed.measure(item, self.assembler.montage.sfreq)
        return item

    def _find_stream(self) -> bool:
        """Set the montage if none is set; return whether it was set."""
        # A session has it before the first sample, and looks for triggers only then.
        if self.assembler.montage is not None or self._montage is None:
            return False
        self.assembler.set_montage(self._montage)
        return True

    def _resume(self, restart: Restart, nth: int) -> Iterator[Window]:
        """Go on with another assembler, as the acquisition that was started again did."""
        counters = self.counters()
        self._notes += self.assembler.notes()
        self._items = self._items[: restart.items]
        status = Status(
            counters=counters,
            first_sample_at=restart.first_sample_at,
            newest_sample_at=restart.newest_sample_at,
        )
        self._resumed = Resumption(ResumeState(self._items, status))
        settings = self._known_by(self._restarts[nth : nth + 1])
        settings |= {"restarted_at": [restart.restarted_at], "heard_since": restart.heard_since}
        self.assembler = self._make(None, **settings)
        self.on_new(self.assembler)
        if restart.first_sample_at is not None:
            self.assembler.begin(restart.first_sample_at)
        yield from self.assembler.play(self._resumed.items(), ends=False)
        if restart.rests:
            yield from self.assembler.end_newest_run(restart.restarted_at)

    @staticmethod
    def _known_by(next_restart: list[Restart]) -> dict[str, Any]:
        """Return whether triggers were expected by the end of a process, as the next one was told."""
        return {"triggers_expected": next_restart[0].triggers_expected} if next_restart else {}


class _Likeness(IntEnum):
    """How a window's clip compares with the one that was live, the least alike first."""

    ABSENT = 0
    OTHER_INPUTS = 1
    OTHER = 2
    ALIKE = 3
    SAME = 4


@dataclass(slots=True)
class AsLive:
    """Decode windows as a session decided, and count which came out as they did then.

    Parameters
    ----------
    decisions : Decisions
        Those of the session that is repeated.

    Attributes
    ----------
    dropped_previews : int
        Previews that were dropped as they were live.
    undecided : int
        Windows that the session had not decided on when it ended; they are decoded at full steps.
    """

    decisions: Decisions
    dropped_previews: int = 0
    undecided: int = 0
    _repeated: dict[Key, _Likeness] = field(default_factory=dict)

    def drops(self, job: Job) -> bool:
        """Return whether a preview was dropped live, and count it."""
        decided = self.decisions.by_key.get(_key(job.window))
        if decided is None or decided.outcome != "dropped":
            return False
        self.dropped_previews += 1
        self._repeated[decided.key] = _Likeness.SAME
        return True

    def emit(self, output: ClipEmitter, job: Job) -> None:
        """Decode a window, or skip it, as it was live."""
        decided = self.decisions.by_key.get(_key(job.window))
        if decided is None:
            self.undecided += job.window.revision == "final"
            output.emit(job)
        elif decided.outcome == "skipped":
            output.skip(job, decided.why or "it was skipped live")
        else:
            output.emit(job, repeated=decided)

    def compare(self, job: Job, decoded: Decoded | None, why: str) -> None:
        """Compare what came out with what was live."""
        decided = self.decisions.by_key.get(_key(job.window))
        if decided is not None:
            self._repeated[decided.key] = _likeness(decided, decision(job, decoded, why))

    def counts(self, *, to_end: bool) -> dict[str, int]:
        """Return the report's section.

        Parameters
        ----------
        to_end : bool
            Whether the recording was replayed to its end: then a decided window that did not come out of it
            counts too.
        """
        likeness = self._windows(to_end=to_end)
        return {
            "windows": len(likeness),
            "repeated": sum(how >= _Likeness.ALIKE for how in likeness),
            "bit_for_bit": sum(how == _Likeness.SAME for how in likeness),
        }

    def sentence(self, *, to_end: bool) -> str:
        """Say how many windows are as live, and what is known of the others."""
        likeness = self._windows(to_end=to_end)
        counts = self.counts(to_end=to_end)
        repeated, alike = counts["repeated"], counts["repeated"] - counts["bit_for_bit"]
        sentence = f"{repeated} of {len(likeness)} windows as live"
        if repeated and not alike:
            sentence += ", bit for bit"
        elif alike:
            sentence += (
                f": {counts['bit_for_bit']} bit for bit, and {alike} with the same colours but other last "
                "digits, as by another processor"
            )
        unlike = len(likeness) - repeated
        if unlike:
            inputs, absent = likeness.count(_Likeness.OTHER_INPUTS), likeness.count(_Likeness.ABSENT)
            sentence += (
                f". Of the other {unlike}, {inputs} hold other data than live, and {absent} did not come out "
                "of the recording"
            )
        if self.undecided:
            sentence += (
                f". {self.undecided} more, which the session had not decided on when it ended, were "
                "decoded at full steps"
            )
        return sentence + "."

    def _windows(self, *, to_end: bool) -> list[_Likeness]:
        """Return how each window compares, by that of its revisions that is least alike."""
        compared = dict.fromkeys(self.decisions.by_key, _Likeness.ABSENT) if to_end else {}
        least: dict[tuple[int, int], _Likeness] = {}
        for (run, window, _), likeness in (compared | self._repeated).items():
            least[run, window] = min(likeness, least.get((run, window), _Likeness.SAME))
        return list(least.values())


def _likeness(live: Decision, again: Decision) -> _Likeness:
    same = _taken(live) == _taken(again)
    if same and live.latent == again.latent:
        return _Likeness.SAME
    if same and _distance(live, again) <= _COLOUR_TOLERANCE:
        return _Likeness.ALIKE
    return _Likeness.OTHER if live.inputs == again.inputs else _Likeness.OTHER_INPUTS


def _taken(decision: Decision) -> tuple[str, int | None, float | None, str | None]:
    return decision.outcome, decision.steps, decision.detail, decision.carried_from


def _distance(live: Decision, again: Decision) -> float:
    """Return the largest difference of two clips' mean colours, of 255; inf if they cannot be compared."""
    values = [
        np.frombuffer(bytes.fromhex(clip.colours or ""), np.uint8).astype(int) for clip in (live, again)
    ]
    if not len(values[0]) or len(values[0]) != len(values[1]):
        return np.inf
    return float(np.abs(values[0] - values[1]).max())


def _key(window: Window) -> Key:
    return window.run, window.index, window.revision
