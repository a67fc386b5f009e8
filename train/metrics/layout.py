"""How well two sets of layouts of colours agree; `rtdecode.scores.colours` makes them."""

import numpy as np
from numpy.typing import NDArray

# Luminance and the two colour differences of a colour (ITU-R BT.601, equation of Y', P_B, P_R).
LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)
_BLUE = np.array([-0.168736, -0.331264, 0.5])
_RED = np.array([0.5, -0.418688, -0.081312])
# A window whose layout lies closer to the session's mean, rms in grey levels of 255, shows nothing that could
# be correlated. Rounding to whole grey levels alone gives the mean over a cell less than 0.05.
_LEAST = 0.5

Matrix = NDArray[np.float64]


def luminance(colours: Matrix) -> Matrix:
    """Take the luminance of layouts, (clip, 24)."""
    return (colours @ LUMINANCE).reshape(len(colours), -1)


def hue(colours: Matrix) -> Matrix:
    """Take from layouts what the luminance does not say: two colour differences a cell, (clip, 48)."""
    return (colours @ np.stack([_BLUE, _RED], axis=1)).reshape(len(colours), -1)


def agreement(decoded: Matrix, true: Matrix, least: float = _LEAST) -> Matrix:
    """Correlate what tells the windows of a session apart, window by window.

    The mean over the session's windows is taken from the clips and from the film, each from its own. The
    figure of a window is the correlation of what is left, ``x . y / (|x| |y|)``, over all values. A decoder
    that always shows the same has nothing left and scores 0, and so does, on average, one that shows one
    window's clip in another.

    Parameters
    ----------
    decoded, true : (window, value)
        Descriptions of the emitted clips and of the true ones of one session.
    least : float
        A window whose true values deviate less from the mean, rms over values, is not scored.

    Returns
    -------
    (window,) float64
        From -1 to 1; NaN for windows that are not scored.
    """
    x = decoded - decoded.mean(axis=0)
    y = true - true.mean(axis=0)
    dots = (x * y).sum(axis=1)
    # Rounding leaves a little even of a description that is always the same.
    varies = np.linalg.norm(x, axis=1) > 1e-6 * (1 + np.abs(decoded).max())
    norms = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
    scores = np.divide(dots, norms, out=np.zeros(len(x)), where=varies & (norms > 0))
    enough = np.sqrt(np.square(y).mean(axis=1)) >= least
    return np.where(enough, scores, np.nan)
