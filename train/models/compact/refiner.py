"""The perceptron that refines what linear maps say of each latent frame, and its training.

The linear maps' held-out predictions come in. Out come the state of a perceptron trained on all windows,
and refined glimpses, each made by a perceptron that was not trained on its window. The flow learns from
these, so that it does not trust them more than it may trust a new session's. `refine` in
`train.closed_form.refine` computes the same in numpy.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import OneCycleLR

from train.closed_form.refine import HAVE_EEG, IS_KNOWN, ROUTES, Shots, refine
from train.closed_form.shots import SUREST, decisive
from train.config.run_context import Arrays

# Share of the training windows that take each route: both, fmri, eeg.
_ROUTE_SHARES = [0.6, 0.2, 0.2]


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
        Windows of a step; a few more where they do not divide evenly.
    rate, decay : float
        Largest learning rate of AdamW, weight decay.
    folds : int
        Parts of the windows. Each is refined by a perceptron that was trained on the others.
    """

    width: int
    dropout: float
    rounds: int
    batch: int
    rate: float
    decay: float
    folds: int


class Refiner(nn.Module):
    """A perceptron that takes what the routes that a window knows say of a latent frame.

    Parameters
    ----------
    frames, values : int
        Number of latent frames, and of values of a glimpse.
    width : int
        Width of the two hidden layers.
    dropout : float
        Dropout after these layers. The inputs have a quarter of it.
    """

    scale: Tensor
    # The name of a tensor of shipped graphs.
    known: Tensor
    have_eeg: Tensor
    decisive: Tensor

    def __init__(self, frames: int, values: int, width: int, dropout: float = 0.0) -> None:
        super().__init__()
        # Frame, shot and window by all routes, and the onset; the route; the frame, and those of its shot.
        inputs = (3 * len(ROUTES) + 1) * values + 1 + len(ROUTES) + 2 * frames + 1
        self.body = nn.Sequential(
            nn.Dropout(dropout / 4),
            nn.Linear(inputs, width),
            nn.SiLU(),
            nn.Dropout(dropout),
            nn.Linear(width, width),
            nn.SiLU(),
            nn.Dropout(dropout),
            nn.Linear(width, values),
        )
        self.register_buffer("scale", torch.ones(values))
        for name, value in (("known", IS_KNOWN), ("have_eeg", HAVE_EEG[:, None])):
            self.register_buffer(name, torch.from_numpy(value.astype(np.float32)), persistent=False)
        self.register_buffer("decisive", torch.from_numpy(decisive(frames)), persistent=False)

    @classmethod
    def load(cls, state: Arrays, frames: int) -> "Refiner":
        """Make a perceptron from its state, for use and not for training."""
        net = cls(frames, len(state["scale"]), len(state["body.1.weight"]))
        net.load_state_dict(
            {name: torch.from_numpy(value.astype(np.float32)) for name, value in state.items()}
        )
        return net.eval().requires_grad_(False)

    def forward(self, led: Tensor, cuts: Tensor, onsets: Tensor, route: Tensor) -> Tensor:
        """Refine what linear maps say of windows.

        Parameters
        ----------
        led : (batch, route, frame, value)
            In the order of `train.closed_form.refine.ROUTES`. Routes that a window's own does not know are
            ignored.
        cuts : (batch, video frame)
            Probability of a cut.
        onsets : (batch, video frame, value)
            What a shot shows if it begins with the frame, see `train.closed_form.onsets`.
        route : (batch, route)
            One-hot, or zeros where there is no signal.

        Returns
        -------
        (batch, frame, value)
            Zeros without a signal.
        """
        sure = (route @ self.have_eeg) * cuts
        same, begins = self.shots(sure)
        size = same.sum(2, keepdim=True)
        within = same / size
        available = led * (route @ self.known)[:, :, None, None]
        flat = (available.transpose(1, 2) / self.scale).flatten(2)
        frames = len(self.decisive)
        parts = [
            flat,
            within @ flat,
            flat.mean(1, keepdim=True).expand(-1, frames, -1),
            begins @ onsets / self.scale,
            begins.sum(2, keepdim=True),
            route[:, None].expand(-1, frames, -1),
            torch.eye(frames).to(same).expand_as(same),
            same,
            1 / size,
        ]
        # One row a frame: the exporter keeps the names of a layer's weights only if its input has two axes.
        rows = self.body(torch.cat(parts, 2).flatten(0, 1))
        correction = rows.unflatten(0, (-1, frames)) * self.scale
        # The network's output is added to what the window's own route says of the shot.
        shot_mean = within @ (led * route[:, :, None, None]).sum(1)
        return shot_mean + correction * route.sum(1)[:, None, None]

    def shots(self, cuts: Tensor) -> tuple[Tensor, Tensor]:
        """Compute `train.closed_form.shots.same_shot` and `begun`."""
        hazard = -torch.log1p(-cuts.clamp(max=SUREST))
        # A product with a triangle adds up along the frames, as `numpy.cumsum` does.
        count = cuts.shape[1]
        until = hazard @ torch.ones(count, count).to(cuts).triu()
        last = until[:, self.decisive]
        same = (-(last[:, :, None] - last[:, None]).abs()).exp()
        before = torch.arange(count).to(self.decisive) <= self.decisive[:, None]
        since = (last[:, :, None] - until[:, None]).clamp(min=0)
        return same, cuts[:, None] * (-since).exp() * before


