import gzip
import io
import os

import nibabel as nib
import numpy as np
import pytest

from streaming.sources.folder.source import FolderSource
from streaming.sources.formats import nifti, parrec
from tests.streaming.sources.formats.test_parrec import par, rec
from tests.streaming.sources.polling import polled

AFFINE = np.diag([3.0, 3.0, 3.0, 1.0])
SHAPE = (8, 9, 5)


def run_of(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 4000, (*SHAPE, count)).astype(np.int16)


def encoded(data: np.ndarray, promised: int | None = None, tr: float = 2.0) -> bytes:
    image = nib.Nifti1Image(data, AFFINE)
    image.header.set_xyzt_units("mm", "sec")
    image.header["pixdim"][4] = tr
    raw = bytearray(image.to_bytes())
    if promised is not None:
        raw[48:50] = promised.to_bytes(2, "little")
    return bytes(raw)


def same(volumes: list, data: np.ndarray, first: int = 0) -> None:
    assert [volume.index for volume in volumes] == list(range(first, first + len(volumes)))
    for volume in volumes:
        np.testing.assert_array_equal(volume.data, data[..., volume.index])
        assert volume.tr_s == 2.0


@pytest.mark.full
@pytest.mark.parametrize("promised", [6, 9, 1], ids=["as many", "more", "not said yet"])
@pytest.mark.parametrize("name", ["bold.nii", "run_02.nii"])
def test_a_run_that_grows_in_one_file(tmp_path, promised, name):
    data = run_of(6)
    raw = encoded(data, promised)
    step = data[..., 0].nbytes
    source = FolderSource(tmp_path)
    volumes = []
    with (tmp_path / name).open("wb", buffering=0) as file:
        file.write(raw[:200])
        assert polled(source, 0.1) == []
        file.write(raw[200 : 352 + step - 1])
        assert polled(source, 0.1) == []
        for t in range(6):
            start = 352 + (t + 1) * step - 1
            file.write(raw[start : start + step])
            volumes += polled(source, 0.2)
            assert len(volumes) == t + 1
        file.seek(48)
        file.write((6).to_bytes(2, "little"))
    volumes += polled(source, 0.5)
    same(volumes, data)
    assert len({volume.uid for volume in volumes}) == 1
    assert source.counters()["duplicate"] == 0
    os.utime(tmp_path / name, (1e9, 1e9))
    assert polled(source, 0.5) == []
    assert source.ignored == []


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_a_run_that_is_written_whole_again_for_every_volume(tmp_path, ending):
    data = run_of(5)
    source = FolderSource(tmp_path)
    volumes = []
    for t in range(1, 6):
        raw = encoded(data[..., :t])
        (tmp_path / f"bold{ending}").write_bytes(gzip.compress(raw) if ending.endswith("gz") else raw)
        volumes += polled(source, 0.3)
        assert len(volumes) == t
    same(volumes, data)
    other = run_of(3, seed=1)
    raw = encoded(other)
    (tmp_path / f"bold{ending}").write_bytes(gzip.compress(raw) if ending.endswith("gz") else raw)
    again = polled(source, 0.5)
    same(again, other)
    assert again[0].uid != volumes[0].uid
    assert [run.label for run in source.runs] == ["0", "0b"]


def test_a_second_run_under_the_same_names(tmp_path):
    source = FolderSource(tmp_path)
    runs = [run_of(4, seed) for seed in (0, 1)]
    for data in runs:
        volumes = []
        for t in range(4):
            (tmp_path / f"vol_{t + 1:03d}.nii").write_bytes(encoded(data[..., t]))
            volumes += polled(source, 0.3)
        same(volumes, data)
    assert source.counters()["duplicate"] == 0
    (tmp_path / "vol_002.nii").write_bytes(encoded(runs[0][..., 0]))
    assert polled(source, 0.3) == []
    assert source.counters()["duplicate"] == 1


def test_one_file_that_is_overwritten_by_every_volume(tmp_path):
    data = run_of(4)
    source = FolderSource(tmp_path)
    volumes = []
    for t in range(4):
        (tmp_path / "current.nii").write_bytes(encoded(data[..., t]))
        volumes += polled(source, 0.2)
    same(volumes, data)
    assert len({volume.uid for volume in volumes}) == 1


@pytest.mark.parametrize("count", [1, 3])
def test_a_packed_file_in_place_of_a_plain_one_of_the_same_name(tmp_path, count):
    source = FolderSource(tmp_path)
    for seed in (0, 1):
        data = run_of(count, seed)
        raw = encoded(data if count > 1 else data[..., 0])
        (tmp_path / "current.nii").write_bytes(gzip.compress(raw) if seed else raw)
        volumes = polled(source, 0.3)
        assert len(volumes) == count
        for t, volume in enumerate(volumes):
            np.testing.assert_array_equal(volume.data, data[..., t])


