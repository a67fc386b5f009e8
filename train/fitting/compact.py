"""The fitter of the recipe `compact`: it maps another participant into the space that the flow is told of.

`compact_fitter` takes space, codec and encoder out of a bundle. `CompactFitter.story` puts the film into that
space, `train.fitting.participant` fits the maps, and `train.fitting.encoder_graph` writes them into a copy of
the bundle's encoder. ``docs/fit.md`` describes the method.
"""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto

from rtdecode.bundle import Bundle, Manifest
from rtdecode.errors import BundleError
from rtdecode.phantom.film.film import ATTRIBUTES
from rtdecode.scores.events import read_events
from train.closed_form import patch_codec as patch
from train.closed_form.encoding import fit_features
from train.closed_form.lda import softmax
from train.closed_form.refine import ROUTES, perceptron, refine
from train.closed_form.space import Space, split
from train.data.films import Frames, clips_at, look, tell
from train.data.recorded import Recorded
from train.fitting import encoder_graph, participant
from train.fitting.fitter import Shown
from train.fitting.participant import EncoderFit, FilmStory, Sizes
from train.work import Arrays

Matrix = NDArray[np.float64]
_CODEC = ("codec_mean", "codec_basis", "scale")
_SPACE = ("space_latent_mean", "space_mean", "space_scale")
# Number of clips of a film that are compared with what the bundle can draw of them.
_LOOKED_AT = 20


