"""Films become latents and the pictures that a full decoder draws of them, once."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rtdecode.disk.video import write_mp4
from rtdecode.errors import UsageError
from rtdecode.phantom.film.film import FPS, Film
from rtdecode.phantom.film.from_file import frames_from_file
from tests.refusals import refused
from tests.train.targets.models import cogvideox_vae, wan_vae
from train.config.training_films import TrainingFilm, training_films
from train.parts.codecs import decoded_films
from train.parts.codecs.decoded_films import Cut, DecodedClips, check, counted, prepare
from train.targets.latents import encode

_CUT = Cut(frames=9, size=(16, 24), fps=FPS, seconds=60.0)


@pytest.fixture
def film(tmp_path: Path) -> list[TrainingFilm]:
    """A film of 40 frames: four clips of nine."""
    write_mp4(tmp_path / "film.mp4", Film(5, 1).frames, FPS)
    return list(training_films(str(tmp_path / "film.mp4")))


def _prepared(films: list[TrainingFilm], vae: Any, folder: Path) -> tuple[DecodedClips, DecodedClips]:
    return prepare(films, counted(films, _CUT), _CUT, vae, folder)


@pytest.mark.parametrize("kind", ["wan", "cogvideox"])
@torch.no_grad()
def test_what_is_learned_from_is_what_the_autoencoder_draws(
    kind: str, film: list[TrainingFilm], tmp_path: Path
) -> None:
    wan = kind == "wan"
    vae: Any = wan_vae(tmp_path / "vae") if wan else cogvideox_vae(tmp_path / "vae")
    taught, held_out = _prepared(film, vae, tmp_path / "clips")
    assert len(taught) == 3
    assert len(held_out) == 1
    assert held_out.latents.shape == (1, 4, 3, 2, 3)
    assert held_out.pictures.shape == (1, 9, 3, 16, 24)
    # The fourth clip, by diffusers alone.
    clip = np.stack(list(frames_from_file(Path(film[0].source), _CUT.size, FPS))[27:36])
    pictures = torch.from_numpy(clip).permute(0, 3, 1, 2) / 127.5 - 1
    latents = vae.encode(pictures.transpose(0, 1)[None]).latent_dist.mode()
    decoded = vae.decode(latents).sample
    expected = 255 * (decoded[0].transpose(0, 1) / 2 + 0.5).clamp(0, 1)
    assert np.abs(held_out.pictures[0] - expected.numpy()).max() <= 0.51
    assert held_out.pictures[0].std() > 1
    assert np.abs(held_out.latents[0] - encode(pictures, vae)[0].numpy()).max() < 1e-6


def test_a_clip_that_is_there_is_not_computed_again(
    film: list[TrainingFilm], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vae = wan_vae(tmp_path / "vae")
    folder = tmp_path / "clips"
    first, _ = _prepared(film, vae, folder)
    lost = sorted(folder.iterdir())[1]
    lost.unlink()
    encoded_clips: list[Any] = []

    def noted(pictures: torch.Tensor, model: Any) -> torch.Tensor:
        encoded_clips.append(pictures)
        return encode(pictures, model)

    monkeypatch.setattr(decoded_films, "encode", noted)
    again, _ = _prepared(film, vae, folder)
    assert len(encoded_clips) == 1
    assert np.array_equal(first.latents[:], again.latents[:])
    assert np.array_equal(first.pictures[:], again.pictures[:])


def test_no_more_is_read_than_asked_for(film: list[TrainingFilm]) -> None:
    assert counted(film, _CUT) == [4]
    assert counted(film, Cut(9, (16, 24), FPS, seconds=2.3)) == [2]


def test_the_last_tenth_of_each_film_is_held_out(tmp_path: Path) -> None:
    for number, seconds in enumerate((5, 23)):
        write_mp4(tmp_path / f"{number}.mp4", Film(seconds, number).frames, FPS)
    films = list(training_films(f"{tmp_path / '0.mp4'},{tmp_path / '1.mp4'}"))
    assert counted(films, _CUT) == [4, 20]
    taught, held_out = _prepared(films, wan_vae(tmp_path / "vae"), tmp_path / "clips")
    held_out_names = [
        f"{films[0].key}-00003.npz",
        f"{films[1].key}-00018.npz",
        f"{films[1].key}-00019.npz",
    ]
    latents = [np.load(tmp_path / "clips" / name)["latents"] for name in held_out_names]
    np.testing.assert_array_equal(held_out.latents[:], np.concatenate(latents))
    assert len(np.unique(held_out.latents[:], axis=0)) == 3
    assert len(taught) == 21


@pytest.mark.parametrize(
    ("cut", "values"),
    [
        (Cut(33, (16, 24), FPS, 60.0), {"frames": 40, "fps": 8, "min_clips": 2, "clip_frames": 33}),
        (Cut(9, (16, 24), FPS, 1.2), {"frames": 9}),
    ],
)
def test_films_that_are_too_short_are_refused(
    film: list[TrainingFilm], cut: Cut, values: dict[str, int]
) -> None:
    with refused(UsageError, "film-too-few-clips", **values):
        counted(film, cut)


def test_a_drawn_film_is_refused() -> None:
    with refused(UsageError, "films-drawn-unsupported", film="shapes"):
        counted(training_films("shapes"), _CUT)


def test_a_damaged_film_is_refused(tmp_path: Path) -> None:
    write_mp4(tmp_path / "film.mp4", Film(20, 1).frames, FPS)
    content = (tmp_path / "film.mp4").read_bytes()
    (tmp_path / "half.mp4").write_bytes(content[: len(content) // 2])
    films = training_films(str(tmp_path / "half.mp4"))
    with refused(UsageError, "film-truncated", decodable_s=re.compile(r"^[\d.]+$")):
        counted(films, _CUT)
    # What can be decoded can be learned from.
    assert counted(films, Cut(9, (16, 24), FPS, seconds=3)) == [2]


@pytest.mark.parametrize(
    ("cut", "code", "values"),
    [
        (
            Cut(10, (16, 24), FPS, 60.0),
            "vae-frames-indivisible",
            {"frame_count": 10, "key_prefix": "", "suggested_frames": 9},
        ),
        (
            Cut(9, (20, 24), FPS, 60.0),
            "vae-frame-size-indivisible",
            {"rows": 20, "columns": 24, "key_prefix": "", "suggested_size": "16x24"},
        ),
        (Cut(13, (16, 24), FPS, 60.0), "latent-frames-indivisible", {"latent_frames": 4}),
    ],
)
def test_clips_that_the_autoencoder_cannot_take_are_refused(
    tmp_path: Path, cut: Cut, code: str, values: dict[str, object]
) -> None:
    with refused(UsageError, code, **values):
        check(cut, cogvideox_vae(tmp_path / "vae"))
