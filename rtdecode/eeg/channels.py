"""What a stream's channels are: their names, kinds, units and places on the head.

Labels come as each amplifier's program spells them; names of the 10-5 system come out. Channels are matched
by name, never by number.
"""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rtdecode.eeg import electrodes
from rtdecode.errors import GeometryError
from rtdecode.types import Montage

# "reference" channels see the artefact and no brain: carbon-wire loops, a reference layer.
KINDS = ("eeg", "ecg", "eog", "emg", "stim", "reference", "aux")
# Most channels that may be interpolated; where fewer than 64 are wanted, one in eight.
MAX_ABSENT = 8
ABSENT = -1

_BIOSEMI = Path(__file__).parents[1] / "montages" / "biosemi.tsv"
# What may follow the electrode's name and a dash in a label: the reference.
_REFERENCES = {"REF", "LE", "RE", "AR", "AVG", "AV", "A1", "A2", "A12", "A1A2", "M1", "M2", "M1M2", "CMS"}
_NUMBERED = re.compile(r"(?:CH|CHAN|CHANNEL|EEG|E|REF|)[ _-]*\d+")
# Words that a label begins with, in the order in which they are tried.
_WORDS = {
    "stim": r"STI\d*|STIM|STATUS|TRIG|TRG|TTL|MARKER|DIN|EVENT",
    "reference": r"CWL?|CARBON|LOOP|REFLAYER|ARTE?FA?C?T",
    "ecg": r"E[CK]G|EXG[ _-]*HEART|BIP[ _-]*0*1\b|HEART",
    "eog": r"[HV]?EOG|[LR]OC\b|IO\b|[LR]?EYE",
    "emg": r"EMG|CHIN",
    "aux": r"AUX|BIP|GSR|EDA|SCR?\b|RESP|PLETH?|PPG|PULS|TEMP|ERGO?|EXG|ACC|GYR|[XYZ]_?DIR|COUNTER|PACKET|"
    r"SAMPLE|BATT|LIGHT|PHOTO|AUDIO|SPO2|MISC|CMS|DRL|GND|GROUND|REF(?:ERENCE)?$",
}
_TYPE_KINDS = {
    "eeg": {"eeg", "ref"},
    "ecg": {"ecg", "ekg"},
    "eog": {"eog", "heog", "veog"},
    "emg": {"emg"},
    "stim": {"stim", "stimulus", "trigger", "trig", "trg", "marker", "markers", "ttl", "status"},
    "reference": {"cwl", "cw", "carbon", "reference", "noise"},
}
_POWERS = {"nano": 1e-3, "micro": 1.0, "milli": 1e3, "": 1e6, "n": 1e-3, "u": 1.0, "m": 1e3}


def canonical(label: str) -> str:
    """Spell a label as the 10-5 system does, or only trim one that names no electrode.

    ``FP1``, ``EEG Fp1-Ref``, ``Fp1.`` and ``fp1`` are Fp1; ``T3``, ``T7/T3`` and ``T3 (T7)`` are T7.
    """
    trimmed = " ".join(label.split())
    bare = re.sub(r"^EEG[ _:-]*(?=[A-Z])|[ ._]+$", "", trimmed.upper())
    bare = bare.removesuffix(")").replace("(", "/")
    parts = re.fullmatch(r"(.+?)[-_ ]+(\w+)", bare)
    if parts is not None and parts[2] in _REFERENCES:
        bare = parts[1]
    # "T7/T3" and "T3 (T7)" give both names of one electrode. Two that differ are not one place.
    spellings = {_spelled(part.strip()) for part in bare.split("/")}
    return spellings.pop() or trimmed if len(spellings) == 1 else trimmed


def names(labels: Sequence[str]) -> tuple[str, ...]:
    """Name the channels of a whole cap, where one label alone is not enough.

    The pins of BioSemi caps become electrodes: A1 to B32 those of the cap of 64, A1 to A32 alone those of
    the cap of 32. ``Fp1-Cz``, ``Fz-Cz``, ... lose the reference that all of them share.
    """
    pins = [label.strip().upper() for label in labels]
    # A1 and A2 alone are earlobes: only a whole set of pins is a BioSemi cap.
    cap = _biosemi(pins)
    if cap:
        return tuple(cap.get(pin, label.strip()) for pin, label in zip(pins, labels, strict=True))
    ends = {pin.rpartition("-")[2] for pin in pins if "-" in pin}
    if len(ends) == 1 and sum("-" in pin for pin in pins) > 2:
        labels = [label.rpartition("-")[0] or label for label in labels]
    return tuple(canonical(label) for label in labels)


def kind_of(label: str, stated_type: str = "") -> str:
    """Tell what a channel carries, from its label and from the type that the stream states.

    Returns
    -------
    str
        One of `KINDS`. A specific type is believed. Where the type is EEG (some programs call every
        channel EEG), empty, or MISC and the like, words at the label's beginning count: ECG, EOG, AUX, ...
    """
    type_word = stated_type.strip().lower()
    # An unknown type says as little as MISC: unless the label says more, the channel is auxiliary.
    declared_kind = next(
        (kind for kind, words in _TYPE_KINDS.items() if type_word in words), "aux" if type_word else "eeg"
    )
    if declared_kind not in ("eeg", "aux") or canonical(label) in electrodes.places():
        return declared_kind
    bare = re.sub(r"^EEG[ _:-]*", "", label.strip().upper())
    return next((kind for kind, words in _WORDS.items() if re.match(words, bare)), declared_kind)


