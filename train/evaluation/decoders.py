"""All that is decoded of the windows of a session: the system itself, its controls, and baselines."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial

import numpy as np
from numpy.typing import NDArray

from rtdecode.disk.clip_file import Pixels
from rtdecode.scores.colours import STILL, drawn_layout, layouts, one_colour
from train.config.run_context import Arrays
from train.evaluation.beside import (
    CONSTANT,
    DECODED_COLOURS,
    DECODER,
    EXCHANGED,
    FLOORS,
    NEAREST,
    NULL,
    ONE_STEP,
    ORACLE,
    REVERSED,
    START,
    TOLD_COLOURS,
    WITHOUT_ADAPTERS,
    only,
    routes_of,
)
from train.evaluation.film_scores import FilmWindows
from train.evaluation.reconstruct import clips_of, conditions_alone, draws_over_start, starts_of
from train.evaluation.section import Decoded, EvaluatedRun, HeldOutWindows
from train.interface.system import System

# What the system does not decode itself.
_REFERENCES = (NEAREST, REVERSED, START, ORACLE, CONSTANT, *FLOORS)


def decoders_of(
    run: EvaluatedRun, windows: HeldOutWindows, is_wanted: Callable[[str], bool]
) -> dict[str, Callable[[], Decoded]]:
    """List what a session is decoded by: suffix -> what decodes, in the order in which that is done.

    Parameters
    ----------
    run : EvaluatedRun
        The run, with its decoder and its baselines.
    windows : HeldOutWindows
        Windows of the session.
    is_wanted : callable
        Whether what has a suffix is wanted. The system's own clips always are.
    """
    listed = _decoders(run, windows)
    return {suffix: make for suffix, make in listed.items() if suffix == DECODER or is_wanted(suffix)}


def by_system(decoders: Mapping[str, Callable[[], Decoded]]) -> dict[str, Callable[[], Decoded]]:
    """Return those that are the system itself, whatever signals it is given. They are what takes long."""
    return {suffix: make for suffix, make in decoders.items() if suffix not in _REFERENCES}


def _decoders(run: EvaluatedRun, windows: HeldOutWindows) -> dict[str, Callable[[], Decoded]]:
    truth = windows.truth
    oracle = run.baselines.oracle
    decode_own = cache(lambda: _decode(run, windows, windows.inputs))
    decoders: dict[str, Callable[[], Decoded]] = {DECODER: decode_own}
    if run.baselines.clips:
        decoders[NEAREST] = lambda: Decoded(run.nearest.to(_cut(decode_own(), truth)))
    for suffix, modalities in routes_of(run.bundle.manifest).items():
        if suffix != DECODER:
            decoders[suffix] = partial(_decode, run, windows, only(windows.inputs, modalities))
    if run.system.denoises:
        decoders[ONE_STEP] = lambda: Decoded(run.show(windows.inputs, windows.spans, steps=1).clips)
    decoders[NULL] = lambda: Decoded(run.show(windows.inputs, windows.spans, null=True).clips)
    decoders[REVERSED] = lambda: Decoded([clip[::-1] for clip in _cut(decode_own(), truth)])
    if draws_over_start(run.system, windows.inputs):
        decoders[START] = lambda: Decoded(clips_of(run.system, starts_of(run.system, windows.inputs)))
    decoders |= {suffix: partial(draw, truth.clips) for suffix, draw in COLOURS_ALONE.items()}
    decoders |= {
        suffix: partial(_decode, run, windows, inputs) for suffix, inputs in windows.controls.items()
    }
    if oracle is not None:
        floors = cache(lambda: oracle.floors(windows.inputs))
        decoders[ORACLE] = lambda: Decoded(
            oracle.clips(windows.inputs), encode=lambda: oracle.vectors(windows.inputs)
        )
        decoders[DECODED_COLOURS[0]] = lambda: Decoded(floors()[0])
        decoders[DECODED_COLOURS[1]] = lambda: Decoded(floors()[1])
    bare = run.show.without_adapters()
    if bare is not None:
        decoders[WITHOUT_ADAPTERS] = lambda: Decoded(bare(windows.inputs, windows.spans).clips)
    decoders[EXCHANGED] = lambda: Decoded(run.show(_exchanged(windows), windows.spans).clips)
    decoders[CONSTANT] = lambda: Decoded([run.mean_clip] * len(truth.clips))
    return decoders


def _decode(run: EvaluatedRun, windows: HeldOutWindows, inputs: Arrays) -> Decoded:
    reconstruction = run.show(inputs, windows.spans)
    return Decoded(
        reconstruction.clips, reconstruction.confidence, encode=lambda: vectors(run.system, inputs)
    )


def vectors(system: System, inputs: Arrays) -> NDArray[np.float32]:
    """Encode the signals of windows to the vectors that are compared with `System.targets`."""
    return np.concatenate([np.asarray(condition.pooled) for condition in conditions_alone(system, inputs)])


def _cut(reconstruction: Decoded, truth: FilmWindows) -> list[Pixels]:
    """Return the clips without the frame after the window."""
    return [clip[: len(truth.clips[0])] for clip in reconstruction.clips]


def _told_colour(clips: Sequence[Pixels]) -> Decoded:
    """Draw clips that know the true mean colours alone: what colour alone can say."""
    return Decoded(one_colour(clips))


def _told_layout(clips: Sequence[Pixels]) -> Decoded:
    """Draw clips that know the true layouts alone, and stand still."""
    return Decoded(drawn_layout(layouts(clips, STILL), clips[0].shape))


# What draws clips that know colours alone, by their suffix.
COLOURS_ALONE = dict(zip(TOLD_COLOURS, (_told_colour, _told_layout), strict=True))


def exchanged_rows(truth: FilmWindows) -> NDArray[np.int64]:
    """Return for each window the one that it is paired with (`film_scores.matched`), or itself."""
    rows = np.arange(len(truth.clips))
    for a, b in truth.pairs:
        rows[[a, b]] = b, a
    return rows


def _exchanged(windows: HeldOutWindows) -> Arrays:
    rows = exchanged_rows(windows.truth)
    return {name: x[rows] for name, x in windows.inputs.items()}
