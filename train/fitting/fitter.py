"""The interface of fitters. `rtdecode fit` knows nothing else of the system whose bundle it adapts.

A bundle's manifest names under ``fitter`` the builder (`train.config.builders`) of its fitter. The builder is
called with the bundle as ``base`` and returns a `Fitter`. `rtdecode fit` then calls its methods in this
order:

1. `Fitter.story` turns the film into targets, one row for each window (`Story`).
2. `Fitter.fit` fits recorded windows to these targets, and predicts each window held out (`Fitted`).
3. `Fitter.graphs` makes the stages that read the new participant, and `Fitter.expected` computes without
   them what they must give.

How well held-out windows are identified, and whether that is better than chance, is computed in the same way
for every system (`identified`).
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from rtdecode.bundle import Manifest
from rtdecode.scores.accuracy import compared
from train.config.run_context import Arrays
from train.data.films import Frames
from train.data.recorded import Recorded

if TYPE_CHECKING:
    # Whoever only reads a fit's figures needs no onnx.
    from onnx import ModelProto

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Screenings:
    """What the participant saw in each recording.

    Attributes
    ----------
    films : list of uint8 (frame, row, column, 3)
        Films at the clip's size and rate.
    names : list of str
        File names of the films.
    digests : list of str
        Digests of the films' files, which say which film it was without naming it.
    events : list of Path or None
        Tables of the films' shots; None where a film has none.
    """

    films: list[Frames]
    names: list[str]
    digests: list[str]
    events: list[Path | None]


@dataclass(frozen=True)
class Story:
    """What the film showed. A fitter that needs more of it extends this class.

    Attributes
    ----------
    targets : (window, target)
        What each window showed, standardised.
    scale : (component,)
        Units of the first targets, which tell the clips of windows apart, with the most telling one first.
    window_s : float
        Length of a window.
    properties : dict of str
        Properties of the film that its pictures do not show by themselves, such as its attributes -> where
        they were read, for the manifest.
    """

    targets: Matrix
    scale: Matrix
    window_s: float
    properties: dict[str, str]

    def shifted(self, share: float) -> Self:
        """Shift the film by a share of its windows, circularly, into one that nobody saw."""
        return replace(self, targets=np.roll(self.targets, int(len(self.targets) * share), axis=0))


@dataclass(frozen=True)
class Fitted:
    """A fitted participant. A fitter that needs more for its graphs extends this class.

    Attributes
    ----------
    held_out : dict
        Route -> predictions by fits that had not seen the window, (window, target). There may be fewer
        targets than in the story, but not fewer than `Story.scale` has. A route is the name of the modality
        that is read. Where both were recorded, there is also ``both``, which comes first.
    statistics : dict
        Arrays of ``stats.npz`` that change: ``{modality}_mean`` and ``{modality}_scale``.
    voxels : (voxel,) or None
        Indices of the voxels that are read among those of the head, as many as the bundle reads.
    alone : str or None
        The one modality that is read where both are there, because both together identify windows worse.
    fused : (window, target) or None
        The predictions of both together, which ``held_out["both"]`` then does not hold.
    """

    held_out: dict[str, Matrix]
    statistics: Arrays
    voxels: NDArray[np.int64] | None
    alone: str | None = None
    fused: Matrix | None = None


class Fitter(Protocol):
    """Fits one bundle to another participant.

    Its builder takes the bundle (``base``). If the bundle lacks anything for a fit, the builder raises a
    `rtdecode.errors.BundleError` that names it, before anything that takes long.

    Attributes
    ----------
    least_windows : int
        Least number of windows; fewer are refused.
    kind : str
        Ends the sentence "The generator of the bundle learned from ...".
    """

    least_windows: int
    kind: str

    def drawable(self, screenings: Screenings) -> float | None:
        """Find the share of the films' pixels, about the mean picture, that the bundle can draw.

        None where that is not known.
        """
        ...

    def story(self, recorded: Recorded, screenings: Screenings) -> Story:
        """Turn the film into targets, one row for each window."""
        ...

    def fit(self, recorded: Recorded, story: Any) -> Fitted:
        """Fit the recorded windows to the story's targets. The story may be a shifted one, as a control."""
        ...

    def graphs(self, fitted: Any) -> "dict[str, ModelProto]":
        """Make the participant's own stages, ``encode`` and ``front``, with the same ports as before."""
        ...

    def expected(self, fitted: Any, windows: Arrays) -> Arrays:
        """Compute, without the graphs, what they must give.

        Parameters
        ----------
        fitted : Fitted
            What `fit` returned.
        windows : dict
            The golden windows: signals, masks, states and noise by their names.

        Returns
        -------
        dict
            Outputs of ``encode`` by port, or the ``latent``, (window, channel, ...). The first channels of
            an output suffice.
        """
        ...


def identified(points: Matrix, recorded: Recorded, story: Story) -> Matrix:
    """Identify each window's point among the true points of the other windows, 2-way, (window,).

    Points are compared by correlation over the components in their units. Windows that share film time are
    not compared with each other.

    Parameters
    ----------
    points : (window, target)
        Held-out predictions.
    recorded : Recorded
        Says which film each window saw, and when.
    story : Story
        Holds the true points of the windows.
    """
    size = len(story.scale)
    predicted, true = (p[:, :size] * story.scale for p in (points, story.targets))
    disjoint = np.abs(recorded.start_s[:, None] - recorded.start_s) >= story.window_s - 1e-6
    allowed = disjoint | (recorded.film[:, None] != recorded.film)
    # The quarter of the matrix that holds predictions (rows) against true points (columns).
    corr = np.corrcoef(predicted, true)[: len(predicted), len(predicted) :]
    beaten, distractors = compared(corr, allowed)
    return beaten / np.maximum(distractors, 1)


def learned_from(manifest: Manifest) -> str:
    """Say which films the generator learned from: the drawn ones by their words, others by their number."""
    # A fitted bundle keeps what is said of its generator apart from what is said of its participant.
    provenance: dict[str, Any] = manifest.provenance.get("decoder", manifest.provenance)
    films: list[dict[str, Any]] = provenance.get("films", [])
    if not films:
        return "films that its manifest does not name"
    words = [f"{film['film']} (drawn)" for film in films if "sha256" not in film]
    read = len(films) - len(words)
    files = [f"{read} {'film' if read == 1 else 'films'} from files"] if read else []
    return ", ".join([*words, *files])
