from datetime import datetime

import numpy as np
import pytest
from pydicom import Dataset

from rtdecode.phantom.files.mosaic import mosaic_bytes
from streaming.sources.formats.dicom import read_dicom
from streaming.sources.formats.image import NotAVolumeError
from tests.dicoms import changed, enhanced, written
from tests.refusals import refused

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


def not_functional(image_kind: str) -> tuple[str, dict[str, str]]:
    return "dicom-not-functional", {"image_kind": image_kind}


def not_mr(sop_class: str) -> tuple[str, dict[str, str]]:
    return "dicom-not-mr", {"sop_class": sop_class}


DERIVED = not_functional("a derived image")
PHASE = not_functional("a phase image")
SINGLE_BAND = not_functional("a single-band reference")
FIELD_MAP = not_functional("a field map")
SPIN_ECHO_FIELD_MAP = not_functional("a spin-echo field map")
LOCALIZER = not_functional("a localizer")
DIFFUSION = not_functional("a diffusion-weighted image")
PRESENTATION_STATE = not_mr("Grayscale Softcopy Presentation State Storage")
MOCO: tuple[str, dict[str, str]] = ("dicom-moco-unexpected", {})
PHYSIOLOGY: tuple[str, dict[str, str]] = ("dicom-physiology-log", {})


@pytest.mark.parametrize(
    ("values", "refusal"),
    [
        ({"ImageType": ["DERIVED", "PRIMARY", "M", "ND", "MOSAIC"]}, DERIVED),
        ({"ImageType": [*ORIGINAL, "M", "ND", "MOCO", "MOSAIC"]}, MOCO),
        ({"SeriesDescription": "MoCoSeries"}, MOCO),
        ({"ImageType": ["ORIGINAL", "SECONDARY", "M"]}, not_functional("a secondary image")),
        ({"ImageType": [*ORIGINAL, "P", "ND", "MOSAIC"]}, PHASE),
        ({"ComplexImageComponent": "REAL"}, not_functional("a real part")),
        ({"SeriesDescription": "bold_run1_SBRef"}, SINGLE_BAND),
        ({"ProtocolName": "SB_REF_AP"}, SINGLE_BAND),
        ({"ImageComments": "Single-band reference SENSE1"}, SINGLE_BAND),
        ({"SequenceName": "*fm2d2r"}, FIELD_MAP),
        ({"SeriesDescription": "gre_field_mapping_2mm"}, FIELD_MAP),
        ({"SeriesDescription": "cmrr_fmap-se_ap"}, FIELD_MAP),
        (
            {"SequenceName": "*epse2d1_92", "SeriesDescription": "se_epi_AP"},
            not_functional("a spin-echo field map"),
        ),
        ({"ScanningSequence": "GR", "SequenceName": "fl2d1", "SeriesDescription": "B0"}, FIELD_MAP),
        (
            {"ScanningSequence": "GR", "SequenceName": "fl2d1", "ImageType": [*ORIGINAL, "LOCALIZER"]},
            LOCALIZER,
        ),
        ({"ScanningSequence": "GR", "SequenceName": "fl3d", "ProtocolName": "AAHead_Scout"}, LOCALIZER),
        ({"ImageType": [*ORIGINAL, "DIFFUSION", "NONE", "ND", "MOSAIC"]}, DIFFUSION),
        ({"SequenceName": "*ep_b1000#3"}, DIFFUSION),
        ({"DiffusionBValue": 1000.0}, DIFFUSION),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.66"}, not_mr("Raw Data Storage")),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, not_mr("Secondary Capture Image Storage")),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.104.1"}, not_mr("Encapsulated PDF Storage")),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.22", "PixelData": None}, not_mr("Enhanced SR Storage")),
        (
            {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.11.1", "PixelData": None},
            not_mr("Grayscale Softcopy Presentation State Storage"),
        ),
        ({"SOPClassUID": "1.3.12.2.1107.5.9.1", "PixelData": None}, not_mr("a private object of the vendor")),
        ({"SeriesDescription": "run1_PhysioLog", "PixelData": None}, PHYSIOLOGY),
        ({"ImageType": [*ORIGINAL, "RAWDATA", "PHYSIO"], "PixelData": None}, PHYSIOLOGY),
        ({"SamplesPerPixel": 3}, ("pixels-colour", {})),
        ({"SeriesInstanceUID": ""}, ("dicom-series-uid-invalid", {})),
    ],
)
def test_what_is_no_volume_of_a_run_says_why(values, refusal):
    code, expected = refusal
    with refused(NotAVolumeError, code, **expected):
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
    images = read_dicom(changed(MOSAIC, **values))
    assert isinstance(images, list)
    assert images[0].data.shape == (8, 8, 5)


