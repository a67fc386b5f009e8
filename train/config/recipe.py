"""Recipes: YAML files whose nodes name builders and their arguments.

`read` puts a recipe over the one it is based on and applies the changes of the command line. `check` then
binds every node to its builder's signature, so that all faults are known before anything runs. `build`
calls the builders. The slots of a recipe are these::

    base: NAME or path    another recipe, whose values this one changes
    data:                 what the system is trained on
    system:               what is trained (`train.interface.system.Plan`)
    phases:               name -> phase of training with gradients, in order; none for closed forms
    judge:                what computes its figures
    export:               how its bundle is written by default
    tiny:                 changes at ``scale=tiny``, of `recorded` and `dataset` as well
    recorded:             changes where one's own recordings are trained on (``film=``)
    dataset:              changes where a data set is trained on (``data=`` without ``film=``)
    features:             changes where its features are learned and no clips (``target=features``)
    newcomer:             changes where a run begins at a finished one (``base=``)

Of ``phases``, null leaves out what a recipe has there, be it a phase, a loss or the adapters of a phase.
"""

import hashlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any

from rtdecode import installing, strict_json
from rtdecode.disk.hashed_folder import file_hash
from rtdecode.disk.recording import Recording
from rtdecode.errors import RtDecodeError, UsageError
from train.config import builders

if TYPE_CHECKING:
    from train.config.training_films import TrainingFilm

FOLDER = Path(__file__).parents[1] / "recipes"
_PHASES = "phases"
SLOTS = ("data", "system", _PHASES, "judge", "export")
# What is learned of what was watched.
_CLIPS = "clips"
_FEATURES = "features"
# The change that leaves the evaluation out, and changes nothing else of a recipe.
_NOT_JUDGED = ("judge", "none")


@dataclass(frozen=True, slots=True)
class Common:
    """The keys of every recipe.

    They are output and data folders, scale, seed, the run to resume, the films that a simulated participant
    watches (`films`), those that were watched in recordings (`film`), the run that is distilled (`teacher`),
    the run whose weights another person's training begins at (`base`), and what is learned of what was
    watched (`target`).
    """

    out: Path | None = None
    data: Path | None = None
    scale: str = "full"
    seed: int = 0
    resume: Path | None = None
    films: "tuple[TrainingFilm, ...]" = ()
    film: tuple[Path, ...] = ()
    teacher: Path | None = None
    base: Path | None = None
    target: str = _CLIPS

    @property
    def recordings(self) -> list[Path]:
        """The recordings that `data` lists; none without `film`, where it is one folder of data."""
        return _listed(self.data) if self.film else []

    @property
    def folders(self) -> list[Path]:
        """All folders that `data` lists: recordings, data sets, or folders of recordings."""
        return _listed(self.data)


@dataclass(frozen=True, slots=True)
class ExportDefaults:
    """What `rtdecode export` writes by default. The values are the same as those of its options."""

    target: str = "onnx"
    precision: str = "fp32"


