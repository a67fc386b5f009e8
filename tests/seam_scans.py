"""Data of `tests.seam_system`: two participants see colours, and their signals are noise that tells them."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from rtdecode.bundle import Bundle, ClipGeometry, EegInput, FmriInput, Manifest
from rtdecode.scores.events import Event, Span
from rtdecode.signal.eeg.band import EegBand
from rtdecode.signal.volume.baseline import Baseline
from rtdecode.signal.volume.projection import Projection
from rtdecode.timing import TimingGrid
from rtdecode.types import EegChunk, Montage, Trigger, Volume
from tests.streaming.bundles import AFFINE, CHANNELS, SHAPE
from train.config.run_context import Arrays, RunContext
from train.data.chain import draft_bundle, draft_manifest, windows
from train.data.phantom import spans, window_arrays

FRAMES = 17
ROWS = 48
COLUMNS = 80
# Name of a participant -> the number and the count of voxels that are read of it.
PARTICIPANTS = {"one": (1, 6), "two": (2, 9)}
# Nothing is trained on this one.
NEWCOMER = "three"
_EVERYBODY = PARTICIPANTS | {NEWCOMER: (3, 6)}
# Of the player and of what is made here: microvolts and scanner units.
EEG_SCALE = 20.0
RESTING = 500.0
FMRI_SCALE = 20.0
_SFREQ = 250.0
_LEAD_S = 4.0
_ZERO_AT = 1000.0
_DELAY_S = 0.1


@dataclass(frozen=True)
class Scans:
    """Sessions of both participants; a seed fixes what is seen and the noise.

    Attributes
    ----------
    grid : TimingGrid
    seconds : float
        Of each session.
    """

    grid: TimingGrid
    seconds: float

    def check(self, work: RunContext) -> None:
        work.refuse_data()

    def manifest(self, name: str) -> Manifest:
        number, voxels = _EVERYBODY[name]
        eeg = EegInput(list(CHANNELS), "FCz", "microvolts", EegBand(0.5, 40.0, 2, "none"))
        fmri = FmriInput(voxels, list(SHAPE), AFFINE.tolist(), Baseline(0, 0.0))
        clip = ClipGeometry(FRAMES, ROWS, COLUMNS, float(self.grid.fps))
        return draft_manifest("seam", self.grid, clip, eeg, fmri, simulated=True, subject=number)

    def projection(self, name: str) -> Projection:
        number, voxels = _EVERYBODY[name]
        places = np.random.default_rng(number).choice(int(np.prod(SHAPE)), voxels, replace=False)
        return Projection(np.sort(places), SHAPE, AFFINE)

    def stats(self, name: str) -> Arrays:
        _, voxels = _EVERYBODY[name]
        grey = np.full((FRAMES, ROWS, COLUMNS, 3), 128, np.uint8)
        return {
            "eeg_mean": np.zeros(len(CHANNELS), np.float32),
            "eeg_scale": np.full(len(CHANNELS), EEG_SCALE, np.float32),
            "fmri_mean": np.full(voxels, RESTING, np.float32),
            "fmri_scale": np.full(voxels, FMRI_SCALE, np.float32),
            "mean_clip": grey,
        }

    def bundle(self, name: str) -> Bundle:
        return draft_bundle(self.manifest(name), self.stats(name), self.projection(name))

    def inputs(self, name: str, seed: int) -> Arrays:
        """Windows of one session as the chain of a live session makes them."""
        session_windows = windows(
            self.bundle(name), self.items(name, seed), self.montage, seconds=self.seconds
        )
        return window_arrays(self.manifest(name), session_windows)

    @property
    def montage(self) -> Montage:
        return Montage(CHANNELS, _SFREQ)

    @property
    def count(self) -> int:
        return self.grid.count(self.seconds)

    def where(self, seed: int) -> list[Span]:
        return spans(seed, self.count, self.grid)

    def events(self, seed: int) -> list[Event]:
        warm = self.colours(seed)[:, 0] > 0.5
        names = ["warm" if yes else "cold" for yes in warm]
        hop = float(self.grid.hop)
        return [Event(hop * k, hop, "shot", {"background": name}) for k, name in enumerate(names)]

    def colours(self, seed: int) -> np.ndarray:
        """What is seen in each window, (window, 3) in [0, 1]."""
        return np.random.default_rng((seed, 1)).random((self.count, 3))

    def clips(self, seed: int) -> np.ndarray:
        """A colour over which a shadow moves, uint8 (window, frame, row, column, 3)."""
        column = np.arange(COLUMNS) / COLUMNS
        frame = np.arange(FRAMES) / FRAMES
        shade = 0.8 + 0.2 * np.cos(2 * np.pi * (column - frame[:, None]))
        colours = self.colours(seed)[:, None, None, None, :]
        wide = np.broadcast_to(shade[None, :, None, :, None], (self.count, FRAMES, ROWS, COLUMNS, 1))
        return np.rint(255 * wide * colours).astype(np.uint8)

    def items(self, name: str, seed: int) -> list[EegChunk | Trigger | Volume]:
        """All that arrives in a session, in order."""
        arrivals: list[Any] = [*self._eeg(seed), *self._triggers(), *self._volumes(name, seed)]
        return sorted(arrivals, key=lambda item: item.arrived_at)

    def _eeg(self, seed: int) -> list[EegChunk]:
        """The first three channels are the louder, the more there is of a colour."""
        rng = np.random.default_rng((seed, 2))
        count = int((_LEAD_S + self.seconds + _LEAD_S) * _SFREQ)
        times = np.arange(count) / _SFREQ - _LEAD_S
        loud = np.ones((len(CHANNELS), count))
        loud[:3] = 0.3 + 1.5 * self._seen(seed, times).T
        data = (EEG_SCALE * loud * rng.standard_normal(loud.shape)).astype(np.float32)
        edges = range(0, count, int(_SFREQ))
        chunks = []
        for first in edges:
            stamps = _ZERO_AT + times[first : first + int(_SFREQ)]
            chunks.append(EegChunk(data[:, first : first + len(stamps)], stamps, float(stamps[-1])))
        return chunks

    def _triggers(self) -> list[Trigger]:
        starts = [_ZERO_AT + start_s for start_s in self._starts]
        return [Trigger(stamp, "R128", stamp) for stamp in starts]

    def _volumes(self, name: str, seed: int) -> list[Volume]:
        """Each voxel follows the colours in its own way, by the lag later."""
        assert self.grid.tr is not None
        tr = float(self.grid.tr)
        number, voxels = _EVERYBODY[name]
        rng = np.random.default_rng((seed, 3))
        mixing = np.random.default_rng((number, 4)).standard_normal((3, voxels))
        colours = self._seen(seed, self._starts + tr / 2 - float(self.grid.lag))
        volumes = []
        for index, start in enumerate(self._starts):
            data = RESTING + FMRI_SCALE * rng.standard_normal(SHAPE)
            data.reshape(-1)[self.projection(name).voxels] += 3 * FMRI_SCALE * (colours[index] - 0.5) @ mixing
            ready = float(_ZERO_AT + start + tr + _DELAY_S)
            volumes.append(
                Volume(
                    data=data.astype(np.float32),
                    affine=AFFINE,
                    index=index,
                    series=1,
                    tr_s=tr,
                    acquired_s=float(start),
                    recon_s=tr + _DELAY_S,
                    readable_at=ready,
                    arrived_at=ready,
                    parsed_at=ready,
                    name=f"volume {index}",
                    uid="1",
                )
            )
        return volumes

    @property
    def _starts(self) -> np.ndarray:
        """Start of each volume, s after the first."""
        assert self.grid.tr is not None
        return np.arange(int((self.seconds + _LEAD_S) / self.grid.tr)) * float(self.grid.tr)

    def _seen(self, seed: int, times: np.ndarray) -> np.ndarray:
        """The colour at each time, (time, 3); before and after the film the nearest one."""
        window = np.floor(times / float(self.grid.hop)).astype(int)
        return self.colours(seed)[np.clip(window, 0, self.count - 1)]