def fit_refiner(
    led: Arrays,
    truth: NDArray[np.float64],
    shots: Shots,
    sizes: RefinerSizes,
    titles: NDArray[np.int64],
    seed: int,
) -> tuple[Arrays, Arrays]:
    """Train the perceptron on held-out predictions of the linear maps.

    Parameters
    ----------
    led : dict
        Route -> held-out predictions (window, frame, value).
    truth : (window, frame, value)
        As `train.closed_form.film_space.Space.glimpses` returns it.
    shots : Shots
        Held out as well.
    sizes : RefinerSizes
        How the perceptron is trained, and in how many folds.
    titles : (window,)
        Windows of the same number are held out together.
    seed : int
        Seed of first weights, dropout and the order of windows.

    Returns
    -------
    net : dict
        State of the perceptron trained on all windows, in half precision.
    refined : dict
        Route -> glimpses (window, frame, value), each from a perceptron that did not see its title.
    """
    # Titles go to the folds in turn, so that every fold has all kinds of film.
    fold = titles % sizes.folds
    refined = {r: np.zeros(truth.shape, np.float32) for r in ROUTES}
    for n in range(sizes.folds):
        held_out = fold == n
        training = fold != n
        net = _state(_trained(_part(led, training), truth[training], shots.part(training), sizes, (seed, n)))
        for route, glimpses in refined.items():
            glimpses[held_out] = refine(net, _part(led, held_out), shots.part(held_out), route)
    return _state(_trained(led, truth, shots, sizes, (seed, sizes.folds))), refined


def _part(led: Arrays, rows: NDArray[np.bool_]) -> Arrays:
    return {route: values[rows] for route, values in led.items()}


def _state(net: Refiner) -> Arrays:
    state = {name: value.numpy() for name, value in net.state_dict().items()}
    return {name: value if name == "scale" else value.astype(np.float16) for name, value in state.items()}


def _trained(
    led: Arrays, truth: NDArray[np.float64], shots: Shots, sizes: RefinerSizes, key: tuple[int, int]
) -> Refiner:
    """Train one perceptron."""
    rng = np.random.default_rng(key)
    # Dropout and the first weights are torch's draws; the order of the windows is numpy's.
    torch.manual_seed(int(rng.integers(2**31)))
    _, frames, values = truth.shape
    net = Refiner(frames, values, sizes.width, sizes.dropout)
    net.scale.copy_(torch.from_numpy(np.maximum(truth.std((0, 1)), 1e-6)))
    predictions = torch.from_numpy(np.stack([led[route] for route in ROUTES], 1).astype(np.float32))
    glimpses = torch.from_numpy(truth.astype(np.float32))
    cuts = torch.from_numpy(shots.cuts)
    onsets = torch.from_numpy(shots.onsets)
    batches = max(len(truth) // sizes.batch, 1)
    optimizer = AdamW(net.parameters(), lr=sizes.rate, weight_decay=sizes.decay)
    rates = OneCycleLR(optimizer, sizes.rate, total_steps=sizes.rounds * batches)
    net.train()
    for _ in range(sizes.rounds):
        for rows in np.array_split(rng.permutation(len(truth)), batches):
            # Training windows have both modalities. Each is seen by a random route, as if it had fewer.
            route = torch.eye(len(ROUTES))[rng.choice(len(ROUTES), len(rows), p=_ROUTE_SHARES)]
            refined = net(predictions[rows], cuts[rows], onsets[rows], route)
            # Errors of a value count by its variance, as they do in the latents and in the tensor.
            loss = (refined - glimpses[rows]).square().sum(2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            rates.step()
    return net.eval()
