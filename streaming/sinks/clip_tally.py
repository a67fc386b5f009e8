"""What has become of a session's windows: counts, durations, and sentences on the newest of each kind."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from rtdecode.types import Window
from streaming.decode.deadline import Job
from streaming.sinks import meter
from streaming.sinks.clip_writer import EmittedClip
from streaming.sinks.film import describe
from streaming.sinks.presence import PresenceLog


@dataclass(frozen=True, slots=True)
class LastClip:
    """The newest clip that was emitted.

    Attributes
    ----------
    name : str
        Its revision and window.
    emitted_at : float
        On the clock of the ledger, s.
    marks : list of str
        ``late``, ``degraded``.
    """

    name: str
    emitted_at: float
    marks: list[str]


class ClipTally:
    """Count clips that were emitted and windows that were skipped.

    Parameters
    ----------
    required : sequence of str
        The modalities that the session was asked for: a final is degraded that lacks one of these, or any of
        its data.
    presence : PresenceLog
        Follows whether the finals hold a brain that the bundle can read.
    hop_s, tr_s : float
        Time from one window to the next, and from one volume to the next (0 without volumes), s.

    Attributes
    ----------
    presence : PresenceLog
        As given.
    hop_s, tr_s : float
        As given, s.
    counts : Counter
        final, preview, refined, skipped, degraded, late, and fallback: finals that the fallback decoded.
    newest : LastClip or None
        The newest clip, None before the first.
    words : dict
        Sentence on the newest clip or window that counted as ``late``, ``degraded`` or ``skipped``.
    steps : Counter
        Emitted clips by the number of denoising steps that they got.
    meter : Meter
        Durations of the stages of the clips.
    """

    def __init__(self, required: Sequence[str], presence: PresenceLog, hop_s: float, tr_s: float) -> None:
        self._asked = required
        self._notes: list[str] = []
        self._categories: list[str] = []
        self.presence = presence
        self.hop_s = hop_s
        self.tr_s = tr_s
        self.counts: Counter[str] = Counter()
        self.newest: LastClip | None = None
        self.words: dict[str, str] = {}
        self.steps: Counter[int] = Counter()
        self.meter = meter.Meter()

    def add(self, emitted: EmittedClip) -> None:
        """Count a clip that is out."""
        job = emitted.job
        window = job.window
        decoded = emitted.decoded
        # The session has counted the costs of each volume and chunk once already, from the
        # statuses. The time since the stimulus is summed up for finals alone.
        excluded = {*job.costs, *(["since_stimulus"] if window.revision != "final" else [])}
        durations = emitted.durations
        self.meter.add({name: durations[name] for name in durations.keys() - excluded})
        self.counts[window.revision] += 1
        if decoded.bundle is not None and window.revision == "final":
            self.counts["fallback"] += 1
        self.steps[decoded.clip.steps] += 1
        self._mark(window, emitted)
        if window.revision == "final":
            if decoded.clip.scores:
                self._categories.append(f"{window_name(window)}: {likeliest(decoded.clip.scores)}")
            if decoded.clip.presence is not None:
                start_s = round(window.session_s, 6)
                self._notes += self.presence.add(start_s, decoded.clip.presence, decoded.clip.brain_by)

    def skip(self, job: Job, why: str) -> None:
        """Count a window that has no clip: a final, as every window ends in one final or one skip."""
        if job.window.revision == "final":
            self.counts["skipped"] += 1
            self.words["skipped"] = f"{window_name(job.window)}: {why}"

    def abandon(self, count: int) -> None:
        """Count windows that were reached and never decoded as skipped."""
        if count > 0:
            self.counts["skipped"] += count
            self.words["skipped"] = "the session ended before it was decoded"

    def note(self, sentence: str) -> None:
        """Add a sentence to the `notes`."""
        self._notes.append(sentence)

    def notes(self) -> list[str]:
        """Return sentences on what the clips show of the session since the last call."""
        sentences = self._notes
        self._notes = []
        return sentences

    def categories(self) -> list[str]:
        """Return the likeliest category of each final since the last call, where the bundle names any."""
        sentences = self._categories
        self._categories = []
        return sentences

    def _mark(self, window: Window, emitted: EmittedClip) -> None:
        """Count a clip as late or degraded, and keep what there is to say of it."""
        name = window_name(window)
        marks = []
        if emitted.late_s:
            marks.append("late")
            self.words["late"] = f"{name} came {emitted.late_s:.1f} s after its last input could be read"
        if window.revision == "final" and any(window.missing[modality] > 0 for modality in self._asked):
            marks.append("degraded")
            self.words["degraded"] = describe(window)
        self.counts.update(marks)
        # A refined clip is of a window long gone: it does not tell whether the session keeps up.
        if window.revision != "refined":
            self.newest = LastClip(name, emitted.emitted_at, marks)


def likeliest(scores: dict[str, float] | None) -> str:
    """Return the likeliest category and its probability, ``house 0.43``; empty without scores."""
    if not scores:
        return ""
    label = max(scores, key=lambda name: scores[name])
    return f"{label} {scores[label]:.2f}"


def window_name(window: Window) -> str:
    """Name a window by its revision and number, and by its run from the second run on."""
    run = f" of run {window.run}" if window.run else ""
    return f"{window.revision} of window {window.index}{run}"
