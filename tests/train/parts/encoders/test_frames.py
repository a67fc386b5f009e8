"""From the embeddings of frames to the vector of a clip."""

import torch
from torch.nn import functional

from train.parts.encoders.frames import FrameHead, FramePooling


def _frames(seed: int = 0) -> torch.Tensor:
    return torch.randn(4, 6, 5, generator=torch.Generator().manual_seed(seed))


def test_frames_begin_with_one_weight_each_and_learn_others() -> None:
    pooling = FramePooling(6)
    frames = _frames()
    mean = functional.normalize(frames.mean(1), dim=1)
    torch.testing.assert_close(pooling(frames), mean)
    with torch.no_grad():
        pooling.weights.copy_(torch.tensor([0.0, 0, 3, 0, 0, 0]))
    torch.testing.assert_close(pooling(frames), functional.normalize(frames[:, 2], dim=1))


def test_a_head_is_linear_gelu_linear_over_the_weighted_frames() -> None:
    torch.manual_seed(1)
    head = FrameHead(6, 5, 3)
    with torch.no_grad():
        head.pooling.weights.normal_()
    frames = _frames()
    pooled = torch.einsum("f,cfe->ce", head.pooling.weights, frames)
    pooled = pooled / pooled.norm(dim=1, keepdim=True)
    state = head.state_dict()
    inner = pooled @ state["layers.0.weight"].T + state["layers.0.bias"]
    inner = inner * 0.5 * (1 + torch.erf(inner / 2**0.5))
    mapped = inner @ state["layers.2.weight"].T + state["layers.2.bias"]
    torch.testing.assert_close(head(frames), mapped / mapped.norm(dim=1, keepdim=True))
    head(frames)[:, 0].sum().backward()
    assert head.pooling.weights.grad is not None
    assert head.pooling.weights.grad.abs().min() > 0
