"""The causal chain of a live session, run over training data.

The chain reads its settings from a bundle, and there is none yet. So `draft_manifest` and `unit_statistics`
give as much as it needs, `draft_bundle` holds it together, and `windows` runs a recording through the chain.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode.bundle import SCHEMA, Bundle, ClipGeometry, EegInput, FmriInput, Manifest
from rtdecode.disk.calibration import Calibration
from rtdecode.signal.volume.projection import Projection
from rtdecode.timing import TimingGrid
from rtdecode.types import EegChunk, Montage, Trigger, Volume, Window
from rtdecode.windows.assembler import Assembler
from train.data.clip_grid import timing_of

LICENCE = "Apache-2.0"


def draft_manifest(
    name: str,
    grid: TimingGrid,
    clip: ClipGeometry,
    eeg: EegInput | None,
    fmri: FmriInput | None,
    **overrides: Any,
) -> Manifest:
    """Write the part of a manifest that is known before training; export adds the rest.

    Parameters
    ----------
    name : str
        Name of the recipe, and of the bundle.
    grid, clip, eeg, fmri
        As in `rtdecode.bundle.Manifest`.
    **overrides
        Any other field of the manifest.
    """
    blank: dict[str, Any] = {
        "schema": SCHEMA,
        "recipe": name,
        "recipe_digest": "",
        "simulated": False,
        "note": None,
        # The digest of the recipe takes its place when the run is written.
        "noise_key": "0",
        "latent": None,
        "sigmas": {},
        "steps": 0,
        "stages": {},
        "states": {},
        "labels": None,
        "confidence": None,
        "files": {},
        "parity": {},
        "provenance": {},
        "licence": LICENCE,
    }
    timing = timing_of(grid)
    return Manifest(name=name, grid=timing, eeg=eeg, fmri=fmri, clip=clip, **(blank | overrides))


def unit_statistics(manifest: Manifest, fmri_mean: NDArray[Any] | None = None) -> dict[str, NDArray[Any]]:
    """Make statistics that leave the signals in their own units.

    Parameters
    ----------
    manifest : Manifest
        Says how many channels and voxels there are.
    fmri_mean : (voxel,), optional
        Resting level that each run starts from.
    """
    stats: dict[str, NDArray[Any]] = {}
    if manifest.eeg is not None:
        channels = len(manifest.eeg.channels)
        stats |= {
            "eeg_mean": np.zeros(channels, np.float32),
            "eeg_scale": np.ones(channels, np.float32),
        }
    if manifest.fmri is not None:
        voxels = manifest.fmri.voxels
        level = np.zeros(voxels, np.float32) if fmri_mean is None else fmri_mean.astype(np.float32)
        stats |= {"fmri_mean": level, "fmri_scale": np.ones(voxels, np.float32)}
    return stats


def draft_bundle(
    manifest: Manifest, stats: dict[str, NDArray[Any]], projection: Projection | None, **changes: Any
) -> Bundle:
    """Make a bundle in memory, with as much as the chain needs; `changes` replace fields of the manifest."""
    return Bundle(Path(), replace(manifest, **changes), "", stats, projection)


def windows(
    bundle: Bundle,
    items: Iterable[EegChunk | Trigger | Volume],
    montage: Montage | None,
    modalities: list[str] | None = None,
    seconds: float | None = None,
    *,
    dummies: int = 0,
    triggers_expected: bool = True,
    restarted_at: Sequence[float] = (),
    calibration: Calibration | None = None,
) -> list[Window]:
    """Run one recording through the chain of a session, at the times at which it arrived.

    Parameters
    ----------
    bundle : Bundle
        Says how windows are cut and signals normalised.
    items : iterable
        What was received, in order of arrival.
    montage : Montage or None
        Channels of the recording's EEG; None without EEG.
    modalities : list of str, optional
        The sources to use. All of the bundle's by default.
    seconds : float, optional
        Stimulus time that counts.
    dummies, triggers_expected, restarted_at, calibration
        See `rtdecode.windows.assembler.Assembler`.

    Returns
    -------
    list of Window
        The ``final`` windows, without the previews that come before them.
    """
    sources = modalities or bundle.manifest.modalities
    assembler = Assembler(
        bundle,
        montage,
        sources,
        seconds,
        dummies=dummies,
        triggers_expected=triggers_expected,
        restarted_at=restarted_at,
        calibration=calibration,
        reported=False,
    )
    played = assembler.play(items, to_end=False)
    return [window for window in played if window.revision == "final"]
