"""A small bundle and a small session whose right answers are known."""

import itertools
from fractions import Fraction
from pathlib import Path

import numpy as np

from rtdecode.bundle import Bundle, ClipGeometry, EegInput, FmriInput, Manifest
from rtdecode.signal.eeg.band import EegBand
from rtdecode.signal.volume.baseline import Baseline
from rtdecode.signal.volume.projection import Projection
from rtdecode.timing import TimingGrid
from rtdecode.types import EegChunk, Montage, Trigger, Volume

CHANNELS = ("Fz", "Cz", "Pz", "Oz")
SHAPE = (4, 3, 2)
AFFINE = np.array([[3.0, 0, 0, -6], [0, 3, 0, -4], [0, 0, 3, -2], [0, 0, 0, 1]])
TR = Fraction(4, 5)
DELAY = 0.85  # from the end of a volume to its readable file, s
RECON = 1.6  # what the header says of it, from the start, s


def grid(tr: Fraction | None = TR) -> TimingGrid:
    return TimingGrid(tr, Fraction(125), Fraction(4), Fraction(4), Fraction(4), Fraction(8))


def manifest(tr: Fraction | None = TR, modalities: tuple[str, ...] = ("eeg", "fmri")) -> Manifest:
    eeg = EegInput(list(CHANNELS), "FCz", "microvolts", EegBand(0.5, 40.0, 2, "none"))
    fmri = FmriInput(5, list(SHAPE), AFFINE.tolist(), Baseline(0, 0.01))
    return Manifest(
        schema=2,
        name="small",
        recipe="small",
        recipe_digest="0",
        noise_key="0",
        simulated=True,
        note=None,
        grid=grid(tr),
        eeg=eeg if "eeg" in modalities else None,
        fmri=fmri if "fmri" in modalities else None,
        clip=ClipGeometry(33, 8, 12, 8.0),
        latent=None,
        steps=0,
        sigmas={},
        stages={"encode": None, "denoise": None, "decode_first": None, "decode_next": None},
        states={},
        labels=None,
        confidence=None,
        files={},
        parity={},
        provenance={},
        licence="Apache-2.0",
    )


def bundle(tr: Fraction | None = TR, modalities: tuple[str, ...] = ("eeg", "fmri")) -> Bundle:
    stats = {
        "eeg_mean": np.zeros(4, np.float32),
        "eeg_scale": np.full(4, 2.0, np.float32),
        "fmri_mean": np.full(5, 100.0, np.float32),
        "fmri_scale": np.full(5, 4.0, np.float32),
    }
    projection = Projection(np.array([1, 5, 9, 14, 23]), SHAPE, AFFINE)
    return Bundle(Path(), manifest(tr, modalities), "0" * 16, stats, projection)


def montage(sfreq: float = 1000.0) -> Montage:
    return Montage(CHANNELS, sfreq)


def eeg(seconds: float, start_at: float, seed: int = 0, sfreq: float = 1000.0) -> EegChunk:
    """One chunk of smooth noise."""
    n = int(seconds * sfreq)
    data = np.cumsum(np.random.default_rng(seed).standard_normal((4, n)), axis=1).astype(np.float32)
    stamps = start_at + np.arange(n) / sfreq
    return EegChunk(data, stamps, float(stamps[-1]))


def chunks(chunk: EegChunk, cuts: list[int]) -> list[EegChunk]:
    """The same samples in pieces that end at `cuts`, each arriving with its last sample."""
    edges = [0, *sorted(c for c in set(cuts) if 0 < c < chunk.data.shape[1]), chunk.data.shape[1]]
    return [
        EegChunk(chunk.data[:, a:b], chunk.stamps[a:b], float(chunk.stamps[b - 1]))
        for a, b in itertools.pairwise(edges)
    ]


def triggers(count: int, zero_at: float, first: int = 0) -> list[Trigger]:
    return [Trigger(zero_at + i * float(TR), "R128", zero_at + i * float(TR)) for i in range(first, count)]


def volumes(count: int, zero_at: float, seed: int = 0, uid: str = "1") -> list[Volume]:
    rng = np.random.default_rng(seed)
    data = (100 + 4 * rng.standard_normal((count, *SHAPE))).astype(np.float32)
    tr = float(TR)
    ready = [zero_at + (i + 1) * tr + DELAY for i in range(count)]
    return [
        Volume(data[i], AFFINE, i, 7, tr, i * tr, RECON, ready[i], ready[i], ready[i], f"v{i}", uid)
        for i in range(count)
    ]


def in_order(*streams: list) -> list:
    """Items in the order they arrive."""
    return sorted((item for s in streams for item in s), key=lambda item: item.arrived_at)
