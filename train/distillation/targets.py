"""What a student is to predict: the mean velocity of its teacher between two noise levels.

On the clock of a rectified flow, latents go from noise at level 1 to clean ones at level 0 along the
teacher's velocity v. The student predicts u(x, t, r), the mean velocity from level t to level r, so that one
step ``x + (r - t) u`` arrives where the teacher's path does. Two targets are offered:

- `followed` takes both ends from the teacher's own path from noise, which it follows in small steps.
- `differentiated` needs one velocity of the teacher only, and the student's own change along the path: the
  identity ``u = v - (t - r) du/dt`` (Geng et al. 2025, Mean flows for one-step generative modeling,
  arXiv:2505.13447, equation 6), with a central difference in place of the derivative.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from rtdecode.errors import UsageError

ROLLOUT = "teacher_rollout"
DIFFERENCE = "central_difference"
TARGETS = (ROLLOUT, DIFFERENCE)

# Latents (row, channel, latent frame, row, column) and levels (row,) -> velocity.
Velocity = Callable[[Tensor, Tensor], Tensor]
# Latents, level t and level r (row,) -> mean velocity from t to r.
MeanVelocity = Callable[[Tensor, Tensor, Tensor], Tensor]

# Half of the step of the central difference, on the clock.
EPSILON = 5e-3


@dataclass(frozen=True)
class StudentTarget:
    """What a student is asked, and what it should answer.

    Attributes
    ----------
    latents : (row, channel, latent frame, row, column)
        Where on the path the student stands.
    now, until : (row,)
        Levels from and to which it predicts the mean velocity.
    velocity : like `latents`
        The mean velocity.
    rows : (row,) int
        Row of the batch that each belongs to, whose condition the student is given.
    """

    latents: Tensor
    now: Tensor
    until: Tensor
    velocity: Tensor
    rows: Tensor


@dataclass(frozen=True)
class Distillation:
    """How a student is taught.

    Attributes
    ----------
    target : str
        ``teacher_rollout`` (`followed`) or ``central_difference`` (`differentiated`).
    steps : int
        Steps of the teacher's path, each of two of its predictions.
    pairs : int
        Pairs of points that are taken from each path.
    shares : list of float
        See `followed`.
    """

    target: str = ROLLOUT
    steps: int = 8
    pairs: int = 4
    shares: tuple[float, float, float] = (0.35, 0.3, 0.15)

    def __post_init__(self) -> None:
        if self.target not in TARGETS:
            raise UsageError(
                "distillation-target-unknown",
                "target must be one of {available}, found '{target}'.",
                available=list(TARGETS),
                target=self.target,
            )


@dataclass(frozen=True)
class Path:
    """What a batch gives of the path between noise and clips.

    Attributes
    ----------
    start : (batch, channel, latent frame, row, column)
        Where the sampler starts from.
    clean, noise : like `start`
        Latents of clips, and noise that is mixed with them.
    now : (batch,)
        Level at which they are mixed.
    """

    start: Tensor
    clean: Tensor
    noise: Tensor
    now: Tensor


def student_target(
    how: Distillation,
    teacher: Velocity,
    student: MeanVelocity,
    path: Path,
    shift: Callable[[float], float],
) -> StudentTarget:
    """Say what the student is asked on a batch.

    Parameters
    ----------
    how : Distillation
        Which target, and its sizes.
    teacher, student : callable
        See `Velocity` and `MeanVelocity`. `followed` asks the teacher alone.
    path : Path
        Noise and clips of the batch, and the level at which they are mixed.
    shift : callable
        Share of a sampler's steps that is left -> level.
    """
    if how.target == ROLLOUT:
        return followed(teacher, path.start, jittered(how.steps, shift), how.pairs, how.shares)
    now = path.now
    wide = now.view(-1, 1, 1, 1, 1)
    noisy = (1 - wide) * path.clean + wide * path.noise
    to_end, _, standing = how.shares
    chance = torch.rand_like(now)
    until = now * torch.rand_like(now)
    until = torch.where(chance < to_end, torch.zeros_like(now), until)
    until = torch.where(chance > 1 - standing, now, until)
    return differentiated(teacher, student, noisy, now, until)


def followed(
    teacher: Velocity, noise: Tensor, levels: Sequence[float], pairs: int, shares: tuple[float, float, float]
) -> StudentTarget:
    """Follow the teacher from noise through all levels, and pick pairs of points of its path.

    Each step is a midpoint step: the velocity half way carries the latents the whole way. Every point of the
    path is the teacher's, so any two of them give the exact mean velocity in between.

    Parameters
    ----------
    teacher : callable
        See `Velocity`.
    noise : (batch, channel, latent frame, row, column)
        Where the path begins.
    levels : sequence of float
        From the level at which sampling starts to 0, falling.
    pairs : int
        Pairs that are picked from the path of each row.
    shares : (float, float, float)
        Shares of the pairs that end at level 0, that start at level 1, and that have no length, for which
        the mean velocity is the velocity. A pair may have both ends so.
    """
    points = [noise]
    velocities: list[Tensor] = []
    for now, then in pairwise(levels):
        start = points[-1]
        velocity = teacher(start, _rows(start, now))
        half_way = start + (then - now) / 2 * velocity
        middle = teacher(half_way, _rows(start, (now + then) / 2))
        velocities.append(velocity)
        points.append(start + (then - now) * middle)
    device = noise.device
    level_tensor = torch.tensor(levels, device=device)
    picked = _picked(len(noise) * pairs, len(levels), shares)
    first, last, standing = (values.to(device) for values in picked)
    rows = torch.arange(len(noise), device=device).repeat_interleave(pairs)
    path = torch.stack(points)
    begin = path[first, rows]
    now = level_tensor[first]
    until = level_tensor[last]
    moved = (path[last, rows] - begin) / (until - now).view(-1, 1, 1, 1, 1)
    still = torch.stack(velocities)[first, rows]
    velocity = torch.where(standing.view(-1, 1, 1, 1, 1), still, moved)
    return StudentTarget(begin, now, torch.where(standing, now, until), velocity, rows)


def differentiated(
    teacher: Velocity, student: MeanVelocity, latents: Tensor, now: Tensor, until: Tensor
) -> StudentTarget:
    """Take the teacher's velocity less the student's own change along it.

    Parameters
    ----------
    teacher, student : callable
        See `Velocity` and `MeanVelocity`.
    latents : (row, channel, latent frame, row, column)
        Noisy latents at level `now`.
    now, until : (row,)
        Levels from and to which the student predicts the mean velocity.
    """
    velocity = teacher(latents, now)
    step = torch.minimum(torch.full_like(now, EPSILON), 1 - now).clamp(min=EPSILON / 10)
    wide = step.view(-1, 1, 1, 1, 1)
    ahead = student(latents + wide * velocity, now + step, until)
    behind = student(latents - wide * velocity, now - step, until)
    change = (ahead - behind) / (2 * wide)
    span = (now - until).view(-1, 1, 1, 1, 1)
    rows = torch.arange(len(latents), device=latents.device)
    return StudentTarget(latents, now, until, velocity - span * change, rows)


def jittered(steps: int, shift: Callable[[float], float]) -> list[float]:
    """Draw levels from the start to 0 for so many steps; each inner one lies anywhere in its share."""
    inner = [1 - (n + float(torch.rand(()))) / steps for n in range(1, steps)]
    return [shift(t) for t in (1.0, *inner, 0.0)]


def _picked(count: int, points: int, shares: tuple[float, float, float]) -> tuple[Tensor, Tensor, Tensor]:
    """Draw pairs of points: number of the first, number of the last, and whether only the first counts."""
    to_end, from_start, standing = shares
    last_point = points - 1
    first = torch.randint(0, last_point, (count,))
    first = torch.where(torch.rand(count) < from_start, torch.zeros_like(first), first)
    # Any point after the first one.
    ahead = (torch.rand(count) * (last_point - first)).long()
    last = first + 1 + ahead
    last = torch.where(torch.rand(count) < to_end, torch.full_like(last, last_point), last)
    return first, last, torch.rand(count) < standing


def _rows(latents: Tensor, level: float) -> Tensor:
    return torch.full((len(latents),), level, dtype=latents.dtype, device=latents.device)
