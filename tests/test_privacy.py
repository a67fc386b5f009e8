"""Nothing that is written names anybody: all that a session left is searched for names in its sources.

What a header says of the participant leaves no parser, to the terminal neither. Names of files, folders and
streams the terminal may say, as the operator has to find them; no file may.
"""

import gzip
import io
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from datetime import datetime, timedelta
from fractions import Fraction
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from pydicom.dataelem import RawDataElement
from pydicom.tag import BaseTag

from rtdecode import bundle as bundles
from rtdecode.bundle import Bundle
from rtdecode.disk.recording import Recording
from rtdecode.phantom.body import scanner
from rtdecode.phantom.files.classic import slice_bytes
from rtdecode.phantom.files.enhanced import enhanced_bytes
from rtdecode.phantom.files.mosaic import mosaic_bytes
from rtdecode.phantom.files.nifti import nifti_bytes
from rtdecode.types import Volume
from streaming.sources.folder.source import FolderSource
from streaming.sources.formats import parrec
from tests.dicoms import written
from tests.streaming.bundles import make_bundle, make_calibration
from tests.streaming.sources.formats.test_parrec import par

NAME = "Qwyzzle^Xaverine"
BORN = "19031207"
# The name that somebody gave to files, folders and streams.
PLACE = "Zvukwen"
MARKS = [word.encode() for word in ("Qwyzzle", "QWYZZLE", "qwyzzle", "Xaverine", "XAVERINE", BORN)]
PLACES = [word.encode() for word in ("Zvukwen", "ZVUKWEN", "zvukwen")]
TR = 0.8
START = datetime(2026, 3, 2, 12)
VENDORS = ("siemens-mosaic", "siemens-enhanced", "ge", "philips", "nifti", "par-rec")
VOLUMES = 9
LIMIT_S = 240


# Too few to be aligned: so small a head could not be.
PAR_SLICES = 3
HEADER = par(volumes=VOLUMES, slices=PAR_SLICES)

pytestmark = pytest.mark.filterwarnings("ignore:Invalid value for VR:UserWarning")


def marked(data: bytes) -> bytes:
    """A DICOM file in which the participant is named wherever a scanner or an operator may have put it."""
    ds = pydicom.dcmread(io.BytesIO(data))
    ds.PatientName = NAME
    ds.PatientID = f"{NAME}-7"
    ds.PatientBirthDate = BORN
    ds.OtherPatientIDs = f"{NAME}-8"
    ds.OtherPatientNames = NAME
    ds.ReferringPhysicianName = ds.OperatorsName = ds.PatientComments = ds.AccessionNumber = NAME
    ds.PerformedProcedureStepDescription = ds.RequestingPhysician = ds.DeviceSerialNumber = NAME
    ds.ImageComments = ds.StudyDescription = ds.SeriesDescription = ds.ProtocolName = f"{NAME} rest"
    ds.InstitutionName = ds.InstitutionAddress = ds.InstitutionalDepartmentName = ds.StationName = NAME
    ds.StudyInstanceUID = ds.FrameOfReferenceUID = f"1.3.6.1.4.1.{BORN}.1"
    ds.add_new(0x00090010, "LO", f"{NAME} PRIVATE")
    ds.add_new(0x00091001, "PN", NAME)
    ds.add_new(0x00091002, "LO", BORN)
    return written(ds)


