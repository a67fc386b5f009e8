"""Runs that were kept from teaching, as held-out windows for an evaluation.

The judges `last-run`, of one's own recordings, and `held-out-runs`, of data sets, evaluate them.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rtdecode.bundle import Bundle
from rtdecode.disk.clip_file import Pixels
from rtdecode.errors import UsageError
from rtdecode.phantom.film.watched import Watched
from rtdecode.scores.events import Span
from train.config.run_context import Arrays
from train.data.clip_grid import shown_frames
from train.evaluation.film_scores import describe
from train.evaluation.held_out_sessions import HeldOutSessions, draw_windows
from train.evaluation.references import recoded
from train.evaluation.section import EvaluatedRun, HeldOutWindows


class HeldRun(Protocol):
    """A run that was kept from teaching."""

    @property
    def windows(self) -> int:
        """Number of windows."""
        ...

    @property
    def run_s(self) -> NDArray[np.float64]:
        """Start of each window in the run, s."""
        ...

    def clips(self) -> Sequence[Pixels] | NDArray[np.uint8]:
        """Return what the windows showed as clips of the bundle, (frame, row, column, 3) each."""
        ...

    def watched(self) -> Watched:
        """Return the film as if its windows had been shown one after the other, without the gaps."""
        ...

    def arrays(self, bundle: Bundle) -> Arrays:
        """Return the signals by port, as the bundle reads them."""
        ...


def sessions_of(
    run: EvaluatedRun, runs: Sequence[HeldRun], window_count: int | None = None, *, same: bool = False
) -> HeldOutSessions:
    """Make the sessions of an evaluation from runs; `window_count` and `same` are those of `drawn`."""
    counts = [held_run.windows for held_run in runs]
    if not sum(counts):
        raise UsageError(
            "evaluation-without-windows",
            "no window was held out, so that there is nothing to evaluate. Hold out a run or a session when "
            "the system is trained (docs/data.md).",
        )
    rows = draw_windows(counts, window_count, same=same)

    def windows(number: int) -> HeldOutWindows:
        return _windows(run, runs[number], number, rows[number])

    return HeldOutSessions("held-out runs", rows, sum(counts), windows)


def _windows(run: EvaluatedRun, held_run: HeldRun, number: int, rows: NDArray[np.int64]) -> HeldOutWindows:
    manifest = run.bundle.manifest
    window_s = float(manifest.grid.window)
    spans: list[Span] = [(number, float(start), float(start) + window_s) for start in held_run.run_s[rows]]
    inputs = {name: values[rows] for name, values in held_run.arrays(run.bundle).items()}
    # Windows are described one after the other, without the gaps between them.
    length_s = shown_frames(manifest) / manifest.clip.fps
    where: list[Span] = [(number, float(k * length_s), float((k + 1) * length_s)) for k in rows]
    clips = held_run.clips()
    again = recoded(run.system, run.bundle, (clips[row] for row in rows))
    return HeldOutWindows(number, inputs, spans, describe(held_run.watched(), where, again, rows))
