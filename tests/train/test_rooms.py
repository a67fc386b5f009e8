"""The rooms that systems share know no system by name or import, and each of their parts has two users."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.parsed import tree_of
from train.config.builders import SHIPPED

ROOT = Path(__file__).parents[2]
SHARED = ("train/models/conditioned", "train/parts")
# A definition: its module, and its name.
Definition = tuple[str, str]
# Parts that one system alone uses, or none -> why they are parts all the same.
EXCEPTIONS = {
    "CrossAttentionTrunks": "one of the fusions that are compared with each other",
    "JointTrunk": "one of the fusions that are compared with each other",
    "SeparateThenJoint": "one of the fusions that are compared with each other",
    "SeparateTrunks": "one of the fusions that are compared with each other",
    "WanSizes": "one of the video models that a recipe can name",
    "UNetSizes": "one of the video models that a recipe can name",
    "FramesDiffusion": "one of the video models that a recipe can name",
    "ClipUNetSizes": "one of the video models that a recipe can name",
    "ClipDiffusion": "one of the video models that a recipe can name",
    "NoiseStep": "one of the video models that a recipe can name",
    "NoiseDiffusion": "one of the video models that a recipe can name",
    "StartedStep": "one of the video models that a recipe can name",
    "EarlierFrames": "one of the video models that a recipe can name",
    "SameFrame": "one of the video models that a recipe can name",
    "FramesBlock": "one of the video models that a recipe can name",
    "PatchTokenizer": "of masked modelling, with which an encoder of volumes can begin",
    "SpaceTimeBlock": "of masked modelling, with which an encoder of volumes can begin",
    "SpaceTimeTrunk": "of masked modelling, with which an encoder of volumes can begin",
    "MaskedAutoencoder": "of masked modelling, with which an encoder of volumes can begin",
    "Reconstruction": "of masked modelling, with which an encoder of volumes can begin",
    "TokenHead": "one of the ways from tokens to those of a condition",
    "FrameMean": "one of the ways to pool the frames of a clip",
    "FrameHead": "one of two ways to predict the frames of a clip",
    "MultiLabel": "a loss, which any system's phase can name",
    "Masked": "a loss, which any system's phase can name",
    "Perceptual": "a loss, which any system's phase can name",
    "CogVideoXDecoder": "the folder of a published system decides",
    "FrameAutoencoder": "the folder of a published system decides",
    "WanDecoder": "the folder of a published system decides",
    "TinyVideoDecoder": "the folder of a published system decides",
    "Cut": "of the films that train a TinyVideoDecoder, by `train.tiny_decoder`",
    "DecodedClips": "of the films that train a TinyVideoDecoder, by `train.tiny_decoder`",
    "Distilled": "trains a TinyVideoDecoder, by `train.tiny_decoder`",
    "FusedVoxelTokenizer": "of a graph, by `benchmarks.fused_tokenizer`",
    "CogVideoXAttention": "of a graph, by `benchmarks.full_size`",
}
SYSTEMS = re.compile(r"cine.?sync|cine.?neuron|mind.?video|brain.?netflix", re.IGNORECASE)


def modules() -> list[Path]:
    return [path for room in SHARED for path in sorted((ROOT / room).rglob("*.py"))]


def imported(path: Path) -> set[str]:
    nodes = ast.walk(tree_of(path))
    return {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_shared_module_names_no_published_system(path: Path) -> None:
    assert SYSTEMS.findall(path.read_text()) == []


def test_parts_are_imported_by_models_and_not_the_other_way() -> None:
    models = {
        path: {name for name in imported(path) if name.startswith("train.models.")} for path in modules()
    }
    foreign = {name for names in models.values() for name in names if ".conditioned" not in name}
    assert foreign == set()
    parts = [path for path in models if "parts" in path.relative_to(ROOT).parts]
    assert [path.name for path in parts if models[path]] == []


def test_published_systems_are_found_by_the_pattern() -> None:
    assert SYSTEMS.search((ROOT / "train/models/cinesync/encoder.py").read_text())


def test_every_part_is_used_by_two_systems() -> None:
    """The tests' own systems count, so that a part may be new with the first system that needs it."""
    graph = uses()
    reached = {system: reachable(graph, roots) for system, roots in systems().items()}
    # What is found at all: a part by way of the plan that systems share, and one by way of a recipe.
    for system in ("cinesync", "cineneuron", "retrieval"):
        assert ("train.parts.encoders.film_net", "FilmNet") in reached[system]
    assert ("train.parts.generators.wan", "WanSizes") in reached["cineneuron"]
    users = {part: [name for name, used in reached.items() if part in used] for part in parts()}
    unshared = {part: names for (_, part), names in users.items() if len(names) < 2}
    assert unshared.keys() <= EXCEPTIONS.keys(), f"parts without two users: {unshared}"
    assert EXCEPTIONS.keys() <= {part for _, part in users}