@dataclass(frozen=True)
class ShapesStory(FilmStory):
    """What a film of shapes showed.

    Attributes
    ----------
    shown : (window, value)
        Shares of the attributes.
    """

    shown: Matrix

    def shifted(self) -> Self:
        """Shift the film by half its windows, and what it shows."""
        return replace(super().shifted(), shown=np.roll(self.shown, len(self.targets) // 2, axis=0))


@dataclass(frozen=True)
class CompactFitter:
    """Fits the participant's part of the encoder: voxels, mixing of channels, and maps into the space.

    The space, the perceptron and the flow stay as they are.

    Attributes
    ----------
    manifest : Manifest
    encoder : ModelProto
        The encoder's graph, as fitted to the participant before.
    weights : dict
        Its weights, see `train.fitting.encoder_graph.weights_of`.
    space : Space
    codec : train.closed_form.patch_codec.Codec
        Encodes clips to latents.
    pictures : train.closed_form.patch_codec.Codec
        Decodes latents to clips.
    """

    manifest: Manifest
    encoder: ModelProto
    weights: Arrays
    space: Space
    codec: patch.Codec
    pictures: patch.Codec

    least_windows: ClassVar[int] = 60
    kind: ClassVar[str] = f"the simulated participant's, described by {', '.join(ATTRIBUTES)}"

    @property
    def sizes(self) -> Sizes:
        """The sizes that the encoder has room for."""
        voxels, components = self.weights["voxels"].shape
        return Sizes(voxels, components, self.weights["mixing"].shape[0], self.weights["cosines"].shape[1])

    def drawable(self, shown: Shown) -> float:
        """Compute the share of the films' variance about the mean picture that points of the space can draw.

        The flow cannot be told what the space does not hold, however well a brain is read.
        """
        clip = self.manifest.clip
        space = self.space
        window_s = float(self.manifest.grid.window)
        frames = int(self.manifest.grid.window * self.manifest.grid.fps)
        missed = 0.0
        whole = 0.0
        # Recordings of the same film share its array, and it counts once.
        for film in {id(film): film for film in shown.films}.values():
            starts = np.linspace(0, max(0.0, len(film) / clip.fps - window_s), _LOOKED_AT)
            clips = clips_at(film, starts, clip, frames)
            latents = patch.encode(self.codec, clips)
            about = latents.reshape(len(latents), -1) - space.latent_mean
            nearest = space.latent_mean + about @ space.basis.T @ space.basis
            drawn = patch.decode(self.pictures, nearest.reshape(latents.shape))
            mean = patch.decode(self.pictures, space.latent_mean.reshape(1, *latents.shape[1:]))
            missed += float(np.square(clips / 255 - drawn).sum())
            whole += float(np.square(clips / 255 - mean).sum())
        return 1 - missed / whole

    def story(self, recorded: Recorded, shown: Shown) -> ShapesStory:
        """Put the film into the space: the target of each window, and features of the whole film.

        The attributes come from the events, or are read off the film where there are none.
        """
        window_s = float(self.manifest.grid.window)
        seen: list[tuple[Matrix, Matrix]] = []
        tiles: list[tuple[NDArray[np.float32], Matrix]] = []
        sources: list[str] = []
        for number, film in enumerate(shown.films):
            mine = recorded.start_s[recorded.film == number]
            whole = np.arange(0, len(film) / self.manifest.clip.fps - window_s + 1e-6, window_s)
            latents, attributes, source = self._watch(film, shown.events[number], mine)
            seen.append((self.space.targets(latents, attributes), attributes))
            tiles.append(self._watch(film, shown.events[number], whole)[:2])
            sources.append(source)
        latents, attributes = (np.concatenate(part) for part in zip(*tiles, strict=True))
        features = fit_features(latents, attributes, self.space, window_s)
        targets, attributes = (np.concatenate(part) for part in zip(*seen, strict=True))
        return ShapesStory(
            targets=targets,
            scale=self.space.scale[: self.space.components],
            window_s=window_s,
            told={"attributes": " and ".join(dict.fromkeys(sources))},
            shown=attributes,
            features=features,
            spelled=features.spelled,
            series=[features.series(*tile) for tile in tiles],
        )

    def fit(self, recorded: Recorded, story: ShapesStory) -> EncoderFit:
        """Fit in closed form. Where both modalities identify windows worse than one, read that one alone."""
        fitted = participant.fit(recorded, story, self.sizes, partial(refine, perceptron(self.weights)))
        # The decoder's perceptron, with a temperature of the participant's own.
        points = fitted.held_out
        heat = [temperature(points[route], story.shown) if route in points else 1.0 for route in ROUTES]
        fitted = replace(fitted, weights=fitted.weights | {"heat": np.array(heat)})
        fitted = participant.completed(fitted, {name: value.shape for name, value in self.weights.items()})
        return participant.never_worse(fitted, recorded, story)

    def graphs(self, fitted: EncoderFit) -> dict[str, ModelProto]:
        """Copy the encoder, with the weights of the participant."""
        return {"encode": encoder_graph.replaced(self.encoder, self.weights | fitted.weights)}

    def expected(self, fitted: EncoderFit, windows: Arrays) -> Arrays:
        """Compute in closed form what the encoder draws, which is the first channels of its condition."""
        assert self.manifest.latent is not None
        drawn = encoder_graph.drawn(self.weights | fitted.weights, windows, refine)
        return {"condition": drawn.reshape(-1, *self.manifest.latent[1:])}

    def _watch(
        self, film: Frames, events: Path | None, starts: Matrix
    ) -> tuple[NDArray[np.float32], Matrix, str]:
        """Return latents and attributes of the clips at film times, and where the attributes come from."""
        grid = self.manifest.grid
        clips = clips_at(film, starts, self.manifest.clip, int(grid.window * grid.fps))
        shots = [] if events is None else read_events(events)
        shares = tell(shots, starts, float(grid.window))
        source = "read off the film" if shares is None else "events"
        return patch.encode(self.codec, clips), look(clips) if shares is None else shares, source


def compact_fitter(base: Bundle) -> CompactFitter:
    """Take out of a bundle what a fit needs: its encoder, and from its statistics the space and the codec.

    Raises
    ------
    BundleError
        If the bundle lacks any of it.
    """
    if missing := [name for name in (*_CODEC, *_SPACE) if name not in base.stats]:
        raise BundleError(f"{base.path / 'stats.npz'} lacks {', '.join(missing)}. Export the bundle again.")
    encoder = onnx.load_model_from_string(base.read(base.manifest.built["encode"].file))
    weights = encoder_graph.weights_of(encoder, base.path, ("heat",))
    mean, basis, scale = (base.stats[name].astype(np.float64) for name in _CODEC)
    # The basis decodes scaled latents. Divided by the scale twice, it encodes to them.
    codec = patch.Codec(mean.astype(np.float32), (basis / scale**2).astype(np.float32))
    pictures = patch.Codec(base.stats["codec_mean"], base.stats["codec_basis"])
    latent_mean, middle, spread = (base.stats[name].astype(np.float64) for name in _SPACE)
    # The encoder's basis takes standardised components, so it is multiplied by their spread.
    axes = weights["basis"].astype(np.float64) / spread[: len(weights["basis"]), None]
    space = Space(latent_mean, axes, middle, spread)
    return CompactFitter(base.manifest, encoder, weights, space, codec, pictures)


def temperature(points: Matrix, shown: Matrix) -> float:
    """Find the divisor of the logits of held-out points that makes the truth likeliest.

    The perceptron belongs to the space and stays as it is, but predictions from fewer windows deserve less
    trust than those it was trained on.

    Parameters
    ----------
    points : (window, component + value)
    shown : (window, value)
    """
    logits = split(points[:, -shown.shape[1] :])
    best = [part.argmax(1)[:, None] for part in split(shown)]
    grid = np.geomspace(0.3, 10, 71)
    cost = [
        -sum(
            np.log(np.take_along_axis(softmax(part / heat), row, 1) + 1e-9).mean()
            for part, row in zip(logits, best, strict=True)
        )
        for heat in grid
    ]
    return float(grid[int(np.argmin(cost))])
