"""Normalise volumes causally, by a resting level that is followed through the run.

Vectors of voxel values come in, one per volume; they go out with the current resting level subtracted and
divided by a fixed scale. The level is either an exponential mean of every voxel, or the sum of spatial drift
components from training, each followed by a Kalman filter.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode.types import Float

Matrix = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Baseline:
    """Settings by which the resting level of a run is followed.

    Attributes
    ----------
    warmup : int
        Number of first volumes whose mean is the resting level; 0 starts from the training mean.
    rate : float
        Weight of each later volume in the level, an exponential mean; 0 keeps the level fixed.
    components : int
        Number of spatial drift components that were learned in training. Each has a filter of its own, and
        everything they do not explain shares one more. With 0, all voxels follow `warmup` and `rate`.
    walk : float
        Variance that a component's level gains per volume, as a share of its variance over runs.
    colour : float
        Share of the noise variance that lasts from volume to volume.
    memory : float
        Number of volumes over which the correlation of the lasting noise falls to 1/e.
    """

    warmup: int = 0
    rate: float = 0.0
    components: int = 0
    walk: float = 0.0
    colour: float = 0.0
    memory: float = 1.0

    def __post_init__(self) -> None:
        if self.warmup < 0 or not 0 <= self.rate < 1:
            raise ValueError(f"warmup must be 0 or more and rate must lie in [0, 1), found {self}")
        if self.components < 0 or self.walk < 0 or not 0 <= self.colour < 1 or self.memory <= 0:
            raise ValueError(f"walk >= 0, 0 <= colour < 1 and memory > 0 were expected, found {self}")
        if self.components and (self.warmup or self.rate):
            raise ValueError(f"with drift components, warmup and rate must be 0, found {self}")


@dataclass(frozen=True)
class Drift:
    """Spatial components of the resting level, learned from training runs.

    Attributes
    ----------
    read : (component, voxel)
        Weights that give the amplitude of a component, in units of its noise.
    write : (component, voxel)
        Value of one unit of a component in each voxel, in scanner units; ``write @ read.T`` is the
        identity.
    prior : (component,)
        Variance of each amplitude over runs.
    unexplained : float
        Variance over runs of everything that the components do not explain.
    """

    read: Matrix
    write: Matrix
    prior: Matrix
    unexplained: float

    def arrays(self) -> dict[str, Float]:
        """Return the arrays as they are stored in ``stats.npz``."""
        prior = np.append(self.prior, self.unexplained)
        arrays = {"drift_read": self.read, "drift_write": self.write, "drift_prior": prior}
        return {name: array.astype(np.float32) for name, array in arrays.items()}


def drift_of(stats: Mapping[str, NDArray[Any]], baseline: Baseline) -> Drift | None:
    """Return a bundle's drift components from its statistics; None if its baseline has no components.

    Raises
    ------
    ValueError
        If arrays are missing or do not fit the baseline.
    """
    if not baseline.components:
        return None
    names = ("drift_read", "drift_write", "drift_prior")
    if missing := [name for name in names if name not in stats]:
        raise ValueError(f"drift components need {', '.join(missing)} among the statistics")
    read, write, prior = (np.asarray(stats[name], np.float64) for name in names)
    shape = (baseline.components, len(stats["fmri_mean"]))
    if read.shape != shape or write.shape != shape or prior.shape != (shape[0] + 1,):
        shapes = [read.shape, write.shape, prior.shape]
        raise ValueError(f"drift components must be {shape}, {shape} and ({shape[0] + 1},), found {shapes}")
    return Drift(read, write, prior[:-1], float(prior[-1]))


def normalizer(stats: Mapping[str, NDArray[Any]], baseline: Baseline) -> "VolumeNormalizer":
    """Make the normaliser of a bundle from its statistics (``fmri_mean``, ``fmri_scale``, ``drift_*``)."""
    return VolumeNormalizer(stats["fmri_mean"], stats["fmri_scale"], baseline, drift_of(stats, baseline))


class VolumeNormalizer:
    """Subtract a causal resting level and divide by a fixed scale.

    The level that is subtracted from volume n depends on the volumes of the run up to n only. Mean, scale
    and drift components come from training runs.

    Parameters
    ----------
    mean, scale : (voxel,)
        Training mean and standard deviation.
    baseline : Baseline
        How the resting level is followed, and where it starts.
    drift : Drift, optional
        Needed where the baseline has components.
    """

    def __init__(self, mean: Float, scale: Float, baseline: Baseline, drift: Drift | None = None) -> None:
        if (drift is None) != (baseline.components == 0):
            raise ValueError(
                "drift components must be given together with a baseline that has components, and only then; "
                f"found {baseline}"
            )
        self._mean = mean.astype(np.float64)
        self._scale = scale.astype(np.float64)
        self._baseline = baseline
        self._drift = drift
        self.reset()

    def reset(self) -> None:
        """Start a run: forget the resting level of the last one."""
        self._level = self._mean.copy()
        self._seen = 0
        if self._drift is not None:
            self._own = Levels(self._drift.prior, self._baseline)
            self._others = Levels(np.array([self._drift.unexplained]), self._baseline)

    def push(self, vector: Float, holes: NDArray[np.bool_] | None = None) -> Float:
        """Normalise the next volume, (voxel,) -> (voxel,) float32.

        Parameters
        ----------
        vector : (voxel,)
            Values of the voxels.
        holes : (voxel,) bool, optional
            Voxels that were not measured. They are taken to lie at their resting level, which they do not
            move, and come out as 0.
        """
        x = vector.astype(np.float64)
        # Fill holes before anything remembers them: one NaN would stay in the filters.
        if holes is not None:
            x[holes] = self._level[holes]
        self._seen += 1
        if self._drift is not None:
            self._level = self._mean + self._follow(x - self._mean, self._drift)
        elif self._seen <= self._baseline.warmup:
            start = x if self._seen == 1 else self._level
            self._level = start + (x - start) / self._seen
        else:
            self._level = self._level + self._baseline.rate * (x - self._level)
        # Drift components may have moved the level of a hole, which must still come out as 0.
        if holes is not None:
            x[holes] = self._level[holes]
        return ((x - self._level) / self._scale).astype(np.float32)

    def _follow(self, x: Matrix, drift: Drift) -> Matrix:
        """Return the level of this volume above the training mean, (voxel,)."""
        amplitude = drift.read @ x
        remainder = self._others.push(x - amplitude @ drift.write)
        return self._own.push(amplitude) @ drift.write + remainder


class Levels:
    """Independent Kalman filters of several series, each a slow level under coloured noise.

    Each series is ``level + lasting + white``. The level starts from N(0, prior) and walks, the lasting
    noise is first-order autoregressive, and together with the white noise it has variance 1 (a local level
    model: Durbin and Koopman 2012, Time Series Analysis by State Space Methods, section 2.1, here with a
    second state). The lasting noise also takes up the response to a block of stimuli, so that the level
    does not follow it.

    Parameters
    ----------
    prior : (series,) or (1,)
        Variance of the level at the first volume; one value serves any number of series.
    baseline : Baseline
        Constants of the filters.
    """

    def __init__(self, prior: Matrix, baseline: Baseline) -> None:
        self._keep = float(np.exp(-1 / baseline.memory))
        self._colour = baseline.colour
        self._walk = baseline.walk * prior
        # Covariance of the two states, lasting noise (n) and level (l), before the first volume. It
        # does not depend on the data, and neither do the gains.
        self._nn = np.full_like(prior, baseline.colour)
        self._nl = np.zeros_like(prior)
        self._ll = prior.astype(np.float64)
        self._noise: Matrix | float = 0.0
        self._level: Matrix | float = 0.0

    def push(self, y: Matrix) -> Matrix:
        """Return the level of each series given the next values, (series,) -> (series,)."""
        # Update both states with the new values.
        of_noise = self._nn + self._nl
        of_level = self._nl + self._ll
        total = of_noise + of_level + 1 - self._colour
        surprise = (y - self._noise - self._level) / total
        level = self._level + of_level * surprise
        self._level = level
        noise = self._noise + of_noise * surprise
        self._nn = self._nn - of_noise**2 / total
        self._nl = self._nl - of_noise * of_level / total
        self._ll = self._ll - of_level**2 / total
        # Predict them for the next volume: the noise decays and is renewed, the level walks.
        self._noise = self._keep * noise
        self._nn = self._keep**2 * self._nn + (1 - self._keep**2) * self._colour
        self._nl = self._keep * self._nl
        self._ll = self._ll + self._walk
        return level
