"""The model to be trained, built around the parts that are fitted in closed form.

The fitted arrays, the codec and the clips come in, and a `Trainables` goes out. On the way, the last parts
of the encoder are fitted: the still end of the clip before, and the test whether a clip continues the one
before.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from train.closed_form import brain_maps, cuts
from train.closed_form import patch_codec as patch
from train.closed_form.patch_codec import encode_scaled
from train.closed_form.refine import PREFIX, ROUTES
from train.config.run_context import Arrays
from train.models.compact import evidence
from train.models.compact.batches import Clips
from train.models.compact.encoder import CARRIED, DOUBT, SEAM_FEATURES, CompactEncoder
from train.models.compact.film_windows import Viewer, space_of
from train.models.compact.flow import VideoFlow
from train.models.compact.trainable import Trainables
from train.parts.codecs.fitted_patch import decode, decoder_of
from train.parts.codecs.patch import fit_still

# Number of clips that is enough to learn how a clip's end stands still, and what is not drawn.
_STILLS = 500


def build(
    viewers: Sequence[Viewer], codec: Arrays, seed: int, embedding: int, **flow: Any
) -> tuple[Trainables, list[CompactEncoder]]:
    """Make the trainable parts, and fit the test for a seam.

    Parameters
    ----------
    viewers : sequence of Viewer
        The default participant first.
    codec : dict
        See `train.models.compact.film_windows`.
    seed : int
        Seed of the first weights.
    embedding : int
        Width of the pooled condition.
    **flow
        Further sizes of `train.models.compact.flow.VideoFlow`.

    Returns
    -------
    system : Trainables
        With the encoder of the default participant.
    encoders : list of CompactEncoder
        Of all participants, that one's first.
    """
    default, *further = viewers
    shape = default.taught.latents.shape[1:]
    torch.manual_seed(seed)
    encoder = _encoder(default, codec, embedding)
    video_flow = VideoFlow(
        channels=shape[0],
        frames=shape[1],
        height=shape[2],
        width=shape[3],
        condition_channels=encoder.flow_channels,
        embedding=embedding,
        spread=undrawn(encoder, [viewer.taught for viewer in viewers]),
        **flow,
    )
    encoders = [encoder, *(_encoder(viewer, codec, embedding) for viewer in further)]
    return Trainables(encoder, video_flow), encoders


def _encoder(viewer: Viewer, codec: Arrays, embedding: int) -> CompactEncoder:
    """Make a participant's encoder, with the test for a seam fitted to all of its clips."""
    encoder = CompactEncoder(encoder_arrays(viewer.fitted, codec, viewer.taught), embedding)
    for route, weights in fit_seam(encoder, [viewer.taught, viewer.held_out]).items():
        encoder.get_buffer(f"seam_{route}").copy_(torch.from_numpy(weights))
    return encoder


