"""A space of what windows show that several participants share, and the linear layer of each into it.

The space holds principal components of kinds of values that clips have, such as the embedding of a clip and
its latents (`fit_space`). A layer leads the volumes of a participant's windows to the points of their clips
by ridge regression, with a penalty for each component that is chosen by leaving runs out (`fit_layers`).
What a layer says of a window that taught it is too good, so it comes with held-out readings, from which
whatever reads the space is to learn.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from rtdecode.errors import UsageError
from train.closed_form.components import principal_components
from train.closed_form.encoding import blocks
from train.closed_form.ridge import fit_ridge
from train.config.run_context import Arrays

Matrix = NDArray[np.float64]

# A layer for each participant, or one for all, whose inputs are the same vertices of everybody.
LINEAR = "linear"
VERTEX = "vertex"
STEMS = (LINEAR, VERTEX)
# What arrays of a space are called.
_PREFIX = "shared_"
_PARTS = ("mean", "basis", "spread")


@dataclass(frozen=True)
class Components:
    """Principal components of values of one kind.

    Attributes
    ----------
    mean : (value,)
        Mean of the values, which is taken off first.
    basis : (component, value)
        Orthonormal.
    spread : (component,)
        Standard deviations of the components.
    """

    mean: Matrix
    basis: Matrix
    spread: Matrix

    def points(self, values: NDArray[Any]) -> Matrix:
        """Return the components of values (window, ...), each of variance 1, (window, component)."""
        flat = values.reshape(len(values), -1).astype(np.float64)
        return (flat - self.mean) @ self.basis.T / self.spread


@dataclass(frozen=True)
class SharedSpace:
    """Points of clips: components of each kind of values side by side, each of variance 1.

    Attributes
    ----------
    kinds : dict
        Name of a kind -> its components, in the order of the points.
    """

    kinds: dict[str, Components]

    @property
    def width(self) -> int:
        """Number of components."""
        return len(self.scale)

    @property
    def scale(self) -> Matrix:
        """Weight of each component, (component,): its share of the deviation of its own kind."""
        spreads = [components.spread for components in self.kinds.values()]
        return np.concatenate([spread / np.linalg.norm(spread) for spread in spreads])

    def points(self, values: Mapping[str, NDArray[Any]]) -> Matrix:
        """Return the points of values (window, ...) of every kind, (window, component)."""
        parts = [components.points(values[name]) for name, components in self.kinds.items()]
        return np.concatenate(parts, axis=1)

    def columns(self, name: str) -> slice:
        """Return which components are of a kind."""
        names = list(self.kinds)
        first = sum(len(self.kinds[other].spread) for other in names[: names.index(name)])
        return slice(first, first + len(self.kinds[name].spread))

    def arrays(self) -> Arrays:
        """Return all of it as arrays of ``stats.npz``."""
        return {
            f"{_PREFIX}{part}_{name}": getattr(components, part).astype(np.float32)
            for name, components in self.kinds.items()
            for part in _PARTS
        }

    @classmethod
    def of(cls, stats: Mapping[str, NDArray[Any]]) -> Self | None:
        """Read what `arrays` made from among other arrays; None where they do not hold it."""
        before = f"{_PREFIX}mean_"
        names = [name.removeprefix(before) for name in stats if name.startswith(before)]
        kinds = {
            name: Components(*(stats[f"{_PREFIX}{part}_{name}"].astype(np.float64) for part in _PARTS))
            for name in names
        }
        return cls(kinds) if kinds else None


@dataclass(frozen=True)
class Viewing:
    """The windows of a participant that teach.

    Attributes
    ----------
    volumes : (window, input)
        The volumes of each window, one after the other.
    points : (window, component)
        What it showed.
    runs : (window,)
        Windows of one run are left out together. Where participants share a layer, runs of one name are left
        out together for all of them, so that nobody else has shown the layer what they show.
    """

    volumes: NDArray[np.floating]
    points: Matrix
    runs: NDArray[Any]


@dataclass(frozen=True)
class Layer:
    """A linear map into the space, and what it says of the windows that taught it.

    Attributes
    ----------
    mean : (input,)
        Mean of the inputs of the windows that taught it.
    map : (input, component)
        For centred inputs.
    offset : (component,)
        The mean of the points that taught it.
    explained : (component,)
        Share of each component's variance that held-out readings explain.
    held_out : (window, component)
        Readings of the participant's windows by layers that the window's run did not teach.
    """

    mean: Matrix
    map: Matrix
    offset: Matrix
    explained: Matrix
    held_out: Matrix

    def read(self, volumes: NDArray[np.floating]) -> Matrix:
        """Read windows (window, input), whether they taught it or not, (window, component)."""
        return (volumes - self.mean) @ self.map + self.offset


def fit_space(values: Mapping[str, NDArray[Any]], counts: Mapping[str, int]) -> SharedSpace:
    """Find the components of each kind of values.

    Parameters
    ----------
    values : mapping
        Name of a kind -> values of clips, (window, ...).
    counts : mapping
        Name of a kind -> number of components; there are fewer where values do not differ in so many ways.
    """
    kinds: dict[str, Components] = {}
    for name, count in counts.items():
        flat = values[name].reshape(len(values[name]), -1).astype(np.float32)
        mean, basis, scores = principal_components(flat, count)
        spread = scores.std(0)
        differs = spread > 1e-6 * spread.max(initial=0)
        kinds[name] = Components(mean, basis[differs], spread[differs])
    return SharedSpace(kinds)


def fit_layers(everybody: Mapping[str, Viewing], stem: str = LINEAR) -> dict[str, Layer]:
    """Fit the layers of participants in closed form.

    Parameters
    ----------
    everybody : mapping
        Name of a participant -> the windows that teach.
    stem : str
        ``linear`` for a layer of each participant, ``vertex`` for one layer of all, whose inputs are the same
        vertices of everybody. It can read somebody of whom there are no data.

    Raises
    ------
    UsageError
        If there is no such stem, or participants who shall share a layer have other numbers of vertices.
    """
    if stem not in STEMS:
        raise UsageError(
            "shared-space-stem-unknown",
            "system.encoder.stem must be one of {available}, found '{stem}'.",
            available=list(STEMS),
            stem=stem,
        )
    if stem == LINEAR:
        return {name: _fit(viewing) for name, viewing in everybody.items()}
    sizes = {name: viewing.volumes.shape[1] for name, viewing in everybody.items()}
    if len({*sizes.values()}) > 1:
        raise UsageError(
            "shared-space-vertices-differ",
            "participants who share a layer have the same vertices, and a window of theirs has {sizes} "
            "values. Read the same vertices of everybody, or give each a layer of its own with "
            "system.encoder.stem=linear.",
            sizes=sizes,
        )
    viewings = list(everybody.values())
    together = _fit(
        Viewing(
            np.concatenate([viewing.volumes for viewing in viewings]),
            np.concatenate([viewing.points for viewing in viewings]),
            np.concatenate([viewing.runs for viewing in viewings]),
        )
    )
    ends = np.cumsum([len(viewing.points) for viewing in viewings])[:-1]
    held_out = dict(zip(everybody, np.split(together.held_out, ends), strict=True))
    return {
        name: Layer(together.mean, together.map, together.offset, together.explained, held_out[name])
        for name in everybody
    }


def _fit(viewing: Viewing) -> Layer:
    _, folds = np.unique(viewing.runs, return_inverse=True)
    if not folds.any():
        # Tenths of a single run are left out.
        folds = blocks(len(folds))
    ridge = fit_ridge([viewing.volumes], viewing.points, [1.0], folds)
    offset = viewing.points.mean(0)
    held_out = offset + _about_common_means(ridge.held_out, viewing.points - offset, folds)
    return Layer(ridge.means[0], ridge.maps[0], offset, ridge.explained, held_out)


def _about_common_means(held_out: Matrix, about: Matrix, folds: NDArray[np.int64]) -> Matrix:
    """Let the maps of all folds read about the means of all windows.

    A fit without a fold has means without it as well, which differ from those of all windows by what the fold
    itself shows, turned round. Nothing but this moves a component that no voxel follows, and whatever learns
    from such readings learns to tell films by it, with the largest weights.

    Parameters
    ----------
    held_out : (window, component)
        Readings of each window by the fit without its fold, from the mean of all points.
    about : (window, component)
        What the windows showed, from that mean.
    folds : (window,)

    Returns
    -------
    (window, component)
        Readings of volumes less the mean of all, by the same maps.
    """
    readings = held_out.copy()
    for fold in np.unique(folds):
        rows = folds == fold
        share = float(rows.mean())
        readings[rows] += share / (1 - share) * about[rows].mean(0)
        # The mean of the volumes without the fold lies further from its own by the share of the fold.
        readings[rows] -= share * readings[rows].mean(0)
    return readings
