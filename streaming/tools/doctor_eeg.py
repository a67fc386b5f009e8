"""Judge an EEG stream against a bundle: a part of ``rtdecode doctor``.

`listen` takes what the stream sends for some seconds, until the filters of a session have settled. `findings`
then judges cap, rate, unit, values, triggers and level by the limits and the chain that a session uses.
"""

import time
from dataclasses import replace

import numpy as np

from rtdecode.bundle import Bundle, EegInput
from rtdecode.eeg import channels
from rtdecode.eeg.cleaner import MOST_HZ
from rtdecode.eeg.stream import EegStream
from rtdecode.errors import GeometryError
from rtdecode.signal import plausible
from rtdecode.signal.eeg.band import EegBand
from rtdecode.types import EegChunk, Montage, Trigger
from streaming.checks import signals, table
from streaming.checks.eeg_capture import EegCapture
from streaming.checks.finding import BAD, NOTE, OK, Finding, counted, implausible, joined, listed
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


def judge(lsl: str, bundle: Bundle, listen_s: float = 0.0) -> tuple[list[Finding], EegCapture | None]:
    """Listen to a stream as a session would, and judge it against a bundle.

    Parameters
    ----------
    lsl : str
        Name, type or source id of the stream.
    listen_s : float
        Listen for so long at least, s.

    Returns
    -------
    list of Finding
    Heard or None
        What came; None if the bundle reads no EEG, or the stream carries no usable EEG.
    """
    eeg_input = bundle.manifest.eeg
    if eeg_input is None:
        name = bundle.manifest.name
        return [table.SOURCE_UNREAD.find(subject="cap", bundle=name, modality="EEG", option="--lsl")], None
    try:
        capture = listen(lsl, eeg_input.band, listen_s)
    except GeometryError as error:
        return [Finding("cap", BAD, str(error), "set the stream right in the amplifier's program")], None
    return findings(capture, bundle, eeg_input), capture


