"""One's own recordings for a plan in closed form: all windows that teach, in memory, at some voxels."""

from dataclasses import dataclass, replace

import numpy as np

from rtdecode.signal.eeg.band import EegBand
from rtdecode.signal.volume.baseline import Baseline
from rtdecode.timing import TimingGrid
from train.config.run_context import Arrays, RunContext
from train.data.arrays import normalised_signals, statistics
from train.data.chain import draft_bundle, unit_statistics
from train.data.driven_voxels import driven_voxels
from train.data.recorded_sessions import RecordedSessions
from train.data.showing import by_title
from train.data.taught import Taught


@dataclass(frozen=True)
class RecordedWindows(RecordedSessions):
    """Recordings, and how many voxels of the head are read of them.

    Attributes
    ----------
    voxels : int
        Those that follow what was shown best (`train.data.driven_voxels`).
    """

    voxels: int = 0

    def everybody_taught(self, work: RunContext) -> dict[str, Taught]:
        """Return the windows that teach of the one participant, who needs no name."""
        return {"": self._taught(work)}

    def _taught(self, work: RunContext) -> Taught:
        head = self.taught[0].head
        level = self.taught[0].level
        clips = np.concatenate([showing.film().clips for showing in self.taught])
        draft = self.manifest()
        # Signals stay in their own units first: the statistics that normalise them come from these windows.
        raw = draft_bundle(draft, unit_statistics(draft, level), head)
        watched: list[Arrays] = [
            work.stage(f"session-{showing.name}", lambda showing=showing: showing.arrays(raw))
            for showing in self.taught
        ]
        signals = {name: np.concatenate([part[name] for part in watched]) for name in watched[0]}
        folds = by_title(self.taught)
        driven = driven_voxels(list(clips), signals["fmri"], folds, self.voxels)
        signals["fmri"] = signals["fmri"][:, :, driven]
        projection = replace(head, voxels=head.voxels[driven])
        stats = statistics(signals, level[driven]) | {"mean_clip": np.rint(clips.mean(0)).astype(np.uint8)}
        return Taught(
            signals=signals | normalised_signals(signals, stats),
            clips=clips,
            folds=folds,
            manifest=replace(self.manifest(projection), provenance=self.provenance(work)),
            stats=stats,
            projection=projection,
        )


def recorded_windows(grid: TimingGrid, band: EegBand, baseline: Baseline, voxels: int) -> RecordedWindows:
    """Say how recordings are read; which ones is told when a run begins (`with_recordings`)."""
    return RecordedWindows(grid, band, baseline, voxels=voxels)
