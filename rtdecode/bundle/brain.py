"""What a manifest says about the output ``brain``, which tells whether a window holds a readable brain."""

import math
from dataclasses import astuple, dataclass

from rtdecode.errors import ManifestError
from rtdecode.types import PRESENCES, Presence

OUTPUT = "brain"
# The output that tells of each modality alone, and the modalities in its order. Bundles of 0.1 lack it.
BY_OUTPUT = "brain_by"
MODALITIES = ("eeg", "fmri")
# A window at or above this probability holds a readable brain. Below it a clip has no confidence.
LEAST = 0.5
# Largest distance of the prior's sum from 1: the rounding of its decimals.
_ROUNDING = 1e-6


@dataclass(frozen=True, slots=True)
class Brain:
    """The output of ``encode`` that tells the presence of a readable brain.

    Attributes
    ----------
    output : str
        Name of the output, always ``brain``. Its values have the shape (1, 3): the probabilities of
        `rtdecode.types.PRESENCES`, in that order.
    prior : Presence
        How probable each presence is before a window is seen. The probabilities hold at this prior.
    """

    output: str
    prior: Presence

    def __post_init__(self) -> None:
        if self.output != OUTPUT:
            raise ManifestError(
                "brain-output-invalid",
                "output is {expected!r}, found {actual!r}",
                expected=OUTPUT,
                actual=self.output,
            )
        shares = astuple(self.prior)
        if not all(0 <= share <= 1 for share in shares) or abs(math.fsum(shares) - 1) > _ROUNDING:
            raise ManifestError(
                "brain-prior-invalid",
                "prior has probabilities of {presences} that sum to 1, found {probabilities}",
                presences=list(PRESENCES),
                probabilities=list(shares),
            )