def damaged(data: bytes) -> list[bytes]:
    """Files that go wrong where an error might quote what it read."""
    broken = []
    for tag, vr in ((0x00180080, "DS"), (0x00200013, "IS"), (0x00080032, "TM"), (0x00200011, "IS")):
        ds = pydicom.dcmread(io.BytesIO(data))
        ds[BaseTag(tag)] = RawDataElement(BaseTag(tag), vr, 16, NAME.encode(), 0, False, True)
        broken.append(written(ds))
    ds = pydicom.dcmread(io.BytesIO(data))
    ds.ImageType = ["DERIVED", "SECONDARY", NAME, "OTHER"]
    return [*broken, written(ds), data[: len(data) // 2], data[:700]]


def head() -> tuple[np.ndarray, np.ndarray]:
    """The phantom's head on a grid of half as many voxels along each axis, and its affine."""
    anatomy = scanner.head(1)
    return anatomy.mean[::2, ::2, ::2], anatomy.affine @ np.diag([2.0, 2.0, 2.0, 1.0])


def volume_files(vendor: str, index: int) -> list[bytes]:
    rng = np.random.default_rng(index)
    image, affine = head()
    volume = np.abs(image + 6 * rng.standard_normal(image.shape)).astype(np.int16)
    acquired = START + timedelta(seconds=index * TR)
    series = 4 + VENDORS.index(vendor)
    uid = f"1.3.6.1.4.1.{BORN}.{series}"
    if vendor == "siemens-mosaic":
        return [marked(mosaic_bytes(volume, affine, TR, index, series, acquired, 1.6, uid))]
    if vendor == "siemens-enhanced":
        return [marked(enhanced_bytes(volume, affine, TR, index, series, acquired, 1.6, uid))]
    if vendor == "nifti":
        raw = bytearray(nifti_bytes(volume, affine, TR))
        raw[148 : 148 + 60] = f"{NAME} {BORN} {NAME.upper()}".encode().ljust(60, b"\0")
        raw[14 : 14 + 16] = NAME.encode()
        raw[228 : 228 + 16] = raw[328 : 328 + 16] = NAME.encode()
        return [bytes(raw)]
    if vendor == "par-rec":
        header = HEADER.replace(b"Nobody^At^All", NAME.encode()).replace(b"Protocol name   ", NAME.encode())
        return [header, par_rec_data()] if index == 0 else []
    return [marked(data) for data in slice_bytes(vendor, volume, affine, TR, index, series, acquired, uid)]


def deliver(folder: Path, vendor: str) -> None:
    """Put a run into a folder, in a subfolder and under names that say whose it is; and what is no volume."""
    inner = folder / f"{PLACE} study"
    inner.mkdir(parents=True)
    for index in range(VOLUMES):
        for k, data in enumerate(volume_files(vendor, index)):
            (inner / file_name(vendor, index, k)).write_bytes(data)
    if vendor not in ("nifti", "par-rec"):
        for k, bad in enumerate(damaged(volume_files(vendor, 0)[0])):
            (inner / f"{PLACE}_bad{k}.dcm").write_bytes(bad)
    (inner / f"{PLACE}.nii").write_bytes(b"no volume at all")
    assert any(mark in file.read_bytes() for file in inner.iterdir() for mark in MARKS[:1])


def file_name(vendor: str, index: int, k: int) -> str:
    if vendor == "nifti":
        return f"{PLACE}_{index:05d}.nii"
    if vendor == "par-rec":
        return f"{PLACE}{('.par', '.rec')[k]}"
    return f"{PLACE}_{index:05d}_{k:03d}.dcm"


def contents(root: Path) -> Iterator[tuple[str, bytes]]:
    """Every file below a folder, and what archives and compressed files unpack to."""
    for file in sorted(path for path in root.rglob("*") if path.is_file()):
        raw = file.read_bytes()
        yield str(file), raw
        if raw[:2] == b"\x1f\x8b":
            yield f"{file} unpacked", gzip.decompress(raw)
        if zipfile.is_zipfile(io.BytesIO(raw)):
            with zipfile.ZipFile(io.BytesIO(raw)) as archive:
                for member in archive.namelist():
                    yield f"{file}/{member}", archive.read(member)


def found_in(data: bytes, marks: list[bytes] = MARKS) -> list[bytes]:
    """Marks in some bytes, as text of one, two or four bytes a character."""
    wide = [mark.decode().encode(code) for mark in marks for code in ("utf-16-le", "utf-32-le")]
    return [mark for mark in (*marks, *wide) if mark in data]


def leaks(root: Path) -> dict[str, list[bytes]]:
    """Names of the participant and of places below a folder, in files and in what they are called."""
    marks = [*MARKS, *PLACES]
    searched = {name.removeprefix(str(root)): data for name, data in contents(root)}
    marks_by_file = {name: found_in(name.encode() + data, marks) for name, data in searched.items()}
    return {name: those for name, those in marks_by_file.items() if those}


def rtdecode(*words: object) -> tuple[int, bytes]:
    command = [sys.executable, "-m", "rtdecode.cli", *map(str, words)]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=LIMIT_S, check=False
    )
    return done.returncode, done.stdout


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    image, affine = head()
    folder = tmp_path_factory.mktemp("bundle") / "b"
    make_bundle(folder, eeg=False, shape=image.shape, affine=affine, tr=Fraction(4, 5), window=Fraction(8, 5))
    return folder


def mask(folder: Path, volume: Volume) -> Path:
    """A region of a volume's brightest voxels."""
    data = (volume.data > np.percentile(volume.data, 90)).astype(np.uint8)
    nib.Nifti1Image(data, volume.affine).to_filename(folder / "mask.nii")
    return folder / "mask.nii"


def par_rec_data() -> bytes:
    """A small bright head that does not move, with noise: (volume, slice, row, column)."""
    rng = np.random.default_rng(0)
    slices, rows, columns = np.indices((PAR_SLICES, 5, 6))
    away = (slices - 1) ** 2 + (rows - 2) ** 2 + (columns - 2.5) ** 2
    volume = 3000 * np.exp(-away / 4)
    noise = rng.normal(0, 5, (VOLUMES, *volume.shape))
    return np.clip(volume + noise, 1, 4095).astype("<u2").tobytes()


def par_rec_bundle(folder: Path) -> Bundle:
    """Make a bundle that reads the PAR/REC run."""
    read = parrec.read_par(HEADER)
    data = par_rec_data()
    image = parrec.read_volume(read, "x.par", 0, lambda offset, size: data[offset : offset + size])
    return make_bundle(
        folder, eeg=False, shape=image.data.shape, affine=image.affine, tr=Fraction(2), window=Fraction(4)
    )


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "vendor", [VENDORS[0], *(pytest.param(v, marks=pytest.mark.full) for v in VENDORS[1:])]
)
def test_nothing_that_a_session_wrote_or_printed_names_the_participant(
    tmp_path: Path, bundle: Path, vendor: str
) -> None:
    folder = tmp_path / PLACE / "scanner"
    outputs = tmp_path / "left"
    deliver(folder, vendor)
    outputs.mkdir()
    used = par_rec_bundle(tmp_path / "par-rec") if vendor == "par-rec" else bundles.load(str(bundle))
    assert used.projection is not None
    # Random voxels of a random bundle: they are read where they lie, as the reference is the first volume.
    (first, *_) = FolderSource(folder, "read").drain()
    earlier = make_calibration(tmp_path / PLACE / "calibration", used, first.data)
    printed = {
        "stream": rtdecode(
            *("stream", "--fmri-dir", folder, "--bundle", used.path, "--existing", "read"),
            *("--lost-after", "2", "--calibration", earlier.path),
            *("--out", outputs / "out", "--record", outputs / "recording", "--wait", "100"),
        ),
        "calibrate": rtdecode(
            *("calibrate", "--fmri-dir", folder, "--mask", mask(tmp_path, first), "--volumes", VOLUMES - 1),
            *("--out", outputs / "calibration", "--wait", "30"),
        ),
        "replay": rtdecode(
            *("replay", outputs / "recording", "--bundle", used.path, "--speed", "max"),
            *("--out", outputs / "replayed"),
        ),
        "volumes": rtdecode("volumes", folder, "--once", "--json", "--nifti", outputs / "nifti"),
        "table": rtdecode("volumes", folder, "--once"),
    }
    codes = {name: code for name, (code, _) in printed.items()}
    assert codes == {"stream": 3, "calibrate": 0, "replay": 0, "volumes": 0, "table": 0}, printed
    for name, (_, text) in printed.items():
        assert not found_in(text), f"{name} printed {text.decode(errors='replace')}"
    searched = dict(contents(outputs))
    assert len([name for name in searched if name.endswith(".nii")]) == VOLUMES
    ends = {"report.json", "clips.jsonl", "events.jsonl", "quality.html", ".mp4", ".png", ".npy"}
    ends |= {"recording/calibration/calibration.json", "warmup.npz/mean.npy"}
    assert {end for end in ends if any(name.endswith(end) for name in searched)} == ends
    assert not leaks(outputs)
    volumes = [item for item in Recording(outputs / "recording").events() if isinstance(item, Volume)]
    assert sorted(volume.name for volume in volumes) == [f"volume {index}" for index in range(VOLUMES)]
    assert len({volume.uid for volume in volumes}) == 1


