"""The fitter of systems whose linear tokenizers read the brain: a newcomer gets tokenizers of their own.

Everything after the tokenizers stays as it was trained on another participant. `train.fitting.film_tokens`
says what the tokenizers of that participant would give under the newcomer's film. Ridge leads the newcomer's
signals there, in closed form. The graph itself tells what the rest of the encoder makes of held-out tokens.
``docs/fit.md`` has the method and its figures.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto

from rtdecode.bundle import Bundle
from rtdecode.bundle.graph import Graph
from rtdecode.bundle.providers import CPU
from rtdecode.errors import BundleError
from train.closed_form.components import principal_components
from train.closed_form.encoding import FOLDS, PICKING, best_explained, blocks, fold_errors, ridge_hat, widened
from train.closed_form.ridge import fit_ridge
from train.config.run_context import Arrays
from train.data.arrays import eeg_statistics, normalised_eeg
from train.data.films import clips_at
from train.data.recorded import Eeg, Fmri, Recorded
from train.fitting import tokenizer_graph
from train.fitting.film_tokens import FilmTokens, Tokenizing
from train.fitting.fitter import Fitted, Screenings, Story, identified, learned_from

Matrix = NDArray[np.float64]

_MODALITIES = ("fmri", "eeg")
# Voxels and penalties are chosen in so many folds of the blocks that are not held out.
_THIRDS = 3
# Responses overlap, so this much on either side of what is held out is left out of the fit, s.
_GAP_S = 5.0
# Principal components of what the encoder makes of the film, by which windows are told apart.
_COMPONENTS = 24
_LEAST_SCALE = 1e-3
# Ridge penalty of EEG, as of `ridge_hat`. Films move so little of it that the squared error is least where
# nothing is told at all; it does not choose a penalty under which windows are told apart.
_EEG_PENALTY = 0.01
# The output of an encoder that holds the vectors of windows.
_VECTORS = "embedding"


@dataclass(frozen=True)
class TokenStory(Story):
    """What the tokenizers of the participant who was trained on would give under the film.

    The targets are principal components of the vectors that the rest of the encoder makes of it.

    Attributes
    ----------
    tokens : dict
        ``fmri``: the sums of voxels, (volume, token), and ``eeg``: (window, token, width), of what the
        recordings hold.
    axes : (value, component)
        The components.
    """

    tokens: Mapping[str, Matrix]
    axes: Matrix

    def shifted(self, share: float) -> Self:
        """Shift the film by a share of its windows, and its volumes by the same share."""
        moved = {name: np.roll(x, int(len(x) * share), axis=0) for name, x in self.tokens.items()}
        return replace(super().shifted(share), tokens=moved)


@dataclass(frozen=True)
class TokenizerSide:
    """The tokenizer of one modality.

    Attributes
    ----------
    weights : (input, output)
        ``shares`` transposed, or ``channels``, see `Tokenizing`.
    held_out : (volume, token) or (window, token, width)
        Like `TokenStory.tokens`, by fits that had not seen the volume or window.
    statistics : dict
        The modality's arrays of ``stats.npz``, see `train.fitting.fitter.Fitted`.
    voxels : (voxel,) or None
        Voxels that are read, see `train.fitting.fitter.Fitted`; None for EEG.
    """

    weights: Matrix
    held_out: Matrix
    statistics: Arrays
    voxels: NDArray[np.int64] | None = None


@dataclass(frozen=True, kw_only=True)
class TokenizerFit(Fitted):
    """A newcomer's tokenizers.

    Attributes
    ----------
    weights : dict
        ``shares`` and ``channels``, or one of them, see `Tokenizing`.
    unread : str or None
        The modality that was not recorded, if the encoder reads it.
    """

    weights: dict[str, Matrix]
    unread: str | None

    @property
    def yields(self) -> str | None:
        """The modality that is taken for absent where the other is there."""
        return None if self.alone is None else next(name for name in _MODALITIES if name != self.alone)


@dataclass(frozen=True)
class TokenizerFitter:
    """Fits a newcomer's tokenizers.

    Attributes
    ----------
    base : Bundle
        The bundle that gets the newcomer.
    encoder : ModelProto
        The encoder as it is.
    graph : Graph
        It, to be run.
    reads : Tokenizing
        Its tokenizers.
    film : FilmTokens
        What the tokenizers give under a film, on average.
    kind : str
        See `train.fitting.fitter.Fitter`.
    """

    base: Bundle
    encoder: ModelProto
    graph: Graph
    reads: Tokenizing
    film: FilmTokens
    kind: str

    least_windows: ClassVar[int] = 30

    def drawable(self, screenings: Screenings) -> None:
        """Find nothing: what a generator can draw is not known without training clips."""

    def story(self, recorded: Recorded, screenings: Screenings) -> TokenStory:
        """Say what tokens the film leads to, and what the rest of the encoder makes of these."""
        tokens: dict[str, Matrix] = {}
        if recorded.fmri is not None:
            tokens["fmri"] = self._sums(recorded.fmri, screenings)
        if recorded.eeg is not None:
            tokens["eeg"] = self._tokens(recorded, screenings)
        vectors = self._vectors(self._by_window(recorded, tokens))
        _, basis, scores = principal_components(vectors, min(_COMPONENTS, len(vectors) - 1))
        scale = np.maximum(scores.std(0), 1e-9)
        window_s = float(self.base.manifest.grid.window)
        return TokenStory(scores / scale, scale, window_s, {}, tokens, basis.T)

    def fit(self, recorded: Recorded, story: TokenStory) -> TokenizerFit:
        """Fit the tokenizers in closed form, and see what the encoder makes of held-out tokens."""
        sides: dict[str, TokenizerSide] = {}
        if recorded.fmri is not None:
            sides["fmri"] = self._fit_fmri(recorded.fmri, blocks(len(recorded)), story.tokens["fmri"])
        if recorded.eeg is not None:
            sides["eeg"] = self._fit_eeg(recorded.eeg, story.tokens["eeg"])
        tokens = self._by_window(recorded, {name: side.held_out for name, side in sides.items()})
        points: dict[str, Matrix] = {}
        if len(tokens) > 1:
            points["both"] = self._points(tokens, story)
        for name, modality_tokens in tokens.items():
            points[name] = self._points({name: modality_tokens}, story)
        keys = {"fmri": "shares", "eeg": "channels"}
        weights = {keys[name]: side.weights for name, side in sides.items()}
        if "shares" in weights:
            weights["shares"] = weights["shares"].T
        missing = [name for name in self.base.manifest.modalities if name not in sides]
        fitted = TokenizerFit(
            held_out=points,
            statistics={name: x for side in sides.values() for name, x in side.statistics.items()},
            voxels=sides["fmri"].voxels if "fmri" in sides else None,
            weights=weights,
            unread=missing[0] if missing else None,
        )
        return _never_worse(fitted, recorded, story)

    def graphs(self, fitted: TokenizerFit) -> dict[str, ModelProto]:
        """Copy the encoder, with the newcomer's tokenizers."""
        weights = fitted.weights
        gates = {"unread": fitted.unread, "yields": fitted.yields}
        return {"encode": tokenizer_graph.replaced(self.encoder, weights, self.base.path, **gates)}

    def expected(self, fitted: TokenizerFit, windows: Arrays) -> Arrays:
        """Let the encoder as it is read signals that have for it the tokens that the newcomer's have."""
        newcomer = tokenizer_graph.rounded(self.encoder, fitted.weights, self.base.path)
        tokens: dict[str, Matrix] = {}
        if "shares" in fitted.weights:
            assert newcomer.shares is not None
            tokens["fmri"] = windows["fmri"] @ newcomer.shares.T
        if "channels" in fitted.weights:
            assert newcomer.channels is not None
            tokens["eeg"] = newcomer.channel_parts(windows["eeg"]) @ newcomer.channels
        masks = tokenizer_graph.gated(windows, unread=fitted.unread, yields=fitted.yields)
        signals = tokenizer_graph.as_signals(self.reads, tokens, self._electrodes)
        ports = {name: masks[name] for name in self.graph.inputs}
        return self._encoded(ports | signals)

    @property
    def _electrodes(self) -> int:
        eeg = self.base.manifest.eeg
        return 0 if eeg is None else len(eeg.channels)

    def _sums(self, fmri: Fmri, screenings: Screenings) -> Matrix:
        """Say what sums of voxels the films lead to, (volume, token), about their mean."""
        manifest = self.base.manifest
        window_s = float(manifest.grid.window)
        film_sums = np.zeros((len(fmri.times), self._shares.shape[0]))
        for number, film in enumerate(screenings.films):
            mine = fmri.film == number
            starts = np.arange(0, len(film) / manifest.clip.fps - window_s + 1e-6, window_s)
            series = self.film.series(clips_at(film, starts, manifest.clip, self._frames))
            sums = self.film.sums_at(fmri.times[mine], series)
            film_sums[mine] = sums - sums.mean(0)
        return film_sums

    def _tokens(self, recorded: Recorded, screenings: Screenings) -> Matrix:
        """Say what tokens of EEG the films lead to, (window, token, width)."""
        assert self.reads.channels is not None
        clip = self.base.manifest.clip
        parts: list[Matrix] = []
        for number, film in enumerate(screenings.films):
            starts = recorded.start_s[recorded.film == number]
            parts.append(self.film.tokens_of(clips_at(film, starts, clip, self._frames)))
        # Windows of a recording follow those of the one before it.
        flat = np.concatenate(parts)
        return flat.reshape(len(flat), -1, self.reads.channels.shape[1])

    @property
    def _frames(self) -> int:
        grid = self.base.manifest.grid
        return int(grid.window * grid.fps)

    @property
    def _shares(self) -> Matrix:
        assert self.reads.shares is not None
        return self.reads.shares

    def _by_window(self, recorded: Recorded, tokens: Mapping[str, Matrix]) -> dict[str, Matrix]:
        """Arrange sums of volumes by window, (window, volume, token)."""
        by_window = dict(tokens)
        if "fmri" in by_window:
            assert recorded.fmri is not None
            by_window["fmri"] = recorded.fmri.slots(by_window["fmri"]).astype(np.float64)
        return by_window

    def _vectors(self, tokens: Mapping[str, Matrix]) -> Matrix:
        """Find the vectors that the encoder makes of tokens of windows, (window, value)."""
        signals = tokenizer_graph.as_signals(self.reads, tokens, self._electrodes)
        count = len(next(iter(tokens.values())))
        ports: Arrays = {}
        for name, (shape, _) in self.graph.inputs.items():
            modality = name.removesuffix("_mask")
            blank = np.zeros((count, *shape[1:]), np.float32)
            ports[name] = blank + (name != modality) * (modality in tokens)
        return self._encoded(ports | signals)[_VECTORS].astype(np.float64)

    def _encoded(self, ports: Arrays) -> Arrays:
        """Run the encoder as it is on windows, one after the other, as a session does."""
        count = len(next(iter(ports.values())))
        outputs = [self.graph({name: x[n : n + 1] for name, x in ports.items()}) for n in range(count)]
        return {name: np.concatenate([output[name] for output in outputs]) for name in self.graph.outputs}

    def _points(self, tokens: Mapping[str, Matrix], story: TokenStory) -> Matrix:
        """Place held-out windows among the story's targets, each set about its own mean."""
        vectors = self._vectors(tokens)
        return (vectors - vectors.mean(0)) @ story.axes / story.scale

    def _fit_fmri(self, fmri: Fmri, windows: NDArray[np.int64], sums: Matrix) -> TokenizerSide:
        """Choose the voxels that follow the sums best, and lead them there.

        Held-out sums come from ten blocks of windows, each predicted from the others with voxels and
        penalties chosen on the others.
        """
        volumes = fmri.volumes - fmri.volumes.mean(0)
        scale = np.maximum(volumes.std(0), _LEAST_SCALE).astype(np.float32)
        count = self._shares.shape[1]
        # A volume belongs to the block of the last window that reads it, or to none (-1).
        fold = np.full(len(volumes), -1)
        fold[fmri.rows[fmri.rows >= 0]] = np.repeat(windows, (fmri.rows >= 0).sum(1))
        gap = int(np.ceil(_GAP_S / np.median(np.diff(fmri.times))))
        held_out = np.zeros_like(sums)
        for n in range(FOLDS):
            train = ~widened(fold == n, gap)
            thirds = fold[train] * _THIRDS // FOLDS
            picked = _picked(sums[train], volumes[train], thirds, gap, count)
            read = volumes[:, picked] / scale[picked]
            part = fit_ridge([read[train]], sums[train], [1.0], thirds)
            held_out[fold == n] = read[fold == n] @ part.maps[0]
        picked = np.sort(_picked(sums, volumes, fold, gap, count))
        read = volumes[:, picked] / scale[picked]
        ridge = fit_ridge([read], sums, [1.0], fold)
        weights = _with_totals(ridge.maps[0], read, self._shares.sum(1))
        statistics = {"fmri_mean": fmri.level[picked], "fmri_scale": scale[picked]}
        return TokenizerSide(weights, held_out, statistics, picked)

    def _fit_eeg(self, eeg: Eeg, tokens: Matrix) -> TokenizerSide:
        """Lead the channels of all parts of a window to its tokens; ten blocks are held out in turn."""
        stats = eeg_statistics(eeg.data)
        channel_parts = self.reads.channel_parts(normalised_eeg(eeg.data, eeg.mask, stats))
        fold = blocks(len(channel_parts))
        held_out = np.zeros_like(tokens)
        for n in range(FOLDS):
            train = ~widened(fold == n, 1)
            held_out[fold == n] = channel_parts[fold == n] @ _led(channel_parts[train], tokens[train])
        return TokenizerSide(_led(channel_parts, tokens), held_out, stats)


