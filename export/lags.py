"""Find out at which haemodynamic lag a recording's volumes tell most about the film.

`sweep` takes recorded windows and the film's targets, predicts the targets from the volumes at lags of 0 to
8 s, prints the curve, and warns where it looks implausible, which mostly means that the film did not begin
when it was assumed to. `draw` writes the curve as a picture. The bundle keeps its own lag either way.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from rtdecode.bundle import Manifest
from rtdecode.disk import private
from train.closed_form.encoding import FOLDS, best_explained, blocks, fold_errors, widened
from train.data.recorded import Fmri, Recorded
from train.fitting.fitter import Story

Matrix = NDArray[np.float64]
Reals = NDArray[np.float32]
# Range in which a haemodynamic response may peak, s after the film.
_PLAUSIBLE = (3.0, 7.0)
# An R2 below this counts as no signal.
_SIGNAL = 0.05
_LONGEST = 8.0
# With fewer windows, the value at a lag is left unknown.
_LEAST_WINDOWS = 30
# How many leading components are predicted and from how many voxels, and the ridge penalties for
# choosing those voxels and for predicting from them.
_LEADING = 8
_SWEPT = 1000
# Voxels are chosen in so many folds of the blocks that are not predicted.
_THIRDS = 3
_PICKING = 3.0
_SWEEPING = 1.0


def sweep(console: Console, recorded: Recorded, story: Story, manifest: Manifest) -> dict[str, Any] | None:
    """Print and judge the curve over lags, from 0 to 8 s in steps of one TR.

    Parameters
    ----------
    console : Console
        Where the curve is printed.
    recorded : Recorded
        What was recorded of the participant.
    story : Story
        What was shown in each window.
    manifest : Manifest
        The bundle's manifest, for its TR.

    Returns
    -------
    dict or None
        ``best_s``, ``lags_s``, ``r2``, ``doubt``; None without fMRI.
    """
    if recorded.fmri is None or manifest.grid.tr is None:
        return None
    lags = np.arange(0, _LONGEST + 1e-6, float(manifest.grid.tr))
    curve = lag_curve(recorded, story, lags)
    table = Table("lag, s", "R2 from volumes, held out")
    for lag, value in zip(lags, curve, strict=True):
        table.add_row(f"{lag:.1f}", f"{value:.3f}")
    console.print(table)
    doubt = implausible(lags, curve)
    if doubt is not None:
        console.print(f"warning: {doubt}", style="bold")
    finite = np.isfinite(curve)
    return {
        "best_s": round(float(lags[np.nanargmax(curve)]), 3) if finite.any() else None,
        "lags_s": [round(float(lag), 3) for lag in lags],
        "r2": [round(float(v), 4) if is_finite else None for v, is_finite in zip(curve, finite, strict=True)],
        "doubt": doubt,
    }


def lag_curve(recorded: Recorded, story: Story, lags: Matrix) -> Matrix:
    """Compute how well volumes alone predict the leading components at several lags, as held-out R^2.

    The prediction is a penalised regression from the mean of a window's volumes, in ten blocks. Each lag
    has its own voxels, so that the curve does not favour the decoder's lag. They are chosen by models that
    have not seen the block.

    Parameters
    ----------
    recorded : Recorded
        It must hold fMRI.
    story : Story
        What was shown in each window.
    lags : (lag,)
        Seconds after a window's start at which its volumes begin.

    Returns
    -------
    (lag,)
        R^2; NaN where too few windows have all their volumes.
    """
    fmri = recorded.fmri
    assert fmri is not None
    curve = np.full(len(lags), np.nan)
    for n, lag in enumerate(lags):
        rows = _moved(fmri, recorded, float(lag), story.window_s)
        complete = (rows >= 0).all(1)
        if complete.sum() >= _LEAST_WINDOWS:
            mean = sum(fmri.volumes[slot] for slot in rows[complete].T) / np.float32(rows.shape[1])
            curve[n] = _explained(np.asarray(mean), story.targets[complete], story.scale[:_LEADING])
    return curve


def _moved(fmri: Fmri, recorded: Recorded, lag: float, window_s: float) -> NDArray[np.int64]:
    """Find the volumes of each window at another lag, (window, slot); -1 where one is missing."""
    # Count only the slots within the window's length. A window that looks ahead reads more
    # volumes than are acquired in that time, and would wait for more than there can be.
    slots = int((fmri.slot_s < fmri.slot_s[0] + window_s - 1e-6).sum())
    rows = np.full((len(recorded), slots), -1)
    for n, (film, start) in enumerate(zip(recorded.film, recorded.start_s, strict=True)):
        after = np.where(fmri.film == film, fmri.times - start - lag, np.nan)
        in_window = np.flatnonzero((after >= -1e-6) & (after < window_s - 1e-6))[:slots]
        rows[n, : len(in_window)] = in_window
    return rows


def _explained(volumes: Reals, targets: Matrix, scale: Matrix) -> float:
    """Compute the held-out R^2 of the leading targets, predicted from one mean volume per window."""
    # Voxels are standardised; the floor keeps a constant voxel from dividing by nothing.
    volumes = volumes - volumes.mean(0)
    volumes /= np.maximum(volumes.std(0), 1e-3)
    y = targets[:, : len(scale)] - targets[:, : len(scale)].mean(0)
    fold = blocks(len(y))
    held_out = np.zeros_like(y)
    for n in range(FOLDS):
        outside = fold == n
        # Neighbouring windows are alike, so those next to the block are left out of its fit.
        training = ~widened(outside, 1)
        # Voxels are chosen by models that have not seen the block: chosen by others, they would tell a film
        # that nobody saw.
        thirds = fold[training] * _THIRDS // FOLDS
        errors, totals = fold_errors(targets[training], volumes[training], thirds, 1, _PICKING)
        picked = best_explained(errors.sum(0), totals.sum(0), _SWEPT)
        z = volumes[:, picked].astype(np.float64)
        # Ridge in its dual form: there are far fewer windows than voxels.
        gram = z @ z.T
        gram /= np.trace(gram) / len(gram)
        lifted = gram[np.ix_(training, training)] + _SWEEPING * np.eye(int(training.sum()))
        held_out[outside] = gram[np.ix_(outside, training)] @ np.linalg.solve(lifted, y[training])
    return float(1 - (np.square(y - held_out) @ scale**2).sum() / (np.square(y) @ scale**2).sum())


def implausible(lags: Matrix, curve: Matrix) -> str | None:
    """Return what is wrong with a curve over lags, or None.

    Parameters
    ----------
    lags, curve : (lag,)
        Seconds, and held-out R^2 with NaN where it is not known.
    """
    finite = np.isfinite(curve)
    if not finite.any() or np.nanmax(curve) < _SIGNAL:
        return (
            "the volumes hardly follow the film at any lag. Was it this film, and did it begin "
            "with the first volume? `rtdecode play` marks when it begins."
        )
    best = float(lags[np.nanargmax(curve)])
    # At an end of the curve the true peak may lie outside it.
    ends = lags[finite][[0, -1]]
    if best in ends or not _PLAUSIBLE[0] <= best <= _PLAUSIBLE[1]:
        return (
            f"the volumes follow the film best at a lag of {best:.1f} s, but a haemodynamic response peaks "
            f"after {_PLAUSIBLE[0]:g} to {_PLAUSIBLE[1]:g} s. The film began earlier or later than was "
            "assumed; `rtdecode play` marks when it begins."
        )
    return None


def draw(console: Console, lag_record: dict[str, Any], manifest: Manifest, out: Path) -> None:
    """Draw what `sweep` found to ``OUT.lag.png``, if matplotlib is installed."""
    if find_spec("matplotlib") is None:
        console.print("no plot, as matplotlib is not installed: pip install matplotlib")
        return
    path = out.with_name(out.name + ".lag.png")
    # Where the curve is not known, the record has None, as JSON has no NaN; it becomes NaN here.
    lags, curve = (np.array(lag_record[name], np.float64) for name in ("lags_s", "r2"))
    plot(lags, curve, float(manifest.grid.lag), path)
    console.print(f"drawn to {path}")


def plot(lags: Matrix, curve: Matrix, used_s: float, path: Path) -> None:
    """Draw a curve over lags as PNG, and mark the lag that the bundle uses."""
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
    figure.savefig(private.file(path), dpi=120)
