"""Wan's step has diffusers' schedule and arithmetic, and its graphs compute the same without ScatterND."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from torch import Tensor

from benchmarks.full_size_export import exported
from rtdecode.errors import UsageError
from tests.refusals import refused
from train.distillation.clock import FLOW, Schedule
from train.distillation.interval_embedding import add_spans
from train.distillation.student import FlowMap
from train.parts.generators.wan import FlowStep, VideoFlow, WanSizes, transformer_of

_SIZES = WanSizes(heads=2, head=12, layers=2, inner=24, text=8, time=16)
_LATENT = (4, 3, 4, 6)
_SHIFT = 5.0


def _transformer(layers: int = 2) -> WanTransformer3DModel:
    """Every call makes the same one."""
    torch.manual_seed(0)
    return transformer_of(replace(_SIZES, layers=layers), _LATENT[0]).eval()


def _inputs() -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randn(2, *_LATENT), torch.randn(2, 5, 8)


def _null() -> Tensor:
    torch.manual_seed(2)
    return torch.randn(5, 8)


@pytest.mark.parametrize("strength", [1.0, 5.0])
@pytest.mark.parametrize("steps", [1, 4])
def test_steps_are_those_of_diffusers(steps: int, strength: float) -> None:
    # diffusers' own attention, with its own rotary arithmetic.
    stock = _transformer()
    noise, tokens = _inputs()
    scheduler = FlowMatchEulerDiscreteScheduler(shift=_SHIFT)
    scheduler.set_timesteps(sigmas=[1 - n / steps for n in range(steps)])
    latent = noise
    with torch.no_grad():
        for t in scheduler.timesteps:
            towards = stock(latent, t.expand(2), tokens, return_dict=False)[0]
            away = stock(latent, t.expand(2), _null().expand(2, -1, -1), return_dict=False)[0]
            guided = away + strength * (towards - away)
            latent = scheduler.step(guided, t, latent, return_dict=False)[0]
    sampled = VideoFlow(_transformer(), _SHIFT).step(_null(), strength).sample(noise, tokens, steps)
    assert (sampled - noise).abs().max() > 0.1
    assert torch.allclose(sampled, latent, atol=1e-5)


def test_a_step_may_be_of_any_length() -> None:
    """A step moves along the velocity by the difference of the shifted levels."""
    flow = VideoFlow(_transformer(), _SHIFT)
    noise, tokens = _inputs()
    with torch.no_grad():
        stepped = FlowStep(flow, _null())(noise, tokens, torch.tensor([0.5]), torch.tensor([0.2]))
        # 5 * 0.5 / (1 + 4 * 0.5), and the same of 0.2.
        velocity = flow(noise, torch.full((2,), 5 / 6), tokens)
    assert torch.allclose(stepped, noise + (5 / 9 - 5 / 6) * velocity, atol=1e-6)


def test_the_loss_is_the_error_of_the_velocity() -> None:
    flow = VideoFlow(_transformer(), _SHIFT)
    noise, tokens = _inputs()
    torch.manual_seed(3)
    latents = torch.randn(2, *_LATENT)
    # Numbers 199 and 999 are a fifth of the clock, and its end: 5 * 0.2 / (1 + 4 * 0.2).
    sigma = torch.tensor([5 / 9, 1.0])
    share = sigma.view(-1, 1, 1, 1, 1)
    with torch.no_grad():
        velocity = flow((1 - share) * latents + share * noise, sigma, tokens)
        loss = flow.loss(latents, noise, torch.tensor([199, 999]), tokens)
    assert torch.allclose(loss, (velocity - (noise - latents)).square().mean(), rtol=1e-5)


@pytest.mark.parametrize(("opset", "fused"), [(23, True), (22, False)])
def test_graphs_compute_the_same(opset: int, fused: bool, tmp_path: Path) -> None:
    step = FlowStep(VideoFlow(_transformer(layers=1)), _null()).eval()
    noise, tokens = _inputs()
    inputs = {
        "latent": noise[:1],
        "condition": tokens[:1],
        "t": torch.tensor([0.75]),
        "r": torch.tensor([0.25]),
    }
    path = exported(step, inputs, opset, tmp_path)
    nodes = Counter(node.op_type for node in onnx.load(path).graph.node)
    assert nodes["ScatterND"] == nodes["ScatterElements"] == 0
    # The layer attends to itself and to the condition.
    assert nodes["Attention"] == (2 if fused else 0)
    assert nodes["Softmax"] == (0 if fused else 2)
    with torch.no_grad():
        expected = step(*inputs.values())
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (graph_output,) = session.run(None, {name: x.numpy() for name, x in inputs.items()})
    assert np.abs(np.asarray(graph_output) - expected.numpy()).max() < 1e-5


def test_by_default_it_is_wan_1_3b() -> None:
    with torch.device("meta"):
        transformer = transformer_of(WanSizes(), 16)
    assert sum(x.numel() for x in transformer.parameters()) / 1e9 == pytest.approx(1.419, abs=0.001)


def test_a_transformer_that_wants_an_image_is_refused() -> None:
    with torch.device("meta"):
        transformer = WanTransformer3DModel(
            num_attention_heads=1, attention_head_dim=12, num_layers=1, ffn_dim=8, added_kv_proj_dim=12
        )
    with refused(UsageError, "wan-image-to-video-unsupported", channels=16):
        VideoFlow(transformer)


def test_guidance_that_is_the_same_at_every_level_has_no_course() -> None:
    with refused(UsageError, "guidance-rise-unsupported", rise="level"):
        VideoFlow(_transformer()).step(_null(), 2.0, "level")


def test_the_graph_of_a_students_step_computes_the_same(tmp_path: Path) -> None:
    flow = VideoFlow(_transformer(layers=1))
    add_spans(flow.transformer)
    step = FlowMap(flow, Schedule(FLOW, shift=_SHIFT)).eval()
    noise, tokens = _inputs()
    with torch.no_grad():
        for name, parameter in step.named_parameters():
            if ".span." in name:
                parameter.normal_(std=0.1)
    inputs = {
        "latent": noise[:1],
        "condition": tokens[:1],
        "t": torch.tensor([0.75]),
        "r": torch.tensor([0.25]),
    }
    path = exported(step, inputs, 23, tmp_path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    # A graph that did not read where the step ends would be right at one end alone.
    for end in (0.25, 0.5):
        step_inputs = inputs | {"r": torch.tensor([end])}
        with torch.no_grad():
            expected = step(*step_inputs.values())
        (graph_output,) = session.run(None, {name: x.numpy() for name, x in step_inputs.items()})
        assert np.allclose(graph_output, expected.numpy(), atol=1e-5)
    mean = step.velocity(tokens[:1], noise[:1], torch.tensor([0.75]), torch.tensor([0.25]))
    shorter = step.velocity(tokens[:1], noise[:1], torch.tensor([0.75]), torch.tensor([0.5]))
    assert not torch.allclose(mean, shorter, atol=1e-3)
