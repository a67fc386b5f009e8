"""What `rtdecode.signal.gradient.remover` is told, counts and remembers."""

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
        Template length. What is left of the EEG in it falls with its root (30: 18 %, so 2.2 of 12
        microvolts); what the head does meanwhile, and the memory needed, grow with it.
    needed : int
        Epochs before samples count as corrected.
    line : int
        Epochs that period and phase are fitted over.
    block_s : float
        State changes at the ends of blocks of this length.
    adapt_s : float
        Memory of the channels' coupling.
    shapes : int
        Waveforms that a channel's coupling is told in; 0 for the plain mean.
    seed_s : float
        How far triggers may be off.
    slope_uv_s : float
        What half of the channels exceed only in a gradient artefact, microvolts a second.
    hold_s : float
        Pauses of gradients up to this long are part of them.
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
            raise ValueError(f"seed_s is at most 0.4 block_s, and all are above 0, found {self}")


@dataclass(slots=True)
class Counts:
    """What happened.

    Attributes
    ----------
    triggers, missing, spurious : int
        Triggers in place, those that did not come, and those out of place.
    learned, found_again, stops : int
        How often a template was begun, found again after a gap, and given up.
    moved : int
        Epochs left out because the head moved.
    jitter : list of float
        Of the last triggers about the line, samples.
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
    """A passage of the artefact.

    Attributes
    ----------
    number : int
    start : int
        Its first sample.
    phase : float
        By how much of a sample that lies behind its true start.
    whole : bool
        Nothing of it is missing.
    stored : int
        Blocks that are on the template's grid.
    samples, judged : int
        Samples seen, and those that something was subtracted from.
    shift, power : float
        Sums of the regression on the template's slope: its delay, samples, is their ratio.
    total, rest, square : (channel,)
        Sums over samples, of what was left, and of its squares.
    """

    number: int
    start: int
    phase: float
    whole: bool = True
    stored: int = 0
    samples: int = 0
    judged: int = 0
    shift: float = 0.0
    power: float = 0.0
    total: NDArray[np.float64] | float = 0.0
    rest: NDArray[np.float64] | float = 0.0
    square: NDArray[np.float64] | float = 0.0

    @property
    def level(self) -> NDArray[np.float64]:
        """Mean of each channel."""
        return np.asarray(self.total / max(self.samples, 1))

    @property
    def left(self) -> NDArray[np.float64] | None:
        """Power of what was left in each channel; None where nothing was subtracted."""
        if not self.judged:
            return None
        return np.asarray(self.square / self.judged - (self.rest / self.judged) ** 2)


@dataclass(slots=True)
class Learned:
    """All that is known of one sequence.

    Attributes
    ----------
    template : Template
    line : TriggerLine
    coupling : Coupling
    offset : float
        From an epoch's start to its trigger, samples.
    triggered, matched : float
        Where the last trigger was, and the artefact was last seen as expected, samples.
    last : int
        Epoch of the last trigger.
    moved : set of int
        Epochs in which the head moved.
    """

    template: Template
    line: TriggerLine
    coupling: Coupling
    offset: float
    triggered: float
    matched: float
    last: int = 0
    moved: set[int] = field(default_factory=set)
