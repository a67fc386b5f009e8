"""What a manifest says of the output `brain`, and whose it is."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rtdecode import bundle as bundles
from rtdecode.bundle import Bundle, describe
from rtdecode.bundle.manifest import of_subject
from rtdecode.errors import BundleError
from tests import small
from tests.refusals import refused
from tests.streaming import rich
from tests.streaming.bundles import BRAIN

BRAIN_JSON = {"output": "brain", "prior": {"brain": 0.5, "inconsistent": 0.25, "neither": 0.25}}


def test_it_is_written_as_it_is_read() -> None:
    manifest = replace(small.manifest(), brain=BRAIN)
    tree = bundles.to_json(manifest)
    assert tree["brain"] == BRAIN_JSON
    assert bundles.from_json(tree) == manifest


def test_a_manifest_without_it_does_not_name_it() -> None:
    tree = bundles.to_json(small.manifest())
    assert "brain" not in tree
    assert bundles.from_json(tree).brain is None


@pytest.mark.parametrize(
    ("change", "code", "place", "values"),
    [
        (
            lambda t: t | {"output": "mind"},
            "brain-output-invalid",
            "brain",
            {"expected": "brain", "actual": "mind"},
        ),
        (
            lambda t: t | {"prior": {"brain": 0.5, "neither": 0.5}},
            "json-keys-mismatch",
            "brain: prior",
            {"missing_keys": ["inconsistent"], "unknown_keys": []},
        ),
        (
            lambda t: t | {"prior": t["prior"] | {"both": 0}},
            "json-keys-mismatch",
            "brain: prior",
            {"missing_keys": [], "unknown_keys": ["both"]},
        ),
        (
            lambda t: t | {"prior": t["prior"] | {"brain": 0.6}},
            "brain-prior-invalid",
            "brain",
            {"probabilities": [0.6, 0.25, 0.25]},
        ),
        (
            lambda t: t | {"prior": {"brain": 1.5, "inconsistent": -0.5, "neither": 0}},
            "brain-prior-invalid",
            "brain",
            {"probabilities": [1.5, -0.5, 0]},
        ),
        (
            lambda t: t | {"prior": t["prior"] | {"brain": "half"}},
            "json-number-invalid",
            "brain: prior: brain",
            {"expected_type": "a number", "value": "'half'"},
        ),
        (
            lambda t: t | {"windows": 3},
            "json-keys-mismatch",
            "brain",
            {"missing_keys": [], "unknown_keys": ["windows"]},
        ),
        (
            lambda t: {"prior": t["prior"]},
            "json-keys-mismatch",
            "brain",
            {"missing_keys": ["output"], "unknown_keys": []},
        ),
    ],
)
def test_anything_else_is_refused_by_name(
    change: Callable[[dict[str, Any]], Any], code: str, place: str, values: dict[str, Any]
) -> None:
    tree = bundles.to_json(small.manifest()) | {"brain": change(BRAIN_JSON)}
    with refused(BundleError, code, location=f"manifest.json: {place}", **values):
        bundles.from_json(tree)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle of two subjects."""
    return rich.make(tmp_path_factory.mktemp("b") / "bundle")


def test_a_subject_has_its_own_or_none(two: Bundle) -> None:
    ((name, subject),) = two.manifest.subjects.items()
    manifest = replace(two.manifest, brain=BRAIN)
    assert of_subject(manifest, name).brain is None
    telling = replace(two.manifest, subjects={name: replace(subject, brain=BRAIN)})
    assert of_subject(telling, name).brain == BRAIN
    for candidate in (two.manifest, telling):
        tree = bundles.to_json(candidate)
        assert ("brain" in tree["subjects"][name]) is (candidate is telling)
        assert bundles.from_json(tree) == candidate


def test_inspect_says_the_prior(two: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    telling = replace(two, manifest=replace(two.manifest, brain=BRAIN))
    describe.show(telling)
    assert "brain 0.5, inconsistent 0.25, neither 0.25" in capsys.readouterr().out.replace("\n", " ")
