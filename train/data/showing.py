"""One session for training, as the plans of any film ask for it, whether it was simulated or recorded.

`AnyShowing` is what they ask. `train.data.simulated.Showing` answers for sessions of the simulated
participant, and `train.data.recorded_showing.RecordedShowing` for recordings.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rtdecode.bundle import Bundle
from rtdecode.signal.volume.projection import Projection
from train.config.run_context import Arrays

# Windows of one title alone are left out by this many parts of its time.
PARTS = 5


@dataclass(frozen=True, slots=True)
class ShownClips:
    """What some windows showed.

    Attributes
    ----------
    clips : uint8, (window, frame, row, column, 3)
        Each with the frame after its window.
    cuts : bool, (window, frame)
        Whether a shot begins with a frame. The frame after the window is left out.
    """

    clips: NDArray[np.uint8]
    cuts: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class HeadVolumes:
    """Volumes of a session, at the voxels of the head.

    Attributes
    ----------
    values : float32, (volume, voxel)
        In the scanner's units, up to a constant for each voxel.
    times : (volume,)
        Middle of the acquisition after the start of the session's first tile (`AnyShowing.tiles`), s.
    voxels : int64, (voxel,)
        Flat indices into a volume, ascending.
    level : (voxel,)
        Resting level, in the scanner's units.
    """

    values: NDArray[np.float32]
    times: NDArray[np.float64]
    voxels: NDArray[np.int64]
    level: NDArray[np.float32]


class AnyShowing(Protocol):
    """One session for training."""

    @property
    def name(self) -> str:
        """Name of the stage that holds its windows."""
        ...

    @property
    def pictures(self) -> str:
        """Name of the stage that holds its clips. Sessions whose windows show the same share it."""
        ...

    @property
    def title(self) -> str:
        """Windows of one title may show the same pictures. They are left out together."""
        ...

    @property
    def source(self) -> str:
        """Where its film comes from. One session of each source is enough for the codec."""
        ...

    @property
    def kind(self) -> str:
        """Kind of film."""
        ...

    @property
    def setting(self) -> str:
        """What its signals are like; those of one participant differ by setting."""
        ...

    @property
    def windows(self) -> int:
        """Number of windows."""
        ...

    @property
    def parts(self) -> NDArray[np.int64]:
        """Which of `PARTS` parts of its film's time each window lies in, (window,)."""
        ...

    @property
    def start_s(self) -> NDArray[np.float64]:
        """Film time at which each window starts, (window,)."""
        ...

    @property
    def joined(self) -> NDArray[np.bool_]:
        """Whether each window goes on where the one before it ended, (window,)."""
        ...

    def film(self) -> ShownClips:
        """Return what the windows showed."""
        ...

    def words(self) -> list[str]:
        """Return the words that an events file has for what each window showed; empty where it has none."""
        ...

    def tiles(self) -> ShownClips:
        """Return the film without a gap, cut into windows, from the first window on."""
        ...

    def volumes(self, voxels: NDArray[np.int64] | None = None) -> HeadVolumes:
        """Return the volumes, at some voxels of the head or at all that are taken for the head."""
        ...

    def projection(self, voxels: NDArray[np.int64]) -> Projection:
        """Make the projection that reads these voxels."""
        ...

    def arrays(self, bundle: Bundle) -> Arrays:
        """Run the session through the chain, see `train.data.phantom.window_arrays`."""
        ...


def by_title(showings: Sequence[AnyShowing]) -> NDArray[np.int64]:
    """Number the windows that are left out together when choices are made, (window,), from 0 on.

    They are those of one title. Where there is one title alone, they are those of one fifth of its time.
    """
    titles = list(dict.fromkeys(showing.title for showing in showings))
    if len(titles) == 1:
        return np.concatenate([showing.parts for showing in showings])
    return np.concatenate([np.full(showing.windows, titles.index(showing.title)) for showing in showings])
