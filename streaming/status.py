"""What the acquisition process tells of a session, twice a second or more: plain values by name.

Where a page is shown, arrays go beside it. If there is EEG since the last status: ``traces`` (channel, n) at
the bundle's rate, z-scored, and ``traced`` (n,), whether a sample is usable. If there is a volume:
``slices`` and ``region`` (`streaming.session.slices.cut`).
"""

from typing import Any, TypedDict

from rtdecode.windows.assembler import Counters


class Status(TypedDict):
    """One status of the acquisition; `NOTHING` stands for what is known before the first.

    Attributes
    ----------
    kind : str
        ``status``, or ``end`` for the last one.
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
        Triggers and volumes since the last status, without pixels (`streaming.session.past`).
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
    at, wall_s : float or None
        When this was told, by the local clock and in wall time, s; None in `NOTHING`.
    """

    kind: str
    elapsed: float | None
    expected: int
    reached: int
    done: bool
    awaited: int
    waiting: list[str]
    back: dict[str, int]
    folder: dict[str, int]
    silent: float | None
    eeg_stream: dict[str, Any] | None
    eeg_ambiguous: bool
    simulated: bool
    counters: Counters
    costs: dict[str, list[float]]
    existing: int
    notes: list[str]
    record_fault: str
    heard: bool
    items: list[dict[str, Any]]
    newest_sample_at: float | None
    first_sample_at: float | None
    heard_since: list[float]
    listening_since: float | None
    triggers_expected: bool
    behind: bool
    rests: bool
    at: float | None
    wall_s: float | None


NOTHING: Status = {
    "kind": "status",
    "elapsed": None,
    "expected": 0,
    "reached": 0,
    "done": False,
    "awaited": 0,
    "waiting": ["the acquisition process"],
    "back": {},
    "folder": {},
    "silent": None,
    "eeg_stream": None,
    "eeg_ambiguous": False,
    "simulated": False,
    "counters": {"eeg": {}, "fmri": {}, "clock": {}, "runs": []},
    "costs": {},
    "existing": 0,
    "notes": [],
    "record_fault": "",
    "heard": False,
    "items": [],
    "newest_sample_at": None,
    "first_sample_at": None,
    "heard_since": [],
    "listening_since": None,
    "triggers_expected": True,
    "behind": True,
    "rests": False,
    "at": None,
    "wall_s": None,
}
