"""The student of the video flow begins as its teacher and comes nearer to its many guided steps."""

import numpy as np
import pytest
import torch

from rtdecode.errors import UsageError
from tests.train.models.compact.small import few_clips
from tests.train.models.compact.test_flow import FLOW, MIXTURE, NOTHING, SHAPE, WIDE, _Encoder
from train import adapters
from train.adapters import Adapter
from train.distillation.targets import DIFFERENCE, ROLLOUT, Distillation
from train.loader import Place
from train.models.compact.batches import batch
from train.models.compact.flow import Denoiser, VideoFlow
from train.models.compact.student import Student, student_of
from train.models.compact.system import distilled, sample, student

LAYERS = ["space1", "space2", "modulate", "to_q", "to_k", "to_v", "to_out", "down"]


def teacher(guidance: float = 1.0) -> Denoiser:
    torch.manual_seed(3)
    flow = VideoFlow(**FLOW)
    for p in flow.parameters():
        torch.nn.init.normal_(p, std=0.1)
    return Denoiser(flow, 5.0, guidance, 0.5, torch.randn(16), NOTHING).eval()


def told(rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    condition = torch.randn(rows, WIDE, *SHAPE[1:])
    # No clip before, neither to be joined nor to be dissolved from.
    condition[:, 32] = 0
    condition[:, -1] = 0
    return condition, torch.randn(rows, 16)


def learns(name: str) -> bool:
    return ".lora_" in name or any(part in name for part in ("span.", "enter.", "leave."))


def taught(how: Distillation, guidance: float) -> Student:
    """A student with its adapters, which may learn."""
    system = Student(_Encoder(), teacher(guidance), how)  # type: ignore[arg-type]
    adapters.inject(system, "student.flow", "distill", Adapter(LAYERS, 4, 4))
    for name, parameter in system.student.named_parameters():
        parameter.requires_grad_(learns(name))
    return system


def test_a_student_that_has_not_learned_draws_as_its_teacher_without_guidance():
    torch.manual_seed(0)
    given = told(2)
    noise = torch.randn(2, *SHAPE)
    expected = sample(teacher(1.0), noise, *given, 3)
    torch.testing.assert_close(sample(student_of(teacher(2.5)), noise, *given, 3), expected)


def test_only_adapters_and_spans_learn_and_the_teacher_stays():
    system = Student(_Encoder(), teacher(), Distillation())  # type: ignore[arg-type]
    assert not any(p.requires_grad for p in system.parameters())
    own = {n for n, _ in system.student.flow.named_parameters()}
    theirs = {n for n, _ in system.teacher.flow.named_parameters()}
    assert {n.partition(".")[0] for n in own - theirs} == {"span"}


def test_levels_of_their_own_give_each_row_what_it_has_alone():
    torch.manual_seed(1)
    guided = teacher(2.0)
    given = told(3)
    latents = torch.randn(3, *SHAPE)
    level = torch.tensor([0.9, 0.5, 0.2])
    together = guided.clean(latents, level, *given)
    for row in range(3):
        one = slice(row, row + 1)
        alone = guided.clean(latents[one], level[one], *(part[one] for part in given))
        torch.testing.assert_close(together[one], alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("target", [ROLLOUT, DIFFERENCE])
def test_training_lets_the_student_predict_its_teachers_mean_velocities(target):
    system = taught(Distillation(target=target, steps=2, pairs=3), 2.0)
    drawn = batch(few_clips(), MIXTURE, 5.0, Place("distill", 2, 0, 0, 0))
    learned = [p for p in system.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(learned, lr=1e-2)
    losses = []
    for _ in range(20):
        # The same pairs each time, so that the loss says what was learned.
        torch.manual_seed(0)
        loss = system.losses(drawn, ["flow_map"])["flow_map"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.95 * losses[0]


def test_what_a_run_keeps_makes_the_same_student_again():
    system = taught(Distillation(), 2.0)
    torch.manual_seed(2)
    for name, parameter in system.student.named_parameters():
        if learns(name):
            torch.nn.init.normal_(parameter, std=0.05)
    kept = student(system, {"distill": Adapter(LAYERS, 4, 4)})
    assert all(value.dtype == np.float16 for name, value in kept.items() if name != "student.adapters")
    arrays = {name.removeprefix("student."): value for name, value in kept.items()}
    made = distilled(system.teacher, arrays)
    given = told(1)
    noise = torch.randn(1, *SHAPE)
    # Weights are rounded to half precision.
    torch.testing.assert_close(
        sample(made, noise, *given, 2), sample(system.student, noise, *given, 2), atol=0.02, rtol=0.02
    )
    with pytest.raises(UsageError, match="the run's student has weights that its flow does not: other"):
        distilled(system.teacher, arrays | {"other.lora_A.distill.weight": np.zeros((4, 4), np.float16)})


def test_a_target_that_is_not_known_is_refused():
    with pytest.raises(
        UsageError, match="target must be one of teacher_rollout, central_difference, found 'x'"
    ):
        Distillation(target="x")
