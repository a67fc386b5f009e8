"""The student of the video flow begins as its teacher and comes nearer to its many guided steps."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from rtdecode.errors import UsageError
from tests.refusals import refused
from tests.train.lines import CPU, EXACT, nothing
from tests.train.models.compact.small import few_clips
from tests.train.models.compact.test_flow import FLOW, MIXTURE, NOTHING, SHAPE, WIDE, _Encoder
from train.distillation.dmd import CRITIC, MATCHING
from train.distillation.targets import DIFFERENCE, ROLLOUT, Distillation
from train.distillation.teaching import FLOW_MAP, teaches_student
from train.models.compact.batches import Batch, batch
from train.models.compact.distilled import check_critics
from train.models.compact.flow import Denoiser, VideoFlow
from train.models.compact.student import FLOW as STUDENT
from train.models.compact.student import TEACHER, Student, mean_velocity, student_of
from train.models.compact.system import distilled, sample, student
from train.trainer import adapters, loop
from train.trainer.adapters import Adapter
from train.trainer.loader import Place

LAYERS = ["space1", "space2", "modulate", "to_q", "to_k", "to_v", "to_out", "down"]
LORA = Adapter(LAYERS, 4, 4, merge=False)
DISTILLED = replace(
    EXACT,
    losses={FLOW_MAP: 1.0},
    trained=["student.flow.span.*", "student.flow.leave.*"],
    adapters={STUDENT: LORA},
    steps=2,
    accumulate=1,
)
# The student's own adapter goes on learning, and the critic has one of its own.
MATCHED = replace(
    DISTILLED,
    losses={MATCHING: 1.0, CRITIC: 1.0},
    trained=["student.flow.*.lora_*", *DISTILLED.trained],
    adapters={TEACHER: LORA},
)


def teacher(guidance: float = 1.0) -> Denoiser:
    torch.manual_seed(3)
    flow = VideoFlow(**FLOW)
    for p in flow.parameters():
        torch.nn.init.normal_(p, std=0.1)
    return Denoiser(flow, 5.0, guidance, 0.5, torch.randn(16), NOTHING).eval()


def random_conditions(rows: int) -> tuple[torch.Tensor, torch.Tensor]:
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
    conditions = random_conditions(2)
    noise = torch.randn(2, *SHAPE)
    expected = sample(teacher(1.0), noise, *conditions, 3)
    torch.testing.assert_close(sample(student_of(teacher(2.5)), noise, *conditions, 3), expected)


def test_only_adapters_and_spans_learn_and_the_teacher_stays():
    system = Student(_Encoder(), teacher(), Distillation())  # type: ignore[arg-type]
    assert not any(p.requires_grad for p in system.parameters())
    student_names = {n for n, _ in system.student.flow.named_parameters()}
    teacher_names = {n for n, _ in system.teacher.flow.named_parameters()}
    assert {n.partition(".")[0] for n in student_names - teacher_names} == {"span"}


def test_levels_of_their_own_give_each_row_what_it_has_alone():
    torch.manual_seed(1)
    guided = teacher(2.0)
    conditions = random_conditions(3)
    latents = torch.randn(3, *SHAPE)
    level = torch.tensor([0.9, 0.5, 0.2])
    together = guided.clean(latents, level, *conditions)
    for row in range(3):
        single = slice(row, row + 1)
        alone = guided.clean(latents[single], level[single], *(part[single] for part in conditions))
        torch.testing.assert_close(together[single], alone, atol=1e-5, rtol=1e-4)


def small_batch(place: Place) -> Batch:
    return batch(few_clips(), MIXTURE, 5.0, place)


def criticised(guidance: float) -> Student:
    """A student that may learn, whose clips are brighter than its teacher's, and a critic."""
    system = taught(Distillation(), guidance)
    adapters.inject(system, TEACHER, "match", LORA)
    for name, parameter in system.teacher.named_parameters():
        parameter.requires_grad_(".lora_" in name)
    with torch.no_grad():
        system.student.flow.get_parameter("leave.bias").add_(1)
    return system


@pytest.mark.parametrize(("name", "part"), [(MATCHING, "student."), (CRITIC, "teacher.")])
def test_each_loss_of_the_second_stage_teaches_its_own_side(name: str, part: str):
    system = criticised(2.0)
    # So that the other matrix of each adapter has a gradient, too.
    for parameter_name, parameter in system.named_parameters():
        if ".lora_B." in parameter_name:
            torch.nn.init.normal_(parameter, std=0.05)
    torch.manual_seed(0)
    system.losses(small_batch(Place("match", 2, 0, 0, 0)), [name])[name].backward()
    reached = {
        parameter_name
        for parameter_name, parameter in system.named_parameters()
        if parameter.grad is not None
    }
    expected = {
        parameter_name
        for parameter_name, p in system.named_parameters()
        if p.requires_grad and parameter_name.startswith(part)
    }
    assert any(".lora_A." in parameter_name for parameter_name in expected)
    assert reached == expected
    assert all(
        system.get_parameter(parameter_name).grad.any()
        for parameter_name in expected
        if ".lora_" in parameter_name
    )  # type: ignore[union-attr]


