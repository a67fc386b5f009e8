from datetime import datetime

import numpy as np
import pytest
from pydicom import Dataset

from rtdecode.phantom.files.mosaic import mosaic_bytes
from streaming.sources.formats.dicom import read_dicom
from streaming.sources.formats.image import NotAVolumeError
from tests.dicoms import changed, enhanced, written

AFFINE = np.array([[-3.0, 0, 0, 90], [0, -2.9, 0.3, 80], [0, 0.3, 2.9, -50], [0, 0, 0, 1]])
MOSAIC = mosaic_bytes(
    np.full((8, 8, 5), 7, np.int16), AFFINE, 0.8, 0, 7, datetime(2026, 3, 1), 1.65, "1.2.3.4"
)
ORIGINAL = ["ORIGINAL", "PRIMARY"]


def frames(**values) -> bytes:
    return written(enhanced(np.full((1, 4, 4, 3), 7, np.int16), AFFINE, **values))


def of_each_frame(sequence: str, **values) -> bytes:
    ds = enhanced(np.full((1, 4, 4, 3), 7, np.int16), AFFINE)
    for frame in ds.PerFrameFunctionalGroupsSequence:
        item = Dataset()
        for keyword, value in values.items():
            setattr(item, keyword, value)
        setattr(frame, sequence, [item])
    return written(ds)


def private(group: int, creator: str, element: int, vr: str, value) -> bytes:
    ds = enhanced(np.full((1, 4, 4, 3), 7, np.int16), AFFINE)
    vendors = {0x0019: "SIEMENS", 0x0043: "GE MEDICAL SYSTEMS", 0x0065: "UIH"}
    ds.Manufacturer = vendors.get(group, "Philips Medical Systems")
    ds.private_block(group, creator, create=True).add_new(element, vr, value)
    return written(ds)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"ImageType": ["DERIVED", "PRIMARY", "M", "ND", "MOSAIC"]}, "a derived image"),
        ({"ImageType": [*ORIGINAL, "M", "ND", "MOCO", "MOSAIC"]}, "motion-corrected"),
        ({"SeriesDescription": "MoCoSeries"}, "motion-corrected"),
        ({"ImageType": ["ORIGINAL", "SECONDARY", "M"]}, "a secondary image"),
        ({"ImageType": [*ORIGINAL, "P", "ND", "MOSAIC"]}, "a phase image"),
        ({"ComplexImageComponent": "REAL"}, "a real part"),
        ({"SeriesDescription": "bold_run1_SBRef"}, "a single-band reference"),
        ({"ProtocolName": "SB_REF_AP"}, "a single-band reference"),
        ({"ImageComments": "Single-band reference SENSE1"}, "a single-band reference"),
        ({"SequenceName": "*fm2d2r"}, "a field map"),
        ({"SeriesDescription": "gre_field_mapping_2mm"}, "a field map"),
        ({"SeriesDescription": "cmrr_fmap-se_ap"}, "a field map"),
        ({"SequenceName": "*epse2d1_92", "SeriesDescription": "se_epi_AP"}, "a spin-echo field map"),
        ({"ScanningSequence": "GR", "SequenceName": "fl2d1", "SeriesDescription": "B0"}, "a field map"),
        (
            {"ScanningSequence": "GR", "SequenceName": "fl2d1", "ImageType": [*ORIGINAL, "LOCALIZER"]},
            "a localizer",
        ),
        ({"ScanningSequence": "GR", "SequenceName": "fl3d", "ProtocolName": "AAHead_Scout"}, "a localizer"),
        ({"ImageType": [*ORIGINAL, "DIFFUSION", "NONE", "ND", "MOSAIC"]}, "diffusion"),
        ({"SequenceName": "*ep_b1000#3"}, "diffusion"),
        ({"DiffusionBValue": 1000.0}, "diffusion"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.66"}, "Raw Data Storage, not an MR image"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, "Secondary Capture Image Storage"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.104.1"}, "Encapsulated PDF"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.22", "PixelData": None}, "SR Storage"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.11.1", "PixelData": None}, "Presentation State"),
        ({"SOPClassUID": "1.3.12.2.1107.5.9.1", "PixelData": None}, "a private object"),
        ({"SeriesDescription": "run1_PhysioLog", "PixelData": None}, "a physiology log"),
        ({"ImageType": [*ORIGINAL, "RAWDATA", "PHYSIO"], "PixelData": None}, "a physiology log"),
        ({"SamplesPerPixel": 3}, "a colour image"),
        ({"SeriesInstanceUID": ""}, "no series"),
    ],
)
def test_what_is_no_volume_of_a_run_says_why(values, reason):
    with pytest.raises(NotAVolumeError, match=reason):
        read_dicom(changed(MOSAIC, **values))


