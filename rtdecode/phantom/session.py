"""Simulate a whole session: what is shown, and what amplifier and scanner send, in order of arrival.

The arguments fix everything. From them come the film and the neural state it drives; from the state the
scanner's volumes and the amplifier's EEG; and, from the planned faults, when each of them arrives. `events`
gives all of it on a virtual clock; `rtdecode.phantom.live` sends the same by the real one.
"""

import hashlib
import heapq
import math
from collections.abc import Iterator
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode.disk import private
from rtdecode.disk.video import write_mp4
from rtdecode.errors import UsageError
from rtdecode.phantom.body import delivery_faults as damage
from rtdecode.phantom.body import eeg_faults
from rtdecode.phantom.body.amplifier import LEAD_IN_S, Amplifier, montage
from rtdecode.phantom.body.brain import TR, Traits, neural_state, subject
from rtdecode.phantom.body.cortex import MIXED, check_cortex
from rtdecode.phantom.body.gaze import FIXED, GAZES, gaze_path
from rtdecode.phantom.body.in_scanner_eeg import (
    Artifacts,
    InScannerAmplifier,
    base_rate,
    bore_montage,
    clock_drift,
    closed_eyes,
)
from rtdecode.phantom.body.magnet import GradientArtifact
from rtdecode.phantom.body.movement import MOTIONS, head_path, pose_of, write_path
from rtdecode.phantom.body.played import played_delays, played_path
from rtdecode.phantom.body.presets import Preset, preset_named
from rtdecode.phantom.body.scanner import SHAPE, Scanner, head, slice_times
from rtdecode.phantom.files.vendors import vendor_named
from rtdecode.phantom.film.features import film_features, resting_features
from rtdecode.phantom.film.film import FPS
from rtdecode.phantom.film.watched import KINDS, NONE, SHAPES, watched
from rtdecode.types import EegChunk, Float, Trigger, Volume

SCAN_ON_S = 8  # how much longer than the film the scan lasts
SERIES = 4  # SeriesNumber
START_AT = 1000.0  # instant of the first trigger on the virtual clock
MARKER = "R128"  # a volume trigger as BrainVision amplifiers write it
AGAIN_S = 0.3  # from a file to its duplicate
CHUNK_S = 0.02  # length of a chunk of EEG
_TR_S = (0.3, 5.0)  # the shortest and the longest TR that is scanned
STEADY = "steady"  # every file has the vendor's delay

_EEG_DELAY_S = 0.002  # from a chunk's last sample, or a trigger, to its arrival
_STAMP_S = 0.0001  # mean lateness of a chunk's stamps inside the magnet
_APART_S = 0.001  # between files of a table that has several images at once
_QUEUE_S = 0.2  # between volumes that queued up behind a late first one


def volumes_scanned(seconds: float, tr_s: float) -> int:
    """Return how many volumes are scanned while a film of a length is shown, and after it."""
    return int((Fraction(str(seconds)) + SCAN_ON_S) / Fraction(str(tr_s)))


def check_scanned_tr(tr_s: float, argument: str = "--tr") -> None:
    """Refuse a TR at which the participant is not scanned; `argument` is what it was given with.

    Raises
    ------
    UsageError
    """
    if not _TR_S[0] <= tr_s <= _TR_S[1]:
        raise UsageError(
            "phantom-tr-out-of-range",
            "{argument} is {min_tr_s:g} to {max_tr_s:g} s, found {tr_s:g}.",
            argument=argument,
            min_tr_s=_TR_S[0],
            max_tr_s=_TR_S[1],
            tr_s=tr_s,
        )


