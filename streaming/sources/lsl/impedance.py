"""Read electrode impedances that an amplifier sends over LSL.

Some programs state them in the description of the EEG stream (``desc/channels/channel/impedance``), and some
send a stream of the type Impedance beside it. An impedance without a unit is passed over, as kilohms and ohms
are both in use.
"""

import re
import time
from collections.abc import Collection

from rtdecode.eeg.channels import names
from rtdecode.errors import GeometryError
from rtdecode.liblsl import LostError, LslTimeoutError, pylsl
from streaming.sources.lsl.inlet import DTYPES, Inlet
from streaming.sources.lsl.layout import described

# Types of streams that carry impedances, in small letters.
_TYPES = ("impedance", "impedances")
# Time spent looking for such a stream, and time that it has to send a sample, s.
_LOOK_S = 1.0
_SEND_S = 3.0
_POLL_S = 0.02
_NUMBER = re.compile(r"\s*([0-9.eE+-]+)\s*(.*?)\s*")


def described_impedances(info: pylsl.StreamInfo) -> dict[str, float]:
    """Return the impedances that the description of an EEG stream states, kilohms, by channel.

    A value bears its unit (``5.2 kOhm``), or the channel's ``impedance_unit`` says it.
    """
    values, units = (described(info, key) for key in ("impedance", "impedance_unit"))
    impedances: dict[str, float] = {}
    for label, value, unit in zip(names(described(info, "label")), values, units, strict=True):
        match = _NUMBER.fullmatch(value)
        kilohms = _kilohms(match[2] or unit) if match else None
        if match is not None and label and kilohms is not None:
            impedances |= _held(label, match[1], kilohms)
    return impedances


def sent(channels: Collection[str], host: str) -> dict[str, float]:
    """Return the newest impedances that streams of this type send, kilohms, by channel.

    Parameters
    ----------
    channels : collection of str
        Channels of the amplifier. Others, those without a label and those without a unit of resistance are
        passed over.
    host : str
        Computer that sends the EEG: streams of another one belong to another amplifier.
    """
    impedances: dict[str, float] = {}
    for info in pylsl.resolve_streams(wait_time=_LOOK_S):
        of_type = info.type().strip().lower() in _TYPES and info.channel_format() in DTYPES
        if of_type and info.hostname() == host:
            impedances |= _newest(info)
    return {name: value for name, value in impedances.items() if name in channels}


def _newest(info: pylsl.StreamInfo) -> dict[str, float]:
    try:
        inlet = Inlet(info)
    except (GeometryError, LslTimeoutError, LostError):
        return {}
    scales = [_kilohms(unit) for unit in described(inlet.info, "unit")]
    labels = names(described(inlet.info, "label"))
    until = time.monotonic() + _SEND_S
    while time.monotonic() < until and not inlet.lost:
        values, stamps = inlet.pull()
        if len(stamps):
            pairs = zip(labels, scales, values[-1].tolist(), strict=True)
            return {label: value * scale for label, scale, value in pairs if label and scale is not None}
        time.sleep(_POLL_S)
    return {}


def _held(label: str, number: str, kilohms: float) -> dict[str, float]:
    try:
        return {label: float(number) * kilohms}
    except ValueError:
        return {}


def _kilohms(unit: str) -> float | None:
    """Return the kilohms in a unit; None if it is no unit of resistance, or is empty."""
    # Two code points look like the sign of the ohm; both have the Greek letter as their small one.
    bare = unit.strip().lower().replace("ω", "ohm")
    match = re.fullmatch(r"(k|kilo|m|mega|)[ -]?ohms?", bare)
    return None if match is None else {"": 1e-3, "k": 1.0, "m": 1e3}[match[1][:1]]
