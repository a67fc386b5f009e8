import json
import re
import shutil
import threading
import time
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from rtdecode import bundle as bundles
from rtdecode.disk import calibration
from rtdecode.errors import GeometryError, RtDecodeError, UsageError
from rtdecode.phantom.body.scanner import PhantomHead, head
from rtdecode.signal.volume.motion import rigid
from rtdecode.signal.volume.projection import Projection, VoxelReader
from rtdecode.signal.volume.register import head_of
from rtdecode.types import Volume
from streaming.calibrate import command, warmup
from streaming.sources.folder.source import FolderSource
from tests.refusals import refused

CENTRE = (0, -12, 6)
VE11 = "rt-cloud_siemens_mosaic_VE11_TR1500"


@lru_cache(maxsize=1)
def blurred(mean: bytes, shape: tuple[int, int, int]) -> np.ndarray:
    """As far as a scanner resolves it."""
    return ndimage.gaussian_filter(np.frombuffer(mean, np.float32).reshape(shape), 0.7)


def scan_of(place: PhantomHead, motion: np.ndarray, seed: int) -> np.ndarray:
    """The phantom's head after a motion, with the scanner's noise."""
    data = blurred(place.mean.tobytes(), place.shape)
    if not np.array_equal(motion, np.eye(4)):
        into = np.linalg.inv(place.affine) @ np.linalg.inv(motion) @ place.affine
        data = ndimage.affine_transform(data, into[:3, :3], into[:3, 3], order=3, mode="nearest")
    noise = np.random.default_rng(seed).normal(0, 6, place.shape)
    return np.abs(data + noise).round().astype(np.int16)


def written(folder: Path, volumes: list[np.ndarray], affine: np.ndarray) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for n, data in enumerate(volumes):
        image = nib.Nifti1Image(data, affine)
        image.header.set_xyzt_units("mm", "sec")
        image.header["pixdim"][4] = 0.8
        image.to_filename(folder / f"v_{n:03d}.nii")
    return folder


def motions(count: int, size: float, seed: int = 0) -> list[np.ndarray]:
    steps = np.random.default_rng(seed).normal(size=(count, 6)) * [1, 1, 1, 0.017, 0.017, 0.017]
    steps[0] = 0
    return [rigid(size * step, CENTRE) for step in steps]


@pytest.fixture(scope="module")
def place() -> PhantomHead:
    """The head that the shipped bundle knows, with the voxels that it reads."""
    read = bundles.load("phantom").projection
    assert read is not None
    return replace(head(1), voxels=read.voxels)