class PhantomSession:
    """One session of a simulated participant; the same arguments give the same bits.

    Parameters
    ----------
    preset : Preset or str
        ``easy``, ``default``, ``hard``, or levels of one's own.
    subject_number : int
        Fixes the brain; 1 or more.
    seed : int
        Fixes film, eyes and noise; 0 or more.
    seconds : float or None
        Length of the film, at least one frame; None takes all of a film from a file, and a minute of anything
        else. The scan lasts 8 s longer; the EEG begins 10 s before it.
    cuts : str
        ``grid`` or ``free``.
    sfreq : float
        EEG sampling rate, a whole number of Hz, at least 200.
    shape : (int, int, int)
        Voxels of a volume.
    spec : str
        Faults, as `rtdecode.phantom.body.delivery_faults.plan` reads them.
    vendor : str
        Whose delays and header times the volumes have, one of `rtdecode.phantom.files.vendors.VENDORS`.
    first_delay : float, optional
        How much later the first volume comes, s; the vendor's delay by default.
    motion : str
        ``still``, ``typical``, or the path of a table (`rtdecode.phantom.body.played.played_path`).
    pose : str
        Where the head lies from the first volume on, off its usual place: "", or six numbers as
        `rtdecode.phantom.body.movement.pose_of` reads them.
    settling : bool
        Whether the first volumes are brighter, until the magnetisation has settled.
    artifacts : Artifacts, optional
        Puts the EEG inside the magnet, with these artefacts; by default it is outside.
    delivery : str
        ``steady``: every file has the vendor's delay. Or the path of a table of times at which images were
        finished (`rtdecode.phantom.body.played.played_delays`): a file comes then, or later where its
        transfer takes longer.
    film : str
        A word or the path of a film, as `rtdecode.phantom.film.watched` takes them.
    gaze : str
        ``fixed``, or ``free``: the eyes move (`rtdecode.phantom.body.gaze`).
    tr_s : float
        Time from one volume to the next.
    film_seed : int, optional
        Fixes a film that is drawn (`shapes`, `known-shapes`, `natural`) in place of `seed`: sessions of one
        film_seed and several seeds show one film again, with eyes and noise of their own.
    cortex : str
        ``mixed``, or ``shared``: the weights of voxels are smooth over a sheet, and participants share them
        (`rtdecode.phantom.body.cortex`).

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
        seconds: float | None = 60.0,
        cuts: str = "grid",
        sfreq: float = 1000,
        shape: tuple[int, int, int] = SHAPE,
        spec: str = "",
        vendor: str = "siemens-mosaic",
        first_delay: float | None = None,
        motion: str = "still",
        settling: bool = False,
        artifacts: Artifacts | None = None,
        delivery: str = "steady",
        film: str = SHAPES,
        gaze: str = FIXED,
        tr_s: float = TR,
        film_seed: int | None = None,
        cortex: str = MIXED,
        pose: str = "",
    ) -> None:
        _check(subject_number, seed, seconds, sfreq)
        if film_seed is not None and film_seed < 0:
            raise UsageError(
                "phantom-film-seed-negative",
                "a film's seed is a whole number, 0 or more, found {film_seed}.",
                film_seed=film_seed,
            )
        check_cortex(cortex)
        if first_delay is not None and not (math.isfinite(first_delay) and first_delay >= 0):
            raise UsageError(
                "phantom-first-delay-invalid",
                "the first volume's delay is 0 s or more, found {delay_s:g}.",
                delay_s=first_delay,
            )
        check_scanned_tr(tr_s)
        self.tr_s = float(tr_s)
        self.vendor = vendor_named(vendor)
        # Recordings and reports name what was played or shown by its file alone.
        self.motion = motion if motion in MOTIONS else Path(motion).name
        self.delivery = delivery if delivery == STEADY else Path(delivery).name
        self.film_name = film if film in KINDS else Path(film).name
        self.settling = settling
        self.preset = preset_named(preset) if isinstance(preset, str) else preset
        self.subject = subject_number
        self.seed = seed
        self.film_seed = film_seed
        self.sfreq = int(sfreq)
        self.film = watched(film, seconds, seed if film_seed is None else film_seed, cuts)
        if seconds is None:
            seconds = self.film.count / FPS
        self.seconds = float(seconds)
        if gaze not in GAZES:
            raise UsageError(
                "phantom-gaze-unknown",
                "--gaze is one of {available}, found {gaze!r}.",
                available=list(GAZES),
                gaze=gaze,
            )
        # Where the eyes point; None where they rest on the middle of the screen.
        self.gaze = None if gaze == FIXED else gaze_path(-LEAD_IN_S, self.seconds + SCAN_ON_S, seed)
        self.artifacts = artifacts
        self.montage = montage(sfreq)
        self.drift_ppm = 0.0
        if artifacts is not None:
            base_rate(self.sfreq)
            self.montage = bore_montage(sfreq, artifacts.references)
            self.drift_ppm = clock_drift(seed, artifacts)
        self.rate = self.sfreq * (1 + self.drift_ppm * 1e-6)
        self.cortex = cortex
        self.head = head(subject_number, shape, cortex)
        # Counted in fractions: 0.8 is not exact in binary, and a quotient just below a whole number
        # would lose a volume.
        length = Fraction(str(seconds))
        self.volumes = volumes_scanned(self.seconds, self.tr_s)
        self.samples = int((length + SCAN_ON_S + LEAD_IN_S) * self.sfreq)
        self.volume_delay = self.vendor.delay_s
        self.pose = pose
        # Where the head is in each volume, as `head_path` gives it; None at rest in its usual place.
        self.path = self._path(motion)
        # Time from each volume's end until its last file is complete, s, without faults.
        self.delays = self._delays(delivery, first_delay)
        self.faults = damage.plan(spec, self.seconds, seed)
        self.fates = damage.outcomes(self.faults, self.tr_s, self.volumes, seed)
        name = f"{self.preset.name}/{subject_number}/{seed}/{seconds}/{cuts}/{shape}"
        name += f"/{self.film_name}" * (film != SHAPES) + f"/{gaze}" * (gaze != FIXED)
        name += f"/{self.tr_s}" * (tr_s != TR)
        name += f"/film {film_seed}" * (film_seed is not None)
        name += f"/{cortex}" * (cortex != MIXED)
        name += f"/{self.motion}" * (motion != "still") + "/settling" * settling
        name += f"/pose {pose}" * bool(pose)
        self.uid = f"2.25.{int.from_bytes(hashlib.sha256(name.encode()).digest()[:15], 'big')}"

    @cached_property
    def state(self) -> Float:
        """The neural state, (frame, feature); it begins `LEAD_S` before the film."""
        rng = np.random.default_rng((self.seed, 51))
        return neural_state(self.features, self.preset.feature_noise, SCAN_ON_S + 2.0, rng)

    @cached_property
    def features(self) -> Float:
        """What the film drives in the brain, (frame, feature), without noise."""
        if self.film_name == NONE:
            return resting_features(self.film.count, np.random.default_rng((self.seed, 52)))
        return film_features(self.film, None if self.gaze is None else self.gaze.pixels(self.film.count))

    @property
    def person(self) -> Traits:
        """The participant's brain."""
        return subject(self.subject, self.cortex)

    @cached_property
    def scanner(self) -> Scanner:
        """The scanner with this participant in it."""
        return Scanner(
            self.head,
            self.person,
            self.preset,
            self.state,
            self.volumes,
            self.seed,
            self.path,
            self.settling,
            self.tr_s,
        )

    def _path(self, motion: str) -> NDArray[np.float64] | None:
        moved = self._moved(motion)
        if not self.pose:
            return moved
        lies = pose_of(self.pose)
        return np.tile(lies, (self.volumes, 1)) if moved is None else lies + moved

    def _moved(self, motion: str) -> NDArray[np.float64] | None:
        """Return how the head moves from where it lies in the first volume; None at rest."""
        if motion == "still":
            return None
        if motion in MOTIONS:
            return head_path(self.volumes, self.tr_s, self.seed)
        return played_path(_table("--motion", motion, MOTIONS), self.volumes)

    def _delays(self, delivery: str, first_delay: float | None) -> list[float]:
        if delivery != STEADY:
            played = played_delays(_table("--delivery", delivery, (STEADY,)), self.volumes, self.tr_s)
            return _in_turn([max(self.vendor.transfer_s, delay) for delay in played], self.tr_s)
        # Volumes behind a late first one queue up, and come `_QUEUE_S` apart until none waits.
        out = []
        queue = self.vendor.first_s if first_delay is None else first_delay
        for _ in range(self.volumes):
            out.append(self.volume_delay + queue if queue > 0 else self.volume_delay)
            queue += _QUEUE_S - self.tr_s
        return out

    def recon_of(self, index: int) -> float:
        """Return the time from the start of a volume's acquisition to its finished image, s."""
        return self.tr_s + self.delays[index] - self.vendor.transfer_s

    def amplifier(self, artifacts: Artifacts | None) -> Amplifier | InScannerAmplifier:
        """Return the amplifier with this participant's cap connected."""
        cuts = self.film.cut_frames
        if artifacts is None:
            return Amplifier(
                self.subject, self.preset, self.state, cuts, self.sfreq, self.seed, gaze=self.gaze
            )
        # Inside the magnet the EEG is made at a base rate, of which the amplifier's rate is a multiple.
        clock = 1 + self.drift_ppm * 1e-6
        closed = closed_eyes(self.seconds)
        rate = base_rate(self.sfreq)
        eeg = Amplifier(
            self.subject, self.preset, self.state, cuts, rate, self.seed, clock, closed, self.gaze
        )
        stop_s = self.samples / self.rate
        return InScannerAmplifier(
            eeg,
            self.subject,
            self.seed,
            self.sfreq,
            self.drift_ppm,
            self.gradient(artifacts),
            artifacts,
            stop_s,
        )

    def gradient(self, artifacts: Artifacts) -> GradientArtifact:
        """Return the gradient artefact of this run."""
        shots = len(np.unique(slice_times(self.head.shape[2], self.tr_s)))
        return GradientArtifact(
            self.subject,
            len(bore_montage(self.sfreq, artifacts.references).channels),
            self.tr_s,
            shots,
            1,
            self.seed,
            slow=0.01 if artifacts.motion else 0.0,
            path=self.path if artifacts.motion else None,
            volumes=self.volumes,
        )

    def eeg_blocks(self) -> Iterator[Float]:
        """Yield the EEG second by second, (channel, sfreq) float32 microvolts; the last may be shorter."""
        hit = eeg_faults.clips(self.faults, len(self.montage.channels), self.seed)
        done = 0
        for block in self._sent(self.artifacts):
            if hit:
                eeg_faults.clip(block, self.sample_times(done, block.shape[1]), hit)
            yield block
            done += block.shape[1]

    def _sent(self, artifacts: Artifacts | None) -> Iterator[Float]:
        n_remaining = self.samples
        for block in self.amplifier(artifacts).blocks(-(-self.samples // self.sfreq)):
            yield block[:, :n_remaining]
            n_remaining -= block.shape[1]

    def eeg(self) -> Float:
        """Return the EEG of the whole session, (channel, sample)."""
        return np.concatenate(list(self.eeg_blocks()), axis=1)

    def clean(self) -> Float:
        """Return the same run and amplifier without artefacts and clips, (channel, sample)."""
        artifacts = None if self.artifacts is None else self.artifacts.without()
        return np.concatenate(list(self._sent(artifacts)), axis=1)

    def vectors(self) -> NDArray[np.int16]:
        """Return the values of the driven voxels in each volume, (volume, voxel)."""
        voxels = self.head.voxels
        return np.stack([self.scanner.volume(i).reshape(-1)[voxels] for i in range(self.volumes)])

    def truth(self, folder: Path, *, closed: bool = False) -> None:
        """Write ``film.mp4``, ``events.tsv``, an empty ``faults.jsonl``; for a moving head ``motion.tsv``.

        Parameters
        ----------
        folder : Path
            Where the files are written.
        closed : bool
            Whether it belongs to a recording, which its owner alone reads.
        """
        folder.mkdir(parents=True, exist_ok=True)
        path_of = private.file if closed else Path
        write_mp4(path_of(folder / "film.mp4"), self.film.frames, FPS)
        self.film.write_events(path_of(folder / "events.tsv"))
        path_of(folder / "faults.jsonl").write_text("")
        if self.path is not None:
            write_path(path_of(folder / "motion.tsv"), self.path)

    def file_name(self, index: int) -> str:
        """Return the name of a volume's file."""
        return f"001_{SERIES:06d}_{index + 1:06d}.dcm"

    def sample_times(self, first: int, count: int) -> NDArray[np.float64]:
        """Return the run times of consecutive EEG samples, (count,), s."""
        return np.arange(first, first + count) / self.rate - LEAD_IN_S

    def sample_span(self, start_s: float, stop_s: float) -> tuple[int, int]:
        """Return the number of the first EEG sample within a span of run time, and how many there are."""
        edges = []
        for edge_s in (start_s, stop_s):
            # Rounding may put this one sample off, so compare the times of the samples around it.
            near = math.floor(min(max((edge_s + LEAD_IN_S) * self.rate, 0), self.samples))
            first = max(near - 2, 0)
            edges.append(min(first + int((self.sample_times(first, 5) < edge_s).sum()), self.samples))
        return edges[0], edges[1] - edges[0]

    def stamps(self, first: int, times: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the run times that the amplifier stamps on a chunk from sample `first` on, (count,), s."""
        stamps = times + eeg_faults.stamp_shift(self.faults, times)
        if self.artifacts is None:
            return stamps
        return stamps + np.random.default_rng((self.seed, 81, first)).exponential(_STAMP_S)

    def trigger_times(self) -> list[float]:
        """Return the run time of each trigger; inside the magnet, that of the sample in which it falls."""
        sent = damage.triggers(self.faults, self.tr_s, self.volumes)[0]
        if self.artifacts is None:
            return sent
        return [float(self.sample_times(self.sample_span(time_s, math.inf)[0], 1)[0]) for time_s in sent]

    def signal_lines(self) -> list[tuple[str, float, dict[str, Any]]]:
        """Return what is logged of samples and triggers, in order: kind, run time, detail."""
        eeg = eeg_faults.eeg_lines(self.faults, self.montage.channels, self.seed, self.sample_span)
        triggers = damage.trigger_lines(self.faults, self.tr_s, self.volumes)
        return sorted([*eeg, *triggers], key=lambda line: line[1])

    def events(self, chunk_s: float = CHUNK_S) -> Iterator[EegChunk | Trigger | Volume]:
        """Yield everything in order of arrival, on a virtual clock whose first trigger is at `START_AT`.

        Parameters
        ----------
        chunk_s : float
            Length of an EEG chunk, s.
        """
        streams = (self._chunks(chunk_s), self._triggers(), self._volumes())
        return heapq.merge(*streams, key=lambda item: item.arrived_at)

    def _chunks(self, chunk_s: float) -> Iterator[EegChunk]:
        size = max(1, round(chunk_s * self.sfreq))
        done = 0
        pending = np.zeros((len(self.montage.channels), 0), np.float32)
        for block in self.eeg_blocks():
            pending = np.concatenate([pending, block], axis=1)
            last = done + pending.shape[1] == self.samples
            # Chunks run on over the borders of blocks; only the last one of all may be shorter.
            while pending.shape[1] >= size or (last and pending.shape[1]):
                part = pending[:, :size]
                pending = pending[:, size:]
                times = self.sample_times(done, part.shape[1])
                stamps = START_AT + self.stamps(done, times)
                done += part.shape[1]
                arrives = damage.received(self.faults, times)
                if arrives.any():
                    yield EegChunk(part[:, arrives], stamps[arrives], START_AT + times[-1] + _EEG_DELAY_S)

    def _triggers(self) -> Iterator[Trigger]:
        for time_s in self.trigger_times():
            yield Trigger(START_AT + time_s, MARKER, START_AT + time_s + _EEG_DELAY_S)

    def arrivals(self) -> list[tuple[float, int, bool]]:
        """Return when volumes can be read, with all that goes wrong.

        Returns
        -------
        list of (float, int, bool)
            In order: the instant on the clock of `events`, s; the volume; whether it comes a second time.
        """
        arrivals = []
        for i in range(self.volumes):
            fate = self.fates.get(i, damage.DeliveryOutcome())
            readable = START_AT + (i + 1) * self.tr_s + self.delays[i] + (fate.late_s + fate.slow_s)
            if fate.is_readable:
                arrivals.append((self._when_back(readable), i, False))
            if fate.is_readable and fate.again:
                arrivals.append((self._when_back(readable + AGAIN_S), i, True))
        return sorted(arrivals)

    def due_s(self, index: int) -> float:
        """Return the run time from which a volume can be read in full if nothing goes wrong, s."""
        return (index + 1) * self.tr_s + self.delays[index]

    def whole_s(self, index: int) -> float:
        """Return the run time from which a volume can be read in full, with all that goes wrong, s."""
        fate = self.fates.get(index, damage.DeliveryOutcome())
        due = self.due_s(index) + fate.late_s + fate.slow_s
        return round(next((stop for start, stop, _ in self._absences if start <= due < stop), due), 6)

    def hidden(self, start_s: float, stop_s: float) -> list[int]:
        """Return the volumes that, without other faults, become whole while the folder is away."""
        return [i for i in range(self.volumes) if start_s <= self.due_s(i) < stop_s]

    @cached_property
    def _absences(self) -> list[tuple[float, float, damage.Fault]]:
        return damage.absences(self.faults)

    def _when_back(self, readable: float) -> float:
        for start, stop, _ in self._absences:
            if START_AT + start <= readable < START_AT + stop:
                return START_AT + stop
        return readable

    def _volumes(self) -> Iterator[Volume]:
        for readable, i, again in self.arrivals():
            yield Volume(
                data=self.scanner.volume(i),
                affine=self.head.affine,
                index=i,
                series=SERIES,
                tr_s=self.tr_s,
                acquired_s=round(i * self.tr_s, 6) if self.vendor.dated else None,
                recon_s=self.recon_of(i) if self.vendor.finished else None,
                readable_at=readable,
                arrived_at=readable + 0.005,
                parsed_at=readable + 0.01,
                name=self.file_name(i) + (" (1)" if again else ""),
                uid=self.uid,
            )


def _in_turn(delays: list[float], tr_s: float) -> list[float]:
    """Let no file be whole before that of the volume before it."""
    out = []
    free_s = 0.0
    for index, delay in enumerate(delays):
        whole_s = max((index + 1) * tr_s + delay, free_s)
        out.append(whole_s - (index + 1) * tr_s)
        free_s = whole_s + _APART_S
    return out


def _table(option: str, value: str, words: tuple[str, ...]) -> Path:
    """Return the path of a table that an option names, if there is one."""
    if not Path(value).is_file():
        raise UsageError(
            "phantom-table-missing",
            "{option} {path}: there is no such file. Give {available} or a table.",
            option=option,
            path=value,
            available=list(words),
        )
    return Path(value)


# More than any amplifier sends, Hz.
_MOST_SFREQ = 100_000


def check_subject(number: int) -> None:
    """Refuse a number that no simulated participant has.

    Raises
    ------
    UsageError
    """
    if number < 1:
        raise UsageError(
            "phantom-subject-invalid",
            "simulated subjects are numbered from 1, found {subject}.",
            subject=number,
        )


def _check(subject_number: int, seed: int, seconds: float | None, sfreq: float) -> None:
    check_subject(subject_number)
    if seed < 0:
        raise UsageError(
            "phantom-seed-negative", "a seed is a whole number, 0 or more, found {seed}.", seed=seed
        )
    if seconds is not None and not (math.isfinite(seconds) and seconds > 0):
        raise UsageError(
            "phantom-duration-invalid",
            "the film lasts a number of seconds above 0, found {duration_s:g}.",
            duration_s=seconds,
        )
    if not (200 <= sfreq <= _MOST_SFREQ and sfreq == int(sfreq)):
        raise UsageError(
            "phantom-sfreq-invalid",
            "the phantom's EEG has a whole number of samples a second, 200 to {most}, found {sfreq:g}.",
            sfreq=sfreq,
            most=_MOST_SFREQ,
        )
