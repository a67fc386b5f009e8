"""The seam of `rtdecode fit`: all that it knows of the system whose bundle it adapts.

A bundle's manifest names, under ``fitter``, the builder (`train.builders`) of what can fit it to another
participant. The builder is called with the bundle as ``base`` and gives a `Fitter`, which puts the film into
targets of its own, fits recorded windows to them, and makes the graphs that read the new participant. How
well held-out windows are told, and whether that is better than chance, is found alike for every system.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from train.data.films import Frames
from train.data.recorded import Recorded
from train.work import Arrays

if TYPE_CHECKING:
    # Reading a fit's figures does without onnx.
    from onnx import ModelProto

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Shown:
    """What the participant saw in each recording.

    Attributes
    ----------
    films : list of uint8 (frame, row, column, 3)
        At the clip's size and rate.
    names : list of str
    digests : list of str
        Of the films' files, which say which film it was without naming it.
    events : list of Path or None
    """

    films: list[Frames]
    names: list[str]
    digests: list[str]
    events: list[Path | None]


@dataclass(frozen=True)
class Story:
    """What the film showed; a fitter that needs more of it extends this class.

    Attributes
    ----------
    targets : (window, target)
        What each window showed, standardised.
    scale : (component,)
        Units of the first targets, which tell the clips of windows apart, the one that tells most first.
    window_s : float
        Length of a window.
    told : dict of str
        What of the film is not seen by itself, as its attributes -> where it was read, for the manifest.
    """

    targets: Matrix
    scale: Matrix
    window_s: float
    told: dict[str, str]

    def shifted(self) -> Self:
        """Shift the film by half its windows, circularly: what nobody saw."""
        return replace(self, targets=np.roll(self.targets, len(self.targets) // 2, axis=0))


@dataclass(frozen=True)
class Fitted:
    """A participant fitted; a fitter that needs more for its graphs extends this class.

    Attributes
    ----------
    held_out : dict
        Route -> predictions by fits that had not seen the window, (window, target or fewer: as many as
        `Story.scale` at least). A route is the name of the modality that is read; where both were recorded
        there is ``both`` too, and comes first.
    statistics : dict
        Arrays of ``stats.npz`` that change: ``{modality}_mean`` and ``{modality}_scale``.
    voxels : (voxel,) or None
        Places of the voxels that are read among those of the head, as many as the bundle reads.
    alone : str or None
        The one modality that is read where both are there, because both together are told worse than it.
    fused : (window, target) or None
        What ``held_out["both"]`` would be without that.
    """

    held_out: dict[str, Matrix]
    statistics: Arrays
    voxels: NDArray[np.int64] | None
    alone: str | None = None
    fused: Matrix | None = None


class Fitter(Protocol):
    """What fits one bundle to another participant.

    Its builder takes the bundle (``base``), and raises a `rtdecode.errors.BundleError` that names what the
    bundle lacks for a fit, before anything that takes long.

    Attributes
    ----------
    least_windows : int
        Fewer windows are refused.
    kind : str
        Ends the sentence "The bundle draws one kind of film, ...".
    """

    least_windows: int
    kind: str

    def drawable(self, shown: Shown) -> float | None:
        """Find the share of the films' pixels, about the mean picture, that the bundle can draw.

        None where that is not known.
        """
        ...

    def story(self, recorded: Recorded, shown: Shown) -> Story:
        """Put the film into targets."""
        ...

    def fit(self, recorded: Recorded, story: Any) -> Fitted:
        """Fit the recorded windows to the story's targets; the story may be a shifted one."""
        ...

    def graphs(self, fitted: Any) -> "dict[str, ModelProto]":
        """Make the participant's own stages, ``encode`` and ``front``, with the ports that they have."""
        ...

    def expected(self, fitted: Any, windows: Arrays) -> Arrays:
        """Compute without the graphs what they must give.

        Parameters
        ----------
        fitted : Fitted
        windows : dict
            The golden windows: signals, masks, states and noise by their names.

        Returns
        -------
        dict
            Outputs of ``encode`` by port, or the ``latent``, (window, channel, ...); of the channels the
            first ones may be given alone.
        """
        ...


def identified(points: Matrix, recorded: Recorded, story: Story) -> Matrix:
    """2-way identification of each window's point among the true ones of the other windows, (window,).

    By correlation over the components in their units; windows that share film time do not stand against each
    other.

    Parameters
    ----------
    points : (window, target)
        Held-out predictions.
    recorded : Recorded
    story : Story
    """
    size = len(story.scale)
    seen, true = (p[:, :size] * story.scale for p in (points, story.targets))
    apart = np.abs(recorded.start_s[:, None] - recorded.start_s) >= story.window_s - 1e-6
    allowed = apart | (recorded.film[:, None] != recorded.film)
    corr = np.corrcoef(seen, true)[: len(seen), len(seen) :]
    beaten = (np.diag(corr)[:, None] > corr) & allowed
    return beaten.sum(1) / np.maximum(allowed.sum(1), 1)
