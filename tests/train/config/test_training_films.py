"""``films=``: which films are trained on, by their content, and what must not be chosen by what."""

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rtdecode.disk.video import write_mp4
from rtdecode.errors import UsageError
from rtdecode.phantom.film.film import FPS, Film
from tests.refusals import refused
from train.config.recipe import build, differences, read
from train.config.run_context import RunContext
from train.config.run_files import read_run
from train.config.training_films import TrainingFilm, training_films
from train.data.simulated import FilmSessions
from train.models.ridge.plan import PatchRidgePlan
from train.run_recipe import run

SMALL = [
    "scale=tiny",
    "data.sessions=0",
    "data.seconds=16",
    "system.codec.components=2",
    "system.codec.channels=4",
    "system.encoder.eeg_components=2",
    "system.encoder.eeg_frequencies=4",
    "system.encoder.voxel_components=4",
    "system.encoder.shares=[0.5]",
    "judge.seconds=16",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two films of 12 s, and a note."""
    place = tmp_path_factory.mktemp("films")
    for seed, name in ((1, "one.mp4"), (2, "two.mp4")):
        write_mp4(place / name, Film(12, seed).frames, FPS)
    (place / "INDEX.md").write_text("two films")
    return place


def sessions(films: tuple[TrainingFilm, ...], **changes: object) -> FilmSessions:
    texts = [f"data.{name}={value}" for name, value in changes.items()]
    return build(read("ridge", ["data.seconds=16", "data.sessions=3-4", *texts]).tree)["data"].with_films(
        films
    )


def test_words_paths_and_folders_are_found(folder: Path) -> None:
    films = training_films(f"natural, {folder},shapes")
    assert [film.name for film in films if film.by_seed] == ["natural", "shapes"]
    assert {film.name for film in films if not film.by_seed} == {"one.mp4", "two.mp4"}
    assert training_films([str(folder / "one.mp4")])[0] in films


def test_a_film_is_known_by_its_content(folder: Path, tmp_path: Path) -> None:
    renamed = Path(shutil.copy(folder / "one.mp4", tmp_path / "zwei.mp4"))
    plain = read("ridge", [f"films={folder / 'one.mp4'}"])
    assert read("ridge", [f"films={renamed}"]).digest == plain.digest
    assert read("ridge", [f"films={folder / 'two.mp4'}"]).digest != plain.digest
    # Names of a folder's films do not order its sessions, either.
    shutil.copy(folder / "two.mp4", tmp_path / "eins.mp4")
    assert read("ridge", [f"films={tmp_path}"]).digest == read("ridge", [f"films={folder}"]).digest
    changed = list(differences(plain.values, read("ridge", ["films=natural"]).values))
    assert len(changed) == 1
    assert changed[0].startswith("films was")


def test_without_films_a_recipe_is_what_it_was() -> None:
    assert "films" not in read("ridge", []).values
    assert "films" not in str(read("ridge", []).values)
    assert read("ridge", []).digest == "5cd3b3b42dd5f23f"


@pytest.mark.parametrize(
    ("films", "code", "values"),
    [
        (
            "romance",
            "films-unknown",
            {"film": "romance", "available": ["shapes", "known-shapes", "natural", "real", "none"]},
        ),
        ("none,shapes", "films-duplicate-film", {"first_film": "shapes", "second_film": "shapes"}),
        ("", "films-unknown", {"film": ""}),
        ("natural,natural", "films-duplicate-film", {"first_film": "natural", "second_film": "natural"}),
        ("{empty}", "films-folder-empty", {"folder": re.compile("empty$")}),
        ("{text}", "film-unreadable", {"path": re.compile(r"text\.mp4$")}),
        (
            "{short}",
            "film-shorter-than-window",
            {"path": re.compile(r"short\.mp4$"), "film_s": 2, "window_s": 4},
        ),
    ],
)
def test_what_cannot_be_watched_is_refused_before_anything_is_simulated(
    films: str, code: str, values: dict[str, Any], tmp_path: Path
) -> None:
    places = {"empty": tmp_path / "empty", "text": tmp_path / "text.mp4", "short": tmp_path / "short.mp4"}
    places["empty"].mkdir()
    (places["empty"] / "notes.txt").write_text("no film")
    places["text"].write_text("no film")
    write_mp4(places["short"], Film(2, 1).frames, FPS)
    out = tmp_path / "out"
    with refused(UsageError, code, **values):
        run("ridge", [*SMALL, f"films={films.format(**places)}", f"out={out}"])
    assert not out.with_name("out.part").exists()


def test_a_film_is_long_enough_for_the_windows_of_the_grid(tmp_path: Path) -> None:
    short = tmp_path / "short.mp4"
    write_mp4(short, Film(2, 1).frames, FPS)
    (film,) = training_films(str(short))
    assert film.length(limit_s=16, window_s=2) == 2
    with refused(UsageError, "film-shorter-than-window", film_s=2, window_s=3):
        film.length(limit_s=16, window_s=3)


@pytest.mark.parametrize("arguments", [["ridge", "films=real"], ["compact"]])
def test_without_the_recorded_data_real_films_are_refused_and_a_way_out_is_named(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    for folder, code in (
        ("", "films-recorded-variable-unset"),
        (str(tmp_path), "films-recorded-folder-missing"),
    ):
        monkeypatch.setenv("RTDECODE_DATA", folder)
        with refused(UsageError, code, variable="RTDECODE_DATA", alternative="none") as caught:
            run(arguments[0], [*arguments[1:], f"out={out}"])
        assert "RTDECODE_DATA" in str(caught.value)
        assert "films=none" in str(caught.value)
        assert not out.with_name("out.part").exists()


def test_real_films_are_the_folder_of_the_recorded_data_and_none_leaves_them_out(data_root: Path) -> None:
    assert training_films("real") == training_films(str(data_root / "films" / "train"))
    assert [film.name for film in training_films("none")] == ["shapes", "natural"]


def test_a_system_that_does_not_say_it_learns_any_film_takes_none(tmp_path: Path) -> None:
    with refused(UsageError, "recipe-films-unsupported", recipe="haxby"):
        run("haxby", ["scale=tiny", "films=natural", f"out={tmp_path / 'x'}"])


def test_films_for_choices_are_left_out_of_a_folder(folder: Path) -> None:
    first, second = (training_films([str(folder / name)])[0].digest for name in ("one.mp4", "two.mp4"))
    kept_for_choices = {first: 0.0, second: 8.0}
    (film,) = training_films(str(folder), kept_for_choices)
    assert (film.name, film.seconds) == ("two.mp4", 8.0)
    assert sessions((film,)).films[0][1] == 8.0
    (chosen_film,) = training_films(str(folder / "one.mp4"), kept_for_choices)
    assert sessions((chosen_film,)).films[0][1] == 12.0, "who names it means it"


def test_the_films_of_the_recorded_data_for_choices_are_known(data_root: Path) -> None:
    films = {film.name: film for film in training_films(str(data_root / "films" / "train"))}
    assert len(films) == 4
    assert "nosferatu_1922.mp4" not in films
    assert films["big_buck_bunny.mp4"].seconds == 400


def test_every_film_is_shown_under_every_seed(folder: Path) -> None:
    data = sessions(training_films(f"natural,{folder}"))
    showings = data.showings(RunContext(None, 0, Path()))
    assert [(showing.seed, showing.seconds) for showing in showings] == [(3, 16), (4, 16)] + [
        (3, 12),
        (4, 12),
    ] * 2
    assert len({showing.name for showing in showings}) == 6
    # Who judges the decoder shows it a film that it has not seen.
    assert data.who.film == "natural"
    assert sessions(training_films(str(folder))).who.film == "natural"
    assert sessions(training_films(f"{folder},shapes")).who.film == "shapes"


def test_choices_do_not_rest_on_windows_of_the_same_film(folder: Path) -> None:
    work = RunContext(None, 0, Path())
    several = sessions(training_films(f"natural,{folder}")).left_out(work)
    # A session of `natural` is a film of its own; a fixed one is the same under both seeds.
    assert several.tolist() == [0] * 4 + [1] * 4 + [2] * 6 + [3] * 6
    alone = sessions(training_films(str(folder / "one.mp4"))).left_out(work)
    assert alone.tolist() == [0, 1, 3] * 2


@pytest.mark.full
def test_ridge_learns_films_and_its_run_says_which(folder: Path, tmp_path: Path) -> None:
    # A film's content is told, and where it lay is not.
    out = run("ridge", [*SMALL, f"films=natural,{folder / 'one.mp4'}", f"out={tmp_path / 'run'}"])
    tree = read_run(out)
    films = tree["manifest"]["provenance"]["films"]
    digest = training_films(str(folder / "one.mp4"))[0].digest
    assert films == [
        {"film": "natural", "seconds": 16},
        {"film": "one.mp4", "seconds": 12.0, "sha256": digest},
    ]
    assert str(folder) not in (out / "run.json").read_text()
    assert np.isfinite(list(tree["manifest"]["provenance"]["explained"].values())).all()
    assert tree["figures"]["identification_2way"]["chance"] == 0.5
    # The run can be read again without its films.
    assert isinstance(build(tree["arguments"])["system"], PatchRidgePlan)
