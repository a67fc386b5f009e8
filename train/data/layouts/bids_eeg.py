"""The EEG of a run's file, through the chain of a session: artefacts removed, filtered, cut into windows.

`eeg_montage` reads which channels there are, and `eeg_windows` the samples. Files are BrainVision, EDF, BDF
or EEGLAB, read by MNE-Python. Nothing in a window depends on a later sample.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode.bundle import EegInput
from rtdecode.eeg import channels
from rtdecode.eeg.file_units import microvolts_of
from rtdecode.eeg.mne_file import open_file
from rtdecode.eeg.stream import EegStream
from rtdecode.errors import GeometryError, UsageError
from rtdecode.signal.eeg.band import EegBand
from rtdecode.types import EegChunk, Montage

# A volume trigger as BrainVision amplifiers write it.
TRIGGER = "R128"
# Rate of the windows, Hz, and their pass band: those of the recipe `compact`.
SFREQ = 125.0
BAND = EegBand()
# The chain takes the samples in chunks of so long, s. Windows do not depend on it.
_CHUNK_S = 0.2
# What the chain remembers beyond a window, s: artefacts are removed with a delay.
_KEEP_S = 30.0
# EEG that stands still for so long in all channels was not measured, s, and so many samples.
_STILL_S = 0.05
_LEAST_STILL = 5
# By how much, as a share of the TR, the time between volume triggers may differ from it: the amplifier has a
# clock of its own.
_TR_TOLERANCE = 0.01


def eeg_montage(path: Path) -> Montage:
    """Read the channels of a file.

    Raises
    ------
    UsageError
        If the file cannot be read, has no EEG, or MNE-Python is not installed.
    """
    raw = open_file(path, "bids")
    labels = channels.names(raw.ch_names)
    kinds = tuple(channels.kind_of(label) for label in labels)
    if "eeg" not in kinds:
        raise UsageError(
            "eeg-no-channel",
            "{path} has no EEG channel; it has {channels}. Leave it out with eeg=False.",
            path=path,
            channels=list(labels),
        )
    # The reference is the same for all channels, whatever it is: the chain subtracts their mean.
    return Montage(labels, float(raw.info["sfreq"]), kinds=kinds)


def check_caps(paths: Sequence[Path], channel_names: Sequence[str]) -> None:
    """Refuse files of several caps: a session interpolates a few channels, and so does the chain here.

    Parameters
    ----------
    paths : sequence of Path
        EEG files of the runs.
    channel_names : sequence of str
        The channels that are read of all of them.

    Raises
    ------
    UsageError
        If a file has another cap, or cannot be read.
    """
    for path in paths:
        try:
            channels.match(channel_names, eeg_montage(path))
        except GeometryError as error:
            raise UsageError(
                "runs-montage-mismatch",
                "{path} was recorded with another cap than {first_path}: {error}",
                path=path,
                first_path=paths[0],
                error=error,
            ) from error


def eeg_windows(
    path: Path,
    channel_names: Sequence[str],
    starts_s: NDArray[np.float64],
    window_s: float,
    tr_s: float,
    sfreq: float = SFREQ,
    band: EegBand = BAND,
    trigger: str = TRIGGER,
    dummies: int = 0,
) -> NDArray[np.float32]:
    """Run a file through the chain of a session and cut windows.

    Parameters
    ----------
    path : Path
        The EEG file of the run.
    channel_names : sequence of str
        Names of the channels, in the order of the result.
    starts_s : (window,)
        Starts on the run's time line, ascending, s. Its zero is the first volume trigger after the dummies.
    window_s, tr_s : float
        Length of a window, and time between volumes, s.
    sfreq : float
        Sampling rate of the windows, Hz.
    band : EegBand
        Pass band that the EEG is filtered to.
    trigger : str
        Text of a volume trigger.
    dummies : int
        Number of volumes at the beginning that were scanned and are not in the file.

    Returns
    -------
    float32, (window, channel, sample)
        Microvolts. Samples that were lost, or from which gradients could not be removed, are zero, as are
        those at which all EEG of the file stands still.

    Raises
    ------
    UsageError
        If the file has no volume triggers, has others than one in every TR, lacks channels, or states units
        that are not known.
    """
    raw = open_file(path, "bids")
    trigger_s = _triggers(raw, trigger)
    if len(trigger_s) <= dummies:
        texts = ", ".join(sorted({str(text) for text in raw.annotations.description})) or "none"
        raise UsageError(
            "volume-trigger-missing",
            "{path} has no volume trigger {trigger}, so it is not known when the film began; its "
            "markers are {markers}. Give the trigger's text, or leave the EEG out with eeg=False.",
            path=path,
            trigger=trigger,
            markers=texts,
        )
    every_s = float(np.median(np.diff(trigger_s))) if len(trigger_s) > 1 else tr_s
    if abs(every_s - tr_s) > _TR_TOLERANCE * tr_s:
        raise UsageError(
            "volume-trigger-tr-mismatch",
            "{path} has the trigger {trigger} every {interval_s:g} s, and the TR is {tr_s:g} s. Give "
            "the text of the triggers that mark volumes.",
            path=path,
            trigger=trigger,
            interval_s=every_s,
            tr_s=tr_s,
        )
    montage = eeg_montage(path)
    scale = microvolts_of(path, raw, montage.kinds)[:, None]
    still = Standstill([n for n, kind in enumerate(montage.kinds) if kind == "eeg"], montage.sfreq)
    read = EegInput(list(channel_names), montage.reference, "microvolts", band)
    # The units stay as they are.
    stats = {"eeg_mean": np.zeros(len(channel_names)), "eeg_scale": np.ones(len(channel_names))}
    times = trigger_s[dummies] + starts_s[:, None] + np.arange(round(window_s * sfreq)) / sfreq
    cut = np.zeros((len(times), len(channel_names), times.shape[1]), np.float32)
    try:
        stream = EegStream(read, stats, montage, window_s + _KEEP_S, tr_s=tr_s)
        done = 0
        for _ in _played(raw, scale, still, trigger_s, stream):
            # A window is read as soon as all of it is clean, before its samples are forgotten.
            while done < len(times) and stream.newest >= times[done, -1]:
                _read(stream, times[done], cut[done])
                done += 1
        for n in range(done, len(times)):
            _read(stream, times[n], cut[n])
    except GeometryError as error:
        raise UsageError("eeg-geometry-mismatch", "{path}: {error}", path=path, error=error) from error
    return cut


class Standstill:
    """Find samples that were filled in and not measured: for a while no EEG channel has changed.

    Whether a sample is one depends on it and on those before it.

    Parameters
    ----------
    rows : sequence of int
        The EEG channels.
    sfreq : float
        Sampling rate, Hz.
    """

    def __init__(self, rows: Sequence[int], sfreq: float) -> None:
        self._rows = list(rows)
        self._least = max(_LEAST_STILL, round(_STILL_S * sfreq))
        self._before: NDArray[np.floating[Any]] | None = None
        # Samples since the last one at which a channel changed.
        self._run = 0

    def push(self, data: NDArray[np.floating[Any]]) -> NDArray[np.bool_]:
        """Take the next samples (channel, sample); return which of them are filled in, (sample,)."""
        eeg = data[self._rows]
        before = eeg[:, :1] + 1 if self._before is None else self._before
        changed = (np.diff(eeg, axis=1, prepend=before) != 0).any(axis=0)
        self._before = eeg[:, -1:].copy()
        places = np.arange(len(changed))
        newest = np.maximum.accumulate(np.where(changed, places, -1 - self._run))
        runs = places - newest
        self._run = int(runs[-1])
        return runs >= self._least


def _read(stream: EegStream, times: NDArray[np.float64], into: NDArray[np.float32]) -> None:
    span = stream.read(times)
    if span.values is not None:
        into[:] = span.values


def _played(
    raw: Any,
    scale: NDArray[np.float64],
    still: "Standstill",
    triggers: NDArray[np.float64],
    stream: EegStream,
) -> Iterator[None]:
    """Hand a file to the stream chunk by chunk, with the triggers as they would have arrived.

    `scale` (channel, 1) makes microvolts of what is read. Samples at which all EEG stands still are holes.
    """
    sfreq = float(raw.info["sfreq"])
    length = max(1, round(_CHUNK_S * sfreq))
    sent = 0
    for first in range(0, raw.n_times, length):
        stop = min(first + length, raw.n_times)
        stamps = np.arange(first, stop) / sfreq
        arrived_at = stop / sfreq
        while sent < len(triggers) and triggers[sent] <= arrived_at:
            stream.trigger(float(triggers[sent]))
            sent += 1
        data = raw.get_data(start=first, stop=stop) * scale
        data[:, still.push(data)] = np.nan
        stream.push(EegChunk(data.astype(np.float32), stamps, arrived_at))
        yield


def _triggers(raw: Any, trigger: str) -> NDArray[np.float64]:
    """Return the times of the volume triggers, s after the first sample."""
    notes = raw.annotations
    # BrainVision puts the kind of marker before its text: "Response/R128".
    is_trigger = [str(text).rpartition("/")[2].strip() == trigger for text in notes.description]
    return np.sort(np.asarray(notes.onset, np.float64)[is_trigger])
