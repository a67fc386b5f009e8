"""Runs that were kept from teaching, as held-out windows for an evaluation.

The judges `last-run`, of one's own recordings, and `held-out-runs`, of data sets, evaluate them.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rtdecode.bundle import Bundle
from rtdecode.disk.clip_file import Pixels
from rtdecode.phantom.film.watched import Watched
from rtdecode.scores.events import Span
from train.data.clip_grid import shown_frames
from train.judging.film_scores import Shown, describe
from train.judging.pictures import contact_sheet
from train.judging.references import recoded
from train.judging.section import EvaluatedRun, HeldOutWindows
from train.work import Arrays

_SHEET_ROWS = 12
# Where in a clip the frames lie that the sheet shows, as shares of its length.
_SHEET_AT = (1 / 8, 1 / 2, 7 / 8)


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

    def clips(self) -> NDArray[np.uint8]:
        """Return what the windows showed as clips of the bundle, (window, frame, row, column, 3)."""
        ...

    def watched(self) -> Watched:
        """Return the film as if its windows had been shown one after the other, without the gaps."""
        ...

    def arrays(self, bundle: Bundle) -> Arrays:
        """Return the signals by port, as the bundle reads them."""
        ...


def windows_of(run: EvaluatedRun, runs: Sequence[HeldRun]) -> Iterator[HeldOutWindows]:
    """Yield the windows of one run after the other."""
    window_s = float(run.bundle.manifest.grid.window)
    for number, held_run in enumerate(runs):
        spans: list[Span] = [(number, float(start), float(start) + window_s) for start in held_run.run_s]
        yield HeldOutWindows(number, held_run.arrays(run.bundle), spans, _describe(run, held_run, number))


def _describe(run: EvaluatedRun, held_run: HeldRun, number: int) -> Shown:
    # Windows are described one after the other, without the gaps between them.
    manifest = run.bundle.manifest
    length_s = shown_frames(manifest) / manifest.clip.fps
    where: list[Span] = [(number, k * length_s, (k + 1) * length_s) for k in range(held_run.windows)]
    return describe(held_run.watched(), where, recoded(run.system, run.bundle, held_run.clips()))


def sheet(first: dict[str, Sequence[Pixels]], bundle: Bundle) -> Image.Image:
    """Draw some windows of the first run, from all over it: the film, and what is looked at beside it.

    Parameters
    ----------
    first : dict
        Heading -> a clip for each window.
    bundle : Bundle
    """
    count = len(first["film"])
    rows = np.linspace(0, count - 1, min(_SHEET_ROWS, count)).astype(int)
    picked = {name: [clips[row] for row in rows] for name, clips in first.items()}
    frames = [round(share * (shown_frames(bundle.manifest) - 1)) for share in _SHEET_AT]
    return contact_sheet(picked, frames, f"held-out run, {bundle.manifest.steps} steps")
