"""Settings of `rtdecode.signal.heartbeat.remover`."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """How the heartbeat artefact is removed.

    Attributes
    ----------
    hold_s : float
        Longest time for which a sample is held, in seconds. With references nothing is held.
    reach_s : float
        How long after the R-peak the wave of a beat lasts if no other beat follows.
    memory : float
        Number of beats after which an old beat counts 1/e in the template.
    first, enough : int
        Number of beats in the template from which on it is subtracted, and trusted.
    reference_memory_s, reference_enough_s : float
        For the regression on references: the time after which the past counts 1/e, and the time of
        learning after which it is trusted.
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
            raise ValueError(f"hold_s must lie between 0.2 and 0.3 s, found {self.hold_s}")
