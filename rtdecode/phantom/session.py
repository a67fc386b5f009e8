"""A whole simulated session: what is shown, and what amplifier and scanner send, in order of arrival."""

import hashlib
import heapq
import math
from collections.abc import Iterator
from fractions import Fraction
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rtdecode.errors import UsageError
from rtdecode.phantom import faults as damage
from rtdecode.phantom.amplifier import LEAD_IN_S, Amplifier, montage
from rtdecode.phantom.brain import TR, neural_state, subject
from rtdecode.phantom.film import FPS, Film
from rtdecode.phantom.presets import Preset, preset_named
from rtdecode.phantom.scanner import SHAPE, Scanner, head
from rtdecode.types import EegChunk, Float, Trigger, Volume
from rtdecode.video import write_mp4

SCAN_ON_S = 8
SERIES = 4
START_AT = 1000.0
MARKER = "R128"

_EEG_DELAY_S = 0.002
_FILE_DELAY_S = 0.05  # of the delay after a volume's end, what the file takes


class PhantomSession:
    """One session of a simulated participant, the same bits for the same arguments.

    Parameters
    ----------
    preset : Preset or str
    subject_number : int
        Fixes the brain; from 1 on.
    seed : int
        Fixes film and noise; from 0 on.
    seconds : float
        Length of the film, one frame or more; the scan lasts 8 s longer, the EEG begins 10 s before it.
    cuts : str
        ``grid`` or ``free``.
    sfreq : float
        EEG sampling rate, whole Hz from 200 on.
    shape : (int, int, int)
        Voxels of a volume.
    volume_delay : float
        From a volume's end to its file being complete, s.
    spec : str
        Faults, as of `rtdecode.phantom.faults.plan`.

    Raises
    ------
    UsageError
        For values that cannot be simulated.
    """

    def __init__(
        self,
        preset: Preset | str,
        subject_number: int = 1,
        seed: int = 1000,
        seconds: float = 60.0,
        cuts: str = "grid",
        sfreq: float = 1000,
        shape: tuple[int, int, int] = SHAPE,
        volume_delay: float = 0.85,
        spec: str = "",
    ) -> None:
        _check(subject_number, seed, seconds, sfreq)
        self.preset = preset_named(preset) if isinstance(preset, str) else preset
        self.subject, self.seed, self.seconds, self.sfreq = subject_number, seed, float(seconds), int(sfreq)
        self.film = Film(seconds, seed, cuts)
        self.montage = montage(sfreq)
        self.head = head(subject_number, shape)
        self.volumes = int((Fraction(str(seconds)) + SCAN_ON_S) / Fraction(str(TR)))
        self.samples = int((Fraction(str(seconds)) + SCAN_ON_S + LEAD_IN_S) * self.sfreq)
        self.volume_delay = volume_delay
        self.recon_s = TR + volume_delay - _FILE_DELAY_S
        self.faults = damage.plan(spec, self.seconds, seed)
        self.lost_volumes = damage.dropped_volumes(self.faults, TR, self.volumes)
        name = f"{self.preset.name}/{subject_number}/{seed}/{seconds}/{cuts}/{shape}"
        self.uid = f"2.25.{int.from_bytes(hashlib.sha256(name.encode()).digest()[:15], 'big')}"

    @cached_property
    def state(self) -> Float:
        """The neural state, (frame, feature), from `rtdecode.phantom.brain.LEAD_S` before the film on."""
        rng = np.random.default_rng((self.seed, 51))
        return neural_state(self.film, self.preset.feature_noise, SCAN_ON_S + 2.0, rng)

    @cached_property
    def scanner(self) -> Scanner:
        """The scanner with this participant in it."""
        return Scanner(self.head, subject(self.subject), self.preset, self.state, self.volumes, self.seed)

    @cached_property
    def amplifier(self) -> Amplifier:
        """The amplifier with this participant's cap on it."""
        cuts = self.film.cut_frames
        return Amplifier(self.subject, self.preset, self.state, cuts, self.sfreq, self.seed)

    def eeg_blocks(self) -> Iterator[Float]:
        """The EEG one second at a time, (64, sfreq) float32 microvolts; the last block may be shorter."""
        left = self.samples
        for block in self.amplifier.blocks(-(-self.samples // self.sfreq)):
            yield block[:, :left]
            left -= block.shape[1]

    def eeg(self) -> Float:
        """The EEG of the whole session, (64, sample)."""
        return np.concatenate(list(self.eeg_blocks()), axis=1)

    def vectors(self) -> NDArray[np.int16]:
        """What the driven voxels read in each volume, (volume, voxel)."""
        voxels = self.head.voxels
        return np.stack([self.scanner.volume(i).reshape(-1)[voxels] for i in range(self.volumes)])

    def truth(self, folder: Path) -> None:
        """Write ``film.mp4``, ``events.tsv`` and an empty ``faults.jsonl``."""
        folder.mkdir(parents=True, exist_ok=True)
        write_mp4(folder / "film.mp4", self.film.frames, FPS)
        self.film.write_events(folder / "events.tsv")
        (folder / "faults.jsonl").write_text("")

    def file_name(self, index: int) -> str:
        """Name of a volume's file."""
        return f"001_{SERIES:06d}_{index + 1:06d}.dcm"

    def sample_times(self, first: int, count: int) -> NDArray[np.float64]:
        """Run time of consecutive EEG samples, (count,) s."""
        return np.arange(first, first + count) / self.sfreq - LEAD_IN_S

    def events(self, chunk_s: float = 0.02) -> Iterator[EegChunk | Trigger | Volume]:
        """Everything that arrives, in order, on a virtual clock whose first trigger is at `START_AT`.

        Parameters
        ----------
        chunk_s : float
            Length of an EEG chunk, s.
        """
        streams = (self._chunks(chunk_s), self._triggers(), self._volumes())
        return heapq.merge(*streams, key=lambda item: item.arrived_at)

    def _chunks(self, chunk_s: float) -> Iterator[EegChunk]:
        size, done = max(1, round(chunk_s * self.sfreq)), 0
        rest = np.zeros((64, 0), np.float32)
        for block in self.eeg_blocks():
            rest = np.concatenate([rest, block], axis=1)
            last = done + rest.shape[1] == self.samples
            while rest.shape[1] >= size or (last and rest.shape[1]):
                part, rest = rest[:, :size], rest[:, size:]
                times = self.sample_times(done, part.shape[1])
                done += part.shape[1]
                kept = damage.received(self.faults, times)
                if kept.any():
                    stamps = START_AT + times
                    yield EegChunk(part[:, kept], stamps[kept], stamps[-1] + _EEG_DELAY_S)

    def _triggers(self) -> Iterator[Trigger]:
        for i in range(self.volumes):
            stamp = START_AT + i * TR
            yield Trigger(stamp, MARKER, stamp + _EEG_DELAY_S)

    def _volumes(self) -> Iterator[Volume]:
        for i in range(self.volumes):
            readable = START_AT + (i + 1) * TR + self.volume_delay
            if i in self.lost_volumes:
                continue
            yield Volume(
                data=self.scanner.volume(i),
                affine=self.head.affine,
                index=i,
                series=SERIES,
                tr_s=TR,
                acquired_s=round(i * TR, 6),
                recon_s=self.recon_s,
                readable_at=readable,
                arrived_at=readable + 0.005,
                parsed_at=readable + 0.01,
                name=self.file_name(i),
                uid=self.uid,
            )


def _check(subject_number: int, seed: int, seconds: float, sfreq: float) -> None:
    if subject_number < 1:
        raise UsageError(f"simulated subjects are numbered from 1, found {subject_number}.")
    if seed < 0:
        raise UsageError(f"a seed is a whole number from 0, found {seed}.")
    if not (math.isfinite(seconds) and seconds > 0):
        raise UsageError(f"the film lasts a number of seconds above 0, found {seconds:g}.")
    if not (math.isfinite(sfreq) and sfreq >= 200 and sfreq == int(sfreq)):
        raise UsageError(
            f"the phantom's EEG has a whole number of samples a second from 200 on, found {sfreq:g}."
        )
