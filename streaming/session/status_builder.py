"""What an acquisition tells its session twice a second, put together from plain values."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from rtdecode.types import EegChunk, Trigger, Volume
from rtdecode.windows.assembler import Assembler, Counters
from streaming.session import resume
from streaming.session.source_activity import SourceActivity
from streaming.sources.folder.source import FolderSource
from streaming.sources.lsl.source import LslSource
from streaming.status import Status

# How often a status is sent, s.
_STATUS_EVERY = 0.5
# A status has to fit into one slot of the mailbox. It tells of so many of the
# newest runs, and of so many reasons for which files were passed over. Once so
# many triggers and volumes are untold, it is sent at once.
_RUNS_TOLD = 16
_NOTES_TOLD = 30
_UNTOLD_MOST = 32


@dataclass(frozen=True, slots=True)
class RunState:
    """How far the runs are, as the assembler has them.

    Attributes
    ----------
    elapsed, first_sample_at : float or None
        Run time of the newest run, and local time of its first EEG sample, s.
    expected, reached, awaited : int
        Counts of windows, see `streaming.status.Status`.
    done, rests, triggers_expected : bool
        How the newest run stands, see `streaming.status.Status`.
    heard_since : list of float
        See `streaming.status.Status`.
    counters : Counters
        Counts of the session; of the runs only the newest.
    refused : list of str
        Sentences on the volumes of another series.
    notes : list of str
        What went wrong since the last status.
    """

    elapsed: float | None
    expected: int
    reached: int
    done: bool
    awaited: int
    counters: Counters
    first_sample_at: float | None = None
    heard_since: list[float] = field(default_factory=list)
    triggers_expected: bool = True
    rests: bool = False
    refused: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, assembler: Assembler, now_at: float, clock_at: float) -> "RunState":
        """Read an assembler.

        Parameters
        ----------
        assembler : Assembler
            The assembler of the acquisition.
        now_at : float
            Local clock, s.
        clock_at : float
            In a backlog, what was read so far: the local clock is far ahead of it.
        """
        done = assembler.done()
        return cls(
            elapsed=assembler.elapsed(clock_at),
            expected=assembler.expected(now_at),
            reached=assembler.reached(now_at),
            done=done,
            awaited=assembler.awaited(now_at) if done else 0,
            counters=assembler.counters(),
            first_sample_at=assembler.first_sample_at,
            heard_since=assembler.heard_since,
            triggers_expected=assembler.triggers_expected,
            rests=assembler.rests,
            refused=list(assembler.refused),
            notes=assembler.notes(),
        )


@dataclass(frozen=True, slots=True)
class EegState:
    """The EEG stream, as its source has it.

    Attributes
    ----------
    stream : dict or None
        See `streaming.status.Status.eeg_stream`.
    ambiguous : bool
        Whether several streams fit what was asked for, so that none was opened.
    placed_by_arrival : bool
        Whether samples have no usable stamps, so that no age can be told.
    state : str
        What is waited for, in words.
    notes : list of str
        What happened to the stream since the last status, in sentences.
    """

    stream: dict[str, Any] | None = None
    ambiguous: bool = False
    placed_by_arrival: bool = False
    state: str = ""
    notes: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, source: LslSource) -> "EegState":
        """Read a source."""
        stream = source.to_json()
        return cls(stream, source.ambiguous, source.placed_by_arrival, source.state, source.notes())


@dataclass(frozen=True, slots=True)
class FolderState:
    """The export folder, as its source has it.

    Attributes
    ----------
    counters : dict
        ``duplicate``, ``rejected_files``, ``out_of_order``, ``late``, ``vanished``, ``existing_files``.
    is_missing : bool
        Whether the folder is not there.
    state : str
        What is waited for, in words.
    ignored : list of (str, str)
        Each file that was passed over, and why.
    """

    counters: dict[str, int] = field(default_factory=dict)
    is_missing: bool = False
    state: str = ""
    ignored: list[tuple[str, str]] = field(default_factory=list)

    @classmethod
    def of(cls, source: FolderSource) -> "FolderState":
        """Read a source."""
        return cls(source.counters(), source.missing, source.state, source.ignored)


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """When a status is built, and what does not rest on runs and sources.

    Attributes
    ----------
    now_at, wall_s : float
        Local clock and wall time, s.
    behind : bool
        Whether a backlog is read.
    items_wait : bool
        Whether items wait to be taken: these were heard, although a busy machine has not taken them yet.
    record_fault : str
        Why the recording ended before the session did; empty while it goes on.
    lag_notes : list of str
        What was passed over as the reader fell behind.
    unread : list of str
        Reasons for which the bundle cannot read a series.
    """

    now_at: float
    wall_s: float
    behind: bool = False
    items_wait: bool = False
    record_fault: str = ""
    lag_notes: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)


class StatusBuilder:
    """Collect what the session has not been told, and tell it once.

    Parameters
    ----------
    listening_since : float or None
        See `rtdecode.windows.assembler.Assembler`.
    newest_sample_at : float, optional
        Of the acquisition before this one, until a sample comes; None for the first.
    before : callable, optional
        Adds the counts of the acquisition before this one.
    tr_s : float
        TR of the volumes that are expected, s; 0 where none are.

    Attributes
    ----------
    activity : SourceActivity
        When each source last gave something.
    heard : bool
        Whether anything has come in.
    simulated : bool
        Whether a source says that its participant is simulated.
    newest_sample_at : float or None
        Local time of the newest EEG sample, s.
    newest_costs : dict
        What the newest volume and EEG chunk cost, ms; None before the first.
    """

    def __init__(
        self,
        listening_since: float | None,
        newest_sample_at: float | None = None,
        before: Callable[[Counters], Counters] | None = None,
        tr_s: float = 0.0,
    ) -> None:
        self._listening_since = listening_since
        self._before = before
        # Triggers and volumes that the next statuses will tell of.
        self._untold: list[dict[str, Any]] = []
        # Reasons that were told, each once; there is one for each file that was passed over at most.
        self._noted: set[str] = set()
        # Sentences for the next status.
        self._news: list[str] = []
        self._sent_at = 0.0
        # Whether the next status is due, however recent the last one is.
        self._due_now = False
        self._costs: dict[str, list[float]] = {"volume_to_vector": [], "eeg_push": []}
        self.newest_costs: dict[str, float | None] = dict.fromkeys(self._costs)
        self.activity = SourceActivity(tr_s)
        self.heard = False
        self.simulated = False
        self.newest_sample_at = newest_sample_at

    @property
    def has_untold(self) -> bool:
        """Whether the next status leaves items for another one, or has just done so."""
        return bool(self._untold)

    def is_due(self, now_at: float) -> bool:
        """Whether a status is to be sent now."""
        full = len(self._untold) >= _UNTOLD_MOST
        return now_at - self._sent_at >= _STATUS_EVERY or full or self._due_now

    def sent(self, now_at: float) -> None:
        """Note that a status was sent that was due."""
        self._sent_at = now_at
        self._due_now = self.has_untold

    def begin(self, item: EegChunk | Trigger | Volume, *, behind: bool) -> None:
        """Let a status follow at once where the next acquisition would have to know of an item.

        Each volume is told of at once. If this process died, the next one would read the file again, and it
        knows from the statuses alone which volumes are recorded already. It also counts what was lost from
        the newest sample that was told of: the first one is told at once.
        """
        begins = isinstance(item, EegChunk) and self.newest_sample_at is None
        self._due_now = self._due_now or begins or (isinstance(item, Volume) and not behind)

    def remember(self, item: Trigger | Volume) -> None:
        """Tell of an item, without its pixels."""
        self._untold.append(resume.to_record(item))

    def note(self, sentence: str) -> None:
        """Tell a sentence."""
        self._news.append(sentence)

    def count_cost(self, name: str, seconds: float) -> None:
        """Tell what a volume or a chunk has cost, s."""
        self.newest_costs[name] = round(1e3 * seconds, 3)
        self._costs[name].append(1e3 * seconds)

    def build(
        self, moment: Moment, run: RunState, eeg: EegState | None, folder: FolderState | None
    ) -> Status:
        """Return the next status.

        Parameters
        ----------
        moment : Moment
            When the status is built, and what belongs to no source.
        run : RunState
            How far the runs are.
        eeg : EegState or None
            None without EEG.
        folder : FolderState or None
            None without volumes.
        """
        costs = self._costs
        self._costs = {name: [] for name in self._costs}
        folder_counters = {} if folder is None else folder.counters
        now_at = moment.now_at
        items = self._untold[:_UNTOLD_MOST]
        self._untold = self._untold[_UNTOLD_MOST:]
        return Status(
            elapsed=run.elapsed,
            expected=run.expected,
            reached=run.reached,
            done=run.done,
            awaited=run.awaited,
            waiting=self._waiting(now_at, run, eeg, folder),
            back=dict(self.activity.returns),
            folder=_folder_seen(folder),
            silent=None if moment.items_wait else self.activity.silent_s(now_at),
            eeg_stream=None if eeg is None else eeg.stream,
            eeg_ambiguous=eeg is not None and eeg.ambiguous,
            simulated=self.simulated,
            counters=self._counters(run.counters, eeg, folder_counters),
            costs=costs,
            existing=folder_counters.get("existing_files", 0),
            notes=self._notes(moment, run, eeg, folder),
            record_fault=moment.record_fault,
            heard=self.heard,
            items=items,
            newest_sample_at=self.newest_sample_at,
            first_sample_at=run.first_sample_at,
            heard_since=run.heard_since,
            listening_since=self._listening_since,
            triggers_expected=run.triggers_expected,
            behind=moment.behind,
            rests=run.rests,
            sent_at=now_at,
            wall_s=moment.wall_s,
        )

    def _counters(self, counters: Counters, eeg: EegState | None, folder: dict[str, int]) -> Counters:
        """Return the counts of runs and folder together, and of the acquisition before this one."""
        counters["runs"] = counters["runs"][-_RUNS_TOLD:]
        if eeg is not None and eeg.placed_by_arrival:
            counters["eeg"]["age_ms"] = None
        # What the source counts here never reaches the assembler, so both counts add up.
        for name in ("duplicate", "rejected_files"):
            counters["fmri"][name] += folder.get(name, 0)
        # A late or disordered volume is seen by the source and by the assembler: it counts once.
        for name in ("out_of_order", "late"):
            counters["fmri"][name] = max(counters["fmri"][name], folder.get(name, 0))
        return counters if self._before is None else self._before(counters)

    def _notes(
        self, moment: Moment, run: RunState, eeg: EegState | None, folder: FolderState | None
    ) -> list[str]:
        """Say what was passed over since the last status, one sentence for each reason."""
        # A folder may hold thousands of files of no use: of each reason one file is named.
        files = [] if folder is None else folder.ignored
        passed = [(reason, f"{name}: {reason}") for name, reason in files]
        passed += [("another series", sentence) for sentence in run.refused]
        fresh = {reason: sentence for reason, sentence in passed if reason not in self._noted}
        self._noted |= fresh.keys()
        examples = [*fresh.values()][:_NOTES_TOLD]
        unnamed = len(fresh) - _NOTES_TOLD
        remainder = [f"other files, for {unnamed} more reasons"] if unnamed > 0 else []
        sentences = [f"not used: {sentence}" for sentence in [*examples, *remainder, *moment.lag_notes]]
        unread = {reason for reason in moment.unread if reason} - self._noted
        self._noted |= unread
        sentences += [f"recorded, but not decoded: {reason}" for reason in unread]
        sentences += [*run.notes, *self._news]
        self._news = []
        return sentences + [f"EEG: {sentence}" for sentence in ([] if eeg is None else eeg.notes)]

    def _waiting(
        self, now_at: float, run: RunState, eeg: EegState | None, folder: FolderState | None
    ) -> list[str]:
        """Say what has not come yet, or has fallen silent."""
        waiting = []
        sources: Sequence[tuple[str, str, EegState | FolderState | None]]
        sources = (("eeg", "EEG", eeg), ("fmri", "fMRI", folder))
        for name, word, source in sources:
            if source is not None and self.activity.is_silent(name, now_at):
                waiting.append(f"{word}: {self.activity.since(name, now_at)}{source.state}")
        if not waiting and run.elapsed is None:
            waiting.append("the first volume trigger")
        return waiting


def _folder_seen(folder: FolderState | None) -> dict[str, int]:
    """Count how often the folder went away, and how often it came back."""
    gone = 0 if folder is None else folder.counters.get("vanished", 0)
    away = gone > 0 and folder is not None and folder.is_missing
    return {"gone": gone, "back": gone - away}
