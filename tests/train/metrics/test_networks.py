"""Networks are read from folders, see frames as their settings say, and are refused if they lack weights."""

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import Dinov2Model, ViTForImageClassification

from rtdecode.errors import UsageError
from tests.refusals import refused
from tests.train.metrics import tiny_networks
from tests.train.metrics.tiny_networks import CLASSES, FRAMES, SIDE
from train.metrics.networks import clip_images, dino_images, frame_numbers, image_classifier, video_classifier


def film(frames: int, height: int = SIDE, width: int = SIDE, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (frames, height, width, 3)).astype(np.uint8)


def test_frames_are_classified_as_by_the_network_itself(tmp_path: Path) -> None:
    network = image_classifier(tiny_networks.image_classifier(tmp_path))
    # More frames than one batch holds, wider than high.
    clip = film(18, 24, 48)
    logits = network.read(clip)
    assert logits.shape == (18, CLASSES)
    assert logits.dtype == np.float32
    assert (network.classes, network.frames, len(network.digest)) == (CLASSES, None, 12)
    model = ViTForImageClassification.from_pretrained(tmp_path)
    small = [Image.fromarray(frame).resize((SIDE, SIDE), Image.Resampling.BILINEAR) for frame in clip]
    # The usual settings of ViT bring 0 to 255 to -1 to 1.
    values = torch.from_numpy(np.stack([np.asarray(picture) for picture in small])).float() / 127.5 - 1
    with torch.no_grad():
        expected = model(values.permute(0, 3, 1, 2)).logits.numpy()
    np.testing.assert_allclose(logits, expected, atol=1e-4)


def test_a_clip_is_classified_by_evenly_spaced_frames(tmp_path: Path) -> None:
    network = video_classifier(tiny_networks.video_classifier(tmp_path))
    clip = film(33)
    logits = network.read(clip)
    assert logits.shape == (CLASSES,)
    assert network.frames == FRAMES
    # Frames that are not taken do not count.
    other = clip.copy()
    other[[1, 2, 5, 30]] = 0
    assert np.array_equal(network.read(other), logits)
    other[frame_numbers(33, FRAMES)[1]] = 0
    assert not np.array_equal(network.read(other), logits)


def test_the_frames_that_are_taken_are_those_that_are_said() -> None:
    indices = [0, 2, 4, 6, 9, 11, 13, 15, 17, 19, 21, 23, 26, 28, 30, 32]
    assert frame_numbers(33, 16).tolist() == indices
    assert " ".join(map(str, indices[:-1])) in (frame_numbers.__doc__ or "").replace(",", "")
    assert frame_numbers(6, 16).min() == 0
    assert frame_numbers(6, 16).max() == 5
    assert frame_numbers(16, 16).tolist() == list(range(16))


def test_pictures_are_embedded_frame_by_frame(tmp_path: Path) -> None:
    clip = film(5)
    embedded = clip_images(tiny_networks.clip(tmp_path / "clip")).read(clip)
    assert embedded.shape == (5, 12)
    dino_embeddings = dino_images(tiny_networks.dino(tmp_path / "dino")).read(clip)
    model = Dinov2Model.from_pretrained(tmp_path / "dino")
    settings = json.loads((tmp_path / "dino" / "preprocessor_config.json").read_text())
    mean = np.array(settings["image_mean"])
    spread = np.array(settings["image_std"])
    values = torch.from_numpy(((clip / 255 - mean) / spread).transpose(0, 3, 1, 2)).float()
    with torch.no_grad():
        expected = model(values).last_hidden_state[:, 0].numpy()
    np.testing.assert_allclose(dino_embeddings, expected, atol=1e-4)


def test_a_folder_that_lacks_something_is_refused(tmp_path: Path) -> None:
    needed = ["config.json", "preprocessor_config.json", "model.safetensors or pytorch_model.bin"]
    with refused(UsageError, "metric-network-missing-files", folder=tmp_path, missing_files=needed):
        image_classifier(tmp_path)
    folder = tiny_networks.image_classifier(tmp_path / "vit")
    weights = load_file(folder / "model.safetensors")
    headless = {name: value for name, value in weights.items() if not name.startswith("classifier")}
    save_file(headless, folder / "model.safetensors", {"format": "pt"})
    with refused(
        UsageError,
        "metric-network-missing-weights",
        missing_count=2,
        model_class="ViTForImageClassification",
        missing_weight="classifier.bias",
    ):
        image_classifier(folder)


def test_a_network_of_another_kind_is_refused(tmp_path: Path) -> None:
    with refused(UsageError, "metric-network-unreadable", key="image_classifier"):
        image_classifier(tiny_networks.video_classifier(tmp_path))
