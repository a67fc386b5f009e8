"""The noise that a clip starts from: a function of the bundle and the window, of nothing else."""

import numpy as np

from rtdecode.types import Float


def noise(digest: str, run: int, window: int, shape: tuple[int, ...]) -> Float:
    """Draw the noise of one window.

    The same bundle and window give the same noise, live, in a replay and in a batch, whatever was
    decoded before; a preview and its final share it, so that the clip does not jump between them.

    Parameters
    ----------
    digest : str
        A bundle's digest, hexadecimal digits.
    run, window : int
        Run of the session and window within the run, from 0.
    shape : tuple of int
        Of the latent, the batch axis included.

    Returns
    -------
    float32, `shape`
        Standard normal.

    Raises
    ------
    ValueError
        If `digest` is not hexadecimal, or a number is negative.
    """
    seed = np.random.SeedSequence([int(digest, 16), run, window])
    return np.random.Generator(np.random.Philox(seed)).standard_normal(shape, dtype=np.float32)
