"""From the points of the space that linear maps lead to, to a better one: a small perceptron, in numpy.

What a film shows and how its signals look are not linear in each other: cortex answers to contrast and
motion, which are products of what single places do. Linear maps lead near, from signals with thousands of
features; a perceptron goes on from there, where few numbers are left.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from train.closed_form.brain_maps import GROUPS
from train.work import Arrays

Matrix = NDArray[np.float64]
ROUTES = tuple(GROUPS)
# Row: the route of a window. Column: whether the point that route leads to is known to it.
KNOWN = np.array([[set(GROUPS[other]) <= set(groups) for other in ROUTES] for groups in GROUPS.values()])
LAYERS = ("1", "4", "7")
PREFIX = "refiner."


def perceptron(weights: Arrays) -> Arrays:
    """Take the state of the perceptron, which `refine` wants, out of an encoder's weights."""
    return {n.removeprefix(PREFIX): value for n, value in weights.items() if n.startswith(PREFIX)}


def refine(net: Arrays, points: Mapping[str, NDArray[Any]], route: str) -> Matrix:
    """Refine points as `train.models.compact.refiner.Refiner` does.

    Parameters
    ----------
    net : dict
        Its state: ``scale`` (3 targets,), ``body.N.weight`` and ``body.N.bias`` for N in `LAYERS`.
    points : dict
        Route -> (window, target); only the routes that this one knows are needed.
    route : str

    Returns
    -------
    (window, target)
    """
    way = ROUTES.index(route)
    there = points[route].astype(np.float64)
    told = [points[other] if KNOWN[way, n] else np.zeros_like(there) for n, other in enumerate(ROUTES)]
    x = np.concatenate([np.hstack(told) * net["scale"], np.tile(np.eye(3)[way], (len(there), 1))], axis=1)
    for n in LAYERS:
        x = x @ net[f"body.{n}.weight"].T.astype(np.float64) + net[f"body.{n}.bias"]
        x = x if n == LAYERS[-1] else x / (1 + np.exp(-x))
    return x + there
