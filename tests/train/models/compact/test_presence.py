"""The probabilities of a brain: fitted to evidence whose classes are known, and to the prior."""

import numpy as np
import pytest
import torch

from tests.train.models.compact.small import small_encoder
from train.models.compact.encoder import BrainEncoder
from train.models.compact.evidence import COUNT, EEG, FMRI
from train.models.compact.presence import PRIOR, Shown, evidence_of, fit_presence, show, standardise

BOTH = torch.eye(3)[:1]
ALONE = torch.eye(3)[1:]
AGREED = slice(FMRI + EEG, COUNT)


def drawn(count: int, seed: int, **moved: float) -> np.ndarray:
    """Evidence of windows: independent normal numbers, of which some are moved, by name."""
    found = np.random.default_rng(seed).standard_normal((count, COUNT))
    places = {"fmri": slice(0, FMRI), "eeg": slice(FMRI, FMRI + EEG), "agreed": AGREED}
    for name, step in moved.items():
        found[:, places[name]] += step
    return found


def told(shown: Shown, evidence: np.ndarray, route: torch.Tensor = BOTH) -> np.ndarray:
    """Mean probabilities of windows after a fit, one row for each class."""
    encoder = small_encoder()
    for name, weights in fit_presence(shown).items():
        encoder.get_buffer(name).copy_(torch.from_numpy(weights))
    given = torch.from_numpy(evidence.astype(np.float32))
    return encoder.presence(given, route.expand(len(given), -1)).numpy()


@pytest.fixture(scope="module")
def apart() -> Shown:
    """Classes that hardly overlap, in numbers that are far from the prior."""
    return Shown(
        drawn(600, 0),
        drawn(300, 1, agreed=-6),
        [drawn(100, 2, fmri=-4, eeg=-4, agreed=-6), drawn(400, 3, fmri=5, eeg=5, agreed=-6)],
    )


def test_each_class_is_told_from_the_others_on_fresh_windows(apart: Shown) -> None:
    fresh = [drawn(200, 10), drawn(200, 11, agreed=-6), drawn(200, 12, fmri=-4, eeg=-4, agreed=-6)]
    for number, evidence in enumerate(fresh):
        found = told(apart, evidence)
        np.testing.assert_allclose(found.sum(1), 1, atol=1e-5)
        assert found.min() >= 0
        assert found[:, number].mean() > 0.9


def test_the_fit_repeats_the_prior_however_many_windows_there_are(apart: Shown) -> None:
    """The mean probability of a class, over windows weighed by the prior, is its prior."""
    sets = {"brain": [apart.brain], "inconsistent": [apart.inconsistent], "neither": apart.neither}
    mean = np.zeros(3)
    for name, parts in sets.items():
        for part in parts:
            mean += PRIOR[name] / len(parts) * told(apart, part).mean(0)
    assert list(PRIOR) == ["brain", "inconsistent", "neither"]
    np.testing.assert_allclose(mean, list(PRIOR.values()), atol=0.03)


def test_evidence_that_tells_nothing_leaves_the_prior() -> None:
    same = Shown(drawn(3000, 0), drawn(1000, 1), [drawn(500, 2), drawn(2000, 3)])
    found = told(same, np.zeros((1, COUNT)))[0]
    np.testing.assert_allclose(found, [0.5, 0.25, 0.25], atol=0.1)
    # Without a second modality there is nothing to be inconsistent with.
    alone = told(same, np.zeros((1, COUNT)), ALONE[:1])[0]
    np.testing.assert_allclose(alone, [2 / 3, 0, 1 / 3], atol=0.1)


def test_one_modality_is_never_inconsistent_and_asks_for_its_own_numbers_alone(apart: Shown) -> None:
    broken = {"fmri": drawn(200, 20, fmri=-4), "eeg": drawn(200, 21, eeg=-4)}
    for number, name in enumerate(("fmri", "eeg")):
        route = ALONE[number : number + 1]
        found = {key: told(apart, evidence, route) for key, evidence in broken.items()}
        other = "eeg" if name == "fmri" else "fmri"
        assert not found[name][:, 1].any()
        assert found[name][:, 2].mean() > 0.9
        assert found[other][:, 2].mean() < 0.1


def test_without_a_modality_there_is_neither(apart: Shown) -> None:
    found = told(apart, drawn(3, 30), torch.zeros(1, 3))
    np.testing.assert_array_equal(found, [[0, 0, 1]] * 3)


def windows(count: int, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "eeg": rng.standard_normal((count, 6, 10)).astype(np.float32),
        "fmri": rng.standard_normal((count, 5, 7)).astype(np.float32),
        "fmri_mask": np.ones((count, 5), np.float32),
    }


def blank() -> BrainEncoder:
    encoder = small_encoder()
    encoder.evidence.middle.zero_()
    return encoder


def test_windows_are_shown_as_they_are_with_eeg_of_others_and_as_noise() -> None:
    encoder = blank()
    watched = [windows(30, 0), windows(30, 1)]
    resting = [windows(20, 2)]
    shown = show(encoder, watched, resting, seed=0)
    assert [len(part) for part in (shown.brain, shown.inconsistent, *shown.neither)] == [60, 60, 20, 60]
    np.testing.assert_allclose(shown.neither[0], evidence_of(encoder, resting[0]))
    np.testing.assert_allclose(shown.brain[30:], evidence_of(encoder, watched[1]))
    # Volumes stay in their places, and EEG comes from ten windows before, of the same session.
    np.testing.assert_allclose(shown.inconsistent[:, :FMRI], shown.brain[:, :FMRI], atol=1e-5)
    energy = FMRI + EEG - 2
    np.testing.assert_allclose(shown.inconsistent[10:30, energy], shown.brain[:20, energy], atol=1e-5)
    assert not np.allclose(shown.inconsistent[:, energy], shown.brain[:, energy])
    again = show(encoder, watched, resting, seed=0)
    np.testing.assert_array_equal(again.neither[1], shown.neither[1])


def test_what_the_encoder_measures_is_standardised_by_windows_with_a_brain() -> None:
    encoder = blank()
    watched = [windows(60, 3)]
    standard = standardise(encoder, show(encoder, watched, [windows(10, 4)], seed=0))
    np.testing.assert_allclose(standard.brain.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(standard.brain.std(0), 1, atol=1e-5)
    raw = torch.from_numpy(evidence_of(encoder, watched[0]))
    inside = ((raw - encoder.evidence.middle) / encoder.evidence.scale).numpy()
    np.testing.assert_allclose(inside, standard.brain, atol=1e-3)
    assert np.abs(raw.numpy()).max() > 20, "what is measured is not clipped before it is standardised"
