"""Sections are listed by name, and refused before anything is decoded."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import ClassVar, cast

import pytest

from rtdecode.bundle import Bundle
from rtdecode.errors import UsageError
from tests.refusals import refused
from tests.train.tiny import tiny
from train.evaluate import evaluate
from train.evaluation.result import Request
from train.evaluation.section import ALL_SECTIONS, SHIPPED, Metric, check_needs, sections_of


def test_every_section_that_is_shipped_can_be_listed() -> None:
    assert len(sections_of(ALL_SECTIONS)) == len(SHIPPED)
    # Named twice, it is scored once.
    assert len(sections_of("pictures, pictures")) == 1


@pytest.mark.parametrize("name", ["sharpness", "any-film"])
def test_a_section_that_is_not_known_is_refused_with_those_that_are(name: str) -> None:
    with refused(UsageError, "section-unknown", section=name) as refusal:
        sections_of(f"identification,{name}")
    assert "identification" in str(refusal.value)
    with refused(UsageError, "sections-empty"):
        sections_of("")


class OfEeg(Metric):
    """A section that needs EEG."""

    needs: ClassVar[Sequence[str]] = ("eeg",)


def test_a_section_that_needs_eeg_is_refused_for_a_run_without() -> None:
    bundle = cast(Bundle, SimpleNamespace(manifest=SimpleNamespace(modalities=["fmri"])))
    check_needs(sections_of(ALL_SECTIONS), bundle)
    with refused(UsageError, "section-missing-modality", missing=["eeg"], modalities=["fmri"]):
        check_needs([OfEeg()], bundle)


@pytest.mark.full
def test_sections_of_a_judge_that_has_none_are_refused() -> None:
    with refused(UsageError, "evaluate-key-unread", unread=["sections"]):
        evaluate(tiny("ridge"), Request(sections="pictures"))
    with refused(UsageError, "section-unknown", section="colours"):
        evaluate(tiny("ridge"), Request(film="shapes", sections="colours"))
