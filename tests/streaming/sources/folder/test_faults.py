"""What goes wrong in a folder: nothing is lost unseen, taken twice, or taken for a volume."""

import gzip
import os
import shutil
import socket
import time
from datetime import datetime, timedelta
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from rtdecode.phantom.files.mosaic import mosaic_bytes
from streaming.sources.folder.source import FolderSource
from tests.dicoms import enhanced, written
from tests.streaming.sources.polling import polled, polled_until

START = datetime(2026, 3, 1, 12)
AFFINE = np.diag([3.0, 3.0, 3.0, 1.0])
CUTS = (0.02, 0.3, 0.5, 0.9, 0.999)


def volume_of(index: int) -> np.ndarray:
    return np.random.default_rng(index).integers(1, 4000, (16, 16, 9)).astype(np.int16)


def dicom(index: int, uid="1.2.3") -> bytes:
    acquired = START + timedelta(seconds=0.8 * index)
    return mosaic_bytes(volume_of(index), AFFINE, 0.8, index, 7, acquired, 1.65, uid)


def drained(source: FolderSource) -> list:
    drained_volumes = []
    while volumes := source.drain():
        drained_volumes += volumes
    return drained_volumes


@pytest.mark.parametrize("existing", [False, True])
def test_a_share_that_is_mounted_anew_gives_the_same_files_once(tmp_path, existing):
    folder = tmp_path / "in"
    copy = tmp_path / "copy"
    folder.mkdir()
    for n in range(12):
        (folder / f"{n}.dcm").write_bytes(dicom(n))
    (folder / "bold.nii").write_bytes(nib.Nifti1Image(volume_of(0), AFFINE).to_bytes())
    source = FolderSource(folder, existing="ignore" if existing else "read", bound=False)
    if existing:
        assert polled(source, 0.3) == []
    else:
        assert len(polled_until(source, lambda volumes: len(volumes) >= 13)) == 13
    shutil.copytree(folder, copy, copy_function=shutil.copyfile)
    shutil.rmtree(folder)
    assert polled(source, 0.05) == []
    assert (source.missing, source.counters()["vanished"]) == (True, 1)
    (copy / "12.dcm").write_bytes(dicom(12))
    copy.rename(folder)
    assert [volume.index for volume in polled(source, 1.0)] == [12]
    assert not source.missing
    assert source.counters()["duplicate"] == 0
    assert source.ignored == []


def test_a_new_file_does_not_wait_behind_a_mounted_share(tmp_path):
    folder = tmp_path / "in"
    copy = tmp_path / "copy"
    folder.mkdir()
    for n in range(150):
        (folder / f"{n}.dcm").write_bytes(dicom(n))
    source = FolderSource(folder, existing="read")
    assert len(polled_until(source, lambda volumes: len(volumes) >= 150)) == 150
    shutil.copytree(folder, copy, copy_function=shutil.copyfile)
    folder.rename(tmp_path / "away")
    copy.rename(folder)
    source.poll(time.monotonic())
    (folder / "150.dcm").write_bytes(dicom(150))
    assert [volume.index for volume in source.poll(time.monotonic())] == [150]
    assert polled(source, 1.5) == []
    assert source.counters()["duplicate"] == 0


@pytest.mark.parametrize("first", [0, 3])
def test_a_file_that_is_given_its_size_first_is_taken_when_it_is_filled(tmp_path, first):
    source = FolderSource(tmp_path)
    # By a clock of its own: a half file is judged by how long ago it changed.
    now = time.monotonic()
    volumes = []
    for n in range(first):
        (tmp_path / f"{n}.dcm").write_bytes(dicom(n))
        now += 0.1
        volumes += source.poll(now)
    data = dicom(first)
    with (tmp_path / "last.dcm").open("wb", buffering=0) as file:
        file.truncate(len(data))
        for part in np.array_split(np.frombuffer(data, np.uint8), 9):
            now += 0.03
            assert source.poll(now) == []
            file.write(part.tobytes())
        for _ in range(4):
            now += 0.1
            volumes += source.poll(now)
    assert [volume.index for volume in volumes] == list(range(first + 1))
    np.testing.assert_array_equal(volumes[-1].data, volume_of(first))


