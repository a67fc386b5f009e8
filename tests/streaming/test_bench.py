from pathlib import Path

import pytest

from streaming import bench_volumes
from streaming.bench import _clips
from tests.streaming.bundles import make_bundle


def test_every_number_of_steps_is_timed(tmp_path: Path) -> None:
    spent = _clips(make_bundle(tmp_path / "bundle", steps=3), 10)
    steps = {"clip_1_step": 10, "clip_2_steps": 10, "clip_3_steps": 10, "clip_4_steps": 10}
    steps |= {"clip_8_steps": 3, "clip_50_steps": 3}
    assert {name: len(times) for name, times in spent.items() if name.startswith("clip")} == steps
    assert len(spent["encode"]) == len(spent["first_frame"]) == 10
    assert max(spent["first_frame"]) <= max(spent["clip_3_steps"])
    assert min(spent["clip_50_steps"]) > min(spent["clip_1_step"])


def test_a_closed_form_bundle_takes_no_step(tmp_path: Path) -> None:
    spent = _clips(make_bundle(tmp_path / "bundle"), 5)
    assert set(spent) == {"encode", "first_frame", "clip_0_steps"}
    assert len(spent["encode"]) == 5


@pytest.mark.parametrize("form", ["mosaic", "enhanced", "nifti", "slices"])
def test_every_form_of_file_is_timed_from_the_folder_to_the_vector(tmp_path: Path, form: str) -> None:
    made = bench_volumes.case(make_bundle(tmp_path / "bundle"), (64, 64, 36), 200)
    rows = list(bench_volumes.measure(made, form, range(3), others=5))
    assert len(rows) == 3
    for wall, cpu, parse in rows:
        assert 0 < parse < wall
        assert 0 < cpu < wall
