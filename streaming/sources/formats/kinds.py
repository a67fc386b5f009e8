"""Refuse images in an export folder that are not volumes of a functional run, with the reason in words.

The object's class and the attributes of PS3.3 decide first, then the vendors' private ones, then ImageType.
Names count where nothing else does: the protocol's name is the operator's, and says nothing about a series
that its header describes as an original echo-planar one. What the series' name adds to it is the scanner's
(``_SBRef``, ``_MoCo``). What is refused for its name alone says so, and can be let in.
"""

import re
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from shlex import quote

from pydicom import Dataset
from pydicom.uid import UID

from streaming.sources.formats import enhanced
from streaming.sources.formats.enhanced import Frames
from streaming.sources.formats.fields import integer, private_number, text
from streaming.sources.formats.fields import private as private_value
from streaming.sources.formats.header import words
from streaming.sources.formats.image import NotAVolumeError

MR = "1.2.840.10008.5.1.4.1.1.4"
_ENHANCED = {"1.2.840.10008.5.1.4.1.1.4.1", "1.2.840.10008.5.1.4.1.1.4.4"}
_PHYSIOLOGY = r"physio_?log"
_CORRECTED = r"^moco_?(series)?$|_moco$"
_REFERENCE = r"sb_?ref|single[-_ ]?band[-_ ]?ref"
_FIELD_MAP = r"field_?-?map|b0[-_ ]?map|(?<![a-z])fmap|gre_field|topup|distortion[-_ ]?map"
# Names that an echo-planar series may bear without being one of these.
_FIELD_MAP_UNLESS_EPI = r"(?<![a-z0-9])b0(?![a-z0-9])"
_LOCALIZER_UNLESS_EPI = r"locali[sz]er|scout|survey|smart_?brain|(3|three)[-_ ]?plane"
# Names of the phase-encoding directions in which spin-echo field maps come in pairs.
_PAIR_OF_BLIPS = r"(?<![a-z])(ap|pa|lr|rl|blip|polarity|rev(erse)?)(?![a-z])"
_FIELD_TYPES = {"B0", "B0 MAP", "B0_MAP", "FIELD MAP", "FIELD_MAP", "FIELDMAP", "PHASE DIFFERENCE"}
_DIFFUSION_TYPES = {"DIFFUSION", "ADC", "TRACEW", "TRACE", "DTI", "DWI"}
_COMPUTED_TYPES = {
    "T TEST",
    "T_TEST",
    "GLM",
    "MEAN_1",
    "STDDEV",
    "SUBTRACT",
    "MIP",
    "MPR",
    "PROJECTION IMAGE",
}
_PARTS = {
    "P": "a phase image", "PHASE": "a phase image", "PHASE MAP": "a phase image",
    "PHASE_MAP": "a phase image", "R": "a real part", "REAL": "a real part", "I": "an imaginary part",
    "IMAGINARY": "an imaginary part",
}  # fmt: skip
_TEMPORAL = ("NumberOfTemporalPositions", "TemporalPositionIdentifier")
_PLAIN_WORD = re.compile(r"[A-Z0-9_ ]{1,16}")


def check_object(ds: Dataset, include: str = "") -> None:
    """Refuse files that are not MR images at all, before their pixels are looked for.

    Parameters
    ----------
    ds : Dataset
        Header of a file.
    include : str
        As for `check_image`.

    Raises
    ------
    NotAVolumeError
        With the reason.
    """
    kind = UID(text(ds, "SOPClassUID"))
    if kind != MR and kind not in _ENHANCED:
        is_standard = not kind.is_private and kind.name != kind
        raise NotAVolumeError(
            "dicom-not-mr",
            "{sop_class}, not an MR image",
            sop_class=kind.name if is_standard else "a private object of the vendor",
        )
    types = words(ds, "ImageType")
    word = (
        ""
        if {"PHYSIO", "RAWDATA"} & set(types)
        else _named(ds, _PHYSIOLOGY, _is_functional(ds, types), include)
    )
    if word or {"PHYSIO", "RAWDATA"} & set(types):
        raise NotAVolumeError(
            "dicom-physiology-log",
            "a physiology log, not an MR image{advice}",
            advice=_advice(word),
        )


