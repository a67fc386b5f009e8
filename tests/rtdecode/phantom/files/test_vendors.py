"""What each simulated scanner writes, read by others: pydicom, nibabel, dcm2niix."""

import io
import time
from datetime import datetime

import nibabel as nib
import numpy as np
import pydicom
import pytest

from rtdecode.errors import UsageError
from rtdecode.phantom.body.scanner import head, slice_times
from rtdecode.phantom.files.classic import slice_bytes
from rtdecode.phantom.files.enhanced import enhanced_bytes
from rtdecode.phantom.files.nifti import nifti_bytes
from rtdecode.phantom.files.vendors import VENDORS, vendor_named
from rtdecode.phantom.live.names import ExportedRun, files, names, next_series, second_name, write_run
from rtdecode.phantom.session import PhantomSession
from tests.refusals import refused
from tests.scans import dcm2niix, same_world

RUN = ExportedRun(4, "1.2.3.4", datetime(2026, 3, 1, 23, 59, 59, 900000))
DICOM = [name for name in VENDORS if name != "nifti"]


@pytest.fixture(scope="module")
def session() -> PhantomSession:
    return PhantomSession("easy", seed=61, seconds=4, motion="typical")


def volume_of(shape: tuple[int, int, int], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 4000, shape).astype(np.int16)


@pytest.mark.parametrize("scanner", DICOM)
def test_another_converter_finds_every_vendors_run_the_same(tmp_path, session, scanner):
    write_run(tmp_path / "in", session, scanner, range(3))
    (tmp_path / "out").mkdir()
    (run,) = dcm2niix(tmp_path / "in", tmp_path / "out")
    assert run.shape == (64, 64, 36, 3)
    assert run.header.get_zooms()[3] == pytest.approx(0.8)
    for t in range(3):
        converted = nib.Nifti1Image(np.asanyarray(run.dataobj)[..., t], run.affine)
        same_world(converted, nib.Nifti1Image(session.scanner.volume(t), session.head.affine))


def test_nifti_files_are_read_the_same(tmp_path, session):
    paths = write_run(tmp_path, session, "nifti", (0, 5))
    assert [path.name for path in paths] == ["run-004_vol-00000.nii", "run-004_vol-00005.nii"]
    for index, path in zip((0, 5), paths, strict=True):
        image = nib.Nifti1Image.from_filename(path)
        same_world(image, nib.Nifti1Image(session.scanner.volume(index), session.head.affine))
        assert image.get_data_dtype() == np.int16
        assert (image.header["pixdim"][4], image.header.get_xyzt_units()) == (
            pytest.approx(0.8),
            ("mm", "sec"),
        )


def test_enhanced_frames_have_their_places_and_times(session):
    ds = _read(files(session, "siemens-enhanced", RUN, 2)[0].data)
    assert ds.file_meta.MediaStorageSOPClassUID == "1.2.840.10008.5.1.4.1.1.4.1"
    assert (ds.NumberOfFrames, ds.InstanceNumber, ds.AcquisitionNumber, ds.SeriesNumber) == (36, 3, 3, 4)
    assert (ds.AcquisitionDateTime, ds.ContentDate) == ("20260302000001.500000", "20260302")
    assert float(ds.ContentTime[4:]) == pytest.approx(1.5 + session.recon_of(2), abs=1e-4)
    shared = ds.SharedFunctionalGroupsSequence[0]
    assert shared.MRTimingAndRelatedParametersSequence[0].RepetitionTime == 800
    frames = ds.PerFrameFunctionalGroupsSequence
    assert len(frames) == 36
    for k, frame in enumerate(frames):
        content = frame.FrameContentSequence[0]
        assert (content.InStackPositionNumber, content.TemporalPositionIndex) == (k + 1, 3)
        acquired_s = float(content.FrameAcquisitionDateTime[-9:])
        assert acquired_s == pytest.approx(1.5 + slice_times(36)[k], abs=1e-5)
        place = np.array(frame.PlanePositionSequence[0].ImagePositionPatient, float)
        assert place == pytest.approx(_corner(session.head.affine, k), abs=1e-5)
    assert np.array_equal(ds.pixel_array.transpose(2, 1, 0), session.scanner.volume(2))
    pointers = [item.DimensionIndexPointer for item in ds.DimensionIndexSequence]
    assert pointers == [0x00209056, 0x00209057, 0x00209128]


def test_ge_numbers_through_and_copies_its_times(session):
    written = files(session, "ge", RUN, 2)
    volume = session.scanner.volume(2)
    assert written[0].name == "s4/i2862352.MRDC.73"
    assert written[35].name == "s4/i2862387.MRDC.108"
    for k, file in enumerate(written):
        ds = _read(file.data)
        assert (ds.InstanceNumber, ds.AcquisitionNumber, ds.ImagesInAcquisition) == (2 * 36 + k + 1, 1, 36)
        assert "TemporalPositionIdentifier" not in ds
        assert ds.AcquisitionTime == ds.ContentTime == ds.SeriesTime == "235959.900000"
        assert ds[0x0021, 0x105E].value == pytest.approx(1.6 + slice_times(36)[k], abs=1e-5)
        assert ds[0x0043, 0x1079].value == 36
        _check_plane(ds, volume, session.head.affine, k)


