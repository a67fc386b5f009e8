"""What the acquisition process tells of a session, twice a second or more: plain values by name.

Where a page is shown, arrays go beside it. If there is EEG since the last status: ``traces`` (channel, n) at
the bundle's rate, z-scored, and ``traced`` (n,), whether a sample is usable. If there is a volume:
``slices`` and ``region`` (`streaming.session.slices.cut`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from rtdecode.windows.assembler import Counters


def _no_counts() -> Counters:
    return {"eeg": {}, "fmri": {}, "clock": {}, "runs": []}


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """One status of the acquisition; ``Status()`` is what is known before the first.

    Attributes
    ----------
    elapsed : float or None
        Run time of the newest run, s; None before the first run.
    expected, reached : int
        Windows that a session of this length has, and windows whose data have all been acquired.
    done : bool
        Whether every window of a limited session has gone out.
    awaited : int
        Once `done`: finals that went out without volumes which may still come.
    waiting : list of str
        What has not come yet or has fallen silent, in words.
    back : dict
        Source -> how often it came back after silence.
    folder : dict
        How often the export folder was ``gone`` and ``back``.
    silent : float or None
        Time since anything came, s; None before that, and while items wait to be taken.
    eeg_stream : dict or None
        The stream that the session stays with (`streaming.sources.lsl.opened.OpenedStream.to_json`) and the
        number of the ``source`` that is read; None before it was found.
    eeg_ambiguous : bool
        Whether several streams fit what was asked for, so that none was opened.
    simulated : bool
        Whether a source says that its participant is simulated.
    counters : Counters
        Counts of the session; of the runs only the newest.
    costs : dict
        Name (``volume_to_vector``, ``eeg_push``) -> durations since the last status, ms.
    existing : int
        Files that lay in the export folder at the start and were passed over.
    notes : list of str
        What was passed over or went wrong since the last status, in sentences.
    record_fault : str
        Why the recording ended before the session did; empty while it goes on.
    heard : bool
        Whether anything has come in since the acquisition process started.
    items : list of dict
        Triggers and volumes since the last status, without pixels (`streaming.session.resume`).
    newest_sample_at, first_sample_at : float or None
        Local times of EEG samples, s: of the newest one, and of the one with which the run began.
    heard_since : list of float
        See `rtdecode.windows.assembler.Assembler`.
    listening_since : float or None
        See `rtdecode.windows.assembler.Assembler`.
    triggers_expected : bool
        Whether a run without volumes waits for its first trigger.
    behind : bool
        Whether files that lay in the folder before the session are still being read.
    rests : bool
        Whether the newest run has ended with its last volume, as its files are of an earlier time.
    sent_at, wall_s : float or None
        When this was sent, by the local clock and in wall time, s; None before the first.
    """

    elapsed: float | None = None
    expected: int = 0
    reached: int = 0
    done: bool = False
    awaited: int = 0
    waiting: list[str] = field(default_factory=lambda: ["the acquisition process"])
    back: dict[str, int] = field(default_factory=dict)
    folder: dict[str, int] = field(default_factory=dict)
    silent: float | None = None
    eeg_stream: dict[str, Any] | None = None
    eeg_ambiguous: bool = False
    simulated: bool = False
    counters: Counters = field(default_factory=_no_counts)
    costs: dict[str, list[float]] = field(default_factory=dict)
    existing: int = 0
    notes: list[str] = field(default_factory=list)
    record_fault: str = ""
    heard: bool = False
    items: list[dict[str, Any]] = field(default_factory=list)
    newest_sample_at: float | None = None
    first_sample_at: float | None = None
    heard_since: list[float] = field(default_factory=list)
    listening_since: float | None = None
    triggers_expected: bool = True
    behind: bool = True
    rests: bool = False
    sent_at: float | None = None
    wall_s: float | None = None

    @property
    def eeg_source(self) -> int:
        """Number of the source that the EEG is read from: 0 is the one that was opened first."""
        return 0 if self.eeg_stream is None else self.eeg_stream["source"]

    @property
    def newest_run(self) -> dict[str, Any] | None:
        """Counts of the newest run; None before the first."""
        runs = self.counters["runs"]
        return runs[-1] if runs else None

    def to_json(self) -> dict[str, Any]:
        """Return the values by name, as a message has them."""
        return {attribute.name: getattr(self, attribute.name) for attribute in fields(self)}

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> "Status":
        """Read the status of a message.

        Raises
        ------
        TypeError
            If a name is unknown.
        """
        return cls(**tree)