@torch.no_grad()
def undrawn(encoder: CompactEncoder, sets: Sequence[Clips]) -> list[float]:
    """Measure what the encoder does not draw of participants' clips: the root mean square of each channel.

    All participants' encoders draw glimpses alike, so any of them will do.
    """
    squares = []
    for clips in sets:
        subset = slice(None, None, -(-len(clips.latents) // _STILLS))
        glimpses = torch.from_numpy(clips.glimpses["both"][subset])
        residuals = clips.latents[subset].astype(np.float32) - encoder.draw(glimpses).numpy()
        squares.append(np.square(residuals).mean((0, 2, 3, 4), dtype=np.float64))
    return [float(x) for x in np.sqrt(np.mean(squares, axis=0))]


def fit_seam(encoder: CompactEncoder, sets: list[Clips]) -> dict[str, NDArray[np.float64]]:
    """Fit, for each route, the test whether a clip continues the one before."""
    weights = {}
    for route in ROUTES:
        sides: list[list[NDArray[np.float64]]] = [[], []]
        for clips in sets:
            for side, picked in zip(sides, (clips.cut, ~clips.cut), strict=True):
                indices = np.flatnonzero(clips.joined & picked)
                if len(indices):
                    side.append(_seam_features(encoder, clips, route, indices))
        cut, going_on = (np.concatenate(side) if side else np.zeros((0, SEAM_FEATURES)) for side in sides)
        # Both sides get the same number of windows, so that neither is likelier from the start.
        count = min(len(cut), len(going_on))
        if not count:
            continue
        even = [side[np.linspace(0, len(side) - 1, count).astype(int)] for side in (cut, going_on)]
        weights[route] = brain_maps.fit_logistic(np.concatenate(even), np.repeat([0.0, 1.0], count))
    return weights


@torch.no_grad()
def _seam_features(
    encoder: CompactEncoder, clips: Clips, route: str, indices: NDArray[np.int64]
) -> NDArray[np.float64]:
    features = []
    # A part at a time, because latents may not fit into memory.
    for rows in np.array_split(indices, -(-len(indices) // _STILLS)):
        before = torch.from_numpy(clips.latents[rows - 1][:, :, -1:].astype(np.float32))
        latents = encoder.draw(torch.from_numpy(clips.glimpses[route][rows]))
        cuts = torch.from_numpy(clips.cuts_told[rows] * ("eeg" in brain_maps.GROUPS[route]))
        features.append(encoder.seam_features(cuts, latents, before).numpy().astype(np.float64))
    return np.concatenate(features)


def encoder_arrays(fitted: Arrays, codec: Arrays, clips: Clips) -> Arrays:
    """Collect the encoder's fitted arrays. Weights of seam, presence and confidence come later."""
    shape = clips.latents.shape[1:]
    names = ("voxels", "mixing", "cosines", *(f"{m}_feature_mean" for m in ("eeg", "fmri")))
    names += ("cut_kernel", "cut_offset", "onset_kernel", "onset_offset")
    maps = [f"{route}_{group}" for route, groups in brain_maps.GROUPS.items() for group in groups]
    arrays = {name: fitted[name] for name in (*names, *maps)}
    arrays |= {n: value for n, value in fitted.items() if n.startswith((PREFIX, evidence.PREFIX))}
    space = space_of(fitted)
    frame, offset = seam_frame(codec)
    # With an offset of -9 no clip continues the one before, until `fit_seam` gives other weights.
    blank = {f"seam_{route}": np.append(np.zeros(SEAM_FEATURES), -9.0) for route in brain_maps.GROUPS}
    blank |= {f"confidence_{route}": np.zeros(DOUBT + 1) for route in brain_maps.GROUPS}
    blank |= {f"neither_{route}": np.zeros(2 * evidence.COUNT + 1) for route in brain_maps.GROUPS}
    blank |= {"inconsistent": np.zeros(2 * evidence.COUNT + 1)}
    return (
        arrays
        | blank
        | {
            "reads": np.ones(2),
            "cut_bins": cuts.bins(len(fitted["cosines"]), clips.cuts_told.shape[1]),
            "basis": space.basis.astype(np.float16),
            "pictures": space.pictures.astype(np.float16),
            "latent_mean": space.latent_mean,
            "varied": (space.variations * space.structure_scale).astype(np.float16),
            "seam_frame": frame.astype(np.float32),
            "seam_offset": offset[:, None, None, None].astype(np.float32),
            **still(codec, clips.latents[:: -(-len(clips.latents) // _STILLS)]),
            "latent_shape": np.array(shape),
        }
    )


def still(codec: Arrays, latents: NDArray[Any]) -> Arrays:
    """Fit the map that shows the end of the clip before, see `train.parts.codecs.patch.fit_still`.

    Returns
    -------
    dict
        ``still_weight``, ``still_bias``.
    """
    latents = latents.astype(np.float32)
    ends = decode(decoder_of(codec), latents)[:, -1:]
    # Clips of two latent frames that show the last video frame throughout; the first one is wanted.
    standing = encode_scaled(codec, np.repeat(ends, patch.FRAMES + 1, axis=1))[:, :, 0]
    weight, bias = fit_still(latents[:, :, -CARRIED:], standing)
    return {"still_weight": weight.numpy(), "still_bias": bias.numpy()}


def seam_frame(codec: Arrays) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return matrix and offset that turn a latent frame into that of its last video frame standing still."""
    basis = codec["codec_basis"].astype(np.float64)
    mean = codec["codec_mean"].astype(np.float64)
    # As in `encode_scaled`: the basis decodes scaled latents, and divided twice by the scale encodes.
    inverse = basis / codec["scale"] ** 2
    still = inverse.reshape(patch.FRAMES, -1, basis.shape[1]).sum(0)
    last = basis.reshape(patch.FRAMES, -1, basis.shape[1])[-1]
    return still.T @ last, still.T @ mean.reshape(patch.FRAMES, -1)[-1] - inverse.T @ mean
