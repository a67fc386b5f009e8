"""A linear classifier that shows a picture of the likeliest category: a system in closed form.

`Category` computes in numpy, and `graphs` writes the same computation as ONNX graphs: from volumes to scores
and a one-hot latent, and from latent frames to pictures. It is the shortest of the shipped systems.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from rtdecode.bundle import Manifest
from train.closed_form.graph_writer import GraphWriter
from train.closed_form.lda import softmax
from train.closed_form.stem import slot_mean
from train.config.run_context import Arrays
from train.interface.system import ClosedForm, Condition, batched, signal_ports

# Latent frames of a clip. The first one holds one video frame, each later one `_FRAMES`.
_LATENT_FRAMES = 9
_FRAMES = 4


class Category(ClosedForm):
    """A linear discriminant of the mean of a window's volumes. Its latents are the likeliest category.

    Parameters
    ----------
    weights : dict
        ``weights`` (voxel, label), ``offset`` (label,), ``pictures`` (label, row, column, 3).
    """

    def __init__(self, weights: Arrays) -> None:
        super().__init__(weights)
        self.latent_shape = (len(weights["pictures"]), _LATENT_FRAMES, 1, 1)

    def condition(self, inputs: Arrays) -> Condition:
        """Classify windows: return scores, and the finished latents, one-hot and float64."""
        mean = slot_mean(inputs["fmri"], inputs["fmri_mask"])
        weights = self._weights["weights"].astype(np.float64)
        scores = softmax(mean @ weights + self._weights["offset"])
        hot = np.eye(scores.shape[1])[scores.argmax(1)]
        latents = np.repeat(hot[:, :, None, None, None], _LATENT_FRAMES, axis=2)
        return Condition(start=latents, start_level=0.0, scores=scores)

    def frames(self, latents: NDArray[Any]) -> NDArray[np.float64]:
        """Show the picture of the category that each latent frame names."""
        following = np.repeat(latents[:, :, 1:], _FRAMES, axis=2)
        frame_latents = np.concatenate([latents[:, :, :1], following], axis=2)[..., 0, 0]
        return np.einsum("nlf,lhwc->nfhwc", frame_latents, self._weights["pictures"] / 255.0)

    def graphs(self, manifest: Manifest) -> dict[str, ModelProto]:
        """Write the encoder and the two ways to decode a latent frame."""
        return graphs(manifest, self._weights)


def graphs(manifest: Manifest, weights: Arrays) -> dict[str, ModelProto]:
    """Build the graphs of a classifier that shows a picture of the best category.

    Parameters
    ----------
    manifest : Manifest
        Says what signals come in, and the number of frames of a clip.
    weights : dict
        ``weights`` (voxel, label), ``offset`` (label,), ``pictures`` (label, row, column, 3).
    """
    # The encoder: scores of the categories, and the best one as a latent that is one-hot in all frames.
    pictures = weights["pictures"]
    labels, height, width = pictures.shape[:3]
    latents = (manifest.clip.frames - 1) // 4 + 1
    writer = GraphWriter()
    latent_frame = [1, labels, 1, 1, 1]
    scores = writer.add("Softmax", _logits(writer, weights), axis=1)
    best = writer.add("ArgMax", scores, axis=1, keepdims=0)
    depth = writer.constant(np.array(labels, np.int64))
    values = writer.constant(np.array([0, 1], np.float32))
    hot = writer.shaped(writer.add("OneHot", best, depth, values), *latent_frame)
    shape = [1, labels, latents, 1, 1]
    latent = writer.add("Expand", hot, writer.constant(np.array(shape, np.int64)))
    outputs = {"latent": (latent, shape), "scores": (scores, [1, labels])}
    return {
        "encode": writer.model("encode", batched(signal_ports(manifest)), outputs),
        "decode_first": _page("decode_first", pictures, 1, [1, 1, height, width, 3], latent_frame),
        "decode_next": _page("decode_next", pictures, 4, [1, 4, height, width, 3], latent_frame),
    }


def _logits(writer: GraphWriter, weights: Arrays) -> str:
    """Add nodes that multiply the mean of the volumes that are there by the weights."""
    axis = writer.constant(np.array([1], np.int64))
    # At least 1, so that a window without a volume has a mean of zeros and not of NaN.
    count = writer.add("ReduceSum", "fmri_mask", axis, keepdims=1)
    share = writer.add("Div", "fmri_mask", writer.add("Max", count, writer.constant(np.float32(1))))
    mean = writer.add("MatMul", writer.add("Unsqueeze", share, axis), "fmri")
    product = writer.add("MatMul", writer.add("Squeeze", mean, axis), writer.constant(weights["weights"]))
    return writer.add("Add", product, writer.constant(weights["offset"]))


def _page(name: str, pictures: NDArray[Any], repeat: int, shape: list[int], latent: list[int]) -> ModelProto:
    # The product of a one-hot latent and all pictures is one of the pictures.
    writer = GraphWriter()
    bank = writer.constant(pictures.reshape(len(pictures), -1))
    bright = writer.add("MatMul", writer.shaped("latent", 1, len(pictures)), bank)
    scaled = writer.add("Mul", bright, writer.constant(np.float32(1 / 255)))
    frame = writer.shaped(scaled, 1, 1, *shape[2:])
    frames = writer.add("Expand", frame, writer.constant(np.array(shape, np.int64))) if repeat > 1 else frame
    return writer.model(name, {"latent": latent}, {"frames": (frames, shape)})