@pytest.mark.parametrize(
    ("data", "refusal"),
    [
        (of_each_frame("MRDiffusionSequence", DiffusionBValue=700.0), DIFFUSION),
        (of_each_frame("MRDiffusionSequence", DiffusionBValue=0.0, DiffusionDirectionality="DIRECTIONAL"),
         DIFFUSION),
        (frames(AcquisitionContrast="DIFFUSION"), DIFFUSION),
        (frames(ImageType=[*ORIGINAL, "DIFFUSION", "NONE"]), DIFFUSION),
        (of_each_frame("MRImageFrameTypeSequence", FrameType=["DERIVED", "PRIMARY", "T_TEST"]), DERIVED),
        (of_each_frame("MRImageFrameTypeSequence", FrameType=[*ORIGINAL, "FIELD_MAP"]), FIELD_MAP),
        (of_each_frame("PixelValueTransformationSequence", RescaleSlope=1, RescaleIntercept=-500,
                       RescaleType="Hz"), FIELD_MAP),
        (frames(ComplexImageComponent="PHASE"), PHASE),
        (frames(SeriesDescription="func_SBRef"), SINGLE_BAND),
        (frames(SeriesDescription="func_MoCo"), MOCO),
        (private(0x0019, "SIEMENS MR HEADER", 0x0C, "IS", "0"), DIFFUSION),
        (private(0x0043, "GEMS_PARM_01", 0x39, "IS", ["1000001000", "8", "0", "0"]), DIFFUSION),
        (private(0x2001, "Philips Imaging DD 001", 0x03, "FL", 800.0), DIFFUSION),
        (private(0x2005, "Philips MR Imaging DD 005", 0x14, "SL", 4), DIFFUSION),
        (private(0x0065, "Image Private Header", 0x09, "FD", 1000.0), DIFFUSION),
        (private(0x0065, "Image Private Header", 0x2B, "LT", "DTI\\Func"), DIFFUSION),
    ],
)  # fmt: skip
def test_frames_that_are_no_volume_of_a_run_say_why(data, refusal):
    code, expected = refusal
    with refused(NotAVolumeError, code, **expected):
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
    images = read_dicom(data)
    assert isinstance(images, list)
    assert len(images) == 1


def test_the_operator_may_choose_the_corrected_stream():
    corrected = changed(MOSAIC, ImageType=["DERIVED", "PRIMARY", "M", "ND", "MOCO", "MOSAIC"])
    for copy in (corrected, frames(ImageType=["DERIVED", "PRIMARY", "MOCO"], SeriesDescription="x_MoCo")):
        images = read_dicom(copy, moco=True)
        assert isinstance(images, list)
        with refused(NotAVolumeError, "dicom-moco-unexpected"):
            read_dicom(copy)
    for original in (MOSAIC, frames()):
        with refused(NotAVolumeError, "dicom-moco-expected"):
            read_dicom(original, moco=True)
    with refused(NotAVolumeError, "dicom-not-functional", image_kind="a derived image"):
        read_dicom(changed(MOSAIC, ImageType=["DERIVED", "PRIMARY", "T TEST"]), moco=True)
