"""Scanner data made and read by others, for the tests."""

import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np


def same_world(reference, parsed) -> None:
    """Assert that two images hold the same values at the same places, within 0.01 mm."""
    a = nib.as_closest_canonical(reference)
    b = nib.as_closest_canonical(parsed)
    np.testing.assert_array_equal(np.asanyarray(a.dataobj), np.asanyarray(b.dataobj))
    corners = np.array(np.meshgrid(*[[0, n - 1] for n in a.shape[:3]])).reshape(3, -1)
    places = [image.affine[:3, :3] @ corners + image.affine[:3, 3:] for image in (a, b)]
    assert np.abs(places[0] - places[1]).max() < 0.01


def dcm2niix(folder: Path, out: Path) -> list:
    """Convert a folder of DICOM files; the images, in order of their names."""
    program = Path(sys.executable).parent / "dcm2niix"
    arguments = ["-z", "n", "-b", "n", "-f", "out_%s", "-o", str(out), str(folder)]
    subprocess.run([str(program), *arguments], check=True, capture_output=True)
    return [nib.load(path) for path in sorted(out.glob("*.nii"))]
