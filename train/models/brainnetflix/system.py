"""A trained Brain Netflix: what its participants share, and the layer of each."""

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np

from rtdecode import strict_json
from train.config.run_context import Arrays
from train.interface.system import belonging_to, of_another, of_default
from train.models.brainnetflix.encoder import SharedEncoder
from train.models.conditioned.published_system import PublishedShape, PublishedSystem
from train.models.conditioned.small_system import Shape, SmallSystem


class SharedSystem(SmallSystem):
    """The system of one participant; `of_subject` returns that of another one."""

    def of_subject(self, name: str) -> "SharedSystem":
        """Return the layer of another participant before the same perceptron; see `System.of_subject`."""
        weights = self.weights()
        return SharedSystem(of_default(weights) | belonging_to(name, weights), *self._how)


class SharedPublishedSystem(PublishedSystem):
    """The system on a published video model of one participant; `of_subject` returns that of another one."""

    def of_subject(self, name: str) -> "SharedPublishedSystem":
        """Return the layer of another participant before the same perceptron; see `System.of_subject`."""
        weights = self.weights()
        return SharedPublishedSystem(of_default(weights) | belonging_to(name, weights), *self._how)

    def settle(self, precision: str) -> None:
        """Hold the weights in a precision, and the layers of the others as they were."""
        weights = self._weights
        super().settle(precision)
        self._weights = weights


def pack_others(
    encoder: SharedEncoder, names: Sequence[str], shapes: Sequence[Shape | PublishedShape]
) -> Arrays:
    """Collect what belongs to the participants after the first one.

    Parameters
    ----------
    encoder : SharedEncoder
        With the layers of all, or with one that they share.
    names : sequence of str
        Names of these participants.
    shapes : sequence of Shape or PublishedShape
        Of the system of each.
    """
    arrays: Arrays = {}
    for number, (name, shape) in enumerate(zip(names, shapes, strict=True), 1):
        belongings: Arrays = {"config": np.array(strict_json.dumps(asdict(shape)))}
        if number < len(encoder.stems):
            state = encoder.stems[number].state_dict()
            belongings |= {f"encoder.stems.0.{key}": value.half().numpy() for key, value in state.items()}
        arrays |= of_another(name, belongings)
    return arrays
