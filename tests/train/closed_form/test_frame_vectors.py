"""The frame network in numpy gives the vectors that it gives in torch."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from train.closed_form.frame_vectors import clip_vectors, packed, weights_of
from train.parts.encoders.film_net import FrameNet, pictures, scaled


@pytest.mark.parametrize(("rows", "columns", "stride"), [(64, 96, 1), (40, 60, 2)])
@torch.no_grad()
def test_vectors_of_clips_are_those_of_the_network(rows: int, columns: int, stride: int) -> None:
    torch.manual_seed(0)
    net = FrameNet(8).eval()
    stats = packed({name: value.numpy() for name, value in net.state_dict().items()})
    net.load_state_dict(
        {name.removeprefix("frame_net_"): torch.from_numpy(x).float() for name, x in stats.items()}
    )
    clips = np.random.default_rng(0).integers(0, 256, (3, 5, rows, columns, 3), np.uint8)
    looked_at = pictures(clips, stride)
    vectors = net(scaled(looked_at.reshape(-1, *looked_at.shape[2:]))).unflatten(0, looked_at.shape[:2])
    expected = functional.normalize(vectors.mean(1), dim=1).numpy()
    weights = weights_of(stats | {"fmri_mean": np.zeros(3)})
    assert weights is not None
    # Grey levels are rounded, half of them up and half of them down where a mean lies between two.
    np.testing.assert_allclose(clip_vectors(weights, clips, stride), expected, atol=2e-3)
    assert weights_of({"fmri_mean": np.zeros(3)}) is None
