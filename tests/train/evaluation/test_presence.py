"""Whether what a decoder says of brains is judged right: by one that reads a code hidden in both signals."""

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from tests.train.tiny import tiny
from train.artifacts.run_folder import draft_of, restored
from train.config.recipe import build
from train.config.run_context import Arrays
from train.config.run_files import read_run
from train.evaluate import evaluate
from train.evaluation.any_film import on_film
from train.evaluation.result import Figures, Request, make_decode
from train.evaluation.sections.presence import (
    INCONSISTENT,
    NEITHER,
    Presence,
    energies,
    noise,
    permuted,
    together,
)
from train.interface.system import Condition
from train.models.ridge.system import PatchRidge

WINDOWS = 16
SESSIONS = 6
HOP_S = 4.0
CHANNELS = 6
VOXELS = 10
# Every window of a session is a group of its own; intervals resample sessions.
SESSION_BLOCKS = np.repeat(np.arange(SESSIONS), WINDOWS)
SURE = 0.9


class Reader(PatchRidge):
    """Says that there is a brain where the first channel and the first voxel hold the same code."""

    def condition(self, inputs: Arrays) -> Condition:
        eeg = inputs["eeg"][:, 0].mean(axis=1)
        fmri = inputs["fmri"][:, :, 0].mean(axis=1)
        strong = [np.abs(code) > 0.7 for code in (eeg, fmri)]
        absent = [~inputs[name].any(axis=(1, 2)) for name in ("eeg", "fmri")]
        agree = (np.abs(eeg - fmri) < 0.1) | absent[0] | absent[1]
        has_brain = (strong[0] | absent[0]) & (strong[1] | absent[1]) & agree
        sure = np.where(has_brain, SURE, 1 - SURE)
        return Condition(brain=np.stack([sure, (1 - sure) / 2, (1 - sure) / 2], axis=1))


class Looker(PatchRidge):
    """Says that there is a brain where the volumes are strong, and draws as before."""

    def condition(self, inputs: Arrays) -> Condition:
        power = np.square(inputs["fmri"], dtype=np.float64).mean(axis=(1, 2))
        sure = power / (1 + power)
        brain = np.stack([sure, (1 - sure) / 2, (1 - sure) / 2], axis=1)
        confidence = np.full((len(sure), 1), 0.7)
        return replace(super().condition(inputs), brain=brain, confidence=confidence)


def signals(rng: np.random.Generator, *, code: bool = True, place: int = 0) -> Arrays:
    """Windows of noise, with a code of their own in one channel and one voxel."""
    eeg = 0.05 * rng.standard_normal((WINDOWS, CHANNELS, 20))
    fmri = 0.05 * rng.standard_normal((WINDOWS, 4, VOXELS))
    if code:
        codes = rng.uniform(1, 8, WINDOWS) * rng.choice([-1, 1], WINDOWS)
        eeg[:, place] += codes[:, None]
        fmri[:, :, place] += codes[:, None]
    return {
        "eeg": eeg.astype(np.float32),
        "eeg_mask": np.ones((WINDOWS, 20), np.float32),
        "fmri": fmri.astype(np.float32),
        "fmri_mask": np.ones((WINDOWS, 4), np.float32),
    }