def microvolts(unit: str) -> float | None:
    """Return the microvolts in a unit; None if it is not a unit of voltage, or is empty.

    Units may be words (``microvolts``, ``uV``, ``V``, ``nanovolt``) or powers of ten of a volt (``-6``),
    which some programs write.
    """
    # Two code points look like the micro sign: U+00B5 and the Greek letter, U+03BC. UTF-8 that was
    # read as Latin-1 has U+00C2 before the sign; it goes first, as `lower` would change it.
    bare = unit.strip().replace("\u00c2", "").lower().replace("µ", "u").replace("μ", "u")
    if re.fullmatch(r"0|-[369]", bare):
        return 10.0 ** (int(bare) + 6)
    match = re.fullmatch(r"(nano|micro|milli|)[ -]?volts?|(n|u|m|)(?:v|volts?)", bare)
    return None if match is None else _POWERS[match[1] or match[2] or ""]


def places(labels: Sequence[str]) -> NDArray[np.float64]:
    """Return where channels lie on the unit sphere: right, front, up, (channel, 3).

    Raises
    ------
    GeometryError
        If a label names no electrode of the 10-5 system.
    """
    positions = electrodes.places()
    electrode_names = names(labels)
    unplaced = [label for label, name in zip(labels, electrode_names, strict=True) if name not in positions]
    if unplaced:
        raise GeometryError(
            "channel-position-unknown",
            "the position of {channels} is unknown: use names of the 10-20, 10-10 or 10-5 system{hint}.",
            channels=_listed(unplaced),
            hint=_hint(unplaced),
        )
    return np.array([positions[name] for name in electrode_names]).reshape(-1, 3)


def match(labels: Sequence[str], montage: Montage) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Find a bundle's channels in a stream by their names, in whatever order.

    Parameters
    ----------
    labels : sequence of str
        Channels of the bundle.
    montage : Montage
        Montage of the stream.

    Returns
    -------
    picks : (wanted,) int64
        Column of each channel in the stream; `ABSENT` where the stream lacks it.
    absent : tuple of str
        Names that the stream lacks: at most `MAX_ABSENT`, to be interpolated from the others.

    Raises
    ------
    GeometryError
        If more channels are absent, or one that has no known place to be interpolated at.
    """
    # Both sides in one spelling: bundle and stream may come from different programs.
    eeg = {canonical(c): i for i, c in enumerate(montage.channels) if montage.kinds[i] == "eeg"}
    picks = np.array([eeg.get(canonical(name), ABSENT) for name in labels], np.int64)
    absent = tuple(name for name, pick in zip(labels, picks, strict=True) if pick == ABSENT)
    allowed = min(MAX_ABSENT, len(labels) // 8)
    unplaced = [name for name in absent if canonical(name) not in electrodes.places()]
    if len(absent) > allowed or unplaced:
        limit = f"up to {allowed} would be interpolated" if not unplaced else "their positions are unknown"
        raise GeometryError(
            "montage-missing-channels",
            "the bundle reads {bundle_channel_count} EEG channels, and the stream lacks "
            "{missing_channels} ({missing_count} of them; {interpolation_limit}). It has "
            "{stream_channel_count}: {stream_channels}{hint}. Use the trained cap, or another "
            "--bundle.",
            bundle_channel_count=len(labels),
            missing_channels=_listed(absent),
            missing_count=len(absent),
            interpolation_limit=limit,
            stream_channel_count=len(eeg),
            stream_channels=_listed(list(eeg)),
            hint=_hint(list(eeg)),
        )
    return picks, absent


def infer_unit(rms: float) -> float | None:
    """Infer the microvolts per unit from the size of data without a unit; None where it is not clear.

    Parameters
    ----------
    rms : float
        Median over the EEG channels of the standard deviation within a second.

    Notes
    -----
    Wide-band scalp EEG has 3 to 3,000 uV rms, with the gradient artefact of a scanner or without. So volts,
    millivolts and microvolts fall into neighbouring ranges. Within a factor of 1.5 of a border between
    them nothing is concluded.
    """
    for scale in (1.0, 1e3, 1e6):
        if 3.0 * 1.5 <= rms * scale <= 3000.0 / 1.5:
            return scale
    return None


def _spelled(bare: str) -> str | None:
    name = _spellings().get(bare)
    return electrodes.OLD.get(name, name) if name else None


@cache
def _spellings() -> Mapping[str, str]:
    return {name.upper(): name for name in electrodes.places()}


def _biosemi(pins: Sequence[str]) -> dict[str, str]:
    """Return the electrode of each pin of a BioSemi cap; empty if the labels are not its pins."""
    table = [line.split("\t") for line in _BIOSEMI.read_text().splitlines()[1:]]
    lettered = {pin for pin in pins if re.fullmatch(r"[A-H]([1-9]|[12]\d|3[0-2])", pin)}
    both = {row[0] for row in table}
    first = {row[0] for row in table[:32]}
    if lettered == both:
        return {pin: cap64 for pin, cap64, _ in table}
    return {pin: cap32 for pin, _, cap32 in table[:32]} if lettered == first else {}


def _listed(labels: Sequence[str], limit: int = 12) -> str:
    suffix = f" and {len(labels) - limit} more" if len(labels) > limit else ""
    return (", ".join(labels[:limit]) or "none") + suffix


def _hint(labels: Sequence[str]) -> str:
    """Describe labels that do not name electrodes of the 10-5 system; empty if nothing is recognised."""
    if sum(bool(re.fullmatch(r"E\d+", label)) for label in labels) > 16:
        return " (E1, E2, ... are sensors of a geodesic net: give them their nearest 10-10 names)"
    if sum(bool(_NUMBERED.fullmatch(label.upper())) for label in labels) > 2:
        return " (numbers are not positions: switch on electrode names in the amplifier's program)"
    return ""
