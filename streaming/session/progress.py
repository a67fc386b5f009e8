"""What the operator sees on the terminal while a session runs."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress

from rtdecode.terminal import plain
from streaming.checks.signals import is_stale
from streaming.session.events import EventNotifier, happened
from streaming.session.run_quality import QualityMonitor
from streaming.sinks.clip_tally import ClipTally
from streaming.status import Status

# Time between two standing lines where there is no terminal to keep a bar on, s.
_LINE_EVERY = 10.0
# Sentences that go into the report: all of an hour in which something happens all the time.
_MAX_SENTENCES = 1000


class Progress:
    """Show a bar on a terminal or a line every ten seconds elsewhere, and say what happens; all on stderr.

    Parameters
    ----------
    console : Console
        Where the bar or the lines are shown.
    seconds : float or None
        Run time to be decoded, s; None if the session goes on until it is stopped.
    hop_s : float
        Time from one window to the next, s. Each kind of event gets at most one line in that time.
    on_sentence : callable, optional
        Gets every sentence of `tell`, too.
    advisor : QualityMonitor, optional
        Says of each run whether its first minute looks usable.

    Attributes
    ----------
    told : sequence of dict
        The newest sentences of `tell`, each with the time of the newest run: ``run_s`` and ``text``.
    """

    def __init__(
        self,
        console: Console,
        seconds: float | None,
        hop_s: float,
        on_sentence: Callable[[str], None] | None = None,
        advisor: QualityMonitor | None = None,
    ) -> None:
        self._console = console
        self._heard = on_sentence
        self._advisor = advisor
        self._elapsed: float | None = None
        self.told: deque[dict[str, Any]] = deque(maxlen=_MAX_SENTENCES)
        self._line_at = time.monotonic()
        self._news = EventNotifier(hop_s)
        self._bar = RichProgress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TimeElapsedColumn(),
            console=console,
            refresh_per_second=4,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("starting", total=seconds)
        self._bar.start()

    def update(self, status: Status, tally: ClipTally, away_since: float | None = None) -> None:
        """Show how far the session is, and say what has happened.

        Parameters
        ----------
        status : Status
            The newest status of the acquisition.
        tally : ClipTally
            Counts of the clips so far.
        away_since : float, optional
            Wall time since which no decoder elsewhere answers, s.
        """
        now_at = time.monotonic()
        self._elapsed = status.elapsed
        for sentence in self._news.take(happened(status, tally, now_at), now_at):
            self.tell(sentence)
        self._advise(status)
        elapsed = status.elapsed
        if elapsed is None:
            return
        lines = standing(status, tally, now_at, away_since)
        self._bar.update(self._task, completed=max(elapsed, 0.0), description="\n".join(map(plain, lines)))
        if not self._console.is_terminal and now_at - self._line_at > _LINE_EVERY:
            self._line_at = now_at
            self.say("   ".join(lines))

    def tell(self, sentence: str) -> None:
        """Say what happens, here and wherever else it is listened to; it names no file and no folder."""
        self.say(sentence)
        self.told.append({"run_s": self._elapsed, "text": sentence})
        if self._heard is not None:
            self._heard(sentence)

    def say(self, text: str) -> None:
        """Print a line."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def close(self, status: Status, tally: ClipTally) -> None:
        """Say what has not been said yet, and take the bar away."""
        now_at = time.monotonic()
        # No clip is to come when a session ends, so the age of the last one is no event.
        events = happened(replace(status, elapsed=None), tally, now_at)
        for sentence in self._news.take(events, now_at, ends=True):
            self.tell(sentence)
        self._advise(status)
        self._bar.stop()

    def _advise(self, status: Status) -> None:
        """Say of each run whether it looks usable, once its first minute is over."""
        if self._advisor is not None:
            for sentence in self._advisor.take(status):
                self.tell(sentence)


def standing(status: Status, tally: ClipTally, now_at: float, away_since: float | None = None) -> list[str]:
    """Describe how a session stands in two lines: its time and newest clip, and what was counted."""
    counts = tally.counts
    newest = tally.newest
    elapsed = status.elapsed or 0.0
    eeg = status.counters["eeg"]
    fmri = status.counters["fmri"]
    clip = "no clip yet"
    if newest is not None:
        age_s = max(0.0, now_at - newest.emitted_at)
        stale = ["stale"] if is_stale(age_s, tally.hop_s) else []
        marks = "".join(f", {mark.upper()}" for mark in [*newest.marks, *stale])
        clip = f"last clip {age_s:.1f} s ago: {newest.name}{marks}"
    totals = {name: counts[name] for name in ("final", "preview", "late", "degraded", "skipped")}
    totals |= {"EEG gaps": eeg.get("gaps") or 0}
    totals |= {"volumes missing": fmri.get("missing") or 0, "volumes late": fmri.get("late") or 0}
    counted = "   ".join(f"{name} {count}" for name, count in totals.items())
    away = ""
    if away_since is not None:
        away = f"   DECODER AWAY since {time.strftime('%H:%M:%S', time.localtime(away_since))}"
    return [f"run time {max(elapsed, 0):.0f} s   {clip}{away}", counted]