@pytest.mark.parametrize("single", [False, True])
def test_each_volume_of_a_file_is_decoded_once(tmp_path, monkeypatch, single):
    decoded = []
    read = nifti.read_volume
    monkeypatch.setattr(nifti, "read_volume", lambda *args: decoded.append(args[2]) or read(*args))
    data = run_of(3)
    (tmp_path / "bold_1.nii").write_bytes(encoded(data[..., 0] if single else data))
    source = FolderSource(tmp_path, existing="read")
    assert len(polled(source, 0.1)) == len(decoded) == (1 if single else 3)


def test_a_header_that_promises_less_than_there_is_waits(tmp_path):
    (tmp_path / "x_1.nii").write_bytes(encoded(run_of(5), promised=2))
    source = FolderSource(tmp_path, existing="read")
    assert source.drain() == []
    ((name, reason),) = source.ignored
    assert name == "x_1.nii"
    assert "bytes for 5 volumes, but the header promises 2" in reason


def test_a_cut_run_gives_its_whole_volumes_and_a_word(tmp_path):
    data = run_of(20)
    (tmp_path / "bold.nii").write_bytes(encoded(data)[:-1000])
    source = FolderSource(tmp_path, existing="read")
    collected = []
    while volumes := source.drain():
        collected += volumes
    same(collected, data)
    assert len(collected) == 18
    assert source.ignored == [("bold.nii", "18 of 20 volumes so far")]


def test_a_file_that_is_given_its_size_first(tmp_path):
    data = run_of(4)
    raw = encoded(data)
    step = data[..., 0].nbytes
    source = FolderSource(tmp_path)
    volumes = []
    with (tmp_path / "bold.nii").open("w+b", buffering=0) as file:
        file.truncate(len(raw))
        assert polled(source, 0.4) == []
        for start in range(0, len(raw), step // 2):
            file.seek(start)
            file.write(raw[start : start + step // 2])
            volumes += polled(source, 0.03)
    volumes += polled(source, 0.4)
    same(volumes, data)
    assert len(volumes) == 4


@pytest.mark.parametrize("order", [("par", "rec"), ("rec", "par")])
def test_par_and_rec_in_either_order(tmp_path, order):
    source = FolderSource(tmp_path)
    volumes = []
    for n in range(3):
        contents = {
            "par": par(volumes=1, step=0.0),
            "rec": np.roll(np.frombuffer(rec(4), "<u2"), n).tobytes(),
        }
        for end in order:
            path = tmp_path / f"Dump-{n:04d}.{end}"
            path.write_bytes(contents[end][:-100])
            volumes += polled(source, 0.05)
            assert len(volumes) == n
            path.write_bytes(contents[end])
            volumes += polled(source, 0.05 if end == order[0] else 0.3)
    assert [volume.index for volume in volumes] == [0, 1, 2]
    assert len({volume.data.tobytes() for volume in volumes}) == 3
    assert (source.ignored, source.waiting) == ([], [])
    os.utime(tmp_path / "Dump-0001.rec")
    assert polled(source, 0.4) == []
    assert (source.ignored, source.counters()["duplicate"]) == ([], 0)


def test_a_rec_that_grows_beside_its_par_which_is_parsed_once(tmp_path, monkeypatch):
    (tmp_path / "scan.PAR").write_bytes(par())
    source = FolderSource(tmp_path, existing="read")
    volumes = []
    parsed = []
    read = parrec.read_par
    monkeypatch.setattr(parrec, "read_par", lambda data: parsed.append(len(data)) or read(data))
    with (tmp_path / "scan.REC").open("wb", buffering=0) as file:
        for t in range(3):
            file.write(rec(12)[t * 240 : t * 240 + 240])
            volumes += polled(source, 0.2)
            assert len(volumes) == t + 1
    assert [volume.acquired_s for volume in volumes] == [0.0, 2.0, 4.0]
    assert len(parsed) == 1
    assert (source.ignored, source.waiting) == ([], [])


def test_halves_without_the_other_are_named(tmp_path):
    (tmp_path / "a.par").write_bytes(par())
    (tmp_path / "b.rec").write_bytes(rec(12))
    source = FolderSource(tmp_path, existing="read")
    assert source.drain() == []
    reasons = dict(source.ignored)
    assert "waits for its data file a.rec" in reasons["a.par"]
    assert "no header beside it" in reasons["b.rec"]


def test_a_pair_of_nifti_files(tmp_path):
    data = run_of(3)
    pair = nib.Nifti1Pair(data, AFFINE)
    pair.header.set_xyzt_units("mm", "sec")
    pair.header["pixdim"][4] = 2.0
    header = io.BytesIO()
    image = io.BytesIO()
    pair.to_file_map({"header": nib.FileHolder(fileobj=header), "image": nib.FileHolder(fileobj=image)})
    source = FolderSource(tmp_path)
    (tmp_path / "bold.img").write_bytes(image.getvalue())
    assert polled(source, 0.1) == []
    (tmp_path / "bold.hdr").write_bytes(header.getvalue())
    same(polled(source, 0.3), data)
    assert (source.ignored, source.waiting) == ([], [])
