"""A closed-form decoder in the place of one that denoises: what the judge sees of either is the same."""

from typing import Any

import numpy as np

from train.config.run_context import Arrays
from train.evaluation.beside import only
from train.evaluation.reconstruct import Reconstruction, clips_of
from train.models.ridge.system import PatchRidge


def ridge(weights: Arrays) -> Any:
    """Show windows with the weights of a ridge run; every confidence is how bright a clip is."""

    system = PatchRidge(weights)

    def show(
        inputs: Arrays, where: list[Any], *, steps: int = 4, carry: bool = True, null: bool = False
    ) -> Reconstruction:
        latents = system.condition(only(inputs, ()) if null else inputs).start
        # Fewer steps give a fainter clip; with carry a clip begins where the one before it ended.
        latents = latents * (1 - 0.1 / steps)
        clips = np.stack(clips_of(system, latents))
        for n in range(1, len(clips)) if carry else ():
            if where[n][:2] == (where[n - 1][0], where[n - 1][2]):
                clips[n, 0] = clips[n - 1, -1]
        sure = None if null else clips.mean((1, 2, 3, 4)) / 255
        return Reconstruction(clips, latents.astype(np.float32), sure)

    return show
