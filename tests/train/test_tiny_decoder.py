"""A tiny decoder is distilled from small autoencoders of the real classes, with random weights."""

import json
import os
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from diffusers.models.autoencoders.vq_model import VQModel
from safetensors.torch import load_file

from rtdecode.disk.video import write_mp4
from rtdecode.errors import UsageError
from rtdecode.phantom.film.film import FPS, Film
from tests.refusals import refused
from tests.train.parts.codecs.decoders import tiny_state
from tests.train.targets.models import cogvideox_vae, wan_vae
from train import tiny_decoder
from train.parts.codecs import decoded_films
from train.parts.codecs.decoder_distillation import draw
from train.parts.codecs.tiny_video_decoder import from_published
from train.tiny_decoder import FIGURES, WEIGHTS, Settings, main, read_arguments, run
from train.trainer.loader import Place

_SMALL = ["licence=MIT", "frames=9", "size=16x24", "steps=12", "rate=0.002", "crop=2", "device=cpu"]


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A film of 40 frames: four clips of nine."""
    path = tmp_path_factory.mktemp("films") / "film.mp4"
    write_mp4(path, Film(5, 1).frames, FPS)
    return path


@pytest.fixture(scope="module")
def wan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vae") / "wan"
    wan_vae(folder)
    return folder


@pytest.fixture(scope="module")
def cogvideox(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline's folder, of which the autoencoder alone is read."""
    folder = tmp_path_factory.mktemp("vae") / "cogvideox"
    cogvideox_vae(folder / "vae")
    parts = {"_class_name": "CogVideoXPipeline", "vae": ["diffusers", "AutoencoderKLCogVideoX"]}
    (folder / "model_index.json").write_text(json.dumps(parts))
    return folder