def test_what_a_critic_learns_of_clips_that_are_too_bright_darkens_them():
    system = criticised(1.0)
    examples = small_batch(Place("match", 4, 0, 0, 0))
    # No clip before.
    examples = replace(examples, glimpses=torch.zeros_like(examples.glimpses))

    def losses() -> dict[str, torch.Tensor]:
        # The same draws each time, so that the losses say what was learned.
        torch.manual_seed(0)
        return system.losses(examples, [MATCHING, CRITIC])

    before = losses()
    # Without guidance, a critic that has not learned is the teacher.
    assert before[MATCHING] == 0
    assert before[CRITIC] > 0
    learned = [p for name, p in system.teacher.named_parameters() if ".lora_" in name]
    optimizer = torch.optim.Adam(learned, lr=1e-2)
    for _ in range(15):
        optimizer.zero_grad()
        losses()[CRITIC].backward()
        optimizer.step()
    after = losses()
    assert after[CRITIC] < 0.99 * before[CRITIC]
    after[MATCHING].backward()
    slope = system.student.flow.get_parameter("leave.bias").grad
    assert slope is not None
    assert slope.mean() > 0


def test_critics_are_nothing_to_the_teacher_and_to_what_a_run_keeps(tmp_path: Path):
    system = Student(_Encoder(), teacher(2.0), Distillation(steps=1, pairs=1))  # type: ignore[arg-type]
    before = {name: value.clone() for name, value in system.teacher.state_dict().items()}
    torch.manual_seed(1)
    path = torch.randn(2, *SHAPE), torch.tensor([0.9, 0.4])
    conditions = random_conditions(2)
    with torch.no_grad():
        expected = mean_velocity(system.teacher, *conditions, *path, path[1])
    phases = {"distill": DISTILLED, "match": MATCHED}
    loop.train(system, phases, small_batch, tmp_path, nothing, machine=CPU)
    critics = {name: p for name, p in system.teacher.named_parameters() if ".match." in name}
    assert any(p.any() for name, p in critics.items() if ".lora_B." in name)

    def distillation_loss() -> torch.Tensor:
        # The same draws each time. Its target is the teacher's guided velocity.
        torch.manual_seed(2)
        return system.losses(small_batch(Place("distill", 4, 0, 0, 0)), [FLOW_MAP])[FLOW_MAP]

    beside_critics = distillation_loss()
    adapters.remove(system.teacher.flow)
    assert torch.equal(distillation_loss(), beside_critics)
    with torch.no_grad():
        velocity = mean_velocity(system.teacher, *conditions, *path, path[1])
    torch.testing.assert_close(velocity, expected, rtol=0, atol=0)
    after = system.teacher.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    saved = student(system, {"distill": LORA})
    assert any(".lora_B.distill." in name for name in saved)
    assert not any("match" in name or "base_layer" in name for name in saved)
    arrays = {name.removeprefix("student."): value for name, value in saved.items()}
    restored = distilled(system.teacher, arrays)
    torch.testing.assert_close(
        sample(restored, path[0], *conditions, 2),
        sample(system.student, path[0], *conditions, 2),
        atol=0.02,
        rtol=0.02,
    )


def test_phases_that_would_match_clips_wrongly_are_refused():
    assert teaches_student(MATCHED, Student.offered)
    assert not teaches_student(replace(MATCHED, losses={"velocity": 1.0, CRITIC: 1.0}), Student.offered)
    check_critics({"distill": DISTILLED, "match": MATCHED})
    with refused(
        UsageError,
        "critic-missing-loss",
        phase="match",
        matching_loss="distribution_matching",
        critic_loss="critic",
    ):
        check_critics({"match": replace(MATCHED, losses={MATCHING: 1.0})})
    for put_on in ({}, {TEACHER: replace(LORA, merge=True)}):
        with refused(UsageError, "critic-missing-adapter", part="teacher.flow"):
            check_critics({"match": replace(MATCHED, adapters=put_on)})
    with refused(UsageError, "critic-trains-teacher-weights", pattern="*"):
        check_critics({"match": replace(MATCHED, trained=["*"])})


@pytest.mark.parametrize("target", [ROLLOUT, DIFFERENCE])
def test_training_lets_the_student_predict_its_teachers_mean_velocities(target):
    system = taught(Distillation(target=target, steps=2, pairs=3), 2.0)
    examples = batch(few_clips(), MIXTURE, 5.0, Place("distill", 2, 0, 0, 0))
    learned = [p for p in system.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(learned, lr=1e-2)
    losses = []
    for _ in range(20):
        # The same pairs each time, so that the loss says what was learned.
        torch.manual_seed(0)
        loss = system.losses(examples, ["flow_map"])["flow_map"]
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
    saved = student(system, {"distill": Adapter(LAYERS, 4, 4)})
    assert all(value.dtype == np.float16 for name, value in saved.items() if name != "student.adapters")
    arrays = {name.removeprefix("student."): value for name, value in saved.items()}
    restored = distilled(system.teacher, arrays)
    conditions = random_conditions(1)
    noise = torch.randn(1, *SHAPE)
    # Weights are rounded to half precision.
    torch.testing.assert_close(
        sample(restored, noise, *conditions, 2),
        sample(system.student, noise, *conditions, 2),
        atol=0.02,
        rtol=0.02,
    )
    with refused(UsageError, "student-unknown-weights", weights=["other.lora_A.distill.weight"]):
        distilled(system.teacher, arrays | {"other.lora_A.distill.weight": np.zeros((4, 4), np.float16)})


def test_a_target_that_is_not_known_is_refused():
    with refused(
        UsageError,
        "distillation-target-unknown",
        available=["teacher_rollout", "central_difference"],
        target="x",
    ):
        Distillation(target="x")