def listen(lsl: str, band: EegBand, listen_s: float = 0.0) -> EegCapture:
    """Take what a stream sends until a session's filters have settled and some seconds more, or longer.

    Parameters
    ----------
    lsl : str
        Name, type or source id of the stream.
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
    has_samples = False
    try:
        while time.monotonic() < until:
            items += source.poll()
            if not has_samples and any(isinstance(item, EegChunk) for item in items):
                has_samples = True
                # A chain thins every stream to this rate at most, so the filters settle at it.
                until = time.monotonic() + max(band.settling_s(MOST_HZ) + _JUDGED_S, listen_s)
            time.sleep(_POLL_S)
        return EegCapture(
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


def findings(capture: EegCapture, bundle: Bundle, eeg_input: EegInput) -> list[Finding]:
    """Judge what was heard against what the bundle reads."""
    if capture.montage is None or not capture.chunks:
        return [table.NO_SAMPLE.find(source=capture.state)]
    cap_fits = cap(eeg_input, capture.montage)
    rate = _rate(capture, capture.montage, float(bundle.manifest.grid.sfreq), eeg_input.band)
    triggers = (table.TRIGGER_LINE if capture.has_triggers else table.NO_TRIGGER_LINE).find()
    judgements = [cap_fits, rate, _unit(capture), _samples(capture, eeg_input, capture.montage), triggers]
    if capture.stamps:
        observation, _, advice = capture.stamps.rpartition(". ")
        judgements.append(Finding("stamps", NOTE, observation, advice))
    # With a cap or a rate that does not fit, a session's chain gives no level to judge.
    if cap_fits.state != BAD and rate.state != BAD:
        judgements.append(_level(capture, bundle, eeg_input, capture.montage))
    return judgements


def cap(eeg_input: EegInput, montage: Montage) -> Finding:
    """Judge whether a cap has the channels that a bundle reads."""
    try:
        picks, absent = channels.match(eeg_input.channels, montage)
    except GeometryError as error:
        return table.OTHER_CAP.find(error=error)
    values = {"present": len(picks) - len(absent), "channels": len(picks), "absent": absent}
    return (table.CAP_LACKS if absent else table.CAP).find(**values)


def _rate(capture: EegCapture, montage: Montage, grid_hz: float, band: EegBand) -> Finding:
    span_s = capture.chunks[-1].arrived_at - capture.chunks[0].arrived_at
    # Leave out the first chunk: some of it was gathered before anybody listened.
    samples = sum(chunk.data.shape[1] for chunk in capture.chunks[1:])
    if span_s < _LEAST_S:
        sentence = f"{counted(samples, 'sample')} came in {span_s:.1f} s, and no more after that"
        return Finding("rate", BAD, sentence, "see rtdecode eeg, and the amplifier's connection")
    measured_hz = samples / span_s
    fault = plausible.declared_rate(montage.sfreq, measured_hz, span_s)
    fault = fault or plausible.bundle_rate(montage.sfreq, grid_hz, band)
    if fault is not None:
        return implausible("rate", fault)
    sentence = f"{measured_hz:.0f} samples a second over {span_s:.1f} s, {montage.sfreq:g} declared"
    return Finding("rate", OK, sentence)


def _unit(capture: EegCapture) -> Finding:
    if capture.notes:
        return Finding("unit", NOTE, "; ".join(capture.notes), "set it in the amplifier's LSL program")
    return Finding("unit", OK, "stated by the stream, read as microvolts")


def _samples(capture: EegCapture, eeg_input: EegInput, montage: Montage) -> Finding:
    """Judge whether the channels that the bundle reads hold measurements."""
    read = {channels.canonical(name) for name in eeg_input.channels}
    rows = [i for i, name in enumerate(montage.channels) if channels.canonical(name) in read]
    data = np.concatenate([chunk.data[rows] for chunk in capture.chunks], axis=1)
    holes = plausible.eeg_holes(data)
    if holes is None:
        return Finding("samples", OK, f"{counted(data.shape[1], 'sample')}, all of them finite")
    shares = holes.mean(axis=1)
    names = [montage.channels[row] for row, share in zip(rows, shares, strict=True) if share]
    sentence = (
        f"{shares.max():.0%} of the samples are not measurements (not finite, or beyond "
        f"{plausible.EEG_LIMIT_UV:g} uV) in {counted(len(names), 'channel')}: {listed(names)}"
    )
    return Finding("samples", BAD, sentence, "check the electrodes, the amplifier and its LSL program")


def _level(capture: EegCapture, bundle: Bundle, eeg_input: EegInput, montage: Montage) -> Finding:
    """Judge the level by a session's own chain, which interpolates bad channels."""
    chain = played(capture, bundle, eeg_input, montage)
    bad_channels = signals.bad_channels(chain.report())
    if bad_channels is not None and bad_channels.state == BAD:
        return replace(bad_channels, subject="level")
    rate_hz = float(bundle.manifest.grid.sfreq)
    span = chain.read(chain.newest - np.arange(int(_JUDGED_S * rate_hz))[::-1] / rate_hz)
    # Reading a span is what judges its level, so notes are asked for afterwards.
    if faults := chain.notes():
        # A second sentence says what a session does with such windows.
        return implausible("level", faults[0].partition(". ")[0])
    if span.values is None or span.mask.sum() < _LEAST_S * rate_hz:
        sentence = "too little of it could be corrected to judge its level"
        return Finding("level", NOTE, sentence, "look again while the scanner rests")
    spread_uv = span.values[:, span.mask].std(axis=1) * bundle.stats["eeg_scale"]
    level = Finding("level", OK, f"{np.median(spread_uv):.1f} uV in the bundle's band")
    return level if bad_channels is None else joined("level", [level, bad_channels], "; ")


def played(capture: EegCapture, bundle: Bundle, eeg_input: EegInput, montage: Montage) -> EegStream:
    """Send all that was heard through a session's own chain, and return it.

    Raises
    ------
    GeometryError
        If the stream lacks the bundle's channels, or does not send at its rate.
    """
    tr_s = None if bundle.manifest.grid.tr is None else float(bundle.manifest.grid.tr)
    chain = EegStream(eeg_input, bundle.stats, montage, keep_s=_KEEP_S, tr_s=tr_s)
    for item in capture.items:
        if isinstance(item, Trigger):
            chain.trigger(item.stamp, arrived_at=item.arrived_at)
        else:
            chain.push(without_holes(item))
    return chain


def without_holes(chunk: EegChunk) -> EegChunk:
    """Put zeros in place of values that are no measurement, so that the other channels can be judged."""
    holes = plausible.eeg_holes(chunk.data)
    return chunk if holes is None else replace(chunk, data=np.where(holes, np.float32(0), chunk.data))
