"""A recipe's grid says what the clips of its windows look like."""

from dataclasses import replace
from typing import Any

import pytest

from rtdecode.errors import UsageError
from rtdecode.signal.eeg.band import EegBand
from rtdecode.signal.volume.baseline import Baseline
from rtdecode.timing import TimingGrid
from tests.refusals import refused
from train.config import builders
from train.config.recipe import build, read
from train.data import nodes
from train.data.clip_grid import clip_of, shown_frames, timing_of, with_size
from train.data.phantom import Participant, manifest

USUAL: dict[str, Any] = {"tr": "4/5", "window": 4, "hop": 4, "lag": 4, "sfreq": 125, "fps": 8}


@pytest.mark.parametrize(
    ("changes", "frames", "length"),
    [
        ({}, 33, 32),
        ({"window": 2, "hop": 2}, 17, 16),
        ({"window": 2, "hop": 2, "fps": 3}, 6, 6),
        ({"window": 2, "hop": 2, "fps": 3, "frame_after": True}, 7, 6),
        ({"window": 3, "hop": 3, "tr": "7/4"}, 25, 24),
        ({"frame_after": False}, 32, 32),
        ({"window": 3, "hop": 3, "fps": 5}, 15, 15),
    ],
)
def test_a_clip_has_the_frames_of_its_window_and_one_more_where_a_codec_wants_it(
    changes: dict[str, Any], frames: int, length: int
) -> None:
    grid = nodes.grid(**(USUAL | changes))
    draft = manifest(Participant(), grid, EegBand(), Baseline())
    assert clip_of(grid).frames == draft.clip.frames == frames
    assert shown_frames(draft) == length
    # A bundle keeps the timing alone.
    assert type(draft.grid) is TimingGrid
    assert draft.grid == timing_of(grid)


def test_clips_have_the_size_of_the_grid() -> None:
    clip = clip_of(nodes.grid(**USUAL, size=[128, 192]))
    assert (clip.height, clip.width) == (128, 192)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fps": 7.3}, "a window of 4 s has 29.2 frames at 7.3 frames a second"),
        ({"hop": "1/3", "sfreq": 120}, "a hop of 0.333333 s has 2.66667 frames"),
        ({"size": [60, 96]}, r"rows and columns in multiples of 8, found \[60, 96\]"),
        ({"size": [64]}, r"such as \[64, 96\], found \[64\]"),
        ({"size": 64}, r"such as \[64, 96\], found 64"),
        ({"after": -1}, "counts of volumes"),
        ({"after": 1.5}, "counts of volumes, found 0 and 1.5"),
        ({"after": "few"}, "counts of volumes, found 0 and few"),
        ({"frame_after": "perhaps"}, "true or false, found perhaps"),
    ],
)
def test_a_grid_that_cannot_be_is_refused(changes: dict[str, Any], message: str) -> None:
    with refused(UsageError, "recipe-grid-invalid") as caught:
        nodes.grid(**(USUAL | changes))
    assert caught.match(message)


def test_what_came_later_changes_no_digest_unless_it_is_said() -> None:
    usual = read("ridge", [])
    assert usual.digest == "5cd3b3b42dd5f23f"
    assert read("ridge", ["data.grid.after=0"]).digest == usual.digest
    assert read("ridge", ["data.grid.after=1"]).digest != usual.digest
    assert read("ridge", ["data.who.tr=2"]).digest != usual.digest
    assert read("ridge", ["data=x"]).digest == read("ridge", ["data=x", "data.after=0"]).digest
    assert "after" not in str(usual.values)


def test_an_argument_that_came_later_is_known_by_its_type() -> None:
    parameters = builders.inspect.signature(nodes.grid).parameters
    assert [name for name, parameter in parameters.items() if builders.came_later(parameter)] == [
        "after",
        "size",
        "frame_after",
    ]


def test_the_participant_is_scanned_at_the_tr_of_the_grid() -> None:
    data = build(read("ridge", ["data.grid.tr=2"]).tree)["data"]
    assert data.who.tr_s == data.who.session(0, 8.0).tr_s == 2
    assert build(read("ridge", []).tree)["data"].who.session(0, 8.0).tr_s == 0.8
    assert build(read("ridge", ["data.grid.tr=2", "data.who.tr=2"]).tree)["data"].who.tr == 2
    with refused(UsageError, "participant-tr-mismatch", participant_tr_s=2.0, grid_tr_s=0.8):
        build(read("ridge", ["data.who.tr=2"]).tree)
    with refused(UsageError, "participant-tr-invalid", tr="soon"):
        build(read("ridge", ["data.who.tr=soon"]).tree)


@pytest.mark.parametrize("modalities", ["[eeg]", "[fmri, meg]", "[]"])
def test_signals_that_nobody_reads_are_refused(modalities: str) -> None:
    with refused(UsageError, "data-modalities-unknown"):
        build(read("ridge", [f"data.modalities={modalities}"]).tree)


def test_a_manifest_without_a_frame_after_has_all_its_frames_in_the_window() -> None:
    draft = manifest(Participant(), nodes.grid(**USUAL), EegBand(), Baseline(), modalities=["fmri"])
    assert draft.modalities == ["fmri"]
    assert shown_frames(replace(draft, clip=replace(draft.clip, frames=20))) == 20


def test_the_clips_of_a_grid_have_the_size_that_is_asked_for() -> None:
    grid = nodes.grid(**USUAL, frame_after=False)
    other = with_size(grid, "480x720")
    clip = clip_of(other)
    assert (clip.height, clip.width, clip.frames) == (480, 720, clip_of(grid).frames)
    assert timing_of(other) == timing_of(grid)
    assert with_size(grid, "") is grid
    with refused(UsageError, "clip-size-invalid", size="60x96"):
        with_size(grid, "60x96")
    with refused(UsageError, "frame-size-malformed", key="data.clip"):
        with_size(grid, "0x96")
