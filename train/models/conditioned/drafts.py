"""What a bundle says of a brain-conditioned system: what it reads, how it draws, and what it rests on."""

from collections.abc import Collection
from dataclasses import replace
from typing import Any

from rtdecode.bundle import Manifest
from train.config.run_context import Arrays
from train.models.conditioned.encoder import MODALITIES
from train.models.conditioned.system import BrainConditioned, Sampling


def drawing_manifest(
    manifest: Manifest,
    system: BrainConditioned,
    sampling: Sampling,
    modalities: Collection[str],
    provenance: dict[str, Any],
) -> Manifest:
    """Complete the manifest of the data with what a trained system reads and how it draws.

    Parameters
    ----------
    manifest : Manifest
        Of the windows that taught.
    system : BrainConditioned
        The trained system.
    sampling : Sampling
        How clips are drawn.
    modalities : collection of str
        What the system reads.
    provenance : dict
        What it rests on, besides what the manifest says of the data.
    """
    return replace(
        manifest,
        eeg=manifest.eeg if "eeg" in modalities else None,
        fmri=manifest.fmri if "fmri" in modalities else None,
        sigmas=system.sigmas(sampling.steps),
        steps=sampling.steps,
        provenance=manifest.provenance | {"guidance": sampling.guidance} | provenance,
    )


def select_modalities(modalities: Collection[str], arrays: Arrays) -> Arrays:
    """Leave out the arrays of modalities that are not read."""
    other = {*MODALITIES} - {*modalities}
    return {name: values for name, values in arrays.items() if name.partition("_")[0] not in other}
