"""The ridge oracle: what a linear decoder reads from the simulated participant, before any is trained.

Kernel ridge on all driven voxels of a window's volumes and its whole EEG, with the penalty and the
weight of the two kernels chosen per group of targets by leave-one-out, through a closed-form patch
codec, judged by pixel identification. Writes the section ``oracle`` of ``bars.json``::

    python -m benchmarks.experiments.oracle [easy default hard]
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode.phantom.body.presets import PRESETS, Preset
from rtdecode.phantom.film.film import FPS, Film
from rtdecode.phantom.session import PhantomSession
from rtdecode.scores.accuracy import above, correlations, identification_nway
from rtdecode.scores.intervals import of_mean
from rtdecode.signal.eeg.band import EegBand, EegFilter
from rtdecode.signal.volume.baseline import Baseline, VolumeNormalizer
from rtdecode.timing import TimingGrid
from rtdecode.types import Float

GRID = TimingGrid(
    tr=Fraction(4, 5),
    sfreq=Fraction(125),
    window=Fraction(4),
    hop=Fraction(4),
    lag=Fraction(4),
    fps=Fraction(FPS),
)
TRAINING = tuple(range(8))
TESTING = (900, 901, 902, 903)
SECONDS = 600.0
CHANNELS = 16
PATCH = (4, 8, 8)
COMPONENTS = 400
GROUPS = (0, 5, 20, 60, 150, COMPONENTS)
PENALTIES = np.logspace(-2, 3, 11)
FMRI_WEIGHTS = {"both": (0.2, 0.35, 0.5, 0.65, 0.8, 0.9), "fmri": (1.0,), "eeg": (0.0,)}


@dataclass(frozen=True)
class Windows:
    """Windows of several sessions: fMRI (window, slot * voxel) and EEG (window, channel * sample)."""

    fmri: Float
    eeg: Float


@dataclass(frozen=True)
class FilmCodec:
    """Closed-form codec: the leading principal components of patches."""

    mean: Float
    basis: Float

    def encode(self, clip: NDArray[np.uint8]) -> Float:
        """Code a clip of 33 frames, -> (9, 8, 12, 16)."""
        return np.asarray((_patches(clip) - self.mean) @ self.basis.T, np.float32)

    def decode(self, latent: Float) -> Float:
        """Draw the 33 frames of a code (9, 8, 12, 16), in grey levels of 0 to 255."""
        t, h, w, _ = latent.shape
        cells = (latent @ self.basis + self.mean).reshape(t, h, w, *PATCH, 3)
        frames = cells.transpose(0, 3, 1, 4, 2, 5, 6).reshape(t * PATCH[0], h * PATCH[1], w * PATCH[2], 3)
        return np.clip(frames[PATCH[0] - 1 :], 0, 1) * np.float32(255)


def fit_codec(films: Sequence[Film]) -> FilmCodec:
    """Principal components of the patches of every fourth clip."""
    clips = (film.clip(k) for film in films for k in range(0, film.windows, 4))
    x = np.concatenate([_patches(clip).reshape(-1, int(np.prod(PATCH)) * 3) for clip in clips])
    mean = x.mean(axis=0)
    _, vectors = np.linalg.eigh(np.cov(x - mean, rowvar=False))
    return FilmCodec(mean, np.ascontiguousarray(vectors[:, ::-1][:, :CHANNELS].T).astype(np.float32))


def _patches(clip: NDArray[np.uint8]) -> Float:
    """(33, 64, 96, 3) -> (9, 8, 12, 768); the first frame is repeated to fill its cell."""
    x = np.concatenate([np.repeat(clip[:1], PATCH[0] - 1, axis=0), clip]).astype(np.float32) / np.float32(255)
    t = x.shape[0] // PATCH[0]
    h = x.shape[1] // PATCH[1]
    w = x.shape[2] // PATCH[2]
    cells = x.reshape(t, PATCH[0], h, PATCH[1], w, PATCH[2], 3).transpose(0, 2, 4, 1, 3, 5, 6)
    return cells.reshape(t, h, w, -1)


def read_sessions(sessions: Sequence[PhantomSession], level: Float) -> Windows:
    """Run the causal chain over sessions; `level` is as of `voxel_levels`."""
    fmri = np.concatenate(
        [cut_volumes(session.vectors(), session.film.windows, *level) for session in sessions]
    )
    eeg = np.concatenate([cut_eeg(session) for session in sessions])
    return Windows(fmri, eeg)


def voxel_levels(sessions: Sequence[PhantomSession]) -> Float:
    """Mean and standard deviation of each voxel, (2, voxel)."""
    x = np.concatenate([session.vectors() for session in sessions]).astype(np.float32)
    return np.stack([x.mean(axis=0), x.std(axis=0)])


def cut_volumes(vectors: NDArray[np.int16], windows: int, mean: Float, scale: Float) -> Float:
    """Run the causal chain over the voxels of a session, and cut its windows, (window, slot * voxel)."""
    chain = VolumeNormalizer(mean, scale, Baseline(warmup=0, rate=0.005))
    series = np.stack([chain.push(vector.astype(np.float32)) for vector in vectors])
    return np.stack([series[list(GRID.volumes(k))].reshape(-1) for k in range(windows)])


def cut_eeg(session: PhantomSession) -> Float:
    """Run the causal chain over the EEG of a session, and cut its windows, (window, channel * sample)."""
    chain = EegFilter(EegBand(), session.sfreq)
    step = int(session.sfreq / GRID.sfreq)
    blocks = [chain.push(block) for block in session.eeg_blocks()]
    series = np.concatenate(blocks, axis=1)[:, 10 * session.sfreq :: step]
    size = GRID.samples
    hop = int(GRID.hop * GRID.sfreq)
    return np.stack([series[:, k * hop : k * hop + size].reshape(-1) for k in range(session.film.windows)])


def standardise(train: Float, test: Float, group: int) -> tuple[Float, Float]:
    """Centre each value and scale each run of `group` values, by the training windows alone."""
    mean = train.mean(axis=0)
    spread = train.reshape(len(train), -1, group).std(axis=(0, 2)).repeat(group)
    scale = np.float32(1 / np.sqrt(train.shape[1])) / spread
    return (train - mean) * scale, (test - mean) * scale


def kernels_of(training: Windows, fresh: Windows) -> dict[str, tuple[Float, Float]]:
    """Return of each modality the kernels of training and of test windows with training windows."""
    kernels = {}
    for name, group in (("fmri", 1), ("eeg", GRID.samples)):
        x, z = standardise(getattr(training, name), getattr(fresh, name), group)
        kernels[name] = (x @ x.T, z @ x.T)
    return kernels


@dataclass(frozen=True)
class Problem:
    """Kernels of training and of test windows with training windows, and the targets' components."""

    kernels: dict[str, tuple[Float, Float]]
    targets: Float


