"""Files of one slice each, from real scanners and from the phantom, to planes and to volumes."""

import io
import random
import warnings
from dataclasses import replace
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rtdecode.phantom.files.classic import slice_bytes
from streaming.sources.folder.files import gunzip
from streaming.sources.folder.volume_assembler import VolumeAssembler
from streaming.sources.formats.dicom import read_dicom
from streaming.sources.formats.image import Image, IncompleteError, NotAVolumeError, Plane
from tests.refusals import refused
from tests.scans import dcm2niix
from tests.streaming.sources.planes import moments_at, pushed

GE = "pyneal_ge_DV24_TR1000"
PHILIPS = "dcm_qa_philips_classic_slices_TR1259"
SIEMENS = "dcm_qa_xa30i_classic_slices_TR1000"
# Shape, volumes, TR (s), series, seconds from the first volume to each.
TRUTH = {
    GE: ((64, 64, 18), 3, 1.0, 6, [None] * 3),
    PHILIPS: ((96, 96, 63), 4, 1.259232, 2101, [0, 1.26, 2.52, 3.78]),
    SIEMENS: ((64, 64, 33), 2, 1.0, 7001, [0, 1.0]),
}
AFFINE = np.array([[-2.0, 0, 0, 100], [0, -1.9, 0.6, 90], [0, 0.6, 1.9, -60], [0, 0, 0, 1]])


@lru_cache(maxsize=3)
def files_of(folder: Path) -> list[tuple[str, bytes]]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return [(str(path.relative_to(folder)), gunzip(path.read_bytes())) for path in paths]


@lru_cache(maxsize=3)
def planes_of(folder: Path) -> list[tuple[str, Plane]]:
    return [(name, plane_of(data)) for name, data in files_of(folder)]


def plane_of(data: bytes) -> Plane:
    plane = read_dicom(data)
    assert isinstance(plane, Plane)
    return plane


def assembled(planes: list[tuple[str, Plane]]) -> list[Image]:
    stacks = VolumeAssembler()
    volumes = [*pushed(stacks, planes), *stacks.drain()]
    assert all(volume.missing_slices == 0 for volume in volumes)
    return sorted((volume.image for volume in volumes), key=lambda image: (image.series, image.number or 0))


def phantom_files(vendor: str, index: int = 0, shape: tuple[int, int, int] = (8, 6, 5)) -> list[bytes]:
    volume = np.random.default_rng(index).integers(0, 3000, shape).astype(np.int16)
    acquired = datetime(2026, 3, 1, 10) + timedelta(seconds=index)
    return slice_bytes(vendor, volume, AFFINE, 1.0, index, 5, acquired, "1.2.3.5")


def changed(data: bytes, private: dict[int, tuple[str, object]] | None = None, **values: object) -> bytes:
    """The file with other header values; None leaves an element out."""
    ds = pydicom.dcmread(io.BytesIO(data))
    for keyword, value in values.items():
        if value is None and keyword in ds:
            delattr(ds, keyword)
        elif value is not None:
            setattr(ds, keyword, value)
    for tag, (vr, value) in (private or {}).items():
        if tag in ds:
            del ds[tag]
        if value is not None:
            ds.add_new(tag, vr, value)
    out = io.BytesIO()
    ds.save_as(out)
    return out.getvalue()


@pytest.mark.parametrize("series", TRUTH)
def test_real_series_come_whole(data_root: Path, series: str) -> None:
    shape, count, tr_s, number, times = TRUTH[series]
    images = assembled(planes_of(data_root / "scanner" / series))
    assert [image.number for image in images] == list(range(count))
    for image, seconds in zip(images, times, strict=True):
        assert image.data.shape == shape
        assert image.series == number
        assert image.tr_s == pytest.approx(tr_s, abs=1e-5)
        if seconds is None or image.acquired is None or images[0].acquired is None:
            assert (image.acquired, seconds) == (None, None)
        else:
            assert (image.acquired - images[0].acquired).total_seconds() == pytest.approx(seconds, abs=1e-6)
    assert len({image.uid for image in images}) == 1


