"""The data of the recipe `compact`: films as latents, sessions as windows, and what signals tell of films.

`fit_codec` fits the codec to some films. `FilmWindows.prepare` then makes a stage on disk for every film and
every session, `FilmWindows.fit`, `FilmWindows.shots` and `FilmWindows.refine` fit the encoder to those that
teach, and `FilmWindows.clips` puts latents and glimpses together for the training of the flow. Latents stay
on disk throughout.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rtdecode.bundle import Bundle
from rtdecode.signal.volume.projection import Projection
from train.closed_form import brain_maps
from train.closed_form.brain_maps import StemSizes
from train.closed_form.cuts import binned, fit_cuts
from train.closed_form.film_space import ClipTargets, Space, SpaceSizes, fit_space
from train.closed_form.onsets import fit_onsets
from train.closed_form.refine import PREFIX, Shots, perceptron, refine
from train.config.run_context import Arrays, RunContext
from train.data.arrays import normalised, statistics
from train.data.film_stages import encode_film, film_stage, session_stage
from train.data.shards import Shards
from train.data.showing import AnyShowing, by_title
from train.models.compact.batches import Clips
from train.models.compact.evidence import PREFIX as EVIDENCE
from train.models.compact.evidence import fit_evidence
from train.models.compact.refiner import RefinerSizes, fit_refiner

STATISTICS = ("eeg_mean", "eeg_scale", "fmri_mean", "fmri_scale")
# Numbers of sessions and clips that are enough for statistics and stems, and for the principal components.
_STEM_SESSIONS = 24
_CLIPS = 5000
# Clips that are reduced at once.
_AT_ONCE = 1000
# Parts of the titles, each of which is told of its shots by what was fitted to the others.
_SHOT_FOLDS = 5
_SPACE = ("latent_mean", "pictures", "structure_mean", "structure_scale", "variations", "basis")


@dataclass(frozen=True)
class FilmWindows:
    """Films and sessions as stages of a run.

    Attributes
    ----------
    work : RunContext
        The run that keeps the stages.
    taught, held_out, presence, resting : sequence of AnyShowing
        The sessions that teach, those on which choices are made, those that tell what a brain looks like,
        and those in which nothing is watched.
    codec : dict
        See `fit_codec`.
    """

    work: RunContext
    taught: Sequence[AnyShowing]
    held_out: Sequence[AnyShowing]
    presence: Sequence[AnyShowing]
    resting: Sequence[AnyShowing]
    codec: Arrays

    def prepare(self, raw: Bundle) -> None:
        """Draw every film and let the participant watch it, each as a stage of its own."""
        # Films and sessions are stages that need the codec at most, so they can be made side by side.
        jobs: dict[str, Callable[[], Arrays]] = {}
        for showing in (*self.taught, *self.held_out):
            jobs[film_stage(showing)] = partial(draw, self.codec, showing)
            jobs[session_stage(showing)] = partial(showing.arrays, raw)
        for showing in (*self.presence, *self.resting):
            jobs[session_stage(showing)] = partial(showing.arrays, raw)
        self.work.make_all(jobs, "watching films")

    def fit(
        self,
        stems: StemSizes,
        sizes: SpaceSizes,
        components: int,
        level: NDArray[np.float32],
        space: Space | None = None,
    ) -> Arrays:
        """Fit stems, space and linear maps.

        Parameters
        ----------
        stems : StemSizes
            How many features are kept of volumes and EEG.
        sizes : SpaceSizes
            How much of a frame the space keeps.
        components : int
            Of the glimpses of a clip.
        level : (voxel,)
            Resting level.
        space : Space, optional
            That of another participant who watched the same films; it is not fitted then.

        Returns
        -------
        dict
            The statistics, ``space_*``, and the arrays that `train.closed_form.brain_maps` fits. Of the
            windows that teach ``glimpses``, which were shown, and ``points_{route}``, held out.
        """
        # The signals become features, and the clips points of a space.
        stats, fitted = self._stems(stems, level)
        clips = self.clip_contents(self.taught)
        subset = slice(None, None, -(-len(clips) // _CLIPS))
        space = space or fit_space(clips.part(subset), sizes, components)
        glimpses = _glimpses(space, clips)
        # Windows of one title are left out together: a fixed film that is watched twice must not be
        # predicted from its own twin.
        folds = by_title(self.taught)
        features = self.features(self.taught, fitted | stats)
        maps, held_out = brain_maps.fit_maps(features, space.points(glimpses), stems, folds)
        fitted |= maps | {f"space_{name}": value for name, value in vars(space).items()}
        points = {f"points_{route}": value.astype(np.float32) for route, value in held_out.items()}
        return fitted | points | stats | {"glimpses": glimpses}

    def shots(self, fitted: Arrays) -> Arrays:
        """Fit what tells of shots, to the EEG of the windows that teach.

        Returns
        -------
        dict
            The weights of `train.closed_form.cuts` and `train.closed_form.onsets`, and held out
            ``cuts_told`` and ``onsets_told``.
        """
        film_cuts = Shards(self._films(self.taught), "cuts")[:]
        mixed = self.mixed(self.taught, fitted)
        folds = by_title(self.taught) % _SHOT_FOLDS
        cut = fit_cuts(mixed, film_cuts, folds)
        onset = fit_onsets(mixed, film_cuts, fitted["glimpses"], folds)
        return cut.weights | onset.weights | {"cuts_told": cut.probabilities, "onsets_told": onset.glimpses}

    def refine(self, fitted: Arrays, sizes: RefinerSizes) -> Arrays:
        """Train the perceptron.

        Returns
        -------
        dict
            ``refiner.*``, and ``glimpses_{route}``, held out, of the windows that teach.
        """
        space = space_of(fitted)
        led = {route: space.led(fitted[f"points_{route}"]) for route in brain_maps.GROUPS}
        truth = fitted["glimpses"]
        shots = Shots(fitted["cuts_told"], fitted["onsets_told"])
        net, refined = fit_refiner(led, truth, shots, sizes, by_title(self.taught), self.work.seed)
        weights = {f"{PREFIX}{name}": value for name, value in net.items()}
        return weights | {f"glimpses_{route}": glimpses for route, glimpses in refined.items()}

    def evidence(self, fitted: Arrays) -> Arrays:
        """Fit what evidence is measured against, see `train.models.compact.evidence`; for the encoder."""
        features = self.features(self.taught, fitted)
        held_out = [fitted[f"points_{route}"].astype(np.float64) for route in ("fmri", "eeg")]
        film_points = space_of(fitted).points(fitted["glimpses"])
        arrays = fit_evidence(features, held_out, film_points, by_title(self.taught))
        return {f"{EVIDENCE}{name}": value for name, value in arrays.items()}

    def mixed(self, showings: Sequence[AnyShowing], fitted: Arrays) -> NDArray[np.float32]:
        """Mix the EEG of all windows of some sessions, in bins of time, (window, component, bin)."""
        frames = Shards(self._films(showings), "cuts").shape[1]
        parts = []
        for showing in showings:
            eeg, _ = normalised(self.work.read(session_stage(showing)), fitted)
            parts.append(binned(fitted["mixing"], eeg, frames))
        return np.concatenate(parts)

    def windows(self, showings: Sequence[AnyShowing], fitted: Arrays) -> Iterator[Arrays]:
        """Yield the normalised windows of sessions by port, one session after the other."""
        for showing in showings:
            raw = self.work.read(session_stage(showing))
            eeg, fmri = normalised(raw, fitted)
            yield raw | {"eeg": eeg.astype(np.float32), "fmri": fmri.astype(np.float32)}

    def clips(self, showings: Sequence[AnyShowing], fitted: Arrays) -> Clips:
        """Collect the clips of `taught` or `held_out`, and the glimpses of their windows."""
        counts = [showing.windows for showing in showings]
        joined = np.concatenate([showing.joined for showing in showings])
        # The encoder would predict the windows that taught it too well. Their glimpses were held out in the
        # fit.
        if showings == self.taught:
            glimpses = {route: fitted[f"glimpses_{route}"] for route in brain_maps.GROUPS}
            cut_probabilities = fitted["cuts_told"]
        else:
            space = space_of(fitted)
            places = brain_maps.place(fitted, self.features(showings, fitted))
            led = {route: space.led(points) for route, points in places.items()}
            shots = Shots.of(fitted, self.mixed(showings, fitted))
            cut_probabilities = shots.cuts
            net = perceptron(fitted)
            glimpses = {r: refine(net, led, shots, r).astype(np.float32) for r in brain_maps.GROUPS}
        paths = self._films(showings)
        kinds = np.concatenate([np.full(showing.windows, showing.kind) for showing in showings])
        sessions = np.repeat(np.arange(len(showings)), counts)
        cut = Shards(paths, "cuts")[:, 0]
        return Clips(Shards(paths, "latents"), glimpses, cut_probabilities, joined, cut, kinds, sessions)

    def clip_contents(self, showings: Sequence[AnyShowing]) -> ClipTargets:
        """Return latents and structure tensors of the clips of sessions. They stay on disk."""
        paths = self._films(showings)
        return ClipTargets(Shards(paths, "latents"), Shards(paths, "structure"))

    def features(self, showings: Sequence[AnyShowing], fitted: Arrays) -> dict[str, NDArray[np.float32]]:
        """Compute the features of all windows of some sessions, one session's signals after the other."""
        parts = []
        for showing in showings:
            eeg, fmri = normalised(self.work.read(session_stage(showing)), fitted)
            parts.append(brain_maps.features(fitted, eeg, fmri))
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _films(self, showings: Sequence[AnyShowing]) -> list[Path]:
        return [self.work.path(film_stage(showing)) for showing in showings]

    def _stems(self, stems: StemSizes, level: NDArray[np.float32]) -> tuple[Arrays, Arrays]:
        # From all over the sessions, so that all kinds of film are among them.
        sessions = self.taught[:: -(-len(self.taught) // _STEM_SESSIONS)]
        parts = [self.work.read(session_stage(showing)) for showing in sessions]
        windows = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        stats = statistics(windows, level)
        return stats, brain_maps.fit_stems(*normalised(windows, stats), stems)


@dataclass(frozen=True)
class Viewer:
    """A participant after the films were watched and the encoder was fitted.

    Attributes
    ----------
    film_windows : FilmWindows
        The sessions of the participant, and the films they show.
    projection : Projection
        The voxels that are read.
    fitted : dict
        See `FilmWindows.fit`, `FilmWindows.shots`, `FilmWindows.refine` and `FilmWindows.evidence`.
    taught, held_out : Clips
        Of the sessions that teach, and of those on which choices are made.
    """

    film_windows: FilmWindows
    projection: Projection
    fitted: Arrays
    taught: Clips
    held_out: Clips


def draw(codec: Arrays, showing: AnyShowing) -> Arrays:
    """Encode the film of a session, see `encode_film`."""
    return encode_film(codec, showing.film())


def _glimpses(space: Space, clips: ClipTargets) -> NDArray[np.float64]:
    """Reduce clips to glimpses, a part at a time, because their latents may not fit into memory."""
    starts = range(0, len(clips), _AT_ONCE)
    return np.concatenate([space.glimpses(clips.part(slice(n, n + _AT_ONCE))) for n in starts])


def space_of(arrays: Arrays) -> Space:
    """Make the space from arrays that hold it among others."""
    return Space(*(arrays[f"space_{name}"] for name in _SPACE))


def codec_statistics(codec: Arrays, fitted: Arrays) -> Arrays:
    """Collect what fitting a new participant needs besides the graphs (`train.fitting.compact`)."""
    # The encoder's graph holds the rest.
    names = ("space_structure_mean", "space_structure_scale")
    space: Arrays = {name: np.asarray(fitted[name], np.float32) for name in names}
    return space | {name: codec[name] for name in ("codec_mean", "codec_basis", "scale", "mean_clip")}
