"""Windows for the random bundles."""

import numpy as np

from rtdecode.types import Window
from tests.streaming.bundles import CHANNELS, VOXELS


def window(
    index: int = 0,
    revision: str = "final",
    *,
    eeg: bool = True,
    fmri: bool = True,
    slots: int = 5,
    samples: int = 500,
    windowed_at: float = 100.0,
    seed: int = 0,
) -> Window:
    """A window cut at `windowed_at` on the local clock."""
    rng = np.random.default_rng(seed)
    mask = np.ones(slots, bool)
    return Window(
        run=0,
        index=index,
        start_s=4.0 * index,
        stop_s=4.0 * index + 4,
        session_s=4.0 * index,
        revision=revision,
        eeg=rng.normal(size=(len(CHANNELS), samples)).astype(np.float32) if eeg else None,
        eeg_mask=np.full(samples, eeg),
        fmri=rng.normal(size=(slots, VOXELS)).astype(np.float32) if fmri else None,
        fmri_mask=mask & fmri,
        fmri_expected=mask,
        floor_at=windowed_at - 0.01,
        stamps={
            "acquired": windowed_at - 0.1,
            "arrived": windowed_at - 0.01,
            "windowed": windowed_at,
            "stop": windowed_at - 5,
        },
    )
