"""Recipes are bound before anything runs, and every fault is told at once."""

import inspect
import re
import sys
from dataclasses import is_dataclass
from fractions import Fraction
from pathlib import Path

import pytest

from rtdecode.errors import UsageError
from tests.refusals import refused
from train.artifacts.slots import parts_of
from train.config import builders
from train.config.recipe import FOLDER, SLOTS, build, check, differences, names, numbers, read
from train.data import nodes


def part(size: int, colour: str = "red") -> tuple[int, str]:
    return size, colour


GRID = "{builder: grid, tr: 4/5, window: 4, hop: 4, lag: 4, sfreq: 125, fps: 8}"


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(
        f"data: {GRID}\nsystem: {{}}\nphases: {{}}\njudge: {{}}\nexport: {{builder: export}}\n"
        "tiny: {data: {window: 8}}\n"
    )
    return path


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize("scale", ["tiny", "full"])
def test_every_shipped_recipe_binds(name: str, scale: str) -> None:
    check(read(name, [f"scale={scale}"]))


def test_a_recipe_builds_what_its_builders_return(recipe_file: Path) -> None:
    assert build(read(str(recipe_file), ["data.lag=28/5"]).tree)["data"].lag == Fraction(28, 5)
    assert build(read(str(recipe_file), ["scale=tiny"]).tree)["data"].window == 8


def test_all_faults_are_told_together_with_their_places() -> None:
    changes = ["system.widht=3", "data.grid.tempo=1", "data.who.builder=os.system", "data.band.order=2"]
    recipe = read("ridge", changes)
    del recipe.tree["system"]["codec"]["channels"]
    del recipe.tree["judge"]
    with refused(UsageError, "recipe-invalid") as caught:
        check(recipe)
    faults = caught.value.values["faults"]
    beginnings = [
        "ridge: it has no judge",
        "ridge.data.grid: grid has no argument 'tempo'",
        "ridge.data.who: there is no builder 'os.system'; there are adapter, any-film, augmentation,",
        "ridge.system: patch-ridge has no argument 'widht'",
        "ridge.system.codec: patch-codec needs 'channels'",
    ]
    assert len(faults) == len(beginnings)
    for fault, beginning in zip(sorted(faults), sorted(beginnings), strict=True):
        assert fault.startswith(beginning)
        assert fault in str(caught.value)


def test_a_slot_that_is_not_there_is_refused(recipe_file: Path) -> None:
    recipe_file.write_text(recipe_file.read_text() + "modle: {}\n")
    with refused(UsageError, "recipe-unknown-slot", slots=["modle"], available=list(SLOTS)):
        read(str(recipe_file), [])
    with refused(UsageError, "recipe-unknown-slot", slots=["sizes"]):
        read("ridge", ["sizes.channels=3"])


def test_a_phase_that_nobody_builds_is_refused() -> None:
    with refused(
        UsageError,
        "recipe-invalid",
        faults=re.compile(r"compact\.phases\.flow: there is no builder 'dream'"),
    ):
        check(read("compact", ["phases.flow.builder=dream"]))


def test_a_slot_takes_what_belongs_there() -> None:
    tree = read("ridge", ["judge={builder: machine}"]).tree
    with refused(UsageError, "recipe-slot-wrong-type", slot="judge", found="Machine", builder="machine"):
        parts_of(tree)
    tree = read("ridge", ["judge={builder: held-out-people}"]).tree
    with refused(UsageError, "recipe-judge-unfit", judge="held-out-people", system="patch-ridge"):
        parts_of(tree)


def test_the_judge_that_went_names_its_successor() -> None:
    with refused(
        UsageError, "recipe-invalid", faults=re.compile("no builder 'film' any more. Name 'any-film'")
    ):
        check(read("ridge", ["judge.builder=film"]))


def test_a_recipe_inherits_from_another(recipe_file: Path) -> None:
    heir = recipe_file.with_name("heir.yaml")
    heir.write_text("base: mine.yaml\ndata: {hop: 2}\njudge: {builder: film, seeds: 1000, seconds: 4}\n")
    recipe = read(str(heir), [])
    assert (recipe.tree["data"]["hop"], recipe.tree["data"]["window"]) == (2, 4)
    assert recipe.tree["judge"] == {"builder": "film", "seeds": 1000, "seconds": 4}
    assert read(str(heir), ["scale=tiny"]).tree["data"]["window"] == 4, "what is tiny is not inherited"
    # Another builder takes the place of the whole node.
    heir.write_text("base: mine.yaml\ndata: {builder: patch-codec, channels: 3, components: 2}\n")
    assert read(str(heir), []).tree["data"] == {"builder": "patch-codec", "channels": 3, "components": 2}
    heir.write_text("base: heir.yaml\n")
    with refused(UsageError, "recipe-circular-base", path=heir):
        read(str(heir), [])
    heir.write_text("base: nowhere\n")
    with refused(UsageError, "recipe-unknown", recipe="nowhere"):
        read(str(heir), [])


