"""The batches of a conditioned system's phases: clips with their captions, embeddings and signals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rtdecode.errors import UsageError
from train.config.builders import Later
from train.config.run_context import Arrays
from train.data.arrays import normalised_eeg
from train.data.window_arrays import WindowArray
from train.distillation.teaching import FLOW_MAP
from train.models.conditioned.memory import EXCLUDED
from train.models.conditioned.trainable import CAPTION, DENOISING, FRAME, FRAMES, TEXT, VIDEO
from train.parts.generators.base import LEVELS
from train.parts.losses.contrastive import MIXTURE
from train.trainer.loader import Place

# Losses of a video model under captions, which read no brain.
_OF_CAPTIONS = (VIDEO, FRAME)
# So many other windows are looked at for one of another shot.
_TRIES = 8
PORTS = ("eeg", "eeg_mask", "fmri", "fmri_mask")
# Both parameters of the beta distribution of shares that are mixed (MindEye; Scotti et al. 2023).
_MIXING = 0.15


@dataclass(frozen=True)
class Windows:
    """Windows that teach, in the order in which they were shown.

    Attributes
    ----------
    latents : (window, channel, latent frame, row, column)
        What the codec or autoencoder makes of the clips.
    words : int64, (window, token, word)
        Numbers of the words of their captions; no token where no phase reads them.
    frames : float32, (window, frame, embedding)
        Embeddings of frames of the clips.
    text : float32, (window, embedding), or (window, passage, embedding) with `passages`
        Embeddings of the captions, or of their passages.
    signals : dict
        Port -> its values.
    units : dict or None
        What normalises them, see `train.data.arrays.statistics`; None where they are normalised already.
    targets : mapping
        Name -> what else an encoder learns to predict, (window, ...).
    excluded : bool, (window, row), or None
        Rows of a memory that windows may not look up while they teach.
    teaching : int64, (row,), or None
        The windows that batches are drawn from; all by default.
    deviations : array or None
        Standard deviations of the latents, which are then drawn anew each time they are read.
    passages : (window,) or None
        Number of passages of each caption, one of which is drawn anew each time.
    shots : int64, (window,), or None
        The shot that each window shows: a batch then has no two of one, where others are found.
    prompts : float32, (window, token, width), or None
        What a published video model reads of captions, in place of words.
    """

    latents: WindowArray
    words: NDArray[np.int64]
    frames: WindowArray
    text: WindowArray
    signals: Mapping[str, WindowArray]
    units: Arrays | None
    targets: Mapping[str, WindowArray] = field(default_factory=dict)
    excluded: NDArray[np.bool_] | None = None
    teaching: NDArray[np.int64] | None = None
    deviations: WindowArray | None = None
    passages: WindowArray | None = None
    shots: NDArray[np.int64] | None = None
    prompts: WindowArray | None = None

    def normalised(self, rows: NDArray[np.int64]) -> Arrays:
        """Read the signals of some windows, and normalise them."""
        signals: Arrays = {name: values[rows] for name, values in self.signals.items()}
        if self.units is not None:
            if "eeg" in signals:
                signals["eeg"] = normalised_eeg(signals["eeg"], signals["eeg_mask"], self.units)
            # Volumes are relative to their resting level already.
            signals["fmri"] = signals["fmri"] / self.units["fmri_scale"]
        return {name: values.astype(np.float32, copy=False) for name, values in signals.items()}


@dataclass(frozen=True)
class Dropout:
    """How often a part of what conditions the video is left out in training.

    Attributes
    ----------
    words : float
        Share of captions without a word.
    modalities : list of float
        Shares of windows with both modalities, with fMRI alone, with EEG alone, and with neither. Only phases
        that draw videos leave any out.
    voxels, channels : float
        Shares of the voxels and of the EEG channels that are zero throughout a window; each window has its
        own. A fifth of the voxels is what Chen et al. 2023 (arXiv:2305.11675) leave out.
    mixed : float
        Share of windows whose signals are mixed with those of another one of the batch, in phases that draw
        no videos (MixCo; Kim et al. 2020, arXiv:2010.06300).
    """

    words: float
    modalities: tuple[float, ...] | list[float]
    voxels: float = 0.0
    channels: float = 0.0
    mixed: Later[float] = 0.0

    def __post_init__(self) -> None:
        for name in ("words", "voxels", "channels", "mixed"):
            if not 0 <= getattr(self, name) < 1:
                raise UsageError(
                    "dropout-share-out-of-range",
                    "dropout.{key} is a share below 1, found {share}.",
                    key=name,
                    share=getattr(self, name),
                )
        if len(self.modalities) != 4 or abs(sum(self.modalities) - 1) > 1e-6 or min(self.modalities) < 0:
            raise UsageError(
                "dropout-modalities-invalid",
                "dropout.modalities are four shares that add up to 1: both, fMRI alone, EEG alone, "
                "neither; found {shares}.",
                shares=list(self.modalities),
            )


def batch(
    windows: Windows,
    dropout: Dropout,
    losses: Mapping[str, Sequence[str]],
    place: Place,
    count: int | None = None,
) -> Any:
    """Draw a batch with what the losses of its phase need. It depends on its place alone.

    Parameters
    ----------
    windows : Windows
        The windows that rows are drawn from.
    dropout : Dropout
        How much of signals and captions is left out.
    losses : mapping
        Name of a phase -> names of its losses.
    place : Place
        Where the batch belongs, which seeds its draws and says its phase and size.
    count : int, optional
        So many windows, the first ones, are drawn from; all by default.
    """
    rows = draw_rows(windows, place, count)
    names = {*losses[place.phase]}
    batch: dict[str, Tensor] = {}
    if names & {VIDEO, DENOISING, FLOW_MAP}:
        batch |= _noised(_drawn_latents(windows, rows, place), place)
    if FRAME in names:
        latents = _drawn_latents(windows, rows, place)
        frames = (_chance(place, 5) * latents.shape[2]).astype(np.int64)
        batch |= _noised(latents[np.arange(len(rows)), :, frames][:, :, None], place)
    if names & {*_OF_CAPTIONS, CAPTION}:
        share = dropout.words if names & {*_OF_CAPTIONS} else 0.0
        words = windows.words if windows.prompts is None else windows.prompts
        batch["words"] = torch.from_numpy(_fewer_words(words[rows], share, place))
    # All others compare with targets.
    if names - {*_OF_CAPTIONS, DENOISING, FLOW_MAP, CAPTION}:
        batch[FRAMES] = torch.from_numpy(windows.frames[rows])
        batch |= {name: torch.from_numpy(values[rows]) for name, values in windows.targets.items()}
        batch[TEXT] = torch.from_numpy(_drawn_text(windows, rows, place))
    if names - {*_OF_CAPTIONS}:
        signals = _fewer_places(windows.normalised(rows), dropout, place)
        if names & {DENOISING, FLOW_MAP}:
            signals = _fewer_modalities(signals, dropout.modalities, place)
        elif dropout.mixed:
            batch[MIXTURE] = torch.from_numpy(_mixture(dropout.mixed, place))
            signals = {name: _mix(batch[MIXTURE].numpy(), values) for name, values in signals.items()}
        batch |= {name: torch.from_numpy(x) for name, x in signals.items()}
        if windows.excluded is not None:
            batch[EXCLUDED] = torch.from_numpy(windows.excluded[rows])
    return batch


def draw_rows(windows: Windows, place: Place, count: int | None = None) -> NDArray[np.int64]:
    """Choose the windows of a batch; the arguments are those of `batch`."""
    available = np.arange(len(windows.latents)) if windows.teaching is None else windows.teaching
    available = available[:count]
    chosen = available[place.rows(len(available))]
    return chosen if windows.shots is None else _of_other_shots(chosen, available, windows.shots, place)


def _of_other_shots(
    rows: NDArray[np.int64], available: NDArray[np.int64], shots: NDArray[np.int64], place: Place
) -> NDArray[np.int64]:
    """Put other available windows in place of those whose shot a batch has already."""
    rng = np.random.default_rng((*place.key, 6, place.size))
    spare_rows = available[rng.integers(len(available), size=(len(rows), _TRIES))]
    chosen: list[int] = []
    chosen_shots: set[int] = set()
    for row, candidates in zip(rows.tolist(), spare_rows.tolist(), strict=True):
        picked = next((other for other in (row, *candidates) if int(shots[other]) not in chosen_shots), row)
        chosen_shots.add(int(shots[picked]))
        chosen.append(picked)
    return np.array(chosen)


def _drawn_latents(windows: Windows, rows: NDArray[np.int64], place: Place) -> NDArray[Any]:
    """Read latents, and draw them from their distribution where its deviation is known."""
    latents = windows.latents[rows]
    if windows.deviations is None:
        return latents
    rng = np.random.default_rng((*place.key, 3, place.size))
    noise = rng.standard_normal(latents.shape, np.float32)
    return latents + windows.deviations[rows].astype(np.float32) * noise


def _drawn_text(windows: Windows, rows: NDArray[np.int64], place: Place) -> NDArray[np.float32]:
    """Read the embeddings of captions, or of a passage of each."""
    text = windows.text[rows]
    if windows.passages is None:
        return text
    passage = (_chance(place, 4) * windows.passages[rows]).astype(np.int64)
    return text[np.arange(len(rows)), passage]


def _noised(latents: NDArray[Any], place: Place) -> dict[str, Tensor]:
    """Return clean latents, and noise and a level for each; levels are drawn evenly.

    ``left`` is the share of a sampler's steps that is left at the level.
    """
    draws = [place.draws(n) for n in range(place.size)]
    noise = np.stack([rng.standard_normal(latents.shape[1:], np.float32) for rng in draws])
    level = np.array([rng.integers(LEVELS) for rng in draws])
    return {
        "latents": torch.from_numpy(latents.astype(np.float32)),
        "noise": torch.from_numpy(noise),
        "level": torch.from_numpy(level),
        "left": torch.from_numpy(((level + 1) / LEVELS).astype(np.float32)),
    }


def _fewer_words(words: NDArray[Any], share: float, place: Place) -> NDArray[Any]:
    without = _chance(place, 0) < share
    return np.where(without[:, None, None], 0, words)


def _fewer_places(signals: Arrays, dropout: Dropout, place: Place) -> Arrays:
    """Set some voxels and channels of each window to zero."""
    rng = np.random.default_rng((*place.key, 2, place.size))
    thinned = dict(signals)
    for name, share, axis in (("fmri", dropout.voxels, 2), ("eeg", dropout.channels, 1)):
        if share and name in signals:
            values = signals[name]
            keep = rng.random((len(values), values.shape[axis]), np.float32) >= share
            thinned[name] = values * np.expand_dims(keep, 3 - axis)
    return thinned


def _fewer_modalities(signals: Arrays, shares: Sequence[float], place: Place) -> Arrays:
    which = np.searchsorted(np.cumsum(shares), _chance(place, 1), side="right")
    has_modality = {"fmri": np.isin(which, (0, 1)), "eeg": np.isin(which, (0, 2))}
    masked = {}
    for name, values in signals.items():
        keep = has_modality[name.removesuffix("_mask")].astype(np.float32)
        masked[name] = values * keep.reshape(-1, *(1,) * (values.ndim - 1))
    return masked


def _mixture(share: float, place: Place) -> NDArray[np.float32]:
    """Draw how much of each window of a batch goes into each, (window, window)."""
    rng = np.random.default_rng((*place.key, 5, place.size))
    shares = np.where(rng.random(place.size) < share, rng.beta(_MIXING, _MIXING, place.size), 1.0)
    mixture = np.diag(shares)
    mixture[np.arange(place.size), rng.permutation(place.size)] += 1 - shares
    return mixture.astype(np.float32)


def _mix(mixture: NDArray[np.float32], values: NDArray[np.float32]) -> NDArray[np.float32]:
    return (mixture @ values.reshape(len(values), -1)).reshape(values.shape)


def _chance(place: Place, what: int) -> NDArray[np.float64]:
    """Draw a number from 0 to 1 for each row, apart from what else is drawn for the batch."""
    return np.random.default_rng((*place.key, what, place.size)).random(place.size)
