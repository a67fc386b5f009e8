"""ViCLIP, from a small file with the published names, against the same computed step by step."""

import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from rtdecode.errors import UsageError
from tests.refusals import refused
from tests.train.targets.models import LICENCE, Films
from train.targets.embeddings import action
from train.targets.models import Hardware
from train.targets.viclip import Sizes, ViClip, prepared, read

CPU = Hardware()
WIDTH = 128
HEADS = 2
DEPTH = 2
PATCH = 14
GRID = 2
SIDE = GRID * PATCH
FRAMES = 8
FEATURES = 24


def tensors(seed: int = 0) -> dict[str, Tensor]:
    """Draw the tensors of a small ViCLIP, with the names of the published file."""
    draws = torch.Generator().manual_seed(seed)
    vision = {
        "class_embedding": (WIDTH,),
        "positional_embedding": (GRID**2 + 1, WIDTH),
        "temporal_positional_embedding": (1, FRAMES, WIDTH),
        "proj": (WIDTH, FEATURES),
        "conv1.weight": (WIDTH, 3, 1, PATCH, PATCH),
    }
    for norm in ("ln_pre", "ln_post"):
        vision |= {f"{norm}.weight": (WIDTH,), f"{norm}.bias": (WIDTH,)}
    for n in range(DEPTH):
        block = f"transformer.resblocks.{n}"
        vision |= {
            f"{block}.attn.in_proj_weight": (3 * WIDTH, WIDTH),
            f"{block}.attn.in_proj_bias": (3 * WIDTH,),
            f"{block}.attn.out_proj.weight": (WIDTH, WIDTH),
            f"{block}.attn.out_proj.bias": (WIDTH,),
            f"{block}.mlp.c_fc.weight": (4 * WIDTH, WIDTH),
            f"{block}.mlp.c_fc.bias": (4 * WIDTH,),
            f"{block}.mlp.c_proj.weight": (WIDTH, 4 * WIDTH),
            f"{block}.mlp.c_proj.bias": (WIDTH,),
        }
        for norm in ("ln_1", "ln_2"):
            vision |= {f"{block}.{norm}.weight": (WIDTH,), f"{block}.{norm}.bias": (WIDTH,)}
    state = {}
    for name, shape in vision.items():
        # Norms leave about the size that they find, so that every layer has a part in the result.
        is_norm = "ln_" in name and name.endswith("weight")
        state[f"vision_encoder.{name}"] = float(is_norm) + 0.2 * torch.randn(shape, generator=draws)
    captions = {"text_encoder.token_embedding.weight": torch.zeros(4, 4), "temp": torch.tensor(0.01)}
    return state | captions


def saved(path: Path, state: dict[str, Tensor]) -> Path:
    torch.save({"model": state}, path)
    return path


