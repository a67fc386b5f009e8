"""Open a folder of data in whichever published layout it has.

A layout is a module of `train.data.layouts` with two functions. `LAYOUTS` is the whole list of them.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from rtdecode.errors import UsageError
from train.data.dataset import DataSet
from train.data.layouts import (
    bids,
    bold_moments,
    cinebrain,
    hcp,
    mindvideo,
    natview,
    neuroclips,
    phantom,
    recordings,
    song,
)


class Layout(Protocol):
    """What a module of `train.data.layouts` has."""

    def recognises(self, folder: Path) -> bool:
        """Return whether a folder has this layout, by the names in it alone."""
        ...

    def opened(self, folder: Path, subjects: list[str] | None) -> DataSet:
        """Open a folder of this layout, for some subjects or for all that are there.

        Raises
        ------
        UsageError
            If a subject is not there, or the folder cannot be used.
        """
        ...


# Name of a layout -> its module.
LAYOUTS: Mapping[str, Layout] = {
    "cinebrain": cinebrain,
    "neuroclips": neuroclips,
    "mindvideo": mindvideo,
    "bold-moments": bold_moments,
    "natview": natview,
    "bids": bids,
    "hcp": hcp,
    "song": song,
    "recordings": recordings,
    "phantom": phantom,
}
# A folder of another layout may have this one, too: the other is meant.
_GENERAL = "bids"


def opened(folder: Path, layout: str | None = None, subjects: list[str] | None = None) -> DataSet:
    """Open a folder of data.

    Parameters
    ----------
    folder : Path
    layout : str, optional
        Name of the layout (of `LAYOUTS`). It is recognised by default.
    subjects : list of str, optional
        The subjects to use; all that are there by default.

    Raises
    ------
    UsageError
        If the folder is not there, its layout is not known, or the layout refuses it.
    """
    if not folder.is_dir():
        raise UsageError(
            "data-not-folder", "{folder} is no folder. Give the folder that holds the data.", folder=folder
        )
    if layout is not None and layout not in LAYOUTS:
        raise UsageError(
            "layout-unknown",
            "layout={layout} is not known. There are {available}.",
            layout=layout,
            available=list(LAYOUTS),
        )
    return LAYOUTS[layout or recognised(folder)].opened(folder, subjects)


def recognised(folder: Path) -> str:
    """Return the name of the layout that a folder has.

    Raises
    ------
    UsageError
        If it has none of `LAYOUTS`, or several.
    """
    found = [name for name, layout in LAYOUTS.items() if layout.recognises(folder)]
    if len(found) > 1 and _GENERAL in found:
        found.remove(_GENERAL)
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(
            "layout-ambiguous",
            "{folder} may have the layout {layouts}. Choose one with layout=NAME.",
            folder=folder,
            layouts=" or ".join(found),
        )
    there = sorted(path.name for path in folder.iterdir())[:8]
    raise UsageError(
        "layout-unrecognised",
        "{folder} has none of the layouts that are known ({available}). It holds {entries}. "
        "docs/layouts.md shows how the folder of each layout looks.",
        folder=folder,
        available=list(LAYOUTS),
        entries=", ".join(there) or "nothing",
    )
