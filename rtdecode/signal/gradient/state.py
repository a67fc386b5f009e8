"""Settings, counts and memory of the gradient artefact's removal (`rtdecode.signal.gradient.remover`)."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from rtdecode.signal.gradient.template import Coupling, Template
from rtdecode.signal.gradient.timing import TriggerLine


@dataclass(frozen=True, slots=True)
class Gradient:
    """How the artefact is followed.

    Attributes
    ----------
    epochs : int
        Number of epochs in the template. The EEG that is left in it falls with the root of this number (30:
        18 %, so 2.2 of 12 microvolts); the memory that it takes, and the head's motion meanwhile, grow.
    needed : int
        Number of epochs before samples count as corrected.
    line : int
        Number of epochs that period and phase are fitted to.
    block_s : float
        Length of a block, s. State changes at the ends of blocks.
    adapt_s : float
        Memory of the channels' mixture, s.
    shapes : int
        Number of waveforms that a channel's mixture is followed in; 0 for the plain mean.
    seed_s : float
        Largest error of a trigger, s.
    slope_uv_s : float
        Slope that half of the channels exceed only in a gradient artefact, microvolts a second.
    hold_s : float
        Longest pause between gradients that counts as part of them, s.
    """

    epochs: int = 30
    needed: int = 6
    line: int = 16
    block_s: float = 0.05
    adapt_s: float = 0.4
    shapes: int = 4
    seed_s: float = 0.02
    slope_uv_s: float = 1e5
    hold_s: float = 0.3

    def __post_init__(self) -> None:
        if not (2 <= self.needed <= self.epochs and self.line >= 3 and self.shapes >= 0):
            raise ValueError(f"2 <= needed <= epochs, line >= 3 and shapes >= 0 must hold, found {self}")
        if not (0 < self.seed_s <= 0.4 * self.block_s and self.slope_uv_s > 0 and self.adapt_s > 0):
            raise ValueError(f"seed_s must be at most 0.4 block_s, and all must be above 0, found {self}")


@dataclass(slots=True)
class Counts:
    """Counts of what happened, for the report.

    Attributes
    ----------
    triggers, missing, spurious : int
        Triggers in place, those that did not come, and those out of place.
    learned, found_again, stops : int
        How often a template was begun, was found again after a gap, and was given up.
    moved : int
        Number of epochs that were left out because the head moved.
    jitter : list of float
        Distances of the last triggers from the line, samples.
    """

    triggers: int = 0
    missing: int = 0
    spurious: int = 0
    learned: int = 0
    found_again: int = 0
    stops: int = 0
    moved: int = 0
    jitter: list[float] = field(default_factory=list)


@dataclass(slots=True)
class Epoch:
    """One passage of the artefact, a TR long.

    Attributes
    ----------
    number : int
        Number of the epoch in its sequence.
    start : int
        Index of its first sample.
    phase : float
        Share of a sample by which that sample lies after the epoch's true start.
    complete : bool
        Whether no sample of it is missing.
    stored : int
        Number of blocks that are on the template's grid.
    samples, judged : int
        Samples seen, and those from which something was subtracted.
    shift, power : float
        Sums of the regression on the template's slope. Their ratio is the epoch's delay, samples.
    total, residual_sum, square : (channel,)
        Sums over the samples, over what was left of them, and over its squares.
    """

    number: int
    start: int
    phase: float
    complete: bool = True
    stored: int = 0
    samples: int = 0
    judged: int = 0
    shift: float = 0.0
    power: float = 0.0
    total: NDArray[np.float64] | float = 0.0
    residual_sum: NDArray[np.float64] | float = 0.0
    square: NDArray[np.float64] | float = 0.0

    @property
    def level(self) -> NDArray[np.float64]:
        """Mean of each channel, microvolts."""
        return np.asarray(self.total / max(self.samples, 1))

    @property
    def residual_power(self) -> NDArray[np.float64] | None:
        """Power of what was left in each channel, without its mean; None where nothing was subtracted."""
        if not self.judged:
            return None
        return np.asarray(self.square / self.judged - (self.residual_sum / self.judged) ** 2)


@dataclass(slots=True)
class Learned:
    """All that is known of one sequence.

    Attributes
    ----------
    template : Template
        The mean artefact.
    line : TriggerLine
        The line through the triggers, which gives the period.
    coupling : Coupling
        How the artefact mixes into the channels now.
    offset : float
        Distance from an epoch's start to its trigger, samples.
    triggered, matched : float
        Where the last trigger was, and where the artefact was last seen as expected, samples.
    last : int
        Number of the last trigger's epoch.
    moved : set of int
        Numbers of the epochs in which the head moved.
    """

    template: Template
    line: TriggerLine
    coupling: Coupling
    offset: float
    triggered: float
    matched: float
    last: int = 0
    moved: set[int] = field(default_factory=set)
