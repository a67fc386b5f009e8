"""Small folders in the layouts that data sets were published in."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

# Windows of a segment, voxels, and sides of a picture: small, as nothing rests on them.
LENGTH = 4
VOXELS = 7
SIDE = 6


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def neuroclips(folder: Path, *, captions: bool = True) -> dict[str, NDArray[Any]]:
    """Write cc2017 as NeuroClips released it; return its arrays by file."""
    arrays: dict[str, NDArray[Any]] = {}
    for part, segments, repeats in (("train", 18, 2), ("test", 5, 10)):
        count = segments * LENGTH
        for subject in ("subj01", "subj02"):
            voxels = VOXELS + int(subject[-1])
            values = rng(count + voxels).standard_normal((count, repeats, voxels)).astype(np.float32)
            arrays[f"{subject}_{part}_fmri.pt"] = values
        arrays[f"GT_{part}_3fps.pt"] = rng(count).random((count, 6, 3, SIDE, SIDE), np.float32)
        if captions:
            # As numpy.hstack makes them of single strings.
            arrays[f"GT_{part}_caption.pt"] = np.array([f"{part} {n}" for n in range(count)])
    for name, values in arrays.items():
        torch.save(values if values.dtype.kind == "U" else torch.from_numpy(values), folder / name)
    return arrays


def mindvideo(folder: Path) -> dict[str, NDArray[Any]]:
    """Write cc2017 as MinD-Video released it; return its arrays by file."""
    arrays: dict[str, NDArray[Any]] = {}
    for part, segments in (("train", 18), ("test", 5)):
        shape = (segments, LENGTH)
        for number in (1, 2):
            values = rng(segments + number).standard_normal((*shape, VOXELS + number))
            arrays[f"fmri_{part}_subject{number}.npy"] = values
        pixels = rng(segments).integers(0, 256, (*shape, 6, SIDE, SIDE, 3)).astype(np.uint8)
        arrays[f"video_{part}_256_3hz.npy"] = pixels
        frames = np.arange(segments * LENGTH * 6).reshape(*shape, 6)
        arrays[f"text_{part}_256_3hz.npy"] = np.char.add(f"{part} ", frames.astype(str))
    folder.mkdir(exist_ok=True)
    for name, values in arrays.items():
        np.save(folder / name, values)
    return arrays


def song(
    folder: Path,
    *,
    films: dict[str, int],
    people: dict[str, list[str]],
    noise: float = 1.0,
    parcels: int = 24,
    width: int = 6,
    seed: int = 0,
) -> dict[str, dict[str, NDArray[Any]]]:
    """Write films as SONG is packed; return the arrays by film.

    Features are slow noise of their own for each film. Everybody's parcels mix them in the same way, with
    noise of their own, and each run is z-scored.

    Parameters
    ----------
    folder : Path
    films : dict
        Name -> number of seconds.
    people : dict
        Name of a film -> who watched it.
    noise : float
        Deviation of each person's noise, in that of what the film drives.
    parcels, width, seed : int
    """
    draws = rng(seed)
    mixing = draws.standard_normal((width, parcels)) / width**0.5
    written = {}
    for film, seconds in films.items():
        features = _slow(draws.standard_normal((seconds, width)))
        shape = (len(people[film]), seconds, parcels)
        bold = features @ mixing + noise * draws.standard_normal(shape)
        bold = (bold - bold.mean(1, keepdims=True)) / bold.std(1, keepdims=True)
        written[film] = {
            "bold_i8": np.clip(np.rint(bold / 0.05), -127, 127).astype(np.int8),
            "scale": np.float32(0.05),
            "people": np.array(people[film]),
            "tr": np.float64(1.0),
            "features": features.astype(np.float16),
        }
        np.savez(folder / f"song_{film}.npz", **written[film])
    return written


def _slow(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Let each value last some seconds, and give every column the deviation 1."""
    for second in range(1, len(values)):
        values[second] += 0.8 * values[second - 1]
    return values / values.std(0)
