"""The model to be trained, built around the parts that are fitted in closed form.

The fitted arrays, the codec and the clips come in, and a `Trainables` goes out. On the way, the last parts
of the encoder are fitted: the memory of surrounds, the still end of the clip before, and the test whether a
clip continues the one before.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rtdecode.phantom.film.film import ATTRIBUTES
from train.closed_form import brain_maps
from train.closed_form import patch_codec as patch
from train.closed_form.refine import PREFIX, ROUTES
from train.closed_form.space import SIZES, Space, split
from train.models.compact.batches import Clips
from train.models.compact.codec import fit_still
from train.models.compact.encoder import CARRIED, CORNERS, SEAM_FEATURES, BrainEncoder
from train.models.compact.flow import VideoFlow
from train.models.compact.system import decode, decoder_of
from train.models.compact.trainable import Trainables
from train.models.compact.watched import encode, space_of
from train.work import Arrays

# The attributes that the surround shows, and the number of clips of each kind that are remembered.
SURROUND = ("background", "texture", "pan")
REMEMBERED = 8
# Number of clips that is enough to learn how a clip's end stands still.
_STILLS = 500


def build(
    fitted: Arrays, codec: Arrays, clips: dict[str, Clips], seed: int, embedding: int, **flow: Any
) -> Trainables:
    """Make the trainable parts, and fit the test for a seam.

    Parameters
    ----------
    fitted, codec : dict
        See `train.models.compact.watched`.
    clips : dict
        The surrounds are remembered from ``sessions``. The test is fitted to ``free`` and to ``held``, which
        no other weights are fitted to.
    seed : int
        Seed of the first weights.
    embedding : int
    **flow
        Further sizes of `train.models.compact.flow.VideoFlow`.
    """
    shape = clips["sessions"].latents.shape[1:]
    torch.manual_seed(seed)
    encoder = BrainEncoder(encoder_arrays(fitted, codec, clips["sessions"]), embedding)
    for route, weights in fit_seam(encoder, clips["held"], clips["free"]).items():
        encoder.get_buffer(f"seam_{route}").copy_(torch.from_numpy(weights))
    made = VideoFlow(
        channels=shape[0],
        frames=shape[1],
        height=shape[2],
        width=shape[3],
        condition_channels=3 * shape[0] + 2,
        embedding=embedding,
        spread=[float(x) for x in codec["spread"]],
        **flow,
    )
    return Trainables(encoder, made)


def fit_seam(encoder: BrainEncoder, cut: Clips, free: Clips) -> dict[str, NDArray[np.float64]]:
    """Fit, for each route, the test whether a clip continues the one before.

    Parameters
    ----------
    encoder : BrainEncoder
    cut : Clips
        Clips that all begin with a cut.
    free : Clips
        Freely cut clips. Those that show a single shot, which began earlier, are the other side of the fit.
    """
    found = {}
    # One value of every attribute fills such a window, and no cut begins it.
    whole = ~free.cut & ((free.attributes > 1 - 1e-9).sum(1) == len(SIZES))
    for n, route in enumerate(ROUTES):
        sides = []
        for clips, picked in ((cut, cut.joined), (free, free.joined & whole)):
            at = np.flatnonzero(picked)
            before = torch.from_numpy(clips.latents[at - 1, :, -1:].astype(np.float32))
            point = torch.from_numpy(clips.points[route][at])
            values = encoder.probabilities(point, torch.eye(3)[n].expand(len(point), -1), 1.0)
            sides.append(
                encoder.seam_features(encoder.draw(point), values, before).numpy().astype(np.float64)
            )
        # Both sides get the same number of windows, so that neither is likelier from the start.
        few = min(len(side) for side in sides)
        sides = [side[np.linspace(0, len(side) - 1, few).astype(int)] for side in sides]
        found[route] = brain_maps.fit_logistic(np.concatenate(sides), np.repeat([0.0, 1.0], few))
    return found


def encoder_arrays(fitted: Arrays, codec: Arrays, cut: Clips) -> Arrays:
    """Collect the encoder's fitted arrays. The tests for seam and confidence are blank until later."""
    shape = cut.latents.shape[1:]
    kept = ("voxels", "mixing", "cosines", *(f"{m}_feature_mean" for m in ("eeg", "fmri")))
    maps = [f"{route}_{group}" for route, groups in brain_maps.GROUPS.items() for group in groups]
    arrays = {name: fitted[name] for name in (*kept, *maps, "discriminant_carry", "offset_carry")}
    arrays |= {name: value for name, value in fitted.items() if name.startswith(PREFIX)}
    arrays |= {"heat": np.ones(len(brain_maps.GROUPS)), "reads": np.ones(2)}
    space = space_of(fitted)
    frame, offset = seam_frame(codec)
    first = space.latent_mean.reshape(shape)[:, :1]
    # With an offset of -9 no clip continues the one before, until `fit_seam` gives other weights.
    blank = {f"seam_{route}": np.append(np.zeros(SEAM_FEATURES), -9.0) for route in brain_maps.GROUPS}
    blank |= {f"confidence_{route}": np.zeros(len(SIZES) + 1) for route in brain_maps.GROUPS}
    return (
        arrays
        | blank
        | {
            "basis": (space.basis * space.scale[: space.components, None]).astype(np.float16),
            "seam_frame": frame.astype(np.float32),
            "seam_offset": (offset[:, None, None, None] - first).astype(np.float32),
            **still(codec, cut.latents[:: -(-len(cut.latents) // _STILLS)]),
            "latent_shape": np.array(shape),
            **memory(cut, space),
        }
    )


def memory(clips: Clips, space: Space) -> Arrays:
    """Choose the surrounds to be remembered: the corners of a few clips of every kind.

    Returns
    -------
    dict
        ``bank`` (clip, corner) without the mean, ``bank_values`` (clip, value), and ``corner_mean``.
    """
    shape = clips.latents.shape[1:]
    corners = clips.latents[..., CORNERS[0], CORNERS[1]].astype(np.float32)
    mean = space.latent_mean.reshape(shape)[..., CORNERS[0], CORNERS[1]].astype(np.float32)
    kinds = np.concatenate(
        [part * (name in SURROUND) for name, part in zip(ATTRIBUTES, split(clips.attributes), strict=True)], 1
    )
    _, kind = np.unique(kinds, axis=0, return_inverse=True)
    kept = np.concatenate([np.flatnonzero(kind == k)[:REMEMBERED] for k in np.unique(kind)])
    return {
        "bank": (corners - mean)[kept].reshape(len(kept), -1).astype(np.float16),
        "bank_values": kinds[kept].astype(np.float32),
        "corner_mean": mean[None],
    }


def still(codec: Arrays, latents: NDArray[Any]) -> Arrays:
    """Fit the map that shows the end of the clip before, see `train.models.compact.codec.fit_still`.

    Returns
    -------
    dict
        ``still_weight``, ``still_bias``.
    """
    latents = latents.astype(np.float32)
    ends = decode(decoder_of(codec), latents)[:, -1:]
    # Clips of two latent frames that show the last video frame throughout; the first one is wanted.
    standing = encode(codec, np.repeat(ends, patch.FRAMES + 1, axis=1))[:, :, 0]
    weight, bias = fit_still(latents[:, :, -CARRIED:], standing)
    return {"still_weight": weight.numpy(), "still_bias": bias.numpy()}


def seam_frame(codec: Arrays) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return matrix and offset that turn a latent frame into that of its last video frame standing still."""
    basis = codec["codec_basis"].astype(np.float64)
    mean = codec["codec_mean"].astype(np.float64)
    # As in `watched.encode`: the basis decodes scaled latents, and divided twice by the scale encodes.
    inverse = basis / codec["scale"] ** 2
    still = inverse.reshape(patch.FRAMES, -1, basis.shape[1]).sum(0)
    last = basis.reshape(patch.FRAMES, -1, basis.shape[1])[-1]
    return still.T @ last, still.T @ mean.reshape(patch.FRAMES, -1)[-1] - inverse.T @ mean
