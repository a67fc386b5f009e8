"""Judge an EEG stream against a bundle: a part of ``rtdecode doctor``.

`listen` takes what the stream sends for some seconds, until the filters of a session have settled. `findings`
then judges cap, rate, unit, values, triggers and level by the limits and the chain that a session uses.
"""

import time
from dataclasses import replace

import numpy as np

from rtdecode import plausible
from rtdecode.bundle import Bundle, EegInput
from rtdecode.eeg import channels
from rtdecode.eeg.cleaner import MOST_HZ
from rtdecode.eeg.stream import EegStream
from rtdecode.errors import GeometryError
from rtdecode.signal.eeg.band import EegBand
from rtdecode.types import EegChunk, Montage, Trigger
from streaming.checks.eeg_capture import Heard
from streaming.checks.finding import Finding
from streaming.sources.lsl.source import LslSource

# How long to listen once the filters have settled, s.
_JUDGED_S = 3.0
# Less than this says nothing about a rate or a level, s.
_LEAST_S = 1.0
# Time that an announced stream has to deliver its first sample, s.
_FIRST_WITHIN_S = 10.0
_POLL_S = 0.01
# How much of the signal the chain keeps, s: as much as anybody listens.
_KEEP_S = 60.0
# Channels that a finding names before it says how many more there are.
_NAMED = 8


def judge(lsl: str, bundle: Bundle, listen_s: float = 0.0) -> tuple[list[Finding], Heard | None]:
    """Listen to a stream as a session would, and judge it against a bundle.

    Parameters
    ----------
    lsl : str
        Name, type or source id of the stream.
    bundle : Bundle
    listen_s : float
        Listen for so long at least, s.

    Returns
    -------
    list of Finding
    Heard or None
        What came; None if the bundle reads no EEG, or the stream carries no usable EEG.
    """
    wanted = bundle.manifest.eeg
    if wanted is None:
        found = f"the bundle {bundle.manifest.name} reads no EEG"
        return [Finding("cap", "note", found, "leave --lsl out, or give another --bundle")], None
    try:
        heard = listen(lsl, wanted.band, listen_s)
    except GeometryError as error:
        return [Finding("cap", "bad", str(error), "set the stream right in the amplifier's program")], None
    return findings(heard, bundle, wanted), heard


def listen(lsl: str, band: EegBand, listen_s: float = 0.0) -> Heard:
    """Take what a stream sends until a session's filters have settled and some seconds more, or longer.

    Parameters
    ----------
    lsl : str
        Name, type or source id of the stream.
    band : EegBand
    listen_s : float
        Listen for so long at least after the first sample, s.

    Raises
    ------
    GeometryError
        If the stream carries no usable EEG.
    """
    source = LslSource(lsl)
    items: list[EegChunk | Trigger] = []
    until = time.monotonic() + _FIRST_WITHIN_S
    heard = False
    try:
        while time.monotonic() < until:
            items += source.poll()
            if not heard and any(isinstance(item, EegChunk) for item in items):
                heard = True
                # A chain thins every stream to this rate at most, so the filters settle at it.
                until = time.monotonic() + max(band.settling_s(MOST_HZ) + _JUDGED_S, listen_s)
            time.sleep(_POLL_S)
        return Heard(
            source.montage,
            items,
            source.has_triggers,
            source.state,
            [source.unit_note] if source.unit_note else [],
            source.impedances(),
            source.host,
            source.stamps_note,
        )
    finally:
        source.close()


def findings(heard: Heard, bundle: Bundle, wanted: EegInput) -> list[Finding]:
    """Judge what was heard.

    Parameters
    ----------
    heard : Heard
    bundle : Bundle
    wanted : EegInput
        What the bundle reads.
    """
    if heard.montage is None or not heard.chunks:
        start = "start the recording in the amplifier's program, and see rtdecode eeg"
        return [Finding("samples", "bad", f"{heard.state}; no sample came", start)]
    cap = _cap(wanted, heard.montage)
    rate = _rate(heard, heard.montage, float(bundle.manifest.grid.sfreq), wanted.band)
    found = [cap, rate, _unit(heard), _samples(heard, wanted, heard.montage), _triggers(heard)]
    if heard.stamps:
        observation, _, advice = heard.stamps.rpartition(". ")
        found.append(Finding("stamps", "note", observation, advice))
    # With a cap or a rate that does not fit, a session's chain gives no level to judge.
    if cap.state != "bad" and rate.state != "bad":
        found.append(_level(heard, bundle, wanted, heard.montage))
    return found


def _cap(wanted: EegInput, montage: Montage) -> Finding:
    try:
        picks, absent = channels.match(wanted.channels, montage)
    except GeometryError as error:
        return Finding("cap", "bad", str(error), "use the trained cap, or another --bundle")
    there = f"{len(picks) - len(absent)} of the bundle's {len(picks)} channels"
    if absent:
        lacking = f"{there}; {listed(absent)} would be interpolated from the others"
        return Finding("cap", "note", lacking, "switch these channels on in the amplifier's program")
    return Finding("cap", "ok", there)


