"""Windows decoded by a trained system as a session decodes them, each with the end of the clip before.

Signals by port and the windows' spans come in; clips, latents, confidence, scores and the presence of a
brain go out (a `Reconstruction`). A live session decodes window after window. Here, windows that do not
depend on each other are decoded together.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode.bundle.brain import LEAST
from rtdecode.bundle.noise import noise
from rtdecode.disk.clip_file import Pixels, keep
from rtdecode.scores.events import Span
from train.config.run_context import Arrays
from train.evaluation.kept_decodes import KeptWindows
from train.interface.system import Condition, System

# The name of the latents among what is kept of a round.
_LATENT = "latents"
# Windows that are sampled, or clips that are decoded, at once.
_AT_ONCE = 20
# Latent values that are decoded at once. 20 clips of 33 frames of 64 x 96 pixels stay below it.
_LATENTS = 2**19


@dataclass(frozen=True)
class Reconstruction:
    """The clips that were decoded from windows, and what else the decoder said.

    Attributes
    ----------
    clips : sequence of uint8 (frame, row, column, 3)
        A clip for each window; many or large clips lie in a temporary file (`rtdecode.disk.clip_file.keep`).
    latents : float32, (window, channel, latent frame, row, column)
        What the clips were drawn from.
    confidence : float64, (window,), or None
        None without a signal, and for a system that has none. NaN where the system reads no brain.
    scores : float64, (window, label), or None
        Probabilities of the categories, for systems that name categories.
    brain : float64, (window, 3), or None
        Probabilities of `rtdecode.types.PRESENCES`, for systems that tell the presence of a brain.
    """

    clips: Sequence[Pixels]
    latents: NDArray[np.float32]
    confidence: NDArray[np.float64] | None
    scores: NDArray[np.float64] | None = None
    brain: NDArray[np.float64] | None = None


def reconstruct(
    system: System,
    inputs: Arrays,
    where: Sequence[Span],
    noise_key: str,
    *,
    hop_s: float,
    steps: int = 0,
    carry: bool = True,
    null: bool = False,
    archive: KeptWindows | None = None,
) -> Reconstruction:
    """Reconstruct windows as a session would.

    Parameters
    ----------
    system : System
        The trained system that decodes.
    inputs : dict
        Signals by port, with a row for each window.
    where : sequence of (run, start_s, stop_s)
        Windows in time order within each run. A window that begins where the one before it ends gets the end
        of that one's clip.
    noise_key : str
        Seeds the noise, see `rtdecode.bundle.noise.noise`.
    hop_s : float
        Distance between the starts of two windows, s. It says which of its run's windows each one is.
    steps : int
        Denoising steps, for a system that denoises.
    carry : bool
        Whether clips get the end of the one before. With False, every clip begins afresh.
    null : bool
        Whether to make the null-brain twin, which has no signal and the same noise.
    archive : KeptWindows, optional
        Where they are kept: what is there is not decoded again.
    """
    if null:
        inputs = {name: np.zeros_like(value) for name, value in inputs.items()}
    joins = carry and not null and system.carried > 0
    latents = np.zeros((len(where), *system.latent_shape), np.float32)
    readouts: dict[str, NDArray[np.float64]] = {}
    # A clip needs the end of the one before: `_order` puts that into an earlier round.
    for number, rows in enumerate(_order(where, carry=joins)):
        before = [n - 1 if joins and _joined(where, n) else -1 for n in rows]
        batch = {name: value[rows] for name, value in inputs.items()} | _carried(system, latents, before)
        spans = [where[n] for n in rows]
        make = partial(_decoded, system, batch, spans, noise_key, hop_s, steps)
        decoded = make() if archive is None else archive.round(number, make)
        latents[rows] = decoded.pop(_LATENT)
        for name, value in decoded.items():
            readouts.setdefault(name, np.zeros((len(where), value.shape[1])))[rows] = value
    # A clip without a signal has no confidence, whatever the system says.
    confidence = readouts["confidence"][:, 0] if "confidence" in readouts and not null else None
    brain = readouts.get("brain")
    if confidence is not None and brain is not None:
        # As a session does: a clip without a readable brain has none either.
        confidence = np.where(brain[:, 0] >= LEAST, confidence, np.nan)
    clips = clips_of(system, latents, archive)
    return Reconstruction(clips, latents, confidence, readouts.get("scores"), brain)


def _decoded(
    system: System, batch: Arrays, spans: Sequence[Span], noise_key: str, hop_s: float, steps: int
) -> Arrays:
    """Decode some windows to latents, with what the system says of them."""
    starts = np.stack([_noise(noise_key, span, hop_s, system.latent_shape) for span in spans])
    condition = system.condition(batch)
    arrays = {_LATENT: np.asarray(system.sample(condition, starts, steps))}
    readouts = {name: getattr(condition, name) for name in ("confidence", "scores", "brain")}
    return arrays | {name: np.asarray(value) for name, value in readouts.items() if value is not None}


def brain_of(system: System, inputs: Arrays) -> NDArray[np.float64] | None:
    """Ask a system whether the signals of windows are those of a brain that watches.

    Every window is asked about alone, without the end of a clip before, and nothing is drawn.

    Parameters
    ----------
    system : System
        The trained system that is asked.
    inputs : dict
        Signals by port, with a row for each window.

    Returns
    -------
    (window, 3) float64 or None
        See `Condition.brain`; None for a system that does not say it.
    """
    brains = []
    for condition in conditions_alone(system, inputs):
        if condition.brain is None:
            return None
        brains.append(np.asarray(condition.brain, np.float64))
    return np.concatenate(brains)


def conditions_alone(system: System, inputs: Arrays) -> Iterator[Condition]:
    """Yield the conditions of some windows at a time, each without the end of a clip before.

    The arguments are those of `brain_of`.
    """
    count = len(next(iter(inputs.values())))
    latents = np.zeros((1, *system.latent_shape), np.float32)
    for first in range(0, count, _AT_ONCE):
        batch = {name: value[first : first + _AT_ONCE] for name, value in inputs.items()}
        rows = len(next(iter(batch.values())))
        yield system.condition(batch | _carried(system, latents, [-1] * rows))


def draws_over_start(system: System, inputs: Arrays) -> bool:
    """Tell whether a system's drawing starts from latents mixed with noise. The first window tells of all.

    The arguments are those of `brain_of`.
    """
    first = {name: value[:1] for name, value in inputs.items()}
    (condition,) = conditions_alone(system, first)
    return condition.start is not None and 0 < float(np.ravel(condition.start_level)[0]) < 1


def starts_of(system: System, inputs: Arrays) -> NDArray[np.float32]:
    """Return the latents that drawing starts from; see `train.interface.system.Condition.start`.

    The arguments are those of `brain_of`.
    """
    starts = [np.asarray(condition.start, np.float32) for condition in conditions_alone(system, inputs)]
    return np.concatenate(starts)


def clips_of(
    system: System,
    latents: NDArray[Any],
    archive: KeptWindows | None = None,
    *,
    value_limit: int = _LATENTS,
) -> list[Pixels]:
    """Draw latents as the clips that a session emits, each uint8 (frame, row, column, 3).

    A few clips are drawn at once, and fewer if their latents have more values together than `value_limit`.
    """
    at_once = max(1, min(_AT_ONCE, value_limit // latents[0].size))
    if archive is None:
        return keep(_drawn(system, latents, at_once, 0))
    return archive.clips(len(latents), at_once, partial(_drawn, system, latents, at_once))


def _drawn(system: System, latents: NDArray[Any], at_once: int, first: int) -> Iterator[NDArray[np.uint8]]:
    for n in range(first, len(latents), at_once):
        frames = system.frames(latents[n : n + at_once]) * 255
        yield from np.rint(frames, out=frames).astype(np.uint8)


def _carried(system: System, latents: NDArray[np.float32], before: list[int]) -> Arrays:
    """Return the end of the clip before each window, and 1 where there is one; nothing for other systems."""
    if not system.carried:
        return {}
    has_carry = np.array([[float(n >= 0)] for n in before], np.float32)
    last = latents[before, :, -system.carried :] * has_carry[:, :, None, None, None]
    return {"carry": last, "carry_mask": has_carry}


def _noise(noise_key: str, span: Span, hop_s: float, shape: tuple[int, ...]) -> NDArray[np.float32]:
    run, start, _ = span
    return noise(noise_key, run, round(start / hop_s), (1, *shape))[0]


def _joined(where: Sequence[Span], n: int) -> bool:
    return n > 0 and where[n - 1][0] == where[n][0] and abs(where[n - 1][2] - where[n][1]) < 1e-6


def _order(where: Sequence[Span], *, carry: bool) -> list[list[int]]:
    """List windows that can be reconstructed together, in the order in which they must be.

    With carry, a window needs the clip before it, so the n-th windows of all chains go together.
    """
    if not carry:
        return [list(range(n, min(n + _AT_ONCE, len(where)))) for n in range(0, len(where), _AT_ONCE)]
    depth: list[int] = []
    for n in range(len(where)):
        depth.append(depth[-1] + 1 if _joined(where, n) else 0)
    waves: list[list[int]] = [[] for _ in range(max(depth) + 1)]
    for n, d in enumerate(depth):
        waves[d].append(n)
    return waves
