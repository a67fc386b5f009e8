"""The shared space of a training, the layers of its participants, and an encoder that begins at them."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode.errors import UsageError
from train.closed_form.shared_space import VERTEX, Layer, SharedSpace, Viewing, fit_layers, fit_space
from train.closed_form.stem import fill_slots
from train.fitting.shared_space import CLIP
from train.fitting.shared_space import START as LATENTS
from train.models.brainnetflix.encoder import FMRI, READING, SharedEncoder, SharedSizes, Stem
from train.models.conditioned.batches import Windows
from train.models.conditioned.encoder import Signals
from train.models.conditioned.system import Sampling
from train.models.conditioned.trainable import FRAMES, TEXT, Contrasts
from train.trainer.phases import Phase

Matrix = NDArray[np.float64]

# What readings are aligned with, and what the shared space holds beside latents.
NONE = "none"
ALIGNMENTS = (CLIP, TEXT, NONE)
# The contrast that aligns them.
ALIGN = "align"
CONTRASTS = {ALIGN: (READING, FRAMES), "image": (FMRI, FRAMES), "text": (FMRI, TEXT)}
# Targets of a batch.
VECTOR_TARGET = "clip_vector"
START_TARGET = "clip_latents"
# So many windows are read at a time: latents and tokens at the published size are large.
_AT_A_TIME = 256


def check_alignment(alignment: str) -> None:
    """Refuse a word that is no alignment.

    Raises
    ------
    UsageError
    """
    if alignment not in ALIGNMENTS:
        raise UsageError(
            "plan-alignment-unknown",
            "system.alignment must be one of {available}, found '{alignment}'.",
            available=list(ALIGNMENTS),
            alignment=alignment,
        )


def check_nothing_drawn(distilling: Mapping[str, Phase]) -> None:
    """Refuse phases that teach a student.

    Raises
    ------
    UsageError
    """
    if distilling:
        raise UsageError(
            "plan-distillation-unsupported",
            "nothing is trained for drawing in this system, and the phases {phases} teach a student. "
            "Leave them out.",
            phases=list(distilling),
        )


def aligned_phases(phases: Mapping[str, Phase], alignment: str) -> dict[str, Phase]:
    """Leave the loss of alignment out of phases where readings are aligned with nothing."""
    if alignment != NONE:
        return dict(phases)
    remaining: dict[str, Phase] = {}
    for name, phase in phases.items():
        losses = {loss: weight for loss, weight in phase.losses.items() if loss != ALIGN}
        if losses:
            remaining[name] = replace(phase, losses=losses)
    return remaining


def aligned_contrasts(alignment: str) -> Contrasts:
    """Return the contrasts, of which that of readings is with what they are aligned with."""
    return {**CONTRASTS, ALIGN: (READING, TEXT if alignment == TEXT else FRAMES)}


def values_of(windows: Windows, rows: NDArray[np.int64], alignment: str) -> dict[str, NDArray[Any]]:
    """Return the values of some windows from which the shared space is made."""
    aligned = windows.text if alignment == TEXT else windows.targets[VECTOR_TARGET]
    return {CLIP: np.asarray(aligned[rows]), LATENTS: np.asarray(windows.latents[rows], np.float32)}


def find_space(
    windows: Mapping[str, Windows], sizes: SharedSizes, alignment: str, limit: int | None = None
) -> SharedSpace:
    """Find the shared space from what taught everybody.

    Parameters
    ----------
    windows : mapping
        Name of a participant -> the windows.
    sizes : SharedSizes
        Says how many components latents and the alignment get.
    alignment : str
        See `train.models.brainnetflix.plan.BrainNetflixPlan`.
    limit : int, optional
        So many windows of each participant at most are taken, from all over them.
    """
    counts = {LATENTS: sizes.start}
    if alignment != NONE:
        counts = {CLIP: sizes.clip, **counts}
    parts = [values_of(watched, some_of(rows_of(watched), limit), alignment) for watched in windows.values()]
    return fit_space({name: np.concatenate([part[name] for part in parts]) for name in counts}, counts)


def some_of(rows: NDArray[np.int64], limit: int | None) -> NDArray[np.int64]:
    """Take so many rows at most, from all over them."""
    if limit is None or len(rows) <= limit:
        return rows
    return rows[np.arange(limit) * len(rows) // limit]


def viewing_of(windows: Windows, runs: NDArray[Any], space: SharedSpace, alignment: str) -> Viewing:
    """Return the volumes of the windows that teach, and the points of what they showed.

    Parameters
    ----------
    windows : Windows
        All windows of a participant; those that teach are taken.
    runs : (window,)
        See `train.closed_form.shared_space.Viewing`, of all windows.
    space : SharedSpace
        Turns what was shown into points.
    alignment : str
        See `train.models.brainnetflix.plan.BrainNetflixPlan`.
    """
    rows = rows_of(windows)
    signals = windows.normalised(rows)
    volumes = fill_slots(signals[FMRI], signals[f"{FMRI}_mask"]).reshape(len(rows), -1)
    parts = [rows[first : first + _AT_A_TIME] for first in range(0, len(rows), _AT_A_TIME)]
    points = np.concatenate([space.points(values_of(windows, part, alignment)) for part in parts])
    return Viewing(volumes.astype(np.float32), points, runs[rows])


def shared_provenance(alignment: str, sampling: Sampling, participants: Collection[str]) -> dict[str, Any]:
    """Say what the bundle of several participants, or of one, was trained with.

    Parameters
    ----------
    alignment : str
        What the layers were aligned with.
    sampling : Sampling
        How clips are drawn.
    participants : collection of str
        Their names.
    """
    provenance: dict[str, Any] = {"alignment": alignment}
    if sampling.starts:
        provenance["start_level"] = sampling.start_level
    if len(participants) > 1:
        provenance["participants"] = list(participants)
    return provenance


def number_of(name: str) -> int | None:
    """Return the number of a participant who is called by one."""
    match = re.fullmatch(r"sub-0*(\d+)", name)
    return None if match is None else int(match[1])


def begin_at_layers(
    encoder: SharedEncoder,
    signals: Sequence[Signals],
    viewings: Mapping[str, Viewing],
    windows: Mapping[str, Windows],
    stem: str,
) -> tuple[dict[str, Layer], dict[str, NDArray[np.float32]]]:
    """Find the layers, and put them into an encoder, which has that of the first participant alone so far.

    Parameters
    ----------
    encoder : SharedEncoder
        Gets the layers of all participants.
    signals : sequence of Signals
        Of every participant.
    viewings : mapping
        Name of a participant -> the windows that teach the layer.
    windows : mapping
        Name -> all windows that batches are drawn from.
    stem : str
        ``linear`` or ``vertex``.

    Returns
    -------
    layers : dict
        By name.
    corrections : dict
        Name -> what is added to the layer's readings of all windows, so that they are those of a layer that
        their run did not teach, (window, component).
    """
    layers = fit_layers(viewings, stem)
    # One layer reads the same vertices of everybody.
    if stem != VERTEX:
        encoder.stems.extend(Stem(shape, encoder.width) for shape in signals[1:])
    corrections: dict[str, NDArray[np.float32]] = {}
    for number, (name, layer) in enumerate(layers.items()):
        if number < len(encoder.stems):
            stem_of_participant = encoder.stems[number]
            assert isinstance(stem_of_participant, Stem)
            stem_of_participant.take(layer)
        difference = layer.held_out - layer.read(viewings[name].volumes)
        corrections[name] = _placed(difference, windows[name], encoder.width)
    return layers, corrections


def rows_of(windows: Windows) -> NDArray[np.int64]:
    """Return the rows of windows that teach."""
    assert windows.teaching is not None
    return windows.teaching


def _placed(values: Matrix, windows: Windows, width: int) -> NDArray[np.float32]:
    """Lay values of the windows that teach, (row, component), out for all windows, (window, width)."""
    placed = np.zeros((len(windows.latents), width), np.float32)
    placed[rows_of(windows), : values.shape[1]] = values
    return placed
