"""Runs 1 to 10 of one participant of Haxby et al. (2001), Science 293:2425, read from a folder."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from numpy.typing import NDArray

import rtdecode
from rtdecode.errors import UsageError
from rtdecode.scores.events import Event, read_events
from rtdecode.types import Volume

# The order is that of a bundle's scores.
LABELS = ("house", "scrambledpix", "cat", "shoe", "bottle", "scissors", "chair", "face")
_SHIPPED = Path(rtdecode.__file__).with_name("recorded") / "haxby"


@dataclass(frozen=True)
class BoldRun:
    """One run: volumes (i, j, k, n) as they are in the file, affine, TR in s, and events."""

    number: int
    data: NDArray[Any]
    affine: NDArray[np.float64]
    tr_s: float
    events: list[Event]

    def series(self, voxels: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the time courses of some voxels (flat C-order indices), (volume, voxel)."""
        return self.data.reshape(-1, self.data.shape[3])[voxels].T.astype(np.float64)

    def volumes(self) -> Iterator[Volume]:
        """Yield the volumes as a scanner would hand them over, each at the end of its acquisition."""
        for n in range(self.data.shape[3]):
            end = (n + 1) * self.tr_s
            yield Volume(
                data=self.data[..., n],
                affine=self.affine,
                index=n,
                series=self.number,
                tr_s=self.tr_s,
                acquired_s=n * self.tr_s,
                recon_s=self.tr_s,
                readable_at=end,
                arrived_at=end,
                parsed_at=end,
                uid=f"run-{self.number}",
            )


def folder(data_folder: Path | None) -> Path:
    """Find the data: the given folder, or else ``RTDECODE_DATA/haxby``, or else the project's own copy.

    Raises
    ------
    UsageError
        If none of them holds a run.
    """
    data_root = os.environ.get("RTDECODE_DATA")
    places = [data_folder] if data_folder else [*([Path(data_root) / "haxby"] if data_root else []), _SHIPPED]
    for place in places:
        if place and (place / "run001" / "bold_events.tsv").is_file():
            return place
    raise UsageError(
        "haxby-no-runs",
        "no Haxby runs in {folders}: folders run001, run002, ... with bold_1slice.nii.gz and "
        "bold_events.tsv were expected. Give them with data=DIR.",
        folders=[str(p) for p in places],
    )


def load(place: Path, number: int, bold: str = "bold_1slice.nii.gz") -> BoldRun:
    """Read one run.

    Parameters
    ----------
    place : Path
        Folder that holds ``run001``, ``run002``, ...
    number : int
        Number of the run: 1 for ``run001``.
    bold : str
        Name of the 4-D series in the run's folder.
    """
    path = place / f"run{number:03d}"
    if not (path / bold).is_file():
        raise UsageError(
            "haxby-run-missing",
            "{path} is not there. Leave run {run} out, or give another data=DIR.",
            path=path / bold,
            run=number,
        )
    image: Any = nibabel.load(path / bold)
    events = read_events(path / "bold_events.tsv")
    data = np.asarray(image.dataobj)
    return BoldRun(number, data, image.affine, float(image.header.get_zooms()[3]), events)
