"""From where linear maps lead to, to what each latent frame shows: a small perceptron, in numpy.

What a film shows and how its signals look are not linear in each other: cortex answers to contrast and
motion, which are products of what single places do. Linear maps lead near, from signals with thousands of
features; a perceptron goes on from there, where few numbers are left. It refines one latent frame at a time,
and is told what the maps say of that frame, of the frames that belong to the same shot, and of the whole
window.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from train.closed_form import cuts, onsets, shots
from train.closed_form.brain_maps import GROUPS
from train.config.run_context import Arrays

Matrix = NDArray[np.float64]
ROUTES = tuple(GROUPS)
# Row: the route of a window. Column: whether the point that route leads to is known to it.
IS_KNOWN = np.array([[set(GROUPS[other]) <= set(groups) for other in ROUTES] for groups in GROUPS.values()])
HAVE_EEG = np.array(["eeg" in groups for groups in GROUPS.values()])
LAYERS = ("1", "4", "7")
PREFIX = "refiner."


@dataclass(frozen=True)
class Shots:
    """What the EEG of windows tells of their shots.

    Attributes
    ----------
    cuts : float32, (window, frame)
        Probability of a cut at each video frame.
    onsets : float32, (window, frame, value)
        What a shot shows if it begins with the frame, see `train.closed_form.onsets`.
    """

    cuts: NDArray[np.float32]
    onsets: NDArray[np.float32]

    @classmethod
    def of(cls, weights: Arrays, mixed: NDArray[np.float32]) -> "Shots":
        """Tell of windows, by the weights that `train.closed_form.cuts` and `onsets` fit.

        `mixed` is as `train.closed_form.cuts.binned` returns it.
        """
        return cls(cuts.cut_probabilities(weights, mixed), onsets.onset_structure(weights, mixed))

    def part(self, rows: Any) -> "Shots":
        """Take some of the windows."""
        return Shots(self.cuts[rows], self.onsets[rows])


def perceptron(weights: Arrays) -> Arrays:
    """Take the state of the perceptron, which `refine` wants, out of an encoder's weights."""
    return {n.removeprefix(PREFIX): value for n, value in weights.items() if n.startswith(PREFIX)}


def refine(net: Arrays, led: Mapping[str, NDArray[Any]], shot_cues: Shots, route: str) -> Matrix:
    """Refine what linear maps say of windows, as `train.models.compact.refiner.Refiner` does.

    Parameters
    ----------
    net : dict
        Its state: ``scale`` (value,), ``body.N.weight`` and ``body.N.bias`` for N in `LAYERS`.
    led : dict
        Route -> (window, latent frame, value); only the routes that this one knows are needed.
    shot_cues : Shots
        Ignored by a route without EEG.
    route : str
        The modalities that are read, one of `ROUTES`.

    Returns
    -------
    (window, latent frame, value)
    """
    way = ROUTES.index(route)
    linear = led[route].astype(np.float64)
    count, frames, _ = linear.shape
    known_routes = np.stack(
        [led[other] if IS_KNOWN[way, n] else np.zeros_like(linear) for n, other in enumerate(ROUTES)], 2
    )
    has_eeg = float(HAVE_EEG[way])
    sure = shot_cues.cuts * has_eeg
    onset_probs = shots.onset_probabilities(sure, frames)
    same = shots.same_shot(sure, frames)
    size = same.sum(2, keepdims=True)
    within = same / size
    flat = (known_routes / net["scale"]).reshape(count, frames, -1)
    parts = [
        flat,
        within @ flat,
        np.broadcast_to(flat.mean(1, keepdims=True), flat.shape),
        onset_probs @ shot_cues.onsets / net["scale"],
        onset_probs.sum(2)[:, :, None],
        np.broadcast_to(np.eye(len(ROUTES))[way], (count, frames, len(ROUTES))),
        np.broadcast_to(np.eye(frames), same.shape),
        same,
        1 / size,
    ]
    x = np.concatenate(parts, axis=2)
    for n in LAYERS:
        x = x @ net[f"body.{n}.weight"].T.astype(np.float64) + net[f"body.{n}.bias"]
        x = x if n == LAYERS[-1] else x / (1 + np.exp(-x))
    return within @ linear + x * net["scale"]
