"""Windows of recorded runs, normalised causally as in a session.

Runs come in; windows of all of them go out, each the mean of its volumes. What normalises a run (mean level
and drift components) is learned from other runs, because a live session normalises a run that nobody has
seen. So `CausalChain.trials` takes the training runs, and leaves out of them the run that it normalises.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode.bundle import Manifest
from rtdecode.scores.events import Span
from rtdecode.signal.volume.baseline import Drift, normalizer
from rtdecode.signal.volume.projection import Projection
from rtdecode.timing import TimingGrid
from train.data.chain import unit_statistics
from train.data.haxby import BoldRun
from train.models.haxby.drift import learn_drift, responses
from train.models.haxby.trials import Blocks, Trials

Matrix = NDArray[np.float64]
Part = tuple[Matrix, list[Span]]


@dataclass(frozen=True)
class CausalChain:
    """The runs, and how a session would read them.

    Attributes
    ----------
    manifest : Manifest
        Its baseline says how the level is followed. `with_drift` sets the number of components.
    runs : dict
        Number -> run.
    voxels : int64, (voxel,)
        Flat C-order indices.
    """

    manifest: Manifest
    runs: dict[int, BoldRun]
    voxels: NDArray[np.int64]
    # Windows by training runs, run and floor. Cross-validation asks for the same ones many times.
    _cache: dict[tuple[frozenset[int], int, float], Part] = field(default_factory=dict, repr=False)

    @property
    def projection(self) -> Projection:
        """The voxels on the grid of the volumes."""
        assert self.manifest.fmri is not None
        i, j, k = self.manifest.fmri.shape
        return Projection(self.voxels.astype(np.int64), (i, j, k), np.array(self.manifest.fmri.affine))

    def drift(self, training: Sequence[int], floor: float, blocks: Blocks) -> tuple[Matrix, Drift]:
        """Learn mean level (voxel,) and drift components from the runs `training`, labelled by `blocks`."""
        series = [self.runs[n].series(self.voxels) for n in training]
        courses = [
            responses(blocks.events[n], blocks.labels, len(y), self.runs[n].tr_s)
            for n, y in zip(training, series, strict=True)
        ]
        return learn_drift(series, courses, floor)

    def with_drift(self, drift: Drift) -> Manifest:
        """Return the manifest of a bundle with these components."""
        assert self.manifest.fmri is not None
        baseline = replace(self.manifest.fmri.baseline, components=len(drift.prior))
        return replace(self.manifest, fmri=replace(self.manifest.fmri, baseline=baseline))

    def trials(self, training: Sequence[int], floor: float, blocks: Blocks, *, keep: bool = True) -> Trials:
        """Make the windows of all runs in scanner units; no run is normalised by what it taught itself.

        Parameters
        ----------
        training : sequence of int
            Runs to learn from. A run among them is normalised by the others.
        floor : float
            See `train.models.haxby.drift.learn_drift`.
        blocks : Blocks
            Blocks of the runs, whose responses are told apart from drift.
        keep : bool
            Keep the windows for the next call. Must be False for exchanged labels: windows are kept by runs
            and floor, not by labels.
        """
        parts = []
        for number in self.runs:
            other_runs = frozenset(training) - {number}
            part = self._cache.get((other_runs, number, floor)) if keep else None
            if part is None:
                part = self._windows(number, *self.drift(sorted(other_runs), floor, blocks))
            if keep:
                self._cache[other_runs, number, floor] = part
            parts.append(part)
        return Trials(np.concatenate([x for x, _ in parts]), [span for _, spans in parts for span in spans])

    def _windows(self, number: int, mean: Matrix, drift: Drift) -> Part:
        """Compute the mean of each window's volumes, which the grid names as in a session without holes."""
        manifest = self.with_drift(drift)
        assert manifest.fmri is not None
        stats = unit_statistics(manifest, mean) | drift.arrays()
        # The same object as in a session: it sees one volume after the other, and none ahead.
        norm = normalizer(stats, manifest.fmri.baseline)
        normalised = np.stack(
            [norm.push(x.astype(np.float32)) for x in self.runs[number].series(self.voxels)]
        )
        x, spans = window_means(normalised, manifest.grid, number, self.runs[number].tr_s)
        return np.stack(x), spans


def window_means(
    series: NDArray[Any], grid: TimingGrid, number: int, tr_s: float
) -> tuple[list[Matrix], list[Span]]:
    """Compute the mean of each window's volumes in a run, and its span; leave windows without a volume out.

    Parameters
    ----------
    series : (volume, voxel)
        Volumes of the run.
    grid : TimingGrid
        Says which volumes a window has, and its span.
    number : int
        Number of the run.
    tr_s : float
        Time between volumes, s.
    """
    x: list[Matrix] = []
    spans: list[Span] = []
    for k in range(grid.count(len(series) * tr_s)):
        # The lag reaches beyond the run's end for its last windows.
        volumes = [n for n in grid.volumes(k) if n < len(series)]
        if volumes:
            start, stop = (float(t) for t in grid.span(k))
            x.append(series[volumes].mean(0, dtype=np.float64))
            spans.append((number, start, stop))
    return x, spans
