from typing import Any

import numpy as np
import pytest

from rtdecode.bundle import Manifest
from rtdecode.bundle.noise import noise
from train.config.run_context import Arrays
from train.evaluation.reconstruct import reconstruct
from train.interface.system import ClosedForm, Condition


class Noisy(ClosedForm):
    """Its latents are the noise that it was given."""

    latent_shape = (1, 1, 1, 5)

    def condition(self, inputs: Arrays) -> Condition:
        return Condition(brain=inputs.get("told"))

    def sample(self, condition: Condition, noise: Any, steps: int) -> Any:
        return noise

    def frames(self, latents: Any) -> Any:
        return np.zeros((len(latents), 1, 1, 1, 3))

    def graphs(self, manifest: Manifest) -> dict[str, Any]:
        return {}


@pytest.mark.parametrize("hop_s", [1.0, 4.0, 6.0])
def test_windows_get_the_noise_that_they_get_live(hop_s: float) -> None:
    where = [(2, hop_s * k, hop_s * k + 4) for k in range(6)]
    reconstruction = reconstruct(Noisy({}), {}, where, "0a", hop_s=hop_s)
    live = [noise("0a", 2, k, (1, *Noisy.latent_shape))[0] for k in range(6)]
    np.testing.assert_array_equal(reconstruction.latents, live)


def test_what_is_told_of_a_brain_is_told_of_its_own_window() -> None:
    # The third window follows no other, so it is decoded before the second, which waits for the first.
    where = [(0, 0.0, 4.0), (0, 4.0, 8.0), (1, 0.0, 4.0)]
    presence = np.array([[0.9, 0.05, 0.05], [0.2, 0.7, 0.1], [0.1, 0.1, 0.8]])
    system = Noisy({})
    assert reconstruct(system, {}, where, "0a", hop_s=4.0).brain is None
    system.carried = 1
    reconstruction = reconstruct(system, {"told": presence}, where, "0a", hop_s=4.0)
    np.testing.assert_array_equal(reconstruction.brain, presence)