def test_philips_numbers_slice_by_slice(session):
    written = files(session, "philips", RUN, 2)
    volume = session.scanner.volume(2)
    assert written[1].name == f"0004_bold/IM_{session.volumes + 3:04d}"
    for k, file in enumerate(written):
        ds = _read(file.data)
        assert ds.InstanceNumber == k * session.volumes + 3
        assert (ds.TemporalPositionIdentifier, ds.NumberOfTemporalPositions) == (3, session.volumes)
        assert (ds.AcquisitionDate, ds.AcquisitionTime) == ("20260302", "000001.500000")
        assert (ds.ContentTime, ds.TriggerTime) == ("000001.500000", 1600)
        _check_plane(ds, volume, session.head.affine, k)


@pytest.mark.parametrize("scanner", DICOM)
def test_no_two_files_are_the_same_object(session, scanner):
    datasets = [_read(file.data) for index in (0, 1) for file in files(session, scanner, RUN, index)]
    assert len({ds.SOPInstanceUID for ds in datasets}) == len(datasets)
    assert {ds.SeriesInstanceUID for ds in datasets} == {"1.2.3.4"}
    for ds in datasets:
        assert list(ds.keys()) == sorted(ds.keys())
        assert ds.file_meta.MediaStorageSOPInstanceUID == ds.SOPInstanceUID


@pytest.mark.parametrize("scanner", VENDORS)
def test_a_lost_slice_leaves_the_others(session, scanner):
    complete = files(session, scanner, RUN, 1)
    cut = files(session, scanner, RUN, 1, absent=7)
    if VENDORS[scanner].by_slice:
        assert len(cut) == 35
        assert complete[7] not in cut
    elif scanner == "siemens-enhanced":
        ds = _read(cut[0].data)
        assert ds.NumberOfFrames == len(ds.PerFrameFunctionalGroupsSequence) == len(ds.pixel_array) == 35
        contents = [frame.FrameContentSequence[0] for frame in ds.PerFrameFunctionalGroupsSequence]
        assert [c.InStackPositionNumber for c in contents] == [k + 1 for k in range(36) if k != 7]
    else:
        assert len(cut[0].data) == len(complete[0].data)
        assert cut[0].data != complete[0].data


@pytest.mark.parametrize("scanner", VENDORS)
def test_names_of_a_run_differ_and_tell_the_next_series(tmp_path, session, scanner):
    run_names = [name for index in range(session.volumes) for name in names(session, scanner, 6, index)]
    assert len(set(run_names)) == len(run_names)
    assert next_series(tmp_path, scanner) == 4
    for index in (0, session.volumes - 1):
        for name in names(session, scanner, 6, index):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).touch()
    assert next_series(tmp_path, scanner) == 7
    assert (second_name(run_names[0], scanner) in run_names) == (scanner == "nifti")


def test_a_scanner_that_is_not_built_is_named():
    with refused(
        UsageError,
        "scanner-unsupported",
        scanner="canon",
        available=["siemens-mosaic", "siemens-enhanced", "ge", "philips", "nifti"],
    ):
        vendor_named("canon")


def test_writers_refuse_negative_values_and_sheared_axes():
    sheared = np.eye(4)
    sheared[0, 1] = 0.2
    acquired_at = datetime(2026, 3, 1)
    for affine, low, message in ((np.eye(4), -1, "negative"), (sheared, 1, "orthogonal")):
        volume = np.full((4, 4, 3), low, np.int16)
        with pytest.raises(ValueError, match=message):
            enhanced_bytes(volume, affine, 0.8, 0, 4, acquired_at, 1.6, "1.2")
        with pytest.raises(ValueError, match=message):
            slice_bytes("ge", volume, affine, 0.8, 0, 4, acquired_at, "1.2")


@pytest.mark.full
@pytest.mark.timed
def test_the_benchmark_size_is_written_in_a_fraction_of_a_tr():
    shape = (104, 104, 72)
    volume = volume_of(shape)
    affine = head(1, shape).affine
    acquired_at = datetime(2026, 3, 1)
    writers = {
        "enhanced": lambda i: enhanced_bytes(volume, affine, 0.8, i, 4, acquired_at, 1.6, "1.2"),
        "ge": lambda i: slice_bytes("ge", volume, affine, 0.8, i, 4, acquired_at, "1.2"),
        "philips": lambda i: slice_bytes("philips", volume, affine, 0.8, i, 4, acquired_at, "1.2"),
        "nifti": lambda i: nifti_bytes(volume, affine, 0.8),
    }
    for name, write in writers.items():
        took = []
        for index in range(4):
            start = time.process_time()
            write(index)
            took.append(time.process_time() - start)
        assert min(took) < 0.08, name


def _read(data: bytes) -> pydicom.FileDataset:
    return pydicom.dcmread(io.BytesIO(data))


def _corner(affine: np.ndarray, k: int) -> np.ndarray:
    """First voxel of a slice in DICOM's LPS."""
    return np.diag([-1, -1, 1]) @ (affine[:3, 3] + affine[:3, 2] * k)


def _check_plane(ds: pydicom.FileDataset, volume: np.ndarray, affine: np.ndarray, k: int) -> None:
    assert np.array_equal(ds.pixel_array, volume[:, :, k].T)
    assert np.array(ds.ImagePositionPatient, float) == pytest.approx(_corner(affine, k), abs=1e-5)
