"""Open a folder of data in whichever published layout it has.

A layout is a module of `train.data.layouts` with two functions. `LAYOUTS` is the whole list of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Protocol

from rtdecode.errors import UsageError
from train.data.clip_grid import ClipGrid
from train.data.dataset import Column, DataSet
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


@dataclass(frozen=True, slots=True)
class WindowCut:
    """How windows are cut where a layout leaves it to the reader, and how their clips look.

    Attributes
    ----------
    fps : Fraction
        Frames a second.
    size : (int, int)
        Rows and columns.
    window, lag : Fraction or None
        Length of a window, and haemodynamic lag, s; None as the layout does it.
    """

    fps: Fraction
    size: tuple[int, int]
    window: Fraction | None = None
    lag: Fraction | None = None

    def over(self, grid: ClipGrid) -> ClipGrid:
        """Return a layout's grid with these changes.

        Raises
        ------
        UsageError
            If there is no such grid.
        """
        window = grid.window if self.window is None else self.window
        lag = grid.lag if self.lag is None else self.lag
        try:
            return replace(grid, window=window, hop=window, lag=lag, fps=self.fps, size=self.size)
        except ValueError as error:
            raise UsageError(
                "data-cut-impossible",
                "windows cannot be cut as data.window, data.lag, data.fps and data.clip say: {error}.",
                error=error,
            ) from error


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
# Layouts whose windows are cut when they are opened.
CUT = ("bids", "hcp", "recordings", "phantom")
# A folder of another layout may have this one, too: the other is meant.
_GENERAL = "bids"


def opened(
    folder: Path,
    layout: str | None = None,
    subjects: list[str] | None = None,
    cut: WindowCut | None = None,
) -> DataSet:
    """Open a folder of data.

    Parameters
    ----------
    layout : str, optional
        Name of the layout (of `LAYOUTS`). It is recognised by default.
    subjects : list of str, optional
        The subjects to use; all that are there by default.
    cut : WindowCut, optional
        How windows are cut, and how their clips look, in layouts that leave it to the reader. By default as
        the layout does it.

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
    name = layout or recognised(folder)
    return LAYOUTS[name].opened(folder, subjects) if cut is None else _cut(name, folder, subjects, cut)


def _cut(name: str, folder: Path, subjects: list[str] | None, cut: WindowCut) -> DataSet:
    fps = float(cut.fps)
    if name == "bids":
        window_s = None if cut.window is None else float(cut.window)
        lag_s = bids.LAG_S if cut.lag is None else float(cut.lag)
        return bids.opened(folder, subjects, window_s=window_s, lag_s=lag_s, fps=fps, size=cut.size)
    if name == "hcp":
        window_s = None if cut.window is None else float(cut.window)
        return hcp.opened(folder, subjects, window_s=window_s)
    if name == "bold-moments":
        return bold_moments.opened(folder, subjects, fps=fps, size=cut.size)
    if name == "recordings":
        return recordings.opened(folder, subjects, grid=cut.over(recordings.GRID))
    if name == "phantom":
        return phantom.opened(folder, subjects, grid=cut.over(recordings.GRID))
    return LAYOUTS[name].opened(folder, subjects)


def recognised(folder: Path) -> str:
    """Return the name of the layout that a folder has.

    Raises
    ------
    UsageError
        If it has none of `LAYOUTS`, or several.
    """
    layouts = [name for name, layout in LAYOUTS.items() if layout.recognises(folder)]
    if len(layouts) > 1 and _GENERAL in layouts:
        layouts.remove(_GENERAL)
    if len(layouts) == 1:
        return layouts[0]
    if layouts:
        raise UsageError(
            "layout-ambiguous",
            "{folder} may have the layout {layouts}. Choose one with layout=NAME.",
            folder=folder,
            layouts=" or ".join(layouts),
        )
    entries = sorted(path.name for path in folder.iterdir())[:8]
    raise UsageError(
        "layout-unrecognised",
        "{folder} has none of the layouts that are known ({available}). It holds {entries}. "
        "docs/layouts.md shows how the folder of each layout looks.",
        folder=folder,
        available=list(LAYOUTS),
        entries=", ".join(entries) or "nothing",
    )


def check_columns(data: DataSet, *columns: Column) -> None:
    """Refuse a data set that lacks a column.

    Raises
    ------
    UsageError
    """
    for column in columns:
        if column not in data.columns:
            raise UsageError(
                "data-missing-column",
                "{folder} ({layout}) has no {column}; it has {available}. `python -m train.data DIR` says "
                "what is missing.",
                folder=data.folder,
                layout=data.layout,
                column=column,
                available=list(data.columns),
            )
