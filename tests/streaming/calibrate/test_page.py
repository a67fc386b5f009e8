import io

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from rtdecode.disk.calibration import QualityFigures, Record
from rtdecode.signal.volume.projection import Projection
from rtdecode.types import Volume
from streaming.calibrate import page
from streaming.calibrate.warmup import Aligned, Warmup


def slice_sizes(shape: tuple[int, int, int], affine: np.ndarray) -> list[tuple[int, int]]:
    """Height and width of each slice of the mean volume on the page, pixels.

    Mean volume, temporal SNR and region are chosen so that nothing else on the page is white: the volume is
    as bright everywhere, its SNR is 0, and the region lies elsewhere.
    """
    reference = np.full(shape, 100, np.float32)
    volumes = [Volume(reference, affine, index, 1, None, None, None, 0.0, 0.0, 0.0) for index in range(2)]
    everywhere = np.ones(shape, bool)
    aligned = Aligned(volumes, None, 0, 0, reference, affine, np.zeros(shape, np.float32), everywhere)
    elsewhere = affine.copy()
    elsewhere[:3, 3] += 1000
    projection = Projection(np.arange(3), shape, elsewhere)
    record = Record(
        schema=1,
        version="0",
        made_at="now",
        origin="mask",
        origin_digest="0" * 16,
        labels=None,
        features=3,
        series=1,
        tr_s=None,
        volumes=2,
        dropped=0,
        shape=list(shape),
        affine=affine.tolist(),
        projection=projection.digest,
        placement=None,
        figures=QualityFigures(None, None, 0, None, None, None, 1.0, 0),
        files={},
    )
    per_feature = np.ones(3, np.float32)
    warmup = Warmup(np.ones((2, 3), np.float32), per_feature, per_feature, per_feature, per_feature, 0)
    with Image.open(io.BytesIO(page.picture(record, aligned, projection, warmup))) as image:
        white = (np.asarray(image.convert("RGB")) == 255).all(axis=2)
    # Single pixels inside of letters may be white too.
    spans = [
        (rows.stop - rows.start, columns.stop - columns.start)
        for rows, columns in ndimage.find_objects(ndimage.label(white)[0])
    ]
    return [span for span in spans if min(span) > 50]


@pytest.mark.parametrize(
    ("size", "count", "shape"),
    [
        # Height and width of a slice, mm.
        ((4, 2, 2), 5, (14, 12)),
        ((2, 4, 2), 6, (14, 10)),
        ((2, 2, 4), 7, (12, 10)),
        ((2, 2, 2), 7, (12, 10)),
        ((2.05, 2, 2), 7, (12, 10.25)),
        ((3, 3, 2), 7, (18, 15)),
    ],
)
def test_slices_are_drawn_as_they_were_scanned_and_else_axially(
    size: tuple[float, float, float], count: int, shape: tuple[float, float]
) -> None:
    ratios = [height / width for height, width in slice_sizes((5, 6, 7), np.diag([*size, 1.0]))]
    assert ratios == pytest.approx([shape[0] / shape[1]] * count, rel=0.01)


def test_sagittal_slices_are_known_in_whatever_order_they_are_stored() -> None:
    affine = np.array([[0, 0, 4, 0], [2, 0, 0, 0], [0, 2, 0, 0], [0, 0, 0, 1]], np.float64)
    ratios = [height / width for height, width in slice_sizes((6, 7, 5), affine)]
    assert ratios == pytest.approx([14 / 12] * 5, rel=0.01)
