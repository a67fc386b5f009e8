"""Whether a student may replace its teacher: held-out windows that both draw from the same noise.

A teacher of many guided steps is drawn once (`reference`), and a student with each number of steps is held
against it (`measure`). What goes wrong in distillations is measured apart: clips that are no longer those of
the teacher, that move less or more, that lose or gain colour, that are the same whatever the noise, or that
hardly depend on the brain any more.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode.disk.clip_file import Pixels
from rtdecode.scores.intervals import of_mean
from train.metrics.wins import wins_in_session

# Evaluations of the teacher on the way from noise to a clip.
TEACHER_STEPS = 50
STEPS = (1, 2, 4)
# What a student's figures must reach. Changes of a clip are ratios to the teacher's.
LEAST_SENSITIVITY = 0.9
MOTION = (0.9, 1.1)
SATURATION = (0.95, 1.05)
LEAST_DIVERSITY = 0.85
# Largest loss of 2-way identification against the teacher, at its upper 95 % limit.
MOST_LOST = 0.02

# Whose signals condition a clip: the window's own, another window's, or none.
MATCHING_BRAIN = "own"
OTHER = "other"
NONE = "none"
BRAINS = (MATCHING_BRAIN, OTHER, NONE)

Latents = NDArray[np.float32]
# Brain, rows of windows, their noise and the number of steps -> latents.
Sampler = Callable[[str, NDArray[np.int64], Latents, int], Latents]


@dataclass(frozen=True)
class Windows:
    """Held-out windows on which a student is held against its teacher.

    Attributes
    ----------
    truths : sequence of uint8 (frame, row, column, 3)
        What was shown.
    sessions : int, (window,)
        Windows are identified among those of their session.
    groups : int, (window,)
        Windows with the same number are one unit of intervals.
    mean_clip : (frame, row, column, 3)
        The mean training clip, which is subtracted before clips are correlated.
    frames : callable
        Latents -> clips, (window, frame, row, column, 3) uint8.
    latent : tuple of int
        Shape of a window's latents.
    """

    truths: Sequence[Pixels]
    sessions: NDArray[np.int64]
    groups: NDArray[np.int64]
    mean_clip: Pixels
    frames: Callable[[Latents], NDArray[np.uint8]]
    latent: tuple[int, ...]

    def noise(self, seed: int) -> Latents:
        """Draw the noise of all windows, the same for the same seed."""
        shape = (len(self.truths), *self.latent)
        return np.random.default_rng(seed).standard_normal(shape, np.float32)


@dataclass(frozen=True)
class Reference:
    """What the teacher draws.

    Attributes
    ----------
    picked : int, (window,)
        The windows that are drawn again from other brains and other noise.
    latents : dict
        Brain -> latents; all windows for their own brain, and the few for the others.
    seeds : list
        Latents of the few windows from other noise.
    wins : (window,)
        Share of 2-way comparisons that each clip wins.
    """

    picked: NDArray[np.int64]
    latents: dict[str, Latents]
    seeds: list[Latents]
    wins: NDArray[np.float64]


def signal_rows(brain: str, rows: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Return the windows, of `count`, whose signals stand for those of `rows`."""
    # Half of all windows on lies one of another session, or of another time.
    return (rows + count // 2) % count if brain == OTHER else rows


def reference(
    teacher: Sampler, windows: Windows, window_count: int, seeds: int, steps: int = TEACHER_STEPS
) -> Reference:
    """Let the teacher draw.

    Parameters
    ----------
    teacher : callable
        What draws with the teacher, see `Sampler`.
    windows : Windows
        Held-out windows.
    window_count : int
        So many windows, evenly spaced, are drawn from other brains and from other noise.
    seeds : int
        Number of other noises.
    steps : int
        Evaluations of the teacher on the way from noise to a clip.
    """
    picked = np.linspace(0, len(windows.truths) - 1, min(window_count, len(windows.truths))).astype(np.int64)
    latents = _of_brains(teacher, windows, picked, steps)
    other_seeds = _of_seeds(teacher, windows, picked, seeds, steps)
    return Reference(picked, latents, other_seeds, _wins(windows, latents[MATCHING_BRAIN]))


def measure(student: Sampler, windows: Windows, reference: Reference, steps: int) -> dict[str, Any]:
    """Hold a student of so many steps against its teacher.

    Returns
    -------
    dict
        ``error``, the squared error of its latents over the variance of the teacher's;
        ``identification``, what is lost of 2-way identification, paired (value, ci95, interval, n);
        ``motion``, ``saturation`` and ``diversity``, ratios to the teacher's; ``brain_sensitivity``, the
        smaller one of such ratios of what changes with another window's brain, and with none.
    """
    latents = _of_brains(student, windows, reference.picked, steps)
    true = reference.latents[MATCHING_BRAIN]
    clips = windows.frames(latents[MATCHING_BRAIN])
    teacher_clips = windows.frames(true)
    lost = reference.wins - _wins(windows, latents[MATCHING_BRAIN])
    changed = {
        brain: _change(latents[MATCHING_BRAIN][reference.picked], latents[brain])
        / _change(true[reference.picked], reference.latents[brain])
        for brain in (OTHER, NONE)
    }
    seeds = _of_seeds(student, windows, reference.picked, len(reference.seeds), steps)
    return {
        "error": float(np.square(latents[MATCHING_BRAIN] - true).mean() / true.var()),
        "identification": {
            "value": float(lost.mean()),
            **of_mean(lost, windows.groups, bounded=False).entries(),
            "n": len(lost),
        },
        "motion": float(_motion(clips) / _motion(teacher_clips)),
        "saturation": float(_saturation(clips) / _saturation(teacher_clips)),
        "diversity": _spread(latents[MATCHING_BRAIN][reference.picked], seeds)
        / _spread(true[reference.picked], reference.seeds),
        "brain_sensitivity": min(changed.values()),
        "brain_sensitivity_other": changed[OTHER],
        "brain_sensitivity_none": changed[NONE],
    }


def failed(figures: Mapping[str, Any]) -> list[str]:
    """Name the gates that a student with these figures does not pass, but for the one of its error."""
    lost = figures["identification"]["ci95"]
    within = {
        # Without an interval it is not known how much is lost.
        "identification": lost is not None and lost[1] <= MOST_LOST,
        "motion": MOTION[0] <= figures["motion"] <= MOTION[1],
        "saturation": SATURATION[0] <= figures["saturation"] <= SATURATION[1],
        "diversity": figures["diversity"] >= LEAST_DIVERSITY,
        "brain_sensitivity": figures["brain_sensitivity"] >= LEAST_SENSITIVITY,
    }
    return [name for name, passed in within.items() if not passed]


def _of_brains(
    sampler: Sampler, windows: Windows, picked: NDArray[np.int64], steps: int
) -> dict[str, Latents]:
    noise = windows.noise(0)
    rows = {MATCHING_BRAIN: np.arange(len(noise)), OTHER: picked, NONE: picked}
    return {brain: sampler(brain, rows[brain], noise[rows[brain]], steps) for brain in BRAINS}


def _of_seeds(
    sampler: Sampler, windows: Windows, picked: NDArray[np.int64], seeds: int, steps: int
) -> list[Latents]:
    return [sampler(MATCHING_BRAIN, picked, windows.noise(1 + seed)[picked], steps) for seed in range(seeds)]


def _wins(windows: Windows, latents: Latents) -> NDArray[np.float64]:
    clips = list(windows.frames(latents))
    return wins_in_session(clips, windows.truths, windows.sessions, windows.mean_clip)


def _change(latents: Latents, other: Latents) -> float:
    """Return the root mean square of what differs between latents."""
    return float(np.sqrt(np.square(latents - other).mean()))


def _spread(first: Latents, other_seeds: Sequence[Latents]) -> float:
    """Return the root mean square of the latents about their mean over noises."""
    samples = np.stack([first, *other_seeds])
    return float(np.sqrt(samples.var(0).mean()))


def _motion(clips: NDArray[np.uint8]) -> float:
    """Return the mean absolute difference of consecutive frames."""
    return float(np.mean([np.abs(np.diff(clip.astype(np.float32), axis=0)).mean() for clip in clips]))


def _saturation(clips: NDArray[np.uint8]) -> float:
    """Return the mean difference between the strongest and the weakest colour of a pixel."""
    return float(np.mean([np.ptp(clip, axis=-1).mean() for clip in clips]))
