"""Students of every kind of prediction: a flow, velocity with zero terminal SNR, and noise."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers.models.unets.unet_3d_condition import UNet3DConditionModel
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from torch import Tensor, nn

from rtdecode.errors import UsageError
from tests.refusals import refused
from tests.train.lines import EXACT
from train.distillation import student
from train.distillation.clock import NOISE, Schedule
from train.distillation.interval_embedding import SPAN, add_spans
from train.distillation.student import PART, FlowMap, Student, attached, learned
from train.distillation.student_weights import of_student, of_teacher, packed, put_on
from train.distillation.targets import DIFFERENCE, ROLLOUT, Distillation
from train.parts.generators import cogvideox, wan
from train.trainer import adapters
from train.trainer.adapters import Adapter

LATENT = (4, 3, 4, 6)
TOKENS = (5, 8)
LEVELS = 1000
SHIFT = 3.0
STRENGTH = 4.0
ADAPTER = Adapter(["to_q", "to_k", "to_v", "to_out.0", "proj_out", "conv_out", "net.2"], 8, 8, merge=False)
# The schedule of Stable Diffusion 1.5.
STABLE = DDIMScheduler(
    beta_start=0.00085,
    beta_end=0.012,
    beta_schedule="scaled_linear",
    clip_sample=False,
    timestep_spacing="trailing",
)


class Noise(nn.Module):
    """A transformer of CogVideoX that predicts the noise, at the levels of Stable Diffusion 1.5."""

    def __init__(self) -> None:
        super().__init__()
        model = velocity_model()
        self.own = [model]
        self.transformer: Any = model.transformer

    def forward(self, noisy: Tensor, level: Tensor, tokens: Tensor, span: Tensor | None = None) -> Tensor:
        prediction: Tensor = self.own[0](noisy, level, tokens, span)
        return prediction

    def schedule(self) -> Schedule:
        return Schedule(NOISE, STABLE.alphas_cumprod)


class Unet(nn.Module):
    """A small UNet of diffusers, which predicts the noise."""

    def __init__(self) -> None:
        super().__init__()
        self.transformer: Any = UNet3DConditionModel(
            sample_size=4,
            in_channels=4,
            out_channels=4,
            down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"),
            up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"),
            block_out_channels=(8, 8),
            layers_per_block=1,
            cross_attention_dim=TOKENS[1],
            attention_head_dim=4,
            norm_num_groups=4,
        )

    def forward(self, noisy: Tensor, level: Tensor, tokens: Tensor, span: Tensor | None = None) -> Tensor:
        span_embedding = None if span is None else self.transformer.time_proj(LEVELS * span)
        prediction: Tensor = self.transformer(
            noisy, level, tokens, timestep_cond=span_embedding, return_dict=False
        )[0]
        return prediction

    def schedule(self) -> Schedule:
        return Schedule(NOISE, STABLE.alphas_cumprod)


def velocity_model() -> nn.Module:
    sizes = cogvideox.VideoSizes(heads=2, head=16, layers=1, text=8, time=16, patch=2)
    return cogvideox.VideoDiffusion(cogvideox.transformer_of(sizes, LATENT), LATENT)


def flow_model() -> nn.Module:
    sizes = wan.WanSizes(heads=2, head=12, layers=1, inner=24, text=8, time=16)
    return wan.VideoFlow(wan.transformer_of(sizes, LATENT[0]), SHIFT)


KINDS: dict[str, Callable[[], nn.Module]] = {
    "flow": flow_model,
    "velocity": velocity_model,
    "noise": Noise,
    "unet": Unet,
}
LEARNING = (
    pytest.param("flow", marks=pytest.mark.full),
    "velocity",
    pytest.param("noise", marks=pytest.mark.full),
)


def video_model(kind: str) -> nn.Module:
    """Every call makes the same model. Its random weights attend strongly, so that conditions matter."""
    torch.manual_seed(0)
    model = KINDS[kind]()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "to_v." in name or "to_out." in name:
                parameter *= 5
    return model.eval()


@dataclass(frozen=True)
class Example:
    """What a batch is, and what its windows tell."""

    noise: Tensor
    tokens: Tensor
    null: Tensor

    @property
    def batch(self) -> dict[str, Tensor]:
        levels = torch.linspace(0.9, 0.3, len(self.noise))
        return {"noise": self.noise, "latents": 0.5 * self.noise.flip(0), "left": levels, "told": self.tokens}


def random_example(rows: int = 2) -> Example:
    torch.manual_seed(1)
    return Example(torch.randn(rows, *LATENT), 3 * torch.randn(rows, *TOKENS), 3 * torch.randn(*TOKENS))


class TokenEncoder(nn.Module):
    """An encoder whose windows tell the tokens themselves."""

    def forward(self, batch: Mapping[str, Tensor]) -> Any:
        return SimpleNamespace(tokens=batch["told"])


def guided(
    model: nn.Module, noisy: Tensor, level: Tensor, tokens: Tensor, null: Tensor, strength: float = STRENGTH
) -> Tensor:
    away = model(noisy, level, null.expand(len(noisy), -1, -1))
    return away + strength * (model(noisy, level, tokens) - away)


def system(kind: str, example: Example, how: Distillation, model: nn.Module | None = None) -> Student:
    """A student with its adapter, which may learn."""
    model = model or video_model(kind)
    add_spans(model.transformer)  # type: ignore[arg-type]
    step = FlowMap(model, model.schedule())

    def teacher(model: nn.Module, noisy: Tensor, level: Tensor, tokens: Tensor) -> Tensor:
        return guided(model, noisy, level, tokens, example.null)

    with_adapter = Student(TokenEncoder(), step, teacher, ["distill"], how)
    torch.manual_seed(2)
    adapters.inject(with_adapter, PART, "distill", ADAPTER)
    for name, parameter in with_adapter.named_parameters():
        parameter.requires_grad_(".lora_" in name or SPAN in name)
    return with_adapter


def euler_sample(
    velocity: Callable[[Tensor, Tensor], Tensor], schedule: Schedule, noise: Tensor, steps: int
) -> Tensor:
    """Take Euler steps along a velocity on the clock."""
    levels = [*schedule.levels(steps), 0.0]
    latents = noise * schedule.norm(torch.tensor(levels[0]))
    for now, until in pairwise(levels):
        latents = latents + (until - now) * velocity(latents, torch.full((len(noise),), now))
    return latents


def stock(kind: str, noise: Tensor, tokens: Tensor, steps: int) -> Tensor:
    """Let the model draw with the sampler of its own kind, without guidance."""
    model: Any = video_model(kind)
    null = torch.zeros(*TOKENS)
    if kind in ("flow", "velocity"):
        return model.step(null, 1.0).sample(noise, tokens, steps)
    STABLE.set_timesteps(steps)
    latent = noise
    for t in STABLE.timesteps:
        latent = STABLE.step(model(latent, t.expand(len(noise)), tokens), int(t), latent, return_dict=False)[
            0
        ]
    return latent


@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_a_student_that_has_not_learned_is_a_single_pass_of_its_teacher(kind: str, steps: int) -> None:
    example = random_example()
    untrained = system(kind, example, Distillation()).student
    sampled = student.sample(untrained, example.noise, example.tokens, steps)
    expected = stock(kind, example.noise, example.tokens, steps)
    assert (expected - example.noise).abs().max() > 0.1
    torch.testing.assert_close(sampled, expected, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("kind", LEARNING)
def test_a_student_learns_its_guided_teacher_which_stays_as_it_is(kind: str) -> None:
    example = random_example()
    taught = system(kind, example, Distillation(ROLLOUT, steps=4, pairs=6, shares=(0.4, 0.4, 0.1)))
    schedule = taught.student.schedule

    @torch.no_grad()
    def teacher(latents: Tensor, now: Tensor) -> Tensor:
        return taught.teacher(example.tokens, latents, now)

    with torch.no_grad():
        unguided = stock(kind, example.noise, example.tokens, 20)
        before = euler_sample(teacher, schedule, example.noise, 20)
    losses = trained(taught, example, 60, 1e-2)
    assert losses[-1] < 0.2 * losses[0]
    torch.testing.assert_close(euler_sample(teacher, schedule, example.noise, 20), before)
    sampled = student.sample(taught.student, example.noise, example.tokens, 2)
    undistilled = stock(kind, example.noise, example.tokens, 2)
    error = (sampled - before).square().mean()
    assert error < 0.3 * (undistilled - before).square().mean()
    assert error < 0.3 * (sampled - unguided).square().mean()


def test_a_student_learns_from_the_central_difference() -> None:
    example = random_example()
    taught = system("flow", example, Distillation(DIFFERENCE))
    losses = trained(taught, example, 40, 1e-3)
    assert losses[-1] < 0.8 * losses[0]


def trained(taught: Student, example: Example, steps: int, rate: float) -> list[float]:
    """Train on the same pairs at every step, so that the loss says what was learned."""
    optimizer = torch.optim.Adam([p for p in taught.parameters() if p.requires_grad], lr=rate)
    learns = {name for name, p in taught.named_parameters() if p.requires_grad}
    loss_history = []
    for _ in range(steps):
        torch.manual_seed(3)
        loss = taught.losses(example.batch, ["flow_map"])["flow_map"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss_history.append(float(loss.detach()))
    assert {name for name, p in taught.named_parameters() if p.requires_grad} == learns
    return loss_history


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_what_a_run_keeps_makes_the_same_student_again(kind: str) -> None:
    example = random_example()
    taught = system(kind, example, Distillation())
    torch.manual_seed(4)
    for parameter in taught.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.05)
    model: Any = taught.student.video
    saved = packed(learned(model.transformer, ["distill"]), {"distill": ADAPTER})
    teachers = {"transformer.x": saved["student.adapters"]}
    assert of_teacher(teachers | saved) == teachers
    assert of_teacher(teachers) is None
    again: Any = video_model(kind)
    add_spans(again.transformer)
    put_on(again.transformer, of_student(saved))
    assert not any(".lora_" in name for name, _ in again.named_parameters())
    sampled = student.sample(FlowMap(again, again.schedule()), example.noise, example.tokens, 2)
    expected = student.sample(taught.student, example.noise, example.tokens, 2)
    assert not torch.allclose(expected, stock(kind, example.noise, example.tokens, 2), atol=0.1)
    # Weights are rounded to half precision.
    torch.testing.assert_close(sampled, expected, atol=0.05, rtol=0.05)


def test_a_phase_that_would_change_the_teacher_is_refused() -> None:
    phase = replace(EXACT, trained=["*.span.*"], adapters={PART: ADAPTER})
    assert attached({"distill": phase}) == {"distill": ADAPTER}
    merging = replace(phase, adapters={PART: replace(ADAPTER, merge=True)})
    with refused(UsageError, "student-adapter-unsupported", merge=True):
        attached({"distill": merging})
    with refused(UsageError, "student-adapter-unsupported", part="encoder"):
        attached({"distill": replace(phase, adapters={"encoder": ADAPTER})})
    with refused(UsageError, "student-trains-teacher-weights", pattern="*proj_out*"):
        attached({"distill": replace(phase, trained=["*proj_out*"])})


def test_a_model_without_a_time_embedding_is_refused() -> None:
    with refused(UsageError, "distillation-missing-timestep-embedding", model_class="Linear"):
        add_spans(nn.Linear(2, 2))
