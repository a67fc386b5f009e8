"""No name, number or birth date of a participant leaves the parser: all that a session wrote is searched."""

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

from rtdecode.phantom import scanner
from rtdecode.phantom.classic import slice_bytes
from rtdecode.phantom.enhanced import enhanced_bytes
from rtdecode.phantom.mosaic import mosaic_bytes
from rtdecode.phantom.nifti import nifti_bytes
from tests.dicoms import written
from tests.streaming.bundles import make_bundle

NAME, BORN = "Qwyzzle^Xaverine", "19031207"
MARKS = [word.encode() for word in ("Qwyzzle", "QWYZZLE", "qwyzzle", "Xaverine", "XAVERINE", BORN)]
TR = 0.8
START = datetime(2026, 3, 2, 12)
VENDORS = ("siemens-mosaic", "siemens-enhanced", "ge", "philips", "nifti")
VOLUMES = 9


pytestmark = pytest.mark.filterwarnings("ignore:Invalid value for VR:UserWarning")


def marked(data: bytes) -> bytes:
    """A DICOM file in which the participant is named wherever a scanner or an operator may have put it."""
    ds = pydicom.dcmread(io.BytesIO(data))
    ds.PatientName, ds.PatientID, ds.PatientBirthDate = NAME, f"{NAME}-7", BORN
    ds.OtherPatientIDs, ds.OtherPatientNames = f"{NAME}-8", NAME
    ds.ReferringPhysicianName = ds.OperatorsName = ds.PatientComments = ds.AccessionNumber = NAME
    ds.PerformedProcedureStepDescription = ds.RequestingPhysician = ds.DeviceSerialNumber = NAME
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
    whole = scanner.head(1)
    return whole.mean[::2, ::2, ::2], whole.affine @ np.diag([2.0, 2.0, 2.0, 1.0])


def volume_files(vendor: str, index: int) -> list[bytes]:
    rng = np.random.default_rng(index)
    image, affine = head()
    volume = np.abs(image + 6 * rng.standard_normal(image.shape)).astype(np.int16)
    at, series = START + timedelta(seconds=index * TR), 4 + VENDORS.index(vendor)
    uid = f"1.2.3.{series}"
    if vendor == "siemens-mosaic":
        return [marked(mosaic_bytes(volume, affine, TR, index, series, at, 1.6, uid))]
    if vendor == "siemens-enhanced":
        return [marked(enhanced_bytes(volume, affine, TR, index, series, at, 1.6, uid))]
    if vendor == "nifti":
        raw = bytearray(nifti_bytes(volume, affine, TR))
        raw[148 : 148 + 60] = f"{NAME} {BORN} {NAME.upper()}".encode().ljust(60, b"\0")
        raw[14 : 14 + 16] = NAME.encode()
        raw[228 : 228 + 16] = raw[328 : 328 + 16] = NAME.encode()
        return [bytes(raw)]
    return [marked(data) for data in slice_bytes(vendor, volume, affine, TR, index, series, at, uid)]


def deliver(folder: Path, vendor: str) -> None:
    folder.mkdir()
    for index in range(VOLUMES):
        for k, data in enumerate(volume_files(vendor, index)):
            name = f"vol_{index:05d}.nii" if vendor == "nifti" else f"{index:05d}_{k:03d}.dcm"
            (folder / name).write_bytes(data)
    if vendor != "nifti":
        for k, bad in enumerate(damaged(volume_files(vendor, 0)[0])):
            (folder / f"bad{k}.dcm").write_bytes(bad)
    assert any(mark in file.read_bytes() for file in folder.iterdir() for mark in MARKS[:1])


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


def found_in(data: bytes) -> list[bytes]:
    """Marks in some bytes, as text of one or two bytes a character."""
    wide = [mark.decode().encode(code) for mark in MARKS for code in ("utf-16-le", "utf-32-le")]
    return [mark for mark in (*MARKS, *wide) if mark in data]


def rtdecode(*words: object) -> tuple[int, bytes]:
    command = [sys.executable, "-m", "rtdecode.cli", *map(str, words)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300, check=False)
    return done.returncode, done.stdout


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    image, affine = head()
    folder = tmp_path_factory.mktemp("bundle") / "b"
    make_bundle(folder, eeg=False, shape=image.shape, affine=affine, tr=Fraction(4, 5), window=Fraction(8, 5))
    return folder


def mask(folder: Path) -> Path:
    image, affine = head()
    data = (image > np.percentile(image, 90)).astype(np.uint8)
    nib.Nifti1Image(data, affine).to_filename(folder / "mask.nii")
    return folder / "mask.nii"


@pytest.mark.parametrize(
    "vendor", [VENDORS[0], *(pytest.param(v, marks=pytest.mark.full) for v in VENDORS[1:])]
)
def test_nothing_that_a_session_wrote_or_printed_names_the_participant(
    tmp_path: Path, bundle: Path, vendor: str
) -> None:
    folder, left = tmp_path / "scanner", tmp_path / "left"
    deliver(folder, vendor)
    left.mkdir()
    said = {
        "stream": rtdecode(
            *("stream", "--fmri-dir", folder, "--bundle", bundle, "--existing", "read", "--lost-after", "4"),
            *("--out", left / "out", "--record", left / "recording", "--wait", "100"),
        ),
        "calibrate": rtdecode(
            *("calibrate", "--fmri-dir", folder, "--mask", mask(tmp_path), "--out", left / "calibration"),
            *("--volumes", VOLUMES - 1, "--wait", "30"),
        ),
        "replay": rtdecode(
            *("replay", left / "recording", "--bundle", bundle, "--speed", "max", "--out", left / "replayed")
        ),
        "volumes": rtdecode("volumes", folder, "--once", "--json", "--nifti", left / "nifti"),
        "table": rtdecode("volumes", folder, "--once"),
    }
    codes = {name: code for name, (code, _) in said.items()}
    assert codes == {"stream": 3, "calibrate": 0, "replay": 0, "volumes": 0, "table": 0}, said
    for name, (_, text) in said.items():
        assert not found_in(text), f"{name} printed {text.decode(errors='replace')}"
    searched = dict(contents(left))
    assert len([name for name in searched if name.endswith(".nii")]) == VOLUMES
    ends = {"report.json", "clips.jsonl", "events.jsonl", "quality.html", ".mp4", ".png", ".npy"}
    assert {end for end in ends if any(name.endswith(end) for name in searched)} == ends
    leaks = {name: found for name, data in searched.items() if (found := found_in(data))}
    assert not leaks


def test_nor_does_what_is_said_of_real_series(tmp_path: Path, data_root: Path) -> None:
    folder, left = tmp_path / "scanner", tmp_path / "left"
    for file in sorted((data_root / "scanner").rglob("*")):
        if file.is_file() and file.suffix != ".xdf":
            put(file, folder / file.relative_to(data_root / "scanner"))
    code, text = rtdecode("volumes", folder, "--once", "--json", "--nifti", left)
    assert code == 0
    assert text.count(b'"complete": true') > 50
    assert not found_in(text)
    assert not {name: found for name, data in contents(left) if (found := found_in(data))}


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
    ds.PatientName, ds.PatientID, ds.PatientBirthDate = NAME, f"{NAME}-7", BORN
    ds.OtherPatientIDs = f"{NAME}-8"
    return written(ds)
