"""The compact recipe's data: films as latents, sessions as windows, and the points that signals lead to.

`fit_codec` fits the codec to a few films. `Watched.prepare` then makes a stage on disk for every film and
every session, `Watched.fit` fits the encoder to those that teach, and `Watched.clips` puts latents, points
and attributes of each kind together for the training of the flow. Latents stay on disk throughout.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode.bundle import Bundle
from rtdecode.phantom.film.film import SHOT_FRAMES, Film
from train.closed_form import brain_maps
from train.closed_form import patch_codec as patch
from train.closed_form.brain_maps import StemSizes
from train.closed_form.refine import PREFIX, perceptron, refine
from train.closed_form.space import Space, fit_space, shares
from train.data.arrays import normalised, statistics
from train.data.phantom import Participant, film_clips, session_arrays
from train.data.shards import Shards
from train.models.compact.batches import Clips
from train.models.compact.codec import fit_decoder
from train.models.compact.refiner import RefinerSizes, fit_refiner
from train.work import Arrays, Work

# How the films of each kind are cut, and the kinds that weights are fitted to.
CUTS = {"sessions": "grid", "free": "free", "held": "grid"}
TAUGHT = ("sessions", "free")
STATISTICS = ("eeg_mean", "eeg_scale", "fmri_mean", "fmri_scale")
# Numbers of films, sessions and clips that are enough for the codec, for statistics and stems, and
# for the principal components. `_CLIPS` is also how many clips are placed in the space at once.
_CODEC_FILMS = 4
_STEM_SESSIONS = 24
_CLIPS = 5000


@dataclass(frozen=True)
class Watched:
    """Films and sessions as stages of a run.

    Attributes
    ----------
    work : Work
    seeds : dict
        Kind (a key of `CUTS`) -> seeds.
    seconds : float
        Length of the film under each seed.
    codec : dict
        See `fit_codec`.
    """

    work: Work
    seeds: dict[str, list[int]]
    seconds: float
    codec: Arrays

    def prepare(self, who: Participant, raw: Bundle) -> None:
        """Draw every film and let the participant watch it, each as a stage of its own."""
        # Films and sessions are stages that need the codec at most, so they can be made side by side.
        jobs: dict[str, Callable[[], Arrays]] = {}
        for kind, cuts in CUTS.items():
            for seed in self.seeds[kind]:
                jobs[f"film-{seed}"] = partial(_film, self.codec, self.seconds, seed, cuts)
                jobs[f"session-{seed}"] = partial(_watch, who, raw, self.seconds, seed, cuts)
        self.work.make_all(jobs, "watching films")

    def fit(
        self,
        stems: StemSizes,
        components: int,
        shrinkage: float,
        refiner: RefinerSizes,
        level: NDArray[np.float32],
    ) -> Arrays:
        """Fit the encoder: stems, linear maps, the perceptron, and the discriminant of a clip's end.

        Parameters
        ----------
        stems : StemSizes
        components : int
            Number of principal components of the space, see `train.closed_form.space`.
        shrinkage : float
            Shrinkage of the discriminant that reads a clip's last latent frame.
        refiner : RefinerSizes
        level : (voxel,)
            Resting level.

        Returns
        -------
        dict
            The statistics, ``space_*``, the arrays that `train.closed_form.brain_maps` fits, ``refiner.*``,
            and ``points_{route}``, the held-out refined points of the windows that teach.
        """
        # The signals become features, and the clips points of a space.
        stats, fitted = self._stems(stems, level)
        latents = self.latents(*TAUGHT)
        shown = self.film("shares", *TAUGHT)
        few = slice(None, None, -(-len(shown) // _CLIPS))
        space = fit_space(latents[few].astype(np.float32), shown[few], components)
        truth = _placed(space, latents, shown)
        # The maps lead from the ones to the others, and the perceptron goes on from there.
        maps, held_out = brain_maps.fit_maps(self._features(TAUGHT, fitted | stats), truth, stems)
        net, refined = fit_refiner(held_out, truth, space, refiner, self.work.seed)
        last = latents[few, :, -1].reshape(len(truth[few]), -1).astype(np.float64)
        weights, offset = brain_maps.fit_discriminant(last, shown[few], shrinkage)
        fitted |= maps | {f"{PREFIX}{name}": value for name, value in net.items()}
        fitted |= {
            "discriminant_carry": weights.astype(np.float16),
            "offset_carry": offset.astype(np.float32),
        }
        fitted |= {f"space_{name}": value for name, value in vars(space).items()}
        return fitted | {f"points_{route}": points for route, points in refined.items()} | stats

    def clips(self, kind: str, fitted: Arrays) -> Clips:
        """Collect the clips of one kind, and the points that their windows lead to."""
        latents = self.latents(kind)
        count = len(latents) // len(self.seeds[kind])
        joined = np.arange(len(latents)) % count > 0
        # The encoder would predict the windows that taught it too well. They have held-out points from
        # the fit, in the order of `TAUGHT`.
        if kind in TAUGHT:
            first = sum(len(self.seeds[k]) for k in TAUGHT[: TAUGHT.index(kind)]) * count
            points = {r: fitted[f"points_{r}"][first : first + len(joined)] for r in brain_maps.GROUPS}
        else:
            places = brain_maps.place(fitted, self._features((kind,), fitted))
            net = perceptron(fitted)
            points = {r: refine(net, places, r).astype(np.float32) for r in brain_maps.GROUPS}
        return Clips(latents, points, joined, self.film("cut", kind), self.film("shares", kind))

    def latents(self, *kinds: str) -> Shards:
        """Return the scaled latents of the films of some kinds, which stay on disk."""
        return Shards(self._films(kinds), "latents")

    def film(self, name: str, *kinds: str) -> NDArray[Any]:
        """Read the ``shares`` of the attributes, or the cuts (``cut``), of the films of some kinds."""
        return Shards(self._films(kinds), name)[:]

    def _films(self, kinds: Sequence[str]) -> list[Path]:
        return [self.work.path(f"film-{seed}") for kind in kinds for seed in self.seeds[kind]]

    def _stems(self, stems: StemSizes, level: NDArray[np.float32]) -> tuple[Arrays, Arrays]:
        windows = self._stacked([f"session-{seed}" for seed in self.seeds["sessions"][:_STEM_SESSIONS]])
        stats = statistics(windows, level)
        return stats, brain_maps.fit_stems(*normalised(windows, stats), stems)

    def _features(self, kinds: Sequence[str], fitted: Arrays) -> dict[str, NDArray[np.float32]]:
        """Compute the features of all windows of some kinds, one session's signals after the other."""
        parts = []
        for seed in (seed for kind in kinds for seed in self.seeds[kind]):
            eeg, fmri = normalised(self.work.read(f"session-{seed}"), fitted)
            parts.append(brain_maps.features(fitted, eeg, fmri))
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _stacked(self, names: list[str]) -> Arrays:
        parts = [self.work.read(name) for name in names]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _film(codec: Arrays, seconds: float, seed: int, cuts: str) -> Arrays:
    film = Film(seconds, seed, cuts)
    latents = np.concatenate([encode(codec, film.clip(k)[None]) for k in range(film.windows)])
    edges = np.arange(1, film.windows) * SHOT_FRAMES
    return {
        "latents": latents.astype(np.float16),
        "shares": shares(film),
        "cut": np.isin(np.append(0, edges), film.cut_frames),
    }


