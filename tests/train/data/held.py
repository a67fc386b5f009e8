"""A data set in memory, whose windows and values a test chooses."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from train.data.dataset import Acquired, Chain, Column, WindowTable


def table(*windows: tuple[str, str, str, bool]) -> WindowTable:
    """Make a table from (subject, run, shown, held out), a window every 4 s of a run."""
    subject, run, films, held_out = zip(*windows, strict=True)
    showings: dict[tuple[str, str], int] = {}
    times: dict[tuple[str, str], int] = {}
    repeat = []
    start_s = []
    for its_subject, its_run, film in zip(subject, run, films, strict=True):
        repeat.append(showings.setdefault((its_subject, film), 0))
        start_s.append(4.0 * times.setdefault((its_subject, its_run), 0))
        showings[its_subject, film] += 1
        times[its_subject, its_run] += 1
    return WindowTable(
        subject=np.array(subject),
        run=np.array(run),
        shown=np.array(films),
        start_s=np.array(start_s),
        repeat=np.array(repeat),
        held_out=np.array(held_out),
    )


@dataclass
class MemoryDataSet:
    """Columns in memory, each a list with an array for each window."""

    windows: WindowTable
    values: Mapping[Column, Sequence[Any]]
    layout: str = "held"
    study: str = "held"
    folder: Path = Path("held")
    window_s: float = 4.0
    lag_s: float = 4.0
    tr_s: float | None = 0.8
    sfreq: float | None = 100.0
    fps: float | None = 8.0
    chain: Chain = "offline"
    notes: Sequence[str] = ()
    missing: Sequence[str] = ()
    acquisition: Acquired | None = None
    reads: list[int] = field(default_factory=list)

    @property
    def columns(self) -> Sequence[Column]:
        return list(self.values)

    def read(self, column: Column, rows: Sequence[int] | NDArray[np.int64]) -> NDArray[Any]:
        assert len(set(self.windows.subject[rows].tolist())) == 1
        self.reads.append(len(rows))
        return np.stack([self.values[column][row] for row in rows])

    def regions(self, subject: str) -> Mapping[str, NDArray[np.bool_]]:
        return {}

    def acquired(self, subject: str) -> Acquired | None:
        return self.acquisition
