"""Turn the samples of one open EEG stream into chunks in microvolts and triggers.

Where the stamps do not agree with their arrival, samples are held back until it is clear what the stamps tell
(`rtdecode.clocks.placement`); where the stream states no unit, until their size makes it clear.
"""

from collections import deque

import numpy as np
from numpy.typing import NDArray

from rtdecode.clocks.placement import StampPlacement
from rtdecode.eeg.channels import infer_unit
from rtdecode.liblsl import pylsl
from rtdecode.signal.eeg.badchannels import detrended
from rtdecode.types import Array, EegChunk, Trigger
from streaming.sources.lsl.inlet import PULL, Inlet
from streaming.sources.lsl.layout import Layout
from streaming.sources.lsl.stim_channel import EdgeDetector

# Length of data by which a missing unit is judged, and the most that is held back until it is clear, s.
_JUDGED_S = 1.0
_HELD_S = 10.0
_UNITS = {1.0: "microvolts", 1e3: "millivolts", 1e6: "volts"}


class EegReader:
    """Deliver an inlet's samples in microvolts and in the order of the montage.

    Parameters
    ----------
    inlet : Inlet
        Where samples are pulled from.
    layout : Layout
        How the stream's columns become channels.

    Attributes
    ----------
    layout : Layout
        The same, with the scale of channels whose unit was concluded.
    placement : StampPlacement
        The stream's stamps, as they are or placed by arrival.
    unit_note : str
        What was concluded about a missing unit, or why nothing was; otherwise empty.
    """

    def __init__(self, inlet: Inlet, layout: Layout) -> None:
        self.inlet = inlet
        self.layout = layout
        self.placement = StampPlacement(layout.montage.sfreq)
        self._unplaced: deque[tuple[Array, NDArray[np.float64], float]] = deque()
        self._edges = EdgeDetector(layout.stim)
        self._held: deque[tuple[Array, NDArray[np.float64], float]] = deque()
        self._unclear = bool(np.isnan(layout.scale).any())
        self._judged_from = 0
        self.unit_note = ""

    @property
    def note(self) -> str:
        """What was concluded about a missing unit and about the stamps; empty where both are as usual."""
        return "; ".join(filter(None, (self.unit_note, self.placement.note)))

    def pull(self) -> tuple[list[EegChunk], list[Trigger]]:
        """Return the chunks and the triggers that are there.

        Raises
        ------
        GeometryError
            If the stamps tell nothing of when the samples were acquired.
        """
        chunks: list[EegChunk] = []
        triggers: list[Trigger] = []
        has_more = True
        while has_more:
            raw, stamps = self.inlet.pull()
            # A full pull may have left samples behind.
            has_more = len(stamps) == PULL
            if len(stamps) > 0 or self._unplaced:
                for part, local, arrived_at in self._placed(raw, stamps, pylsl.local_clock()):
                    triggers += self._edges.push(part, local, arrived_at)
                    chunks += self._converted(part, local, arrived_at)
        return chunks, triggers

    def _placed(
        self, raw: Array, stamps: NDArray[np.float64], now: float
    ) -> list[tuple[Array, NDArray[np.float64], float]]:
        """Return samples with their stamps on the local clock, as soon as that can be told."""
        new = [(raw, stamps, now)] if len(stamps) else []
        if not self.placement.decide(stamps, now):
            # Copies, because the next pull overwrites the inlet's buffer.
            self._unplaced += [(part.copy(), of_part, arrived_at) for part, of_part, arrived_at in new]
            return []
        parts = [*self._unplaced, *new]
        self._unplaced.clear()
        return [
            (part, self.placement.place(of_part, arrived_at), arrived_at)
            for part, of_part, arrived_at in parts
        ]

    def _converted(self, raw: Array, stamps: NDArray[np.float64], now: float) -> list[EegChunk]:
        if not self._unclear:
            return [EegChunk(self.layout.convert(raw), stamps, now)]
        self._hold(raw, stamps, now)
        if self._unclear:
            return []
        waiting = self._held
        self._held = deque()
        return [EegChunk(self.layout.convert(r), s, arrived_at) for r, s, arrived_at in waiting]

    def _hold(self, raw: Array, stamps: NDArray[np.float64], now: float) -> None:
        sfreq = self.layout.montage.sfreq
        # A copy, because the next pull overwrites the inlet's buffer.
        self._held.append((raw.copy(), stamps, now))
        while sum(len(s) for _, s, _ in self._held) > _HELD_S * sfreq + len(stamps):
            self._held.popleft()
        self._judged_from += len(stamps)
        if self._judged_from < _JUDGED_S * sfreq:
            return
        self._judged_from = 0
        rms = self._rms(int(_JUDGED_S * sfreq))
        scale = infer_unit(rms)
        if scale is None:
            self.unit_note = (
                f"the stream states no unit, and data of {rms:.3g} rms do not tell which: set the unit "
                "(desc/channels/channel/unit) in the amplifier's LSL program"
            )
            return
        self.unit_note = f"the stream states no unit: taken as {_UNITS[scale]}, as its {rms:.3g} rms say"
        self.layout = self.layout.with_unit(scale)
        self._unclear = False

    def _rms(self, count: int) -> float:
        """Return the median over EEG channels of the standard deviation of the last `count` samples."""
        kinds = self.layout.montage.kinds
        eeg = [i for i, kind in enumerate(kinds) if kind == "eeg" and np.isnan(self.layout.scale[i, 0])]
        columns = self.layout.columns[eeg or list(range(len(kinds)))]
        data = np.concatenate([raw[:, columns] for raw, _, _ in self._held])[-count:].astype(np.float64)
        return float(np.median(detrended(data.T).std(axis=1)))
