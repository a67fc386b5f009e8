"""What the page shows of the data themselves: the newest EEG, and slices of the newest volume."""

import math

import numpy as np

from rtdecode.types import Array, Volume
from rtdecode.windows.assembler import Assembler
from streaming.session.slices import cut


class SignalSnapshot:
    """Read from an assembler what has come since the last reading.

    Parameters
    ----------
    assembler : Assembler
        What holds the newest EEG and volumes.
    """

    def __init__(self, assembler: Assembler) -> None:
        self._assembler = assembler
        self._traced_at = -math.inf
        self._sliced: Volume | None = None

    def arrays(self) -> dict[str, Array]:
        """Return what is new by name, as `streaming.status` describes it."""
        return self._traces() | self._slices()

    def _traces(self) -> dict[str, Array]:
        newest = self._assembler.eeg_newest
        if not math.isfinite(newest):
            return {}
        grid = self._assembler.grid
        rate = float(grid.sfreq)
        # A window of EEG has room in a message.
        since = max(self._traced_at, newest - float(grid.window))
        times = since + (1 + np.arange(int((newest - since) * rate))) / rate
        newest_eeg = self._assembler.eeg_shown(times)
        if newest_eeg is None or not len(times):
            return {}
        values, mask = newest_eeg
        self._traced_at = float(times[-1])
        return {"traces": values.astype(np.float16), "traced": mask}

    def _slices(self) -> dict[str, Array]:
        head = self._assembler.head
        if head is None or head.volume is None or head.volume is self._sliced:
            return {}
        self._sliced = head.volume
        slices, region = cut(head.volume.data, head.volume.affine, head.region())
        return {"slices": slices, "region": region}
