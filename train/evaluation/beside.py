"""What stands beside a decoder, and the suffixes by which its figures are named.

A figure's name is that of its metric and one of these: nothing for the decoder itself.
"""

from collections.abc import Sequence

import numpy as np

from rtdecode.bundle import Manifest
from train.config.run_context import Arrays

DECODER = ""
# The modalities that the decoder is given.
ROUTES = {DECODER: ("eeg", "fmri"), "_eeg": ("eeg",), "_fmri": ("fmri",)}
# The same decoder and noise without a signal, and with one step.
NULL = "_null"
ONE_STEP = "_one_step"
# Brains that tell nothing of the film, or tell it as no decoder has learned.
RESTING_BRAIN = "_rest"
OTHER_SUBJECT = "_other_subject"
OTHER_FILM = "_other_film"
# The window of the training films that is most like the decoder's clip.
NEAREST = "_nearest"
# The decoder's clips backwards in time.
REVERSED = "_reversed"
# The latents that drawing starts from, drawn as they are.
START = "_start"
# A ridge that had the same data.
ORACLE = "_oracle"
# Clips that know colours alone: read by the ridge, or told.
DECODED_COLOURS = ("_decoded_colour", "_decoded_layout")
TOLD_COLOURS = ("_told_colour", "_told_layout")
FLOORS = (*DECODED_COLOURS, *TOLD_COLOURS)
# The training mean, the same in every window. Its scores stand in the other figures.
CONSTANT = "_constant"
# Identification by the known forward model of the simulation.
CEILING = "_ceiling"
# The same decoder without its adapters, and with the signals of the window that each one is paired with. They
# are decoded for a section that asks for them, and are no figures of their own.
WITHOUT_ADAPTERS = "_without_adapters"
EXCHANGED = "_exchanged"
HELPERS = (WITHOUT_ADAPTERS, EXCHANGED)


def routes_of(manifest: Manifest) -> dict[str, tuple[str, ...]]:
    """Return the routes of a bundle: of one that reads a single modality there is one alone."""
    modalities = {*manifest.modalities}
    return {suffix: group for suffix, group in ROUTES.items() if suffix == DECODER or modalities > {*group}}


def only(inputs: Arrays, modalities: Sequence[str]) -> Arrays:
    """Keep the given modalities, and set the others and their masks to zero."""
    names = {name for modality in modalities for name in (modality, f"{modality}_mask")}
    return {name: x if name in names else np.zeros_like(x) for name, x in inputs.items()}
