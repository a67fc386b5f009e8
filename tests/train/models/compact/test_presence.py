"""The probabilities of a brain: fitted to evidence whose classes are known, and to the prior."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from rtdecode.bundle.brain import MODALITIES
from tests.train.models.compact.small import small_encoder
from train.models.compact.encoder import CompactEncoder
from train.models.compact.evidence import COUNT, EEG, FMRI
from train.models.compact.presence import (
    PRIOR,
    EvidenceByClass,
    evidence_of,
    fit_limits,
    fit_presence,
    show,
    standardise,
)

BOTH = torch.eye(3)[:1]
ALONE = torch.eye(3)[1:]
AGREED = slice(FMRI + EEG, COUNT)


def random_evidence(count: int, seed: int, **moved: float) -> np.ndarray:
    """Evidence of windows: independent normal numbers, of which some are moved, by name."""
    evidence = np.random.default_rng(seed).standard_normal((count, COUNT))
    places = {"fmri": slice(0, FMRI), "eeg": slice(FMRI, FMRI + EEG), "agreed": AGREED}
    for name, step in moved.items():
        evidence[:, places[name]] += step
    return evidence


def presence_probabilities(
    evidence_by_class: EvidenceByClass, evidence: np.ndarray, route: torch.Tensor = BOTH
) -> np.ndarray:
    """Mean probabilities of windows after a fit, one row for each class."""
    encoder = small_encoder()
    for name, weights in fit_presence(evidence_by_class).items():
        encoder.get_buffer(name).copy_(torch.from_numpy(weights))
    inputs = torch.from_numpy(evidence.astype(np.float32))
    return encoder.presence(inputs, torch.ones(len(inputs), 2), route.expand(len(inputs), -1)).numpy()


@pytest.fixture(scope="module")
def separable() -> EvidenceByClass:
    """Classes that hardly overlap, in numbers that are far from the prior."""
    return EvidenceByClass(
        [("easy", random_evidence(400, 0))],
        [("easy motion", random_evidence(200, 4))],
        [("easy", random_evidence(300, 1, agreed=-6))],
        [
            [("easy", random_evidence(100, 2, fmri=-4, eeg=-4, agreed=-6))],
            [("easy", random_evidence(400, 3, fmri=5, eeg=5, agreed=-6))],
        ],
    )


def test_each_class_is_told_from_the_others_on_fresh_windows(separable: EvidenceByClass) -> None:
    fresh = [
        random_evidence(200, 10),
        random_evidence(200, 11, agreed=-6),
        random_evidence(200, 12, fmri=-4, eeg=-4, agreed=-6),
    ]
    for number, evidence in enumerate(fresh):
        probabilities = presence_probabilities(separable, evidence)
        np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-5)
        assert probabilities.min() >= 0
        assert probabilities[:, number].mean() > 0.9


def test_the_fit_repeats_the_prior_however_many_windows_there_are(separable: EvidenceByClass) -> None:
    """The mean probability of a class, over windows weighed by the prior, is its prior."""
    sets = {
        "brain": [separable.brain],
        "inconsistent": [separable.inconsistent],
        "neither": separable.neither,
    }
    counts = {"easy": 1.0, "easy motion": 0.3}
    mean = np.zeros(3)
    for name, parts in sets.items():
        for part in parts:
            weights = np.array([counts[kind] for kind, _ in part])
            means = [presence_probabilities(separable, numbers).mean(0) for _, numbers in part]
            mean += PRIOR[name] / len(parts) * np.average(means, axis=0, weights=weights)
    assert list(PRIOR) == ["brain", "inconsistent", "neither"]
    np.testing.assert_allclose(mean, list(PRIOR.values()), atol=0.03)


def test_evidence_that_tells_nothing_leaves_the_prior() -> None:
    sets = [
        [("easy", random_evidence(count, seed))]
        for count, seed in ((3000, 0), (1000, 1), (500, 2), (2000, 3))
    ]
    same = EvidenceByClass(sets[0], [], sets[1], sets[2:])
    probabilities = presence_probabilities(same, np.zeros((1, COUNT)))[0]
    np.testing.assert_allclose(probabilities, [0.5, 0.25, 0.25], atol=0.1)
    # Without a second modality there is nothing to be inconsistent with.
    alone = presence_probabilities(same, np.zeros((1, COUNT)), ALONE[:1])[0]
    np.testing.assert_allclose(alone, [2 / 3, 0, 1 / 3], atol=0.1)


def test_one_modality_is_never_inconsistent_and_asks_for_its_own_numbers_alone(
    separable: EvidenceByClass,
) -> None:
    broken = {"fmri": random_evidence(200, 20, fmri=-4), "eeg": random_evidence(200, 21, eeg=-4)}
    for number, name in enumerate(("fmri", "eeg")):
        route = ALONE[number : number + 1]
        probabilities = {
            key: presence_probabilities(separable, evidence, route) for key, evidence in broken.items()
        }
        other = "eeg" if name == "fmri" else "fmri"
        assert not probabilities[name][:, 1].any()
        assert probabilities[name][:, 2].mean() > 0.9
        assert probabilities[other][:, 2].mean() < 0.1


def test_without_a_modality_there_is_neither(separable: EvidenceByClass) -> None:
    probabilities = presence_probabilities(separable, random_evidence(3, 30), torch.zeros(1, 3))
    np.testing.assert_array_equal(probabilities, [[0, 0, 1]] * 3)


def test_a_kind_in_which_a_brain_is_hard_to_read_counts_less(separable: EvidenceByClass) -> None:
    """Windows at `hard` that look like rest: the less they count, the surer rest is told."""
    like_rest = random_evidence(400, 40, fmri=-4, eeg=-4, agreed=-6)
    fresh = random_evidence(200, 41, fmri=-4, eeg=-4, agreed=-6)
    lost = [
        presence_probabilities(replace(separable, presence=[(kind, like_rest)]), fresh)[:, 0].mean()
        for kind in ("default", "hard", "hard magnet")
    ]
    assert lost[0] > lost[1] > lost[2]


def windows(count: int, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "eeg": rng.standard_normal((count, 6, 10)).astype(np.float32),
        "fmri": rng.standard_normal((count, 5, 7)).astype(np.float32),
        "fmri_mask": np.ones((count, 5), np.float32),
    }


def blank() -> CompactEncoder:
    encoder = small_encoder()
    encoder.evidence.middle.zero_()
    return encoder


def test_windows_are_shown_as_they_are_with_eeg_of_others_and_as_noise() -> None:
    encoder = blank()
    watched = [windows(30, 0), windows(30, 1)]
    resting = [windows(20, 2)]
    to_show = ([("easy", watched[0])], [("easy motion", watched[1])], [("easy", resting[0])])
    evidence = show(encoder, *to_show, seed=0)
    for sessions in (evidence.brain, evidence.inconsistent, evidence.neither[1]):
        assert [kind for kind, _ in sessions] == ["easy", "easy motion"]
    brain, swapped, at_rest, noise = (
        np.concatenate([numbers for _, numbers in sessions])
        for sessions in (evidence.brain, evidence.inconsistent, *evidence.neither)
    )
    assert [len(part) for part in (brain, swapped, at_rest, noise)] == [60, 60, 20, 60]
    np.testing.assert_allclose(at_rest, evidence_of(encoder, resting[0]))
    np.testing.assert_allclose(brain[30:], evidence_of(encoder, watched[1]))
    # Volumes stay in their places, and EEG comes from ten windows before, of the same session.
    np.testing.assert_allclose(swapped[:, :FMRI], brain[:, :FMRI], atol=1e-5)
    energy = FMRI + EEG - 2
    np.testing.assert_allclose(swapped[10:30, energy], brain[:20, energy], atol=1e-5)
    assert not np.allclose(swapped[:, energy], brain[:, energy])
    again = show(encoder, *to_show, seed=0)
    np.testing.assert_array_equal(np.concatenate([numbers for _, numbers in again.neither[1]]), noise)


def test_what_the_encoder_measures_is_standardised_by_windows_that_are_held() -> None:
    encoder = blank()
    watched = windows(60, 3)
    other = {name: 5 * values for name, values in watched.items()}
    evidence = show(
        encoder, [("easy", watched)], [("easy motion", other)], [("easy", windows(10, 4))], seed=0
    )
    standard = standardise(encoder, evidence)
    ((_, numbers),) = standard.held_out
    np.testing.assert_allclose(numbers.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(numbers.std(0), 1, atol=1e-5)
    raw = torch.from_numpy(evidence_of(encoder, watched))
    standardised = ((raw - encoder.evidence.middle) / encoder.evidence.scale).numpy()
    np.testing.assert_allclose(standardised, numbers, atol=1e-3)
    assert np.abs(raw.numpy()).max() > 20, "what is measured is not clipped before it is standardised"
    unchanged = (np.zeros(COUNT), np.ones(COUNT))
    same = standardise(encoder, evidence, unchanged)
    np.testing.assert_array_equal(same.held_out[0][1], evidence.held_out[0][1])


def limited(kinds: list[tuple[str, np.ndarray]]) -> CompactEncoder:
    """An encoder whose limits were fitted to these sessions."""
    encoder = small_encoder()
    for name, values in fit_limits(EvidenceByClass(kinds, [], [], [])).items():
        encoder.evidence.register_buffer(name, torch.from_numpy(values))
    return encoder


def within(encoder: CompactEncoder, evidence: np.ndarray, modality: str) -> np.ndarray:
    """Whether each window is within what a brain looks like."""
    numbers = torch.from_numpy(evidence.astype(np.float32))
    own_units = numbers * encoder.evidence.scale + encoder.evidence.middle
    nothing = torch.zeros(0)
    with pytest.MonkeyPatch.context() as patched:
        # The numbers of windows, in place of windows that have them.
        patched.setattr(encoder.evidence, "raw", lambda *_: own_units)
        _, in_range = encoder.evidence(*[nothing] * 6)
    return in_range[:, MODALITIES.index(modality)].numpy()


@pytest.mark.parametrize("sessions", [1, 4])
def test_of_fresh_windows_of_a_kind_that_was_shown_one_in_a_hundred_is_outside(sessions: int) -> None:
    kinds = [("easy", random_evidence(400, n)) for n in range(sessions)]
    kinds += [("hard", random_evidence(400, 50 + n, eeg=20, fmri=20)) for n in range(sessions)]
    encoder = limited(kinds)
    for fresh in (random_evidence(2000, 90), random_evidence(2000, 91, eeg=20, fmri=20)):
        for modality in ("eeg", "fmri"):
            inside_share = within(encoder, fresh, modality)
            assert 0.97 < (inside_share > 0.5).mean() < 0.998
    # Between the kinds, and beyond them in every direction, there is nothing.
    for step in (10, -10, 30, 1e6, -1e6, 1e30):
        for modality in ("eeg", "fmri"):
            inside_share = within(encoder, random_evidence(200, 92, **{modality: step}), modality)
            assert np.isfinite(inside_share).all()
            assert inside_share.max() < 0.01


def test_a_modality_is_compared_by_its_own_numbers_alone() -> None:
    encoder = limited([("easy", random_evidence(400, n)) for n in range(3)])
    other = random_evidence(300, 95, eeg=50)
    assert (within(encoder, other, "fmri") > 0.5).mean() > 0.95
    assert within(encoder, other, "eeg").max() < 0.01


def test_few_windows_of_one_session_err_on_the_side_of_a_brain() -> None:
    encoder = limited([("recorded", random_evidence(20, 0))])
    assert (within(encoder, random_evidence(500, 96), "eeg") > 0.5).mean() > 0.95
