"""Windows of noise, as sessions cut them, for what is measured of decoders that serve."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from rtdecode.bundle import Bundle, golden
from rtdecode.types import Window

_SEED = 1


def random_windows(bundle: Bundle, count: int) -> Iterator[Window]:
    """Draw windows of noise, a preview and a final for each, with the times at which a session cuts them."""
    rng = np.random.default_rng(_SEED)
    example = golden.window(bundle)
    grid = bundle.manifest.grid
    hop_s = float(grid.hop)
    for n in range(count):
        index, is_final = divmod(n, 2)
        # The preview is cut when its EEG is there, and the final a lag later, after the next preview.
        cut_at = hop_s * index + float(grid.window) + is_final * (float(grid.lag) + 0.1)
        eeg = None if example.eeg is None else rng.normal(size=example.eeg.shape).astype(np.float32)
        fmri = None if example.fmri is None else rng.normal(size=example.fmri.shape).astype(np.float32)
        yield replace(
            example,
            index=index,
            revision="final" if is_final else "preview",
            eeg=eeg,
            eeg_mask=np.ones_like(example.eeg_mask),
            fmri=fmri if is_final else None,
            fmri_mask=np.full_like(example.fmri_mask, bool(is_final)),
            stamps={"windowed": cut_at},
        )


def paced(windows: Iterable[Window], every_s: float) -> Iterator[Window]:
    """Hold windows back, so that one comes in so many seconds.

    A decoder refuses more than one of a kind a hop.

    Parameters
    ----------
    windows : iterable of Window
    every_s : float
    """
    began_at = time.monotonic()
    for n, window in enumerate(windows):
        time.sleep(max(0.0, began_at + n * every_s - time.monotonic()))
        yield window
