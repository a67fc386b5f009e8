"""The compact recipe's data: films coded, sessions watched, and where their signals lead."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rtdecode.bundle import Bundle
from rtdecode.phantom.film import SHOT_FRAMES, Film
from train.data.arrays import normalised, statistics
from train.data.conditions import Clips
from train.data.phantom import Participant, film_clips, session_arrays
from train.models.codec import fit_decoder
from train.parts import brain
from train.parts import codec as patch
from train.parts.brain import StemSizes
from train.parts.space import Space, fit_space, shares
from train.work import Arrays, Work

# How the films of each kind are cut, and which kinds are watched.
CUTS = {"sessions": "grid", "free": "free", "held": "grid", "film": "grid", "free_film": "free"}
WATCHED = ("sessions", "free", "held")
STATISTICS = ("eeg_mean", "eeg_scale", "fmri_mean", "fmri_scale")
_CODEC_FILMS = 4


@dataclass(frozen=True)
class Watched:
    """Films and sessions as stages of a run.

    Attributes
    ----------
    work : Work
    seeds : dict
        Kind (a key of `CUTS`) -> seeds.
    seconds : float
        Of film under each seed.
    codec : dict
        See `fit_codec`.
    """

    work: Work
    seeds: dict[str, list[int]]
    seconds: float
    codec: Arrays

    def prepare(self, who: Participant, raw: Bundle) -> None:
        """Draw every film, and let the participant watch those that are watched."""
        for kind, cuts in CUTS.items():
            for seed in self.work.track(self.seeds[kind], f"{kind}: drawing"):
                self.work.stage(f"film-{seed}", lambda s=seed, c=cuts: self._film(Film(self.seconds, s, c)))
        for kind in WATCHED:
            for seed in self.work.track(self.seeds[kind], f"{kind}: watching"):
                session = who.session(seed, self.seconds, CUTS[kind])
                self.work.stage(f"session-{seed}", lambda s=session: session_arrays(raw, s))

    def fit(self, stems: StemSizes, components: int, shrinkage: float, level: NDArray[np.float32]) -> Arrays:
        """Fit the closed-form encoder on the sessions cut on the grid.

        Parameters
        ----------
        stems : StemSizes
        components : int
            Of the space, see `train.parts.space`.
        shrinkage : float
            Of the discriminants.
        level : (voxel,)
            Resting level.

        Returns
        -------
        dict
            The statistics, ``space_*``, what `train.parts.brain` fits, and ``points_{route}``, the
            held-out points of the windows.
        """
        windows, film = self.windows("sessions"), self.films("sessions")
        stats = statistics(windows, level)
        space = fit_space(film["latents"].astype(np.float32), film["shares"], components)
        eeg, fmri = normalised(windows, stats)
        fitted = brain.fit_stems(eeg, fmri, stems)
        truth = space.targets(film["latents"], film["shares"])
        maps, held_out = brain.fit_maps(brain.features(fitted, eeg, fmri), truth, stems)
        fitted |= maps | brain.fit_discriminants(held_out, film["shares"], shrinkage)
        last = film["latents"][:, :, -1].reshape(len(truth), -1).astype(np.float64)
        fitted |= brain.fit_discriminants({"carry": last}, film["shares"], shrinkage)
        fitted["discriminant_carry"] = fitted["discriminant_carry"].astype(np.float16)
        fitted |= {f"space_{name}": value for name, value in vars(space).items()}
        fitted |= {f"points_{route}": points.astype(np.float32) for route, points in held_out.items()}
        return fitted | stats

    def clips(self, kind: str, fitted: Arrays) -> Clips:
        """Clips of one kind, with their points where they were watched."""
        film, space = self.films(kind), space_of(fitted)
        points: Arrays = {}
        if kind == "sessions":
            points = {route: fitted[f"points_{route}"] for route in brain.GROUPS}
        elif kind in WATCHED:
            eeg, fmri = normalised(self.windows(kind), fitted)
            points = brain.place(fitted, brain.features(fitted, eeg, fmri))
            points = {route: found.astype(np.float32) for route, found in points.items()}
        count = len(film["latents"]) // len(self.seeds[kind])
        joined = np.arange(len(film["latents"])) % count > 0
        truth = space.targets(film["latents"], film["shares"]).astype(np.float32)
        return Clips(film["latents"], truth, points, joined, film["cut"], film["shares"])

    def windows(self, kind: str) -> Arrays:
        """Windows of the sessions of one kind, as the chain made them."""
        return self._stacked([f"session-{seed}" for seed in self.seeds[kind]])

    def films(self, kind: str) -> Arrays:
        """Scaled latents, shares of the attributes and cuts of the films of one kind."""
        return self._stacked([f"film-{seed}" for seed in self.seeds[kind]])

    def _stacked(self, names: list[str]) -> Arrays:
        parts = [self.work.stage(name, dict) for name in names]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _film(self, film: Film) -> Arrays:
        latents = np.concatenate([encode(self.codec, film.clip(k)[None]) for k in range(film.windows)])
        edges = np.arange(1, film.windows) * SHOT_FRAMES
        return {
            "latents": latents.astype(np.float16),
            "shares": shares(film),
            "cut": np.isin(np.append(0, edges), film.cut_frames),
        }


def fit_codec(seeds: list[int], seconds: float, channels: int, contrast: float) -> Arrays:
    """Fit codec, decoder and mean clip to at most four films.

    Parameters
    ----------
    seeds : list of int
    seconds : float
    channels : int
    contrast : float
        Power of a channel's standard deviation that its latents are divided by.

    Returns
    -------
    dict
        ``codec_mean``, ``codec_basis`` (of scaled latents), ``scale``, ``spread`` (standard deviation
        of the scaled latents) (channel,), ``mean_clip``, ``decoder.*``.
    """
    clips = np.concatenate([film_clips(Film(seconds, seed)) for seed in seeds[:_CODEC_FILMS]])
    found = patch.fit_codec(clips, channels)
    spread = patch.encode(found, clips[::4]).std((0, 2, 3, 4), dtype=np.float64)
    scale = spread**contrast
    scale *= np.sqrt(np.mean((spread / scale) ** 2))
    codec = {
        "codec_mean": found.mean,
        # Latents are divided by the scale, and the basis carries it.
        "codec_basis": (found.basis * scale).astype(np.float32),
        "scale": scale,
        "spread": (spread / scale).astype(np.float32),
        "mean_clip": np.rint(clips.mean(0)).astype(np.uint8),
    }
    decoder = fit_decoder(encode(codec, clips), clips)
    return codec | {f"decoder.{name}": value.half().numpy() for name, value in decoder.state_dict().items()}


def encode(codec: Arrays, clips: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Encode clips to scaled latents, (clip, channel, latent frame, row, column)."""
    inverse = np.asarray(codec["codec_basis"] / codec["scale"] ** 2, np.float32)
    return patch.encode(patch.Codec(codec["codec_mean"], inverse), clips)


def space_of(arrays: Arrays) -> Space:
    """Take the space out of arrays that hold it."""
    return Space(*(arrays[f"space_{name}"] for name in ("latent_mean", "basis", "mean", "scale")))


def codec_statistics(codec: Arrays, fitted: Arrays) -> Arrays:
    """Collect what fitting a new participant needs besides the graphs (`export.fit`)."""
    names = ("space_latent_mean", "space_mean", "space_scale")
    space: Arrays = {name: np.asarray(fitted[name], np.float32) for name in names}
    return space | {name: codec[name] for name in ("codec_mean", "codec_basis", "scale", "mean_clip")}