def judge(sessions: int = SESSIONS, blocks: Any = SESSION_BLOCKS, won: float = 1.0) -> Figures:
    rng = np.random.default_rng(0)
    judge = Presence(Reader({"latent_shape": np.ones(4)}), HOP_S)
    for _ in range(sessions):
        inputs = signals(rng)
        controls = {"rest": signals(rng, code=False), "other_subject": signals(rng, place=1)}
        # A promise of 0.7 that is kept in 0.75 of the comparisons.
        judge.add(inputs, controls, np.full(WINDOWS, 0.7), np.tile([won, 0.5 * won], WINDOWS // 2))
    return judge.figures(blocks)


@cache
def figures() -> Figures:
    return judge()


@pytest.mark.parametrize("kind", [*NEITHER, INCONSISTENT])
def test_one_who_reads_the_code_tells_every_kind_apart(kind: str) -> None:
    auroc = figures()[f"brain_auroc_{kind}"]
    assert auroc["value"] > 0.97
    assert auroc["chance"] == auroc["constant"] == 0.5
    assert auroc["n"] == SESSIONS * WINDOWS
    low, high = auroc["ci95"]
    assert low <= auroc["value"] <= high


def test_energy_alone_tells_rest_and_nothing_of_noise_that_is_as_strong() -> None:
    report = figures()
    assert report["brain_auroc_rest_energy"]["value"] == 1
    assert report["brain_auroc_rest_above_energy"]["value"] == pytest.approx(
        report["brain_auroc_rest"]["value"] - 1
    )
    for kind in ("noise", "cap"):
        assert report[f"brain_auroc_{kind}_energy"]["value"] == pytest.approx(0.5, abs=0.03)
        assert report[f"brain_auroc_{kind}_above_energy"]["ci95"][0] > 0.4


def test_routes_are_judged_by_the_kinds_that_concern_them() -> None:
    names = {name for name in figures() if name.endswith(("_eeg", "_fmri"))}
    alone = {f"brain_auroc_{kind}{route}" for kind in NEITHER for route in ("_eeg", "_fmri")}
    assert names == alone - {"brain_auroc_cap_fmri"}
    assert figures()["brain_auroc_cap_eeg"]["value"] > 0.9


def test_promises_are_held_against_a_mixture_of_one_half_true_windows() -> None:
    report = figures()
    # A half is true, and nearly all are told with a certainty of 0.9.
    assert report["brain_calibration_error"]["n"] == 2 * SESSIONS * WINDOWS
    assert report["brain_calibration_error"]["value"] == pytest.approx(1 - SURE, abs=0.03)
    assert report["brain_brier_skill"]["value"] == pytest.approx(1 - 0.01 / 0.25, abs=0.08)
    assert report["confidence_calibration_error"]["value"] == pytest.approx(0.05, abs=0.03)
    assert report["confidence_brier_skill"]["value"] == pytest.approx(1 - (0.3**2 + 0.2**2) / 2 / 0.25**2)


def test_the_mixture_takes_every_second_window_mixed_and_the_others_in_turn() -> None:
    judge = Presence(Reader({"latent_shape": np.ones(4)}), HOP_S)
    rng = np.random.default_rng(1)
    quiet = signals(rng, code=False)
    for _ in range(2):
        judge.add(quiet, {"rest": signals(rng), "other_subject": quiet}, None, np.ones(WINDOWS))
    report = judge.figures(np.repeat([0, 1], WINDOWS))
    # No window holds a code but those said to be of rest: an eighth of those that stand beside the true ones.
    mixed_with_code = WINDOWS * 2 / 8
    window_count = WINDOWS * 4
    error = (
        0.9**2 * (WINDOWS * 2 + mixed_with_code) + 0.1**2 * (WINDOWS * 2 - mixed_with_code)
    ) / window_count
    assert report["brain_brier_skill"]["value"] == pytest.approx(1 - error / 0.25)
    # No confidence was given, so none is judged.
    assert not any(name.startswith("confidence") for name in report)


def test_one_session_has_no_energy_and_mixes_with_its_other_half() -> None:
    report = judge(1, np.arange(WINDOWS))
    assert not any("energy" in name for name in report)
    # With so few windows, some codes agree by chance.
    assert report["brain_auroc_inconsistent"]["value"] > 0.8


def test_windows_that_cannot_be_identified_hold_no_promise_against_anything() -> None:
    report = judge(won=np.nan)
    assert not any(name.startswith("confidence") for name in report)
    assert "brain_calibration_error" in report


def test_kinds_are_what_they_are_called() -> None:
    inputs = signals(np.random.default_rng(2))
    like = noise(inputs, np.random.default_rng(3))
    np.testing.assert_allclose(energies(like), energies(inputs), atol=0.8)
    moved = permuted(inputs)
    np.testing.assert_array_equal(moved["fmri"], inputs["fmri"])
    np.testing.assert_array_equal(np.sort(moved["eeg"], axis=1), np.sort(inputs["eeg"], axis=1))
    assert (moved["eeg"][:, 0] != inputs["eeg"][:, 0]).all()
    other = signals(np.random.default_rng(4))
    mixed = together(inputs, other)
    np.testing.assert_array_equal(mixed["fmri"], inputs["fmri"])
    np.testing.assert_array_equal(mixed["eeg"][WINDOWS // 2], other["eeg"][0])


@pytest.mark.full
def test_a_run_is_judged_by_what_it_says_of_brains_and_one_that_says_nothing_is_not() -> None:
    run = tiny("ridge")
    tree = read_run(run)
    recipe = build(tree["arguments"])
    plain = restored(run, recipe["system"])
    draft = draft_of(run, None)
    request = Request(film="shapes", seeds="1000-1001", seconds=16, oracle=None)
    looker = Looker(plain.weights())
    show = make_decode(looker, draft.manifest, tree["noise_key"])
    report = on_film(recipe["data"], draft, looker, show, request).figures
    presence_names = {name for name in report if name.startswith(("brain", "confidence"))}
    for kind in (*NEITHER, INCONSISTENT):
        assert {
            f"brain_auroc_{kind}{ending}" for ending in ("", "_energy", "_above_energy")
        } <= presence_names
    # Where every clip won, as may be with so few, a constant makes no error that skill could be measured by.
    assert {"confidence_calibration_error", "brain_brier_skill", "brain_calibration_error"} <= presence_names
    # The volumes are strong where a film drives them, and as strong in noise and under another cap.
    assert report["brain_auroc_rest"]["value"] > 0.5
    assert report["brain_auroc_cap"]["value"] == 0.5
    without = evaluate(run, request)
    assert report.keys() - without.keys() == presence_names
    for name in without:
        assert without[name] == report[name], name
