"""An hour of EEG with a fault every few seconds, faster than it happens: what was lost is known."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
import pytest

from rtdecode.bundle import Bundle
from rtdecode.eeg.stream import EegStream
from rtdecode.signal.eeg.quality import CORRECTED
from rtdecode.types import EegChunk, Montage, Trigger, Window
from rtdecode.windows.assembler import Assembler
from tests.streaming.bundles import CHANNELS, make_bundle

SFREQ = 250.0
TR = 0.8
START_AT = 5_000.0
LEAD_S = 12.0
CHUNK = 10
GRID_HZ = 125.0
KINDS = ("drop", "jump", "short", "restart", "trigger")
# How exactly the run's zero is known, in samples.
NEAR = 0.3


@dataclass
class Amplifier:
    """Its samples, as they come: what is lost, stamped wrong, or never marked, by seed.

    Attributes
    ----------
    lost, bridged : (sample,) bool
        Samples that never come, of all that were taken, and those among them in holes of 20 ms at most.
    shift : (sample,) float
        By how much their stamps are wrong, s.
    """

    seconds: float
    seed: int
    ppm: float = 20.0
    injected: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        count = int(self.seconds * SFREQ)
        self.lost = np.zeros(count, bool)
        self.bridged = np.zeros(count, bool)
        self.shift = np.zeros(count)
        self.unmarked: set[int] = set()
        at_s = LEAD_S + 8.0
        while at_s < self.seconds - 8.0:
            self._hit(str(rng.choice(KINDS)), int(at_s * SFREQ), rng)
            at_s += float(rng.uniform(2.5, 6.0))

    def _hit(self, kind: str, first: int, rng: np.random.Generator) -> None:
        self.injected[kind] += 1
        if kind == "jump":
            self.shift[first:] += float(rng.uniform(0.05, 0.9)) * (-1) ** self.injected[kind]
        elif kind == "trigger":
            self.unmarked.add(int((first / SFREQ - LEAD_S) / TR) + 1)
        else:
            count = {"short": rng.integers(1, 5), "drop": rng.integers(8, 200), "restart": SFREQ}[kind]
            self.lost[first : first + int(count)] = True
            self.bridged[first : first + int(count)] = kind == "short"

    def true_at(self, samples: np.ndarray) -> np.ndarray:
        """When samples were taken, s on the local clock."""
        return START_AT + samples / (SFREQ * (1 + self.ppm * 1e-6))

    @property
    def gaps(self) -> int:
        """How many holes there are."""
        return int((np.diff(self.lost.astype(int)) == 1).sum())

    def items(self) -> Iterator[EegChunk | Trigger]:
        """What a source hands on, in the order of arrival."""
        rng = np.random.default_rng(self.seed + 1)
        trigger = 0
        for first in range(0, len(self.lost) - CHUNK + 1, CHUNK):
            samples = np.arange(first, first + CHUNK)
            last_at = float(self.true_at(samples[-1:])[0])
            while START_AT + LEAD_S + trigger * TR <= last_at:
                stamp = START_AT + LEAD_S + trigger * TR
                if trigger not in self.unmarked:
                    yield Trigger(stamp, "R128", stamp + 0.004)
                trigger += 1
            delivered = samples[~self.lost[samples]]
            if len(delivered):
                stamps = (
                    self.true_at(delivered) + self.shift[delivered] + rng.normal(0, 50e-6, len(delivered))
                )
                data = rng.normal(0, 20, (len(CHANNELS), len(delivered))).astype(np.float32)
                yield EegChunk(data, stamps, last_at + 0.006 + float(rng.exponential(0.001)))

    def times(self, window: Window) -> np.ndarray:
        """Times of a window's samples, s on the local clock."""
        return START_AT + LEAD_S + window.start_s + np.arange(len(window.eeg_mask)) / GRID_HZ

    def holes(self, times: np.ndarray, lost: np.ndarray) -> np.ndarray:
        """At which times there is no sample, nor one on both sides."""
        place = (times - START_AT) * SFREQ * (1 + self.ppm * 1e-6)
        return lost[np.floor(place + NEAR).astype(int)] | lost[np.ceil(place - NEAR).astype(int)]


@dataclass
class Sums:
    """Over the windows: how many, their samples in holes, of these in long ones, masked, not marked."""

    windows: int = 0
    holes: int = 0
    long: int = 0
    masked: int = 0
    unmarked: int = 0
    memory_mb: list[float] = field(default_factory=list)

    def add(self, window: Window, amplifier: Amplifier, stream: EegStream) -> None:
        masked = ~window.eeg_mask
        times = amplifier.times(window)
        assert window.eeg is None or not window.eeg[:, masked].any()
        holes = amplifier.holes(times, amplifier.lost)
        long = amplifier.holes(times, amplifier.lost & ~amplifier.bridged)
        quality = stream.read(times).quality
        shares = {name: round(share * len(times)) for name, share in window.eeg_quality.items()}
        assert shares["gap"] >= long.sum()
        assert len(times) - shares["corrected"] >= holes.sum()
        self.windows += 1
        self.holes += holes.sum()
        self.long += long.sum()
        self.masked += masked.sum()
        self.unmarked += (long & ~masked).sum() + (holes & (quality == CORRECTED)).sum()
        self.memory_mb.append(psutil.Process().memory_info().rss / 2**20)


def replayed(amplifier: Amplifier, bundle: Bundle) -> tuple[Sums, dict]:
    """Put it through the chain, and beside it through the EEG's part alone, which tells the quality."""
    montage = Montage(CHANNELS, SFREQ)
    sums = Sums()
    assembler = Assembler(bundle, montage, ["eeg"])
    assert bundle.manifest.eeg is not None
    stream = EegStream(bundle.manifest.eeg, bundle.stats, montage, 60.0)
    for item in amplifier.items():
        if isinstance(item, EegChunk):
            stream.push(item)
        windows = assembler.advance(item.arrived_at) + assembler.push(item, item.arrived_at)
        for window in windows:
            if window.revision == "final":
                sums.add(window, amplifier, stream)
    return sums, assembler.counters()["eeg"]


def check(seconds: float, folder: Path) -> None:
    amplifier = Amplifier(seconds, seed=5)
    sums, report = replayed(amplifier, make_bundle(folder / "bundle"))
    lost = int(amplifier.lost.sum())
    assert min(amplifier.injected.values()) > 0
    assert (report["lost_samples"], report["gaps"]) == (lost, amplifier.gaps)
    assert report["samples"] == len(amplifier.lost) // CHUNK * CHUNK - lost
    assert report["epochs"] == 1 + amplifier.injected["jump"]
    assert report["drift_ppm"] == pytest.approx(amplifier.ppm, abs=2)
    assert sums.windows >= (seconds - LEAD_S) / 4 - 3
    assert sums.unmarked == 0
    # Beside the long holes at most the one or two times at their edges are masked.
    assert sums.long <= sums.masked <= sums.long + 2 * amplifier.gaps
    assert sums.holes > sums.long
    assert sums.memory_mb[-1] - sums.memory_mb[len(sums.memory_mb) // 5] < 8


def test_two_minutes_of_faults_are_accounted_for_to_the_sample(tmp_path: Path) -> None:
    check(120.0, tmp_path)


@pytest.mark.full
@pytest.mark.timeout(1800)
def test_an_hour_of_faults_is_accounted_for_to_the_sample(tmp_path: Path) -> None:
    check(3600.0, tmp_path)