def parts() -> list[Definition]:
    """List the public classes of `train.parts`."""
    paths = sorted((ROOT / "train/parts").rglob("*.py"))
    statements = [(path, node) for path in paths for node in tree_of(path).body]
    return [
        (module_of(path), node.name)
        for path, node in statements
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    ]


def uses() -> dict[Definition, set[Definition]]:
    """Find what each definition of the shared rooms refers to."""
    graph: dict[Definition, set[Definition]] = {}
    for path in modules():
        tree = tree_of(path)
        imports = imports_of(tree)
        for node in tree.body:
            for name in defined(node):
                graph[module_of(path), name] = set(referred(node, module_of(path), imports))
    return graph


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def imports_of(tree: ast.Module) -> dict[str, Definition]:
    """Find where the imported names of a module are from."""
    statements = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    return {
        alias.asname or alias.name: (str(statement.module), alias.name)
        for statement in statements
        for alias in statement.names
    }


def defined(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.ClassDef | ast.FunctionDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else []
    targets += [node.target] if isinstance(node, ast.AnnAssign) else []
    return [target.id for target in targets if isinstance(target, ast.Name)]


def referred(node: ast.AST, module: str, imports: dict[str, Definition]) -> Iterator[Definition]:
    """List what code of a module refers to: its own names, imported ones, those in imported modules."""
    for part in ast.walk(node):
        if isinstance(part, ast.Name):
            yield imports.get(part.id, (module, part.id))
        elif isinstance(part, ast.Attribute) and isinstance(part.value, ast.Name):
            source = imports.get(part.value.id, (module, part.value.id))
            yield ".".join(source), part.attr


def systems() -> dict[str, set[Definition]]:
    """Find what each system refers to in its own files, and which builders its recipes name."""
    packages = [path for path in (ROOT / "train/models").iterdir() if (path / "__init__.py").is_file()]
    files = {path.name: sorted(path.rglob("*.py")) for path in packages if path.name != "conditioned"}
    files["seam"] = sorted((ROOT / "tests").glob("seam*.py"))
    files["retrieval"] = [ROOT / "tests/retrieval_system.py"]
    roots: dict[str, set[Definition]] = {system: set() for system in files}
    for system, paths in files.items():
        for path in paths:
            tree = tree_of(path)
            roots[system] |= set(referred(tree, module_of(path), imports_of(tree)))
    for recipe in (*(ROOT / "train/recipes").glob("*.yaml"), *(ROOT / "tests").rglob("*.yaml")):
        names = re.findall(r"builder: ([\w-]+)", recipe.read_text())
        builders = [tuple(SHIPPED[name].split(":")) for name in names if name in SHIPPED]
        # The recipe of a system that registers its builders itself has the system's name.
        packages_named = {module.removeprefix("train.models.").split(".")[0] for module, _ in builders}
        for owner in {recipe.stem, *packages_named} & files.keys():
            roots[owner] |= {(module, name) for module, name in builders}
    return roots


def reachable(graph: dict[Definition, set[Definition]], roots: set[Definition]) -> set[Definition]:
    """Follow references from definition to definition."""
    reached: set[Definition] = set()
    waiting = list(roots)
    while waiting:
        definition = waiting.pop()
        if definition not in reached:
            reached.add(definition)
            waiting += graph.get(definition, set())
    return reached
