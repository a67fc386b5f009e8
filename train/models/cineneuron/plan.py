"""CineNeuron as plans: what is aligned, what is remembered, and how a phase is trained."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from train.config.run_context import Arrays
from train.data import near_duplicates
from train.data.window_arrays import WindowArray
from train.metrics.motion import motion_energy
from train.models.cineneuron.brain import ACTION_HEAD
from train.models.cineneuron.encoder import BRAIN, CineNeuronSizes, RememberingEncoder
from train.models.cineneuron.memories import EXCLUDE, NEAR_S
from train.models.cineneuron.pool import check_left, draw_entries, unit
from train.models.conditioned.batches import Windows
from train.models.conditioned.encoder import CATEGORY_HEAD, ConditionEncoder
from train.models.conditioned.material import Describe, Material
from train.models.conditioned.small import SmallPlan
from train.models.conditioned.small_system import packed_categories
from train.models.conditioned.trainable import FRAMES, TEXT, BrainVideo, Contrasts
from train.parts.generators.base import Generator
from train.parts.losses.multilabel import MultiLabel
from train.parts.text.categories import categories_of, category_names
from train.parts.text.words import WordTable

# Names of targets, and of the losses of them.
ACTION = "action"
CATEGORY = "category"
CONTRASTS = {
    "image": (BRAIN, FRAMES),
    "text": (BRAIN, TEXT),
    "action": (ACTION_HEAD, ACTION),
}
# Of the contrasts (section 4.1 of the paper's supplement).
TEMPERATURE = 0.07


@dataclass(frozen=True)
class CategoryLoss:
    """How categories are learned; either half can be left out.

    Attributes
    ----------
    cross_entropy, focal : bool
        Whether each is part of the loss, see `train.parts.losses.multilabel.MultiLabel`.
    """

    cross_entropy: bool = True
    focal: bool = True


def trained_parts(
    encoder: ConditionEncoder,
    video: Generator,
    frames: int,
    categories: CategoryLoss,
    words: WordTable | None = None,
) -> BrainVideo:
    """Put together what the phases on brains train, at either size."""
    category = MultiLabel(CATEGORY_HEAD, CATEGORY, categories.cross_entropy, categories.focal)
    return BrainVideo(
        encoder,
        video,
        encoder.frame_pooling(frames),
        CONTRASTS,
        temperature=TEMPERATURE,
        extra_losses={CATEGORY: category},
        words=words,
    )


@dataclass(frozen=True)
class CineNeuronPlan(SmallPlan):
    """CineNeuron at small scale; see `train.models.conditioned.small.SmallPlan`.

    The motion energy of a clip stands for ViCLIP's vector, and the commonest words of its captions for
    categories.
    """

    encoder: CineNeuronSizes
    categories: CategoryLoss = CategoryLoss()

    name: ClassVar[str] = "cineneuron-tiny"
    contrasts: ClassVar[Contrasts] = CONTRASTS
    extra_losses: ClassVar[tuple[str, ...]] = (CATEGORY,)

    def descriptions(self) -> Mapping[str, Describe]:
        """Compute the motion of clips."""
        return {ACTION: motion_vectors}

    def targets(self, material: Material) -> Mapping[str, WindowArray]:
        """Return the vectors of actions, and which categories hold."""
        action = np.asarray(material.targets[ACTION][:], np.float32)
        _, labels = self._categories(material)
        return {
            # What all clips have in common tells none of them apart.
            ACTION: action - action.mean(0),
            # Categories that there are no words for hold nowhere.
            CATEGORY: np.pad(labels, [(0, 0), (0, self.encoder.brain.categories - labels.shape[1])]),
        }

    def notes(self, material: Material) -> Arrays:
        """Keep the names of the categories, and how often each is shown."""
        return packed_categories(*self._categories(material))

    def _categories(self, material: Material) -> tuple[list[str], NDArray[np.float32]]:
        """Take the commonest words of captions as categories; return their names, and which hold where."""
        names = category_names(material.captions, self.encoder.brain.categories)
        return names, categories_of(material.captions, names)

    def trainable(
        self, encoder: ConditionEncoder, video: Generator, frames: int, words: WordTable
    ) -> BrainVideo:
        """Add the loss of the categories, and fix the temperature of the contrasts."""
        return trained_parts(encoder, video, frames, self.categories, words)

    @torch.no_grad()
    def remember(
        self, encoder: ConditionEncoder, table: WordTable, windows: Windows, material: Material, seed: int
    ) -> Windows:
        """Fill the pool with windows that teach, and say which entries each of them may not find."""
        if not isinstance(encoder, RememberingEncoder):
            return windows
        memory = self.encoder.memory
        rows = draw_entries(len(windows.text), memory.entries, seed)
        tokens = table(torch.from_numpy(windows.words[rows])).numpy()
        images = unit(windows.frames[rows]).mean(1)
        encoder.remember(
            tokens.reshape(len(rows), -1).astype(np.float16),
            windows.text[rows],
            images,
            np.asarray(windows.targets[ACTION][rows]),
        )
        if memory.own != EXCLUDE:
            return windows
        # (window, frame, 3, row, column)
        clips = np.moveaxis(material.pictures, 2, -1)
        hashes = np.stack([near_duplicates.clip_hashes(clip) for clip in clips])
        excluded = material.places.near(rows, NEAR_S) | near_duplicates.alike(hashes, hashes[rows])
        check_left(excluded, memory.items)
        return replace(windows, excluded=excluded)


def motion_vectors(clips: NDArray[np.uint8], events: Sequence[str] | None) -> NDArray[np.float32]:
    """Compute the amplitude of motion in each direction and place, (clip, 192)."""
    energy = motion_energy(list(clips))
    return np.sqrt(energy).reshape(len(clips), -1).astype(np.float32)
