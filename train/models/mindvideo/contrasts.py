"""What the encoder of MinD-Video is contrasted with, and what stays of it in a comparison."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from rtdecode.errors import UsageError
from train.models.conditioned.trainable import FRAMES, TEXT
from train.models.mindvideo.encoder import FMRI
from train.trainer.phases import Phase

CONTRASTS = {"text": (FMRI, TEXT), "image": (FMRI, FRAMES)}
# What `contrast` of a plan may be -> the contrasts that stay in the phases.
BOTH = "both"
_STAY = {BOTH: ("text", "image"), "text": ("text",), "image": ("image",), "none": ()}


def check_contrast(contrast: str) -> None:
    """Refuse a choice of contrasts that there is not.

    Raises
    ------
    UsageError
    """
    if contrast not in _STAY:
        raise UsageError(
            "plan-contrast-unknown",
            "system.contrast must be one of {available}, found '{contrast}'.",
            available=list(_STAY),
            contrast=contrast,
        )


def contrasted(phases: Mapping[str, Phase], contrast: str) -> dict[str, Phase]:
    """Leave contrasts out of phases, and phases of which no loss is left.

    Raises
    ------
    UsageError
        If no phase is left.
    """
    changed = {name: _contrasted(phase, _STAY[contrast]) for name, phase in phases.items()}
    remaining = {name: phase for name, phase in changed.items() if phase is not None}
    if phases and not remaining:
        raise UsageError(
            "plan-contrast-leaves-nothing",
            "system.contrast={contrast} leaves no loss in the phases {phases}. Give them another one, or "
            "another contrast.",
            contrast=contrast,
            phases=list(phases),
        )
    return remaining


def _contrasted(phase: Phase, stay: Sequence[str]) -> Phase | None:
    """Leave contrasts out of a phase; what stays of them has the weight of all. None if no loss is left."""
    contrasts = {name: weight for name, weight in phase.losses.items() if name in CONTRASTS}
    remaining = {name: weight for name, weight in contrasts.items() if name in stay}
    share = sum(contrasts.values()) / sum(remaining.values()) if remaining else 0.0
    losses = {name: weight for name, weight in phase.losses.items() if name not in CONTRASTS}
    losses |= {name: share * weight for name, weight in remaining.items()}
    return replace(phase, losses=losses) if losses else None