def tokenizer_fitter(base: Bundle) -> TokenizerFitter:
    """Take out of a bundle what a fit needs: its encoder, and what its tokenizers give under films.

    Raises
    ------
    BundleError
        If the bundle lacks any of it.
    """
    film = FilmTokens.of(base.stats)
    if film is None:
        raise BundleError(
            "fit-missing-film-tokens",
            "{path} does not say what its tokenizers give under films (film_* in stats.npz). Make its run "
            "fittable with `python -m train.make_fittable RUN OUT`, and export OUT.",
            path=base.path / "stats.npz",
        )
    name = base.manifest.built["encode"].file
    model = base.read(name)
    encoder = onnx.load_model_from_string(model)
    reads = tokenizer_graph.tokenizing_of(encoder, base.path)
    return TokenizerFitter(base, encoder, Graph(model, name, [CPU]), reads, film, learned_from(base.manifest))


def _picked(
    sums: Matrix, volumes: NDArray[np.float32], fold: NDArray[np.int64], gap: int, count: int
) -> NDArray[np.int64]:
    errors, totals = fold_errors(sums, volumes, fold, gap, PICKING)
    return best_explained(errors.sum(0), totals.sum(0), count)


def _led(channel_parts: Matrix, tokens: Matrix) -> Matrix:
    """Lead the channels of all parts to tokens, (part and channel, width)."""
    rows = channel_parts.reshape(-1, channel_parts.shape[2])
    about = rows - rows.mean(0)
    return ridge_hat(about, np.eye(rows.shape[1]), _EEG_PENALTY) @ tokens.reshape(len(rows), -1)


