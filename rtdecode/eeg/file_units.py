"""What the numbers of an EEG file are in microvolts, by the unit that the file states for each channel.

MNE-Python converts what it reads to volts, and takes a unit that it does not know for volts: a Greek letter
in place of the micro sign, or a nanovolt, puts every value off by a million or more. So the unit is read
from the file once more, by what it says (`rtdecode.eeg.channels.microvolts`), and one that nobody knows is
refused.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode.disk.tsv import read_tsv
from rtdecode.eeg.channels import microvolts
from rtdecode.errors import UsageError

# What EEGLAB's files are in, which state nothing.
_EEGLAB = "microvolts"
# What BrainVision's format means where a channel states no unit.
_BRAINVISION = "µV"
# Microvolts in what MNE-Python gives.
_VOLT = 1e6
# Bytes of a field of an EDF's header, in order: label, transducer, unit.
_LABEL = 16
_TRANSDUCER = 80
_UNIT = 8
_HEADER = 256
_CHANNELS_AT = 252
# Channels of an EDF that hold texts.
_TEXTS = ("EDF Annotations", "BDF Annotations")


def microvolts_of(path: Path, raw: Any, kinds: tuple[str, ...]) -> NDArray[np.float64]:
    """Return the microvolts in one unit of what MNE-Python reads, (channel,).

    Parameters
    ----------
    path : Path
        The EEG file.
    raw : mne.io.BaseRaw
        The file, opened.
    kinds : tuple of str
        What each channel carries (`rtdecode.eeg.channels.kind_of`). A channel that is no EEG may have any
        unit.

    Raises
    ------
    UsageError
        If an EEG channel states no unit, or none of voltage.
    """
    units, read_as = _READERS[path.suffix.lower()](path, raw)
    units = ["" if unit == "n/a" else unit for unit in units]
    scales = [microvolts(unit) for unit in units]
    absent = [n for n, kind in enumerate(kinds) if kind == "eeg" and scales[n] is None]
    if absent:
        told_units = _told_beside(path) if any(not units[n] for n in absent) else {}
        for n in absent:
            if not units[n]:
                scales[n] = microvolts(told_units.get(str(raw.ch_names[n]), ""))
    unknown = [n for n in absent if scales[n] is None]
    if unknown:
        raise UsageError(
            "eeg-unit-unknown",
            "{path} has EEG in a unit that is not known: {channels}. Units of voltage are V, mV, µV and nV. "
            "Write the right one into the file's header, or, if the file states none, into the column units "
            "of its channels.tsv.",
            path=path,
            channels=[f"{raw.ch_names[n]} in {units[n] or 'no unit'}" for n in unknown],
        )
    # What is no voltage stays as MNE-Python reads it.
    return np.array(
        [_VOLT if scale is None else scale / was for scale, was in zip(scales, read_as, strict=True)]
    )


def _of_brainvision(path: Path, raw: Any) -> tuple[list[str], list[float]]:
    by_number: dict[int, str] = {}
    section = ""
    for line in _text(path.read_bytes()).splitlines():
        if line.startswith("["):
            section = line.strip()
        entry = re.match(r"Ch(\d+)\s*=(.*)", line)
        if section == "[Channel Infos]" and entry:
            # Name, reference, resolution, unit; commas in a name are written in another way.
            fields = [field.strip() for field in entry[2].split(",")]
            by_number[int(entry[1])] = fields[3] if len(fields) > 3 else ""
    channels = raw.info["chs"]
    units = [by_number.get(number) or _BRAINVISION for number in range(1, len(channels) + 1)]
    return units, [float(scale["range"]) for scale in channels]


def _of_edf(path: Path, raw: Any) -> tuple[list[str], list[float]]:
    with path.open("rb") as file:
        count = int(file.read(_HEADER)[_CHANNELS_AT:])
        labels = [_text(file.read(_LABEL)).strip() for _ in range(count)]
        file.seek(_TRANSDUCER * count, 1)
        units = [_text(file.read(_UNIT)).strip() for _ in range(count)]
    units = [unit for label, unit in zip(labels, units, strict=True) if label not in _TEXTS]
    read_as = np.asarray(raw._raw_extras[0]["units"], np.float64)
    return units, read_as.tolist()


def _of_eeglab(path: Path, raw: Any) -> tuple[list[str], list[float]]:
    count = len(raw.ch_names)
    return [_EEGLAB] * count, [1 / _VOLT] * count


_READERS = {".vhdr": _of_brainvision, ".edf": _of_edf, ".bdf": _of_edf, ".set": _of_eeglab}


def _text(content: bytes) -> str:
    """Decode a header, in which no more than the micro sign and names lie beyond ASCII."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        # Japanese programs write the Greek letter in two bytes.
        return content.replace(b"\x83\xca", b"u").decode("latin-1")


def _told_beside(path: Path) -> dict[str, str]:
    """Read the units of a ``channels.tsv`` beside a file, by channel; empty where there is none."""
    table = path.with_name(path.name.removesuffix(path.suffix).removesuffix("_eeg") + "_channels.tsv")
    rows = read_tsv(table) if table.is_file() else []
    return {row.get("name", ""): row.get("units", "") for row in rows}