def _watch(who: Participant, raw: Bundle, seconds: float, seed: int, cuts: str) -> Arrays:
    return session_arrays(raw, who.session(seed, seconds, cuts))


def _placed(space: Space, latents: Shards, shown: NDArray[Any]) -> NDArray[np.float64]:
    """Place clips in the space, a part at a time, because their latents may not fit into memory."""
    at = range(0, len(shown), _CLIPS)
    parts = [space.targets(latents[n : n + _CLIPS], shown[n : n + _CLIPS]) for n in at]
    return np.concatenate(parts)


def fit_codec(seeds: list[int], seconds: float, channels: int, contrast: float) -> Arrays:
    """Fit codec, decoder and mean clip to at most four films.

    Parameters
    ----------
    seeds : list of int
    seconds : float
    channels : int
    contrast : float
        Power of a channel's standard deviation by which its latents are divided.

    Returns
    -------
    dict
        ``codec_mean``, ``codec_basis`` (from scaled latents to patches), ``scale`` (channel,), ``spread``
        (channel,), which is the standard deviation of the scaled latents, ``mean_clip``, ``decoder.*``.
    """
    clips = np.concatenate([film_clips(Film(seconds, seed)) for seed in seeds[:_CODEC_FILMS]])
    found = patch.fit_codec(clips, channels)
    spread = patch.encode(found, clips[::4]).std((0, 2, 3, 4), dtype=np.float64)
    scale = spread**contrast
    # The mean variance of the scaled latents' channels is 1, like the noise's.
    scale *= np.sqrt(np.mean((spread / scale) ** 2))
    codec = {
        "codec_mean": found.mean,
        # Latents are divided by the scale, so the basis that draws them is multiplied by it.
        "codec_basis": (found.basis * scale).astype(np.float32),
        "scale": scale,
        "spread": (spread / scale).astype(np.float32),
        "mean_clip": np.rint(clips.mean(0)).astype(np.uint8),
    }
    decoder = fit_decoder(encode(codec, clips), clips)
    return codec | {f"decoder.{name}": value.half().numpy() for name, value in decoder.state_dict().items()}


def encode(codec: Arrays, clips: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Encode clips to scaled latents, (clip, channel, latent frame, row, column)."""
    # The stored basis is multiplied by the scale. Divided by it twice, it gives latents divided by it.
    inverse = np.asarray(codec["codec_basis"] / codec["scale"] ** 2, np.float32)
    return patch.encode(patch.Codec(codec["codec_mean"], inverse), clips)


def space_of(arrays: Arrays) -> Space:
    """Make the space from arrays that hold it among others."""
    return Space(*(arrays[f"space_{name}"] for name in ("latent_mean", "basis", "mean", "scale")))


def codec_statistics(codec: Arrays, fitted: Arrays) -> Arrays:
    """Collect what fitting a new participant needs besides the graphs (`train.fitting.compact`)."""
    names = ("space_latent_mean", "space_mean", "space_scale")
    space: Arrays = {name: np.asarray(fitted[name], np.float32) for name in names}
    return space | {name: codec[name] for name in ("codec_mean", "codec_basis", "scale", "mean_clip")}
