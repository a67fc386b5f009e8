"""Several participants in one training: their batches, and what cannot be trained on together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rtdecode.bundle.manifest import CAUSAL, OFFLINE
from rtdecode.errors import UsageError
from train.models.brainnetflix.encoder import CORRECTION, PARTICIPANT
from train.models.conditioned import batches
from train.models.conditioned.batches import Dropout, Windows
from train.trainer.loader import Place
from train.trainer.phases import Phase


@dataclass(frozen=True)
class ParticipantBatches:
    """Draws batches of the participant that a place names; see `train.models.conditioned.batches.batch`.

    Attributes
    ----------
    windows : mapping
        Name of a participant -> the windows that teach.
    corrections : mapping
        Name -> what is added to the readings of these windows, (window, component), so that they are those of
        a layer that their run did not teach.
    dropout : Dropout
        How much of signals and captions is left out.
    losses : mapping
        Name of a phase -> names of its losses.
    """

    windows: Mapping[str, Windows]
    corrections: Mapping[str, NDArray[np.float32]]
    dropout: Dropout
    losses: Mapping[str, Sequence[str]]

    def __call__(self, place: Place) -> Any:
        """Draw the batch that belongs at a place."""
        # A training of one participant names nobody.
        name = place.participant or next(iter(self.windows))
        windows = self.windows[name]
        batch = batches.batch(windows, self.dropout, self.losses, place)
        rows = batches.draw_rows(windows, place)
        batch[CORRECTION] = torch.from_numpy(self.corrections[name][rows])
        batch[PARTICIPANT] = torch.tensor(list(self.windows).index(name))
        return batch


def chain_of(chains: Sequence[str]) -> str:
    """Say how signals were prepared, of participants who teach each other: the worse word counts."""
    return OFFLINE if OFFLINE in chains else CAUSAL


def check_batches(phases: Mapping[str, Phase], counts: Mapping[str, int]) -> None:
    """Refuse batches that are larger than the windows of a participant.

    Parameters
    ----------
    phases : mapping
        Name of a phase -> the phase, whose `batch` is checked.
    counts : mapping
        Name of a participant -> number of windows that teach.

    Raises
    ------
    UsageError
    """
    fewest = min(counts, key=lambda name: counts[name])
    for name, phase in phases.items():
        if phase.batch > counts[fewest]:
            raise UsageError(
                "batch-larger-than-participant",
                "phase '{phase}' takes batches of {batch} windows of every participant, and {count} of "
                "{participant} teach. Give smaller batches (phases.{phase}.batch).",
                phase=name,
                batch=phase.batch,
                count=counts[fewest],
                participant=fewest or "the participant",
            )


def check_vertices(voxels: Mapping[str, NDArray[np.int64]]) -> None:
    """Refuse participants who shall share a layer, and of whom other voxels are read.

    Raises
    ------
    UsageError
    """
    first, *further = voxels
    differing = [name for name in further if not np.array_equal(voxels[name], voxels[first])]
    if differing:
        raise UsageError(
            "participants-vertices-differ",
            "system.encoder.stem=vertex reads the same vertices of all participants, and those of "
            "{participants} are not those of {first}. Give surfaces of one mesh, and read all vertices of a "
            "region (data.region, data.voxels), or give each a layer with system.encoder.stem=linear.",
            participants=differing,
            first=first,
        )