def rescaled(slope: float, intercept: float, ending: str) -> bytes:
    """A volume whose stored int16 values are rescaled to float32 when they are read."""
    if ending == ".nii":
        image = nib.Nifti1Image(volume_of(0), AFFINE)
        image.header.set_slope_inter(slope, intercept)
        image.header["vox_offset"] = 352
        return image.header.binaryblock + bytes(4) + volume_of(0).tobytes(order="F")
    ds = enhanced(volume_of(0)[None], AFFINE)
    shared = ds.SharedFunctionalGroupsSequence[0]
    shared.PixelValueTransformationSequence[0].RescaleSlope = slope
    shared.PixelValueTransformationSequence[0].RescaleIntercept = intercept
    return written(ds)


@pytest.mark.parametrize("ending", [".dcm", ".nii"])
@pytest.mark.parametrize("intercept", [0.0, -100.0])
def test_a_file_of_zeros_is_no_volume_when_its_values_are_rescaled(tmp_path, ending, intercept):
    data = rescaled(2.0, intercept, ending)
    pixels = volume_of(0).nbytes
    source = FolderSource(tmp_path)
    now = time.monotonic()
    path = tmp_path / f"vol_0{ending}"
    path.write_bytes(data[:-pixels] + bytes(pixels))
    assert source.poll(now) == []
    # A first volume that ends in zeros is accepted after 0.25 s, unless it is nothing but zeros.
    assert source.poll(now + 0.5) == []
    path.write_bytes(data)
    (volume,) = source.poll(now + 1.0)
    np.testing.assert_array_equal(volume.data, 2.0 * volume_of(0) + intercept)
    assert source.counters()["duplicate"] == 0


def test_a_copy_that_stops_in_the_middle_is_no_volume(tmp_path):
    source = FolderSource(tmp_path)
    data = [dicom(n) for n in range(3)]
    (tmp_path / "0.dcm").write_bytes(data[0])
    assert len(polled(source, 0.3)) == 1
    (tmp_path / "1.dcm").write_bytes(data[1][:7000] + bytes(len(data[1]) - 7000))
    (tmp_path / "2.dcm").write_bytes(data[2])
    assert [volume.index for volume in polled(source, 0.6)] == [2]
    assert "zero bytes" in source.waiting[0][1]
    assert polled(source, 1.0) == []
    ((name, reason),) = source.ignored
    assert name == "1.dcm"
    assert "others of its series" in reason
    counts = source.counters()
    assert (counts["missing"], counts["rejected_files"]) == (1, 1)


def test_what_comes_after_its_deadline_is_late_and_counts(tmp_path):
    source = FolderSource(tmp_path)
    for n in (0, 2):
        (tmp_path / f"{n}.dcm").write_bytes(dicom(n))
    volumes = polled(source, 0.1)
    assert len(volumes) == 2
    assert source.lost(volumes[-1].arrived_at) == []
    half = dicom(4)
    (tmp_path / "4.dcm").write_bytes(half[:-9])
    assert polled(source, 1.3, live=True) == []
    ((run, index, slices),) = source.lost(time.monotonic())
    assert (run.label, index, slices) == ("7", 1, 9)
    assert source.lost(time.monotonic()) == []
    assert source.counters()["rejected_files"] == 1
    (tmp_path / "1.dcm").write_bytes(dicom(1))
    with (tmp_path / "4.dcm").open("ab") as file:
        file.write(half[-9:])
    assert [volume.index for volume in polled(source, 0.3)] == [1, 4]
    counts = source.counters()
    assert (counts["late"], counts["missing"], counts["rejected_files"]) == (2, 1, 0)
    (tmp_path / "3.dcm").write_bytes(dicom(3))
    polled(source, 0.1)
    assert (source.counters()["late"], source.counters()["missing"]) == (2, 0)


def test_what_is_no_file_or_may_not_be_read_ends_nothing(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    os.mkfifo(folder / "pipe.dcm")
    (folder / "dangling.dcm").symlink_to(folder / "nowhere")
    (folder / "secret.dcm").write_bytes(dicom(3))
    (folder / "secret.dcm").chmod(0)
    (folder / "folder.dcm").mkdir()
    odd = os.fsdecode(os.fsencode(folder) + b"/\xff\n.dcm")
    Path(odd).write_bytes(dicom(0))
    for part in [*tmp_path.parents, tmp_path, folder]:
        if part.stat().st_uid == os.geteuid() and part.stat().st_mode & 0o5 != 0o5:
            part.chmod(0o755)
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(folder / "socket"))
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)
        try:
            source = FolderSource(folder, existing="read")
            (volume,) = drained(source)
        finally:
            os.seteuid(user)
    assert volume.name == "\\xff\\n.dcm"
    assert source.ignored == [("secret.dcm", "Permission denied")]


