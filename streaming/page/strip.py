"""A clip on the page: one picture of all its frames, one below the other, played by the browser on a canvas.

A moving picture of the same clip takes this process ten times as long to encode.
"""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_QUALITY = 90

# Plays the frames of a picture again and again. The old clip stays until the new one is there, and a picture
# that does not come is passed over.
SCRIPT = """
window.rtClip = (id, url, aspect, fps) => {
  const canvas = document.getElementById(id);
  const strip = new Image();
  strip.onload = () => {
    const frames = Math.round(strip.naturalHeight / strip.naturalWidth / aspect);
    canvas.width = strip.naturalWidth;
    canvas.height = strip.naturalHeight / frames;
    clearInterval(canvas.playing);
    const show = () => {
      const frame = Math.floor(performance.now() / 1000 * fps) % frames;
      const { width, height } = canvas;
      canvas.getContext('2d').drawImage(strip, 0, frame * height, width, height, 0, 0, width, height);
    };
    show();
    canvas.playing = setInterval(show, 1000 / fps);
    canvas.dataset.shown = url;
  };
  strip.src = url;
};
"""


def strip(frames: NDArray[np.uint8]) -> bytes:
    """Encode frames as one picture (JPEG).

    Parameters
    ----------
    frames : uint8, (frame, row, column, 3)
        Frames of a clip, from top to bottom of the picture.

    Returns
    -------
    bytes
        The picture, as wide as a frame and as high as all of them.
    """
    column = frames.reshape(-1, *frames.shape[2:])
    buffer = io.BytesIO()
    # Full chroma: small shapes keep their colours.
    Image.fromarray(column).save(buffer, "JPEG", quality=_QUALITY, subsampling=0)
    return buffer.getvalue()
