"""Print a bundle's manifest as a table, for `rtdecode inspect`."""

from typing import Any

from rich.table import Table

from rtdecode import terminal
from rtdecode.bundle import Brain, BuiltEngine, Bundle, prepared
from rtdecode.bundle.manifest import CAUSAL, OFFLINE
from rtdecode.types import PRESENCES

_PREPARED = {
    CAUSAL: "prepared from the past alone, as in a session",
    OFFLINE: "prepared with knowledge of the future (offline)",
}


def show(bundle: Bundle) -> None:
    """Print what a bundle reads, what it decodes and what it was trained on."""
    manifest = bundle.manifest
    grid = manifest.grid
    looks_further = grid.before + grid.after > 0
    table = Table(title=f"{manifest.name} {bundle.digest}", show_header=False, title_justify="left")
    clip = manifest.clip
    rows = {
        "recipe": f"{manifest.recipe} ({manifest.recipe_digest})",
        "participant": "simulated" if manifest.simulated else "recorded",
        "note": manifest.note,
        "signals": _PREPARED[manifest.chain],
        "live": prepared.notice(manifest) or "a session acquires what it reads",
        "EEG": manifest.eeg and f"{len(manifest.eeg.channels)} channels at {grid.sfreq} Hz",
        "fMRI": manifest.fmri and f"{manifest.fmri.voxels} of {manifest.fmri.shape} voxels, TR {grid.tr} s",
        "windows": f"{grid.window} s every {grid.hop} s, haemodynamic lag {grid.lag} s",
        "look-ahead": f"{grid.before} volumes before a window and {grid.after} after it"
        if looks_further
        else None,
        "clip": f"{clip.frames} frames of {clip.height} x {clip.width} at {clip.fps:g} fps",
        "steps": manifest.steps,
        "share of detail": manifest.detail,
        "noise key": manifest.noise_key,
        "categories": manifest.labels and ", ".join(manifest.labels),
        "tells a brain": manifest.brain and f"at the prior {_prior(manifest.brain)}",
        "graphs": ", ".join(manifest.built),
        "flavour": manifest.flavour,
        "precision": manifest.precision,
        "subjects": ", ".join(manifest.subjects) or None,
        "fitter": manifest.fitter,
        "engines": _engines(manifest.engines),
        "run on a GPU": manifest.gpu or "not run on a GPU",
        "parity": _parity(manifest.parity),
        "trained": manifest.provenance.get("trained"),
        "on": manifest.provenance.get("participant") or manifest.provenance.get("data"),
        "licence": manifest.licence,
        "folder": bundle.path,
    }
    for name, value in rows.items():
        table.add_row(name, "-" if value is None else str(value))
    terminal.console().print(table)


def _parity(parity: dict[str, Any]) -> str | None:
    """Say whether the graphs were held against the run's own decoder, and how far off they are."""
    status = parity.get("status")
    if status is None:
        return None
    if "reason" in parity:
        return f"{status}: {parity['reason']}"
    clips = parity.get("clip_psnr_db")
    psnr_text = "" if clips is None else f", clips at {clips:g} dB"
    return f"{status}: {parity.get('largest_difference')}{psnr_text}"


def _prior(brain: Brain) -> str:
    return ", ".join(f"{name} {getattr(brain.prior, name):g}" for name in PRESENCES)


def _engines(engines: list[BuiltEngine]) -> str | None:
    kinds = {
        f"{engine.builder} {engine.version} for {engine.compute_capability}": engine for engine in engines
    }
    return ", ".join(kinds) or None
