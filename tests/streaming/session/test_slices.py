import io

import numpy as np
import pytest
from PIL import Image

from streaming.session import slices

# A head of which every voxel differs, in RAS order.
HEAD = np.arange(12 * 14 * 10, dtype=np.float64).reshape(12, 14, 10)
REGION = np.array([[6, 7], [9, 9], [4, 4]])


def cut(order: tuple[int, int, int], signs: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Cut the same head as a scanner may store it: axes permuted and flipped."""
    data = HEAD.transpose(order)
    affine = np.zeros((4, 4))
    affine[3, 3] = 1
    region = REGION[list(order)].copy()
    for axis, (world, sign) in enumerate(zip(order, signs, strict=True)):
        affine[world, axis] = 3.0 * sign
        if sign < 0:
            data = np.flip(data, axis)
            region[axis] = data.shape[axis] - 1 - region[axis]
    return slices.cut(data, affine, region)


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 0, 1), (1, 2, 0), (2, 1, 0)])
@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, 1, 1), (1, -1, -1), (-1, -1, -1)])
def test_slices_are_the_same_however_the_scanner_stores_the_volume(
    order: tuple[int, int, int], signs: tuple[int, int, int]
) -> None:
    expected, region = cut((0, 1, 2), (1, 1, 1))
    picture, cut_region = cut(order, signs)
    np.testing.assert_array_equal(cut_region, region)
    np.testing.assert_array_equal(picture, expected)


def test_front_and_top_are_where_a_viewer_expects_them() -> None:
    head = np.zeros((20, 20, 20))
    head[:, 15:, :] = 1
    head[:, :, 16:] = 2
    picture, region = slices.cut(head, np.diag([2.0, 2, 2, 1]), np.array([[3], [10], [10]]))
    assert picture.shape == (20, 60)
    sagittal, coronal, axial = np.split(picture, 3, axis=1)
    assert (sagittal[:4] == 255).all(), "top"
    assert (sagittal[5:, 15:] > sagittal[5:, :15].max()).all(), "front to the right"
    assert (coronal[:4] == 255).all()
    assert (axial[:5] > axial[5:].max()).all(), "front at the top"
    assert [(int(r), int(c)) for r, c in np.argwhere(region)] == [(9, 10), (9, 23), (9, 43)]


def test_a_slab_is_not_cut_across() -> None:
    slab = np.random.default_rng(0).normal(size=(40, 64, 1))
    picture, _ = slices.cut(slab, np.eye(4), np.array([[20], [30], [0]]))
    assert picture.shape == (64, 40)


def test_large_volumes_are_thinned_and_what_lies_outside_is_left_out() -> None:
    picture, region = slices.cut(np.zeros((200, 200, 120)), np.eye(4), np.array([[500], [-3], [0]]))
    assert max(picture.shape[0], picture.shape[1] / slices.PLANES) <= slices.SIDE
    assert not region.any()


def test_the_region_is_seen_in_the_picture() -> None:
    picture, region = cut((0, 1, 2), (1, 1, 1))
    with Image.open(io.BytesIO(slices.picture(picture, region))) as image:
        colours = np.asarray(image).astype(int)
    grey = (colours[..., 0] == colours[..., 1]) & (colours[..., 1] == colours[..., 2])
    np.testing.assert_array_equal(grey, ~region)
