"""What `rtdecode.signal.heartbeat.remover` is told."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """How the heartbeat artefact is removed.

    Attributes
    ----------
    hold_s : float
        Samples leave at most that late; 0 with references.
    reach_s : float
        How far after the R-peak a beat's wave goes, if no other beat follows.
    memory : float
        Beats after which an old beat counts 1/e in the template.
    first, enough : int
        Beats in the template from which on it is subtracted, and trusted.
    reference_memory_s, reference_enough_s : float
        The same for the regression on references: its memory, and from when on it is trusted.
    """

    hold_s: float = 0.3
    reach_s: float = 1.25
    memory: float = 20.0
    first: int = 3
    enough: int = 12
    reference_memory_s: float = 60.0
    reference_enough_s: float = 10.0

    def __post_init__(self) -> None:
        if not 0.2 <= self.hold_s <= 0.3:
            raise ValueError(f"hold_s lies between 0.2 and 0.3 s, found {self.hold_s}")
