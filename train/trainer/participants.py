"""The participants of a training with gradients: who they are, and how much each counts.

A step takes batches of each (`train.trainer.loop`), and the gradient of a participant's mean loss counts by
its share of the sum of weights.
"""

import math
from collections.abc import Mapping, Sequence

from rtdecode.errors import UsageError

# A training that knows no participants has one without a name.
NOBODY = {"": 1.0}


def weights_of(names: Sequence[str], weights: Mapping[str, float]) -> dict[str, float]:
    """Return the weight of every participant, 1 where none is stated.

    Parameters
    ----------
    names : sequence of str
        Everybody who takes part.
    weights : mapping
        Name -> weight, as a recipe states them.

    Raises
    ------
    UsageError
        If a weight is stated of somebody who takes no part, or is no number above 0.
    """
    unknown = [name for name in weights if name not in names]
    if unknown:
        raise UsageError(
            "participant-weight-unknown",
            "weights of {unknown} are stated, and the participants are {available}. Leave them out.",
            unknown=unknown,
            available=list(names),
        )
    check_weights(weights)
    return {name: float(weights.get(name, 1.0)) for name in names}


def check_weights(weights: Mapping[str, float]) -> None:
    """Refuse weights that are no numbers above 0.

    Raises
    ------
    UsageError
    """
    invalid = {name: weight for name, weight in weights.items() if not _counts(weight)}
    if invalid:
        raise UsageError(
            "participant-weight-invalid",
            "weights of participants must be finite numbers above 0, found {weights}. Whoever is not to "
            "count is left out.",
            weights=invalid,
        )


def factors(weights: Mapping[str, float]) -> dict[str, float]:
    """Return what the loss of each participant's batch is multiplied by; the mean of the factors is 1.

    A step divides the sum of all its losses by their number. So this makes of it the mean that is weighted by
    participants, and equal weights leave it exactly as it is.
    """
    total = sum(weights.values())
    return {name: weight * len(weights) / total for name, weight in weights.items()}


def _counts(weight: float) -> bool:
    number = isinstance(weight, int | float) and not isinstance(weight, bool)
    return number and math.isfinite(weight) and weight > 0
