"""A manifest with anything in it, under a digest that holds: the bundle works, or is refused by name."""

import copy
import functools
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtdecode import bundle as bundles
from rtdecode.disk.hashed_folder import digest_of
from rtdecode.errors import BundleError
from streaming.decode.decoder import Decoder
from tests.refusals import refused
from tests.streaming import rich
from tests.streaming.bundles import BRAIN, LABELS, make_bundle

NUMBERS = st.integers() | st.floats() | st.sampled_from([0, -1, 2**31, 2**63, 10**400, 1e308, True])
TEXT = st.text(max_size=8) | st.sampled_from(
    ["../encode.onnx", "/etc/passwd", "a\0b", "x" * 5000, "\ud800", "1e999999999", "9" * 5000, "1/0", "-1"]
)
VALUES = st.recursive(
    st.none() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)


def places(tree: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every value of a tree."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield (*way, key)
        yield from places(value, (*way, key))


def mutated(tree: dict[str, Any], way: tuple[Any, ...], how: str, value: Any) -> dict[str, Any]:
    """Copy a tree with one value replaced, removed, wrapped, or with another beside it."""
    tree = copy.deepcopy(tree)
    parent = tree
    for key in way[:-1]:
        parent = parent[key]
    if how == "remove":
        del parent[way[-1]]
    elif how == "wrap":
        parent[way[-1]] = [parent[way[-1]]]
    elif how == "add" and isinstance(parent, dict):
        parent[str(value)] = value
    else:
        parent[way[-1]] = value
    return tree


@pytest.fixture(scope="module", params=["closed", "denoised", "rich"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bundles whose manifests have every kind of value between them."""
    path = tmp_path_factory.mktemp("fuzz") / "bundle"
    original = _made(request, path)
    shutil.copytree(original, original.with_name("mutated"))
    return original


def _made(request: pytest.FixtureRequest, path: Path) -> Path:
    if request.param == "rich":
        return rich.make(path).path
    closed = request.param == "closed"
    how: dict[str, Any] = (
        {"labels": LABELS} if closed else {"steps": 2, "confidence": {"windows": 3}, "brain": BRAIN}
    )
    return make_bundle(path, **how).path


@functools.cache
def manifest_places(folder: Path) -> tuple[dict[str, Any], list[tuple[Any, ...]]]:
    """The manifest of a bundle, and the way to every value of it."""
    tree = json.loads((bundles.resolve(folder) / "manifest.json").read_text())
    del tree["digest"]
    return tree, sorted(places(tree), key=str)


@settings(max_examples=200)
@given(data=st.data())
def test_any_manifest_is_read_or_refused_by_name(folder: Path, data: st.DataObject) -> None:
    tree, ways = manifest_places(folder)
    way = data.draw(st.sampled_from(ways))
    how = data.draw(st.sampled_from(["replace", "replace", "remove", "wrap", "add"]))
    tree = mutated(tree, way, how, data.draw(VALUES))
    other = folder.with_name("mutated")
    (other / "manifest.json").write_text(json.dumps(tree | {"digest": digest_of(tree)}))
    try:
        Decoder(bundles.load(other))
    except BundleError as error:
        assert str(other) in str(error.values)  # noqa: PT017 - either way is right


def test_a_manifest_nested_without_end_is_refused(folder: Path) -> None:
    other = folder.with_name("nested")
    shutil.copytree(folder, other)
    (other / "manifest.json").write_text("[" * 100_000 + "]" * 100_000)
    with refused(BundleError, "manifest-not-json", path=other / "manifest.json"):
        bundles.load(other)
