"""What conditions a generator, judged by itself, and what clips gain by each part of it."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rtdecode.bundle import Manifest
from rtdecode.phantom.film.film import Film
from tests.train.tiny import tiny_bundle
from train.config.run_context import Arrays
from train.evaluation.beside import CONSTANT, DECODER, START
from train.evaluation.film_scores import FilmWindows, Scores, describe
from train.evaluation.held_out_sessions import HeldOutSessions
from train.evaluation.kept_decodes import KeptDecodes
from train.evaluation.reconstruct import Reconstruction
from train.evaluation.references import References
from train.evaluation.result import Decode
from train.evaluation.section import EvaluatedRun, HeldOutWindows, sections_of
from train.evaluation.section_runner import SectionScores, evaluate
from train.evaluation.sections.condition import told_apart
from train.interface.system import Condition, Port, Stage, System


@cache
def film_truth() -> FilmWindows:
    film = Film(120, seed=3, cuts="free")
    return describe(film, [(0, 4.0 * k, 4.0 * k + 4) for k in range(film.windows)])


def value(scores: Scores, name: str) -> float:
    values, weights = scores[name]
    scored = np.isfinite(values) & (weights > 0)
    return float(np.average(values[scored], weights=weights[scored]))


def test_a_condition_that_is_what_it_aims_at_tells_all_windows_apart() -> None:
    rng = np.random.default_rng(0)
    aims = rng.standard_normal((30, 8))
    assert value(told_apart(aims, aims, film_truth()), "condition_2way") == 1
    # Its length and what all windows share do not count.
    assert value(told_apart(7 + 3 * aims, aims, film_truth()), "condition_2way") == 1
    random_conditions = rng.standard_normal((400, 30, 8))
    guessed = [
        value(told_apart(conditions, aims, film_truth()), "condition_2way")
        for conditions in random_conditions
    ]
    assert np.mean(guessed) == pytest.approx(0.5, abs=0.01)


def test_a_condition_that_is_always_the_same_tells_none() -> None:
    aims = np.random.default_rng(0).standard_normal((30, 8))
    assert value(told_apart(np.ones((30, 8)), aims, film_truth()), "condition_2way") == 0


class Dimmed(System):
    """A system that shows the clip whose number is its signal, darker by a factor that an adapter learned."""

    latent_shape = (1, 1, 1, 1)

    def __init__(self, gain: float, bare: "Dimmed | None" = None) -> None:
        self.gain = gain
        self.bare = bare

    def ports(self, manifest: Manifest) -> tuple[Port, ...]:
        return ()

    def condition(self, inputs: Arrays) -> Condition:
        numbers = inputs["eeg"][:, 0].astype(int)
        return Condition(pooled=self.targets(np.stack([film_truth().clips[n] for n in numbers])))

    def sample(self, condition: Condition, noise: NDArray[np.float32], steps: int) -> NDArray[Any]:
        return condition.pooled

    def frames(self, latents: NDArray[Any]) -> NDArray[Any]:
        return np.stack([np.asarray(film_truth().clips[int(n)]) / 255 * self.gain for n in latents[:, 0]])

    def stages(self, manifest: Manifest) -> Sequence[Stage]:
        return []

    def weights(self) -> Arrays:
        return {}

    def targets(self, clips: NDArray[np.uint8]) -> NDArray[np.floating]:
        """Aim at the picture of the middle of each clip."""
        return np.stack([np.asarray(clip)[len(clip) // 2].ravel() for clip in clips]).astype(np.float64)

    def without_adapters(self) -> System | None:
        return self.bare


class Started(Dimmed):
    """A system that starts from latents, half a number beyond the clip's, whose picture is half as bright."""

    def __init__(self, level: float) -> None:
        super().__init__(0.9)
        self.level = level

    def condition(self, inputs: Arrays) -> Condition:
        numbers = inputs["eeg"][:, :, None, None, None]
        return replace(super().condition(inputs), start=numbers + 0.5, start_level=self.level)

    def frames(self, latents: NDArray[Any]) -> NDArray[Any]:
        numbers = latents.reshape(len(latents))
        gains = np.where(numbers % 1, 0.5, self.gain)
        clips = [np.asarray(film_truth().clips[int(n)]) / 255 for n in numbers]
        return np.stack([clip * gain for clip, gain in zip(clips, gains, strict=True)])


