"""EEG files are read in microvolts by the unit that they state, whatever program wrote it."""

from pathlib import Path

import numpy as np
import pytest

from rtdecode.eeg.file_units import microvolts_of
from rtdecode.errors import UsageError
from tests.refusals import refused
from tests.train.data.layouts.test_bids_eeg import brainvision, eeglab
from train.data.layouts.bids_eeg import eeg_montage, eeg_windows

mne = pytest.importorskip("mne")

NAMES = ["Fz", "Cz", "Pz", "Oz", "C3"]
SFREQ = 250
SECONDS = 8
# Microvolts, multiples of a thousandth.
DATA = np.round(np.random.default_rng(5).normal(0, 20, (len(NAMES), SFREQ * SECONDS)), 3)
TRIGGERS = 1 + 0.8 * np.arange(8)


def of_unit(folder: Path, unit: bytes, scale: float, name: str = "sub-01_task-film_eeg.vhdr") -> Path:
    """A BrainVision file whose numbers are microvolts times a scale."""
    path = brainvision(folder / name, DATA * scale, NAMES, SFREQ, TRIGGERS)
    header = path.read_bytes()
    path.write_bytes(header.replace(",,1,µV".encode(), b",,1," + unit if unit else b",,1"))
    return path


def edf(
    path: Path, unit: bytes, scale: float, names=NAMES, data=DATA, triggers=TRIGGERS, sfreq: int = SFREQ
) -> Path:
    """Write an EDF+ or BDF+ with its triggers among the annotations, and values that are microvolts times a
    scale."""
    width, begin = (3, b"\xffBIOSEMI") if path.suffix == ".bdf" else (2, b"0       ")
    range_limit = 2 ** (8 * width - 1)
    data = data[: len(names)]
    seconds = data.shape[1] // sfreq
    limit = max(200.0, float(np.ceil(np.abs(data).max()))) * scale
    texts = b"+0\x14\x14\x00" + b"".join(b"+%g\x14R128\x14\x00" % offset for offset in triggers)
    room = -(-len(texts) // width)
    count = len(names) + 1
    labels = [*names, "BDF Annotations" if width == 3 else "EDF Annotations"]

    def field(values, size: int) -> bytes:
        return b"".join((v if isinstance(v, bytes) else str(v).encode()).ljust(size) for v in values)

    head = begin + b" " * 160 + b"01.01.2601.01.01" + field([256 * (count + 1)], 8)
    head += field([b"BDF+C" if width == 3 else b"EDF+C"], 44) + field([1, seconds, count], 8)[:16]
    head += field([count], 4) + field(labels, 16) + field([b""] * count, 80)
    head += field([unit] * len(names) + [b""], 8)
    head += field([f"{-limit:.8g}"] * len(names) + [-1], 8) + field([f"{limit:.8g}"] * len(names) + [1], 8)
    head += field([-range_limit] * count, 8) + field([range_limit - 1] * count, 8)
    head += field([b""] * count, 80) + field([data.shape[1]] * len(names) + [room], 8) + b" " * 32 * count
    # The lowest number stands for -limit, and the highest one for limit.
    stored = np.rint((data * scale + limit) / (2 * limit) * (2 * range_limit - 1) - range_limit).astype("<i4")
    values = stored.reshape(-1, 1).view(np.uint8)[:, :width].tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(head + values + texts.ljust(room * width, b"\x00"))
    return path


def read(path: Path) -> np.ndarray:
    raw = mne.io.read_raw(path, verbose="error")
    return raw.get_data() * microvolts_of(path, raw, eeg_montage(path).kinds)[:, None]


UNITS = [
    ("µV".encode(), 1),
    ("μV".encode(), 1),
    ("µV".encode("latin-1"), 1),
    (b"uV", 1),
    (b"UV", 1),
    (b"mV", 1e-3),
    (b"V", 1e-6),
    (b"nV", 1e3),
    (b"microvolt", 1),
]


@pytest.mark.parametrize(("unit", "scale"), UNITS)
def test_brainvisions_numbers_are_what_their_unit_says(tmp_path: Path, unit: bytes, scale: float) -> None:
    np.testing.assert_allclose(read(of_unit(tmp_path, unit, scale)), DATA, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("ending", ["edf", "bdf"])
@pytest.mark.parametrize(
    ("unit", "scale"), [unit_scale for unit_scale in UNITS if len(unit_scale[0]) < 9] + [(b"\x83\xcaV", 1)]
)
def test_edfs_numbers_are_what_their_unit_says(
    tmp_path: Path, ending: str, unit: bytes, scale: float
) -> None:
    np.testing.assert_allclose(read(edf(tmp_path / f"eeg.{ending}", unit, scale)), DATA, atol=0.01)


def test_a_file_without_a_unit_is_in_what_its_format_says(tmp_path: Path) -> None:
    np.testing.assert_allclose(read(of_unit(tmp_path, b"", 1)), DATA, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(
        read(eeglab(tmp_path / "eeg.set", DATA, NAMES, SFREQ, TRIGGERS)), DATA, atol=1e-3
    )


@pytest.mark.parametrize("unit", [b"", b"n/a"])
def test_a_table_of_channels_has_the_unit_that_an_edf_lacks(tmp_path: Path, unit: bytes) -> None:
    path = edf(tmp_path / "sub-01_task-film_eeg.edf", unit, 1e-3)
    lacking = [f"{name} in no unit" for name in NAMES]
    with refused(UsageError, "eeg-unit-unknown", path=path, channels=lacking):
        read(path)
    rows = "".join(f"{name}\tEEG\tmV\n" for name in NAMES)
    (tmp_path / "sub-01_task-film_channels.tsv").write_text("name\ttype\tunits\n" + rows)
    np.testing.assert_allclose(read(path), DATA, atol=0.01)


def test_an_unknown_unit_is_refused_for_eeg_alone(tmp_path: Path) -> None:
    names = [*NAMES[:4], "RESP"]
    path = edf(tmp_path / "eeg.edf", b"uV", 1, names)
    header = path.read_bytes()
    offset = 256 + 96 * (len(names) + 1)
    units = header[offset : offset + 8 * len(names)]
    path.write_bytes(header.replace(units, units[:-8] + b"ARU     "))
    np.testing.assert_allclose(read(path)[:4], DATA[:4], atol=0.01)
    path.write_bytes(header.replace(units, b"pV      " + units[8:]))
    with refused(UsageError, "eeg-unit-unknown", path=path, channels=["Fz in pV"]):
        read(path)


def test_windows_are_alike_in_all_units_and_formats(tmp_path: Path) -> None:
    def windows(path: Path) -> np.ndarray:
        return eeg_windows(path, NAMES, np.array([2.0]), 2.0, 0.8)

    plain = windows(of_unit(tmp_path / "plain", "µV".encode(), 1))
    assert plain.std() > 3
    for name, path in {
        "greek": of_unit(tmp_path / "greek", "μV".encode(), 1),
        "volts": of_unit(tmp_path / "volts", b"V", 1e-6),
        "edf": edf(tmp_path / "eeg.edf", "μV".encode(), 1),
        "bdf": edf(tmp_path / "eeg.bdf", b"nV", 1e3),
    }.items():
        np.testing.assert_allclose(windows(path), plain, atol=0.05, err_msg=name)
