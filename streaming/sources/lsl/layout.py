"""Read the description of an LSL stream: which columns to keep, their names, and their units."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rtdecode.eeg.channels import kind_of, microvolts, names
from rtdecode.errors import GeometryError
from rtdecode.liblsl import pylsl
from rtdecode.types import Array, Float, Montage
from streaming.sources.lsl.inlet import checked_rate

_KINDS = ("eeg", "ecg", "eog", "reference")
# The manufacturer that the simulated amplifier's stream states.
_SIMULATED = "rtdecode phantom (simulated)"


@dataclass(frozen=True, slots=True)
class Layout:
    """How the columns of an LSL stream become channels.

    Attributes
    ----------
    montage : Montage
        The channels that are kept, in the order in which they are handed on.
    columns : int64, (channel,)
        Their columns in the stream.
    scale : float64, (channel, 1)
        Microvolts per unit of the stream; NaN if the stream states no unit.
    stim : list of int
        Columns of stim channels.
    """

    montage: Montage
    columns: NDArray[np.int64]
    scale: NDArray[np.float64]
    stim: list[int]

    def convert(self, raw: Array) -> Float:
        """Convert samples of an inlet, (sample, column), to microvolts, (channel, sample)."""
        data = raw[:, self.columns].T
        scaled = data if (self.scale == 1).all() else np.multiply(data, self.scale)
        return np.ascontiguousarray(scaled, np.float32)

    def with_unit(self, scale: float) -> "Layout":
        """Return this layout with `scale` microvolts per unit where the stream states none."""
        return replace(self, scale=np.where(np.isnan(self.scale), scale, self.scale))

    def ordered_as(self, order: tuple[str, ...]) -> "Layout":
        """Return this layout with the channels in an order.

        If all channels of `order` are here, any others are left out; if some are missing, the others
        follow at the end.
        """
        montage = self.montage
        columns = [montage.channels.index(name) for name in order if name in montage.channels]
        if len(columns) < len(order):
            columns += [i for i in range(len(montage.channels)) if i not in columns]
        channels = replace(
            montage,
            channels=tuple(montage.channels[i] for i in columns),
            kinds=tuple(montage.kinds[i] for i in columns),
        )
        return Layout(channels, self.columns[columns], self.scale[columns], self.stim)


@dataclass(frozen=True, slots=True)
class Description:
    """What a stream says of itself and of its channels, empty where it says nothing.

    Attributes
    ----------
    name : str
        Name of the stream.
    sfreq : float
        Nominal rate, Hz; 0 without one.
    labels, types, units : list of str
        One for each channel.
    reference, manufacturer : str
        Reference of the channels, and maker of the amplifier.
    """

    name: str
    sfreq: float
    labels: list[str]
    types: list[str]
    units: list[str]
    reference: str = ""
    manufacturer: str = ""


def layout(info: pylsl.StreamInfo) -> Layout:
    """Find the channels of a stream by its information with its description, as an inlet returns it.

    Raises
    ------
    GeometryError
        As `layout_of`, and if the stream declares a size that no amplifier has.
    """
    # What a stream says once it is open need not be what it announced.
    checked_rate(info)
    return layout_of(
        Description(
            info.name(),
            info.nominal_srate(),
            described(info, "label"),
            described(info, "type"),
            described(info, "unit"),
            info.desc().child("reference").child_value("label"),
            info.desc().child_value("manufacturer"),
        )
    )


def layout_of(stream: Description) -> Layout:
    """Find the channels of a stream by their labels, types and units.

    Raises
    ------
    GeometryError
        If the stream has no labelled EEG channel, no steady rate, two channels of one name, or an EEG
        channel in a unit that is not a voltage.
    """
    labels = stream.labels
    kinds = [kind_of(label, kind) for label, kind in zip(labels, stream.types, strict=True)]
    _check(stream, kinds)
    spelled = names(labels)
    columns = [i for i, kind in enumerate(kinds) if kind in _KINDS and labels[i]]
    reference = names([stream.reference or "unknown"])[0]
    chosen = tuple(spelled[i] for i in columns)
    if twice := sorted({name for name in chosen if chosen.count(name) > 1}):
        raise GeometryError(
            "lsl-channel-duplicate",
            "LSL stream '{stream}' has more than one channel called {channels} (labels {labels}). "
            "Give each its own name in the amplifier's LSL program.",
            stream=stream.name,
            channels=list(twice),
            labels=[labels[i] for i in columns if spelled[i] in twice],
        )
    simulated = stream.manufacturer == _SIMULATED
    montage = Montage(chosen, stream.sfreq, reference, tuple(kinds[i] for i in columns), simulated)
    scale = np.array(
        [[_scale(stream.name, labels[i], stream.units[i], kinds[i])] for i in columns], np.float64
    )
    # A channel without a unit, such as an ECG, is taken to have that of the EEG. If an EEG channel has
    # none either, the unit has to be concluded from the data (`EegReader`).
    eeg = scale[np.array(montage.kinds) == "eeg"]
    if not np.isnan(eeg).any():
        scale = np.where(np.isnan(scale), np.median(eeg), scale)
    stim = [i for i, kind in enumerate(kinds) if kind == "stim"]
    return Layout(montage, np.array(columns, np.int64), scale, stim)


def _check(stream: Description, kinds: list[str]) -> None:
    eeg = sum(kind == "eeg" and bool(label) for label, kind in zip(stream.labels, kinds, strict=True))
    if not eeg or stream.sfreq <= 0:
        raise GeometryError(
            "lsl-channels-or-sfreq-missing",
            "LSL stream '{stream}' has {channel_count} channels, {eeg_channel_count} of them EEG "
            "with a label, at {sfreq_hz:g} Hz; labels (desc/channels/channel/label) and a steady "
            "rate are needed. Switch the channel description on in the amplifier's LSL program.",
            stream=stream.name,
            channel_count=len(stream.labels),
            eeg_channel_count=eeg,
            sfreq_hz=stream.sfreq,
        )


def described(info: pylsl.StreamInfo, key: str) -> list[str]:
    """Return what a stream's description says of each channel under a key; empty where it says nothing."""
    values: list[str] = []
    channel = info.desc().child("channels").child("channel")
    for _ in range(info.channel_count()):
        values.append(channel.child_value(key))
        channel = channel.next_sibling("channel")
    return values


def _scale(name: str, label: str, unit: str, kind: str) -> float:
    """Return microvolts per unit; NaN if no unit is stated."""
    scale = microvolts(unit)
    if scale is not None:
        return scale
    if unit.strip().lower() in ("", "unknown", "none", "n/a", "na"):
        return np.nan
    if kind != "eeg":
        return 1.0  # of an artefact only the shape matters, not the size
    raise GeometryError(
        "lsl-channel-unit-unsupported",
        "channel {channel} of LSL stream '{stream}' is in '{unit}'; nanovolts, microvolts, "
        "millivolts and volts are read. Set the unit in the amplifier's LSL program.",
        channel=label,
        stream=name,
        unit=unit,
    )
