"""Targets are what the models give when they are called as their libraries say."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from transformers import CLIPTextModel

from rtdecode.errors import UsageError
from tests.refusals import refused
from tests.train.pipelines import save_stable_diffusion
from tests.train.targets.models import (
    LICENCE,
    SIDE,
    WORDS,
    Films,
    blip,
    clip_tower,
    cogvideox_vae,
    llava,
    siglip,
    t5,
    umt5,
    videomae,
    wan_vae,
    whisper,
    words,
)
from train.targets.captions import captions
from train.targets.embeddings import PASSAGES, action, image, passages, prompt, text
from train.targets.latents import latents
from train.targets.models import Hardware, evenly
from train.targets.transcripts import transcripts

CPU = Hardware()
# Sums in batches of another size are rounded differently.
CLOSE = {"rtol": 1e-4, "atol": 1e-5}
CAPTIONS = np.array(["the red cat", "a dog sees the blue house"])


def normalised(frames: np.ndarray, mean: list[float], std: list[float]) -> torch.Tensor:
    return torch.from_numpy(((frames / 255 - mean) / std).transpose(0, 3, 1, 2)).float()


def test_frames_by_clip(tmp_path: Path) -> None:
    model = clip_tower(tmp_path)
    # Frames of the model's own size are not resized, so that the preparation is arithmetic alone.
    films = Films(side=SIDE)
    clips = films.read("clips", [0, 1, 2])
    features = image(tmp_path, CPU, licence=LICENCE).opened()(clips)["values"]
    assert features.shape == (3, 5, 6)
    mean = [0.48145466, 0.4578275, 0.40821073]
    std = [0.26862954, 0.26130258, 0.27577711]
    with torch.no_grad():
        hidden = model.vision_model(normalised(clips[1], mean, std)).pooler_output
        np.testing.assert_allclose(features[1], model.visual_projection(hidden), **CLOSE)
    some = image(tmp_path, CPU, licence=LICENCE, frames=2).opened()(clips)["values"]
    np.testing.assert_allclose(some, features[:, [1, 3]], **CLOSE)
    with refused(UsageError, "target-clip-too-short", target="image", model_frames=6, clip_frames=5):
        image(tmp_path, CPU, licence=LICENCE, frames=6).opened()(clips)


def test_frames_and_captions_by_siglip(tmp_path: Path) -> None:
    model = siglip(tmp_path)
    clips = Films(side=SIDE).read("clips", [0, 1])
    features = image(tmp_path, CPU, licence=LICENCE).opened()(clips)["values"]
    half = [0.5, 0.5, 0.5]
    with torch.no_grad():
        expected = model.vision_model(normalised(clips[0], half, half)).pooler_output
        np.testing.assert_allclose(features[0], expected, **CLOSE)
        vectors = text(tmp_path, CPU, licence=LICENCE).opened()(CAPTIONS)["values"]
        inputs = words(tmp_path)(
            CAPTIONS.tolist(), padding="max_length", truncation=True, return_tensors="pt"
        )
        expected = model.text_model(inputs["input_ids"], inputs["attention_mask"]).pooler_output
    np.testing.assert_allclose(vectors, expected, **CLOSE)


def test_captions_by_clip_and_by_its_text_encoder_alone(tmp_path: Path) -> None:
    model = clip_tower(tmp_path / "whole")
    vectors = text(tmp_path / "whole", CPU, licence=LICENCE).opened()(CAPTIONS)["values"]
    assert vectors.shape == (2, 6)
    encoder = CLIPTextModel(model.config.text_config).eval()
    encoder.load_state_dict(
        {
            name.removeprefix("text_model."): value
            for name, value in model.state_dict().items()
            if name.startswith("text_model.")
        }
    )
    encoder.save_pretrained(tmp_path / "alone")
    words(tmp_path / "alone")
    tokens = text(tmp_path / "alone", CPU, licence=LICENCE).opened()(CAPTIONS)
    assert tokens["values"].shape == (2, 6, 8)
    assert tokens["counts"].tolist() == [5, 6]
    with torch.no_grad():
        pooled = torch.from_numpy(tokens["values"][[0, 1], [4, 5]])
        np.testing.assert_allclose(vectors, model.text_projection(pooled), **CLOSE)


def test_captions_longer_than_the_model_reads_are_refused(tmp_path: Path) -> None:
    clip_tower(tmp_path)
    with refused(UsageError, "text-tokens-beyond-model", length=7, folder=tmp_path, longest=6):
        text(tmp_path, CPU, licence=LICENCE, tokens=7).opened()


def test_passages_of_captions_are_embedded_one_by_one(tmp_path: Path) -> None:
    siglip(tmp_path)
    of_captions = text(tmp_path, CPU, licence=LICENCE)
    target = text(tmp_path, CPU, licence=LICENCE, sentences=2)
    assert target.options == {**of_captions.options, "sentences": 2}
    arrays = target.opened()(np.array(["a cat. the dog. red.", "a cat", "a cat."]))
    assert arrays["passages"].tolist() == [3, 1, 1]
    expected = ["a cat. the dog.", " the dog. red.", " red..", "a cat", "a cat.."]
    vectors = of_captions.opened()(np.array(expected))["values"]
    np.testing.assert_allclose(arrays["values"][0, :3], vectors[:3], **CLOSE)
    # Places without a passage repeat the first ones.
    np.testing.assert_array_equal(arrays["values"][0, 3:6], arrays["values"][0, :3])
    np.testing.assert_allclose(arrays["values"][1:, 0], vectors[3:], **CLOSE)
    assert len(passages("a. " * 40, 2)) == PASSAGES
    t5(tmp_path / "t5")
    tokens = text(tmp_path / "t5", CPU, licence=LICENCE, sentences=2, tokens=4)
    with refused(
        UsageError, "text-passages-not-pooled", needs="text.sentences=2 needs", model_class="T5EncoderModel"
    ):
        tokens.opened()


def test_captions_by_t5(tmp_path: Path) -> None:
    model = t5(tmp_path)
    encoded = text(tmp_path, CPU, licence=LICENCE, tokens=8).opened()(CAPTIONS)
    assert encoded["values"].shape == (2, 8, 8)
    assert encoded["counts"].tolist() == [5, 8]
    with torch.no_grad():
        alone = model(torch.tensor([[2, 8, 9, 5, 3]])).last_hidden_state[0]
    np.testing.assert_allclose(encoded["values"][0, :5], alone, **CLOSE)
    words(tmp_path, longest=10**30)
    with refused(UsageError, "tokenizer-missing-max-length"):
        text(tmp_path, CPU, licence=LICENCE).opened()


def test_captions_by_the_text_encoder_of_wan(tmp_path: Path) -> None:
    model = umt5(tmp_path)
    folder = tmp_path / "text_encoder"
    embedded = prompt(folder, CPU, licence=LICENCE).opened()(CAPTIONS)
    assert embedded["values"].shape == (2, 8, 8)
    assert embedded["counts"].tolist() == [5, 8]
    with torch.no_grad():
        alone = model(torch.tensor([[2, 8, 9, 5, 3]])).last_hidden_state[0]
    np.testing.assert_allclose(embedded["values"][0, :5], alone, **CLOSE)
    assert not embedded["values"][0, 5:].any(), "a pipeline of Wan puts zeros behind the prompt"
    assert np.abs(embedded["values"][1]).min() > 0


def test_captions_by_the_text_encoder_of_stable_diffusion(tmp_path: Path) -> None:
    save_stable_diffusion(tmp_path)
    embedded = prompt(tmp_path / "text_encoder", CPU, licence=LICENCE).opened()(CAPTIONS)
    assert embedded["counts"].tolist() == [5, 6]
    model = CLIPTextModel.from_pretrained(tmp_path / "text_encoder")
    with torch.no_grad():
        # The pipeline gives the numbers of the padding too, and no mask.
        alone = model(torch.tensor([[2, 8, 9, 5, 3, 0]])).last_hidden_state[0]
    np.testing.assert_allclose(embedded["values"][0], alone, **CLOSE)
    assert np.abs(embedded["values"][0, 5]).min() > 0


def test_another_tokenizer_of_a_pipeline_is_another_key(tmp_path: Path) -> None:
    umt5(tmp_path)
    folder = tmp_path / "text_encoder"
    before = prompt(folder, CPU, licence=LICENCE).source
    assert "tokenizer_config.json" in before.to_manifest()["files"]
    words(tmp_path / "tokenizer", longest=7)
    assert prompt(folder, CPU, licence=LICENCE).source.digest != before.digest


def test_a_prompt_is_no_single_vector(tmp_path: Path) -> None:
    clip_tower(tmp_path)
    with refused(UsageError, "prompt-model-not-tokens", folder=tmp_path, actual_class="CLIPModel"):
        prompt(tmp_path, CPU, licence=LICENCE).opened()


def test_motion_by_videomae(tmp_path: Path) -> None:
    model = videomae(tmp_path)
    clips = Films(frames=8, side=SIDE).read("clips", [0, 1])
    features = action(tmp_path, CPU, licence=LICENCE).opened()(clips)["values"]
    half = [0.5, 0.5, 0.5]
    with torch.no_grad():
        scores = model(normalised(clips[1][[1, 3, 5, 7]], half, half)[None]).logits
        np.testing.assert_allclose(model.classifier(torch.from_numpy(features[1:])), scores, **CLOSE)
    clip_tower(tmp_path / "other")
    with refused(UsageError, "action-model-wrong-class", folder=tmp_path / "other", actual_class="CLIPModel"):
        action(tmp_path / "other", CPU, licence=LICENCE).opened()


def test_captions_by_blip(tmp_path: Path) -> None:
    blip(tmp_path)
    vocabulary = {*words(tmp_path).get_vocab()}
    clips = Films(side=SIDE).read("clips", [0, 1, 2, 3, 4])
    plain = captions(tmp_path, CPU, licence=LICENCE, tokens=4).opened()(clips)["values"]
    assert all(len(caption.split()) == 4 and {*caption.split()} <= vocabulary for caption in plain.tolist())
    write = captions(tmp_path, CPU, licence=LICENCE, prompt="a dog", tokens=3).opened()
    prompted = write(clips)["values"].tolist()
    assert all(caption.startswith("a dog ") for caption in prompted)
    # The middle frame alone is described.
    changed = clips.copy()
    changed[:, [0, 1, 3, 4]] = 0
    assert write(changed)["values"].tolist() == prompted
    changed[:, 2] = np.roll(clips[:, 2], 1, axis=0)
    assert write(changed)["values"].tolist() == [*prompted[-1:], *prompted[:-1]]
    assert len({*prompted}) > 1


def test_every_frame_has_a_caption_of_its_own(tmp_path: Path) -> None:
    blip(tmp_path)
    clips = Films(frames=2, side=SIDE).read("clips", [0, 1])
    target = captions(tmp_path, CPU, licence=LICENCE, tokens=3, by_frame=True)
    written = target.opened()(clips)["values"]
    assert written.shape == (2, 2)
    of_clips = captions(tmp_path, CPU, licence=LICENCE, tokens=3)
    assert target.options == {**of_clips.options, "by_frame": True}
    # The middle of two frames is the second.
    assert of_clips.opened()(clips)["values"].tolist() == written[:, 1].tolist()


def test_variants_of_frames_and_captions_begin_with_them_as_they_are(tmp_path: Path) -> None:
    clip_tower(tmp_path)
    clips = Films(frames=2, side=SIDE).read("clips", [0, 1])
    plain = image(tmp_path, CPU, licence=LICENCE)
    target = image(tmp_path, CPU, licence=LICENCE, crops=2)
    assert target.options == {**plain.options, "crops": 2}
    arrays = target.opened()(clips)
    assert arrays["variants"].shape == (2, 2, 3, 6)
    np.testing.assert_allclose(arrays["values"], plain.opened()(clips)["values"], **CLOSE)
    np.testing.assert_allclose(arrays["variants"][:, :, 0], arrays["values"], rtol=1e-2, atol=1e-2)
    assert np.abs(np.diff(arrays["variants"].astype(float), axis=2)).max() > 1e-2

    by_frame = np.array([["the red cat", "a dog"], ["a blue house", "the dog"]])
    vectors = text(tmp_path, CPU, licence=LICENCE).opened()(by_frame.reshape(-1))["values"].reshape(2, 2, -1)
    several = text(tmp_path, CPU, licence=LICENCE, by_frame=True, changes=2)
    assert several.reads == "frame_captions"
    arrays = several.opened()(by_frame)
    assert arrays["variants"].shape == (2, 2, 3, 6)
    np.testing.assert_allclose(arrays["variants"][:, :, 0], vectors, rtol=1e-2, atol=1e-2)
    np.testing.assert_allclose(arrays["values"], vectors[:, 0], **CLOSE)
    # Captions of whole clips have one frame.
    changed = text(tmp_path, CPU, licence=LICENCE, changes=1).opened()(CAPTIONS)
    assert changed["variants"].shape == (2, 1, 2, 6)
    with refused(UsageError, "text-passages-with-variants", sentences=2):
        text(tmp_path, CPU, licence=LICENCE, sentences=2, changes=1)


def test_transcripts_by_whisper(tmp_path: Path) -> None:
    whisper(tmp_path)
    sounds = Films(sound=True).read("sound", [0, 1, 2, 3, 4])
    write = transcripts(tmp_path, CPU, licence=LICENCE, tokens=5).opened()
    silent, *spoken = write(sounds)["values"].tolist()
    assert silent == "", "nothing is heard of the first"
    assert all(len(transcript.split()) == 5 and {*transcript.split()} <= {*WORDS} for transcript in spoken)
    assert write(np.roll(sounds, 1, axis=0))["values"].tolist() == [spoken[-1], "", *spoken[:-1]]
    assert len({*spoken}) > 1


def test_captions_by_a_model_that_talks(tmp_path: Path) -> None:
    llava(tmp_path)
    vocabulary = {*words(tmp_path / "words").get_vocab()}
    clips = Films(side=SIDE).read("clips", [0, 1, 2, 3, 4])
    write = captions(tmp_path, CPU, licence=LICENCE, prompt="the red house", tokens=5).opened()
    answers = write(clips)["values"].tolist()
    # The question is no part of the answer.
    assert all(len(answer.split()) == 5 and {*answer.split()} <= vocabulary for answer in answers)
    changed = np.roll(clips, 1, axis=0)
    assert write(changed)["values"].tolist() == [*answers[-1:], *answers[:-1]]
    assert len({*answers}) > 1
    other = captions(tmp_path, CPU, licence=LICENCE, prompt="a dog", tokens=5).opened()(clips)["values"]
    assert other.tolist() != answers


def test_latents_of_wan(tmp_path: Path) -> None:
    model = wan_vae(tmp_path)
    clips = Films().read("clips", [0, 1])
    encoded = latents(tmp_path, CPU, licence=LICENCE).opened()(clips)["values"]
    assert encoded.shape == (2, 4, 2, 2, 2)
    video = torch.from_numpy(clips[1] / 127.5 - 1).float().permute(3, 0, 1, 2)[None]
    with torch.no_grad():
        raw = model.encode(video).latent_dist.mean[0].numpy()
    mean = np.array([0.1, 0.2, 0.3, 0.4])[:, None, None, None]
    std = np.array([0.5, 1.0, 2.0, 4.0])[:, None, None, None]
    np.testing.assert_allclose(encoded[1], (raw - mean) / std, **CLOSE)


def test_latents_of_cogvideox(tmp_path: Path) -> None:
    model = cogvideox_vae(tmp_path)
    clips = Films().read("clips", [0])
    encoded = latents(tmp_path, CPU, licence=LICENCE).opened()(clips)["values"]
    video = torch.from_numpy(clips / 127.5 - 1).float().permute(0, 4, 1, 2, 3)
    with torch.no_grad():
        np.testing.assert_allclose(encoded, 0.7 * model.encode(video).latent_dist.mean, **CLOSE)


def test_latents_of_stable_diffusion_are_those_of_single_frames(tmp_path: Path) -> None:
    save_stable_diffusion(tmp_path)
    folder = tmp_path / "vae"
    # Any number of frames.
    clips = Films(frames=6).read("clips", [0, 1])
    arrays = latents(folder, CPU, licence=LICENCE, sample=True).opened()(clips)
    assert arrays["values"].shape == (2, 4, 6, SIDE, SIDE)
    model = AutoencoderKL.from_pretrained(folder)
    frame = torch.from_numpy(clips[1, 4] / 127.5 - 1).float().permute(2, 0, 1)[None]
    with torch.no_grad():
        distribution = model.encode(frame).latent_dist
    np.testing.assert_allclose(arrays["values"][1, :, 4], 0.18215 * distribution.mean[0], **CLOSE)
    deviations = arrays["deviations"][1, :, 4]
    np.testing.assert_allclose(deviations, 0.18215 * distribution.std[0], rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("autoencoder", [wan_vae, cogvideox_vae])
def test_the_deviations_of_latents_are_kept_beside_their_mode(
    tmp_path: Path, autoencoder: Callable[[Path], Any]
) -> None:
    model = autoencoder(tmp_path)
    clips = Films().read("clips", [0, 1])
    plain = latents(tmp_path, CPU, licence=LICENCE)
    sampled = latents(tmp_path, CPU, licence=LICENCE, sample=True)
    assert plain.options | {"sample": True} == sampled.options
    arrays = sampled.opened()(clips)
    assert {*plain.opened()(clips)} == {"values"}
    assert np.array_equal(arrays["values"], plain.opened()(clips)["values"])
    video = torch.from_numpy(clips[1:] / 127.5 - 1).float().permute(0, 4, 1, 2, 3)
    with torch.no_grad():
        distribution = model.encode(video).latent_dist
    # One deviation above the mean, in the units of the generator, is one deviation above the mode.
    above = (distribution.mean + distribution.std).numpy()
    if autoencoder is cogvideox_vae:
        expected = 0.7 * above
    else:
        mean = np.array(model.config.latents_mean)[:, None, None, None]
        expected = (above - mean) / np.array(model.config.latents_std)[:, None, None, None]
    assert np.allclose(arrays["values"][1:] + arrays["deviations"][1:], expected, rtol=1e-3, atol=1e-3)
    assert (arrays["deviations"] > 0).all()


def test_clips_that_an_autoencoder_would_cut(tmp_path: Path) -> None:
    wan_vae(tmp_path)
    clips = Films(frames=8, side=20).read("clips", [0])
    with refused(UsageError, "vae-frames-indivisible", frame_count=8, key_prefix="vae.", suggested_frames=5):
        latents(tmp_path, CPU, licence=LICENCE).opened()(clips)
    with refused(
        UsageError,
        "vae-frame-size-indivisible",
        rows=20,
        columns=20,
        space_factor=8,
        key_prefix="vae.",
        suggested_size="16x16",
    ):
        latents(tmp_path, CPU, licence=LICENCE, frames=5).opened()(clips)
    encoded = latents(tmp_path, CPU, licence=LICENCE, frames=5, size="16x24").opened()(clips)["values"]
    assert encoded.shape == (1, 4, 2, 2, 3)
    with refused(UsageError, "vae-clip-too-short", requested_frames=9, clip_frames=8):
        latents(tmp_path, CPU, licence=LICENCE, frames=9).opened()(clips)
    with refused(UsageError, "frame-size-malformed", key="vae.size", size="big"):
        latents(tmp_path, CPU, licence=LICENCE, size="big")


def test_what_prepares_inputs_must_be_beside_the_weights(tmp_path: Path) -> None:
    clip_tower(tmp_path)
    (tmp_path / "preprocessor_config.json").unlink()
    with refused(
        UsageError,
        "processor-missing-files",
        processor_class="AutoImageProcessor",
        error=re.compile("preprocessor_config"),
    ):
        image(tmp_path, CPU, licence=LICENCE).opened()
    with refused(UsageError, "target-model-missing", folder=tmp_path / "none"):
        image(tmp_path / "none", CPU, licence=LICENCE)
    with refused(
        UsageError, "targets-precision-unknown", precision="half", available=["float32", "bfloat16"]
    ):
        Hardware(precision="half")
    with refused(UsageError, "targets-device-unknown", device="gpu"):
        Hardware("gpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is there")
def test_a_gpu_that_is_not_there() -> None:
    with refused(UsageError, "targets-gpu-unavailable", device="cuda"):
        Hardware("cuda")


def test_frames_are_spread_evenly() -> None:
    assert evenly(33, 16, "action") == [1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31]
    assert evenly(5, 1, "image") == [2]
    assert evenly(3, None, "image") == [0, 1, 2]
