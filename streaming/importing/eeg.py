"""What a reader of EEG files hands on: the channels, the samples with their stamps, and the markers."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from rtdecode.disk.film_marks import FilmMark
from rtdecode.types import Float, Montage

# Length of the chunks that are read and recorded, s. Windows do not depend on it.
CHUNK_S = 0.2

Block = tuple[Float, NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class Marker:
    """A marker, an annotation or an edge of a stim channel, which may be a volume trigger.

    Attributes
    ----------
    stamp : float
        On the clock of the samples, s.
    label : str
        Its text.
    origin : str
        The stream, channel or file that it comes from.
    """

    stamp: float
    label: str
    origin: str


@dataclass(frozen=True, slots=True)
class EegFile:
    """The EEG of a file.

    Attributes
    ----------
    montage : Montage
        Its channels, sampling rate and reference.
    blocks : callable
        Yields data, (channel, sample) microvolts, and stamps, (sample,) s, block by block.
    first_at, last_at : float
        Earliest and latest stamp, s.
    markers : list of Marker
        In order.
    film_marks : list of FilmMark
        What `rtdecode play` sent.
    notes : list of str
        What has to be known of the file, one sentence each.
    offline : str
        What was done to the signals after the recording; empty where nothing is known of it.
    began : datetime or None
        When the first sample was acquired by the clock of the computer that recorded, in its local time.
    """

    montage: Montage
    blocks: Callable[[], Iterator[Block]]
    first_at: float
    last_at: float
    markers: list[Marker] = field(default_factory=list)
    film_marks: list[FilmMark] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    offline: str = ""
    began: datetime | None = None
