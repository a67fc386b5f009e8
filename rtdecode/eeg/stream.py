"""The EEG of a session: chunks come in, and cleaned, z-scored values at any recent instant come out.

A chunk passes these stages in order: the declared rate is checked, the sample clock places every sample in
time (`SampleClock`), invalid values are filled in (`SampleValidator`), artefacts are removed and the rate is
lowered (`Cleaner`), the bundle's channels are picked, repaired, re-referenced and filtered (`ChannelMap`).
What comes out is kept in a ring, from which `EegStream.read` takes a window.
"""

import itertools
from collections import deque
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rtdecode.bundle import EegInput
from rtdecode.clocks.sample_clock import Piece, SampleClock
from rtdecode.eeg import channels
from rtdecode.eeg.channel_map import ChannelMap
from rtdecode.eeg.cleaner import MOST_HZ, Cleaner, Part
from rtdecode.eeg.invalid_samples import SampleValidator
from rtdecode.eeg.rate import RateCheck
from rtdecode.errors import GeometryError
from rtdecode.signal import plausible
from rtdecode.signal.eeg.quality import GAP, LEARNING, UNCORRECTED, Quality, usable, worse
from rtdecode.signal.rings import EegRing
from rtdecode.types import EegChunk, Float, Montage

Times = NDArray[np.float64]

# Inside the magnet smaller chunks are gathered to this length, s. Most of the cost there is per
# call: a small chunk costs nearly as much as a large one.
_GATHERED_S = 0.02
# The level of a window is judged where at least this share of it is usable.
_JUDGED_SHARE = 0.5


class EegSpan(NamedTuple):
    """The EEG at some instants.

    Attributes
    ----------
    values : (channel, n) float32, or None
        z-scored; holes and uncorrected samples are zero. None where no sample is usable.
    mask : (n,) bool
        Which samples are usable.
    quality : (n,) uint8
        Marks of `rtdecode.signal.eeg.quality`.
    bad : list of str
        Channels that were interpolated in at least one sample.
    """

    values: Float | None
    mask: NDArray[np.bool_]
    quality: Quality
    bad: list[str]


