"""Bring every kind of generator onto the clock of a rectified flow, so that one loss serves them all.

A diffusion model makes noisy latents ``alpha x + sigma e`` of clean latents x and noise e. Divided by
``alpha + sigma`` they are ``(1 - t) x + t e`` with ``t = sigma / (alpha + sigma)``: latents on the path of a
rectified flow at level t, whose velocity is ``e - x``. What the network predicts, a velocity or the noise,
gives x and e (Salimans and Ho 2022, arXiv:2202.00512, appendix D), and so that velocity. So models of
v-prediction (CogVideoX) and of noise (Stable Diffusion 1.5) become flows, beside those that are flows already
(Wan).
"""

from collections.abc import Callable

from torch import Tensor, nn

VELOCITY = "velocity"
NOISE = "noise"
# Native noisy latents, fractional number of the noise level (row,) -> what the network predicts.
Network = Callable[[Tensor, Tensor], Tensor]


class Schedule(nn.Module):
    """The noise levels of a diffusion model on the clock.

    Parameters
    ----------
    shares : (level,)
        Cumulated share of the signal at each trained noise level, falling. The last one may be 0 (zero
        terminal SNR).
    predicts : str
        ``velocity`` for ``alpha e - sigma x``, or ``noise`` for e.

    Attributes
    ----------
    last : float
        The clock at the last trained level, where sampling starts: 1 with zero terminal SNR.
    """

    clock: Tensor

    def __init__(self, shares: Tensor, predicts: str) -> None:
        super().__init__()
        if predicts not in (VELOCITY, NOISE):
            raise ValueError(f"predicts is {VELOCITY} or {NOISE}, found {predicts!r}")
        if predicts == NOISE and float(shares[-1]) <= 0:
            raise ValueError("noise tells nothing of the clip where nothing else is left: zero terminal SNR")
        self.predicts = predicts
        sigma = (1 - shares.double()).sqrt()
        clock = sigma / (shares.double().sqrt() + sigma)
        self.register_buffer("clock", clock.float(), persistent=False)
        self.last = float(clock[-1])

    def level(self, now: Tensor) -> Tensor:
        """Return the fractional number of the noise level at clock `now`, (row,)."""
        inside = now.clamp(self.clock[0], self.clock[-1])
        # Not `searchsorted`, which has no operator in ONNX.
        below = (self.clock[None, :] < inside[:, None]).sum(1).sub(1).clamp(0, len(self.clock) - 2)
        low = self.clock[below]
        high = self.clock[below + 1]
        return below + (inside - low) / (high - low)

    def velocity(self, network: Network, latents: Tensor, now: Tensor) -> Tensor:
        """Return the velocity on the clock.

        Parameters
        ----------
        network : callable
        latents : (row, channel, latent frame, row, column)
            Latents on the path at clock `now`.
        now : (row,)
        """
        t = now.view(-1, *[1] * (latents.ndim - 1))
        norm = ((1 - t).square() + t.square()).sqrt()
        alpha = (1 - t) / norm
        sigma = t / norm
        native = latents / norm
        found = network(native, self.level(now))
        if self.predicts == VELOCITY:
            return (sigma - alpha) * native + (alpha + sigma) * found
        return (found - latents) * (alpha + sigma) / alpha
