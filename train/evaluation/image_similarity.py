"""How like a film clips are as pictures: structural similarity, PSNR by frames and end-point error.

The optical flow of one clip takes longer than all else that is judged of it. So that of the film is made
once for all decoders that are held against it, and every core takes windows of its own, up to 16 of them.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from rtdecode.disk.clip_file import Pixels
from train.config.run_context import progress
from train.metrics.optical_flow import Flow, end_point_errors, flows
from train.metrics.similarity import VARIANTS, published_psnr, published_ssim, resized

# The suffix of a clip that stands still. It has an end-point error alone.
FROZEN = "_frozen"
# Windows that are compared at once, one on each core. Each takes some 80 MB.
_MOST_AT_ONCE = 16

# Metric -> value of one window.
Window = dict[str, float]


def likenesses(
    clips: Mapping[str, Sequence[Pixels]],
    films: Sequence[Pixels],
    constant: tuple[str, Pixels],
) -> dict[str, list[Window]]:
    """Compare clips with the windows of a film.

    Parameters
    ----------
    clips : mapping
        Suffix of a decoder -> its clip of each window, (frame, row, column, 3) uint8.
    films : sequence
        Each window of the film, likewise.
    constant : (suffix, clip)
        A clip that is the same in each window.

    Returns
    -------
    dict
        Suffix, that of the constant clip and `FROZEN` too -> metric -> value, of each window.
    """
    same, clip = constant
    steady = list(flows(clip))

    def window(number: int) -> dict[str, Window]:
        film = films[number]
        small = resized(film)
        decoded = {suffix: decoder_clips[number] for suffix, decoder_clips in clips.items()}
        likeness = {
            suffix: _likeness(decoded_clip, small) for suffix, decoded_clip in {**decoded, same: clip}.items()
        }
        clip_flows: dict[str, Iterable[Flow]] = {
            suffix: flows(decoded_clip) for suffix, decoded_clip in decoded.items()
        }
        errors = end_point_errors({**clip_flows, same: steady}, flows(film), FROZEN)
        return {
            suffix: likeness.get(suffix, {}) | {"end_point_error": error} for suffix, error in errors.items()
        }

    # OpenCV and SciPy leave Python's lock while they compute.
    with ThreadPoolExecutor(min(_MOST_AT_ONCE, os.cpu_count() or 1)) as pool:
        windows = list(progress(pool.map(window, range(len(films))), "pictures", len(films)))
    return {suffix: [scores[suffix] for scores in windows] for suffix in windows[0]}


def _likeness(clip: Pixels, film: Pixels) -> Window:
    """Compare a clip with the film, which is small already."""
    pair = [resized(clip)], [film]
    scores = {f"ssim_{name}": float(published_ssim(*pair, name)[0]) for name in VARIANTS}
    scores["psnr_frames"] = float(published_psnr(*pair)[0])
    return scores