def _rate(heard: Heard, montage: Montage, grid_hz: float, band: EegBand) -> Finding:
    first = heard.chunks[0]
    last = heard.chunks[-1]
    span_s = last.arrived_at - first.arrived_at
    # Leave out the first chunk: some of it was gathered before anybody listened.
    samples = sum(chunk.data.shape[1] for chunk in heard.chunks[1:])
    if span_s < _LEAST_S:
        found = f"{samples} samples came in {span_s:.1f} s, and no more after that"
        return Finding("rate", "bad", found, "see rtdecode eeg, and the amplifier's connection")
    measured_hz = samples / span_s
    wrong = plausible.declared_rate(montage.sfreq, measured_hz, span_s)
    wrong = wrong or plausible.bundle_rate(montage.sfreq, grid_hz, band)
    if wrong is not None:
        return _bad("rate", wrong)
    said = f"{measured_hz:.0f} samples a second over {span_s:.1f} s, {montage.sfreq:g} declared"
    return Finding("rate", "ok", said)


def _unit(heard: Heard) -> Finding:
    if heard.notes:
        return Finding("unit", "note", "; ".join(heard.notes), "set it in the amplifier's LSL program")
    return Finding("unit", "ok", "stated by the stream, read as microvolts")


def _samples(heard: Heard, wanted: EegInput, montage: Montage) -> Finding:
    """Judge whether the channels that the bundle reads hold measurements."""
    read = {channels.canonical(name) for name in wanted.channels}
    rows = [i for i, name in enumerate(montage.channels) if channels.canonical(name) in read]
    wrong = np.zeros(len(rows), int)
    total = 0
    for chunk in heard.chunks:
        holes = plausible.eeg_holes(chunk.data[rows])
        total += chunk.data.shape[1]
        if holes is not None:
            wrong += holes.sum(axis=1)
    if not wrong.any():
        return Finding("samples", "ok", f"{total} samples, all of them finite")
    names = [montage.channels[row] for row, count in zip(rows, wrong, strict=True) if count]
    found = (
        f"{wrong.max() / total:.0%} of the samples are not measurements (not finite, or beyond "
        f"{plausible.EEG_LIMIT_UV:g} uV) in {len(names)} channels: {listed(names)}"
    )
    return Finding("samples", "bad", found, "check the electrodes, the amplifier and its LSL program")


def _triggers(heard: Heard) -> Finding:
    if heard.has_triggers:
        return Finding("triggers", "ok", "there is a marker stream or a stim channel")
    found = "no marker stream and no stim channel: runs would be timed by what the volumes say"
    return Finding("triggers", "note", found, "send the scanner's volume triggers over LSL")


def _level(heard: Heard, bundle: Bundle, wanted: EegInput, montage: Montage) -> Finding:
    """Judge the level by a session's own chain, which interpolates bad channels."""
    chain = played(heard, bundle, wanted, montage)
    report = chain.report()
    if report["too_many_bad"]:
        found = f"too many channels are bad: {listed(report['bad_channels'])}"
        return Finding("level", "bad", found, "check the electrodes and the reference, see rtdecode eeg")
    rate_hz = float(bundle.manifest.grid.sfreq)
    span = chain.read(chain.newest - np.arange(int(_JUDGED_S * rate_hz))[::-1] / rate_hz)
    # Reading a span is what judges its level, so notes are asked for afterwards.
    if wrong := chain.notes():
        # A second sentence says what a session does with such windows.
        sentence, _, _ = wrong[0].partition(". ")
        return _bad("level", sentence)
    if span.values is None or span.mask.sum() < _LEAST_S * rate_hz:
        found = "too little of it could be corrected to judge its level"
        return Finding("level", "note", found, "look again while the scanner rests")
    spread_uv = span.values[:, span.mask].std(axis=1) * bundle.stats["eeg_scale"]
    found = f"{np.median(spread_uv):.1f} uV in the bundle's band"
    if report["bad_channels"]:
        interpolated = f"{found}; {listed(report['bad_channels'])} would be interpolated"
        return Finding("level", "note", interpolated, "check these electrodes, see rtdecode eeg")
    return Finding("level", "ok", found)


def played(heard: Heard, bundle: Bundle, wanted: EegInput, montage: Montage) -> EegStream:
    """Send all that was heard through a session's own chain, and return it.

    Raises
    ------
    GeometryError
        If the stream lacks the bundle's channels, or does not send at its rate.
    """
    tr_s = None if bundle.manifest.grid.tr is None else float(bundle.manifest.grid.tr)
    chain = EegStream(wanted, bundle.stats, montage, keep_s=_KEEP_S, tr_s=tr_s)
    for item in heard.items:
        if isinstance(item, Trigger):
            chain.trigger(item.stamp, arrived_at=item.arrived_at)
        else:
            chain.push(without_holes(item))
    return chain


def without_holes(chunk: EegChunk) -> EegChunk:
    """Put zeros in place of values that are no measurement, so that the other channels can be judged."""
    holes = plausible.eeg_holes(chunk.data)
    return chunk if holes is None else replace(chunk, data=np.where(holes, np.float32(0), chunk.data))


def _bad(subject: str, sentence: str) -> Finding:
    """Make a finding from a sentence that ends, after a colon, with what to do."""
    found, _, advice = sentence.rpartition(": ")
    return Finding(subject, "bad", found, advice)


def listed(names: list[str] | tuple[str, ...]) -> str:
    """Name the first few channels, and say how many more there are."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
