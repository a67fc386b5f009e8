import numpy as np
import pytest

from streaming.calibrate import page


@pytest.mark.parametrize(
    ("size", "axis"),
    [
        ((4, 2, 2), 0),
        ((2, 4, 2), 1),
        ((2, 2, 4), 2),
        ((2, 2, 2), 2),
        ((2.05, 2, 2), 2),
        ((3, 3, 2), 2),
    ],
)
def test_slices_are_drawn_as_they_were_scanned_and_else_axially(
    size: tuple[float, float, float], axis: int
) -> None:
    upright, voxel_size, along = page._upright(np.zeros((5, 6, 7), np.float32), np.diag([*size, 1.0]))
    assert upright.shape == (5, 6, 7)
    assert voxel_size == pytest.approx(size)
    assert along == axis


def test_sagittal_slices_are_known_in_whatever_order_they_are_stored() -> None:
    affine = np.array([[0, 0, 4, 0], [2, 0, 0, 0], [0, 2, 0, 0], [0, 0, 0, 1]], np.float64)
    upright, voxel_size, along = page._upright(np.zeros((6, 7, 5), np.float32), affine)
    assert upright.shape == (5, 6, 7)
    assert voxel_size == pytest.approx((4, 2, 2))
    assert along == 0
