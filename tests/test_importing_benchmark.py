"""The benchmark of imports measures each pair of formats, and says which is too slow."""

from pathlib import Path

import pytest

from benchmarks import importing


@pytest.mark.full
def test_each_pair_of_formats_is_imported(tmp_path: Path) -> None:
    rows = importing.measure(2.0, 1, tmp_path)
    assert [(row["eeg"], row["volumes"]) for row in rows] == [
        (".xdf", "DICOM"),
        (".vhdr", "NIfTI"),
        (".edf", "NIfTI"),
        (".set", "NIfTI"),
    ]
    for row in rows:
        assert row["recorded_s"] > 2
        assert row["speed"] == pytest.approx(row["recorded_s"] / row["import_s"], rel=0.05)
    assert not list(tmp_path.glob("rec-*"))


def test_a_pair_that_is_too_slow_is_told() -> None:
    row = {"eeg": ".xdf", "volumes": "DICOM", "recorded_s": 60.0, "import_s": 6.0, "speed": 10.0}
    (sentence,) = importing.misses([row, row | {"speed": 20.0}])
    assert sentence == ".xdf + DICOM: 10.0 times real time, and 20 were asked for"