# Without slots: `values` and `digest` are kept once they were made.
@dataclass(frozen=True)
class Recipe:
    """A recipe with the command line's changes in it.

    Attributes
    ----------
    name : str
        Name of the recipe's file, without its ending.
    tree : dict
        Slot -> node; a node is a ``builder`` with its arguments, which may be nodes too.
    common : Common
        The keys of every recipe.
    judged : bool
        Whether the run is judged when it was trained (``judge=none``: it is not). A run is the same either
        way, and so are its values.
    """

    name: str
    tree: dict[str, Any]
    common: Common
    judged: bool = True

    @cached_property
    def values(self) -> dict[str, Any]:
        """Everything that a run's result depends on: seed, films, and every argument, defaults included.

        It leaves out the recipe's name, the scale that chose the arguments, the layout of the file and the
        machine that trains, so that none of them keeps a run from being resumed.
        """
        order = list(self.tree.get("phases", {}))
        values = {"seed": self.common.seed, "arguments": _resolved(self.tree), "order of phases": order}
        # Without films of their own, recipes keep the digests they had before they could be given any.
        if self.common.films:
            values["films"] = [film.value for film in self.common.films]
        if self.common.film:
            values["recordings"] = [Recording(path).digest() for path in self.common.recordings]
            values["film"] = [file_hash(path) for path in self.common.film]
        for key in ("teacher", "base"):
            run = getattr(self.common, key)
            if run is not None:
                # Imported here, because it imports onnx, which reading a recipe does not take.
                from train.config.run_files import weights_digest

                values[key] = weights_digest(run)
        return values

    @cached_property
    def digest(self) -> str:
        """SHA-256 of `values`, first 16 hexadecimal digits."""
        text = strict_json.dumps(self.values, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def names() -> list[str]:
    """List the shipped recipes."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def read(recipe: str, overrides: list[str]) -> Recipe:
    """Read a recipe by name or path and apply ``key=value`` changes. Dots reach into nodes.

    Raises
    ------
    UsageError
        If there is no such recipe, or it cannot take one of the changes.
    """
    path = _path(recipe, Path())
    tree = _inherited(path, [])
    tiny = tree.pop("tiny", {})
    parsed = [_change(text) for text in overrides]
    changes = [change for change in parsed if change != _NOT_JUDGED]
    common = _common({key: value for key, value in changes if key in Common.__slots__})
    # The changes of `tiny` come first, so that those of the command line still have the last word.
    if common.scale == "tiny":
        _merge(tree, tiny)
    recorded = tree.pop("recorded", {})
    dataset = tree.pop("dataset", {})
    features = tree.pop("features", {})
    newcomer = tree.pop("newcomer", {})
    _check_recorded(path.stem, common, learns=bool(recorded), learns_sets=bool(dataset))
    _check_target(path.stem, common, learns=bool(features))
    if common.target == _FEATURES:
        _merge(tree, features)
    elif common.film:
        _merge(tree, recorded)
    elif common.data is not None:
        _merge(tree, dataset)
    if common.base is not None:
        _check_newcomer(path.stem, newcomer)
        _merge(tree, newcomer)
        # A phase that a run has behind it may be named again, and the system says why it is not trained.
        tree[_PHASES] = _without_nulls(tree[_PHASES])
    for key, value in changes:
        if key not in Common.__slots__:
            _check_slots({key.split(".")[0]}, f"'{key}'")
            if value is None:
                _check_left_out(tree, key.split("."))
            _put(tree, key.split("."), value)
    if isinstance(tree.get(_PHASES), dict):
        tree[_PHASES] = _without_nulls(tree[_PHASES])
    return Recipe(path.stem, tree, common, judged=_NOT_JUDGED not in parsed)


def _path(recipe: str, folder: Path) -> Path:
    """Return the file of a recipe, given by its name or by its path relative to a folder."""
    path = FOLDER / f"{recipe}.yaml" if recipe in names() else folder / recipe
    if not path.is_file():
        raise UsageError(
            "recipe-unknown",
            "no recipe '{recipe}'. Shipped recipes are {available}; a path works, too.",
            recipe=recipe,
            available=list(names()),
        )
    return path


def _inherited(path: Path, heirs: list[Path]) -> dict[str, Any]:
    """Read a recipe, merged over the one it is based on. `heirs` are the recipes that led to this one."""
    if path.resolve() in heirs:
        raise UsageError(
            "recipe-circular-base",
            "{path} is based on itself, by way of {base_chain}.",
            path=path,
            base_chain=[str(heir) for heir in heirs],
        )
    tree = _mapping(parsed(path.read_text(), str(path)), path)
    base = tree.pop("base", None)
    if base is not None:
        below = _inherited(_path(str(base), path.parent), [*heirs, path.resolve()])
        # What makes one system tiny, or lets it learn from a data set, need not fit another.
        for special in ("tiny", "dataset", "features", "newcomer"):
            below.pop(special, None)
        _merge(below, tree)
        tree = below
    return tree


def parsed(text: str, where: str) -> Any:
    """Read YAML; error messages call its origin `where`.

    Raises
    ------
    UsageError
        If it cannot be read.
    """
    # Imported here, so that an installation without PyYAML gets a message that says what is missing.
    try:
        import yaml
    except ModuleNotFoundError as error:
        raise RtDecodeError(
            "training-missing-package",
            "training needs the package yaml, which is not installed. Install it with: {install_command}",
            install_command=installing.command("train"),
        ) from error
    # Where libyaml is, its loader gives the same values in a seventh of the time.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        return loader(text).get_single_data()
    except yaml.YAMLError as error:
        raise UsageError(
            "yaml-unreadable", "{location} cannot be read as YAML ({error}).", location=where, error=error
        ) from error


def _mapping(tree: Any, path: Path) -> dict[str, Any]:
    if not isinstance(tree, dict):
        raise UsageError(
            "recipe-not-mapping",
            "{path} is no recipe: a mapping of {slots} was expected.",
            path=path,
            slots=list(SLOTS),
        )
    _check_slots({*tree} - {"base", "tiny", "recorded", "dataset", "features", "newcomer"}, str(path))
    return tree


def _check_recorded(name: str, common: Common, *, learns: bool, learns_sets: bool) -> None:
    """Refuse recordings without films, films without recordings, and recipes that take neither."""
    if common.film and not learns:
        raise UsageError(
            "recipe-recordings-unsupported",
            "film= cannot be used: '{recipe}' does not learn from recordings. Leave it out.",
            recipe=name,
        )
    if common.films and common.data is not None and not common.film:
        raise UsageError(
            "recipe-films-data-conflict",
            "films= is what the simulated participant watches, and data={data} holds windows of its "
            "own. Give one of them.",
            data=common.data,
        )
    if common.film and common.films:
        raise UsageError(
            "recipe-films-film-conflict",
            "films= is what the simulated participant watches, and film= what was watched in "
            "recordings. Give one of them.",
        )
    if common.film and common.data is None:
        raise UsageError(
            "recipe-film-without-recordings",
            "film= says what was watched in recordings. Name these with data=REC[,REC].",
        )
    # Of a recipe that learns from data sets as well, data= without film= names one of them.
    if learns and not learns_sets and common.data is not None and not common.film:
        raise UsageError(
            "recipe-recordings-without-film",
            "data={data} names recordings, and nothing says what was watched in them. Give the film "
            "with film=FILE, or one for each recording. To train on simulated sessions, leave data= "
            "out.",
            data=common.data,
        )


def _check_target(name: str, common: Common, *, learns: bool) -> None:
    """Refuse a target that is not known, and features where a recipe learns none or nothing has them."""
    if common.target not in (_CLIPS, _FEATURES):
        raise UsageError(
            "recipe-target-unknown",
            "target must be '{clips}' or '{features}', found '{target}'.",
            clips=_CLIPS,
            features=_FEATURES,
            target=common.target,
        )
    if common.target == _FEATURES and not learns:
        raise UsageError(
            "recipe-features-unsupported",
            "target=features cannot be used: '{recipe}' learns no features. Leave it out, or take ridge.",
            recipe=name,
        )
    if common.target == _FEATURES and (common.data is None or common.film):
        raise UsageError(
            "recipe-features-need-data-set",
            "target=features learns the features of a data set. Name its folder with data=DIR, and leave "
            "film= out.",
        )


def _check_newcomer(name: str, newcomer: Mapping[str, Any]) -> None:
    if not newcomer:
        raise UsageError(
            "recipe-base-unsupported",
            "base= cannot be used: '{recipe}' begins at no finished run. Leave it out, or take cinesync.",
            recipe=name,
        )


def _check_left_out(tree: Mapping[str, Any], keys: Sequence[str]) -> None:
    """Refuse to leave a phase out, or something of one, that the recipe does not have."""
    if keys[0] != _PHASES:
        return
    below: Any = tree
    for number, key in enumerate(keys):
        if not isinstance(below, dict) or key not in below:
            raise UsageError(
                "recipe-nothing-to-leave-out",
                "'{key}=null' leaves nothing out: the recipe has no {missing}. There are {available}.",
                key=".".join(keys),
                missing=".".join(keys[: number + 1]),
                available=list(below) if isinstance(below, dict) else [],
            )
        below = below[key]


def _without_nulls(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out the keys whose value is null."""
    return {
        key: _without_nulls(value) if isinstance(value, dict) else value
        for key, value in tree.items()
        if value is not None
    }


def _check_slots(slots: set[str], where: str) -> None:
    if unknown := sorted(slots - {*SLOTS}):
        raise UsageError(
            "recipe-unknown-slot",
            "{location}: there is no slot {slots}; a recipe has {available}.",
            location=where,
            slots=list(unknown),
            available=list(SLOTS),
        )


def _change(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise UsageError(
            "recipe-change-malformed", "'{change}' does not change the recipe. Write key=value.", change=text
        )
    return key, parsed(value, f"'{text}'")


def _common(overrides: dict[str, Any]) -> Common:
    values: dict[str, Any] = dict(overrides)
    for key in ("out", "data", "resume", "teacher", "base"):
        if values.get(key) is not None:
            values[key] = Path(str(values[key]))
    values["film"] = tuple(_listed(values.get("film")))
    for path in values["film"]:
        if not path.is_file():
            raise UsageError(
                "recipe-film-missing",
                "film={path}: there is no such file. Give the film that was watched.",
                path=path,
            )
    if "films" in values:
        # Imported here, because reading films takes packages that reading a recipe does not.
        from train.config.training_films import training_films

        values["films"] = training_films(values["films"] or "")
    common = Common(**values)
    if common.scale not in ("tiny", "full"):
        raise UsageError(
            "recipe-scale-unknown", "scale must be 'tiny' or 'full', found '{scale}'.", scale=common.scale
        )
    if not isinstance(common.seed, int):
        raise UsageError(
            "recipe-seed-not-integer", "seed must be a whole number, found '{seed}'.", seed=common.seed
        )
    return common


def _listed(text: Any) -> list[Path]:
    """Read paths with commas between them."""
    return [Path(word) for word in words(str(text or ""))]


# Lists are replaced as a whole, and so is a node whose builder changes: arguments of the one builder
# mean nothing to the other.
def _merge(tree: dict[str, Any], over: Mapping[str, Any]) -> None:
    for key, value in over.items():
        below = tree.get(key)
        if isinstance(value, dict) and isinstance(below, dict) and _same_builder(below, value):
            _merge(below, value)
        else:
            tree[key] = value
    # Phases run in their order: where all are named anew, it is the new one.
    if {*over} >= {*tree}:
        for key in over:
            tree[key] = tree.pop(key)


def _same_builder(below: Mapping[str, Any], over: Mapping[str, Any]) -> bool:
    """Whether a node only changes the one below. A node with another builder replaces it as a whole."""
    return "builder" not in over or over["builder"] == below.get("builder")


def _put(tree: dict[str, Any], keys: list[str], value: Any) -> None:
    for key in keys[:-1]:
        tree = tree.setdefault(key, {})
        if not isinstance(tree, dict):
            raise UsageError(
                "recipe-key-not-nested",
                "'{key}' cannot be set: '{parent_key}' has no keys of its own.",
                key=".".join(keys),
                parent_key=key,
            )
    tree[keys[-1]] = value


def _resolved(tree: Any) -> Any:
    """Fill in the default arguments of all builders in a tree, and leave the machine out."""
    if not isinstance(tree, dict):
        return tree
    # The machine is left out: a run may be resumed on another one.
    values = {key: _resolved(value) for key, value in tree.items() if not _is_machine(value)}
    if "builder" not in tree:
        return values
    builder = builders.find(tree["builder"])
    return _defaults(builder) | _told(builder, values)


def _is_machine(node: Any) -> bool:
    return isinstance(node, dict) and node.get("builder") == "machine"


def _defaults(builder: Callable[..., Any]) -> dict[str, Any]:
    parameters = inspect.signature(builder).parameters.values()
    # Defaults that are no JSON values cannot be written in a recipe or compared, so they are left out.
    plain = (str, int, float, list, dict, NoneType)
    return {
        argument.name: argument.default
        for argument in parameters
        if isinstance(argument.default, plain) and not builders.came_later(argument)
    }


def _told(builder: Callable[..., Any], values: dict[str, Any]) -> dict[str, Any]:
    """Leave out what says the default of an argument that came later: it is as if nothing were said."""
    parameters = inspect.signature(builder).parameters
    later = {name: argument.default for name, argument in parameters.items() if builders.came_later(argument)}
    return {name: value for name, value in values.items() if name not in later or value != later[name]}


def differences(old: Any, new: Any, where: str = "") -> Iterator[str]:
    """Yield a sentence for each place where two trees of values differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new}):
            path = f"{where}.{key}" if where else key
            yield from differences(old.get(key), new.get(key), path)
    elif old != new:
        yield f"{where} was {old!r} and is {new!r}"


def check(recipe: Recipe) -> None:
    """Bind every builder of a recipe to its signature without calling any.

    Raises
    ------
    UsageError
        The message names every fault, and where in the recipe it lies.
    """
    faults = [f"{recipe.name}: it has no {slot}" for slot in SLOTS if slot not in recipe.tree]
    faults += _faults(recipe.tree, recipe.name)
    if faults:
        raise UsageError(
            "recipe-invalid",
            "the recipe cannot be run: {explanation}",
            explanation="; ".join(faults),
            faults=faults,
        )


def _faults(tree: Any, where: str) -> Iterator[str]:
    if not isinstance(tree, dict):
        return
    for key, value in tree.items():
        yield from _faults(value, f"{where}.{key}")
    if "builder" not in tree:
        return
    builder = tree["builder"]
    try:
        parameters = inspect.signature(builders.find(builder)).parameters
    except UsageError as error:
        yield f"{where}: {error}"
        return
    # Names that the builder does not have, and arguments without a default that are not given.
    arguments = {*tree} - {"builder"}
    for name in sorted(arguments - {*parameters}):
        yield f"{where}: {builder} has no argument '{name}'; it has {', '.join(sorted(parameters))}"
    for name, parameter in parameters.items():
        if parameter.default is parameter.empty and name not in arguments:
            yield f"{where}: {builder} needs '{name}'"


def build(tree: Any) -> Any:
    """Call the builders of a checked tree, from the leaves up. Other values stay as they are."""
    if not isinstance(tree, dict):
        return tree
    # Looked up before the nodes inside it, so that a message about a missing package names the whole
    # system and not one of its parts.
    builder = builders.find(tree["builder"]) if "builder" in tree else None
    values = {key: build(value) for key, value in tree.items() if key != "builder"}
    return values if builder is None else builder(**values)


def words(text: str) -> list[str]:
    """Read words with commas between them."""
    return [word.strip() for word in text.split(",") if word.strip()]


def numbers(text: str | int | list[int]) -> list[int]:
    """Read whole numbers written as ``3``, ``1-8`` or ``1-3,7``.

    Raises
    ------
    UsageError
        If the text has another form, or a range runs backwards.
    """
    if isinstance(text, list):
        return [int(n) for n in text]
    integers: list[int] = []
    for part in str(text).split(","):
        first, dash, last = part.partition("-")
        try:
            some = range(int(first), int(last if dash else first) + 1)
        except ValueError as error:
            raise UsageError(
                "numbers-malformed",
                "'{number_list}' is no list of whole numbers. Write 3, 1-8 or 1-3,7.",
                number_list=text,
            ) from error
        if not some:
            raise UsageError(
                "numbers-range-reversed",
                "'{number_range}' in '{number_list}' runs backwards. Write the smaller number first.",
                number_range=part,
                number_list=text,
            )
        integers += some
    return integers
