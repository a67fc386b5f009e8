"""The perceptron that refines the points of the brain encoder, and its training.

The linear maps' held-out predictions come in. Out come the state of a perceptron trained on all windows,
and refined points, each made by a perceptron that was not trained on its window. The flow learns from these
points, so that it does not trust them more than it may trust a new session's. `refine` in
`train.closed_form.refine` computes the same in numpy.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import OneCycleLR

from train.closed_form.refine import KNOWN, ROUTES, refine
from train.models.compact.space import Space
from train.work import Arrays

# Share of the training windows that take each route: both, fmri, eeg.
_SEEN = [0.6, 0.2, 0.2]


@dataclass(frozen=True)
class RefinerSizes:
    """How the perceptron is trained.

    Attributes
    ----------
    width : int
        Width of its two hidden layers.
    dropout : float
        Dropout after these layers. The inputs have a quarter of it.
    rounds : int
        Passes over the windows.
    batch : int
    rate, decay : float
        Largest learning rate of AdamW, weight decay.
    varied : float
        Weight of the structure tensor against the components of the latents.
    cut : float
        Weight of whether the clip begins with a cut.
    folds : int
        Parts of the windows. Each is refined by a perceptron that was trained on the others.
    """

    width: int
    dropout: float
    rounds: int
    batch: int
    rate: float
    decay: float
    varied: float
    cut: float
    folds: int


class Refiner(nn.Module):
    """A perceptron that takes the points of all routes that a window knows.

    Parameters
    ----------
    targets : int
        Size of a point.
    width : int
    dropout : float
    """

    scale: Tensor
    known: Tensor

    def __init__(self, targets: int, width: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Dropout(dropout / 4),
            nn.Linear(len(ROUTES) * targets + len(ROUTES), width),
            nn.SiLU(),
            nn.Dropout(dropout),
            nn.Linear(width, width),
            nn.SiLU(),
            nn.Dropout(dropout),
            nn.Linear(width, targets),
        )
        self.register_buffer("scale", torch.ones(len(ROUTES) * targets))
        self.register_buffer("known", torch.from_numpy(KNOWN.astype(np.float32)), persistent=False)

    @classmethod
    def load(cls, state: Arrays) -> "Refiner":
        """Make a perceptron from its state, for use and not for training."""
        first = state["body.1.weight"]
        made = cls(len(state["body.7.weight"]), len(first))
        made.load_state_dict(
            {name: torch.from_numpy(value.astype(np.float32)) for name, value in state.items()}
        )
        return made.eval().requires_grad_(False)

    def forward(self, points: Tensor, route: Tensor) -> Tensor:
        """Refine points.

        Parameters
        ----------
        points : (batch, route, target)
            In the order of `train.closed_form.refine.ROUTES`. Points that a window's route does not know
            are ignored.
        route : (batch, route)
            One-hot, or zeros where there is no signal.

        Returns
        -------
        (batch, target)
            Zeros without a signal.
        """
        told = points * (route @ self.known)[:, :, None]
        found = self.body(torch.cat([told.flatten(1) * self.scale, route], 1))
        # The network's output is added to the point of the window's own route.
        own = (points * route[:, :, None]).sum(1)
        return own + found * route.sum(1, keepdim=True)


def fit_refiner(
    points: Arrays,
    truth: NDArray[np.float64],
    space: Space,
    sizes: RefinerSizes,
    titles: NDArray[np.int64],
    seed: int,
) -> tuple[Arrays, Arrays]:
    """Train the perceptron on held-out points of the linear maps.

    Parameters
    ----------
    points : dict
        Route -> held-out predictions (window, target).
    truth : (window, target)
        As `train.models.compact.space.Space.targets` returns it.
    space : Space
    sizes : RefinerSizes
    titles : (window,)
        Windows of the same number are held out together.
    seed : int

    Returns
    -------
    net : dict
        State of the perceptron trained on all windows, in half precision.
    refined : dict
        Route -> points (window, target), each from a perceptron that did not see its title.
    """
    stacked = np.stack([points[route] for route in ROUTES], 1).astype(np.float32)
    # Titles go to the folds in turn, so that every fold has all kinds of film.
    fold = titles % sizes.folds
    refined = {r: np.zeros(truth.shape, np.float32) for r in ROUTES}
    for n in range(sizes.folds):
        own = fold == n
        others = fold != n
        net = _state(_trained(stacked[others], truth[others], space, sizes, (seed, n)))
        for route, found in refined.items():
            found[own] = refine(net, {r: points[r][own] for r in ROUTES}, route)
    return _state(_trained(stacked, truth, space, sizes, (seed, sizes.folds))), refined


def _weights(space: Space, sizes: RefinerSizes) -> NDArray[np.float64]:
    """Return the weight of each target in the loss.

    Errors of a component count by its variance, as they do in the latents, and those of an axis as they do
    in the tensor. Components and axes have the sum 1 each, before `sizes` weighs them against each other.
    """
    power = space.scale**2
    drawn = power[: space.components]
    varied = power[space.components : -1]
    return np.concatenate([drawn / drawn.sum(), sizes.varied * varied / varied.sum(), np.array([sizes.cut])])


def _state(net: Refiner) -> Arrays:
    state = {name: value.numpy() for name, value in net.state_dict().items()}
    return {name: value if name == "scale" else value.astype(np.float16) for name, value in state.items()}


def _trained(
    points: NDArray[np.float32],
    truth: NDArray[np.float64],
    space: Space,
    sizes: RefinerSizes,
    key: tuple[int, int],
) -> Refiner:
    """Train one perceptron on points (window, route, target)."""
    rng = np.random.default_rng(key)
    # Dropout and the first weights are torch's draws; the order of the windows is numpy's.
    torch.manual_seed(int(rng.integers(2**31)))
    net = Refiner(points.shape[2], sizes.width, sizes.dropout)
    net.scale.copy_(torch.from_numpy(1 / np.maximum(points.std(0).reshape(-1), 1e-6)))
    places = torch.from_numpy(truth.astype(np.float32))
    weigh = torch.from_numpy(_weights(space, sizes).astype(np.float32))
    given = torch.from_numpy(points)
    batches = max(len(points) // sizes.batch, 1)
    optimizer = AdamW(net.parameters(), lr=sizes.rate, weight_decay=sizes.decay)
    rates = OneCycleLR(optimizer, sizes.rate, total_steps=sizes.rounds * batches)
    net.train()
    for _ in range(sizes.rounds):
        for rows in np.array_split(rng.permutation(len(points)), batches):
            # Training windows have both modalities. Each is seen by a random route, as if it had fewer.
            route = torch.eye(len(ROUTES))[rng.choice(len(ROUTES), len(rows), p=_SEEN)]
            found = net(given[rows], route)
            loss = ((found - places[rows]).square() * weigh).sum(1).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            rates.step()
    return net.eval()
