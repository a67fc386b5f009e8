"""Runs compared on the same windows."""

import shutil
from pathlib import Path

import pytest

from rtdecode.errors import UsageError
from tests.refusals import refused
from tests.train.tiny import tiny
from train.compare import measure, table
from train.judging.sessions import Sessions


@pytest.mark.full
def test_a_run_lies_level_with_a_copy_of_itself_and_above_one_modality(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny("ridge"), copy)
    rows = measure([tiny("ridge"), copy], Sessions("shapes", "easy", "1000", 120.0))
    found = {(row["decoder"], row["metric"]): row for row in rows}
    # A closed form has no condition that aims at anything.
    assert {metric for _, metric in found} == {"identification_2way_centred", "identification_2way_matched"}
    assert {name for name, _ in found} == {"ridge", "ridge_eeg", "ridge_fmri", "copy"}
    first = found["ridge", "identification_2way_centred"]
    same = found["copy", "identification_2way_centred"]
    assert first["less"] is None
    assert (same["less"], same["less_ci95"]) == (0.0, [0.0, 0.0])
    assert same["value"] == first["value"]
    alone = found["ridge_eeg", "identification_2way_centred"]
    assert alone["less"] == pytest.approx(alone["value"] - first["value"])
    assert alone["less"] < 0
    assert table(rows, "both").row_count == len(rows) == 8


def test_runs_that_cannot_be_told_apart_or_watch_no_film_are_refused(tmp_path: Path) -> None:
    with refused(UsageError, "benchmark-run-names-duplicate"):
        measure([tiny("ridge"), tiny("ridge")], Sessions("shapes", "easy", "1000", 24.0))
    with refused(UsageError, "benchmark-run-not-simulated"):
        measure([tiny("haxby")], Sessions("shapes", "easy", "1000", 24.0))
