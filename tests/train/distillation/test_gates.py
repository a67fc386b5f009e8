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
SIGNALS = _RNG.standard_normal((COUNT, *LATENT)).astype(np.float32)
SESSIONS = np.arange(COUNT) // 6


def frames(latents: np.ndarray) -> np.ndarray:
    grey = np.clip(128 + 30 * latents, 0, 255)
    return np.moveaxis(grey, 1, -1).astype(np.uint8)


def windows() -> Windows:
    truths = list(frames(SIGNALS))
    mean = np.full(truths[0][:-1].shape, 128.0)
    return Windows(truths, SESSIONS, SESSIONS, mean, frames, LATENT)


def sampler(condition_weight: float = 1.0, noisy: float = 0.5, colour: float = 1.0, still: float = 0.0):
    """Draw what the brain tells, with some of the noise."""

    def draw(brain: str, rows: Any, noise: np.ndarray, steps: int) -> np.ndarray:
        source_rows = (rows + 6) % COUNT if brain == gates.OTHER else rows
        signal = 0 * SIGNALS[source_rows] if brain == gates.NONE else SIGNALS[source_rows]
        true_signal = SIGNALS[rows]
        latents = condition_weight * signal + (1 - condition_weight) * true_signal + noisy * noise
        latents = latents + still * (latents.mean(2, keepdims=True) - latents)
        grey = latents.mean(1, keepdims=True)
        return (grey + colour * (latents - grey)).astype(np.float32)

    return draw


TEACHER = sampler()


@pytest.fixture(scope="module")
def reference() -> gates.Reference:
    return gates.reference(TEACHER, windows(), window_count=8, seeds=2, steps=3)


def test_the_teacher_itself_passes_every_gate(reference):
    measured = gates.measure(TEACHER, windows(), reference, 4)
    assert measured["error"] == 0
    lost = measured["identification"]
    assert (lost["value"], lost["ci95"], lost["n"]) == (0.0, [0.0, 0.0], COUNT)
    assert lost["interval"]["units"] == len(np.unique(windows().groups))
    for name in ("motion", "saturation", "diversity", "brain_sensitivity"):
        assert measured[name] == pytest.approx(1)
    assert gates.failed(measured) == []


@pytest.mark.parametrize(
    ("student", "missed"),
    [
        (sampler(condition_weight=0.5), "brain_sensitivity"),
        (sampler(noisy=0.2), "diversity"),
        (sampler(colour=0.5), "saturation"),
        (sampler(still=0.6), "motion"),
        (sampler(noisy=4.0), "identification"),
    ],
)
def test_each_failure_shows_in_its_gate(reference, student, missed):
    measured = gates.measure(student, windows(), reference, 4)
    assert missed in gates.failed(measured)


def test_sensitivity_is_the_smaller_of_both_and_each_is_told(reference):
    measured = gates.measure(sampler(condition_weight=0.5), windows(), reference, 4)
    assert measured["brain_sensitivity_other"] == pytest.approx(0.5, abs=0.05)
    both = measured["brain_sensitivity_other"], measured["brain_sensitivity_none"]
    assert measured["brain_sensitivity"] == min(both)
