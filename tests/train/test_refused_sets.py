"""What a ridge refuses of a data set, with the numbers, before it trains or reads for long."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rtdecode.errors import UsageError
from tests.refusals import refused
from tests.train import layouts, test_responses
from tests.train.data.layouts import released
from tests.train.data.layouts.laboratory import write_events
from tests.train.trainer import test_participants
from train.data.set_windows import SetWindows
from train.run_recipe import run as make_run

FIRST = "data.subject=subject1"
BOTH = "data.subject=subject1,subject2"


def bids(folder: Path) -> Path:
    return layouts.bids(folder, runs=3, windows=8)


def short_runs(folder: Path) -> Path:
    return layouts.bids(folder, runs=3, windows=1, lag=0)


def one_window_segments(folder: Path) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(released, "LENGTH", 1)
        released.mindvideo(folder)
    return folder


def copied(folder: Path) -> Path:
    """Write cc2017 with the first subject twice."""
    test_participants.study(folder)
    for part in ("train", "test"):
        shutil.copy(folder / f"fmri_{part}_subject1.npy", folder / f"fmri_{part}_subject2.npy")
    return folder


def rounded(folder: Path) -> Path:
    """Write cc2017 with the first subject twice, once rounded and in other units."""
    test_participants.study(folder)
    for part in ("train", "test"):
        values = np.load(folder / f"fmri_{part}_subject1.npy")
        np.save(folder / f"fmri_{part}_subject2.npy", 3 * np.round(values, 1) + 1)
    return folder


def shorter_repeats(folder: Path) -> Path:
    """Write runs of which the second shows a part of the first one's film."""
    layouts.bids(folder, runs=4, windows=12)
    events = folder / "sub-01" / "func" / "sub-01_task-film_run-2_events.tsv"
    write_events(events, [("0", "16", "film", "film-1.mp4")])
    return folder


@pytest.mark.parametrize(
    ("write", "keys", "code", "values"),
    [
        (
            test_participants.study,
            [FIRST, "data.fps=7.3"],
            "data-grid-invalid",
            {"error": re.compile(r"2 s has 14\.6 frames at 7\.3")},
        ),
        (
            bids,
            ["data.window=2", "data.fps=2.7"],
            "data-grid-invalid",
            {"error": re.compile(r"2 s has 5\.4 frames at 2\.7")},
        ),
        (bids, ["data.window=3"], "window-not-whole-trs", {"tr_s": 2.0, "window_s": 3.0}),
        (
            test_participants.study,
            [FIRST, "data.after=60"],
            "data-after-beyond-run",
            {"after": 60, "longest": 4, "volumes": 1},
        ),
        (
            bids,
            ["data.window=4", "data.after=7"],
            "data-after-beyond-run",
            {"after": 7, "longest": 4, "volumes": 2},
        ),
        (
            one_window_segments,
            [FIRST, "data.frames=6"],
            "data-one-window-runs",
            {"runs": 5, "fewest_windows": 2, "window_s": 2.0},
        ),
        (one_window_segments, [FIRST, "data.after=1"], "data-after-beyond-run", {"longest": 1}),
        (
            short_runs,
            ["data.window=2"],
            "bids-runs-too-short",
            {"slots": 1, "lag_s": 4.0, "volumes": 1, "tr_s": 2.0},
        ),
        (short_runs, ["data.window=2", "data.lag=0"], "data-one-window-runs", {"runs": 1}),
        (test_responses.release, ["data.after=1"], "data-after-without-volumes", {"after": 1}),
        (
            test_participants.study,
            ["data.subject=subject1,subject1"],
            "data-participant-named-twice",
            {"subject": "subject1"},
        ),
        (
            copied,
            [BOTH],
            "data-participant-copied",
            {"first": "subject1", "second": "subject2", "explanation": re.compile("same signals")},
        ),
        (rounded, [BOTH], "data-participant-copied", {"explanation": re.compile("but for rounding")}),
        (
            shorter_repeats,
            ["data.window=2", "data.choose=reproducible"],
            "data-repeats-differ",
            {"first_windows": 12, "second_windows": 8, "common_windows": 8},
        ),
        (test_participants.study, [FIRST, "data.choose=reproducible"], "data-few-repeats", {"segments": 0}),
    ],
)
def test_what_cannot_be_trained_on_is_refused_before_it_is_read(
    write: Callable[[Path], Path],
    keys: list[str],
    code: str,
    values: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    test_responses.expect_counts(monkeypatch)
    data = write(tmp_path / "data")

    def read(windows: SetWindows) -> None:
        raise AssertionError(f"{windows.participant} is read")

    monkeypatch.setattr(SetWindows, "taught", read)
    with refused(UsageError, code, **values):
        make_run("ridge", ["scale=tiny", f"data={data}", *keys, f"out={tmp_path / 'run'}"])
    assert not (tmp_path / "run").exists()
