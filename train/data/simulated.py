"""Sessions of the simulated participant, as a recipe's `data` node names them.

Nothing is simulated here: `SimulatedSessions` says who watches which films, and which seeds are whose.
"""

from dataclasses import dataclass
from typing import Any

from rtdecode.bundle import Manifest
from rtdecode.errors import UsageError
from rtdecode.signal.eeg.band import EegBand
from rtdecode.signal.volume.baseline import Baseline
from rtdecode.timing import TimingGrid
from train.data.phantom import TRAINING_SEEDS, Participant, manifest
from train.recipe import numbers
from train.work import Work

KINDS = ("sessions", "free", "held")


@dataclass(frozen=True)
class SimulatedSessions:
    """Who watches which films, and how a bundle reads the signals.

    Attributes
    ----------
    who : Participant
    grid, band, baseline
        Grid of the windows, EEG filter, and how the resting level of the volumes is followed.
    sessions, free, held : str
        Seeds of the sessions that are watched: those cut on the window grid, those cut freely, and those on
        which choices are made and no weights are trained.
    seconds : float
        Length of the film under each seed.
    """

    who: Participant
    grid: TimingGrid
    band: EegBand
    baseline: Baseline
    sessions: str
    seconds: float
    free: str = ""
    held: str = ""

    def check(self, work: Work) -> None:
        """Refuse what cannot be trained on before anything is simulated.

        Raises
        ------
        UsageError
            If the recipe was given a folder of data, or a seed is used twice or is one for judging.
        """
        work.refuse_data()
        self.seeds(work)

    def seeds(self, work: Work) -> dict[str, list[int]]:
        """Return the seeds of each kind, moved by the seed of the run.

        Raises
        ------
        UsageError
            If a seed is used twice or is one for judging.
        """
        found = {kind: self._kind(kind, work.seed) for kind in KINDS}
        every = [seed for seeds in found.values() for seed in seeds]
        if not {*every} <= {*TRAINING_SEEDS} or len({*every}) < len(every):
            raise UsageError(
                "training seeds must be distinct and below 1000 (seeds from 1000 on are for judging), "
                f"found {found}."
            )
        return found

    def _kind(self, kind: str, offset: int) -> list[int]:
        text = getattr(self, kind)
        return [] if text in ("", None) else [offset + seed for seed in numbers(text)]

    def manifest(self) -> Manifest:
        """Draft the manifest of a bundle that is trained on these sessions."""
        return manifest(self.who, self.grid, self.band, self.baseline)

    def provenance(self, work: Work) -> dict[str, Any]:
        """Return what a bundle says about the data it was trained on."""
        used = {kind: seeds for kind, seeds in self.seeds(work).items() if seeds}
        return {
            "participant": f"simulated, preset {self.who.preset}, subject {self.who.subject}",
            **used,
            "seconds": self.seconds,
        }