def check_image(ds: Dataset, private: dict[str, list[str]], moco: bool, include: str = "") -> None:
    """Refuse a file that, by its header as a whole, is not a volume of a functional run.

    Parameters
    ----------
    ds : Dataset
        Header of an MR image.
    private : dict
        Siemens' private header.
    moco : bool
        Take motion-corrected copies instead of the originals.
    include : str
        Part of a series' or protocol's name, with ``*`` and ``?`` as in file names: what bears it is not
        refused for its name alone. Nothing bears an empty one.

    Raises
    ------
    NotAVolumeError
        With the reason.
    """
    if not re.fullmatch(r"[0-9.]{1,64}", text(ds, "SeriesInstanceUID")):
        raise NotAVolumeError(
            "dicom-series-uid-invalid",
            "an image of no series (SeriesInstanceUID)",
        )
    types = words(ds, "ImageType")
    functional = _is_functional(ds, types)
    if text(ds, "SOPClassUID") == MR:
        _check_copy(ds, types, types[:1] == ["DERIVED"], moco, include)
    _refuse("a secondary image" if types[1:2] == ["SECONDARY"] else None, types)
    part = text(ds, "ComplexImageComponent").upper()
    if part not in ("MAGNITUDE", "MIXED"):
        _refuse(_PARTS.get(part) or next((_PARTS[word] for word in types[2:] if word in _PARTS), None), types)
    diffusion = _diffusion(ds, private) or _DIFFUSION_TYPES & set(types)
    _refuse("a diffusion-weighted image" if diffusion else None, types)
    _refuse(_field_map(ds, types) or _localizer(ds, types) or _reference(ds), types)
    for kind, word in _kinds_by_name(ds, functional, include):
        _refuse(kind if word else None, types, word)
    _refuse(_anatomy(ds) if text(ds, "SOPClassUID") == MR and "MOSAIC" not in types else None, types)


def check_frames(ds: Dataset, frames: Frames, moco: bool, include: str = "") -> None:
    """Refuse an Enhanced MR file whose frames are not volumes of a functional run.

    Parameters
    ----------
    ds : Dataset
        Header of the file.
    frames : Frames
        Attributes of its frames, as `read_frames` gives them.
    moco, include
        As for `check_image`.

    Raises
    ------
    NotAVolumeError
        With the reason.
    """
    frame_types = [
        word.strip()
        for tag in (enhanced.FRAME_TYPE, enhanced.IMAGE_TYPE_TEXT)
        for word in _words(frames.texts(tag)[0])
    ]
    types = [*words(ds, "ImageType"), *frame_types]
    if "MOSAIC" in frame_types and len(frames.attributes) == 1:
        raise NotAVolumeError(
            "enhanced-navigator-mosaic",
            "a navigator's mosaic within an Enhanced MR file, not a volume of a run",
        )
    # A frame's own type goes before that of the file.
    kinds = {_words(value)[0] for value in frames.texts(enhanced.FRAME_TYPE)} - {""} or {*types[:1]}
    _check_copy(ds, types, kinds == {"DERIVED"}, moco, include)
    directions = {value.upper() for value in frames.texts(enhanced.DIRECTION)}
    values = [value[0] for value in frames.packed(enhanced.B_VALUE, "d") if value]
    weighted = any(value > 0 for value in values) or "DIRECTIONAL" in directions
    unweighted = bool(values) and _is_unweighted(ds)
    diffusion = weighted or unweighted or _DIFFUSION_TYPES & set(types)
    _refuse("a diffusion-weighted image" if diffusion else None, types)
    units = {unit.upper() for unit in frames.texts(enhanced.UNIT)}
    _refuse("a field map" if "HZ" in units or _FIELD_TYPES & set(types) else None, types)
    parts = {part.upper() for part in frames.texts(enhanced.COMPONENT)}
    _refuse(_PARTS[min(parts)] if parts <= {"PHASE", "REAL", "IMAGINARY"} else None, types)
    # More than one time index means that the scan was repeated, as an anatomical one is not.
    _refuse(_anatomy(ds) if len(set(frames.texts(enhanced.TIME_INDEX))) == 1 else None, types)