@pytest.fixture(scope="module")
def still(place, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("still")
    return written(folder / "scan", [scan_of(place, np.eye(4), n) for n in range(3)], place.affine)


@pytest.fixture(scope="module")
def mask(place, tmp_path_factory) -> Path:
    data = np.zeros(place.shape, np.uint8)
    data.reshape(-1)[place.voxels] = 1
    path = tmp_path_factory.mktemp("mask") / "mask.nii.gz"
    nib.Nifti1Image(data, place.affine).to_filename(path)
    return path


@pytest.fixture(scope="module")
def first(still, mask, tmp_path_factory) -> calibration.Calibration:
    """A first session's calibration, through the command."""
    out = tmp_path_factory.mktemp("first") / "cal"
    assert command.run(still, mask, out, volumes=3) == 0
    return calibration.load(out)


@pytest.fixture(scope="module")
def real_mask(data_root, tmp_path_factory) -> Path:
    """Two regions of a real head, on a grid of its own: half the voxel size, other axes."""
    volume = FolderSource(data_root / "scanner" / VE11, "read", bound=False).drain()[0]
    affine = volume.affine @ np.diag([0.5, 0.5, 0.5, 1])
    affine[:3, 3] -= affine[:3, :3] @ [0.5, 0.5, 0.5]
    labels = np.zeros([2 * n for n in volume.data.shape], np.int16)
    labels[40:60, 40:60, 16:32] = 3
    labels[72:88, 40:60, 16:32] = 7
    path = tmp_path_factory.mktemp("mask") / "labels.nii.gz"
    nib.Nifti1Image(labels.transpose(2, 0, 1), affine[:, [2, 0, 1, 3]]).to_filename(path)
    return path


def test_a_real_series_end_to_end(data_root, real_mask, tmp_path, capsys) -> None:
    out = tmp_path / "cal"
    assert command.run(data_root / "scanner" / VE11, real_mask, out) == 0
    assert capsys.readouterr().out.split() == [str(out / "calibration.json"), str(out / "quality.html")]
    cal = calibration.load(out)
    assert cal.record.volumes == 9
    assert cal.record.tr_s == 1.5
    assert cal.reference.shape == (64, 64, 27)
    region = np.zeros(cal.reference.shape, bool)
    region[20:30, 20:30, 8:16] = region[36:44, 20:30, 8:16] = True
    assert cal.projection.voxels.tolist() == np.flatnonzero(region).tolist()
    volume = FolderSource(data_root / "scanner" / VE11, "read", bound=False).drain()[0]
    plain = volume.data.reshape(-1)[cal.projection.voxels]
    assert np.corrcoef(plain, cal.warmup_mean)[0, 1] > 0.98
    assert np.all(cal.warmup_scale > 0)
    assert cal.record.figures.max_fd_mm < 0.3
    assert 60 < cal.record.figures.tsnr_region < 200
    assert cal.record.figures.region_in_brain > 0.95
    picture = np.asarray(Image.open(out / "quality.png"))
    assert np.count_nonzero(np.all(picture == (64, 224, 208), axis=2)) > 500, "the region's outline"
    page = (out / "quality.html").read_text()
    assert "data:image/png;base64," in page
    assert "1440" in page


def test_the_mean_of_each_label(data_root, real_mask, tmp_path) -> None:
    out = tmp_path / "cal"
    command.run(data_root / "scanner" / VE11, real_mask, out, labels="mean", volumes=2)
    cal = calibration.load(out)
    assert cal.record.labels == [3, 7]
    assert cal.record.volumes == 2
    data = FolderSource(data_root / "scanner" / VE11, "read", bound=False).drain()[0].data
    read = VoxelReader(cal.projection, data.shape, cal.affine, placed=True).read(data)
    assert read == pytest.approx([data[20:30, 20:30, 8:16].mean(), data[36:44, 20:30, 8:16].mean()], rel=1e-4)


def test_a_mask_of_another_space_is_refused_with_numbers(data_root, tmp_path) -> None:
    folder = data_root / "scanner" / "pyneal_nifti"
    mask = folder / "testSeries_mask.nii.gz"
    affine = [[3.75, 0, 0, -118.12], [0, 3.75, 0, -118.12], [0, 0, 4, -58], [0, 0, 0, 1]]
    with refused(
        UsageError,
        "mask-outside-brain",
        path=mask,
        mask_voxels=138,
        voxels_in_volume=0,
        voxels_in_brain=0,
        mask_affine=affine,
        volume_affine=np.eye(4).tolist(),
    ):
        command.run(folder, mask, tmp_path / "cal")
    assert not (tmp_path / "cal").exists()


def test_a_real_nifti_series_with_a_mask_of_its_own(data_root, tmp_path) -> None:
    folder = data_root / "scanner" / "pyneal_nifti"
    labels = nib.load(folder / "testSeries_mask.nii.gz")
    nib.Nifti1Image(np.asarray(labels.dataobj), np.eye(4)).to_filename(tmp_path / "m.nii")
    assert command.run(folder, tmp_path / "m.nii", tmp_path / "cal") == 0
    cal = calibration.load(tmp_path / "cal")
    assert (cal.record.volumes, cal.record.features) == (3, 138)
    assert cal.record.tr_s is None
    assert cal.record.figures.drift_percent is None


def test_the_shipped_bundle_takes_the_calibration_of_its_own_head(place, first, tmp_path) -> None:
    trained = bundles.load("phantom").projection
    assert trained is not None
    assert first.matched(trained).projection.digest == trained.digest
    noise = np.random.default_rng(9)
    scans = [np.abs(place.mean + noise.normal(0, 6, place.shape)).round().astype(np.int16) for _ in range(2)]
    folder = written(tmp_path / "scan", scans, place.affine)
    assert command.run(folder, None, tmp_path / "cal", bundle="phantom", volumes=2) == 0
    again = calibration.load(tmp_path / "cal")
    assert again.record.placement is not None
    assert again.matched(trained) is again
    assert np.allclose(again.record.placement.matrix, np.eye(4))
    level = place.mean.reshape(-1)[place.voxels]
    assert again.warmup_mean == pytest.approx(level, rel=0.05)


def test_a_new_sessions_head_is_found_and_gives_the_same_features(place, first, tmp_path) -> None:
    motion = rigid([9, -7, 12, 0.12, -0.08, 0.15], CENTRE)
    folder = written(tmp_path / "scan", [scan_of(place, motion, 50 + n) for n in range(2)], place.affine)
    assert command.run(folder, None, tmp_path / "cal", reference=first.path, volumes=2) == 0
    cal = calibration.load(tmp_path / "cal")
    assert cal.projection.digest == first.projection.digest
    assert np.allclose(cal.record.placement.matrix, motion, atol=0.3)
    unplaced = VoxelReader(first.projection, place.shape, place.affine).read(cal.reference)
    off = [np.median(np.abs(v / first.warmup_mean - 1)) for v in (cal.warmup_mean, unplaced)]
    assert off[0] < 0.01
    assert off[1] > 3 * off[0]
    trained = bundles.load("phantom").projection
    assert trained is not None
    assert cal.matched(trained) is cal


def test_the_old_sessions_mask_is_carried_to_the_new_head(place, first, mask, tmp_path) -> None:
    motion = rigid([2, 3, -4, 0, 0.05, 0], CENTRE)
    folder = written(tmp_path / "scan", [scan_of(place, motion, 60 + n) for n in range(2)], place.affine)
    command.run(folder, mask, tmp_path / "cal", reference=first.path, volumes=2)
    cal = calibration.load(tmp_path / "cal")
    assert cal.record.origin == "mask"
    assert cal.projection.digest == first.projection.digest
    assert np.allclose(cal.projection.affine, motion @ place.affine, atol=0.3)


def test_another_head_is_refused_with_both_geometries(first, tmp_path) -> None:
    noise = np.random.default_rng(0)
    volumes = [noise.integers(0, 2000, (16, 16, 12)).repeat(4, 0).repeat(4, 1).repeat(3, 2)] * 2
    folder = written(tmp_path / "scan", [v.astype(np.int16) for v in volumes], first.affine)
    with refused(
        GeometryError, "head-registration-failed", origin_shape=(64, 64, 36), volume_shape=(64, 64, 36)
    ):
        command.run(folder, None, tmp_path / "cal", reference=first.path, volumes=2)


def test_a_moving_heads_features_agree_with_the_resting_ones(place) -> None:
    """Up to about 3 mm and 3 degrees within a run."""
    volumes = [
        Volume(scan_of(place, m, n), place.affine, n, 1, 0.8, None, None, 0, 0, 0)
        for n, m in enumerate(motions(8, 1.2))
    ]
    aligned = warmup.align(volumes, lambda volume, _: volume)
    projection = Projection(place.voxels, place.shape, place.affine)
    truth = blurred(place.mean.tobytes(), place.shape).reshape(-1)[place.voxels]
    plain = VoxelReader(projection, place.shape, place.affine)
    corrected = warmup.measure(aligned, projection).features
    as_found = np.stack([plain.read(v.data) for v in aligned.volumes])
    assert aligned.unaligned == 0
    errors = [np.median(np.abs(f[1:] / truth - 1)) for f in (as_found, corrected)]
    assert errors[1] < 0.01
    assert errors[0] > 3 * errors[1]
    noise = [np.median(f.std(axis=0) / truth) for f in (as_found, corrected)]
    assert noise[1] < 0.4 * noise[0]


def test_volumes_before_the_steady_state_are_left_out(place) -> None:
    small = place.mean[::4, ::4, ::4]
    gains = [1.4, 1.1, 1.03, *[1.0] * 12]
    rng = np.random.default_rng(0)
    volumes = [
        Volume(g * small + rng.normal(0, 6, small.shape), np.eye(4), n, 1, 0.8, None, None, 0, 0, 0)
        for n, g in enumerate(gains)
    ]
    assert warmup.unsteady(volumes) == 3
    assert warmup.unsteady(volumes[3:]) == 0
    assert warmup.unsteady(volumes[:5]) == 0, "too few to tell"


def test_voxels_without_a_value_do_not_hide_what_is_unsteady(place) -> None:
    small = place.mean[::4, ::4, ::4]
    head_voxels = np.argwhere(head_of(small))
    rng = np.random.default_rng(0)
    volumes = []
    for n, gain in enumerate([1.4, 1.1, 1.03, *[1.0] * 12]):
        data = gain * small + rng.normal(0, 6, small.shape)
        data[tuple(head_voxels[n])] = np.nan
        volumes.append(Volume(data, np.eye(4), n, 1, 0.8, None, None, 0, 0, 0))
    assert warmup.unsteady(volumes) == 3


def test_a_line_is_no_noise() -> None:
    times = np.array([0, 1, 2, 4, 7])
    slope, spread = warmup.line(np.outer(times, [2.0, -1.0]) + 50, times)
    assert slope == pytest.approx([2, -1])
    assert spread == pytest.approx([0, 0], abs=1e-6)


def test_a_thin_slab_is_taken_as_it_lies(place, tmp_path) -> None:
    slab = [scan_of(place, np.eye(4), n)[:, :, 20:22] for n in range(4)]
    folder = written(tmp_path / "scan", slab, place.affine)
    nib.Nifti1Image((slab[0] > 800).astype(np.uint8), place.affine).to_filename(tmp_path / "m.nii")
    assert command.run(folder, tmp_path / "m.nii", tmp_path / "cal", volumes=4) == 0
    record = calibration.load(tmp_path / "cal").record
    assert record.figures.max_fd_mm is None
    assert "motion is not corrected" in (tmp_path / "cal" / "quality.html").read_text()


def test_a_voxel_without_a_value_beside_the_region_does_not_stop_it(place, tmp_path) -> None:
    slab = [scan_of(place, np.eye(4), n)[:, :, 20:22].astype(np.float32) for n in range(4)]
    region = slab[0] > 800
    region_voxels = np.argwhere(region)
    lost = tuple(region_voxels[len(region_voxels) // 2])
    region[lost] = False
    slab[2][lost] = np.nan
    folder = written(tmp_path / "scan", slab, place.affine)
    nib.Nifti1Image(region.astype(np.uint8), place.affine).to_filename(tmp_path / "m.nii")
    assert command.run(folder, tmp_path / "m.nii", tmp_path / "cal", volumes=4) == 0
    assert calibration.load(tmp_path / "cal").record.volumes == 4


def test_waits_for_a_run_and_takes_the_first_volumes_of_it(still, mask, tmp_path, monkeypatch) -> None:
    folder = tmp_path / "scan"
    waits = threading.Event()
    poll = FolderSource.poll

    def polled(source: FolderSource, now_at: float) -> list:
        waits.set()
        return poll(source, now_at)

    monkeypatch.setattr(FolderSource, "poll", polled)

    def scan() -> None:
        assert waits.wait(120)
        folder.mkdir()
        for file in sorted(still.iterdir()):
            shutil.copyfile(file, folder / f".{file.name}")
            (folder / f".{file.name}").rename(folder / file.name)
            time.sleep(0.05)

    thread = threading.Thread(target=scan)
    thread.start()
    assert command.run(folder, mask, tmp_path / "cal", volumes=2, existing="ignore", wait=120) == 0
    thread.join()
    assert calibration.load(tmp_path / "cal").record.volumes == 2


def test_too_few_volumes_are_a_sentence(still, mask, tmp_path) -> None:
    folder = tmp_path / "scan"
    missing = re.compile(f"^the folder {re.escape(str(folder))} is not")
    with refused(RtDecodeError, "calibrate-volumes-timeout", wait_s=0.2, state=missing):
        command.run(folder, mask, tmp_path / "cal", wait=0.2)
    folder.mkdir()
    (folder / "notes.txt").write_text("hello")
    unreadable = re.compile(r"notes\.txt")
    with refused(RtDecodeError, "calibrate-volumes-timeout", state=unreadable):
        command.run(folder, mask, tmp_path / "cal", wait=0.2)
    shutil.copyfile(still / "v_000.nii", folder / "v_000.nii")
    with refused(RtDecodeError, "calibrate-too-few-volumes", volumes=1):
        command.run(folder, mask, tmp_path / "cal")


def test_files_and_flags_that_cannot_be_taken(still, mask, first, tmp_path) -> None:
    out = tmp_path / "cal"
    empty = tmp_path / "empty.nii"
    text = tmp_path / "text.nii"
    flat = tmp_path / "flat.nii"
    nib.Nifti1Image(np.zeros((3, 3, 3), np.uint8), np.eye(4)).to_filename(empty)
    nib.Nifti1Image(np.ones((3, 3), np.uint8), np.eye(4)).to_filename(flat)
    text.write_text("no image")
    for path, code, values in (
        (empty, "mask-empty", {}),
        (text, "mask-unreadable", {}),
        (flat, "mask-not-3d", {"shape": (3, 3)}),
        (tmp_path / "no", "mask-missing", {}),
    ):
        with refused(UsageError, code, path=path, **values):
            command.run(still, path, out)
    for flags, code, values in (
        ({"fmriprep": tmp_path, "subject": "01"}, "calibrate-fmriprep-unsupported", {}),
        ({}, "calibrate-voxels-unspecified", {}),
        ({"mask": mask, "bundle": "phantom"}, "calibrate-voxels-ambiguous", {}),
        (
            {"mask": mask, "labels": "median"},
            "calibrate-labels-unknown",
            {"labels": "median", "available": ["voxels", "mean"]},
        ),
        ({"mask": mask, "volumes": 1}, "calibrate-volumes-out-of-range", {"volumes": 1}),
        ({"mask": mask, "wait": -1.0}, "calibrate-wait-negative", {"wait_s": -1.0}),
        ({"reference": tmp_path}, "calibration-missing", {"path": tmp_path}),
    ):
        with refused(UsageError, code, **values):
            command.run(still, flags.pop("mask", None), out, **flags)
    with refused(UsageError, "fmri-dir-parent-missing"):
        command.run(tmp_path / "a" / "b", mask, out)
    with refused(UsageError, "output-folder-not-empty"):
        command.run(still, mask, first.path)
    assert not out.exists()


def test_overwriting_replaces_a_calibration_and_nothing_else(still, mask, first, tmp_path) -> None:
    scan = tmp_path / "scan"
    out = tmp_path / "cal"
    shutil.copytree(still, scan)
    with refused(
        UsageError,
        "output-folder-foreign-files",
        folder_kind="calibration",
        foreign_files=re.compile(r"v_000\.nii"),
    ):
        command.run(scan, mask, scan, overwrite=True)
    assert sorted(p.name for p in scan.iterdir()) == sorted(p.name for p in still.iterdir())
    with refused(UsageError, "output-folder-foreign-files", folder_kind="calibration"):
        command.run(tmp_path / "no-volumes-yet", mask, scan, overwrite=True, wait=0.2)
    shutil.copytree(first.path, out)
    assert command.run(scan, mask, out, volumes=2, overwrite=True) == 0
    assert calibration.load(out).record.volumes == 2


def test_nothing_of_the_files_names_is_kept(first, still, mask) -> None:
    content = b"".join(file.read_bytes() for file in first.path.iterdir())
    assert mask.name.encode() not in content
    assert str(still).encode() not in content
    assert json.loads((first.path / "calibration.json").read_text())["origin"] == "mask"
