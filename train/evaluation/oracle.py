"""The ridge oracle: what a linear decoder reads from the signals that the judged decoder is given.

It is trained for the judging alone, on sessions of the same participant at the same preset, with training
seeds. Signals of a window go in, and the leading principal components of what a patch codec makes of its clip
come out, each with its own penalty and its own weight of fMRI against EEG, chosen by leaving sessions out.
Of a bundle that reads one modality, the other has no part in it. A window's volumes are those that the bundle
reads, its look-ahead included.
The least-squares prediction is shown as it is: faint where little is known. The same regression reads the
mean colour of a clip, three numbers, and the colours of its parts: how much of a figure colour alone can say.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode.disk.clip_file import Pixels, keep
from rtdecode.scores.colours import STILL, drawn_layout, layouts
from train.closed_form import patch_codec
from train.closed_form.components import principal_components
from train.closed_form.patch_codec import Codec
from train.closed_form.ridge import RidgeFit, fit_ridge
from train.closed_form.stem import EegStem, fill_slots, fit_eeg_stem, fit_voxel_stem
from train.config.run_context import Arrays

Matrix = NDArray[np.float64]

# Sizes of the codec and the stems, as in the recipe `ridge`; more components of the latents, because the
# oracle need not be small.
_CHANNELS = 16
_COMPONENTS = 128
_VOXELS = 128
_EEG = 60
_FREQUENCIES = 96
_WHITEN = 0.75
# Candidate weights of fMRI against EEG.
_SHARES = (0.2, 0.4, 0.6, 0.8)
_COLOURS = 3
# Windows that are drawn at once, and fewer if their clips have more values together than this.
_AT_ONCE = 20
_VALUES = 2**24


@dataclass(frozen=True)
class Oracle:
    """A fitted oracle; see `fit_oracle`.

    Attributes
    ----------
    codec : Codec
        Makes latents of clips, and draws latents.
    mean, basis : (latent,), (component, latent)
        Of the latents.
    shape : tuple of int
        Of the latents of one clip.
    stems : Stems
        What reduces the signals of a window to few features.
    signals : RidgeFit
        From fMRI and EEG, as far as there are, to components.
    conditions : RidgeFit or None
        From the same to what the judged decoder's condition aims at; None where it aims at no vector.
    looks : RidgeFit
        From the same to the mean colour of the clip and to the colours of its parts.
    mean_look : (value,)
        Of these.
    clip_shape : tuple of int
        Shape of what a clip shows in its window, without a frame after it.
    windows : int
        How many it learned from.
    carried : RidgeFit or None
        From the components read in the window before to what the window's own signals leave open. None for
        a decoder that does not get the end of the clip before either.
    """

    codec: Codec
    mean: Matrix
    basis: Matrix
    shape: tuple[int, ...]
    stems: "Stems"
    signals: RidgeFit
    conditions: RidgeFit | None
    looks: RidgeFit
    mean_look: Matrix
    clip_shape: tuple[int, ...]
    windows: int
    carried: RidgeFit | None

    def clips(self, inputs: Arrays) -> list[Pixels]:
        """Draw the clips of the consecutive windows of one session, uint8 (frame, row, column, 3) each.

        They lie on disk if they are many or large.
        """
        read = _predicted(self.signals, self.stems(inputs))
        if self.carried is not None:
            read = read + _predicted(self.carried, [_before(read, [len(read)])])
        return keep(self._drawn(read))

    def _drawn(self, read: Matrix) -> Iterator[NDArray[np.uint8]]:
        """Draw components (window, component), a few windows at a time, and fewer if they are large."""
        at_once = max(1, min(_AT_ONCE, _VALUES // math.prod(self.clip_shape)))
        for first in range(0, len(read), at_once):
            latents = (read[first : first + at_once] @ self.basis + self.mean).reshape(-1, *self.shape)
            frames = patch_codec.decode(self.codec, latents)
            yield from np.rint(frames * 255).astype(np.uint8)

    def floors(self, inputs: Arrays) -> tuple[Sequence[Pixels], Sequence[Pixels]]:
        """Draw what is read of the mean colours, flat, and of the layouts, standing still."""
        read = self.mean_look + _predicted(self.looks, self.stems(inputs))
        colour = read[:, :_COLOURS].reshape(-1, 1, 1, _COLOURS)
        layout = read[:, _COLOURS:].reshape(-1, *STILL, _COLOURS)
        flat, still = (drawn_layout(values, self.clip_shape) for values in (colour, layout))
        return flat, still

    def vectors(self, inputs: Arrays) -> Matrix | None:
        """Predict what the decoder's condition aims at, from its mean, (window, value)."""
        if self.conditions is None:
            return None
        return _predicted(self.conditions, self.stems(inputs))


@dataclass(frozen=True)
class Stems:
    """From the signals of windows to few features, by modality.

    Attributes
    ----------
    voxels : (voxel, component), or None
        None where no volumes are read.
    eeg : EegStem or None
        None where no EEG is read.
    """

    voxels: Matrix | None
    eeg: EegStem | None

    def __call__(self, inputs: Arrays) -> list[NDArray[np.float32]]:
        """Reduce windows: one (window, feature) array for each modality, volumes first."""
        parts = []
        if self.voxels is not None:
            reduced = _volumes(inputs) @ self.voxels.astype(np.float32)
            parts.append(reduced.reshape(len(reduced), -1))
        if self.eeg is not None:
            parts.append(self.eeg(inputs["eeg"]))
        return parts