def _check_copy(ds: Dataset, types: list[str], derived: bool, moco: bool, include: str) -> None:
    """Refuse motion-corrected copies, or with `moco` everything else, and other computed images."""
    original = not derived and types[:1] == ["ORIGINAL"]
    # Siemens' product protocol is called ep2d_bold_moco itself: the corrected copies have MOCO in ImageType.
    word = "" if "MOCO" in types else _named(ds, _CORRECTED, original, include)
    if "MOCO" in types or word:
        if not moco:
            raise NotAVolumeError(
                "dicom-moco-unexpected",
                "the scanner's motion-corrected copy, not a volume of a run{advice}",
                advice=_advice(word),
            )
        return
    _refuse("a derived image" if derived or _COMPUTED_TYPES & set(types) else None, types)
    if moco:
        raise NotAVolumeError(
            "dicom-moco-expected",
            "an original, where motion-corrected copies were asked for",
        )


def _refuse(reason: str | None, types: Iterable[str], word: str = "") -> None:
    """Refuse an image if there is a reason, where `word` is the one in its name that alone says so."""
    if reason:
        # A damaged length lets a value run on into others, so only plain words are repeated.
        plain_types = "/".join(word for word in [*types][:8] if _PLAIN_WORD.fullmatch(word))
        raise NotAVolumeError(
            "dicom-not-functional",
            "{image_kind}, not a volume of a run (ImageType {image_type}){advice}",
            image_kind=reason,
            image_type=plain_types,
            advice=_advice(word),
        )


def _advice(word: str) -> str:
    return f"; its name alone says so: --include {quote(word)} takes it all the same" if word else ""


def _diffusion(ds: Dataset, private: dict[str, list[str]]) -> bool:
    vendor = text(ds, "Manufacturer").upper()
    values = [
        ds.get("DiffusionBValue"),
        *private.get("B_value", []),
        private_number(ds, 0x2001, "Philips Imaging DD 001", 0x03, "<f"),
        private_number(ds, 0x0065, "Image Private Header", 0x09, "<d"),
    ]
    if any(float(value or 0) > 0 for value in values) or private.get("DiffusionDirectionality"):
        return True
    states_b_value = ds.get("DiffusionBValue") is not None or bool(text(ds, "DiffusionDirectionality"))
    if private.get("B_value") or (states_b_value and _is_unweighted(ds)):
        return True
    if vendor.startswith("UIH"):
        return bool(re.search("DTI|DWI", str(private_value(ds, 0x0065, "Image Private Header", 0x2B))))
    if vendor.startswith("GE"):
        # Some releases add a large round number to the b-value, which comes first.
        value = ds.get((0x0043, 0x1039))
        first = "" if value is None else str(value.value).strip("[]b'\" ").split(",")[0].split("\\")[0]
        directions = private_number(ds, 0x0019, "GEMS_ACQU_01", 0xE0) or 0
        return (first.isdigit() and int(first) % 100000 > 0) or (directions > 0 and _spin_echo(ds))
    several = (private_number(ds, 0x2005, "Philips MR Imaging DD 005", n) or 0 for n in (0x14, 0x15))
    # Siemens gives unweighted images of a diffusion series a b-value of 0; other images have none.
    weighted = private_number(ds, 0x0019, "SIEMENS MR HEADER", 0x0C) is not None or max(several) > 1
    declared = text(ds, "AcquisitionContrast") == "DIFFUSION" or _is_sequence(ds, r"ep_b\d")
    return weighted or declared


def _is_unweighted(ds: Dataset) -> bool:
    """Return whether an image with a b-value of 0 is the unweighted one of a diffusion series.

    Some vendors state a b-value of 0 for all images, but diffusion is weighted by spin echoes, and runs are
    by gradient echoes. Philips says in elements of its own how many b-values a series has.
    """
    return _spin_echo(ds) and not text(ds, "Manufacturer").upper().startswith("PHILIPS")


def _field_map(ds: Dataset, types: list[str]) -> str | None:
    return "a field map" if _FIELD_TYPES & set(types[2:]) or _is_sequence(ds, r"fm\d") else None


def _localizer(ds: Dataset, types: list[str]) -> str | None:
    return "a localizer" if "LOCALIZER" in types and not _echo_planar(ds) else None


