"""How good clips look, for the tests of codecs: structural similarity, visible patches, films to try."""

from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from rtdecode.phantom.film.film import FPS, HEIGHT, WIDTH
from train.closed_form import patch_codec as patch

FRAMES = 33
HOP = 8
# The window of Wang et al. 2004: a Gaussian of 1.5 pixels, 11 pixels wide.
_SIGMA = 1.5
_REACH = 5

Clips = NDArray[np.uint8]
Latents = NDArray[np.floating[Any]]


def real_clips(path: Path) -> Clips:
    """Stretches of 33 frames of a film, one a second, at 8 fps, cropped to 3:2 and reduced to 64 x 96."""
    with av.open(str(path)) as container:
        rate = float(container.streams.video[0].average_rate or FPS)
        pictures = [frame.to_image() for frame in container.decode(video=0)]
    width, height = pictures[0].size
    across = min(width, height * WIDTH / HEIGHT)
    down = across * HEIGHT / WIDTH
    box = ((width - across) / 2, (height - down) / 2, (width + across) / 2, (height + down) / 2)
    # A film of 4 s lends its last picture to the instant at its end.
    frame_numbers = [
        min(round(k / FPS * rate), len(pictures) - 1) for k in range(round(len(pictures) / rate * FPS) + 1)
    ]
    size = (WIDTH, HEIGHT)
    how = Image.Resampling.BOX
    frames = np.stack([np.asarray(pictures[i].resize(size, how, box=box)) for i in frame_numbers])
    return np.stack([frames[k : k + FRAMES] for k in range(0, len(frames) - FRAMES + 1, HOP)])


def ssim(decoded: Latents, truth: Latents) -> float:
    """Structural similarity of two clips' luminance (Wang et al. 2004, IEEE TIP 13, 600), frame by frame."""
    a, b = (clip @ np.array([0.299, 0.587, 0.114], np.float32) for clip in (decoded, truth))
    ma, mb, aa, bb, ab = (_blur(x) for x in (a, b, a * a, b * b, a * b))
    c1 = 0.01**2
    c2 = 0.03**2
    similar = (2 * ma * mb + c1) * (2 * (ab - ma * mb) + c2)
    return float((similar / ((ma**2 + mb**2 + c1) * (aa - ma**2 + bb - mb**2 + c2))).mean())


def _blur(x: Latents) -> Latents:
    return np.asarray(gaussian_filter(x, (0, _SIGMA, _SIGMA), radius=(0, _REACH, _REACH)), np.float32)


def blockiness(clips: Latents) -> float:
    """Mean difference of neighbouring pixels across patches' borders over that inside patches; 1 is none."""
    across = []
    within = []
    for axis in (2, 3):
        other_axes = tuple(k for k in range(clips.ndim) if k != axis)
        step = np.abs(np.diff(clips, axis=axis)).mean(other_axes)
        border = np.arange(1, clips.shape[axis]) % patch.SIDE == 0
        across.append(step[border])
        within.append(step[~border])
    return float(np.concatenate(across).mean() / np.concatenate(within).mean())
