"""What the operator sees on the terminal while a session runs."""

import time
from collections import Counter
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress

_LINE_EVERY = 10.0


class Progress:
    """A bar on a terminal, a line every ten seconds elsewhere; all on stderr.

    Parameters
    ----------
    console : Console
    seconds : float or None
        Run time to be decoded, where it is known.
    """

    def __init__(self, console: Console, seconds: float | None) -> None:
        self._console, self._line_at = console, time.monotonic()
        self._bar = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(),
            TimeElapsedColumn(),
            console=console,
            refresh_per_second=4,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("starting", total=seconds)
        self._bar.start()

    def update(self, status: dict[str, Any], counts: Counter[str]) -> None:
        """Show how far the session is."""
        elapsed = status.get("elapsed")
        if elapsed is None:
            return
        text = (
            f"run time {max(elapsed, 0):.0f} s   final {counts['final']}   preview {counts['preview']}   "
            f"skipped {counts['skipped']}"
        )
        self._bar.update(self._task, completed=max(elapsed, 0.0), description=text)
        if not self._console.is_terminal and time.monotonic() - self._line_at > _LINE_EVERY:
            self._line_at = time.monotonic()
            self.say(text)

    def say(self, text: str) -> None:
        """Print a line."""
        self._console.print(text, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Take the bar away."""
        self._bar.stop()