def test_nothing_is_written_into_the_folder(tmp_path, monkeypatch):
    (tmp_path / "0.dcm").write_bytes(dicom(0))
    (tmp_path / "half.dcm").write_bytes(dicom(1)[:-10])
    (tmp_path / "sub").mkdir()
    opened = []
    real = os.open

    def watched(path, flags, *args, **options):
        opened.append(flags)
        return real(path, flags, *args, **options)

    monkeypatch.setattr(os, "open", watched)
    before = {p: p.lstat() for p in sorted(tmp_path.rglob("*"))}
    source = FolderSource(tmp_path, existing="read")
    assert len(polled(source, 0.4)) == 1
    after = {p: p.lstat() for p in sorted(tmp_path.rglob("*"))}
    assert opened
    assert not any(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) for flags in opened)
    assert [(p, s.st_mtime_ns, s.st_ctime_ns, s.st_mode) for p, s in before.items()] == [
        (p, s.st_mtime_ns, s.st_ctime_ns, s.st_mode) for p, s in after.items()
    ]


def identity(volume) -> tuple:
    return volume.data.shape, volume.data.dtype.str, volume.data.tobytes()


def damaged(data: bytes) -> dict[str, bytes]:
    cut = {f"cut{share}": data[: int(share * len(data))] for share in CUTS}
    noise = np.random.default_rng(len(data)).integers(0, 256, len(data)).astype(np.uint8).tobytes()
    half = data[:400] + noise[400:]
    return cut | {"noise": noise, "half": half, "empty": b"", "text": b"the participant moved\n" * 99}


def try_damaged(paths: list[Path], truth: list, tmp_path: Path) -> None:
    """Mix damaged copies with one good run: it is all that comes, or what it came from is whole."""
    true_identities = {identity(volume) for volume in truth}
    written = 0
    for number, path in enumerate(paths):
        for kind, data in damaged(path.read_bytes()).items():
            (tmp_path / f"{number:04d}_{kind}_{path.name}").write_bytes(data)
            written += 1
    for n in range(3):
        (tmp_path / f"good{n}").write_bytes(dicom(n, uid="1.9.9"))
    source = FolderSource(tmp_path, existing="read", bound=False)
    volumes = drained(source)
    good = [volume for volume in volumes if volume.uid == "1.9.9"]
    assert [volume.index for volume in good] == [0, 1, 2]
    for volume in volumes:
        if volume.uid != "1.9.9" and "_half_" not in volume.name:
            assert identity(volume) in true_identities, volume.name
    names = {name for name, _ in source.ignored} | {volume.name for volume in volumes}
    assert len(names) >= written
    assert all(reason for _, reason in source.ignored)
    assert len({name for name, _ in source.ignored}) == len(source.ignored)


def files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_a_file_of_every_series_damaged_in_every_way(tmp_path, data_root):
    folders = [folder for folder in sorted((data_root / "scanner").iterdir()) if folder.is_dir()]
    paths = [files_of(folder)[0] for folder in folders]
    paths += sorted((data_root / "scanner" / "pyneal_philips_parrec").rglob("*0000.rec"))
    truth = []
    for folder in {path.parent for path in paths}:
        truth += drained(FolderSource(folder, existing="read", bound=False))
    try_damaged(paths, truth, tmp_path)


@pytest.mark.full
def test_every_file_damaged_in_every_way(tmp_path, data_root):
    truth = drained(FolderSource(data_root / "scanner", existing="read", bound=False))
    try_damaged(files_of(data_root / "scanner"), truth, tmp_path)


def test_a_gzip_bomb_takes_no_memory(tmp_path):
    header = bytearray(nib.Nifti1Image(np.zeros((4, 4, 4), np.int16), AFFINE).to_bytes()[:352])
    header[40:56] = np.array([4, 2000, 2000, 2000, 9, 1, 1, 1], "<i2").tobytes()
    (tmp_path / "bomb.nii.gz").write_bytes(gzip.compress(bytes(header) + bytes(1 << 26), 1))
    source = FolderSource(tmp_path, existing="read")
    assert drained(source) == []
    assert len(source.ignored) == 1
