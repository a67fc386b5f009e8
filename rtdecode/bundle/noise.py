"""The noise that a clip starts from, which depends on the bundle's key and the window alone."""

import numpy as np

from rtdecode.types import Float


def noise(key: str, run: int, window: int, shape: tuple[int, ...], draw: int | None = None) -> Float:
    """Draw the noise of one window.

    The same key and window give the same noise in a live session, in a replay and in a batch, whatever was
    decoded before. A preview and its final share it, so that the clip does not jump between them.

    Parameters
    ----------
    key : str
        The ``noise_key`` of a bundle, hexadecimal digits.
    run, window : int
        Run of the session and window within the run, from 0.
    shape : tuple of int
        Shape of the latent, including the batch axis.
    draw : int, optional
        Number of a later draw for the same window, counted from 0. By default, the noise that the window
        starts from is drawn.

    Returns
    -------
    float32, `shape`
        Standard normal values.

    Raises
    ------
    ValueError
        If `key` is not hexadecimal, or a number is negative.
    """
    # Later draws go into the spawn key. In the entropy, draw 0 would be a trailing
    # zero, which changes nothing.
    later = () if draw is None else (draw,)
    seed = np.random.SeedSequence([int(key, 16), run, window], spawn_key=later)
    return np.random.Generator(np.random.Philox(seed)).standard_normal(shape, dtype=np.float32)
