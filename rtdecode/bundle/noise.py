"""The noise that a clip starts from: a function of the bundle's key and the window, of nothing else."""

import numpy as np

from rtdecode.types import Float


def noise(key: str, run: int, window: int, shape: tuple[int, ...], draw: int | None = None) -> Float:
    """Draw the noise of one window.

    The same key and window give the same noise, live, in a replay and in a batch, whatever was
    decoded before; a preview and its final share it, so that the clip does not jump between them.

    Parameters
    ----------
    key : str
        The ``noise_key`` of a bundle, hexadecimal digits.
    run, window : int
        Run of the session and window within the run, from 0.
    shape : tuple of int
        Of the latent, the batch axis included.
    draw : int, optional
        Number of a later draw of the same window, from 0; not given for the noise that it starts from.

    Returns
    -------
    float32, `shape`
        Standard normal.

    Raises
    ------
    ValueError
        If `key` is not hexadecimal, or a number is negative.
    """
    # A key of its own for later draws: a trailing zero in the entropy would change nothing.
    later = () if draw is None else (draw,)
    seed = np.random.SeedSequence([int(key, 16), run, window], spawn_key=later)
    return np.random.Generator(np.random.Philox(seed)).standard_normal(shape, dtype=np.float32)
