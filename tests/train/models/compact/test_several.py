"""Several participants before one flow: batches, weights, what is refused, and a run of two."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from rtdecode import bundle as bundles
from rtdecode.cli import app
from rtdecode.errors import UsageError
from tests.refusals import refused
from tests.train.models.compact.small import VALUES, few_clips, small_arrays
from train.config.recipe import read
from train.config.run_files import read_run, weights
from train.evaluate import Request, evaluate
from train.models.compact.batches import Mixture, batch, batch_of
from train.models.compact.encoder import SEAM_FEATURES, CompactEncoder
from train.models.compact.system import Compact, pack_another, unpack
from train.run_recipe import run as make_run
from train.trainer.loader import Place

MIXTURE = Mixture([1.0, 0.0, 0.0, 0.0], 1.0, 0.0, 0.25, {})
SHIPPED = Path(__file__).parents[4] / "train" / "runs" / "phantom"
PLACE = Place("flow", 8, 0, 0, 3)


def always() -> torch.Tensor:
    """Return weights by which every clip continues the one before, whatever its features are."""
    offset_alone = torch.zeros(3, SEAM_FEATURES + 1)
    offset_alone[:, -1] = 9
    return offset_alone


def test_a_batch_is_of_the_participant_of_its_place_with_the_weights_of_its_seams() -> None:
    first = few_clips()
    second = replace(first, latents=-first.latents)
    clips = {"sub-01": first, "sub-02": second}
    seams = {"sub-01": -always(), "sub-02": always()}
    for name in clips:
        place = replace(PLACE, participant=name)
        batch_of_both = batch_of(clips, seams, MIXTURE, 5.0, place)
        alone = batch(clips[name], MIXTURE, 5.0, place)
        assert torch.equal(batch_of_both.latents, alone.latents)
        assert batch_of_both.seams is seams[name]
        moved = batch_of_both.to(torch.device("cpu"))
        assert moved.seams is not None
        assert torch.equal(moved.seams, seams[name])
    assert batch(first, MIXTURE, 5.0, PLACE).to(torch.device("cpu")).seams is None


def test_a_condition_is_told_by_the_seams_of_whoever_watched() -> None:
    encoder = CompactEncoder(small_arrays(), 8)
    draws = torch.Generator().manual_seed(0)
    glimpses = torch.randn(4, 3, VALUES, generator=draws)
    cuts = torch.rand(4, 8, generator=draws)
    carry = torch.randn(4, 2, 2, 2, 2, generator=draws)
    windows = (glimpses, cuts, torch.eye(3)[[0, 1, 2, 0]], carry, torch.ones(4, 1))
    # After the clip that the signals draw and the last latent frame before: whether the clip continues it.
    flag = 2 * encoder.shape[0]
    with torch.no_grad():
        condition, embedding = encoder.condition(*windows)
        same, _ = encoder.condition(*windows, encoder.seams)
        continuing, embedding_of_other = encoder.condition(*windows, always())
    assert torch.equal(condition, same)
    assert not condition[:, flag].any()
    assert continuing[:, flag].all()
    assert torch.equal(embedding, embedding_of_other)


def test_a_run_keeps_of_another_participant_what_is_not_shared() -> None:
    shipped = weights(SHIPPED)
    encoder = unpack(shipped).encoder
    encoder.voxels.neg_()
    encoder.get_buffer("confidence_fmri").add_(1)
    packed = pack_another("sub-02", encoder, shipped)
    assert {*packed} == {"subjects.sub-02.encoder.voxels", "subjects.sub-02.encoder.confidence_fmri"}
    both = Compact(shipped | packed)
    second = both.of_subject("sub-02")
    encoder_of_both, encoder_of_second = (unpack(system.weights()).encoder for system in (both, second))
    assert torch.equal(encoder_of_second.voxels, encoder.voxels)
    assert torch.equal(encoder_of_second.voxels, -encoder_of_both.voxels)
    assert torch.equal(encoder_of_second.tokens[0].weight, encoder_of_both.tokens[0].weight)
    with refused(UsageError, "run-unknown-subject", subject="sub-03", available=["sub-02"]):
        both.of_subject("sub-03")


@pytest.mark.parametrize(
    ("recipe", "words", "code"),
    [
        ("compact", ["data.subject=1-2", "system.weights={sub-03: 2}"], "participant-weight-unknown"),
        ("compact", ["data.subject=1-2", "system.weights={sub-02: 0}"], "participant-weight-invalid"),
        ("compact", ["system.weights={sub-01: 2}"], "participant-weight-unknown"),
        ("compact-distilled", ["data.subject=1-2"], "distillation-several-participants"),
    ],
)
def test_weights_of_nobody_and_distillation_are_refused_before_anything_is_simulated(
    tmp_path: Path, recipe: str, words: list[str], code: str
) -> None:
    out = tmp_path / "run"
    with refused(UsageError, code):
        make_run(recipe, ["scale=tiny", f"out={out}", *words])
    assert not (tmp_path / "run.part" / "stages").exists()


def test_stated_weights_enter_the_digest_and_absent_ones_do_not() -> None:
    plain = read("compact", [])
    assert "weights" not in plain.values["arguments"]["system"]
    assert read("compact", ["system.weights=null"]).digest == plain.digest
    assert read("compact", ["system.weights={sub-02: 2}"]).digest != plain.digest


@pytest.mark.full
def test_two_participants_learn_one_flow_and_each_is_judged_and_exported(tmp_path: Path) -> None:
    out = tmp_path / "run"
    make_run("compact", ["scale=tiny", "data.subject=1-2", "system.weights={sub-02: 3}", f"out={out}"])
    run = read_run(out)
    expected = {"sub-01": 1.0, "sub-02": 3.0}
    assert run["manifest"]["provenance"]["weights_of_participants"] == expected
    assert [*run["subjects"]] == ["sub-02"]
    for row in run["tables"]["loss"]:
        assert {*row["participants"]} == {*expected}
        by_weight = [row["participants"][name] * weight / 4 for name, weight in expected.items()]
        assert row["loss"] == pytest.approx(sum(by_weight))
    # Films are watched by both, and kept once.
    packed = weights(out)
    names = {key.split(".", 3)[3] for key in packed if key.startswith("subjects.")}
    assert {"voxels", "mixing", "fmri_fmri", "confidence_both"} <= names
    assert not names & {"basis", "pictures", "latent_mean", "still_weight", "null_eeg", "tokens.0.weight"}
    metric = "identification_2way_centred"
    judged = evaluate(out, Request(subject="sub-02", seeds="1000", seconds=24, film="natural", oracle=None))
    assert judged[metric]["value"] == run["figures"][f"sub-02/{metric}"]["value"]
    exported: Any = CliRunner().invoke(app, ["export", str(out), "--out", str(tmp_path / "bundle")])
    assert exported.exit_code == 0, exported.output
    manifest = json.loads((tmp_path / "bundle" / "manifest.json").read_text())
    assert [*manifest["subjects"]] == ["sub-02"]
    second = bundles.load(tmp_path / "bundle", subject="sub-02")
    assert not np.array_equal(second.stats["fmri_mean"], bundles.load(tmp_path / "bundle").stats["fmri_mean"])
