"""Windows decoded by a trained system as a session decodes them, each carrying on from the one before."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode.bundle.noise import noise
from rtdecode.disk.clip_file import Pixels, keep
from rtdecode.scores.events import Span
from train.system import System
from train.work import Arrays

_AT_ONCE = 20
# Latent values that are decoded at once: 20 clips of 33 frames of 64 x 96 pixels need no more.
_LATENTS = 2**19


@dataclass(frozen=True)
class Reconstruction:
    """What was made of windows.

    Attributes
    ----------
    clips : sequence of uint8 (frame, row, column, 3)
        A clip a window; in a temporary file where they are many or large (`rtdecode.disk.clip_file.keep`).
    latents : float32, (window, channel, latent frame, row, column)
    confidence : float64, (window,), or None
        None without a signal, and for a system that has none.
    scores : float64, (window, label), or None
        Of systems that name categories.
    """

    clips: Sequence[Pixels]
    latents: NDArray[np.float32]
    confidence: NDArray[np.float64] | None
    scores: NDArray[np.float64] | None = None


def reconstruct(
    system: System,
    inputs: Arrays,
    where: Sequence[Span],
    noise_key: str,
    *,
    steps: int = 0,
    carry: bool = True,
    null: bool = False,
) -> Reconstruction:
    """Reconstruct windows as a session would.

    Parameters
    ----------
    system : System
    inputs : dict
        Signals by port, one row a window.
    where : sequence of (run, start_s, stop_s)
        Windows in time order within each run; one that begins where the one before it ends carries on
        from it.
    noise_key : str
        Seeds the noise, see `rtdecode.bundle.noise.noise`.
    steps : int
        Denoising steps, for a system that denoises.
    carry : bool
        False lets every clip begin afresh.
    null : bool
        The null-brain twin: no signal, same noise.
    """
    if null:
        inputs = {name: np.zeros_like(value) for name, value in inputs.items()}
    joins = carry and not null and system.carried > 0
    latents = np.zeros((len(where), *system.latent_shape), np.float32)
    said: dict[str, NDArray[np.float64]] = {}
    for rows in _order(where, carry=joins):
        before = [n - 1 if joins and _joined(where, n) else -1 for n in rows]
        given = {name: value[rows] for name, value in inputs.items()} | _carried(system, latents, before)
        starts = np.stack([_noise(noise_key, where[n], system.latent_shape) for n in rows])
        condition = system.condition(given)
        latents[rows] = system.sample(condition, starts, steps)
        for name in ("confidence", "scores"):
            value = getattr(condition, name)
            if value is not None:
                said.setdefault(name, np.zeros((len(where), value.shape[1])))[rows] = np.asarray(value)
    confidence = said["confidence"][:, 0] if "confidence" in said and not null else None
    return Reconstruction(clips_of(system, latents), latents, confidence, said.get("scores"))


def clips_of(system: System, latents: NDArray[Any]) -> list[Pixels]:
    """Draw latents as a session emits them: clips, each uint8 (frame, row, column, 3)."""
    return keep(clip for part in _drawn(system, latents) for clip in part)


def _drawn(system: System, latents: NDArray[Any]) -> Iterator[NDArray[np.uint8]]:
    """Draw a few clips at a time, the fewer the larger they are."""
    at_once = max(1, min(_AT_ONCE, _LATENTS // latents[0].size))
    for n in range(0, len(latents), at_once):
        yield np.rint(system.frames(latents[n : n + at_once]) * 255).astype(np.uint8)


def _carried(system: System, latents: NDArray[np.float32], before: list[int]) -> Arrays:
    """The end of the clip before each window, and whether there is one; nothing where none is read."""
    if not system.carried:
        return {}
    known = np.array([[float(n >= 0)] for n in before], np.float32)
    last = latents[before, :, -system.carried :] * known[:, :, None, None, None]
    return {"carry": last, "carry_mask": known}


def _noise(noise_key: str, span: Span, shape: tuple[int, ...]) -> NDArray[np.float32]:
    run, start, stop = span
    return noise(noise_key, run, round(start / (stop - start)), (1, *shape))[0]


def _joined(where: Sequence[Span], n: int) -> bool:
    return n > 0 and where[n - 1][0] == where[n][0] and abs(where[n - 1][2] - where[n][1]) < 1e-6


def _order(where: Sequence[Span], *, carry: bool) -> list[list[int]]:
    """Windows that can be reconstructed together, in order: the n-th of every chain of joined ones."""
    if not carry:
        return [list(range(n, min(n + _AT_ONCE, len(where)))) for n in range(0, len(where), _AT_ONCE)]
    depth: list[int] = []
    for n in range(len(where)):
        depth.append(depth[-1] + 1 if _joined(where, n) else 0)
    waves: list[list[int]] = [[] for _ in range(max(depth) + 1)]
    for n, d in enumerate(depth):
        waves[d].append(n)
    return waves
