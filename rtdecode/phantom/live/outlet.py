"""Open the simulated amplifier's LSL streams: EEG, and the markers of its volume triggers."""

import numpy as np

from rtdecode.liblsl import pylsl
from rtdecode.phantom.body import delivery_faults as damage
from rtdecode.phantom.body import eeg_faults
from rtdecode.phantom.session import PhantomSession
from rtdecode.types import Float

_TYPES = {"eeg": "EEG", "ecg": "ECG", "reference": "REF"}


class EegOutlet:
    """The EEG stream, with the faults of the session.

    Parameters
    ----------
    session : PhantomSession
        The session whose EEG is sent.
    name : str
        Name of the stream.
    """

    def __init__(self, session: PhantomSession, name: str) -> None:
        self._session = session
        self._name = name
        self._away = eeg_faults.restarts(session.faults)
        self._source = _source(name)
        self._opened = 0
        self._outlet: pylsl.StreamOutlet | None = self._open()

    def have_consumers(self) -> bool:
        """Return whether anybody reads the stream."""
        return self._outlet is not None and self._outlet.have_consumers()

    def push(self, data: Float, first: int, trigger_at: float) -> None:
        """Send a chunk, (channel, sample), that begins at sample `first`, without the samples that are lost.

        Parameters
        ----------
        data : float32, (channel, sample)
            The chunk, microvolts.
        first : int
            Number of the first sample.
        trigger_at : float
            Start of the first volume; local clock, s.
        """
        times = self._session.sample_times(first, data.shape[1])
        self._restart(float(times[-1]))
        arrives = damage.received(self._session.faults, times)
        if self._outlet is not None and arrives.any():
            stamps = trigger_at + self._session.stamps(first, times)[arrives]
            self._outlet.push_chunk(np.ascontiguousarray(data[:, arrives].T), stamps.tolist())

    def _restart(self, now_s: float) -> None:
        if not self._away or now_s < self._away[0][0]:
            return
        self._outlet = None  # the stream ends with the object
        _, stop, same = self._away[0]
        if now_s >= stop:
            self._away.pop(0)
            # Another source id makes it another device: the library's own recovery would not find it.
            self._opened += not same
            self._outlet = self._open()

    def _open(self) -> pylsl.StreamOutlet:
        montage = self._session.montage
        source = self._source + f"-{self._opened}" * (self._opened > 0)
        count = len(montage.channels)
        info = pylsl.StreamInfo(self._name, "EEG", count, montage.sfreq, pylsl.cf_float32, source)
        info.desc().append_child_value("manufacturer", "rtdecode phantom (simulated)")
        info.desc().append_child("reference").append_child_value("label", montage.reference)
        channels = info.desc().append_child("channels")
        for label, kind in zip(montage.channels, montage.kinds, strict=True):
            channel = channels.append_child("channel")
            for key, value in (("label", label), ("unit", "microvolts"), ("type", _TYPES[kind])):
                channel.append_child_value(key, value)
        return pylsl.StreamOutlet(info)


def marker_outlet(name: str) -> pylsl.StreamOutlet:
    """Open the stream of the volume triggers, ``NAME-markers``."""
    source = f"{_source(name)}-markers"
    return pylsl.StreamOutlet(
        pylsl.StreamInfo(f"{name}-markers", "Markers", 1, pylsl.IRREGULAR_RATE, pylsl.cf_string, source)
    )


def _source(name: str) -> str:
    return f"rtdecode-phantom-{name}"
