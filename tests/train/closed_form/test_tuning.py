"""Settings and confidence are chosen on what a system draws, whatever system it is."""

from collections.abc import Mapping

import numpy as np
import pytest
from numpy.typing import NDArray

from train.closed_form.tuning import Chosen, HeldOutTogether, TrialClips, choose, fit_confidence

WINDOWS = 40
BLUR = (1.0, 0.3, 3.0)
GAIN = (0.1, 0.2, 0.3)


class Noisy:
    """A system that shows the truth under noise: how much depends on the window, the route and `blur`.

    `gain` changes the contrast alone, which a correlation does not see; `contrast` measures it.
    """

    settings: Mapping[str, tuple[float, ...]] = {"blur": BLUR, "gain": GAIN}
    routes = ("both", "one")
    preferred = "contrast"

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.truths = rng.integers(100, 156, (WINDOWS, 3, 4, 5, 3)).astype(np.uint8)
        self.sessions = np.zeros(WINDOWS, np.int64)
        self.mean_clip = np.full(self.truths.shape[1:], 127.5)
        self.doubt = rng.uniform(0, 1, WINDOWS)
        self.noise = rng.standard_normal(self.truths.shape)
        self.asked: list[tuple[str, dict[str, float]]] = []

    def draw(self, route: str, settings: Mapping[str, float]) -> TrialClips:
        self.asked.append((route, dict(settings)))
        amount = 600 * self.doubt**2 * settings["blur"] * (1 if route == "both" else 4)
        deviation = self.truths - self.mean_clip + amount[:, None, None, None, None] * self.noise
        clips = np.clip(self.mean_clip + settings["gain"] * deviation, 0, 255)
        return TrialClips(np.rint(clips).astype(np.uint8), self.doubt[:, None])

    def figures(self, clips: NDArray[np.uint8]) -> dict[str, float]:
        return {"contrast": float(clips.std())}


@pytest.fixture(scope="module")
def noisy() -> Noisy:
    return Noisy(0)


@pytest.fixture(scope="module")
def chosen(noisy) -> Chosen:
    return choose(noisy)


def test_the_setting_that_identifies_best_is_chosen_and_a_figure_decides_among_equals(chosen):
    rows = {(row["blur"], row["gain"]): row for row in chosen.table}
    identified = {blur: rows[blur, 0.2]["identification_2way"] for blur in BLUR}
    assert identified[0.3] > max(identified[1.0], identified[3.0]) + 0.01
    assert abs(rows[0.3, 0.3]["identification_2way"] - rows[0.3, 0.2]["identification_2way"]) < 0.01
    assert chosen.settings == {"blur": 0.3, "gain": 0.3}


def test_settings_are_tried_in_turn_from_the_middle_each_once_on_the_first_route(chosen, noisy):
    tried = [(row["blur"], row["gain"]) for row in chosen.table]
    assert tried == [(1.0, 0.2), (0.3, 0.2), (3.0, 0.2), (0.3, 0.1), (0.3, 0.3)]
    assert [route for route, _ in noisy.asked] == ["both"] * len(tried)


def test_confidence_tells_the_share_of_comparisons_won_by_route(chosen):
    """On windows of another seed: the mean confidence is what they win, and doubt lowers it."""
    weights = fit_confidence(Noisy(0), chosen.settings)
    fresh = Noisy(1)
    for route in fresh.routes:
        clips = fresh.draw(route, chosen.settings).clips[:, :-1].reshape(WINDOWS, -1) - 127.5
        truths = fresh.truths[:, :-1].reshape(WINDOWS, -1) - 127.5
        corr = np.corrcoef(clips, truths)[:WINDOWS, WINDOWS:]
        won = (np.diag(corr)[:, None] > corr).sum(1) / (WINDOWS - 1)
        slope, offset = weights[route]
        confidence = 1 / (1 + np.exp(-slope * fresh.doubt - offset))
        assert slope < 0
        assert confidence.mean() == pytest.approx(won.mean(), abs=0.05)


def test_windows_are_identified_among_those_of_their_session_alone() -> None:
    """A clip that shows the mean of its session tells it from other sessions' windows, and from no other."""
    noisy = Noisy(0)
    number = np.arange(WINDOWS) % 2
    means = np.stack([noisy.truths[number == n].mean(0) for n in range(2)]).astype(np.uint8)

    def session_means(route: str, settings: Mapping[str, float]) -> TrialClips:
        return TrialClips(means[number], noisy.doubt[:, None])

    noisy.draw = session_means  # type: ignore[method-assign]
    assert choose(noisy).table[0]["identification_2way"] > 0.6
    noisy.sessions = number
    assert choose(noisy).table[0]["identification_2way"] == pytest.approx(0.5, abs=0.03)


def test_participants_share_settings_and_are_identified_among_their_own_windows() -> None:
    parts = [Noisy(1), Noisy(2)]
    together = HeldOutTogether(parts)
    assert together.sessions.tolist() == [0] * WINDOWS + [1] * WINDOWS
    settings = {"blur": 1.0, "gain": 0.2}
    draws = [part.draw("both", settings) for part in parts]
    clips = together.draw("both", settings).clips
    assert np.array_equal(clips, np.concatenate([part.clips for part in draws]))
    contrasts = [part.figures(its.clips)["contrast"] for part, its in zip(parts, draws, strict=True)]
    assert together.figures(clips) == {"contrast": pytest.approx(np.mean(contrasts))}
    rows = [[row["identification_2way"] for row in choose(part).table] for part in (*parts, together)]
    np.testing.assert_allclose(np.mean(rows[:2], axis=0)[:3], rows[2][:3])


def test_one_participant_together_is_that_one(chosen: Chosen) -> None:
    assert choose(HeldOutTogether([Noisy(0)])) == chosen