@pytest.mark.parametrize(
    "values",
    [
        {"ImageType": [*ORIGINAL, "M", "ND"]},
        {"ImageType": [*ORIGINAL, "LOCALIZER"]},
        {"ImageType": None},
        {"ComplexImageComponent": "MAGNITUDE", "ImageType": [*ORIGINAL, "P"]},
        {"SeriesDescription": "task_dir-AP_bold"},
        {"SeriesDescription": "scouting_for_food", "ProtocolName": "survey_task_B0shim"},
        {"Manufacturer": "Someone New"},
        {"DiffusionBValue": 0.0},
    ],
)
def test_a_volume_is_one_whatever_it_is_called(values):
    found = read_dicom(changed(MOSAIC, **values))
    assert isinstance(found, list)
    assert found[0].data.shape == (8, 8, 5)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (of_each_frame("MRDiffusionSequence", DiffusionBValue=700.0), "diffusion"),
        (of_each_frame("MRDiffusionSequence", DiffusionBValue=0.0, DiffusionDirectionality="DIRECTIONAL"),
         "diffusion"),
        (frames(AcquisitionContrast="DIFFUSION"), "diffusion"),
        (frames(ImageType=[*ORIGINAL, "DIFFUSION", "NONE"]), "diffusion"),
        (of_each_frame("MRImageFrameTypeSequence", FrameType=["DERIVED", "PRIMARY", "T_TEST"]), "derived"),
        (of_each_frame("MRImageFrameTypeSequence", FrameType=[*ORIGINAL, "FIELD_MAP"]), "a field map"),
        (of_each_frame("PixelValueTransformationSequence", RescaleSlope=1, RescaleIntercept=-500,
                       RescaleType="Hz"), "a field map"),
        (frames(ComplexImageComponent="PHASE"), "a phase image"),
        (frames(SeriesDescription="func_SBRef"), "single-band"),
        (frames(SeriesDescription="func_MoCo"), "motion-corrected"),
        (private(0x0019, "SIEMENS MR HEADER", 0x0C, "IS", "0"), "diffusion"),
        (private(0x0043, "GEMS_PARM_01", 0x39, "IS", ["1000001000", "8", "0", "0"]), "diffusion"),
        (private(0x2001, "Philips Imaging DD 001", 0x03, "FL", 800.0), "diffusion"),
        (private(0x2005, "Philips MR Imaging DD 005", 0x14, "SL", 4), "diffusion"),
        (private(0x0065, "Image Private Header", 0x09, "FD", 1000.0), "diffusion"),
        (private(0x0065, "Image Private Header", 0x2B, "LT", "DTI\\Func"), "diffusion"),
    ],
)  # fmt: skip
def test_frames_that_are_no_volume_of_a_run_say_why(data, reason):
    with pytest.raises(NotAVolumeError, match=reason):
        read_dicom(data)


@pytest.mark.parametrize(
    "data",
    [
        frames(ImageType=["DERIVED", "PRIMARY", "M", "MOSAIC"]),
        frames(ImageType=["MIXED", "PRIMARY", "M", "NONE"]),
        of_each_frame("MRDiffusionSequence", DiffusionBValue=0.0, DiffusionDirectionality="NONE"),
        private(0x0065, "Image Private Header", 0x2B, "LT", "BOLD"),
        private(0x2001, "Philips Imaging DD 001", 0x03, "FL", 0.0),
        private(0x2005, "Philips MR Imaging DD 005", 0x14, "SL", 1),
        private(0x0043, "GEMS_PARM_01", 0x39, "IS", ["0", "268435456", "0", "0"]),
    ],
)
def test_frames_are_judged_by_their_own_type(data):
    found = read_dicom(data)
    assert isinstance(found, list)
    assert len(found) == 1


def test_the_operator_may_choose_the_corrected_stream():
    corrected = changed(MOSAIC, ImageType=["DERIVED", "PRIMARY", "M", "ND", "MOCO", "MOSAIC"])
    for copy in (corrected, frames(ImageType=["DERIVED", "PRIMARY", "MOCO"], SeriesDescription="x_MoCo")):
        found = read_dicom(copy, moco=True)
        assert isinstance(found, list)
        with pytest.raises(NotAVolumeError, match="motion-corrected copy"):
            read_dicom(copy)
    for original in (MOSAIC, frames()):
        with pytest.raises(NotAVolumeError, match="asked for"):
            read_dicom(original, moco=True)
    with pytest.raises(NotAVolumeError, match="derived"):
        read_dicom(changed(MOSAIC, ImageType=["DERIVED", "PRIMARY", "T TEST"]), moco=True)
