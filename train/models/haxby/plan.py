"""The plan `category`: which of eight kinds of object a participant sees, from recorded fMRI alone.

`HaxbyRuns` is the recipe's data: runs, their blocks, and the chain that reads them as a session would.
`CategoryPlan.train` chooses its settings by cross-validation inside the training runs, fits the classifier
once more on all of them, and hands it over as a `train.models.haxby.system.Category`.
"""

from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from rtdecode.bundle import ClipGeometry, FmriInput, Manifest
from rtdecode.errors import UsageError
from rtdecode.signal.volume.baseline import Baseline
from rtdecode.timing import TimingGrid
from train.config.recipe import numbers
from train.config.run_context import Arrays, RunContext
from train.data import haxby
from train.data.chain import draft_bundle, draft_manifest, windows
from train.data.phantom import window_arrays
from train.interface.system import Trained
from train.models.haxby.causal import CausalChain
from train.models.haxby.pictograms import pictograms
from train.models.haxby.system import Category
from train.models.haxby.trials import Blocks, Candidates, Choice, Learn, choose, fit

NOTE = "category decoding, recorded data, not a reconstruction"
# Height and width of a picture, px.
_SIZE = (128, 192)
_GOLDEN = 4
# Fewest training runs: one is left out for the choice, another one for the normalisation, and one
# must be left to learn from.
_FEWEST = 3


@dataclass
class HaxbyRuns:
    """Runs of one participant of Haxby et al. (2001), and how a bundle reads them.

    Attributes
    ----------
    runs : str
        Numbers of the runs that are trained on, ``1-8`` for example.
    grid : TimingGrid
        When windows and their volumes lie, and the haemodynamic lag.
    baseline : Baseline
        How the level of a run is followed.
    others : str
        Numbers of further runs, which are there to judge on.
    """

    runs: str
    grid: TimingGrid
    baseline: Baseline
    others: str = ""
    _chain: CausalChain | None = field(default=None, init=False, repr=False)

    @property
    def taught(self) -> list[int]:
        """Numbers of the runs that are trained on."""
        return numbers(self.runs)

    @property
    def all_runs(self) -> list[int]:
        """Numbers of all runs."""
        further_runs = numbers(self.others) if self.others else []
        return sorted({*self.taught, *further_runs})

    def check(self, work: RunContext) -> None:
        """Refuse too few runs, and data that are not there.

        Raises
        ------
        UsageError
        """
        enough("data.runs", self.taught, _FEWEST)
        haxby.folder(work.data)

    def chain(self, work: RunContext) -> CausalChain:
        """Return all runs and how a session would read them. Only the training runs choose the voxels."""
        if self._chain is None:
            place = haxby.folder(work.data)
            bold_runs = {number: haxby.load(place, number) for number in self.all_runs}
            voxels = brain(list(bold_runs.values()), self.taught)
            draft = _manifest(self.grid, bold_runs[self.taught[0]], voxels, self.baseline)
            self._chain = CausalChain(draft, bold_runs, voxels)
        return self._chain

    def blocks(self, work: RunContext) -> Blocks:
        """Return what was shown in each run."""
        return Blocks({number: run.events for number, run in self.chain(work).runs.items()}, haxby.LABELS)


@dataclass(frozen=True)
class CategoryPlan:
    """How the classifier is made.

    Attributes
    ----------
    floors, shrinkages, corrections : list of float
        Candidates; chosen by leaving runs out of those that are trained on.
    """

    floors: list[float]
    shrinkages: list[float]
    corrections: list[float]

    @property
    def candidates(self) -> Candidates:
        """What is chosen from."""
        return Candidates(self.corrections, self.floors, self.shrinkages)

    def train(self, work: RunContext, data: HaxbyRuns, phases: dict[str, Any]) -> Trained:
        """Choose the settings and fit the classifier. There are no phases."""
        chain = data.chain(work)
        blocks = data.blocks(work)
        runs = data.taught
        # Choose inside the training runs, then fit once more on all of them.
        choice = choose(by_floor(chain, blocks, self.floors), blocks, runs, self.candidates)
        trials = chain.trials(runs, choice.floor, blocks)
        truth, _ = blocks.truth(trials.spans, choice.correction_s)
        scale, [(weights, offset)] = fit(trials, truth, runs, [choice.shrinkage], len(blocks.labels))
        provenance = {
            "data": "Haxby et al. 2001, OpenfMRI ds000105, one slice",
            "runs": runs,
            "onset_correction_s": choice.correction_s,
            "choice": asdict(choice),
        }
        # Trials leave out the run that they normalise. The bundle's drift comes from all training runs,
        # because a session's run is none of them.
        mean, drift = chain.drift(runs, choice.floor, blocks)
        manifest = replace(chain.with_drift(drift), provenance=provenance)
        stats = {"fmri_mean": mean.astype(np.float32), "fmri_scale": scale.astype(np.float32)}
        stats |= drift.arrays()
        system = Category(
            {
                "weights": (weights / choice.temperature).astype(np.float32),
                "offset": (offset / choice.temperature).astype(np.float32),
                "pictures": pictograms(haxby.LABELS, _SIZE, NOTE),
            }
        )
        return Trained(
            system=system,
            manifest=manifest,
            stats=stats,
            projection=chain.projection,
            golden=_golden(manifest, chain, stats, chain.runs[runs[0]]),
            tables={"choice": asdict(choice)},
        )

    def restore(self, weights: Arrays) -> Category:
        """Make the system again from the weights of a run."""
        return Category(weights)


def enough(name: str, runs: list[int], least: int) -> None:
    """Refuse fewer runs than are needed. `name` is their key in the recipe."""
    if len({*runs}) < least:
        raise UsageError(
            "haxby-too-few-runs",
            "{key}={runs}: {min_runs} runs or more are needed, because settings are chosen on "
            "training runs that are left out in turn. Give more, 1-8 for example.",
            key=name,
            runs=",".join(map(str, runs)),
            min_runs=least,
        )


def choice_of(trained: Trained) -> Choice:
    """Return the settings that were chosen in training."""
    return Choice(**trained.tables["choice"])


def by_floor(chain: CausalChain, blocks: Blocks, floors: list[float]) -> dict[float, Learn]:
    """Return, for each floor of the drift components, a function from training runs to windows."""
    return {floor: partial(chain.trials, floor=floor, blocks=blocks) for floor in floors}


def brain(runs: list[haxby.BoldRun], training: list[int]) -> np.ndarray:
    """Return flat indices of the voxels whose mean in the training runs is above a tenth of the brightest."""
    mean = np.mean([run.data.mean(-1) for run in runs if run.number in training], axis=0).ravel()
    return np.flatnonzero(mean > 0.1 * np.quantile(mean, 0.99))


def _manifest(grid: TimingGrid, run: haxby.BoldRun, voxels: np.ndarray, baseline: Baseline) -> Manifest:
    shape = [int(n) for n in run.data.shape[:3]]
    fmri = FmriInput(len(voxels), shape, run.affine.tolist(), baseline)
    frames = int(grid.window * grid.fps) + 1
    clip = ClipGeometry(frames, *_SIZE, fps=float(grid.fps))
    return draft_manifest("haxby", grid, clip, None, fmri, note=NOTE, labels=list(haxby.LABELS))


def _golden(
    manifest: Manifest, chain: CausalChain, stats: dict[str, np.ndarray], run: haxby.BoldRun
) -> dict[str, np.ndarray]:
    bundle = draft_bundle(manifest, stats, chain.projection)
    return window_arrays(manifest, windows(bundle, run.volumes(), None)[6 : 6 + _GOLDEN])