def predict(problem: Problem, weights: Sequence[float]) -> tuple[Float, list[dict[str, float]]]:
    """Ridge predictions of all components, the penalty and kernel weight of each group by leave-one-out."""
    y = problem.targets.astype(np.float64)
    best: list[tuple[float, NDArray[Any], dict[str, float]]] = [(np.inf, y, {})] * (len(GROUPS) - 1)
    for weight in weights:
        training_kernel, cross = (
            weight * a + (1 - weight) * b
            for a, b in zip(problem.kernels["fmri"], problem.kernels["eeg"], strict=True)
        )
        values, vectors = np.linalg.eigh(training_kernel.astype(np.float64))
        inner = vectors.T @ y
        for penalty in PENALTIES * values.mean():
            shrink = values / (values + penalty)
            error = y - vectors @ (shrink[:, None] * inner)
            left_out = error / (1 - (vectors**2) @ shrink - 1 / len(y))[:, None]
            scores = (left_out**2).sum(axis=0)
            dual = vectors @ (inner / (values + penalty)[:, None])
            for g, (a, b) in enumerate(pairwise(GROUPS)):
                total = scores[a:b].sum()
                if total < best[g][0]:
                    note = {"fmri_weight": weight, "penalty": float(penalty / values.mean())}
                    note["loo_r2"] = float(1 - total / (y[:, a:b] ** 2).sum())
                    best[g] = (total, cross @ dual[:, a:b], note)
    return np.concatenate([part for _, part, _ in best], axis=1), [note for _, _, note in best]


def same_background(films: Sequence[Film]) -> NDArray[np.bool_]:
    """Whether two windows of grid-cut films show the same background colour, (window, window)."""
    names = np.array([shot.background for film in films for shot in film.shots[: film.windows]])
    return names[:, None] == names[None]


def score(
    clips: Sequence[NDArray[Any]], truths: Sequence[NDArray[Any]], mean: Float, alike: NDArray[np.bool_]
) -> dict[str, NDArray[np.float64]]:
    """Identification of each clip among all others and among those of the same background."""
    corr = correlations(clips, truths, mean)
    distractors = ~np.eye(len(clips), dtype=bool)
    return {
        "identification_2way": identification_nway(corr, distractors, 2),
        "identification_2way_same_background": identification_nway(corr, distractors & alike, 2),
        "identification_50way": identification_nway(corr, distractors, 50),
    }


def figures(scores: dict[str, NDArray[np.float64]]) -> dict[str, Any]:
    """Mean, interval and count of each kind of score."""
    return {name: _figure(values[np.isfinite(values)]) for name, values in scores.items()}