# What is said of files of every vendor is searched above; the reader's own part of it in `test_damage.py`.
@pytest.mark.full
def test_nor_does_what_is_said_of_real_series(tmp_path: Path, data_root: Path) -> None:
    folder = tmp_path / "scanner"
    outputs = tmp_path / "left"
    for file in sorted((data_root / "scanner").rglob("*")):
        if file.is_file() and file.suffix != ".xdf":
            put(file, folder / file.relative_to(data_root / "scanner"))
    code, text = rtdecode("volumes", folder, "--once", "--json", "--nifti", outputs)
    assert code == 0
    assert text.count(b'"complete": true') > 50
    assert not found_in(text)
    assert not leaks(outputs)


def put(file: Path, target: Path) -> None:
    """Copy a file with the marks in it; a volume of a PAR/REC pair has a line for the name."""
    raw = file.read_bytes()
    plain = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" and ".nii" not in file.name else raw
    if plain[128:132] == b"DICM":
        raw = marked_raw(plain)
    elif file.suffix.lower() == ".par":
        lines = [
            f".    Patient name                       :   {NAME}" if "Patient name" in line else line
            for line in plain.decode("latin-1").splitlines()
        ]
        raw = "\r\n".join(lines).encode("latin-1")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(raw)


def marked_raw(plain: bytes) -> bytes:
    """The file with the marks, all other elements as they were."""
    ds = pydicom.dcmread(io.BytesIO(plain))
    ds.PatientName = NAME
    ds.PatientID = f"{NAME}-7"
    ds.PatientBirthDate = BORN
    ds.OtherPatientIDs = f"{NAME}-8"
    return written(ds)
