"""The recipe `compact` at its smallest: its batches, and a run that is resumed, exported and replayed."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from rtdecode.phantom.session import PhantomSession
from rtdecode.types import Presence
from streaming.session import replay
from tests.recordings import record
from tests.train.models.compact.small import few_clips
from tests.train.tiny import tiny, tiny_bundle
from train.config.run_files import arrays
from train.models.compact.batches import Mixture, batch
from train.run_recipe import run
from train.trainer import checkpoints
from train.trainer.loader import Place

MIXTURE = Mixture([0.4, 0.2, 0.2, 0.2], 1.0, 0.0, 0.25, {"natural": 3, "real": 5})


def test_a_batch_is_a_function_of_its_key_and_holds_what_the_mixture_says():
    places = [Place("flow", 40, 0, 0, n) for n in (3, 3, 4)]
    first, again, other = (batch(few_clips(), MIXTURE, 5.0, place) for place in places)
    for name, value in vars(first).items():
        # A batch of a training of one participant says nothing of seams.
        assert value is getattr(again, name) is None or torch.equal(value, getattr(again, name)), name
    assert not torch.equal(first.noise, other.noise)
    assert int((first.level == 1).sum()) == 10
    none = first.route.sum(1) == 0
    assert none.any()
    assert not first.glimpses[none].any()
    assert first.glimpses[~none].flatten(1).any(1).all()
    # Two of three clips have one before them, and it is always given here.
    assert 15 < int(first.carry_mask.sum()) < 38
    assert not first.carry[first.carry_mask[:, 0] == 0].any()


def test_kinds_of_film_have_their_shares_and_a_clip_its_own_glimpses_and_the_end_before():
    clips = few_clips()
    # Of a kind that is not there no share is kept, and one that is not named counts once.
    examples = batch(clips, MIXTURE, 5.0, Place("flow", 400, 0, 0, 0))
    latents = torch.from_numpy(clips.latents.astype(np.float32))
    which = np.array([int((latents == latent).flatten(1).all(1).nonzero()) for latent in examples.latents])
    assert np.mean(which < 3) == pytest.approx(0.75, abs=0.07)
    assert set(which) == set(range(6))
    for n, row in enumerate(which):
        route = examples.route[n]
        if route.any():
            name = ("both", "fmri", "eeg")[int(route.argmax())]
            np.testing.assert_array_equal(examples.glimpses[n], clips.glimpses[name][row])
        np.testing.assert_array_equal(examples.cuts[n], clips.cuts_told[row])
        assert bool(examples.carry_mask[n]) == bool(clips.joined[row])
        if clips.joined[row]:
            assert torch.equal(examples.carry[n], latents[row - 1, :, -2:])


@pytest.mark.full
def test_a_recipe_stopped_after_a_checkpoint_goes_on_to_the_same_bits(tmp_path, monkeypatch):
    out = tmp_path / "run"
    save = checkpoints.keep

    def stopped(*arguments):
        save(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "keep", stopped)
        with pytest.raises(KeyboardInterrupt):
            run("compact", ["scale=tiny", f"out={out}"])
    assert (tmp_path / "run.part" / "stages" / "training" / "flow" / "step-00000010").is_dir()
    run("compact", ["scale=tiny", f"resume={out}"])
    for name in ("weights", "stats", "projection", "golden"):
        uninterrupted, again = (arrays(folder, name) for folder in (tiny("compact"), out))
        assert uninterrupted.keys() == again.keys()
        for key, value in uninterrupted.items():
            assert np.array_equal(value, again[key]), (name, key)


@pytest.mark.full
def test_the_encoder_of_a_bundle_tells_of_a_brain_and_how_sure_it_is() -> None:
    bundle = tiny_bundle("compact")
    manifest = bundle.manifest
    assert manifest.brain is not None
    assert manifest.brain.prior == Presence(brain=0.5, inconsistent=0.25, neither=0.25)
    assert manifest.confidence is not None
    graph = onnx.load(bundle.path / "encode.onnx").graph
    assert [port.name for port in graph.output] == [
        *("condition", "embedding", "confidence", "brain", "brain_by")
    ]
    assert {"confidence", "brain", "brain_by"} <= set(manifest.parity["largest_difference"])


@pytest.mark.full
def test_every_clip_of_a_replay_tells_of_a_brain(tmp_path: Path) -> None:
    recording = record(PhantomSession("easy", 1, 1000, 12.0), tmp_path / "recording")
    done = replay.run(recording, str(tiny_bundle("compact").path), "max", tmp_path / "out")
    assert done == 0
    clips = [json.loads(line) for line in (tmp_path / "out" / "clips.jsonl").read_text().splitlines()]
    finals = [clip for clip in clips if clip["revision"] == "final"]
    assert len(finals) == 3
    for clip in finals:
        assert 0 <= clip["brain"] <= 1
        assert 0 <= clip["inconsistent"] <= 1
        assert clip["brain"] + clip["inconsistent"] <= 1 + 1e-5
        assert set(clip["brain_by"]) == {"eeg", "fmri"}
        assert all(0 <= value <= 1 for value in clip["brain_by"].values())
        assert (clip["confidence"] is None) == (clip["brain"] < 0.5)
        assert 0 <= (clip["confidence"] or 0) <= 1