@pytest.mark.parametrize("builder", ["train.run.nothing", "os.system", "grids"])
def test_a_builder_that_is_not_there_is_refused(recipe_file: Path, builder: str) -> None:
    with refused(
        UsageError, "recipe-invalid", faults=re.compile(f"there is no builder '{builder}'; there are .*grid")
    ):
        check(read(str(recipe_file), [f"data.builder={builder}"]))


@pytest.mark.parametrize("name", builders.SHIPPED)
def test_every_shipped_builder_is_there(name: str) -> None:
    builder = builders.find(name)
    assert inspect.isfunction(builder) or is_dataclass(builder)


def test_another_package_registers_a_builder(recipe_file: Path) -> None:
    builders.register("test-part", part)
    builders.register("test-part", part)
    recipe_file.write_text("data: {builder: test-part, size: 3}\n")
    assert build(read(str(recipe_file), []).tree)["data"] == (3, "red")
    with pytest.raises(ValueError, match="there is a builder 'test-part' already"):
        builders.register("test-part", numbers)
    with pytest.raises(ValueError, match="there is a builder 'grid' already"):
        builders.register("grid", part)
    with pytest.raises(ValueError, match="must be a function or a dataclass"):
        builders.register("test-path", Path)


@pytest.mark.parametrize(
    ("changes", "code", "values"),
    [
        (["scale=huge"], "recipe-scale-unknown", {"scale": "huge"}),
        (["seed=many"], "recipe-seed-not-integer", {"seed": "many"}),
        (["nonsense"], "recipe-change-malformed", {"change": "nonsense"}),
        (["runs=[1"], "yaml-unreadable", {"location": "'runs=[1'"}),
        (["data.runs.deep=1"], "recipe-key-not-nested", {"key": "data.runs.deep", "parent_key": "runs"}),
        (["phases.films=null"], "recipe-nothing-to-leave-out", {"missing": "phases.films"}),
    ],
)
def test_changes_that_cannot_be_taken(changes: list[str], code: str, values: dict[str, str]) -> None:
    with refused(UsageError, code, **values):
        read("haxby", changes)


def test_an_unknown_recipe_lists_the_known_ones() -> None:
    with refused(
        UsageError,
        "recipe-unknown",
        recipe="cinesync-plus",
        available=re.compile("'haxby', 'mindvideo', 'ridge'"),
    ):
        read("cinesync-plus", [])


def test_an_argument_that_came_later_enters_the_digest_where_it_says_something_else() -> None:
    chosen = {
        word: read("ridge", ["data=SET", f"data.choose={word}"] if word else ["data=SET"])
        for word in ("", "driven", "reproducible")
    }
    assert "choose" not in chosen[""].values["arguments"]["data"]
    assert chosen["driven"].digest == chosen[""].digest
    assert chosen["reproducible"].digest != chosen[""].digest


def test_the_digest_follows_arguments_and_seed_but_not_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = read("haxby", []).digest
    assert read("haxby", ["out=somewhere", "data=elsewhere"]).digest == plain
    renamed = tmp_path / "renamed.yaml"
    renamed.write_text((FOLDER / "haxby.yaml").read_text())
    assert read(str(renamed), []).digest == plain
    # The code of a builder moves to another module.
    monkeypatch.setitem(sys.modules, "somewhere_else", nodes)
    monkeypatch.setitem(builders.SHIPPED, "grid", "somewhere_else:grid")
    assert read("haxby", []).digest == plain
    compact = read("compact", []).digest
    assert read("compact", ["system.machine.workers=2"]).digest == compact, "a machine is no value"
    assert read("compact", ["phases.flow.steps=5"]).digest != compact
    assert len({plain, read("haxby", ["data.runs=1-7"]).digest, read("haxby", ["seed=1"]).digest}) == 3


def test_what_a_builder_defaults_to_is_a_value_of_the_recipe(recipe_file: Path) -> None:
    builders.register("test-part", part)
    recipe_file.write_text("data: {builder: test-part, size: 3}\n")
    unsaid = read(str(recipe_file), [])
    assert unsaid.values["arguments"]["data"] == {"builder": "test-part", "size": 3, "colour": "red"}
    assert unsaid.digest == read(str(recipe_file), ["data.colour=red"]).digest
    blue = read(str(recipe_file), ["data.colour=blue"])
    changed = list(differences(unsaid.values, blue.values))
    assert changed == ["arguments.data.colour was 'red' and is 'blue'"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("3", [3]), (4, [4]), ("1-4", [1, 2, 3, 4]), ("1-2,7", [1, 2, 7]), ([5, 6], [5, 6])],
)
def test_lists_of_numbers(text: str, expected: list[int]) -> None:
    assert numbers(text) == expected


def test_a_list_that_is_none() -> None:
    with refused(UsageError, "numbers-malformed", number_list="one to eight"):
        numbers("one to eight")
    with refused(UsageError, "numbers-range-reversed", number_range="5-3", number_list="1,5-3"):
        numbers("1,5-3")
