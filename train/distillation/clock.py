"""Bring every kind of generator onto the clock of a rectified flow, so that one loss serves them all.

A diffusion model makes noisy latents ``alpha x + sigma e`` of clean latents x and noise e. Divided by
``alpha + sigma`` they are ``(1 - t) x + t e`` with ``t = sigma / (alpha + sigma)``: latents on the path of a
rectified flow at level t, whose velocity is ``e - x``. What the network predicts, a velocity or the noise,
gives x and e (Salimans and Ho 2022, arXiv:2202.00512, appendix D), and so that velocity. So models of
v-prediction (CogVideoX) and of noise (Stable Diffusion 1.5) become flows. Those that are flows already (Wan)
are left as they are.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

FLOW = "flow"
VELOCITY = "velocity"
NOISE = "noise"
# Native noisy latents and their noise level (row,) -> what the network predicts.
Network = Callable[[Tensor, Tensor], Tensor]


class Schedule(nn.Module):
    """The noise levels of a diffusion model or of a flow on the clock.

    Parameters
    ----------
    predicts : str
        ``flow`` for ``e - x``, ``velocity`` for ``alpha e - sigma x``, or ``noise`` for e.
    shares : (level,), optional
        Cumulated share of the signal at each trained noise level, falling. The last one may be 0 (zero
        terminal SNR). A flow has none: it is trained at all levels of the clock.
    shift : float
        How far the steps of a flow's sampler are moved towards noise (Esser et al. 2024, arXiv:2403.03206,
        equation 23). The steps of other models are evenly spaced among their trained levels.

    Attributes
    ----------
    last : float
        The clock at the last trained level, where sampling starts: 1 with zero terminal SNR.
    """

    clock: Tensor

    def __init__(self, predicts: str, shares: Tensor | None = None, shift: float = 1.0) -> None:
        super().__init__()
        if predicts not in (FLOW, VELOCITY, NOISE):
            raise ValueError(f"predicts is {FLOW}, {VELOCITY} or {NOISE}, found {predicts!r}")
        if (shares is None) != (predicts == FLOW):
            raise ValueError(f"shares belong to a model that predicts {VELOCITY} or {NOISE}, and to no flow")
        self.predicts = predicts
        self.shift = shift
        self.last = 1.0
        if shares is None:
            return
        if predicts == NOISE and float(shares[-1]) <= 0:
            raise ValueError("noise tells nothing of the clip where nothing else is left: zero terminal SNR")
        sigma = (1 - shares.double()).sqrt()
        clock = sigma / (shares.double().sqrt() + sigma)
        self.register_buffer("clock", clock.float(), persistent=False)
        self.last = float(clock[-1])

    def clock_at(self, remaining: Tensor) -> Tensor:
        """Return the clock where a share of a sampler's evenly spaced steps is left, from 1 to 0, (row,).

        Step n of N begins where ``1 - n / N`` of them is left. Sampling begins at the last trained level
        ("trailing", Lin et al. 2023, arXiv:2305.08891, table 2).
        """
        if self.predicts == FLOW:
            return self.shift * remaining / (1 + (self.shift - 1) * remaining)
        place = remaining * len(self.clock)
        below = place.long().clamp(max=len(self.clock) - 1)
        # No noise at all comes before the first level.
        ends = torch.cat([torch.zeros_like(self.clock[:1]), self.clock]).to(remaining.device)
        return torch.lerp(ends[below], ends[below + 1], place - below)

    def remaining(self, now: float) -> float:
        """Return the share of a sampler's steps that is left at a clock, the inverse of `clock_at`."""
        if self.predicts == FLOW:
            return now / (self.shift - (self.shift - 1) * now)
        ends = np.concatenate([[0.0], self.clock.double().cpu().numpy()])
        return float(np.interp(now, ends, np.linspace(0, 1, len(ends))))

    def levels(self, steps: int) -> list[float]:
        """Return the clock before each of some steps."""
        remaining = torch.tensor([1 - n / steps for n in range(steps)])
        levels: list[float] = self.clock_at(remaining).tolist()
        return levels

    def norm(self, now: Tensor) -> Tensor:
        """Return what the model's own latents are multiplied by to lie on the path at clock `now`, (row,)."""
        if self.predicts == FLOW:
            return torch.ones_like(now)
        return ((1 - now).square() + now.square()).sqrt()

    def level(self, now: Tensor) -> Tensor:
        """Return what the network is told of clock `now`, (row,).

        That is the fractional number of the noise level, and for a flow the clock itself.
        """
        if self.predicts == FLOW:
            return now
        clamped = now.clamp(self.clock[0], self.clock[-1])
        # Not `searchsorted`, which has no operator in ONNX.
        below = (self.clock[None, :] < clamped[:, None]).sum(1).sub(1).clamp(0, len(self.clock) - 2)
        low = self.clock[below]
        high = self.clock[below + 1]
        return below + (clamped - low) / (high - low)

    def velocity(self, network: Network, latents: Tensor, now: Tensor) -> Tensor:
        """Return the velocity on the clock.

        Parameters
        ----------
        network : callable
            See `Network`; it is called once.
        latents : (row, channel, latent frame, row, column)
            Latents on the path at clock `now`.
        now : (row,)
            Clock of each row, from 1 (noise) to 0.
        """
        if self.predicts == FLOW:
            return network(latents, now)
        t = now.view(-1, *[1] * (latents.ndim - 1))
        norm = self.norm(t)
        alpha = (1 - t) / norm
        sigma = t / norm
        native = latents / norm
        predicted = network(native, self.level(now))
        if self.predicts == VELOCITY:
            return (sigma - alpha) * native + (alpha + sigma) * predicted
        return (predicted - latents) * (alpha + sigma) / alpha