def step_by_step(clip: np.ndarray, state: dict[str, Tensor]) -> Tensor:
    """Embed 8 frames of 28 x 28 pixels, (frame, row, column, 3), without any layer of torch."""
    vision = {name.removeprefix("vision_encoder."): value.double() for name, value in state.items()}

    def norm(x: Tensor, name: str) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        deviation = (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return centred / deviation * vision[f"{name}.weight"] + vision[f"{name}.bias"]

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ vision[f"{name}.weight"].T + vision[f"{name}.bias"]

    frames = (clip / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    tokens = [vision["class_embedding"] + vision["positional_embedding"][0]]
    for moment, frame in enumerate(frames):
        for place in range(GRID**2):
            row = place // GRID * PATCH
            column = place % GRID * PATCH
            patch = torch.from_numpy(frame[row : row + PATCH, column : column + PATCH])
            token = torch.einsum("wcrl,rlc->w", vision["conv1.weight"][:, :, 0], patch)
            token = token + vision["positional_embedding"][1 + place]
            tokens.append(token + vision["temporal_positional_embedding"][0, moment])
    x = norm(torch.stack(tokens), "ln_pre")
    for n in range(DEPTH):
        block = f"transformer.resblocks.{n}"
        normed = norm(x, f"{block}.ln_1")
        projected = normed @ vision[f"{block}.attn.in_proj_weight"].T + vision[f"{block}.attn.in_proj_bias"]
        heads = []
        for head in range(HEADS):
            here = slice(64 * head, 64 * (head + 1))
            query, key, value = (part[:, here] for part in projected.chunk(3, dim=1))
            heads.append((query @ key.T / 8).softmax(1) @ value)
        x = x + linear(torch.cat(heads, dim=1), f"{block}.attn.out_proj")
        inner = linear(norm(x, f"{block}.ln_2"), f"{block}.mlp.c_fc")
        x = x + linear(inner / (1 + torch.exp(-1.702 * inner)), f"{block}.mlp.c_proj")
    return norm(x[0], "ln_post") @ vision["proj"]


def test_a_clip_is_embedded_as_the_published_layers_say(tmp_path: Path) -> None:
    state = tensors()
    path = saved(tmp_path / "ViClip.pth", state)
    clips = Films(frames=17, side=SIDE).read("clips", [0, 1])
    target = action(path, CPU, licence=LICENCE)
    assert (target.name, target.source.to_manifest()["files"]) == ("action", ["ViClip.pth"])
    values = target.opened()(clips)["values"]
    assert values.shape == (2, FEATURES)
    for clip, vector in zip(clips, values, strict=True):
        # Of 17 frames it is every second one, and eight of them.
        expected = step_by_step(clip[0:15:2], state)
        np.testing.assert_allclose(vector, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())
    assert np.abs(values[0] - values[1]).max() > 0.1 * np.abs(values).max()


def test_frames_are_stretched_to_the_size_of_the_model() -> None:
    sizes = Sizes(WIDTH, DEPTH, 4 * WIDTH, FEATURES, PATCH, GRID, FRAMES)
    (clip,) = Films(frames=8, side=40).read("clips", [0])
    stretched = np.stack([cv2.resize(frame[:30], (SIDE, SIDE)) for frame in clip])
    np.testing.assert_array_equal(prepared(clip[:, :30], sizes), prepared(stretched, sizes))
    assert prepared(clip, sizes).shape == (3, FRAMES, SIDE, SIDE)
    with refused(UsageError, "target-clip-too-short", target="action", model_frames=8, clip_frames=7):
        prepared(clip[:7], sizes)


def test_the_published_size_is_that_of_clip_with_a_moment_for_each_frame() -> None:
    config = CLIPVisionConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=24,
        num_attention_heads=16,
        patch_size=14,
        image_size=224,
        projection_dim=768,
    )
    with torch.device("meta"):
        clip = CLIPVisionModelWithProjection(config)
        model = ViClip(Sizes(width=1024, depth=24, inner=4096, features=768, patch=14, grid=16, frames=8))
    parameters = {name: value.numel() for name, value in model.named_parameters()}
    assert sum(parameters.values()) == sum(p.numel() for p in clip.parameters()) + 8 * 1024
    assert model.get_parameter("vision_encoder.positional_embedding").shape == (257, 1024)


@pytest.mark.parametrize(
    ("name", "shape", "code"),
    [
        # Places of frames of another size.
        ("positional_embedding", (GRID**2 + 2, WIDTH), "viclip-size-unsupported"),
        # Patches of two frames.
        ("conv1.weight", (WIDTH, 3, 2, PATCH, PATCH), "viclip-size-unsupported"),
        ("conv1.weight", (96, 3, 1, PATCH, PATCH), "viclip-size-unsupported"),
        ("proj", (WIDTH,), "viclip-size-unsupported"),
        # One layer of another width than the others.
        ("transformer.resblocks.1.attn.out_proj.bias", (64,), "weights-module-mismatch"),
    ],
)
def test_a_file_of_another_size_is_refused(
    tmp_path: Path, name: str, shape: tuple[int, ...], code: str
) -> None:
    state = tensors() | {f"vision_encoder.{name}": torch.zeros(shape)}
    with refused(UsageError, code):
        action(saved(tmp_path / "ViClip.pth", state), CPU, licence=LICENCE).opened()


def test_names_that_are_left_over_are_listed(tmp_path: Path) -> None:
    state = tensors() | {"vision_encoder.ln_mid.weight": torch.zeros(WIDTH), "head.bias": torch.zeros(3)}
    names = {"left over": ["head.bias", "vision_encoder.ln_mid.weight"]}
    with refused(UsageError, "weights-module-mismatch", names=names):
        read(saved(tmp_path / "ViClip.pth", state))


def test_a_file_of_another_model_is_refused(tmp_path: Path) -> None:
    missing = re.compile("vision_encoder.conv1.weight.*vision_encoder.proj")
    with refused(UsageError, "weights-module-mismatch", names=missing):
        read(saved(tmp_path / "other.pth", {"conv1.weight": torch.zeros(3, 3)}))


def test_code_in_the_file_is_not_run(tmp_path: Path) -> None:
    class Harmful:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return exec, (f"open({str(tmp_path / 'run')!r}, 'w')",)

    torch.save({"model": tensors(), "hook": Harmful()}, tmp_path / "ViClip.pth")
    with refused(UsageError, "weights-pickle-unreadable"):
        read(tmp_path / "ViClip.pth")
    assert not (tmp_path / "run").exists()
