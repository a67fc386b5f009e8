"""Who is asked for of several folders, and what must not pass from one participant to another."""

import re
import shutil
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from rtdecode.errors import UsageError
from tests.refusals import refused
from tests.train.data.layouts import released
from train.config.recipe import build, read
from train.config.run_context import RunContext
from train.data import several_sets
from train.data.clip_grid import ClipGrid, ClipWindows, clip_of, shown_frames
from train.data.sets.opening import opened
from train.data.sets.set_node import DataSetWindows


def node(data: Path | str, *changes: str) -> DataSetWindows:
    """Build the data node of a ridge."""
    return build(read("ridge", [f"data={data}", "scale=tiny", *changes]).tree["data"])


def work(data: Path | str, place: Path) -> RunContext:
    return RunContext(Path(str(data)), 0, place / "stages")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write cc2017 with two subjects."""
    (tmp_path / "A").mkdir()
    released.mindvideo(tmp_path / "A")
    return tmp_path / "A"


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """Write the same study with other pictures, and windows whose names are the same."""
    place = tmp_path / "B"
    place.mkdir()
    written = released.mindvideo(place)
    for name, values in written.items():
        draws = released.rng(99)
        if name.startswith("fmri"):
            np.save(place / name, draws.standard_normal(values.shape))
        elif name.startswith("video"):
            np.save(place / name, draws.integers(0, 256, values.shape).astype(np.uint8))
    return place


def subjects_of(folder: Path) -> list[str]:
    return opened(folder).windows.subjects


def test_what_one_holds_out_teaches_nobody(folder: Path, tmp_path: Path) -> None:
    first, second = subjects_of(folder)
    everybody = node(folder, f"data.subject={first},{second}").participants(folder)
    assert list(everybody) == [first, second]
    run = everybody[second].data.windows.run[0]
    alone = node(folder, f"data.subject={first}").opened(folder)
    # One of them alone holds out a run that teaches the other.
    table = everybody[second].data.windows
    changed = several_sets.held_for_all(
        {first: alone, second: node(folder, f"data.subject={second}", f"data.test={run}").opened(folder)}
    )
    split = changed[first].split
    titles = set(table.shown[table.run == run].tolist())
    assert not titles & set(alone.data.windows.shown[split.train].tolist())
    assert len(split.train) == len(alone.split.train) - released.LENGTH
    assert len(split.left_out) == len(alone.split.left_out) + released.LENGTH
    assert f"{released.LENGTH} that show the same as those are left out" in changed[first].division
    # What the first holds out as released teaches the second no more.
    tested = set(table.shown[alone.split.test].tolist())
    assert not tested & set(table.shown[changed[second].split.train].tolist())


def test_nobody_is_left_without_what_teaches(folder: Path) -> None:
    first, second = subjects_of(folder)
    windows = node(folder, f"data.subject={first}").opened(folder)
    runs = list(dict.fromkeys(windows.data.windows.run[windows.split.train].tolist()))
    # The second keeps what the release keeps for testing, and holds out all that teaches the first.
    tests = f"data.test={','.join(runs)}"
    two = node(folder, f"data.subject={second}", tests).opened(folder)
    with refused(UsageError, "data-participant-without-training", subject=first):
        several_sets.held_for_all({first: windows, second: two})


@pytest.mark.parametrize("rounded", [False, True])
def test_a_copied_participant_is_refused(folder: Path, tmp_path: Path, *, rounded: bool) -> None:
    first, second = subjects_of(folder)
    for part in ("train", "test"):
        values = np.load(folder / f"fmri_{part}_subject1.npy")
        if rounded:
            values = 3 * np.round(values, 1) + 1
        np.save(folder / f"fmri_{part}_subject2.npy", values)
    both = node(folder, f"data.subject={first},{second}")
    with refused(UsageError, "data-participant-copied", first=first, second=second, first_folder=folder):
        both.check(work(folder, tmp_path))


def test_two_participants_are_no_copies(folder: Path, tmp_path: Path) -> None:
    first, second = subjects_of(folder)
    node(folder, f"data.subject={first},{second}").check(work(folder, tmp_path))


def test_a_copied_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "B")
    first, _ = subjects_of(folder)
    data = f"{folder},{tmp_path / 'B'}"
    with refused(UsageError, "data-participant-copied", second_folder=tmp_path / "B"):
        node(data, f"data.subject=A:{first},B:{first}").check(work(data, tmp_path))


def test_a_clip_that_teaches_in_one_folder_and_is_held_out_in_another_is_refused(
    folder: Path, other: Path, tmp_path: Path
) -> None:
    first, _ = subjects_of(folder)
    data = f"{folder},{other}"
    both = node(data, f"data.subject=A:{first},B:{first}")
    everybody = both.participants(Path(data))
    # Of one subject name and one layout, they are told by their place.
    assert len(everybody) == 2
    several_sets.check_near_duplicates(everybody)
    # A clip that is held out in one folder teaches in the other, a little brighter.
    tested = np.load(folder / "video_test_256_3hz.npy")
    taught = np.load(other / "video_train_256_3hz.npy")
    taught[0, 1] = np.clip(tested[0, 2].astype(int) + 1, 0, 255)
    np.save(other / "video_train_256_3hz.npy", taught)
    again = node(data, f"data.subject=A:{first},B:{first}")
    with refused(UsageError, "data-clip-held-and-taught", count=1, clips=re.compile(" like ")):
        again.everybody_taught(work(data, tmp_path))


def test_another_recipe_takes_one_participant(folder: Path) -> None:
    first, second = subjects_of(folder)
    both = node(folder, f"data.subject={first},{second}")
    with refused(UsageError, "data-several-participants", count=2):
        both.opened(folder)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        (["data.frames=0"], "data-frames-invalid"),
        (["data.frames=six"], "data-frames-invalid"),
        (["data.frames=6", "data.fps=3"], "data-frames-fps-conflict"),
    ],
)
def test_frames_that_are_no_number_of_frames_are_refused(folder: Path, changes: list[str], code: str) -> None:
    with refused(UsageError, code):
        node(folder, *changes)


def test_frames_lie_evenly_over_a_window_of_any_length() -> None:
    """A rate without finite decimals loses no frame."""
    for window, frames in ((2, 6), (3, 6), (3, 8)):
        length = Fraction(window)
        grid = ClipGrid(None, Fraction(100), length, length, Fraction(0), Fraction(frames, window))
        assert shown_frames(ClipWindows(grid, clip_of(grid))) == frames