class EegStream:
    """Place samples in time, clean them, pick the bundle's channels, filter causally, remember.

    The value that is kept of a sample depends only on the samples up to it. It depends on how these were
    divided into chunks only where the stamps jump, since then the arrival of the chunks decides.

    Parameters
    ----------
    eeg_input : EegInput
        The channels and the band that the bundle reads.
    stats : dict
        ``eeg_mean`` and ``eeg_scale`` of the training, (channel,).
    montage : Montage
        The channels that the stream has.
    keep_s : float
        Length of the past that is kept, s.
    tr_s : float or None
        Repetition time of the scanner, s, where it is known.

    Attributes
    ----------
    montage : Montage
        Labels and kinds of all channels of the stream.
    first : float
        Time of the first sample, s on the local clock.
    samples : int
        Number of samples received.

    Raises
    ------
    GeometryError
        If the stream lacks more of the bundle's channels than can be interpolated, or declares a rate or a
        number of channels that no amplifier has.
    """

    def __init__(
        self,
        eeg_input: EegInput,
        stats: dict[str, NDArray[Any]],
        montage: Montage,
        keep_s: float,
        *,
        tr_s: float | None = None,
    ) -> None:
        self._wanted = eeg_input
        self._tr_s = tr_s
        self._keep_s = keep_s
        self._mean = stats["eeg_mean"][:, None]
        self._scale = stats["eeg_scale"][:, None]
        # Time of the last sample, and of the arrival, of each chunk.
        self._delivered: deque[tuple[float, float]] = deque(maxlen=4096)
        # Counts of the stream before it came back changed.
        self._past = {"lost_samples": 0, "gaps": 0, "epochs": 0}
        self._notes: list[str] = []
        self._nonfinite = 0
        self._off_level = False
        # The level of the newest window, beside what the bundle expects, in words.
        self._values: str | None = None
        self.first = 0.0
        self.samples = 0
        self._last: float | None = None
        # From when on the samples are those of which source; one entry for each time that it changed.
        self._sources: list[tuple[float, int]] = []
        self._waiting: list[tuple[Float, Times]] = []
        self._lost = 0
        self._begin(montage)
        # The stream may come back at a higher rate: there is room for the highest.
        self._ring = EegRing(len(eeg_input.channels), int(keep_s * MOST_HZ))

    @property
    def newest(self) -> float:
        """Time of the newest clean sample on the local clock, s; -inf before the first."""
        return self._ring.newest

    @property
    def received(self) -> float:
        """Local time of the newest sample that came in, clean or not, s; -inf before the first."""
        return -np.inf if self._last is None else self._last

    @property
    def looks_for_gradients(self) -> bool:
        """Whether gradients are removed from the stream where it has any."""
        return self._cleaner.looks_for_gradients

    def change(self, montage: Montage) -> None:
        """Go on with a stream that came back with other channels or another rate.

        Raises
        ------
        GeometryError
            If the stream lacks the bundle's channels; everything stays as it was.
        """
        self._begin(montage)

    def push(self, chunk: EegChunk) -> None:
        """Take the next chunk; one that came too late to be decoded (not `live`) leaves a hole.

        Raises
        ------
        GeometryError
            If the stream does not send at the rate it declares.
        """
        data = chunk.data
        stamps = chunk.stamps
        if not np.isfinite(stamps).all():
            # Samples without a stamp count as lost: the clock finds the gap around them.
            dated = np.isfinite(stamps)
            data = data[:, dated]
            stamps = stamps[dated]
        if data.shape[1] == 0 or not chunk.live:
            return
        fault = self._rate.push(stamps, chunk.arrived_at)
        if fault is not None:
            raise GeometryError(
                "eeg-sfreq-mismatch",
                "{explanation}",
                explanation=fault,
                declared_sfreq=self._rate.declared_hz,
            )
        pieces = self._clock.push(stamps, chunk.arrived_at)
        for piece in pieces:
            self._place(data[:, piece.start : piece.stop], piece)
        if pieces and chunk.source != (self._sources[-1][1] if self._sources else 0):
            self._sources.append((float(pieces[0].times[0]), chunk.source))
        if pieces:
            self._delivered.append((float(pieces[-1].times[-1]), chunk.arrived_at))

    def trigger(self, stamp: float, moved: bool = False, arrived_at: float | None = None) -> None:
        """Take a volume trigger.

        Parameters
        ----------
        stamp : float
            Time of the trigger, s on the local clock, or as the stream's own stamps have it where these
            have jumped.
        moved : bool
            Whether the head moved in this volume. It may be told later, by a second call.
        arrived_at : float, optional
            Time at which the trigger was read. None takes the stamp as it is, without regard to jumps.
        """
        triggered_at = stamp if arrived_at is None else self.local(stamp, arrived_at)
        self._cleaner.trigger(triggered_at, moved)

    def local(self, stamp: float, arrived_at: float) -> float:
        """Return the time of a trigger on the local clock, s, where the stream's stamps may have jumped.

        Parameters
        ----------
        stamp : float
            As the trigger bears it, s.
        arrived_at : float
            When it was read, s on the local clock.
        """
        return self._clock.local(stamp, arrived_at)

    def read(self, times: Times) -> EegSpan:
        """Return the EEG at ascending local times, (n,)."""
        # Samples may wait in a chunk that is still being gathered.
        if len(times) and times[-1] > self.newest:
            self._clean()
        values, quality, bad = self._ring.read(times)
        mask = usable(quality)
        names = [name for name, is_bad in zip(self._wanted.channels, bad, strict=True) if is_bad]
        if not mask.any():
            return EegSpan(None, mask, quality, names)
        if self._far_off(values, mask):
            quality = worse(quality, np.full(len(quality), UNCORRECTED, np.uint8))
            return EegSpan(None, usable(quality), quality, names)
        return EegSpan(self._scored(values, mask), mask, quality, names)

    def source_of(self, times: Times) -> int:
        """Return the highest `EegChunk.source` of samples at ascending times, (n,); 0 for no samples."""
        if not len(times):
            return 0
        begins = [(-np.inf, 0), *self._sources]
        ends = [start for start, _ in begins[1:]] + [np.inf]
        spans = zip(begins, ends, strict=True)
        return max(number for (start, number), end in spans if start <= times[-1] and end > times[0])

    def display_signal(self, times: Times) -> tuple[Float, NDArray[np.bool_]]:
        """Return the clean EEG at ascending local times, for somebody to look at; it leaves all as it is.

        Returns
        -------
        values, mask
            As in `EegSpan`.
        """
        values, quality, _ = self._ring.read(times)
        mask = usable(quality)
        return self._scored(values, mask), mask

    def _scored(self, values: Float, mask: NDArray[np.bool_]) -> Float:
        return np.where(mask, (values - self._mean) / self._scale, 0).astype(np.float32)

    def lacking(self, times: Times, mask: NDArray[np.bool_]) -> float:
        """Return the share of values at ascending times, (n,), that are unmasked and yet invalid."""
        return self._validator.missing(times, mask, self.montage.sfreq)

    def notes(self) -> list[str]:
        """Return what went wrong with the values since the last call, one sentence for each fault."""
        notes = self._notes
        self._notes = []
        return notes + self._validator.notes()

    def _far_off(self, values: Float, mask: NDArray[np.bool_]) -> bool:
        """Return whether the level of a window is far from that of training; note it when it begins."""
        if mask.mean() < _JUDGED_SHARE:
            return False
        spread_uv = values[:, mask].std(axis=1)
        trained_uv = self._scale[:, 0]
        self._values = plausible.eeg_described(spread_uv, trained_uv)
        fault = plausible.eeg_level(spread_uv, trained_uv)
        # Reported when it begins, not with every window.
        if fault is not None and not self._off_level:
            self._notes.append(f"{fault}. The EEG of such windows counts as missing")
        self._off_level = fault is not None
        return self._off_level

    def delivery(self, time: float) -> tuple[float, float] | None:
        """Return when the sample of a local time left the amplifier and when it was read.

        A sample leaves the amplifier with the last sample of its chunk. None if it has not come yet.
        """
        return next((pair for pair in self._delivered if pair[0] >= time), None)

    def report(self) -> dict[str, Any]:
        """Return the counts, the clock's fit, what was removed, and what is wrong now."""
        clock = self._clock.report()
        counts = {name: clock[name] + before for name, before in self._past.items()}
        # How old the newest clean sample was when the newest chunk came.
        age = self._delivered[-1][1] - self.newest if self._delivered else None
        return {
            "samples": self.samples,
            **clock,
            **counts,
            **self._cleaner.report(),
            "nonfinite_samples": self._nonfinite + self._validator.samples,
            "values": self._values,
            "bad_channels": self._cap.bad_channels,
            "too_many_bad": self._cap.too_many,
            "age_ms": None if age is None or not np.isfinite(age) else float(age) * 1e3,
            "delay_ms": (self._cleaner.delay_s + self._cap.delay_s) * 1e3,
            "learning_s": self._settling / self._cleaner.rate,
        }

    def _begin(self, montage: Montage) -> None:
        # All that may refuse the montage comes first, so that a refusal leaves the stream as it was.
        fault = plausible.stream_size(montage.sfreq, len(montage.channels))
        if fault is not None:
            raise GeometryError("eeg-stream-implausible", "{explanation}", explanation=fault)
        picks, _ = channels.match(self._wanted.channels, montage)
        cleaner = Cleaner(montage, self._tr_s)
        cap = ChannelMap(self._wanted, picks, cleaner.rate, montage.reference)
        # Samples that still wait belong to the old montage and go through the old chain.
        self._clean()
        if self.samples:
            # Clock and validator are replaced below, and their counts with them.
            self._past = {name: self._clock.report()[name] + n for name, n in self._past.items()}
            # The clock that follows begins with an epoch of its own, and that is no jump of the stamps.
            self._past["epochs"] -= 1
            self._nonfinite += self._validator.samples
            self._notes += self._validator.notes()
        present = picks[picks != channels.ABSENT]
        self._validator = SampleValidator(montage.channels, present, self._keep_s)
        self._gone = 0
        self._rate = RateCheck(montage.sfreq)
        self.montage = montage
        self._clock = SampleClock(montage.sfreq)
        self._cleaner = cleaner
        self._cap = cap
        self._settling = round(self._wanted.band.settling_s(cleaner.rate) * cleaner.rate)
        self._learning = self._settling
        rows = len(picks) if cap.judges else 0
        self._block = np.zeros((rows, round(montage.sfreq)), np.float32)
        self._filled = 0
        self._anew = self._hole = self.samples > 0

    def _place(self, data: Float, piece: Piece) -> None:
        if not self.samples:
            self.first = float(piece.times[0])
        self.samples += data.shape[1]
        self._gone += piece.lost
        data, gone = self._validator.push(data, piece.times)
        if gone is None:
            self._wait(data, piece.times)
            return
        edges = [0, *(np.flatnonzero(np.diff(gone)) + 1).tolist(), len(gone)]
        for start, stop in itertools.pairwise(edges):
            if gone[start]:
                self._gone += stop - start
            else:
                self._wait(data[:, start:stop], piece.times[start:stop])

    def _wait(self, data: Float, times: Times) -> None:
        """Gather samples that follow each other without a hole; `_gone` samples are missing before them."""
        lost = self._lost_between(float(times[0])) if self._anew else self._gone
        self._gone = 0
        if lost:
            # What was gathered ends before the hole.
            self._clean()
            self._lost = lost
        self._last = float(times[-1])
        self._waiting.append((data, times))
        gathered = sum(len(times) for _, times in self._waiting)
        if not self._cleaner.in_magnet or gathered >= _GATHERED_S * self.montage.sfreq:
            self._clean()

    def _clean(self) -> None:
        """Push the gathered samples through the chain."""
        if not self._waiting:
            return
        data = np.concatenate([data for data, _ in self._waiting], axis=1)
        times = np.concatenate([times for _, times in self._waiting])
        lost = self._lost
        start = 0
        self._waiting = []
        self._lost = 0
        while start < data.shape[1]:
            # Parts end where the one-second block of `_look` ends, so that a channel's verdict
            # falls at the same sample for any chunk size.
            part = slice(start, start + self._block.shape[1] - self._filled)
            for clean in self._cleaner.push(data[:, part], times[part], lost):
                self._take(clean)
            self._look(data[:, part])
            lost = 0
            start = part.stop

    def _lost_between(self, returned_at: float) -> int:
        """Count the samples missing between a stream's end and its return, at the new stream's rate."""
        self._anew = False
        if self._last is None:
            return 0
        lost = max(0, round((returned_at - self._last) * self.montage.sfreq) - 1)
        self._past["lost_samples"] += lost
        self._past["gaps"] += 1
        return lost

    def _look(self, data: Float) -> None:
        """Collect raw samples; once a second, find the channels that were saturated.

        Raw, since after the removal of artefacts a channel at the amplifier's rail does not stand still.
        """
        if not self._cap.judges:
            return
        stop = self._filled + data.shape[1]
        self._block[:, self._filled : stop] = self._cap.pick(data)
        self._filled = stop % self._block.shape[1]
        if not self._filled:
            self._cap.saturated(self._block)

    def _take(self, part: Part) -> None:
        if part.hole or self._hole:
            self._hole = False
            self._leave_hole(float(part.times[0]))
        x = self._cap.pick(part.data)
        # Unusable samples must not enter the filters, which would carry them into what follows.
        ok = usable(part.quality)
        edges = [0, *(np.flatnonzero(np.diff(ok)) + 1).tolist(), len(ok)]
        for start, stop in itertools.pairwise(edges):
            piece = x[:, start:stop]
            times = part.times[start:stop]
            quality = part.quality[start:stop]
            if not ok[start]:
                self._append(np.zeros(piece.shape, np.float32), times, quality)
                self._restart()
                continue
            for values, bad, count in self._cap.push(piece, quality):
                self._append(values, times[:count], self._judged(quality[:count]), bad)
                times = times[count:]
                quality = quality[count:]

    def _append(
        self, data: Float, times: Times, quality: Quality, bad: NDArray[np.bool_] | None = None
    ) -> None:
        # Where the low-pass's delay is compensated, a sample stands for an earlier instant.
        self._ring.append(data, times - self._cap.delay_s, quality, bad)

    def _judged(self, quality: Quality) -> Quality:
        """Lower the quality of samples while the filters settle, or too many channels are bad."""
        learning = np.arange(len(quality)) < self._learning
        self._learning = max(0, self._learning - len(quality))
        limit = np.where(learning, np.uint8(LEARNING), quality)
        # Beyond what may be interpolated nothing is decoded: the samples are masked.
        if self._cap.too_many:
            limit = np.minimum(limit, np.uint8(UNCORRECTED))
        return worse(quality, limit)

    def _restart(self) -> None:
        self._cap.reset()
        self._learning = self._settling

    def _leave_hole(self, resumed_at: float) -> None:
        """Mark lost samples as a gap, and start the filters afresh after it."""
        self._restart()
        rate = self._cleaner.rate
        before = self.newest + self._cap.delay_s
        lost = round((resumed_at - before) * rate) - 1 if np.isfinite(before) else 0
        if lost < 0:
            # Times have stepped back, and a ring holds ascending times only.
            self._ring = EegRing(len(self._wanted.channels), self._ring.capacity)
        if lost > 0:
            n_gap = min(lost, self._ring.capacity)
            times = resumed_at - np.arange(n_gap, 0, -1) / rate
            empty = np.zeros((len(self._wanted.channels), n_gap), np.float32)
            self._append(empty, times, np.full(n_gap, GAP, np.uint8))