def _volumes(inputs: Arrays) -> NDArray[np.float32]:
    """Return the volumes of windows, (window, slot, voxel); a slot without one gets the window's mean."""
    volumes = inputs["fmri"]
    mask = inputs.get("fmri_mask")
    if mask is None or mask.all():
        return volumes.astype(np.float32)
    return fill_slots(volumes, mask).astype(np.float32)


def fit_oracle(
    sessions: Sequence[Mapping[str, Any]],
    *,
    frames: int,
    carry: bool,
    aims: Matrix | None = None,
    films: Sequence[int] | None = None,
) -> Oracle:
    """Fit the oracle.

    Parameters
    ----------
    sessions : sequence of dict
        Of each training session, the windows' signals by port (``fmri``, ``eeg`` or both) and ``clips``
        (frame, row, column, 3), as the bundle has them.
    frames : int
        How many frames of a clip lie in its window: not the one after it, where clips have one.
    carry : bool
        Whether the decoder that is judged gets the end of the clip before. The oracle then gets its own
        reading of the window before, as it was when that window was not trained on.
    aims : (window, value), optional
        What the condition of the judged decoder aims at in all these windows.
    films : sequence of int, optional
        Sessions of the same number are left out together when penalties are chosen: those that showed the
        same film. By default each by itself. Where there is one alone, its windows are.
    """
    lengths = [len(session["clips"]) for session in sessions]
    all_clips: list[Pixels] = [clip for session in sessions for clip in session["clips"]]
    signals_by_port = [name for name in sessions[0] if name != "clips"]
    all_signals = {name: np.concatenate([session[name] for session in sessions]) for name in signals_by_port}
    codec = patch_codec.fit_codec(all_clips, _CHANNELS)
    latents = patch_codec.encode(codec, all_clips)
    flat = latents.reshape(len(latents), -1)
    # A film may show the same window twice, which adds no direction.
    count = min(_COMPONENTS, len(np.unique(flat, axis=0)) - 1)
    mean, basis, targets = principal_components(flat, count)
    stems = Stems(
        fit_voxel_stem(_volumes(all_signals), _VOXELS) if "fmri" in all_signals else None,
        fit_eeg_stem(all_signals["eeg"], _EEG, _FREQUENCIES, _WHITEN) if "eeg" in all_signals else None,
    )
    reduced = stems(all_signals)
    shown_clips = [clip[:frames] for clip in all_clips]
    parts = layouts(shown_clips, STILL).reshape(len(shown_clips), -1, _COLOURS)
    looks = np.concatenate([parts.mean(axis=1), parts.reshape(len(shown_clips), -1)], axis=1)
    numbers = range(len(lengths)) if films is None else films
    folds = np.repeat(np.asarray(numbers), lengths) if len({*numbers}) > 1 else None
    # One regression, in which each target has a penalty of its own, reads them all.
    all_targets = [targets, looks] if aims is None else [targets, looks, aims]
    signals, seen_looks, *condition_fits = _apart(
        fit_ridge(reduced, np.concatenate(all_targets, axis=1), _SHARES, folds),
        [x.shape[1] for x in all_targets],
    )
    conditions = condition_fits[0] if condition_fits else None
    carried = None
    if carry:
        # Each window's own signals first. What they leave open is all that the window before may explain.
        carried = fit_ridge([_before(signals.held_out, lengths)], targets - signals.held_out, [1.0], folds)
    return Oracle(
        codec=codec,
        mean=mean,
        basis=basis,
        shape=latents.shape[1:],
        stems=stems,
        signals=signals,
        conditions=conditions,
        looks=seen_looks,
        mean_look=looks.mean(0),
        clip_shape=shown_clips[0].shape,
        windows=len(shown_clips),
        carried=carried,
    )


def _apart(fit: RidgeFit, widths: Sequence[int]) -> list[RidgeFit]:
    """Take a regression apart by its targets."""
    ends = np.cumsum([0, *widths])
    return [
        RidgeFit(fit.means, [linear[:, a:b] for linear in fit.maps], fit.explained[a:b], fit.held_out[:, a:b])
        for a, b in pairwise(ends)
    ]


def _predicted(fit: RidgeFit, parts: Sequence[NDArray[np.floating]]) -> Matrix:
    """Predict components, whose mean over the training windows is 0."""
    pairs = zip(parts, fit.means, fit.maps, strict=True)
    return np.sum([(part - mean) @ linear for part, mean, linear in pairs], axis=0)


def _before(read: Matrix, lengths: Sequence[int]) -> Matrix:
    """Return what was read in the window before each one; the mean, 0, for the first of a session."""
    earlier = np.roll(read, 1, axis=0)
    earlier[np.cumsum([0, *lengths[:-1]])] = 0
    return earlier
