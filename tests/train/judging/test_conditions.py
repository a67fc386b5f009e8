"""What conditions a generator, judged by itself, and what clips gain by each part of it."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rtdecode.bundle import Manifest
from rtdecode.phantom.film.film import Film
from rtdecode.scores.accuracy import psnr
from train.judging import conditions
from train.judging.film_scores import Shown, describe
from train.judging.judged import Show
from train.reconstruct import Reconstruction
from train.system import Condition, Port, Stage, System
from train.work import Arrays


@cache
def shown() -> Shown:
    film = Film(120, seed=3, cuts="free")
    return describe(film, [(0, 4.0 * k, 4.0 * k + 4) for k in range(film.windows)])


def value(scores: conditions.Scores, name: str) -> float:
    values, weights = scores[name]
    there = np.isfinite(values) & (weights > 0)
    return float(np.average(values[there], weights=weights[there]))


def test_a_condition_that_is_what_it_aims_at_tells_all_windows_apart() -> None:
    rng = np.random.default_rng(0)
    aims = rng.standard_normal((30, 8))
    assert value(conditions.told_apart(aims, aims, shown()), "condition_2way") == 1
    # Its length and what all windows share do not count.
    assert value(conditions.told_apart(7 + 3 * aims, aims, shown()), "condition_2way") == 1
    others = rng.standard_normal((400, 30, 8))
    guessed = [value(conditions.told_apart(one, aims, shown()), "condition_2way") for one in others]
    assert np.mean(guessed) == pytest.approx(0.5, abs=0.01)


def test_a_condition_that_is_always_the_same_tells_none() -> None:
    aims = np.random.default_rng(0).standard_normal((30, 8))
    assert value(conditions.told_apart(np.ones((30, 8)), aims, shown()), "condition_2way") == 0
    assert value(conditions.unchanging(30), "condition_2way") == 0


class Dimmed(System):
    """A system that shows the clip whose number is its signal, darker by a factor that an adapter learned."""

    latent_shape = (1, 1, 1, 1)

    def __init__(self, gain: float, bare: "Dimmed | None" = None) -> None:
        self.gain = gain
        self.bare = bare

    def ports(self, manifest: Manifest) -> tuple[Port, ...]:
        return ()

    def condition(self, inputs: Arrays) -> Condition:
        return Condition(pooled=inputs["eeg"])

    def sample(self, condition: Condition, noise: NDArray[np.float32], steps: int) -> NDArray[Any]:
        return condition.pooled

    def frames(self, latents: NDArray[Any]) -> NDArray[Any]:
        return np.stack([np.asarray(shown().clips[int(n)]) * self.gain for n in latents[:, 0]])

    def stages(self, manifest: Manifest) -> Sequence[Stage]:
        return []

    def weights(self) -> Arrays:
        return {}

    def without_adapters(self) -> System | None:
        return self.bare


class Decoder:
    """Shows what a system draws."""

    def __init__(self, system: System) -> None:
        self.system = system

    def __call__(self, inputs: Arrays, where: Any, **how: Any) -> Reconstruction:
        drawn = self.system.frames(inputs["eeg"]).astype(np.uint8)
        return Reconstruction(list(drawn), np.zeros((len(drawn), 1, 1, 1, 1), np.float32), None)

    def of(self, system: System, manifest: Manifest) -> Show:
        return Decoder(system)

    def without_adapters(self) -> Show | None:
        bare = self.system.without_adapters()
        return None if bare is None else Decoder(bare)


def test_gains_are_what_clips_lose_without_each_part() -> None:
    show = Decoder(Dimmed(0.9, bare=Dimmed(0.5)))
    inputs = {"eeg": np.arange(30.0)[:, None]}
    own = show(inputs, shown().where).clips
    null = [np.full_like(clip, 128) for clip in own]
    found = conditions.gains(show, own, null, inputs, shown())
    ours = psnr(own, shown().clips)
    assert value(found, "condition_gain") == pytest.approx((ours - psnr(null, shown().clips)).mean())
    # Half as bright instead of nine tenths is five times the error: 14 dB.
    assert value(found, "adapter_gain") == pytest.approx(20 * np.log10(0.5 / 0.1), abs=0.3)
    assert value(found, "brain_gain") > 5


def test_windows_without_a_match_have_no_gain_of_the_brain_and_a_system_without_adapters_none_of_those() -> (
    None
):
    show = Decoder(Dimmed(0.9))
    inputs = {"eeg": np.arange(30.0)[:, None]}
    own = show(inputs, shown().where).clips
    found = conditions.gains(show, own, own, inputs, shown())
    assert "adapter_gain" not in found
    matched = np.isin(np.arange(30), shown().pairs)
    assert (np.isfinite(found["brain_gain"][0]) == matched).all()
    assert value(found, "condition_gain") == 0