def _with_totals(weights: Matrix, read: NDArray[np.floating], totals: Matrix) -> Matrix:
    """Let the weights of each token sum to what they did, in a direction that volumes hardly have.

    A `train.parts.encoders.tokenizers.VoxelTokenizer` adds its offset over time once for each voxel's weight.

    Parameters
    ----------
    weights : (voxel, token)
        Weights as they were fitted.
    read : (volume, voxel)
        The volumes that were fitted.
    totals : (token,)
        What the weights of each token summed to in the encoder as it is.
    """
    kernel = read @ read.T
    lifted = kernel + np.trace(kernel) / len(kernel) * np.eye(len(kernel))
    direction = 1 - read.T @ np.linalg.solve(lifted, read.sum(1))
    return weights + np.outer(direction / direction.sum(), totals - weights.sum(0))


def _never_worse(fitted: TokenizerFit, recorded: Recorded, story: TokenStory) -> TokenizerFit:
    """Read the better modality alone where both are there, if both together identify windows worse."""
    held_out = fitted.held_out
    if "both" not in held_out:
        return fitted
    values = {route: identified(points, recorded, story).mean() for route, points in held_out.items()}
    alone = max(_MODALITIES, key=lambda route: values[route])
    if values["both"] >= values[alone]:
        return fitted
    return replace(fitted, held_out=held_out | {"both": held_out[alone]}, alone=alone, fused=held_out["both"])