@pytest.fixture(scope="module")
def distilled(wan: Path, film: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a training leaves that nothing stops."""
    out = tmp_path_factory.mktemp("made") / "tiny"
    assert main([str(wan), *_SMALL, f"films={film}", f"out={out}"]) == 0
    return out


def _check_learned(out: Path) -> None:
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert len(rows) == 4
    assert rows[-1]["loss"] < 0.8 * rows[0]["loss"]
    figures = json.loads((out / FIGURES).read_text())
    psnr = figures["psnr"]
    assert psnr["tiny"] > psnr["untrained"] + 1
    assert psnr["constant"] > psnr["untrained"]
    assert figures["clips"] == {"taught": 3, "held_out": 1}


def test_it_learns_to_draw_what_wan_draws(distilled: Path) -> None:
    _check_learned(distilled)


@pytest.mark.full
def test_it_learns_to_draw_what_cogvideox_draws(
    cogvideox: Path, film: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "tiny"
    assert main([str(cogvideox), *_SMALL, f"films={film}", f"out={out}"]) == 0
    _check_learned(out)
    output = capsys.readouterr().out
    assert "tiny decoder" in output
    assert "the same, untrained" in output
    assert "mean of the other clips" in output
    assert output.splitlines()[-1] == str(out)


def test_what_is_written_has_the_published_layout(distilled: Path) -> None:
    assert {path.name for path in distilled.iterdir()} == {WEIGHTS, FIGURES, "log.jsonl"}
    assert not distilled.with_name("tiny.part").exists()
    state = load_file(distilled / WEIGHTS)
    published = {name: x.shape for name, x in tiny_state(4).items() if name.startswith("decoder.")}
    assert {name: x.shape for name, x in state.items()} == published
    decoder, source = from_published(distilled / WEIGHTS, "Apache-2.0")
    assert decoder.channels == 4
    assert source.licence == "Apache-2.0"
    figures = json.loads((distilled / FIGURES).read_text())
    # Nine tensors of 16 x 24 pixels.
    count = 3 * 2 * 3 * (256 + 4 * 128 + 16 * 64)
    assert figures["state_bytes"] == {"float32": 4 * count, "bfloat16": 2 * count}
    assert figures["vae"]["licence"] == "MIT"


def test_a_distillation_that_is_stopped_twice_goes_on_to_the_same_weights(
    distilled: Path,
    wan: Path,
    film: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "tiny"
    command = [str(wan), *_SMALL, f"films={film}", f"out={out}"]
    encode = decoded_films.encode
    encoded: list[Any] = []
    stops = {"clips": 2, "steps": 7}

    def encoding(pictures: torch.Tensor, model: Any) -> torch.Tensor:
        if stops.get("clips") == len(encoded):
            raise KeyboardInterrupt
        encoded.append(pictures)
        return encode(pictures, model)

    def drawing(clips: Any, side: int, place: Place) -> Any:
        if stops.get("steps") == place.number:
            raise KeyboardInterrupt
        return draw(clips, side, place)

    monkeypatch.setattr(decoded_films, "encode", encoding)
    monkeypatch.setattr(tiny_decoder, "draw", drawing)
    for stop, count in (("clips", 2), ("steps", 4)):
        assert main(command) == 130
        assert "the same command goes on" in capsys.readouterr().err
        assert not out.exists()
        assert len(encoded) == count
        del stops[stop]
    assert main(command) == 0
    # No clip was encoded twice.
    assert len(encoded) == 4
    resumed = load_file(out / WEIGHTS)
    assert all(torch.equal(x, resumed[name]) for name, x in load_file(distilled / WEIGHTS).items())
    assert json.loads((out / FIGURES).read_text()) == json.loads((distilled / FIGURES).read_text())


def test_it_goes_on_with_the_same_values_alone(wan: Path, film: Path, tmp_path: Path) -> None:
    out = tmp_path / "tiny"
    part = tmp_path / "tiny.part"
    part.mkdir()
    settings = read_arguments([*_SMALL, f"films={film}", f"out={out}"])
    (part / "request.json").write_text(json.dumps({"frames": 33}))
    with refused(UsageError, "tiny-decoder-arguments-mismatch", changes=re.compile("frames was 33 and is 9")):
        run(wan, settings)
    assert os.listdir(part) == ["request.json"]


def test_a_folder_that_holds_something_is_refused(wan: Path, film: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    settings = read_arguments([*_SMALL, f"films={film}", f"out={tmp_path}"])
    with refused(UsageError, "output-folder-not-empty", folder=tmp_path):
        run(wan, settings)


def test_another_autoencoder_is_refused(film: Path, tmp_path: Path) -> None:
    VQModel(block_out_channels=(4,), norm_num_groups=1, layers_per_block=1).save_pretrained(tmp_path / "vae")
    with refused(
        UsageError,
        "autoencoder-wrong-class",
        expected_classes=re.compile("AutoencoderKLWan"),
        actual_class="VQModel",
    ):
        _run_in(tmp_path, film, tmp_path / "vae")
    assert not (tmp_path / "tiny.part").exists()


def test_latents_of_other_scale_are_refused(film: Path, tmp_path: Path) -> None:
    """As those of Wan 2.2, which are of 16 x 16 pixels."""
    vae = AutoencoderKLWan(base_dim=4, z_dim=4, scale_factor_spatial=16)
    vae.save_pretrained(tmp_path / "vae")
    with refused(UsageError, "tiny-decoder-vae-mismatch", actual_frames=4, actual_pixels=16):
        _run_in(tmp_path, film, tmp_path / "vae")
    assert not (tmp_path / "tiny.part").exists()


def test_a_folder_without_a_model_is_refused(film: Path, tmp_path: Path) -> None:
    with refused(UsageError, "weights-folder-missing-config", folder=tmp_path / "nowhere"):
        _run_in(tmp_path, film, tmp_path / "nowhere")
    assert not (tmp_path / "tiny.part").exists()


def test_clips_without_room_are_refused_before_one_is_decoded(
    wan: Path, film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Four clips of nine frames of 16 x 24 pixels.
    needed = 4 * 9 * 16 * 24 * 3
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=needed - 1))
    with refused(UsageError, "decoded-clips-insufficient-disk", clips=4, needed_gb=needed / 1e9):
        _run_in(tmp_path, film, wan)
    assert not (tmp_path / "tiny.part").exists()


def _run_in(folder: Path, film: Path, vae: Path) -> None:
    run(vae, read_arguments([*_SMALL, f"films={film}", f"out={folder / 'tiny'}"]))


@pytest.mark.parametrize(
    ("change", "code", "values"),
    [
        ("films=nowhere.mp4", "films-unknown", {"film": "nowhere.mp4"}),
        ("films=natural", "films-drawn-unsupported", {"film": "natural"}),
        (
            "frames=33",
            "film-too-few-clips",
            {"frames": 40, "fps": 8.0, "min_clips": 2, "clip_frames": 33},
        ),
        ("frames=1", "tiny-decoder-single-frame", {}),
        ("frames=10", "vae-frames-indivisible", {"frame_count": 10}),
        ("size=20x24", "vae-frame-size-indivisible", {"key_prefix": "", "suggested_size": "16x24"}),
        ("size=large", "frame-size-malformed", {"key": "size", "size": "large"}),
        ("licence= ", "weights-missing-licence", {}),
        ("steps=0", "tiny-decoder-value-not-positive", {"key": "steps", "actual": "0"}),
        ("fps=nan", "tiny-decoder-value-not-positive", {"key": "fps", "actual": "nan"}),
        ("rate=fast", "tiny-decoder-value-not-number", {"key": "rate", "actual": "fast"}),
        ("precision=fp8", "phase-precision-unknown", {"available": ["no", "bf16"], "precision": "fp8"}),
        ("device=tpu", "machine-device-unknown", {"available": ["auto", "cpu"], "device": "tpu"}),
        (
            "colour=red",
            "tiny-decoder-unknown-key",
            {"argument": "colour=red", "available": re.compile("'out', 'films', 'licence'")},
        ),
    ],
)
def test_what_cannot_be_used_is_refused(
    wan: Path, film: Path, tmp_path: Path, change: str, code: str, values: dict[str, Any]
) -> None:
    out = tmp_path / "tiny"
    with refused(UsageError, code, **values):
        run(wan, read_arguments([*_SMALL, f"films={film}", f"out={out}", change]))
    assert not out.with_name("tiny.part").exists()


def test_a_refusal_ends_the_command_in_a_sentence_and_a_status(
    wan: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(wan), *_SMALL, "colour=red"]) == 2
    assert "colour=red" in capsys.readouterr().err


@pytest.mark.parametrize("key", ["out", "films", "licence"])
def test_what_is_missing_is_said(key: str) -> None:
    arguments = [text for text in ("out=x", "films=y", "licence=MIT") if not text.startswith(key)]
    with refused(UsageError, "tiny-decoder-missing-key", key=key):
        read_arguments(arguments)


def test_the_defaults_are_of_published_size() -> None:
    settings = read_arguments(["out=x", "films=y", "licence=MIT"])
    assert settings == Settings(Path("x"), "y", "MIT")
    assert settings.frames == 33
    assert settings.size == "480x720"