def fusion(scores: dict[str, dict[str, NDArray[np.float64]]]) -> dict[str, Any]:
    """What both modalities together gain over the better of the two alone, window by window."""
    gains = {}
    for way in ("2way", "50way"):
        both, *alone = (scores[route][f"identification_{way}"] for route in ("both", "fmri", "eeg"))
        gains[f"fusion_gain_{way}"] = above(both, max(alone, key=lambda wins: float(wins.mean())))
    return gains


def _figure(scores: NDArray[np.float64]) -> dict[str, Any]:
    return {"value": float(scores.mean()), **of_mean(scores).entries(), "n": len(scores)}


@dataclass(frozen=True)
class Pictures:
    """What the films show: codec, latents of the training clips, true test clips, mean clip."""

    codec: FilmCodec
    latents: Float
    truths: list[NDArray[np.uint8]]
    mean: Float
    alike: NDArray[np.bool_]
    backgrounds: list[NDArray[np.float32]]


def see(training: Sequence[Film], testing: Sequence[Film]) -> Pictures:
    """Code the films and draw the baseline that knows the background colour alone."""
    codec = fit_codec(training)
    clips = (film.clip(k) for film in training for k in range(film.windows))
    latents = np.stack([codec.encode(clip).reshape(-1) for clip in clips])
    total = np.zeros((32, 64, 96, 3))
    by_color: dict[str, list[Any]] = {}
    for film in training:
        for k in range(film.windows):
            clip = film.clip(k)[:32].astype(np.float32)
            total += clip
            tally = by_color.setdefault(film.shots[k].background, [np.zeros_like(clip), 0])
            tally[0] += clip
            tally[1] += 1
    mean = (total / len(latents)).astype(np.float32)
    truths = [film.clip(k)[:32] for film in testing for k in range(film.windows)]
    backgrounds = [film.shots[k].background for film in testing for k in range(film.windows)]
    means = {name: tally[0] / tally[1] for name, tally in by_color.items()}
    return Pictures(
        codec, latents, truths, mean, same_background(testing), [means[name] for name in backgrounds]
    )


def oracle(
    preset: Preset, pictures: Pictures, training: Sequence[int], testing: Sequence[int], **options: Any
) -> dict[str, Any]:
    """Figures of one preset; `options` goes to `PhantomSession`."""
    train = [PhantomSession(preset, seed=seed, seconds=SECONDS, **options) for seed in training]
    test = [PhantomSession(preset, seed=seed, seconds=SECONDS, **options) for seed in testing]
    level = voxel_levels(train)
    train_windows = read_sessions(train, level)
    fresh = read_sessions(test, level)
    kernels = kernels_of(train_windows, fresh)
    center = pictures.latents.mean(axis=0)
    axes = leading(pictures.latents - center)
    problem = Problem(kernels, (pictures.latents - center) @ axes.T)
    out: dict[str, Any] = {"constants": asdict(preset)}
    scores = {}
    for name, weights in FMRI_WEIGHTS.items():
        parts, notes = predict(problem, weights)
        latents = (parts.astype(np.float32) @ axes + center).reshape(-1, 9, 8, 12, CHANNELS)
        clips = [np.rint(pictures.codec.decode(latent)[:32]).astype(np.uint8) for latent in latents]
        scores[name] = score(clips, pictures.truths, pictures.mean, pictures.alike)
        out[name] = figures(scores[name]) | {"groups": notes}
    return out | fusion(scores)


def leading(x: Float) -> Float:
    """Leading principal components: their number is `COMPONENTS`."""
    values, vectors = np.linalg.eigh(x @ x.T)
    order = np.argsort(values)[::-1][:COMPONENTS]
    return (vectors[:, order].T @ x / np.sqrt(values[order])[:, None]).astype(np.float32)


def main() -> None:
    """Compute the figures and put them into ``bars.json``."""
    reader = argparse.ArgumentParser(description=__doc__)
    reader.add_argument("presets", nargs="*", default=list(PRESETS))
    names = reader.parse_args().presets
    pictures = see([Film(SECONDS, s) for s in TRAINING], [Film(SECONDS, s) for s in TESTING])
    path = Path(__file__).parents[1] / "bars.json"
    section = json.loads(path.read_text()).get("oracle", {}) if path.is_file() else {}
    section["seeds"] = {"training": list(TRAINING), "testing": list(TESTING), "seconds": SECONDS}
    alone = score(pictures.backgrounds, pictures.truths, pictures.mean, pictures.alike)
    section["background_only"] = figures(alone)
    for name in names:
        section[name] = oracle(PRESETS[name], pictures, TRAINING, TESTING)
        print(name, json.dumps(section[name]))  # noqa: T201
        bars = json.loads(path.read_text()) if path.is_file() else {}
        path.write_text(json.dumps(bars | {"oracle": section}, indent=1) + "\n")


if __name__ == "__main__":
    main()
