"""Frames whose dimensions contradict their temporal positions, their times, or where they lie."""

import itertools
import random
from datetime import timedelta

import numpy as np
import pytest
from pydicom import Dataset

from streaming.sources.formats.dicom import read_dicom
from streaming.sources.formats.image import Image, NotAVolumeError
from tests.dicoms import STARTED, enhanced, written
from tests.refusals import refused

AFFINE = np.diag([3.0, 3.0, 3.0, 1.0])
COUNT = 5
SLICES = 4
STACK, IN_STACK, TEMPORAL = 0x00209056, 0x00209057, 0x00209128
VOLUMES = np.random.default_rng(0).integers(0, 4000, (COUNT, 6, 5, SLICES)).astype(np.int16)


def shuffled(pointers=(STACK, IN_STACK, TEMPORAL), without: tuple[str, ...] = ()) -> Dataset:
    """Five volumes with frames in no order, these dimensions, and without some attributes of the frames."""
    order = random.Random(4).sample(range(COUNT * SLICES), COUNT * SLICES)
    ds = enhanced(VOLUMES, AFFINE, order)
    for item, pointer in zip(ds.DimensionIndexSequence, pointers, strict=True):
        item.DimensionIndexPointer = pointer
    for content in contents(ds):
        for keyword in without:
            delattr(content, keyword)
    return ds


def contents(ds: Dataset) -> list[Dataset]:
    return [frame.FrameContentSequence[0] for frame in ds.PerFrameFunctionalGroupsSequence]


def read(ds: Dataset) -> list[Image]:
    images = read_dicom(written(ds))
    assert isinstance(images, list)
    return images


def assert_volumes(images: list[Image], order=range(COUNT)) -> None:
    assert [image.number for image in images] == list(range(COUNT))
    for image, n in zip(images, order, strict=True):
        np.testing.assert_array_equal(image.data, VOLUMES[n])


@pytest.mark.parametrize(
    "without",
    [
        (),
        ("TemporalPositionIndex",),
        ("FrameAcquisitionDateTime",),
        ("TemporalPositionIndex", "FrameAcquisitionDateTime"),
    ],
    ids=["all", "no index", "no times", "neither"],
)
@pytest.mark.parametrize("pointers", list(itertools.permutations((STACK, IN_STACK, TEMPORAL))))
def test_dimensions_in_another_order_than_their_values(pointers, without):
    images = read(shuffled(pointers, without))
    assert_volumes(images)
    if "FrameAcquisitionDateTime" not in without:
        assert [image.acquired for image in images] == [
            STARTED + timedelta(seconds=0.8 * n) for n in range(COUNT)
        ]


@pytest.mark.parametrize("without", [(), ("FrameAcquisitionDateTime",)])
def test_dimensions_that_are_of_space_alone(without):
    ds = shuffled(without=without)
    ds.DimensionIndexSequence = ds.DimensionIndexSequence[:2]
    for content in contents(ds):
        content.DimensionIndexValues = content.DimensionIndexValues[:2]
    assert_volumes(read(ds))


def turned(ds: Dataset, keyword: str) -> None:
    """Let the odd slices count the volumes backwards."""
    for content in contents(ds):
        if content.InStackPositionNumber % 2:
            if keyword == "DimensionIndexValues":
                stack, place, time = content.DimensionIndexValues
                content.DimensionIndexValues = [stack, place, COUNT + 1 - time]
            else:
                content.TemporalPositionIndex = COUNT + 1 - content.TemporalPositionIndex


@pytest.mark.parametrize("keyword", ["DimensionIndexValues", "TemporalPositionIndex"])
def test_of_two_statements_the_one_that_the_times_support_is_taken(keyword):
    ds = shuffled()
    turned(ds, keyword)
    assert_volumes(read(ds))


def test_two_statements_without_a_third_are_refused():
    ds = shuffled(without=("FrameAcquisitionDateTime",))
    turned(ds, "DimensionIndexValues")
    with refused(
        NotAVolumeError,
        "enhanced-dimensions-contradict",
        one="DimensionIndexValues",
        other="TemporalPositionIndex",
    ):
        read(ds)
    ds = shuffled(without=("TemporalPositionIndex",))
    turned(ds, "DimensionIndexValues")
    with refused(
        NotAVolumeError,
        "enhanced-dimensions-contradict",
        one="DimensionIndexValues",
        other="FrameAcquisitionDateTime",
    ):
        read(ds)


def test_a_volume_without_a_frame_stays_a_hole_where_the_dimensions_are_in_another_order():
    ds = shuffled((TEMPORAL, STACK, IN_STACK))
    frames = list(ds.PerFrameFunctionalGroupsSequence)
    lost = next(n for n, content in enumerate(contents(ds)) if content.TemporalPositionIndex == 3)
    pixels = np.frombuffer(ds.PixelData, "<u2").reshape(len(frames), -1)
    ds.PixelData = np.delete(pixels, lost, axis=0).tobytes()
    ds.PerFrameFunctionalGroupsSequence = frames[:lost] + frames[lost + 1 :]
    ds.NumberOfFrames = len(frames) - 1
    images = read(ds)
    assert [image.number for image in images] == [0, 1, 3, 4]
    for image in images:
        np.testing.assert_array_equal(image.data, VOLUMES[image.number])
