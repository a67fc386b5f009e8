"""The fitter of the recipe `compact`: it maps another participant into the space that the flow is told of.

`compact_fitter` takes space, codec and encoder out of a bundle. `CompactFitter.story` puts the film into that
space, knowing nothing of it but its pixels, `train.fitting.participant` fits the maps, and
`train.fitting.encoder_graph` writes them into a copy of the bundle's encoder. ``docs/fit.md`` describes the
method.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto

from rtdecode.bundle import Bundle, Manifest
from rtdecode.errors import BundleError
from rtdecode.phantom.film.cuts import find_cuts
from train.closed_form import patch_codec as patch
from train.closed_form.film_encoding import fit_features
from train.closed_form.film_space import ClipTargets, Space
from train.closed_form.refine import Shots, perceptron, refine
from train.closed_form.structure import structure
from train.config.run_context import Arrays
from train.data.clip_grid import shown_frames
from train.data.films import Frames, clips_at, cuts_at
from train.data.recorded import Recorded
from train.fitting import encoder_graph, participant
from train.fitting.fitter import Screenings, learned_from
from train.fitting.participant import EncoderFit, FilmStory, Sizes

Matrix = NDArray[np.float64]
_CODEC = ("codec_mean", "codec_basis", "scale")
_SPACE = ("space_structure_mean", "space_structure_scale")
# Number of clips of a film that are compared with what the bundle can draw of them.
_LOOKED_AT = 20


@dataclass(frozen=True)
class CompactFitter:
    """Fits the participant's part of the encoder: voxels, mixing of channels, and maps into the space.

    The space, the perceptron and the flow stay as they are.

    Attributes
    ----------
    manifest : Manifest
        Manifest of the bundle that is fitted.
    encoder : ModelProto
        The encoder's graph, as fitted to the participant before.
    weights : dict
        Its weights, see `train.fitting.encoder_graph.weights_of`.
    space : Space
        The space of clips that the flow is told of.
    codec : train.closed_form.patch_codec.Codec
        Encodes clips to latents.
    pictures : train.closed_form.patch_codec.Codec
        Decodes latents to clips.
    kind : str
        The films that the generator learned from.
    """

    manifest: Manifest
    encoder: ModelProto
    weights: Arrays
    space: Space
    codec: patch.Codec
    pictures: patch.Codec
    kind: str

    least_windows: ClassVar[int] = 60

    @property
    def sizes(self) -> Sizes:
        """The sizes that the encoder has room for."""
        voxels, components = self.weights["voxels"].shape
        return Sizes(voxels, components, self.weights["mixing"].shape[0], self.weights["cosines"].shape[1])

    def drawable(self, screenings: Screenings) -> float:
        """Compute the share of the films' variance about the mean picture that points of the space can draw.

        The flow cannot be told what the space does not hold, however well a brain is read.
        """
        clip = self.manifest.clip
        space = self.space
        window_s = float(self.manifest.grid.window)
        frames = int(self.manifest.grid.window * self.manifest.grid.fps)
        missed = 0.0
        total = 0.0
        # Recordings of the same film share its array, and it counts once.
        for film in {id(film): film for film in screenings.films}.values():
            starts = np.linspace(0, max(0.0, len(film) / clip.fps - window_s), _LOOKED_AT)
            clips = clips_at(film, starts, clip, frames)
            latents = patch.encode(self.codec, clips)
            encoded = ClipTargets(latents, structure(clips))
            drawn_latents = space.draw(space.led(space.targets(encoded)), latents.shape[3:])
            decoded = patch.decode(self.pictures, drawn_latents)
            nothing = np.zeros((1, latents.shape[2], space.values))
            mean = patch.decode(self.pictures, space.draw(nothing, latents.shape[3:]))
            missed += float(np.square(clips / 255 - decoded).sum())
            total += float(np.square(clips / 255 - mean).sum())
        return 1 - missed / total

    def story(self, recorded: Recorded, screenings: Screenings) -> FilmStory:
        """Put the film into the space: the target of each window, and features of the whole film."""
        assert self.manifest.latent is not None
        window_s = float(self.manifest.grid.window)
        glimpses: list[Matrix] = []
        shot_starts: list[NDArray[np.bool_]] = []
        tiles: list[ClipTargets] = []
        for number, film in enumerate(screenings.films):
            cuts = find_cuts(film)
            mine = recorded.start_s[recorded.film == number]
            tile_starts = np.arange(0, len(film) / self.manifest.clip.fps - window_s + 1e-6, window_s)
            glimpses.append(self.space.glimpses(self._watch(film, mine)))
            shot_starts.append(cuts_at(cuts, mine, self.manifest.clip, shown_frames(self.manifest)))
            tiles.append(self._watch(film, tile_starts))
        all_tiles = ClipTargets(
            *(np.concatenate([getattr(tile, name) for tile in tiles]) for name in ClipTargets.__slots__)
        )
        features = fit_features(all_tiles, window_s)
        shown_of = np.concatenate(glimpses)
        return FilmStory(
            targets=self.space.points(shown_of),
            scale=self.space.scale,
            window_s=window_s,
            properties={},
            features=features,
            spelled=features.spelled(self.space),
            series=[features.series(tile) for tile in tiles],
            cuts=np.concatenate(shot_starts),
            glimpses=shown_of,
        )

    def fit(self, recorded: Recorded, story: FilmStory) -> EncoderFit:
        """Fit in closed form. Where both modalities identify windows worse than one, read that one alone."""
        fitted = participant.fit(recorded, story, self.sizes, self.refined)
        fitted = participant.completed(fitted, {name: value.shape for name, value in self.weights.items()})
        return participant.never_worse(fitted, recorded, story)

    def refined(self, points: Arrays, shot_cues: Shots, route: str) -> Matrix:
        """Refine the points of all routes (route -> (window, component)) for windows of one route."""
        led = {name: self.space.led(value) for name, value in points.items()}
        return self.space.points(refine(perceptron(self.weights), led, shot_cues, route))

    def graphs(self, fitted: EncoderFit) -> dict[str, ModelProto]:
        """Copy the encoder, with the weights of the participant."""
        return {"encode": encoder_graph.replaced(self.encoder, self.weights | fitted.weights)}

    def expected(self, fitted: EncoderFit, windows: Arrays) -> Arrays:
        """Compute in closed form what the encoder draws, which is the first channels of its condition."""
        assert self.manifest.latent is not None
        grid = self.manifest.grid
        frames = int(grid.window * grid.fps)
        weights = self.weights | fitted.weights
        present, glimpses = encoder_graph.glimpsed(weights, self.space, windows, frames)
        latents = self.space.draw(glimpses, self.manifest.latent[3:])
        return {"condition": latents * present[:, None, None, None, None]}

    def _watch(self, film: Frames, starts: Matrix) -> ClipTargets:
        """Return what the clips at film times show."""
        grid = self.manifest.grid
        clip = self.manifest.clip
        clips = clips_at(film, starts, clip, int(grid.window * grid.fps))
        return ClipTargets(patch.encode(self.codec, clips), structure(clips))


def compact_fitter(base: Bundle) -> CompactFitter:
    """Take out of a bundle what a fit needs: its encoder, and from its statistics the space and the codec.

    Raises
    ------
    BundleError
        If the bundle lacks any of it.
    """
    if missing := [name for name in (*_CODEC, *_SPACE) if name not in base.stats]:
        raise BundleError(
            "fit-missing-statistics",
            "{path} lacks {missing_arrays}. Export the bundle again.",
            path=base.path / "stats.npz",
            missing_arrays=list(missing),
        )
    encoder = onnx.load_model_from_string(base.read(base.manifest.built["encode"].file))
    weights = encoder_graph.weights_of(encoder, base.path, ("basis", "pictures", "latent_mean", "varied"))
    mean, basis, scale = (base.stats[name].astype(np.float64) for name in _CODEC)
    # The basis decodes scaled latents. Divided by the scale twice, it encodes to them.
    codec = patch.Codec(mean.astype(np.float32), (basis / scale**2).astype(np.float32))
    pictures = patch.Codec(base.stats["codec_mean"], base.stats["codec_basis"])
    structure_mean, structure_scale = (base.stats[name].astype(np.float64) for name in _SPACE)
    arrays = {
        name: weights[name].astype(np.float64) for name in ("latent_mean", "pictures", "varied", "basis")
    }
    space = Space(
        latent_mean=arrays["latent_mean"],
        pictures=arrays["pictures"],
        structure_mean=structure_mean,
        structure_scale=structure_scale,
        # The encoder draws the tensor in its own units.
        variations=arrays["varied"] / structure_scale,
        basis=arrays["basis"],
    )
    return CompactFitter(base.manifest, encoder, weights, space, codec, pictures, learned_from(base.manifest))
