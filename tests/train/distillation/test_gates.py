"""A student is held against its teacher, and each way to fail shows in the figure that names it."""

from typing import Any

import numpy as np
import pytest

from train.distillation import gates
from train.distillation.gates import Windows

COUNT = 24
LATENT = (3, 4, 4, 4)
_RNG = np.random.default_rng(0)
# What each window's brain tells, and what no brain does.
TOLD = _RNG.standard_normal((COUNT, *LATENT)).astype(np.float32)
SESSIONS = np.arange(COUNT) // 6


def frames(latents: np.ndarray) -> np.ndarray:
    grey = np.clip(128 + 30 * latents, 0, 255)
    return np.moveaxis(grey, 1, -1).astype(np.uint8)


def windows() -> Windows:
    truths = list(frames(TOLD))
    mean = np.full(truths[0][:-1].shape, 128.0)
    return Windows(truths, SESSIONS, SESSIONS, mean, frames, LATENT)


def sampler(heard: float = 1.0, noisy: float = 0.5, colour: float = 1.0, still: float = 0.0):
    """Draw what the brain tells, with some of the noise."""

    def draw(brain: str, rows: Any, noise: np.ndarray, steps: int) -> np.ndarray:
        shown = (rows + 6) % COUNT if brain == gates.OTHER else rows
        told = 0 * TOLD[shown] if brain == gates.NONE else TOLD[shown]
        own = TOLD[rows]
        made = heard * told + (1 - heard) * own + noisy * noise
        made = made + still * (made.mean(2, keepdims=True) - made)
        grey = made.mean(1, keepdims=True)
        return (grey + colour * (made - grey)).astype(np.float32)

    return draw


TEACHER = sampler()


@pytest.fixture(scope="module")
def held() -> gates.Reference:
    return gates.reference(TEACHER, windows(), few=8, seeds=2, steps=3)


def test_the_teacher_itself_passes_every_gate(held):
    found = gates.measure(TEACHER, windows(), held, 4)
    assert found["error"] == 0
    lost = found["identification"]
    assert (lost["value"], lost["ci95"], lost["n"]) == (0.0, [0.0, 0.0], COUNT)
    assert lost["interval"]["units"] == len(np.unique(windows().groups))
    for name in ("motion", "saturation", "diversity", "brain_sensitivity"):
        assert found[name] == pytest.approx(1)
    assert gates.failed(found) == []


@pytest.mark.parametrize(
    ("student", "missed"),
    [
        (sampler(heard=0.5), "brain_sensitivity"),
        (sampler(noisy=0.2), "diversity"),
        (sampler(colour=0.5), "saturation"),
        (sampler(still=0.6), "motion"),
        (sampler(noisy=4.0), "identification"),
    ],
)
def test_each_failure_shows_in_its_gate(held, student, missed):
    found = gates.measure(student, windows(), held, 4)
    assert missed in gates.failed(found)


def test_sensitivity_is_the_smaller_of_both_and_each_is_told(held):
    found = gates.measure(sampler(heard=0.5), windows(), held, 4)
    assert found["brain_sensitivity_other"] == pytest.approx(0.5, abs=0.05)
    both = found["brain_sensitivity_other"], found["brain_sensitivity_none"]
    assert found["brain_sensitivity"] == min(both)
