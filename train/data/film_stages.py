"""Films and the windows of those who watched them, as stages of a run."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from train.closed_form.patch_codec import encode_scaled, turn_of
from train.closed_form.structure import structure
from train.config.run_context import Arrays, RunContext
from train.data.arrays import golden, normalised_signals
from train.data.showing import AnyShowing, ShownClips

# Sessions of each kind of film on which the voxels are chosen.
_CHOOSING = 3


def some_of_each_kind(taught: Sequence[AnyShowing]) -> list[AnyShowing]:
    """Choose the sessions that voxels are chosen on: some of each kind of film."""
    kinds = {showing.kind for showing in taught}
    by_kind = [[showing for showing in taught if showing.kind == kind][:_CHOOSING] for kind in sorted(kinds)]
    return [showing for some in by_kind for showing in some]


def golden_windows(work: RunContext, showing: AnyShowing, stats: Arrays) -> Arrays:
    """Make golden windows from the first windows of a watched session."""
    first = {name: x[:3].copy() for name, x in work.read(session_stage(showing)).items()}
    return golden(first | normalised_signals(first, stats))


def session_stage(showing: AnyShowing) -> str:
    """Name the stage of a session's windows."""
    return f"session-{showing.name}"


def film_stage(showing: AnyShowing) -> str:
    """Name the stage of a session's film."""
    return f"film-{showing.pictures}"


def encode_film(codec: Arrays, film: ShownClips) -> Arrays:
    """Encode clips: latents, structure tensors, and which frames begin a shot."""
    clips = [clip[None] for clip in film.clips]
    turn = turn_of(codec["codec_mean"])
    return {
        "latents": np.concatenate([encode_scaled(codec, clip) for clip in clips]).astype(np.float16),
        "structure": np.concatenate([structure(clip, turn) for clip in clips]).astype(np.float16),
        "cuts": film.cuts,
    }


def all_clips(showings: Sequence[AnyShowing]) -> NDArray[np.uint8]:
    """Return the clips of some sessions, one session's after the other's."""
    return np.concatenate([showing.film().clips for showing in showings])