class Decoder:
    """Shows what a system draws."""

    def __init__(self, system: System) -> None:
        self.system = system

    def __call__(self, inputs: Arrays, where: Any, **how: Any) -> Reconstruction:
        clips = np.rint(255 * self.system.frames(inputs["eeg"])).astype(np.uint8)
        return Reconstruction(list(clips), np.zeros((len(clips), 1, 1, 1, 1), np.float32), None)

    def of(self, system: System, manifest: Manifest) -> Decode:
        return Decoder(system)

    def without_adapters(self) -> Decode | None:
        bare = self.system.without_adapters()
        return None if bare is None else Decoder(bare)

    @property
    def archive(self) -> KeptDecodes | None:
        return None

    def anew(self) -> Decode:
        return self


def evaluation_of(show: Decoder, sections: str) -> SectionScores:
    """Evaluate one session of windows whose signals are their numbers."""
    inputs = {"eeg": np.arange(30.0)[:, None]}
    bundle = tiny_bundle("ridge")
    run = EvaluatedRun(show, bundle, show.system, References(clips=()))
    held_out = HeldOutWindows(0, inputs, film_truth().where, film_truth())
    sessions = HeldOutSessions("one session", [np.arange(30)], 30, lambda _: held_out)
    return evaluate(run, sessions, sections_of(sections))


def evaluated(show: Decoder, sections: str = "gains") -> dict[str, Scores]:
    """Return the scores of that session by suffix."""
    evaluation = evaluation_of(show, sections)
    return {suffix: scores[0] for suffix, scores in evaluation.scores.items()}


@pytest.mark.full
def test_gains_are_what_clips_lose_without_each_part() -> None:
    show = Decoder(Dimmed(0.9, bare=Dimmed(0.5)))
    scores = evaluated(show)
    # What is decoded for them alone has no figures of its own.
    assert {*scores} == {DECODER}
    gains = scores[DECODER]
    # Half as bright instead of nine tenths is five times the error: 14 dB.
    assert value(gains, "adapter_gain") == pytest.approx(20 * np.log10(0.5 / 0.1), abs=0.3)
    assert value(gains, "brain_gain") > 5
    # The null brain of this decoder is the same.
    assert value(gains, "condition_gain") == 0


@pytest.mark.full
def test_windows_without_a_match_have_no_gain_of_the_brain_and_a_system_without_adapters_none_of_those() -> (
    None
):
    gains = evaluated(Decoder(Dimmed(0.9)))[DECODER]
    assert "adapter_gain" not in gains
    matched = np.isin(np.arange(30), film_truth().pairs)
    assert (np.isfinite(gains["brain_gain"][0]) == matched).all()


@pytest.mark.full
def test_a_condition_is_scored_by_every_route_and_a_constant_tells_none() -> None:
    scores = evaluated(Decoder(Dimmed(0.9)), "condition")
    for route in ("", "_eeg"):
        assert value(scores[route], "condition_2way") == 1
    assert value(scores["_fmri"], "condition_2way") == value(scores[CONSTANT], "condition_2way") == 0


def test_what_drawing_adds_to_the_latents_that_it_starts_from() -> None:
    evaluation = evaluation_of(Decoder(Started(0.8)), "start")
    scores = {suffix: of_sessions[0] for suffix, of_sessions in evaluation.scores.items()}
    assert {*scores} == {DECODER, START}
    # Half as bright instead of nine tenths is five times the error: 14 dB.
    assert value(scores[DECODER], "start_gain") == pytest.approx(20 * np.log10(0.5 / 0.1), abs=0.3)
    # The null brain of this decoder is as good as its clips.
    assert value(scores[START], "condition_gain") == -value(scores[DECODER], "start_gain")
    figures = evaluation.figures(fixed=False)
    assert figures["frechet"]["value"] < figures["frechet_start"]["value"]
    assert figures["condition_gain_start"]["value"] == value(scores[START], "condition_gain")


@pytest.mark.parametrize("show", [Decoder(Dimmed(0.9)), Decoder(Started(0.0)), Decoder(Started(1.0))])
def test_a_system_that_does_not_draw_over_latents_has_no_figures_of_its_start(show: Decoder) -> None:
    evaluation = evaluation_of(show, "start")
    assert evaluation.scores == {}
    assert not any("frechet" in name for name in evaluation.figures(fixed=False))
