"""Recipes are bound before anything runs, and every fault is told at once."""

import inspect
import sys
from dataclasses import is_dataclass
from fractions import Fraction
from pathlib import Path

import pytest

from rtdecode.errors import UsageError
from train import builders
from train.parts import grids
from train.recipe import FOLDER, build, check, differences, names, numbers, read


def part(size: int, colour: str = "red") -> tuple[int, str]:
    return size, colour


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "builder: grid\ntr: 4/5\nwindow: 4\nhop: 4\nlag: 4\nsfreq: 125\nfps: 8\ntiny: {window: 8}\n"
    )
    return path


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize("scale", ["tiny", "full"])
def test_every_shipped_recipe_binds(name: str, scale: str) -> None:
    check(read(name, [f"scale={scale}"]), work=None)


def test_a_recipe_builds_what_its_builder_returns(recipe_file: Path) -> None:
    assert build(read(str(recipe_file), ["lag=28/5"]).tree).lag == Fraction(28, 5)
    assert build(read(str(recipe_file), ["scale=tiny"]).tree).window == 8


def test_all_faults_are_told_together_with_their_places() -> None:
    wrong = read("ridge", ["widht=3", "grid.tempo=1", "who.builder=os.system", "band.order=2"])
    del wrong.tree["sizes"]["channels"]
    with pytest.raises(UsageError) as caught:
        check(wrong, work=None)
    message = str(caught.value)
    for piece in ("ridge: ridge has no argument 'widht'", "ridge.grid", "'tempo'"):
        assert piece in message
    assert "needs 'channels'" in message
    assert "ridge.who: there is no builder 'os.system'; there are baseline, compact," in message


@pytest.mark.parametrize("builder", ["train.run.nothing", "os.system", "grids"])
def test_a_builder_that_is_not_there_is_refused(recipe_file: Path, builder: str) -> None:
    with pytest.raises(UsageError, match=f"there is no builder '{builder}'; there are .*grid"):
        check(read(str(recipe_file), [f"builder={builder}"]))


@pytest.mark.parametrize("name", builders.SHIPPED)
def test_every_shipped_builder_is_there(name: str) -> None:
    found = builders.find(name)
    assert inspect.isfunction(found) or is_dataclass(found)


def test_another_package_registers_a_builder(recipe_file: Path) -> None:
    builders.register("test-part", part)
    builders.register("test-part", part)
    mine = recipe_file.with_name("other.yaml")
    mine.write_text("builder: test-part\nsize: 3\n")
    assert build(read(str(mine), []).tree) == (3, "red")
    with pytest.raises(ValueError, match="there is a builder 'test-part' already"):
        builders.register("test-part", numbers)
    with pytest.raises(ValueError, match="there is a builder 'grid' already"):
        builders.register("grid", part)
    with pytest.raises(ValueError, match="must be a function or a dataclass"):
        builders.register("test-path", Path)


def test_what_the_program_hands_over_is_not_for_the_recipe() -> None:
    with pytest.raises(UsageError, match="'work' comes from the command line"):
        check(read("haxby", ["work=1"]), work=None)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        (["scale=huge"], "scale is 'tiny' or 'full'"),
        (["seed=many"], "seed is a whole number"),
        (["nonsense"], "key=value"),
        (["runs=[1"], "cannot be read as YAML"),
        (["runs.deep=1"], "has no keys of its own"),
    ],
)
def test_changes_that_cannot_be_taken(changes: list[str], what: str) -> None:
    with pytest.raises(UsageError, match=what):
        read("haxby", changes)


def test_an_unknown_recipe_lists_the_known_ones() -> None:
    with pytest.raises(UsageError, match="haxby, ridge"):
        read("cinesync-plus", [])


def test_the_digest_follows_arguments_and_seed_but_not_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = read("haxby", []).digest
    assert read("haxby", ["out=somewhere", "data=elsewhere"]).digest == plain
    renamed = tmp_path / "renamed.yaml"
    renamed.write_text((FOLDER / "haxby.yaml").read_text())
    assert read(str(renamed), []).digest == plain
    # The code of a builder moves to another module.
    monkeypatch.setitem(sys.modules, "somewhere_else", grids)
    monkeypatch.setitem(builders.SHIPPED, "grid", "somewhere_else:grid")
    assert read("haxby", []).digest == plain
    assert len({plain, read("haxby", ["warmup=7"]).digest, read("haxby", ["seed=1"]).digest}) == 3


def test_what_a_builder_defaults_to_is_a_value_of_the_recipe(recipe_file: Path) -> None:
    mine = recipe_file.with_name("defaults.yaml")
    builders.register("test-part", part)
    mine.write_text("builder: test-part\nsize: 3\n")
    unsaid = read(str(mine), [])
    assert unsaid.values["arguments"] == {"builder": "test-part", "size": 3, "colour": "red"}
    assert unsaid.digest == read(str(mine), ["colour=red"]).digest
    blue = read(str(mine), ["colour=blue"])
    assert list(differences(unsaid.values, blue.values)) == ["arguments.colour was 'red' and is 'blue'"]


@pytest.mark.parametrize(
    ("text", "found"), [("3", [3]), (4, [4]), ("1-4", [1, 2, 3, 4]), ("1-2,7", [1, 2, 7]), ([5, 6], [5, 6])]
)
def test_lists_of_numbers(text: str, found: list[int]) -> None:
    assert numbers(text) == found


def test_a_list_that_is_none() -> None:
    with pytest.raises(UsageError, match="1-8"):
        numbers("one to eight")
    with pytest.raises(UsageError, match="'5-3' in '1,5-3' runs backwards"):
        numbers("1,5-3")