def _kinds_by_name(ds: Dataset, functional: bool, include: str) -> Iterator[tuple[str, str]]:
    """Yield what a name may say that an image is, with the word that says so, or an empty one."""
    planar = _echo_planar(ds)
    # An echo-planar image by spin echoes may be one of a pair that maps the field.
    yield "a field map", _named(ds, _FIELD_MAP, functional and not _spin_echo(ds), include)
    if planar and _spin_echo(ds):
        yield "a spin-echo field map", _named(ds, _PAIR_OF_BLIPS, False, include)
    if not planar:
        yield "a field map", _named(ds, _FIELD_MAP_UNLESS_EPI, False, include)
        yield "a localizer", _named(ds, _LOCALIZER_UNLESS_EPI, False, include)
    # The header of a reference is that of its run. So a protocol's word is the operator's only where the
    # series is called after the protocol: a series that is called otherwise may be its reference.
    after_protocol = text(ds, "ProtocolName").lower() in text(ds, "SeriesDescription").lower()
    opposed = functional and (after_protocol or not text(ds, "SeriesDescription"))
    yield "a single-band reference", _named(ds, _REFERENCE, opposed, include)


def _anatomy(ds: Dataset) -> str | None:
    """Return the reason for a scan acquired once, in 3-D or by spin echoes, and not echo-planar."""
    times = max((integer(ds, name) or 0 for name in _TEMPORAL), default=0)
    if times > 1 or _echo_planar(ds):
        return None
    if text(ds, "MRAcquisitionType") == "3D":
        return "a 3-D acquisition that is not echo-planar, an anatomical scan"
    spins = {"SE", "IR"} & set(words(ds, "ScanningSequence")) or text(ds, "EchoPulseSequence") == "SPIN"
    return "an anatomical scan, not echo-planar" if spins else None


def _reference(ds: Dataset) -> str | None:
    is_reference = text(ds, "ImageComments").lower().startswith("single-band reference")
    return "a single-band reference" if is_reference else None


def _is_functional(ds: Dataset, types: list[str]) -> bool:
    """Return whether the header describes an original echo-planar image."""
    return types[:2] == ["ORIGINAL", "PRIMARY"] and _echo_planar(ds)


def _echo_planar(ds: Dataset) -> bool:
    declared = "EP" in words(ds, "ScanningSequence") or text(ds, "EchoPlanarPulseSequence") == "YES"
    return declared or _is_sequence(ds, "ep")


def _spin_echo(ds: Dataset) -> bool:
    declared = "SE" in words(ds, "ScanningSequence") or text(ds, "EchoPulseSequence") == "SPIN"
    return declared or _is_sequence(ds, "epse")


def _is_sequence(ds: Dataset, pattern: str) -> bool:
    name = text(ds, "SequenceName") or text(ds, "PulseSequenceName")
    return re.match(r"\*?" + pattern, name) is not None


def _named(ds: Dataset, pattern: str, opposed: bool, include: str) -> str:
    """Return the word of a name that says what an image is; empty if none does, or it does not count.

    Parameters
    ----------
    ds : Dataset
        Header of the image.
    pattern : str
        What is looked for.
    opposed : bool
        Whether the header says the opposite; it then goes before an operator's word.
    include : str
        As for `check_image`.
    """
    series = text(ds, "SeriesDescription")
    protocol = text(ds, "ProtocolName")
    # A series is called as its protocol is, and the scanner puts its own words behind that name.
    protocol_start = series.lower().find(protocol.lower())
    by_scanner = (
        series if protocol_start < 0 else series[:protocol_start] + series[protocol_start + len(protocol) :]
    )
    word = re.search(pattern, by_scanner, re.IGNORECASE)
    if word is None and not opposed:
        word = re.search(pattern, protocol, re.IGNORECASE)
    return "" if word is None or _is_included((series, protocol), include) else word.group()


def _is_included(names: Iterable[str], include: str) -> bool:
    pattern = f"*{include.lower()}*"
    return bool(include) and any(fnmatchcase(name.lower(), pattern) for name in names)


def _words(value: str) -> list[str]:
    return value.upper().split("\\")
