"""A brain encoder with few weights and a few clips, drawn at random, for the tests of their parts."""

import numpy as np
import torch

from rtdecode.bundle.brain import MODALITIES
from train.closed_form.brain_maps import GROUPS
from train.closed_form.cuts import TAPS, bins
from train.closed_form.refine import ROUTES
from train.config.run_context import Arrays
from train.models.compact.batches import Clips
from train.models.compact.encoder import DOUBT, SEAM_FEATURES, CompactEncoder
from train.models.compact.evidence import COLUMNS, COUNT
from train.models.compact.refiner import Refiner

SHAPE = (2, 3, 2, 2)
CLIP_SHAPE = (16, 9, 8, 12)
COMPONENTS = 7
PICTURES = 4
VARIATIONS = 3
VALUES = PICTURES + VARIATIONS
# Features of 5 volumes in 3 components, and of 4 mixed channels at 6 frequencies.
FEATURES = {"fmri": 5 * 3, "eeg": 4 * 6}
_AXES = 4


def small_encoder() -> CompactEncoder:
    """Make one for 6 channels of 10 samples, and 5 volumes of 7 voxels."""
    torch.manual_seed(0)
    return CompactEncoder(small_arrays(), 8).eval()


def small_arrays() -> Arrays:
    """Draw the arrays of one."""
    rng = np.random.default_rng(0)

    def draw(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    arrays = {
        "latent_shape": np.array(SHAPE),
        "voxels": np.linalg.qr(draw(7, 3))[0].astype(np.float16),
        "mixing": draw(4, 6),
        "cosines": draw(10, 6),
        "basis": draw(COMPONENTS, 3 * VALUES).astype(np.float16),
        "pictures": draw(PICTURES, 8).astype(np.float16),
        "latent_mean": draw(8),
        "varied": draw(VARIATIONS, 24).astype(np.float16),
        "seam_frame": np.eye(2, dtype=np.float32),
        "seam_offset": np.zeros((2, 1, 2, 2), np.float32),
        "still_weight": draw(2, 4, 3, 3),
        "still_bias": draw(2),
        "reads": np.ones(2),
        "cut_bins": bins(10, 8),
        "cut_kernel": draw(1, 4, TAPS),
        "cut_offset": draw(1),
        "onset_kernel": draw(VALUES, 4, TAPS),
        "onset_offset": draw(VALUES),
        "inconsistent": draw(2 * COUNT + 1),
    }
    arrays |= {f"{name}_feature_mean": draw(size) for name, size in FEATURES.items()}
    arrays |= {
        f"{r}_{g}": 0.1 * draw(FEATURES[g], COMPONENTS) for r, groups in GROUPS.items() for g in groups
    }
    for route in ROUTES:
        # What a route does not know has no weight.
        route_mask = np.zeros(COUNT)
        route_mask[COLUMNS[route]] = 1
        arrays[f"seam_{route}"] = np.append(np.zeros(SEAM_FEATURES), -9.0)
        arrays[f"confidence_{route}"] = draw(DOUBT + 1) * np.concatenate([[1, 1], route_mask, [1]])
        arrays[f"neither_{route}"] = draw(2 * COUNT + 1) * np.concatenate([route_mask, route_mask, [1]])
    torch.manual_seed(0)
    state = Refiner(SHAPE[1], VALUES, 6).state_dict()
    arrays |= {f"refiner.{name}": value.numpy() for name, value in state.items()}
    measured = {
        "fmri_spread": np.ones(FEATURES["fmri"]),
        "eeg_spread": np.ones(FEATURES["eeg"]),
        "axes": draw(FEATURES["fmri"], _AXES),
        "told": draw(FEATURES["eeg"], _AXES),
        "trust": np.full(_AXES, 1 / _AXES),
        "weight": np.full(COMPONENTS, 1 / COMPONENTS),
        "film_fmri": draw(COMPONENTS, 2),
        "film_eeg": draw(COMPONENTS, 2),
        "gain_fmri": np.ones((2, 1)),
        "gain_eeg": np.ones((2, 1)),
        "pair_fmri": draw(COMPONENTS, 2),
        "pair_eeg": draw(COMPONENTS, 2),
        "pair": np.array([0.5, 0.3]),
        "middle": draw(COUNT),
        "scale": np.ones(COUNT),
    }
    for name in MODALITIES:
        count = len(range(COUNT)[COLUMNS[name]])
        measured[f"{name}_middle"] = 0.1 * draw(2, count)
        # Far from both middles, and still within: the edge is at the distance 1.
        measured[f"{name}_root"] = np.stack([0.08 * np.eye(count)] * 2)
    arrays |= {f"evidence.{name}": value for name, value in measured.items()}
    return arrays


def few_clips() -> Clips:
    """Make two sessions of three clips."""
    rng = np.random.default_rng(5)
    glimpses = {r: rng.standard_normal((6, 3, VALUES)).astype(np.float32) for r in ROUTES}
    latents = rng.standard_normal((6, *CLIP_SHAPE)).astype(np.float16)
    joined = np.arange(6) % 3 > 0
    kinds = np.array(["natural", "natural", "natural", "shapes", "shapes", "shapes"])
    return Clips(
        latents, glimpses, rng.random((6, 32), np.float32), joined, ~joined, kinds, np.arange(6) // 3
    )
