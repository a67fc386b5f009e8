"""What volumes tell of the film at other lags than a bundle's: in numbers, as a picture, as a warning."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from rtdecode.bundle import Manifest
from train.data.recorded import Recorded
from train.fitting.closed_form import Story, lag_curve
from train.parts.space import Space

Matrix = NDArray[np.float64]
# Where a haemodynamic response may peak, s after the film; less explained than this is no signal.
_PLAUSIBLE, _SIGNAL = (3.0, 7.0), 0.05
_LONGEST = 8.0


def sweep(
    console: Console, recorded: Recorded, story: Story, space: Space, manifest: Manifest
) -> dict[str, Any] | None:
    """Print and judge the curve over lags from 0 to 8 s in steps of one TR.

    Parameters
    ----------
    console : Console
    recorded : Recorded
    story : Story
    space : Space
    manifest : Manifest
        Of the bundle, which keeps its lag.

    Returns
    -------
    dict or None
        ``best_s``, ``lags_s``, ``r2``, ``doubt``; None without fMRI.
    """
    if recorded.fmri is None or manifest.grid.tr is None:
        return None
    lags = np.arange(0, _LONGEST + 1e-6, float(manifest.grid.tr))
    curve = lag_curve(recorded, story, space, lags)
    table = Table("lag, s", "R2 from volumes, held out")
    for lag, value in zip(lags, curve, strict=True):
        table.add_row(f"{lag:.1f}", f"{value:.3f}")
    console.print(table)
    doubt = implausible(lags, curve)
    if doubt is not None:
        console.print(f"warning: {doubt}", style="bold")
    known = np.isfinite(curve)
    return {
        "best_s": round(float(lags[np.nanargmax(curve)]), 3) if known.any() else None,
        "lags_s": [round(float(lag), 3) for lag in lags],
        "r2": [round(float(v), 4) if there else None for v, there in zip(curve, known, strict=True)],
        "doubt": doubt,
    }


def implausible(lags: Matrix, curve: Matrix) -> str | None:
    """Say what is wrong with a curve over lags, if anything is.

    Parameters
    ----------
    lags, curve : (lag,)
        Seconds, and held-out R^2; NaN where it is not known.
    """
    known = np.isfinite(curve)
    if not known.any() or np.nanmax(curve) < _SIGNAL:
        return (
            "the volumes tell next to nothing of the film at any lag. Was it this film, and did it begin "
            "with the first volume? `rtdecode play` marks when it begins."
        )
    best, ends = float(lags[np.nanargmax(curve)]), lags[known][[0, -1]]
    if best in ends or not _PLAUSIBLE[0] <= best <= _PLAUSIBLE[1]:
        return (
            f"the volumes tell most of the film {best:.1f} s after it, and a haemodynamic response peaks "
            f"after {_PLAUSIBLE[0]:g} to {_PLAUSIBLE[1]:g} s. The film began earlier or later than was "
            "assumed; `rtdecode play` marks when it begins."
        )
    return None


def draw(console: Console, found: dict[str, Any], manifest: Manifest, out: Path) -> None:
    """Draw what `sweep` found to ``OUT.lag.png``, where matplotlib is installed."""
    if find_spec("matplotlib") is None:
        console.print("no plot, as matplotlib is not installed: pip install matplotlib")
        return
    path = out.with_name(out.name + ".lag.png")
    # Where the curve is not known it says None, which becomes NaN.
    lags, curve = (np.array(found[name], np.float64) for name in ("lags_s", "r2"))
    plot(lags, curve, float(manifest.grid.lag), path)
    console.print(f"drawn to {path}")


def plot(lags: Matrix, curve: Matrix, used_s: float, path: Path) -> None:
    """Draw a curve over lags as PNG, with the lag that is used."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3), layout="constrained")
    axes = figure.add_subplot()
    axes.axvspan(*_PLAUSIBLE, color="0.92")
    axes.axhline(0, color="0.6", linewidth=0.8)
    axes.plot(lags, curve, marker="o", color="#1f4e79")
    axes.axvline(used_s, color="#c0392b", linestyle="--", label="of the bundle")
    axes.set_xlabel("haemodynamic lag, s")
    axes.set_ylabel("R2 of held-out predictions")
    axes.legend()
    figure.savefig(path, dpi=120)
