"""Recipes: a YAML file that names a builder and its arguments, bound before anything runs."""

import hashlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any

from rtdecode import installing, strict_json
from rtdecode.errors import RtDecodeError, UsageError
from train import builders

FOLDER = Path(__file__).parent / "recipes"


@dataclass(frozen=True, slots=True)
class Common:
    """The keys every recipe knows: where to, from what, how large, which seed, what to go on with."""

    out: Path | None = None
    data: Path | None = None
    scale: str = "full"
    seed: int = 0
    resume: Path | None = None


@dataclass(frozen=True, slots=True)
class Recipe:
    """A recipe with the command line's changes in it.

    Attributes
    ----------
    name : str
    tree : dict
        ``builder`` and its arguments; nested nodes may have builders too.
    common : Common
    """

    name: str
    tree: dict[str, Any]
    common: Common

    @property
    def values(self) -> dict[str, Any]:
        """All that a run rests on: the seed and every argument, those that builders default to included.

        Neither the recipe's name, the scale that chose the arguments, nor how they are laid out is in it.
        """
        return {"seed": self.common.seed, "arguments": _resolved(self.tree)}

    @property
    def digest(self) -> str:
        """SHA-256 of `values`, first 16 hexadecimal digits."""
        text = strict_json.dumps(self.values, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def names() -> list[str]:
    """List the shipped recipes."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def read(recipe: str, overrides: list[str]) -> Recipe:
    """Read a recipe by name or path and apply ``key=value`` changes; dots reach into nodes.

    Raises
    ------
    UsageError
        If there is no such recipe, or a change or a common key cannot be taken.
    """
    path = FOLDER / f"{recipe}.yaml" if recipe in names() else Path(recipe)
    if not path.is_file():
        raise UsageError(f"no recipe '{recipe}'. There are {', '.join(names())}; a path is taken too.")
    tree = _mapping(parsed(path.read_text(), str(path)), path)
    tiny = tree.pop("tiny", {})
    changes = [_change(text) for text in overrides]
    common = _common({key: value for key, value in changes if key in Common.__slots__})
    if common.scale == "tiny":
        _merge(tree, tiny)
    for key, value in changes:
        if key not in Common.__slots__:
            _put(tree, key.split("."), value)
    return Recipe(path.stem, tree, common)


def parsed(text: str, where: str) -> Any:
    """Read YAML; `where` names its place in the message.

    Raises
    ------
    UsageError
        If it cannot be read.
    """
    # Here and not above: without it the program still says what is wanting.
    try:
        import yaml
    except ModuleNotFoundError as error:
        raise RtDecodeError(
            "training needs the package yaml, which is not installed. "
            f"Install it with: {installing.command('train')}"
        ) from error
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(f"{where} cannot be read as YAML ({error}).") from error


def _mapping(tree: Any, path: Path) -> dict[str, Any]:
    if not isinstance(tree, dict) or not isinstance(tree.get("builder"), str):
        raise UsageError(f"{path} is no recipe: a mapping with the key 'builder' was expected.")
    return tree


def _change(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise UsageError(f"'{text}' is no change to the recipe. Write key=value.")
    return key, parsed(value, f"'{text}'")


def _common(given: dict[str, Any]) -> Common:
    values: dict[str, Any] = dict(given)
    for key in ("out", "data", "resume"):
        if values.get(key) is not None:
            values[key] = Path(str(values[key]))
    common = Common(**values)
    if common.scale not in ("tiny", "full"):
        raise UsageError(f"scale is 'tiny' or 'full', found '{common.scale}'.")
    if not isinstance(common.seed, int):
        raise UsageError(f"seed is a whole number, found '{common.seed}'.")
    return common


def _merge(tree: dict[str, Any], over: Mapping[str, Any]) -> None:
    for key, value in over.items():
        if isinstance(value, dict) and isinstance(tree.get(key), dict):
            _merge(tree[key], value)
        else:
            tree[key] = value


def _put(tree: dict[str, Any], keys: list[str], value: Any) -> None:
    for key in keys[:-1]:
        tree = tree.setdefault(key, {})
        if not isinstance(tree, dict):
            raise UsageError(f"'{'.'.join(keys)}' cannot be set: '{key}' has no keys of its own.")
    tree[keys[-1]] = value


def _resolved(tree: Any) -> Any:
    """Fill in what the builders of a tree default to."""
    if not isinstance(tree, dict):
        return tree
    values = {key: _resolved(value) for key, value in tree.items()}
    if "builder" not in tree:
        return values
    return _defaults(builders.find(tree["builder"])) | values


def _defaults(builder: Callable[..., Any]) -> dict[str, Any]:
    known = inspect.signature(builder).parameters.values()
    # What is no JSON value is handed over by the program.
    plain = (str, int, float, list, dict, NoneType)
    return {one.name: one.default for one in known if isinstance(one.default, plain)}


def differences(old: Any, new: Any, where: str = "") -> Iterator[str]:
    """Say where two trees of values differ, a sentence each."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new}):
            path = f"{where}.{key}" if where else key
            yield from differences(old.get(key), new.get(key), path)
    elif old != new:
        yield f"{where} was {old!r} and is {new!r}"


def check(recipe: Recipe, **given: Any) -> None:
    """Bind every builder of a recipe to its signature without calling any.

    Parameters
    ----------
    recipe : Recipe
    **given
        Arguments the program hands to builders that ask for them.

    Raises
    ------
    UsageError
        Naming every fault and where in the recipe it lies.
    """
    faults = list(_faults(recipe.tree, recipe.name, set(given)))
    if faults:
        raise UsageError("the recipe cannot be run:\n" + "\n".join(f"  {fault}" for fault in faults))


def _faults(tree: Any, where: str, given: set[str]) -> Iterator[str]:
    if not isinstance(tree, dict):
        return
    for key, value in tree.items():
        yield from _faults(value, f"{where}.{key}", given)
    if "builder" not in tree:
        return
    try:
        known = inspect.signature(builders.find(tree["builder"])).parameters
    except UsageError as error:
        yield f"{where}: {error}"
        return
    asked = set(tree) - {"builder"}
    for name in sorted(asked - set(known)):
        yield f"{where}: {tree['builder']} has no argument '{name}'; it has {', '.join(sorted(known))}"
    for name in sorted(asked & given):
        yield f"{where}: '{name}' comes from the command line, not from the recipe"
    for name, parameter in known.items():
        if parameter.default is parameter.empty and name not in asked | given:
            yield f"{where}: {tree['builder']} needs '{name}'"


def build(tree: Any, **given: Any) -> Any:
    """Call the builders of a tree from the leaves up; other values stay as they are.

    Parameters
    ----------
    tree
        A node of a recipe that `check` has passed.
    **given
        Handed to the builders that have an argument of that name.
    """
    if not isinstance(tree, dict):
        return tree
    values = {key: build(value, **given) for key, value in tree.items() if key != "builder"}
    if "builder" not in tree:
        return values
    function = builders.find(tree["builder"])
    known = inspect.signature(function).parameters
    return function(**values, **{key: value for key, value in given.items() if key in known})


def numbers(text: str | int | list[int]) -> list[int]:
    """Read whole numbers written as ``3``, ``1-8`` or ``1-3,7``.

    Raises
    ------
    UsageError
        If it is written otherwise, or a range runs backwards.
    """
    if isinstance(text, list):
        return [int(n) for n in text]
    found: list[int] = []
    for part in str(text).split(","):
        first, dash, last = part.partition("-")
        try:
            some = range(int(first), int(last if dash else first) + 1)
        except ValueError as error:
            raise UsageError(f"'{text}' is no list of whole numbers. Write 3, 1-8 or 1-3,7.") from error
        if not some:
            raise UsageError(f"'{part}' in '{text}' runs backwards. Write the smaller number first.")
        found += some
    return found
