import pickle
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtdecode.signal.volume.run_quality import BARS, Quality, RunQuality, judge


def run(count: int = 40, voxels: int = 300, tsnr: float = 50.0, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    mean = rng.uniform(500, 1500, voxels)
    line = np.outer(np.arange(count), rng.normal(0, 3, voxels))
    return (mean * (1 + rng.standard_normal((count, voxels)) / tsnr) + line).astype(np.float32)


@given(seed=st.integers(0, 9), count=st.integers(10, 60))
def test_running_tsnr_is_that_of_the_whole_run_about_a_line(seed: int, count: int) -> None:
    data = run(count, 50, seed=seed)
    quality = Quality(1.0)
    for volume in data:
        quality.push(volume)
    x = data.astype(np.float64)
    times = np.arange(count) - (count - 1) / 2
    line = np.outer(times, times @ x / (times @ times))
    residual_sd = np.sqrt(np.sum((x - x.mean(0) - line) ** 2, axis=0) / (count - 2))
    tsnr_map = quality.tsnr_map()
    assert tsnr_map is not None
    assert np.allclose(tsnr_map, x.mean(0) / residual_sd, rtol=1e-4)
    assert quality.now().tsnr == pytest.approx(np.median(x.mean(0) / residual_sd), rel=1e-4)


def test_dvars_is_the_change_in_percent_of_the_mean() -> None:
    quality = Quality(1.0)
    quality.push(np.full(10, 1000, np.float32))
    assert quality.now().dvars_percent is None
    quality.push(np.full(10, 1020, np.float32))
    assert quality.now().dvars_percent == pytest.approx(2.0)


def test_a_still_run_is_good_after_its_first_minute_and_not_before() -> None:
    quality = Quality(1.5)
    for volume in run(39):
        quality.push(volume, 0.05)
    assert quality.verdict is None
    quality.push(run(40)[39], 0.05)
    assert quality.verdict is not None
    assert quality.verdict.grade == "good"
    assert quality.verdict.reasons == ()
    first = quality.verdict
    quality.push(run(1)[0], 30.0)
    assert quality.verdict is first
    assert quality.now().max_fd_mm == 30.0


@pytest.mark.parametrize(
    ("fd", "tsnr", "grade", "measure"),
    [
        (0.4, 60.0, "acceptable", "mean_fd_mm"), (0.8, 60.0, "bad", "mean_fd_mm"),
        (0.1, 30.0, "acceptable", "tsnr"), (0.1, 10.0, "bad", "tsnr"),
    ],
)  # fmt: skip
def test_verdicts_name_what_is_wrong(fd: float, tsnr: float, grade: str, measure: str) -> None:
    quality = Quality(1.0)
    for volume in run(60, tsnr=tsnr):
        quality.push(volume, fd)
    assert quality.verdict is not None
    assert quality.verdict.grade == grade
    assert any(reason.startswith(measure) for reason in quality.verdict.reasons)


@pytest.mark.parametrize(
    ("figure", "good", "bad"),
    [
        ("mean_fd_mm", 0.25, 0.55), ("max_fd_mm", 5.0, 10.0), ("moved_share", 0.2, 0.5),
        ("jump_share", 0.1, 0.3), ("unaligned_share", 0.05, 0.2), ("tsnr", 40.0, 20.0),
    ],
)  # fmt: skip
def test_a_figure_is_graded_by_its_two_limits(figure: str, good: float, bad: float) -> None:
    beyond = 1.01 if bad > good else 0.99
    values = (good, good * beyond, bad, bad * beyond)
    grades = []
    for value in values:
        figures = RunQuality(60, None, None, None, None, None, None, None)
        grades.append(judge(replace(figures, **{figure: value})).grade)
    assert grades == ["good", "acceptable", "acceptable", "bad"]


def test_jumps_and_lost_alignment_count() -> None:
    quality = Quality(1.0)
    data = run(60)
    data[20::4] *= 1.1
    for index, volume in enumerate(data):
        quality.push(volume, float("nan") if index % 3 == 0 else 0.1)
    now = quality.now()
    # The signal jumps ten times up and down again; a change is judged once five are known.
    assert now.jump_share == 20 / 54
    assert now.unaligned_share == pytest.approx(1 / 3)
    assert now.mean_fd_mm == pytest.approx(0.1)
    assert quality.verdict is not None
    assert quality.verdict.grade == "bad"


def test_a_new_run_forgets_the_last() -> None:
    quality = Quality(1.0)
    fresh = Quality(1.0)
    for volume in run(70, tsnr=5.0):
        quality.push(volume, 3.0)
    quality.reset()
    for volume in run(20):
        quality.push(volume, 0.1)
        fresh.push(volume, 0.1)
    assert quality.now() == fresh.now()
    assert quality.verdict is None


def test_what_is_asked_twice_is_reckoned_once() -> None:
    quality = Quality(1.0)
    data = run(30)
    for volume in data[:20]:
        quality.push(volume, 0.1)
    first = quality.now()
    assert quality.now() is first
    quality.push(data[20], 0.1)
    assert quality.now().volumes == first.volumes + 1


def test_memory_does_not_grow() -> None:
    quality = Quality(1.0)
    data = run(100)
    for volume in data:
        quality.push(volume, 0.1)
    size = len(pickle.dumps(quality))
    for _ in range(9):
        for volume in data:
            quality.push(volume, 0.1)
    assert len(pickle.dumps(quality)) < size + 100


def test_dark_and_constant_voxels_do_not_count() -> None:
    data = run(30)
    data[:, :200] = 0
    data[:, 200:250] = 700
    quality = Quality(1.0)
    for volume in data:
        quality.push(volume)
    assert quality.now().tsnr == pytest.approx(50, rel=0.2)
    empty = Quality(1.0)
    for _ in range(12):
        empty.push(np.zeros(5, np.float32))
    assert empty.now().tsnr is None
    assert empty.now().dvars_percent is None


def test_centred_signals_have_no_share_of_a_level() -> None:
    data = run(80) - 700
    data[70] += 2 * np.ptp(data)
    quality = Quality(1.0, centred=True)
    for volume in data:
        quality.push(volume)
    assert quality.now().tsnr is None
    assert quality.now().dvars_percent is None
    assert quality.now().jumps == 2
    assert quality.verdict is not None
    assert quality.verdict.grade == "good"


def test_unknown_figures_are_no_fault() -> None:
    verdict = judge(RunQuality(60, None, None, None, None, None, None, None))
    assert (verdict.grade, verdict.reasons) == ("good", ())
    assert all(bar.source for bar in BARS)


def test_a_run_without_duration_is_refused() -> None:
    with pytest.raises(ValueError, match="above 0 s"):
        Quality(0.0)