@pytest.mark.parametrize("series", TRUTH)
def test_real_series_have_the_values_and_places_that_dcm2niix_finds(
    tmp_path: Path, data_root: Path, series: str
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for place, (_, data) in enumerate(files_of(data_root / "scanner" / series)):
        (folder / f"{place:04d}.dcm").write_bytes(data)
    (dcm2niix_image,) = dcm2niix(folder, tmp_path)
    world = nib.as_closest_canonical(dcm2niix_image)
    values = np.asarray(world.dataobj)
    for image in assembled(planes_of(data_root / "scanner" / series)):
        assembled_image = nib.as_closest_canonical(nib.Nifti1Image(np.asarray(image.data), image.affine))
        expected = values[..., image.number]
        np.testing.assert_allclose(assembled_image.dataobj, expected, rtol=1e-6, atol=0)
        corners = np.array(np.meshgrid(*[[0, n - 1] for n in expected.shape])).reshape(3, -1)
        offsets_mm = (assembled_image.affine - world.affine)[:3] @ np.vstack([corners, np.ones(8)])
        assert np.abs(offsets_mm).max() < 0.01


@pytest.mark.parametrize("series", [GE, SIEMENS])
def test_a_real_slice_is_what_nibabel_reads(data_root: Path, series: str) -> None:
    with warnings.catch_warnings():
        # nibabel says of its own DICOM readers that they are experimental.
        warnings.simplefilter("ignore", UserWarning)
        from nibabel.nicom.dicomwrappers import wrapper_from_data
    for _, data in files_of(data_root / "scanner" / series)[::17]:
        nibabel_slice = wrapper_from_data(pydicom.dcmread(io.BytesIO(data)))
        plane = plane_of(data)
        np.testing.assert_array_equal(plane.data.T, np.asarray(nibabel_slice.get_data()))
        np.testing.assert_allclose(plane.affine[:3, 3], nibabel_slice.image_position * [-1, -1, 1], atol=1e-6)


@pytest.mark.parametrize("series", TRUTH)
def test_real_series_in_any_order_and_twice(data_root: Path, series: str) -> None:
    planes = planes_of(data_root / "scanner" / series)
    expected = assembled(planes)
    mixed = [*planes, *planes[::7]]
    random.Random(1).shuffle(mixed)
    stacks = VolumeAssembler()
    volumes = sorted(pushed(stacks, mixed), key=lambda volume: volume.image.number or 0)
    assert sum("a second file" in reason for _, reason in stacks.refused()) == len(planes[::7])
    for volume, image in zip(volumes, expected, strict=True):
        assert volume.missing_slices == 0
        np.testing.assert_array_equal(volume.image.data, image.data)
        np.testing.assert_array_equal(volume.image.affine, image.affine)
        assert (volume.image.acquired, volume.image.uid) == (image.acquired, image.uid)


def test_three_real_series_in_one_folder(data_root: Path) -> None:
    planes = [entry for series in TRUTH for entry in planes_of(data_root / "scanner" / series)]
    random.Random(2).shuffle(planes)
    images = assembled(planes)
    assert [image.series for image in images] == [6] * 3 + [2101] * 4 + [7001] * 2


@pytest.mark.parametrize("series", TRUTH)
def test_a_lost_real_slice_is_a_hole_and_the_rest_stays(data_root: Path, series: str) -> None:
    planes = planes_of(data_root / "scanner" / series)
    complete = {image.number: image for image in assembled(planes)}
    lost = len(planes) // 2
    stacks = VolumeAssembler()
    volumes = pushed(stacks, planes[:lost] + planes[lost + 1 :])
    assert all(volume.missing_slices == 0 for volume in volumes)
    (hole,) = stacks.overdue(len(planes) / 1000 + 2.0)
    assert (hole.missing_slices, hole.image.data.shape) == (1, TRUTH[series][0])
    same = hole.image.data == complete[hole.image.number].data
    assert np.count_nonzero(same.all(axis=(0, 1))) == TRUTH[series][0][2] - 1
    assert len(volumes) == TRUTH[series][1] - 1


def test_xa_interoperability_knows_when_its_images_were_done(data_root: Path) -> None:
    first, second = assembled(planes_of(data_root / "scanner" / SIEMENS))
    assert (first.recon_s, second.recon_s) == (1.3145, 1.3135)


@pytest.mark.parametrize("vendor", ["ge", "philips"])
def test_the_phantoms_slices(vendor: str) -> None:
    planes = [
        (f"{index}-{k}", plane_of(data))
        for index in range(3)
        for k, data in enumerate(phantom_files(vendor, index))
    ]
    images = assembled(planes)
    assert [image.number for image in images] == [0, 1, 2]
    for index, image in enumerate(images):
        volume = np.random.default_rng(index).integers(0, 3000, (8, 6, 5)).astype(np.int16)
        assembled_image = nib.as_closest_canonical(nib.Nifti1Image(np.asarray(image.data), image.affine))
        phantom_image = nib.as_closest_canonical(nib.Nifti1Image(volume, AFFINE))
        np.testing.assert_array_equal(assembled_image.dataobj, phantom_image.dataobj)
        np.testing.assert_allclose(assembled_image.affine, phantom_image.affine, atol=1e-3)


def test_ge_copies_the_start_of_the_series_into_every_time() -> None:
    series_start = datetime(2026, 3, 1, 9, 59)
    planes = [
        (f"{index}-{k}", replace(plane_of(data), acquired=series_start))
        for index in range(3)
        for k, data in enumerate(phantom_files("ge", index))
    ]
    assert [image.acquired for image in assembled(planes)] == [series_start, None, None]


def test_philips_values_are_on_its_own_scale() -> None:
    data = phantom_files("philips")[0]
    stored = plane_of(data).data
    scaled = changed(
        data, {0x2005100E: ("FL", 0.25)}, RescaleSlope="0.5", RescaleIntercept="3", RescaleType="normalized"
    )
    assert np.allclose(plane_of(scaled).data, 4 * stored + 3 / (0.5 * 0.25))
    plain = changed(data, {0x2005100E: ("FL", None)}, RescaleSlope="0.5", RescaleIntercept="3")
    assert np.allclose(plane_of(plain).data, 0.5 * stored + 3)


def test_philips_without_a_temporal_position_counts_by_its_dynamics() -> None:
    data = [changed(data, TemporalPositionIdentifier=None) for data in phantom_files("philips", 3)]
    assert [plane_of(file).number for file in data] == [3] * 5


def test_echoes_are_runs_of_their_own() -> None:
    data = phantom_files("ge")[0]
    plain = plane_of(changed(data, EchoNumbers="1")).uid
    assert plain == "1.2.3.5"
    second = plane_of(changed(data, EchoNumbers="2")).uid
    third = plane_of(changed(data, EchoNumbers=None, EchoTime="14")).uid
    fourth = plane_of(changed(data, EchoNumbers=None, EchoTime="44")).uid
    assert len({plain, second, third, fourth}) == 4


def test_ge_echoes_share_the_instance_numbers() -> None:
    numbers = []
    for instance in (1, 6, 11, 16, 21):
        data = changed(
            phantom_files("ge")[0], {0x0019107E: ("SS", 2)}, InstanceNumber=instance, EchoNumbers="1"
        )
        numbers.append(plane_of(data).number)
    assert numbers == [0, 0, 1, 1, 2]


@pytest.mark.parametrize(
    ("part", "component"), [(1, "a phase image"), (2, "a real part"), (3, "an imaginary part")]
)
def test_ge_parts_are_left_out(part: int, component: str) -> None:
    with refused(NotAVolumeError, "dicom-not-magnitude", component=component):
        read_dicom(changed(phantom_files("ge")[0], {0x0043102F: ("SS", part)}))


@pytest.mark.parametrize("vendor", ["ge", "philips"])
def test_what_lies_nowhere_is_left_out(vendor: str) -> None:
    data = phantom_files(vendor)[0]
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
        with refused(NotAVolumeError, "slice-geometry-missing"):
            read_dicom(changed(data, **{keyword: None}))
    with refused(NotAVolumeError, "slice-axes-degenerate"):
        read_dicom(changed(data, ImageOrientationPatient=[1, 0, 0, 1, 0, 0]))


@pytest.mark.parametrize("vendor", ["UIH", "CANON_MEC", "Somebody Else"])
def test_an_unknown_vendor_is_read_by_the_standard(vendor: str) -> None:
    removed_tags = dict.fromkeys((0x0021104F, 0x00431079, 0x0043102F), ("SS", None))
    planes = [
        (f"{index}-{k}", plane_of(changed(data, removed_tags, Manufacturer=vendor)))
        for index in range(3)
        for k, data in enumerate(phantom_files("ge", index))
    ]
    assert {plane.slices for _, plane in planes} == {None}
    assert [image.number for image in assembled(planes)] == [0, 1, 2]


def test_a_split_measurement_is_one_run_and_the_next_another(data_root: Path) -> None:
    files = files_of(data_root / "scanner" / SIEMENS)
    uids = {plane_of(data).uid for _, data in (files[0], files[40])}
    later = changed(files[0][1], {0x00211060: ("LO", "20230113195008.859791")})
    assert len(uids) == 1
    assert plane_of(later).uid not in uids
    assert "Development" not in plane_of(later).uid


def _spoiled(data: bytes) -> dict[str, bytes]:
    noise = random.Random(5).randbytes(len(data))
    spoiled = {f"{percent} %": data[: int(len(data) * percent / 100)] for percent in (2, 30, 50, 90, 99.9)}
    spoiled |= {"nothing": b"", "text": b"the scanner was switched off\n" * 40, "noise": noise}
    spoiled |= {"noise behind the preamble": data[:132] + noise[132:]}
    spoiled |= {"noise for a header": data[:400] + noise[400:-2000] + data[-2000:]}
    for rows, columns in ((0, 64), (65535, 65535), (64, 65535)):
        spoiled[f"{rows} x {columns}"] = changed(data, Rows=rows, Columns=columns)
    return spoiled


@pytest.mark.parametrize("series", [GE, PHILIPS, SIEMENS, "phantom"])
def test_bad_files_are_refused_with_a_reason(request: pytest.FixtureRequest, series: str) -> None:
    if series == "phantom":
        data = phantom_files("ge", shape=(64, 64, 2))[0]
    else:
        data = files_of(request.getfixturevalue("data_root") / "scanner" / series)[3][1]
    for what, bad in _spoiled(data).items():
        with pytest.raises((IncompleteError, NotAVolumeError)) as refusal:
            read_dicom(bad)
        assert refusal.value.code, what


@given(
    vendor=st.sampled_from(["ge", "philips"]),
    changes=st.lists(st.tuples(st.integers(0, 2**20), st.binary(min_size=1, max_size=6)), max_size=4),
    cut=st.floats(0, 1),
)
@example(vendor="ge", changes=[(140, b"\xff\xff\xff\xff")], cut=1.0)
def test_damaged_files_give_a_slice_or_a_reason(
    vendor: str, changes: list[tuple[int, bytes]], cut: float
) -> None:
    data = bytearray(phantom_files(vendor)[0])
    for place, value in changes:
        data[place % len(data) : place % len(data) + len(value)] = value
    bad = bytes(data[: int(len(data) * min(2 * cut, 1.0))])
    try:
        plane = read_dicom(bad)
    except (IncompleteError, NotAVolumeError):
        return
    if isinstance(plane, Plane):
        assert plane.data.nbytes <= 2 * len(bad)
        assert np.isfinite(plane.affine).all()
        stacks = VolumeAssembler()
        stacks.push(plane, "", moments_at(0.0))
        stacks.drain()


def test_the_last_of_72_slices_gives_the_volume() -> None:
    stacks = VolumeAssembler()
    for index in range(4):
        files = phantom_files("ge", index, (104, 104, 72))
        for k, data in enumerate(files):
            volumes = stacks.push(plane_of(data), f"{index}-{k}", moments_at(float(index)))
        assert len(volumes) == 1
        assert volumes[0].image.data.shape == (104, 104, 72)
