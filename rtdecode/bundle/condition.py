"""The condition of a window as one short vector, for programs that work with it themselves.

The condition is what ``encode`` tells the next stage: the denoiser, or the video decoder in closed form. The
denoiser of the bundle `phantom` is told 93,440 numbers. The vector is shorter because maps are averaged over
latent frames, rows and columns, and tokens over the tokens.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from rtdecode.bundle.manifest import Manifest
from rtdecode.types import Float

# Axes that are averaged, by the number of axes of an output: of tokens (1, token, value) the tokens, of a map
# (1, channel, latent frame, row, column) all but the channels. Other outputs are taken whole.
_AVERAGED = {3: (1,), 5: (2, 3, 4)}


def condition_layout(manifest: Manifest) -> dict[str, list[int]]:
    """Return the outputs of ``encode`` that the next stage reads, name -> shape."""
    stages = manifest.built
    reader = stages.get("denoise", stages["decode_first"])
    read = {port.source for port in reader.inputs.values()}
    outputs = stages["encode"].outputs
    return {name: port.shape for name, port in outputs.items() if f"encode.{name}" in read}


def labels(manifest: Manifest) -> list[str]:
    """Name the values of `vector`: the output and a number, ``condition-17``; none if nothing is told."""
    return [
        f"{name}-{k}" for name, shape in condition_layout(manifest).items() for k in range(_length(shape))
    ]


def vector(values: Mapping[str, NDArray]) -> Float:
    """Shorten the outputs of one window to one vector.

    Parameters
    ----------
    values : dict
        The outputs that `condition_layout` names, in its order, each with a leading axis of 1.

    Returns
    -------
    float32, (value,)
        One value for each of `labels`.
    """
    parts = [np.zeros(0, np.float32)]
    for value in values.values():
        parts.append(value.astype(np.float32).mean(_AVERAGED.get(value.ndim, ())).reshape(-1))
    return np.concatenate(parts)


def _length(shape: list[int]) -> int:
    averaged = _AVERAGED.get(len(shape), ())
    return int(np.prod([size for axis, size in enumerate(shape) if axis not in averaged]))
