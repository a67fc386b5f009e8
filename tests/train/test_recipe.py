"""Recipes are bound before anything runs, and every fault is told at once."""

from fractions import Fraction
from pathlib import Path

import pytest

from rtdecode.errors import UsageError
from train.recipe import build, check, names, numbers, read


def part(size: int, colour: str = "red") -> tuple[int, str]:
    return size, colour


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "builder: train.parts.grids.grid\n"
        "tr: 4/5\nwindow: 4\nhop: 4\nlag: 4\nsfreq: 125\nfps: 8\n"
        "tiny: {window: 8}\n"
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
    for piece in ("ridge: train.ridge.train has no argument 'widht'", "ridge.grid", "'tempo'"):
        assert piece in message
    assert "needs 'channels'" in message
    assert "ridge.who: builder 'os.system' is refused" in message


@pytest.mark.parametrize("builder", ["train.nowhere.thing", "train.run.nothing", "train.judge_compact.Show"])
def test_a_builder_must_be_a_function_or_dataclass_that_is_there(recipe_file: Path, builder: str) -> None:
    with pytest.raises(UsageError, match="builder '"):
        check(read(str(recipe_file), [f"builder={builder}"]))


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


def test_the_digest_follows_arguments_and_seed_but_not_places() -> None:
    plain = read("haxby", []).digest
    assert read("haxby", ["out=somewhere", "data=elsewhere"]).digest == plain
    assert len({plain, read("haxby", ["warmup=7"]).digest, read("haxby", ["seed=1"]).digest}) == 3


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
