"""CineSync as plans: what is contrasted, at both sizes."""

from dataclasses import dataclass
from typing import ClassVar

from train.models.cinesync.encoder import EncoderSizes
from train.models.conditioned.published import PublishedPlan
from train.models.conditioned.small import SmallPlan
from train.models.conditioned.trainable import Contrasts

# The five contrastive terms of the paper: what each brings together.
CONTRASTS = {
    "fmri_frames": ("fmri", "frames"),
    "fmri_text": ("fmri", "text"),
    "eeg_frames": ("eeg", "frames"),
    "eeg_text": ("eeg", "text"),
    "fmri_eeg": ("fmri", "eeg"),
}


@dataclass(frozen=True)
class CineSyncPlan(SmallPlan):
    """CineSync at small scale; see `train.models.conditioned.small.SmallPlan`."""

    encoder: EncoderSizes

    name: ClassVar[str] = "cinesync-tiny"
    contrasts: ClassVar[Contrasts] = CONTRASTS


@dataclass(frozen=True)
class CineSyncPublishedPlan(PublishedPlan):
    """CineSync on CogVideoX from a folder; see `train.models.conditioned.published.PublishedPlan`."""

    encoder: EncoderSizes

    contrasts: ClassVar[Contrasts] = CONTRASTS
