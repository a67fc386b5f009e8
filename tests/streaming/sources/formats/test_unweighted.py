"""Images of a diffusion series that are not weighted by diffusion."""

from datetime import datetime

import numpy as np
import pytest
from pydicom import Dataset

from rtdecode.phantom.files.mosaic import mosaic_bytes
from streaming.sources.formats.dicom import read_dicom
from streaming.sources.formats.image import NotAVolumeError
from streaming.sources.formats.kinds import check_image
from tests.dicoms import changed, enhanced, written
from tests.refusals import refused

AFFINE = np.diag([3.0, 3.0, 3.0, 1.0])
MOSAIC = mosaic_bytes(
    np.full((8, 8, 5), 7, np.int16), AFFINE, 0.8, 0, 7, datetime(2026, 3, 1), 1.0, "1.2.3.4"
)
SPIN_ECHO = {"ScanningSequence": ["SE", "EP"], "SequenceName": "*epse2d1_92"}


def frames(**header) -> bytes:
    """One volume of frames with a b-value of 0."""
    ds = enhanced(np.full((1, 4, 4, 3), 7, np.int16), AFFINE, **header)
    for frame in ds.PerFrameFunctionalGroupsSequence:
        item = Dataset()
        item.DiffusionBValue = 0.0
        item.DiffusionDirectionality = "NONE"
        frame.MRDiffusionSequence = [item]
    return written(ds)


@pytest.mark.parametrize(
    "data",
    [
        changed(MOSAIC, **SPIN_ECHO, DiffusionBValue=0.0),
        changed(MOSAIC, **SPIN_ECHO, DiffusionDirectionality="NONE"),
        changed(MOSAIC, SequenceName="*ep_b0"),
        frames(EchoPulseSequence="SPIN"),
        frames(PulseSequenceName="*ep_b0"),
    ],
    ids=["b-value", "directionality", "sequence", "frames", "frames by the sequence"],
)
def test_the_unweighted_image_of_a_diffusion_series_is_no_volume(data):
    with refused(NotAVolumeError, "dicom-not-functional", image_kind="a diffusion-weighted image"):
        read_dicom(data)


def test_a_b_value_in_siemens_private_header_is_one_if_it_is_0():
    ds = Dataset()
    ds.Manufacturer = "SIEMENS"
    ds.SeriesInstanceUID = "1.2.3.4"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "M"]
    ds.ScanningSequence = "EP"
    check_image(ds, {"B_value": []}, moco=False)
    with refused(NotAVolumeError, "dicom-not-functional", image_kind="a diffusion-weighted image"):
        check_image(ds, {"B_value": ["0"]}, moco=False)


@pytest.mark.parametrize(
    "data",
    [
        changed(MOSAIC, DiffusionBValue=0.0),
        changed(MOSAIC, **SPIN_ECHO, SeriesDescription="spin-echo bold", ProtocolName="spin-echo bold"),
        changed(MOSAIC, **SPIN_ECHO, DiffusionBValue=0.0, Manufacturer="Philips Medical Systems"),
        frames(EchoPulseSequence="GRADIENT"),
        frames(
            EchoPulseSequence="SPIN",
            EchoPlanarPulseSequence="YES",
            Manufacturer="Philips Medical Systems",
        ),
    ],
)
def test_a_run_whose_vendor_states_a_b_value_of_0_is_one(data):
    assert isinstance(read_dicom(data), list)
